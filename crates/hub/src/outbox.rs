//! What waits to be written to one connection: frames shared with other connections, counted in bytes.
//!
//! A body in gzip is compressed as it is written, so that what waits stays shared until then.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use talewire_proto::compression::Tally;
use talewire_proto::wire::Wire;

use crate::gzip::Gzip;

/// Pieces offered to one vectored write.
const SLICES_MAX: usize = 64;

/// A connection's queue of bytes to send.
pub struct Outbox {
    wire: Wire,
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// When the peer last took something, or the first frame came into an empty outbox, on the monotonic clock.
    waiting_since_ms: u64,
    gzip: Option<Box<Gzip>>,
}

impl Outbox {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, frames: VecDeque::new(), bytes: 0, waiting_since_ms: 0, gzip: None }
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
        self.frames.is_empty() && self.gzip.as_ref().is_none_or(|gzip| gzip.is_empty())
    }

    /// How long the peer has taken nothing although something waits, in milliseconds.
    #[must_use]
    pub fn stuck_ms(&self, now_ms: u64) -> u64 {
        if self.is_empty() { 0 } else { now_ms.saturating_sub(self.waiting_since_ms) }
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

    /// Leaves out what waits and is of no use any more, for a transport that has written nothing yet.
    pub fn leave_out(&mut self, is_useless: impl Fn(&Bytes) -> bool) {
        self.frames.retain(|frame| !is_useless(frame));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    pub(crate) fn push(&mut self, frame: Bytes, now_ms: u64) {
        if self.is_empty() {
            self.waiting_since_ms = now_ms;
        }
        self.bytes += frame.len();
        if let Some(gzip) = &mut self.gzip {
            gzip.note_push();
        }
        self.frames.push_back(frame);
    }

    /// What is pushed from here on is one body in gzip, of which batches from `bytes_min` on are compressed; what waits
    /// already goes before it. Until [`Outbox::open_window`] everything is stored in the body as it is.
    pub(crate) fn gzip(&mut self, bytes_min: usize, tally: Arc<Tally>) {
        let before = self.frames.drain(..).flatten().collect();
        self.gzip = Some(Box::new(Gzip::new(before, bytes_min, tally)));
    }

    /// From here on what is pushed is compressed together. What came before, the peer's own secrets, is not: who sees
    /// only lengths could guess them by what he publishes.
    pub(crate) fn open_window(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.open_window();
        }
    }

    /// Nothing more is pushed: a body in gzip gets its end.
    pub(crate) fn finish(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.finish();
        }
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
        if self.gzip.is_some() {
            return self.write_gzip(now_ms, write);
        }
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

    /// The same for a body in gzip: one batch is compressed and offered after the other.
    fn write_gzip(
        &mut self,
        now_ms: u64,
        mut write: impl FnMut(&[IoSlice<'_>]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let mut total = 0;
        while !self.is_empty() {
            let Some(gzip) = &mut self.gzip else { break };
            if gzip.ready().is_empty() {
                self.bytes -= gzip.refill(&mut self.frames);
                self.bytes += gzip.ready().len();
            }
            let offered = gzip.ready().len();
            if offered == 0 {
                continue;
            }
            let taken = write(&[IoSlice::new(gzip.ready())])?;
            if taken == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            gzip.advance(taken);
            self.bytes -= taken;
            self.waiting_since_ms = now_ms;
            total += taken;
            if taken < offered {
                break;
            }
        }
        if self.frames.is_empty() {
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
    fn a_body_in_gzip_is_counted_as_it_waits() {
        let mut outbox = Outbox::new(Wire::EventStreamJson);
        outbox.push(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n"), 0);
        outbox.gzip(0, Arc::default());
        outbox.open_window();
        (0..50).for_each(|_| outbox.push(Bytes::from_static(&[b'x'; 1_000]), 0));
        assert_eq!(outbox.bytes(), 50_019, "shared bytes until they are written");
        let mut written = Vec::new();
        while !outbox.is_empty() {
            outbox.finish();
            let _ = outbox.write_with(9, |slices| {
                let n = slices[0].len().min(11);
                written.extend_from_slice(&slices[0][..n]);
                Ok(n)
            });
            assert!(outbox.bytes() < 50_019, "what was taken waits no more");
        }
        assert_eq!(outbox.bytes(), 0);
        let body = written.strip_prefix(b"HTTP/1.1 200 OK\r\n\r\n").expect("the head is not compressed");
        assert!(body.len() < 1_000, "{} bytes", body.len());
        let mut text = Vec::with_capacity(60_000);
        let mut reader = flate2::Decompress::new_gzip(15);
        reader.decompress_vec(body, &mut text, flate2::FlushDecompress::Finish).expect("a body in gzip");
        assert_eq!(text, [b'x'; 50_000]);
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
