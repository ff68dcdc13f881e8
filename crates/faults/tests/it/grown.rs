//! Two nodes, and once four, on what many nodes stand on: PostgreSQL and Redis in each of its forms. Nodes die first, so that their members have gone
//! from presence when everything else is over.

use talewire_faults::checkers::Invariant;
use talewire_faults::report::Report;
use talewire_faults::run;
use talewire_faults::schedule::{Fault, Place, Step};
use talewire_faults::stage::Ground;
use talewire_faults::stage::proxy::Weather;

use super::on;

/// A position of no importance.
const SLOT: u16 = 5_000;

fn run(ground: Ground, faults: &[Fault]) -> Report {
    run_on(ground, 2, faults)
}

fn run_on(ground: Ground, nodes: usize, faults: &[Fault]) -> Report {
    let steps: Vec<Step> = faults.iter().map(|fault| Step { rest_ms: 300, fault: *fault }).collect();
    let mut options = on(ground, nodes, steps);
    options.stage.small_disk = ground == Ground::Redis;
    (options.stories, options.orders) = (true, true);
    options.log = std::env::var_os("TALEWIRE_FAULTS_LOG").map(Into::into);
    let report = run::run(&options).expect("the run is made");
    assert!(report.verdict.is_green(), "{report}");
    let counts = &report.verdict.counts;
    assert!(counts.acknowledged > 100 && counts.delivered > 800 && counts.jobs > 0, "{report}");
    assert_eq!(counts.orders, counts.orders_seen, "what was taken away is away: {report}");
    assert!(counts.presence_reads > 3, "each node said who is there: {report}");
    report
}

#[test]
fn two_nodes_on_one_redis_lose_nothing() {
    let faults = [
        Fault::Kill { node: 0, down_ms: 100 },
        Fault::KillBroker { slot: SLOT, down_ms: 100 },
        Fault::Storm { place: Place::Broker(1), weather: Weather::BlackHole, ms: 700 },
        Fault::KillStore { down_ms: 100 },
        Fault::Storm { place: Place::Store(1), weather: Weather::Reset, ms: 300 },
        Fault::PauseBroker { slot: SLOT, ms: 500 },
        Fault::FillBroker { ms: 500 },
        Fault::FillBrokerDisk { ms: 300, every_second: false },
        Fault::FillBrokerDisk { ms: 300, every_second: true },
        Fault::Deafen { node: 1 },
        Fault::PauseWorker { ms: 5_000 },
        Fault::KillWorker { down_ms: 100 },
        Fault::Drain { node: 1 },
    ];
    let counts = run(Ground::Redis, &faults).verdict.counts;
    assert!(counts.fenced > 0, "the worker that came back was stopped: {counts:?}");
    assert!(counts.taken_over > 0 && counts.done_by_workers > 0, "generations changed hands: {counts:?}");
    assert_eq!(counts.gone_with_epoch, 0, "one Redis that syncs every write keeps every word");
    assert_eq!(counts.resumes_lost, 0, "and nobody is told otherwise");
}

#[test]
fn a_full_disk_under_postgresql_loses_nothing() {
    let mut options = on(Ground::Postgres, 1, vec![Step { rest_ms: 300, fault: Fault::FillStore { ms: 500 } }]);
    options.stage.small_disk = true;
    let report = run::run(&options).expect("the run is made");
    assert!(report.verdict.is_green() && report.verdict.counts.acknowledged > 50, "{report}");
}

#[test]
fn what_is_taken_away_while_a_node_is_paused_stays_away() {
    let mut options = on(Ground::Redis, 2, vec![Step { rest_ms: 300, fault: Fault::Pause { node: 1, ms: 800 } }]);
    options.orders = true;
    let report = run::run(&options).expect("the run is made");
    assert!(report.verdict.is_green(), "{report}");
    let counts = &report.verdict.counts;
    assert_eq!((counts.orders, counts.orders_seen), (3, 3), "its readers are told when it goes on: {report}");
}

#[test]
fn four_nodes_on_one_redis_lose_nothing() {
    let faults = [Fault::Kill { node: 2, down_ms: 100 }, Fault::KillBroker { slot: SLOT, down_ms: 100 }];
    let counts = run_on(Ground::Redis, 4, &faults).verdict.counts;
    assert_eq!((counts.gone_with_epoch, counts.resumes_lost), (0, 0), "as with two: {counts:?}");
}

