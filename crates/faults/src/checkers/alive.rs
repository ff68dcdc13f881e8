//! I15 and I16: after the last fault what is published reaches everybody soon, and a server that is asked to end does.

use std::collections::{BTreeMap, HashMap, HashSet};

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
    let (Some(quiet_us), Some(over_us)) = (time(|what| *what == What::Quiet), time(|what| matches!(what, What::Over)))
    else {
        verdict.is_wrong(Invariant::Valid, || "the run has no quiet end".to_owned());
        return;
    };
    let mut readers: BTreeMap<u32, HashSet<&Name>> = BTreeMap::new();
    let mut first_asked: BTreeMap<(&Name, &Name), u64> = BTreeMap::new();
    let mut got: HashMap<(u32, &Name, &Name), u64> = HashMap::new();
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
            What::Asked { channel, key, .. } => {
                first_asked.entry((channel, key)).or_insert(event.at_us);
            }
            What::Delivered { reader, channel, content, .. } => {
                got.entry((*reader, channel, &content.key)).or_insert(event.at_us);
            }
            _ => {}
        }
    }
    let allowed_us = promises.alive_ms * 1_000;
    let is_probe = |asked_us: &u64| *asked_us >= quiet_us && *asked_us + allowed_us <= over_us;
    let probes: Vec<_> = first_asked.iter().filter(|(_, asked_us)| is_probe(asked_us)).collect();
    for (reader, channels) in &readers {
        for channel in channels {
            let of_channel = probes.iter().filter(|((of, _), _)| of == channel);
            let missed = of_channel.filter(|((of, key), asked_us)| {
                got.get(&(*reader, *of, *key)).is_none_or(|got_us| *got_us > **asked_us + allowed_us)
            });
            for ((_, key), _) in missed {
                let within_ms = promises.alive_ms;
                verdict.is_wrong(Invariant::Alive, || {
                    format!("reader {reader} did not get {key} of {channel} within {within_ms} ms, and all is quiet")
                });
            }
            let has_any = got.iter().any(|((by, of, _), at_us)| by == reader && of == channel && *at_us >= quiet_us);
            if !has_any {
                verdict.is_wrong(Invariant::Alive, || format!("reader {reader} got nothing of {channel} at the end"));
            }
        }
    }
}
