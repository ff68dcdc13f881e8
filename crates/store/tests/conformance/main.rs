//! One suite for every backend of the store: each step opens the database anew, so that nothing is remembered but what is
//! on disk. SQLite today; the same steps run on PostgreSQL once it is there.

#![allow(clippy::unwrap_used, missing_docs)]

mod accounts;
mod jobs;
mod log;
mod stories;
mod world;

use talewire_store::{Store, StoreSettings};

/// Opens the same database again and again.
type Open<'a> = &'a dyn Fn() -> Store;

async fn suite(open: Open<'_>) {
    log::appends_are_numbered_and_kept(open).await;
    log::a_repeated_key_is_one_entry(open).await;
    log::an_older_version_adds_nothing(open).await;
    log::pages_are_cut_by_entries_and_bytes(open).await;
    log::many_writers_share_few_channels(open).await;
    log::what_has_grown_is_found(open).await;
    log::what_is_erased_leaves_its_place(open).await;
    accounts::guests_and_secrets_stay(open).await;
    stories::a_story_is_rows_and_log_at_once(open).await;
    stories::a_repeated_call_gets_its_answer_again(open).await;
    stories::a_refused_or_failing_rule_leaves_nothing(open).await;
    stories::kept_answers_are_pruned_after_their_time(open).await;
    stories::paths_lead_through_branches(open).await;
    stories::lists_are_paged_by_activity(open).await;
    stories::invites_expire_by_the_databases_clock(open).await;
    jobs::one_worker_gets_a_job(open).await;
    jobs::an_older_attempt_has_no_effect(open).await;
    jobs::an_end_is_written_exactly_once(open).await;
    jobs::a_branch_has_one_open_generation(open).await;
    jobs::requests_to_stop_reach_the_worker(open).await;
    jobs::dead_jobs_are_swept(open).await;
    jobs::a_new_process_takes_over_at_once(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { path: folder.path().join("data"), ..StoreSettings::default() };
    suite(&|| Store::open(&settings).unwrap()).await;
}
