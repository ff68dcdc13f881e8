//! This node among others: signs of life, the list of nodes, and questions to each other by letters.
//!
//! The binary spawns [`Node::attend`] once, before the doors open. Routes ask others by [`Node::ask`], and name in their answers who
//! could not be asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use talewire_broker::{BrokerError, NodeId, NodeReport};
use talewire_proto::ErrorCode;
use talewire_proto::codec::Codec;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::agreement::{Agreement, News, Unheard};
use crate::letters::{Letter, Question, code_of};
use crate::listing;
use crate::node::Node;
use crate::transport::emulation;

/// Stands for all other nodes where not even their names are known.
pub(crate) const ALL_OTHERS: &str = "*";

/// What this node knows of others.
pub(crate) struct Peers {
    /// How operators call this node.
    pub(crate) name: String,
    /// Names this node's database.
    store: String,
    beat_ms: u64,
    /// Digests of the settings that are the same at every node, but for the rules of channels, which may be exchanged.
    agreed: BTreeMap<String, String>,
    /// Who is set otherwise.
    agreement: Mutex<Agreement>,
    /// Who uses the same database and is not heard.
    unheard: Mutex<Unheard>,
    /// Questions under way.
    asked: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, u32>>>>,
    next: AtomicU64,
    /// The nodes that lived when this one last gave a sign of life.
    pub(crate) known: Arc<Mutex<Vec<NodeReport>>>,
}

/// Why another node has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There is no node of that name.
    Nobody,
    /// It has no answer in time, or cannot be reached.
    NoAnswer,
    /// It refuses.
    Refused(ErrorCode),
}

/// Forgets a question when nobody waits for its answer any more.
struct Waiting<'a> {
    peers: &'a Peers,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.peers.asked.lock().remove(&self.id);
    }
}

impl Peers {
    pub(crate) fn new(name: String, store: String, beat_ms: u64, agreed: BTreeMap<String, String>) -> Self {
        let (asked, next, known) = (Mutex::default(), AtomicU64::new(1), Arc::default());
        let beat_ms = beat_ms.max(1);
        let beat = Duration::from_millis(beat_ms);
        let (agreement, unheard) = (Mutex::new(Agreement::new(beat)), Mutex::new(Unheard::new(beat)));
        Self { name, store, beat_ms, agreed, agreement, unheard, asked, next, known }
    }

    /// A number for a question, and where its answer will come; nothing when too many are under way.
    fn question(&self, most: usize) -> Option<(Waiting<'_>, oneshot::Receiver<Result<Bytes, u32>>)> {
        let mut asked = self.asked.lock();
        if asked.len() >= most {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        asked.insert(id, sender);
        Some((Waiting { peers: self, id }, answer))
    }

    fn answered(&self, id: u64, answer: Result<Bytes, u32>) {
        // Whoever asked may have given up.
        if let Some(sender) = self.asked.lock().remove(&id) {
            let _ = sender.send(answer);
        }
    }
}

impl Node {
    /// Which run of which node this is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// What this node tells of itself.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let mut agreed = self.peers.agreed.clone();
        agreed.insert("namespaces".to_owned(), self.rules().digest().to_owned());
        NodeReport {
            agreed,
            id: self.id.clone(),
            name: self.peers.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.peers.store.clone(),
            started_ms: self.started_ms,
            connections: self.metrics.open(),
            users: self.guard.users(),
            subscriptions: self.hub.subscriptions(),
            channels: self.hub.channels() as u64,
            draining: self.is_stopping(),
        }
    }

    /// A node over the same broker that keeps its data elsewhere, if the last sign of life showed one: what one of the two commits, the
    /// other would never find.
    #[must_use]
    pub fn stranger(&self) -> Option<NodeReport> {
        let known = self.peers.known.lock();
        known.iter().find(|other| !other.store.is_empty() && other.store != self.peers.store).cloned()
    }

