//! A bounded pool of connections: made when needed, kept while whole, thrown away after any doubt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::Connection;
use super::failure::{self, Failure, Tried};
use super::tls;
use crate::{StoreError, StoreSettings};

/// After a failed attempt to connect, others are told the same for this long instead of knocking too.
const DOWN_FOR: Duration = Duration::from_millis(100);

/// The oldest PostgreSQL that tests run against.
const VERSION_MIN: u32 = 15;

/// The advisory lock that every session of a server shares, so that whoever wants the database alone sees them.
const IN_USE_LOCK: i64 = 0x7461_6c65_7769_7265;

/// How sessions are called; with a name behind it those of a node.
pub(super) const PROGRAM: &str = "talewire";

/// How to reach the database, and what every session is told first.
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
    connect_time: Duration,
    session: String,
    /// For people.
    place: String,
}

/// Reads an address strictly. No reason repeats it: it may hold a password.
fn parsed(url: &str) -> Result<Config, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("must begin with postgres://".into());
    }
    let config: Config = url.parse().map_err(|error| format!("cannot be used: {}", failure::sentence(&error)))?;
    let named = config.get_hosts().iter().any(|host| !matches!(host, Host::Tcp(name) if name.is_empty()));
    if !named && config.get_hostaddrs().is_empty() {
        return Err("names no host".into());
    }
    if config.get_ports().contains(&0) {
        return Err("has port 0, which nobody listens on".into());
    }
    Ok(config)
}

/// What is wrong with an address.
pub(crate) fn address_problem(url: &str) -> Option<String> {
    parsed(url).err()
}

impl Address {
    pub(super) fn new(settings: &StoreSettings) -> Result<Self, StoreError> {
        let wrong = |reason| StoreError::Unavailable(format!("store.url {reason}"));
        let mut config = parsed(settings.url.reveal()).map_err(wrong)?;
        if !settings.url.reveal().contains("sslmode=") {
            config.ssl_mode(if is_here(&config) { SslMode::Disable } else { SslMode::Require });
        }
        if config.get_application_name().is_none() {
            config.application_name(PROGRAM);
        }
        let connect_time = Duration::from_millis(settings.acquire_ms_max);
        let operation_time = Duration::from_millis(settings.operation_ms_max);
        config.connect_timeout(connect_time).tcp_user_timeout(operation_time);
        // The kernel counts in whole seconds here.
        let second = Duration::from_secs(1);
        config.keepalives_idle(operation_time.max(second)).keepalives_interval((operation_time / 4).max(second));
        config.keepalives_retries(3);
        let tls = tls::connector(&settings.tls_ca)?;
        Ok(Self { config, tls, connect_time, session: session(settings.operation_ms_max), place: settings.place() })
    }

    /// Calls sessions by a name, unless `store.url` calls them otherwise.
    pub(super) fn named(mut self, name: &str) -> Self {
        if !name.is_empty() && self.config.get_application_name() == Some(PROGRAM) {
            self.config.application_name(format!("{PROGRAM} {name}"));
        }
        self
    }

    /// A new session.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        match timeout(self.connect_time, self.connect_now()).await {
            Ok(connected) => connected,
            Err(_) => Err(StoreError::Unavailable(format!(
                "{} did not let us in within {} ms",
                self.place,
                self.connect_time.as_millis()
            ))),
        }
    }

    /// A new session of a server. A move or a restore, which have the database alone, do not let it in.
    pub(super) async fn connect_shared(&self) -> Result<Connection, StoreError> {
        let conn = self.connect().await?;
        match timeout(self.connect_time, share(&conn)).await {
            Ok(shared) => shared.map(|()| conn),
            Err(_) => Err(StoreError::Unavailable("PostgreSQL does not answer".into())),
        }
    }

    async fn connect_now(&self) -> Result<Connection, StoreError> {
        let not_there = |error: tokio_postgres::Error| {
            StoreError::Unavailable(format!("{}: {}", self.place, failure::sentence(&error)))
        };
        let (client, driver) = if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, driver) = self.config.connect(NoTls).await.map_err(not_there)?;
            new_enough(driver.parameter("server_version"))?;
            (client, tokio::spawn(until_closed(driver)))
        } else {
            let (client, driver) = self.config.connect(self.tls.clone()).await.map_err(not_there)?;
            new_enough(driver.parameter("server_version"))?;
            (client, tokio::spawn(until_closed(driver)))
        };
        let conn = Connection::new(client, driver.abort_handle());
        conn.plain(&self.session).await.map_err(Failure::into_error)?;
        Ok(conn)
    }
}

