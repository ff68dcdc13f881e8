//! I8: soon after the last fault every node names those who are truly there, and nobody else; and nobody comes twice without
//! having gone.

use std::collections::{BTreeSet, HashMap};

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, Name, What};

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    let Some(quiet_us) = events.iter().rev().find(|event| event.what == What::Quiet).map(|event| event.at_us) else {
        return;
    };
    let mut truth: HashMap<&Name, BTreeSet<&Name>> = HashMap::new();
    let mut wrong: HashMap<(&Name, &Name), String> = HashMap::new();
    let deadline_us = quiet_us + promises.presence_ms * 1_000;
    for event in events.iter().filter(|event| event.at_us >= quiet_us) {
        match &event.what {
            What::Truth { channel, clients } => {
                truth.insert(channel, clients.iter().collect());
            }
            What::Presence { node, channel, clients } => {
                let Some(truth) = truth.get(channel) else { continue };
                verdict.counts.presence_reads += 1;
                let seen: BTreeSet<&Name> = clients.iter().collect();
                let ghosts: Vec<_> = seen.difference(truth).collect();
                let hidden: Vec<_> = truth.difference(&seen).collect();
                if ghosts.is_empty() && hidden.is_empty() {
                    if event.at_us > deadline_us && wrong.remove(&(node, channel)).is_some() {
                        let late_ms = (event.at_us - deadline_us) / 1_000;
                        verdict.is_wrong(Invariant::Presence, || {
                            format!("{channel} on {node} became true {late_ms} ms too late")
                        });
                    }
                    wrong.remove(&(node, channel));
                } else {
                    let what = format!("{channel} on {node}: ghosts {ghosts:?}, not seen {hidden:?}");
                    wrong.insert((node, channel), what);
                }
            }
            _ => {}
        }
    }
    for what in wrong.into_values() {
        verdict.is_wrong(Invariant::Presence, || what);
    }
    alternate(events, verdict);
}

/// What one reader is told of one connection: it comes, it goes, and it does not come again, for ids are used once. A reader
/// that was away may have missed words, so that it begins anew.
fn alternate(events: &[Event], verdict: &mut Verdict) {
    let mut here: HashMap<u32, HashMap<(&Name, &Name), bool>> = HashMap::new();
    for event in events {
        match &event.what {
            What::Broke { reader, .. } | What::Subscribed { reader, .. } => {
                here.remove(reader);
            }
            What::Came { reader, channel, client, is_here } => {
                let before = here.entry(*reader).or_default().insert((channel, client), *is_here);
                if before == Some(*is_here) {
                    let word = if *is_here { "came" } else { "went" };
                    verdict.is_wrong(Invariant::Presence, || {
                        format!("reader {reader}: {client} {word} twice in {channel}")
                    });
                }
            }
            _ => {}
        }
    }
}
