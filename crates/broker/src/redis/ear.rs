//! One server's connection that hears announcements: it subscribes to what [`Hearing`] wants, in batches, and proves by probes that what is
//! published comes through. Made again whenever it breaks, falls silent, or the commands go to another server.

use std::collections::{HashSet, VecDeque};
use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value, cmd};
use tokio::sync::{Notify, watch};

use super::dial::Dialer;
use super::hearing::{Asking, Hearing};
use super::link::{Here, Link, State, half_by_chance};
use super::names::Names;
use super::settings::RedisSettings;
use crate::NodeId;

/// Names an ear within this process.
pub(crate) type EarId = u64;

/// How long names gather before they are asked for together.
const GATHERING: Duration = Duration::from_millis(1);

/// Batches that wait for confirmation at once. Each has its place in the queue of the connection as soon as it is said, so that they go
/// out in their order.
pub(crate) const BATCHES_MAX: usize = 64;

/// A connection that hears announcements.
pub(crate) struct Ear {
    pub(crate) id: EarId,
    dialer: Arc<Dialer>,
    link: Arc<Link>,
    hearing: Arc<Hearing>,
    names: Names,
    node: NodeId,
    /// Whether names are heard by the server that has their slot, or anywhere.
    sharded: bool,
    settings: RedisSettings,
    /// Names that something is to be said about; all of them are in `hearing`.
    work: Mutex<HashSet<Arc<str>>>,
    wake: Notify,
    /// Which of the connections is the one that counts.
    current: AtomicU64,
    health: watch::Sender<Health>,
    /// Somebody should look which server has which slot.
    astray: Arc<Notify>,
}

/// Whether an ear hears.
#[derive(Debug, Clone)]
pub(crate) enum Health {
    /// A probe has come through lately.
    Hears,
    /// Not since then, and why.
    Deaf(Instant, Arc<str>),
}

/// What the connection of the moment has told so far; shared with the closure that takes its pushes.
struct Told {
    number: u64,
    probe: Arc<str>,
    ended: Notify,
    closed: std::sync::atomic::AtomicBool,
    /// Of all names together.
    confirmed: AtomicU64,
    probed: Mutex<Option<Instant>>,
}

/// What was said by the connection of the moment.
#[derive(Default)]
struct Asked {
    /// Names that were taken out of the ear's work and not asked for yet.
    work: VecDeque<Arc<str>>,
    /// Subscribes and unsubscribes, all together.
    count: u64,
    /// When batches were said, and the count after each; the front is what has not been confirmed for longest.
    unconfirmed: VecDeque<(Instant, u64)>,
}

impl Ear {
    #[allow(clippy::too_many_arguments, reason = "made in one place, of things that have no other name together")]
    pub(crate) fn new(
        id: EarId,
        dialer: Arc<Dialer>,
        link: Arc<Link>,
        hearing: Arc<Hearing>,
        names: Names,
        node: NodeId,
        settings: &RedisSettings,
        astray: Arc<Notify>,
    ) -> Self {
        let deaf = Health::Deaf(Instant::now(), "it is being connected to".into());
        Self {
            id,
            dialer,
            link,
            hearing,
            names,
            node,
            sharded: settings.mode == super::settings::RedisMode::Cluster,
            settings: settings.clone(),
            work: Mutex::default(),
            wake: Notify::new(),
            current: AtomicU64::new(0),
            health: watch::Sender::new(deaf),
            astray,
        }
    }

    /// Something is to be said about a name.
    pub(crate) fn look_at(&self, name: Arc<str>) {
        self.work.lock().insert(name);
        self.wake.notify_one();
    }

