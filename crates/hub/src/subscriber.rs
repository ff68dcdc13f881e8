//! One subscription on its shard, and how something told to its channel goes into its connection's outbox.

use std::sync::Arc;

use bytes::Bytes;
use talewire_proto::filter::Filter;
use talewire_proto::wire::Wire;
use talewire_proto::{ByChannel, Channel, ClientId, Namespace, Publication};

use crate::batches::Batch;
use crate::fanout::{Fanout, What};
use crate::marks::{IdWriter, Marks};
use crate::node::Hub;
use crate::outbox::Outbox;
use crate::queue::{ShardCounters, Ticket};
use crate::shard::ConnectionKey;
use crate::waiting::{Keys, Put, Waiting};

/// A channel's subscribers on one shard.
pub(crate) struct Local {
    pub(crate) rules: Arc<Namespace>,
    pub(crate) subscribers: Vec<Subscriber>,
    /// What is gathered to be told together.
    pub(crate) batch: Batch,
}

pub(crate) struct Subscriber {
    pub(crate) connection: ConnectionKey,
    /// When it joined. No other subscription has the same.
    pub(crate) ticket: Ticket,
    /// The offset that comes next; unused where there are no offsets.
    pub(crate) next: u64,
    pub(crate) mode: Mode,
    pub(crate) join_leave: bool,
    /// What is kept from it; nothing for most.
    pub(crate) picky: Option<Box<Picky>>,
}

/// What a subscriber wants to hear of a channel.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Who comes and goes.
    pub join_leave: bool,
    /// Only publications that this lets through.
    pub filter: Option<Arc<Filter>>,
    /// Nothing that this connection, its own, has published.
    pub deaf_to: Option<ClientId>,
}

/// The part of an [`Interest`] that is rare.
pub(crate) struct Picky {
    pub(crate) filter: Option<Arc<Filter>>,
    deaf_to: Option<ClientId>,
}

impl Interest {
    /// Whether a publication is heard.
    #[must_use]
    pub fn hears(&self, publication: &Publication) -> bool {
        hears(self.filter.as_deref(), self.deaf_to.as_ref(), publication)
    }

    pub(crate) fn picky(self) -> Option<Box<Picky>> {
        let Self { filter, deaf_to, .. } = self;
        (filter.is_some() || deaf_to.is_some()).then(|| Box::new(Picky { filter, deaf_to }))
    }
}

impl Picky {
    pub(crate) fn hears(&self, publication: &Publication) -> bool {
        hears(self.filter.as_deref(), self.deaf_to.as_ref(), publication)
    }
}

fn hears(filter: Option<&Filter>, deaf_to: Option<&ClientId>, publication: &Publication) -> bool {
    let own = deaf_to.is_some() && publication.info.as_ref().is_some_and(|info| info.client.as_ref() == deaf_to);
    !own && filter.is_none_or(|filter| filter.lets_through(&publication.tags))
}

pub(crate) enum Mode {
    /// Gets what comes.
    Live,
    /// Missed something; catches up when its outbox has room.
    Behind,
    /// Its history is read before its first reply; what comes meanwhile is held.
    Joining(Box<Held>),
    /// What it missed is being read; what comes meanwhile is held.
    CatchingUp(Box<Held>),
    /// Cannot go on without a gap and gets nothing more: it is about to be unsubscribed.
    Broken,
}

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) fanouts: Vec<Arc<Fanout>>,
    /// More came than is held: read history again.
    pub(crate) overflowed: bool,
    /// The history was broken off before the subscription stood. Told once it does: nobody would take it earlier.
    pub(crate) broken: bool,
}

pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    /// Where this connection stands in each channel's list of subscribers.
    pub(crate) places: ByChannel<usize>,
    pub(crate) dirty: bool,
    /// Some subscription waits for room.
    pub(crate) behind: bool,
    pub(crate) overfull: bool,
    /// Signals that wait for room; never empty.
    pub(crate) waiting: Option<Box<Waiting>>,
    /// Where a reader without a protocol stands.
    pub(crate) marks: Option<Box<Marks>>,
}

impl Connection {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            outbox: Outbox::new(wire),
            places: ByChannel::default(),
            dirty: false,
            behind: false,
            overfull: false,
            waiting: None,
            marks: wire.is_plain().then(Box::default),
        }
    }

    /// Puts a fan-out into the outbox: the bytes that all share, after the id of a reader who has one of its own.
    pub(crate) fn put(&mut self, fanout: &Fanout, hub: &Hub, ids: &IdWriter, now_ms: u64) {
        let wire = self.outbox.wire();
        if let (Some(marks), What::Entry(entry, _)) = (&mut self.marks, &fanout.what) {
            marks.advance(&fanout.channel, entry.offset);
            let id = if matches!(wire, Wire::EventsOfMany(_)) { marks.id_line(wire, ids) } else { Bytes::new() };
            if !id.is_empty() {
                self.outbox.push(id, now_ms);
            }
        }
        self.outbox.push(fanout.bytes(wire, hub.compression()), now_ms);
    }

    /// Moves signals that wait into the outbox, as many as its budget has room for. Says how many.
    pub(crate) fn flow(&mut self, hub: &Hub, ids: &IdWriter, now_ms: u64) -> u64 {
        let budget = hub.settings().outbox_bytes_max;
        let mut flowed = 0;
        while !self.overfull && self.outbox.bytes() <= budget {
            let Some(waiting) = &mut self.waiting else { break };
            let signal = waiting.take();
            if waiting.is_empty() {
                self.waiting = None;
            }
            if let Some(signal) = signal {
                self.put(&signal, hub, ids, now_ms);
                flowed += 1;
            }
        }
        flowed
    }

    /// Notes an entry that is kept from the reader: its position moves all the same.
    pub(crate) fn hide(&mut self, channel: &Channel, offset: u64) {
        if let Some(marks) = &mut self.marks {
            marks.hide(channel, offset);
        }
    }
}

