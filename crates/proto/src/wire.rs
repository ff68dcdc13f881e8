//! How a message stands on a transport: the codec and the framing around it, as one shared piece of bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::channel::Channel;
use crate::codec::Codec;
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
}

impl Wire {
    /// How many there are, for tables indexed by [`Wire::index`].
    pub const COUNT: usize = Self::ALL.len();

    /// Every wire, in the order of [`Wire::index`].
    pub const ALL: [Self; 14] = [
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
        }
    }

    /// How messages are written on it.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::WebSocketJson | Self::StreamJson | Self::EventStreamJson => Codec::Json,
            Self::WebSocketProtobuf | Self::StreamProtobuf => Codec::Protobuf,
            Self::WebSocketJsonDown | Self::StreamJsonDown | Self::EventStreamJsonDown => Codec::JsonDown,
            Self::WebSocketProtobufDown => Codec::ProtobufDown,
            Self::Events(form) | Self::EventsOfMany(form) => Codec::Events(form),
            Self::Poll => Codec::Json,
        }
    }

    /// The transport's name in metrics and logs.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        match self {
            Self::WebSocketJson | Self::WebSocketProtobuf | Self::WebSocketJsonDown | Self::WebSocketProtobufDown => {
                "websocket"
            }
            Self::StreamJson | Self::StreamProtobuf | Self::StreamJsonDown => "http-stream",
            Self::EventStreamJson | Self::EventStreamJsonDown | Self::Events(_) | Self::EventsOfMany(_) => "sse",
            Self::Poll => "poll",
        }
    }

    /// Whether the transport is a WebSocket, which has pings and closes of its own.
    #[must_use]
    pub const fn is_websocket(self) -> bool {
        matches!(
            self,
            Self::WebSocketJson | Self::WebSocketProtobuf | Self::WebSocketJsonDown | Self::WebSocketProtobufDown
        )
    }

    /// Whether it is read without a protocol: by positions in ids and cursors.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Events(_) | Self::EventsOfMany(_) | Self::Poll)
    }

    /// A publication as it stands on this wire. `epoch` is that of an entry, nothing for a signal.
    #[must_use]
    pub fn publication(
        self,
        channel: &Channel,
        offset: u64,
        epoch: Option<&Epoch>,
        publication: &Publication,
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
            _ => self.frame(&self.codec().encode_publication(channel, offset, publication)),
        }
    }

    /// Puts the transport's framing around a message that [`Wire::codec`] has encoded.
    ///
    /// A JSON message holds no line feed (payloads are checked for that), so that one line is one message.
    #[must_use]
    pub fn frame(self, message: &[u8]) -> Bytes {
        match self {
            Self::WebSocketJson | Self::WebSocketJsonDown => websocket_frame(WEBSOCKET_TEXT, message),
            Self::WebSocketProtobuf | Self::WebSocketProtobufDown => websocket_frame(WEBSOCKET_BINARY, message),
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
        ] {
            assert_eq!(&wire.frame(message)[..], frame, "{wire:?}");
        }
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
