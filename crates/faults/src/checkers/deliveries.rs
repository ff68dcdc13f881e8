//! I2, I3 and I4 as each reader sees them: every entry once, in order, without a gap but where one was told, and told only
//! where there is one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Invariant, Promises, Verdict};
use crate::log::{self, Content, Event, Kind, Lasts, Name, Position, Told, What};

/// Where a reader stands in a channel.
#[derive(Debug)]
struct Stand<'a> {
    epoch: Name,
    last: u64,
    /// Up to here everything was promised by the last `recovered: true`.
    promised: u64,
    had: HashSet<u64>,
    missing: BTreeSet<u64>,
    /// What the newest entry that it got says.
    newest: Option<&'a Content>,
}

/// What the last full reads hold, by channel: the epoch, and the offsets with their keys.
type Histories<'a> = HashMap<&'a Name, (&'a Name, BTreeMap<u64, &'a Content>)>;

struct Checker<'a> {
    kinds: BTreeMap<Name, Kind>,
    histories: Histories<'a>,
    promises: &'a Promises,
    stands: HashMap<(u32, &'a Name), Stand<'a>>,
    /// Readers without a protocol: they are not told when a history goes on under another epoch without a loss.
    guessing: HashSet<u32>,
    verdict: &'a mut Verdict,
    /// Losses told that were none.
    needless: Vec<String>,
}

pub(super) fn check<'a>(events: &'a [Event], promises: &'a Promises, verdict: &'a mut Verdict) {
    let histories = histories(events);
    let mut checker = Checker {
        kinds: log::kinds(events),
        histories,
        promises,
        stands: HashMap::new(),
        guessing: HashSet::new(),
        verdict,
        needless: Vec::new(),
    };
    for event in events {
        match &event.what {
            What::Reader { reader, wire, .. } if wire != "websocket" => {
                checker.guessing.insert(*reader);
            }
            What::Subscribed { reader, channel, from, told, top, .. } => {
                checker.subscribed(*reader, channel, from.as_ref(), *told, top);
            }
            What::Delivered { reader, channel, position, content } => {
                checker.delivered(*reader, channel, position, content);
            }
            What::Gap { reader, channel, position } => checker.gap(*reader, channel, position),
            What::Broke { .. } => checker.verdict.counts.breaks += 1,
            _ => {}
        }
    }
    checker.finish();
}

fn histories(events: &[Event]) -> Histories<'_> {
    let mut histories = Histories::new();
    for event in events {
        if let What::Read { channel, top, entries, .. } = &event.what {
            let entries = entries.iter().map(|(offset, content)| (*offset, content)).collect();
            histories.insert(channel, (&top.epoch, entries));
        }
    }
    histories
}

impl<'a> Checker<'a> {
    fn subscribed(&mut self, reader: u32, channel: &'a Name, from: Option<&Position>, told: Told, top: &Position) {
        self.verdict.counts.resumes += u64::from(from.is_some());
        let stand = self.stands.entry((reader, channel)).or_insert_with(|| Stand {
            epoch: top.epoch.clone(),
            last: top.offset,
            promised: 0,
            had: HashSet::new(),
            missing: BTreeSet::new(),
            newest: None,
        });
        match (told, from) {
            (Told::Recovered, Some(from)) => {
                stand.last = from.offset;
                stand.promised = top.offset;
                let changed = stand.epoch != top.epoch;
                stand.epoch = top.epoch.clone();
                if top.offset < from.offset {
                    self.lie(|| format!("reader {reader}: {channel} recovered from {from:?} to {top:?}"));
                } else if changed {
                    self.same_before(reader, channel, from, top);
                }
            }
            (Told::Fresh | Told::Recovered, _) => self.begin_at(reader, channel, top),
            (Told::Lost, from) => {
                self.verdict.counts.resumes_lost += 1;
                if let Some(from) = from {
                    self.is_needless(reader, channel, from, top);
                }
                self.begin_at(reader, channel, top);
            }
        }
    }

    /// The reader goes on from here, knowing that it may have missed something.
    fn begin_at(&mut self, reader: u32, channel: &'a Name, top: &Position) {
        let is_replicated = matches!(self.kinds.get(channel), Some(Kind::History { lasts: Lasts::Replicated, .. }));
        let Some(stand) = self.stands.get_mut(&(reader, channel)) else { return };
        let missing = std::mem::take(&mut stand.missing);
        if stand.epoch != top.epoch {
            stand.had.clear();
        } else if is_replicated {
            // Told to go back: what it had beyond was written by another master, whose epoch a reader without a protocol does not see.
            stand.had.retain(|offset| *offset <= top.offset);
        }
        stand.epoch = top.epoch.clone();
        (stand.last, stand.promised, stand.newest) = (top.offset, 0, None);
        self.never_came(reader, channel, &missing);
    }