/// Refuses a server that is too old by what it says of itself, such as `15.8 (Debian 15.8-0+deb12u1)` or `18beta1`. One
/// that says nothing readable is believed to be new.
fn new_enough(version: Option<&str>) -> Result<(), StoreError> {
    let version = version.unwrap_or_default();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    match version[..digits].parse::<u32>() {
        Ok(major) if major < VERSION_MIN => Err(StoreError::Refused(format!(
            "PostgreSQL is version {version}, and talewire needs {VERSION_MIN} or later"
        ))),
        _ => Ok(()),
    }
}

/// Drives a connection. Why it ended is told to whoever waits for an answer; nobody else needs to know.
async fn until_closed(driver: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = driver.await {
        tracing::debug!(error = %failure::sentence(&error), "a connection to PostgreSQL has ended");
    }
}

/// Whether the server is this machine, so that nobody can listen on the way.
fn is_here(config: &Config) -> bool {
    let local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(local)
}

/// What makes a session ours. The commit is on disk when it is answered, whatever the server's own default is. A transaction
/// that its node has forgotten (it is paused, or its machine is gone) must not hold locks for ever.
fn session(operation_ms: u64) -> String {
    format!(
        "SET search_path = talewire; SET synchronous_commit = on; SET statement_timeout = {operation_ms};
         SET idle_in_transaction_session_timeout = {operation_ms}; SET client_connection_check_interval = 1000;
         SET tcp_user_timeout = {operation_ms}; SET client_min_messages = warning; SET jit = off;
         SET default_transaction_isolation = 'read committed'; SET bytea_output = hex; SET timezone = 'UTC'"
    )
}

/// Connections of one node.
pub(super) struct Pool {
    address: Address,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    down: Mutex<Option<(Instant, StoreError)>>,
}

/// A connection on loan. Dropped without [`Lease::give_back`], it is closed.
pub(super) struct Lease {
    conn: Connection,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(address: Address, connections_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.max(1)));
        Self { address, places, idle: Mutex::default(), down: Mutex::default() }
    }

    /// A connection that is not known to be broken. Waits for a limited time.
    pub(super) async fn take(&self) -> Result<Lease, StoreError> {
        let limit = self.address.connect_time;
        let place = timeout(limit, self.places.clone().acquire_owned()).await.map_err(|_| {
            StoreError::Unavailable(format!("no connection to PostgreSQL was free within {} ms", limit.as_millis()))
        })?;
        let place = place.map_err(|_| StoreError::Unavailable("it is closed".into()))?;
        while let Some(conn) = self.pop() {
            if !conn.is_closed() {
                return Ok(Lease { conn, _place: place });
            }
        }
        if let Some(error) = self.just_failed() {
            return Err(error);
        }
        match self.address.connect_shared().await {
            Ok(conn) => {
                *self.down.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(Lease { conn, _place: place })
            }
            Err(error) => {
                let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
                *down = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// How long [`Pool::take`] waits at most for each of its two things, a place and a connection.
    pub(super) fn acquire_time(&self) -> Duration {
        self.address.connect_time
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn just_failed(&self) -> Option<StoreError> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.as_ref().filter(|(at, _)| at.elapsed() < DOWN_FOR).map(|(_, error)| error.clone())
    }

    /// Gives a connection back that stands outside of any transaction.
    pub(super) fn give_back(&self, lease: Lease) {
        let Lease { conn, _place } = lease;
        if !conn.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }

    /// Closes what is idle: it has most likely lost its server.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Closes what is idle, and lets nobody in any more.
    pub(super) fn close(&self) {
        self.places.close();
        self.forget_idle();
    }
}

impl Lease {
    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }
}

/// Time for which sessions of those who have just ended may still be there, and how often it is looked.
const SETTLED: Duration = Duration::from_secs(2);
const SETTLED_EVERY: Duration = Duration::from_millis(50);

/// Takes the lock that says that a server uses the database.
async fn share(conn: &Connection) -> Result<(), StoreError> {
    if lock_when_settled(conn, "SELECT pg_try_advisory_lock_shared($1)").await.map_err(Failure::into_error)? {
        return Ok(());
    }
    Err(StoreError::Unavailable("a move or a restore has the database for itself at the moment".into()))
}

/// Takes the lock that says that no server uses the database, if that is so.
pub(super) async fn lock_alone(conn: &Connection) -> Tried<bool> {
    lock_when_settled(conn, "SELECT pg_try_advisory_lock($1)").await
}

/// Tries for [`IN_USE_LOCK`] until those who have just ended have let it go. Says whether it was got.
async fn lock_when_settled(conn: &Connection, tries: &str) -> Tried<bool> {
    let began = Instant::now();
    loop {
        if conn.row(tries, &[&IN_USE_LOCK]).await?.try_get(0)? {
            return Ok(true);
        }
        if began.elapsed() >= SETTLED {
            return Ok(false);
        }
        tokio::time::sleep(SETTLED_EVERY).await;
    }
}
