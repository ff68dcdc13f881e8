//! HTTP/2 with prior knowledge: requests, streams that are connections, WebSocket by CONNECT, and peers that mean no good.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use talewire_hub::HubSettings;
use talewire_proto::Limits;
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::stage::{Client, DEADLINE, Settings, Stage};

/// One socket that speaks HTTP/2.
struct Wide {
    send: SendRequest<Bytes>,
    end: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

impl Wide {
    async fn new(stage: &Stage) -> Self {
        Self::with(stage, &mut Builder::new()).await
    }

    async fn with(stage: &Stage, builder: &mut Builder) -> Self {
        let socket = TcpStream::connect(stage.address).await.expect("a connection");
        let (send, connection) = in_time(builder.handshake(socket)).await.expect("a handshake");
        Self { send, end: tokio::spawn(connection), authority: stage.address.to_string() }
    }

    async fn begin(
        &self,
        request: http::request::Builder,
        path: &str,
        body: Option<&str>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let request = request.uri(format!("http://{}{path}", self.authority)).body(()).expect("a request");
        let mut send = in_time(self.send.clone().ready()).await?;
        let (response, mut stream) = send.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        in_time(response).await
    }

    async fn ask(&self, request: http::request::Builder, path: &str, body: Option<&str>) -> (u16, Value) {
        let response = self.begin(request, path, body).await.expect("an answer");
        let status = response.status().as_u16();
        let body = whole(response.into_body()).await;
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Request::get("/"), path, None).await
    }

    /// A stream of Server-Sent Events that has connected and subscribed.
    async fn events(&self, channel: &str) -> Events {
        let commands =
            format!("{}\n{}", json!({"id": 1, "connect": {}}), json!({"id": 2, "subscribe": {"channel": channel}}));
        let post = Request::post("/").header("content-type", "application/json");
        let response = self.begin(post, "/connection/sse", Some(&commands)).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut events = Events::new(response);
        assert!(events.next().await["connect"]["client"].is_string());
        loop {
            let message = events.next().await;
            if message["id"] == 2 {
                assert!(message["subscribe"].is_object(), "{message}");
                return events;
            }
        }
    }

    /// A WebSocket on a stream of this socket.
    async fn websocket(&self, protocol: Option<&str>) -> (Response<()>, WebSocketStream<DuplexStream>) {
        self.websocket_of(protocol, &[]).await
    }

    async fn websocket_of(
        &self,
        protocol: Option<&str>,
        headers: &[(&str, String)],
    ) -> (Response<()>, WebSocketStream<DuplexStream>) {
        let mut request = Request::connect(format!("http://{}/connection/websocket", self.authority))
            .header("sec-websocket-version", "13");
        if let Some(protocol) = protocol {
            request = request.header("sec-websocket-protocol", protocol);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(()).expect("a request");
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, stream) = in_time(self.send.clone().ready())
            .await
            .expect("an open socket")
            .send_request(request, false)
            .expect("an open socket");
        let (head, body) = in_time(response).await.expect("an answer").into_parts();
        let (ours, theirs) = tokio::io::duplex(65_536);
        tokio::spawn(pump(theirs, stream, body));
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        (Response::from_parts(head, ()), socket)
    }
}

