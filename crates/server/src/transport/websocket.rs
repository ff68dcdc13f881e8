//! WebSocket (RFC 6455): the handshake's checks, and a reader that turns bytes into messages without owning a buffer.
//!
//! Frames are parsed by tungstenite as a sans-IO machine; it is fed from the thread's scratch buffer, so that a connection
//! that is silent keeps no read buffer. Everything sent is written by the outbox.

use std::io::{self, Read, Write};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use talewire_proto::codec::Codec;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// Bytes of framing that may come for one message beyond its payload: stops endless empty fragments.
const FRAMING_BYTES_MAX: usize = 16_384;

/// Pings and pongs between two messages; more are a flood.
const CONTROL_FRAMES_MAX: u32 = 64;

/// What the reader found.
pub(crate) enum Event {
    /// A whole text message.
    Text(tungstenite::Utf8Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// The peer closes; the answer is among the control bytes.
    Close,
    /// The peer broke the rules: close with this code (RFC 6455, section 7.4.1).
    Violation(u16),
}

/// The reading side of one WebSocket connection.
pub(crate) struct Reader {
    context: WebSocketContext,
    message_bytes_max: usize,
    /// Bytes since the last whole message.
    bytes: usize,
    control_frames: u32,
}

impl Reader {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(0)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { context, message_bytes_max, bytes: 0, control_frames: 0 }
    }

    /// Takes bytes from the socket. Events go to `on_event` in order; bytes to be sent at once (pongs, the answer to a
    /// close) go into `control` before the event that follows them.
    pub(crate) fn feed(&mut self, bytes: &[u8], control: &mut Vec<u8>, mut on_event: impl FnMut(Event)) {
        self.bytes += bytes.len();
        let mut io = Feed { bytes, control };
        loop {
            let before = io.control.len();
            let event = match self.context.read(&mut io) {
                Ok(Message::Text(text)) => {
                    self.bytes = io.bytes.len();
                    self.control_frames = 0;
                    Event::Text(text)
                }
                Ok(Message::Binary(bytes)) => {
                    self.bytes = io.bytes.len();
                    self.control_frames = 0;
                    Event::Binary(bytes)
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {
                    self.control_frames += 1;
                    if self.control_frames <= CONTROL_FRAMES_MAX {
                        continue;
                    }
                    Event::Violation(1008)
                }
                Ok(Message::Close(_)) => {
                    // The answer is flushed now or with the next read; both land in `control`.
                    let _ = self.context.flush(&mut io);
                    Event::Close
                }
                Ok(Message::Frame(_)) => continue,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.bytes > self.message_bytes_max + FRAMING_BYTES_MAX {
                        Event::Violation(1008)
                    } else {
                        return;
                    }
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(Error::Capacity(_)) => Event::Violation(1009),
                Err(Error::Utf8(_)) => Event::Violation(1007),
                Err(_) => Event::Violation(1002),
            };
            let stop = matches!(event, Event::Violation(_) | Event::Close);
            debug_assert!(io.control.len() >= before);
            on_event(event);
            if stop {
                return;
            }
        }
    }
}

/// Gives the reader its bytes, then nothing; takes what it wants sent.
struct Feed<'a> {
    bytes: &'a [u8],
    control: &'a mut Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(into)
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.control.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a good handshake is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// `Sec-WebSocket-Accept`; HTTP/2 has none.
    pub(crate) key: Option<String>,
    /// The encoding that the client asked for.
    pub(crate) codec: Codec,
    /// Whether it asked by a subprotocol, which is to be echoed.
    pub(crate) echo: bool,
}

/// Checks an opening handshake (RFC 6455, section 4.2.1; over HTTP/2 RFC 8441, section 5).
///
/// # Errors
/// The status and a sentence for people: 405, 426 with the version we speak, or 400.
pub(crate) fn handshake<B>(request: &Request<B>) -> Result<Accept, (StatusCode, &'static str)> {
    let headers = request.headers();
    let http2 = request.version() == Version::HTTP_2;
    // That the protocol of a CONNECT is WebSocket was seen to before.
    let fits = if http2 { Method::CONNECT } else { Method::GET };
    if request.method() != fits || !(http2 || request.version() == Version::HTTP_11) {
        let text = "a WebSocket is opened by GET over HTTP/1.1, by CONNECT over HTTP/2";
        return Err((StatusCode::METHOD_NOT_ALLOWED, text));
    }
    if !http2
        && (!has_token(headers, &header::CONNECTION, "upgrade") || !has_token(headers, &header::UPGRADE, "websocket"))
    {
        return Err((StatusCode::UPGRADE_REQUIRED, "this address is for WebSocket connections"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
    }
    let key = if http2 { None } else { Some(answer_to_key(headers)?) };
    let offers = |name| has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, name);
    let query = request.uri().query().unwrap_or("");
    let asks =
        |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == name && value == "protobuf");
    let (codec, echo) = match (offers("centrifuge-protobuf"), offers("centrifuge-json")) {
        (true, _) => (Codec::Protobuf, true),
        (false, true) => (Codec::Json, true),
        (false, false) if asks("cf_protocol") || asks("format") => (Codec::Protobuf, false),
        (false, false) => (Codec::Json, false),
    };
    Ok(Accept { key, codec, echo })
}

