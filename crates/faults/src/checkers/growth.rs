//! I13, over time: in the last quarter of its life a process has no more memory and no more descriptors than in the second quarter, but
//! for what a young process may grow by. Where [`super::bounds`] looks for one moment after each fault, this sees what never stops.

use std::collections::BTreeMap;

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, What};

/// After a fault nothing is measured for so long, in microseconds.
const UNREST_US: u64 = 1_000_000;

/// Samples that a quarter needs, so that its middle means something.
const SAMPLES_MIN: usize = 8;

/// When, memory and descriptors.
type Sample = (u64, u64, u64);

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    for ((node, number), samples) in lives(events) {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
        let life_us = last.0 - first.0;
        if life_us < promises.life_ms * 1_000 {
            continue;
        }
        let quarter = |number: u64| {
            let (from, to) = (first.0 + life_us * (number - 1) / 4, first.0 + life_us * number / 4);
            let within = samples.iter().filter(|sample| (from..=to).contains(&sample.0)).collect::<Vec<_>>();
            (within.len() >= SAMPLES_MIN).then_some(within)
        };
        let (Some(second), Some(last)) = (quarter(2), quarter(4)) else { continue };
        verdict.counts.lives += 1;
        let (was, is) = (middle(&second, |sample| sample.1), middle(&last, |sample| sample.1));
        if is > was + was * promises.growth_percent / 100 + promises.growth_bytes {
            verdict.is_wrong(Invariant::Bounds, || {
                let seconds = life_us / 1_000_000;
                format!(
                    "{node}, started {number} times: {} MB in the last quarter of {seconds} s, {} MB in the second",
                    is >> 20,
                    was >> 20
                )
            });
        }
        let (was, is) = (middle(&second, |sample| sample.2), middle(&last, |sample| sample.2));
        if is > was + promises.descriptors {
            verdict.is_wrong(Invariant::Bounds, || {
                format!("{node}, started {number} times: {is} descriptors in the last quarter, {was} in the second")
            });
        }
    }
}

/// What each process used in calm moments, from start to end.
fn lives(events: &[Event]) -> BTreeMap<(&Name, u32), Vec<Sample>> {
    let mut lives: BTreeMap<(&Name, u32), Vec<Sample>> = BTreeMap::new();
    let (mut is_faulty, mut calm_us) = (false, 0);
    for event in events {
        match &event.what {
            What::Fault { .. } => is_faulty = true,
            What::Healed { .. } => (is_faulty, calm_us) = (false, event.at_us + UNREST_US),
            What::Vitals { node, number, rss_bytes, descriptors } if !is_faulty && event.at_us >= calm_us => {
                lives.entry((node, *number)).or_default().push((event.at_us, *rss_bytes, *descriptors));
            }
            _ => {}
        }
    }
    lives
}

fn middle(samples: &[&Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut all: Vec<u64> = samples.iter().map(|sample| of(sample)).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}
