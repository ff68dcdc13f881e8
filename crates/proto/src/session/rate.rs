//! How many commands one connection may send: a bucket that fills at a steady rate.

use super::clock::Now;

/// A rate limit of 24 bytes: the generic cell rate algorithm, which stores one time instead of a count.
pub(super) struct Rate {
    /// When the bucket will be full again, in microseconds.
    full_at_us: u64,
    interval_us: u64,
    burst: u32,
    refusals: u32,
}

impl Rate {
    /// `burst` at once, then `per_second` in the long run; at least one of each.
    pub(super) fn new(burst: u32, per_second: u32, now: Now) -> Self {
        let interval_us = 1_000_000 / u64::from(per_second.max(1));
        Self { full_at_us: now.mono_ms * 1_000, interval_us, burst: burst.max(1), refusals: 0 }
    }

    /// Whether one more is within the rate.
    pub(super) fn take(&mut self, now: Now) -> bool {
        let now_us = now.mono_ms * 1_000;
        let full_at_us = self.full_at_us.max(now_us) + self.interval_us;
        if full_at_us - now_us > self.interval_us * u64::from(self.burst) {
            self.refusals = self.refusals.saturating_add(1);
            return false;
        }
        self.full_at_us = full_at_us;
        self.refusals = 0;
        true
    }

    /// Refusals since the last command that was within the rate.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let mut rate = Rate::new(3, 10, at(0));
        assert_eq!([0, 0, 0, 0].map(|ms| rate.take(at(ms))), [true, true, true, false]);
        assert_eq!([99, 100, 101, 200].map(|ms| rate.take(at(ms))), [false, true, false, true]);
        assert_eq!([5_000, 5_000, 5_000, 5_000].map(|ms| rate.take(at(ms))), [true, true, true, false]);
    }
}
