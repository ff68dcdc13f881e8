//! Time in a session: what now is, when tokens run out, when to ping and when a peer is dead.

use super::Mode;
use crate::limits::Limits;

/// The time, as whoever drives a session reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// A clock that never goes back, in milliseconds: for every deadline.
    pub mono_ms: u64,
    /// The wall clock, in Unix milliseconds: for the expiry of tokens alone.
    pub unix_ms: i64,
}

/// When a grant runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    /// On the monotonic clock, grace included; nothing if never.
    pub(super) deadline_ms: Option<u64>,
    /// Seconds until a refresh is due; nothing if never.
    pub(super) ttl_s: Option<u32>,
}

/// Turns an expiry on the wall clock into one on the monotonic clock; nothing if it has passed.
pub(super) fn expiry(expires_at_ms: Option<i64>, grace_ms: u64, now: Now) -> Option<Expiry> {
    let Some(at) = expires_at_ms else { return Some(Expiry { deadline_ms: None, ttl_s: None }) };
    let left_ms = u64::try_from(at.saturating_sub(now.unix_ms)).ok().filter(|left| *left > 0)?;
    let deadline_ms = now.mono_ms.saturating_add(left_ms).saturating_add(grace_ms);
    let ttl_s = u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
    Some(Expiry { deadline_ms: Some(deadline_ms), ttl_s: Some(ttl_s) })
}

/// Pings, and the deadline for their answers.
pub(super) struct KeepAlive {
    interval_ms: u32,
    /// What the interval grows to while other things are sent.
    interval_max_ms: u32,
    /// Nothing where pings are not answered.
    pong_ms: Option<u32>,
    seed: u32,
    state: State,
}

enum State {
    Off,
    PingAt(u64),
    PongUntil(u64),
}

pub(super) enum Tick {
    Nothing,
    Ping,
    Dead,
}

impl KeepAlive {
    pub(super) fn new(mode: Mode, limits: &Limits, seed: u64) -> Self {
        let ms = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        let (interval, interval_max, pong) = match mode {
            Mode::Duplex => (limits.ping_interval_ms, limits.ping_interval_ms, Some(ms(limits.pong_deadline_ms))),
            Mode::Down => (limits.ping_interval_ms, limits.ping_interval_ms, None),
            Mode::Events => (limits.comment_interval_ms, limits.comment_interval_max_ms, None),
            Mode::Poll => (0, 0, None),
        };
        let seed = (seed >> 32) as u32 ^ seed as u32;
        Self { interval_ms: ms(interval), interval_max_ms: ms(interval_max), pong_ms: pong, seed, state: State::Off }
    }

    /// The first ping comes at a random point in the second half of the interval, so that ten thousand connections that
    /// came at once are not pinged at once.
    pub(super) fn start(&mut self, now: Now) {
        if self.interval_ms > 0 {
            let offset = self.seed.checked_rem(self.interval_ms / 2).unwrap_or(0);
            self.state = State::PingAt(now.mono_ms + u64::from(self.interval_ms - offset));
        }
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Off => None,
            State::PingAt(at) | State::PongUntil(at) => Some(at),
        }
    }

    /// Whether a pong was due.
    pub(super) fn pong(&mut self) -> bool {
        let (State::PongUntil(until), Some(pong_ms)) = (&self.state, self.pong_ms) else { return false };
        // Pings stay one interval apart, however fast their answers come.
        self.state = State::PingAt(until - u64::from(pong_ms) + u64::from(self.interval_ms));
        true
    }

    /// The last ping was not needed: the next may come later, up to the longest interval.
    pub(super) fn busy(&mut self, now: Now) {
        if let State::PingAt(at) = self.state {
            let waited = at.saturating_sub(now.mono_ms).max(u64::from(self.interval_ms));
            let longer = (waited * 2).min(u64::from(self.interval_max_ms.max(self.interval_ms)));
            self.state = State::PingAt(now.mono_ms + longer);
        }
    }

    pub(super) fn tick(&mut self, now: Now) -> Tick {
        match self.state {
            State::PingAt(at) if at <= now.mono_ms => {
                let next = self.pong_ms.map(|pong_ms| State::PongUntil(now.mono_ms + u64::from(pong_ms)));
                self.state = next.unwrap_or(State::PingAt(now.mono_ms + u64::from(self.interval_ms)));
                Tick::Ping
            }
            State::PongUntil(until) if until <= now.mono_ms => Tick::Dead,
            State::Off | State::PingAt(_) | State::PongUntil(_) => Tick::Nothing,
        }
    }
}
