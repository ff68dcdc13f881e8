//! I5, its time: a node that announcements do not reach says so within ten seconds, and so long at most its readers go without what was
//! published meanwhile, or without being told.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, Outcome, What};

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    for (place, event) in events.iter().enumerate() {
        let What::Deaf { node } = &event.what else { continue };
        let after = &events[place..];
        let healed = |event: &&Event| matches!(event.what, What::Healed { .. });
        let healed_us = after.iter().find(healed).map_or(u64::MAX, |event| event.at_us);
        let until_us = event.at_us + promises.deaf_ms * 1_000;
        let says_so = |event: &Event| match &event.what {
            What::Ready { node: of, is_ready: false } => of == node && event.at_us <= until_us,
            _ => false,
        };
        if !after.iter().any(says_so) {
            verdict.is_wrong(Invariant::Deaf, || format!("{node} was deaf and ready for {} ms", promises.deaf_ms));
        }
        let before = &events[..place];
        readers(before, after, node, healed_us, promises, verdict);
    }
}

/// Where a reader is subscribed, and since when.
type Subscribed<'a> = BTreeMap<(u32, &'a Name), (&'a Name, u64)>;

fn subscribe<'a>(subscribed: &mut Subscribed<'a>, event: &'a Event) {
    match &event.what {
        What::Subscribed { reader, channel, node, .. } => {
            subscribed.insert((*reader, channel), (node, event.at_us));
        }
        What::Broke { reader, .. } | What::Retired { reader } => subscribed.retain(|(of, _), _| of != reader),
        What::Revoked { reader, channel } => {
            subscribed.remove(&(*reader, channel));
        }
        _ => {}
    }
}

fn readers<'a>(
    before: &'a [Event],
    after: &'a [Event],
    node: &Name,
    healed_us: u64,
    promises: &Promises,
    verdict: &mut Verdict,
) {
    let mut subscribed = Subscribed::new();
    // An entry may come before its publisher hears of it.
    let mut had = HashSet::new();
    for event in before {
        subscribe(&mut subscribed, event);
        if let What::Delivered { reader, channel, content, .. } = &event.what {
            had.insert((*reader, channel, &content.key));
        }
    }
    let mut asked = HashMap::new();
    // What somebody waits for: since when, by reader, channel and key.
    let mut waiting: BTreeMap<(u32, &Name, &Name), u64> = BTreeMap::new();
    let mut late = |waited_us: u64, (reader, channel, key): (u32, &Name, &Name)| {
        if waited_us > promises.deaf_ms * 1_000 {
            verdict.is_wrong(Invariant::Deaf, || {
                format!(
                    "reader {reader} on {node}, which was deaf, got {key} of {channel} after {} ms",
                    waited_us / 1_000
                )
            });
        }
    };
    for event in after {
        let at_us = event.at_us;
        subscribe(&mut subscribed, event);
        match &event.what {
            What::Asked { op, channel, key, .. } => {
                asked.insert(*op, (channel, key));
            }
            What::Answered { op, outcome: Outcome::Kept(_) } if at_us <= healed_us => {
                let Some((channel, key)) = asked.get(op) else { continue };
                let here = subscribed.iter().filter(|((_, of), (on, _))| of == channel && *on == node);
                let places = here.map(|((reader, _), _)| (*reader, *channel, *key));
                waiting.extend(places.filter(|place| !had.contains(place)).map(|place| (place, at_us)));
            }
            What::Delivered { reader, channel, content, .. } => {
                let place = (*reader, channel, &content.key);
                had.insert(place);
                if let Some(since_us) = waiting.remove(&place) {
                    late(at_us - since_us, place);
                }
            }
            // Told of a loss, or gone, and begins anew.
            What::Gap { reader, channel, .. } | What::Subscribed { reader, channel, .. } => {
                waiting.retain(|(of, at, key), since_us| {
                    let is_it = of == reader && *at == channel;
                    if is_it {
                        late(at_us - *since_us, (*of, at, key));
                    }
                    !is_it
                });
            }
            What::Broke { reader, .. } | What::Retired { reader } => waiting.retain(|(of, _, _), _| of != reader),
            What::Over => {
                for (place, since_us) in std::mem::take(&mut waiting) {
                    late(at_us - since_us, place);
                }
            }
            _ => {}
        }
    }
}
