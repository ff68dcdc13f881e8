//! A server that dies, stands still, forgets its scripts or is full; connections that are cut or fall silent.

use std::sync::atomic::{AtomicBool, Ordering};

use super::proxy::Proxy;
use super::*;
use crate::{Key, Publish};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_a_doubt_and_is_made_again() {
    let server = Server::start();
    let mut node = node(&server).await;
    for name in ["chat:a", "chat:b"] {
        node.listen(name).await;
    }
    for _ in 0..3 {
        server.say(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        node.publish("chat:a", "perhaps unheard").await.unwrap();
        let mut doubted = Vec::new();
        while doubted.len() < 2 {
            let delivery = node.next().await;
            if matches!(delivery.message, Message::Doubt) {
                doubted.push(delivery.channel.to_string());
            }
        }
        doubted.sort();
        assert_eq!(doubted, ["chat:a", "chat:b"], "each once");
        // From the doubt on nothing is missed.
        let top = node.publish("chat:b", "heard").await.unwrap().position.offset;
        let is_it = |d: &Delivery| matches!(&d.message, Message::Entry { entry, .. } if entry.offset == top);
        assert_eq!(node.wait_for(is_it).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_whose_connection_is_cut_are_said_again() {
    let server = Server::start();
    let node = node(&server).await;
    for n in 1..=20 {
        server.say(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        let key = Key { user: "ana".parse().unwrap(), key: n.to_string() };
        let publish = Publish { key: Some(key), ..says("x").into() };
        let published = node.broker.publish(&channel("chat:a"), &rules(), publish).await.unwrap();
        assert_eq!(published.position.offset, n, "and are one entry each");
    }
    server.say(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(node.publish("chat:a", "x").await.unwrap().position.offset, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_key_is_one_entry_though_its_answer_is_lost() {
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let node = node_with(&BrokerSettings { node_beat_ms: 60_000, ..quick(vec![proxy.url()]) }).await;
    let other = node_with(&quick(vec![server.url()])).await;
    let version = |number| Some(talewire_proto::Version { number, epoch: String::new() });
    for n in 1..=20_u64 {
        proxy.lose_the_next_answer();
        let publish = Publish { version: version(n), ..says(&n.to_string()).into() };
        let published = node.broker.publish(&channel("chat:a"), &rules(), publish).await.unwrap();
        assert!(!published.skipped && !published.repeated, "{published:?}");
        assert_eq!(published.position.offset, 2 * n - 1);
        // Another one's entry between.
        other.publish("chat:a", "other").await.unwrap();
    }
    let page = node.page("chat:a").await;
    assert_eq!(page.entries.len(), 40);
    let said: Vec<String> = page.entries.iter().step_by(2).map(|entry| words(&entry.publication)).collect();
    assert_eq!(said, (1..=20).map(|n: u64| n.to_string()).collect::<Vec<_>>());
    // A history of one entry tells no more what came before: that is said, and nothing is added twice.
    let small = Namespace { history_size: 1, ..rules() };
    let mut hearer = node_with(&quick(vec![server.url()])).await;
    hearer.listen("small:a").await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let rules_too = small.clone();
    let others = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            let other = other.broker.publish(&channel("small:a"), &rules_too, says("other").into()).await;
            other.unwrap();
        }
    });
    let (mut unknown, mut acknowledged) = (0, Vec::new());
    for n in 0..20 {
        proxy.lose_the_next_answer();
        match node.broker.publish(&channel("small:a"), &small, says(&n.to_string()).into()).await {
            Ok(_) => acknowledged.push(n.to_string()),
            Err(BrokerError::Unknown(_)) => unknown += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    others.await.unwrap();
    assert!(unknown > 0, "somebody came between");
    node.publish_at_last("small:a", "the end").await;
    let mut heard = std::collections::HashSet::new();
    loop {
        let Message::Entry { entry, .. } = hearer.next().await.message else { continue };
        match words(&entry.publication).as_str() {
            "the end" => break,
            "other" => {}
            word => assert!(heard.insert(word.to_owned()), "{word} came twice"),
        }
    }
    // The answer that was lost may have been that of a sign of life: then the publication was never sent, and nobody can tell.
    assert!(acknowledged.iter().all(|word| heard.contains(word)), "{acknowledged:?} {heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_found_and_comes_back() {
    let server = Server::start();
    let node = node(&server).await;
    node.listen("chat:a").await;
    let before = node.publish("chat:a", "before").await.unwrap().position;
    server.process.pause();
    let begun = Instant::now();
    let key = Key { user: "ana".parse().unwrap(), key: "k".into() };
    let publish = || Publish { key: Some(key.clone()), ..says("during").into() };
    let during = node.broker.publish(&channel("chat:a"), &rules(), publish()).await;
    assert!(matches!(during, Err(BrokerError::Unknown(_))), "it may have been done: {during:?}");
    assert!(begun.elapsed() < Duration::from_millis(2_000), "{:?}", begun.elapsed());
    node.wait_for_health(false).await;
    let chat = channel("chat:a");
    assert!(node.broker.presence(&chat).await.is_err());
    node.broker.announce(&chat, &before.epoch, node_entry()).await;
    server.process.go_on();
    node.wait_for_health(true).await;
    let mut again = node.broker.publish(&chat, &rules(), publish()).await;
    while again.is_err() {
        again = node.broker.publish(&chat, &rules(), publish()).await;
    }
    let again = again.unwrap();
    assert_eq!(again.position.offset, 2, "whether or not the first came through");
    assert_eq!(again.position.epoch, before.epoch);
    assert_eq!(node.page("chat:a").await.entries.len(), 2);
}

fn node_entry() -> Arc<talewire_proto::Entry> {
    Arc::new(talewire_proto::Entry { offset: 1, publication: says("announced") })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_a_restart_is_another_history() {
    let mut server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    let before = node.publish("chat:a", "lost").await.unwrap().position;
    server.kill();
    node.wait_for_health(false).await;
    assert!(matches!(node.publish("chat:a", "nowhere").await, Err(BrokerError::Unavailable(_))), "it was not said");
    server.restart();
    node.wait_for_doubt("chat:a").await;
    node.wait_for_health(true).await;
    let after = node.publish_at_last("chat:a", "new").await;
    assert_eq!(after.offset, 1);
    let page = node.page("chat:a").await;
    assert!(!is_true(&page, &before), "{page:?} says that {before:?} is of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_file_positions_outlive_a_restart() {
    let mut server = Server::lasting();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    let mut told = Vec::new();
    for n in 0..3 {
        for _ in 0..4 {
            told.push(node.publish_at_last("chat:a", &format!("{n}")).await);
        }
        server.restart();
        node.wait_for_doubt("chat:a").await;
    }
    node.publish_at_last("chat:a", "the last").await;
    let page = node.page("chat:a").await;
    assert_eq!(page.entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), (1..=13).collect::<Vec<_>>());
    for position in &told {
        assert!(is_true(&page, position), "{position:?} is true of {page:?}");
    }
    assert_ne!(told[0].epoch, page.top.epoch);
    let beyond = Position { offset: 5, epoch: told[0].epoch.clone() };
    assert!(!is_true(&page, &beyond), "the first run of the server never said it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_and_reads_on() {
    let server = Server::start();
    let node = node(&server).await;
    node.publish("chat:a", "kept").await.unwrap();
    server.say(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert!(matches!(node.publish("chat:a", "too much").await, Err(BrokerError::Full(_))));
    assert!(matches!(node.publish("chat:b", "too much").await, Err(BrokerError::Full(_))));
    assert_eq!(node.page("chat:a").await.entries.len(), 1);
    server.say(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(node.publish("chat:a", "again").await.unwrap().position.offset, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_that_stay_away_under_a_living_connection_are_noticed() {
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let mut node = node_with(&quick(vec![proxy.url()])).await;
    node.listen("chat:a").await;
    node.publish("chat:a", "heard").await.unwrap();
    assert!(matches!(node.next().await.message, Message::Entry { .. }));
    let begun = Instant::now();
    proxy.mute_those_who_subscribed();
    node.publish("chat:a", "unheard").await.unwrap();
    // Commands go on; only what is announced stays away.
    node.wait_for_doubt("chat:a").await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    node.wait_for_health(true).await;
    node.publish("chat:a", "heard").await.unwrap();
    let is_third = |d: &Delivery| matches!(&d.message, Message::Entry { entry, .. } if entry.offset == 3);
    assert_eq!(node.wait_for(is_third).await, 0);
    proxy.mute_all_from_now_on();
    proxy.mute_those_who_subscribed();
    node.wait_for_health(false).await;
    let BrokerHealth::Down { reason } = node.broker.health() else { panic!("it is down") };
    assert!(!reason.is_empty());
    let begun = Instant::now();
    node.broker.listen(&channel("chat:b"));
    assert!(node.broker.listening(&channel("chat:b")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "who is known to be down is not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_waited_long_does_not_break_a_new_connection() {
    let mut server = Server::start();
    let mut settings = quick(vec![server.url()]);
    settings.redis.response_timeout_ms = 1_500;
    let node = node_with(&settings).await;
    let crate::Backend::Redis(redis) = &node.broker.backend else { panic!("it is Redis") };
    server.kill();
    node.wait_for_health(false).await;
    // Their time runs out one after the other, whether there is a connection or not.
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..100)
        .map(|_| {
            let (broker, stop) = (node.broker.clone(), stop.clone());
            tokio::spawn(async move {
                let deadline = Duration::from_millis(fastrand::u64(..1_500));
                tokio::time::sleep(deadline).await;
                while !stop.load(Ordering::Relaxed) {
                    let _ = broker.publish(&channel("chat:a"), &rules(), says("x").into()).await;
                }
            })
        })
        .collect();
    let before = redis.servers.connections();
    let all_wait_deadline = Duration::from_millis(2_000);
    tokio::time::sleep(all_wait_deadline).await;
    tokio::task::block_in_place(|| server.restart());
    wait_until(|| redis.servers.connections() > before).await;
    server.process.pause();
    // Long enough for some to pass their deadline, and too short to say that the server does not answer.
    tokio::time::sleep(Duration::from_millis(150)).await;
    server.process.go_on();
    node.publish("chat:a", "x").await.unwrap();
    assert_eq!(redis.servers.connections(), before + 1, "it was made once");
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_what_was_acknowledged_is_seen_once_and_by_all() {
    let mut server = Server::lasting();
    let mut nodes = [node(&server).await, node(&server).await];
    let mut readers = [Reader::new("chat:a"), Reader::new("chat:a")];
    for node in &nodes {
        node.listen("chat:a").await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4)
        .map(|at| {
            let (broker, stop) = (nodes[at % 2].broker.clone(), stop.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let words = format!("{at}.{}", told.len());
                    told.push((publish_surely(&broker, "chat:a", &words).await, words));
                }
                told
            })
        })
        .collect();
    let seed = fastrand::u64(..);
    let mut chance = fastrand::Rng::with_seed(seed);
    let deadline = Instant::now() + Duration::from_secs(6);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(chance.u64(20..200))).await;
        match chance.u8(..5) {
            0 => tokio::task::block_in_place(|| server.restart()),
            1 => drop(server.say(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            2 => drop(server.say(&["CLIENT", "KILL", "TYPE", "normal"])),
            3 => drop(server.say(&["SCRIPT", "FLUSH"])),
            _ => {
                server.process.pause();
                // Longer or shorter than a command waits.
                let deadline = Duration::from_millis(chance.u64(100..1_000));
                tokio::time::sleep(deadline).await;
                server.process.go_on();
            }
        }
        for (node, reader) in nodes.iter_mut().zip(&mut readers) {
            reader.catch_up(node).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for publisher in publishers {
        told.extend(publisher.await.unwrap());
    }
    let page = nodes[0].page("chat:a").await;
    assert_eq!(page.entries.len(), told.len(), "nothing that was not acknowledged at last, seed {seed}");
    for (node, reader) in nodes.iter_mut().zip(&mut readers) {
        node.wait_for_health(true).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while reader.seen.len() < told.len() {
            assert!(Instant::now() < deadline, "{} of {}, seed {seed}", reader.seen.len(), told.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
            reader.catch_up(node).await;
        }
        for (position, words) in &told {
            assert_eq!(reader.seen.get(&position.offset), Some(words), "seed {seed}");
            assert!(is_true(&page, position) || page.older.len() == 16, "{position:?}, seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_an_error_and_no_wait() {
    let nowhere = format!("redis://127.0.0.1:{}", talewire_stand::free_port());
    let begun = Instant::now();
    let opened = Broker::open(&quick(vec![nowhere]), &NodeId::new()).await;
    assert!(matches!(opened, Err(BrokerError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
