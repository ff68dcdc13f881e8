//! Redis or Valkey as the broker of many nodes: one server, a master behind Sentinels, or a cluster.
//!
//! What must be one step is one script ([`scripts`]); what is announced comes by connections that only hear ([`ear`]) and goes
//! straight to the hub ([`outlets`]). Announcements are hints: whoever may have missed one is told so and reads. The library
//! speaks the protocol; which server has what, which connection stands and what was listened to is kept here ([`servers`], [`link`],
//! [`hearing`]), because each of these has to be able to say "I do not know".

mod answers;
mod dial;
mod ear;
mod facts;
mod generations;
mod hearing;
mod history;
mod link;
mod mending;
mod names;
mod occupancy;
mod presence;
mod roll;
mod scripts;
mod sentinels;
mod servers;
mod settings;
#[cfg(test)]
mod tests;
mod wakeups;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::cmd;
use talewire_proto::{Channel, Entry, Epoch, Publication};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::between::outlets::{Outlets, Target};
use crate::between::{orders, outlets, packing};
use crate::nodes::Signs;
use crate::occupancy::Doubts;
use crate::{BrokerError, BrokerHealth, BrokerSettings, Control, NodeId, NodeReport, WakeUp};
pub use facts::{RedisFacts, redis_facts};
use hearing::Hearing;
use mending::Kind;
use names::slot;
pub(crate) use occupancy::Ledger;
use scripts::Script;
use servers::{Lost, Servers};
pub use settings::{Password, RedisMode, RedisSettings};

/// How long a node that clears away another keeps the others from doing the same.
const CLEARING_MS: u64 = 30_000;

/// The Redis backend.
pub(crate) struct Redis {
    pub(crate) history: history::Histories,
    pub(crate) presence: Arc<presence::Presence>,
    pub(crate) generations: generations::Generations,
    pub(crate) outlets: Arc<Outlets>,
    settings: Arc<BrokerSettings>,
    node: NodeId,
    servers: Arc<Servers>,
    pulse: Arc<Pulse>,
    pub(crate) tasks: Mutex<Vec<AbortHandle>>,
}

/// The signs of life of this node.
struct Pulse {
    servers: Arc<Servers>,
    roll: Arc<roll::Roll>,
    presence: Arc<presence::Presence>,
    /// The mastership, and what was mended, as of the last beat.
    past: Mutex<Option<(String, String)>>,
    /// Connections that were made, when they were last counted.
    connections: AtomicU64,
    beating: tokio::sync::Mutex<()>,
    doubts: watch::Sender<Doubts>,
    signs: Signs,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(AbortHandle::abort);
    }
}

impl Redis {
    /// Connects; gives up when no server can be reached within the time that connecting and an answer may take.
    pub(crate) async fn open(settings: &BrokerSettings, node: &NodeId) -> Result<Self, BrokerError> {
        let settings = Arc::new(settings.clone());
        let outlets = Arc::new(Outlets::new(node.clone(), settings.wakeups_waiting_max));
        let patience = Duration::from_millis(settings.redis.response_timeout_ms);
        let hearing = Arc::new(Hearing::new(outlets.clone(), patience));
        let servers = Servers::new(&settings.redis, node, hearing)?;
        let roll = Arc::new(roll::Roll::new(node, settings.node_lease_ms));
        let presence = presence::Presence::new(settings.presence_per_channel_max, servers.clone(), roll.clone());
        let presence = Arc::new(presence);
        let pulse = Arc::new(Pulse {
            servers: servers.clone(),
            roll,
            presence: presence.clone(),
            past: Mutex::default(),
            connections: AtomicU64::new(0),
            beating: tokio::sync::Mutex::default(),
            doubts: watch::Sender::default(),
            signs: Signs::new(settings.node_beat_ms),
        });
        let redis = Self {
            history: history::Histories::new(settings.clone(), servers.clone()),
            presence,
            generations: generations::Generations::new(settings.clone(), servers.clone()),
            outlets: outlets.clone(),
            settings: settings.clone(),
            node: node.clone(),
            servers: servers.clone(),
            pulse: pulse.clone(),
            tasks: Mutex::default(),
        };
        redis.tasks.lock().push(tokio::spawn(servers.clone().watch()).abort_handle());
        let (letters, everybody) = (servers.names.letters(node), servers.names.everybody());
        let connecting = Duration::from_millis(settings.redis.connect_timeout_ms);
        servers.ready(connecting + patience).await?;
        servers.listen(&letters.as_str().into(), || Target::Letters);
        servers.listen(&everybody.as_str().into(), || Target::Everybody);
        let heard = async {
            servers.listening(&letters).await?;
            servers.listening(&everybody).await?;
            pulse.beat().await
        };
        match (heard.await, servers.health()) {
            // What names and signs of life need may be with a server of the cluster that is away.
            (Err(error), BrokerHealth::Partly { .. }) => {
                tracing::warn!(%error, "other nodes do not know of this one yet")
            }
            (heard, _) => heard?,
        }
        let beats = pulse.clone().keep(Duration::from_millis(settings.node_beat_ms.max(1)));
        let reading = wakeups::read(servers, outlets);
        redis.tasks.lock().extend([tokio::spawn(beats).abort_handle(), tokio::spawn(reading).abort_handle()]);
        Ok(redis)
    }

