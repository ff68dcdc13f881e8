//! A node over a cluster of which one master is lost: it serves the other slots, and says what is missing wherever one looks.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use talewire_stand::redis_cluster::RedisCluster;

use super::{Running, ask, check, talewire};

#[test]
fn a_node_says_that_some_of_the_cluster_is_away_and_serves_the_rest() {
    let mut cluster = RedisCluster::start(3, 0);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let urls = format!("[\"{}\"]", cluster.urls().join("\", \""));
    let command = |arguments: &[&str]| {
        let mut command = talewire(arguments);
        command.env("TALEWIRE_BROKER_KIND", "redis").env("TALEWIRE_BROKER_REDIS_MODE", "cluster");
        command.env("TALEWIRE_BROKER_REDIS_URLS", &urls).env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
        command
    };
    let data = data.to_str().expect("UTF-8");
    let mut serve = command(&["serve", "--insecure", "--listen", "127.0.0.1:0", "--data", data]);
    serve.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0");
    let mut running = Running(serve.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let ready = lines.find(|line| line.contains("talewire is ready")).expect("it gets ready");
    std::thread::spawn(move || lines.for_each(drop));
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let admin = ready["admin"].as_str().expect("an address");
    let until = |words: &str| {
        let began = Instant::now();
        loop {
            let said = ask(admin, "GET /ready");
            if said.contains(words) {
                return said;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{words:?} is not in {said}");
            std::thread::yield_now();
        }
    };
    assert!(until("\r\n\r\nready\n").starts_with("HTTP/1.1 200"));
    assert!(ask(admin, "GET /metrics").contains("\ntalewire_broker_slots_away 0\n"));
    cluster.servers[0].kill();
    let said = until("ready, but degraded");
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("5461 of 16384 slots of the cluster are away"), "{said}");
    let metrics = ask(admin, "GET /metrics");
    assert!(metrics.contains("\ntalewire_broker_slots_away 5461\n") && metrics.contains("\ntalewire_broker_up 1\n"));
    let nodes: Value =
        serde_json::from_str(ask(admin, "GET /nodes").split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    assert!(nodes["unready"].is_null() && nodes["degraded"].is_string(), "{nodes}");
    check(&mut command(&["doctor"]), 1, &["some of the broker is not there", "5461 of 16384 slots"]);
    cluster.servers[0].restart();
    assert!(until("\r\n\r\nready\n").starts_with("HTTP/1.1 200"));
    for server in &mut cluster.servers[1..] {
        server.kill();
    }
    assert!(until("HTTP/1.1 503").contains("\r\n\r\nthe broker is not there"));
}
