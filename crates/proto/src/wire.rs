//! How a message stands on a transport: the codec and the framing around it, as one shared piece of bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::channel::Channel;
use crate::codec::Codec;
use crate::compression::{Compression, Window};
use crate::events::{self, Form};
use crate::publication::{Epoch, Publication};

/// A codec on a transport. Fan-out encodes a publication once for each that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// JSON lines, one WebSocket text frame per message.
    WebSocketJson,
    /// Protobuf messages with their lengths, one WebSocket binary frame per message.
    WebSocketProtobuf,
    /// HTTP streaming: JSON lines, each ended by a line feed.
    StreamJson,
    /// HTTP streaming: Protobuf messages with their lengths, and nothing between them.
    StreamProtobuf,
    /// Server-Sent Events: each JSON line is the data of one event.
    EventStreamJson,
    /// One way, by WebSocket: a push per text frame.
    WebSocketJsonDown,
    /// One way, by WebSocket: a push per binary frame.
    WebSocketProtobufDown,
    /// One way, by HTTP streaming: a push per line.
    StreamJsonDown,
    /// One way, by Server-Sent Events: a push per event.
    EventStreamJsonDown,
    /// Plain events of one channel: each entry carries its id.
    Events(Form),
    /// Plain events of several channels: ids are of the reader, and stand before what all share.
    EventsOfMany(Form),
    /// The elements of a poll's answer, each followed by a comma.
    Poll,
    /// As [`Wire::WebSocketJson`], where large messages may be compressed (RFC 7692).
    WebSocketJsonDeflate(Window),
    /// As [`Wire::WebSocketProtobuf`], where large messages may be compressed (RFC 7692).
    WebSocketProtobufDeflate(Window),
    /// As [`Wire::WebSocketJsonDown`], where large pushes may be compressed (RFC 7692).
    WebSocketJsonDownDeflate(Window),
    /// As [`Wire::WebSocketProtobufDown`], where large pushes may be compressed (RFC 7692).
    WebSocketProtobufDownDeflate(Window),
}

impl Wire {
    /// How many there are, for tables indexed by [`Wire::index`].
    pub const COUNT: usize = Self::ALL.len();

    /// Every wire, in the order of [`Wire::index`].
    pub const ALL: [Self; 22] = [
        Self::WebSocketJson,
        Self::WebSocketProtobuf,
        Self::StreamJson,
        Self::StreamProtobuf,
        Self::EventStreamJson,
        Self::WebSocketJsonDown,
        Self::WebSocketProtobufDown,
        Self::StreamJsonDown,
        Self::EventStreamJsonDown,
        Self::Events(Form::Payload),
        Self::Events(Form::Envelope),
        Self::EventsOfMany(Form::Payload),
        Self::EventsOfMany(Form::Envelope),
        Self::Poll,
        Self::WebSocketJsonDeflate(Window::Wide),
        Self::WebSocketJsonDeflate(Window::Narrow),
        Self::WebSocketProtobufDeflate(Window::Wide),
        Self::WebSocketProtobufDeflate(Window::Narrow),
        Self::WebSocketJsonDownDeflate(Window::Wide),
        Self::WebSocketJsonDownDeflate(Window::Narrow),
        Self::WebSocketProtobufDownDeflate(Window::Wide),
        Self::WebSocketProtobufDownDeflate(Window::Narrow),
    ];

