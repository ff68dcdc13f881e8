//! What the disk of the data folder has left: an idle server on a full one is to say so before somebody writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::Sqlite;
use crate::StoreError;

/// The disk of a data folder.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: PathBuf,
    free_bytes_min: u64,
    free_bytes: Arc<AtomicU64>,
}

impl Disk {
    /// Looks at it once; whether it is full is for [`Sqlite::look`] to say.
    pub(super) fn new(folder: &Path, free_bytes_min: u64) -> Self {
        let disk = Self { folder: folder.to_owned(), free_bytes_min, free_bytes: Arc::default() };
        let _ = disk.look();
        disk
    }

    /// What it had left at the last look.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    fn look(&self) -> Result<(), StoreError> {
        let disk = statvfs(&self.folder)
            .map_err(|error| StoreError::Unavailable(format!("the data folder is not there: {error}")))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.free_bytes.store(free, Ordering::Relaxed);
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(StoreError::Unavailable("the data folder cannot be written to".into()));
        }
        if free < self.free_bytes_min { Err(StoreError::Full("the disk is full")) } else { Ok(()) }
    }
}

impl Sqlite {
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let disk = self.disk.clone();
        // A disk of another machine may keep its answer to itself.
        let looked = tokio::task::spawn_blocking(move || disk.look()).await;
        looked.unwrap_or_else(|_| Err(StoreError::Unavailable("the disk was not looked at".into())))
    }
}
