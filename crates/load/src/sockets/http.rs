//! The HTTP that the tool speaks: requests for streams and polls, posts, and answers cut out of bytes. No socket is here.

use std::fmt::Write as _;
use std::io::Write as _;

use super::target::Target;

/// The longest head of an answer that we take.
const HEAD_BYTES_MAX: usize = 16_384;

/// A `GET` whose answer may go on for ever. `more` are further header lines, each with its end.
pub(super) fn get(target: &Target, path_and_query: &str, more: &str) -> Vec<u8> {
    format!("GET {path_and_query} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", target.server).into_bytes()
}

/// A `POST` of JSON. `more` are further header lines, each with its end.
pub(super) fn post(target: &Target, path: &str, more: &str, body: &[u8], into: &mut Vec<u8>) {
    write!(
        into,
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n",
        target.server,
        body.len()
    )
    .expect("a Vec takes every byte");
    into.extend_from_slice(body);
}

/// A publication by the server API. With a key, a repetition adds nothing.
pub(super) fn publish(target: &Target, channel: &str, data: &[u8], key: Option<&str>, into: &mut Vec<u8>) {
    let mut body = format!("{{\"channel\":{},", serde_json::Value::from(channel)).into_bytes();
    if let Some(key) = key {
        write!(body, "\"idempotency_key\":{},", serde_json::Value::from(key)).expect("a Vec takes every byte");
    }
    body.extend_from_slice(b"\"data\":");
    body.extend_from_slice(data);
    body.push(b'}');
    // Errors are to be told by the status.
    let key = target.api_key.as_deref().unwrap_or_default();
    let more = format!("X-API-Key: {key}\r\nX-Centrifugo-Error-Mode: transport\r\n");
    post(target, "/api/publish", &more, &body, into);
}

/// A value as it may stand in a query.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len() * 2);
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    text
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The head alone, with its empty line.
    pub(super) bytes: usize,
    /// What `Content-Length` says.
    pub(super) body: Option<usize>,
}

/// The head at the beginning of `bytes`, if it is whole.
///
/// # Errors
/// What came instead of a head.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err("an endless head".to_owned()) } else { Ok(None) };
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no answer of HTTP: {first}"))?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(Head { status, bytes: end + 4, body: length }))
}

/// The first whole answer: its head, and how many bytes it takes with its body.
///
/// # Errors
/// What came instead of an answer.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let whole = |head: Head| (head, head.bytes + head.body.unwrap_or(0));
    Ok(head(bytes)?.map(whole).filter(|(_, whole)| *whole <= bytes.len()))
}

/// Cuts a stream of bytes at each `end`. Holds bytes only between two parts of one piece.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    rest: Vec<u8>,
}

impl Pieces {
    /// Takes what a socket gave; every piece that is whole by now goes to `on_piece`, without its end.
    pub(super) fn feed(&mut self, bytes: &[u8], end: &[u8], mut on_piece: impl FnMut(&[u8])) {
        if self.rest.is_empty() {
            let used = all(bytes, end, &mut on_piece);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = all(&self.rest, end, &mut on_piece);
            self.rest.drain(..used);
        }
        if self.rest.is_empty() {
            // A reader that waits holds nothing.
            self.rest = Vec::new();
        }
    }
}

fn all(bytes: &[u8], end: &[u8], on_piece: &mut impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    while let Some(length) = bytes[used..].windows(end.len()).position(|window| window == end) {
        on_piece(&bytes[used..used + length]);
        used += length + end.len();
    }
    used
}

/// The fields of an event that the tool reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) data: &'a str,
}

impl<'a> Event<'a> {
    /// Reads the lines of an event. Lines of comments, and fields that the tool does not need, are passed over.
    pub(super) fn read(block: &'a [u8]) -> Result<Self, std::str::Utf8Error> {
        let mut event = Event::default();
        for line in std::str::from_utf8(block)?.lines() {
            match line.split_once(": ") {
                Some(("id", value)) => event.id = value,
                Some(("event", value)) => event.name = value,
                Some(("data", value)) => event.data = value,
                _ => {}
            }
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::target::Transport;
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 429 Too Many\r\n\r\n";
        let seen = |bytes: &[u8]| answer(bytes).map(|seen| seen.map(|(head, bytes)| (head.status, bytes)));
        assert_eq!(seen(answers), Ok(Some((200, 40))));
        assert_eq!(seen(&answers[..39]), Ok(None));
        assert_eq!(seen(&answers[40..]), Ok(Some((429, 25))));
        assert!(seen(b"\x81\x01x and no head\r\n\r\n").is_err());
    }

    #[test]
    fn a_post_states_its_length() {
        let server = SocketAddr::from(([127, 0, 0, 1], 8000));
        let api_key = Some("k".to_owned());
        let target =
            Target { server, publish_to: None, transport: Transport::Events, token: None, api_key, sources: 1 };
        for (key, wanted) in [
            (None, r#"{"channel":"load:a","data":{"n":1}}"#),
            (Some("7"), r#"{"channel":"load:a","idempotency_key":"7","data":{"n":1}}"#),
        ] {
            let mut request = Vec::new();
            publish(&target, "load:a", b"{\"n\":1}", key, &mut request);
            let request = String::from_utf8(request).expect("text");
            let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
            assert_eq!(body, wanted);
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            assert!(head.contains("\r\nX-API-Key: k\r\nX-Centrifugo-Error-Mode: transport\r\n"), "{head}");
        }
    }

    #[test]
    fn pieces_come_out_whole_wherever_the_bytes_are_cut() {
        let bytes = b"id: 1\ndata: a\n\n:\n\ndata: b\n\n";
        for cut in 0..=bytes.len() {
            let (mut pieces, mut seen) = (Pieces::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                pieces.feed(part, b"\n\n", |piece| seen.push(piece.to_vec()));
            }
            assert_eq!(seen, [&b"id: 1\ndata: a"[..], b":", b"data: b"], "cut at {cut}");
            assert!(pieces.rest.is_empty());
        }
    }

    #[test]
    fn events_have_the_fields_that_stand_there() {
        let event = Event::read(b"id: 7-ab\nevent: turn\ndata: {\"a\": 1}").expect("text");
        assert_eq!(event, Event { id: "7-ab", name: "turn", data: "{\"a\": 1}" });
        assert_eq!(Event::read(b":"), Ok(Event::default()));
    }

    #[test]
    fn queries_hold_whatever_was_meant() {
        assert_eq!(escaped("{\"id\":1}\n"), "%7B%22id%22%3A1%7D%0A");
        assert_eq!(escaped("a-b_c.D9"), "a-b_c.D9");
    }
}
