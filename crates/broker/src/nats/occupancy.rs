//! Who holds which channels, in NATS: one record for each channel, changed only where nobody has changed it since the look before.
//! `crate::occupancy` says what is held, and tells what comes of it.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use talewire_proto::Channel;

use super::bank::{Bank, Put, Shelf, unavailable};
use super::{Nats, names};
use crate::occupancy::{Answer, Holdings, Record, Told, clear, stamp_of, step};
use crate::{BrokerError, NodeId};

/// Tries to change a record that others change too.
const TRIES: usize = 64;

/// The records.
pub(crate) struct Ledger {
    bank: Arc<Bank>,
    nats: Weak<Nats>,
    /// How old what a dead node has told may be that is told again.
    recent_ms: u64,
}

impl Ledger {
    pub(super) fn new(bank: Arc<Bank>, nats: Weak<Nats>, recent_ms: u64) -> Self {
        Self { bank, nats, recent_ms }
    }

    fn subject(&self, channel: &Channel) -> String {
        self.bank.names.holders(&names::of(channel))
    }

    fn now_us(&self) -> u64 {
        self.bank.now_ms().saturating_mul(1_000)
    }

    /// Writes a record in the place of the one that was found. Says whether nobody was faster.
    async fn keep(&self, subject: String, record: &Record, found: Option<&StreamMessage>) -> Result<bool, BrokerError> {
        let expected = found.map_or(0, |found| found.sequence);
        let put = self.bank.put(subject, HeaderMap::new(), record.written().into(), Some(expected)).await?;
        Ok(put != Put::Conflict)
    }

    pub(crate) async fn change(&self, name: &str, channel: &Channel, holds: bool) -> Result<Answer, BrokerError> {
        for _ in 0..TRIES {
            let found = self.bank.last(Shelf::Nodes, &self.subject(channel)).await?;
            let record = found.as_ref().and_then(read);
            // Looked at after the record: whoever forgets one has raised it before.
            let floor = if record.is_none() { self.floor().await?.0 } else { 0 };
            let (kept, answer) = step(record, name, holds, self.now_us().max(floor + 1));
            let Some(kept) = kept else { return Ok(answer) };
            if self.keep(self.subject(channel), &kept, found.as_ref()).await? {
                return Ok(answer);
            }
        }
        Err(unavailable("too many change who holds a channel"))
    }

    /// All records.
    async fn all(&self) -> Result<Vec<(Channel, StreamMessage, Record)>, BrokerError> {
        let subjects = self.bank.subjects(Shelf::Nodes, &self.bank.names.holders("*")).await?;
        let found = self.bank.many(Shelf::Nodes, subjects).await?;
        let record = |(subject, message): (String, StreamMessage)| {
            let channel = names::text(subject.split('.').nth(2)?)?.parse().ok()?;
            let record = read(&message)?;
            Some((channel, message, record))
        };
        Ok(found.into_iter().filter_map(record).collect())
    }

    pub(crate) async fn holdings(&self, name: &str) -> Result<Holdings, BrokerError> {
        let mut holdings = Holdings::default();
        for (channel, _, record) in self.all().await? {
            if record.is_held_by(name) {
                holdings.held.push(channel);
            } else if record.teller == name {
                let (is_occupied, serial) = (!record.names.is_empty(), record.serial);
                holdings.made.push(Told { channel, is_occupied, serial });
            }
        }
        Ok(holdings)
    }

    /// The greatest serial of a record that was forgotten, and its place in the stream.
    async fn floor(&self) -> Result<(u64, u64), BrokerError> {
        let found = self.bank.last(Shelf::Nodes, &self.bank.names.floor()).await?;
        let serial = |found: &StreamMessage| std::str::from_utf8(&found.payload).ok()?.parse().ok();
        Ok(found.map_or((0, 0), |found| (serial(&found).unwrap_or(0), found.sequence)))
    }

    /// What comes of a channel after this has a greater serial, by whichever node's clock.
    async fn raise_floor(&self, serial: u64) -> Result<(), BrokerError> {
        for _ in 0..TRIES {
            let (floor, sequence) = self.floor().await?;
            if floor >= serial {
                return Ok(());
            }
            let body = serial.to_string().into();
            let put = self.bank.put(self.bank.names.floor(), HeaderMap::new(), body, Some(sequence)).await?;
            if put != Put::Conflict {
                return Ok(());
            }
        }
        Err(unavailable("too many forget at once who held channels"))
    }

    pub(crate) async fn forget(&self, gone: &[(Channel, u64)]) -> Result<(), BrokerError> {
        let Some(newest) = gone.iter().map(|(_, serial)| *serial).max() else { return Ok(()) };
        // A record that is gone says no more how far its serial had come.
        self.raise_floor(newest).await?;
        for (channel, serial) in gone {
            let subject = self.subject(channel);
            let Some(found) = self.bank.last(Shelf::Nodes, &subject).await? else { continue };
            if read(&found).is_none_or(|record| record.names.is_empty() && record.serial == *serial) {
                self.bank.purge_through(Shelf::Nodes, subject, found.sequence).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn clear(&self, dead: &str, finder: &str) -> Result<Vec<Told>, BrokerError> {
        let mut told = Vec::new();
        for (channel, message, record) in self.all().await? {
            if !record.is_held_by(dead) && record.teller != dead {
                continue;
            }
            let mut found = Some((message, record));
            while let Some((message, record)) = found.take() {
                let now_us = self.now_us();
                let since_us = now_us.saturating_sub(self.recent_ms.saturating_mul(1_000));
                let (kept, is_told) = clear(record.clone(), dead, finder, since_us, now_us);
                if kept == record {
                    break;
                }
                if self.keep(self.subject(&channel), &kept, Some(&message)).await? {
                    if is_told {
                        let (is_occupied, serial) = (!kept.names.is_empty(), kept.serial);
                        told.push(Told { channel: channel.clone(), is_occupied, serial });
                    }
                    break;
                }
                let again = self.bank.last(Shelf::Nodes, &self.subject(&channel)).await?;
                found = again.and_then(|message| read(&message).map(|record| (message, record)));
            }
        }
        self.strike(dead).await?;
        Ok(told)
    }

    pub(crate) async fn enlist(&self, name: &str) -> Result<(), BrokerError> {
        let subject = self.bank.names.holder(name);
        self.bank.put(subject, HeaderMap::new(), Bytes::new(), None).await.map(drop)
    }

    pub(crate) async fn strike(&self, name: &str) -> Result<(), BrokerError> {
        self.bank.purge(Shelf::Nodes, self.bank.names.holder(name), 0).await
    }

    /// The names that take part.
    pub(crate) async fn names(&self) -> Result<Vec<String>, BrokerError> {
        let subjects = self.bank.subjects(Shelf::Nodes, &self.bank.names.holder("*")).await?;
        Ok(subjects.iter().filter_map(|subject| subject.split('.').nth(2)).map(str::to_owned).collect())
    }

    /// The stamps of the nodes that live.
    pub(crate) async fn living(&self) -> Result<HashSet<String>, BrokerError> {
        let nats = self.nats.upgrade().ok_or_else(|| unavailable("the node goes down"))?;
        let living = nats.presence.living().await?;
        let stamp_of = |token: &str| names::text(token).map(|id| stamp_of(&NodeId::named(&id)));
        Ok(living.iter().filter_map(|(token, _)| stamp_of(token)).collect())
    }
}

fn read(message: &StreamMessage) -> Option<Record> {
    Record::read(std::str::from_utf8(&message.payload).ok()?)
}
