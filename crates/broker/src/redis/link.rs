//! One server's connection for commands: made, watched, and made again for as long as the broker lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use tokio::sync::watch;

use super::dial::{Address, Dialer};
use super::scripts::Scripts;
use super::sentinels::Sentinels;
use super::settings::RedisSettings;

/// The oldest version that has everything we use.
const OLDEST: u32 = 7;

/// Where the server of a link is.
pub(crate) enum Whereabouts {
    /// There.
    Fixed(Address),
    /// Where the Sentinels say that the master is.
    Sentinels(Arc<Sentinels>),
}

/// How a link is.
#[derive(Clone)]
pub(crate) enum State {
    /// There is no connection.
    Away {
        /// Since then.
        since: Instant,
        /// Why.
        reason: Arc<str>,
    },
    /// It stands.
    Here(Here),
}

/// A connection that stands.
#[derive(Clone)]
pub(crate) struct Here {
    /// Which of the link's connections, counted from 1.
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) connection: MultiplexedConnection,
}

/// A connection for commands that is made again when it breaks.
pub(crate) struct Link {
    dialer: Arc<Dialer>,
    pub(crate) whereabouts: Whereabouts,
    scripts: Arc<Scripts>,
    first_wait: Duration,
    longest_wait: Duration,
    state: watch::Sender<State>,
    /// Connections of all links that were made.
    made: Arc<AtomicU64>,
}

impl Link {
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        whereabouts: Whereabouts,
        scripts: Arc<Scripts>,
        settings: &RedisSettings,
        made: Arc<AtomicU64>,
    ) -> Self {
        let state = State::Away { since: Instant::now(), reason: "it is being connected to".into() };
        Self {
            dialer,
            whereabouts,
            scripts,
            first_wait: Duration::from_millis(settings.reconnect_wait_ms.max(1)),
            longest_wait: Duration::from_millis(settings.reconnect_wait_ms_max.max(1)),
            state: watch::Sender::new(state),
            made,
        }
    }

    /// How it is now and from now on.
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// How it is now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The connection, waited for until `deadline`; else why there is none.
    pub(crate) async fn connection(&self, deadline: tokio::time::Instant) -> Result<Here, Arc<str>> {
        if let State::Here(here) = &*self.state.borrow() {
            return Ok(here.clone());
        }
        let mut states = self.states();
        let wait = states.wait_for(|state| matches!(state, State::Here(_)));
        if let Ok(Ok(state)) = tokio::time::timeout_at(deadline, wait).await
            && let State::Here(here) = &*state
        {
            return Ok(here.clone());
        }
        match self.state() {
            State::Away { reason, .. } => Err(reason),
            State::Here(here) => Ok(here),
        }
    }

    /// Somebody found the connection with this number broken: it is given up and made again.
    pub(crate) fn broken(&self, number: u64, reason: &str) {
        self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Here(here) if here.number == number);
            if is_it {
                *state = State::Away { since: Instant::now(), reason: reason.into() };
            }
            is_it
        });
    }

    /// Keeps the connection, until the future is dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        let (mut number, mut wait) = (0, self.first_wait);
        loop {
            number += 1;
            match self.connect(number).await {
                Ok(here) => {
                    tracing::info!(address = %here.address, "connected to Redis");
                    wait = self.first_wait;
                    self.made.fetch_add(1, Ordering::Relaxed);
                    self.state.send_replace(State::Here(here));
                    let mut states = self.states();
                    // The link holds the sender itself, so that this cannot fail.
                    let _ = states.wait_for(|state| matches!(state, State::Away { .. })).await;
                    if let State::Away { reason, .. } = self.state() {
                        tracing::warn!(%reason, "the connection to Redis is gone");
                    }
                }
                Err(reason) => {
                    tracing::warn!(%reason, "Redis cannot be reached");
                    self.state.send_modify(|state| {
                        let since = match state {
                            State::Away { since, .. } => *since,
                            State::Here(_) => Instant::now(),
                        };
                        *state = State::Away { since, reason: reason.into() };
                    });
                }
            }
            tokio::time::sleep(half_by_chance(wait)).await;
            wait = (wait * 2).min(self.longest_wait);
        }
    }

    async fn connect(self: &Arc<Self>, number: u64) -> Result<Here, String> {
        let address = match &self.whereabouts {
            Whereabouts::Fixed(address) => address.clone(),
            Whereabouts::Sentinels(sentinels) => sentinels.master().await?,
        };
        let link = Arc::downgrade(self);
        let pushed = Box::new(move |info: redis::PushInfo| {
            if info.kind == redis::PushKind::Disconnection
                && let Some(link) = link.upgrade()
            {
                link.broken(number, "it was closed");
            }
        });
        let mut connection = self.dialer.dial(&address, Some(pushed)).await?;
        let look = async {
            let info = ask_info(&mut connection).await?;
            if !info.is_master() {
                return Err("it is not a master".to_owned());
            }
            if info.major() < OLDEST {
                return Err(format!("Redis {} is too old: {OLDEST}.0 or later is needed", info.version()));
            }
            warn_of_eviction(&address, &info);
            self.load(&mut connection).await
        };
        match tokio::time::timeout(self.dialer.timeout(), look).await {
            Ok(Ok(())) => {
                if let Whereabouts::Sentinels(sentinels) = &self.whereabouts {
                    sentinels.connected(&address);
                }
                Ok(Here { number, address, connection })
            }
            Ok(Err(reason)) => Err(format!("{address}: {reason}")),
            Err(_) => Err(format!("{address}: it does not answer")),
        }
    }

    /// Loads the scripts into the server.
    pub(crate) async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let scripts = self.scripts.all();
        let mut pipe = redis::Pipeline::new();
        for script in scripts.iter() {
            pipe.cmd("SCRIPT").arg("LOAD").arg(&script.text);
        }
        let answers =
            connection.send_packed_commands(&pipe, 0, scripts.len()).await.map_err(|error| error.to_string())?;
        match answers.into_iter().find_map(|answer| answer.extract_error().err()) {
            Some(error) => Err(format!("a script was refused: {error}")),
            None => Ok(()),
        }
    }
}

