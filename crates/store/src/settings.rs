//! The named settings of the store, each with its unit in its name and what happens beyond it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the store. `docs/operations.md` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The data folder, made for its owner alone if it is not there. The binary puts `~/.local/share/talewire` in place of this default.
    pub path: PathBuf,
    /// Writes that may wait; one more is refused at once (503).
    pub write_queue_operations_max: usize,
    /// Reads that may wait; one more is refused at once (503).
    pub read_queue_operations_max: usize,
    /// Threads that read, each with a connection of its own.
    pub reader_threads: usize,
    /// Writes in one commit; more go into the next one.
    pub group_operations_max: usize,
    /// Time for which one commit collects writes while more are waiting, in milliseconds; later ones go into the next.
    pub group_ms_max: u64,
    /// Writes after which the write-ahead log is copied into the database file.
    pub checkpoint_operations: u64,
    /// Time for which the answer of a repeated call is kept at least, in milliseconds; after it, the call counts as new.
    pub answer_ttl_ms: i64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
            write_queue_operations_max: 8_192,
            read_queue_operations_max: 4_096,
            reader_threads: 4,
            group_operations_max: 1_024,
            group_ms_max: 2,
            checkpoint_operations: 1_000,
            answer_ttl_ms: 24 * 60 * 60 * 1_000,
        }
    }
}