    /// Where this node's channels are written down for all nodes.
    pub(crate) fn ledger(&self) -> Ledger {
        let recent_ms = 2 * (self.settings.node_lease_ms + self.settings.node_beat_ms);
        Ledger::new(self.servers.clone(), self.pulse.roll.clone(), recent_ms)
    }

    /// Tells when Redis may have lost something.
    pub(crate) fn doubts(&self) -> watch::Receiver<Doubts> {
        self.pulse.doubts.subscribe()
    }

    pub(crate) fn health(&self) -> BrokerHealth {
        match (self.servers.health(), self.pulse.signs.fault()) {
            (BrokerHealth::Up, Some(reason)) => BrokerHealth::Down { reason },
            // They need a slot that is away: the others serve all the same.
            (BrokerHealth::Partly { reason }, Some(more)) => {
                BrokerHealth::Partly { reason: format!("{reason}; {more}") }
            }
            (health, _) => health,
        }
    }

    /// Slots of a cluster that are away.
    pub(crate) fn slots_away(&self) -> u16 {
        self.servers.slots_away()
    }

    /// Keys and members that were no work of ours and are out of the way.
    pub(crate) fn mended(&self) -> u64 {
        self.servers.mended.count()
    }

    pub(crate) fn listen(&self, channel: &Channel) {
        let name = self.servers.names.channel(channel).into();
        self.servers.listen(&name, || Target::Channel(channel.clone()));
    }

    pub(crate) fn unlisten(&self, channel: &Channel) {
        self.servers.unlisten(&self.servers.names.channel(channel).into());
    }

    pub(crate) async fn listening(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.servers.listening(&self.servers.names.channel(channel)).await
    }

    pub(crate) async fn signal(&self, channel: &Channel, publication: &Publication) -> Result<(), BrokerError> {
        let message = outlets::signal_message(&packing::publication(publication));
        self.announce_by(&self.servers.names.channel(channel), &message).await.map(drop)
    }

    pub(crate) async fn announce(&self, channel: &Channel, epoch: &Epoch, entry: &Entry) {
        let name = self.servers.names.channel(channel);
        let announcement = self.servers.announcement(&name, &outlets::entry_message(epoch, entry));
        self.servers.tell(slot(&name), announcement).await;
    }

    /// Announces something; says how many have heard it on the server that took it.
    async fn announce_by(&self, name: &str, message: &[u8]) -> Result<i64, BrokerError> {
        let announcement = self.servers.announcement(name, message);
        let answer = self.servers.ask(slot(name), &announcement, Lost::Repeat).await?;
        answers::integer(&answer.value)
    }

    /// Every node takes its orders from Redis but this one: its server says at once whether it has room.
    pub(crate) async fn control(&self, control: Control) -> Result<(), BrokerError> {
        let Some(order) = orders::write(&self.node, &control, false) else {
            return Err(BrokerError::Unavailable("orders carry no filters".to_owned()));
        };
        self.announce_by(&self.servers.names.everybody(), &order).await?;
        // Without a server there are no connections here, and nothing is left undone.
        let taken = self.outlets.controls().is_none_or(|sink| sink(control));
        if taken { Ok(()) } else { Err(BrokerError::Unavailable("a thread has no room for more orders".into())) }
    }

    pub(crate) async fn post(&self, node: &NodeId, letter: &Bytes) -> Result<bool, BrokerError> {
        Ok(self.announce_by(&self.servers.names.letters(node), letter).await? > 0)
    }

    pub(crate) async fn beat(&self, report: &NodeReport) -> Result<(), BrokerError> {
        self.pulse.roll.departed.store(false, Ordering::Relaxed);
        self.pulse.roll.report(report);
        self.pulse.beat().await
    }

    pub(crate) async fn depart(&self) {
        self.pulse.roll.departed.store(true, Ordering::Relaxed);
        let _beating = self.pulse.beating.lock().await;
        let departed = async {
            self.presence.depart().await?;
            self.pulse.roll.strike(&self.servers, self.pulse.roll.stamp()).await
        };
        if let Err(error) = departed.await {
            tracing::warn!(%error, "this node could not take its leave: the others find it gone when its lease ends");
        }
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        self.pulse.roll.reports(&self.servers).await
    }

