//! What happened in a run, in the order in which it was seen: every publisher, reader and fault writes here, and the checkers
//! read it afterwards and nothing else. Times are of this machine's monotonic clock.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Events that a log holds at most: an hour of the largest stage. A run that says more ends with an error.
pub const EVENTS_MAX: usize = 20_000_000;

/// Names of channels, nodes and keys: many events share one.
pub type Name = Arc<str>;

/// What a channel promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Everything that was acknowledged is there for good.
    Durable,
    /// The newest so many entries.
    History {
        /// Entries kept.
        size: u64,
        /// For how long.
        lasts: Lasts,
    },
}

/// How long a history channel's entries are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lasts {
    /// For as long as the process; then the epoch changes.
    InMemory,
    /// For good: the broker syncs every write. What stands before the `.` of the epoch never changes.
    Synced,
    /// For good, but for the newest, which may go when a replica takes over. Then what stands behind the `.` of the epoch
    /// changes, and whoever had them is told. Promotions in a row may also lose all of it.
    Replicated,
}

impl Kind {
    /// What names an unbroken history: all of the epoch, or what stands before the `.`, where nothing may be lost with the rest.
    #[must_use]
    pub fn history(self, epoch: &str) -> &str {
        match self {
            Self::History { lasts: Lasts::Synced, .. } => base(epoch),
            _ => epoch,
        }
    }

    /// Whether entries under another epoch may be gone.
    #[must_use]
    pub fn may_forget(self, before: &str, now: &str) -> bool {
        match self {
            Self::Durable | Self::History { lasts: Lasts::Synced, .. } => false,
            Self::History { lasts: Lasts::InMemory, .. } => before != now,
            Self::History { lasts: Lasts::Replicated, .. } => before != now && base(before) == base(now),
        }
    }
}

/// The part of an epoch that does not change when a replica takes over.
#[must_use]
pub fn base(epoch: &str) -> &str {
    epoch.rsplit_once('.').map_or(epoch, |(base, _)| base)
}

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Of which unbroken history.
    pub epoch: Name,
    /// Its number in it.
    pub offset: u64,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// The key it was published with.
    pub key: Name,
    /// The channel it was published in.
    pub tag: Name,
    /// A sum over all of its payload.
    pub sum: u64,
}

/// What a reader was told when it subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// It had no position and asked for none.
    Fresh,
    /// All that it missed follows.
    Recovered,
    /// It missed something that it will not get here.
    Lost,
}

/// How an attempt to publish ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Acknowledged.
    Kept(Position),
    /// Acknowledged by a protocol that does not say where it stands.
    Said,
    /// Surely not done: never sent, or refused for good.
    Refused(String),
    /// Nobody can tell.
    Unknown(String),
}

/// One end of an accepted generation, as it stands in its story's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// `done`, `failed` or `cancelled`.
    pub status: String,
    /// The text of the turn that it made.
    pub turn: Option<String>,
}

