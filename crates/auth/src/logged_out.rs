//! Logins that were logged out: names of logins in, and whether one of them still counts out. Filled from the database by the server.
//!
//! Bounded: beyond its size it forgets the login that was issued first, and believes no login that is as old or older. Somebody may
//! have to log in again too early; nobody who has logged out is believed again.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use talewire_proto::UserId;

#[derive(Debug)]
pub(crate) struct LoggedOut {
    known: RwLock<Known>,
    logins_max: usize,
}

#[derive(Debug)]
struct Known {
    /// By when they were issued, and to whom.
    logins: BTreeSet<(i64, UserId)>,
    /// Logins that were issued up to then do not count any more.
    too_old_ms: i64,
}

impl LoggedOut {
    pub(crate) fn new(logins_max: usize) -> Self {
        let known = Known { logins: BTreeSet::new(), too_old_ms: i64::MIN };
        Self { known: RwLock::new(known), logins_max: logins_max.max(1) }
    }

    /// Takes note of a login; false if it was known.
    pub(crate) fn add(&self, user: &UserId, issued_at_ms: i64) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if issued_at_ms <= known.too_old_ms || !known.logins.insert((issued_at_ms, user.clone())) {
            return false;
        }
        if known.logins.len() > self.logins_max
            && let Some((oldest, _)) = known.logins.pop_first()
        {
            known.too_old_ms = known.too_old_ms.max(oldest);
        }
        true
    }

    pub(crate) fn has(&self, user: &UserId, issued_at_ms: i64) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_known = || !known.logins.is_empty() && known.logins.contains(&(issued_at_ms, user.clone()));
        issued_at_ms <= known.too_old_ms || is_known()
    }

    /// Forgets logins that were issued so early that they have ended by themselves.
    pub(crate) fn forget(&self, issued_until_ms: i64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        while known.logins.first().is_some_and(|(issued_at_ms, _)| *issued_at_ms <= issued_until_ms) {
            known.logins.pop_first();
        }
    }
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
        assert!(!out.has(&user("ana"), 5));
        assert!(out.add(&user("ana"), 5) && !out.add(&user("ana"), 5), "told once");
        assert!(out.has(&user("ana"), 5) && !out.has(&user("ana"), 6) && !out.has(&user("ben"), 5));
        out.forget(4);
        assert!(out.has(&user("ana"), 5));
        out.forget(5);
        assert!(!out.has(&user("ana"), 5), "it has ended by itself");
    }

    #[test]
    fn what_has_no_room_takes_older_ones_along() {
        let out = LoggedOut::new(2);
        for at in [30, 10, 20] {
            assert!(out.add(&user("ana"), at));
        }
        assert!([10, 20, 30].iter().all(|at| out.has(&user("ana"), *at)), "all that were logged out");
        assert!(out.has(&user("ben"), 10) && out.has(&user("ben"), 9), "and who is as old");
        assert!(!out.has(&user("ben"), 11));
        assert!(!out.add(&user("ben"), 9), "nothing new");
    }
}
