//! NATS with JetStream as the broker of many nodes.
//!
//! What is kept is in streams ([`bank`]): a subject for each channel's entries, and a subject with one message for each record. Writes are
//! made only where nobody else has written since the look before them, which is all that JetStream offers in the place of scripts. What is
//! announced goes over plain subjects ([`ear`]); entries are announced by the server itself, as it keeps them. docs/operations.md tells what
//! this broker promises, and what not.

mod bank;
mod ear;
mod generations;
mod history;
mod names;
mod occupancy;
mod presence;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{Client, RequestErrorKind};
use async_nats::{ConnectOptions, Event, HeaderMap, jetstream};
use bytes::Bytes;
use parking_lot::Mutex;
use talewire_proto::{Channel, Entry, Epoch, Publication};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::between::{orders, outlets, packing};
use crate::occupancy::Doubts;
use crate::{BrokerError, BrokerHealth, BrokerSettings, Control, NodeId, WakeUp};
use bank::{Bank, Put, Shelf, number, unavailable};
use ear::Ears;
use names::{Names, Record};
pub(crate) use occupancy::Ledger;
use outlets::Outlets;
pub use settings::NatsSettings;

/// How long a node that clears away another keeps the others from doing the same.
const CLEARING_MS: u64 = 30_000;

mod said {
    pub(super) const OWNER: &str = "Tw-Owner";
    pub(super) const UNTIL: &str = "Tw-Until";
}

/// The NATS backend.
pub(crate) struct Nats {
    pub(crate) history: history::Histories,
    pub(crate) presence: presence::Presence,
    pub(crate) generations: generations::Generations,
    pub(crate) outlets: Arc<Outlets>,
    settings: Arc<BrokerSettings>,
    node: NodeId,
    client: Client,
    bank: Arc<Bank>,
    ears: Arc<Ears>,
    pub(crate) tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(AbortHandle::abort);
        self.ears.end();
    }
}

/// What the library tells of the connection.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    connects: u64,
    losses: u64,
    is_away: bool,
}

async fn connect(settings: &NatsSettings, node: &NodeId) -> Result<(Client, watch::Receiver<Told>), BrokerError> {
    let (sender, told) = watch::channel(Told::default());
    let sender = Arc::new(sender);
    let answer = Duration::from_millis(settings.response_timeout_ms);
    let mut options = ConnectOptions::new()
        .name(format!("talewire-{node}"))
        .connection_timeout(answer)
        .request_timeout(Some(answer))
        .max_reconnects(None)
        .event_callback(move |event| {
            sender.send_modify(|told| match event {
                Event::Connected => (told.connects, told.is_away) = (told.connects + 1, false),
                Event::Disconnected | Event::Closed => told.is_away = true,
                Event::SlowConsumer(_) => told.losses += 1,
                _ => {}
            });
            std::future::ready(())
        });
    if let Some(password) = &settings.password {
        options = options.user_and_password(settings.username.clone(), password.reveal().to_owned());
    }
    if let Some(file) = &settings.tls_ca_file {
        options = options.add_root_certificates(file.into());
    }
    let client = options.connect(&settings.urls[..]).await.map_err(unavailable)?;
    Ok((client, told))
}

impl Nats {
    /// Connects, and makes the streams that are not there.
    pub(crate) async fn open(settings: &BrokerSettings, node: &NodeId) -> Result<Arc<Self>, BrokerError> {
        let nats = &settings.nats;
        if !Names::is_prefix(&nats.prefix) {
            return Err(unavailable("broker.nats.prefix: letters, digits, `_` and `-`"));
        }
        let answer = Duration::from_millis(nats.response_timeout_ms);
        let (client, told) = connect(nats, node).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(answer);
        let settings = Arc::new(settings.clone());
        let bank = Arc::new(Bank::new(context, &settings));
        bank.ensure().await?;
        let outlets = Arc::new(Outlets::new(node.clone(), settings.wakeups_waiting_max));
        let ears = Arc::new(Ears::new(client.clone(), bank.names.clone(), node.clone(), outlets.clone(), answer));
        let broker = Arc::new(Self {
            history: history::Histories::new(settings.clone(), bank.clone()),
            presence: presence::Presence::new(settings.clone(), bank.clone(), client.clone(), node.clone()),
            generations: generations::Generations::new(settings.clone(), bank.clone(), client.clone()),
            outlets,
            settings: settings.clone(),
            node: node.clone(),
            client,
            bank,
            ears: ears.clone(),
            tasks: Mutex::default(),
        });
        // Twice: the first shows what the server's time is.
        broker.presence.beat().await?;
        broker.presence.beat().await?;
        let mut tasks = ears.begin().await?;
        let (every, lost) = (Duration::from_millis(nats.probe_ms.max(1)), Duration::from_millis(nats.probe_lost_ms));
        tasks.push(tokio::spawn(ears.watch(every, lost)).abort_handle());
        tasks.push(tokio::spawn(follow(Arc::downgrade(&broker), told)).abort_handle());
        let beats = Duration::from_millis(settings.node_beat_ms.max(1));
        tasks.push(tokio::spawn(keep(Arc::downgrade(&broker), beats)).abort_handle());
        broker.tasks.lock().extend(tasks);
        Ok(broker)
    }

