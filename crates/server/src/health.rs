//! Whether this node can serve, in words: what `/ready` says and a load balancer asks for.
//!
//! Red are a node that goes down, a broker that is not there (or most of it), and a store that does not answer, has lately failed to
//! write, or could not write. Commits are not made for the question's sake: it is red for a while after one that failed, and green with the
//! next that succeeds. Whether the store could write is looked at now and then, also when nobody writes ([`Node::watch_store`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use talewire_broker::BrokerHealth;
use talewire_store::StoreFigures;

use crate::node::Node;

/// How long a failed commit is held against the store when no other one tells: then somebody may try.
const DISTRUST: Duration = Duration::from_secs(10);

/// How long the store may take to answer.
const STORE_ANSWER: Duration = Duration::from_secs(2);

/// What the store's commits have shown so far.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    watched: Mutex<Watched>,
    /// Why the store could not write when it was last looked at.
    cannot: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Watched {
    good: u64,
    failed: u64,
    failed_at: Option<Instant>,
}

impl Commits {
    /// Whether commits fail, as of `now`.
    fn fail(&self, figures: &StoreFigures, now: Instant) -> bool {
        let (good, failed) = (figures.groups.saturating_sub(figures.groups_failed), figures.groups_failed);
        let mut watched = self.watched.lock();
        if failed > watched.failed {
            watched.failed_at = Some(now);
        } else if good > watched.good {
            watched.failed_at = None;
        }
        (watched.good, watched.failed) = (good, failed);
        watched.failed_at.is_some_and(|at| now.saturating_duration_since(at) < DISTRUST)
    }
}

impl Node {
    /// Why this node is not to be sent anybody; nothing if it can serve.
    pub(crate) async fn unready(&self) -> Option<String> {
        if self.is_stopping() {
            return Some("going down".into());
        }
        if let BrokerHealth::Down { reason } = self.broker.health() {
            return Some(format!("the broker is not there: {reason}"));
        }
        if self.commits.fail(&self.store.figures(), Instant::now()) {
            return Some("the store cannot write: the log says why".into());
        }
        if let Some(reason) = self.commits.cannot.lock().clone() {
            return Some(reason);
        }
        match tokio::time::timeout(STORE_ANSWER, self.store.log_mark()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("the store does not answer: {error}")),
            Err(_) => Some("the store does not answer in time".into()),
        }
    }

    /// Looks at the store again and again, for ever.
    pub async fn watch_store(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_at_store().await;
        }
    }

    /// Looks whether the store could write.
    pub async fn look_at_store(&self) {
        let cannot = self.store.look().await.err().map(|error| format!("the store could not write: {error}"));
        self.metrics.store_writable.set(i64::from(cannot.is_none()));
        let mut known = self.commits.cannot.lock();
        match (&*known, &cannot) {
            (None, Some(reason)) => tracing::error!("{reason}"),
            (Some(_), None) => tracing::info!("the store can write again"),
            _ => {}
        }
        *known = cannot;
    }
}

impl Node {
    /// What does not work although this node can serve; nothing if everything does.
    pub(crate) fn degraded(&self) -> Option<String> {
        match self.broker.health() {
            BrokerHealth::Partly { reason } => Some(format!("some of the broker is not there: {reason}")),
            BrokerHealth::Up | BrokerHealth::Down { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_distrusted_until_it_writes_again_or_for_a_while() {
        let commits = Commits::default();
        let figures = |groups, groups_failed| StoreFigures { groups, groups_failed, ..StoreFigures::default() };
        let start = Instant::now();
        assert!(!commits.fail(&figures(5, 0), start));
        assert!(commits.fail(&figures(6, 1), start));
        assert!(commits.fail(&figures(6, 1), start + DISTRUST / 2), "nothing has shown that it writes");
        assert!(!commits.fail(&figures(7, 1), start + DISTRUST / 2), "it has written");
        assert!(commits.fail(&figures(9, 2), start), "one was good and one failed: who knows which came last");
        assert!(!commits.fail(&figures(9, 2), start + DISTRUST), "somebody may try");
    }
}
