//! One subscription on its shard, and how something told to its channel goes into its connection's outbox.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use talewire_proto::filter::Filter;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, ClientId, Namespace, Publication};

use crate::fanout::{Fanout, What};
use crate::marks::{IdWriter, Marks};
use crate::outbox::Outbox;
use crate::queue::{ShardCounters, Ticket};
use crate::settings::HubSettings;
use crate::shard::ConnectionKey;

/// A channel's subscribers on one shard.
pub(crate) struct Local {
    pub(crate) rules: Arc<Namespace>,
    pub(crate) subscribers: Vec<Subscriber>,
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
    pub(crate) places: HashMap<Channel, usize>,
    pub(crate) dirty: bool,
    /// Some subscription waits for room.
    pub(crate) behind: bool,
    pub(crate) overfull: bool,
    /// Where a reader without a protocol stands.
    pub(crate) marks: Option<Box<Marks>>,
}

impl Connection {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            outbox: Outbox::new(wire),
            places: HashMap::new(),
            dirty: false,
            behind: false,
            overfull: false,
            marks: wire.is_plain().then(Box::default),
        }
    }

    /// Puts a fan-out into the outbox: the bytes that all share, after the id of a reader who has one of its own.
    pub(crate) fn put(&mut self, fanout: &Fanout, ids: &IdWriter, now_ms: u64) {
        let wire = self.outbox.wire();
        if let (Some(marks), What::Entry(entry, _)) = (&mut self.marks, &fanout.what) {
            marks.advance(&fanout.channel, entry.offset);
            let id = if matches!(wire, Wire::EventsOfMany(_)) { marks.id_line(wire, ids) } else { Bytes::new() };
            if !id.is_empty() {
                self.outbox.push(id, now_ms);
            }
        }
        self.outbox.push(fanout.bytes(wire), now_ms);
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
    settings: &'a HubSettings,
    ids: &'a IdWriter,
    now_ms: u64,
    delivered: u64,
    dropped: u64,
    behind: u64,
}

impl<'a> Told<'a> {
    pub(crate) fn new(settings: &'a HubSettings, ids: &'a IdWriter, now_ms: u64) -> Self {
        Self { settings, ids, now_ms, delivered: 0, dropped: 0, behind: 0 }
    }

    /// Puts a fan-out into one outbox as its kind demands. Says whether the outbox has something new to write.
    pub(crate) fn tell(
        &mut self,
        subscriber: &mut Subscriber,
        connection: &mut Connection,
        fanout: &Arc<Fanout>,
    ) -> bool {
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
                if held.fanouts.len() < self.settings.joining_held_max {
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
        if connection.overfull || connection.outbox.bytes() > self.settings.outbox_bytes_max {
            return match fanout.what {
                What::Entry(..) => self.fell_behind(subscriber, connection),
                What::Generation(_) => {
                    self.dropped += 1;
                    self.fell_behind(subscriber, connection)
                }
                What::Signal(_) | What::Join(_) | What::Leave(_) => {
                    self.dropped += 1;
                    false
                }
            };
        }
        connection.put(fanout, self.ids, self.now_ms);
        subscriber.next += u64::from(offset.is_some());
        self.delivered += 1;
        true
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
        if self.behind > 0 {
            ShardCounters::add(&counters.behind, self.behind);
        }
    }
}
