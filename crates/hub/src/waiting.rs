//! Signals that wait for room in one connection's outbox, each key once.
//!
//! A subscriber's shard puts them in while the outbox is over its budget and takes them out, oldest first, when there is
//! room. A newer signal takes the place of an older one with its key, which nobody needs any more.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use talewire_proto::Channel;

use crate::fanout::{Fanout, What};

/// Stands for no tag: all signals of a channel have one key.
const CHANNEL_KEY: &str = "channel";

/// Stands for no tag: who published, a user or, of the anonymous, a connection. Nothing for programs.
const PUBLISHER_KEY: &str = "publisher";

/// What a signal is the newest of: the hash of its channel and of what its namespace names. Two that share
/// one would take each other's place, which a hash of 64 bits with a random seed makes rarer than a lost signal.
pub(crate) type SignalKey = u64;

/// Makes keys of signals.
#[derive(Default)]
pub(crate) struct Keys(RandomState);

impl Keys {
    /// The key by this tag. Nothing for a signal without it, and for who comes and goes.
    pub(crate) fn of(&self, fanout: &Fanout, tag: &str) -> Option<SignalKey> {
        let What::Signal(publication) = &fanout.what else { return None };
        let channel = &fanout.channel;
        Some(match tag {
            CHANNEL_KEY => self.0.hash_one(channel),
            PUBLISHER_KEY => {
                let who = publication.info.as_ref()?;
                let client = who.client.as_ref().filter(|_| who.user.is_anonymous());
                self.0.hash_one((channel, &who.user, client))
            }
            tag => self.0.hash_one((channel, publication.tags.get(tag)?)),
        })
    }
}

/// What waits for one connection.
#[derive(Default)]
pub(crate) struct Waiting {
    /// In the order in which they go.
    queue: BTreeMap<u64, (Option<SignalKey>, Arc<Fanout>)>,
    places: HashMap<SignalKey, u64>,
    next: u64,
}

/// What putting a signal in came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits.
    Added,
    /// It waits in the place of an older one, which nobody gets.
    Conflated,
    /// It waits, and the oldest of all, for which there is no room, is dropped.
    Dropped,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts a signal in, of which at most `max` wait.
    pub(crate) fn put(&mut self, key: Option<SignalKey>, fanout: &Arc<Fanout>, max: usize) -> Put {
        if let Some(place) = key.and_then(|key| self.places.get(&key)) {
            self.queue.insert(*place, (key, fanout.clone()));
            return Put::Conflated;
        }
        self.queue.insert(self.next, (key, fanout.clone()));
        if let Some(key) = key {
            self.places.insert(key, self.next);
        }
        self.next += 1;
        if self.queue.len() > max {
            self.take();
            return Put::Dropped;
        }
        Put::Added
    }

    /// The oldest.
    pub(crate) fn take(&mut self) -> Option<Arc<Fanout>> {
        let (_, (key, fanout)) = self.queue.pop_first()?;
        if let Some(key) = key {
            self.places.remove(&key);
        }
        Some(fanout)
    }

    /// Forgets those of a channel that the connection has left.
    pub(crate) fn leave(&mut self, channel: &Channel) {
        let places = &mut self.places;
        self.queue.retain(|_, (key, fanout)| {
            let stays = fanout.channel != *channel;
            if let (Some(key), false) = (key, stays) {
                places.remove(key);
            }
            stays
        });
    }
}
