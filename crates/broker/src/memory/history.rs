//! History channels inside the process: entries, positions and idempotency keys, trimmed by size and age.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use talewire_proto::{Channel, Entry, Epoch, Namespace, Position, Since, Version};

use super::clock::Clock;
use super::{Outlet, Striped};
use crate::{BrokerError, BrokerSettings, Direction, Key, Message, Page, PageLimit, Publish, Published};

pub(crate) struct Histories {
    settings: Arc<BrokerSettings>,
    clock: Clock,
    outlet: Outlet,
    channels: Striped<HashMap<Channel, History>>,
    count: AtomicUsize,
    /// Histories that were forgotten so far, by the hash of their names: what was forgotten changes the epochs of few others.
    forgotten: Box<[AtomicU32]>,
    /// Makes epochs of names; other ones in every process.
    names: RandomState,
    /// What all entries of all channels weigh, in bytes.
    bytes: Arc<AtomicUsize>,
}

struct History {
    epoch: Epoch,
    top: u64,
    entries: VecDeque<Kept>,
    keys: HashMap<Key, u64>,
    keys_by_age: VecDeque<(u64, Key)>,
    /// The newest that was published, as long as the history has its epoch.
    version: Option<Version>,
    touched_ms: u64,
}

struct Kept {
    entry: Arc<Entry>,
    expires_ms: u64,
    _weight: Weight,
}

/// What an entry adds to the weight of all, for as long as it is kept.
struct Weight {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

/// Counters of forgotten histories: one of them changes the first epoch of every channel that shares its counter, and a reader who
/// waits there for a first publication is told of a gap that is none.
const FORGOTTEN: usize = 65_536;

/// What an entry weighs beside its payload, in bytes.
const ENTRY_BYTES: usize = 256;

impl Weight {
    fn of(entry: &Entry, all: &Arc<AtomicUsize>) -> Self {
        let bytes = ENTRY_BYTES + entry.publication.data.as_ref().map_or(0, |data| data.len());
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, all: all.clone() }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Histories {
    pub(crate) fn new(settings: Arc<BrokerSettings>, clock: Clock, outlet: Outlet) -> Self {
        Self {
            settings,
            clock,
            outlet,
            channels: Striped::new(),
            count: AtomicUsize::new(0),
            forgotten: (0..FORGOTTEN).map(|_| AtomicU32::new(0)).collect(),
            names: RandomState::new(),
            bytes: Arc::default(),
        }
    }

    pub(crate) fn publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publish: Publish,
    ) -> Result<Published, BrokerError> {
        let Publish { publication, key, version } = publish;
        let now_ms = self.clock.now_ms();
        let mut channels = self.channels.of(channel).lock();
        let history = self.open(&mut channels, channel, now_ms)?;
        history.trim(rules.history_size as usize, now_ms, &self.settings);
        if let Some(offset) = key.as_ref().and_then(|key| history.keys.get(key)) {
            let position = Position { offset: *offset, epoch: history.epoch.clone() };
            return Ok(Published { position, repeated: true, skipped: false });
        }
        if let Some(version) = version {
            if !version.supersedes(history.version.as_ref()) {
                let position = Position { offset: history.top, epoch: history.epoch.clone() };
                return Ok(Published { position, repeated: false, skipped: true });
            }
            history.version = Some(version);
        }
        history.touched_ms = now_ms;
        history.top += 1;
        let entry = Arc::new(Entry { offset: history.top, publication });
        let expires_ms = now_ms.saturating_add(rules.history_age_ms);
        let weight = Weight::of(&entry, &self.bytes);
        history.entries.push_back(Kept { entry: entry.clone(), expires_ms, _weight: weight });
        if let Some(key) = key {
            history.keys.insert(key.clone(), entry.offset);
            history.keys_by_age.push_back((now_ms, key));
        }
        history.trim(rules.history_size as usize, now_ms, &self.settings);
        if self.bytes() > self.settings.history_bytes_max {
            // Who publishes pays; the others keep what they have. Readers who miss what goes are told so.
            history.entries.drain(..history.entries.len() - 1);
        }
        let position = Position { offset: entry.offset, epoch: history.epoch.clone() };
        // Inside the lock, so that deliveries of one channel leave in the order of their offsets.
        self.outlet.send(channel, Message::Entry { epoch: position.epoch.clone(), entry });
        Ok(Published { position, repeated: false, skipped: false })
    }

    pub(crate) fn read(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: &Since,
        direction: Direction,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let now_ms = self.clock.now_ms();
        let mut channels = self.channels.of(channel).lock();
        let Some(history) = channels.get_mut(channel) else {
            // Nothing is kept for a name that somebody only asks about.
            let top = Position { offset: 0, epoch: self.first_epoch(channel) };
            return Ok(Page { entries: Vec::new(), top, complete: true, older: Vec::new() });
        };
        history.trim(rules.history_size as usize, now_ms, &self.settings);
        Ok(history.page(since, direction, limit))
    }

