//! For each invariant a server that breaks it: the checker is green without the break and red with it. Most breaks are lies of the
//! proxy between the server and its clients; some damage the server's data or leave a fault unhealed. None is in the server.

use std::os::unix::fs::PermissionsExt as _;

use talewire_faults::checkers::{Invariant, Verdict};
use talewire_faults::run::{self, RunOptions};
use talewire_faults::schedule::{Fault, Place, Step};
use talewire_faults::stage::proxy::Weather;
use talewire_faults::stage::twist::Lie;

use super::alone;

/// A second of calm between two short faults that harm nobody who is honest.
fn calm() -> Vec<Step> {
    vec![Step { rest_ms: 700, fault: Fault::Pause { node: 0, ms: 10 } }]
}

/// Every connection through a proxy breaks twice.
fn cuts() -> Vec<Step> {
    let cut = Step { rest_ms: 400, fault: Fault::Storm { place: Place::Front(0), weather: Weather::Cut, ms: 100 } };
    vec![cut, cut]
}

fn broken(fault: Fault) -> Vec<Step> {
    vec![Step { rest_ms: 300, fault }]
}

/// Promises of a short run: what is slow here would be slow in a long one.
fn short(steps: Vec<Step>) -> RunOptions {
    let mut options = alone(steps);
    options.promises.alive_ms = 1_500;
    options.promises.presence_ms = 1_500;
    options.promises.drain_ms = 8_000;
    options.promises.revoked_ms = 300;
    options
}

fn verdict(options: &RunOptions) -> Verdict {
    run::run(options).expect("the run is made").verdict
}

/// On a busy machine there may be no occasion for a break in so short a time: then it gets more, once.
#[track_caller]
fn is_found(options: &RunOptions, invariant: Invariant) {
    let mut found = verdict(options);
    if !found.is_red(invariant) {
        let mut longer = options.clone();
        longer.calm_ms *= 5;
        longer.steps.iter_mut().for_each(|step| step.rest_ms *= 5);
        found = verdict(&longer);
    }
    let verdict = found;
    assert!(verdict.is_red(invariant), "{invariant:?} is broken, and nobody noticed: {verdict}");
    assert!(!verdict.is_red(Invariant::Valid), "{verdict}");
}

#[track_caller]
fn a_lie_is_found(lie: Lie, steps: Vec<Step>, invariant: Invariant) {
    let mut options = short(steps);
    options.stage.lie = Some(lie);
    is_found(&options, invariant);
}

#[test]
fn without_a_break_all_is_green() {
    let mut steps = [calm(), cuts()].concat();
    steps.push(Step { rest_ms: 100, fault: Fault::Drain { node: 0 } });
    let mut options = alone(steps);
    options.stories = true;
    let verdict = verdict(&options);
    assert!(verdict.is_green(), "{verdict}");
    assert!(verdict.counts.job_texts > 0 && verdict.counts.resumes > 10, "{:?}", verdict.counts);
}

#[test]
fn i1_an_acknowledgement_of_what_was_thrown_away_is_found() {
    a_lie_is_found(Lie::Acknowledge, calm(), Invariant::Kept);
}

#[test]
fn i1_a_publication_that_one_reader_never_gets_is_found() {
    a_lie_is_found(Lie::Swallow, calm(), Invariant::Kept);
}

#[test]
fn i1_a_lost_write_ahead_log_is_found() {
    is_found(&short(broken(Fault::LoseEntries { node: 0 })), Invariant::Kept);
}

#[test]
fn i2_a_publication_that_comes_twice_is_found() {
    a_lie_is_found(Lie::Double, calm(), Invariant::Once);
}

#[test]
fn i3_publications_in_the_wrong_order_are_found() {
    a_lie_is_found(Lie::Swap, calm(), Invariant::Order);
}

#[test]
fn i3_a_publication_that_is_another_for_some_is_found() {
    a_lie_is_found(Lie::Garble, calm(), Invariant::Order);
}

#[test]
fn i4_a_recovery_with_a_gap_is_found() {
    a_lie_is_found(Lie::RecoverHalf, cuts(), Invariant::Flags);
}

#[test]
fn i4_a_lost_history_that_is_called_recovered_is_found() {
    a_lie_is_found(Lie::ClaimRecovery, broken(Fault::Kill { node: 0, down_ms: 50 }), Invariant::Flags);
}

#[test]
fn i4_a_loss_that_is_none_is_found() {
    a_lie_is_found(Lie::DenyRecovery, cuts(), Invariant::Flags);
}

#[test]
fn i5_an_old_backup_in_place_of_the_data_is_found() {
    is_found(&short(broken(Fault::OldBackup { node: 0 })), Invariant::Epochs);
}

#[test]
fn i6_a_server_that_forgets_keys_is_found() {
    a_lie_is_found(Lie::ForgetKeys, calm(), Invariant::Keys);
}

#[test]
fn i7_a_request_that_is_carried_out_twice_is_found() {
    a_lie_is_found(Lie::CarryOutTwice, calm(), Invariant::Unacknowledged);
}

#[test]
fn i8_a_ghost_is_found() {
    a_lie_is_found(Lie::Haunt, calm(), Invariant::Presence);
}

#[test]
fn i9_a_reader_who_saw_another_text_is_found() {
    let mut options = short(calm());
    (options.stage.lie, options.stories) = (Some(Lie::Misquote), true);
    is_found(&options, Invariant::Jobs);
}

#[test]
fn i11_a_reader_who_keeps_what_was_taken_away_is_found() {
    a_lie_is_found(Lie::IgnoreOrders, calm(), Invariant::Revoked);
}

#[test]
fn i12_a_publication_in_the_name_of_another_channel_is_found() {
    a_lie_is_found(Lie::Misaddress, calm(), Invariant::Channels);
}

#[test]
fn i13_descriptors_that_are_never_given_back_are_found() {
    is_found(&short(broken(Fault::Leak { node: 0 })), Invariant::Bounds);
}

#[test]
fn i13_memory_that_grows_and_grows_is_found() {
    let mut steps = broken(Fault::Hoard { node: 0 });
    steps.push(Step { rest_ms: 14_000, fault: Fault::Pause { node: 0, ms: 10 } });
    let mut options = short(steps);
    (options.promises.life_ms, options.promises.growth_bytes) = (10_000, 4 << 20);
    let verdict = verdict(&options);
    let wrong = verdict.wrong.get(&Invariant::Bounds).expect("it grew, and nobody noticed");
    assert!(wrong.first.iter().any(|first| first.contains("in the last quarter")), "{verdict}");
}

#[test]
fn i14_a_panic_in_a_log_is_found() {
    let mut options = short(calm());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("talewire");
    let real = options.stage.binary.display().to_string();
    let script =
        format!("#!/bin/sh\n[ \"$1\" = serve ] && echo \"thread 'x' panicked at y.rs:1:2\" >&2\nexec {real} \"$@\"\n");
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    options.stage.binary = path;
    is_found(&options, Invariant::Panics);
}

#[test]
fn i15_readers_whom_nothing_reaches_any_more_are_found() {
    is_found(&short(broken(Fault::EndlessStorm { node: 0 })), Invariant::Alive);
}

#[test]
fn i16_a_server_that_does_not_end_is_found() {
    let mut options = short(broken(Fault::PauseInDrain { node: 0 }));
    options.promises.drain_ms = 1_000;
    is_found(&options, Invariant::Drain);
}
