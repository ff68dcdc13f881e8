//! Several nodes on one server: one order, orders and letters, leases and marks, wake-ups, and what is listened to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use talewire_proto::{CloseCode, GenerationId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::{Control, Key, Order, Publish, WakeUp, Whom};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_deliver_one_order() {
    let server = Server::start();
    let mut nodes = [node(&server).await, node(&server).await];
    let names = ["chat:0", "chat:1", "chat:2"];
    for node in &nodes {
        for name in names {
            node.listen(name).await;
        }
    }
    let mut publishers = JoinSet::new();
    for (at, node) in nodes.iter().enumerate() {
        for publisher in 0..3 {
            let broker = node.broker.clone();
            publishers.spawn(async move {
                for n in 0..100 {
                    let words = format!("{at}.{publisher}.{n}");
                    broker.publish(&channel(names[n % 3]), &rules(), says(&words).into()).await.unwrap();
                }
            });
        }
    }
    publishers.join_all().await;
    let mut heard = Vec::new();
    for node in &mut nodes {
        let mut by_channel: HashMap<String, Vec<String>> = HashMap::new();
        for _ in 0..600 {
            let delivery = node.next().await;
            let Message::Entry { entry, .. } = delivery.message else { panic!("not an entry") };
            let channel = by_channel.entry(delivery.channel.to_string()).or_default();
            channel.push(words(&entry.publication));
            assert_eq!(entry.offset, channel.len() as u64);
        }
        heard.push(by_channel);
    }
    assert_eq!(heard[0], heard[1]);
    let kept: Vec<String> = nodes[1].page("chat:0").await.entries.iter().map(|e| words(&e.publication)).collect();
    assert_eq!(heard[0]["chat:0"], kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_and_letters_find_their_nodes_once() {
    let server = Server::start();
    let nodes = [node(&server).await, node(&server).await];
    let mut heard = Vec::new();
    for node in &nodes {
        let (orders, taken) = mpsc::unbounded_channel();
        node.broker.control_with(Arc::new(move |control| orders.send(control).is_ok()));
        let (sender, letters) = mpsc::unbounded_channel();
        node.broker.letters_to(Arc::new(move |letter| drop(sender.send(letter))));
        heard.push((taken, letters));
    }
    let order = |user: &str| Control {
        whom: Whom::user(user.parse().unwrap()),
        order: Order::Disconnect { code: CloseCode::ForceDisconnect, keep: vec!["c".parse().unwrap()] },
    };
    nodes[0].broker.control(order("ana")).await.unwrap();
    nodes[1].broker.control(order("ben")).await.unwrap();
    for (taken, _) in &mut heard {
        let mut both = [taken.recv().await.unwrap(), taken.recv().await.unwrap()];
        both.sort_by_key(|control| format!("{:?}", control.whom));
        assert_eq!(both, [order("ana"), order("ben")]);
    }
    assert_eq!(nodes[0].broker.post(&nodes[1].id, Bytes::from_static(b"\0to you")).await, Ok(true));
    assert_eq!(heard[1].1.recv().await.unwrap(), b"\0to you"[..]);
    assert!(heard.iter_mut().all(|(taken, letters)| taken.try_recv().is_err() && letters.try_recv().is_err()));
    let gone = nodes[1].id.clone();
    let [stays, goes] = nodes;
    drop(goes);
    let begun = Instant::now();
    while stays.broker.post(&gone, Bytes::new()).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody of that name is there any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_marks_and_cursors_are_shared() {
    let server = Server::start();
    let (one, two) = (node(&server).await.broker, node(&server).await.broker);
    assert_eq!(one.lease("prune", 60_000).await, Ok(true));
    assert_eq!(two.lease("prune", 60_000).await, Ok(false));
    assert_eq!(two.lease("other", 60_000).await, Ok(true));
    two.release("prune").await;
    assert_eq!(two.lease("prune", 60_000).await, Ok(false), "only its owner gives it back");
    one.release("prune").await;
    assert_eq!(two.lease("prune", 60_000).await, Ok(true));
    server.pass_ms(60_000);
    assert_eq!(one.lease("prune", 60_000).await, Ok(true), "it had ended");
    assert_eq!(one.spend("t}{", 60_000).await, Ok(true));
    assert_eq!(two.spend("t}{", 60_000).await, Ok(false));
    let name = one.keep_cursor(vec![0, 255, 10]);
    assert_eq!(one.kept_cursor(&name).await, Ok(Some(vec![0, 255, 10])));
    assert_eq!(two.kept_cursor(&name).await, Ok(Some(vec![0, 255, 10])));
    assert_eq!(two.kept_cursor("none").await, Ok(None));
    server.pass_ms(BrokerSettings::default().cursor_age_ms);
    assert_eq!(two.kept_cursor(&name).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_counts_on_every_node() {
    let server = Server::start();
    let nodes = [node(&server).await, node(&server).await];
    let key = Key { user: "ana".parse().unwrap(), key: "k".into() };
    let publish = || Publish { key: Some(key.clone()), ..says("x").into() };
    let first = nodes[0].broker.publish(&channel("chat:a"), &rules(), publish()).await.unwrap();
    let again = nodes[1].broker.publish(&channel("chat:a"), &rules(), publish()).await.unwrap();
    assert_eq!((again.position, again.repeated), (first.position, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_wakes_a_node_and_a_wish_to_stop_reaches_all() {
    let server = Server::start();
    let nodes = [node(&server).await, node(&server).await];
    let mut listeners = nodes.each_ref().map(|node| node.broker.wakeups());
    for listener in &mut listeners {
        // Whoever begins to listen looks at the jobs, whatever went by before.
        let woken = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await;
        assert_eq!(woken.unwrap().unwrap(), WakeUp::Jobs);
    }
    for n in 0..10 {
        nodes[n % 2].broker.wake(WakeUp::Jobs);
        let [one, two] = &mut listeners;
        let woken = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! { woken = one.recv() => woken, woken = two.recv() => woken }
        });
        assert_eq!(woken.await.unwrap().unwrap(), WakeUp::Jobs);
        assert!(one.try_recv().is_err() && two.try_recv().is_err(), "one node is enough for one job");
    }
    let stop = WakeUp::Cancel(GenerationId::from_random([1; 13]));
    nodes[0].broker.wake(stop.clone());
    for listener in &mut listeners {
        assert_eq!(listener.recv().await.unwrap(), stop);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_listened_to_is_what_was_wanted_last() {
    let server = Server::start();
    let node = node(&server).await;
    let mut wanted = BTreeSet::new();
    let mut chance = fastrand::Rng::with_seed(7);
    for _ in 0..3_000 {
        let name = format!("chat:{}", chance.u8(..60));
        if chance.bool() {
            node.broker.listen(&channel(&name));
            wanted.insert(name);
        } else {
            node.broker.unlisten(&channel(&name));
            wanted.remove(&name);
        }
        if chance.u8(..) < 8 {
            // Some batches leave in between: a round trip lets them.
            node.broker.spend("never", 1).await.unwrap();
        }
    }
    for name in &wanted {
        node.broker.listening(&channel(name)).await.unwrap();
    }
    let heard = || {
        let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let names: Vec<String> =
            redis::cmd("PUBSUB").arg("CHANNELS").arg("talewire:c:*").query(&mut connection).unwrap();
        let inner = |name: &String| name.trim_start_matches("talewire:c:{").trim_end_matches('}').to_owned();
        names.iter().map(inner).collect::<BTreeSet<_>>()
    };
    // Who waits for a name to stand need not wait for another's end.
    wait_until(|| heard() == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_prefixes_do_not_meet() {
    let server = Server::start();
    let one = node(&server).await;
    let mut settings = quick(vec![server.url()]);
    settings.redis.prefix = "other".into();
    let two = node_with(&settings).await;
    assert_eq!(one.publish("chat:a", "x").await.unwrap().position.offset, 1);
    assert_eq!(two.publish("chat:a", "x").await.unwrap().position.offset, 1);
    assert_eq!(one.broker.post(&two.id, Bytes::new()).await, Ok(false));
    settings.redis.prefix = "a{b}".into();
    assert!(matches!(Broker::open(&settings, &NodeId::new()).await, Err(BrokerError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_a_doubt() {
    let server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    server.say(&["PUBLISH", "talewire:c:{chat:a}", "Zsomething new"]).unwrap();
    node.wait_for_doubt("chat:a").await;
    server.say(&["PUBLISH", "talewire:c:{chat:a}", ""]).unwrap();
    node.wait_for_doubt("chat:a").await;
    // Nobody stumbles over orders that do not exist yet.
    server.say(&["PUBLISH", "talewire:n:{everybody}", "\u{63}\0\0\0\0"]).unwrap();
    server.say(&["PUBLISH", "talewire:n:{everybody}", "nonsense"]).unwrap();
    node.publish("chat:a", "x").await.unwrap();
    assert!(matches!(node.next().await.message, Message::Entry { .. }));
}
