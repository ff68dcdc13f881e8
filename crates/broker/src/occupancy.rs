//! Which channels somebody is subscribed to, on any node: for webhooks alone, and nothing is done where none wants to know.
//!
//! What this node's hub holds comes in ([`Occupancy::note`]); the broker keeps a record of each channel with the nodes that hold it, and
//! answers whether a step was the first to come or the last to go; whoever made that step tells it as a [`Notice`]. A channel has one
//! step under way at a time, so that one that comes and goes costs no more than that. What a dead node held is given up for it by
//! whoever finds it. When the broker may have lost something, what it says that we hold is compared with what we do hold.

mod keeping;
mod record;
mod tending;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture as _};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use talewire_proto::{Channel, Notice, Notices};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{BrokerError, BrokerSettings, NodeId};
pub(crate) use keeping::Keeping;
pub(crate) use record::{Answer, Record, clear, step, unix_us};

/// Steps that are under way at once.
const AT_ONCE: usize = 64;

/// Channels that failed and are tried again at once, so that they do not stand in the way of those that do not fail.
const AGAIN_AT_ONCE: usize = 16;

/// Letters and digits of a node's name, and of all of a [`name_of`].
const STAMP: usize = 20;

/// Something about a channel that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) channel: Channel,
    pub(crate) is_occupied: bool,
    pub(crate) serial: u64,
}

impl Told {
    pub(crate) fn into_notice(self) -> Notice {
        let Self { channel, is_occupied, serial } = self;
        if is_occupied {
            Notice::ChannelOccupied { channel, serial }
        } else {
            Notice::ChannelVacated { channel, serial }
        }
    }
}

/// What the broker says of one name.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    /// What it holds.
    pub(crate) held: Vec<Channel>,
    /// What it does not hold, and made the latest change of.
    pub(crate) made: Vec<Told>,
}

/// Where records are kept.
pub(crate) enum Ledger {
    Redis(crate::redis::Ledger),
    Nats(crate::nats::Ledger),
}

/// What a backend has noticed, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doubts {
    /// The broker may have lost something.
    pub(crate) losses: u64,
    /// This node was taken for dead, or the broker has lost everything.
    pub(crate) lapses: u64,
}

impl Ledger {
    async fn change(&self, name: &str, channel: &Channel, holds: bool) -> Result<Answer, BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.change(name, channel, holds).await,
            Self::Nats(ledger) => ledger.change(name, channel, holds).await,
        }
    }

    /// Parts in which records are kept: what a step needs is in one.
    fn parts(&self) -> usize {
        match self {
            Self::Redis(_) => crate::redis::Ledger::PARTS,
            Self::Nats(_) => 1,
        }
    }

    fn part_of(&self, channel: &Channel) -> usize {
        match self {
            Self::Redis(_) => crate::redis::Ledger::part_of(channel),
            Self::Nats(_) => 0,
        }
    }

    async fn holdings(&self, name: &str, part: usize) -> Result<Holdings, BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.holdings(name, part).await,
            Self::Nats(ledger) => ledger.holdings(name).await,
        }
    }

    /// Forgets channels of one part that nobody has come to hold since.
    async fn forget(&self, name: &str, part: usize, gone: &[(Channel, u64)]) -> Result<(), BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.forget(name, part, gone).await,
            Self::Nats(ledger) => ledger.forget(gone).await,
        }
    }

    /// Takes some of what `dead` held from it. Says what is to be told, and whether that was all of the part: then it is off the list.
    async fn clear(&self, dead: &str, finder: &str, part: usize) -> Result<(Vec<Told>, bool), BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.clear(dead, finder, part).await,
            Self::Nats(ledger) => Ok((ledger.clear(dead, finder).await?, true)),
        }
    }

    /// Writes a name down among those that take part, where steps do not do that.
    async fn enlist(&self, name: &str) -> Result<(), BrokerError> {
        match self {
            Self::Redis(_) => Ok(()),
            Self::Nats(ledger) => ledger.enlist(name).await,
        }
    }

    /// Takes a name out that holds nothing, where forgetting does not do that.
    async fn strike(&self, name: &str) -> Result<(), BrokerError> {
        match self {
            Self::Redis(_) => Ok(()),
            Self::Nats(ledger) => ledger.strike(name).await,
        }
    }

    /// The names that may hold something of a part.
    async fn names(&self, part: usize) -> Result<Vec<String>, BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.names(part).await,
            Self::Nats(ledger) => ledger.names().await,
        }
    }

    /// The stamps of the nodes that live.
    async fn living(&self) -> Result<HashSet<String>, BrokerError> {
        match self {
            Self::Redis(ledger) => ledger.living().await,
            Self::Nats(ledger) => ledger.living().await,
        }
    }
}

