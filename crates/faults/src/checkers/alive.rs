//! I15 and I16: after the last fault what is published reaches everybody soon, and a server that is asked to end does.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, What};

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    for event in events {
        let What::Drained { node, took_ms, clean } = &event.what else { continue };
        if !clean || *took_ms > promises.drain_ms {
            let how = if *clean { "" } else { ", not by itself" };
            verdict.is_wrong(Invariant::Drain, || format!("{node} ended {took_ms} ms after it was asked to{how}"));
        }
    }
    reaches_all(events, promises, verdict);
}

fn reaches_all(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    let time = |is_it: fn(&What) -> bool| events.iter().rev().find(|event| is_it(&event.what)).map(|event| event.at_us);
    let (Some(quiet_us), Some(_)) = (time(|what| *what == What::Quiet), time(|what| *what == What::Over)) else {
        verdict.is_wrong(Invariant::Valid, || "the run has no quiet end".to_owned());
        return;
    };
    let within_ms = promises.alive_ms;
    for (reader, channel, node) in unreached(events, quiet_us, quiet_us + within_ms * 1_000) {
        verdict.is_wrong(Invariant::Alive, || {
            format!("reader {reader} got nothing of {channel} by {node} within {within_ms} ms, and all is quiet")
        });
    }
}

/// Readers, each with a channel and a node, who got nothing that was published there since `quiet_us` and came until `until_us`. One of
/// several is enough: what came in between may have been told as lost with all before it.
pub(super) fn unreached(events: &[Event], quiet_us: u64, until_us: u64) -> Vec<(u32, &Name, &Name)> {
    let mut readers: BTreeMap<u32, HashSet<&Name>> = BTreeMap::new();
    let mut probes: HashMap<(&Name, &Name), HashSet<&Name>> = HashMap::new();
    let mut places: BTreeSet<(&Name, &Name)> = BTreeSet::new();
    let mut reached: HashSet<(u32, &Name, &Name)> = HashSet::new();
    for event in events {
        match &event.what {
            What::Reader { reader, channels, .. } => {
                readers.entry(*reader).or_default().extend(channels);
            }
            What::Retired { reader } => {
                readers.remove(reader);
            }
            What::Revoked { reader, channel } => {
                readers.entry(*reader).or_default().remove(channel);
            }
            What::Asked { channel, key, node, .. } if event.at_us >= quiet_us => {
                places.insert((channel, node));
                probes.entry((channel, key)).or_default().insert(node);
            }
            What::Delivered { reader, channel, content, .. } if event.at_us <= until_us => {
                let nodes = probes.get(&(channel, &content.key)).into_iter().flatten();
                reached.extend(nodes.map(|node| (*reader, channel, *node)));
            }
            _ => {}
        }
    }
    let mut unreached = Vec::new();
    for (reader, channels) in readers {
        for channel in channels {
            let by_nodes = places.iter().filter(|(of, _)| *of == channel).map(|(_, node)| (reader, channel, *node));
            let before = unreached.len();
            unreached.extend(by_nodes.clone().filter(|place| !reached.contains(place)));
            if before == unreached.len() && by_nodes.count() == 0 {
                unreached.push((reader, channel, channel));
            }
        }
    }
    unreached
}
