//! Garbage under our names: keys of a type that we never write, and members that nobody can read. They are put out of the way, so that the
//! rest goes on; each is counted, and named once in the log, without what it holds.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Names that are remembered so as not to be logged again; further ones are counted alone.
const NAMED_MAX: usize = 1_000;

/// What a key of ours is, as the server calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hash,
    Set,
    SortedSet,
    Stream,
    List,
    Text,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Stream => "stream",
            Self::List => "list",
            Self::Text => "string",
        }
    }
}

/// What was put out of the way.
#[derive(Default)]
pub(crate) struct Mended {
    count: AtomicU64,
    named: Mutex<HashSet<String>>,
}

impl Mended {
    /// How much so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A key, or so many members of a key, were no work of ours.
    pub(crate) fn note(&self, key: &str, what: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        self.count.fetch_add(count, Ordering::Relaxed);
        let is_new = {
            let mut named = self.named.lock();
            named.len() < NAMED_MAX && named.insert(key.to_owned())
        };
        if is_new {
            tracing::warn!(key, what, count, "Redis holds garbage under a name of ours: it is put out of the way");
        }
    }
}
