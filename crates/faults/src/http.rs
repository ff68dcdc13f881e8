//! Plain HTTP/1.1 for the clients of a run: one request for one connection, an answer out; or a stream of events. Whether a
//! request was surely not carried out is told apart from what nobody can know.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest head and the longest answer that we take.
const HEAD_BYTES_MAX: usize = 16_384;
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long one read waits, so that a client can look whether it is to stop.
pub const READ_WAIT: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It never left this machine.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The server refuses it, and has not done it.
    #[error("refused: {code} {message}")]
    Refused {
        /// Of PROTOCOL.md, section 6, or the HTTP status.
        code: u64,
        /// For people.
        message: String,
    },
    /// It may have been carried out, or not.
    #[error("unknown: {0}")]
    Unknown(String),
}

impl Trouble {
    /// What a refusal means: a fault of the server leaves open what it did.
    #[must_use]
    pub fn refusal(code: u64, message: &str) -> Self {
        match code {
            100 | 500..=599 => Self::Unknown(format!("{code} {message}")),
            _ => Self::Refused { code, message: message.to_owned() },
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Says who asks.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// A server program.
    Key(&'a str),
    /// A person.
    Token(&'a str),
    /// Nobody in particular.
    Anybody,
}

/// Posts JSON and waits for the whole answer.
///
/// # Errors
/// [`Trouble`].
pub fn post(server: SocketAddr, path: &str, who: Who<'_>, body: &Value, patience: Duration) -> Result<Value, Trouble> {
    let body = body.to_string();
    let who = match who {
        Who::Key(key) => format!("X-API-Key: {key}\r\n"),
        Who::Token(token) => format!("Authorization: Bearer {token}\r\n"),
        Who::Anybody => String::new(),
    };
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/json\r\n{who}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(server, request.as_bytes(), patience)?;
    read_answer(&answer)
}

fn read_answer(answer: &Answer) -> Result<Value, Trouble> {
    let text = || String::from_utf8_lossy(&answer.body).into_owned();
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let error = value.as_ref().and_then(|value| value.get("error"));
    if let Some(code) = error.and_then(|error| error["code"].as_u64()) {
        let message = error.and_then(|error| error["message"].as_str()).unwrap_or_default();
        return Err(Trouble::refusal(code, message));
    }
    match (answer.status, value) {
        (200..=299, Some(value)) => Ok(value),
        (200..=299, None) => Err(Trouble::Unknown(format!("no JSON: {}", text()))),
        (status, _) => Err(Trouble::refusal(u64::from(status), &text())),
    }
}

/// One request over one connection.
///
/// # Errors
/// [`Trouble`].
pub fn exchange(server: SocketAddr, request: &[u8], patience: Duration) -> Result<Answer, Trouble> {
    let mut socket = dial(server, patience)?;
    let deadline = Instant::now() + patience;
    let unknown = |error: io::Error| Trouble::Unknown(error.to_string());
    socket.set_write_timeout(Some(patience)).map_err(unknown)?;
    socket.write_all(request).map_err(unknown)?;
    let mut bytes = Vec::new();
    loop {
        match read_some(&mut socket, &mut bytes).map_err(unknown)? {
            Some(0) => break,
            _ if bytes.len() > ANSWER_BYTES_MAX => return Err(Trouble::Unknown("an endless answer".to_owned())),
            Some(_) | None if Instant::now() < deadline => {}
            _ => return Err(Trouble::Unknown(format!("no answer within {} ms", patience.as_millis()))),
        }
        if let Some(answer) = whole(&bytes, false)? {
            return Ok(answer);
        }
    }
    whole(&bytes, true)?.ok_or_else(|| Trouble::Unknown("the connection was closed before the answer".to_owned()))
}

/// Opens a connection.
///
/// # Errors
/// [`Trouble::NotSent`].
pub fn dial(server: SocketAddr, patience: Duration) -> Result<TcpStream, Trouble> {
    let opened = TcpStream::connect_timeout(&server, patience).and_then(|socket| {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_WAIT))?;
        Ok(socket)
    });
    opened.map_err(|error| Trouble::NotSent(error.to_string()))
}

/// Reads what is there; nothing when nothing came in time.
///
/// # Errors
/// If the connection broke.
pub fn read_some(socket: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut part = [0; 16_384];
    match socket.read(&mut part) {
        Ok(n) => {
            into.extend_from_slice(&part[..n]);
            Ok(Some(n))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// Bytes of the head with its empty line.
    pub bytes: usize,
    /// Length of the body, if it says so.
    pub length: Option<usize>,
    /// Whether the body comes in chunks.
    pub is_chunked: bool,
}

/// Reads the head of an answer or a request (whose status is then 0), once it is whole.
///
/// # Errors
/// If it is none.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Trouble> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        let is_endless = bytes.len() > HEAD_BYTES_MAX;
        return if is_endless { Err(Trouble::Unknown("an endless head".to_owned())) } else { Ok(None) };
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
    let mut head = Head { status, bytes: end + 4, length: None, is_chunked: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.trim().parse().ok();
        }
        head.is_chunked |=
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked");
    }
    Ok(Some(head))
}

/// The answer, once it is whole.
fn whole(bytes: &[u8], is_end: bool) -> Result<Option<Answer>, Trouble> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[head.bytes..];
    let body = match (head.length, head.is_chunked) {
        (Some(length), _) => rest.get(..length).map(<[u8]>::to_vec),
        (None, true) => {
            let mut chunks = Chunks::default();
            let mut body = Vec::new();
            chunks.feed(rest, &mut body).map_err(Trouble::Unknown)?;
            chunks.is_over.then_some(body)
        }
        (None, false) => is_end.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| Answer { status: head.status, body }))
}

/// Takes chunks (RFC 9112, section 7.1) apart.
#[derive(Debug, Default)]
pub struct Chunks {
    rest: Vec<u8>,
    /// Whether the last chunk has come.
    pub is_over: bool,
}

impl Chunks {
    /// Takes what a socket gave; the content of whole chunks goes out.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        while !self.is_over {
            let Some(line) = self.rest.windows(2).position(|window| window == b"\r\n") else { return Ok(()) };
            let size = String::from_utf8_lossy(&self.rest[..line]).into_owned();
            let size = size.split(';').next().unwrap_or_default().trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("no chunk: {size:?}"))?;
            let end = line + 2 + size;
            if self.rest.len() < end + 2 {
                return Ok(());
            }
            out.extend_from_slice(&self.rest[line + 2..end]);
            self.rest.drain(..end + 2);
            self.is_over = size == 0;
        }
        Ok(())
    }
}

/// Writes a word so that it may stand in an address.
#[must_use]
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let known = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(whole(&known[..known.len() - 1], false), Ok(None));
        assert_eq!(whole(known, false), Ok(Some(Answer { status: 200, body: b"{}".to_vec() })));
        let chunked = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
        assert_eq!(whole(chunked, false), Ok(Some(Answer { status: 503, body: b"abcd".to_vec() })));
        assert_eq!(whole(&chunked[..chunked.len() - 3], true), Ok(None), "cut off");
    }

    #[test]
    fn what_a_refusal_means_depends_on_whose_fault_it_is() {
        assert!(matches!(Trouble::refusal(103, "permission denied"), Trouble::Refused { code: 103, .. }));
        assert!(matches!(Trouble::refusal(503, "temporarily unavailable"), Trouble::Unknown(_)));
        assert!(matches!(Trouble::refusal(100, "internal server error"), Trouble::Unknown(_)));
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(escaped("talk:a#b"), "talk%3Aa%23b");
    }
}
