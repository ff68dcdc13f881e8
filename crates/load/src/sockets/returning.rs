//! Connections that come back: when each does, from where it goes on, and what was wrong with what it got. Used by the scenarios in
//! which servers end.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Phase, Role, Sockets};
use crate::error::LoadError;
use crate::ledger::Wrong;

/// Who publishes does not wait longer than this before it tries again.
const PUBLISHER_PAUSE: Duration = Duration::from_millis(100);

/// How connections come back, and who is on the way.
#[derive(Debug)]
pub struct Returning {
    /// The longest pause before the first attempt; each further one may take twice as long.
    base: Duration,
    /// What that grows to.
    max: Duration,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Everything that was noted.
    pub tally: Tally,
}

/// What was wrong, over all readers.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Entries that a reader got twice.
    pub doubled: u64,
    /// Entries that a reader got after a later one.
    pub swapped: u64,
    /// Gaps without a word: the reader was told that it had everything.
    pub lies: u64,
    /// Gaps that readers were told of.
    pub told: u64,
    /// Payloads, offsets or epochs that are not what they should be.
    pub changed: u64,
    /// Connections that broke, and attempts that failed.
    pub breaks: u64,
    /// The last break that was more than an ended socket.
    pub last_refusal: Option<String>,
    /// The first thing that was wrong.
    pub first_wrong: Option<String>,
    /// By reader: what it was skipped over.
    #[serde(skip)]
    missing: HashMap<usize, BTreeSet<u64>>,
}

impl Tally {
    /// Notes what was wrong with a delivery; `told` says whether the server had told of a gap.
    pub(super) fn note(&mut self, reader: usize, wrong: &Wrong, told: bool) {
        self.first_wrong.get_or_insert_with(|| format!("reader {reader}: {wrong}"));
        match *wrong {
            Wrong::Gap { wanted, got } => {
                self.missing.entry(reader).or_default().extend(wanted..got);
                self.lies += u64::from(!told);
            }
            Wrong::Again { got, .. } => {
                let was_missing = self.missing.get_mut(&reader).is_some_and(|missing| missing.remove(&got));
                *if was_missing { &mut self.swapped } else { &mut self.doubled } += 1;
            }
            _ => self.changed += 1,
        }
    }

    /// Entries that readers were skipped over, and never got.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.missing.values().map(|missing| missing.len() as u64).sum()
    }
}

impl Returning {
    /// Nobody has gone yet. Pauses are random up to `base`, then up to twice that, and so on up to `max`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, due: BinaryHeap::new(), tally: Tally::default() }
    }

    fn pause(&self, role: Role, attempts: u32) -> Duration {
        let longest = self.base.saturating_mul(1 << attempts.min(16)).min(self.max);
        let longest = if role == Role::Api { longest.min(PUBLISHER_PAUSE) } else { longest };
        longest.mul_f64(fastrand::f64())
    }
}

impl Sockets {
    /// Whether a broken connection comes back; if so, some time from now.
    pub(super) fn will_come_back(&mut self, index: usize, failure: &LoadError) -> bool {
        let Some(returning) = &mut self.returning else { return false };
        let peer = &mut self.peers[index];
        returning.tally.breaks += 1;
        if let LoadError::Refused(said) = failure
            && !said.starts_with("a connection was closed without")
        {
            returning.tally.last_refusal = Some(said.chars().take(300).collect());
        }
        let pause = returning.pause(peer.role, peer.attempts);
        peer.attempts += 1;
        peer.phase = Phase::Away;
        self.gone -= 1;
        returning.due.push(Reverse((Instant::now() + pause, index)));
        true
    }

    /// Opens what is due again. Says how long the next has to wait.
    pub(super) fn come_back(&mut self, now: Instant) -> Option<Duration> {
        loop {
            let Reverse((at, index)) = *self.returning.as_ref()?.due.peek()?;
            if at > now {
                return Some(at - now);
            }
            self.returning.as_mut()?.due.pop();
            self.dial(index);
        }
    }

    /// The offset from which a reader goes on: of the last publication it has, or where it was subscribed.
    pub(super) fn stands_at(&self, index: usize) -> Option<u64> {
        let peer = &self.peers[index];
        let Role::Reader { ledger } = peer.role else { return None };
        match peer.next.checked_sub(1) {
            Some(last) => self.ledgers[ledger].offset_of(last),
            None => peer.began_at,
        }
    }

    /// A reader was told where it stands. The epoch (or its digest) must be the same for all, and for ever.
    pub(super) fn stands(&mut self, index: usize, offset: u64, epoch: &str) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        if self.returning.is_none() {
            return;
        }
        if !self.ledgers[ledger].is_of_epoch(epoch) {
            self.note(index, &Wrong::Epoch(epoch.to_owned()));
        }
        self.peers[index].began_at.get_or_insert(offset);
    }

    /// Deliveries that readers still wait for.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        let left = |peer: &super::Peer| match peer.role {
            Role::Reader { ledger } => self.ledgers[ledger].published().saturating_sub(peer.next),
            _ => 0,
        };
        self.peers.iter().map(left).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_told_apart() {
        let mut tally = Tally::default();
        tally.note(1, &Wrong::Gap { wanted: 3, got: 6 }, false);
        tally.note(2, &Wrong::Gap { wanted: 3, got: 5 }, true);
        tally.note(1, &Wrong::Again { wanted: 7, got: 4 }, false);
        tally.note(1, &Wrong::Again { wanted: 7, got: 4 }, false);
        tally.note(2, &Wrong::Payload(9), false);
        assert_eq!((tally.lies, tally.swapped, tally.doubled, tally.changed), (1, 1, 1, 1));
        assert_eq!(tally.skipped(), 4, "3 and 5 of the first, 3 and 4 of the second");
        assert!(tally.first_wrong.expect("noted").starts_with("reader 1: a gap"));
    }

    #[test]
    fn pauses_are_random_and_grow_up_to_a_bound() {
        let returning = Returning::new(Duration::from_secs(1), Duration::from_secs(30));
        let longest = |role, attempts| (0..200).map(|_| returning.pause(role, attempts)).max().expect("200");
        let reader = Role::Reader { ledger: 0 };
        let ms = |ms| Duration::from_millis(ms);
        assert!((ms(800)..ms(1_001)).contains(&longest(reader, 0)));
        assert!((ms(3_200)..ms(4_001)).contains(&longest(reader, 2)));
        assert!((ms(24_000)..ms(30_001)).contains(&longest(reader, 40)));
        assert!(longest(Role::Api, 40) <= PUBLISHER_PAUSE);
        assert!((0..200).map(|_| returning.pause(reader, 0)).min().expect("200") < ms(200));
    }
}