/// What was done about occupied and vacated channels, counted since the start.
#[derive(Debug, Default)]
pub struct OccupancyCounts {
    /// Channels whose coming or going waits to be said to the broker.
    pub waiting: AtomicU64,
    /// Steps: each says to the broker that this node holds a channel, or holds it no more.
    pub steps: AtomicU64,
    /// Changes that were told.
    pub told: AtomicU64,
    /// Steps that the broker did not take, each try counted.
    pub failed: AtomicU64,
    /// Channels for which there was no room to wait.
    pub crowded_out: AtomicU64,
}

/// Keeps the broker's records of this node's channels true.
pub(crate) struct Occupancy {
    ledger: Ledger,
    notices: Notices,
    stamp: String,
    waiting_max: usize,
    beat: Duration,
    lease: Duration,
    state: Mutex<State>,
    awake: Notify,
    pub(crate) counts: Arc<OccupancyCounts>,
}

#[derive(Default)]
struct State {
    channels: HashMap<Channel, Standing>,
    /// Channels with a step to be made, each once.
    waiting: VecDeque<Channel>,
    /// Those whose step has failed, or finds no room for what it would come to.
    failed: VecDeque<Channel>,
    /// What this node has told to be vacated: the broker forgets it with the next beat.
    fading: HashMap<Channel, u64>,
    /// How often this node was taken for dead: it goes by another name each time.
    life: u32,
    /// Parts of which what the broker says that we hold is to be compared.
    unsure: BTreeSet<usize>,
    has_departed: bool,
}

/// How a channel stands.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Whether somebody here is subscribed.
    is_wanted: bool,
    /// What the broker knows of that, if it was said to it.
    is_known: Option<bool>,
    /// Whether the answer to a step was lost.
    is_unsure: bool,
    /// Whether it waits, or a step is under way.
    is_busy: bool,
    /// Whether it was wanted when this node took another name, and no step has said so by that.
    is_to_move: bool,
}

/// A step to be made.
struct Step {
    channel: Channel,
    holds: bool,
    is_again: bool,
}

impl Occupancy {
    pub(crate) fn new(ledger: Ledger, notices: Notices, node: &NodeId, settings: &BrokerSettings) -> Arc<Self> {
        let unsure = (0..ledger.parts()).collect();
        Arc::new(Self {
            ledger,
            notices,
            stamp: stamp_of(node),
            waiting_max: settings.occupancy_waiting_max.max(1),
            beat: Duration::from_millis(settings.node_beat_ms.max(1)),
            lease: Duration::from_millis(settings.node_lease_ms),
            state: Mutex::new(State { unsure, ..State::default() }),
            awake: Notify::new(),
            counts: Arc::default(),
        })
    }

    /// Somebody on this node is subscribed to a channel from now on, or nobody any more. Does not block.
    pub(crate) fn note(&self, channel: &Channel, is_wanted: bool) {
        let mut state = self.state.lock();
        if state.has_departed || !is_wanted && !state.channels.contains_key(channel) {
            return;
        }
        let standing = state.channels.entry(channel.clone()).or_default();
        standing.is_wanted = is_wanted;
        if !standing.is_busy {
            self.put(&mut state, channel);
        }
        drop(state);
        self.awake.notify_one();
    }

