//! Redis and PostgreSQL, if the configuration names them: whether they are there, keep what they acknowledge, and have the right time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use talewire_broker::{Broker, BrokerError, BrokerKind, NodeId, NodeReport, RedisFacts, redis_facts};
use talewire_store::{Store, StoreError};

use super::Finding;
use crate::agreement;
use crate::config::Config;

/// Clocks further apart than this confuse tokens and leases, in milliseconds.
const APART_MS_MAX: i64 = 2_000;

pub(super) async fn broker(config: &Config, patience: Duration) -> Vec<Finding> {
    let told = match config.broker.kind {
        BrokerKind::InProcess => return vec![Finding::good("the broker is this process: one node alone")],
        // It has no settings that a client may see; whether it is there, the start of a node tells.
        BrokerKind::Redis => redis_facts(&config.broker.redis),
        BrokerKind::Nats => {
            let mut findings = vec![nats(config, patience).await];
            findings.extend(nodes(config, patience).await);
            return findings;
        }
    };
    match tokio::time::timeout(patience, told).await {
        Ok(Ok(servers)) => {
            let mut findings: Vec<_> = servers.iter().flat_map(one_redis).collect();
            findings.extend(nodes(config, patience).await);
            findings
        }
        Ok(Err(error)) => vec![Finding::wrong(error.to_string(), "start it, or correct the section [broker]")],
        Err(_) => vec![Finding::wrong("the broker does not answer", "start it, or correct the section [broker]")],
    }
}

/// Whether NATS takes us in and has JetStream; it tells no client how it syncs.
async fn nats(config: &Config, patience: Duration) -> Finding {
    let asked = async {
        let broker = Broker::open(&config.broker, &NodeId::new()).await?;
        broker.depart().await;
        Ok::<(), BrokerError>(())
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(())) => Finding::good("NATS is there, with JetStream"),
        Ok(Err(error)) => Finding::wrong(error.to_string(), "start it with --jetstream, or correct [broker.nats]"),
        Err(_) => Finding::wrong("the broker does not answer", "start it, or correct the section [broker]"),
    }
}

/// Whether the nodes that live are set as this configuration says. Without any, or without an answer, there is nothing to compare.
async fn nodes(config: &Config, patience: Duration) -> Vec<Finding> {
    let asked = async {
        let broker = Broker::open(&config.broker, &NodeId::new()).await?;
        let nodes = broker.nodes().await;
        broker.depart().await;
        nodes
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(nodes)) => compared(config, &nodes),
        _ => Vec::new(),
    }
}

fn compared(config: &Config, nodes: &[NodeReport]) -> Vec<Finding> {
    let Some(any) = nodes.first() else { return Vec::new() };
    let mut here = NodeReport { agreed: agreement::open(config), ..any.clone() };
    if let Ok(rules) = config.rules() {
        here.agreed.insert("namespaces".to_owned(), rules.digest().to_owned());
    }
    let differing: Vec<String> = nodes
        .iter()
        .filter_map(|node| {
            let parts: Vec<_> = here.differs_in(node).collect();
            (!parts.is_empty()).then(|| format!("{} in {}", node.name, parts.join(", ")))
        })
        .collect();
    if differing.is_empty() {
        return vec![Finding::good(format!("{} nodes live, and are set like this configuration", nodes.len()))];
    }
    vec![Finding::wrong(
        format!("nodes are set otherwise than this configuration: {}", differing.join("; ")),
        "give all nodes one configuration, and let them read it again: else a channel has two histories, or one node refuses whom another lets in",
    )]
}

fn one_redis(told: &Result<RedisFacts, String>) -> Vec<Finding> {
    match told {
        Ok(facts) => redis(facts),
        Err(reason) => vec![Finding::wrong(
            format!("some of the broker is not there: {reason}"),
            "start it again, or give every master a replica; nodes serve the other slots as long as most are there",
        )],
    }
}

fn redis(facts: &RedisFacts) -> Vec<Finding> {
    let at = format!("Redis {} at {}", facts.version, facts.address);
    let mut findings = vec![
        match facts.eviction.as_str() {
            "noeviction" => Finding::good(format!("{at} forgets nothing when its memory is full")),
            other => Finding::wrong(
                format!("{at} forgets keys when its memory is full (maxmemory-policy {other})"),
                "CONFIG SET maxmemory-policy noeviction; else histories and presence have holes",
            ),
        },
        match (facts.appends, facts.append_sync.as_deref()) {
            (true, Some("always")) => Finding::good(format!("{at} syncs every write to disk (appendfsync always)")),
            (true, Some("no")) => Finding::better(
                format!("{at} leaves it to the system when its file is on disk (appendfsync no)"),
                "appendfsync everysec; else a machine without power loses half a minute, and readers are told of gaps",
            ),
            (true, _) => Finding::good(format!(
                "{at} keeps its histories (appendonly yes); a machine without power may lose the last second, and readers are told"
            )),
            (false, _) => Finding::better(
                format!("{at} keeps nothing when it ends (appendonly no)"),
                "appendonly yes; else its restart loses the history of history channels, and readers are told of gaps",
            ),
        },
        clock(&at, facts.ahead_ms),
    ];
    if !facts.is_master {
        findings.push(Finding::wrong(
            format!("{at} is a replica"),
            "name the master, or the Sentinels and their master_name",
        ));
    }
    if facts.memory_bytes_max == 0 {
        findings.push(Finding::better(
            format!("{at} may take all memory of its machine (maxmemory 0)"),
            "set maxmemory: a full Redis refuses and goes on, one that the kernel kills does not",
        ));
    }
    if facts.replicas > 0 && facts.replicas_min == Some(0) {
        findings.push(Finding::better(
            format!("{at} goes on without its replicas (min-replicas-to-write 0)"),
            "min-replicas-to-write 1 and min-replicas-max-lag 2: what a master that is cut off acknowledges is lost",
        ));
    }
    if facts.needs_all_slots == Some(true) {
        findings.push(Finding::better(
            format!("one lost slot stops all of the cluster of {at} (cluster-require-full-coverage yes)"),
            "cluster-require-full-coverage no: the others go on",
        ));
    }
    findings
}

