//! Keys and members under our names that we never wrote, and signs of life that are not taken.

use talewire_proto::ClientId;

use super::present::{enter, present, wait_for_present};
use super::*;
use crate::{NodeReport, Publish, Tell};

/// Puts a string where something else belongs.
fn spoil(server: &Server, key: &str) {
    server.say(&["DEL", key]).unwrap();
    server.say(&["SET", key, "garbage"]).unwrap();
}

fn report(node: &Node) -> NodeReport {
    NodeReport {
        id: node.id.clone(),
        name: "here".into(),
        version: "1".into(),
        store: "s".into(),
        started_ms: 5,
        connections: 1,
        users: 1,
        subscriptions: 2,
        channels: 3,
        draining: false,
        agreed: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presence_of_another_type_is_overwritten_and_said_again_by_all_nodes() {
    let server = Server::start();
    let (one, two) = (node(&server).await, node(&server).await);
    enter(&one, "chat:a", "1").await;
    enter(&two, "chat:a", "2").await;
    spoil(&server, "talewire:c:{chat:a}:p");
    assert!(one.broker.presence(&channel("chat:a")).await.is_ok(), "it is no reason to refuse");
    assert_eq!(one.broker.mended(), 1);
    wait_for_present(&one, "chat:a", &["1", "2"]).await;
    for what in 0..4 {
        spoil(&server, "talewire:c:{chat:a}:p");
        let (chat, client): (_, ClientId) = (channel("chat:a"), "3".parse().unwrap());
        match what {
            0 => drop(one.broker.presence_stats(&chat).await.unwrap()),
            1 => enter(&one, "chat:a", "3").await,
            2 => one.broker.leave(&chat, &client, Tell::Nobody).await,
            _ => drop(two.broker.presence(&chat).await.unwrap()),
        }
        let wanted: &[&str] = if what == 1 { &["1", "2", "3"] } else { &["1", "2"] };
        wait_for_present(&two, "chat:a", wanted).await;
    }
    assert_eq!(one.broker.mended() + two.broker.mended(), 5);
    assert_eq!(one.broker.health(), BrokerHealth::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_nobody_can_read_are_taken_out_and_the_others_are_told() {
    let server = Server::start();
    let one = node(&server).await;
    enter(&one, "chat:a", "1").await;
    let key = "talewire:c:{chat:a}:p";
    let stamp = crate::occupancy::stamp_of(&one.id);
    for who in ["", "garbage", &stamp, &format!("{stamp}1"), &format!("{stamp}1\u{7}"), &"x".repeat(60)] {
        server.say(&["HSET", key, "bad", who]).unwrap();
        let count = one.broker.presence_stats(&channel("chat:a")).await.unwrap().clients;
        assert!((1..=2).contains(&count), "{count}");
        assert_eq!(present(&one, "chat:a").await.len(), 1, "{who:?}");
        assert_eq!(server.say(&["HLEN", key]).unwrap(), ":1", "{who:?}");
    }
    assert_eq!(one.broker.mended(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_keeps_no_dead_node_from_being_cleared_away() {
    let server = Server::start();
    let (one, dying) = (node(&server).await, node(&server).await);
    for n in 0..100 {
        enter(&dying, &format!("chat:{n}"), "2").await;
    }
    enter(&one, "chat:7", "1").await;
    spoil(&server, "talewire:c:{chat:8}:p");
    server.say(&["HSET", "talewire:c:{chat:9}:p", "bad", "garbage"]).unwrap();
    let hex: String = crate::occupancy::stamp_of(&dying.id).bytes().map(|byte| format!("{byte:02x}")).collect();
    server.say(&["SADD", &format!("talewire:n:{{{hex}}}:c"), "no name at all"]).unwrap();
    server.say(&["ZADD", "talewire:n:{nodes}", "5", "no stamp at all"]).unwrap();
    drop(dying);
    wait_for_present(&one, "chat:7", &["1"]).await;
    let left = "return #redis.call('KEYS', '*:p')";
    wait_until(|| server.say(&["EVAL", left, "0"]).unwrap() == ":1").await;
    wait_until(|| server.say(&["ZCARD", "talewire:n:{nodes}"]).unwrap() == ":1").await;
    assert!(one.broker.mended() >= 3, "{}", one.broker.mended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_of_another_type_is_made_anew() {
    let server = Server::start();
    let (one, two) = (node(&server).await, node(&server).await);
    enter(&one, "chat:a", "1").await;
    for node in [&one, &two] {
        node.broker.beat(report(node)).await.unwrap();
    }
    for key in ["talewire:n:{nodes}", "talewire:n:{nodes}:r"] {
        spoil(&server, key);
        let deadline = Instant::now() + Duration::from_secs(20);
        while two.broker.nodes().await.unwrap().len() < 2 {
            assert!(Instant::now() < deadline, "{key}: not all nodes are back");
            tokio::task::yield_now().await;
        }
        wait_for_present(&two, "chat:a", &["1"]).await;
        assert_eq!(one.broker.health(), BrokerHealth::Up);
    }
    assert!(one.broker.mended() + two.broker.mended() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_that_are_not_taken_turn_health_red_with_the_reason() {
    let server = Server::start();
    let (node, other) = (node(&server).await, node(&server).await);
    node.broker.beat(report(&node)).await.unwrap();
    server.say(&["ACL", "SETUSER", "default", "-zadd"]).unwrap();
    assert!(other.broker.beat(report(&other)).await.is_err());
    let is_red =
        |node: &Node| matches!(node.broker.health(), BrokerHealth::Down { reason } if reason.contains("sign of life"));
    assert!(is_red(&other), "the first is one that nobody has seen");
    assert!(node.broker.beat(report(&node)).await.is_err());
    assert!(!is_red(&node), "one is none");
    wait_until(|| is_red(&node)).await;
    server.say(&["ACL", "SETUSER", "default", "+zadd"]).unwrap();
    node.wait_for_health(true).await;
    other.wait_for_health(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_takes_signs_of_life() {
    let server = Server::start();
    let node = node(&server).await;
    server.say(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert!(matches!(node.publish("chat:a", "too much").await, Err(BrokerError::Full(_))));
    node.broker.beat(report(&node)).await.unwrap();
    assert_eq!(node.broker.health(), BrokerHealth::Up);
}

/// What was written before a key of another type was met must not lie about what was not done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_is_added_also_where_the_history_is_of_another_type() {
    let server = Server::start();
    let mut node = node(&server).await;
    node.listen("state:a").await;
    let version = |number| Publish {
        version: Some(talewire_proto::Version { number, epoch: String::new() }),
        ..says(&format!("version {number}")).into()
    };
    for number in 1..=3 {
        let published = node.broker.publish(&channel("state:a"), &rules(), version(number)).await.unwrap();
        assert_eq!((published.skipped, published.position.offset), (false, number));
        assert_eq!(words(&node.page("state:a").await.entries.last().unwrap().publication), format!("version {number}"));
        assert!(node.broker.publish(&channel("state:a"), &rules(), version(number)).await.unwrap().skipped);
        spoil(&server, "talewire:c:{state:a}:h");
    }
    for offset in 1..=3 {
        node.wait_for(|d| matches!(&d.message, Message::Entry { entry, .. } if entry.offset == offset)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_with_a_key_is_no_repeat_where_the_order_of_keys_is_of_another_type() {
    let server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    for key in ["talewire:c:{chat:a}:o", "talewire:c:{chat:a}:k", "talewire:c:{chat:a}:h", "talewire:c:{chat:a}:m"] {
        let with_key = Publish {
            key: Some(crate::Key { user: "ana".parse().unwrap(), key: format!("key {key}") }),
            ..says(key).into()
        };
        spoil(&server, key);
        let first = node.broker.publish(&channel("chat:a"), &rules(), with_key.clone()).await.unwrap();
        assert!(!first.repeated, "{key}");
        node.wait_for(|d| matches!(&d.message, Message::Entry { entry, .. } if words(&entry.publication) == key)).await;
        let again = node.broker.publish(&channel("chat:a"), &rules(), with_key).await.unwrap();
        assert_eq!((again.position, again.repeated), (first.position, true), "{key}");
        // Nor is it one where a key in that order is none.
        server.say(&["LPUSH", "talewire:c:{chat:a}:o", "garbage"]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_learns_it_where_the_reports_are_of_another_type() {
    let server = Server::start();
    let node = node(&server).await;
    node.broker.beat(report(&node)).await.unwrap();
    let crate::Backend::Redis(redis) = &node.broker.backend else { panic!("it is Redis") };
    let doubts = redis.doubts();
    let before = doubts.borrow().lapses;
    let stamp = crate::occupancy::stamp_of(&node.id);
    let both = "redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], 'garbage')";
    server.say(&["EVAL", both, "2", "talewire:n:{nodes}", "talewire:n:{nodes}:r", &stamp]).unwrap();
    wait_until(|| node.broker.mended() == 1).await;
    node.broker.beat(report(&node)).await.unwrap();
    assert_eq!(doubts.borrow().lapses, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_inside_what_is_known_of_a_history_keeps_no_channel_from_going_on() {
    let server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    let chat = channel("chat:a");
    let garbage = ["garbage", "", "-5", "1.5", "99999999999999999999"];
    for field in ["e", "r", "t", "x", "o", "v", "w", "a"] {
        for (n, value) in garbage.iter().enumerate() {
            node.publish("chat:a", "before").await.unwrap();
            server.say(&["HSET", "talewire:c:{chat:a}:m", field, value]).unwrap();
            match n % 3 {
                0 => drop(node.page("chat:a").await),
                1 => drop(node.broker.tops(std::slice::from_ref(&chat)).await.unwrap()),
                _ => {}
            }
            let version = Some(talewire_proto::Version { number: 1, epoch: format!("{field} {n}") });
            let words_of_it = format!("{field} {value}");
            let publish = Publish { version, ..says(&words_of_it).into() };
            let published = node.broker.publish(&chat, &rules(), publish).await.unwrap();
            assert!(!published.skipped, "{words_of_it}");
            node.wait_for(
                |d| matches!(&d.message, Message::Entry { entry, .. } if words(&entry.publication) == words_of_it),
            )
            .await;
            let page = node.page("chat:a").await;
            assert_eq!(page.top, published.position, "{words_of_it}");
            assert_eq!(words(&page.entries.last().unwrap().publication), words_of_it);
        }
    }
}