    /// Gives a sign of life, and looks who else lives. Says whether the broker took it.
    pub async fn beat(&self) -> bool {
        let within = Duration::from_millis(self.peers.beat_ms);
        let beat = async {
            let report = self.report();
            self.broker.beat(report.clone()).await?;
            let known = self.broker.nodes().await?;
            self.compare(&report, &known);
            let before = std::mem::replace(&mut *self.peers.known.lock(), known.clone());
            self.tell_of_changes(&before, &known);
            Ok::<(), BrokerError>(())
        };
        let taken = tokio::time::timeout(within, beat).await;
        if let Ok(Ok(())) = taken {
            return true;
        }
        self.metrics.beats_failed.inc();
        match taken {
            Ok(Err(error)) => tracing::warn!(%error, "a sign of life was not taken"),
            _ => tracing::warn!("a sign of life was not taken in time"),
        }
        false
    }

    /// Tells of nodes that are set otherwise than this one.
    fn compare(&self, me: &NodeReport, known: &[NodeReport]) {
        let mut agreement = self.peers.agreement.lock();
        for news in agreement.note(me, known, Instant::now()) {
            match news {
                News::Differs(NodeReport { name, id, version, .. }, parts) => tracing::warn!(
                    node = name, %id, version, %parts,
                    "another node is set otherwise: what it keeps and whom it lets in is not what this one does; give all nodes the same settings"
                ),
                News::Agrees(NodeReport { name, id, .. }) => {
                    tracing::info!(node = name, %id, "the other node is set like this one again");
                }
            }
        }
        self.metrics.nodes_differing.set(i64::try_from(agreement.differing()).unwrap_or(i64::MAX));
    }

    /// Tells who has come and who has gone.
    fn tell_of_changes(&self, before: &[NodeReport], now: &[NodeReport]) {
        let news = |these: &[NodeReport], those: &[NodeReport]| -> Vec<NodeReport> {
            let is_new = |node: &&NodeReport| node.id != self.id && those.iter().all(|other| other.id != node.id);
            these.iter().filter(is_new).cloned().collect()
        };
        for NodeReport { name, id, version, .. } in news(now, before) {
            tracing::info!(node = name, %id, version, "another node is there");
        }
        for NodeReport { name, id, draining, .. } in news(before, now) {
            tracing::info!(node = name, %id, draining, "another node is gone");
        }
    }

    /// Tells of nodes that use the same database over another broker, or over none: what is published here, they do not hear.
    async fn look_for_unheard(&self) {
        // Without an answer nothing is known.
        let Ok(users) = self.store.users().await else { return };
        let heard = self.known_nodes();
        let is_heard = |name: &String| *name == self.id.as_str() || heard.iter().any(|node| *name == node.id.as_str());
        let mut unheard = self.peers.unheard.lock();
        for id in unheard.note(users.into_iter().filter(|name| !is_heard(name)), Instant::now()) {
            tracing::warn!(
                %id,
                "a node uses the same database and is not heard over the broker: give all nodes the same section [broker]"
            );
        }
        self.metrics.nodes_unheard.set(i64::try_from(unheard.count()).unwrap_or(i64::MAX));
    }

    /// The nodes that lived when this one last gave a sign of life.
    #[must_use]
    pub fn known_nodes(&self) -> Vec<NodeReport> {
        self.peers.known.lock().clone()
    }

    /// The nodes that live, this one with what it knows of itself. Whether these are all: without the broker it knows of nobody else.
    pub(crate) async fn nodes(&self) -> (Vec<NodeReport>, bool) {
        let within = Duration::from_millis(self.settings.node_answer_ms);
        let found = tokio::time::timeout(within, self.broker.nodes()).await;
        let (mut nodes, all) = match found {
            Ok(Ok(nodes)) => (nodes, true),
            _ => (Vec::new(), false),
        };
        nodes.retain(|node| node.id != self.id);
        nodes.push(self.report());
        nodes.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
        (nodes, all)
    }

