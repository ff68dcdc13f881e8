//! A cluster: everything works whichever server has it, slots that move take nothing with them, and a replica that takes over is found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use talewire_proto::{ClientId, ClientInfo};
use talewire_stand::redis_cluster::RedisCluster;

use super::*;
use crate::{Tell, WakeUp};

pub(super) fn settings(cluster: &RedisCluster) -> BrokerSettings {
    let mut settings = quick(cluster.urls());
    settings.redis.mode = RedisMode::Cluster;
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_whichever_server_has_it() {
    let cluster = RedisCluster::start(3, 0);
    let mut nodes = [node_with(&settings(&cluster)).await, node_with(&settings(&cluster)).await];
    let names: Vec<String> = (0..30).map(|n| format!("chat:{n}")).collect();
    for name in &names {
        nodes[1].listen(name).await;
    }
    let mut owners = BTreeMap::new();
    for name in &names {
        assert_eq!(nodes[0].publish(name, name).await.unwrap().position.offset, 1);
        *owners.entry(cluster.owner(cluster.slot(name)).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(owners.len(), 3, "all servers have some: {owners:?}");
    let mut heard = BTreeMap::new();
    while heard.len() < names.len() {
        let delivery = nodes[1].next().await;
        let Message::Entry { entry, .. } = delivery.message else { panic!("not an entry") };
        heard.insert(delivery.channel.to_string(), words(&entry.publication));
    }
    assert!(heard.iter().all(|(name, words)| name == words));
    let channels: Vec<_> = names.iter().map(|name| channel(name)).collect();
    assert_eq!(nodes[1].broker.tops(&channels).await.unwrap().len(), names.len());

    let info = ClientInfo { user: "ana".parse().unwrap(), ..ClientInfo::default() };
    let client: ClientId = "c".parse().unwrap();
    for name in &names {
        nodes[0].broker.enter(&channel(name), &client, &Arc::new(info.clone()), Tell::Subscribers).await.unwrap();
        assert!(matches!(nodes[1].next().await.message, Message::Join(_)));
        assert_eq!(nodes[1].broker.presence(&channel(name)).await.unwrap().len(), 1);
    }
    assert_eq!(nodes[0].broker.lease("prune", 60_000).await, Ok(true));
    assert_eq!(nodes[1].broker.lease("prune", 60_000).await, Ok(false));
    assert_eq!(nodes[0].broker.spend("mark", 60_000).await, Ok(true));
    assert_eq!(nodes[1].broker.spend("mark", 60_000).await, Ok(false));
    let (sender, mut letters) = mpsc::unbounded_channel();
    nodes[1].broker.letters_to(Arc::new(move |letter| drop(sender.send(letter))));
    assert_eq!(nodes[0].broker.post(&nodes[1].id, Bytes::from_static(b"x")).await, Ok(true));
    assert_eq!(letters.recv().await.unwrap(), b"x"[..]);
    let mut wakeups = nodes[1].broker.wakeups();
    let woken = tokio::time::timeout(Duration::from_secs(20), wakeups.recv());
    assert_eq!(woken.await.unwrap().unwrap(), WakeUp::Jobs);
    nodes[0].broker.wake(WakeUp::Jobs);
    assert_eq!(wakeups.recv().await.unwrap(), WakeUp::Jobs);
    let [one, mut two] = nodes;
    drop(one);
    for _ in &names {
        assert!(matches!(two.next().await.message, Message::Leave(_)), "its members go with the node");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_loses_nothing() {
    let cluster = RedisCluster::start(3, 0);
    let mut nodes = [node_with(&settings(&cluster)).await, node_with(&settings(&cluster)).await];
    let mut readers = [Reader::new("chat:moves"), Reader::new("chat:moves")];
    for node in &nodes {
        node.listen("chat:moves").await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (broker, stop) = (nodes[0].broker.clone(), stop.clone());
        tokio::spawn(async move {
            let mut told = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let words = told.len().to_string();
                let position = publish_surely(&broker, "chat:moves", &words).await;
                assert!(told.insert(position.offset, words).is_none());
            }
            told
        })
    };
    let slot = cluster.slot("chat:moves");
    for _ in 0..3 {
        let from = cluster.owner(slot).unwrap();
        let to = (from + 1) % 3;
        let doubts = readers.each_ref().map(|reader| reader.doubts);
        tokio::task::block_in_place(|| {
            // While the keys are there and the slot is here, entries are announced where nobody listens yet.
            cluster.move_slot(slot, from, to, std::thread::yield_now);
        });
        for ((node, reader), before) in nodes.iter_mut().zip(&mut readers).zip(doubts) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while reader.doubts == before {
                assert!(Instant::now() < deadline, "a slot has moved without a doubt");
                tokio::time::sleep(Duration::from_millis(2)).await;
                reader.catch_up(node).await;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let told = publisher.await.unwrap();
    assert!(told.len() > 20, "{}", told.len());
    let last = nodes[0].publish("chat:moves", "the end").await.unwrap().position;
    for (node, reader) in nodes.iter_mut().zip(&mut readers) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reader.seen.contains_key(&last.offset) {
            assert!(Instant::now() < deadline, "the last is not announced");
            tokio::time::sleep(Duration::from_millis(2)).await;
            reader.catch_up(node).await;
        }
        let unseen = told.iter().filter(|(offset, words)| reader.seen.get(offset) != Some(words)).count();
        assert_eq!(unseen, 0, "of {}, {} by reading", told.len(), reader.read);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found() {
    let mut cluster = RedisCluster::start(3, 1);
    let mut node = node_with(&settings(&cluster)).await;
    node.listen("chat:a").await;
    node.listen("chat:b").await;
    let mut told = Vec::new();
    for n in 0..20 {
        told.push(publish_surely(&node.broker, "chat:a", &n.to_string()).await);
    }
    let slot = cluster.slot("chat:a");
    let master = cluster.owner(slot).unwrap();
    successors::follows(&cluster.servers[master], &cluster.servers[master + 3]);
    cluster.servers[master].kill();
    told.push(publish_surely(&node.broker, "chat:a", "after").await);
    assert_eq!(told.last().unwrap().offset, 21);
    node.wait_for_doubt("chat:a").await;
    node.wait_for_health(true).await;
    let page = node.page("chat:a").await;
    assert!(told.iter().all(|position| is_true(&page, position)));
    assert_ne!(page.top.epoch, told[0].epoch);
    assert_eq!(node.publish("chat:a", "heard").await.unwrap().position.offset, 22);
    node.wait_for(|d| matches!(&d.message, Message::Entry { entry, .. } if entry.offset == 22)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lost_master_of_three_leaves_the_others_slots() {
    let mut cluster = RedisCluster::start(3, 0);
    let settings = settings(&cluster);
    let mut node = node_with(&settings).await;
    assert_eq!(node.broker.slots_away(), 0);
    let names: Vec<String> = (0..30).map(|n| format!("chat:{n}")).collect();
    // The master that keeps the list of nodes is the worst to lose.
    let lost = cluster.owner(cluster.slot("nodes")).unwrap();
    let (gone, there): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| cluster.owner(cluster.slot(name)) == Some(lost));
    assert!(gone.len() > 2 && there.len() > 2);
    cluster.servers[lost].kill();
    let is_partly = |node: &Node| matches!(node.broker.health(), BrokerHealth::Partly { reason } if reason.contains("of 16384 slots"));
    wait_until(|| is_partly(&node)).await;
    assert!((5_461..=5_462).contains(&node.broker.slots_away()), "{}", node.broker.slots_away());
    for name in &there {
        node.listen(name).await;
        assert_eq!(node.publish(name, name).await.unwrap().position.offset, 1);
        assert!(matches!(node.next().await.message, Message::Entry { .. }));
    }
    // What is away for long is refused at once, so that it does not take the room of the others.
    wait_until(|| is_partly(&node) && node.broker.slots_away() > 0).await;
    for name in &gone {
        assert!(node.publish(name, name).await.is_err());
        node.broker.listen(&channel(name));
        assert!(node.broker.listening(&channel(name)).await.is_err());
    }
    let begun = Instant::now();
    for name in gone.iter().cycle().take(50) {
        assert!(node.publish(name, name).await.is_err());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(is_partly(&node), "{:?}", node.broker.health());
    // A node can start, too.
    let late = node_with(&settings).await;
    assert!(is_partly(&late));
    assert_eq!(late.publish(there[0], "late").await.unwrap().position.offset, 2);
    cluster.servers[lost].restart();
    node.wait_for_health(true).await;
    late.wait_for_health(true).await;
    for name in &gone {
        node.publish_at_last(name, name).await;
    }
    // Most slots are more than a half.
    cluster.servers[lost].kill();
    cluster.servers[(lost + 1) % 3].kill();
    wait_until(|| matches!(node.broker.health(), BrokerHealth::Down { .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_stops_altogether_for_one_lost_master_is_down() {
    let mut cluster = RedisCluster::start(3, 0);
    let node = node_with(&settings(&cluster)).await;
    for server in &cluster.servers {
        server.say(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]).unwrap();
    }
    let lost = cluster.owner(cluster.slot("nodes")).unwrap();
    cluster.servers[lost].kill();
    wait_until(|| matches!(node.broker.health(), BrokerHealth::Down { reason } if reason.contains("cluster is down")))
        .await;
    cluster.servers[lost].restart();
    node.wait_for_health(true).await;
}

/// Nothing tells a node that a replica has taken over but its own commands, which cannot be answered by who is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found_by_who_waits_for_it() {
    let mut cluster = RedisCluster::start(3, 1);
    let mut settings = settings(&cluster);
    settings.redis.servers_check_ms = 3_600_000;
    let node = node_with(&settings).await;
    for (name, is_killed) in [("chat:killed", true), ("chat:paused", false)] {
        let before = node.publish_at_last(name, "before").await;
        let master = cluster.owner(cluster.slot(name)).unwrap();
        if is_killed {
            cluster.servers[master].kill();
        } else {
            cluster.servers[master].process.pause();
        }
        let after = node.publish_at_last(name, "after").await;
        assert!(after.offset >= before.offset);
        cluster.servers[master].process.go_on();
    }
}