pub(super) async fn store(config: &Config, patience: Duration) -> Vec<Finding> {
    if config.store.url.is_empty() {
        return vec![Finding::good("the store is SQLite: one node alone")];
    }
    let told = Store::ask_server(&config.store);
    match tokio::time::timeout(patience, told).await {
        Ok(Ok(told)) => postgres(&told, config.store.connections_max as u64),
        Ok(Err(StoreError::Refused(why))) => vec![Finding::wrong(why, "use a newer PostgreSQL")],
        Ok(Err(error)) => vec![Finding::wrong(error.to_string(), "start PostgreSQL, or correct store.url")],
        Err(_) => vec![Finding::wrong("PostgreSQL does not answer", "start it, or correct store.url")],
    }
}

fn postgres(settings: &[(String, String)], connections: u64) -> Vec<Finding> {
    let of = |name: &str| settings.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let number = |name: &str| of(name).parse::<u64>().unwrap_or(0);
    let mut findings = vec![Finding::good(format!("PostgreSQL is version {}", of("server_version")))];
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
    if let Ok(at_ms) = of("now_ms").parse::<i64>() {
        findings.push(clock("PostgreSQL", at_ms - now_ms()));
    }
    findings
}

fn clock(whose: &str, ahead_ms: i64) -> Finding {
    if ahead_ms.abs() > APART_MS_MAX {
        return Finding::wrong(
            format!("the clocks of {whose} and of this machine are {} ms apart", ahead_ms.abs()),
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
        let good = RedisFacts {
            address: "10.0.0.5:6379".into(),
            version: "7.0.15".into(),
            is_master: true,
            replicas: 1,
            eviction: "noeviction".into(),
            memory_bytes_max: 1 << 30,
            appends: true,
            append_sync: Some("everysec".into()),
            replicas_min: Some(1),
            needs_all_slots: None,
            ahead_ms: 3,
        };
        assert!(redis(&good).iter().all(|finding| finding.verdict == Good), "{:?}", redis(&good));
        let bad = RedisFacts {
            eviction: "allkeys-lru".into(),
            appends: false,
            ahead_ms: 60_000,
            is_master: false,
            memory_bytes_max: 0,
            replicas_min: Some(0),
            needs_all_slots: Some(true),
            ..good
        };
        let verdicts: Vec<_> = redis(&bad).iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Wrong, Better, Wrong, Wrong, Better, Better, Better]);
    }

    #[test]
    fn a_postgres_that_may_lose_data_is_found() {
        let told = |fsync| settings(&[("fsync", fsync), ("full_page_writes", "on"), ("max_connections", "100")]);
        assert!(postgres(&told("on"), 16).iter().all(|finding| finding.verdict == Good));
        assert_eq!(postgres(&told("off"), 16)[1].verdict, Wrong);
        assert_eq!(postgres(&told("on"), 60)[3].verdict, Better);
    }

    #[test]
    fn nodes_that_are_set_otherwise_are_named() {
        let config = Config::default();
        let node = |name: &str, agreed| -> NodeReport {
            let mut report: NodeReport = serde_json::from_value(serde_json::json!({
                "id": name, "name": name, "version": "1", "started_ms": 0, "connections": 0, "subscriptions": 0,
                "channels": 0, "draining": false,
            }))
            .expect("a report");
            report.agreed = agreed;
            report
        };
        let mut other = agreement::all(&config, &[7; 32]);
        assert!(compared(&config, &[]).is_empty());
        let same = compared(&config, &[node("a", other.clone()), node("old", Default::default())]);
        assert_eq!(same, [Finding::good("2 nodes live, and are set like this configuration")]);
        other.insert("namespaces".into(), "other".into());
        other.insert("secrets".into(), "nobody can tell without the database".into());
        let differs = compared(&config, &[node("b", other)]);
        assert_eq!(differs[0].verdict, Wrong);
        assert!(differs[0].what.ends_with("b in namespaces"), "{}", differs[0].what);
    }

    #[test]
    fn clocks_are_compared_both_ways() {
        assert_eq!(clock("Redis", 1_000).verdict, Good);
        assert_eq!(clock("Redis", 3_000).verdict, Wrong);
        assert_eq!(clock("Redis", -3_000).verdict, Wrong);
    }
}
