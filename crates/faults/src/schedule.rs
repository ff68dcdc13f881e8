//! Which faults come when: a seed and a time in, steps out. Pure, so that a seed gives the same run again, as far as machines allow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stage::Ground;
use crate::stage::proxy::Weather;

/// What is done to the stage. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// F1: SIGKILL, and started again.
    Kill {
        /// Which node.
        node: usize,
        /// How long it stays down.
        down_ms: u64,
    },
    /// F1: killed again while it starts.
    KillStarting {
        /// Which node.
        node: usize,
        /// How long it has had to start.
        after_ms: u64,
    },
    /// SIGSTOP, then SIGCONT.
    Pause {
        /// Which node.
        node: usize,
        /// For how long.
        ms: u64,
    },
    /// I16: SIGTERM, and started again.
    Drain {
        /// Which node.
        node: usize,
    },
    /// F22: SIGTERM to one node after the other, each started again before the next.
    Roll,
    /// F12: the disk is full.
    FillDisk {
        /// For how long.
        ms: u64,
        /// Whether the first node is killed and started again meanwhile.
        kill: bool,
    },
    /// F12: the disk of PostgreSQL is full.
    FillStore {
        /// For how long.
        ms: u64,
    },
    /// F11: the disk of Redis is full. One that syncs every write ends then; one that syncs once a second refuses to write.
    FillBrokerDisk {
        /// For how long.
        ms: u64,
        /// Whether it syncs once a second meanwhile.
        every_second: bool,
    },
    /// F18: the wall clock of a node jumps, and jumps back.
    MoveClock {
        /// Which node.
        node: usize,
        /// By how much.
        seconds: i64,
        /// For how long.
        ms: u64,
    },
    /// F18: the wall clock of PostgreSQL jumps, and jumps back.
    MoveStoreClock {
        /// By how much.
        seconds: i64,
        /// For how long.
        ms: u64,
    },
    /// F19: a node has no descriptors left.
    TakeDescriptors {
        /// Which node.
        node: usize,
        /// For how long.
        ms: u64,
    },
    /// F21: SIGKILL to a worker that writes, and started again.
    KillWorker {
        /// How long it stays down.
        down_ms: u64,
    },
    /// F21: SIGSTOP to a worker that writes, beyond its lease, then SIGCONT.
    PauseWorker {
        /// For how long.
        ms: u64,
    },
    /// F2: SIGKILL to all of PostgreSQL, and started again.
    KillStore {
        /// How long it stays down.
        down_ms: u64,
    },
    /// SIGSTOP to all of PostgreSQL, then SIGCONT.
    PauseStore {
        /// For how long.
        ms: u64,
    },
    /// F2, F4, F9: SIGKILL to the Redis master, or to NATS. It is started again, where there are others when one of them has taken its place.
    KillBroker {
        /// Of a cluster, the master that has this slot.
        slot: u16,
        /// How long it stays down at least.
        down_ms: u64,
    },
    /// F2: SIGKILL to a replica of Redis, and started again.
    KillReplica {
        /// One of the replicas, of a cluster of the master that has this slot.
        slot: u16,
        /// How long it stays down.
        down_ms: u64,
    },
    /// F2: SIGKILL to a Sentinel, and started again.
    KillSentinel {
        /// Which.
        number: usize,
        /// How long it stays down.
        down_ms: u64,
    },
    /// F5: SIGSTOP to the Redis master, or to NATS, then SIGCONT: where there are others, it comes back as one who does not know that it is
    /// no longer the master.
    PauseBroker {
        /// Of a cluster, the master that has this slot.
        slot: u16,
        /// For how long.
        ms: u64,
    },
    /// F11: Redis has no room: it reads, and refuses every write.
    FillBroker {
        /// For how long.
        ms: u64,
    },
    /// F4: a replica takes over, in order.
    FailOver {
        /// Of a cluster, the master that has this slot.
        slot: u16,
    },
    /// F7: the replicas are cut off, the master goes on for a while and is killed, and one of them takes over.
    FailOverToOld {
        /// How long they are cut off.
        lag_ms: u64,
    },
    /// F8: slots with keys move to other masters.
    MoveSlots {
        /// At most so many from each.
        count: usize,
    },
    /// F13, F16: what is between a node and half of its clients, or between a node and what it stands on.
    Storm {
        /// Where.
        place: Place,
        /// What it is like.
        weather: Weather,
        /// For how long.
        ms: u64,
    },
    /// F6, F13: nothing goes between a node and some of the servers of its broker; all others see them. It needs
    /// networks of their own ([`crate::stage::apart`]).
    CutOff {
        /// Which node.
        node: usize,
        /// From whom.
        whom: Whom,
        /// Whether it is told (RST), or packets are dropped without a word.
        loud: bool,
        /// Whether a replica takes over meanwhile.
        fail_over: bool,
        /// For how long.
        ms: u64,
    },
    /// F6: the master and one node are on one side, all other servers and nodes on the other, where a replica takes its place. It needs
    /// networks of their own.
    Split {
        /// Which node.
        node: usize,
        /// Of a cluster, the master that has this slot.
        slot: u16,
        /// For how long after a replica has taken over.
        ms: u64,
    },
    /// F10: announcements of Redis do not reach a node, whose connections all stand. Until it says so, and for the time that it
    /// may take at most.
    Deafen {
        /// Which node.
        node: usize,
    },
    /// F17: readers of long texts who do not read.
    SlowReaders {
        /// Of which node.
        node: usize,
        /// For how long.
        ms: u64,
    },

    /// A break, for tests: connections that nobody gives back (I13).
    Leak {
        /// Of which node.
        node: usize,
    },
    /// A break, for tests: a node is given more and more to keep in its memory, until everything is over (I13).
    Hoard {
        /// Which node.
        node: usize,
    },
    /// A break, for tests: channels that nobody reads, and whose keys stay in Redis (I13).
    HoardKeys,
    /// A break, for tests: the data of a while ago is put in place of what there is (I5).
    OldBackup {
        /// Of which node.
        node: usize,
    },
    /// A break, for tests: a node that is down loses its newest commits (I1).
    LoseEntries {
        /// Of which node.
        node: usize,
    },
    /// A break, for tests: the older half of every stream in Redis is cut off (I1).
    LoseKeys,
    /// A break, for tests: a storm that does not end (I15).
    EndlessStorm {
        /// Before which node.
        node: usize,
    },
    /// A break, for tests: a node that is paused when it is asked to end (I16).
    PauseInDrain {
        /// Which node.
        node: usize,
    },
}