fn answer_to_key(headers: &HeaderMap) -> Result<String, (StatusCode, &'static str)> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
    let nonce = base64::engine::general_purpose::STANDARD.decode(key);
    if !nonce.is_ok_and(|nonce| nonce.len() == 16) {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(tungstenite::handshake::derive_accept_key(key))
}

/// Whether a header that lists words has this one.
pub(super) fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).expect("a short payload"), 1, 2, 3, 4];
        frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Feeds bytes in pieces and writes down what came of it.
    fn read(bytes: &[u8], piece: usize) -> (String, Vec<u8>) {
        let mut reader = Reader::new(1_000);
        let (mut seen, mut control) = (String::new(), Vec::new());
        for part in bytes.chunks(piece) {
            reader.feed(part, &mut control, |event| match event {
                Event::Text(text) => seen += &format!("[{text}]"),
                Event::Binary(_) => seen += "binary;",
                Event::Close => seen += "close;",
                Event::Violation(code) => seen += &format!("!{code}"),
            });
            if seen.contains('!') {
                break;
            }
        }
        (seen, control)
    }

    #[test]
    fn messages_come_out_however_the_bytes_are_cut() {
        let mut bytes = masked(0x81, b"one");
        bytes.extend(masked(0x01, b"t"));
        bytes.extend(masked(0x89, b"hi"));
        bytes.extend(masked(0x80, b"wo"));
        bytes.extend(masked(0x88, &[0x03, 0xe8]));
        for piece in 1..=bytes.len() {
            let (seen, control) = read(&bytes, piece);
            assert_eq!(seen, "[one][two]close;", "cut into pieces of {piece}");
            assert_eq!(control, b"\x8a\x02hi\x88\x02\x03\xe8", "cut into pieces of {piece}");
        }
    }

    #[test]
    fn what_breaks_the_rules_is_told_by_its_code() {
        assert_eq!(read(b"\x81\x02hi", 99).0, "!1002", "unmasked");
        assert_eq!(read(&masked(0xc1, b"hi"), 99).0, "!1002", "reserved bit");
        assert_eq!(read(&masked(0x81, b"\xff"), 99).0, "!1007", "not UTF-8");
        assert_eq!(read(b"\x81\xff\x00\x00\x00\x40\x00\x00\x00\x00mask", 99).0, "!1009", "a claimed gigabyte");
    }

    #[test]
    fn floods_of_empty_frames_end() {
        let mut fragments = masked(0x01, b"");
        (0..5_000).for_each(|_| fragments.extend(masked(0x00, b"")));
        assert_eq!(read(&fragments, 4_096).0, "!1008");
        let pings: Vec<u8> = (0..100).flat_map(|_| masked(0x89, b"")).collect();
        assert_eq!(read(&pings, 4_096).0, "!1008");
    }

    #[test]
    fn a_handshake_is_checked_before_it_is_answered() {
        let good = || {
            Request::get("/connection/websocket")
                .header("connection", "keep-alive, Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        let status = |request: http::request::Builder| {
            handshake(&request.body(()).expect("a request")).map_err(|(status, _)| status.as_u16())
        };
        let accept = |codec, echo| Accept { key: Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into()), codec, echo };
        assert_eq!(status(good()), Ok(accept(Codec::Json, false)));
        assert_eq!(status(Request::get("/")), Err(426));
        let offers = |protocol: &str| status(good().header("sec-websocket-protocol", protocol));
        assert_eq!(offers("other, centrifuge-protobuf"), Ok(accept(Codec::Protobuf, true)));
        assert_eq!(offers("centrifuge-json"), Ok(accept(Codec::Json, true)));
        assert_eq!(status(good().uri("/?cf_protocol=protobuf")), Ok(accept(Codec::Protobuf, false)));
        let mut short = good();
        short.headers_mut().expect("headers").insert("sec-websocket-key", "c2hvcnQ=".parse().expect("a value"));
        assert_eq!(status(short), Err(400));
        let mut old = good();
        old.headers_mut().expect("headers").insert("sec-websocket-version", "8".parse().expect("a value"));
        assert_eq!(status(old), Err(426));
        // A stream of HTTP/2 has no key: it cannot be mistaken for something else.
        let stream = || Request::connect("/").version(Version::HTTP_2).header("sec-websocket-version", "13");
        assert_eq!(status(stream()), Ok(Accept { key: None, codec: Codec::Json, echo: false }));
        assert_eq!(status(stream().method("GET")), Err(405));
        assert_eq!(status(good().method("CONNECT")), Err(405));
    }
}
