//! Readers without a protocol, by hand: `/events`, `/poll`, and the connections that flow one way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use talewire_broker::{Delivery, Message};
use talewire_hub::HubSettings;
use talewire_proto::session::Anonymous;
use talewire_proto::{Channel, Entry, Epoch, Limits, Publication};
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, Settings, Stage};

/// A stream of events, read as the standard says.
pub(crate) struct Stream {
    socket: TcpStream,
    head: String,
    text: String,
    last_id: String,
    retry_ms: u64,
}

/// One event, or what moved the reader without one.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
    id: String,
}

impl Stream {
    pub(crate) async fn open(stage: &Stage, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", stage.address);
        socket.write_all(request.as_bytes()).await.expect("an open socket");
        let mut stream = Self { socket, head: String::new(), text: String::new(), last_id: String::new(), retry_ms: 0 };
        while !stream.text.contains("\r\n\r\n") {
            assert!(stream.read().await, "an end within the head: {}", stream.text);
        }
        let (head, rest) = stream.text.split_once("\r\n\r\n").expect("a head");
        (stream.head, stream.text) = (head.to_owned(), rest.to_owned());
        stream
    }

    /// The id that the next request would carry.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let n = tokio::time::timeout(DEADLINE, self.socket.read(&mut bytes)).await.expect("in time").unwrap_or(0);
        self.text += std::str::from_utf8(&bytes[..n]).expect("whole characters");
        n > 0
    }

    /// The next block, comments skipped; nothing at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                if block != ":" {
                    return Some(block);
                }
                continue;
            }
            if !self.read().await {
                assert_eq!(self.text, "", "an event was cut");
                return None;
            }
        }
    }

    /// The next event. Blocks without data only move the id or say when to come back.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let (mut name, mut data) = ("message".to_owned(), None);
            for line in block.lines() {
                match line.split_once(": ").unwrap_or((line, "")) {
                    ("event", value) => name = value.to_owned(),
                    ("data", value) => data = Some(serde_json::from_str(value).expect("JSON")),
                    ("id", value) => self.last_id = value.to_owned(),
                    ("retry", value) => self.retry_ms = value.parse().expect("digits"),
                    ("", _) => {}
                    other => panic!("no such field: {other:?}"),
                }
            }
            if let Some(data) = data {
                return Some(Event { name, data, id: self.last_id.clone() });
            }
        }
    }

    async fn named(&mut self, name: &str) -> Event {
        let event = self.event().await.unwrap_or_else(|| panic!("an end instead of {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event
    }
}

async fn publish(stage: &Stage, mut body: Value) -> Value {
    body["data"] = body["data"].take();
    let body = body.to_string();
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: the-key\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = exchange(stage, &request).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    serde_json::from_str(said.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

async fn exchange(stage: &Stage, request: &str) -> String {
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("an open socket");
    let mut said = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut said)).await.expect("in time").expect("an answer");
    String::from_utf8(said).expect("UTF-8")
}

async fn say(stage: &Stage, channel: &str, event: &str, data: u64) {
    publish(stage, json!({"channel": channel, "event": event, "data": data})).await;
}

async fn poll(stage: &Stage, query: &str) -> (u16, Value) {
    let request = format!("GET /poll?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let said = exchange(stage, &request).await;
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
}

fn careful() -> Settings {
    Settings { anonymous: Anonymous::Refused, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_one_channel_goes_on_where_it_was() {
    let stage = Stage::new().await;
    say(&stage, "chat:1", "turn", 1).await;
    let mut stream = Stream::open(&stage, "/events?channel=chat:1", "").await;
    for wanted in ["200 OK", "Content-Type: text/event-stream", "no-cache", "no-transform", "X-Accel-Buffering: no"] {
        assert!(stream.head.contains(wanted), "{}", stream.head);
    }
    let connected = stream.named("connected").await;
    assert_eq!(connected.data["channels"]["chat:1"]["offset"], 1);
    assert!(connected.data["client"].is_string() && connected.data["time"].is_i64(), "{connected:?}");
    assert!(connected.id.starts_with("1-"), "{connected:?}");
    assert_eq!(stream.retry_ms, 3_000);
    say(&stage, "chat:1", "turn", 2).await;
    publish(&stage, json!({"channel": "chat:1", "data": {"a": "\r\nid: 9\n"}})).await;
    let turn = stream.named("turn").await;
    assert_eq!((turn.data, &turn.id[..2]), (json!(2), "2-"));
    assert_eq!(stream.named("message").await.data, json!({"a": "\r\nid: 9\n"}));
    drop(stream);

    for n in 4..=6 {
        say(&stage, "chat:1", "turn", n).await;
    }
    // By the header, as a browser says it when it comes back, or by the address.
    let back = format!("Last-Event-ID: {}\r\n", turn.id);
    for (path, headers) in [
        ("/events?channel=chat:1".to_owned(), back),
        (format!("/events?channel=chat:1&last_event_id={}", turn.id), String::new()),
    ] {
        let mut stream = Stream::open(&stage, &path, &headers).await;
        assert_eq!(stream.named("connected").await.data["channels"]["chat:1"]["recovered"], true);
        assert_eq!(stream.named("message").await.id.split('-').next(), Some("3"));
        for n in 4..=6 {
            assert_eq!(stream.named("turn").await.data, json!(n));
        }
    }
    let mut all = Stream::open(&stage, "/events?channel=chat:1&last_event_id=earliest", "").await;
    all.named("connected").await;
    assert_eq!(all.named("turn").await.data, json!(1));

    let mut lost = Stream::open(&stage, "/events?channel=chat:1", "Last-Event-ID: 2-0000000000000001\r\n").await;
    assert_eq!(lost.named("connected").await.data["channels"]["chat:1"]["recovered"], false);
    let gap = lost.named("gap").await;
    assert_eq!((&gap.data["channel"], &gap.data["offset"]), (&json!("chat:1"), &json!(6)));
    say(&stage, "chat:1", "turn", 7).await;
    assert_eq!(lost.named("turn").await.data, json!(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn far_more_than_a_page_is_read_to_its_end() {
    let limits = Limits { history_entries_max: 7, ..Limits::default() };
    let stage = Stage::with(Settings { limits, ..Settings::default() }).await;
    for n in 1..=40 {
        say(&stage, "log:1", "turn", n).await;
    }
    let mut stream = Stream::open(&stage, "/events?channel=log:1&last_event_id=earliest", "").await;
    stream.named("connected").await;
    for n in 1..=40 {
        assert_eq!(stream.named("turn").await.data, json!(n));
    }
    say(&stage, "log:1", "turn", 41).await;
    assert_eq!(stream.named("turn").await.data, json!(41));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_channels_has_one_position_for_all() {
    let stage = Stage::new().await;
    for many in [2, 20] {
        let names: Vec<String> = (0..many).map(|n| format!("chat:{many}.{n}")).collect();
        let query: String = names.iter().map(|name| format!("&channel={name}")).collect();
        let path = format!("/events?envelope=1{query}");
        let mut stream = Stream::open(&stage, &path, "").await;
        let mut last = stream.named("connected").await.id;
        for (n, name) in names.iter().enumerate() {
            say(&stage, name, "turn", n as u64).await;
            let turn = stream.named("turn").await;
            assert_eq!((&turn.data["channel"], &turn.data["data"]), (&json!(name), &json!(n)));
            assert_eq!(turn.data["offset"], 1);
            assert!(turn.id != last && turn.id.len() <= 128, "{turn:?}");
            assert!(turn.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)), "{turn:?}");
            if n == 0 {
                last = turn.id;
            }
        }
        drop(stream);
        let mut back = Stream::open(&stage, &path, &format!("Last-Event-ID: {last}\r\n")).await;
        let connected = back.named("connected").await;
        let all: Vec<&Value> = names.iter().map(|name| &connected.data["channels"][name]["recovered"]).collect();
        assert!(all.iter().all(|recovered| **recovered == json!(true)), "{connected:?}");
        let mut missed = Vec::new();
        for _ in 1..many {
            missed.push(back.named("turn").await.data["data"].as_u64().expect("a number"));
        }
        missed.sort_unstable();
        assert_eq!(missed, (1..many).collect::<Vec<u64>>());
        // An id of other channels says nothing about these.
        let mut other =
            Stream::open(&stage, "/events?channel=chat:x&channel=chat:y", &format!("Last-Event-ID: {last}\r\n")).await;
        other.named("connected").await;
        other.named("gap").await;
        other.named("gap").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_the_position_true() {
    let limits = Limits { comment_interval_ms: 300, comment_interval_max_ms: 600, ..Limits::default() };
    let stage = Stage::with(Settings { limits, ..Settings::default() }).await;
    let mut stream = Stream::open(&stage, "/events?channel=chat:1&events=turn,message", "").await;
    let connected = stream.named("connected").await;
    say(&stage, "chat:1", "vote", 1).await;
    say(&stage, "chat:1", "turn", 2).await;
    say(&stage, "chat:1", "vote", 3).await;
    assert_eq!(stream.named("turn").await.data, json!(2));
    // The position moves on without an event.
    let block = stream.block().await.expect("a sign of life");
    assert!(block.starts_with("id: 3-") && !block.contains("data"), "{block}");

    // Changed by a request of its own, with the name that the stream has been told.
    let command =
        json!({"id": 5, "rpc": {"method": "channel.filter", "data": {"channel": "chat:1", "events": ["vote"]}}});
    let body =
        json!({"session": connected.data["session"], "node": connected.data["node"], "data": command.to_string()});
    let body = body.to_string();
    let post = format!(
        "POST /emulation HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(exchange(&stage, &post).await.starts_with("HTTP/1.1 204"));
    assert_eq!(stream.named("reply").await.data, json!({"id": 5, "rpc": {"data": {}}}));
    say(&stage, "chat:1", "turn", 4).await;
    say(&stage, "chat:1", "vote", 5).await;
    assert_eq!(stream.named("vote").await.data, json!(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_is_told_and_then_kept_away() {
    let stage = Stage::with(careful()).await;
    for (path, code) in [("/events?channel=chat:1", 3507), ("/events?channel=chat:1&token=nonsense", 3500)] {
        let mut stream = Stream::open(&stage, path, "").await;
        if code == 3507 {
            assert_eq!(stream.named("reply").await.data["error"]["message"], "unauthorized");
        }
        let told = stream.named("disconnect").await;
        assert_eq!((&told.data["code"], &told.data["reconnect"]), (&json!(code), &json!(false)));
        assert_eq!(stream.event().await, None);
        assert_eq!(stream.last_id, "stopped");
        let again = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLast-Event-ID: stopped\r\n\r\n");
        assert!(exchange(&stage, &again).await.starts_with("HTTP/1.1 204"));
    }
    let bad = "GET /events?channel=a%20b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&stage, bad).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_too_often_or_at_the_end_is_asked_to_come_later() {
    let http = ServerSettings { request_burst: 2, requests_per_second: 1, ..Settings::default().http };
    let mut stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let mut stream = Stream::open(&stage, "/events?channel=chat:1", "").await;
    stream.named("connected").await;
    let mut told = None;
    for _ in 0..5 {
        let mut one = Stream::open(&stage, "/events?channel=chat:1", "").await;
        assert!(one.head.starts_with("HTTP/1.1 200"), "{}", one.head);
        let event = one.event().await.expect("an event");
        if event.name == "disconnect" {
            assert!((3_000..9_000).contains(&one.retry_ms), "{}", one.retry_ms);
            assert_eq!(one.event().await, None);
            told = Some(event);
        }
    }
    assert_eq!(told.expect("more than allowed").data["code"], 3013);
    stage.stop().await;
    assert_eq!(stream.named("disconnect").await.data, json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
    assert_eq!(stream.event().await, None);
    assert!((3_000..9_000).contains(&stream.retry_ms), "{}", stream.retry_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_show_that_they_live() {
    let limits = Limits { comment_interval_ms: 200, ..Limits::default() };
    let stage = Stage::with(Settings { limits, ..Settings::default() }).await;
    let mut stream = Stream::open(&stage, "/events?channel=cursor:1", "").await;
    stream.named("connected").await;
    while !stream.text.contains(":\n\n:\n\n") {
        assert!(stream.read().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_answers_at_once_or_when_something_comes() {
    let stage = Stage::new().await;
    say(&stage, "chat:1", "turn", 1).await;
    let (status, first) = poll(&stage, "channel=chat:1&channel=cursor:1").await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["channels"]["chat:1"]["offset"], 1);
    assert_eq!((&first["events"], &first["gaps"], &first["refused"]), (&json!([]), &json!([]), &json!([])));
    let cursor = first["cursor"].as_str().expect("a cursor").to_owned();

    let (_, nothing) = poll(&stage, &format!("cursor={cursor}&wait=0")).await;
    assert_eq!((&nothing["events"], &nothing["channels"]), (&json!([]), &json!({})));

    let waiting = format!("cursor={cursor}&wait=20");
    let (answer, ()) = tokio::join!(poll(&stage, &waiting), async {
        stage.until("somebody waits", |node| Stage::metric(node, "talewire_channels") == 2).await;
        say(&stage, "chat:1", "turn", 2).await;
        publish(&stage, json!({"channel": "cursor:1", "data": {"x": 1}})).await;
    });
    let events = answer.1["events"].as_array().expect("events");
    assert_eq!(
        (&events[0]["channel"], &events[0]["offset"], &events[0]["event"]),
        (&json!("chat:1"), &json!(2), &json!("turn"))
    );
    let cursor = answer.1["cursor"].as_str().expect("a cursor").to_owned();

    for n in 3..=5 {
        say(&stage, "chat:1", if n == 4 { "vote" } else { "turn" }, n).await;
    }
    let data = |answer: &Value| -> Vec<Value> {
        answer["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect()
    };
    let (_, missed) = poll(&stage, &format!("cursor={cursor}&wait=0")).await;
    assert_eq!(data(&missed), [json!(3), json!(4), json!(5)]);
    let (_, all) = poll(&stage, "channel=chat:1@0-&wait=0").await;
    assert_eq!(data(&all), [json!(1), json!(2), json!(3), json!(4), json!(5)]);
    // The same cursor gives the same answer: it stands for itself.
    let (_, again) = poll(&stage, &format!("cursor={cursor}&wait=0&events=turn")).await;
    assert_eq!(data(&again), [json!(3), json!(5)]);
    let cursor = again["cursor"].as_str().expect("a cursor");
    let (_, more) = poll(&stage, &format!("cursor={cursor}&wait=0&channel=chat:2&channel=chat:1")).await;
    assert_eq!((data(&more), &more["channels"]["chat:2"]["offset"]), (vec![], &json!(0)));
    assert!(more["channels"].get("chat:1").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_told_of_gaps_and_of_what_it_may_not_read() {
    let stage = Stage::new().await;
    say(&stage, "chat:1", "turn", 1).await;
    let (status, answer) = poll(&stage, "channel=chat:1@1-elsewhere&channel=nowhere:1&channel=story:x&wait=0").await;
    assert_eq!(status, 200);
    assert_eq!(answer["gaps"][0]["channel"], "chat:1");
    assert_eq!(answer["channels"]["chat:1"]["recovered"], false);
    let codes: Vec<&Value> = answer["refused"].as_array().expect("refused").iter().map(|one| &one["code"]).collect();
    assert_eq!(codes, [&json!(102), &json!(103)], "{answer}");
    for bad in ["", "cursor=forged", "channel=a%20b", "wait=x&channel=chat:1"] {
        assert_eq!(poll(&stage, bad).await.0, 400, "{bad}");
    }
    let careful = Stage::with(careful()).await;
    let (status, body) = poll(&careful, "channel=chat:1").await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!(101)));
    assert_eq!(poll(&careful, "channel=chat:1&token=nonsense").await.0, 401);
}

/// A broker has lost an entry that was announced: whoever waits has gathered it when its history turns out to be another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_is_told_of_a_gap_has_nothing_from_before_it() {
    let hub = HubSettings { gap_wait_ms: 0, ..HubSettings::default() };
    let stage = Arc::new(Stage::with(Settings { hub, ..Settings::default() }).await);
    let mut gaps = 0;
    for n in 0..20 {
        let channel: Channel = format!("chat:{n}").parse().expect("a name");
        let published = publish(&stage, json!({"channel": channel, "event": "turn", "data": 1})).await;
        let epoch = Epoch::new(published["result"]["epoch"].as_str().expect("an epoch"));
        let (_, first) = poll(&stage, &format!("channel={channel}&wait=0")).await;
        stage.until("the first poll is over", |node| Stage::metric(node, "talewire_subscriptions") == 0).await;
        let query = format!("cursor={}&wait=10", first["cursor"].as_str().expect("a cursor"));
        let waiting = tokio::spawn({
            let stage = stage.clone();
            async move { poll(&stage, &query).await.1 }
        });
        stage.until("the poll waits", |node| Stage::metric(node, "talewire_subscriptions") == 1).await;
        stage.node.broker.shift_clock(200_000_000);
        stage.node.broker.sweep();
        let lost = Entry { offset: 2, publication: Publication::default() };
        let message = Message::Entry { epoch, entry: Arc::new(lost) };
        stage.node.hub.deliver(Delivery { channel: channel.clone(), message });
        // The same look as any newcomer's: it finds another history.
        publish(&stage, json!({"channel": channel, "event": "turn", "data": 3})).await;
        let answer = waiting.await.expect("an answer");
        let offsets: Vec<&Value> =
            answer["events"].as_array().expect("events").iter().map(|event| &event["offset"]).collect();
        if answer["gaps"] != json!([]) {
            gaps += 1;
            assert!(!offsets.contains(&&json!(2)), "{answer}");
        }
    }
    assert!(gaps > 0, "the gap always came too late for the same answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_reads_a_long_history_page_by_page() {
    let limits = Limits { history_entries_max: 7, ..Limits::default() };
    let stage = Stage::with(Settings { limits, ..Settings::default() }).await;
    let (_, begin) = poll(&stage, "channel=log:1").await;
    let mut cursor = begin["cursor"].as_str().expect("a cursor").to_owned();
    for n in 1..=20 {
        say(&stage, "log:1", "turn", n).await;
    }
    let mut read = Vec::new();
    while read.len() < 20 {
        let (_, page) = poll(&stage, &format!("cursor={cursor}&wait=20")).await;
        let events = page["events"].as_array().expect("events");
        assert!(!events.is_empty(), "{page}");
        read.extend(events.iter().map(|event| event["data"].as_u64().expect("a number")));
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(read, (1..=20).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_peer_is_gone_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let (_, begin) = poll(&stage, "channel=chat:1").await;
    let cursor = begin["cursor"].as_str().expect("a cursor");
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    let request = format!("GET /poll?cursor={cursor} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("an open socket");
    stage.until("it waits", |node| Stage::metric(node, "talewire_channels") == 1).await;
    drop(socket);
    stage.until("it is gone", |node| Stage::metric(node, "talewire_channels") == 0).await;
    stage.until("its place is free", |node| Stage::metric(node, "talewire_sockets") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_flow_one_way_get_pushes_alone() {
    let limits = Limits { ping_interval_ms: 300, pong_deadline_ms: 100, ..Limits::default() };
    let stage = Stage::with(Settings { limits, ..Settings::default() }).await;
    let connect = r#"{"subs":{"chat:1":{}}}"#;
    let encoded: String = form_urlencoded::byte_serialize(connect.as_bytes()).collect();
    let mut sse = Stream::open(&stage, &format!("/connection/uni_sse?cf_connect={encoded}"), "").await;
    let connected = loop {
        let block = sse.block().await.expect("a block");
        if !block.is_empty() {
            break block;
        }
    };
    let connected: Value =
        serde_json::from_str(connected.trim_start().strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(connected["connect"]["subs"]["chat:1"]["recoverable"], true, "{connected}");
    assert!(connected["connect"].get("session").is_none());

    let length = connect.len();
    let post = format!(
        "POST /connection/uni_http_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{connect}"
    );
    let mut http = TcpStream::connect(stage.address).await.expect("a connection");
    http.write_all(post.as_bytes()).await.expect("an open socket");
    stage.until("both are there", |node| Stage::metric(node, "talewire_connects_total") == 2).await;
    say(&stage, "chat:1", "turn", 7).await;

    let mut lines = Vec::new();
    while lines.len() < 2 {
        let block = sse.block().await.expect("a block");
        let value: Value =
            serde_json::from_str(block.trim_start().strip_prefix("data: ").expect("data")).expect("JSON");
        lines.push(value);
    }
    let publication = lines.iter().find(|value| value.get("pub").is_some()).expect("the publication");
    assert_eq!((&publication["channel"], &publication["pub"]["data"]), (&json!("chat:1"), &json!(7)));
    assert!(lines.iter().any(|value| *value == json!({})), "a ping that nobody answers: {lines:?}");

    let mut text = String::new();
    while !text.contains("\"pub\"") {
        let mut bytes = [0; 4096];
        let n = tokio::time::timeout(Duration::from_secs(20), http.read(&mut bytes))
            .await
            .expect("in time")
            .expect("bytes");
        text += std::str::from_utf8(&bytes[..n]).expect("UTF-8");
    }
    assert!(text.contains("\n{\"channel\":\"chat:1\",\"pub\":{\"data\":7") && !text.contains("push"), "{text}");
    assert_eq!(Stage::metric(&stage.node, "talewire_connections"), 2, "nobody was closed for want of pongs");
}
