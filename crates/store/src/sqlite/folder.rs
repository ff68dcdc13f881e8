//! The data folder: made for its owner alone, and locked for one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

/// The file with everything.
pub(super) const DATABASE: &str = "talewire.db";

/// The lock; the operating system takes it back when the last clone is dropped, or when the process dies in any way.
pub(super) type Folder = Arc<File>;

pub(super) fn take(path: &Path) -> Result<Folder, StoreError> {
    let failed = |what: &str, error: std::io::Error| {
        StoreError::Unavailable(format!("{what} the data folder {}: {error}", path.display()))
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => StoreError::Unavailable(format!("{} is no folder: data needs one", path.display())),
        _ => failed("cannot make", error),
    })?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(|error| failed("cannot write into", error))?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { folder: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("cannot lock", error)),
    }
}

/// Makes a file that is not there, for its owner alone whatever the folder lets others do: it will hold secrets and everybody's words. What
/// `SQLite` makes beside a database has the database's rights.
pub(super) fn own(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let made = options.open(path).map(drop);
    made.map_err(|error| StoreError::Unavailable(format!("cannot write {}: {error}", path.display())))
}
