//! A master behind Sentinels that dies, and one that only stands still and comes back as somebody else's replica.

use std::sync::atomic::{AtomicBool, Ordering};

use talewire_stand::redis_sentinel::{MASTER_NAME, RedisSentinels};

use super::*;

fn settings(stand: &RedisSentinels) -> BrokerSettings {
    let mut settings = quick(stand.urls());
    settings.redis.mode = RedisMode::Sentinel;
    settings.redis.master_name = MASTER_NAME.to_owned();
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_follow_the_master() {
    let mut stand = RedisSentinels::start();
    let mut nodes = [node_with(&settings(&stand)).await, node_with(&settings(&stand)).await];
    let mut readers = [Reader::new("chat:a"), Reader::new("chat:a")];
    for node in &nodes {
        node.listen("chat:a").await;
    }
    let mut told = Vec::new();
    for n in 0..50 {
        told.push((publish_surely(&nodes[n % 2].broker, "chat:a", &n.to_string()).await, n.to_string()));
    }
    let master = stand.master().unwrap();
    // All of it is on both replicas, so that nothing may be lost.
    for (at, replica) in stand.servers.iter().enumerate() {
        if at != master {
            successors::follows(&stand.servers[master], replica);
        }
    }
    stand.servers[master].kill();
    let begun = Instant::now();
    for n in 50..100 {
        told.push((publish_surely(&nodes[n % 2].broker, "chat:a", &n.to_string()).await, n.to_string()));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // We may know before the Sentinels have told each other.
    wait_until(|| stand.master().is_some_and(|now| now != master)).await;
    for (node, reader) in nodes.iter_mut().zip(&mut readers) {
        node.wait_for_health(true).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while reader.doubts == 0 || reader.seen.len() < told.len() {
            assert!(Instant::now() < deadline, "{} of {}, {} doubts", reader.seen.len(), told.len(), reader.doubts);
            tokio::time::sleep(Duration::from_millis(5)).await;
            reader.catch_up(node).await;
        }
        for (position, words) in &told {
            assert_eq!(reader.seen.get(&position.offset), Some(words));
        }
    }
    let page = nodes[0].page("chat:a").await;
    assert!(told.iter().all(|(position, _)| is_true(&page, position)));
    assert_ne!(told[0].0.epoch, page.top.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stood_still_is_not_believed_when_it_comes_back() {
    let stand = RedisSentinels::start();
    let node = node_with(&settings(&stand)).await;
    publish_surely(&node.broker, "chat:a", "before").await;
    let master = stand.master().unwrap();
    stand.servers[master].process.pause();
    let during = publish_surely(&node.broker, "chat:a", "during").await;
    stand.servers[master].process.go_on();
    let after = publish_surely(&node.broker, "chat:a", "after").await;
    assert_eq!(after.offset, during.offset + 1);
    let page = node.page("chat:a").await;
    assert!(is_true(&page, &during) && is_true(&page, &after));
    let kept: Vec<String> = page.entries.iter().map(|entry| words(&entry.publication)).collect();
    assert_eq!(kept.iter().filter(|words| *words == "during").count(), 1, "{kept:?}");
}

fn has_two_replicas(server: &Server) -> bool {
    let says = talewire_stand::redis::say_all(server.port, &["INFO", "replication"]).unwrap();
    says[0].contains("role:master") && says[0].matches("state=online").count() == 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_failover_costs_almost_nothing_and_tells_the_rest() {
    let stand = RedisSentinels::start();
    // So rarely that only the Sentinels' own words can be in time.
    let mut settings = settings(&stand);
    settings.redis.servers_check_ms = 60_000;
    let nodes = [node_with(&settings).await, node_with(&settings).await];
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..2)
        .map(|at| {
            let (broker, stop) = (nodes[at].broker.clone(), stop.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let words = format!("{at}.{}", told.len());
                    told.push((publish_surely(&broker, "chat:a", &words).await, words));
                    let deadline = Duration::from_millis(3);
                    tokio::time::sleep(deadline).await;
                }
                told
            })
        })
        .collect();
    let deadline = Duration::from_millis(300);
    tokio::time::sleep(deadline).await;
    let master = stand.master().unwrap();
    assert_eq!(talewire_stand::redis::say(stand.ports[1], &["SENTINEL", "FAILOVER", MASTER_NAME]).unwrap(), "+OK");
    // Until the old master has become a replica, it would take what is written to it.
    wait_until(|| stand.master().is_some_and(|now| now != master && has_two_replicas(&stand.servers[now]))).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for publisher in publishers {
        told.extend(publisher.await.unwrap());
    }
    let last =
        [publish_surely(&nodes[0].broker, "chat:a", "x").await, publish_surely(&nodes[1].broker, "chat:a", "y").await];
    assert_eq!((last[1].offset, &last[1].epoch), (last[0].offset + 1, &last[0].epoch), "both write to one master");
    let page = nodes[0].page("chat:a").await;
    let kept: std::collections::BTreeMap<u64, String> =
        page.entries.iter().map(|entry| (entry.offset, words(&entry.publication))).collect();
    let mut lost = 0;
    for (position, words) in &told {
        if kept.get(&position.offset) != Some(words) {
            lost += 1;
            assert!(!is_true(&page, position), "{position:?} is lost and not told");
        }
    }
    assert!(lost <= 10, "{lost} of {} are lost", told.len());
}
