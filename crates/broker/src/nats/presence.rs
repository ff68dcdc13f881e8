//! Nodes, and who is present on them: a record for each, in the name of the node.
//!
//! A member counts while its node's record is young enough by the server's clock. Whoever finds a node dead takes its members out, under
//! a lease. A node that was taken for dead, or whose records are gone, writes all of its own again. Where an answer never came, its next beats
//! look for records of those who are not there: they would stay for as long as the node lives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::client::Client;
use bytes::Bytes;
use parking_lot::Mutex;
use talewire_proto::{Channel, ClientId, ClientInfo};
use tokio::sync::watch;

use super::bank::{Bank, Put, Shelf, number, unavailable};
use super::names;
use crate::between::packing;
use crate::nodes::Signs;
use crate::occupancy::Doubts;
use crate::{BrokerError, BrokerSettings, NodeId, NodeReport, PresenceStats, Tell};

mod said {
    pub(super) const TIME: &str = "Tw-Time";
    /// Subscribers are told when the member leaves.
    pub(super) const TELL: &str = "Tw-Tell";
}

/// Whose record it is.
type Name = (Channel, ClientId);

/// Members of this node, by their records.
type Own = HashMap<Name, (Arc<ClientInfo>, Tell)>;

pub(crate) struct Presence {
    settings: Arc<BrokerSettings>,
    bank: Arc<Bank>,
    client: Client,
    node: NodeId,
    own: Mutex<Own>,
    report: Mutex<Option<NodeReport>>,
    /// This node's record; 0 when there is none.
    record: AtomicU64,
    departed: AtomicBool,
    /// Two at once would find each other's record in the place of theirs.
    beating: tokio::sync::Mutex<()>,
    signs: Signs,
    doubts: watch::Sender<Doubts>,
    /// Whose records are being written for the first time.
    entering: Mutex<HashSet<Name>>,
    /// When something was last said to the server whose answer never came.
    unsure: Mutex<Option<Instant>>,
}

impl Presence {
    pub(super) fn new(settings: Arc<BrokerSettings>, bank: Arc<Bank>, client: Client, node: NodeId) -> Self {
        let signs = Signs::new(settings.node_beat_ms);
        Self {
            signs,
            settings,
            bank,
            client,
            node,
            own: Mutex::default(),
            report: Mutex::default(),
            record: AtomicU64::new(0),
            departed: AtomicBool::new(false),
            beating: tokio::sync::Mutex::default(),
            doubts: watch::Sender::default(),
            entering: Mutex::default(),
            unsure: Mutex::default(),
        }
    }

    /// Tells when the streams may have lost something.
    pub(super) fn doubts(&self) -> watch::Receiver<Doubts> {
        self.doubts.subscribe()
    }

    /// The connection is another one.
    pub(super) fn doubt(&self) {
        self.doubts.send_modify(|doubts| doubts.losses += 1);
    }

    fn me(&self) -> String {
        names::token(self.node.as_str())
    }

    fn subject(&self, channel: &Channel, client: &ClientId) -> String {
        self.bank.names.present(&self.me(), &names::of(channel), &names::token(client.as_str()))
    }

    pub(crate) async fn enter(
        &self,
        channel: &Channel,
        client: &ClientId,
        info: &Arc<ClientInfo>,
        tell: Tell,
    ) -> Result<(), BrokerError> {
        let name = (channel.clone(), client.clone());
        if !self.own.lock().contains_key(&name) {
            let all = self.bank.names.present("*", &names::of(channel), "*");
            // Two who come at once may both find the last place.
            if self.bank.subjects(Shelf::Nodes, &all).await?.len() >= self.settings.presence_per_channel_max {
                return Err(BrokerError::Full("presence_per_channel_max"));
            }
        }
        self.entering.lock().insert(name.clone());
        let mut entering = Entering { presence: self, name: &name, is_sure: false };
        self.write(channel, client, info, tell).await?;
        self.own.lock().insert(name.clone(), (info.clone(), tell));
        entering.is_sure = true;
        drop(entering);
        if tell == Tell::Subscribers {
            self.announce(channel, b'J', info).await;
        }
        Ok(())
    }

