//! The way into a shard: a bounded queue that any thread fills and the shard's own thread empties.
//!
//! Filling it never blocks. What does not fit is not forgotten: the channel is noted as missed, and its subscribers on
//! the shard catch up from history.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use talewire_proto::Channel;
use tokio::sync::Notify;

use crate::fanout::{Fanout, What};

/// The order of joins and restarts on one node: what has the higher ticket came later.
pub(crate) type Ticket = u64;

/// Something for a shard.
#[derive(Clone)]
pub enum ShardMessage {
    /// To be told to subscribers.
    Deliver(Arc<Fanout>),
    /// The channel's history was broken off: whoever subscribed before `at` must subscribe again.
    Reset {
        /// Which channel.
        channel: Channel,
        /// When, in the order of this node's joins and restarts.
        at: Ticket,
    },
    /// Deliveries were dropped: the channel's subscribers on this shard catch up.
    Missed(Channel),
}

/// What a shard has done, for metrics. Each shard counts by itself, so that counting costs no cache line of another.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Frames put into outboxes by fan-out.
    pub deliveries: AtomicU64,
    /// Signals and deltas dropped for slow readers, and for a full queue.
    pub dropped: AtomicU64,
    /// Signals whose place a newer one with the same key took before a slow reader had room for them.
    pub conflated: AtomicU64,
    /// Batches of gathered publications that were told.
    pub batches: AtomicU64,
    /// Subscriptions that fell behind.
    pub behind: AtomicU64,
    /// Subscriptions that caught up from history.
    pub caught_up: AtomicU64,
    /// Subscriptions that were told to subscribe again.
    pub reset: AtomicU64,
    /// Times that a subscription may have missed signals, which nobody can give it any more.
    pub signals_missed: AtomicU64,
    /// Subscriptions that stand now.
    pub subscriptions: AtomicU64,
}

impl ShardCounters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// A shard's queue.
pub struct ShardQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    max: usize,
    /// What the shard has done.
    pub counters: ShardCounters,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<ShardMessage>,
    missed: HashSet<Channel>,
    /// Messages that are taken before `missed` is told: those that were waiting when the first was dropped. Were it told
    /// after all messages, a queue that is never empty would never tell it.
    missed_after: usize,
}

impl ShardQueue {
    /// A queue for at most `max` messages.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), max: max.max(1), counters: ShardCounters::default() }
    }

    /// Puts a message in, or notes that its channel missed one.
    pub fn push(&self, message: ShardMessage) {
        let mut waiting = self.waiting.lock();
        if waiting.messages.len() < self.max {
            waiting.messages.push_back(message);
        } else {
            let channel = match message {
                ShardMessage::Deliver(fanout) => {
                    if !matches!(fanout.what, What::Entry(..)) {
                        ShardCounters::add(&self.counters.dropped, 1);
                    }
                    fanout.channel.clone()
                }
                ShardMessage::Reset { channel, .. } | ShardMessage::Missed(channel) => channel,
            };
            if waiting.missed.is_empty() {
                waiting.missed_after = waiting.messages.len();
            }
            waiting.missed.insert(channel);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// Messages that wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.waiting.lock().messages.len()
    }

    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes up to `most` messages into `into`; whatever was missed comes after the messages that were waiting then.
    /// Says whether more is waiting.
    pub fn take(&self, into: &mut Vec<ShardMessage>, most: usize) -> bool {
        let mut waiting = self.waiting.lock();
        let n = waiting.messages.len().min(most);
        into.extend(waiting.messages.drain(..n));
        waiting.missed_after = waiting.missed_after.saturating_sub(n);
        if waiting.missed_after == 0 {
            into.extend(waiting.missed.drain().map(ShardMessage::Missed));
        }
        !waiting.messages.is_empty()
    }
}