    /// Has a channel wait for a step, if there is room and a step to be made.
    fn put(&self, state: &mut State, channel: &Channel) {
        let Some(standing) = state.channels.get_mut(channel) else { return };
        let is_settled = !standing.is_unsure && standing.is_known.unwrap_or(false) == standing.is_wanted;
        if !is_settled && state.waiting.len() + state.failed.len() < self.waiting_max {
            standing.is_busy = true;
            state.waiting.push_back(channel.clone());
            self.count_waiting(state);
            return;
        }
        if !standing.is_wanted {
            // Nobody is here, and what the broker knows is found when all is compared.
            state.channels.remove(channel);
        }
        if !is_settled {
            state.unsure.insert(self.ledger.part_of(channel));
            self.counts.crowded_out.fetch_add(1, Relaxed);
        }
    }

    fn count_waiting(&self, state: &State) {
        self.counts.waiting.store((state.waiting.len() + state.failed.len()) as u64, Relaxed);
    }

    /// Has so many of those that have failed wait again.
    fn again(&self, state: &mut State, most: usize) {
        let most = most.min(state.failed.len());
        let State { failed, waiting, .. } = state;
        waiting.extend(failed.drain(..most));
    }

    /// The next step.
    fn next(&self) -> Option<Step> {
        let mut state = self.state.lock();
        let step = self.next_of(&mut state);
        self.count_waiting(&state);
        step
    }

    fn next_of(&self, state: &mut State) -> Option<Step> {
        while let Some(channel) = state.waiting.pop_front() {
            let Some(standing) = state.channels.get_mut(&channel) else { continue };
            let is_settled = !standing.is_unsure && standing.is_known.unwrap_or(false) == standing.is_wanted;
            if is_settled {
                standing.is_busy = false;
                if !standing.is_wanted {
                    state.channels.remove(&channel);
                }
            } else if !standing.is_wanted && state.fading.len() >= self.waiting_max {
                // What is vacated waits until something is forgotten; what is occupied does not.
                state.failed.push_back(channel);
            } else {
                return Some(Step { holds: standing.is_wanted, is_again: standing.is_unsure, channel });
            }
        }
        None
    }

    /// Makes a step, and tells what came of it.
    async fn take(&self, name: &str, step: Step) {
        let Step { channel, holds, is_again } = step;
        self.counts.steps.fetch_add(1, Relaxed);
        let answer = self.ledger.change(name, &channel, holds).await;
        let mut state = self.state.lock();
        let State { channels, fading, failed, .. } = &mut *state;
        let Some(standing) = channels.get_mut(&channel) else { return };
        let Ok(answer) = answer else {
            self.counts.failed.fetch_add(1, Relaxed);
            standing.is_unsure = true;
            failed.push_back(channel);
            self.count_waiting(&state);
            return;
        };
        *standing = Standing { is_wanted: standing.is_wanted, is_known: Some(holds), ..Standing::default() };
        let is_told = answer.is_change || (is_again && answer.is_ours);
        if holds {
            fading.remove(&channel);
        } else if is_told && !answer.is_occupied {
            fading.insert(channel.clone(), answer.serial);
        }
        if is_told {
            // Under the lock, so that what is told of a channel comes in the order of its steps.
            self.tell(Told { channel: channel.clone(), is_occupied: answer.is_occupied, serial: answer.serial });
        }
        self.put(&mut state, &channel);
        if is_again {
            // It goes better: more of them, and more.
            self.again(&mut state, 2);
        }
    }

    fn tell(&self, told: Told) {
        self.counts.told.fetch_add(1, Relaxed);
        self.notices.tell(|| told.into_notice());
    }

