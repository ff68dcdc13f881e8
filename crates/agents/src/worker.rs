//! The worker: claims jobs, runs up to so many attempts at once, and sees to it that each job ends once. Wake-ups flow in
//! from the broker, jobs from the store; started by the binary, in the server's process or in one of its own.
//!
//! Nothing here trusts a wake-up: it only makes the worker look at the store sooner than its sweep would.

use std::collections::HashMap;
use std::sync::Arc;

use talewire_broker::{Broker, WakeUp};
use talewire_proto::{GenerationId, JobOwner, StoryId};
use talewire_store::{Job, Store};
use talewire_story::Stories;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::counts::{AgentCounts, count};
use crate::error::{BadSettings, Reason};
use crate::generation::{self, Outcome, Tools};
use crate::keeper::{self, Signals};
use crate::provider::Provider;
use crate::settings::{AgentSettings, ms};

/// How long handing back may take at the end of a shutdown; then leases run out by themselves.
const HAND_BACK_WAIT: Duration = Duration::from_secs(3);

/// Runs agents. One per process.
pub struct Worker {
    tools: Arc<Tools>,
    owner: JobOwner,
    tasks: JoinSet<()>,
    running: HashMap<Id, Running>,
    drain: CancellationToken,
}

/// An attempt under way.
struct Running {
    story: StoryId,
    generation: GenerationId,
    attempt: u32,
    /// Makes its keeper look at the store at once.
    nudge: Arc<Notify>,
}

impl Worker {
    /// A worker with the provider that the settings name.
    ///
    /// # Errors
    /// [`BadSettings`] that no worker could run with.
    pub fn new(store: Store, broker: Broker, stories: Stories, settings: AgentSettings) -> Result<Self, BadSettings> {
        let provider = Provider::new(&settings)?;
        Self::with_provider(store, broker, stories, settings, provider)
    }

    /// A worker with a provider that was made before.
    ///
    /// # Errors
    /// As [`Worker::new`].
    pub fn with_provider(
        store: Store,
        broker: Broker,
        stories: Stories,
        settings: AgentSettings,
        provider: Provider,
    ) -> Result<Self, BadSettings> {
        settings.check()?;
        let label = settings.label();
        let tools = Tools { store, broker, stories, provider, settings, label, counts: Arc::default() };
        let owner = JobOwner::from_random(std::array::from_fn(|_| fastrand::u8(..)));
        Ok(Self {
            tools: Arc::new(tools),
            owner,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            drain: CancellationToken::new(),
        })
    }

    /// What this worker has done, for metrics.
    #[must_use]
    pub fn counts(&self) -> Arc<AgentCounts> {
        self.tools.counts.clone()
    }