/// What a server says of itself.
pub(crate) struct Info(String);

impl Info {
    /// What stands behind a name with its colon.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim_end().strip_prefix(name))
    }

    pub(crate) fn is_master(&self) -> bool {
        self.value("role:") == Some("master")
    }

    pub(crate) fn version(&self) -> &str {
        self.value("redis_version:").unwrap_or("0")
    }

    /// What it forgets when its memory is full.
    pub(crate) fn eviction(&self) -> Option<&str> {
        self.value("maxmemory_policy:")
    }

    fn major(&self) -> u32 {
        self.version().split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// Asks a server about itself: all that it says unasked, since old versions take no list of what is wanted.
pub(crate) async fn ask_info(connection: &mut MultiplexedConnection) -> Result<Info, String> {
    let answer = connection.send_packed_command(&cmd("INFO")).await.and_then(Value::extract_error);
    match answer.map_err(|error| error.to_string())? {
        Value::BulkString(text) => Ok(Info(String::from_utf8_lossy(&text).into_owned())),
        Value::VerbatimString { text, .. } => Ok(Info(text)),
        _ => Err("it answers in an unknown way".to_owned()),
    }
}

fn warn_of_eviction(address: &Address, info: &Info) {
    if let Some(policy) = info.eviction().filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            %address, policy,
            "this Redis forgets keys when its memory is full: set maxmemory-policy to noeviction, or histories and presence will have holes"
        );
    }
}

/// A half of the wait, and as much of the other half as chance wants: those who lost one server do not come back in step.
pub(crate) fn half_by_chance(wait: Duration) -> Duration {
    wait / 2 + wait.mul_f64(fastrand::f64() / 2.0)
}