    /// Where a channel stands, if anything is kept of it.
    pub(crate) fn top(&self, channel: &Channel) -> Option<Position> {
        let channels = self.channels.of(channel).lock();
        channels.get(channel).map(|history| Position { offset: history.top, epoch: history.epoch.clone() })
    }

    /// What all entries of all channels weigh, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Forgets the entries of a channel; what it says about positions stays true.
    pub(crate) fn remove(&self, channel: &Channel) {
        if let Some(history) = self.channels.of(channel).lock().get_mut(channel) {
            history.entries.clear();
        }
    }

    /// The epoch with which a channel begins that was never published to, or was forgotten: the same until its first publication, so
    /// that a position that was told before it stays true, and another one after the channel was forgotten.
    fn first_epoch(&self, channel: &Channel) -> Epoch {
        let forgotten = self.forgotten(channel).load(Ordering::Relaxed);
        Epoch::new(&format!("{:016x}", self.names.hash_one((channel, forgotten))))
    }

    fn forgotten(&self, channel: &Channel) -> &AtomicU32 {
        &self.forgotten[self.names.hash_one(channel) as usize % FORGOTTEN]
    }

    /// The channel's history, made if there is none.
    fn open<'a>(
        &self,
        channels: &'a mut HashMap<Channel, History>,
        channel: &Channel,
        now_ms: u64,
    ) -> Result<&'a mut History, BrokerError> {
        if !channels.contains_key(channel) {
            if self.count.fetch_add(1, Ordering::Relaxed) >= self.settings.history_channels_max {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return Err(BrokerError::Full("history_channels_max"));
            }
            let history = History {
                epoch: self.first_epoch(channel),
                top: 0,
                entries: VecDeque::new(),
                keys: HashMap::new(),
                keys_by_age: VecDeque::new(),
                version: None,
                touched_ms: now_ms,
            };
            channels.insert(channel.clone(), history);
        }
        Ok(channels.get_mut(channel).expect("it was there or was just put there"))
    }

    pub(crate) fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        for stripe in self.channels.all() {
            let mut channels = stripe.lock();
            let before = channels.len();
            channels.retain(|channel, history| {
                history.trim(usize::MAX, now_ms, &self.settings);
                let idle_ms = now_ms.saturating_sub(history.touched_ms);
                let stays = !history.entries.is_empty() || idle_ms < self.settings.history_idle_ms;
                if !stays {
                    // Under the stripe's lock: it does not begin again with the epoch that it had.
                    self.forgotten(channel).fetch_add(1, Ordering::Relaxed);
                }
                stays
            });
            self.count.fetch_sub(before - channels.len(), Ordering::Relaxed);
        }
    }
}

impl History {
    fn trim(&mut self, size: usize, now_ms: u64, settings: &BrokerSettings) {
        while self.entries.len() > size || self.entries.front().is_some_and(|kept| kept.expires_ms <= now_ms) {
            self.entries.pop_front();
        }
        while self.keys_by_age.len() > settings.keys_per_channel_max
            || self.keys_by_age.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= settings.key_age_ms)
        {
            if let Some((_, key)) = self.keys_by_age.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    fn page(&self, since: &Since, direction: Direction, limit: PageLimit) -> Page {
        let top = Position { offset: self.top, epoch: self.epoch.clone() };
        let oldest = self.top + 1 - self.entries.len() as u64;
        let mut page = Page { entries: Vec::new(), top, complete: true, older: Vec::new() };
        let mut bytes = 0;
        let mut take = |kept: &Kept| {
            bytes += kept.entry.publication.data.as_ref().map_or(0, |data| data.len());
            let fits = page.entries.len() < limit.entries && (bytes <= limit.bytes || page.entries.is_empty());
            if fits {
                page.entries.push(kept.entry.clone());
            }
            fits
        };
        // As in the store: `Newest` always reads backwards, and before the oldest there is nothing.
        if direction == Direction::Forward && *since != Since::Newest {
            let from = match since {
                Since::After(offset) => offset.saturating_add(1),
                Since::Oldest | Since::Newest => oldest,
            };
            let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
            let all = self.entries.iter().skip(skip).all(&mut take);
            page.complete = all && from >= oldest;
        } else {
            let below = match since {
                Since::Newest => self.top.saturating_add(1),
                Since::After(offset) => *offset,
                Since::Oldest => 0,
            };
            let skip = usize::try_from((self.top + 1).saturating_sub(below)).unwrap_or(usize::MAX);
            page.complete = self.entries.iter().rev().skip(skip).all(&mut take) && (oldest == 1 || below <= 1);
        }
        page
    }
}
