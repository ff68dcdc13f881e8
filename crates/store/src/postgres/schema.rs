//! The schema as a list of steps, all in the schema `talewire` of the database, counted in its table `steps`.
//!
//! A step that has been released is never changed; a new one is added at the end. Steps have the numbers of those of
//! SQLite: step n means the same tables and columns in both.
//!
//! Nodes of two neighbouring versions share one database while they are exchanged one after the other. So a release only
//! **adds** what the release before does not know and can leave alone (tables, indexes, columns that may be absent or have a
//! default); what nobody uses any more is **removed** by the release after the last one that used it. Each step says from
//! which step on a program can live with it; a program that knows less is refused with [`StoreError::NewerSchema`].
//!
//! Several nodes may start at once: one of them makes the steps, in one transaction and under a lock of its own, and the
//! others wait for it.

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::failure::{Failure, Tried};
use crate::StoreError;

/// One step.
pub(super) struct Step {
    pub(super) sql: &'static str,
    /// The least number of steps that a program must know to work with the tables after this one.
    since: i32,
}

/// The steps.
pub(super) const STEPS: &[Step] = &[
    Step { sql: include_str!("schema_1.sql"), since: 1 },
    // Versions of publications: a program that knows step 1 alone publishes without them.
    Step { sql: include_str!("schema_2.sql"), since: 1 },
    // Logouts: a program that knows less goes on to believe logins that were logged out.
    Step { sql: include_str!("schema_3.sql"), since: 1 },
    // Kept orders: a program that knows less hears them as they are told, or not.
    Step { sql: include_str!("schema_4.sql"), since: 1 },
];

/// The lock under which steps are made.
const STEPS_LOCK: i64 = 0x7461_6c65_7374_6570;

/// Brings the schema up to the newest step.
pub(super) async fn migrate(conn: &Connection) -> Result<(), StoreError> {
    // Waiting for another node and long steps take their time.
    let outcome = async {
        conn.plain("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        conn.execute("SELECT pg_advisory_xact_lock($1)", &[&STEPS_LOCK]).await?;
        if make(conn).await? { conn.commit().await } else { conn.plain("ROLLBACK").await }
    };
    outcome.await.map_err(Failure::into_error)
}

/// Makes what is missing; false if there was nothing to do.
async fn make(conn: &Connection) -> Tried<bool> {
    let known = STEPS.len() as u32;
    let is_new: bool = conn.row("SELECT to_regclass('talewire.steps') IS NULL", &[]).await?.try_get(0)?;
    if is_new {
        // The schema may have been made by somebody with more rights.
        if conn.row("SELECT to_regnamespace('talewire') IS NULL", &[]).await?.try_get(0)? {
            conn.plain("CREATE SCHEMA talewire").await?;
        }
        conn.plain("CREATE TABLE talewire.steps (number INTEGER PRIMARY KEY, since INTEGER NOT NULL)").await?;
    }
    let row = conn.row("SELECT COALESCE(MAX(number), 0), COALESCE(MAX(since), 0) FROM talewire.steps", &[]).await?;
    let (found, since): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
    if since > known as i32 {
        return Err(StoreError::NewerSchema { found: found.cast_unsigned(), known }.into());
    }
    let mut changed = is_new;
    for (step, number) in STEPS.iter().zip(1..).skip(found.max(0) as usize) {
        conn.plain(step.sql).await?;
        let params: [&(dyn ToSql + Sync); 2] = [&number, &step.since];
        conn.execute("INSERT INTO talewire.steps (number, since) VALUES ($1, $2)", &params).await?;
        changed = true;
    }
    Ok(take_back_foreign_numbers(conn).await? || changed)
}

/// A dump that was read into another server brings transaction numbers along that this server has not come to yet; what
/// it appends would look older than them, and nobody would hear that it has grown.
async fn take_back_foreign_numbers(conn: &Connection) -> Tried<bool> {
    let sql = "UPDATE log SET tx = 0 WHERE tx >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let changed = conn.execute(sql, &[]).await?;
    if changed > 0 {
        tracing::info!(entries = changed, "the data came from another server: its transaction numbers are forgotten");
    }
    Ok(changed > 0)
}
