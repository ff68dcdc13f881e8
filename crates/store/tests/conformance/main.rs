//! One suite for every backend of the store. Each case has a database of its own and opens it anew between its steps, so
//! that nothing is remembered but what is on disk.

#![allow(clippy::unwrap_used, missing_docs)]

mod accounts;
mod copies;
mod faults;
mod jobs;
mod log;
mod many;
mod orders;
mod server;
mod stories;
mod world;

use talewire_store::{Store, StoreSettings};
use tempfile::TempDir;

use crate::server::Server;

/// Where one case keeps its data.
pub(crate) struct Home {
    pub(crate) settings: StoreSettings,
    /// Whether a process that has it open has it alone.
    pub(crate) is_alone: bool,
    _folder: Option<TempDir>,
}

impl Home {
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.settings).await.unwrap()
    }

    pub(crate) fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings { path: folder.path().join("data"), ..StoreSettings::default() };
        Self { settings, is_alone: true, _folder: Some(folder) }
    }

    pub(crate) async fn database(server: &Server) -> Self {
        Self { settings: server.settings().await, is_alone: false, _folder: None }
    }
}

async fn suite(home: impl AsyncFn() -> Home) {
    log::appends_are_numbered_and_kept(&home().await).await;
    log::a_repeated_key_is_one_entry(&home().await).await;
    log::keys_in_one_group_are_one_entry(&home().await).await;
    log::an_older_version_adds_nothing(&home().await).await;
    log::pages_are_cut_by_entries_and_bytes(&home().await).await;
    log::many_writers_share_few_channels(&home().await).await;
    log::what_has_grown_is_found(&home().await).await;
    log::what_is_erased_leaves_its_place(&home().await).await;
    accounts::guests_and_secrets_stay(&home().await).await;
    accounts::logouts_stay_until_their_logins_would_have_ended(&home().await).await;
    orders::orders_stay_for_their_time(&home().await).await;
    orders::long_orders_come_a_mebibyte_at_a_time(&home().await).await;
    orders::no_order_turns_up_behind_a_reader(&home().await).await;
    stories::a_story_is_rows_and_log_at_once(&home().await).await;
    stories::a_repeated_call_gets_its_answer_again(&home().await).await;
    stories::a_refused_or_failing_rule_leaves_nothing(&home().await).await;
    stories::kept_answers_are_pruned_after_their_time(&home().await).await;
    stories::paths_lead_through_branches(&home().await).await;
    stories::lists_are_paged_by_activity(&home().await).await;
    stories::invites_expire_by_the_databases_clock(&home().await).await;
    jobs::one_worker_gets_a_job(&home().await).await;
    jobs::an_older_attempt_has_no_effect(&home().await).await;
    jobs::an_end_is_written_exactly_once(&home().await).await;
    jobs::a_branch_has_one_open_generation(&home().await).await;
    jobs::requests_to_stop_reach_the_worker(&home().await).await;
    jobs::dead_jobs_are_swept(&home().await).await;
    jobs::a_new_process_takes_over(&home().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    suite(async || Home::folder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres() {
    let server = Server::start();
    suite(async || Home::database(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_with_many_nodes() {
    let server = Server::start();
    many::logouts_of_many_nodes_are_read_once(&server).await;
    many::writers_of_many_nodes_keep_one_order(&server).await;
    many::what_commits_late_is_told_late_but_told(&server).await;
    many::much_growth_is_told_in_parts(&server).await;
    many::a_key_used_by_two_nodes_at_once_is_one_entry(&server).await;
    many::a_job_is_claimed_by_one_node(&server).await;
    many::everything_at_once_ends(&server).await;
    many::nodes_may_start_at_once(&server).await;
    many::a_newer_schema_is_left_alone_but_for_a_neighbour(&server).await;
    many::a_database_from_another_server_tells_its_growth(&server).await;
    many::a_deadlock_is_tried_again(&server).await;
    many::a_frozen_node_holds_nobody_for_ever(&server).await;
    many::a_held_story_holds_up_itself_alone(&server).await;
    many::users_are_found_by_name(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_that_fails() {
    let mut server = Server::start();
    faults::a_silent_server_is_told_in_time(&mut server).await;
    faults::a_database_that_refuses_writes_is_found(&mut server).await;
    faults::a_restart_between_two_calls_is_not_noticed(&mut server).await;
    faults::nothing_acknowledged_is_lost_when_postgres_is_killed(&mut server).await;
    faults::an_absent_server_is_told_in_time(&mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_are_whole() {
    let server = Server::start();
    copies::a_failed_move_harms_nothing().await;
    copies::stores_move(&server).await;
    copies::stores_are_saved_and_restored(&server).await;
    copies::a_move_that_was_broken_off_is_begun_again(&server).await;
    copies::a_move_that_was_broken_off_at_its_end_is_finished(&server).await;
}
