//! Work that is due by the clock: what the broker and the store no longer need to keep is forgotten now and then. A store that
//! nodes share is pruned by one of them, who has a lease. Called by [`crate::run`]; in come both and how often, out comes nothing.

use std::time::{Duration, Instant};

use talewire_broker::Broker;
use talewire_store::Store;

/// Who prunes a database that several nodes share.
pub(crate) const PRUNER: &str = "pruner";

/// How often what is done.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Time between two looks at whether it is due, and by whom.
    look: Duration,
    /// How long another node waits before it takes over from one that has died.
    lease: Duration,
    /// Time between two times of pruning.
    prune: Duration,
}

const PACE: Pace =
    Pace { look: Duration::from_secs(10), lease: Duration::from_secs(30), prune: Duration::from_secs(3_600) };

/// Forgets now and then what the broker and the store no longer need to keep.
pub(crate) async fn sweep(broker: Broker, store: Store) {
    let is_shared = store.is_shared();
    let prune = move || {
        let store = store.clone();
        async move {
            store.prune().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the answers of old calls could not be pruned");
                0
            })
        }
    };
    at_pace(PACE, broker, is_shared, prune).await;
}

/// Prunes at a pace, when the store is shared only with the lease. `prune` says how much it has forgotten: it forgets so much at once
/// and no more, and is asked again until there is nothing.
async fn at_pace<F: Future<Output = u64>>(pace: Pace, broker: Broker, is_shared: bool, mut prune: impl FnMut() -> F) {
    let mut looks = tokio::time::interval(pace.look);
    let mut pruned: Option<Instant> = None;
    loop {
        looks.tick().await;
        broker.sweep();
        if !is_ours(&broker, is_shared, pace.lease).await {
            // Who takes over begins at once: the other may have died in the middle of it.
            pruned = None;
            continue;
        }
        if pruned.is_some_and(|at| at.elapsed() < pace.prune) {
            continue;
        }
        pruned = Some(Instant::now());
        while prune().await > 0 && is_ours(&broker, is_shared, pace.lease).await {}
    }
}

async fn is_ours(broker: &Broker, is_shared: bool, lease: Duration) -> bool {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    !is_shared || broker.lease(PRUNER, lease_ms).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use talewire_broker::{BrokerKind, BrokerSettings, NodeId, RedisSettings};
    use talewire_stand::redis::Redis;

    use super::*;

    const QUICK: Pace =
        Pace { look: Duration::from_millis(20), lease: Duration::from_millis(1_500), prune: Duration::from_millis(10) };

    /// Who has worked, in turn, and when it was last.
    type Done = Arc<Mutex<Vec<(&'static str, Instant)>>>;

    async fn node(redis: &Redis, who: &'static str, done: &Done) -> tokio::task::JoinHandle<()> {
        let redis = RedisSettings { urls: vec![redis.url()], ..RedisSettings::default() };
        let settings = BrokerSettings { kind: BrokerKind::Redis, redis, ..BrokerSettings::default() };
        let broker = Broker::open(&settings, &NodeId::new()).await.expect("Redis answers");
        let done = done.clone();
        tokio::spawn(at_pace(QUICK, broker, true, move || {
            done.lock().expect("nobody panics with it").push((who, Instant::now()));
            std::future::ready(0)
        }))
    }

    fn count(done: &Done, who: &str) -> usize {
        done.lock().expect("nobody panics with it").iter().filter(|(other, _)| *other == who).count()
    }

    async fn until_worked(done: &Done, who: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while count(done, who) < times {
            assert!(Instant::now() < deadline, "{who} has worked {} times", count(done, who));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_node_works_and_another_takes_over_when_it_has_died() {
        let (redis, done) = (Redis::start(), Done::default());
        let a = node(&redis, "a", &done).await;
        until_worked(&done, "a", 1).await;
        let b = node(&redis, "b", &done).await;
        until_worked(&done, "a", 20).await;
        // It dies: nothing is given back.
        a.abort();
        let died = Instant::now();
        until_worked(&done, "b", 20).await;
        // One that comes later waits as well.
        let c = node(&redis, "c", &done).await;
        until_worked(&done, "b", 40).await;
        b.abort();
        c.abort();
        let done = done.lock().expect("nobody panics with it");
        let first_of_b = done.iter().position(|(who, _)| *who == "b").expect("it has worked");
        assert!(done[..first_of_b].iter().all(|(who, _)| *who == "a"), "{done:?}");
        assert!(done[first_of_b..].iter().all(|(who, _)| *who == "b"), "never two: {done:?}");
        let waited = done[first_of_b].1 - done[first_of_b - 1].1;
        assert!(waited > QUICK.lease - QUICK.look * 5, "it might have lived: {waited:?}");
        let took = done[first_of_b].1 - died;
        assert!(took < QUICK.lease + Duration::from_secs(1), "taken over only after {took:?}");
    }

    #[tokio::test]
    async fn what_is_too_much_for_once_is_forgotten_at_once_all_the_same() {
        let broker = Broker::open(&BrokerSettings::default(), &NodeId::new()).await.expect("it needs nothing");
        let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let mut left = 25_u64;
        let pace = Pace { prune: Duration::from_secs(3_600), ..QUICK };
        let sweeping = tokio::spawn(at_pace(pace, broker, false, move || {
            let forgotten = left.min(10);
            left -= forgotten;
            let _ = sender.send(left);
            std::future::ready(forgotten)
        }));
        for left in [15, 5, 0, 0] {
            let asked = tokio::time::timeout(Duration::from_secs(20), asked.recv()).await;
            assert_eq!(asked.expect("in time"), Some(left));
        }
        sweeping.abort();
    }
}
