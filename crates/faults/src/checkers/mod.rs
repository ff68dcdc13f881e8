//! The log of a run in, what was wrong out: one pure function per question, none of which sees a server. Called when a run is
//! over, and by `talewire-faults check` for a log that was kept.

mod alive;
mod anew;
mod bounds;
mod contents;
mod deaf;
mod deliveries;
mod growth;
mod jobs;
mod kept;
mod presence;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use self::anew::Anew;
use crate::log::Event;

/// What must hold, whatever happens to the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Invariant {
    /// The run itself could do what it was to do. Without this its other answers mean nothing.
    Valid,
    /// I1: what was acknowledged is there, for whoever reads the history and for whoever was subscribed.
    Kept,
    /// I2: no reader gets an entry twice.
    Once,
    /// I3: one order, and one content at each position, for everybody.
    Order,
    /// I4: `recovered` says the truth, both ways.
    Flags,
    /// I5: stored data that was lost changes the epoch.
    Epochs,
    /// I5: who does not hear of what is published finds that out in time, and so do its readers.
    Deaf,
    /// I6: one key is one entry, with one acknowledgement.
    Keys,
    /// I7: what was not acknowledged is there once or not at all; what was refused is not there.
    Unacknowledged,
    /// I8: presence is the truth soon after the last fault.
    Presence,
    /// I9: a generation ends once, with the text that its readers saw.
    Jobs,
    /// I11: nobody gets anything of a channel that was taken away.
    Revoked,
    /// I12: nobody gets anything of another channel.
    Channels,
    /// I13: memory and descriptors come back after each fault.
    Bounds,
    /// I14: no panic, and no process that ends by itself.
    Panics,
    /// I15: after the last fault a publication reaches everybody.
    Alive,
    /// I16: a server that is asked to end does, in time.
    Drain,
}

impl Invariant {
    /// Its number in the list of promises.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Valid => "run",
            Self::Kept => "I1",
            Self::Once => "I2",
            Self::Order => "I3",
            Self::Flags => "I4",
            Self::Epochs | Self::Deaf => "I5",
            Self::Keys => "I6",
            Self::Unacknowledged => "I7",
            Self::Presence => "I8",
            Self::Jobs => "I9",
            Self::Revoked => "I11",
            Self::Channels => "I12",
            Self::Bounds => "I13",
            Self::Panics => "I14",
            Self::Alive => "I15",
            Self::Drain => "I16",
        }
    }
}

/// Times and sizes that were promised; what is slower or larger is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promises {
    /// Entries that one recovery may hold; who missed more may be told that it is lost.
    pub recovery_entries_max: u64,
    /// Until presence is true after the last fault.
    pub presence_ms: u64,
    /// Until a publication has reached everybody after the last fault.
    pub alive_ms: u64,
    /// Until a node that announcements do not reach says so, and until its readers have what they brought, or know of a loss.
    pub deaf_ms: u64,
    /// Until a server that was asked to end has ended.
    pub drain_ms: u64,
    /// Until nothing more comes of a channel that was taken away.
    pub revoked_ms: u64,
    /// Until memory and descriptors are back after a fault.
    pub back_ms: u64,
    /// By how much memory may then be above what it was, in percent and in bytes.
    pub rss_percent: u64,
    /// See `rss_percent`: what a young process may grow by in any case.
    pub rss_bytes: u64,
    /// How long a process must have lived so that its growth is judged.
    pub life_ms: u64,
    /// By how much more memory it may have in the last quarter of its life than in the second, in percent and in bytes.
    pub growth_percent: u64,
    /// See `growth_percent`.
    pub growth_bytes: u64,
    /// By how many descriptors a process may then be above what it had.
    pub descriptors: u64,
    /// By how many keys Redis may have more at the end than before the first fault.
    pub keys: u64,
    /// Resumes in a hundred that may be told that something is lost although nothing is.
    pub needless_percent: u64,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            recovery_entries_max: 300,
            presence_ms: 40_000,
            alive_ms: 10_000,
            deaf_ms: 10_000,
            drain_ms: 30_000,
            revoked_ms: 5_000,
            back_ms: 60_000,
            rss_percent: 25,
            rss_bytes: 64 * 1024 * 1024,
            life_ms: 60_000,
            growth_percent: 15,
            growth_bytes: 24 * 1024 * 1024,
            descriptors: 24,
            keys: 80,
            needless_percent: 1,
        }
    }
}

/// What was wrong with one invariant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// How often.
    pub count: u64,
    /// The first few, for people.
    pub first: Vec<String>,
}

