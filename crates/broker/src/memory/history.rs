//! History channels inside the process: entries, positions and idempotency keys, trimmed by size and age.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use talewire_proto::{Channel, Entry, Epoch, Namespace, Position, Publication, Since};

use super::{Outlet, Striped, random_text};
use crate::{BrokerError, BrokerSettings, Direction, Key, Message, Page, PageLimit, Published};

pub(crate) struct Histories {
    settings: Arc<BrokerSettings>,
    outlet: Outlet,
    channels: Striped<HashMap<Channel, History>>,
    count: AtomicUsize,
}

struct History {
    epoch: Epoch,
    top: u64,
    entries: VecDeque<Kept>,
    keys: HashMap<Key, u64>,
    keys_by_age: VecDeque<(Instant, Key)>,
    touched: Instant,
}

struct Kept {
    entry: Arc<Entry>,
    expires: Instant,
}

impl Histories {
    pub(crate) fn new(settings: Arc<BrokerSettings>, outlet: Outlet) -> Self {
        Self { settings, outlet, channels: Striped::new(), count: AtomicUsize::new(0) }
    }

    pub(crate) fn publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publication: Publication,
        key: Option<Key>,
    ) -> Result<Published, BrokerError> {
        let now = Instant::now();
        let mut channels = self.channels.of(channel).lock();
        let history = self.open(&mut channels, channel, now)?;
        history.trim(rules.history_size as usize, now, &self.settings);
        if let Some(offset) = key.as_ref().and_then(|key| history.keys.get(key)) {
            let position = Position { offset: *offset, epoch: history.epoch.clone() };
            return Ok(Published { position, repeated: true });
        }
        history.touched = now;
        history.top += 1;
        let entry = Arc::new(Entry { offset: history.top, publication });
        history
            .entries
            .push_back(Kept { entry: entry.clone(), expires: now + Duration::from_millis(rules.history_age_ms) });
        if let Some(key) = key {
            history.keys.insert(key.clone(), entry.offset);
            history.keys_by_age.push_back((now, key));
        }
        history.trim(rules.history_size as usize, now, &self.settings);
        let position = Position { offset: entry.offset, epoch: history.epoch.clone() };
        // Inside the lock, so that deliveries of one channel leave in the order of their offsets.
        self.outlet.send(channel, Message::Entry { epoch: position.epoch.clone(), entry });
        Ok(Published { position, repeated: false })
    }

    pub(crate) fn read(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: &Since,
        direction: Direction,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let now = Instant::now();
        let mut channels = self.channels.of(channel).lock();
        let history = self.open(&mut channels, channel, now)?;
        history.trim(rules.history_size as usize, now, &self.settings);
        Ok(history.page(since, direction, limit))
    }

    /// The channel's history, made with a new epoch if there is none: a position that was told must stay true.
    fn open<'a>(
        &self,
        channels: &'a mut HashMap<Channel, History>,
        channel: &Channel,
        now: Instant,
    ) -> Result<&'a mut History, BrokerError> {
        if !channels.contains_key(channel) {
            if self.count.fetch_add(1, Ordering::Relaxed) >= self.settings.history_channels_max {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return Err(BrokerError::Full("history_channels_max"));
            }
            let history = History {
                epoch: Epoch::new(&random_text()),
                top: 0,
                entries: VecDeque::new(),
                keys: HashMap::new(),
                keys_by_age: VecDeque::new(),
                touched: now,
            };
            channels.insert(channel.clone(), history);
        }
        Ok(channels.get_mut(channel).expect("it was there or was just put there"))
    }

    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let idle = Duration::from_millis(self.settings.history_idle_ms);
        for stripe in self.channels.all() {
            let mut channels = stripe.lock();
            let before = channels.len();
            channels.retain(|_, history| {
                history.trim(usize::MAX, now, &self.settings);
                !history.entries.is_empty() || now.duration_since(history.touched) < idle
            });
            self.count.fetch_sub(before - channels.len(), Ordering::Relaxed);
        }
    }
}

impl History {
    fn trim(&mut self, size: usize, now: Instant, settings: &BrokerSettings) {
        while self.entries.len() > size || self.entries.front().is_some_and(|kept| kept.expires <= now) {
            self.entries.pop_front();
        }
        let key_age = Duration::from_millis(settings.key_age_ms);
        while self.keys_by_age.len() > settings.keys_per_channel_max
            || self.keys_by_age.front().is_some_and(|(at, _)| now.duration_since(*at) >= key_age)
        {
            if let Some((_, key)) = self.keys_by_age.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    fn page(&self, since: &Since, direction: Direction, limit: PageLimit) -> Page {
        let top = Position { offset: self.top, epoch: self.epoch.clone() };
        let oldest = self.top + 1 - self.entries.len() as u64;
        let mut page = Page { entries: Vec::new(), top, complete: true };
        let mut bytes = 0;
        let mut take = |kept: &Kept| {
            bytes += kept.entry.publication.data.as_ref().map_or(0, |data| data.len());
            let fits = page.entries.len() < limit.entries && (bytes <= limit.bytes || page.entries.is_empty());
            if fits {
                page.entries.push(kept.entry.clone());
            }
            fits
        };
        match direction {
            Direction::Forward => {
                let from = match since {
                    Since::Oldest | Since::Newest => oldest,
                    Since::After(offset) => offset.saturating_add(1),
                };
                let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
                let all = self.entries.iter().skip(skip).all(&mut take);
                page.complete = all && (from >= oldest || matches!(since, Since::Oldest) && oldest == 1);
            }
            Direction::Backward => {
                let below = match since {
                    Since::Oldest | Since::Newest => self.top.saturating_add(1),
                    Since::After(offset) => *offset,
                };
                let skip = usize::try_from((self.top + 1).saturating_sub(below)).unwrap_or(usize::MAX);
                page.complete = self.entries.iter().rev().skip(skip).all(&mut take) && oldest == 1;
            }
        }
        page
    }
}