    /// Works until the future is dropped.
    pub(crate) async fn run(self: Arc<Self>, mut doubts: watch::Receiver<Doubts>) {
        let mut ticks = tokio::time::interval(self.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = *doubts.borrow_and_update();
        // After an outage everybody needs a moment to say that they live.
        let mut trusted_from = Instant::now();
        let (mut is_tried, mut is_enlisted) = (false, false);
        let mut name = self.name();
        let mut steps = FuturesUnordered::new();
        // Beside the steps, so that they go on while much is given up.
        let mut tending = std::pin::pin!(Fuse::terminated());
        loop {
            let is_to_compare = !self.state.lock().unsure.is_empty() && !is_tried;
            if is_to_compare && steps.is_empty() {
                is_tried = true;
                is_enlisted = is_enlisted || self.enlist(&mut name).await.is_ok();
                if is_enlisted && let Err(error) = self.compare(&name).await {
                    tracing::debug!(%error, "who holds which channels could not be compared");
                }
            }
            while is_enlisted
                && (!is_to_compare || is_tried)
                && steps.len() < AT_ONCE
                && let Some(step) = self.next()
            {
                let (occupancy, name) = (self.clone(), name.clone());
                steps.push(async move { occupancy.take(&name, step).await });
            }
            tokio::select! {
                Some(()) = steps.next() => {}
                () = self.awake.notified() => {}
                told = doubts.changed() => {
                    let now = *doubts.borrow_and_update();
                    if told.is_err() {
                        return;
                    }
                    let mut state = self.state.lock();
                    state.unsure.extend(0..self.ledger.parts());
                    state.life += u32::from(now.lapses != seen.lapses);
                    self.again(&mut state, usize::MAX);
                    // What was lost may be that we take part.
                    (seen, is_tried, is_enlisted) = (now, false, false);
                    trusted_from = Instant::now() + self.lease;
                }
                _ = ticks.tick() => {
                    is_tried = false;
                    self.again(&mut self.state.lock(), AGAIN_AT_ONCE);
                    if tending.is_terminated() {
                        tending.set(self.tend(name.clone(), Instant::now() >= trusted_from).fuse());
                    }
                }
                // There is more of it, and room for what that comes to.
                is_rest = &mut tending => if is_rest {
                    tending.set(self.tend(name.clone(), Instant::now() >= trusted_from).fuse());
                }
            }
        }
    }

    /// Takes part by the name of this life. What was held under the one before is given up when all that is wanted is held by this one.
    /// No step is under way.
    async fn enlist(&self, name: &mut String) -> Result<(), BrokerError> {
        // What knew of it may be lost, and what is held under it not: a step that was under way may have come later.
        self.ledger.enlist(name).await?;
        let now = self.name();
        self.ledger.enlist(&now).await?;
        if *name != now {
            let mut state = self.state.lock();
            state.channels.values_mut().for_each(|standing| standing.is_to_move = standing.is_wanted);
            *name = now;
        }
        Ok(())
    }

    /// Whether the broker knows everything.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.unsure.is_empty() && state.channels.values().all(|standing| !standing.is_busy)
    }

    fn name(&self) -> String {
        name_of(&self.stamp, self.state.lock().life)
    }
}

/// A node as records name it: letters and digits.
pub(crate) fn stamp_of(node: &NodeId) -> String {
    // A node's id has as many; one that somebody has named otherwise is made so.
    let stamp: String = node.as_str().bytes().filter(u8::is_ascii_alphanumeric).map(char::from).collect();
    format!("{stamp:0<STAMP$.STAMP$}")
}

/// A node in one of its lives.
fn name_of(stamp: &str, life: u32) -> String {
    format!("{stamp}{:04x}", life & 0xffff)
}

/// The node that goes, or went, by a name.
pub(crate) fn stamp(name: &str) -> &str {
    name.get(..STAMP).unwrap_or(name)
}
