//! Presence of several nodes: members go with their node, and come back with it.

use std::collections::BTreeSet;

use talewire_proto::{ClientId, ClientInfo};

use super::*;
use crate::Tell;

pub(super) async fn enter(node: &Node, name: &str, client: &str) {
    let client: ClientId = client.parse().unwrap();
    let info = ClientInfo { user: "ana".parse().unwrap(), client: Some(client.clone()), ..ClientInfo::default() };
    node.broker.enter(&channel(name), &client, &Arc::new(info), Tell::Subscribers).await.unwrap();
}

pub(super) async fn present(node: &Node, name: &str) -> BTreeSet<String> {
    let all = node.broker.presence(&channel(name)).await.unwrap();
    all.into_iter().map(|(client, _)| client.to_string()).collect()
}

pub(super) async fn wait_for_present(node: &Node, name: &str, clients: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let wanted: BTreeSet<String> = clients.iter().map(|client| (*client).to_owned()).collect();
    loop {
        let found = present(node, name).await;
        if found == wanted {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?} and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stats = node.broker.presence_stats(&channel(name)).await.unwrap();
    assert_eq!((stats.clients as usize, stats.users as usize), (wanted.len(), wanted.len().min(1)));
}

fn who(delivery: &Delivery) -> Option<(bool, String)> {
    let name = |info: &ClientInfo| info.client.as_ref().unwrap().to_string();
    match &delivery.message {
        Message::Join(info) => Some((true, name(info))),
        Message::Leave(info) => Some((false, name(info))),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_with_their_node_and_are_told_once() {
    let server = Server::start();
    let (mut one, two, dying) = (node(&server).await, node(&server).await, node(&server).await);
    one.listen("chat:a").await;
    enter(&one, "chat:a", "1").await;
    enter(&two, "chat:a", "2").await;
    for client in ["3", "4"] {
        enter(&dying, "chat:a", client).await;
    }
    enter(&dying, "chat:b", "5").await;
    wait_for_present(&two, "chat:a", &["1", "2", "3", "4"]).await;
    drop(dying);
    wait_for_present(&two, "chat:a", &["1", "2"]).await;
    wait_for_present(&one, "chat:b", &[]).await;
    let mut told = Vec::new();
    while told.len() < 6 {
        told.extend(who(&one.next().await));
    }
    let mut left: Vec<_> = told.split_off(4);
    left.sort();
    assert_eq!(left, [(false, "3".to_owned()), (false, "4".to_owned())]);
    let left_behind = || server.say(&["EVAL", "return #redis.call('KEYS', '*{chat:b}:p')", "0"]).unwrap() == ":0";
    wait_until(left_behind).await;
    two.broker.signal(&channel("chat:a"), says("the end")).await.unwrap();
    assert!(matches!(one.next().await.message, Message::Signal(_)), "and nobody twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_its_leave_is_gone_at_once() {
    let server = Server::start();
    let (mut one, two) = (node(&server).await, node(&server).await);
    one.listen("chat:a").await;
    enter(&two, "chat:a", "2").await;
    two.broker.depart().await;
    assert_eq!(present(&one, "chat:a").await, BTreeSet::new());
    assert_eq!(who(&one.next().await), Some((true, "2".into())));
    assert_eq!(who(&one.next().await), Some((false, "2".into())));
    enter(&two, "chat:a", "late").await;
    assert_eq!(server.say(&["EXISTS", "talewire:c:{chat:a}:p"]).unwrap(), ":0", "nobody stays behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_forgotten_is_said_again() {
    let mut server = Server::start();
    let node = node(&server).await;
    enter(&node, "chat:a", "1").await;
    enter(&node, "chat:b", "1").await;
    server.say(&["FLUSHALL"]).unwrap();
    wait_for_present(&node, "chat:a", &["1"]).await;
    server.restart();
    node.wait_for_health(true).await;
    let begun = Instant::now();
    while node.broker.presence(&channel("chat:b")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    wait_for_present(&node, "chat:b", &["1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_redis_is_away_is_gone_when_it_is_back() {
    let server = Server::start();
    let node = node(&server).await;
    for client in ["1", "2"] {
        enter(&node, "chat:a", client).await;
    }
    server.process.pause();
    node.broker.leave(&channel("chat:a"), &"1".parse().unwrap(), Tell::Nobody).await;
    server.process.go_on();
    node.wait_for_health(true).await;
    wait_for_present(&node, "chat:a", &["2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_comes_back() {
    let server = Server::start();
    let (one, two) = (node(&server).await, node(&server).await);
    enter(&two, "chat:a", "2").await;
    // As if it had stood still: it is struck off, and its members are taken out.
    server.say(&["DEL", "talewire:n:{nodes}", "talewire:c:{chat:a}:p"]).unwrap();
    wait_for_present(&one, "chat:a", &["2"]).await;
}

/// How many scripts the server has been asked to run: each is one round trip.
fn scripts(server: &Server) -> u64 {
    let lines = talewire_stand::redis::say_all(server.port, &["INFO", "commandstats"]).unwrap().join("\n");
    let calls = lines.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeping_a_thousand_members_alive_costs_as_much_as_keeping_one() {
    let server = Server::start();
    let node = node(&server).await;
    enter(&node, "chat:a", "0").await;
    for members in [1, 1_000] {
        for n in 1..members {
            enter(&node, "chat:a", &n.to_string()).await;
        }
        let (before, begun) = (scripts(&server), Instant::now());
        wait_until(|| scripts(&server) >= before + 10).await;
        // A tick is 100 ms: ten scripts are ten ticks, whether they keep one or all.
        assert!(begun.elapsed() > Duration::from_millis(800), "{members} members: {:?}", begun.elapsed());
        assert_eq!(present(&node, "chat:a").await.len(), members);
    }
}