    pub(crate) async fn lease(&self, name: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        let ttl = ttl_ms.max(1).to_string();
        let keys = [self.servers.names.lease(name)];
        let arguments = [self.node.as_str().as_bytes(), ttl.as_bytes()];
        let answer = self.servers.call(Script::Lease, &keys, &arguments, Lost::Repeat).await?;
        Ok(answers::integer(&answer.value)? == 1)
    }

    pub(crate) async fn release(&self, name: &str) {
        let keys = [self.servers.names.lease(name)];
        // What could not be given back ends by itself.
        let _ = self.servers.call(Script::Release, &keys, &[self.node.as_str().as_bytes()], Lost::Repeat).await;
    }

    pub(crate) async fn spend(&self, mark: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        let name = self.servers.names.mark(mark);
        let mut command = cmd("SET");
        command.arg(&name).arg("").arg("NX").arg("PX").arg(ttl_ms.max(1));
        // Whoever does not know whether the mark is spent must not take it for unspent.
        let answer = self.servers.ask(slot(&name), &command, Lost::Fail).await?;
        Ok(!matches!(answer.value, redis::Value::Nil))
    }

    pub(crate) fn keep_cursor(&self, positions: &[u8]) -> String {
        let cursor = crate::memory::random_text();
        let name = self.servers.names.cursor(&cursor);
        let mut command = cmd("SET");
        command.arg(&name).arg(positions).arg("PX").arg(self.settings.cursor_age_ms.max(1));
        self.servers.tell_now(slot(&name), command);
        cursor
    }

    pub(crate) async fn kept_cursor(&self, cursor: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        let name = self.servers.names.cursor(cursor);
        let answer = self.servers.ask_of(&name, Kind::Text, cmd("GET").arg(&name), Lost::Repeat).await?;
        match answer.value {
            redis::Value::Nil => Ok(None),
            value => answers::bytes(value).map(|positions| Some(positions.to_vec())),
        }
    }

    pub(crate) fn wake(&self, wake: &WakeUp) {
        match wake {
            WakeUp::Jobs => wakeups::wake(&self.servers),
            WakeUp::Cancel(generation) => self.tell_everybody(&orders::write_cancel(generation)),
            WakeUp::Order(order) => self.tell_everybody(order),
        }
    }

    fn tell_everybody(&self, what: &[u8]) {
        let name = self.servers.names.everybody();
        self.servers.tell_now(slot(&name), self.servers.announcement(&name, what));
    }

    /// For tests: scripts forget by a clock that goes before the server's by so much.
    pub(crate) fn shift_clock(&self, by_ms: u64) {
        self.servers.scripts.shift(by_ms);
    }
}

impl Pulse {
    /// Gives a sign of life; finds out whether Redis has lost something, and who has died.
    async fn beat(&self) -> Result<(), BrokerError> {
        let _beating = self.beating.lock().await;
        if self.roll.departed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let connections = self.servers.connections();
        let is_report = self.roll.has_report();
        let seen = self.roll.beat(&self.servers).await;
        self.signs.note(seen.as_ref().map(drop), is_report);
        let seen = seen?;
        let now = (seen.mastership, seen.mended);
        let is_new = self.past.lock().replace(now.clone()) != Some(now);
        if self.connections.swap(connections, Ordering::Relaxed) != connections || is_new || !seen.was_known {
            self.presence.unsettle();
            self.doubts.send_modify(|doubts| {
                doubts.losses += 1;
                doubts.lapses += u64::from(!seen.was_known);
            });
        }
        // This node is known to live: what else fails is tried again with the next beat, and keeps nothing else back.
        if let Err(error) = self.presence.settle().await {
            tracing::warn!(%error, "who is present here could not all be said again");
        }
        for dead in seen.dead {
            if let Err(error) = self.clear(&dead).await {
                tracing::warn!(%error, node = dead, "who was present on a dead node could not all be taken out");
            }
        }
        Ok(())
    }

    /// Clears away what a dead node has left, unless another node does.
    async fn clear(&self, dead: &str) -> Result<(), BrokerError> {
        let keys = [self.servers.names.lease(&format!("clear-{dead}"))];
        let ttl = CLEARING_MS.to_string();
        let arguments = [self.roll.stamp().as_bytes(), ttl.as_bytes()];
        let leased = self.servers.call(Script::Lease, &keys, &arguments, Lost::Repeat).await?;
        if answers::integer(&leased.value)? != 1 {
            return Ok(());
        }
        tracing::info!(node = dead, "a node is gone: who was present there is taken out");
        self.presence.clear(dead).await?;
        self.roll.strike(&self.servers, dead).await
    }

    /// Beats until the future is dropped.
    async fn keep(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = self.beat().await {
                tracing::warn!(%error, "this node could not say that it lives");
            }
        }
    }
}
