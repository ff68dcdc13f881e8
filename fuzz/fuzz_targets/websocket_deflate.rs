//! Any bytes to the WebSocket reader that takes compressed messages: what comes out does not depend on where they are
//! cut, keeps to the cap, and what we compress is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talewire_proto::compression::{Compression, Window};
use talewire_proto::websocket::{Event, Reader, Scratch};
use talewire_proto::wire::Wire;

const MESSAGE_BYTES_MAX: usize = 2_000;

fn read(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX, true);
    let (mut seen, mut answers, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
    for part in bytes.chunks(piece) {
        reader.feed(part, 0, &mut scratch, &mut answers, |event| {
            if let Event::Text(text) = event {
                assert!(text.len() <= MESSAGE_BYTES_MAX);
            }
            if let Event::Binary(bytes) = event {
                assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            }
            seen.push(format!("{event:?}"));
        });
        assert!(reader.heap_bytes() <= 2 * MESSAGE_BYTES_MAX + 256);
    }
    seen
}

/// A frame of ours as a client would send it.
fn masked(frame: &[u8]) -> Vec<u8> {
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mut masked = frame[..head].to_vec();
    masked[1] |= 0x80;
    masked.extend([1, 2, 3, 4]);
    masked.extend(frame[head..].iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    masked
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    // The whole as one frame's payload too, so that the inflater gets it.
    let mut framed = vec![0xc2, 0xfe, (bytes.len() >> 8) as u8, bytes.len() as u8, 0, 0, 0, 0];
    framed.extend(bytes);
    for bytes in [bytes, &framed] {
        assert_eq!(read(bytes, usize::from(piece) + 1), read(bytes, bytes.len().max(1)));
    }
    let compression = Compression::new(0, usize::MAX);
    for window in [Window::Wide, Window::Narrow] {
        let frame = Wire::WebSocketProtobufDeflate(window).pack(bytes, &compression);
        let expected = match bytes.len() <= MESSAGE_BYTES_MAX {
            true => format!("Binary({bytes:?})"),
            false => "Violation(1009)".to_owned(),
        };
        assert_eq!(read(&masked(&frame), usize::from(piece) + 1), [expected]);
    }
});
