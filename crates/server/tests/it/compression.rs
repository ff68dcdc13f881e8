//! Compression on the wire: messages for WebSocket clients that agreed to it, and streams in gzip.

use std::net::SocketAddr;

use flate2::{Decompress, FlushDecompress};
use serde_json::{Value, json};
use talewire_hub::HubSettings;
use talewire_proto::compression::{Compression, Window};
use talewire_proto::websocket::Inflater;
use talewire_proto::wire::Wire;
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, Settings, Stage};

/// A server that compresses whatever it can.
fn compressing() -> Settings {
    let base = Settings::default();
    Settings { http: ServerSettings { compress_streams: true, ..base.http }, ..Settings::default() }
}

/// A socket that shows what stands on the wire.
struct Raw {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    /// Sends a request and takes the head of the answer.
    async fn open(address: SocketAddr, request: String) -> (Self, String) {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("a request");
        let mut raw = Self { socket, bytes: Vec::new() };
        loop {
            if let Some(end) = raw.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = raw.bytes.drain(..end + 4).collect();
                return (raw, String::from_utf8(head).expect("a head is text"));
            }
            raw.more().await;
        }
    }

    async fn more(&mut self) {
        let read = tokio::time::timeout(DEADLINE, self.socket.read_buf(&mut self.bytes)).await;
        assert!(read.expect("bytes in time").expect("an open socket") > 0, "the server ended it");
    }

    /// A frame of the server: its first byte and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            let (head, length) = match *self.bytes {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length @ ..=125, ..] => (2, usize::from(length)),
                _ => (usize::MAX, 0),
            };
            if head < usize::MAX && self.bytes.len() >= head + length {
                let frame: Vec<u8> = self.bytes.drain(..head + length).collect();
                return (frame[0], frame[head..].to_owned());
            }
            self.more().await;
        }
    }

    /// The next message, and whether it was compressed.
    async fn message(&mut self) -> (Value, bool) {
        let (first, payload) = self.frame().await;
        assert_eq!(first & !0x40, 0x81, "a text message");
        let compressed = first & 0x40 != 0;
        let mut inflater = Inflater::default();
        let text = if compressed { inflater.inflate(&payload, 1 << 20).expect("a message") } else { &payload };
        (serde_json::from_slice(text).expect("JSON"), compressed)
    }

    /// Sends a message as a client that compresses everything.
    async fn send_compressed(&mut self, command: &Value) {
        let wire = Wire::WebSocketJsonDeflate(Window::Wide);
        let frame = wire.pack(command.to_string().as_bytes(), &Compression::new(0, usize::MAX));
        assert_eq!(frame[0], 0xc1, "long enough to be compressed");
        let head = if frame[1] == 126 { 4 } else { 2 };
        let mut masked = frame[..head].to_vec();
        masked[1] |= 0x80;
        masked.extend([0; 4]);
        masked.extend(&frame[head..]);
        self.socket.write_all(&masked).await.expect("an open socket");
    }
}

async fn websocket(stage: &Stage, offer: &str) -> (Raw, String) {
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: {offer}\r\n\r\n"
    );
    Raw::open(stage.address, request).await
}

