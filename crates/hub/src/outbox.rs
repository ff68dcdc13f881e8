//! What waits to be written to one connection: frames shared with other connections, counted in bytes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use talewire_proto::wire::Wire;

/// Pieces offered to one vectored write.
const SLICES_MAX: usize = 64;

/// A connection's queue of bytes to send.
pub struct Outbox {
    wire: Wire,
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// When the peer last took something, or the first frame came into an empty outbox, on the monotonic clock.
    waiting_since_ms: u64,
}

impl Outbox {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, frames: VecDeque::new(), bytes: 0, waiting_since_ms: 0 }
    }

    /// How messages stand on this connection's transport.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How long the peer has taken nothing although something waits, in milliseconds.
    #[must_use]
    pub fn stuck_ms(&self, now_ms: u64) -> u64 {
        if self.frames.is_empty() { 0 } else { now_ms.saturating_sub(self.waiting_since_ms) }
    }

    /// How long ago something was last written or, if nothing was, came into the empty outbox, in milliseconds.
    #[must_use]
    pub fn quiet_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.waiting_since_ms)
    }

    /// Takes everything that waits, for a transport that puts something around it.
    pub fn take_all(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.frames).into()
    }

    pub(crate) fn push(&mut self, frame: Bytes, now_ms: u64) {
        if self.frames.is_empty() {
            self.waiting_since_ms = now_ms;
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Writes with `write` (one vectored write of as many frames as fit) until it takes less than it was offered.
    ///
    /// # Errors
    /// Those of `write`; for `WouldBlock` the outbox is unchanged beyond what was taken before.
    pub fn write_with(
        &mut self,
        now_ms: u64,
        mut write: impl FnMut(&[IoSlice<'_>]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let mut total = 0;
        while !self.frames.is_empty() {
            let mut offered = 0;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut n = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                *slice = IoSlice::new(frame);
                offered += frame.len();
                n += 1;
            }
            let taken = write(&slices[..n])?;
            if taken == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.advance(taken, now_ms);
            total += taken;
            if taken < offered {
                break;
            }
        }
        if self.frames.is_empty() {
            // An idle connection keeps no buffer.
            self.frames = VecDeque::new();
        }
        Ok(total)
    }

    fn advance(&mut self, mut taken: usize, now_ms: u64) {
        self.bytes -= taken;
        self.waiting_since_ms = now_ms;
        while taken > 0 {
            let Some(front) = self.frames.front_mut() else { return };
            if front.len() > taken {
                front.advance(taken);
                return;
            }
            taken -= front.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_writes_lose_and_double_nothing() {
        let mut outbox = Outbox::new(Wire::WebSocketJson);
        let text: Vec<u8> = (0..=255).collect();
        for chunk in text.chunks(7) {
            outbox.push(Bytes::copy_from_slice(chunk), 5);
        }
        let mut written = Vec::new();
        while !outbox.is_empty() {
            let _ = outbox.write_with(9, |slices| {
                let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                let n = all.len().min(11);
                written.extend_from_slice(&all[..n]);
                Ok(n)
            });
        }
        assert_eq!(written, text);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_stuck() {
        let mut outbox = Outbox::new(Wire::WebSocketJson);
        assert_eq!(outbox.stuck_ms(100), 0);
        outbox.push(Bytes::from_static(b"x"), 100);
        let blocked = outbox.write_with(150, |_| Err(std::io::ErrorKind::WouldBlock.into()));
        assert!(blocked.is_err());
        assert_eq!(outbox.stuck_ms(400), 300);
    }
}
