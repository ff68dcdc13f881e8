//! The servers as one thing to ask: commands go to whoever has their slot, wait for connections, follow a cluster that moves, and end in time.
//!
//! Commands and names to listen to come in; answers and [`BrokerError`]s go out. One server and a master behind Sentinels are a map with one
//! place; a cluster's map is read again whenever a server says that something has moved.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::{Mutex, RwLock};
use redis::{Cmd, Value, cmd};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::answers::{list, text};
use super::dial::{Address, Dialer};
use super::ear::{Ear, EarId, Health};
use super::hearing::{Hearing, Unwanted};
use super::link::{Here, Link, State, Whereabouts};
use super::mending::{Kind, Mended};
use super::names::{Names, SLOTS, slot};
use super::scripts::{Script, Scripts};
use super::sentinels::Sentinels;
use super::settings::{RedisMode, RedisSettings};
use crate::between::outlets::Target;
use crate::{BrokerError, BrokerHealth, NodeId};

/// The wait before something is said again that a server could not take just now.
const AGAIN_AFTER: Duration = Duration::from_millis(30);

/// How long a command waits for the connection of a cluster's server, until it looks whether another one has its slot by now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What to do when an answer was lost, so that nobody knows whether the command was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Say it again: twice is as good as once.
    Repeat,
    /// Tell the caller.
    Fail,
}

/// All servers.
pub(crate) struct Servers {
    settings: RedisSettings,
    dialer: Arc<Dialer>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) names: Names,
    node: NodeId,
    hearing: Arc<Hearing>,
    map: RwLock<Arc<Map>>,
    /// The ears by their ids, the latest map's alone.
    ears: Mutex<EarId>,
    in_flight: Semaphore,
    astray: Arc<Notify>,
    /// Connections for commands that were made so far.
    made: Arc<AtomicU64>,
    pub(crate) mended: Mended,
    /// Since when servers of the cluster that are there refuse everything, because others are not.
    stopped: RwLock<Option<Instant>>,
}

/// Which server has which slot.
struct Map {
    servers: Vec<Arc<Server>>,
    /// The place of each slot's server, or nothing if there is but one server.
    places: Vec<u16>,
}

/// One server with its connections.
struct Server {
    address: Option<Address>,
    link: Arc<Link>,
    ear: Arc<Ear>,
    tasks: [AbortHandle; 2],
}

impl Server {
    /// What is wrong with it, and since when.
    fn fault(&self) -> Option<(Instant, Arc<str>)> {
        if let State::Away { since, reason } = self.link.state() {
            return Some((since, reason));
        }
        match &*self.ear.health().borrow() {
            Health::Deaf(since, reason) => Some((*since, reason.clone())),
            _ => None,
        }
    }
}

/// What is wrong with the servers.
struct Faults {
    /// Slots of a cluster whose server is away.
    slots: u16,
    /// Why the one that is away for longest is; nothing if none is.
    reason: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What came of saying a command once.
enum Said {
    Answered(Value),
    /// It was not carried out, and may be said again: there, if it was told where.
    Again {
        to: Option<Address>,
        ask: bool,
        reason: String,
    },
    /// Nobody knows whether it was carried out.
    Lost(String),
    Failed(BrokerError),
    /// A key is not what we write.
    WrongKind(String),
}

/// Why a command was not carried out.
enum Refused {
    WrongKind(String),
    Failed(BrokerError),
}

/// An answer, and whether it was given by a server that is only about to have the slot.
pub(crate) struct Answer {
    pub(crate) value: Value,
    pub(crate) astray: bool,
}

impl Refused {
    fn into_error(self) -> BrokerError {
        match self {
            Self::WrongKind(reason) => BrokerError::Unavailable(reason),
            Self::Failed(error) => error,
        }
    }
}

impl Servers {
    pub(crate) fn new(
        settings: &RedisSettings,
        node: &NodeId,
        hearing: Arc<Hearing>,
    ) -> Result<Arc<Self>, BrokerError> {
        let dialer = Arc::new(Dialer::new(settings)?);
        let sharded = settings.mode == RedisMode::Cluster;
        let servers = Self {
            settings: settings.clone(),
            dialer,
            scripts: Arc::new(Scripts::new(sharded)),
            names: Names::new(&settings.prefix),
            node: node.clone(),
            hearing,
            map: RwLock::new(Arc::new(Map { servers: Vec::new(), places: Vec::new() })),
            ears: Mutex::new(0),
            in_flight: Semaphore::new(settings.in_flight_max.clamp(1, Semaphore::MAX_PERMITS)),
            astray: Arc::new(Notify::new()),
            made: Arc::default(),
            mended: Mended::default(),
            stopped: RwLock::default(),
        };
        if !sharded {
            let whereabouts = match settings.mode {
                RedisMode::Sentinel => {
                    Whereabouts::Sentinels(Arc::new(Sentinels::new(servers.dialer.clone(), &settings.master_name)))
                }
                _ => Whereabouts::Fixed(servers.dialer.seeds[0].clone()),
            };
            let server = Arc::new(servers.connect(None, whereabouts));
            *servers.map.write() = Arc::new(Map { servers: vec![server], places: Vec::new() });
        }
        Ok(Arc::new(servers))
    }

