//! The SQLite backend: one writer thread that commits in groups, a few reader threads, one folder, one process.
//!
//! Everything outside calls the async methods in the files named after the subjects; each puts a closure into a bounded
//! queue and waits for its answer without blocking. A write runs inside the writer's transaction, a read inside one
//! snapshot of its own.

mod accounts;
mod apply;
pub(crate) mod copy;
mod disk;
mod erase;
mod facts;
mod folder;
mod jobs;
mod log;
mod orders;
mod queue;
mod reader;
mod rows;
mod schema;
mod stories;
#[cfg(test)]
mod tests;
mod views;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use self::queue::{Pushed, Queue};
use self::writer::{Operation, Work, Write};
use crate::{StoreError, StoreFigures, StoreSettings};

/// The newest step of the schema, the same in every backend.
pub(crate) const STEPS_KNOWN: u32 = schema::STEPS.len() as u32;

/// Counters that the threads and the callers share.
#[derive(Default)]
pub(crate) struct Counters {
    operations: AtomicU64,
    groups: AtomicU64,
    groups_failed: AtomicU64,
    refused_full: AtomicU64,
    commit_us: AtomicU64,
}

type Reading = Box<dyn FnOnce(&Connection, i64) + Send>;

/// An open database. Dropping it lets the threads write what they have taken, then end.
pub(crate) struct Sqlite {
    writes: Arc<Queue<Box<dyn Operation>>>,
    reads: Arc<Queue<Reading>>,
    counters: Arc<Counters>,
    clock_shift_ms: Arc<AtomicI64>,
    disk: disk::Disk,
    answer_ttl_ms: i64,
    orders_age_ms: i64,
    /// Every thread holds a receiver: none is left when all have ended and closed their connections.
    ended: watch::Sender<()>,
}

impl Sqlite {
    pub(crate) fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let folder = folder::take(&settings.path)?;
        copy::refuse_moved(&settings.path)?;
        copy::refuse_partial(&settings.path)?;
        let path = settings.path.join(folder::DATABASE);
        folder::own(&path)?;
        let mut conn = schema::connect(&path)?;
        schema::migrate(&mut conn)?;
        let writes = Arc::new(Queue::new(settings.write_queue_operations_max));
        let reads = Arc::new(Queue::new(settings.read_queue_operations_max));
        let counters = Arc::new(Counters::default());
        let clock_shift_ms = Arc::new(AtomicI64::new(0));
        let (ended, alive) = watch::channel(());
        let disk = disk::Disk::new(&settings.path, settings.free_bytes_min);
        let StoreSettings { answer_ttl_ms, orders_age_ms, .. } = *settings;
        let open = Self { writes, reads, counters, clock_shift_ms, disk, answer_ttl_ms, orders_age_ms, ended };
        for number in 0..settings.reader_threads.max(1) {
            let conn = schema::connect_reader(&path)?;
            let reader = reader::Reader {
                conn,
                queue: open.reads.clone(),
                clock_shift_ms: open.clock_shift_ms.clone(),
                _folder: folder.clone(),
                _alive: alive.clone(),
            };
            spawn(format!("store-read-{number}"), move || reader.run())?;
        }
        let writer = writer::Writer {
            conn,
            queue: open.writes.clone(),
            counters: open.counters.clone(),
            clock_shift_ms: open.clock_shift_ms.clone(),
            group_operations_max: settings.group_operations_max.max(1),
            group_time_max: std::time::Duration::from_millis(settings.group_ms_max),
            checkpoint_operations: settings.checkpoint_operations,
            _folder: folder,
            _alive: alive,
        };
        spawn("store-write".to_owned(), move || writer.run())?;
        Ok(open)
    }

    pub(crate) async fn close(&self) {
        self.end();
        self.ended.closed().await;
    }

    fn end(&self) {
        self.writes.close();
        self.reads.close();
    }

    pub(crate) fn figures(&self) -> StoreFigures {
        StoreFigures {
            operations: self.counters.operations.load(Ordering::Relaxed),
            groups: self.counters.groups.load(Ordering::Relaxed),
            groups_failed: self.counters.groups_failed.load(Ordering::Relaxed),
            refused_full: self.counters.refused_full.load(Ordering::Relaxed),
            commit_us: self.counters.commit_us.load(Ordering::Relaxed),
            writes_waiting: self.writes.len() as u64,
            reads_waiting: self.reads.len() as u64,
            free_bytes: Some(self.disk.free_bytes()),
        }
    }

    pub(crate) fn shift_clock(&self, by_ms: i64) {
        self.clock_shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Runs `work` on the writer and gives its value once the commit that holds it is on disk. What `work` wrote before
    /// an error is undone. It runs whether or not somebody still waits.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Work<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.pushed(self.writes.push(Box::new(Write::new(work, reply))), "too many writes are waiting")?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Runs `work` on a reader, in one snapshot. It is left out when nobody waits any more.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let reading: Reading = Box::new(move |conn, now_ms| {
            if !reply.is_closed() {
                // A reader that has gone away in the meantime misses nothing.
                let _ = reply.send(work(conn, now_ms));
            }
        });
        self.pushed(self.reads.push(reading), "too many reads are waiting")?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    fn pushed(&self, pushed: Pushed, full: &'static str) -> Result<(), StoreError> {
        match pushed {
            Pushed::Taken => Ok(()),
            Pushed::Full => {
                self.counters.refused_full.fetch_add(1, Ordering::Relaxed);
                Err(StoreError::Full(full))
            }
            Pushed::Closed => Err(StoreError::Unavailable("it is closed".into())),
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.end();
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the operation was not answered".into())
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    match std::thread::Builder::new().name(name).spawn(run) {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::Unavailable(format!("no thread for the database: {error}"))),
    }
}

/// The database's clock in Unix milliseconds, moved by what tests ask for.
fn now_ms(conn: &Connection, clock_shift_ms: &AtomicI64) -> Result<i64, rusqlite::Error> {
    let now: i64 =
        conn.prepare_cached("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)")?.query_row([], |row| row.get(0))?;
    Ok(now + clock_shift_ms.load(Ordering::Relaxed))
}

/// Sorts SQLite's codes by what a caller can do.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full("the disk is full"),
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly,
            ) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}
