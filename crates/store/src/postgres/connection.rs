//! One connection: prepared statements that are kept, queries that may be sent in a row, and a transaction.
//!
//! Queries are sent when their futures are polled first, and answered in that order: `tokio::join!(biased; …)` over several
//! of them is one round trip. That holds only for statements that are prepared already: [`Connection::ready`] first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failure::{Failure, Tried};
use crate::StoreError;

pub(super) type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// The database's clock, in Unix milliseconds.
pub(super) const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) struct Connection {
    client: Client,
    /// Reads and writes the socket; ends with this value.
    driver: AbortHandle,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) fn new(client: Client, driver: AbortHandle) -> Self {
        Self { client, driver, statements: Mutex::default() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    fn kept(&self, sql: &str) -> Option<Statement> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
    }

    async fn statement(&self, sql: &str) -> Tried<Statement> {
        if let Some(statement) = self.kept(sql) {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Prepares what is about to be sent in a row.
    pub(super) async fn ready(&self, statements: &[&str]) -> Tried<()> {
        for sql in statements {
            self.statement(sql).await?;
        }
        Ok(())
    }

    pub(super) async fn all(&self, sql: &str, params: Params<'_>) -> Tried<Vec<Row>> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, params).await?)
    }

    pub(super) async fn one(&self, sql: &str, params: Params<'_>) -> Tried<Option<Row>> {
        Ok(self.all(sql, params).await?.into_iter().next())
    }

    /// A query that always has one row.
    pub(super) async fn row(&self, sql: &str, params: Params<'_>) -> Tried<Row> {
        let row = self.one(sql, params).await?;
        row.ok_or_else(|| StoreError::Broken("a query without a row that it must have".into()).into())
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Tried<u64> {
        let statement = self.statement(sql).await?;
        Ok(self.client.execute(&statement, params).await?)
    }

    /// A query that is asked as it is, without being kept.
    pub(super) async fn once(&self, sql: &str) -> Tried<Vec<Row>> {
        Ok(self.client.query(sql, &[]).await?)
    }

    /// One or more statements without parameters and rows.
    pub(super) async fn plain(&self, sql: &str) -> Tried<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Ends the transaction; from here on a lost connection leaves it open what happened.
    pub(super) async fn commit(&self) -> Tried<()> {
        self.client.batch_execute("COMMIT").await.map_err(|error| match error.code() {
            // The server says that it is undone, or never came to it.
            Some(code) if !matches!(code.code(), "40003" | "08006" | "08007" | "57P01" | "57P02" | "57014") => {
                Failure::Database(error)
            }
            _ => Failure::Unknown(error),
        })
    }
}

/// What an operation sees: the connection inside its transaction, and the database's time.
pub(super) struct Work<'c> {
    pub(super) conn: &'c Connection,
    now_ms: AtomicI64,
    clock_shift_ms: i64,
}

impl<'c> Work<'c> {
    pub(super) fn new(conn: &'c Connection, clock_shift_ms: i64) -> Self {
        Self { conn, now_ms: AtomicI64::new(0), clock_shift_ms }
    }

    /// The database's time when the transaction began, or when it had the locks that it waited for.
    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// How far tests have moved the clock, for statements that read it themselves.
    pub(super) fn shift_ms(&self) -> i64 {
        self.clock_shift_ms
    }

    /// Takes the answer of [`CLOCK`].
    pub(super) fn set_clock(&self, row: &Row) -> Tried<()> {
        let now: i64 = row.try_get(0)?;
        self.now_ms.store(now + self.clock_shift_ms, Ordering::Relaxed);
        Ok(())
    }
}