/// Where a storm is. Each is of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Between the node and half of its clients.
    Front(usize),
    /// Between the node and PostgreSQL.
    Store(usize),
    /// Between the node and its broker.
    Broker(usize),
}

/// Servers of a broker from which one node is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// All Sentinels.
    Sentinels,
    /// The master; of a cluster, the one that has this slot.
    Master(u16),
    /// Every server that holds data.
    Servers,
}

/// One fault and the time of rest before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Everything is whole for so long, in milliseconds.
    pub rest_ms: u64,
    /// Then this comes.
    pub fault: Fault,
}

/// How long rests are in a long run, in milliseconds.
const REST_MS: std::ops::Range<u64> = 2_000..8_000;

/// How long a worker is paused at least, in milliseconds: the lease of the stage's settings, and two looks at the queue.
const PAUSED_WORKER_MS: u64 = 5_000;

/// Steps in the given time.
#[must_use]
pub fn long(seed: u64, time: Duration, ground: Ground, nodes: usize, apart: bool) -> Vec<Step> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut steps = Vec::new();
    let mut left_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // Until every kind has had its turn once, then anything.
    let mut due: Vec<usize> = Vec::new();
    loop {
        if due.is_empty() {
            due = kinds(ground, nodes, apart);
            rng.shuffle(&mut due);
        }
        let kind = due.pop().unwrap_or(0);
        let step = Step { rest_ms: rng.u64(REST_MS), fault: fault(kind, &mut rng, nodes) };
        let takes_ms = step.rest_ms + takes_ms(step.fault);
        if takes_ms > left_ms {
            return steps;
        }
        left_ms -= takes_ms;
        steps.push(step);
    }
}

