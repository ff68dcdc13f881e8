//! Logouts: who is refused afterwards, whatever was open or on its way, and who is not.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Answer, request};
use crate::stage::{DEADLINE, Settings, Stage};

type Headers = Vec<(&'static str, String)>;

async fn ask(stage: &Stage, what: &str, headers: &Headers) -> Answer {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = what.starts_with("POST").then(|| json!({}));
    request(stage.address, what, &headers, body).await
}

async fn log_out(stage: &Stage, headers: &Headers) {
    assert_eq!(ask(stage, "POST /app/logout", headers).await.status, 200);
}

fn bearer(token: &str) -> Headers {
    vec![("authorization", format!("Bearer {token}"))]
}

/// A node that has seen more logouts than it keeps: the tokens of two guests who were there before, and of the first who logged out.
async fn crowded() -> (Stage, String, Headers, String) {
    let stage = Stage::with(Settings { logouts_max: 2, ..Settings::default() }).await;
    let (ana, ben) = (stage.guest("Ana").await.1, stage.browser("Ben").await.1);
    let out = stage.guest("Out").await.1;
    log_out(&stage, &bearer(&out)).await;
    for _ in 0..5 {
        log_out(&stage, &bearer(&stage.guest("Cem").await.1)).await;
    }
    let now_ms = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let last_ms = now_ms();
    stage.until("whoever logs in now does so later than all of them", |_| now_ms() > last_ms).await;
    (stage, ana, ben, out)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logouts_log_nobody_else_out() {
    let (stage, ana, ben, out) = crowded().await;
    assert!(ask(&stage, "GET /app/me", &bearer(&ana)).await.body["user"]["id"].is_string());
    assert!(ask(&stage, "GET /app/me", &ben).await.body["user"]["id"].is_string());
    let (mut client, _) = stage.client_of(&ana).await;
    let refreshed = client.call(json!({"id": 2, "refresh": {"token": ana}})).await;
    assert!(refreshed["refresh"]["client"].is_string(), "{refreshed}");
    let mut browser = stage.open(&ben).await.expect("an upgrade");
    let reply = browser.call(json!({"id": 1, "connect": {}})).await;
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    assert!(Stage::metric(&stage.node, "talewire_logins_asked_total") > 0);
    stage.until("it is looked at", |node| Stage::metric(node, "talewire_logouts_kept") == 2).await;

    // Who has logged out stays out, although this node has forgotten it.
    assert_eq!(ask(&stage, "GET /app/me", &bearer(&out)).await.status, 401);
    let mut client = stage.open(&[]).await.expect("an upgrade");
    client.send(json!({"id": 1, "connect": {"token": out}})).await;
    assert_eq!(client.closed().await.0, 3_500);
    // And what they have open ends, also where only the database knows them.
    log_out(&stage, &ben).await;
    assert_eq!(browser.closed().await.0, 3_503);
    assert_eq!(ask(&stage, "GET /app/me", &ben).await.body, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_can_tell_of_is_asked_to_come_again() {
    let (stage, ana, ben, _) = crowded().await;
    let new = stage.guest("New").await.1;
    let (mut client, _) = stage.client_of(&ana).await;
    let mut late = stage.open(&ben).await.expect("an upgrade");
    stage.node.store.close().await;
    assert_eq!(ask(&stage, "GET /app/me", &bearer(&new)).await.status, 200, "memory knows of it");
    assert_eq!(ask(&stage, "GET /app/me", &bearer(&ana)).await.status, 503);
    assert_eq!(ask(&stage, "GET /app/me", &ben).await.status, 503);
    assert_eq!(stage.open(&ben).await.err(), Some(503));
    let events = ask(&stage, "GET /events?channel=chat:1", &ben).await;
    let told = events.body.as_str().is_some_and(|text| text.contains("4000"));
    assert!(events.status == 200 && told, "{} {}", events.head, events.body);
    let refreshed = client.call(json!({"id": 2, "refresh": {"token": ana}})).await;
    assert_eq!(refreshed["error"]["code"], 503);
    late.send(json!({"id": 1, "connect": {}})).await;
    assert_eq!(late.closed().await.0, 4_000);
    let mut client = stage.open(&[]).await.expect("an upgrade");
    let reply = client.call(json!({"id": 1, "connect": {"token": ana}})).await;
    assert_eq!(reply["error"]["code"], 503);
    assert_eq!(client.closed().await.0, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_opened_before_the_logout_connects_nobody_after_it() {
    for logouts_max in [1_000, 1] {
        let stage = Stage::with(Settings { logouts_max, ..Settings::default() }).await;
        let ana = stage.browser("Ana").await.1;
        let mut sockets = Vec::new();
        let connect = json!({"id": 1, "connect": {}});
        for (path, first) in [
            ("/connection/websocket", &connect),
            ("/connection/websocket", &connect),
            ("/connection/uni_websocket", &json!({})),
        ] {
            sockets.push((stage.open_at(path, &ana).await.expect("an upgrade"), first.clone()));
        }
        log_out(&stage, &ana).await;
        if logouts_max == 1 {
            log_out(&stage, &stage.browser("Ben").await.1).await;
        }
        for (mut socket, first) in sockets {
            socket.send(first).await;
            assert_eq!(socket.closed().await.0, 3_503, "{logouts_max}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_asked_for_before_the_logout_is_nobodys() {
    let stage = Stage::new().await;
    for path in ["/connection/http_stream", "/connection/sse", "/connection/uni_http_stream", "/connection/uni_sse"] {
        let ana = stage.browser("Ana").await.1;
        let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
        let body = json!({"id": 1, "connect": {}}).to_string();
        let headers: String = ana.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{headers}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            stage.address,
            body.len()
        );
        socket.write_all(head.as_bytes()).await.expect("an open socket");
        // The body is asked for once the cookie has been looked at.
        let mut goes_on = [0; 25];
        tokio::time::timeout(DEADLINE, socket.read_exact(&mut goes_on)).await.expect("in time").expect("a word");
        assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        log_out(&stage, &ana).await;
        socket.write_all(body.as_bytes()).await.expect("an open socket");
        let mut said = Vec::new();
        tokio::time::timeout(DEADLINE, socket.read_to_end(&mut said)).await.expect("an end").expect("an end");
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("3503") && !said.contains("\"version\""), "{path}: {said}");
    }
}
