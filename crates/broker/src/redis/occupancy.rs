//! Who holds which channels, in Redis: in [`Ledger::PARTS`] parts, each with a hash of records, a set for every name, and the set of these names,
//! in one slot, so that a step is one script and a part needs no other. `crate::occupancy` says what is held, and tells what comes of it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use redis::{Value, cmd};
use talewire_proto::Channel;

use super::answers::{integer, list, number, text, unknown};
use super::mending::Kind;
use super::names::slot;
use super::roll::Roll;
use super::scripts::Script;
use super::servers::{Lost, Servers};
use crate::BrokerError;
use crate::occupancy::{Answer, Holdings, Told};

/// Channels that are forgotten, or taken from a dead node, at once.
const AT_ONCE: usize = 512;

/// The records.
pub(crate) struct Ledger {
    servers: Arc<Servers>,
    roll: Arc<Roll>,
    /// How old what a dead node has told may be that is told again.
    recent_ms: u64,
}

impl Ledger {
    pub(crate) const PARTS: usize = 64;

    pub(super) fn new(servers: Arc<Servers>, roll: Arc<Roll>, recent_ms: u64) -> Self {
        Self { servers, roll, recent_ms }
    }

    pub(crate) fn part_of(channel: &Channel) -> usize {
        usize::from(slot(channel.as_str())) % Self::PARTS
    }

    fn keys(&self, name: &str, part: usize) -> [String; 3] {
        let names = &self.servers.names;
        [names.records(part), names.held(name, part), names.holders(part)]
    }

    pub(crate) async fn change(&self, name: &str, channel: &Channel, holds: bool) -> Result<Answer, BrokerError> {
        let keys = self.keys(name, Self::part_of(channel));
        let holds: &[u8] = if holds { b"1" } else { b"0" };
        let arguments = [channel.as_str().as_bytes(), name.as_bytes(), holds];
        // An answer that is lost is for the caller to know: who says it again hears that it was done, and not that it was a change.
        let answer = self.servers.call(Script::Hold, &keys, &arguments, Lost::Fail).await?;
        let mut parts = list(answer.value)?.into_iter();
        let (Some(is_change), Some(serial), Some(is_ours), Some(is_occupied)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let is = |value| Ok::<bool, BrokerError>(integer(value)? == 1);
        let (is_change, is_ours, is_occupied) = (is(&is_change)?, is(&is_ours)?, is(&is_occupied)?);
        Ok(Answer { is_change, serial: number(serial)?, is_ours, is_occupied })
    }

    pub(crate) async fn holdings(&self, name: &str, part: usize) -> Result<Holdings, BrokerError> {
        let [records, held, _] = self.keys(name, part);
        let answer = self.servers.call(Script::Holdings, &[records, held], &[name.as_bytes()], Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let (Some(held), Some(made)) = (parts.next(), parts.next()) else { return Err(unknown()) };
        let held = list(held)?.into_iter().filter_map(|value| text(value).ok()?.parse().ok()).collect();
        Ok(Holdings { held, made: read_told(list(made)?.into_iter())? })
    }

    pub(crate) async fn forget(&self, name: &str, part: usize, gone: &[(Channel, u64)]) -> Result<(), BrokerError> {
        let keys = self.keys(name, part);
        for gone in gone.chunks(AT_ONCE) {
            let serials: Vec<String> = gone.iter().map(|(_, serial)| serial.to_string()).collect();
            let mut arguments = vec![name.as_bytes()];
            for ((channel, _), serial) in gone.iter().zip(&serials) {
                arguments.extend([channel.as_str().as_bytes(), serial.as_bytes()]);
            }
            self.servers.call(Script::Forget, &keys, &arguments, Lost::Repeat).await?;
        }
        Ok(())
    }

    pub(crate) async fn clear(&self, dead: &str, finder: &str, part: usize) -> Result<(Vec<Told>, bool), BrokerError> {
        let [records, held, names] = self.keys(dead, part);
        let keys = [records, held, self.servers.names.held(finder, part), names];
        let (most, recent_us) = (AT_ONCE.to_string(), self.recent_ms.saturating_mul(1_000).to_string());
        let arguments = [dead.as_bytes(), finder.as_bytes(), most.as_bytes(), recent_us.as_bytes()];
        let answer = self.servers.call(Script::GiveUp, &keys, &arguments, Lost::Fail).await?;
        let mut parts = list(answer.value)?.into_iter();
        let is_all = integer(&parts.next().ok_or_else(unknown)?)? == 1;
        Ok((read_told(parts)?, is_all))
    }

    /// The names that hold something of a part, or are not forgotten yet.
    pub(crate) async fn names(&self, part: usize) -> Result<Vec<String>, BrokerError> {
        let key = self.servers.names.holders(part);
        let answer = self.servers.ask_of(&key, Kind::Set, cmd("SMEMBERS").arg(&key), Lost::Repeat).await?;
        Ok(list(answer.value)?.into_iter().filter_map(|name| text(name).ok()).collect())
    }

    /// The stamps of the nodes that live.
    pub(crate) async fn living(&self) -> Result<HashSet<String>, BrokerError> {
        self.roll.look(&self.servers).await
    }
}

/// Reads {channel, whether it is held, serial, ...}.
fn read_told(mut parts: impl Iterator<Item = Value>) -> Result<Vec<Told>, BrokerError> {
    let mut told = Vec::new();
    while let (Some(channel), Some(is_occupied), Some(serial)) = (parts.next(), parts.next(), parts.next()) {
        let (is_occupied, serial) = (super::answers::bytes(is_occupied)? == Bytes::from_static(b"1"), number(serial)?);
        // A name that is none was not written by us.
        if let Some(channel) = text(channel).ok().and_then(|name| name.parse().ok()) {
            told.push(Told { channel, is_occupied, serial });
        }
    }
    Ok(told)
}