    /// A small number for tables.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::WebSocketJson => 0,
            Self::WebSocketProtobuf => 1,
            Self::StreamJson => 2,
            Self::StreamProtobuf => 3,
            Self::EventStreamJson => 4,
            Self::WebSocketJsonDown => 5,
            Self::WebSocketProtobufDown => 6,
            Self::StreamJsonDown => 7,
            Self::EventStreamJsonDown => 8,
            Self::Events(Form::Payload) => 9,
            Self::Events(Form::Envelope) => 10,
            Self::EventsOfMany(Form::Payload) => 11,
            Self::EventsOfMany(Form::Envelope) => 12,
            Self::Poll => 13,
            Self::WebSocketJsonDeflate(Window::Wide) => 14,
            Self::WebSocketJsonDeflate(Window::Narrow) => 15,
            Self::WebSocketProtobufDeflate(Window::Wide) => 16,
            Self::WebSocketProtobufDeflate(Window::Narrow) => 17,
            Self::WebSocketJsonDownDeflate(Window::Wide) => 18,
            Self::WebSocketJsonDownDeflate(Window::Narrow) => 19,
            Self::WebSocketProtobufDownDeflate(Window::Wide) => 20,
            Self::WebSocketProtobufDownDeflate(Window::Narrow) => 21,
        }
    }

    /// How messages are written on it.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::WebSocketJson | Self::WebSocketJsonDeflate(_) | Self::StreamJson | Self::EventStreamJson => {
                Codec::Json
            }
            Self::WebSocketProtobuf | Self::WebSocketProtobufDeflate(_) | Self::StreamProtobuf => Codec::Protobuf,
            Self::WebSocketJsonDown
            | Self::WebSocketJsonDownDeflate(_)
            | Self::StreamJsonDown
            | Self::EventStreamJsonDown => Codec::JsonDown,
            Self::WebSocketProtobufDown | Self::WebSocketProtobufDownDeflate(_) => Codec::ProtobufDown,
            Self::Events(form) | Self::EventsOfMany(form) => Codec::Events(form),
            Self::Poll => Codec::Json,
        }
    }

    /// The transport's name in metrics and logs.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        match self {
            Self::StreamJson | Self::StreamProtobuf | Self::StreamJsonDown => "http-stream",
            Self::EventStreamJson | Self::EventStreamJsonDown | Self::Events(_) | Self::EventsOfMany(_) => "sse",
            Self::Poll => "poll",
            _ => "websocket",
        }
    }

    /// Whether the transport is a WebSocket, which has pings and closes of its own.
    #[must_use]
    pub const fn is_websocket(self) -> bool {
        matches!(
            self,
            Self::WebSocketJson
                | Self::WebSocketProtobuf
                | Self::WebSocketJsonDown
                | Self::WebSocketProtobufDown
                | Self::WebSocketJsonDeflate(_)
                | Self::WebSocketProtobufDeflate(_)
                | Self::WebSocketJsonDownDeflate(_)
                | Self::WebSocketProtobufDownDeflate(_)
        )
    }

    /// Whether it is read without a protocol: by positions in ids and cursors.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Events(_) | Self::EventsOfMany(_) | Self::Poll)
    }

    /// The same wire, with messages compressed as was agreed. What is no WebSocket stays as it is.
    #[must_use]
    pub const fn compressed(self, window: Window) -> Self {
        match self {
            Self::WebSocketJson => Self::WebSocketJsonDeflate(window),
            Self::WebSocketProtobuf => Self::WebSocketProtobufDeflate(window),
            Self::WebSocketJsonDown => Self::WebSocketJsonDownDeflate(window),
            Self::WebSocketProtobufDown => Self::WebSocketProtobufDownDeflate(window),
            other => other,
        }
    }

    /// A publication as it stands on this wire. `epoch` is that of an entry, nothing for a signal.
    #[must_use]
    pub fn publication(
        self,
        channel: &Channel,
        offset: u64,
        epoch: Option<&Epoch>,
        publication: &Publication,
        compression: &Compression,
    ) -> Bytes {
        match (self, epoch) {
            (Self::Events(form), Some(epoch)) => {
                let mut block = events::id_line(&events::id(offset, epoch));
                block.extend_from_slice(&events::publication(channel, offset, publication, form));
                block.into()
            }
            (Self::Poll, _) => {
                let mut element = events::envelope(channel, offset, publication);
                element.push(b',');
                element.into()
            }
            _ => self.pack(&self.codec().encode_publication(channel, offset, publication), compression),
        }
    }

    /// As [`Wire::frame`], but compressed where the wire has agreed to that and it pays.
    #[must_use]
    pub fn pack(self, message: &[u8], compression: &Compression) -> Bytes {
        let (opcode, window) = match self {
            Self::WebSocketJsonDeflate(window) | Self::WebSocketJsonDownDeflate(window) => (WEBSOCKET_TEXT, window),
            Self::WebSocketProtobufDeflate(window) | Self::WebSocketProtobufDownDeflate(window) => {
                (WEBSOCKET_BINARY, window)
            }
            _ => return self.frame(message),
        };
        compression
            .compressed(window, message, |payload| websocket_frame(WEBSOCKET_COMPRESSED | opcode, payload))
            .unwrap_or_else(|| self.frame(message))
    }

    /// Puts the transport's framing around a message that [`Wire::codec`] has encoded.
    ///
    /// A JSON message holds no line feed (payloads are checked for that), so that one line is one message.
    #[must_use]
    pub fn frame(self, message: &[u8]) -> Bytes {
        match self {
            Self::WebSocketJson
            | Self::WebSocketJsonDown
            | Self::WebSocketJsonDeflate(_)
            | Self::WebSocketJsonDownDeflate(_) => websocket_frame(WEBSOCKET_TEXT, message),
            Self::WebSocketProtobuf
            | Self::WebSocketProtobufDown
            | Self::WebSocketProtobufDeflate(_)
            | Self::WebSocketProtobufDownDeflate(_) => websocket_frame(WEBSOCKET_BINARY, message),
            Self::StreamJson | Self::StreamJsonDown => [message, b"\n"].concat().into(),
            Self::StreamProtobuf | Self::Events(_) | Self::EventsOfMany(_) | Self::Poll => {
                Bytes::copy_from_slice(message)
            }
            Self::EventStreamJson | Self::EventStreamJsonDown => [b"data: ", message, b"\n\n"].concat().into(),
        }
    }
}

