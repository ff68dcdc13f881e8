//! Histories that began anew, because a server without any data was promoted. No node can prevent that; it can only tell, which the checkers
//! of flags look at. It is right where nothing is on disk and several promotions came in a row, the later ones before the servers had
//! caught up: one that came alone has to find the history that was there. Asked by the checkers of what is kept and of epochs.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{self, Event, Kind, Lasts, Name, Outcome, Position, What};

/// How close promotions follow on each other for the later one to find servers that have not caught up.
const ROW_US: u64 = 10_000_000;

/// Promotions in a row, with the one that lost everything.
const ROW: usize = 3;

/// The histories that may have begun anew, by channel.
pub(super) struct Anew(BTreeSet<(Name, String)>);

impl Anew {
    pub(super) fn find(events: &[Event]) -> Self {
        let kinds = log::kinds(events);
        let is_replicated =
            |channel: &Name| matches!(kinds.get(channel), Some(Kind::History { lasts: Lasts::Replicated, .. }));
        let mut channels = BTreeMap::new();
        let mut promotions: BTreeMap<&str, u64> = BTreeMap::new();
        let mut histories: BTreeMap<(&Name, &str), (u64, &str)> = BTreeMap::new();
        for event in events {
            let place: Option<(&Name, &Position)> = match &event.what {
                What::Asked { op, channel, .. } => {
                    channels.insert(*op, channel);
                    None
                }
                What::Answered { op, outcome: Outcome::Kept(position) } => {
                    channels.get(op).map(|channel| (*channel, position))
                }
                What::Subscribed { channel, top: position, .. }
                | What::Delivered { channel, position, .. }
                | What::Gap { channel, position, .. } => Some((channel, position)),
                _ => None,
            };
            let Some((channel, position)) = place.filter(|(channel, _)| is_replicated(channel)) else { continue };
            let Some((history, master)) = position.epoch.rsplit_once('.') else { continue };
            promotions.entry(master).or_insert(event.at_us);
            histories.entry((channel, history)).or_insert((event.at_us, master));
        }
        let in_a_row = |(_, (at_us, master)): &(&(&Name, &str), &(u64, &str))| {
            let promoted_us = promotions.get(master).copied().unwrap_or(*at_us);
            let row = promotions.values().filter(|other| **other <= promoted_us && **other + ROW_US >= promoted_us);
            row.count() >= ROW
        };
        let anew = histories.iter().filter(in_a_row);
        Self(anew.map(|((channel, history), _)| ((*channel).clone(), (*history).to_owned())).collect())
    }

    /// Whether a channel's history under this epoch may have lost what was before it.
    pub(super) fn has(&self, channel: &Name, epoch: &str) -> bool {
        self.0.contains(&(channel.clone(), log::base(epoch).to_owned()))
    }

    /// Whether what was kept under the one epoch may be gone under the other.
    pub(super) fn forgets(&self, kind: Kind, channel: &Name, before: &str, now: &str) -> bool {
        kind.may_forget(before, now) || (log::base(before) != log::base(now) && self.has(channel, now))
    }
}
