//! I11 and I12: what a reader gets belongs to its channel, and nothing comes of a channel that was taken away.

use std::collections::{HashMap, HashSet};

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, What};

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    orders(events, promises, verdict);
    let mut revoked = HashMap::new();
    for event in events {
        match &event.what {
            What::Revoked { reader, channel } => {
                revoked.insert((reader, channel), event.at_us + promises.revoked_ms * 1_000);
            }
            What::Delivered { reader, channel, position, content } => {
                if content.tag != *channel {
                    let tag = &content.tag;
                    verdict.is_wrong(Invariant::Channels, || {
                        format!("reader {reader}: {tag}'s entry came as {channel}'s, at {position:?}")
                    });
                }
                if revoked.get(&(reader, channel)).is_some_and(|until_us| event.at_us > *until_us) {
                    verdict.is_wrong(Invariant::Revoked, || {
                        format!("reader {reader} got {position:?} of {channel}, which was taken away")
                    });
                }
            }
            What::Read { node, channel, entries, .. } => {
                for (offset, content) in entries.iter().filter(|(_, content)| content.tag != *channel) {
                    let tag = &content.tag;
                    verdict.is_wrong(Invariant::Channels, || {
                        format!("{node}: {tag}'s entry stands in {channel}, at {offset}")
                    });
                }
            }
            _ => {}
        }
    }
}

/// Whoever is the subject of an order that was acknowledged hears nothing more soon after it, or soon after the fault in which it was given.
fn orders(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    let mut ordered: HashMap<u32, (Option<&Name>, &Name, &Name, u64)> = HashMap::new();
    let mut is_faulty = false;
    let (mut late, mut dismissed) = (HashSet::new(), HashSet::new());
    for event in events {
        let until_us = event.at_us + promises.revoked_ms * 1_000;
        match &event.what {
            What::Fault { .. } => is_faulty = true,
            What::Healed { .. } => {
                is_faulty = false;
                for (.., until) in ordered.values_mut().filter(|(.., until)| *until == u64::MAX) {
                    *until = until_us;
                }
            }
            What::Ordered { subject, channel, on, by } => {
                verdict.counts.orders += 1;
                ordered.insert(*subject, (channel.as_ref(), on, by, if is_faulty { u64::MAX } else { until_us }));
            }
            What::Heard { subject, channel } => {
                let Some((of, on, by, until)) = ordered.get(subject) else { continue };
                if event.at_us > *until && of.is_none_or(|of| of == channel) && late.insert(*subject) {
                    let what = of.map_or("its connection", |of| of);
                    verdict.is_wrong(Invariant::Revoked, || {
                        format!("reader {subject} on {on} still hears {channel}, although {by} has taken {what} away")
                    });
                }
            }
            What::Dismissed { subject, is_ordered: true, .. } => {
                dismissed.insert(*subject);
            }
            _ => {}
        }
    }
    // A reader may be told before whoever gave the order has its answer.
    verdict.counts.orders_seen = ordered.keys().filter(|subject| dismissed.contains(subject)).count() as u64;
}
