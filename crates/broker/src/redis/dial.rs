//! Making connections: settings and an address in, a logged-in connection out. Called by `link`, `ear`, `wakeups` and `sentinels`.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, RedisConnectionInfo, TlsCertificates,
};

use super::ear::BATCHES_MAX;
use super::names::Names;
use super::settings::{Password, RedisMode, RedisSettings};
use crate::BrokerError;

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// From `host:port`, where the host may be an IPv6 address without brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        (!host.is_empty()).then(|| Some(Self { host: host.to_owned(), port: port.parse().ok()? }))?
    }
}

/// Makes connections.
pub(crate) struct Dialer {
    /// Of the servers.
    login: RedisConnectionInfo,
    /// Of the Sentinels.
    sentinel_login: RedisConnectionInfo,
    tls: Option<TlsCertificates>,
    is_tls: bool,
    timeout: Duration,
    /// Commands that wait to be written to one connection. Never so few that an ear's would not all have a place.
    in_flight_max: usize,
    /// The addresses in the settings.
    pub(crate) seeds: Vec<Address>,
}

/// Takes what the server pushes.
pub(crate) type Pushed = Box<dyn Fn(PushInfo) + Send + Sync>;

impl Dialer {
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, BrokerError> {
        let wrong = |text: String| BrokerError::Unavailable(text);
        if !Names::is_prefix(&settings.prefix) {
            return Err(wrong("broker.redis.prefix must be 1 to 64 letters, digits or any of _.:-".to_owned()));
        }
        let (mut seeds, mut is_tls, mut from_url) = (Vec::new(), false, RedisConnectionInfo::default());
        for url in &settings.urls {
            // The text may hold a password: it is in no message.
            let info = url.as_str().into_connection_info();
            let info = info.map_err(|_| wrong("broker.redis.urls has one that is not a Redis URL".to_owned()))?;
            match info.addr() {
                ConnectionAddr::Tcp(host, port) => seeds.push(Address { host: host.clone(), port: *port }),
                ConnectionAddr::TcpTls { host, port, .. } => {
                    is_tls = true;
                    seeds.push(Address { host: host.clone(), port: *port });
                }
                _ => return Err(wrong("broker.redis.urls takes redis:// and rediss:// alone".to_owned())),
            }
            if seeds.len() == 1 {
                from_url = info.redis_settings().clone();
            }
        }
        if seeds.is_empty() {
            return Err(wrong("broker.redis.urls is empty".to_owned()));
        }
        let is_sentinel = settings.mode == RedisMode::Sentinel;
        let plain = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let mut login = if is_sentinel { plain.clone() } else { from_url.clone().set_protocol(ProtocolVersion::RESP3) };
        if !settings.username.is_empty() {
            login = login.set_username(&settings.username);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(password.reveal());
        }
        let mut sentinel_login = if is_sentinel { from_url.set_protocol(ProtocolVersion::RESP3) } else { plain };
        if let Some(password) = &settings.sentinel_password {
            sentinel_login = sentinel_login.set_password(Password::reveal(password));
        }
        if is_tls {
            // Another part of the process may have chosen already; then its choice holds.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Ok(Self {
            login: login.set_skip_set_lib_name(),
            sentinel_login: sentinel_login.set_db(0).set_skip_set_lib_name(),
            tls: certificates(settings)?,
            is_tls,
            timeout: Duration::from_millis(settings.connect_timeout_ms),
            in_flight_max: settings.in_flight_max.max(BATCHES_MAX * 2),
            seeds,
        })
    }

    /// A connection to a server; what it pushes goes to `pushed`.
    pub(crate) async fn dial(
        &self,
        address: &Address,
        pushed: Option<Pushed>,
    ) -> Result<MultiplexedConnection, String> {
        self.dial_as(address, self.login.clone(), pushed).await
    }

    /// A connection to a Sentinel.
    pub(crate) async fn dial_sentinel(
        &self,
        address: &Address,
        pushed: Option<Pushed>,
    ) -> Result<MultiplexedConnection, String> {
        self.dial_as(address, self.sentinel_login.clone(), pushed).await
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn dial_as(
        &self,
        address: &Address,
        login: RedisConnectionInfo,
        pushed: Option<Pushed>,
    ) -> Result<MultiplexedConnection, String> {
        let said = |error: redis::RedisError| format!("{address}: {error}");
        let client = self.client(address, login).map_err(said)?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(self.in_flight_max);
        if let Some(pushed) = pushed {
            config = config.set_push_sender(move |info| {
                pushed(info);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        // Around all of it: logging in has no time limit of its own.
        let dialing = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(self.timeout, dialing).await {
            Ok(dialed) => dialed.map_err(said),
            Err(_) => Err(format!("{address}: no connection within {} ms", self.timeout.as_millis())),
        }
    }

    fn client(&self, address: &Address, login: RedisConnectionInfo) -> redis::RedisResult<Client> {
        let Address { host, port } = address.clone();
        // A partition without a word: the kernel gives up what was not acknowledged for so long.
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let addr = if self.is_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info: ConnectionInfo = addr.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(login);
        match &self.tls {
            Some(certificates) if self.is_tls => Client::build_with_tls(info, certificates.clone()),
            _ => Client::open(info),
        }
    }
}

fn certificates(settings: &RedisSettings) -> Result<Option<TlsCertificates>, BrokerError> {
    let read = |setting: &str, path: &Option<String>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| BrokerError::Unavailable(format!("broker.redis.{setting} ({path}): {error}"))),
    };
    let root_cert = read("tls_ca_file", &settings.tls_ca_file)?;
    let certificate = read("tls_cert_file", &settings.tls_cert_file)?;
    let key = read("tls_key_file", &settings.tls_key_file)?;
    let client_tls = match (certificate, key) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => {
            let both = "broker.redis.tls_cert_file and tls_key_file are set both or neither";
            return Err(BrokerError::Unavailable(both.to_owned()));
        }
    };
    Ok((root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}