    /// Nothing is to be said about a name any more.
    pub(crate) fn pass_over(&self, name: &str) {
        self.work.lock().remove(name);
    }

    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Keeps the connection, until the future is dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        let first_wait = Duration::from_millis(self.settings.reconnect_wait_ms.max(1));
        let longest_wait = Duration::from_millis(self.settings.reconnect_wait_ms_max.max(1));
        let mut wait = first_wait;
        loop {
            let mut states = self.link.states();
            let Ok(State::Here(here)) =
                states.wait_for(|state| matches!(state, State::Here(_))).await.map(|s| s.clone())
            else {
                return;
            };
            let reason = self.hear(&here).await;
            self.current.fetch_add(1, Ordering::Relaxed);
            let was_well = matches!(*self.health.borrow(), Health::Hears);
            *self.work.lock() = self.hearing.broke_off(self.id).into_iter().collect();
            if was_well {
                wait = first_wait;
                self.health.send_replace(Health::Deaf(Instant::now(), reason.as_str().into()));
                tracing::warn!(address = %here.address, reason, "announcements by Redis are not heard any more");
            } else {
                self.health.send_modify(|health| {
                    if let Health::Deaf(_, known) = health {
                        *known = reason.as_str().into();
                    }
                });
            }
            tokio::time::sleep(half_by_chance(wait)).await;
            wait = (wait * 2).min(longest_wait);
        }
    }

    /// Hears by one connection until it ends; says why it did.
    async fn hear(self: &Arc<Self>, here: &Here) -> String {
        let number = self.current.fetch_add(1, Ordering::Relaxed) + 1;
        let told = Arc::new(Told {
            number,
            probe: self.names.probe(&self.node, number << 16 | self.id).into(),
            ended: Notify::new(),
            closed: false.into(),
            confirmed: AtomicU64::new(0),
            probed: Mutex::default(),
        });
        let pushed = {
            let (ear, told) = (Arc::downgrade(self), told.clone());
            Box::new(move |info: PushInfo| {
                if let Some(ear) = ear.upgrade() {
                    ear.pushed(&told, info);
                }
            })
        };
        let mut connection = match self.dialer.dial(&here.address, Some(pushed)).await {
            Ok(connection) => connection,
            Err(reason) => return reason,
        };
        let mut subscribe = cmd("SUBSCRIBE");
        subscribe.arg(&*told.probe);
        let probing = connection.send_packed_command(&subscribe);
        match tokio::time::timeout(self.dialer.timeout(), probing).await {
            Ok(Ok(Value::ServerError(error))) => return format!("it does not let us subscribe: {error:?}"),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not let us subscribe in time".to_owned(),
        }
        self.serve(here, &told, &connection).await
    }

    async fn serve(self: &Arc<Self>, here: &Here, told: &Arc<Told>, connection: &MultiplexedConnection) -> String {
        let begun = Instant::now();
        let lost_after = Duration::from_millis(self.settings.probe_lost_ms);
        let mut probes = tokio::time::interval(Duration::from_millis(self.settings.probe_ms.max(1)));
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asking = Asked::default();
        let mut states = self.link.states();
        loop {
            tokio::select! {
                () = told.ended.notified() => {}
                () = self.wake.notified() => {
                    tokio::time::sleep(GATHERING).await;
                    self.ask(told, connection, &mut asking).await;
                }
                _ = probes.tick() => self.probe(told),
                _ = looks.tick() => {}
                _ = states.changed() => {}
            }
            if told.closed.load(Ordering::Relaxed) {
                return "it was closed".to_owned();
            }
            if let State::Here(now) = &*states.borrow_and_update()
                && now.address != here.address
            {
                return "the master is another one now".to_owned();
            }
            let confirmed = told.confirmed.load(Ordering::Relaxed);
            let was_full = asking.unconfirmed.len() >= BATCHES_MAX;
            while asking.unconfirmed.front().is_some_and(|(_, count)| *count <= confirmed) {
                asking.unconfirmed.pop_front();
            }
            if was_full && asking.unconfirmed.len() < BATCHES_MAX {
                self.wake.notify_one();
            }
            if asking.unconfirmed.front().is_some_and(|(since, _)| since.elapsed() > lost_after) {
                return "it does not confirm subscriptions".to_owned();
            }
            if told.probed.lock().unwrap_or(begun).elapsed() > lost_after {
                return "probes do not come through".to_owned();
            }
        }
    }

    /// Says to the server what is to be said about names, as many batches as may wait for confirmation.
    async fn ask(self: &Arc<Self>, told: &Arc<Told>, connection: &MultiplexedConnection, asking: &mut Asked) {
        while asking.unconfirmed.len() < BATCHES_MAX {
            if asking.work.is_empty() {
                asking.work.extend(std::mem::take(&mut *self.work.lock()));
            }
            let count = asking.work.len().min(self.settings.subscribe_batch_max.max(1));
            if count == 0 {
                return;
            }
            let batch = self.hearing.asking(self.id, asking.work.drain(..count));
            let count = (batch.subscribe.len() + batch.unsubscribe.len()) as u64;
            if count > 0 {
                asking.count += count;
                asking.unconfirmed.push_back((Instant::now(), asking.count));
                self.say(told, connection, batch).await;
            }
        }
    }

    async fn say(self: &Arc<Self>, told: &Arc<Told>, connection: &MultiplexedConnection, asking: Asking) {
        let mut pipe = redis::Pipeline::new();
        let Asking { subscribe, unsubscribe } = asking;
        if self.sharded {
            // Names of one command would have to share a slot.
            for (word, names) in [("SUNSUBSCRIBE", &unsubscribe), ("SSUBSCRIBE", &subscribe)] {
                for name in names {
                    pipe.cmd(word).arg(&**name);
                }
            }
        } else {
            for (word, names) in [("UNSUBSCRIBE", &unsubscribe), ("SUBSCRIBE", &subscribe)] {
                if !names.is_empty() {
                    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                    pipe.cmd(word).arg(names);
                }
            }
        }
        let (ear, told, mut connection) = (self.clone(), told.clone(), connection.clone());
        let patience = Duration::from_millis(self.settings.probe_lost_ms);
        // What is confirmed comes as pushes; here only refusals are looked for.
        let mut saying = Box::pin(async move {
            let commands = pipe.len();
            let answering = connection.send_packed_commands(&pipe, 0, commands);
            // It must not keep a connection that is given up from being closed.
            let Ok(Ok(answers)) = tokio::time::timeout(patience, answering).await else { return };
            let mut errors = answers.into_iter().filter_map(|answer| answer.extract_error().err());
            if let Some(error) = errors.next() {
                let refused = 1 + errors.count() as u64;
                tracing::debug!(%error, refused, "Redis refused subscriptions");
                if ear.current.load(Ordering::Relaxed) == told.number {
                    told.confirmed.fetch_add(refused, Ordering::Relaxed);
                    ear.hearing.refused(ear.id, &subscribe);
                    ear.astray.notify_one();
                }
            }
        });
        // Begun here, which gives it its place in the queue: two tasks would race for it, and an old wish could come after a new one.
        if std::future::poll_fn(|context| Poll::Ready(saying.as_mut().poll(context))).await.is_pending() {
            tokio::spawn(saying);
        }
    }

    /// Publishes a probe by the connection for commands.
    fn probe(self: &Arc<Self>, told: &Arc<Told>) {
        let State::Here(mut here) = self.link.state() else { return };
        let (link, name) = (self.link.clone(), told.probe.clone());
        let patience = Duration::from_millis(self.settings.response_timeout_ms);
        tokio::spawn(async move {
            let mut publish = cmd("PUBLISH");
            publish.arg(&*name).arg("");
            let publishing = here.connection.send_packed_command(&publish);
            match tokio::time::timeout(patience, publishing).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => link.broken(here.number, &error.to_string()),
                Err(_) => link.broken(here.number, "it does not answer"),
            }
        });
    }

    /// Takes what the server pushes, on the task of the connection.
    fn pushed(&self, told: &Told, info: PushInfo) {
        if told.number != self.current.load(Ordering::Relaxed) {
            return;
        }
        let PushInfo { kind, data } = info;
        let mut data = data.into_iter();
        let name = match data.next() {
            Some(Value::BulkString(name)) => String::from_utf8(name).unwrap_or_default(),
            _ => String::new(),
        };
        match kind {
            PushKind::Message if name == *told.probe => {
                *told.probed.lock() = Some(Instant::now());
                if !matches!(*self.health.borrow(), Health::Hears) {
                    self.health.send_replace(Health::Hears);
                }
            }
            PushKind::Message | PushKind::SMessage => {
                if let Some(Value::BulkString(bytes)) = data.next() {
                    self.hearing.arrived(&name, bytes);
                }
            }
            PushKind::Subscribe if name == *told.probe => {
                self.wake.notify_one();
            }
            PushKind::Subscribe | PushKind::SSubscribe => {
                told.confirmed.fetch_add(1, Ordering::Relaxed);
                self.hearing.subscribed(self.id, &name);
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                if self.hearing.unsubscribed(self.id, &name) {
                    // The slot has moved to another server.
                    self.astray.notify_one();
                } else {
                    told.confirmed.fetch_add(1, Ordering::Relaxed);
                }
            }
            PushKind::Disconnection => {
                told.closed.store(true, Ordering::Relaxed);
                told.ended.notify_one();
            }
            _ => {}
        }
    }
}