/// How many of the first are told.
const FIRST_MAX: usize = 5;

/// Everything that a run showed, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Publications that were tried, each key once.
    pub published: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Of those, neither acknowledged nor refused.
    pub unknown: u64,
    /// Unknown ones that turned out to be kept.
    pub unknown_kept: u64,
    /// Of those, surely not taken.
    pub refused: u64,
    /// Keys that were sent again after an acknowledgement or a doubt.
    pub repeated: u64,
    /// Acknowledged entries of history channels whose epoch ended, which readers were told.
    pub gone_with_epoch: u64,
    /// Histories that began anew because a server without data was promoted, the last of several promotions in a row.
    pub begun_anew: u64,
    /// Entries that readers got.
    pub delivered: u64,
    /// Acknowledged entries that are not in the history, and entries that a reader silently never got.
    pub lost: u64,
    /// Entries that a reader got twice, or that stand in the history twice.
    pub doubled: u64,
    /// Entries that came behind a later one, or differ from what others got at their position.
    pub out_of_order: u64,
    /// Answers `recovered: true` with a gap behind them.
    pub lies: u64,
    /// Answers `recovered: false`, and gaps told, although nothing was lost.
    pub needless: u64,
    /// Subscriptions that asked for what they missed.
    pub resumes: u64,
    /// Of those, told that something is lost.
    pub resumes_lost: u64,
    /// Gaps told on open connections.
    pub gaps: u64,
    /// Connections of readers that broke.
    pub breaks: u64,
    /// Generations that were accepted, and ended.
    pub jobs: u64,
    /// Attempts at generations whose text a reader could compare with the turn.
    pub job_texts: u64,
    /// Of those, streams that ended before their text did, while the broker was away.
    pub job_texts_cut: u64,
    /// Generations whose readers saw more than one attempt: somebody took over.
    pub taken_over: u64,
    /// Generations that a worker's own process wrote to their end.
    pub done_by_workers: u64,
    /// Attempts that stopped because a newer one wrote, as all processes counted them.
    pub fenced: u64,
    /// Orders to take a channel or a connection away that were acknowledged during a fault, at another node than the reader's.
    pub orders: u64,
    /// Of those, carried out as far as their readers could see. Connections of others ended before.
    pub orders_seen: u64,
    /// Lives of processes whose growth was judged.
    pub lives: u64,
    /// Comparisons of presence with the truth.
    pub presence_reads: u64,
}

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was wrong; empty if all was right.
    pub wrong: BTreeMap<Invariant, Wrong>,
    /// What was seen.
    pub counts: Counts,
    /// When those entries were acknowledged that are gone with their epoch.
    #[serde(skip)]
    pub gone_us: BTreeSet<u64>,
}

impl Verdict {
    /// Notes that something was wrong.
    fn is_wrong(&mut self, invariant: Invariant, what: impl FnOnce() -> String) {
        let wrong = self.wrong.entry(invariant).or_default();
        wrong.count += 1;
        if wrong.first.len() < FIRST_MAX {
            wrong.first.push(what());
        }
    }

    /// Whether an invariant was found broken.
    #[must_use]
    pub fn is_red(&self, invariant: Invariant) -> bool {
        self.wrong.contains_key(&invariant)
    }

    /// Whether all was right.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (invariant, wrong) in &self.wrong {
            writeln!(f, "WRONG {} ({invariant:?}): {} times", invariant.number(), wrong.count)?;
            for first in &wrong.first {
                writeln!(f, "  {first}")?;
            }
        }
        Ok(())
    }
}

/// Asks every question.
#[must_use]
pub fn check(events: &[Event], promises: &Promises) -> Verdict {
    let mut verdict = Verdict::default();
    let anew = Anew::find(events);
    kept::check(events, &anew, &mut verdict);
    contents::check(events, &anew, &mut verdict);
    deliveries::check(events, promises, &mut verdict);
    deaf::check(events, promises, &mut verdict);
    presence::check(events, promises, &mut verdict);
    jobs::check(events, &mut verdict);
    rights::check(events, promises, &mut verdict);
    bounds::check(events, promises, &mut verdict);
    growth::check(events, promises, &mut verdict);
    alive::check(events, promises, &mut verdict);
    verdict
}

/// Whether everybody has got something of each channel by each node since then; for scripts that wait for it.
#[must_use]
pub fn everybody_is_reached(events: &[Event], since_us: u64) -> bool {
    alive::unreached(events, since_us, u64::MAX).is_empty()
}