/// Every kind of fault once, each as short as it can be, in an order of its own for each seed.
#[must_use]
pub fn short(seed: u64, ground: Ground, nodes: usize, apart: bool) -> Vec<Step> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut kinds = kinds(ground, nodes, apart);
    rng.shuffle(&mut kinds);
    let step = |kind| Step { rest_ms: 400, fault: shortened(fault(kind, &mut rng, nodes)) };
    kinds.into_iter().map(step).collect()
}

/// The kinds that there are on a ground, as [`fault`] numbers them. Kills are several: they are what happens most.
fn kinds(ground: Ground, nodes: usize, apart: bool) -> Vec<usize> {
    let everywhere = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14];
    let mut kinds = everywhere.to_vec();
    if ground == Ground::Alone {
        kinds.extend([5, 6]);
    }
    if ground.has_postgres() {
        kinds.extend([20, 21, 22, 24, 25]);
    }
    if ground == Ground::Postgres {
        kinds.push(23);
    }
    if nodes > 1 {
        kinds.push(40);
    }
    if ground.has_worker() {
        kinds.extend([60, 61]);
    }
    match ground {
        Ground::Alone | Ground::Postgres => {}
        Ground::Redis => kinds.extend([30, 31, 32, 36, 37, 41, 42]),
        Ground::Nats => kinds.extend([30, 30, 31, 32]),
        Ground::Sentinel => kinds.extend([30, 31, 33, 35, 38, 39]),
        Ground::Cluster => kinds.extend([30, 31, 33, 34, 38]),
    }
    match ground {
        Ground::Sentinel if apart => kinds.extend([50, 51, 52, 53, 55]),
        Ground::Cluster if apart => kinds.extend([51, 53, 54, 55]),
        _ => {}
    }
    kinds
}

fn fault(kind: usize, rng: &mut fastrand::Rng, nodes: usize) -> Fault {
    let node = rng.usize(0..nodes.max(1));
    let ms = rng.u64(1_000..6_000);
    let down_ms = rng.u64(0..1_500);
    let slow = Weather::Slow { latency_ms: rng.u64(20..150), jitter_ms: rng.u64(1..100) };
    let ended = if rng.bool() { Weather::Cut } else { Weather::Reset };
    let front = |weather| Fault::Storm { place: Place::Front(node), weather, ms };
    let slot = rng.u16(0..16_384);
    let any = *rng.choice(&[slow, ended, Weather::BlackHole, Weather::BlackHole]).unwrap_or(&ended);
    match kind {
        0 | 1 => Fault::Kill { node, down_ms },
        2 => Fault::KillStarting { node, after_ms: rng.u64(5..400) },
        3 => Fault::Pause { node, ms: rng.u64(1_000..12_000) },
        4 => Fault::Drain { node },
        5 => Fault::FillDisk { ms, kill: false },
        6 => Fault::FillDisk { ms, kill: true },
        7 => Fault::MoveClock { node, seconds: -3_600, ms },
        8 => Fault::MoveClock { node, seconds: 86_400, ms },
        9 => Fault::TakeDescriptors { node, ms },
        10 => front(slow),
        11 => front(Weather::BlackHole),
        12 => front(ended),
        13 => front(Weather::HalfClosed),
        14 => Fault::SlowReaders { node, ms },
        20 => Fault::KillStore { down_ms },
        21 => Fault::PauseStore { ms },
        24 => Fault::MoveStoreClock { seconds: -3_600, ms },
        25 => Fault::MoveStoreClock { seconds: 86_400, ms },
        23 => Fault::FillStore { ms },
        41 => Fault::FillBrokerDisk { ms, every_second: false },
        42 => Fault::FillBrokerDisk { ms, every_second: true },
        22 => Fault::Storm { place: Place::Store(node), weather: any, ms },
        30 => Fault::KillBroker { slot, down_ms },
        31 => Fault::PauseBroker { slot, ms },
        33 => Fault::FailOver { slot },
        40 => Fault::Roll,
        36 => Fault::FillBroker { ms },
        37 => Fault::Deafen { node },
        35 => Fault::FailOverToOld { lag_ms: rng.u64(500..3_000) },
        34 => Fault::MoveSlots { count: rng.usize(1..4) },
        38 => Fault::KillReplica { slot, down_ms },
        39 => Fault::KillSentinel { number: rng.usize(0..3), down_ms },
        60 => Fault::KillWorker { down_ms },
        // Longer than its lease, and than others take to look for jobs whose leases are over.
        61 => Fault::PauseWorker { ms: rng.u64(PAUSED_WORKER_MS..10_000) },
        50 => Fault::CutOff { node, whom: Whom::Sentinels, loud: rng.bool(), fail_over: false, ms },
        51 => Fault::CutOff { node, whom: Whom::Master(slot), loud: rng.bool(), fail_over: false, ms },
        52 => Fault::CutOff { node, whom: Whom::Sentinels, loud: rng.bool(), fail_over: true, ms },
        53 => Fault::CutOff { node, whom: Whom::Master(slot), loud: rng.bool(), fail_over: true, ms },
        55 => Fault::Split { node, slot, ms },
        54 => Fault::CutOff { node, whom: Whom::Servers, loud: rng.bool(), fail_over: false, ms },
        _ => Fault::Storm { place: Place::Broker(node), weather: any, ms },
    }
}

