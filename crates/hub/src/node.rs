//! The node's hub: which shards want which channel, and the one order in which entries go to them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use talewire_broker::{Broker, Delivery, Message};
use talewire_proto::compression::{Compression, Tally};
use talewire_proto::{Channel, Entry, Epoch, Kind, Namespace, Namespaces, Position};
use talewire_store::Store;

use crate::fanout::{Fanout, What};
use crate::queue::{ShardMessage, ShardQueue, Ticket};
use crate::reads::Reads;
use crate::recovery::Read;
use crate::repair::{HubParts, Repairs};
use crate::settings::HubSettings;

/// Locks over the table of channels. A power of two.
const STRIPES: usize = 64;

/// The hub of this node. A clone is a reference count.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    settings: HubSettings,
    compression: Compression,
    gzip: Arc<Tally>,
    store: Store,
    broker: Broker,
    shards: Vec<Arc<ShardQueue>>,
    stripes: Vec<Mutex<HashMap<Channel, Served>>>,
    hasher: RandomState,
    /// The last ticket that was given. Read and raised under the lock of a channel's stripe, which orders it for that channel.
    tickets: AtomicU64,
    repairs: Repairs,
    reads: Reads,
    doubts: AtomicU64,
}

/// A channel that somebody on this node is subscribed to.
struct Served {
    rules: Arc<Namespace>,
    /// Subscribers by shard.
    subscribers: Vec<u32>,
    /// When somebody first joined, or the history last began anew.
    since: Ticket,
    /// What this node has passed on, once it knows where the channel stands.
    followed: Option<Followed>,
    /// Entries that came before their predecessors, by offset. Each with its epoch, since none may be known yet.
    ahead: BTreeMap<u64, (Epoch, Arc<Entry>)>,
    /// The highest offset that was heard of: while it is not passed on, there is a gap.
    seen: u64,
    /// It may have grown unheard of, or its history may have been broken off.
    suspect: bool,
}

struct Followed {
    epoch: Epoch,
    /// The first offset that was, or will be, passed on since [`Served::since`].
    from: u64,
    next: u64,
}

impl Served {
    fn has_gap(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| self.suspect || followed.next <= self.seen)
    }
}

/// Where a channel stands on this node at one moment.
pub(crate) struct Look {
    /// When its history last began anew here; 0 if nobody is subscribed.
    pub(crate) since: Ticket,
    /// What was passed on, if it is followed and nothing speaks against its history.
    pub(crate) position: Option<Position>,
}

/// What a history read means for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observed {
    /// Everything after what was read is, or will be, told to whoever had joined before the read.
    Steady,
    /// The history was broken off: everybody is told.
    Restarted,
    /// It was read before something that was told to nobody: read again.
    Stale,
}

/// What is to be read to fill a gap.
pub(crate) struct Gap {
    pub(crate) rules: Arc<Namespace>,
    pub(crate) next: u64,
    since: Ticket,
    seen: u64,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({} shards)", self.inner.shards.len())
    }
}

impl Hub {
    /// A hub with as many shards as asked for, attached to the broker. [`HubParts::run`] must run for gaps to be repaired.
    #[must_use]
    pub fn assemble(settings: HubSettings, store: Store, broker: Broker, shards: usize) -> HubParts {
        let parts = Self::detached(settings, store, broker, shards);
        let weak = Arc::downgrade(&parts.hub.inner);
        parts.hub.inner.broker.deliver_to(Arc::new(move |delivery| {
            if let Some(inner) = weak.upgrade() {
                Self { inner }.deliver(delivery);
            }
        }));
        parts
    }

