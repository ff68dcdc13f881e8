//! The node's hub: which shards want which channel, and the one order in which entries go to them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use talewire_broker::{Broker, Delivery, Message, PageLimit};
use talewire_proto::{Channel, Entry, Epoch, Kind, Namespace, Position};
use talewire_store::{LogMark, Store};
use tokio::sync::mpsc;

use crate::fanout::{Fanout, What};
use crate::queue::{ShardMessage, ShardQueue};
use crate::recovery::{CatchUp, Missed};
use crate::settings::HubSettings;

/// Locks over the table of channels. A power of two.
const STRIPES: usize = 64;

/// Entries read at once to repair a gap.
const REPAIR_PAGE: PageLimit = PageLimit { entries: 500, bytes: 1_048_576 };

/// The hub of this node. A clone is a reference count.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    settings: HubSettings,
    store: Store,
    broker: Broker,
    shards: Vec<Arc<ShardQueue>>,
    stripes: Vec<Mutex<HashMap<Channel, Served>>>,
    hasher: RandomState,
    repairs: mpsc::Sender<Channel>,
}

/// A channel that somebody on this node is subscribed to.
struct Served {
    rules: Arc<Namespace>,
    /// Subscribers by shard.
    subscribers: Vec<u32>,
    /// What this node has passed on, once it knows where the channel stands.
    followed: Option<Followed>,
    /// Entries that came before their predecessors, by offset.
    ahead: BTreeMap<u64, Arc<Entry>>,
}

struct Followed {
    epoch: Epoch,
    next: u64,
}

