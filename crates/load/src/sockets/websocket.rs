//! WebSocket on the loop's connections: the handshake, and frames with lines of the native protocol; or bare frames.

use std::time::Instant;

use super::{Input, Phase, Sockets, Transport};
use crate::client::{self, Handshake};
use crate::error::LoadError;
use crate::frame::{self, Frame, FrameReader};

impl Sockets {
    pub(super) fn begin_websocket(&mut self, index: usize) {
        let handshake = Box::new(Handshake::default());
        let request = handshake.request(self.target.server);
        self.peers[index].input = Input::Handshake { handshake, head: Vec::new() };
        self.send(index, &request);
    }

    pub(super) fn take_handshake(
        &mut self,
        index: usize,
        handshake: Box<Handshake>,
        mut head: Vec<u8>,
        bytes: &[u8],
        now: Instant,
    ) {
        head.extend_from_slice(bytes);
        match handshake.answer(&head) {
            Ok(None) => self.read_on(index, Input::Handshake { handshake, head }),
            Ok(Some(used)) => {
                let connect = client::connect(1, self.target.token.as_deref());
                self.send_frame(index, frame::TEXT, connect.as_bytes());
                self.take_frames(index, FrameReader::default(), &head[used..], now);
            }
            Err(said) => self.broken(index, LoadError::Refused(said)),
        }
    }

    pub(super) fn take_frames(&mut self, index: usize, mut frames: FrameReader, bytes: &[u8], now: Instant) {
        match frames.feed(bytes, |frame| self.take_frame(index, frame, now)) {
            Ok(()) => self.read_on(index, Input::Frames(frames)),
            Err(error) => self.broken(index, LoadError::Refused(error.to_string())),
        }
    }

    /// The hot path: nearly every frame is the publication that is due, as another reader has it already.
    fn take_frame(&mut self, index: usize, frame: Frame<'_>, now: Instant) {
        match frame.opcode {
            frame::TEXT if self.took_known(index, frame.payload, now) => {}
            frame::TEXT => self.take_lines(index, frame.payload, now),
            frame::PING => self.send_frame(index, frame::PONG, frame.payload),
            frame::PONG if self.peers[index].phase == Phase::Connecting && self.target.transport == Transport::Bare => {
                self.became_ready(index);
            }
            frame::CLOSE if self.peers[index].phase != Phase::Closing => {
                let (code, reason) = client::closed(frame.payload);
                self.broken(index, LoadError::Refused(format!("a connection was closed with {code} {reason}")));
            }
            _ => {}
        }
    }

    pub(super) fn send_frame(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(opcode, payload, fastrand::u32(..).to_be_bytes(), &mut bytes);
        self.send(index, &bytes);
    }
}
