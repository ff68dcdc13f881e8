//! The fault suite against the real program: a short run of every fault, and a break of the server for each invariant that its
//! checker has to find. The long run is `talewire-faults run --minutes 10`, see docs/faults.md.

mod breaks;
mod grown;

use talewire_faults::checkers::Promises;
use talewire_faults::run::{self, RunOptions};
use talewire_faults::schedule::{self, Step};
use talewire_faults::stage::{self, Ground, StageOptions};

/// A run on one node.
fn alone(steps: Vec<Step>) -> RunOptions {
    on(Ground::Alone, 1, steps)
}

fn on(ground: Ground, nodes: usize, steps: Vec<Step>) -> RunOptions {
    let binary = stage::binary().expect("talewire is built");
    let (small_disk, moved_clock, apart, unwatched) = (false, false, false, false);
    let stage =
        StageOptions { binary, other: None, ground, nodes, small_disk, moved_clock, apart, unwatched, lie: None };
    let promises = Promises::default();
    RunOptions { stage, steps, seed: 1, promises, calm_ms: 1_000, orders: false, stories: false, log: None }
}

#[test]
fn every_fault_comes_once_and_nothing_is_lost() {
    let mut options = alone(schedule::short(1, Ground::Alone, 1, false));
    (options.stage.small_disk, options.stage.moved_clock, options.stories) = (true, true, true);
    let report = run::run(&options).expect("the run is made");
    assert!(report.verdict.is_green(), "{report}");
    let counts = &report.verdict.counts;
    assert!(counts.acknowledged > 300 && counts.delivered > 1_500, "{report}");
    assert!(counts.breaks > 30 && counts.resumes > 60, "every fault breaks somebody: {report}");
    assert!(counts.jobs > 1 && counts.job_texts > 0, "generations were written: {report}");
    assert!(counts.presence_reads > 1, "{report}");
    assert_eq!(report.faults.len(), options.steps.len(), "{report}");
    assert!(report.faults.iter().all(|fault| fault.delivery_ms.is_some()), "{report}");
}
