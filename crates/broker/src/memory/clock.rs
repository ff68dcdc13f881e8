//! The time by which the in-process broker forgets: monotonic, in milliseconds, and movable by tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A monotonic clock that counts from when it was made. A clone is the same clock.
#[derive(Clone)]
pub(crate) struct Clock {
    begun: Instant,
    shift_ms: Arc<AtomicU64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), shift_ms: Arc::default() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let passed_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        passed_ms.saturating_add(self.shift_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn shift(&self, by_ms: u64) {
        self.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}
