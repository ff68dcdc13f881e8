//! The codecs of the native protocol, chosen by value: bytes of a client to commands, replies to bytes.
//!
//! Sessions and fan-out call this; how each codec does it stands in [`json`] and [`protobuf`].

use std::fmt;

use bytes::Bytes;

use crate::channel::Channel;
use crate::codes::{CloseCode, ErrorCode};
use crate::command::Command;
use crate::events::{self, Form};
use crate::limits::Limits;
use crate::publication::Publication;
use crate::reply::Reply;
use crate::{json, protobuf};

/// How messages are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON objects; in a frame, several are separated by line feeds.
    Json,
    /// Protobuf messages, each preceded by its length.
    Protobuf,
    /// As [`Codec::Json`] for connections that flow one way: a bare request to connect in, bare pushes out.
    JsonDown,
    /// As [`Codec::Protobuf`] for connections that flow one way; without lengths, since each message is a frame of its own.
    ProtobufDown,
    /// Blocks of a stream of events; what comes by other requests is JSON.
    Events(Form),
}

impl Codec {
    /// Reads the commands of one frame.
    ///
    /// # Errors
    /// [`CloseCode::BadRequest`] when the frame is empty, cannot be read, or holds more commands than allowed.
    pub fn decode_frame(self, frame: &[u8], limits: &Limits) -> Result<Vec<Command>, CloseCode> {
        match self {
            Self::Json | Self::Events(_) => json::decode_frame(frame, limits),
            Self::Protobuf => protobuf::decode_frame(frame, limits),
            Self::JsonDown => json::decode_connect(frame),
            Self::ProtobufDown => protobuf::decode_connect(frame),
        }
    }

    /// Writes a reply as one message, which [`crate::wire::Wire::frame`] takes.
    #[must_use]
    pub fn encode(self, reply: &Reply) -> Vec<u8> {
        match self {
            Self::Json => json::encode(reply),
            Self::Protobuf => protobuf::encode(reply),
            Self::JsonDown => json::encode_down(reply),
            Self::ProtobufDown => protobuf::encode_down(reply),
            Self::Events(form) => events::encode(reply, form),
        }
    }

    /// Writes the push of a publication as one message. What fan-out calls once per publication and wire.
    #[must_use]
    pub fn encode_publication(self, channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
        match self {
            Self::Json => json::encode_publication(channel, offset, publication),
            Self::Protobuf => protobuf::encode_publication(channel, offset, publication),
            Self::JsonDown => json::encode_publication_down(channel, offset, publication),
            Self::ProtobufDown => protobuf::encode_publication_down(channel, offset, publication),
            Self::Events(form) => events::publication(channel, offset, publication, form),
        }
    }
}

/// What a client of an emulated transport sends by a request of its own: a frame, and the session it is for.
///
/// Its `Debug` prints only the node and a length: the session's name opens the session, and frames carry tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct EmulationRequest {
    /// The session's name, as the answer to `connect` told it; empty if the client named none.
    pub session: String,
    /// The node that holds the session; empty if the client named none.
    pub node: String,
    /// A frame of the same codec, not yet read.
    pub data: Bytes,
}

impl EmulationRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] when the body is not what the codec makes of such a request.
    pub fn decode(codec: Codec, body: &[u8]) -> Result<Self, ErrorCode> {
        match codec {
            Codec::Json | Codec::JsonDown | Codec::Events(_) => json::decode_emulation(body),
            Codec::Protobuf | Codec::ProtobufDown => protobuf::decode_emulation(body),
        }
    }
}

impl fmt::Debug for EmulationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmulationRequest(node {:?}, {} bytes)", self.node, self.data.len())
    }
}

#[cfg(test)]
mod tests;
