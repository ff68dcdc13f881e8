//! Finds the connections of one thread by who they are, without keeping names: by a hash, and whoever asks compares.
//!
//! Numbers alone, so that it stays small beside a connection: the test below tells how many bytes. Used by [`crate::reactor`], once for
//! users and once for clients.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use talewire_hub::ConnectionKey;

/// Nobody before or behind.
const NONE: u32 = u32::MAX;
/// Not in any list.
const OUT: u32 = u32::MAX - 1;

/// Connections by hash. Those of the same hash are a list through `links`.
#[derive(Default)]
pub(crate) struct Index {
    heads: HashMap<u32, u32, BuildHasherDefault<AsItIs>>,
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    hash: u32,
    before: u32,
    behind: u32,
}

const NO_LINK: Link = Link { hash: 0, before: OUT, behind: NONE };

/// The numbers are hashes already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed here")
    }

    fn write_u32(&mut self, n: u32) {
        // The table looks at the highest bits and at the lowest ones.
        self.0 = u64::from(n) << 32 | u64::from(n);
    }
}

impl Index {
    /// Notes a connection; one that is noted already stays as it is.
    pub(crate) fn insert(&mut self, key: ConnectionKey, hash: u32) {
        let at = place(key);
        if self.links.len() <= key {
            self.links.resize(key + 1, NO_LINK);
        }
        if self.links[key].before != OUT {
            return;
        }
        let behind = self.heads.insert(hash, at).unwrap_or(NONE);
        self.links[key] = Link { hash, before: NONE, behind };
        if let Some(link) = self.links.get_mut(behind as usize) {
            link.before = at;
        }
    }

    /// Forgets a connection, and says by which hash it was noted; one that is not changes nothing.
    pub(crate) fn remove(&mut self, key: ConnectionKey) -> Option<u32> {
        let Link { hash, before, behind } = self.links.get(key).copied().filter(|link| link.before != OUT)?;
        self.links[key] = NO_LINK;
        if let Some(link) = self.links.get_mut(behind as usize) {
            link.before = before;
        }
        match self.links.get_mut(before as usize) {
            Some(link) => link.behind = behind,
            None if behind == NONE => drop(self.heads.remove(&hash)),
            None => drop(self.heads.insert(hash, behind)),
        }
        Some(hash)
    }

    /// The connections with this hash, the newest first.
    pub(crate) fn find(&self, hash: u32) -> impl Iterator<Item = ConnectionKey> {
        let mut at = self.heads.get(&hash).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let key = at as usize;
            at = self.links.get(key)?.behind;
            Some(key)
        })
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.heads.capacity() * 8 / 7 * 9 + self.links.capacity() * size_of::<Link>()
    }
}

fn place(key: ConnectionKey) -> u32 {
    u32::try_from(key).expect("a process has fewer than two thousand million connections")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_noted_is_found_until_it_is_forgotten() {
        let mut index = Index::default();
        let mut known: BTreeMap<usize, u32> = BTreeMap::new();
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..20_000 {
            // Few hashes, so that many share one.
            let (key, hash) = (next(100) as usize, next(20) as u32);
            if next(2) == 0 {
                index.insert(key, hash);
                known.entry(key).or_insert(hash);
            } else {
                index.remove(key);
                known.remove(&key);
            }
            let mut found: Vec<usize> = index.find(hash).collect();
            found.sort_unstable();
            let expected: Vec<usize> = known.iter().filter(|(_, h)| **h == hash).map(|(key, _)| *key).collect();
            assert_eq!(found, expected);
        }
        known.into_keys().for_each(|key| assert!(index.remove(key).is_some()));
        assert!((0..20).all(|hash| index.find(hash).next().is_none()));
    }

    #[test]
    fn a_connection_costs_few_bytes() {
        for n in [1_000, 50_000, 100_000] {
            let mut index = Index::default();
            for key in 0..n {
                index.insert(key, (key as u32).wrapping_mul(2_654_435_761));
            }
            let each = index.bytes() / n;
            assert!((20..=48).contains(&each), "{each} bytes for each of {n}");
        }
    }
}