/// Carries a stream's bytes to and from a WebSocket of the test.
async fn pump(io: DuplexStream, mut send: SendStream<Bytes>, mut receive: RecvStream) {
    let (mut from, mut into) = tokio::io::split(io);
    let down = async {
        while let Some(Ok(bytes)) = receive.data().await {
            receive.flow_control().release_capacity(bytes.len()).expect("so much had come");
            if into.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = into.shutdown().await;
    };
    let up = async {
        let mut buffer = [0; 4_096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let _ = send.send_data(Bytes::copy_from_slice(&buffer[..n]), false);
        }
        let _ = send.send_data(Bytes::new(), true);
    };
    tokio::join!(down, up);
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = in_time(body.data()).await {
        let bytes = bytes.expect("a whole body");
        body.flow_control().release_capacity(bytes.len()).expect("so much had come");
        all.extend_from_slice(&bytes);
    }
    all
}

/// Server-Sent Events of a body, or lines of HTTP streaming.
struct Events {
    head: http::HeaderMap,
    body: RecvStream,
    text: String,
    waiting: VecDeque<Value>,
}

impl Events {
    fn new(response: Response<RecvStream>) -> Self {
        let (head, body) = response.into_parts();
        Self { head: head.headers, body, text: String::new(), waiting: VecDeque::new() }
    }

    /// The next message, nothing at the end of the stream.
    async fn try_next(&mut self) -> Result<Option<Value>, h2::Error> {
        loop {
            if let Some(value) = self.waiting.pop_front() {
                return Ok(Some(value));
            }
            let Some(bytes) = in_time(self.body.data()).await else { return Ok(None) };
            let bytes = bytes?;
            self.body.flow_control().release_capacity(bytes.len())?;
            self.text += std::str::from_utf8(&bytes).expect("ASCII");
            while let Some(end) = self.text.find('\n') {
                let line: String = self.text.drain(..=end).collect();
                let line = line.trim().trim_start_matches("data: ");
                if !line.is_empty() {
                    self.waiting.push_back(serde_json::from_str(line).expect("JSON"));
                }
            }
        }
    }

    async fn next(&mut self) -> Value {
        self.try_next().await.expect("an open stream").expect("a message")
    }

    async fn publication(&mut self) -> Value {
        loop {
            let message = self.next().await;
            if message["push"]["pub"].is_object() {
                return message["push"]["pub"].clone();
            }
        }
    }
}

async fn publish(writer: &mut Client, n: u64, channel: &str, data: Value) {
    let reply = writer.call(json!({"id": n + 10, "publish": {"channel": channel, "data": data}})).await;
    assert!(reply["publish"].is_object(), "{reply}");
}

fn generous() -> Settings {
    let base = Settings::default();
    let http = ServerSettings { request_burst: 100_000, ..base.http };
    Settings { http, limits: Limits { command_burst: 10_000, ..Limits::default() }, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_as_over_a_socket_of_their_own() {
    let stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    let response = wide.begin(Request::get("/"), "/app/config", None).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert!(headers.contains_key("date") && !headers.contains_key("connection"), "{headers:?}");
    let body = whole(response.into_body()).await;
    assert_eq!(headers["content-length"], body.len().to_string());
    let config: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(config["narrator"]["provider"], "demo");

    let head = wide.begin(Request::head("/"), "/app/config", None).await.expect("an answer");
    assert!(head.headers().contains_key("content-length") && head.body().is_end_stream());
    let json = || Request::post("/").header("content-type", "application/json");
    // A page's origin is compared with `:authority`, since there is no `Host`.
    let own = json().header("origin", format!("http://{}", stage.address));
    let (status, login) = wide.ask(own, "/app/login", Some("{\"name\":\"Ana\"}")).await;
    assert_eq!((status, &login["user"]["name"]), (200, &json!("Ana")));
    let evil = json().header("origin", "http://evil.example").header("host", "evil.example");
    assert_eq!(wide.ask(evil, "/app/login", Some("{\"name\":\"Eve\"}")).await.0, 403);
    assert_eq!(wide.get("/no/such").await.0, 404);
    assert_eq!(wide.get("/connection/websocket").await.0, 405);
    let large = "x".repeat(300_000);
    let refused = wide.ask(json(), "/app/login", Some(&large)).await;
    assert_eq!(refused.0, 413, "{refused:?}");
    // All on one socket, and at once.
    let many = futures_util::future::join_all((0..60).map(|_| wide.get("/app/config"))).await;
    assert!(many.iter().all(|(status, _)| *status == 200), "{many:?}");
    assert_eq!(Stage::metric(&stage.node, "talewire_sockets"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_carries_many_one_way_connections() {
    let stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    let mut events = wide.events("chat:1").await;
    let kind = events.head["content-type"].to_str().expect("text").to_owned();
    assert_eq!((kind.as_str(), events.head.contains_key("connection")), ("text/event-stream", false));

    let post = Request::post("/").header("content-type", "application/json");
    let response = wide.begin(post, "/connection/http_stream", Some("{\"id\":1,\"connect\":{}}")).await;
    let mut lines = Events::new(response.expect("an answer"));
    let connected = lines.next().await["connect"].clone();
    let command = |command: Value| {
        let (session, node) = (&connected["session"], &connected["node"]);
        json!({"session": session, "node": node, "data": command.to_string()}).to_string()
    };
    let emulate = || Request::post("/").header("content-type", "application/json");
    let subscribe = command(json!({"id": 2, "subscribe": {"channel": "chat:1"}}));
    assert_eq!(wide.ask(emulate(), "/emulation", Some(&subscribe)).await.0, 204);
    while lines.next().await["id"] != 2 {}
    let said = command(json!({"id": 3, "publish": {"channel": "chat:1", "data": "hello"}}));
    assert_eq!(wide.ask(emulate(), "/emulation", Some(&said)).await.0, 204);
    assert_eq!(events.publication().await["data"], "hello");
    assert_eq!(lines.publication().await["data"], "hello");
    assert_eq!(Stage::metric(&stage.node, "talewire_sockets"), 1);
    assert_eq!(Stage::metric(&stage.node, "talewire_connections"), 2);
    stage.until("nobody is a stranger", |node| Stage::metric(node, "talewire_strangers") == 0).await;

    // A stream that is taken back is that connection's end, and no other's.
    drop(events);
    stage.until("one has gone", |node| Stage::metric(node, "talewire_connections") == 1).await;
    let again = command(json!({"id": 4, "publish": {"channel": "chat:1", "data": "still here"}}));
    assert_eq!(wide.ask(emulate(), "/emulation", Some(&again)).await.0, 204);
    assert_eq!(lines.publication().await["data"], "still here");
    wide.end.abort();
    stage.until("all have gone", |node| Stage::metric(node, "talewire_connections") == 0).await;
    stage.until("the place is free", |node| Stage::metric(node, "talewire_sockets") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_without_a_protocol_share_a_socket() {
    let stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    let response = wide.begin(Request::get("/"), "/events?channel=log:1", None).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = in_time(body.data()).await.expect("a beginning").expect("an open stream");
    assert!(first.starts_with(b"retry: "), "{first:?}");
    let begin = wide.get("/poll?channel=log:1").await.1;
    let cursor = begin["cursor"].as_str().expect("a cursor");
    let path = format!("/poll?cursor={cursor}&wait=20");
    let polls = futures_util::future::join_all((0..3).map(|_| wide.get(&path)));
    let (polls, ()) = tokio::join!(polls, async {
        stage.until("they wait", |node| Stage::metric(node, "talewire_connections") == 4).await;
        let mut writer = stage.client().await;
        publish(&mut writer, 1, "log:1", json!("to all")).await;
    });
    for (status, answer) in &polls {
        assert_eq!((*status, &answer["events"][0]["data"]), (200, &json!("to all")), "{answer}");
    }
    assert_eq!(wide.get("/poll?channel=log:1&token=nonsense").await.0, 401);
    let mut heard = String::new();
    while !heard.contains("to all") {
        let bytes = in_time(body.data()).await.expect("an event").expect("an open stream");
        heard += std::str::from_utf8(&bytes).expect("text");
    }
    stage.until("the polls are over", |node| Stage::metric(node, "talewire_connections") == 1).await;
    assert_eq!(Stage::metric(&stage.node, "talewire_sockets"), 1);
}

/// The next text of a WebSocket, as JSON.
async fn text(socket: &mut WebSocketStream<DuplexStream>) -> Value {
    loop {
        match in_time(socket.next()).await.expect("an open socket").expect("a good frame") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("not a text: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_stands_on_a_stream() {
    let stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    // The server has to say first that it can.
    assert_eq!(wide.get("/app/config").await.0, 200);
    assert!(wide.send.is_extended_connect_protocol_enabled());
    let (head, mut socket) = wide.websocket(Some("centrifuge-json")).await;
    assert_eq!(
        (head.status().as_u16(), &head.headers()["sec-websocket-protocol"]),
        (200, &"centrifuge-json".parse().expect("a value"))
    );
    assert!(!head.headers().contains_key("sec-websocket-accept"));
    socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string())).await.expect("an open socket");
    assert!(text(&mut socket).await["connect"]["client"].is_string());
    socket.send(Message::Ping(Bytes::from_static(b"hi"))).await.expect("an open socket");
    let pong = in_time(socket.next()).await.expect("an open socket").expect("a good frame");
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"hi")));
    // More than a stream's window in both directions.
    socket.send(Message::text(json!({"id": 2, "subscribe": {"channel": "log:1"}}).to_string())).await.expect("open");
    while text(&mut socket).await["id"] != 2 {}
    let large = "x".repeat(30_000);
    for n in 3..13 {
        let publish = json!({"id": n, "publish": {"channel": "log:1", "data": [n, large]}});
        socket.send(Message::text(publish.to_string())).await.expect("an open socket");
        let (mut heard, mut told) = (false, false);
        while !(heard && told) {
            let message = text(&mut socket).await;
            told |= message["id"] == n;
            heard |= message["push"]["pub"]["data"][0] == n;
        }
    }
    // The close has its code, and the stream its end.
    socket.send(Message::text("nonsense")).await.expect("an open socket");
    let close = in_time(socket.next()).await.expect("an open socket").expect("a good frame");
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 3501), "{close:?}");
    assert!(!matches!(in_time(socket.next()).await, Some(Ok(_))));
    // So is a close of the peer answered.
    let (_, mut leaving) = wide.websocket(None).await;
    leaving.close(None).await.expect("an open socket");
    while let Some(Ok(_)) = in_time(leaving.next()).await {}
    stage.until("both have gone", |node| Stage::metric(node, "talewire_connections") == 0).await;
    assert_eq!(wide.get("/app/config").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_opened_before_a_logout_connects_nobody_after_it() {
    let stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    assert_eq!(wide.get("/app/config").await.0, 200);
    let ana = stage.browser("Ana").await.1;
    let (head, mut socket) = wide.websocket_of(None, &ana).await;
    assert_eq!(head.status(), 200);
    let out = ana.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, value));
    assert_eq!(wide.ask(out, "/app/logout", None).await.0, 200);
    socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string())).await.expect("an open socket");
    let end = in_time(socket.next()).await.expect("an open socket").expect("a good frame");
    assert!(matches!(&end, Message::Close(Some(frame)) if u16::from(frame.code) == 3_503), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_websocket_is_connected_to() {
    let stage = Stage::new().await;
    let mut wide = Wide::new(&stage).await;
    assert_eq!(wide.get("/app/config").await.0, 200);
    for (protocol, path, status) in [
        ("websocket", "/app/config", 404),
        ("websocket", "/connection/nothing", 404),
        ("websocket", "/connection/sse", 405),
        ("connect-udp", "/connection/websocket", 501),
    ] {
        let mut request = Request::connect(format!("http://{}{path}", wide.authority)).body(()).expect("a request");
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        let (response, _stream) = wide.send.send_request(request, false).expect("an open socket");
        assert_eq!(in_time(response).await.expect("an answer").status(), status, "{protocol} {path}");
    }
    let tunnel = Request::builder().method(Method::CONNECT).uri("example.org:443").body(()).expect("a request");
    let (response, _stream) = wide.send.send_request(tunnel, false).expect("an open socket");
    assert_eq!(in_time(response).await.expect("an answer").status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_catches_up_and_harms_nobody_on_its_socket() {
    let hub = HubSettings { outbox_bytes_max: 20_000, ..HubSettings::default() };
    let stage = Stage::with(Settings { hub, ..generous() }).await;
    let mut builder = Builder::new();
    builder.initial_window_size(65_535).initial_connection_window_size(1 << 24);
    let wide = Wide::with(&stage, &mut builder).await;
    let mut slow = wide.events("log:1").await;
    let mut quick = wide.events("log:1").await;
    let mut writer = stage.client().await;
    let text = "x".repeat(20_000);
    for n in 0..40u64 {
        publish(&mut writer, n, "log:1", json!([n, text])).await;
        assert_eq!(quick.publication().await["data"][0], n);
    }
    assert!(Stage::metric(&stage.node, "talewire_behind_total") > 0, "the reader was not slow enough to show anything");
    for n in 0..40u64 {
        let publication = slow.publication().await;
        assert_eq!((&publication["offset"], &publication["data"][0]), (&json!(n + 1), &json!(n)));
    }
    publish(&mut writer, 99, "log:1", json!("live again")).await;
    assert_eq!(slow.publication().await["data"], "live again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_nothing_is_closed_as_slow() {
    let hub = HubSettings { outbox_age_max_ms: 300, ..HubSettings::default() };
    let stage = Stage::with(Settings { hub, ..generous() }).await;
    let wide = Wide::new(&stage).await;
    let _stuck = wide.events("cursor:1").await;
    let mut quick = wide.events("cursor:2").await;
    let mut writer = stage.client().await;
    let text = "x".repeat(30_000);
    let closed = |node: &talewire_server::Node| node.metrics.text().contains("talewire_closes_total{code=\"3008\"} 1");
    for n in 0.. {
        publish(&mut writer, n, "cursor:1", json!(text)).await;
        if closed(&stage.node) {
            break;
        }
        assert!(n < 8_000, "never closed");
    }
    // The socket's window is filled by the stuck stream, so that the client gives room first: its library does when the
    // stream is dropped.
    drop(_stuck);
    publish(&mut writer, 9_000, "cursor:2", json!("still here")).await;
    assert_eq!(quick.publication().await["data"], "still here");
    stage.until("the stuck one is gone", |node| Stage::metric(node, "talewire_connections") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_so_many_streams_and_no_more() {
    let base = generous();
    let http = ServerSettings { streams_max: 3, ..base.http };
    let stage = Stage::with(Settings { http, ..generous() }).await;
    let wide = Wide::new(&stage).await;
    let mut open = vec![wide.events("chat:1").await, wide.events("chat:1").await, wide.events("chat:1").await];
    assert_eq!(wide.send.current_max_send_streams(), 3, "it is told");
    // Whoever does not listen is refused: everything is said before a word of the server is read.
    let mut deaf = PREFACE.to_vec();
    (0..4).for_each(|n| deaf.extend(headers(2 * n + 1, 0x05, "/events?channel=chat:1")));
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    socket.write_all(&deaf).await.expect("an open socket");
    let (stream, reset) = awaited(&mut socket, RST_STREAM).await.expect("no place for the fourth");
    assert_eq!((stream, u32::from_be_bytes(reset.try_into().expect("four bytes"))), (7, REFUSED_STREAM));
    drop(open.pop());
    let mut next = wide.events("chat:1").await;
    let mut writer = stage.client().await;
    publish(&mut writer, 1, "chat:1", json!("all")).await;
    open.push(next);
    for reader in &mut open {
        assert_eq!(reader.publication().await["data"], "all");
    }
    next = open.pop().expect("three");
    drop(next);
}

/// A request of a hand-made client, `:path` and `:authority` in plain letters.
fn headers(stream: u32, flags: u8, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend(path.bytes());
    block.extend([0x41, 1, b'x']);
    frame(1, flags, stream, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("a short frame").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Reads frames until one of this kind, and gives back its stream and payload. `None` for an end without one.
async fn awaited(socket: &mut TcpStream, kind: u8) -> Option<(u32, Vec<u8>)> {
    let read = async {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            socket.read_exact(&mut payload).await.ok()?;
            if head[3] == kind {
                return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
            }
        }
    };
    in_time(read).await
}

/// The error code of the GOAWAY that must come.
async fn goaway(socket: &mut TcpStream) -> Option<u32> {
    let (_, payload) = awaited(socket, GOAWAY).await?;
    Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")))
}

const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_resets_end_the_socket() {
    let stage = Stage::with(generous()).await;
    let mut bystander = stage.client().await;
    // All at once, before anything is looked at.
    let mut flood = PREFACE.to_vec();
    for n in 0..1_000u32 {
        flood.extend(headers(2 * n + 1, 0x05, "/app/config"));
        flood.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    let _ = socket.write_all(&flood).await;
    assert_eq!(goaway(&mut socket).await, Some(ENHANCE_YOUR_CALM));
    drop(socket);
    // One by one, each after its stream was answered.
    let wide = Wide::new(&stage).await;
    let mut opened = 0;
    while opened < 1_000 {
        let post = Request::post("/").header("content-type", "application/json");
        match wide.begin(post, "/connection/sse", Some("{\"id\":1,\"connect\":{}}")).await {
            Ok(response) => drop(response),
            Err(_) => break,
        }
        opened += 1;
    }
    assert!((100..200).contains(&opened), "ended after {opened}");
    assert_eq!(Stage::metric(&stage.node, "talewire_http2_floods_total"), 2);
    stage.until("both are gone", |node| Stage::metric(node, "talewire_sockets") == 1).await;
    stage.until("and their streams", |node| Stage::metric(node, "talewire_connections") == 1).await;
    assert!(bystander.call(json!({"id": 9, "publish": {"channel": "chat:1", "data": 1}})).await["publish"].is_object());
}

/// Sends bytes so that each arrives on its own.
async fn drip(socket: &mut TcpStream, bytes: &[u8]) {
    socket.set_nodelay(true).expect("an open socket");
    for byte in bytes {
        socket.write_all(&[*byte]).await.expect("an open socket");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn which_http_is_spoken_is_found_byte_by_byte() {
    let stage = Stage::new().await;
    for (method, status) in [("POST", "200"), ("PUT", "405"), ("PRI", "405")] {
        let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
        let body = "{\"name\":\"Ana\"}";
        let request = format!(
            "{method} /app/login HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            stage.address,
            body.len()
        );
        drip(&mut socket, request.as_bytes()).await;
        let mut said = String::new();
        in_time(socket.read_to_string(&mut said)).await.expect("an answer");
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{method}: {said}");
    }
    let mut socket = TcpStream::connect(stage.address).await.expect("a connection");
    drip(&mut socket, PREFACE).await;
    drip(&mut socket, &headers(1, 0x05, "/app/config")).await;
    // SETTINGS, their acknowledgement, then the answer's HEADERS.
    let mut kinds = Vec::new();
    while kinds.last() != Some(&1) {
        let mut head = [0; 9];
        in_time(socket.read_exact(&mut head)).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        in_time(socket.read_exact(&mut payload)).await.expect("a whole frame");
        kinds.push(head[3]);
    }
    assert_eq!(kinds[0], 4, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_socket_is_closed_and_a_busy_one_is_not() {
    let base = Settings::default();
    let http = ServerSettings { first_byte_ms: 300, head_ms: 300, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let busy = Wide::new(&stage).await;
    let mut events = busy.events("chat:1").await;
    let idle = Wide::new(&stage).await;
    let after_one = {
        let wide = Wide::new(&stage).await;
        assert_eq!(wide.get("/app/config").await.0, 200);
        wide
    };
    for wide in [idle, after_one] {
        in_time(wide.end).await.expect("no panic").expect("a polite end");
    }
    // Neither the preface alone nor a peer that does not answer our farewell keeps a place.
    let mut silent = TcpStream::connect(stage.address).await.expect("a connection");
    silent.write_all(PREFACE).await.expect("an open socket");
    assert_eq!(goaway(&mut silent).await, Some(0));
    stage.until("one is left", |node| Stage::metric(node, "talewire_sockets") == 1).await;
    assert_eq!(Stage::metric(&stage.node, "talewire_strangers"), 0);
    let mut writer = stage.client().await;
    publish(&mut writer, 1, "chat:1", json!("still here")).await;
    assert_eq!(events.publication().await["data"], "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_told_on_every_stream() {
    let mut stage = Stage::new().await;
    let wide = Wide::new(&stage).await;
    let mut events = wide.events("chat:1").await;
    let (_, mut socket) = wide.websocket(None).await;
    socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string())).await.expect("an open socket");
    assert!(text(&mut socket).await["connect"].is_object());
    let told = async {
        let close = in_time(socket.next()).await.expect("an open socket").expect("a good frame");
        assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 3001), "{close:?}");
        while let Some(Ok(_)) = in_time(socket.next()).await {}
        let mut last = Value::Null;
        while let Some(message) = events.try_next().await.expect("a whole stream") {
            last = message;
        }
        assert_eq!(last["push"]["disconnect"]["code"], 3001, "{last}");
        in_time(wide.end).await.expect("no panic").expect("a polite end");
    };
    let begun = std::time::Instant::now();
    tokio::join!(stage.stop(), told);
    assert!(begun.elapsed() < Duration::from_secs(10));
}
