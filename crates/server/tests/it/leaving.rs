//! The way down: load balancers hear of it first, then clients, little by little, and nothing that was begun is cut off.

use std::time::{Duration, Instant};

use serde_json::json;
use talewire_proto::{Kind, Namespace, Namespaces};
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{call, push, subscribe};
use crate::http::request;
use crate::readers::Stream;
use crate::stage::{DEADLINE, Settings, Stage, open};

/// A stage that takes a while to go, with one namespace that gathers publications for long.
async fn slow_to_go(wait_ms: u64) -> Stage {
    let batched = Namespace { batch_ms: 10_000, ..open(Kind::History) };
    let kinds = [("chat", open(Kind::History)), ("batched", batched)];
    let http = ServerSettings {
        drain_wait_ms: wait_ms,
        close_ms: 5_000,
        drain_ms: 20_000,
        request_burst: 1_000,
        ..Settings::default().http
    };
    let namespaces = Namespaces::new(kinds.map(|(name, rules)| (name.to_owned(), rules)));
    Stage::with(Settings { http, namespaces, ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_hear_of_it_before_clients_do() {
    let mut stage = slow_to_go(3_000).await;
    let mut client = stage.client().await;
    subscribe(&mut client, "chat:1").await;
    let server = stage.take_server();
    let began = Instant::now();
    let stopping = tokio::spawn(server.stop());
    stage.until("it goes down", talewire_server::Node::is_stopping).await;

    let ready = request(stage.admin, "GET /ready", &[], None).await;
    assert_eq!((ready.status, ready.body.as_str()), (503, Some("going down\n")));
    assert_eq!(request(stage.admin, "GET /health", &[], None).await.status, 200, "it lives");
    assert_eq!(request(stage.admin, "GET /nodes", &[], None).await.body["nodes"][0]["draining"], true);

    // Who is sent here by somebody who has not noticed is served.
    let mut late = stage.client().await;
    subscribe(&mut late, "chat:1").await;
    let poll = request(stage.address, "GET /poll?channel=chat:1&wait=0", &[], None).await;
    assert_eq!((poll.status, poll.header("connection")), (200, Some("close")), "{}", poll.head);
    call(&stage, "publish", json!({"channel": "chat:1", "data": "still"})).await;
    for client in [&mut client, &mut late] {
        assert_eq!(push(client).await["pub"]["data"], "still");
        assert_eq!(client.closed().await.0, 3_001);
    }
    assert!(began.elapsed() >= Duration::from_millis(3_000), "not before its time");
    stopping.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_connections_are_closed_is_told_to_come_again() {
    let mut stage = slow_to_go(0).await;
    // It reads nothing, so that the thread waits for it.
    let stuck = stage.client().await;
    let server = stage.take_server();
    let stopping = tokio::spawn(server.stop());
    let closed = |node: &talewire_server::Node| Stage::metric(node, "talewire_closes_total") == 1;
    stage.until("its connection is closed", closed).await;
    assert_eq!(stage.open(&[]).await.err(), Some(503), "nobody new");
    let refused = request(stage.address, "GET /poll?channel=chat:1", &[], None).await;
    assert!(refused.status == 503 && refused.header("retry-after").is_some(), "{}", refused.head);
    let mut events = Stream::open(&stage, "/events?channel=chat:1", "").await;
    let told = events.event().await.expect("an event");
    let expected = ("disconnect", &json!(3_001), &json!(true));
    assert_eq!((told.name.as_str(), &told.data["code"], &told.data["reconnect"]), expected);
    assert!(events.event().await.is_none());
    drop(stuck);
    stopping.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_sockets_are_told_to_go() {
    let mut stage = slow_to_go(1_000).await;
    let mut busy = TcpStream::connect(stage.address).await.expect("a connection");
    let mut idle = TcpStream::connect(stage.address).await.expect("a connection");
    let ask = b"GET /app/config HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut bytes = [0; 4096];
    for socket in [&mut busy, &mut idle] {
        socket.write_all(ask).await.expect("an open socket");
        let n = socket.read(&mut bytes).await.expect("an answer");
        assert!(!String::from_utf8_lossy(&bytes[..n]).to_lowercase().contains("connection: close"));
    }
    let server = stage.take_server();
    let began = Instant::now();
    let stopping = tokio::spawn(server.stop());
    stage.until("it goes down", talewire_server::Node::is_stopping).await;
    busy.write_all(ask).await.expect("an open socket");
    let mut said = String::new();
    tokio::time::timeout(DEADLINE, busy.read_to_string(&mut said)).await.expect("in time").expect("an end");
    assert!(said.starts_with("HTTP/1.1 200") && said.to_lowercase().contains("connection: close"), "{said}");
    let rest = tokio::time::timeout(DEADLINE, idle.read(&mut bytes)).await.expect("in time");
    assert!(matches!(rest, Ok(0)), "{rest:?}");
    stopping.await.expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(8), "an idle socket holds nothing up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_does_not_hold_it_up() {
    let http =
        ServerSettings { drain_ms: 20_000, drain_body_ms: 300, request_burst: 1_000, ..Settings::default().http };
    let mut stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let mut trickling = Vec::new();
    for path in ["/app/login", "/connection/http_stream", "/api/publish"] {
        let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: the-key\r\nContent-Type: application/json\r\n");
        socket.write_all(format!("{head}Content-Length: 1000\r\n\r\n{{").as_bytes()).await.expect("an open socket");
        let (mut answer, mut drip) = socket.into_split();
        let mut drops = tokio::time::interval(Duration::from_millis(20));
        let dripping = tokio::spawn(async move {
            while drip.write_all(b" ").await.is_ok() {
                drops.tick().await;
            }
        });
        let answer = tokio::spawn(async move {
            let (mut said, mut bytes) = (Vec::new(), [0; 1024]);
            while let Ok(n @ 1..) = answer.read(&mut bytes).await {
                said.extend_from_slice(&bytes[..n]);
            }
            String::from_utf8_lossy(&said).to_lowercase()
        });
        trickling.push((path, dripping, answer));
    }
    stage.until("they are there", |node| Stage::metric(node, "talewire_sockets") == 3).await;
    let began = Instant::now();
    stage.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for (path, dripping, answer) in trickling {
        let said = answer.await.expect("an answer");
        assert!(said.starts_with("http/1.1 503") && said.contains("connection: close"), "{path}: {said}");
        assert!(said.contains("retry-after:"), "{path}: {said}");
        dripping.await.expect("the socket is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_before_the_end() {
    let mut stage = slow_to_go(0).await;
    let mut client = stage.client().await;
    subscribe(&mut client, "batched:1").await;
    let empty = request(stage.address, "GET /poll?channel=chat:1&wait=0", &[], None).await.body;
    let cursor = empty["cursor"].as_str().expect("a cursor").to_owned();
    stage.until("the first poll is over", |node| Stage::metric(node, "talewire_connections") == 1).await;
    let address = stage.address;
    let polling =
        tokio::spawn(async move { request(address, &format!("GET /poll?cursor={cursor}&wait=50"), &[], None).await });
    let waits = |node: &talewire_server::Node| Stage::metric(node, "talewire_connections") == 2;
    stage.until("the poll waits", waits).await;
    call(&stage, "publish", json!({"channel": "batched:1", "data": 1})).await;
    let began = Instant::now();
    stage.stop().await;
    let said = loop {
        let message = client.next().await;
        if message["push"]["pub"].is_object() {
            break message;
        }
    };
    assert_eq!(said["push"]["pub"]["data"], 1);
    assert_eq!(client.closed().await.0, 3_001);
    let answer = polling.await.expect("an answer");
    assert_eq!((answer.status, answer.body["cursor"].is_string()), (200, true), "{}", answer.body);
    assert!(answer.body["retry_ms"].is_u64() && began.elapsed() < Duration::from_secs(8), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_closed_little_by_little() {
    let mut stage = slow_to_go(0).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(stage.client().await);
    }
    let server = stage.take_server();
    let began = Instant::now();
    let watching: Vec<_> = clients
        .into_iter()
        .map(|mut client| tokio::spawn(async move { (client.closed().await.0, began.elapsed()) }))
        .collect();
    server.stop().await;
    let mut times = Vec::new();
    for closed in watching {
        let (code, at) = closed.await.expect("an end");
        assert_eq!(code, 3_001);
        times.push(at);
    }
    times.sort();
    let (early, late) = (times[30], times[270]);
    assert!(late - early > Duration::from_millis(100), "all at once: {early:?} to {late:?}");
}
