//! Pauses before something is tried again: longer each time up to a bound, and jittered, so that many do not come at once.

use std::time::Duration;

/// The pauses of one thing that fails.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first_ms: u64,
    most_ms: u64,
    next_ms: u64,
}

impl Backoff {
    /// Pauses from `first_ms` up to `most_ms`.
    pub(crate) fn new(first_ms: u64, most_ms: u64) -> Self {
        Self { first_ms, most_ms, next_ms: first_ms.min(most_ms) }
    }

    /// The next pause: between half of what is due and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let due_ms = self.next_ms;
        self.next_ms = due_ms.saturating_mul(2).min(self.most_ms);
        Duration::from_millis(due_ms - fastrand::u64(..=due_ms / 2))
    }

    /// It went well: the next failure begins anew.
    pub(crate) fn reset(&mut self) {
        self.next_ms = self.first_ms.min(self.most_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(100, 350);
        for due_ms in [100, 200, 350, 350] {
            let pause = backoff.next();
            assert!(pause <= Duration::from_millis(due_ms) && pause >= Duration::from_millis(due_ms / 2), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