#[test]
fn two_nodes_on_nats_lose_nothing() {
    let faults = [
        Fault::KillBroker { slot: SLOT, down_ms: 100 },
        Fault::Storm { place: Place::Broker(1), weather: Weather::BlackHole, ms: 700 },
        Fault::PauseBroker { slot: SLOT, ms: 500 },
        Fault::Drain { node: 0 },
    ];
    let counts = run(Ground::Nats, &faults).verdict.counts;
    assert_eq!((counts.gone_with_epoch, counts.resumes_lost), (0, 0), "a killed process loses nothing: {counts:?}");
}

#[test]
fn two_nodes_over_a_cluster_keep_positions_true() {
    let faults = [
        Fault::Kill { node: 0, down_ms: 100 },
        Fault::MoveSlots { count: 2 },
        Fault::KillBroker { slot: SLOT, down_ms: 100 },
        Fault::FailOver { slot: 15_000 },
    ];
    run(Ground::Cluster, &faults);
}

#[test]
fn two_nodes_behind_sentinels_keep_positions_true() {
    let faults = [
        Fault::PauseBroker { slot: SLOT, ms: 1_500 },
        Fault::KillReplica { slot: SLOT, down_ms: 100 },
        Fault::KillSentinel { number: 1, down_ms: 100 },
        Fault::FailOverToOld { lag_ms: 1_000 },
    ];
    let counts = run(Ground::Sentinel, &faults).verdict.counts;
    assert!(counts.gone_with_epoch > 0, "the replica did not have the newest: {counts:?}");
    assert!(counts.resumes_lost + counts.gaps > 0, "and readers were told: {counts:?}");
}

/// In a network of its own, which the program makes. Where the system does not let it, this fails and says why.
#[test]
fn a_node_that_is_cut_off_and_a_partition_lose_nothing_in_silence() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_talewire-faults"));
    command.args(["run", "--stage", "cluster", "--only", "CutOff,Split", "--binary"]);
    let done = command.arg(talewire_faults::stage::binary().expect("talewire is built")).output().expect("it runs");
    let [said, why] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(done.status.success() && said.contains("GREEN"), "{said}{why}");
    assert_eq!((said.matches("CutOff").count(), said.matches("Split").count()), (3, 1), "{said}");
}

#[test]
fn i5_a_node_that_does_not_look_whether_it_hears_is_found() {
    let mut options = on(Ground::Redis, 2, vec![Step { rest_ms: 300, fault: Fault::Deafen { node: 0 } }]);
    options.stage.unwatched = true;
    options.promises.deaf_ms = 2_000;
    let verdict = run::run(&options).expect("the run is made").verdict;
    let wrong = verdict.wrong.get(&Invariant::Deaf).expect("it was deaf and said nothing");
    assert!(wrong.count > 1, "neither it nor its readers knew: {verdict}");
    assert!(!verdict.is_red(Invariant::Valid), "{verdict}");
}

#[test]
fn i13_keys_that_stay_in_redis_are_found() {
    let options = on(Ground::Redis, 2, vec![Step { rest_ms: 300, fault: Fault::HoardKeys }]);
    let verdict = run::run(&options).expect("the run is made").verdict;
    let wrong = verdict.wrong.get(&Invariant::Bounds).expect("keys stay, and nobody noticed");
    assert!(wrong.first.iter().any(|first| first.contains("keys at the end")), "{verdict}");
    assert!(!verdict.is_red(Invariant::Valid), "{verdict}");
}

#[test]
fn i1_entries_that_were_taken_out_of_redis_are_found() {
    let steps = vec![Step { rest_ms: 500, fault: Fault::LoseKeys }];
    let mut options = on(Ground::Redis, 2, steps);
    (options.promises.alive_ms, options.promises.presence_ms) = (1_500, 1_500);
    let verdict = run::run(&options).expect("the run is made").verdict;
    assert!(verdict.is_red(Invariant::Kept), "entries are gone, and nobody noticed: {verdict}");
    assert!(!verdict.is_red(Invariant::Valid), "{verdict}");
}
