//! The pace at which sockets are accepted: those that come faster wait in the kernel's queue, so that a crowd that comes at once does not
//! keep this thread from its readers. Called by [`crate::accept`].

use std::time::{Duration, Instant};

/// What may be caught up on at once after a silence.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The pace of one listener.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Time for each socket; nothing for as fast as they come.
    each: Option<Duration>,
    due: Instant,
}

impl Pace {
    /// So many a second for all listeners together; 0 for no limit.
    pub(crate) fn new(per_second: u32, listeners: usize, now: Instant) -> Self {
        let each = (per_second > 0).then(|| Duration::from_secs(listeners.max(1) as u64) / per_second);
        Self { each, due: now }
    }

    /// How long the next socket has to wait.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.each?;
        Some(self.due.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// One was accepted.
    pub(crate) fn accepted(&mut self, now: Instant) {
        let Some(each) = self.each else { return };
        let earliest = now.checked_sub(AT_ONCE).unwrap_or(now);
        self.due = self.due.max(earliest) + each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts what there is for so long, in steps of a millisecond; how many that were.
    fn accepted(pace: &mut Pace, from: Instant, ms: u64) -> usize {
        let mut count = 0;
        for step in 0..ms {
            let now = from + Duration::from_millis(step);
            while pace.wait(now).is_none() && count < 1_000_000 {
                pace.accepted(now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_crowd_comes_in_at_its_pace_and_a_few_at_once() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut pace = Pace::new(1_000, 2, start);
        assert!((495..=530).contains(&accepted(&mut pace, start, 1_000)), "half of it for one of two");
        let later = start + Duration::from_secs(10);
        assert!((25..=35).contains(&accepted(&mut pace, later, 10)), "a silence is not saved up");
        assert_eq!(accepted(&mut Pace::new(0, 2, start), start, 1), 1_000_000, "no limit");
    }
}
