//! The writer thread: the one place where the database changes.
//!
//! It takes the first write that waits, opens a transaction, and goes on with whatever else is waiting until nothing is,
//! or the group has its limit of writes or time; each write stands in a savepoint of its own, so that one that fails is
//! undone alone. Then one commit, synced to disk (`synchronous=FULL`), and only then the answers. While a commit waits
//! for the disk the queue fills: that is what makes groups, nobody waits on purpose.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::Counters;
use super::folder::Folder;
use super::queue::Queue;
use crate::StoreError;

/// What a write sees: the connection inside the transaction, and the time of its group.
pub(super) struct Work<'c> {
    pub(super) conn: &'c Connection,
    pub(super) now_ms: i64,
}

/// A write without its types.
pub(super) trait Operation: Send {
    /// Does the work; false if it must be undone.
    fn run(&mut self, work: &Work<'_>) -> bool;
    /// Answers, once it is known what became of the commit.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

/// A write with its types: the work, then what came of it, and who waits for it.
pub(super) struct Write<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), outcome: None, reply }
    }
}

impl<T, F> Operation for Write<T, F>
where
    T: Send,
    F: FnOnce(&Work<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, work: &Work<'_>) -> bool {
        let Some(run) = self.work.take() else { return false };
        // A bug in one write must not take the writer, and with it every other write, down.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(work)))
            .unwrap_or_else(|_| Err(StoreError::Broken("a write panicked and was undone".into())));
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let answer = match (commit, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Err(_), Some(Err(own))) => Err(own),
            (Err(commit), _) => Err(commit),
            (Ok(()), None) => Err(super::gone()),
        };
        // Whoever has gone away finds the outcome by its key, or does not care.
        let _ = self.reply.send(answer);
    }
}

/// Fields are dropped in this order: the connection is closed before the folder is given back and the end is told.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) queue: Arc<Queue<Box<dyn Operation>>>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock_shift_ms: Arc<AtomicI64>,
    pub(super) group_operations_max: usize,
    pub(super) group_time_max: Duration,
    pub(super) checkpoint_operations: u64,
    pub(super) _folder: Folder,
    pub(super) _alive: watch::Receiver<()>,
}

impl Writer {
    pub(super) fn run(self) {
        let mut since_checkpoint = 0;
        while let Some(first) = self.queue.pop() {
            let mut group = Vec::new();
            let outcome = self.group(first, &mut group);
            if outcome.is_err() && !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            self.counters.operations.fetch_add(group.len() as u64, Ordering::Relaxed);
            self.counters.groups.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = &outcome {
                self.counters.groups_failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, operations = group.len(), "a commit failed, and all of its operations with it");
            }
            since_checkpoint += group.len() as u64;
            for operation in group {
                operation.answer(outcome.clone());
            }
            if since_checkpoint >= self.checkpoint_operations {
                self.checkpoint();
                since_checkpoint = 0;
            }
        }
    }

    /// One transaction. Every operation that was taken from the queue is in `group` afterwards, whatever happened.
    fn group(&self, first: Box<dyn Operation>, group: &mut Vec<Box<dyn Operation>>) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut next = Some(first);
        if let Err(error) = self.statement("BEGIN IMMEDIATE") {
            group.extend(next);
            return Err(error);
        }
        let work = match super::now_ms(&self.conn, &self.clock_shift_ms) {
            Ok(now_ms) => Work { conn: &self.conn, now_ms },
            Err(error) => {
                group.extend(next);
                return Err(error.into());
            }
        };
        while let Some(mut operation) = next {
            let outcome = self.one(operation.as_mut(), &work);
            group.push(operation);
            outcome?;
            let more = group.len() < self.group_operations_max && begun.elapsed() < self.group_time_max;
            next = if more { self.queue.pop_now() } else { None };
        }
        let before = Instant::now();
        // To those whose own work was fine this is no fault of theirs: they may try again.
        self.statement("COMMIT").map_err(|error| match error {
            StoreError::Full(_) | StoreError::Unavailable(_) => error,
            other => StoreError::Unavailable(format!("the commit failed: {other}")),
        })?;
        let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.commit_us.fetch_add(took, Ordering::Relaxed);
        Ok(())
    }

    /// One operation in its savepoint. An error is one of the whole group.
    fn one(&self, operation: &mut dyn Operation, work: &Work<'_>) -> Result<(), StoreError> {
        self.statement("SAVEPOINT operation")?;
        let keep = operation.run(work);
        // A full disk or a failed write may make SQLite roll the whole transaction back by itself. What came before in this
        // group is lost then, and whatever came after would be committed by itself, without a group: stop here.
        if self.conn.is_autocommit() {
            return Err(StoreError::Unavailable("the transaction was rolled back".into()));
        }
        if !keep {
            self.statement("ROLLBACK TO operation")?;
        }
        self.statement("RELEASE operation")
    }

    fn statement(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Copies the write-ahead log into the database file, as far as no reader needs the old pages. Only this thread does it,
    /// after the answers are out.
    fn checkpoint(&self) {
        if let Err(error) = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the write-ahead log could not be copied; it is tried again later");
        }
    }
}
