//! Logins that were logged out: names of logins in, and whether one of them still counts out, as far as it is kept here. Filled from the
//! database by the server.
//!
//! Bounded: beyond its size it forgets the logout that came first, and says from then on that it does not know of logins that were
//! issued as early as a forgotten one. Nothing is refused for its age.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use talewire_proto::UserId;

#[derive(Debug)]
pub(crate) struct LoggedOut {
    known: RwLock<Known>,
    logins_max: usize,
}

/// A login: when it was issued, and to whom, as a digest of the user.
type Name = (i64, u64);

#[derive(Debug)]
struct Known {
    logins: BTreeSet<Name>,
    /// The same, in the order in which they were logged out: who logs out just now is remembered, however old the login.
    order: VecDeque<Name>,
    /// Logins that were issued up to then may be missing.
    forgotten_ms: i64,
}

impl LoggedOut {
    pub(crate) fn new(logins_max: usize) -> Self {
        let known = Known { logins: BTreeSet::new(), order: VecDeque::new(), forgotten_ms: i64::MIN };
        Self { known: RwLock::new(known), logins_max: logins_max.max(1) }
    }

    /// Takes note of a login.
    pub(crate) fn add(&self, user: &UserId, issued_at_ms: i64) {
        let name = (issued_at_ms, short(user));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.logins.insert(name) {
            return;
        }
        known.order.push_back(name);
        if known.order.len() > self.logins_max
            && let Some(first) = known.order.pop_front()
        {
            known.logins.remove(&first);
            known.forgotten_ms = known.forgotten_ms.max(first.0);
        }
    }

    /// Whether a login was logged out, if that is known here.
    pub(crate) fn has(&self, user: &UserId, issued_at_ms: i64) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_known = !known.logins.is_empty() && known.logins.contains(&(issued_at_ms, short(user)));
        if is_known || issued_at_ms > known.forgotten_ms { Some(is_known) } else { None }
    }

    /// Logins that are kept.
    pub(crate) fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).logins.len()
    }

    /// Forgets logins that were issued so early that they have ended by themselves, once all that were logged out before them have.
    pub(crate) fn forget(&self, issued_until_ms: i64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = known.order.pop_front_if(|(issued_at_ms, _)| *issued_at_ms <= issued_until_ms) {
            known.logins.remove(&first);
        }
    }
}

/// Stands for a user among those whose login was issued in the same millisecond.
fn short(user: &UserId) -> u64 {
    let digest = digest(&SHA256, user.as_str().as_bytes());
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().expect("an id")
    }

    #[test]
    fn what_was_logged_out_stays_out() {
        let out = LoggedOut::new(10);
        assert_eq!(out.has(&user("ana"), 5), Some(false));
        out.add(&user("ana"), 5);
        out.add(&user("ana"), 5);
        assert_eq!(out.len(), 1);
        let all = [("ana", 5), ("ana", 6), ("ben", 5)].map(|(name, at)| out.has(&user(name), at));
        assert_eq!(all, [Some(true), Some(false), Some(false)]);
        out.forget(4);
        assert_eq!(out.has(&user("ana"), 5), Some(true));
        out.forget(5);
        assert_eq!((out.has(&user("ana"), 5), out.len()), (Some(false), 0), "it has ended by itself");
    }

    #[test]
    fn what_has_no_room_is_not_known_and_nobody_is_refused_for_it() {
        let out = LoggedOut::new(2);
        for at in [20, 10, 30] {
            out.add(&user("ana"), at);
        }
        assert_eq!([10, 30].map(|at| out.has(&user("ana"), at)), [Some(true); 2]);
        assert_eq!(out.has(&user("ben"), 21), Some(false));
        assert_eq!([("ana", 20), ("ben", 20), ("ben", 9)].map(|(name, at)| out.has(&user(name), at)), [None; 3]);
        out.add(&user("ben"), 9);
        assert_eq!((out.has(&user("ben"), 9), out.len()), (Some(true), 2), "the newest logout is known");
        assert_eq!([("ana", 10), ("cem", 20)].map(|(name, at)| out.has(&user(name), at)), [None; 2]);
        assert_eq!(out.has(&user("cem"), 21), Some(false));
    }
}