/// The background work of a hub, to be run once on any runtime.
pub struct HubParts {
    /// The hub.
    pub hub: Hub,
    repairs: mpsc::Receiver<Channel>,
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
        let (repairs, to_repair) = mpsc::channel(settings.repairs_waiting_max.max(1));
        let queue = || Arc::new(ShardQueue::new(settings.shard_queue_max));
        let inner = Arc::new(Inner {
            shards: (0..shards.max(1)).map(|_| queue()).collect(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            settings,
            store,
            broker,
            repairs,
        });
        let hub = Self { inner };
        let weak = Arc::downgrade(&hub.inner);
        hub.inner.broker.deliver_to(Arc::new(move |delivery| {
            if let Some(inner) = weak.upgrade() {
                Self { inner }.deliver(delivery);
            }
        }));
        HubParts { hub, repairs: to_repair }
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

    fn stripe(&self, channel: &Channel) -> &Mutex<HashMap<Channel, Served>> {
        &self.inner.stripes[self.inner.hasher.hash_one(channel) as usize & (STRIPES - 1)]
    }

    /// Notes one more subscriber of a channel on a shard.
    pub(crate) fn join(&self, channel: &Channel, rules: &Arc<Namespace>, shard: usize) {
        let mut served = self.stripe(channel).lock();
        let served = served.entry(channel.clone()).or_insert_with(|| Served {
            rules: rules.clone(),
            subscribers: vec![0; self.inner.shards.len()],
            followed: None,
            ahead: BTreeMap::new(),
        });
        served.subscribers[shard] += 1;
    }

    /// Notes one subscriber less; a channel that nobody wants is forgotten.
    pub(crate) fn part(&self, channel: &Channel, shard: usize) {
        let mut table = self.stripe(channel).lock();
        if let Some(served) = table.get_mut(channel) {
            served.subscribers[shard] = served.subscribers[shard].saturating_sub(1);
            if served.subscribers.iter().all(|count| *count == 0) {
                table.remove(channel);
            }
        }
    }

    /// Where this node stands in a channel that it follows.
    pub(crate) fn position(&self, channel: &Channel) -> Option<Position> {
        let table = self.stripe(channel).lock();
        let followed = table.get(channel)?.followed.as_ref()?;
        Some(Position { offset: followed.next - 1, epoch: followed.epoch.clone() })
    }

    /// A history read has shown where a channel stands.
    pub(crate) fn observe(&self, channel: &Channel, top: &Position) {
        let mut table = self.stripe(channel).lock();
        let Some(served) = table.get_mut(channel) else { return };
        match &mut served.followed {
            None => {
                served.followed = Some(Followed { epoch: top.epoch.clone(), next: top.offset + 1 });
                served.ahead = served.ahead.split_off(&(top.offset + 1));
                self.pass_on(channel, served);
            }
            Some(followed) if followed.epoch != top.epoch => self.restart(channel, served, top),
            Some(followed) if followed.next <= top.offset => self.ask_repair(channel),
            Some(_) => {}
        }
    }

    /// Takes what the broker delivers: from any thread, without blocking.
    pub fn deliver(&self, delivery: Delivery) {
        let Delivery { channel, message } = delivery;
        let mut table = self.stripe(&channel).lock();
        let Some(served) = table.get_mut(&channel) else { return };
        let Message::Entry { epoch, entry } = message else {
            let fanout = Arc::new(Fanout::of(channel, message));
            return self.tell(served, &ShardMessage::Deliver(fanout));
        };
        match &mut served.followed {
            Some(followed) if followed.epoch != epoch => {
                let top = Position { offset: entry.offset, epoch };
                return self.restart(&channel, served, &top);
            }
            Some(followed) if entry.offset < followed.next => return,
            Some(_) | None => {}
        }
        served.ahead.insert(entry.offset, entry);
        self.pass_on(&channel, served);
        let overfull = served.ahead.len() > self.inner.settings.ahead_held_max;
        if overfull {
            // What is dropped here is read from history with the gap before it.
            served.ahead.pop_last();
        }
        if served.followed.is_some() && !served.ahead.is_empty() {
            self.ask_repair(&channel);
        }
    }

    /// Sends on every entry whose turn has come. Under the lock, so that shards see one order.
    fn pass_on(&self, channel: &Channel, served: &mut Served) {
        let Some(followed) = &mut served.followed else { return };
        while let Some(entry) = served.ahead.remove(&followed.next) {
            followed.next += 1;
            let fanout = Arc::new(Fanout::new(channel.clone(), What::Entry(entry)));
            for (shard, count) in self.inner.shards.iter().zip(&served.subscribers) {
                if *count > 0 {
                    shard.push(ShardMessage::Deliver(fanout.clone()));
                }
            }
        }
    }

    /// The channel's history was broken off: everybody starts anew.
    fn restart(&self, channel: &Channel, served: &mut Served, top: &Position) {
        served.ahead.clear();
        served.followed = Some(Followed { epoch: top.epoch.clone(), next: top.offset + 1 });
        self.tell(served, &ShardMessage::Reset(channel.clone()));
    }

    fn tell(&self, served: &Served, message: &ShardMessage) {
        for (shard, count) in self.inner.shards.iter().zip(&served.subscribers) {
            if *count > 0 {
                shard.push(message.clone());
            }
        }
    }

    fn ask_repair(&self, channel: &Channel) {
        // A full queue is no loss: the next delivery or the look at growth asks again.
        let _ = self.inner.repairs.try_send(channel.clone());
    }

    /// Reads what is missing between what was passed on and the top, once for the whole node.
    async fn repair(&self, channel: &Channel) {
        loop {
            let missed = {
                let mut table = self.stripe(channel).lock();
                let Some(served) = table.get_mut(channel) else { return };
                self.pass_on(channel, served);
                let Some(followed) = &served.followed else { return };
                Missed { channel: channel.clone(), rules: served.rules.clone(), next: followed.next }
            };
            match self.catch_up(&missed, REPAIR_PAGE).await {
                Ok(CatchUp::Entries { entries, complete }) => {
                    let epoch = self.position(channel).map(|position| position.epoch).unwrap_or_default();
                    let nothing = entries.is_empty();
                    for entry in entries {
                        let message = Message::Entry { epoch: epoch.clone(), entry };
                        self.deliver(Delivery { channel: channel.clone(), message });
                    }
                    if complete || nothing {
                        return;
                    }
                }
                Ok(CatchUp::Gone) => {
                    // What was missed is gone from history: subscribers are told, and the node follows from the top.
                    let top = self.recover(channel, &missed.rules, None, REPAIR_PAGE).await;
                    let mut table = self.stripe(channel).lock();
                    if let (Ok(top), Some(served)) = (top, table.get_mut(channel)) {
                        let position = top.result.position.unwrap_or_default();
                        self.restart(channel, served, &position);
                    }
                    return;
                }
                Ok(CatchUp::Snapshot(_)) => return,
                Err(error) => {
                    tracing::warn!(channel = %channel, %error, "a gap could not be repaired; trying again with the next look at growth");
                    return;
                }
            }
        }
    }

    /// Looks which durable channels have grown without an announcement.
    async fn check_growth(&self, mark: LogMark) -> Result<LogMark, talewire_store::StoreError> {
        let (mark, grown) = self.inner.store.grown(mark).await?;
        for (channel, top) in grown {
            let behind = {
                let table = self.stripe(&channel).lock();
                let followed = table.get(&channel).and_then(|served| served.followed.as_ref());
                followed.is_some_and(|followed| followed.next <= top)
            };
            if behind {
                self.repair(&channel).await;
            }
        }
        Ok(mark)
    }

    /// Channels that somebody on this node is subscribed to.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inner.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// Whether a channel of this kind is followed by offsets.
    pub(crate) fn is_followed(kind: Kind) -> bool {
        matches!(kind, Kind::History | Kind::Durable)
    }
}

impl HubParts {
    /// Repairs gaps and looks at growth, until the hub is gone or the future is dropped.
    pub async fn run(mut self) {
        let wait = Duration::from_millis(self.hub.inner.settings.gap_wait_ms);
        let mut growth = tokio::time::interval(Duration::from_millis(self.hub.inner.settings.growth_check_ms.max(1)));
        growth.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut mark = None;
        loop {
            tokio::select! {
                biased;
                channel = self.repairs.recv() => {
                    let Some(channel) = channel else { return };
                    // The missing entry is usually a moment late: its announcement overtook another.
                    tokio::time::sleep(wait).await;
                    self.hub.repair(&channel).await;
                }
                _ = growth.tick() => {
                    let looked = match mark {
                        None => self.hub.inner.store.log_mark().await,
                        Some(mark) => self.hub.check_growth(mark).await,
                    };
                    match looked {
                        Ok(new) => mark = Some(new),
                        Err(error) => tracing::warn!(%error, "the look at growth failed"),
                    }
                }
            }
        }
    }
}
