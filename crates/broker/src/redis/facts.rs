//! What the servers are and how they are set, for `talewire doctor`: settings in, one [`RedisFacts`] for each master out. It changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};

use super::answers::text;
use super::dial::{Address, Dialer};
use super::link::{Info, ask_info};
use super::names::SLOTS;
use super::sentinels::Sentinels;
use super::servers::slots_of;
use super::settings::{RedisMode, RedisSettings};
use crate::BrokerError;

/// How one master is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisFacts {
    /// Where it is.
    pub address: String,
    /// Its version, as it names it for clients of Redis.
    pub version: String,
    /// Whether it takes writes.
    pub is_master: bool,
    /// Replicas that are connected.
    pub replicas: u32,
    /// What it forgets when its memory is full (`maxmemory-policy`).
    pub eviction: String,
    /// The memory that it may use, in bytes; 0 for all.
    pub memory_bytes_max: u64,
    /// Whether it appends to a file what it is told (`appendonly`).
    pub appends: bool,
    /// When it makes sure that the file is on the disk (`appendfsync`); nothing if we may not ask.
    pub append_sync: Option<String>,
    /// Replicas without which it takes no writes (`min-replicas-to-write`); nothing if we may not ask.
    pub replicas_min: Option<u32>,
    /// Whether a slot without a server stops all others (`cluster-require-full-coverage`); nothing where there is no cluster, or if we may
    /// not ask.
    pub needs_all_slots: Option<bool>,
    /// How far its clock goes before ours, in milliseconds, give or take the way there.
    pub ahead_ms: i64,
}

/// Asks every master: what each says, or why it says nothing.
///
/// # Errors
/// [`BrokerError::Unavailable`] when none can be reached, with the reason.
pub async fn redis_facts(settings: &RedisSettings) -> Result<Vec<Result<RedisFacts, String>>, BrokerError> {
    let dialer = Arc::new(Dialer::new(settings)?);
    let unavailable = BrokerError::Unavailable;
    let addresses: BTreeMap<Address, u32> = match settings.mode {
        RedisMode::Single => [(dialer.seeds[0].clone(), 0)].into(),
        RedisMode::Sentinel => {
            let sentinels = Sentinels::new(dialer.clone(), &settings.master_name);
            [(sentinels.master().await.map_err(unavailable)?, 0)].into()
        }
        RedisMode::Cluster => slots_by_address(&dialer).await.map_err(unavailable)?,
    };
    let mut facts = Vec::with_capacity(addresses.len());
    for (address, slots) in addresses {
        let looking = look(&dialer, &address, settings.mode);
        let looked = tokio::time::timeout(dialer.timeout() * 2, looking).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("{address}: it does not answer")));
        facts.push(looked.map_err(|reason| match slots {
            0 => reason,
            slots => format!("{reason}; {slots} of {SLOTS} slots of the cluster are away with it"),
        }));
    }
    match facts.iter().find_map(|facts| facts.as_ref().err()) {
        Some(reason) if facts.iter().all(Result::is_err) => Err(unavailable(reason.clone())),
        _ => Ok(facts),
    }
}

/// The masters of a cluster with how many slots each has, from the first server in the settings that answers.
async fn slots_by_address(dialer: &Dialer) -> Result<BTreeMap<Address, u32>, String> {
    let mut last = String::new();
    for seed in &dialer.seeds {
        let asked = async {
            let mut connection = dialer.dial(seed, None).await?;
            slots_of(&mut connection, seed).await
        };
        match asked.await {
            Ok(slots) => {
                let mut addresses = BTreeMap::new();
                for (from, to, address) in slots {
                    *addresses.entry(address).or_insert(0) += u32::from(to) + 1 - u32::from(from);
                }
                return Ok(addresses);
            }
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

async fn look(dialer: &Dialer, address: &Address, mode: RedisMode) -> Result<RedisFacts, String> {
    let mut connection = dialer.dial(address, None).await?;
    let info = ask_info(&mut connection).await.map_err(|error| format!("{address}: {error}"))?;
    let append_sync = setting(&mut connection, "appendfsync").await;
    let replicas_min = setting(&mut connection, "min-replicas-to-write").await;
    let coverage = setting(&mut connection, "cluster-require-full-coverage").await;
    Ok(RedisFacts {
        address: address.to_string(),
        version: info.version().to_owned(),
        is_master: info.is_master(),
        replicas: info.number("connected_slaves:"),
        eviction: info.eviction().unwrap_or_default().to_owned(),
        memory_bytes_max: info.number("maxmemory:"),
        appends: info.value("aof_enabled:") == Some("1"),
        append_sync,
        replicas_min: replicas_min.and_then(|number| number.parse().ok()),
        needs_all_slots: coverage.filter(|_| mode == RedisMode::Cluster).map(|word| word == "yes"),
        ahead_ms: ahead_ms(&mut connection).await.ok_or_else(|| format!("{address}: it does not tell the time"))?,
    })
}

/// A setting of the server, if we may ask for it.
async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let mut question = cmd("CONFIG");
    question.arg("GET").arg(name);
    let answer = connection.send_packed_command(&question).await.and_then(Value::extract_error).ok()?;
    super::answers::list(answer).ok()?.into_iter().nth(1).and_then(|value| text(value).ok())
}

async fn ahead_ms(connection: &mut MultiplexedConnection) -> Option<i64> {
    let answer = connection.send_packed_command(&cmd("TIME")).await.and_then(Value::extract_error).ok()?;
    let mut parts = super::answers::list(answer).ok()?.into_iter().filter_map(|value| text(value).ok()?.parse().ok());
    let (seconds, micros): (i64, i64) = (parts.next()?, parts.next()?);
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(seconds * 1_000 + micros / 1_000 - i64::try_from(ours.as_millis()).ok()?)
}

impl Info {
    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.value(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}