    /// Asks another node.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        node: &NodeId,
        question: Question,
        body: Bytes,
    ) -> Result<T, Silence> {
        let Some((waiting, answer)) = self.peers.question(self.settings.node_letters_max) else {
            return Err(Silence::NoAnswer);
        };
        let letter = Letter::Ask { from: self.id.clone(), id: waiting.id, question, body }.write();
        let asking = async {
            match self.broker.post(node, letter).await {
                Ok(true) => {}
                Ok(false) => return Err(Silence::Nobody),
                Err(_) => return Err(Silence::NoAnswer),
            }
            match answer.await {
                Ok(Ok(answer)) => serde_json::from_slice(&answer).map_err(|_| Silence::NoAnswer),
                Ok(Err(code)) => Err(Silence::Refused(code_of(code))),
                Err(_) => Err(Silence::NoAnswer),
            }
        };
        let within = Duration::from_millis(self.settings.node_answer_ms);
        tokio::time::timeout(within, asking).await.unwrap_or(Err(Silence::NoAnswer))
    }

    /// Takes part among nodes until the future is dropped: gives signs of life and answers letters. From the call on letters are taken.
    pub fn attend(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        let (sender, letters) = mpsc::channel(self.settings.node_letters_max.max(1));
        let dropped = self.metrics.letters_dropped.clone();
        self.broker.letters_to(Arc::new(move |letter| {
            if sender.try_send(letter).is_err() {
                dropped.inc();
            }
        }));
        async move {
            tokio::join!(self.clone().beat_on(), self.read_letters(letters));
        }
    }

    async fn beat_on(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(self.peers.beat_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Who cannot hear the broker hears nobody.
            if self.beat().await {
                self.look_for_unheard().await;
            }
        }
    }

    async fn read_letters(self: Arc<Self>, mut letters: mpsc::Receiver<Bytes>) {
        let places = Arc::new(Semaphore::new(self.settings.node_letters_max.max(1)));
        while let Some(letter) = letters.recv().await {
            let (from, id, question, body) = match Letter::read(&letter) {
                Some(Letter::Answer { id, answer }) => {
                    self.peers.answered(id, answer);
                    continue;
                }
                Some(Letter::Ask { from, id, question, body }) => (from, id, question, body),
                None => {
                    tracing::warn!(bytes = letter.len(), "a letter of another node cannot be read");
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.metrics.letters_dropped.inc();
                continue;
            };
            // On the spot, so that frames for one connection keep their order.
            let given = self.obey(&question, body);
            let node = self.clone();
            tokio::spawn(async move {
                let answer = match given {
                    Some(given) => given,
                    None => node.answer(question).await,
                };
                node.send_answer(&from, id, answer).await;
                drop(place);
            });
        }
    }

    /// Carries out what needs nobody to be waited for.
    fn obey(&self, question: &Question, body: Bytes) -> Option<Result<Vec<u8>, ErrorCode>> {
        let Question::Frame { session, protobuf } = question else { return None };
        let codec = if *protobuf { Codec::Protobuf } else { Codec::Json };
        Some(emulation::give(self, &session.0, codec, body).map(|()| b"null".to_vec()))
    }

    pub(crate) async fn answer(&self, question: Question) -> Result<Vec<u8>, ErrorCode> {
        match question {
            Question::Connections(asked) => Ok(json(&listing::connections(self, &asked).await?)),
            Question::Channels(asked) => Ok(json(&listing::channels(self, &asked).await?)),
            Question::Reload => {
                let Some(reloads) = &self.reloads else { return Err(ErrorCode::NotAvailable) };
                let (request, answer) = oneshot::channel();
                reloads.try_send(request).map_err(|_| ErrorCode::Unavailable)?;
                Ok(json(&answer.await.map_err(|_| ErrorCode::Internal)?))
            }
            Question::Frame { .. } | Question::Unknown => Err(ErrorCode::MethodNotFound),
        }
    }

    async fn send_answer(&self, to: &NodeId, id: u64, answer: Result<Vec<u8>, ErrorCode>) {
        let answer = match answer {
            Ok(answer) if answer.len() > self.settings.letter_bytes_max => Err(ErrorCode::LimitExceeded),
            answer => answer,
        };
        let answer = answer.map(Bytes::from).map_err(ErrorCode::code);
        if let Err(error) = self.broker.post(to, Letter::Answer { id, answer }.write()).await {
            tracing::warn!(%error, "an answer to another node was not sent");
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types are written as JSON")
}

/// Whether a text that somebody sends may name a node: nothing else is asked for.
pub(crate) fn may_be_node(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
