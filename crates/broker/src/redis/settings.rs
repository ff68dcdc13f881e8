//! How Redis is reached, and the limits of what this node asks of it at once.

use serde::{Deserialize, Serialize, Serializer};

/// Which servers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisMode {
    /// One server.
    Single,
    /// A master and its replicas, watched by Sentinels.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// A password. Neither its `Debug` nor its serialised form shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Takes a password's text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the server that asks for it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("REDACTED")
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("REDACTED")
    }
}

/// Redis or Valkey as the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Which servers there are: `single`, `sentinel` or `cluster`.
    pub mode: RedisMode,
    /// Where they are: the server, the Sentinels, or some servers of the cluster; `rediss://` for TLS.
    pub urls: Vec<String>,
    /// What the Sentinels call the master.
    pub master_name: String,
    /// The ACL user; empty for the default user.
    pub username: String,
    /// The password of that user, or of the default user.
    pub password: Option<Password>,
    /// The password that the Sentinels ask for.
    pub sentinel_password: Option<Password>,
    /// A file with the certificates (PEM) that vouch for the servers, in the place of the system's.
    pub tls_ca_file: Option<String>,
    /// A file with this node's certificate (PEM), for servers that ask for one.
    pub tls_cert_file: Option<String>,
    /// A file with the key (PEM) of that certificate.
    pub tls_key_file: Option<String>,
    /// What the names of all keys and channels begin with: letters, digits and `_.:-`. Nodes with different prefixes do not know of each other.
    pub prefix: String,
    /// How long connecting and logging in may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a command waits for its answer, and for a connection, in milliseconds; then it fails.
    pub response_timeout_ms: u64,
    /// Commands that wait for an answer at once; further ones wait for one of them, as long as for an answer.
    pub in_flight_max: usize,
    /// The wait before the first try to connect again, in milliseconds; it doubles from try to try, and a half of it is chance.
    pub reconnect_wait_ms: u64,
    /// The longest such wait, in milliseconds.
    pub reconnect_wait_ms_max: u64,
    /// How long connections may be away before this node counts as cut off and is not ready, in milliseconds.
    pub down_after_ms: u64,
    /// Time between two probes of each connection that hears announcements, in milliseconds.
    pub probe_ms: u64,
    /// How long probes may stay away before such a connection counts as dead, in milliseconds.
    pub probe_lost_ms: u64,
    /// Time between two looks at who is the master or at the map of the cluster, in milliseconds.
    pub servers_check_ms: u64,
    /// Channels that one command subscribes to.
    pub subscribe_batch_max: usize,
    /// How long a position stays true that was told of a channel without a publication, in milliseconds; readers keep it alive.
    pub first_position_ms: u64,
    /// Wake-ups for jobs that are kept; the oldest go, and sweeps find their jobs.
    pub wakeups_kept_max: usize,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            master_name: "mymaster".to_owned(),
            username: String::new(),
            password: None,
            sentinel_password: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            prefix: "talewire".to_owned(),
            connect_timeout_ms: 2_000,
            response_timeout_ms: 2_000,
            in_flight_max: 8_192,
            reconnect_wait_ms: 50,
            reconnect_wait_ms_max: 2_000,
            down_after_ms: 1_000,
            probe_ms: 2_000,
            probe_lost_ms: 6_000,
            servers_check_ms: 5_000,
            subscribe_batch_max: 512,
            first_position_ms: 600_000,
            wakeups_kept_max: 1_000,
        }
    }
}
