//! The durable log of channels: entries go in with an idempotency key, and come out in order, page by page.
//!
//! The server calls it for durable channels; use cases and jobs append to it inside their own transactions. Offsets are
//! given inside the transaction that holds the channel's counter to its commit: offset order is commit order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use talewire_proto::ids::text_of_random;
use talewire_proto::{Channel, Entry, Epoch, Position, Publication, Since, UserId, Version};

use crate::{Backend, Store, StoreError};

/// What makes a repeated publication the same one: kept with the entry for as long as the entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose key it is; the same key of another user is another key.
    pub user: UserId,
    /// The key itself.
    pub key: String,
}

/// One publication for a durable channel.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where it goes.
    pub channel: Channel,
    /// What it says. A `time_ms` of 0 is set to the database's time.
    pub publication: Publication,
    /// What makes it the same publication when it comes again.
    pub key: Option<Key>,
    /// How new its state is: one that is not newer than the newest of the channel adds nothing.
    pub version: Option<Version>,
}

/// What an append came to, as it is on disk.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Where the entry stands; where the channel stands if nothing was added for its version.
    pub position: Position,
    /// The entry; absent if the channel already had this version or a newer one, so that nothing was added.
    pub entry: Option<Arc<Entry>>,
    /// Whether the entry stood there before this call.
    pub repeated: bool,
}

/// An entry that a use case or a job wrote, to be announced by the broker after the commit.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The channel.
    pub channel: Channel,
    /// The channel's epoch.
    pub epoch: Epoch,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// Which way a reader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From old to new.
    Forward,
    /// From new to old.
    Backward,
}

/// Some entries of a channel, and its top when they were read.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries, in the order asked for.
    pub entries: Vec<Arc<Entry>>,
    /// The newest position, of the same moment as the entries.
    pub top: Position,
    /// Whether there is nothing more in that direction; false when a limit cut the page.
    pub complete: bool,
}

/// How far somebody knows what was appended to all channels. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogMark {
    /// SQLite: the last entry that was told. PostgreSQL: the last transaction.
    pub(crate) last: i64,
    /// PostgreSQL: the transactions before it that were still open, so that their entries are still to be told.
    pub(crate) open: Arc<[i64]>,
}

/// Which offsets of a channel a reader asks for: those between `from` and `to`, both left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) direction: Direction,
}

impl Bounds {
    pub(crate) fn new(since: Since, direction: Direction) -> Self {
        let number = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
        let (from, to, direction) = match (since, direction) {
            (Since::Newest, _) => (0, i64::MAX, Direction::Backward),
            (Since::Oldest, Direction::Forward) => (0, i64::MAX, Direction::Forward),
            (Since::Oldest, Direction::Backward) => (0, 0, Direction::Backward),
            (Since::After(offset), Direction::Forward) => (number(offset), i64::MAX, Direction::Forward),
            (Since::After(offset), Direction::Backward) => (0, number(offset), Direction::Backward),
        };
        Self { from, to, direction }
    }
}

/// A name for a history that begins now.
pub(crate) fn fresh_epoch() -> Result<String, StoreError> {
    let mut epoch = text_of_random(crate::random()?);
    epoch.truncate(8);
    Ok(epoch)
}

/// Information and tags of an entry are kept as JSON text.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Broken(format!("not writable as JSON: {error}")))
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Broken(format!("unreadable JSON in the log: {error}")))
}

impl Store {
    /// Appends one publication to a durable channel and answers when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Full`] at once when too many writes wait; [`StoreError::Unavailable`] when the commit failed.
    pub async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.append(append).await,
            Backend::Postgres(db) => db.append(append).await,
        }
    }

    /// Reads entries of a channel. [`Since::Newest`] always reads backwards. At least one entry is given, however long
    /// it is, if there is one and `entries_max` is not 0.
    ///
    /// # Errors
    /// As every read.
    pub async fn history(
        &self,
        channel: &Channel,
        since: Since,
        entries_max: usize,
        bytes_max: usize,
        direction: Direction,
    ) -> Result<Page, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.history(channel.clone(), since, entries_max, bytes_max, direction).await,
            Backend::Postgres(db) => db.history(channel.clone(), since, entries_max, bytes_max, direction).await,
        }
    }

    /// The newest position of a channel. A channel without entries has offset 0 and an epoch that stays.
    ///
    /// # Errors
    /// As every read.
    pub async fn top(&self, channel: &Channel) -> Result<Position, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.top(channel.clone()).await,
            Backend::Postgres(db) => db.top(channel.clone()).await,
        }
    }

    /// Where the log ends now: what [`Store::grown`] starts from on a node that has just started.
    ///
    /// # Errors
    /// As every read.
    pub async fn log_mark(&self) -> Result<LogMark, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.log_mark().await,
            Backend::Postgres(db) => db.log_mark().await,
        }
    }

    /// Which channels have grown since `after`, and to which offset. One query whose cost follows what changed; after
    /// very much has changed it tells a part, and the mark that it returns leads to the rest.
    ///
    /// # Errors
    /// As every read.
    pub async fn grown(&self, after: LogMark) -> Result<(LogMark, Vec<(Channel, u64)>), StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.grown(after).await,
            Backend::Postgres(db) => db.grown(after).await,
        }
    }

    /// Takes what a durable channel's entries say, and who said it, from all of them: offsets and epoch stay, and a reader who
    /// comes back gets tombstones in their places. In steps, so that others write meanwhile. Says how many entries lost their words.
    ///
    /// # Errors
    /// As [`Store::append`]; what was done before stays done.
    pub async fn erase(&self, channel: &Channel) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.erase(channel.clone()).await,
            Backend::Postgres(db) => db.erase(channel.clone()).await,
        }
    }
}
