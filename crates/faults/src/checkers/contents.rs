//! I3 and I5: one content per position, whoever says it; and no position that history has forgotten under the same epoch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::anew::Anew;
use super::{Invariant, Verdict};
use crate::log::{self, Event, Kind, Lasts, Name, Outcome, Position, What};

/// What somebody was told to stand at a position. An acknowledgement knows the key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said<'a> {
    key: &'a Name,
    sum: Option<u64>,
}

impl Said<'_> {
    fn differs(self, other: Self) -> bool {
        self.key != other.key || self.sum.zip(other.sum).is_some_and(|(a, b)| a != b)
    }
}

/// By channel, epoch and offset.
struct Contents<'a> {
    said: BTreeMap<(&'a Name, &'a str), HashMap<u64, Said<'a>>>,
    kinds: BTreeMap<Name, Kind>,
}

impl<'a> Contents<'a> {
    fn history<'b>(&self, channel: &Name, epoch: &'b str) -> &'b str {
        self.kinds.get(channel).map_or(epoch, |kind| kind.history(epoch))
    }

    fn say(&mut self, channel: &'a Name, epoch: &'a Name, offset: u64, said: Said<'a>, verdict: &mut Verdict) {
        let epoch = self.history(channel, epoch);
        let known = self.said.entry((channel, epoch)).or_default().entry(offset).or_insert(said);
        if known.differs(said) {
            let known = *known;
            verdict.counts.out_of_order += 1;
            verdict.is_wrong(Invariant::Order, || {
                format!("{channel}, {epoch}/{offset}: {} for some, {} for others", text(known), text(said))
            });
        }
        known.sum = known.sum.or(said.sum);
    }
}

impl Contents<'_> {
    /// Readers without a protocol have epochs in opaque ids alone, and go on without a word where a replica takes over that has
    /// everything. Its reader knows of which history an entry is, but not under which master it was written: one of them has to know it.
    fn guess(&self, channel: &Name, position: &Position, said: Said<'_>, verdict: &mut Verdict) {
        let is_of = |(of, epoch): &(&Name, &str)| *of == channel && log::base(epoch) == log::base(&position.epoch);
        let mut known =
            self.said.iter().filter(|(place, _)| is_of(place)).filter_map(|(_, said)| said.get(&position.offset));
        let Some(first) = known.next().copied() else { return };
        if first.differs(said) && known.all(|known| known.differs(said)) {
            verdict.counts.out_of_order += 1;
            verdict.is_wrong(Invariant::Order, || {
                format!("{channel}, {position:?}: {} for some, {} for a stream of events", text(first), text(said))
            });
        }
    }
}

fn text(said: Said<'_>) -> String {
    said.sum.map_or_else(|| said.key.to_string(), |sum| format!("{} ({sum:x})", said.key))
}

pub(super) fn check(events: &[Event], anew: &Anew, verdict: &mut Verdict) {
    let mut contents = Contents { said: BTreeMap::new(), kinds: log::kinds(events) };
    let mut asked = HashMap::new();
    let mut streams = BTreeSet::new();
    let mut guessed = Vec::new();
    for event in events {
        match &event.what {
            What::Reader { reader, wire, .. } if wire != "websocket" => {
                streams.insert(*reader);
            }
            What::Asked { op, channel, key, .. } => {
                asked.insert(*op, (channel, key));
            }
            What::Answered { op, outcome: Outcome::Kept(position) } => {
                let Some((channel, key)) = asked.get(op) else { continue };
                contents.say(channel, &position.epoch, position.offset, Said { key, sum: None }, verdict);
            }
            What::Delivered { reader, channel, position, content } => {
                let said = Said { key: &content.key, sum: Some(content.sum) };
                let kind = contents.kinds.get(channel);
                let is_replicated = matches!(kind, Some(Kind::History { lasts: Lasts::Replicated, .. }));
                if is_replicated && streams.contains(reader) {
                    guessed.push((channel, position, said));
                    continue;
                }
                contents.say(channel, &position.epoch, position.offset, said, verdict);
            }
            What::Read { channel, top, entries, .. } => {
                for (offset, content) in entries {
                    let said = Said { key: &content.key, sum: Some(content.sum) };
                    contents.say(channel, &top.epoch, *offset, said, verdict);
                }
            }
            _ => {}
        }
    }
    for (channel, position, said) in guessed {
        contents.guess(channel, position, said, verdict);
    }
    epochs(events, &contents, anew, verdict);
}

/// I5. A durable channel has one epoch for ever; any channel ends, at the last read, at the newest position that anybody saw.
fn epochs(events: &[Event], contents: &Contents<'_>, anew: &Anew, verdict: &mut Verdict) {
    for event in events {
        let What::Read { node, channel, top, .. } = &event.what else { continue };
        let epoch = contents.history(channel, &top.epoch);
        let newest = contents.said.get(&(channel, epoch)).and_then(|offsets| offsets.keys().max());
        if let Some(newest) = newest.filter(|newest| **newest > top.offset) {
            let stands = top.offset;
            verdict.is_wrong(Invariant::Epochs, || {
                format!(
                    "{channel} on {node} ends at {stands}, but {newest} was seen under the same epoch {}",
                    top.epoch
                )
            });
        }
    }
    for (channel, kind) in &contents.kinds {
        let named = |epoch: &'_ str| match kind {
            // The rest of the epoch may change with the server that is asked.
            Kind::History { .. } => log::base(epoch).to_owned(),
            Kind::Durable => epoch.to_owned(),
        };
        let of_channel = contents.said.keys().filter(|(of, _)| *of == channel);
        let mut epochs: BTreeSet<String> = of_channel.map(|(_, epoch)| named(epoch)).collect();
        let all = epochs.len();
        epochs.retain(|epoch| !anew.has(channel, &format!("{epoch}.")));
        verdict.counts.begun_anew += (all - epochs.len()) as u64;
        let may_change = matches!(kind, Kind::History { lasts: Lasts::InMemory, .. });
        if !may_change && epochs.len() > 1 {
            verdict.is_wrong(Invariant::Epochs, || format!("{channel} lasts and has the epochs {epochs:?}"));
        }
    }
    reused(contents, verdict);
}

/// A position under one epoch that was given twice is a loss that nobody could notice.
fn reused(contents: &Contents<'_>, verdict: &mut Verdict) {
    for ((channel, epoch), offsets) in &contents.said {
        let mut places: HashMap<&Name, u64> = HashMap::new();
        for (offset, said) in offsets {
            if let Some(other) = places.insert(said.key, *offset) {
                verdict.is_wrong(Invariant::Keys, || {
                    format!("{channel}, {epoch}: {} was told at {offset} and at {other}", said.key)
                });
            }
        }
    }
}
