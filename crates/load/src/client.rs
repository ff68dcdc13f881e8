//! A client of the native protocol: the words it says, and a blocking [`Client`] over them for tests and small programs.
//!
//! The words ([`Handshake`], [`connect`], [`subscribe`], [`publish`], [`Line`]) have no socket; the load generator says them
//! over thousands of sockets at once.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::frame::{self, FrameReader};

/// Where the protocol is spoken.
pub const PATH: &str = "/connection/websocket";

/// The longest head of an answer that we take.
const HEAD_BYTES_MAX: usize = 16_384;

/// The opening of a WebSocket (RFC 6455, section 4.1).
#[derive(Debug)]
pub struct Handshake {
    key: String,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { key: tungstenite::handshake::client::generate_key() }
    }
}

impl Handshake {
    /// The request.
    #[must_use]
    pub fn request(&self, server: SocketAddr) -> Vec<u8> {
        format!(
            "GET {PATH} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            self.key
        )
        .into_bytes()
    }

    /// Reads the answer: how many bytes it takes, or nothing if it is not whole yet.
    ///
    /// # Errors
    /// What the server said instead of opening.
    pub fn answer(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let too_long = bytes.len() > HEAD_BYTES_MAX;
            return if too_long { Err("an endless head".to_owned()) } else { Ok(None) };
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            let said = String::from_utf8_lossy(&bytes[end + 4..]);
            return Err(format!("{status}: {said}"));
        }
        let accept = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim().to_owned())
        });
        if accept != Some(tungstenite::handshake::derive_accept_key(self.key.as_bytes())) {
            return Err("Sec-WebSocket-Accept does not fit the key".to_owned());
        }
        Ok(Some(end + 4))
    }
}

/// The command that says who we are.
#[must_use]
pub fn connect(id: u32, token: Option<&str>) -> String {
    match token {
        Some(token) => json!({ "id": id, "connect": { "token": token, "name": "load" } }).to_string(),
        None => json!({ "id": id, "connect": { "name": "load" } }).to_string(),
    }
}

/// The command that subscribes to a channel.
#[must_use]
pub fn subscribe(id: u32, channel: &str) -> String {
    json!({ "id": id, "subscribe": { "channel": channel } }).to_string()
}

/// The command that subscribes and asks for everything behind a position.
#[must_use]
pub fn resume(id: u32, channel: &str, offset: u64, epoch: &str) -> String {
    let subscribe = json!({ "channel": channel, "recover": true, "offset": offset, "epoch": epoch });
    json!({ "id": id, "subscribe": subscribe }).to_string()
}

/// The command that publishes; `data` is JSON and goes out byte by byte.
pub fn publish(id: u32, channel: &str, data: &[u8], into: &mut Vec<u8>) {
    let channel = Value::from(channel);
    write!(into, "{{\"id\":{id},\"publish\":{{\"channel\":{channel},\"data\":").expect("a Vec takes every byte");
    into.extend_from_slice(data);
    into.extend_from_slice(b"}}");
}

/// One line from the server.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// The command that it answers; 0 for what comes unasked.
    #[serde(default)]
    pub id: u32,
    /// A refusal.
    #[serde(borrow)]
    pub error: Option<Refusal<'a>>,
    /// The answer to `connect`.
    #[serde(borrow)]
    pub connect: Option<&'a RawValue>,
    /// The answer to `subscribe`.
    #[serde(borrow)]
    pub subscribe: Option<&'a RawValue>,
    /// The answer to `publish`.
    #[serde(borrow)]
    pub publish: Option<&'a RawValue>,
    /// What comes unasked.
    #[serde(borrow)]
    pub push: Option<Pushed<'a>>,
}

/// An error or a close: code and text.
#[derive(Debug, Deserialize)]
pub struct Refusal<'a> {
    /// From the table in PROTOCOL.md, section 6.
    pub code: u32,
    /// For people.
    #[serde(borrow, default, alias = "reason")]
    pub message: Cow<'a, str>,
}

