//! The head of the answer that opens a connection: written here alone, as bytes for HTTP/1.1 and as a response for HTTP/2.
//!
//! [`super::opening`] and polls say what they answer with; [`crate::socket`] asks for the form that its protocol has.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// An answer without its body.
#[derive(Debug)]
pub(crate) struct Head {
    follows: Follows,
    fields: Vec<(&'static str, Cow<'static, str>)>,
}

/// What comes behind the head, which each version of HTTP says in its own way.
#[derive(Debug)]
enum Follows {
    /// WebSocket frames; over HTTP/1.1 with the answer to the client's key.
    Frames { key: Option<String> },
    /// Whatever comes until the connection ends.
    Stream,
    /// A body of this length. `keep` says whether the socket serves another request after it.
    Body { status: StatusCode, bytes: usize, keep: bool },
}

impl Head {
    /// The answer to a WebSocket handshake; `key` is the answer to the client's, which HTTP/2 does not have.
    pub(crate) fn frames(key: Option<String>) -> Self {
        Self { follows: Follows::Frames { key }, fields: Vec::new() }
    }

    /// The answer that a one-way transport begins with. With `gzip`, its body is compressed.
    pub(crate) fn stream(kind: &'static str, gzip: bool) -> Self {
        let head = Self { follows: Follows::Stream, fields: Vec::with_capacity(9) }
            .with("Content-Type", kind)
            .with("Cache-Control", "no-cache, no-store, no-transform")
            .with("X-Accel-Buffering", "no")
            .with("X-Content-Type-Options", "nosniff")
            .with("Vary", "Accept-Encoding");
        if gzip { head.with("Content-Encoding", "gzip") } else { head }
    }

    /// A whole answer of `bytes` bytes. `keep` says whether the socket serves another request after it.
    pub(crate) fn body(status: StatusCode, kind: &'static str, bytes: usize, keep: bool) -> Self {
        let follows = Follows::Body { status, bytes, keep };
        Self { follows, fields: Vec::with_capacity(7) }
            .with("Content-Type", kind)
            .with("Cache-Control", "no-store")
            .with("X-Content-Type-Options", "nosniff")
    }

    /// With one more header. The name is spelt as HTTP/1.1 is used to; the value has no line ends.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// With what a browser wants to see before it shows the answer to a page of another origin.
    pub(crate) fn for_origin(self, origin: Option<String>) -> Self {
        match origin {
            Some(origin) => self
                .with("Access-Control-Allow-Origin", origin)
                .with("Access-Control-Allow-Credentials", "true")
                .with("Vary", "Origin"),
            None => self,
        }
    }

    /// As the bytes of HTTP/1.1.
    pub(crate) fn http1(&self) -> Bytes {
        let status = match self.follows {
            Follows::Frames { .. } => StatusCode::SWITCHING_PROTOCOLS,
            Follows::Stream => StatusCode::OK,
            Follows::Body { status, .. } => status,
        };
        let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("Error"));
        for (name, value) in &self.fields {
            write!(text, "{name}: {value}\r\n").expect("a String takes everything");
        }
        let framing = match &self.follows {
            Follows::Frames { key } => {
                let key = key.as_deref().unwrap_or_default();
                write!(text, "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n")
            }
            // The body ends with the connection, so that a message is the same bytes for every reader.
            Follows::Stream => write!(text, "Connection: close\r\n"),
            Follows::Body { bytes, keep, .. } => {
                let close = if *keep { "" } else { "Connection: close\r\n" };
                write!(text, "Content-Length: {bytes}\r\n{close}")
            }
        };
        framing.expect("a String takes everything");
        text.push_str("\r\n");
        text.into()
    }

    /// As a response over HTTP/2, where the stream's end is the body's and no header says it.
    pub(crate) fn http2(&self) -> Response<()> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("header names are written here");
            if let Ok(value) = HeaderValue::from_str(value) {
                // `Vary` may stand there twice.
                headers.append(name, value);
            }
        }
        if let Follows::Body { status, bytes, .. } = self.follows {
            headers.insert(http::header::CONTENT_LENGTH, bytes.into());
            *response.status_mut() = status;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(head: &Head) -> String {
        String::from_utf8(head.http1().to_vec()).expect("a head is text")
    }

    #[test]
    fn each_version_says_in_its_own_way_what_follows() {
        let frames = Head::frames(Some("k=".into())).with("Sec-WebSocket-Protocol", "centrifuge-json");
        assert_eq!(
            text(&frames),
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: centrifuge-json\r\n\
             Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: k=\r\n\r\n"
        );
        let response = frames.http2();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().len(), 1, "{response:?}");
        assert_eq!(response.headers()["sec-websocket-protocol"], "centrifuge-json");

        let stream = Head::stream("text/event-stream", true).for_origin(Some("https://other.example".into()));
        assert!(text(&stream).starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
        assert!(
            text(&stream).ends_with(
                "Content-Encoding: gzip\r\nAccess-Control-Allow-Origin: https://other.example\r\n\
             Access-Control-Allow-Credentials: true\r\nVary: Origin\r\nConnection: close\r\n\r\n"
            ),
            "{}",
            text(&stream)
        );
        let response = stream.http2();
        assert_eq!(response.headers()["access-control-allow-origin"], "https://other.example");
        assert!(!response.headers().contains_key("connection"));
    }

    #[test]
    fn a_body_says_its_length_and_whether_the_socket_goes_on() {
        let kept = text(&Head::body(StatusCode::OK, "application/json", 7, true));
        assert!(kept.ends_with("Content-Length: 7\r\n\r\n") && !kept.contains("Connection"), "{kept}");
        let last = Head::body(StatusCode::FORBIDDEN, "application/json", 7, false);
        assert!(text(&last).ends_with("Content-Length: 7\r\nConnection: close\r\n\r\n"));
        assert!(text(&last).starts_with("HTTP/1.1 403 Forbidden\r\n"));
        assert_eq!(last.http2().status(), 403);
        assert_eq!(last.http2().headers()["content-length"], "7");
        assert!(!last.http2().headers().contains_key("connection"));
    }
}
