//! The reader by examples, and against another implementation of RFC 6455 on frames of every kind, cut anywhere.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::{Event, Reader, Scratch};
use crate::compression::{Compression, Window};

const MESSAGE_BYTES_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Close,
    Refused(u16),
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    let mask = [7, 0x55, 0, 0xc3];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What our reader makes of pieces of bytes, and what it answers.
fn read_pieces<'a>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, Vec<u8>) {
    let (mut seen, mut answers, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
    for piece in pieces {
        reader.feed(piece, 0, &mut scratch, &mut answers, |event| {
            seen.push(match event {
                Event::Text(text) => Seen::Text(text.to_owned()),
                Event::Binary(bytes) => Seen::Binary(bytes.to_owned()),
                Event::Close => Seen::Close,
                Event::Violation(code) => Seen::Refused(code),
            });
        });
    }
    (seen, answers)
}

fn read(bytes: &[u8], piece: usize) -> (Vec<Seen>, Vec<u8>) {
    read_pieces(&mut Reader::new(MESSAGE_BYTES_MAX, false), bytes.chunks(piece))
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn messages_come_out_however_the_bytes_are_cut() {
    let mut bytes = masked(0x81, b"one");
    bytes.extend(masked(0x01, b"t"));
    bytes.extend(masked(0x89, b"hi"));
    bytes.extend(masked(0x80, b"wo"));
    bytes.extend(masked(0x82, &[9; 300]));
    bytes.extend(masked(0x81, b""));
    bytes.extend(masked(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
    bytes.extend(masked(0x81, b"too late"));
    for piece in 1..=bytes.len() {
        let (seen, answers) = read(&bytes, piece);
        let expected = [text("one"), text("two"), Seen::Binary(vec![9; 300]), text(""), Seen::Close];
        assert_eq!(seen, expected, "cut into pieces of {piece}");
        assert_eq!(answers, b"\x8a\x02hi\x88\x02\x03\xe8", "cut into pieces of {piece}");
    }
}

#[test]
fn what_breaks_the_rules_is_told_by_its_code() {
    let long = masked(0x82, &[0; MESSAGE_BYTES_MAX + 1]);
    let two_long = [masked(0x02, &[0; MESSAGE_BYTES_MAX]), masked(0x80, b"x")].concat();
    for (name, bytes, code) in [
        ("unmasked", b"\x81\x02hi".to_vec(), 1002),
        ("a reserved bit", masked(0xc1, b"hi"), 1002),
        ("an unknown opcode", masked(0x83, b""), 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("a long ping", masked(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", masked(0x80, b""), 1002),
        ("a message within another", [masked(0x01, b""), masked(0x81, b"")].concat(), 1002),
        ("not UTF-8", masked(0x81, b"\xff"), 1007),
        ("not UTF-8 in a fragment", masked(0x01, b"\xff"), 1007),
        ("cut within a character", masked(0x81, b"\xc3"), 1007),
        ("a close of one byte", masked(0x88, b"\x03"), 1002),
        ("a close with a code that is not to be sent", masked(0x88, &1005u16.to_be_bytes()), 1002),
        ("a close whose reason is not UTF-8", masked(0x88, b"\x03\xe8\xff"), 1007),
        ("a claimed gigabyte", b"\x81\xff\x00\x00\x00\x00\x40\x00\x00\x00mask".to_vec(), 1009),
        ("a claimed endlessness", b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xffmask".to_vec(), 1009),
        ("a byte too much", long, 1009),
        ("a byte too much in two frames", two_long, 1009),
    ] {
        for piece in [1, 7, bytes.len()] {
            assert_eq!(read(&bytes, piece).0, [Seen::Refused(code)], "{name}, in pieces of {piece}");
        }
    }
}

#[test]
fn floods_of_empty_frames_end() {
    let mut fragments = masked(0x01, b"");
    (0..5_000).for_each(|_| fragments.extend(masked(0x00, b"")));
    assert_eq!(read(&fragments, 4_096).0, [Seen::Refused(1008)]);
    let pings: Vec<u8> = (0..100).flat_map(|_| masked(0x89, b"")).collect();
    assert_eq!(read(&pings, 4_096).0, [Seen::Refused(1008)]);
}

#[test]
fn a_peer_that_only_pings_now_and_then_stays() {
    let (mut reader, mut scratch, mut answers) = (Reader::new(10, false), Scratch::default(), Vec::new());
    for count in 0..100_000 {
        reader.feed(&masked(0x89, b"hi"), count * 1_000, &mut scratch, &mut answers, |event| panic!("{event:?}"));
    }
    assert_eq!(answers.len(), 100_000 * 4);
}

#[test]
fn nothing_is_kept_between_messages() {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX, true);
    let bytes = [masked(0x01, b"on"), masked(0x89, b"ping"), masked(0x80, b"e")].concat();
    let (seen, _) = read_pieces(&mut reader, bytes.chunks(3));
    assert_eq!(seen, [text("one")]);
    assert_eq!(reader.heap_bytes(), 0);
    assert!(size_of::<Reader>() <= 192, "{} bytes a connection", size_of::<Reader>());
    let _ = read_pieces(&mut reader, [&masked(0x01, &[b'x'; 500])[..], &masked(0x83, b"")]);
    assert_eq!(reader.heap_bytes(), 0, "nor behind a violation");
}

/// A message as a client sends it, compressed if that makes it smaller.
fn deflated(message: &[u8]) -> Option<Vec<u8>> {
    Compression::new(0, usize::MAX).compressed(Window::Wide, message, <[u8]>::to_vec)
}

#[test]
fn compressed_messages_are_read_where_that_was_agreed() {
    let payload = deflated(&[b'a'; 900]).expect("smaller");
    let (left, right) = payload.split_at(payload.len() / 2);
    let whole = masked(0xc1, &payload);
    let cut = [masked(0x41, left), masked(0x89, b""), masked(0x80, right)].concat();
    let expected = [text(&"a".repeat(900))];
    for bytes in [&whole, &cut] {
        for piece in [1, 5, 1_000] {
            let mut reader = Reader::new(MESSAGE_BYTES_MAX, true);
            assert_eq!(read_pieces(&mut reader, bytes.chunks(piece)).0, expected);
        }
        assert_eq!(read(bytes, 1_000).0, [Seen::Refused(1002)], "not agreed");
    }
    let bomb = masked(0xc1, &deflated(&[b'a'; MESSAGE_BYTES_MAX + 1]).expect("smaller"));
    for (bytes, code) in [
        (bomb, 1009),
        (masked(0xc1, &deflated(&[0xff; 100]).expect("smaller")), 1007),
        (masked(0xc1, &[0xff; 9]), 1007),
        (masked(0xc9, b""), 1002),
        ([masked(0x41, b""), masked(0xc0, b"")].concat(), 1002),
        (masked(0xe1, b""), 1002),
    ] {
        let seen = read_pieces(&mut Reader::new(MESSAGE_BYTES_MAX, true), [&bytes[..]]).0;
        assert_eq!(seen, [Seen::Refused(code)], "{bytes:02x?}");
    }
}

/// The other implementation's reader, fed in the same way.
struct Reference {
    context: WebSocketContext,
    seen: Vec<Seen>,
    answers: Vec<u8>,
}

impl Reference {
    fn new() -> Self {
        let config = WebSocketConfig::default()
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { context, seen: Vec::new(), answers: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut io = Feed { bytes, answers: Vec::new() };
        while !matches!(self.seen.last(), Some(Seen::Close | Seen::Refused(_))) {
            use tungstenite::Message;
            match self.context.read(&mut io) {
                Ok(Message::Text(text)) => self.seen.push(Seen::Text(text.to_string())),
                Ok(Message::Binary(bytes)) => self.seen.push(Seen::Binary(bytes.to_vec())),
                // It says so for a code that must not be sent.
                Ok(Message::Close(Some(close))) if &*close.reason == "Protocol violation" => {
                    self.seen.push(Seen::Refused(1002));
                }
                Ok(Message::Close(_)) => self.seen.push(Seen::Close),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.seen.push(Seen::Refused(0)),
            }
        }
        self.answers.extend(io.answers);
    }
}

struct Feed<'a> {
    bytes: &'a [u8],
    answers: Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.bytes.read(into) }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-zé🌊]{0,40}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..130),
        1 => proptest::collection::vec(Just(b'x'), 0..1_100),
    ]
}

/// Frames that mostly follow each other as they may, so that the interesting places are reached.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let short = || payload().prop_map(|payload| payload[..payload.len().min(125)].to_vec());
    let frame = prop_oneof![
        4 => (prop_oneof![Just(0x81u8), Just(0x82)], payload()).prop_map(|(first, payload)| masked(first, &payload)),
        4 => (prop_oneof![Just(0x01u8), Just(0x02)], proptest::collection::vec(payload(), 1..4), short()).prop_map(
            |(first, parts, ping)| {
                let mut bytes = masked(first, &parts[0]);
                parts[1..].iter().for_each(|part| bytes.extend(masked(0x00, part)));
                bytes.extend(masked(0x89, &ping));
                bytes.extend(masked(0x80, b""));
                bytes
            }
        ),
        2 => "[a-z🌊é]{1,60}".prop_flat_map(|text| {
            // Cut within characters too.
            let bytes = text.into_bytes();
            (0..=bytes.len(), Just(bytes)).prop_map(|(at, bytes)| {
                [masked(0x01, &bytes[..at]), masked(0x80, &bytes[at..])].concat()
            })
        }),
        2 => (prop_oneof![Just(0x89u8), Just(0x8a)], short()).prop_map(|(first, payload)| masked(first, &payload)),
        1 => (any::<u8>(), payload()).prop_map(|(first, payload)| masked(first, &payload)),
        1 => (900..5_100u16, "[a-zé]{0,20}").prop_map(|(code, reason)| {
            masked(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
        }),
    ];
    proptest::collection::vec(frame, 1..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn another_implementation_reads_the_same(
        bytes in frames(),
        changes in prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ],
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = bytes;
        for (at, change) in &changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let mut reference = Reference::new();
        pieces.iter().for_each(|piece| reference.feed(piece));
        let (mut seen, answers) = read_pieces(&mut Reader::new(MESSAGE_BYTES_MAX, false), pieces);
        // The codes are ours to choose.
        seen.iter_mut().filter(|seen| matches!(seen, Seen::Refused(_))).for_each(|seen| *seen = Seen::Refused(0));
        reference.seen.iter_mut().filter(|seen| matches!(seen, Seen::Refused(_))).for_each(|seen| *seen = Seen::Refused(0));
        // We refuse as soon as we know; the other waits for the whole frame, which may never come.
        if !changes.is_empty() && seen.len() == reference.seen.len() + 1 && seen.last() == Some(&Seen::Refused(0)) {
            seen.pop();
        }
        prop_assert_eq!(&seen, &reference.seen);
        if !matches!(seen.last(), Some(Seen::Close | Seen::Refused(_))) && changes.is_empty() {
            prop_assert_eq!(answers, reference.answers);
        }
    }

    #[test]
    fn compressed_messages_come_out_however_they_are_cut(
        messages in proptest::collection::vec(("[a-d🌊]{0,200}", any::<bool>(), 1..5usize), 1..8),
        piece in 1..700usize,
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (message, compress, parts) in messages {
            let compressed = deflated(message.as_bytes()).filter(|_| compress);
            let (bit, payload) = compressed.map_or((0, message.clone().into_bytes()), |payload| (0x40, payload));
            let mut parts = payload.chunks((payload.len() / parts).max(1)).peekable();
            let mut opcode = 0x01 | bit;
            while let Some(part) = parts.next() {
                let last = if parts.peek().is_none() { 0x80 } else { 0 };
                bytes.extend(masked(opcode | last, part));
                opcode = 0;
            }
            if payload.is_empty() {
                bytes.extend(masked(0x81, b""));
            }
            expected.push(Seen::Text(message));
        }
        let (seen, _) = read_pieces(&mut Reader::new(MESSAGE_BYTES_MAX, true), bytes.chunks(piece));
        prop_assert_eq!(seen, expected);
    }
}