/// What comes unasked in a channel.
#[derive(Debug, Deserialize)]
pub struct Pushed<'a> {
    /// In which channel.
    #[serde(borrow, default)]
    pub channel: Cow<'a, str>,
    /// A publication.
    #[serde(borrow, rename = "pub")]
    pub publication: Option<PushedPublication<'a>>,
    /// The end of the subscription.
    #[serde(borrow)]
    pub unsubscribe: Option<Refusal<'a>>,
    /// The end of the connection, where no close frame can say it.
    #[serde(borrow)]
    pub disconnect: Option<Refusal<'a>>,
}

/// A publication that comes in.
#[derive(Debug, Deserialize)]
pub struct PushedPublication<'a> {
    /// The payload as it stands in the message.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Where it stands in its channel; 0 if nowhere.
    #[serde(default)]
    pub offset: u64,
}

impl Line<'_> {
    /// `{}`: to be answered with the same.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        self.id == 0 && self.error.is_none() && self.push.is_none()
    }
}

/// Why a [`Client`] cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed, or was silent for too long.
    #[error("the socket: {0}")]
    Socket(#[from] io::Error),
    /// The handshake was refused, or an answer makes no sense.
    #[error("the server said: {0}")]
    Unexpected(String),
    /// A command was refused.
    #[error("refused: {code} {message}")]
    Refused {
        /// From the table in PROTOCOL.md.
        code: u64,
        /// For people.
        message: String,
    },
    /// The server closed the connection.
    #[error("closed: {code} {reason}")]
    Closed {
        /// The WebSocket close code.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// One blocking connection. Pings are answered whenever it waits for something.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    frames: FrameReader,
    lines: VecDeque<Value>,
    ended: Option<(u16, String)>,
    id: u32,
}

impl Client {
    /// Opens a WebSocket. No later call waits longer than `patience` for the server's next word.
    ///
    /// # Errors
    /// If there is no server, or it does not open.
    pub fn open(server: SocketAddr, patience: Duration) -> Result<Self, ClientError> {
        let mut socket = TcpStream::connect_timeout(&server, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let handshake = Handshake::default();
        socket.write_all(&handshake.request(server))?;
        let mut head = Vec::new();
        let used = loop {
            let mut part = [0; 1_024];
            let n = read_some(&mut socket, &mut part)?;
            head.extend_from_slice(&part[..n]);
            if let Some(used) = handshake.answer(&head).map_err(ClientError::Unexpected)? {
                break used;
            }
        };
        let mut client = Self { socket, frames: FrameReader::default(), lines: VecDeque::new(), ended: None, id: 0 };
        client.take_in(&head[used..])?;
        Ok(client)
    }

    /// Says who we are; the result names the connection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(&mut self, token: Option<&str>) -> Result<Value, ClientError> {
        self.id += 1;
        self.call(connect(self.id, token), "connect")
    }

    /// Subscribes to a channel.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn subscribe(&mut self, channel: &str) -> Result<Value, ClientError> {
        self.id += 1;
        self.call(subscribe(self.id, channel), "subscribe")
    }

    /// Subscribes to a channel and asks for what came after a position.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resume(&mut self, channel: &str, offset: u64, epoch: &str) -> Result<Value, ClientError> {
        self.id += 1;
        self.call(resume(self.id, channel, offset, epoch), "subscribe")
    }

    /// Publishes and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn publish(&mut self, channel: &str, data: &Value) -> Result<(), ClientError> {
        self.id += 1;
        let mut command = Vec::new();
        publish(self.id, channel, data.to_string().as_bytes(), &mut command);
        self.call(String::from_utf8_lossy(&command).into_owned(), "publish").map(|_| ())
    }

    /// The next thing that comes unasked, a publication for example.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn next_push(&mut self) -> Result<Value, ClientError> {
        self.next(|line| line.get("push").is_some()).map(|mut line| line["push"].take())
    }

    fn call(&mut self, command: String, answer: &str) -> Result<Value, ClientError> {
        self.send(frame::TEXT, command.as_bytes())?;
        let id = Value::from(self.id);
        let mut line = self.next(|line| line.get("id") == Some(&id))?;
        if let Some(error) = line.get("error") {
            let code = error["code"].as_u64().unwrap_or_default();
            return Err(ClientError::Refused {
                code,
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            });
        }
        match line.get_mut(answer) {
            Some(result) => Ok(result.take()),
            None => Err(ClientError::Unexpected(line.to_string())),
        }
    }

    fn next(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value, ClientError> {
        loop {
            if let Some(place) = self.lines.iter().position(&is_it) {
                return Ok(self.lines.remove(place).unwrap_or_default());
            }
            if let Some((code, reason)) = self.ended.clone() {
                return Err(ClientError::Closed { code, reason });
            }
            let mut part = [0; 16_384];
            let n = read_some(&mut self.socket, &mut part)?;
            self.take_in(&part[..n])?;
        }
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut frames = Vec::new();
        let fed = self.frames.feed(bytes, |frame| frames.push((frame.opcode, frame.payload.to_vec())));
        fed.map_err(|error| ClientError::Unexpected(error.to_string()))?;
        for (opcode, payload) in frames {
            match opcode {
                frame::TEXT => self.take_lines(&payload)?,
                frame::PING => self.send(frame::PONG, &payload)?,
                frame::CLOSE => self.ended = Some(closed(&payload)),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_lines(&mut self, text: &[u8]) -> Result<(), ClientError> {
        for line in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            let line = line.map_err(|error| ClientError::Unexpected(error.to_string()))?;
            if line.as_object().is_some_and(serde_json::Map::is_empty) {
                self.send(frame::TEXT, b"{}")?;
            } else {
                self.lines.push_back(line);
            }
        }
        Ok(())
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        frame::write(opcode, payload, fastrand::u32(..).to_be_bytes(), &mut bytes);
        Ok(self.socket.write_all(&bytes)?)
    }
}

/// Code and reason of a close frame; 1005 says that there is none.
#[must_use]
pub fn closed(payload: &[u8]) -> (u16, String) {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
        None => (1005, String::new()),
    }
}

fn read_some(socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    match socket.read(into) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_believed_only_with_its_own_key() {
        let handshake = Handshake { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let good =
            b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81";
        assert_eq!(handshake.answer(good), Ok(Some(good.len() - 1)));
        assert_eq!(handshake.answer(&good[..good.len() - 2]), Ok(None));
        let other = Handshake { key: "b3RoZXI=".to_owned() };
        assert!(other.answer(good).is_err());
        let refused = b"HTTP/1.1 429 Too Many Requests\r\n\r\ntoo many requests";
        let said = handshake.answer(refused).expect_err("refused");
        assert_eq!(said, "HTTP/1.1 429 Too Many Requests: too many requests");
    }

    #[test]
    fn commands_are_json_and_carry_the_payload_untouched() {
        let mut command = Vec::new();
        publish(7, "load:a", b"{\"n\":1.0}", &mut command);
        assert_eq!(command, br#"{"id":7,"publish":{"channel":"load:a","data":{"n":1.0}}}"#);
        assert_eq!(connect(1, None), r#"{"connect":{"name":"load"},"id":1}"#);
        let resumed = r#"{"id":2,"subscribe":{"channel":"load:a","epoch":"e","offset":7,"recover":true}}"#;
        assert_eq!(resume(2, "load:a", 7, "e"), resumed);
    }

    #[test]
    fn lines_are_read_with_their_payload_as_it_stands() {
        let line = r#"{"push":{"channel":"load:a","pub":{"data":{"n": 1},"offset":7,"time":9}}}"#;
        let line: Line<'_> = serde_json::from_str(line).expect("a line");
        let push = line.push.expect("a push");
        let publication = push.publication.expect("a publication");
        assert_eq!((&*push.channel, publication.data.get(), publication.offset), ("load:a", r#"{"n": 1}"#, 7));
        let ping: Line<'_> = serde_json::from_str("{}").expect("a line");
        assert!(ping.is_ping());
        let push = r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
        let push: Line<'_> = serde_json::from_str(push).expect("a line");
        let end = push.push.and_then(|push| push.unsubscribe).expect("an end");
        assert_eq!((end.code, &*end.message), (2500, "insufficient state"));
    }
}
