//! How NATS is reached, and what is kept in it.

use serde::{Deserialize, Serialize};

use crate::Password;

/// NATS with JetStream as the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// Where its servers are; `tls://` for TLS.
    pub urls: Vec<String>,
    /// The user; empty for none.
    pub username: String,
    /// The user's password.
    pub password: Option<Password>,
    /// A file with the certificates (PEM) that vouch for the servers, beside the system's.
    pub tls_ca_file: Option<String>,
    /// What the names of all streams and subjects begin with: letters, digits, `_` and `-`. Nodes with different prefixes do not know of each other.
    pub prefix: String,
    /// How many servers of a cluster keep each message: 1, 3 or 5.
    pub replicas: usize,
    /// How long anything stays in a stream at most, in milliseconds; history that is to last longer goes.
    pub keep_ms: u64,
    /// How long a request waits for its answer, in milliseconds; then it fails.
    pub response_timeout_ms: u64,
    /// Time between two probes of the connection, in milliseconds.
    pub probe_ms: u64,
    /// How long a probe may take, in milliseconds; then the connection counts as dead and is made anew.
    pub probe_lost_ms: u64,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            username: String::new(),
            password: None,
            tls_ca_file: None,
            prefix: "talewire".to_owned(),
            replicas: 1,
            keep_ms: 2_592_000_000,
            response_timeout_ms: 2_000,
            probe_ms: 2_000,
            probe_lost_ms: 4_000,
        }
    }
}
