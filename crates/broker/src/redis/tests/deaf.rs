//! Announcements that stay away while connections look alive, behind Sentinels and on a cluster: found within ten seconds under the
//! settings that nodes have by default. A single server is asked in `outages`.

use std::process::Command;

use talewire_stand::process::Process;
use talewire_stand::redis::{say, say_all};
use talewire_stand::redis_cluster::RedisCluster;
use talewire_stand::redis_sentinel::MASTER_NAME;

use super::proxy::Proxy;
use super::*;

/// The promise: how long a node may believe that it hears.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

fn by_default(mode: RedisMode, urls: Vec<String>) -> BrokerSettings {
    let redis = RedisSettings { mode, urls, ..RedisSettings::default() };
    BrokerSettings { kind: BrokerKind::Redis, redis, ..BrokerSettings::default() }
}

/// Connections that have subscribed by way of the proxy hear nothing any more: `name` is doubted in time, as soon as another one
/// hears. When that is deaf too, health is not green in time. Gives what was delivered until the doubt.
async fn is_found_deaf(node: &mut Node, proxy: &Proxy, name: &str) -> Vec<Delivery> {
    assert_eq!(node.broker.health(), BrokerHealth::Up);
    let begun = Instant::now();
    proxy.mute_those_who_subscribed();
    node.publish(name, "unheard").await.expect("commands go on");
    let mut delivered = Vec::new();
    loop {
        let delivery = node.next().await;
        let is_doubt = delivery.channel == channel(name) && matches!(delivery.message, Message::Doubt);
        delivered.push(delivery);
        if is_doubt {
            break;
        }
    }
    assert!(begun.elapsed() < FOUND_WITHIN, "doubted after {:?}", begun.elapsed());
    node.wait_for_health(true).await;
    let begun = Instant::now();
    proxy.mute_all_from_now_on();
    proxy.mute_those_who_subscribed();
    node.wait_for_health(false).await;
    assert!(begun.elapsed() < FOUND_WITHIN, "red after {:?}", begun.elapsed());
    delivered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_master_of_a_cluster_that_is_not_heard_is_found() {
    let cluster = RedisCluster::start(3, 0);
    let deaf = cluster.owner(cluster.slot("chat:deaf")).unwrap();
    let well = (0..).map(|n| format!("chat:{n}"));
    let well = well.into_iter().find(|name| cluster.owner(cluster.slot(name)) != Some(deaf)).unwrap();
    let proxy = Proxy::before(cluster.servers[deaf].port);
    // Whoever asks the cluster is sent to the proxy.
    let announced = ["CONFIG", "SET", "cluster-announce-port", &proxy.port().to_string()];
    assert_eq!(cluster.servers[deaf].say(&announced).unwrap(), "+OK");
    let others: Vec<_> = cluster.servers.iter().filter(|server| server.port != cluster.servers[deaf].port).collect();
    let address = format!("127.0.0.1:{}@", proxy.port());
    let knows = |server: &&Server| say_all(server.port, &["CLUSTER", "NODES"]).unwrap().join("\n").contains(&address);
    wait_until(|| others.iter().all(knows)).await;

    let urls = others.iter().map(|server| server.url()).collect();
    let mut node = node_with(&by_default(RedisMode::Cluster, urls)).await;
    for name in ["chat:deaf", &well] {
        node.listen(name).await;
        node.publish(name, "heard").await.unwrap();
        node.wait_for(|d| d.channel == channel(name) && matches!(d.message, Message::Entry { .. })).await;
    }
    let delivered = is_found_deaf(&mut node, &proxy, "chat:deaf").await;
    assert!(delivered.iter().all(|d| d.channel != channel(&well)), "the others are heard: {delivered:?}");
    assert!(matches!(node.broker.health(), BrokerHealth::Partly { .. }), "{:?}", node.broker.health());
    node.publish(&well, "heard").await.unwrap();
    node.wait_for(|d| d.channel == channel(&well) && matches!(d.message, Message::Entry { .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_behind_sentinels_that_is_not_heard_is_found() {
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let folder = tempfile::tempdir().unwrap();
    let (file, port) = (folder.path().join("sentinel.conf"), talewire_stand::free_port());
    let config = format!("port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER_NAME} 127.0.0.1 {} 1\n", proxy.port());
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("redis-sentinel");
    command.arg(&file).current_dir(folder.path());
    let mut sentinel = Process::start(&mut command, "redis-sentinel", &folder.path().join("log"));
    sentinel.wait_until("redis-sentinel", || say(port, &["PING"]).is_ok_and(|line| line == "+PONG"));

    let settings = by_default(RedisMode::Sentinel, vec![format!("redis://127.0.0.1:{port}")]);
    let mut node = node_with(&settings).await;
    node.listen("chat:deaf").await;
    node.publish("chat:deaf", "heard").await.unwrap();
    node.wait_for(|d| matches!(d.message, Message::Entry { .. })).await;
    is_found_deaf(&mut node, &proxy, "chat:deaf").await;
    assert!(matches!(node.broker.health(), BrokerHealth::Down { .. }), "{:?}", node.broker.health());
}
