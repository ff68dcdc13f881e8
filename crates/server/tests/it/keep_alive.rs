//! HTTP/1.1 sockets that serve request after request, polls among them.

use serde_json::{Value, json};
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, Settings, Stage};

/// One socket, kept open.
struct Kept {
    socket: TcpStream,
    text: String,
}

impl Kept {
    async fn new(stage: &Stage) -> Self {
        let socket = TcpStream::connect(stage.address).await.expect("a connection");
        Self { socket, text: String::new() }
    }

    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("an open socket");
    }

    /// Reads until `enough` is in what has come. Says where it begins.
    async fn until(&mut self, enough: impl Fn(&str) -> Option<usize>) -> usize {
        loop {
            if let Some(at) = enough(&self.text) {
                return at;
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(DEADLINE, self.socket.read(&mut bytes)).await;
            let n = read.expect("an answer in time").expect("an open socket");
            assert!(n > 0, "closed after {:?}", self.text);
            self.text += std::str::from_utf8(&bytes[..n]).expect("whole characters");
        }
    }

    /// The next whole answer: status, head, body.
    async fn answer(&mut self) -> (u16, String, Value) {
        let end = self.until(|text| text.find("\r\n\r\n").map(|at| at + 4)).await;
        let head: String = self.text.drain(..end).collect();
        let lower = head.to_ascii_lowercase();
        let length = lower.split_once("content-length: ").expect("a length").1;
        let length: usize = length.split("\r\n").next().and_then(|n| n.parse().ok()).expect("a number");
        self.until(|text| (text.len() >= length).then_some(length)).await;
        let body: String = self.text.drain(..length).collect();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head, serde_json::from_str(&body).unwrap_or_else(|_| json!(body)))
    }

    async fn get(&mut self, path: &str) -> (u16, String, Value) {
        self.send(&get(path)).await;
        self.answer().await
    }

    async fn ends(&mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, self.socket.read_to_end(&mut rest)).await.expect("in time").expect("an end");
        assert_eq!((self.text.as_str(), rest.as_slice()), ("", &b""[..]));
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn cursor(answer: &Value) -> String {
    answer["cursor"].as_str().unwrap_or_else(|| panic!("no cursor in {answer}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_carries_poll_after_poll_and_whatever_else() {
    let stage = Stage::new().await;
    let mut kept = Kept::new(&stage).await;
    let mut writer = stage.client().await;
    let (status, head, mut last) = kept.get("/poll?channel=chat:1").await;
    assert_eq!(status, 200, "{last}");
    assert!(!head.contains("Connection: close"), "{head}");
    for n in 0..5 {
        kept.send(&get(&format!("/poll?cursor={}&wait=20", cursor(&last)))).await;
        stage.until("it waits", |node| Stage::metric(node, "talewire_connections") == 2).await;
        writer.call(json!({"id": n + 10, "publish": {"channel": "chat:1", "data": n}})).await;
        last = kept.answer().await.2;
        assert_eq!(last["events"][0]["data"], n, "{last}");
        assert_eq!(kept.get("/app/config").await.2["narrator"]["provider"], "demo");
    }
    // A refusal ends the poll and not the socket, on whichever side of the takeover it comes.
    assert_eq!(kept.get("/poll?cursor=nonsense").await.0, 400);
    assert_eq!(kept.get("/poll?channel=chat:1&token=nonsense").await.0, 401);
    assert_eq!(kept.get("/app/config").await.0, 200);
    assert_eq!(Stage::metric(&stage.node, "talewire_sockets"), 2);
    assert_eq!(Stage::metric(&stage.node, "talewire_strangers"), 0);
    drop(kept);
    stage.until("its place is free", |node| Stage::metric(node, "talewire_sockets") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_the_answer_is_the_next_request() {
    let stage = Stage::new().await;
    let mut kept = Kept::new(&stage).await;
    let begin = kept.get("/poll?channel=chat:1").await.2;
    let mut writer = stage.client().await;
    let next = get("/app/config");
    for cut in [0, 5, next.len()] {
        // So much with the poll itself, the rest while it waits and after it is answered.
        kept.send(&(get(&format!("/poll?cursor={}&wait=20", cursor(&begin))) + &next[..cut])).await;
        stage.until("it waits", |node| Stage::metric(node, "talewire_connections") == 2).await;
        let later = cut + (next.len() - cut) / 2;
        kept.send(&next[cut..later]).await;
        writer.call(json!({"id": cut + 10, "publish": {"channel": "chat:1", "data": cut}})).await;
        assert_eq!(kept.answer().await.0, 200, "cut at {cut}");
        kept.send(&next[later..]).await;
        assert_eq!(kept.answer().await.2["narrator"]["provider"], "demo", "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_when_its_peer_says_so_or_nothing_comes_any_more() {
    let base = Settings::default();
    let http = ServerSettings { head_ms: 300, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let mut kept = Kept::new(&stage).await;
    kept.send("GET /poll?channel=chat:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (status, head, _) = kept.answer().await;
    assert!(status == 200 && head.contains("Connection: close\r\n"), "{head}");
    kept.ends().await;
    let mut old = Kept::new(&stage).await;
    old.send("GET /poll?channel=chat:1 HTTP/1.0\r\nHost: x\r\n\r\n").await;
    assert_eq!(old.answer().await.0, 200);
    old.ends().await;
    // After a poll a socket waits no longer for the next request than after any other.
    let mut idle = Kept::new(&stage).await;
    assert_eq!(idle.get("/poll?channel=chat:1").await.0, 200);
    idle.ends().await;
    stage.until("their places are free", |node| Stage::metric(node, "talewire_sockets") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_poll_is_never_taken_for_a_request() {
    let stage = Stage::new().await;
    let smuggled = get("/poll?channel=chat:2&wait=0");
    for framing in [format!("Content-Length: {}", smuggled.len()), "Transfer-Encoding: chunked".to_owned()] {
        let mut kept = Kept::new(&stage).await;
        kept.send(&format!("GET /poll?channel=chat:1&wait=1 HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")).await;
        let (status, _, answer) = kept.answer().await;
        assert_eq!(status, 400, "{answer}");
        // Whatever the socket's next words are taken for, they are no request of anybody.
        let _ = kept.socket.write_all(smuggled.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, kept.socket.read_to_end(&mut rest)).await.expect("an end in time");
        let rest = kept.text + &String::from_utf8_lossy(&rest);
        assert!(!rest.contains("cursor"), "{framing}: {rest}");
    }
}