    /// Where this node's channels are written down for all nodes.
    pub(crate) fn ledger(self: &Arc<Self>) -> Ledger {
        let recent_ms = 2 * (self.settings.node_lease_ms + self.settings.node_beat_ms);
        Ledger::new(self.bank.clone(), Arc::downgrade(self), recent_ms)
    }

    /// Tells when NATS may have lost something.
    pub(crate) fn doubts(&self) -> watch::Receiver<Doubts> {
        self.presence.doubts()
    }

    pub(crate) fn health(&self) -> BrokerHealth {
        self.ears.health()
    }

    pub(crate) fn listen(&self, channel: &Channel) {
        self.ears.listen(channel);
    }

    pub(crate) fn unlisten(&self, channel: &Channel) {
        self.ears.unlisten(channel);
    }

    pub(crate) async fn listening(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.ears.listening(channel).await
    }

    pub(crate) async fn signal(&self, channel: &Channel, publication: &Publication) -> Result<(), BrokerError> {
        // While it is away the library would keep it for later, which nobody waits for.
        if let BrokerHealth::Down { reason } = self.health() {
            return Err(BrokerError::Unavailable(reason));
        }
        let message = outlets::signal_message(&packing::publication(publication));
        let subject = self.bank.names.announcements(&names::of(channel));
        self.client.publish(subject, message.into()).await.map_err(unavailable)
    }

    pub(crate) async fn announce(&self, channel: &Channel, epoch: &Epoch, entry: &Entry) {
        let subject = self.bank.names.announcements(&names::of(channel));
        let told = self.client.publish(subject, outlets::entry_message(epoch, entry).into()).await;
        if let Err(error) = told {
            tracing::debug!(%error, "an entry was not announced: hubs find it in the store");
        }
    }

    /// Every node takes its orders from NATS but this one: its server says at once whether it has room.
    pub(crate) async fn control(&self, control: Control) -> Result<(), BrokerError> {
        let Some(order) = orders::write(&self.node, &control, false) else {
            return Err(unavailable("orders carry no filters"));
        };
        if let BrokerHealth::Down { reason } = self.health() {
            return Err(BrokerError::Unavailable(reason));
        }
        self.client.publish(self.bank.names.everybody(), order).await.map_err(unavailable)?;
        // Without a server there are no connections here, and nothing is left undone.
        let taken = self.outlets.controls().is_none_or(|sink| sink(control));
        if taken { Ok(()) } else { Err(unavailable("a thread has no room for more orders")) }
    }

