//! Sockets that mean no good: silent, slow, too many, too large.

use std::time::Duration;

use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, Settings, Stage};

fn hurried() -> Settings {
    let base = Settings::default();
    Settings { http: ServerSettings { first_byte_ms: 300, head_ms: 300, ..base.http }, ..Settings::default() }
}

/// Sends `bytes`, then waits for the server to end the connection; what it said until then.
async fn until_closed(stage: &Stage, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    socket.write_all(bytes).await.expect("an open socket");
    let mut said = Vec::new();
    let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut said)).await;
    read.expect("closed in time").ok();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_sockets_are_closed() {
    let stage = Stage::with(hurried()).await;
    assert_eq!(until_closed(&stage, b"").await, "");
    until_closed(&stage, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let idle = until_closed(&stage, b"GET /app/config HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    until_closed(&stage, b"PRI * HTTP/2.0\r\n\r\n").await;
    stage.until("every place is given back", |node| Stage::metric(node, "talewire_sockets") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_have_a_size() {
    let stage = Stage::new().await;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(40_000));
    assert!(until_closed(&stage, head.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert!(until_closed(&stage, format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await.contains(" 431"));
    let two = until_closed(&stage, b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n").await;
    assert!(two.starts_with("HTTP/1.1 400"), "{two}");
    let body = "x".repeat(300_000);
    let post = format!(
        "POST /app/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(until_closed(&stage, post.as_bytes()).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_for_so_many_and_no_more() {
    let base = Settings::default();
    let http = ServerSettings { sockets_per_ip_max: 3, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let clients = [stage.client().await, stage.client().await, stage.client().await];
    assert_eq!(until_closed(&stage, b"").await, "");
    stage
        .until("it was counted", |node| node.metrics.text().contains("turned_away_total{reason=\"sockets_per_ip\"} 1"))
        .await;
    drop(clients);
    stage.until("the places are free", |node| Stage::metric(node, "talewire_sockets") == 0).await;
    let _again = stage.client().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames_end() {
    let stage = Stage::new().await;
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    let upgrade = "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.expect("an open socket");
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let mut said = Vec::new();
    let flood = async {
        for _ in 0..10_000 {
            if socket.write_all(&ping).await.is_err() {
                break;
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut said)).await;
    };
    tokio::time::timeout(DEADLINE, flood).await.expect("an end in time");
    stage.until("the flood was counted", |node| Stage::metric(node, "talewire_websocket_violations_total") == 1).await;
    stage.until("its place is free", |node| Stage::metric(node, "talewire_sockets") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_servers_alone() {
    let first = Stage::new().await;
    let base = Settings::default();
    let http = ServerSettings { listen: first.address, ..base.http };
    let second = Stage::try_with(Settings { http, ..Settings::default() }).await;
    let refused = second.err().expect("the address is taken").to_string();
    assert!(refused.starts_with(&format!("cannot listen on {} (http.listen)", first.address)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_let_in_at_its_pace_and_nobody_is_refused() {
    let http = ServerSettings { accepts_per_second: 20, ..Settings::default().http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let began = std::time::Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let address = stage.address;
        crowd.spawn(async move { crate::http::request(address, "GET /app/config", &[], None).await.status });
    }
    let first = crowd.join_next().await.expect("one of them").expect("an answer");
    assert_eq!(first, 200);
    for _ in 0..20 {
        let health = crate::http::request(stage.admin, "GET /health", &[], None).await;
        assert_eq!(health.status, 200, "operators do not wait");
    }
    while let Some(status) = crowd.join_next().await {
        assert_eq!(status.expect("an answer"), 200);
    }
    // Ten a second for each of two threads, which the kernel deals sockets to as it likes: one of them has twenty or more.
    assert!(began.elapsed() >= std::time::Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(Stage::metric(&stage.node, "talewire_accept_pauses_total") > 0);
}
