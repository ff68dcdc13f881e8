//! A reader thread: takes readings from the queue and runs each in one snapshot of its own connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;
use tokio::sync::watch;

use super::Reading;
use super::folder::Folder;
use super::queue::Queue;

/// Fields are dropped in this order: the connection is closed before the folder is given back and the end is told.
pub(super) struct Reader {
    pub(super) conn: Connection,
    pub(super) queue: Arc<Queue<Reading>>,
    pub(super) clock_shift_ms: Arc<AtomicI64>,
    pub(super) _folder: Folder,
    pub(super) _alive: watch::Receiver<()>,
}

impl Reader {
    pub(super) fn run(self) {
        while let Some(reading) = self.queue.pop() {
            // A reading that panics drops its reply, so that its caller gets an error; the thread goes on.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.one(reading)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a read of the database could not begin or end"),
                Err(_) => tracing::error!("a read of the database panicked"),
            }
            if !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
        }
    }

    fn one(&self, reading: Reading) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        let now_ms = super::now_ms(&self.conn, &self.clock_shift_ms)?;
        reading(&self.conn, now_ms);
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}
