//! How fast one publisher may publish in one namespace: who and by which rules in, yes or no out.
//!
//! The rate is a user's in the whole namespace, on all connections together. A rate per channel would be had anew with
//! every channel, and would need a place for every pair of both. The anonymous have nothing in common but their
//! connection, so that theirs is the connection's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use talewire_proto::{ClientInfo, Namespace};

/// Locks over the table. A power of two.
const STRIPES: usize = 16;

/// When each publisher's bucket will be full again, in microseconds (the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct PublishRates {
    /// By the hash of namespace and publisher: two that share one would share a rate, which a random 64-bit hash makes rarer
    /// than a table of names is dear.
    stripes: Vec<Mutex<HashMap<u64, u64>>>,
    hasher: RandomState,
    kept_max: usize,
}

impl PublishRates {
    /// A table for about `kept_max` publishers.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            kept_max: kept_max.div_ceil(STRIPES),
        }
    }

    /// Whether one more publication of `who` is within the rate of the namespace.
    pub(crate) fn take(&self, namespace: &str, rules: &Namespace, who: &ClientInfo, now_ms: u64) -> bool {
        if rules.publications_per_second == 0 {
            return true;
        }
        let client = who.client.as_ref().filter(|_| who.user.is_anonymous()).map(|client| client.as_str());
        let key = self.hasher.hash_one((namespace, who.user.as_str(), client));
        let interval_us = 1_000_000 / u64::from(rules.publications_per_second);
        let now_us = now_ms.saturating_mul(1_000);
        let mut table = self.stripes[key as usize & (STRIPES - 1)].lock();
        if table.len() >= self.kept_max && !table.contains_key(&key) {
            // Whose bucket is full again needs no memory; a table of busy publishers starts anew rather than grow.
            table.retain(|_, full_at_us| *full_at_us > now_us);
            if table.len() >= self.kept_max {
                table.clear();
            }
        }
        let full_at_us = table.entry(key).or_insert(now_us);
        let next_us = (*full_at_us).max(now_us) + interval_us;
        if next_us - now_us > interval_us * u64::from(rules.publication_burst.max(1)) {
            return false;
        }
        *full_at_us = next_us;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: &str, client: &str) -> ClientInfo {
        let client = Some(client.parse().expect("an id"));
        ClientInfo { user: user.parse().expect("an id"), client, ..ClientInfo::default() }
    }

    fn taken(rates: &PublishRates, namespace: &str, who: &ClientInfo, now_ms: u64, times: usize) -> usize {
        let rules = Namespace { publications_per_second: 10, publication_burst: 3, ..Namespace::default() };
        (0..times).filter(|_| rates.take(namespace, &rules, who, now_ms)).count()
    }

    #[test]
    fn a_user_has_one_rate_on_all_connections_and_the_anonymous_one_each() {
        let rates = PublishRates::new(1_000);
        assert_eq!(taken(&rates, "chat", &who("ana", "c1"), 0, 2), 2);
        assert_eq!(taken(&rates, "chat", &who("ana", "c2"), 0, 5), 1, "the burst is used up on another connection");
        assert_eq!(taken(&rates, "other", &who("ana", "c1"), 0, 5), 3);
        assert_eq!(taken(&rates, "chat", &who("ben", "c3"), 0, 5), 3);
        assert_eq!(taken(&rates, "chat", &who("", "c4"), 0, 5), 3);
        assert_eq!(taken(&rates, "chat", &who("", "c5"), 0, 5), 3);
        assert_eq!(taken(&rates, "chat", &who("ana", "c1"), 200, 5), 2, "ten per second in the long run");
        assert!((0..100).all(|_| rates.take("chat", &Namespace::default(), &who("ana", "c1"), 200)), "no limit is set");
    }

    #[test]
    fn the_table_stays_small_and_forgets_who_is_free_first() {
        let rates = PublishRates::new(64);
        for n in 0..10_000 {
            taken(&rates, "chat", &who(&format!("user{n}"), "c"), n, 1);
        }
        assert!(rates.stripes.iter().map(|stripe| stripe.lock().len()).sum::<usize>() <= 64);
        let small = PublishRates::new(16);
        assert_eq!(taken(&small, "chat", &who("ana", "c"), 0, 5), 3);
        for n in 0..100 {
            taken(&small, "chat", &who(&format!("user{n}"), "c"), 1_000, 1);
        }
        assert_eq!(taken(&small, "chat", &who("ana", "c"), 1_000, 5), 3);
    }
}
