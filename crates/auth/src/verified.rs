//! Verified tokens, remembered until they expire, so that a reconnecting crowd costs one hash each.
//!
//! Bounded: two generations of at most half the size each. When the young one is full it becomes the old one, and the
//! old one is forgotten whole; what is used again moves back to the young one. No scan, no clock, no list of uses.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

/// What is known about one token, found by the SHA-256 of its text, so that no token is kept.
#[derive(Debug)]
pub(crate) struct Verified<G> {
    generations: Mutex<Generations<G>>,
    generation_max: usize,
}

#[derive(Debug)]
struct Generations<G> {
    young: HashMap<[u8; 32], Known<G>>,
    old: HashMap<[u8; 32], Known<G>>,
}

/// A grant and the time from which it is no longer good, in Unix milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Known<G> {
    pub(crate) grant: G,
    pub(crate) good_until_ms: i64,
}

impl<G: Clone> Verified<G> {
    pub(crate) fn new(tokens_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generations: Mutex::new(generations), generation_max: tokens_max.div_ceil(2) }
    }

    pub(crate) fn key(token: &str) -> [u8; 32] {
        digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    pub(crate) fn find(&self, key: &[u8; 32]) -> Option<Known<G>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = generations.young.get(key) {
            return Some(known.clone());
        }
        let known = generations.old.remove(key)?;
        generations.insert(*key, known.clone(), self.generation_max);
        Some(known)
    }

    pub(crate) fn remember(&self, key: [u8; 32], known: Known<G>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(key, known, self.generation_max);
    }
}

impl<G> Generations<G> {
    fn insert(&mut self, key: [u8; 32], known: Known<G>, generation_max: usize) {
        if self.young.len() >= generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(grant: u32) -> Known<u32> {
        Known { grant, good_until_ms: 0 }
    }

    #[test]
    fn it_never_holds_more_than_its_size_and_keeps_what_is_used() {
        let cache = Verified::new(100);
        let key = |i: u32| Verified::<u32>::key(&i.to_string());
        cache.remember(key(0), known(0));
        for i in 1..1_000 {
            cache.remember(key(i), known(i));
            assert!(cache.find(&key(0)).is_some(), "used each time, forgotten at {i}");
            let generations = cache.generations.lock().expect("not poisoned");
            assert!(generations.young.len() + generations.old.len() <= 100);
        }
        assert_eq!(cache.find(&key(999)).map(|k| k.grant), Some(999));
        assert!(cache.find(&key(1)).is_none());
    }
}