fn shortened(fault: Fault) -> Fault {
    match fault {
        Fault::Kill { node, down_ms } => Fault::Kill { node, down_ms: down_ms.min(200) },
        Fault::Pause { node, .. } => Fault::Pause { node, ms: 800 },
        Fault::FillDisk { kill, .. } => Fault::FillDisk { ms: 700, kill },
        Fault::FillStore { .. } => Fault::FillStore { ms: 700 },
        Fault::FillBrokerDisk { every_second, .. } => Fault::FillBrokerDisk { ms: 700, every_second },
        Fault::MoveClock { node, seconds, .. } => Fault::MoveClock { node, seconds, ms: 1_300 },
        Fault::MoveStoreClock { seconds, .. } => Fault::MoveStoreClock { seconds, ms: 1_300 },
        Fault::TakeDescriptors { node, .. } => Fault::TakeDescriptors { node, ms: 600 },
        Fault::Storm { place, weather, .. } => Fault::Storm { place, weather, ms: 700 },
        Fault::KillStore { down_ms } => Fault::KillStore { down_ms: down_ms.min(200) },
        Fault::PauseStore { .. } => Fault::PauseStore { ms: 700 },
        Fault::KillBroker { slot, down_ms } => Fault::KillBroker { slot, down_ms: down_ms.min(200) },
        Fault::PauseBroker { slot, .. } => Fault::PauseBroker { slot, ms: 700 },
        Fault::KillReplica { slot, down_ms } => Fault::KillReplica { slot, down_ms: down_ms.min(200) },
        Fault::KillSentinel { number, down_ms } => Fault::KillSentinel { number, down_ms: down_ms.min(200) },
        Fault::KillWorker { down_ms } => Fault::KillWorker { down_ms: down_ms.min(200) },
        Fault::PauseWorker { .. } => Fault::PauseWorker { ms: PAUSED_WORKER_MS },
        Fault::FillBroker { .. } => Fault::FillBroker { ms: 700 },
        Fault::SlowReaders { node, .. } => Fault::SlowReaders { node, ms: 700 },
        Fault::Split { node, slot, .. } => Fault::Split { node, slot, ms: 1_500 },
        Fault::CutOff { node, whom, loud, fail_over, .. } => Fault::CutOff { node, whom, loud, fail_over, ms: 1_500 },
        other => other,
    }
}

