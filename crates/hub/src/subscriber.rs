//! One subscription on its shard, and how something told to its channel goes into its connection's outbox.

use std::collections::HashMap;
use std::sync::Arc;

use talewire_proto::{Channel, Namespace};

use crate::fanout::{Fanout, What};
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
}

/// What telling subscribers came to, counted once per publication instead of once per subscriber.
#[derive(Default)]
pub(crate) struct Told {
    delivered: u64,
    dropped: u64,
    behind: u64,
}

impl Told {
    /// Puts a fan-out into one outbox as its kind demands. Says whether the outbox has something new to write.
    pub(crate) fn tell(
        &mut self,
        subscriber: &mut Subscriber,
        connection: &mut Connection,
        fanout: &Arc<Fanout>,
        settings: &HubSettings,
        now_ms: u64,
    ) -> bool {
        let offset = match &fanout.what {
            What::Join(_) | What::Leave(_) if !subscriber.join_leave => return false,
            What::Entry(entry) => Some(entry.offset),
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
        if connection.overfull || connection.outbox.bytes() > settings.outbox_bytes_max {
            return match fanout.what {
                What::Entry(_) => self.fell_behind(subscriber, connection),
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
        connection.outbox.push(fanout.bytes(connection.outbox.wire()), now_ms);
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