const WEBSOCKET_TEXT: u8 = 0x1;
const WEBSOCKET_BINARY: u8 = 0x2;
const WEBSOCKET_CLOSE: u8 = 0x8;
/// The first reserved bit, which marks a compressed message (RFC 7692, section 6).
const WEBSOCKET_COMPRESSED: u8 = 0x40;

/// An unmasked, unfragmented WebSocket frame (RFC 6455, section 5.2), as servers send it.
fn websocket_frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(0x80 | opcode);
    match payload.len() {
        length @ ..=125 => frame.put_u8(length as u8),
        length @ 126..=65_535 => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        length => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

/// A WebSocket close frame (RFC 6455, section 5.5.1); the reason is cut to what a control frame holds.
#[must_use]
pub fn websocket_close(code: u16, reason: &str) -> Bytes {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..reason.len().min(123)]);
    websocket_frame(WEBSOCKET_CLOSE, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_dense() {
        assert_eq!(Wire::ALL.map(Wire::index).to_vec(), (0..Wire::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn every_wire_frames_a_message_in_its_own_way() {
        for (wire, message, frame) in [
            (Wire::WebSocketJson, &b"{}"[..], &b"\x81\x02{}"[..]),
            (Wire::WebSocketProtobuf, b"\x02\x08\x01", b"\x82\x03\x02\x08\x01"),
            (Wire::StreamJson, b"{}", b"{}\n"),
            (Wire::StreamProtobuf, b"\x02\x08\x01", b"\x02\x08\x01"),
            (Wire::EventStreamJson, b"{}", b"data: {}\n\n"),
            (Wire::WebSocketJson.compressed(Window::Wide), b"{}", b"\x81\x02{}"),
            (Wire::WebSocketProtobufDown.compressed(Window::Narrow), b"\x02\x08\x01", b"\x82\x03\x02\x08\x01"),
        ] {
            assert_eq!(&wire.frame(message)[..], frame, "{wire:?}");
        }
    }

    #[test]
    fn only_what_pays_is_compressed() {
        let compression = Compression::new(100, 10_000);
        let wire = Wire::WebSocketJsonDeflate(Window::Wide);
        let mut state = 1u64;
        let mut noisy = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let noise: Vec<u8> = (0..1_000).map(|_| noisy()).collect();
        for (message, first) in [
            (vec![b'x'; 99], 0x81),
            (vec![b'x'; 100], 0xc1),
            (vec![b'x'; 10_000], 0xc1),
            (vec![b'x'; 10_001], 0x81),
            (noise, 0x81),
        ] {
            assert_eq!(wire.pack(&message, &compression)[0], first, "{} bytes", message.len());
            assert_eq!(Wire::StreamJson.pack(&message, &compression), Wire::StreamJson.frame(&message));
        }
        assert_eq!(wire.frame(b"{}"), Wire::WebSocketJson.frame(b"{}"), "always understood");
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (length, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Wire::WebSocketJson.frame(&vec![b'x'; length]);
            assert_eq!(&frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + length);
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(&websocket_close(3501, "bad request")[..], b"\x88\x0d\x0d\xadbad request");
        assert_eq!(websocket_close(3000, &"x".repeat(200)).len(), 2 + 125);
    }
}
