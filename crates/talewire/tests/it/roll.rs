//! Two nodes on one Redis and one PostgreSQL: one after the other goes or is killed and comes back, and a few hundred readers move without
//! a loss. And what a node says while its broker stands still.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Parser as _;
use serde_json::Value;
use talewire_load::options::{Cli, Scenario};
use talewire_load::run::roll;
use talewire_stand::postgres::Postgres;
use talewire_stand::redis::Redis;

use super::{Running, talewire};

/// 300 readers, two moves, 40 publications a second. The long run is in docs/performance.md. `further` are arguments of this run.
fn moves(redis: &Redis, postgres: &Postgres, kind: &str, transport: &str, further: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("run");
    let data = data.to_str().expect("UTF-8");
    let settings = [
        "TALEWIRE_BROKER_KIND=redis".to_owned(),
        format!("TALEWIRE_BROKER_REDIS_URLS=[\"{}\"]", redis.url()),
        format!("TALEWIRE_STORE_URL={}", postgres.url()),
        "TALEWIRE_HTTP_DRAIN_WAIT_MS=200".to_owned(),
        "TALEWIRE_HTTP_DRAIN_MS=20000".to_owned(),
    ];
    let mut arguments = vec!["talewire-load", "roll", "--binary", env!("CARGO_BIN_EXE_talewire"), "--data", data];
    arguments.extend([
        "--readers",
        "300",
        "--moves",
        "2",
        "--between-ms",
        "500",
        "--rate",
        "40",
        "--backoff-ms",
        "300",
    ]);
    // A channel of its own, or its keys would be known from the run before.
    let namespace = format!("{kind}-{transport}{}", further.concat());
    arguments.extend(further);
    arguments.extend(["--kind", kind, "--transport", transport, "--namespace", &namespace]);
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let Scenario::Roll(options) = Cli::try_parse_from(arguments).expect("good arguments").scenario else {
        panic!("another scenario")
    };
    let report = roll::run(&options).expect("the run is made");
    report.verdict().unwrap_or_else(|error| panic!("{kind} over {transport}: {error}\n{report}"));
    let figures = serde_json::to_value(&report).expect("a report");
    let acknowledged = figures["acknowledged"].as_u64().expect("a number");
    assert!(acknowledged > 20, "{figures}");
    assert_eq!(figures["deliveries"], acknowledged * 300, "{figures}");
    let moves = figures["moves"].as_array().expect("moves");
    assert!(moves.len() == 2 && moves.iter().all(|one| one["gone_s"].as_f64() < Some(20.0)), "{figures}");
    assert!(figures["tally"]["breaks"].as_u64() >= Some(600), "every reader moved twice: {figures}");
}

#[test]
fn readers_move_between_nodes_and_miss_nothing() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    for (kind, transport) in
        [("durable", "websocket"), ("history", "websocket"), ("durable", "events"), ("history", "events")]
    {
        moves(&redis, &postgres, kind, transport, &[]);
    }
}

#[test]
fn readers_of_a_killed_node_go_on_at_another_and_miss_nothing() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    for (kind, transport) in [("durable", "websocket"), ("history", "events")] {
        moves(&redis, &postgres, kind, transport, &["--kill"]);
    }
}

#[test]
fn a_broker_that_stands_still_is_told_of_and_forgotten_when_it_goes_on() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut command =
        talewire(&["serve", "--insecure", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("UTF-8")]);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
    command.env("TALEWIRE_BROKER_KIND", "redis").env("TALEWIRE_BROKER_REDIS_URLS", format!("[\"{}\"]", redis.url()));
    let mut running = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let ready = lines.find(|line| line.contains("talewire is ready")).expect("it gets ready");
    std::thread::spawn(move || lines.for_each(drop));
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let admin = ready["admin"].as_str().expect("an address");
    let until = |what: &str, seconds: u64, holds: &dyn Fn(&str) -> bool| {
        let began = Instant::now();
        loop {
            let said = super::ask(admin, "GET /ready");
            if holds(&said) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(seconds), "{what}: {said}");
            std::thread::yield_now();
        }
    };
    until("ready", 10, &|said| said.starts_with("HTTP/1.1 200"));
    redis.process.pause();
    until("red", 15, &|said| said.starts_with("HTTP/1.1 503") && said.contains("the broker is not there"));
    assert!(super::ask(admin, "GET /health").starts_with("HTTP/1.1 200"), "it lives");
    assert!(super::ask(admin, "GET /metrics").contains("talewire_broker_up 0"));
    redis.process.go_on();
    until("green again", 15, &|said| said.starts_with("HTTP/1.1 200"));
    assert!(super::ask(admin, "GET /metrics").contains("talewire_broker_up 1"));
}
