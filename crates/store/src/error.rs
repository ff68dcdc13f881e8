//! What can go wrong in the store, by what a caller can do about it.

use std::path::PathBuf;

use thiserror::Error;

/// Why the store did not do what was asked. Nothing of a failed operation is kept, with one exception named below.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database does not answer, or is closed: try again later, with the same key. After a failed commit it is not
    /// known whether the operation was kept; its key makes the second try safe.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A queue or the disk is full: slow down, then try again.
    #[error("the database takes no more at the moment: {0}")]
    Full(&'static str),
    /// A newer version of the program wrote the data: run that one.
    #[error(
        "the data was written by a newer version of talewire (schema {found}, this version knows {known}): use that version or newer"
    )]
    NewerSchema {
        /// The version found in the data.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// Another process uses the data folder: stop it, or name another folder.
    #[error("the data folder {} is in use by another process", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// What was named does not fit what is there, such as a full place for a copy: name another.
    #[error("{0}")]
    Refused(String),
    /// A fault in the data or in the program: tell somebody.
    #[error("the database failed: {0}")]
    Broken(String),
}

impl StoreError {
    /// Whether the same operation may succeed if it is tried again later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}