    /// Gives back at once what a process held that is dead. Only for a process that has the store to itself, before [`Worker::run`].
    pub async fn take_over(&self) {
        match self.tools.store.release_all(&self.owner).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "jobs of an earlier process are taken over"),
            Err(error) => tracing::warn!(%error, "jobs of an earlier process wait for their leases to run out"),
        }
    }

    /// Works until `shutdown`, then finishes what it can within `drain_ms` and hands back the rest.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wakeups = self.tools.broker.wakeups();
        let mut sweep = interval(ms(self.tools.settings.sweep_ms));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        loop {
            let draining = deadline.is_some();
            if draining && self.tasks.is_empty() {
                break;
            }
            let look = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !draining => {
                    deadline = Some(Instant::now() + ms(self.tools.settings.drain_ms));
                    false
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if draining => break,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.ended(ended).await;
                    true
                }
                wake = wakeups.recv() => self.woken(wake),
                _ = sweep.tick() => {
                    self.sweep().await;
                    true
                }
            };
            if look && !draining {
                self.claim().await;
            }
        }
        self.hand_back().await;
    }

    /// Whether a wake-up asks for a look at the jobs.
    fn woken(&self, wake: Result<WakeUp, RecvError>) -> bool {
        match wake {
            Ok(WakeUp::Jobs) => true,
            Ok(WakeUp::Cancel(generation)) => {
                self.running.values().filter(|r| r.generation == generation).for_each(|r| r.nudge.notify_one());
                false
            }
            Ok(WakeUp::Order(_)) => false,
            // Some were missed: look at everything.
            Err(RecvError::Lagged(_)) => {
                self.running.values().for_each(|r| r.nudge.notify_one());
                true
            }
            // Cannot be while this worker holds the broker; the sweep alone would do.
            Err(RecvError::Closed) => false,
        }
    }

    /// Ends jobs that nobody will end.
    async fn sweep(&self) {
        match self.tools.store.sweep(self.tools.settings.attempts_max).await {
            Ok(log) => self.tools.announce_swept(&log).await,
            Err(error) => tracing::warn!(%error, "the jobs could not be swept"),
        }
    }

    /// Takes jobs as long as there are any and there is room.
    async fn claim(&mut self) {
        let lease_ms = i64::try_from(self.tools.settings.lease_ms).unwrap_or(i64::MAX);
        while self.tasks.len() < self.tools.settings.concurrency {
            match self.tools.store.claim(&self.owner, lease_ms).await {
                Ok(Some(job)) => self.start(job),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "no job could be claimed");
                    return;
                }
            }
        }
    }

    fn start(&mut self, job: Job) {
        count(&self.tools.counts.claimed);
        count(&self.tools.counts.running);
        let nudge = Arc::new(Notify::new());
        let running = Running {
            story: job.story.clone(),
            generation: job.generation.id.clone(),
            attempt: job.generation.attempt,
            nudge: nudge.clone(),
        };
        let signals = Signals { drain: self.drain.clone(), ..Signals::default() };
        let handle = self.tasks.spawn(attempt(self.tools.clone(), job, nudge, signals));
        self.running.insert(handle.id(), running);
    }

    /// An attempt's task is over; one that ended in a panic is tried again, then failed.
    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, error) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        self.tools.counts.running.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        let (Some(running), Some(error)) = (self.running.remove(&id), error) else { return };
        if !error.is_panic() {
            return;
        }
        count(&self.tools.counts.panics);
        let Running { story, generation, attempt, .. } = running;
        tracing::error!(%generation, attempt, "an attempt at a generation ended in a panic");
        if attempt < self.tools.settings.attempts_max {
            release(&self.tools, &generation, attempt).await;
            return;
        }
        let message = "Something went wrong inside the narrator, so the passage was not kept. You can ask again.";
        let reason = Reason { code: "internal", message: message.into() };
        self.tools.fail(&story, &generation, attempt, reason, None, &Signals::default()).await;
    }

    /// Tells what still runs to hand back its job, and waits a little for it.
    async fn hand_back(mut self) {
        self.drain.cancel();
        let until = Instant::now() + HAND_BACK_WAIT;
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, self.tasks.join_next_with_id()).await {
            self.ended(ended).await;
        }
        // What is left is stuck; its leases run out, and other workers take over.
        self.tasks.shutdown().await;
    }
}

/// One attempt with the keeper of its lease.
async fn attempt(tools: Arc<Tools>, job: Job, nudge: Arc<Notify>, signals: Signals) {
    let (generation, attempt) = (&job.generation.id, job.generation.attempt);
    tools.announce(&job.log).await;
    let lease = ms(tools.settings.lease_ms);
    let outcome = tokio::select! {
        outcome = generation::run(&tools, &job, &signals) => outcome,
        never = keeper::keep(&tools.store, generation, attempt, lease, &nudge, &signals) => match never {},
    };
    tracing::info!(%generation, attempt, ?outcome, "an attempt at a generation is over");
    match outcome {
        Outcome::Ended(_) => {}
        Outcome::Fenced => {
            count(&tools.counts.fenced);
            // If the broker was wrong about it (it may have forgotten the stream), the job is free at once; else this does nothing.
            release(&tools, generation, attempt).await;
        }
        Outcome::HandBack => {
            count(&tools.counts.handed_back);
            release(&tools, generation, attempt).await;
        }
    }
}

/// Lets others claim the job at once, unless somebody has it already.
async fn release(tools: &Tools, generation: &GenerationId, attempt: u32) {
    match tools.store.release(generation, attempt).await {
        Ok(true) => tools.broker.wake(WakeUp::Jobs),
        Ok(false) => {}
        Err(error) => tracing::warn!(%generation, %error, "a job could not be handed back; its lease will run out"),
    }
}

#[cfg(test)]
mod tests;