/// About how long a fault takes.
fn takes_ms(fault: Fault) -> u64 {
    match fault {
        Fault::Kill { down_ms, .. } | Fault::KillStore { down_ms } | Fault::KillBroker { down_ms, .. } => down_ms + 500,
        Fault::KillReplica { down_ms, .. } | Fault::KillSentinel { down_ms, .. } => down_ms + 1_000,
        Fault::KillWorker { down_ms } => down_ms + 3_000,
        Fault::PauseWorker { ms } => ms + 4_000,
        Fault::KillStarting { after_ms, .. } => after_ms + 1_000,
        Fault::Pause { ms, .. }
        | Fault::MoveClock { ms, .. }
        | Fault::MoveStoreClock { ms, .. }
        | Fault::TakeDescriptors { ms, .. }
        | Fault::PauseStore { ms }
        | Fault::PauseBroker { ms, .. }
        | Fault::FillBroker { ms }
        | Fault::Storm { ms, .. }
        | Fault::SlowReaders { ms, .. } => ms + 100,
        Fault::FillDisk { ms, .. } => ms + 1_000,
        Fault::FillStore { ms } | Fault::FillBrokerDisk { ms, .. } => ms + 3_000,
        Fault::FailOverToOld { lag_ms } => lag_ms + 2_000,
        Fault::Split { ms, .. } => ms + 3_000,
        Fault::CutOff { ms, fail_over, .. } => ms + if fail_over { 2_000 } else { 200 },
        Fault::FailOver { .. } | Fault::MoveSlots { .. } => 2_000,
        Fault::Drain { .. } | Fault::PauseInDrain { .. } => 6_000,
        Fault::Deafen { .. } => 11_000,
        Fault::Roll => 20_000,
        Fault::Leak { .. }
        | Fault::Hoard { .. }
        | Fault::HoardKeys
        | Fault::OldBackup { .. }
        | Fault::LoseEntries { .. }
        | Fault::LoseKeys
        | Fault::EndlessStorm { .. } => 2_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUNDS: [Ground; 6] =
        [Ground::Alone, Ground::Postgres, Ground::Redis, Ground::Nats, Ground::Sentinel, Ground::Cluster];

    #[test]
    fn a_seed_gives_the_same_steps_again() {
        let ten = Duration::from_secs(600);
        for ground in GROUNDS {
            assert_eq!(long(1, ten, ground, 2, true), long(1, ten, ground, 2, true));
            assert_ne!(long(1, ten, ground, 2, true), long(2, ten, ground, 2, true));
            assert!(long(1, ten, ground, 2, true).len() > 30);
            assert_eq!(short(7, ground, 2, true), short(7, ground, 2, true));
        }
    }

    #[test]
    fn every_kind_comes_in_a_short_run_and_in_ten_minutes() {
        let name = |step: &Step| format!("{:?}", step.fault).split(' ').next().unwrap_or_default().to_owned();
        let names = |steps: Vec<Step>| steps.iter().map(name).collect::<std::collections::BTreeSet<_>>();
        for (ground, count) in GROUNDS.into_iter().zip([10, 13, 19, 16, 22, 21]) {
            let all = names(short(1, ground, 2, true));
            assert_eq!(all.len(), count, "{all:?}");
            for seed in 1..5 {
                assert_eq!(names(long(seed, Duration::from_secs(600), ground, 2, true)), all);
            }
        }
    }

    #[test]
    fn steps_fit_into_the_time() {
        for seed in 0..20 {
            let time = Duration::from_secs(60);
            let steps = long(seed, time, Ground::Alone, 1, false);
            let takes: u64 = steps.iter().map(|step| step.rest_ms + takes_ms(step.fault)).sum();
            assert!(u128::from(takes) <= time.as_millis());
        }
    }
}
