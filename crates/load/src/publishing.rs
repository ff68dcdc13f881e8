//! One publisher that publishes at a constant rate while servers come and go: each publication is said again until it is acknowledged,
//! and the next waits for that. Used by the scenarios in which servers end.

use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::pace::{Pace, Schedule};
use crate::server::LOOK_AGAIN;
use crate::sockets::Sockets;

/// The publisher.
pub(crate) struct Publishing {
    pub(crate) publisher: usize,
    rate: f64,
    schedule: Option<Schedule>,
}

impl Publishing {
    /// The connection at this index publishes so often in a second.
    pub(crate) fn new(publisher: usize, rate: f64) -> Self {
        Self { publisher, rate, schedule: None }
    }

    /// Serves the sockets, and publishes what is due once the last was acknowledged.
    pub(crate) fn turn(&mut self, sockets: &mut Sockets) -> Result<(), LoadError> {
        let now = Instant::now();
        let rate = self.rate;
        let schedule = self.schedule.get_or_insert_with(|| Schedule::new(Pace::PerSecond(rate), 1, now));
        if sockets.unacknowledged(self.publisher) == 0 {
            if schedule.take(now, true) {
                sockets.publish_surely(self.publisher, 0);
            }
        } else if schedule.waits_until().is_some_and(|due| now > due) {
            // What an outage held up is not made up for in a rush.
            *schedule = Schedule::new(Pace::PerSecond(rate), 1, now + Duration::from_secs_f64(1.0 / rate));
        }
        let until = schedule.waits_until().filter(|due| *due > now).unwrap_or(now + LOOK_AGAIN);
        sockets.turn(Some(until.min(now + LOOK_AGAIN)))
    }

    pub(crate) fn go_on_for(&mut self, sockets: &mut Sockets, time: Duration) -> Result<(), LoadError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(sockets)?;
        }
        Ok(())
    }

    /// Publishes nothing more, and waits until everything has come; says how many deliveries never did.
    pub(crate) fn finish(&mut self, sockets: &mut Sockets) -> Result<u64, LoadError> {
        let publisher = self.publisher;
        sockets.wait("the last acknowledgement", |sockets| sockets.unacknowledged(publisher) == 0)?;
        match sockets.wait("the last deliveries", |sockets| sockets.undelivered() == 0) {
            // It stands in the report, with everything else.
            Ok(()) | Err(LoadError::Stalled { .. }) => Ok(sockets.undelivered()),
            Err(error) => Err(error),
        }
    }
}
