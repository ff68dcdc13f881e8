//! The hub's background work: gaps are filled from history, and durable channels that grew unannounced are found.
//!
//! Channels with a gap come in by [`Repairs::ask`], wait a moment (the missing delivery is usually only late) and are read
//! once for the whole node. A few are read at the same time, and each at most once, so that a slow one delays no other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use talewire_broker::{BrokerError, PageLimit, TOPS_MAX};
use talewire_proto::{Channel, Since};
use talewire_store::{LogMark, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::HubError;
use crate::node::{Hub, Suspects};

/// Entries read at once to repair a gap.
const REPAIR_PAGE: PageLimit = PageLimit { entries: 500, bytes: 1_048_576 };

/// Queries of one look at growth; what they leave is found by the next look.
const GROWTH_QUERIES_MAX: usize = 16;

/// The background work of a hub, to be run once on any runtime.
pub struct HubParts {
    /// The hub.
    pub hub: Hub,
}

/// Which channels are to be repaired, and when.
pub(crate) struct Repairs {
    asked: Mutex<Asked>,
    /// Something is due earlier than before.
    changed: Notify,
    max: usize,
}

#[derive(Default)]
struct Asked {
    due: HashMap<Channel, Instant>,
    by_time: BTreeSet<(Instant, Channel)>,
    /// Being read. What is asked meanwhile waits until that is over.
    busy: HashSet<Channel>,
    asked_again: HashMap<Channel, u64>,
    /// More was asked than is held: all channels are to be searched.
    overflowed: bool,
}

impl Asked {
    fn len(&self) -> usize {
        self.due.len() + self.asked_again.len()
    }

    fn put(&mut self, channel: &Channel, at: Instant) {
        if !self.due.contains_key(channel) {
            self.due.insert(channel.clone(), at);
            self.by_time.insert((at, channel.clone()));
        }
    }
}

impl Repairs {
    pub(crate) fn new(max: usize) -> Self {
        Self { asked: Mutex::default(), changed: Notify::new(), max: max.max(1) }
    }

    /// Notes that a channel is to be looked at after a while; once, however often it is asked.
    pub(crate) fn ask(&self, channel: &Channel, wait_ms: u64) {
        let mut asked = self.asked.lock();
        if asked.due.contains_key(channel) || asked.asked_again.contains_key(channel) {
            return;
        }
        if asked.len() >= self.max {
            asked.overflowed = true;
            return;
        }
        if asked.busy.contains(channel) {
            asked.asked_again.insert(channel.clone(), wait_ms);
            return;
        }
        asked.put(channel, Instant::now() + Duration::from_millis(wait_ms));
        drop(asked);
        self.changed.notify_one();
    }

    /// When the next repair is due.
    fn next_due(&self) -> Option<Instant> {
        self.asked.lock().by_time.first().map(|(at, _)| *at)
    }

    /// The next channel whose time has come. It is busy until [`Repairs::done`].
    pub(crate) fn take(&self, now: Instant) -> Option<Channel> {
        let mut asked = self.asked.lock();
        if asked.by_time.first()?.0 > now {
            return None;
        }
        let (_, channel) = asked.by_time.pop_first()?;
        asked.due.remove(&channel);
        asked.busy.insert(channel.clone());
        Some(channel)
    }

    /// A repair is over.
    pub(crate) fn done(&self, channel: &Channel) {
        let mut asked = self.asked.lock();
        asked.busy.remove(channel);
        if let Some(wait_ms) = asked.asked_again.remove(channel) {
            asked.put(channel, Instant::now() + Duration::from_millis(wait_ms));
            drop(asked);
            self.changed.notify_one();
        }
    }

    /// Whether more was asked than is held, since the last call.
    fn take_overflowed(&self) -> bool {
        std::mem::take(&mut self.asked.lock().overflowed)
    }

    /// Whether nothing waits, and nothing is to be searched for.
    #[cfg(test)]
    pub(crate) fn are_done(&self) -> bool {
        let asked = self.asked.lock();
        asked.len() == 0 && !asked.overflowed
    }

    /// Channels that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Hub {
    /// Reads what is missing between what was passed on and what was heard of, once for the whole node.
    pub(crate) async fn repair(&self, channel: &Channel) {
        if let Err(error) = self.try_repair(channel).await {
            tracing::warn!(%channel, %error, "a gap could not be repaired; it is tried again");
            self.repair_later(channel);
        }
        self.repairs().done(channel);
    }

    async fn try_repair(&self, channel: &Channel) -> Result<(), HubError> {
        while let Some(gap) = self.gap(channel) {
            let since = Since::After(gap.next.saturating_sub(1));
            let read = self.read(channel, &gap.rules, since, REPAIR_PAGE).await?;
            self.fill(channel, &gap, read);
        }
        Ok(())
    }

    /// Looks which durable channels have grown without an announcement. `None` begins.
    pub(crate) async fn look_at_growth(&self, mark: Option<LogMark>) -> Result<LogMark, StoreError> {
        let mut suspects = Suspects::Known;
        let mut mark = match mark {
            Some(mark) => mark,
            None => {
                // What was appended before this mark is not found by it.
                suspects = Suspects::Durable;
                self.store().log_mark().await?
            }
        };
        if self.repairs().take_overflowed() || suspects == Suspects::Durable {
            self.search(suspects);
        }
        for _ in 0..GROWTH_QUERIES_MAX {
            let (new, grown) = self.store().grown(mark).await?;
            mark = new;
            if grown.is_empty() {
                break;
            }
            grown.iter().for_each(|(channel, top)| self.grown(channel, *top));
        }
        Ok(mark)
    }
}

impl Hub {
    /// Compares where history channels stand with what was passed on; those that stand elsewhere are repaired.
    pub(crate) async fn look_at_positions(&self) -> Result<(), BrokerError> {
        for channels in self.followed_histories().chunks(TOPS_MAX) {
            for (channel, top) in self.broker().tops(channels).await? {
                self.stands(&channel, &top);
            }
        }
        Ok(())
    }
}

impl HubParts {
    /// Repairs gaps and looks at growth and positions, until the future is dropped.
    pub async fn run(self) {
        tokio::join!(repair_all(&self.hub), watch_growth(&self.hub), check_positions(&self.hub));
    }
}

async fn watch_growth(hub: &Hub) {
    let mut ticks = tokio::time::interval(Duration::from_millis(hub.settings().growth_check_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mark = None;
    loop {
        ticks.tick().await;
        match hub.look_at_growth(mark.clone()).await {
            Ok(new) => mark = Some(new),
            Err(error) => tracing::warn!(%error, "the look at growth failed"),
        }
    }
}

/// Looks where the history channels of this node really stand: an announcement may be lost without a sign. Inside one process
/// none is.
async fn check_positions(hub: &Hub) {
    if !hub.broker().is_shared() {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(hub.settings().position_check_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = hub.look_at_positions().await {
            tracing::warn!(%error, "the look at positions failed");
        }
    }
}

async fn repair_all(hub: &Hub) {
    let at_once = hub.settings().repairs_at_once_max.max(1);
    let repairs = hub.repairs();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < at_once
            && let Some(channel) = repairs.take(Instant::now())
        {
            let hub = hub.clone();
            under_way.spawn(async move { hub.repair(&channel).await });
        }
        let due = repairs.next_due().filter(|_| under_way.len() < at_once);
        tokio::select! {
            () = repairs.changed.notified() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            Some(ended) = under_way.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a repair panicked");
                }
            }
        }
    }
}