    pub(crate) async fn post(&self, node: &NodeId, letter: Bytes) -> Result<bool, BrokerError> {
        match self.client.request(self.bank.names.letters(node), letter).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    pub(crate) async fn depart(&self) {
        if let Err(error) = self.presence.depart().await {
            tracing::warn!(%error, "this node could not take its leave: the others find it gone when its lease ends");
        }
    }

    /// Takes or keeps a lease. It ends by the server's clock, as every node knows it.
    pub(crate) async fn lease(&self, name: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        let subject = self.bank.names.record(Record::Lease, &names::token(name));
        let found = self.bank.last(Shelf::Records, &subject).await?;
        let now_ms = self.bank.now_ms();
        let is_others = found.as_ref().is_some_and(|found| {
            let owner = found.headers.get(said::OWNER).map(|owner| owner.as_str().to_owned());
            owner.as_deref() != Some(self.node.as_str()) && now_ms < number(&found.headers, said::UNTIL).unwrap_or(0)
        });
        if is_others {
            return Ok(false);
        }
        let mut headers = HeaderMap::new();
        headers.insert(said::OWNER, self.node.as_str());
        headers.insert(said::UNTIL, now_ms.saturating_add(ttl_ms).to_string().as_str());
        let expected = found.map_or(0, |found| found.sequence);
        let put = self.bank.put(subject, headers, Bytes::new(), Some(expected)).await?;
        Ok(put != Put::Conflict)
    }

    pub(crate) async fn release(&self, name: &str) {
        let subject = self.bank.names.record(Record::Lease, &names::token(name));
        let release = async {
            let Some(found) = self.bank.last(Shelf::Records, &subject).await? else { return Ok(()) };
            if found.headers.get(said::OWNER).is_some_and(|owner| owner.as_str() == self.node.as_str()) {
                let mut headers = HeaderMap::new();
                headers.insert(said::UNTIL, "0");
                self.bank.put(subject.clone(), headers, Bytes::new(), Some(found.sequence)).await?;
            }
            Ok::<(), BrokerError>(())
        };
        if let Err(error) = release.await {
            tracing::debug!(%error, "a lease was not given back: it ends by itself");
        }
    }

    pub(crate) async fn spend(&self, mark: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        let subject = self.bank.names.record(Record::Mark, &names::token(mark));
        let found = self.bank.last(Shelf::Records, &subject).await?;
        let now_ms = self.bank.now_ms();
        if found.as_ref().is_some_and(|found| now_ms < number(&found.headers, said::UNTIL).unwrap_or(u64::MAX)) {
            return Ok(false);
        }
        let mut headers = HeaderMap::new();
        headers.insert(said::UNTIL, now_ms.saturating_add(ttl_ms).to_string().as_str());
        let expected = found.map_or(0, |found| found.sequence);
        Ok(self.bank.put(subject, headers, Bytes::new(), Some(expected)).await? != Put::Conflict)
    }

    pub(crate) fn keep_cursor(&self, positions: Vec<u8>) -> String {
        let cursor = crate::memory::random_text();
        let subject = self.bank.names.record(Record::Cursor, &cursor);
        let bank = self.bank.clone();
        let until_ms = bank.now_ms().saturating_add(self.settings.cursor_age_ms);
        self.ears.spawn(async move {
            let mut headers = HeaderMap::new();
            headers.insert(said::UNTIL, until_ms.to_string().as_str());
            // What could not be kept is found to be gone.
            let _ = bank.put(subject, headers, positions.into(), None).await;
        });
        cursor
    }

    pub(crate) async fn kept_cursor(&self, cursor: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        let subject = self.bank.names.record(Record::Cursor, &names::token(cursor));
        let found = self.bank.last(Shelf::Records, &subject).await?;
        let is_kept = |until_ms: u64| self.bank.now_ms() < until_ms;
        let found = found.filter(|found| number(&found.headers, said::UNTIL).is_some_and(is_kept));
        Ok(found.map(|found| found.payload.to_vec()))
    }

    pub(crate) fn wake(&self, wake: &WakeUp) {
        let (subject, body) = match wake {
            WakeUp::Jobs => (self.bank.names.jobs(), Bytes::new()),
            WakeUp::Cancel(generation) => (self.bank.names.everybody(), orders::write_cancel(generation)),
            WakeUp::Order(order) => (self.bank.names.everybody(), order.clone()),
        };
        let client = self.client.clone();
        self.ears.spawn(async move { drop(client.publish(subject, body).await) });
    }

    /// For tests: moves the clock by which this broker forgets.
    pub(crate) fn shift_clock(&self, by_ms: u64) {
        self.bank.shift_clock(by_ms);
    }

    /// Takes out what dead nodes have left, unless another node does.
    async fn clear_the_dead(&self) -> Result<(), BrokerError> {
        for dead in self.presence.dead().await? {
            if self.lease(&format!("clear-{dead}"), CLEARING_MS).await? {
                tracing::info!(node = dead, "a node is gone: who was present there is taken out");
                self.presence.clear(&dead).await?;
            }
        }
        Ok(())
    }
}

/// Follows what the library tells of the connection, until the broker is gone.
async fn follow(broker: std::sync::Weak<Nats>, mut told: watch::Receiver<Told>) {
    let mut before = *told.borrow_and_update();
    while told.changed().await.is_ok() {
        let now = *told.borrow_and_update();
        let Some(broker) = broker.upgrade() else { return };
        if now.is_away {
            broker.ears.ail("the connection is lost".to_owned());
        }
        if now.connects != before.connects || now.losses != before.losses {
            // Another server, or the same without what it had kept.
            if let Err(error) = broker.bank.ensure().await {
                tracing::warn!(%error, "the streams could not be looked at");
            }
            broker.history.forget().await;
            broker.presence.doubt();
            if let Err(error) = broker.presence.beat().await {
                tracing::warn!(%error, "this node could not say that it lives");
            }
            broker.ears.repair().await;
        }
        before = now;
    }
}

/// Beats until the broker is gone.
async fn keep(broker: std::sync::Weak<Nats>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(broker) = broker.upgrade() else { return };
        let beaten = async {
            broker.presence.beat().await?;
            broker.clear_the_dead().await
        };
        if let Err(error) = beaten.await {
            tracing::warn!(%error, "this node could not say that it lives");
        }
    }
}
