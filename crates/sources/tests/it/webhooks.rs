//! Webhooks: a small server of our own takes deliveries, and checks their signatures by another implementation.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use talewire_proto::notice::NoticeSink;
use talewire_proto::{Notice, NoticeKind};
use talewire_sources::settings::{Hidden, WebhookSettings};
use talewire_sources::webhooks::Webhooks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::world::DEADLINE;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// One request that came.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).split_once(": ").expect("a header").1
    }
}

/// A server that answers each request with the next of `answers`, and with 200 behind them.
struct Other {
    port: u16,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Other {
    async fn start(answers: Vec<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (came, requests) = mpsc::unbounded_channel();
        let answers = Arc::new(parking_lot::Mutex::new(answers.into_iter()));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (came, answers) = (came.clone(), answers.clone());
                tokio::spawn(async move {
                    while let Some(request) = read(&mut socket).await {
                        let answer = answers.lock().next().unwrap_or("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                        // The test may have ended.
                        let _ = came.send(request);
                        if answer.is_empty() || socket.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, requests }
    }

    async fn next(&mut self) -> Request {
        let next = tokio::time::timeout(DEADLINE, self.requests.recv()).await;
        next.expect("a request in time").expect("the server runs")
    }
}

async fn read(socket: &mut tokio::net::TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("a head");
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.expect("a length");
            if bytes.len() >= end + 4 + length {
                return Some(Request { head, body: bytes[end + 4..end + 4 + length].to_vec() });
            }
        }
        let count = socket.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    }
}

fn settings(port: u16) -> WebhookSettings {
    WebhookSettings {
        url: format!("http://127.0.0.1:{port}/hook?x=1"),
        secret: Hidden::new(SECRET),
        batch_ms: 20,
        retry_ms: 5,
        retry_ms_max: 20,
        http_allowed: true,
        private_allowed: true,
        ..WebhookSettings::default()
    }
}

fn start(settings: WebhookSettings) -> (Webhooks, NoticeSink) {
    let (webhooks, sink) =
        Webhooks::start(&BTreeMap::from([("a".to_owned(), settings)]), "node-1").expect("good settings");
    (webhooks, sink.expect("there is one"))
}

fn occupied(n: u32) -> Notice {
    Notice::ChannelOccupied { channel: format!("chat:{n}").parse().expect("a channel"), serial: n.into() }
}

/// What others would check: Python's HMAC, over what came.
fn is_ours(request: &Request) -> bool {
    const CHECK: &str = "
import hashlib, hmac, sys, time
secret, header = sys.argv[1].encode(), sys.argv[2]
body = sys.stdin.buffer.read()
parts = dict(part.split('=', 1) for part in header.split(','))
signed = hmac.new(secret, parts['t'].encode() + b'.' + body, hashlib.sha256).hexdigest()
sys.exit(0 if hmac.compare_digest(signed, parts['v1']) and abs(time.time() - int(parts['t'])) < 300 else 1)";
    let mut python = Command::new("python3")
        .args(["-c", CHECK, SECRET, request.header("talewire-signature")])
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    python.stdin.take().expect("piped").write_all(&request.body).expect("it reads");
    python.wait().expect("it ends").success()
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_signed_batched_and_in_order() {
    let mut other = Other::start(vec![]).await;
    let (webhooks, sink) = start(settings(other.port));
    (0..5).for_each(|n| sink(occupied(n)));
    let mut events = Vec::new();
    while events.len() < 5 {
        let mut request = other.next().await;
        assert!(request.head.starts_with("POST /hook?x=1 HTTP/1.1"), "{}", request.head);
        assert!(is_ours(&request));
        let said = request.json();
        assert_eq!((said["node"].as_str(), said["dropped"].as_u64()), (Some("node-1"), Some(0)));
        assert_eq!(said["delivery"].as_str().map(str::len), Some(32));
        events.extend(said["events"].as_array().expect("a list").clone());
        *request.body.last_mut().expect("not empty") = b' ';
        assert!(!is_ours(&request), "a changed body has another signature");
    }
    let named: Vec<&Value> = events.iter().map(|event| &event["channel"]).collect();
    assert_eq!(named, ["chat:0", "chat:1", "chat:2", "chat:3", "chat:4"]);
    assert!(events.iter().all(|event| event["event"] == "channel_occupied" && event["at"].is_i64()), "{events:?}");
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_tried_until_it_is_accepted_and_keeps_its_name() {
    let answers = vec![
        "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
        // The connection breaks off.
        "",
        "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Later\r\nretry-after: 1000\r\ncontent-length: 0\r\n\r\n",
    ];
    let mut other = Other::start(answers).await;
    let (webhooks, sink) = start(settings(other.port));
    let counts = webhooks.counts()[0].1.clone();
    sink(occupied(1));
    let first = other.next().await;
    for _ in 0..4 {
        let again = other.next().await;
        assert!(again.head.starts_with("POST /hook?x=1 "), "redirects are not followed: {}", again.head);
        assert_eq!(again.body, first.body);
        assert!(is_ours(&again));
    }
    sink(occupied(2));
    assert_eq!(other.next().await.json()["events"][0]["channel"], "chat:2");
    webhooks.stop().await;
    assert_eq!(
        [&counts.delivered, &counts.failures, &counts.dropped, &counts.waiting].map(|c| c.load(Relaxed)),
        [2, 4, 0, 0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_counted_and_told() {
    let mut other = Other::start(vec!["HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"; 3]).await;
    // The first try, and no time for another.
    let hasty = WebhookSettings { give_up_ms: 1, queue_events_max: 2, batch_events_max: 1, ..settings(other.port) };
    let (webhooks, sink) = start(hasty);
    let counts = webhooks.counts()[0].1.clone();
    for n in 0..3 {
        sink(occupied(n));
        assert_eq!(other.next().await.json()["dropped"], n, "what was given up before is told");
    }
    // Nobody takes from the queue while this thread fills it, or somebody does: what there is no room for is counted either way.
    (10..1_010).for_each(|n| sink(occupied(n)));
    let (mut came, mut told) = (0, 0);
    while came + told < 1_003 {
        let said = other.next().await.json();
        came += said["events"].as_array().expect("a list").len() as u64;
        told += said["dropped"].as_u64().expect("a number");
        if came + told < 1_003 && counts.waiting.load(Relaxed) == 0 {
            // The last of them were dropped behind the last delivery: another event tells of them.
            sink(occupied(9_999));
            came -= 1;
        }
    }
    webhooks.stop().await;
    assert_eq!(counts.dropped.load(Relaxed), told);
    assert!(told > 3, "nothing was dropped: the queue is not bounded");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_told_and_what_waits_goes_before_the_end() {
    let mut other = Other::start(vec![]).await;
    let asked = WebhookSettings { events: vec![NoticeKind::ChannelVacated], batch_ms: 60_000, ..settings(other.port) };
    let (webhooks, sink) = start(asked);
    sink(occupied(1));
    sink(Notice::ChannelVacated { channel: "chat:1".parse().expect("a channel"), serial: 2 });
    webhooks.stop().await;
    let said = other.next().await.json();
    assert_eq!(said["events"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(said["events"][0]["event"], json!("channel_vacated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stands_for_an_inner_address_is_not_called() {
    let mut other = Other::start(vec![]).await;
    let url = format!("http://localhost:{}/", other.port);
    let inner = WebhookSettings { url: url.clone(), private_allowed: false, ..settings(other.port) };
    let (webhooks, sink) = start(WebhookSettings { give_up_ms: 200, ..inner });
    let counts = webhooks.counts()[0].1.clone();
    sink(occupied(1));
    let given_up = async {
        while counts.dropped.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, given_up).await.expect("it is given up");
    assert!(counts.failures.load(Relaxed) > 1);
    webhooks.stop().await;
    assert!(other.requests.try_recv().is_err(), "it was called");
    // The same name is called where an operator allows it.
    let (webhooks, sink) = start(WebhookSettings { url, ..settings(other.port) });
    sink(occupied(2));
    assert_eq!(other.next().await.json()["events"][0]["channel"], "chat:2");
    webhooks.stop().await;
}
