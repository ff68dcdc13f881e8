//! Redis and PostgreSQL, if the configuration names them: whether they are there, keep what they acknowledge, and have the right time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use talewire_broker::{Broker, BrokerKind, NodeId};
use talewire_store::Store;

use super::Finding;
use crate::config::Config;

/// Clocks further apart than this confuse tokens and leases, in milliseconds.
const APART_MS_MAX: i64 = 2_000;

/// A subscriber that is cut off earlier than this loses more than it has to, in bytes.
const PUBSUB_BYTES_MIN: u64 = 33_554_432;

pub(super) async fn broker(config: &Config, patience: Duration) -> Vec<Finding> {
    if config.broker.kind == BrokerKind::InProcess {
        return vec![Finding::good("the broker is this process: one node alone")];
    }
    let told = async {
        let broker = Broker::open(&config.broker, &NodeId::new()).await?;
        let told = broker.told().await;
        broker.depart().await;
        told
    };
    match tokio::time::timeout(patience, told).await {
        Ok(Ok(Some(told))) => {
            let mut findings = redis(&told.settings);
            findings.push(clock("Redis", told.now_ms, now_ms()));
            findings
        }
        Ok(Ok(None)) => Vec::new(),
        Ok(Err(error)) => vec![Finding::wrong(error.to_string(), "start it, or correct the section [broker]")],
        Err(_) => vec![Finding::wrong("the broker does not answer", "start it, or correct the section [broker]")],
    }
}

fn redis(settings: &[(String, String)]) -> Vec<Finding> {
    let of = |name: &str| settings.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let mut findings = Vec::new();
    if settings.is_empty() {
        let what = "the Redis user may not ask for its settings (CONFIG GET)";
        return vec![Finding::better(what, "let it, or compare docs/operations.md by hand")];
    }
    findings.push(match of("maxmemory-policy") {
        "noeviction" => Finding::good("Redis forgets nothing when its memory is full (maxmemory-policy noeviction)"),
        other => Finding::wrong(
            format!("Redis forgets keys when its memory is full (maxmemory-policy {other})"),
            "CONFIG SET maxmemory-policy noeviction; else histories and presence have holes",
        ),
    });
    findings.push(match (of("appendonly"), of("appendfsync")) {
        ("yes", "always") => Finding::good("Redis syncs every write to disk (appendfsync always)"),
        ("yes", fsync) => Finding::good(format!(
            "Redis keeps its histories (appendonly yes, appendfsync {fsync}); a lost machine may lose their last second, and readers are told"
        )),
        _ => Finding::better(
            "Redis keeps nothing when it ends (appendonly no)",
            "appendonly yes; else its restart loses the history of history channels, and readers are told of gaps",
        ),
    });
    if let Some(max) = pubsub_bytes(of("client-output-buffer-limit")).filter(|max| *max < PUBSUB_BYTES_MIN) {
        findings.push(Finding::better(
            format!("Redis cuts off a node that is {max} bytes behind (client-output-buffer-limit pubsub)"),
            "CONFIG SET client-output-buffer-limit 'pubsub 33554432 8388608 60', or more",
        ));
    }
    if of("cluster-require-full-coverage") == "yes" && !of("min-replicas-to-write").is_empty() {
        findings.push(Finding::good(
            "in a cluster, one lost slot stops all of it (cluster-require-full-coverage yes); set no if others shall go on",
        ));
    }
    findings
}

/// The hard limit of subscribers in `normal 0 0 0 slave … pubsub HARD SOFT SECONDS`; nothing where there is none.
fn pubsub_bytes(limits: &str) -> Option<u64> {
    let mut words = limits.split_ascii_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    words.next()?.parse().ok().filter(|max| *max > 0)
}

pub(super) async fn store(config: &Config, patience: Duration) -> Vec<Finding> {
    if config.store.url.is_empty() {
        return vec![Finding::good("the store is SQLite: one node alone")];
    }
    let told = Store::ask_server(&config.store);
    match tokio::time::timeout(patience, told).await {
        Ok(Ok(told)) => postgres(&told, config.store.connections_max as u64),
        Ok(Err(error)) => vec![Finding::wrong(error.to_string(), "start PostgreSQL, or correct store.url")],
        Err(_) => vec![Finding::wrong("PostgreSQL does not answer", "start it, or correct store.url")],
    }
}

fn postgres(settings: &[(String, String)], connections: u64) -> Vec<Finding> {
    let of = |name: &str| settings.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let number = |name: &str| of(name).parse::<u64>().unwrap_or(0);
    let mut findings = Vec::new();
    for (name, why) in [
        ("fsync", "a machine that loses its power loses what was acknowledged, and perhaps the whole database"),
        ("full_page_writes", "a machine that loses its power may be left with broken pages"),
    ] {
        findings.push(match of(name) {
            "on" => Finding::good(format!("PostgreSQL has {name} on")),
            other => Finding::wrong(format!("PostgreSQL has {name} {other}"), format!("set it on: {why}")),
        });
    }
    let free = number("max_connections").saturating_sub(number("superuser_reserved_connections"));
    findings.push(if free < connections * 2 {
        Finding::better(
            format!("PostgreSQL takes {free} connections, and each node may open {connections}"),
            "max_connections of at least the number of nodes, and one more for a rolling upgrade, times store.connections_max",
        )
    } else {
        Finding::good(format!("PostgreSQL takes {free} connections: {} nodes of {connections}", free / connections.max(1)))
    });
    if let Ok(at_ms) = of("now_ms").parse() {
        findings.push(clock("PostgreSQL", at_ms, now_ms()));
    }
    findings
}

fn clock(whose: &str, theirs_ms: i64, ours_ms: i64) -> Finding {
    let apart_ms = (theirs_ms - ours_ms).abs();
    if apart_ms > APART_MS_MAX {
        return Finding::wrong(
            format!("the clocks of {whose} and of this machine are {apart_ms} ms apart"),
            "run a time service on both: tokens expire by this clock, leases by the other",
        );
    }
    Finding::good(format!("the clock of {whose} is right"))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Better, Good, Wrong};
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_redis_that_forgets_is_found() {
        let good = settings(&[
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
        ]);
        assert!(redis(&good).iter().all(|finding| finding.verdict == Good));
        let bad = settings(&[
            ("maxmemory-policy", "allkeys-lru"),
            ("appendonly", "no"),
            ("client-output-buffer-limit", "pubsub 1000 0 0"),
        ]);
        let verdicts: Vec<_> = redis(&bad).iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Wrong, Better, Better]);
        assert_eq!(redis(&[])[0].verdict, Better);
    }

    #[test]
    fn a_postgres_that_may_lose_data_is_found() {
        let told = |fsync| settings(&[("fsync", fsync), ("full_page_writes", "on"), ("max_connections", "100")]);
        assert!(postgres(&told("on"), 16).iter().all(|finding| finding.verdict == Good));
        assert_eq!(postgres(&told("off"), 16)[0].verdict, Wrong);
        assert_eq!(postgres(&told("on"), 60)[2].verdict, Better);
    }

    #[test]
    fn clocks_are_compared_both_ways() {
        assert_eq!(clock("Redis", 10_000, 11_000).verdict, Good);
        assert_eq!(clock("Redis", 10_000, 13_000).verdict, Wrong);
        assert_eq!(clock("Redis", 13_000, 10_000).verdict, Wrong);
    }
}
