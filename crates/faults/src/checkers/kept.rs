//! I1, I6 and I7: what was acknowledged against the full reads at the end.

use std::collections::{BTreeMap, HashMap};

use super::anew::Anew;
use super::{Invariant, Verdict};
use crate::log::{self, Content, Event, Kind, Name, Outcome, Position, What};

/// All that happened with one key of one channel.
#[derive(Debug, Default)]
struct Tries<'a> {
    attempts: u64,
    kept: Vec<&'a Position>,
    /// When it was last acknowledged.
    kept_us: u64,
    /// Acknowledgements without a position.
    said: u64,
    refused: u64,
}

impl Tries<'_> {
    fn is_acknowledged(&self) -> bool {
        !self.kept.is_empty() || self.said > 0
    }
}

type ByKey<'a> = BTreeMap<(&'a Name, &'a Name), Tries<'a>>;

/// One node's history of one channel.
struct Reading<'a> {
    node: &'a Name,
    channel: &'a Name,
    top: &'a Position,
    entries: &'a [(u64, Content)],
}

pub(super) fn check(events: &[Event], anew: &Anew, verdict: &mut Verdict) {
    let kinds = log::kinds(events);
    let tries = tries(events);
    count(&tries, verdict);
    equal_acknowledgements(&tries, &kinds, anew, verdict);
    for event in events {
        let What::Read { node, channel, top, entries } = &event.what else { continue };
        let Some(kind) = kinds.get(channel) else { continue };
        one_read(&Reading { node, channel, top, entries }, *kind, &tries, anew, verdict);
    }
    for channel in kinds.keys() {
        if !events.iter().any(|event| matches!(&event.what, What::Read { channel: read, .. } if read == channel)) {
            verdict.is_wrong(Invariant::Valid, || format!("{channel} was never read at the end"));
        }
    }
}

fn tries(events: &[Event]) -> ByKey<'_> {
    let mut by_key = ByKey::new();
    let mut keys = HashMap::new();
    for event in events {
        match &event.what {
            What::Asked { op, channel, key, .. } => {
                by_key.entry((channel, key)).or_default().attempts += 1;
                keys.insert(*op, (channel, key));
            }
            What::Answered { op, outcome } => {
                let Some(tries) = keys.get(op).and_then(|key| by_key.get_mut(key)) else { continue };
                match outcome {
                    Outcome::Kept(position) => {
                        tries.kept.push(position);
                        tries.kept_us = event.at_us;
                    }
                    Outcome::Said => tries.said += 1,
                    Outcome::Refused(_) => tries.refused += 1,
                    Outcome::Unknown(_) => {}
                }
            }
            _ => {}
        }
    }
    by_key
}

fn count(tries: &ByKey<'_>, verdict: &mut Verdict) {
    let counts = &mut verdict.counts;
    for tries in tries.values() {
        counts.published += 1;
        counts.repeated += u64::from(tries.attempts > 1);
        match (!tries.is_acknowledged(), tries.refused == tries.attempts) {
            (false, _) => counts.acknowledged += 1,
            (true, true) => counts.refused += 1,
            (true, false) => counts.unknown += 1,
        }
    }
}

/// I6, the answers: in a history channel, for as long as its epoch.
fn equal_acknowledgements(tries: &ByKey<'_>, kinds: &BTreeMap<Name, Kind>, anew: &Anew, verdict: &mut Verdict) {
    for ((channel, key), tries) in tries {
        let Some(kind) = kinds.get(*channel) else { continue };
        for pair in tries.kept.windows(2) {
            let [a, b] = pair else { continue };
            let is_same = a.offset == b.offset && kind.history(&a.epoch) == kind.history(&b.epoch);
            if !is_same && !anew.forgets(*kind, channel, &a.epoch, &b.epoch) {
                verdict.is_wrong(Invariant::Keys, || format!("{channel}, {key}: acknowledged as {a:?} and as {b:?}"));
            }
        }
    }
}

fn one_read(read: &Reading<'_>, kind: Kind, tries: &ByKey<'_>, anew: &Anew, verdict: &mut Verdict) {
    let Reading { node, channel, top, entries } = read;
    let mut at: HashMap<&Name, u64> = HashMap::new();
    for (offset, content) in *entries {
        let Some(tries) = tries.get(&(*channel, &content.key)) else {
            let key = &content.key;
            verdict
                .is_wrong(Invariant::Order, || format!("{channel} on {node}: {key} at {offset} was never published"));
            continue;
        };
        if let Some(before) = at.insert(&content.key, *offset) {
            verdict.counts.doubled += 1;
            let invariant = if tries.is_acknowledged() { Invariant::Keys } else { Invariant::Unacknowledged };
            let key = &content.key;
            verdict.is_wrong(invariant, || format!("{channel} on {node}: {key} stands at {before} and at {offset}"));
        }
        if tries.refused == tries.attempts {
            let key = &content.key;
            verdict.is_wrong(Invariant::Unacknowledged, || {
                format!("{channel} on {node}: {key} stands at {offset} although it was refused")
            });
        }
    }
    let in_channel = tries.iter().filter(|((of, _), _)| of == channel);
    for ((_, key), tries) in in_channel {
        let Some(position) = tries.kept.last() else {
            if tries.said == 0 {
                verdict.counts.unknown_kept += u64::from(at.contains_key(key));
            } else if kind == Kind::Durable && !at.contains_key(key) {
                verdict.counts.lost += 1;
                verdict
                    .is_wrong(Invariant::Kept, || format!("{channel} on {node}: {key} was acknowledged and is gone"));
            }
            continue;
        };
        let is_there = at.get(key) == Some(&position.offset);
        let is_same = log::base(&position.epoch) == log::base(&top.epoch);
        let is_old = matches!(kind, Kind::History { size, .. } if is_same && position.offset + size <= top.offset);
        if is_there || is_old {
            continue;
        }
        if anew.forgets(kind, channel, &position.epoch, &top.epoch) {
            verdict.counts.gone_with_epoch += 1;
            verdict.gone_us.insert(tries.kept_us);
        } else {
            verdict.counts.lost += 1;
            verdict.is_wrong(Invariant::Kept, || match at.get(key) {
                None => format!("{channel} on {node}: {key}, acknowledged at {position:?}, is gone"),
                Some(other) => format!("{channel} on {node}: {key}, acknowledged at {position:?}, stands at {other}"),
            });
        }
    }
}