/// One thing that happened.
// The names of fields say what they are.
#[expect(missing_docs)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// A channel is part of the run.
    Channel { channel: Name, kind: Kind },
    /// A publication is sent. `op` is this attempt; other attempts may have the same key.
    Asked { op: u64, channel: Name, key: Name, node: Name },
    /// And what became of it.
    Answered { op: u64, outcome: Outcome },

    /// A reader begins, and is to get everything of these channels.
    Reader { reader: u32, wire: String, channels: Vec<Name> },
    /// A reader is subscribed.
    Subscribed { reader: u32, channel: Name, node: Name, from: Option<Position>, told: Told, top: Position },
    /// A reader got an entry. Its application takes it, whatever the checkers say.
    Delivered { reader: u32, channel: Name, position: Position, content: Content },
    /// A reader was told of a gap on the open connection, up to this position.
    Gap { reader: u32, channel: Name, position: Position },
    /// A reader's connection broke or was closed.
    Broke { reader: u32, why: String },
    /// A reader leaves for good, as the script wants.
    Retired { reader: u32 },
    /// A server program has been told that this reader has no longer a place in the channel.
    Revoked { reader: u32, channel: Name },

    /// A node has acknowledged the order to take a channel, or with none the connection, away from somebody who is on another node.
    Ordered { subject: u32, channel: Option<Name>, on: Name, by: Name },
    /// Somebody who is the subject of an order got an entry.
    Heard { subject: u32, channel: Name },
    /// What it has was ended: by the order, or otherwise.
    Dismissed { subject: u32, is_ordered: bool, how: String },

    /// Everything that one node gives as a channel's history, at the end.
    Read { node: Name, channel: Name, top: Position, entries: Vec<(u64, Content)> },

    /// Connections that are truly subscribed now, as the clients themselves know.
    Truth { channel: Name, clients: Vec<Name> },
    /// Those whom a node names.
    Presence { node: Name, channel: Name, clients: Vec<Name> },
    /// A reader was told that a connection came or went.
    Came { reader: u32, channel: Name, client: Name, is_here: bool },

    /// A generation was accepted.
    JobAccepted { job: Name },
    /// Text that a reader of the generation stream put together; with `ended` the stream said that the attempt is over, and with `at` how
    /// long its text is, in UTF-16 units. `trail` says how it came to that, for people.
    JobText { job: Name, attempt: u64, text: String, ended: bool, at: Option<u64>, trail: String },
    /// A delta that came behind the end that its reader had seen.
    JobLate { job: Name, attempt: u64 },
    /// An end of it in the story's log.
    JobEnded { job: Name, end: JobEnd },

    /// A fault begins, by its number in the schedule.
    Fault { number: u32, fault: String },
    /// What was broken is whole again.
    Healed { number: u32 },
    /// Announcements do not reach a node any more, and nothing else tells it so. Until the next `Healed`.
    Deaf { node: Name },
    /// What a node says to a load balancer while it is deaf.
    Ready { node: Name, is_ready: bool },
    /// The last fault is over: from here on everything must come right.
    Quiet,
    /// The run's clients are about to leave.
    Over,
    /// What a process uses.
    Vitals { node: Name, number: u32, rss_bytes: u64, descriptors: u64 },
    /// What the agents of a process have done since it was started for the so many-th time.
    Worked { node: Name, number: u32, claimed: u64, done: u64, fenced: u64 },
    /// What stands in Redis, while all is whole.
    Keys { keys: u64 },
    /// A line of a log that nobody should ever see.
    Panic { node: Name, line: String },
    /// A process ended by itself.
    Died { node: Name, how: String },
    /// A process was asked to end (SIGTERM) and did, or not.
    Drained { node: Name, took_ms: u64, clean: bool },
    /// What the machinery of a run could not do: the run is void.
    Void { why: String },
}

/// One event with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The log of a running run, shared by all who write.
#[derive(Debug)]
pub struct Log {
    began: Instant,
    events: Mutex<Vec<Event>>,
    operations: AtomicU64,
}

impl Default for Log {
    fn default() -> Self {
        Self { began: Instant::now(), events: Mutex::new(Vec::new()), operations: AtomicU64::new(0) }
    }
}

impl Log {
    /// Writes down what happened now.
    pub fn say(&self, what: What) {
        let mut events = self.events.lock();
        if events.len() < EVENTS_MAX {
            // Under the lock, so that times rise with places.
            let at_us = self.now_us();
            events.push(Event { at_us, what });
        } else if events.len() == EVENTS_MAX {
            let why = format!("more than {EVENTS_MAX} events");
            events.push(Event { at_us: self.now_us(), what: What::Void { why } });
        }
    }

    /// A number for an attempt to publish.
    pub fn operation(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::Relaxed)
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Shows every event so far; for scripts that wait for one. Nobody writes meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.events.lock())
    }

    /// Everything so far.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock())
    }
}

/// Writes a log as lines of JSON.
///
/// # Errors
/// If `to` does not take it.
pub fn write(events: &[Event], mut to: impl Write) -> std::io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut to, event)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// Reads it again.
///
/// # Errors
/// If it is none.
pub fn read(from: impl BufRead) -> std::io::Result<Vec<Event>> {
    from.lines().map(|line| serde_json::from_str(&line?).map_err(std::io::Error::other)).collect()
}

/// The kinds of the channels of a run.
pub fn kinds(events: &[Event]) -> BTreeMap<Name, Kind> {
    let kind = |event: &Event| match &event.what {
        What::Channel { channel, kind } => Some((channel.clone(), *kind)),
        _ => None,
    };
    events.iter().filter_map(kind).collect()
}

/// A sum over bytes (FNV-1a, 64 bits): the same in every run, so that logs can be compared.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_written_and_read_again() {
        let log = Log::default();
        let position = Position { epoch: "e".into(), offset: 7 };
        log.say(What::Asked { op: log.operation(), channel: "a:1".into(), key: "k".into(), node: "n1".into() });
        log.say(What::Answered { op: 0, outcome: Outcome::Kept(position) });
        log.say(What::Quiet);
        let events = log.take();
        let mut bytes = Vec::new();
        write(&events, &mut bytes).expect("a Vec takes every byte");
        assert_eq!(read(bytes.as_slice()).expect("lines"), events);
        assert_eq!(events.len(), 3);
        assert!(log.take().is_empty());
    }

    #[test]
    fn every_byte_counts_in_a_sum() {
        assert_ne!(sum(b"abc"), sum(b"abd"));
        assert_ne!(sum(b"abc"), sum(b"acb"));
    }
}