fn padded(mut command: Value) -> Value {
    command["padding"] = json!("x".repeat(200));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_compressed_once_for_all_who_agreed() {
    let stage = Stage::with(compressing()).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let (mut reader, head) = websocket(&stage, "permessage-deflate; client_max_window_bits").await;
        let extension = "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
        assert!(head.contains(extension), "{head}");
        reader.send_compressed(&padded(json!({"id": 1, "connect": {}}))).await;
        assert!(reader.message().await.0["connect"].is_object());
        reader.send_compressed(&padded(json!({"id": 2, "subscribe": {"channel": "log:1"}}))).await;
        assert!(reader.message().await.0["subscribe"].is_object());
        readers.push(reader);
    }
    let before = stage.node.hub.compression().tally().pieces();
    let mut plain = stage.client().await;
    plain.call(json!({"id": 2, "subscribe": {"channel": "log:1"}})).await;
    let text = "once upon a time ".repeat(100);
    for data in [&text[..], "short"] {
        plain.send(json!({"id": 3, "publish": {"channel": "log:1", "data": data}})).await;
        for reader in &mut readers {
            let (message, compressed) = loop {
                let (message, compressed) = reader.message().await;
                if message["push"]["pub"].is_object() {
                    break (message, compressed);
                }
            };
            assert_eq!(message["push"]["pub"]["data"], data);
            assert_eq!(compressed, data.len() > 1_024);
        }
    }
    assert_eq!(stage.node.hub.compression().tally().pieces(), before + 1);
    assert!(Stage::metric(&stage.node, "talewire_websocket_compressed_before_bytes_total") > 1_700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_with_its_code() {
    let stage = Stage::with(compressing()).await;
    let (mut client, _) = websocket(&stage, "permessage-deflate").await;
    client.send_compressed(&json!({"id": 1, "connect": {"name": "x".repeat(10_000_000)}})).await;
    let (first, payload) = client.frame().await;
    assert_eq!((first, &payload[..]), (0x88, &1009u16.to_be_bytes()[..]));
}

async fn stream(stage: &Stage, encoding: &str) -> (Raw, String) {
    let commands = "%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D%0A\
                    %7B%22id%22%3A2%2C%22subscribe%22%3A%7B%22channel%22%3A%22chat%3A1%22%7D%7D";
    let request =
        format!("GET /connection/sse?cf_connect={commands} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n");
    Raw::open(stage.address, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_gzip_shows_every_event_at_once_and_ends_well() {
    let hub = HubSettings { gzip_bytes_min: 64, ..HubSettings::default() };
    let mut stage = Stage::with(Settings { hub, ..compressing() }).await;
    let (mut raw, head) = stream(&stage, "gzip, br").await;
    assert!(
        head.contains("\r\nContent-Encoding: gzip\r\n") && head.contains("\r\nVary: Accept-Encoding\r\n"),
        "{head}"
    );
    let (mut gzip, mut text, mut ended) = (Decompress::new_gzip(15), Vec::with_capacity(1 << 20), false);
    let mut read = |raw: &mut Raw, text: &mut Vec<u8>| {
        let before = gzip.total_in();
        let status = gzip.decompress_vec(&raw.bytes, text, FlushDecompress::Sync).expect("gzip");
        raw.bytes.drain(..usize::try_from(gzip.total_in() - before).expect("what was there"));
        status == flate2::Status::StreamEnd
    };
    let mut writer = stage.client().await;
    while !String::from_utf8_lossy(&text).contains("\"subscribe\"") {
        raw.more().await;
        read(&mut raw, &mut text);
    }
    assert!(text.starts_with(b"\ndata: {"), "a first byte, then events");
    for n in 0..20 {
        let data = format!("word{n} of a story that goes on and on");
        writer.call(json!({"id": n + 10, "publish": {"channel": "chat:1", "data": data}})).await;
        while !String::from_utf8_lossy(&text).contains(&data) {
            raw.more().await;
            read(&mut raw, &mut text);
        }
        assert!(text.ends_with(b"\n\n"), "whole events");
    }
    let (before, after) = (stage.node.hub.gzip().bytes_before(), stage.node.hub.gzip().bytes_after());
    assert!(after * 2 < before, "{before} bytes became {after}");
    let stop = stage.stop();
    let finish = async {
        while !ended {
            raw.more().await;
            ended = read(&mut raw, &mut text);
        }
    };
    tokio::join!(stop, finish);
    assert!(String::from_utf8_lossy(&text).contains("\"disconnect\""), "the last words are in the body");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_events_and_one_way_connections_are_compressed_too() {
    let stage = Stage::with(compressing()).await;
    let request = "GET /events?channel=chat:1 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n".to_owned();
    let (mut raw, head) = Raw::open(stage.address, request).await;
    assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    let (mut gzip, mut text) = (Decompress::new_gzip(15), Vec::with_capacity(1 << 16));
    let text_data = "a plain event, told again and again ".repeat(50);
    let mut published = false;
    while !String::from_utf8_lossy(&text).contains(&text_data) {
        gzip.decompress_vec(&raw.bytes, &mut text, FlushDecompress::Sync).expect("gzip");
        raw.bytes.clear();
        // The second block tells that the channel is joined.
        if !published && text.windows(2).filter(|two| two == b"\n\n").count() > 1 {
            stage.client().await.call(json!({"id": 2, "publish": {"channel": "chat:1", "data": text_data}})).await;
            published = true;
        }
        if !String::from_utf8_lossy(&text).contains(&text_data) {
            raw.more().await;
        }
    }
    assert!(text.starts_with(b"retry: "), "a first byte at once");

    let connect = "%7B%22subs%22%3A%7B%22chat%3A1%22%3A%7B%7D%7D%7D";
    let request = format!(
        "GET /connection/uni_websocket?cf_connect={connect} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n\r\n"
    );
    let (mut raw, head) = Raw::open(stage.address, request).await;
    assert!(head.contains("; server_max_window_bits=9\r\n"), "{head}");
    assert!(raw.message().await.0["connect"].is_object());
    stage.client().await.call(json!({"id": 2, "publish": {"channel": "chat:1", "data": text_data}})).await;
    loop {
        let (message, compressed) = raw.message().await;
        if message["pub"].is_object() {
            assert!(compressed && message["pub"]["data"] == text_data, "{message}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_ask_or_may_not_gets_plain_bytes() {
    let off = ServerSettings { compress_streams: false, compress_websockets: false, ..compressing().http };
    for (http, encoding) in [(compressing().http, "identity"), (off, "gzip")] {
        let offered = if http.compress_websockets { "x-other" } else { "permessage-deflate" };
        let stage = Stage::with(Settings { http, ..Settings::default() }).await;
        let (mut raw, head) = stream(&stage, encoding).await;
        assert!(!head.contains("Content-Encoding"), "{head}");
        while !raw.bytes.starts_with(b"\ndata: {") {
            raw.more().await;
        }
        let (_, head) = websocket(&stage, offered).await;
        assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
    }
}
