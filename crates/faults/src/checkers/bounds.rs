//! I13 and I14: what processes use comes back after each fault, and no process panics or ends by itself.

use std::collections::BTreeMap;

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, What};

/// What a process used at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_us: u64,
    rss_bytes: u64,
    descriptors: u64,
}

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    let mut samples: BTreeMap<&Name, Vec<Sample>> = BTreeMap::new();
    let mut first_fault_us = None;
    let mut healed = Vec::new();
    let mut over_us = None;
    let mut keys = Vec::new();
    for event in events {
        let at_us = event.at_us;
        match &event.what {
            What::Vitals { node, rss_bytes, descriptors, .. } => {
                let sample = Sample { at_us, rss_bytes: *rss_bytes, descriptors: *descriptors };
                samples.entry(node).or_default().push(sample);
            }
            What::Fault { .. } => first_fault_us = first_fault_us.or(Some(at_us)),
            What::Keys { keys: now } => keys.push(*now),
            What::Healed { number } => healed.push((*number, at_us)),
            What::Over => over_us = Some(at_us),
            What::Panic { node, line } => verdict.is_wrong(Invariant::Panics, || format!("{node}: {line}")),
            What::Died { node, how } => {
                verdict.is_wrong(Invariant::Panics, || format!("{node} ended by itself: {how}"));
            }
            What::Void { why } => verdict.is_wrong(Invariant::Valid, || why.clone()),
            _ => {}
        }
    }
    if let (Some(was), Some(is)) = (keys.first(), keys.last())
        && *is > was + promises.keys
    {
        verdict
            .is_wrong(Invariant::Bounds, || format!("Redis has {is} keys at the end, and had {was} before the faults"));
    }
    let (Some(first_fault_us), Some(over_us)) = (first_fault_us, over_us) else { return };
    for (node, samples) in samples {
        for (number, healed_us) in &healed {
            come_back(node, &samples, first_fault_us, (*number, *healed_us, over_us), promises, verdict);
        }
    }
}

/// From a fault's end until it has to be forgotten, or the end of the run, one sample at least is no more than before.
fn come_back(
    node: &Name,
    samples: &[Sample],
    first_fault_us: u64,
    (number, healed_us, over_us): (u32, u64, u64),
    promises: &Promises,
    verdict: &mut Verdict,
) {
    let before = samples.iter().filter(|sample| sample.at_us < first_fault_us);
    let until_us = (healed_us + promises.back_ms * 1_000).min(over_us);
    let after: Vec<&Sample> =
        samples.iter().filter(|sample| sample.at_us >= healed_us && sample.at_us <= until_us).collect();
    let most = |of: fn(&Sample) -> u64| before.clone().map(of).max();
    let least = |of: fn(&Sample) -> u64| after.iter().map(|sample| of(sample)).min();
    let rss = |sample: &Sample| sample.rss_bytes;
    let descriptors = |sample: &Sample| sample.descriptors;
    if let (Some(was), Some(is)) = (most(rss), least(rss))
        && is > was + was * promises.rss_percent / 100 + promises.rss_bytes
    {
        verdict.is_wrong(Invariant::Bounds, || {
            format!("{node}: {} MB after fault {number}, {} MB before the first", is >> 20, was >> 20)
        });
    }
    if let (Some(was), Some(is)) = (most(descriptors), least(descriptors))
        && is > was + promises.descriptors
    {
        verdict.is_wrong(Invariant::Bounds, || {
            format!("{node}: {is} descriptors after fault {number}, {was} before the first")
        });
    }
}
