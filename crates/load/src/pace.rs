//! When the next publication is due.

use std::time::{Duration, Instant};

/// How fast to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The next when all readers have got the last.
    AsReadersKeepUp,
    /// So many each second, whether readers keep up or not.
    PerSecond(f64),
}

/// A pace under way.
#[derive(Debug)]
pub struct Schedule {
    interval: Option<Duration>,
    due: Instant,
    late_max: Duration,
}

impl Schedule {
    /// Begins; the first is due at once.
    #[must_use]
    pub fn new(pace: Pace, publications_at_once: u32, now: Instant) -> Self {
        let interval = match pace {
            Pace::AsReadersKeepUp => None,
            Pace::PerSecond(rate) => Some(Duration::from_secs_f64(f64::from(publications_at_once) / rate)),
        };
        Self { interval, due: now, late_max: Duration::ZERO }
    }

    /// When the next is due, if that is a matter of time.
    #[must_use]
    pub fn waits_until(&self) -> Option<Instant> {
        self.interval.map(|_| self.due)
    }

    /// Whether the next may go now, and if so, counts it.
    pub fn take(&mut self, now: Instant, all_delivered: bool) -> bool {
        match self.interval {
            None => all_delivered,
            Some(_) if now < self.due => false,
            Some(interval) => {
                self.late_max = self.late_max.max(now - self.due);
                self.due += interval;
                true
            }
        }
    }

    /// How late a publication went at most, because the generator or the machine was busy.
    #[must_use]
    pub fn late_max(&self) -> Duration {
        self.late_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_whatever_readers_do() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(Pace::PerSecond(100.0), 1, start);
        assert!(schedule.take(at(0), false));
        assert!(!schedule.take(at(9), true));
        // Late: two are due, and both go.
        assert!(schedule.take(at(25), false) && schedule.take(at(25), false) && !schedule.take(at(25), false));
        assert_eq!(schedule.late_max(), Duration::from_millis(15));
        assert_eq!(schedule.waits_until(), Some(at(30)));
    }

    #[test]
    fn without_a_rate_readers_decide() {
        let mut schedule = Schedule::new(Pace::AsReadersKeepUp, 8, Instant::now());
        assert!(!schedule.take(Instant::now(), false) && schedule.take(Instant::now(), true));
        assert_eq!(schedule.waits_until(), None);
    }
}