    fn connect(&self, address: Option<Address>, whereabouts: Whereabouts) -> Server {
        let link = Arc::new(Link::new(
            self.dialer.clone(),
            whereabouts,
            self.scripts.clone(),
            &self.settings,
            self.made.clone(),
        ));
        let id = {
            let mut ears = self.ears.lock();
            *ears += 1;
            *ears
        };
        let (names, node, astray) = (self.names.clone(), self.node.clone(), self.astray.clone());
        let ear =
            Ear::new(id, self.dialer.clone(), link.clone(), self.hearing.clone(), names, node, &self.settings, astray);
        let ear = Arc::new(ear);
        let tasks = [tokio::spawn(link.clone().keep()).abort_handle(), tokio::spawn(ear.clone().keep()).abort_handle()];
        Server { address, link, ear, tasks }
    }

    fn map(&self) -> Arc<Map> {
        self.map.read().clone()
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.settings.mode == RedisMode::Cluster
    }

    /// How many connections for commands were made so far: another one may have met a server that has lost something.
    pub(crate) fn connections(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Where the server is that commands for this slot go to now, if it is connected.
    pub(crate) fn address_of(&self, slot: u16) -> Option<Address> {
        match self.map().server(slot)?.link.state() {
            State::Here(here) => Some(here.address),
            State::Away { .. } => None,
        }
    }

    /// Waits until every server is connected and heard, or says why one is not. A cluster most of which is there will do in the end.
    pub(crate) async fn ready(&self, within: Duration) -> Result<(), BrokerError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut reason = String::new();
        while tokio::time::Instant::now() < deadline {
            if self.is_sharded()
                && self.map().servers.is_empty()
                && let Err(error) = self.read_map().await
            {
                reason = error;
            }
            match self.faults(Duration::ZERO).reason {
                None => return Ok(()),
                Some(fault) if !self.map().servers.is_empty() => reason = fault,
                Some(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match self.health() {
            BrokerHealth::Partly { reason } => {
                tracing::warn!(reason, "this node starts without some of the cluster");
                Ok(())
            }
            _ => Err(BrokerError::Unavailable(reason)),
        }
    }

    /// What is wrong with connections that have been away for so long.
    fn faults(&self, patience: Duration) -> Faults {
        let map = self.map();
        if map.servers.is_empty() {
            return Faults { slots: SLOTS, reason: Some("no server of the cluster answers".to_owned()) };
        }
        if self.stopped.read().is_some_and(|since| since.elapsed() >= patience) {
            let reason = "the cluster is down: the servers that are there refuse everything";
            return Faults { slots: SLOTS, reason: Some(reason.to_owned()) };
        }
        let mut oldest: Option<(Instant, Arc<str>)> = None;
        let mut away = vec![false; map.servers.len()];
        for (server, away) in map.servers.iter().zip(&mut away) {
            let Some((since, reason)) = server.fault().filter(|(since, _)| since.elapsed() >= patience) else {
                continue;
            };
            *away = true;
            if oldest.as_ref().is_none_or(|(at, _)| since < *at) {
                oldest = Some((since, reason));
            }
        }
        let is_away = |place: &&u16| away.get(usize::from(**place)).copied().unwrap_or(true);
        let slots = match map.places.len() {
            0 if oldest.is_some() => SLOTS,
            0 => 0,
            _ => u16::try_from(map.places.iter().filter(is_away).count()).unwrap_or(SLOTS),
        };
        let reason = oldest.map(|(_, reason)| reason.to_string());
        Faults { slots, reason: reason.or_else(|| (slots > 0).then(|| "no server has them".to_owned())) }
    }

    pub(crate) fn health(&self) -> BrokerHealth {
        match self.faults(Duration::from_millis(self.settings.down_after_ms)) {
            Faults { reason: None, .. } => BrokerHealth::Up,
            Faults { slots, reason: Some(reason) } if slots <= SLOTS / 2 => {
                BrokerHealth::Partly { reason: format!("{slots} of {SLOTS} slots of the cluster are away: {reason}") }
            }
            Faults { reason: Some(reason), .. } => BrokerHealth::Down { reason },
        }
    }

    /// Slots that are away now; all of them where there is one server, and it is away.
    pub(crate) fn slots_away(&self) -> u16 {
        self.faults(Duration::from_millis(self.settings.down_after_ms)).slots
    }

    /// Whether what has this slot is away.
    pub(crate) fn away(&self, slot: u16) -> Option<String> {
        let patience = Duration::from_millis(self.settings.down_after_ms);
        match self.map().server(slot) {
            None => Some("no server of the cluster has this slot".to_owned()),
            Some(server) => {
                let fault = server.fault().filter(|(since, _)| since.elapsed() >= patience);
                fault.map(|(_, reason)| reason.to_string())
            }
        }
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.response_timeout_ms)
    }

    /// Calls a script on the server that has its keys.
    pub(crate) async fn call(
        &self,
        script: Script,
        keys: &[String],
        arguments: &[&[u8]],
        lost: Lost,
    ) -> Result<Answer, BrokerError> {
        let scripts = self.scripts.all();
        let mut command = cmd("EVALSHA");
        command.arg(&scripts[script as usize].hash).arg(keys.len()).arg(keys);
        for argument in arguments {
            command.arg(*argument);
        }
        self.ask_mending(keys, script.kinds(), &command, lost).await
    }

    /// Says a command about keys, each of one kind. One that is of another kind is no work of ours, and is taken away.
    async fn ask_mending(
        &self,
        keys: &[String],
        kinds: &[Kind],
        command: &Cmd,
        lost: Lost,
    ) -> Result<Answer, BrokerError> {
        let slot = slot(&keys[0]);
        match self.say_until(slot, command, lost).await {
            Err(Refused::WrongKind(_)) => {
                let mut mend = cmd("EVALSHA");
                mend.arg(&self.scripts.all()[Script::Mend as usize].hash).arg(keys.len()).arg(keys);
                mend.arg(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
                let mended = list(self.ask(slot, &mend, Lost::Repeat).await?.value)?;
                for key in &mended {
                    self.mended.note(&text(key.clone())?, "a key of another type", 1);
                }
                if !mended.is_empty() {
                    // What it stood in the place of is lost: with their next beat all nodes say again what they have put there.
                    let name = self.names.reports();
                    let mut count = cmd("HINCRBY");
                    count.arg(&name).arg("").arg(1);
                    self.tell(crate::redis::names::slot(&name), count).await;
                }
                self.ask(slot, command, lost).await
            }
            said => said.map_err(Refused::into_error),
        }
    }

    /// Says a command about one key of a kind.
    pub(crate) async fn ask_of(&self, key: &str, kind: Kind, command: &Cmd, lost: Lost) -> Result<Answer, BrokerError> {
        self.ask_mending(&[key.to_owned()], &[kind], command, lost).await
    }

    /// Says a command to the server that has its slot, again and again if need be, until it is answered or its time is up.
    pub(crate) async fn ask(&self, slot: u16, command: &Cmd, lost: Lost) -> Result<Answer, BrokerError> {
        self.say_until(slot, command, lost).await.map_err(Refused::into_error)
    }

    async fn say_until(&self, slot: u16, command: &Cmd, lost: Lost) -> Result<Answer, Refused> {
        // Whether something was said whose fate nobody knows.
        let mut is_lost = false;
        let failed = |reason: String, is_lost: bool| {
            let error = if is_lost { BrokerError::Unknown(reason) } else { BrokerError::Unavailable(reason) };
            Err(Refused::Failed(error))
        };
        let deadline = tokio::time::Instant::now() + self.timeout();
        let Ok(Ok(_permit)) = tokio::time::timeout_at(deadline, self.in_flight.acquire()).await else {
            return failed("too many commands wait for Redis".to_owned(), false);
        };
        let (mut to, mut by_asking) = (None, false);
        let mut last = String::new();
        loop {
            let said = match self.here(slot, to.as_ref(), deadline).await {
                Ok((link, here)) => self.say(&link, here, command, by_asking, deadline).await,
                Err(reason) => {
                    let reason = if last.is_empty() { reason.to_string() } else { last };
                    return failed(reason, is_lost);
                }
            };
            (to, by_asking, last) = match said {
                Said::Answered(value) => return Ok(Answer { value, astray: by_asking }),
                Said::Failed(error) => return Err(Refused::Failed(error)),
                Said::WrongKind(reason) => return Err(Refused::WrongKind(reason)),
                Said::Lost(reason) if lost == Lost::Fail => {
                    return failed(reason, true);
                }
                Said::Lost(reason) => {
                    is_lost = true;
                    (None, false, reason)
                }
                Said::Again { to, ask, reason } => (to, ask, reason),
            };
            if to.is_none() {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            if tokio::time::Instant::now() >= deadline {
                return failed(last, is_lost);
            }
        }
    }

    /// The link and its connection for a slot, or of the server that was named instead. In a cluster a server that is gone is waited for no
    /// longer than it takes until another one has its place.
    async fn here(
        &self,
        slot: u16,
        to: Option<&Address>,
        deadline: tokio::time::Instant,
    ) -> Result<(Arc<Link>, Here), Arc<str>> {
        loop {
            let map = self.map();
            let named = to.and_then(|to| map.servers.iter().find(|server| server.address.as_ref() == Some(to)));
            let Some(server) = named.or_else(|| map.server(slot)) else {
                self.astray.notify_one();
                return Err("no server of the cluster has this slot".into());
            };
            let link = server.link.clone();
            // Whoever has been away for long does not come back in a moment, and the others' commands want the room.
            if self.is_sharded()
                && let State::Away { since, reason } = link.state()
                && since.elapsed() > self.timeout()
            {
                self.astray.notify_one();
                return Err(reason);
            }
            let until =
                if self.is_sharded() { deadline.min(tokio::time::Instant::now() + LOOK_AGAIN) } else { deadline };
            match link.connection(until).await {
                Ok(here) => return Ok((link, here)),
                Err(reason) if tokio::time::Instant::now() >= deadline => return Err(reason),
                Err(_) => self.astray.notify_one(),
            }
        }
    }

    async fn say(
        &self,
        link: &Arc<Link>,
        mut here: Here,
        command: &Cmd,
        by_asking: bool,
        deadline: tokio::time::Instant,
    ) -> Said {
        let said = Instant::now();
        let answering = async {
            if !by_asking {
                return here.connection.send_packed_command(command).await;
            }
            let mut both = redis::Pipeline::new();
            both.cmd("ASKING");
            both.add_command(command.clone());
            let answers = here.connection.send_packed_commands(&both, 0, 2).await?;
            Ok(answers.into_iter().next_back().unwrap_or(Value::Nil))
        };
        let error = match tokio::time::timeout_at(deadline, answering).await {
            Err(_) => {
                // Whoever had waited long for a connection has not given this one its time.
                if said.elapsed() * 2 > self.timeout() {
                    link.broken(here.number, "it does not answer in time");
                }
                return Said::Lost("it does not answer in time".to_owned());
            }
            Ok(answer) => match answer.and_then(Value::extract_error) {
                Ok(value) => {
                    if self.stopped.read().is_some() {
                        *self.stopped.write() = None;
                    }
                    return Said::Answered(value);
                }
                Err(error) => error,
            },
        };
        let reason = error.to_string();
        let Some(code) = error.code() else {
            link.broken(here.number, &reason);
            return Said::Lost(reason);
        };
        let again = |to, ask| Said::Again { to, ask, reason: reason.clone() };
        match code {
            "NOSCRIPT" => {
                // Somebody has flushed the scripts, or the server was started anew behind an address that stayed.
                match tokio::time::timeout_at(deadline, link.load(&mut here.connection)).await {
                    Ok(Ok(())) => Said::Again { to: Some(here.address), ask: by_asking, reason },
                    _ => again(None, false),
                }
            }
            "MOVED" | "ASK" if !self.is_sharded() => Said::Failed(BrokerError::Unavailable(
                "this server belongs to a cluster: broker.redis.mode must say so".to_owned(),
            )),
            "MOVED" => {
                self.astray.notify_one();
                again(self.redirected(&error, &here), false)
            }
            "ASK" => {
                let to = self.redirected(&error, &here);
                let ask = to.is_some();
                again(to, ask)
            }
            "CLUSTERDOWN" | "MASTERDOWN" => {
                if reason.contains("cluster is down") {
                    self.stopped.write().get_or_insert_with(Instant::now);
                }
                self.astray.notify_one();
                again(None, false)
            }
            "READONLY" => {
                link.broken(here.number, "it is not a master any more");
                self.astray.notify_one();
                again(None, false)
            }
            "LOADING" | "BUSY" | "TRYAGAIN" => again(None, false),
            "WRONGTYPE" => Said::WrongKind(reason),
            "OOM" => Said::Failed(BrokerError::Full("the memory of Redis (maxmemory)")),
            _ => Said::Failed(BrokerError::Unavailable(reason)),
        }
    }

    /// Where a server has sent us, if we know that server; without a host it means itself, on another port.
    fn redirected(&self, error: &redis::RedisError, here: &Here) -> Option<Address> {
        let (address, _) = error.redirect_node()?;
        let to = match address.strip_prefix(':') {
            Some(port) => Address { host: here.address.host.clone(), port: port.parse().ok()? },
            None => Address::parse(address)?,
        };
        self.map().servers.iter().any(|server| server.address.as_ref() == Some(&to)).then_some(to)
    }

    /// Says a command without waiting for its answer; when there is no connection it is not said.
    pub(crate) fn tell(&self, slot: u16, mut command: Cmd) -> impl Future<Output = ()> + Send + use<> {
        let here = self.map().server(slot).map(|server| server.link.state());
        let patience = self.timeout();
        async move {
            if let Some(State::Here(mut here)) = here {
                command.set_no_response(true);
                // It waits only for a place in the queue of the connection.
                let _ = tokio::time::timeout(patience, here.connection.send_packed_command(&command)).await;
            }
        }
    }

    /// Puts a command into the queue of its server's connection and does not wait for anything; when there is no connection, or no room in
    /// the queue, it is not said.
    pub(crate) fn tell_now(&self, slot: u16, mut command: Cmd) {
        if let Some(State::Here(mut here)) = self.map().server(slot).map(|server| server.link.state()) {
            command.set_no_response(true);
            let _ = here.connection.send_packed_command(&command).now_or_never();
        }
    }

    /// Announces something by a name.
    pub(crate) fn announcement(&self, name: &str, bytes: &[u8]) -> Cmd {
        let mut command = cmd(if self.is_sharded() { "SPUBLISH" } else { "PUBLISH" });
        command.arg(name).arg(bytes);
        command
    }

    /// A name is listened to from now on.
    pub(crate) fn listen(&self, name: &Arc<str>, target: impl FnOnce() -> Target) {
        let map = self.map();
        let owner = map.server(slot(name)).map_or(0, |server| server.ear.id);
        let ear = self.hearing.want(name, target, owner);
        if let Some(server) = map.servers.iter().find(|server| server.ear.id == ear) {
            server.ear.look_at(name.clone());
        }
    }

    /// A name is listened to no more.
    pub(crate) fn unlisten(&self, name: &Arc<str>) {
        let map = self.map();
        let ear = |id| map.servers.iter().map(|server| &server.ear).find(|ear| ear.id == id);
        match self.hearing.unwant(name) {
            Some(Unwanted::Known(id)) => ear(id).into_iter().for_each(|ear| ear.look_at(name.clone())),
            Some(Unwanted::Unknown(id)) => ear(id).into_iter().for_each(|ear| ear.pass_over(name)),
            None => {}
        }
    }

    /// Waits until a name is heard.
    pub(crate) async fn listening(&self, name: &str) -> Result<(), BrokerError> {
        let Some(stands) = self.hearing.standing(name) else { return Ok(()) };
        if let Some(reason) = self.away(slot(name)) {
            return Err(BrokerError::Unavailable(reason));
        }
        match tokio::time::timeout(self.timeout(), stands).await {
            Ok(Ok(())) => Ok(()),
            // It is wanted no more, by whoever waits here too.
            Ok(Err(_)) => Err(BrokerError::Unavailable("it is not listened to any more".to_owned())),
            Err(_) => Err(BrokerError::Unavailable("announcements could not be subscribed to in time".to_owned())),
        }
    }

    /// Looks who is the master, and which server has which slot, until the future is dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        let listening = async {
            let sentinels = self.map().servers.first().and_then(|server| match &server.link.whereabouts {
                Whereabouts::Sentinels(sentinels) => Some(sentinels.clone()),
                Whereabouts::Fixed(_) => None,
            });
            if let Some(sentinels) = sentinels {
                sentinels.listen(self.astray.clone()).await;
            }
        };
        tokio::join!(listening, self.look_again_and_again());
    }

    async fn look_again_and_again(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(self.settings.servers_check_ms.max(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.astray.notified() => {}
            }
            match self.settings.mode {
                RedisMode::Single => {}
                RedisMode::Sentinel => self.check_master().await,
                RedisMode::Cluster => {
                    if let Err(reason) = self.read_map().await {
                        tracing::warn!(reason, "the map of the cluster cannot be read");
                    }
                    self.probe_what_is_left().await;
                }
            }
            // A map that changes all the time is not read all the time.
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Finds out whether the servers that are there go on without those that are not.
    async fn probe_what_is_left(&self) {
        if self.faults(Duration::ZERO).slots == 0 {
            return;
        }
        let here =
            (0..1_000).map(|n| self.names.lease(&format!("probe-{n}"))).find(|name| self.away(slot(name)).is_none());
        if let Some(name) = here {
            // What it says is noted where answers are.
            let _ = self.ask(slot(&name), cmd("EXISTS").arg(&name), Lost::Repeat).await;
        }
    }

    /// A connection to a master that the Sentinels have replaced looks as good as any.
    async fn check_master(&self) {
        let map = self.map();
        let Some(server) = map.servers.first() else { return };
        let (State::Here(here), Whereabouts::Sentinels(sentinels)) = (server.link.state(), &server.link.whereabouts)
        else {
            return;
        };
        if let Ok(master) = sentinels.master().await
            && master != here.address
        {
            server.link.broken(here.number, "the master is another one now");
        }
    }

    /// Reads the map of the cluster from the first server that answers, connects to servers that are new, and lets go those that have
    /// nothing any more.
    async fn read_map(&self) -> Result<(), String> {
        let mut reason = "no server of the cluster is known".to_owned();
        // One that stands still is not to keep us from asking the others.
        let patience = self.timeout() / 4;
        for link in self.map().servers.iter().map(|server| server.link.clone()) {
            let State::Here(here) = link.state() else { continue };
            let asking = tokio::spawn(ask_slots(link, here, self.timeout()));
            match tokio::time::timeout(patience, asking).await {
                Ok(Ok(Ok(slots))) => return self.take_map(slots),
                Ok(Ok(Err(error))) => reason = error,
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = "a server does not answer in time".to_owned(),
            }
        }
        // Nobody that we know answers: those in the settings may.
        for seed in &self.dialer.seeds {
            let asking = async {
                let mut connection = self.dialer.dial(seed, None).await?;
                slots_of(&mut connection, seed).await
            };
            match tokio::time::timeout(self.timeout() + self.dialer.timeout(), asking).await {
                Ok(Ok(slots)) => return self.take_map(slots),
                Ok(Err(error)) => reason = error,
                Err(_) => reason = format!("{seed}: it does not answer"),
            }
        }
        Err(reason)
    }

    fn take_map(&self, slots: Slots) -> Result<(), String> {
        if slots.is_empty() {
            return Err("the cluster has given out no slots".to_owned());
        }
        let old = self.map();
        let mut known: HashMap<Address, Arc<Server>> =
            old.servers.iter().filter_map(|server| Some((server.address.clone()?, server.clone()))).collect();
        let (mut servers, mut places): (Vec<Arc<Server>>, _) = (Vec::new(), vec![u16::MAX; usize::from(SLOTS)]);
        for (from, to, address) in slots {
            let place = servers.iter().position(|server| server.address.as_ref() == Some(&address));
            let place = place.unwrap_or_else(|| {
                let server = known.remove(&address).unwrap_or_else(|| {
                    Arc::new(self.connect(Some(address.clone()), Whereabouts::Fixed(address.clone())))
                });
                servers.push(server);
                servers.len() - 1
            });
            for slot in from..=to.min(SLOTS - 1) {
                places[usize::from(slot)] = u16::try_from(place).unwrap_or(u16::MAX);
            }
        }
        let map = Arc::new(Map { servers, places });
        *self.map.write() = map.clone();
        let ear_of = |name: &str| map.server(slot(name)).map_or(0, |server| server.ear.id);
        for (ear, name) in self.hearing.divide(ear_of) {
            if let Some(server) = map.servers.iter().find(|server| server.ear.id == ear) {
                server.ear.look_at(name);
            }
        }
        Ok(())
    }
}

impl Map {
    fn server(&self, slot: u16) -> Option<&Arc<Server>> {
        match self.places.get(usize::from(slot)) {
            None => self.servers.first(),
            Some(place) => self.servers.get(usize::from(*place)),
        }
    }
}

/// A range of slots, and where its master is.
type Slots = Vec<(u16, u16, Address)>;

/// Asks by a connection, which is given up if the answer takes too long.
async fn ask_slots(link: Arc<Link>, mut here: Here, within: Duration) -> Result<Slots, String> {
    match tokio::time::timeout(within, slots_of(&mut here.connection, &here.address)).await {
        Ok(slots) => slots,
        Err(_) => {
            link.broken(here.number, "it does not answer in time");
            Err(format!("{}: it does not answer in time", here.address))
        }
    }
}

/// The ranges of slots with their masters, as one server sees them.
pub(crate) async fn slots_of(
    connection: &mut redis::aio::MultiplexedConnection,
    asked: &Address,
) -> Result<Slots, String> {
    let answer = connection.send_packed_command(cmd("CLUSTER").arg("SLOTS")).await.and_then(Value::extract_error);
    let Value::Array(ranges) = answer.map_err(|error| format!("{asked}: {error}"))? else {
        return Err(format!("{asked}: it answers in an unknown way"));
    };
    let range = |value: &Value| {
        let Value::Array(parts) = value else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = &parts[..] else { return None };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            // It does not know its own name: it is where it was asked.
            _ => asked.host.clone(),
        };
        let address = Address { host, port: u16::try_from(*port).ok()? };
        Some((u16::try_from(*from).ok()?, u16::try_from(*to).ok()?, address))
    };
    let ranges: Option<Vec<_>> = ranges.iter().map(range).collect();
    ranges.ok_or_else(|| format!("{asked}: it answers in an unknown way"))
}