    /// A hub to which somebody else carries the broker's deliveries.
    pub(crate) fn detached(settings: HubSettings, store: Store, broker: Broker, shards: usize) -> HubParts {
        let queue = || Arc::new(ShardQueue::new(settings.shard_queue_max));
        let inner = Arc::new(Inner {
            shards: (0..shards.max(1)).map(|_| queue()).collect(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            tickets: AtomicU64::new(0),
            repairs: Repairs::new(settings.repairs_waiting_max),
            doubts: AtomicU64::new(0),
            reads: Reads::new(settings.reads_shared_max, settings.read_gather_ms),
            compression: Compression::new(settings.compress_bytes_min, settings.compress_bytes_max),
            gzip: Arc::default(),
            settings,
            store,
            broker,
        });
        HubParts { hub: Self { inner } }
    }

    /// The queues of the shards, in order.
    #[must_use]
    pub fn shards(&self) -> &[Arc<ShardQueue>] {
        &self.inner.shards
    }

    /// The limits.
    #[must_use]
    pub fn settings(&self) -> &HubSettings {
        &self.inner.settings
    }

    /// When WebSocket messages are compressed, and what came of it.
    #[must_use]
    pub fn compression(&self) -> &Compression {
        &self.inner.compression
    }

    /// What came of compressing streams.
    #[must_use]
    pub fn gzip(&self) -> &Arc<Tally> {
        &self.inner.gzip
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.inner.broker
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Channels that somebody on this node is subscribed to.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inner.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// Subscriptions of all connections on this node.
    #[must_use]
    pub fn subscriptions(&self) -> u64 {
        self.inner.shards.iter().map(|shard| shard.counters.subscriptions.load(Ordering::Relaxed)).sum()
    }

    /// Channels that somebody on this node is subscribed to and that `fits`, with how many are: the first by name, at most so many. Says
    /// whether these are all. It looks at every channel, lock by lock: not for a thread that carries connections.
    #[must_use]
    pub fn list_channels(&self, most: usize, fits: impl Fn(&Channel) -> bool) -> (BTreeMap<Channel, u32>, bool) {
        let mut found: BTreeMap<Channel, u32> = BTreeMap::new();
        let mut all = true;
        for stripe in &self.inner.stripes {
            for (channel, served) in stripe.lock().iter().filter(|(channel, _)| fits(channel)) {
                if found.len() == most {
                    all = false;
                    if found.last_key_value().is_none_or(|(last, _)| last < channel) {
                        continue;
                    }
                    found.pop_last();
                }
                found.insert(channel.clone(), served.subscribers.iter().sum());
            }
        }
        (found, all)
    }

    /// Whether a channel of this kind is followed by offsets.
    pub(crate) fn is_followed(kind: Kind) -> bool {
        matches!(kind, Kind::History | Kind::Durable)
    }

    pub(crate) fn repairs(&self) -> &Repairs {
        &self.inner.repairs
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    /// How often the broker could not say whether everything of a channel had come here.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.inner.doubts.load(Ordering::Relaxed)
    }

    /// Reads of history that subscribers waited for, and subscribers that were answered by the read of another one.
    #[must_use]
    pub fn history_reads(&self) -> (u64, u64) {
        let reads = &self.inner.reads;
        (reads.made.load(Ordering::Relaxed), reads.shared.load(Ordering::Relaxed))
    }

    fn stripe(&self, channel: &Channel) -> &Mutex<HashMap<Channel, Served>> {
        &self.inner.stripes[self.inner.hasher.hash_one(channel) as usize & (STRIPES - 1)]
    }

    /// Called under the lock of the channel that the ticket is for.
    fn ticket(&self) -> Ticket {
        self.inner.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes one more subscriber of a channel on a shard. What is told from now on has a ticket at or above the one returned.
    pub(crate) fn join(&self, channel: &Channel, rules: &Arc<Namespace>, shard: usize) -> Ticket {
        let mut table = self.stripe(channel).lock();
        let ticket = self.ticket();
        let served = table.entry(channel.clone()).or_insert_with(|| {
            // Under the lock, so that the broker hears of the first and of the last subscriber in their order.
            self.inner.broker.listen(channel);
            Served {
                rules: rules.clone(),
                subscribers: vec![0; self.inner.shards.len()],
                since: ticket,
                followed: None,
                ahead: BTreeMap::new(),
                seen: 0,
                suspect: false,
            }
        });
        served.subscribers[shard] += 1;
        ticket
    }

    /// Notes one subscriber less; a channel that nobody wants is forgotten.
    pub(crate) fn part(&self, channel: &Channel, shard: usize) {
        let mut table = self.stripe(channel).lock();
        if let Some(served) = table.get_mut(channel) {
            served.subscribers[shard] = served.subscribers[shard].saturating_sub(1);
            if served.subscribers.iter().all(|count| *count == 0) {
                table.remove(channel);
                self.inner.broker.unlisten(channel);
            }
        }
    }

    /// Serves channels by other rules from now on; those of a namespace that is gone by the old ones, until nobody is left.
    pub fn set_rules(&self, namespaces: &Namespaces) {
        for stripe in &self.inner.stripes {
            for (channel, served) in stripe.lock().iter_mut() {
                if let Ok(rules) = namespaces.of(channel) {
                    served.rules = rules.clone();
                }
            }
        }
    }

    /// Where this node stands in a channel.
    pub(crate) fn look(&self, channel: &Channel) -> Look {
        let table = self.stripe(channel).lock();
        let Some(served) = table.get(channel) else { return Look { since: 0, position: None } };
        let position = served.followed.as_ref().filter(|_| !served.suspect);
        let position = position.map(|followed| Position { offset: followed.next - 1, epoch: followed.epoch.clone() });
        Look { since: served.since, position }
    }

    /// A history read that began after `since` was looked at has shown where a channel stands.
    pub(crate) fn observe(&self, channel: &Channel, since: Ticket, top: &Position) -> Observed {
        let mut table = self.stripe(channel).lock();
        let Some(served) = table.get_mut(channel) else { return Observed::Steady };
        if served.since != since {
            return Observed::Stale;
        }
        match &mut served.followed {
            None => {
                let held = served.ahead.len();
                served.ahead.retain(|_, (epoch, _)| *epoch == top.epoch);
                // Entries of another history, older or newer than the one that was read: only another read can tell.
                served.suspect |= served.ahead.len() < held;
                let next = top.offset + 1;
                served.followed = Some(Followed { epoch: top.epoch.clone(), from: next, next });
                served.ahead = served.ahead.split_off(&next);
                self.pass_on(channel, served);
            }
            Some(followed) if followed.epoch != top.epoch => {
                self.restart(channel, served, top);
                return Observed::Restarted;
            }
            // Another reader came first and saw more: what lies between was passed on to nobody.
            Some(followed) if top.offset + 1 < followed.from => return Observed::Stale,
            Some(_) => served.seen = served.seen.max(top.offset),
        }
        if served.has_gap() {
            self.ask_repair(channel);
        }
        Observed::Steady
    }

    /// Takes what the broker delivers: from any thread, without blocking.
    pub fn deliver(&self, delivery: Delivery) {
        let Delivery { channel, message } = delivery;
        let mut table = self.stripe(&channel).lock();
        let Some(served) = table.get_mut(&channel) else { return };
        let (epoch, entry) = match message {
            Message::Entry { epoch, entry } => (epoch, entry),
            Message::Doubt => return self.doubt(&channel, served),
            Message::Signal(publication) => return self.tell(&channel, served, What::Signal(publication)),
            Message::Join(info) => return self.tell(&channel, served, What::Join(info)),
            Message::Leave(info) => return self.tell(&channel, served, What::Leave(info)),
            Message::Generation(frame) => return self.tell(&channel, served, What::Generation(frame)),
        };
        match &mut served.followed {
            // The history was broken off, or this is late and of an older one: a read tells which.
            Some(followed) if followed.epoch != epoch => served.suspect = true,
            Some(followed) if entry.offset < followed.next => return,
            Some(followed) if entry.offset == followed.next => {
                followed.next += 1;
                self.tell(&channel, served, What::Entry(entry, epoch));
            }
            Some(_) | None => {
                served.seen = served.seen.max(entry.offset);
                served.ahead.insert(entry.offset, (epoch, entry));
                if served.ahead.len() > self.inner.settings.ahead_held_max {
                    // What is dropped here is read from history with the gap before it.
                    served.ahead.pop_last();
                }
            }
        }
        self.pass_on(&channel, served);
        if served.has_gap() {
            self.ask_repair(&channel);
        }
    }

    /// Something may have been lost on its way here: followed channels are read again, readers of a generation get a snapshot. Lost
    /// signals are lost, as signals may be; where a reader can be told, it is.
    fn doubt(&self, channel: &Channel, served: &mut Served) {
        self.inner.doubts.fetch_add(1, Ordering::Relaxed);
        if Self::is_followed(served.rules.kind) {
            served.suspect = true;
            if served.has_gap() {
                self.ask_repair(channel);
            }
        } else {
            self.push(served, &ShardMessage::Missed(channel.clone()));
        }
    }

    /// History channels that this node follows, for a look at where they really stand.
    pub(crate) fn followed_histories(&self) -> Vec<Channel> {
        let mut found = Vec::new();
        for stripe in &self.inner.stripes {
            let table = stripe.lock();
            let followed =
                table.iter().filter(|(_, served)| served.rules.kind == Kind::History && served.followed.is_some());
            found.extend(followed.map(|(channel, _)| channel.clone()));
        }
        found
    }

    /// A look at the broker has shown where a history channel stood a moment ago.
    pub(crate) fn stands(&self, channel: &Channel, top: &Position) {
        let mut table = self.stripe(channel).lock();
        let Some(served) = table.get_mut(channel) else { return };
        let Some(followed) = &served.followed else { return };
        if followed.epoch == top.epoch {
            served.seen = served.seen.max(top.offset);
        } else {
            served.suspect = true;
        }
        if served.has_gap() {
            self.ask_repair(channel);
        }
    }

    /// Sends on every entry whose turn has come. Under the lock, so that shards see one order.
    fn pass_on(&self, channel: &Channel, served: &mut Served) {
        while let Some(followed) = &mut served.followed {
            let Some((epoch, entry)) = served.ahead.remove(&followed.next) else { break };
            followed.next += 1;
            self.tell(channel, served, What::Entry(entry, epoch));
        }
    }

    /// The channel's history was broken off: everybody starts anew.
    fn restart(&self, channel: &Channel, served: &mut Served, top: &Position) {
        let next = top.offset + 1;
        served.ahead.clear();
        served.since = self.ticket();
        served.seen = top.offset;
        served.followed = Some(Followed { epoch: top.epoch.clone(), from: next, next });
        self.push(served, &ShardMessage::Reset { channel: channel.clone(), at: served.since });
    }

    fn tell(&self, channel: &Channel, served: &Served, what: What) {
        let told_at = self.inner.tickets.load(Ordering::Relaxed);
        let fanout = Arc::new(Fanout::stamped(channel.clone(), what, told_at, served.since));
        self.push(served, &ShardMessage::Deliver(fanout));
    }

    fn push(&self, served: &Served, message: &ShardMessage) {
        for (shard, count) in self.inner.shards.iter().zip(&served.subscribers) {
            if *count > 0 {
                shard.push(message.clone());
            }
        }
    }

    fn ask_repair(&self, channel: &Channel) {
        self.inner.repairs.ask(channel, self.inner.settings.gap_wait_ms);
    }

    /// Entries that wait for their predecessors.
    #[cfg(test)]
    pub(crate) fn ahead(&self, channel: &Channel) -> usize {
        self.stripe(channel).lock().get(channel).map_or(0, |served| served.ahead.len())
    }

    /// What is missing between what was passed on and what was heard of.
    pub(crate) fn gap(&self, channel: &Channel) -> Option<Gap> {
        let mut table = self.stripe(channel).lock();
        let served = table.get_mut(channel).filter(|served| served.has_gap())?;
        served.suspect = false;
        let next = served.followed.as_ref()?.next;
        Some(Gap { rules: served.rules.clone(), next, since: served.since, seen: served.seen })
    }

    /// Passes on what was read for a gap.
    pub(crate) fn fill(&self, channel: &Channel, gap: &Gap, read: Read) {
        let mut table = self.stripe(channel).lock();
        let Some(served) = table.get_mut(channel) else { return };
        let Some(followed) = &mut served.followed else { return };
        if served.since != gap.since {
            // Read from a history that has been broken off since.
            return;
        }
        let first = read.entries.first().map_or(read.top.offset, |entry| entry.offset);
        if followed.epoch != read.top.epoch
            || first > followed.next
            || (read.entries.is_empty() && first == followed.next)
        {
            // What is missing is gone: subscribers are told, and the node follows from the top.
            return self.restart(channel, served, &read.top);
        }
        let before = followed.next;
        for entry in read.entries {
            let Some(followed) = &mut served.followed else { return };
            if entry.offset == followed.next {
                followed.next += 1;
                let epoch = followed.epoch.clone();
                self.tell(channel, served, What::Entry(entry, epoch));
            }
        }
        let next = served.followed.as_ref().map_or(before, |followed| followed.next);
        served.ahead = served.ahead.split_off(&next);
        self.pass_on(channel, served);
        if next == before && served.seen == gap.seen && read.complete {
            // Nothing is there that was not passed on: what was heard of belongs to another history.
            served.seen = next - 1;
        }
    }

    /// A look at the store has shown that a channel reaches `top`.
    pub(crate) fn grown(&self, channel: &Channel, top: u64) {
        let mut table = self.stripe(channel).lock();
        let Some(served) = table.get_mut(channel).filter(|served| served.rules.kind == Kind::Durable) else { return };
        // Kept also while nobody knows where the channel stands: the read under way may be older than this.
        served.seen = served.seen.max(top);
        if served.has_gap() {
            self.ask_repair(channel);
        }
    }

    /// A gap could not be read now: again with the next look at growth.
    pub(crate) fn repair_later(&self, channel: &Channel) {
        if let Some(served) = self.stripe(channel).lock().get_mut(channel) {
            served.suspect = true;
            self.inner.repairs.ask(channel, self.inner.settings.growth_check_ms);
        }
    }

    /// Asks for the repair of every channel with a gap; of durable channels also of those that may have grown, with `suspect`.
    pub(crate) fn search(&self, suspects: Suspects) {
        for stripe in &self.inner.stripes {
            for (channel, served) in stripe.lock().iter_mut() {
                served.suspect |= suspects == Suspects::Durable && served.rules.kind == Kind::Durable;
                if served.has_gap() {
                    self.ask_repair(channel);
                }
            }
        }
    }
}

/// Which channels may have grown without anybody hearing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// All durable ones.
    Durable,
    /// Only those that are known to have.
    Known,
}
