//! Times from publishing to receiving: single times in, percentiles out.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told apart from longer ones.
const LONGEST_US: u64 = 600_000_000;

/// Collects times in a bounded space, to three digits.
#[derive(Debug)]
pub struct Latencies {
    times_us: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let times_us =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("1 to 600 s in three digits is a valid range");
        Self { times_us }
    }
}

/// What is said about many times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Percentiles {
    /// How many times.
    pub count: u64,
    /// Half were at most this.
    pub p50_us: u64,
    /// Nine of ten were at most this.
    pub p90_us: u64,
    /// 99 of 100 were at most this.
    pub p99_us: u64,
    /// 999 of 1,000 were at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latencies {
    /// Adds one time.
    pub fn add(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        self.times_us.saturating_record(us.clamp(1, LONGEST_US));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.times_us.clear();
    }

    /// What is to be said; zeros if there was nothing.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.times_us.value_at_quantile(quantile);
        Percentiles {
            count: self.times_us.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.times_us.max(),
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| format!("{}.{:02}", us / 1_000, us % 1_000 / 10);
        let Self { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *self;
        let [p50, p90, p99, p999, max] = [p50_us, p90_us, p99_us, p999_us, max_us].map(ms);
        write!(f, "p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latencies = Latencies::default();
        for us in 1..=1_000 {
            latencies.add(Duration::from_micros(us * 10));
        }
        let Percentiles { count, p50_us, p90_us, p99_us, p999_us, max_us } = latencies.percentiles();
        assert_eq!(count, 1_000);
        for (got, wanted) in [(p50_us, 5_000), (p90_us, 9_000), (p99_us, 9_900), (p999_us, 9_990), (max_us, 10_000)] {
            assert!(got.abs_diff(wanted) <= wanted / 500, "{got} instead of {wanted}");
        }
    }

    #[test]
    fn percentiles_are_printed_in_milliseconds() {
        let percentiles =
            Percentiles { count: 9, p50_us: 1_234, p90_us: 20_000, p99_us: 99, p999_us: 0, max_us: 1_000_000 };
        assert_eq!(percentiles.to_string(), "p50 1.23  p90 20.00  p99 0.09  p99.9 0.00  max 1000.00 ms");
    }

    #[test]
    fn nothing_and_too_much_are_no_trouble() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), Percentiles::default());
        latencies.add(Duration::from_secs(10_000));
        assert!(latencies.percentiles().max_us >= LONGEST_US);
    }
}