/// Tells subscribers, and what that came to: counted once per publication instead of once per subscriber.
pub(crate) struct Told<'a> {
    hub: &'a Hub,
    ids: &'a IdWriter,
    now_ms: u64,
    /// Which tag names the key of a signal, if they have one.
    keys: Option<(&'a Keys, &'a str)>,
    delivered: u64,
    dropped: u64,
    conflated: u64,
    behind: u64,
}

impl<'a> Told<'a> {
    pub(crate) fn new(hub: &'a Hub, ids: &'a IdWriter, now_ms: u64) -> Self {
        Self { hub, ids, now_ms, keys: None, delivered: 0, dropped: 0, conflated: 0, behind: 0 }
    }

    /// Lets signals that wait take each other's place as the rules of their channel say.
    pub(crate) fn conflate(&mut self, keys: &'a Keys, rules: &'a Namespace) {
        self.keys = rules.conflation_key.as_deref().map(|tag| (keys, tag));
    }

    /// Puts a fan-out into one outbox as its kind demands. Says whether the outbox has something new to write.
    pub(crate) fn tell(
        &mut self,
        subscriber: &mut Subscriber,
        connection: &mut Connection,
        fanout: &Arc<Fanout>,
    ) -> bool {
        let settings = self.hub.settings();
        let offset = match &fanout.what {
            What::Join(_) | What::Leave(_) if !subscriber.join_leave => return false,
            What::Entry(entry, _) => Some(entry.offset),
            What::Join(_) | What::Leave(_) | What::Signal(_) | What::Generation(_) => None,
        };
        if fanout.is_before(subscriber.ticket) {
            // It is in what the subscriber has read, or was a signal to others.
            return false;
        }
        match &mut subscriber.mode {
            Mode::Live => {}
            Mode::Behind | Mode::Broken => {
                self.dropped += u64::from(offset.is_none());
                return false;
            }
            Mode::Joining(held) | Mode::CatchingUp(held) => {
                if held.fanouts.len() < settings.joining_held_max {
                    held.fanouts.push(fanout.clone());
                } else {
                    self.dropped += u64::from(offset.is_none());
                    held.overflowed = true;
                }
                return false;
            }
        }
        if let Some(offset) = offset {
            let is_beyond = fanout.is_beyond(subscriber.ticket);
            if offset < subscriber.next && !is_beyond {
                return false;
            }
            if offset != subscriber.next || is_beyond {
                return self.fell_behind(subscriber, connection);
            }
        }
        if let Some(picky) = &subscriber.picky
            && fanout.publication().is_some_and(|publication| !picky.hears(publication))
        {
            if let Some(offset) = offset {
                subscriber.next += 1;
                connection.hide(&fanout.channel, offset);
            }
            return false;
        }
        let is_full =
            |connection: &Connection| connection.overfull || connection.outbox.bytes() > settings.outbox_bytes_max;
        match fanout.what {
            What::Entry(..) if is_full(connection) => return self.fell_behind(subscriber, connection),
            What::Generation(_) if is_full(connection) => {
                self.dropped += 1;
                return self.fell_behind(subscriber, connection);
            }
            What::Signal(_) | What::Join(_) | What::Leave(_) if connection.waiting.is_some() || is_full(connection) => {
                // What waits goes first, or this would overtake it.
                let flowed = connection.flow(self.hub, self.ids, self.now_ms);
                self.delivered += flowed;
                if connection.waiting.is_some() || is_full(connection) {
                    self.wait(connection, fanout);
                    return flowed > 0;
                }
            }
            What::Entry(..) | What::Generation(_) | What::Signal(_) | What::Join(_) | What::Leave(_) => {}
        }
        connection.put(fanout, self.hub, self.ids, self.now_ms);
        subscriber.next += u64::from(offset.is_some());
        self.delivered += 1;
        true
    }

    /// Lets a signal wait until the outbox has room.
    fn wait(&mut self, connection: &mut Connection, fanout: &Arc<Fanout>) {
        let max = self.hub.settings().signals_waiting_max;
        if connection.overfull || max == 0 {
            self.dropped += 1;
            return;
        }
        let key = self.keys.and_then(|(keys, tag)| keys.of(fanout, tag));
        match connection.waiting.get_or_insert_default().put(key, fanout, max) {
            Put::Added => {}
            Put::Conflated => self.conflated += 1,
            Put::Dropped => self.dropped += 1,
        }
    }

    /// Moves signals that wait into an outbox that has room again. Says whether there was any.
    pub(crate) fn flow(&mut self, connection: &mut Connection) -> bool {
        let flowed = connection.flow(self.hub, self.ids, self.now_ms);
        self.delivered += flowed;
        flowed > 0
    }

    /// Whether anybody got it.
    pub(crate) fn any(&self) -> bool {
        self.delivered > 0
    }

    /// Marked as dirty too, so that a connection whose outbox is already empty is looked at.
    fn fell_behind(&mut self, subscriber: &mut Subscriber, connection: &mut Connection) -> bool {
        subscriber.mode = Mode::Behind;
        connection.behind = true;
        self.behind += 1;
        true
    }

    pub(crate) fn count(&self, counters: &ShardCounters) {
        ShardCounters::add(&counters.deliveries, self.delivered);
        if self.dropped > 0 {
            ShardCounters::add(&counters.dropped, self.dropped);
        }
        if self.conflated > 0 {
            ShardCounters::add(&counters.conflated, self.conflated);
        }
        if self.behind > 0 {
            ShardCounters::add(&counters.behind, self.behind);
        }
    }
}
