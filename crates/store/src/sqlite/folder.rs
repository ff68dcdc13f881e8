//! The data folder: made for its owner alone, and locked for one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

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
    builder.create(path).map_err(|error| failed("cannot make", error))?;
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