    async fn write(
        &self,
        channel: &Channel,
        client: &ClientId,
        info: &ClientInfo,
        tell: Tell,
    ) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        if tell == Tell::Subscribers {
            headers.insert(said::TELL, "1");
        }
        self.bank.put(self.subject(channel, client), headers, packing::info(info), None).await.map(drop)
    }

    async fn announce(&self, channel: &Channel, kind: u8, info: &ClientInfo) {
        let told = [&[kind], &packing::info(info)[..]].concat();
        let subject = self.bank.names.announcements(&names::of(channel));
        if let Err(error) = self.client.publish(subject, Bytes::from(told)).await {
            tracing::debug!(%error, "who came or went was not announced");
        }
    }

    pub(crate) async fn leave(&self, channel: &Channel, client: &ClientId, tell: Tell) {
        let Some((info, _)) = self.own.lock().remove(&(channel.clone(), client.clone())) else { return };
        if let Err(error) = self.bank.purge(Shelf::Nodes, self.subject(channel, client), 0).await {
            tracing::debug!(%error, "somebody who left stays listed until a beat finds out");
            *self.unsure.lock() = Some(Instant::now());
        }
        if tell == Tell::Subscribers {
            self.announce(channel, b'L', &info).await;
        }
    }

    pub(crate) async fn all(&self, channel: &Channel) -> Result<Vec<(ClientId, Arc<ClientInfo>)>, BrokerError> {
        let subjects =
            self.bank.subjects(Shelf::Nodes, &self.bank.names.present("*", &names::of(channel), "*")).await?;
        if subjects.is_empty() {
            return Ok(Vec::new());
        }
        let living: HashSet<String> = self.living().await?.into_iter().map(|(node, _)| node).collect();
        let there = subjects.into_iter().filter(|subject| part(subject, 2).is_some_and(|node| living.contains(node)));
        let found = self.bank.many(Shelf::Nodes, there).await?;
        let member = |(subject, message): (String, async_nats::jetstream::message::StreamMessage)| {
            let client = names::text(part(&subject, 4)?)?.parse().ok()?;
            Some((client, Arc::new(packing::read_info(message.payload).ok()?)))
        };
        Ok(found.into_iter().filter_map(member).collect())
    }

    pub(crate) async fn stats(&self, channel: &Channel) -> Result<PresenceStats, BrokerError> {
        let all = self.all(channel).await?;
        let users: HashSet<_> = all.iter().map(|(_, info)| &info.user).collect();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(PresenceStats { clients: count(all.len()), users: count(users.len()) })
    }

    /// The tokens of the nodes that live, with what they last reported.
    pub(super) async fn living(&self) -> Result<Vec<(String, Option<NodeReport>)>, BrokerError> {
        let (living, _) = self.nodes().await?;
        Ok(living)
    }

    async fn nodes(&self) -> Result<(Vec<(String, Option<NodeReport>)>, Vec<String>), BrokerError> {
        let subjects = self.bank.subjects(Shelf::Nodes, &self.bank.names.node("*")).await?;
        let found = self.bank.many(Shelf::Nodes, subjects).await?;
        let now_ms = self.bank.now_ms();
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for (subject, message) in found {
            let Some(node) = part(&subject, 2).map(str::to_owned) else { continue };
            let beat_ms = number(&message.headers, said::TIME).unwrap_or(0);
            if now_ms < beat_ms.saturating_add(self.settings.node_lease_ms) {
                living.push((node, serde_json::from_slice(&message.payload).ok()));
            } else {
                dead.push(node);
            }
        }
        Ok((living, dead))
    }

    pub(crate) async fn reports(&self) -> Result<Vec<NodeReport>, BrokerError> {
        let mut reports: Vec<NodeReport> = self.living().await?.into_iter().filter_map(|(_, report)| report).collect();
        reports.sort_by(|a, b| (a.started_ms, a.id.as_str()).cmp(&(b.started_ms, b.id.as_str())));
        Ok(reports)
    }

    /// What this node tells of itself from now on.
    pub(crate) async fn report(&self, report: NodeReport) -> Result<(), BrokerError> {
        self.departed.store(false, Ordering::Relaxed);
        *self.report.lock() = Some(report);
        self.beat().await
    }

    /// Gives a sign of life, and finds out who gives none.
    pub(crate) async fn beat(&self) -> Result<(), BrokerError> {
        let _beating = self.beating.lock().await;
        if self.departed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_report = self.report.lock().is_some();
        let said = self.say_that_it_lives().await;
        self.signs.note(said.as_ref().copied(), is_report);
        said?;
        self.make_sure().await
    }

    /// Why this node counts as gone for the others, or soon will.
    pub(super) fn fault(&self) -> Option<String> {
        self.signs.fault()
    }

    async fn say_that_it_lives(&self) -> Result<(), BrokerError> {
        let subject = self.bank.names.node(&self.me());
        let body = self.report.lock().as_ref().map_or_else(Bytes::new, |report| {
            serde_json::to_vec(report).expect("our own types are written as JSON").into()
        });
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(said::TIME, self.bank.now_ms().to_string().as_str());
            headers
        };
        let before = self.record.load(Ordering::Relaxed);
        let mut put = self.bank.put(subject.clone(), headers(), body.clone(), Some(before)).await?;
        if put == Put::Conflict {
            // Somebody took us for dead, or the stream was lost: what we had put there may be gone.
            self.doubts.send_modify(|doubts| doubts.lapses += 1);
            put = self.bank.put(subject.clone(), headers(), body, None).await?;
            let own: Vec<_> = self.own.lock().iter().map(|(name, told)| (name.clone(), told.clone())).collect();
            for ((channel, client), (info, tell)) in own {
                self.write(&channel, &client, &info, tell).await?;
            }
        }
        if let Put::Done(sequence) = put {
            self.record.store(sequence, Ordering::Relaxed);
        }
        if let Some(written) = self.bank.last(Shelf::Nodes, &subject).await? {
            self.bank.see(&written);
        }
        Ok(())
    }

    /// Takes out records of this node's that are nobody's, for as long as one may still come late.
    async fn make_sure(&self) -> Result<(), BrokerError> {
        let Some(unsure) = *self.unsure.lock() else { return Ok(()) };
        let filter = self.bank.names.present(&self.me(), "*", "*");
        for subject in self.bank.subjects(Shelf::Nodes, &filter).await? {
            let channel = part(&subject, 3).and_then(names::text).and_then(|name| name.parse::<Channel>().ok());
            let client = part(&subject, 4).and_then(names::text).and_then(|name| name.parse::<ClientId>().ok());
            let Some(name) = channel.zip(client) else { continue };
            if self.own.lock().contains_key(&name) || self.entering.lock().contains(&name) {
                continue;
            }
            self.bank.purge(Shelf::Nodes, subject, 0).await?;
            // It may have come meanwhile.
            let own = self.own.lock().get(&name).cloned();
            if let Some((info, tell)) = own {
                self.write(&name.0, &name.1, &info, tell).await?;
            }
        }
        let mut now = self.unsure.lock();
        if *now == Some(unsure) && unsure.elapsed() > Duration::from_millis(self.settings.node_lease_ms) {
            *now = None;
        }
        Ok(())
    }

    /// The tokens of nodes that died and left something.
    pub(crate) async fn dead(&self) -> Result<Vec<String>, BrokerError> {
        self.nodes().await.map(|(_, dead)| dead)
    }

    /// Takes a dead node's members out, and tells those who hear of that.
    pub(crate) async fn clear(&self, dead: &str) -> Result<(), BrokerError> {
        let subjects = self.bank.subjects(Shelf::Nodes, &self.bank.names.present(dead, "*", "*")).await?;
        for (subject, message) in self.bank.many(Shelf::Nodes, subjects).await? {
            let channel = part(&subject, 3).and_then(names::text).and_then(|name| name.parse::<Channel>().ok());
            let info = packing::read_info(message.payload.clone()).map_err(|_| unavailable("an unknown record"));
            self.bank.purge(Shelf::Nodes, subject, 0).await?;
            if let (Some(channel), Ok(info), true) = (channel, info, message.headers.get(said::TELL).is_some()) {
                self.announce(&channel, b'L', &info).await;
            }
        }
        self.bank.purge(Shelf::Nodes, self.bank.names.node(dead), 0).await
    }

    /// Takes leave: nothing of this node stays.
    pub(crate) async fn depart(&self) -> Result<(), BrokerError> {
        self.departed.store(true, Ordering::Relaxed);
        let _beating = self.beating.lock().await;
        self.own.lock().clear();
        let me = self.me();
        self.clear(&me).await?;
        self.record.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// A record is being written, until this is dropped.
struct Entering<'a> {
    presence: &'a Presence,
    name: &'a Name,
    /// The server has said that it is kept.
    is_sure: bool,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.presence.entering.lock().remove(self.name);
        if !self.is_sure {
            *self.presence.unsure.lock() = Some(Instant::now());
        }
    }
}

/// A part of a subject behind the prefix, which has no points: 1 says what it is.
fn part(subject: &str, at: usize) -> Option<&str> {
    subject.split('.').nth(at)
}
