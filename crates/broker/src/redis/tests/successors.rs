//! A replica that takes over with less than its master gave out: positions do not lie, and those that survived are good.

use talewire_stand::redis::say_all;

use super::*;

/// A master and a replica that has what the master has.
fn pair() -> (Server, Server) {
    let master = Server::start();
    let replica =
        Server::with(&["--replicaof", "127.0.0.1", &master.port.to_string(), "--repl-diskless-sync-delay", "0"]);
    // It takes what was there before.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !say_all(replica.port, &["INFO", "replication"]).unwrap()[0].contains("master_link_status:up") {
        assert!(Instant::now() < deadline, "the replica does not follow");
        std::thread::sleep(Duration::from_millis(2));
    }
    (master, replica)
}

/// Waits until the replica has all that the master has said until now.
pub(super) fn follows(master: &Server, replica: &Server) {
    let said = |server: &Server, name: &str| {
        let texts = say_all(server.port, &["INFO", "replication"]).unwrap();
        let line =
            texts.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map_or(0, |number| number.parse::<u64>().unwrap())
    };
    let all = said(master, "master_repl_offset:");
    let deadline = Instant::now() + Duration::from_secs(30);
    while said(replica, "slave_repl_offset:") < all {
        assert!(Instant::now() < deadline, "the replica does not follow");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_did_not_survive_is_known_for_one() {
    let (mut master, replica) = pair();
    let node_of_master = node(&master).await;
    node_of_master.listen("chat:a").await;
    let mut told = Vec::new();
    for n in 1..=100 {
        told.push(node_of_master.publish("chat:a", &format!("old {n}")).await.unwrap().position);
    }
    let unpublished = node_of_master.page("chat:silent").await.top;
    follows(&master, &replica);
    // The replica hears nothing more of what the master acknowledges.
    let nowhere = talewire_stand::free_port().to_string();
    replica.say(&["REPLICAOF", "127.0.0.1", &nowhere]).unwrap();
    for n in 101..=105 {
        told.push(node_of_master.publish("chat:a", &format!("old {n}")).await.unwrap().position);
    }
    master.kill();
    replica.say(&["REPLICAOF", "NO", "ONE"]).unwrap();

    let node = node(&replica).await;
    let read_before_anything_else = node.page("chat:a").await;
    assert_eq!(read_before_anything_else.top.offset, 100);
    for n in 101..=105 {
        let new = node.publish("chat:a", &format!("new {n}")).await.unwrap().position;
        assert_eq!(new.offset, n, "the numbers are given out again");
    }
    let page = node.page("chat:a").await;
    for position in &told {
        assert_eq!(is_true(&page, position), position.offset <= 100, "{position:?}");
    }
    assert_eq!(page.entries.len(), 105);
    let tops = node.broker.tops(&[channel("chat:a")]).await.unwrap();
    assert_eq!(tops, [(channel("chat:a"), page.top.clone())]);
    let silent = node.page("chat:silent").await;
    assert!(is_true(&silent, &unpublished), "nothing was published there, and nothing is missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_successors_give_different_names() {
    let (master, replica) = pair();
    let of_master = node(&master).await;
    let first = of_master.publish("chat:a", "both have it").await.unwrap().position;
    follows(&master, &replica);
    replica.say(&["REPLICAOF", "NO", "ONE"]).unwrap();
    // Both go on, as on the two sides of a partition.
    let of_replica = node(&replica).await;
    let there = of_replica.publish("chat:a", "one has it").await.unwrap().position;
    let here = of_master.publish("chat:a", "the other has it").await.unwrap().position;
    assert_eq!((there.offset, here.offset), (2, 2));
    assert_ne!(there.epoch, here.epoch);
    let page = of_replica.page("chat:a").await;
    assert!(is_true(&page, &first) && !is_true(&page, &here) && is_true(&page, &there));
    // The old master becomes a replica, and follows the other history.
    master.say(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]).unwrap();
    let begun = Instant::now();
    while of_master.publish("chat:a", "x").await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "a replica is no master");
    }
    of_master.wait_for_health(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_names_are_remembered() {
    let mut server = Server::lasting();
    let node = node(&server).await;
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(node.publish_at_last("chat:a", "x").await);
        server.restart();
    }
    node.publish_at_last("chat:a", "x").await;
    let page = node.page("chat:a").await;
    assert_eq!((page.older.len(), page.top.offset), (16, 21));
    let good: Vec<bool> = told.iter().map(|position| is_true(&page, position)).collect();
    assert_eq!(good, [vec![false; 4], vec![true; 16]].concat(), "the oldest are forgotten, and not believed");
}
