//! Which channels somebody is subscribed to, inside the process: steps are taken under a lock and need no repair.

use std::collections::HashMap;

use talewire_proto::Channel;

use super::Striped;
use crate::NodeId;
use crate::occupancy::{Record, Told, step, unix_us};

pub(crate) struct Occupancy {
    channels: Striped<(u64, HashMap<Channel, Record>)>,
}

impl Occupancy {
    pub(crate) fn new() -> Self {
        Self { channels: Striped::new() }
    }

    /// A node holds a channel, or holds it no more: what is to be told of that.
    pub(crate) fn hold(&self, node: &NodeId, channel: &Channel, holds: bool) -> Option<Told> {
        let mut stripe = self.channels.of(channel).lock();
        let (last, channels) = &mut *stripe;
        let known = channels.remove(channel);
        if !holds && known.is_none() {
            return None;
        }
        let now_us = unix_us().max(*last + 1);
        let before = known.clone();
        let (kept, answer) = step(known, node.as_str(), holds, now_us);
        if let Some(record) = kept.or(before).filter(|record| !record.names.is_empty()) {
            channels.insert(channel.clone(), record);
        }
        if !answer.is_change {
            return None;
        }
        // A record that is gone does not say how far its serial had come.
        *last = answer.serial;
        Some(Told { channel: channel.clone(), is_occupied: holds, serial: answer.serial })
    }

    /// A node goes: what is to be told of what it held.
    pub(crate) fn depart(&self, node: &NodeId) -> Vec<Told> {
        let is_its = |(channel, record): (&Channel, &Record)| record.is_held_by(node.as_str()).then(|| channel.clone());
        let all = self.channels.all();
        let held: Vec<Channel> =
            all.flat_map(|stripe| stripe.lock().1.iter().filter_map(is_its).collect::<Vec<_>>()).collect();
        held.iter().filter_map(|channel| self.hold(node, channel, false)).collect()
    }
}
