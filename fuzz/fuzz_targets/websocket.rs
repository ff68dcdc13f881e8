//! Any bytes, cut anywhere, to the WebSocket reader: it finds what another implementation finds, and both refuse the same.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use talewire_proto::websocket::{Event, Reader, Scratch};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

const MESSAGE_BYTES_MAX: usize = 300;

#[derive(Debug, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Close,
    Refused,
}

struct Feed<'a>(&'a [u8]);

impl Read for Feed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8]) -> Vec<Seen> {
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let (mut io, mut seen) = (Feed(bytes), Vec::new());
    while !matches!(seen.last(), Some(Seen::Close | Seen::Refused)) {
        seen.push(match context.read(&mut io) {
            Ok(Message::Text(text)) => Seen::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Message::Close(Some(close))) if &*close.reason == "Protocol violation" => Seen::Refused,
            Ok(Message::Close(_)) => Seen::Close,
            Ok(_) => continue,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => Seen::Refused,
        });
    }
    seen
}

fuzz_target!(|input: (usize, &[u8])| {
    let (piece, bytes) = input;
    let mut reader = Reader::new(MESSAGE_BYTES_MAX, false);
    let (mut seen, mut answers, mut scratch, mut flood) = (Vec::new(), Vec::new(), Scratch::default(), false);
    for part in bytes.chunks(piece % 64 + 1) {
        reader.feed(part, 0, &mut scratch, &mut answers, |event| {
            seen.push(match event {
                Event::Text(text) => Seen::Text(text.to_owned()),
                Event::Binary(bytes) => Seen::Binary(bytes.to_owned()),
                Event::Close => Seen::Close,
                Event::Violation(code) => {
                    flood = code == 1008;
                    Seen::Refused
                }
            });
        });
        assert!(reader.heap_bytes() <= 2 * MESSAGE_BYTES_MAX + 256);
    }
    let theirs = theirs(bytes);
    if !flood && seen.last() == Some(&Seen::Refused) && seen.len() == theirs.len() + 1 {
        // We refuse as soon as we know; the other waits for a whole frame, which did not come.
        seen.pop();
    }
    assert!(flood || seen == theirs, "{seen:?}\n{theirs:?}");
});
