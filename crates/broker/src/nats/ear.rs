//! What comes from other nodes: a subscription for each channel that somebody here hears, and some for the node itself.
//!
//! The library subscribes again by itself after it has lost the connection; what came meanwhile is lost, and everybody who hears
//! something is told so. A connection that stands and carries nothing is found by probes that go through it and come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::client::Client;
use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use talewire_proto::Channel;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::bank::unavailable;
use super::history::is_mark;
use super::names::{self, Names};
use crate::between::outlets::{Outlets, Target};
use crate::{BrokerError, BrokerHealth, NodeId};

/// One channel that is listened to.
struct Ear {
    task: AbortHandle,
    stands: watch::Receiver<bool>,
}

pub(super) struct Ears {
    client: Client,
    names: Names,
    node: NodeId,
    outlets: Arc<Outlets>,
    runtime: Handle,
    patience: Duration,
    ears: Mutex<HashMap<Channel, Ear>>,
    /// Why the connection is not taken to be well.
    ill: Mutex<Option<String>>,
    /// When a probe last came back, in milliseconds since `began`.
    heard_ms: AtomicU64,
    began: Instant,
}

impl Ears {
    pub(super) fn new(client: Client, names: Names, node: NodeId, outlets: Arc<Outlets>, patience: Duration) -> Self {
        Self {
            client,
            names,
            node,
            outlets,
            runtime: Handle::current(),
            patience,
            ears: Mutex::default(),
            ill: Mutex::default(),
            heard_ms: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Subscribes to what is for every node and for this one; these end with the returned tasks.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<Vec<AbortHandle>, BrokerError> {
        let mut tasks = Vec::new();
        let fixed = [(self.names.letters(&self.node), Target::Letters), (self.names.everybody(), Target::Everybody)];
        for (subject, target) in fixed {
            let mut heard = self.client.subscribe(subject).await.map_err(unavailable)?;
            let ears = self.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(message) = heard.next().await {
                    ears.answer(&message).await;
                    ears.outlets.take(&target, message.payload);
                }
            }));
        }
        let mut jobs = self.client.subscribe(self.names.jobs()).await.map_err(unavailable)?;
        let outlets = self.outlets.clone();
        tasks.push(tokio::spawn(async move {
            while jobs.next().await.is_some() {
                // Nobody listening is no fault: the sweep finds the work.
                let _ = outlets.wakeups.send(crate::WakeUp::Jobs);
            }
        }));
        let mut probes = self.client.subscribe(self.names.probe(&self.node)).await.map_err(unavailable)?;
        let ears = self.clone();
        tasks.push(tokio::spawn(async move {
            while let Some(message) = probes.next().await {
                ears.answer(&message).await;
            }
        }));
        self.probe().await?;
        Ok(tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect())
    }

    async fn answer(&self, message: &Message) {
        if let Some(reply) = message.reply.clone() {
            // Whoever asks hears of it by the time that passes.
            let _ = self.client.publish(reply, Bytes::new()).await;
        }
    }

    /// Sends something through the server to this node itself: what was subscribed to before stands when it comes back.
    pub(super) async fn probe(&self) -> Result<(), BrokerError> {
        let asked = self.client.request(self.names.probe(&self.node), Bytes::new());
        let answer = tokio::time::timeout(self.patience, asked).await;
        answer.map_err(|_| unavailable("no answer in time"))?.map_err(unavailable)?;
        self.heard_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Probes for ever; makes a connection anew that carries nothing.
    pub(super) async fn watch(self: Arc<Self>, every: Duration, lost: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.probe().await {
                Ok(()) => {
                    let was_ill = self.ill.lock().take();
                    if let Some(reason) = was_ill {
                        tracing::info!(reason, "NATS carries again");
                        self.doubt_all();
                    }
                }
                Err(error) => {
                    let silent_ms = self.elapsed_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed));
                    if Duration::from_millis(silent_ms) >= lost {
                        self.ail(error.to_string());
                        // It may be away anyway.
                        let _ = self.client.force_reconnect().await;
                    }
                }
            }
        }
    }

    /// The connection is known to be broken.
    pub(super) fn ail(&self, reason: String) {
        let before = self.ill.lock().replace(reason.clone());
        if before.is_none() {
            tracing::warn!(reason, "NATS is away");
        }
    }

    /// Everything that was announced may have been missed. Told once what was subscribed to stands again.
    pub(super) async fn repair(&self) {
        if self.probe().await.is_ok() {
            *self.ill.lock() = None;
        }
        self.doubt_all();
    }

    fn doubt_all(&self) {
        let channels: Vec<Channel> = self.ears.lock().keys().cloned().collect();
        channels.into_iter().for_each(|channel| self.outlets.doubt(&Target::Channel(channel)));
    }

    /// Runs something that nobody waits for, from any thread.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    pub(super) fn health(&self) -> BrokerHealth {
        let reason = self.ill.lock().clone();
        reason.map_or(BrokerHealth::Up, |reason| BrokerHealth::Down { reason })
    }

    pub(super) fn listen(self: &Arc<Self>, channel: &Channel) {
        let (stands, is_standing) = watch::channel(false);
        let task = self.runtime.spawn(self.clone().hear(channel.clone(), stands)).abort_handle();
        let old = self.ears.lock().insert(channel.clone(), Ear { task, stands: is_standing });
        if let Some(old) = old {
            old.task.abort();
        }
    }

    pub(super) fn unlisten(&self, channel: &Channel) {
        if let Some(ear) = self.ears.lock().remove(channel) {
            // The subscription ends with it.
            ear.task.abort();
        }
    }

    /// Hears nothing any more.
    pub(super) fn end(&self) {
        self.ears.lock().drain().for_each(|(_, ear)| ear.task.abort());
    }

    async fn hear(self: Arc<Self>, channel: Channel, stands: watch::Sender<bool>) {
        let subject = self.names.announcements(&names::of(&channel));
        let target = Target::Channel(channel);
        loop {
            let heard: Result<Subscriber, _> = self.client.subscribe(subject.clone()).await;
            if let Ok(mut heard) = heard {
                let ears = self.clone();
                let stands = stands.clone();
                let told = target.clone();
                let probing = tokio::spawn(async move {
                    while ears.probe().await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    stands.send_replace(true);
                });
                while let Some(message) = heard.next().await {
                    if is_mark(message.headers.as_ref()) {
                        self.outlets.doubt(&told);
                    } else {
                        self.outlets.take(&told, message.payload);
                    }
                }
                probing.abort();
            }
            // The client is closed, or a subject could not be subscribed to: both pass or end us.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(super) async fn listening(&self, channel: &Channel) -> Result<(), BrokerError> {
        if let BrokerHealth::Down { reason } = self.health() {
            return Err(BrokerError::Unavailable(reason));
        }
        let Some(mut stands) = self.ears.lock().get(channel).map(|ear| ear.stands.clone()) else { return Ok(()) };
        let waited = tokio::time::timeout(self.patience, stands.wait_for(|stands| *stands)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(unavailable("it is not listened to any more")),
            Err(_) => Err(unavailable("it is not heard in time")),
        }
    }
}
