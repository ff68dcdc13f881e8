//! A Redis cluster for all cases one after the other, since it takes seconds to start: each case has a prefix of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use talewire_stand::redis_cluster::RedisCluster;

use super::{Stand, listening_to_all, opened};
use crate::{BrokerKind, BrokerSettings, NodeId, RedisMode, RedisSettings};

/// The cluster of the moment. Cases are given a function, which cannot bring it along.
static CLUSTER: Mutex<Option<Arc<RedisCluster>>> = Mutex::new(None);

/// Stops the cluster at the end, also when a case fails.
pub(super) struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Starts the cluster.
pub(super) fn redis_cluster() -> Running {
    let cluster = Arc::new(tokio::task::block_in_place(|| RedisCluster::start(3, 0)));
    *CLUSTER.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    Running
}

/// What a case needs.
pub(super) fn case(settings: BrokerSettings) -> Stand {
    static CASES: AtomicU64 = AtomicU64::new(0);
    let cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).clone().expect("it runs");
    let prefix = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
    let redis = RedisSettings { mode: RedisMode::Cluster, urls: cluster.urls(), prefix, ..RedisSettings::default() };
    let settings = BrokerSettings { kind: BrokerKind::Redis, redis, ..settings };
    let node = NodeId::new();
    let broker = opened(&settings, &node);
    let (clock, shifted) = (broker.clone(), AtomicU64::new(0));
    let pass_ms = move |by_ms| {
        // What the servers themselves forget, and what scripts forget.
        cluster.servers.iter().for_each(|server| server.pass_ms(by_ms));
        clock.shift_clock(shifted.fetch_add(by_ms, Ordering::Relaxed) + by_ms);
    };
    let another = move |node: &NodeId| opened(&settings, node);
    listening_to_all(Stand::of(broker, node, Box::new(another), Box::new(pass_ms)))
}
