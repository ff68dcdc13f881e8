//! A master behind Sentinels that dies, and one that only stands still and comes back as somebody else's replica.

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
    assert_ne!(stand.master().unwrap(), master);
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
