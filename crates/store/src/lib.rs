//! What must last: the durable log of channels, stories, jobs, accounts and secrets.
//!
//! Operations flow in as typed values, answers flow out after they are committed and synced to disk; nobody outside this
//! crate sees SQL, a row or a transaction. Use cases of stories call [`Store::decide`], workers call the job
//! operations, the server appends to and reads durable channels. Everything is one concrete [`Store`] with one file per
//! subject here and one file per subject and backend below (`sqlite/` for one process, `postgres/` for many).
//!
//! What holds for every write: it is one transaction, all or nothing, also when nobody waits for the answer any more; and
//! an answer is given only after the commit is on disk.

mod accounts;
mod columns;
mod copy;
mod error;
mod event;
mod jobs;
mod log;
mod objects;
mod orders;
mod postgres;
mod settings;
mod sqlite;
mod stories;
mod text;

pub use accounts::{Account, Logout};
pub use copy::{Copied, CopyProgress, Epochs, backup, move_all, restore};
pub use error::StoreError;
pub use event::StoryEvent;
pub use jobs::{Finish, Finished, Job, NewTurn, Renewed};
pub use log::{Append, Appended, Direction, Key, LogEntry, LogMark, Page};
pub use objects::{
    Agent, Author, AuthorKind, Branch, Choice, Generation, Invite, Member, Reason, Role, Story, Turn, TurnGeneration,
    TurnKind,
};
pub use orders::KeptOrder;
pub use settings::{StoreSettings, StoreUrl};
pub use stories::{
    About, Accepted, BranchFacts, CallKey, ChoiceFacts, Decided, Decision, Effect, Facts, InviteFacts, InviteView,
    PageSize, Picked, Question, Refusal, Rule, StoryCursor, StoryView, TurnPlace, TurnsPage,
};
pub use text::{InviteCode, Words};

use std::sync::Arc;

/// The database of one server. Cheap to clone; every clone is the same database.
///
/// After [`Store::close`], or when the last clone is gone, everything that was accepted is still written.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

/// Where the data is. Callers never see which one it is.
#[derive(Clone)]
enum Backend {
    Sqlite(Arc<sqlite::Sqlite>),
    Postgres(Arc<postgres::Postgres>),
}

impl Store {
    /// Opens the database and makes its tables if they are not there. Without `settings.url` that is SQLite in a folder, which
    /// is made too and taken for this process alone; else PostgreSQL, which many processes may share.
    ///
    /// Does blocking I/O for SQLite; call it at start, before anything is served. PostgreSQL's work is done on the runtime
    /// that this is called on.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process uses the folder, [`StoreError::NewerSchema`] when a newer version of
    /// the program wrote the data, else what the file system or the database says.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        Self::open_as(settings, "").await
    }

    /// [`Store::open`] for a user of this name, which others of a shared database find in [`Store::users`]; nobody finds an empty one.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn open_as(settings: &StoreSettings, name: &str) -> Result<Self, StoreError> {
        let backend = if settings.url.is_empty() {
            Backend::Sqlite(Arc::new(sqlite::Sqlite::open(settings)?))
        } else {
            Backend::Postgres(Arc::new(postgres::Postgres::open(settings, name).await?))
        };
        Ok(Self { backend })
    }

    /// The names of those who use this database now and have asked it for something, this one's among them; nobody of a database that is not shared, or whose `store.url`
    /// has an `application_name` of its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer.
    pub async fn users(&self) -> Result<Vec<String>, StoreError> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(Vec::new()),
            Backend::Postgres(db) => db.users().await,
        }
    }

    /// What the server that the settings name tells of itself: its settings, by its own names, and as `now_ms` its clock in Unix
    /// milliseconds; nothing for a database without a server. Opens no store, and leaves tables as they are.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer.
    pub async fn ask_server(settings: &StoreSettings) -> Result<Vec<(String, String)>, StoreError> {
        if settings.url.is_empty() { Ok(Vec::new()) } else { postgres::told(settings).await }
    }

    /// Whether other processes use the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }

    /// Takes no more operations, waits until all that were accepted are written, and gives the folder or the connections back.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(db) => db.close().await,
            Backend::Postgres(db) => db.close().await,
        }
    }

    /// Looks whether it could write, although nobody may have asked it to: what the disk has left, or a write that changes nothing.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn look(&self) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.look().await,
            Backend::Postgres(db) => db.probe().await,
        }
    }

    /// What the store has done so far, for metrics.
    #[must_use]
    pub fn figures(&self) -> StoreFigures {
        match &self.backend {
            Backend::Sqlite(db) => db.figures(),
            Backend::Postgres(db) => db.figures(),
        }
    }

    /// Moves the database's clock for this store: for tests of leases and expiry only.
    #[doc(hidden)]
    pub fn shift_clock(&self, by_ms: i64) {
        match &self.backend {
            Backend::Sqlite(db) => db.shift_clock(by_ms),
            Backend::Postgres(db) => db.shift_clock(by_ms),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({:?})", self.figures())
    }
}

/// Counters of a store since it was opened, and the length of its queues now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFigures {
    /// Writes that were carried out.
    pub operations: u64,
    /// Commits that carried them.
    pub groups: u64,
    /// Commits that failed, with all their operations.
    pub groups_failed: u64,
    /// Operations refused because a queue was full.
    pub refused_full: u64,
    /// Time spent in commits, in microseconds.
    pub commit_us: u64,
    /// Writes that wait now.
    pub writes_waiting: u64,
    /// Reads that wait now.
    pub reads_waiting: u64,
    /// What the disk of the data folder had left at the last look, in bytes; nothing for a database of another machine.
    pub free_bytes: Option<u64>,
}

/// Random bytes of the operating system.
fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unavailable(format!("no randomness: {error}")))?;
    Ok(bytes)
}