    /// Over a change of the epoch, `recovered: true` says that everything up to the reader's position is still there.
    fn same_before(&mut self, reader: u32, channel: &'a Name, from: &Position, top: &Position) {
        let Some((epoch, entries)) = self.histories.get(channel) else { return };
        let newest = self.stands.get(&(reader, channel)).and_then(|stand| stand.newest);
        let is_trimmed = entries.keys().next().is_none_or(|first| *first > from.offset);
        if **epoch != top.epoch || newest.is_none() || is_trimmed {
            return;
        }
        if entries.get(&from.offset).copied() != newest {
            self.lie(|| format!("reader {reader}: {channel} recovered from {from:?}, where something else stands now"));
        }
    }

    /// I4, the other way: everything between is in the history at the end, so that it was there to be given.
    fn is_needless(&mut self, reader: u32, channel: &'a Name, from: &Position, top: &Position) {
        let missed = top.offset.saturating_sub(from.offset);
        let Some((epoch, entries)) = self.histories.get(channel) else { return };
        let is_replicated = matches!(self.kinds.get(channel), Some(Kind::History { lasts: Lasts::Replicated, .. }));
        let is_guess = is_replicated && self.guessing.contains(&reader);
        let is_same = match self.kinds.get(channel) {
            Some(kind @ Kind::History { lasts: Lasts::Synced, .. }) => {
                kind.history(&from.epoch) == kind.history(&top.epoch) && kind.history(&top.epoch) == kind.history(epoch)
            }
            // Of two masters that do not know of each other, one has another history than the one that was read.
            _ => {
                (from.epoch == top.epoch && !is_guess)
                    || (top.epoch == **epoch && log::base(&from.epoch) == log::base(epoch))
            }
        };
        // Under another generation, what the reader had may be what was lost.
        let newest = self.stands.get(&(reader, channel)).and_then(|stand| stand.newest);
        let had_it = from.epoch == **epoch || (newest.is_some() && entries.get(&from.offset).copied() == newest);
        let is_known = is_same && had_it && from.offset <= top.offset;
        let is_there = (from.offset + 1..=top.offset).all(|offset| entries.contains_key(&offset));
        if is_known && is_there && missed <= self.promises.recovery_entries_max {
            self.verdict.counts.needless += 1;
            let told =
                format!("reader {reader}: {channel} is told lost between {from:?} and {top:?}, and all is there");
            self.needless.push(told);
        }
    }

    fn delivered(&mut self, reader: u32, channel: &'a Name, position: &Position, content: &'a Content) {
        self.verdict.counts.delivered += 1;
        let Some(stand) = self.stands.get_mut(&(reader, channel)) else { return };
        let offset = position.offset;
        if stand.epoch != position.epoch {
            let epoch = stand.epoch.clone();
            self.verdict.is_wrong(Invariant::Order, || {
                format!("reader {reader}: {channel} gave {position:?} in the midst of epoch {epoch}")
            });
            return;
        }
        if !stand.had.insert(offset) {
            self.verdict.counts.doubled += 1;
            self.verdict.is_wrong(Invariant::Once, || format!("reader {reader}: {channel} gave {offset} twice"));
        } else if offset <= stand.last {
            stand.missing.remove(&offset);
            let last = stand.last;
            self.verdict.counts.out_of_order += 1;
            self.verdict
                .is_wrong(Invariant::Order, || format!("reader {reader}: {channel} gave {offset} behind {last}"));
        } else {
            stand.missing.extend(stand.last + 1..offset);
            (stand.last, stand.newest) = (offset, Some(content));
            let is_promised = stand.missing.iter().next().is_some_and(|first| *first <= stand.promised);
            if is_promised {
                let missing: Vec<u64> = stand.missing.iter().copied().filter(|n| *n <= stand.promised).collect();
                stand.missing.retain(|n| *n > stand.promised);
                self.lie(|| format!("reader {reader}: {channel} was recovered but for {missing:?}"));
            }
        }
    }

    fn gap(&mut self, reader: u32, channel: &'a Name, position: &Position) {
        self.verdict.counts.gaps += 1;
        let Some(stand) = self.stands.get_mut(&(reader, channel)) else { return };
        let from = Position { epoch: stand.epoch.clone(), offset: stand.last };
        self.is_needless(reader, channel, &from, position);
        self.begin_at(reader, channel, position);
    }

    fn lie(&mut self, what: impl FnOnce() -> String) {
        self.verdict.counts.lies += 1;
        self.verdict.is_wrong(Invariant::Flags, what);
    }

    fn never_came(&mut self, reader: u32, channel: &Name, missing: &BTreeSet<u64>) {
        if missing.is_empty() {
            return;
        }
        self.verdict.counts.lost += missing.len() as u64;
        let (some, count) = (missing.iter().take(5).collect::<Vec<_>>(), missing.len());
        self.verdict.is_wrong(Invariant::Kept, || {
            format!("reader {reader}: {channel} never gave {count} entries and said nothing: {some:?}")
        });
    }

    fn finish(mut self) {
        for ((reader, channel), stand) in std::mem::take(&mut self.stands) {
            self.never_came(reader, channel, &stand.missing);
        }
        let counts = &self.verdict.counts;
        if counts.needless * 100 >= self.promises.needless_percent * counts.resumes.max(100) {
            for told in self.needless {
                self.verdict.is_wrong(Invariant::Flags, || told);
            }
        }
    }
}
