//! Publications that are gathered for a moment, so that those of one channel leave together.
//!
//! The shard puts a channel in when its first publication comes and asks which are due; the thread's loop wakes for the next.
//! One ordered list for the whole shard takes the place of a timer for each channel.

use std::collections::BTreeSet;
use std::sync::Arc;

use talewire_proto::Channel;

use crate::fanout::Fanout;

/// What is gathered of one channel on one shard.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) fanouts: Vec<Arc<Fanout>>,
    due_ms: u64,
}

/// The channels of which something is gathered, by when it leaves.
#[derive(Default)]
pub(crate) struct Batches {
    by_time: BTreeSet<(u64, Channel)>,
}

impl Batches {
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Begins to gather.
    pub(crate) fn open(&mut self, channel: &Channel, batch: &mut Batch, due_ms: u64) {
        batch.due_ms = due_ms;
        self.by_time.insert((due_ms, channel.clone()));
    }

    /// Ends gathering: what there is leaves now.
    pub(crate) fn close(&mut self, channel: &Channel, batch: &mut Batch) -> Vec<Arc<Fanout>> {
        if !batch.fanouts.is_empty() {
            self.by_time.remove(&(batch.due_ms, channel.clone()));
        }
        std::mem::take(&mut batch.fanouts)
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(due_ms, _)| *due_ms)
    }

    /// A channel whose time has come.
    pub(crate) fn due(&self, now_ms: u64) -> Option<Channel> {
        self.by_time.first().filter(|(due_ms, _)| *due_ms <= now_ms).map(|(_, channel)| channel.clone())
    }
}
