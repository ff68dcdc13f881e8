//! A body in gzip (RFC 1952) that is written batch by batch: frames in, one piece of compressed bytes out, which ends
//! with a flush, so that the reader has every frame at once. Driven by the outbox when the socket takes bytes.
//!
//! A compressor's tables are hundreds of KiB, too much for every connection. They belong to the thread; what a
//! connection keeps is the end of what it has sent, and the compressor is shown that before each batch. Until then
//! frames wait as the shared bytes that they are.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Crc, FlushCompress};
use talewire_proto::compression::Tally;

/// What a batch may refer back to. Four times as much saves a twentieth more.
const WINDOW_BYTES: usize = 1_024;

/// Frames are added to a batch until it has so many bytes, so that the compressor gives its thread back soon.
const BATCH_BYTES: usize = 65_536;

/// The fastest: this is work per reader. Measured on frames of 150 bytes: 5 µs to a quarter of the size.
const LEVEL: u32 = 1;

/// The bytes of a stored block are counted in 16 bits.
const STORED_BYTES_MAX: usize = 65_535;

/// Deflate, no name, no time, an unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A last block that is empty.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

thread_local! {
    static COMPRESSOR: RefCell<Compressor> = const { RefCell::new(Compressor { deflate: None, out: Vec::new() }) };
}

struct Compressor {
    deflate: Option<Compress>,
    out: Vec<u8>,
}

/// One connection's body.
pub(crate) struct Gzip {
    /// Smaller batches are stored as they are.
    bytes_min: usize,
    /// What is compressed, or came before the body, and is not taken yet.
    ready: Bytes,
    /// Frames at the front of the queue that are stored and never referred to.
    private: usize,
    /// Whether further frames are private too.
    window_open: bool,
    /// The end of what was sent.
    window: Vec<u8>,
    crc: Crc,
    /// The head of the body is still to be written.
    head_due: bool,
    /// The end is still to be written, when everything before it is.
    end_due: bool,
    over: bool,
    tally: Arc<Tally>,
}

impl Gzip {
    /// A body behind what is already to be sent.
    pub(crate) fn new(before: Vec<u8>, bytes_min: usize, tally: Arc<Tally>) -> Self {
        Self {
            bytes_min,
            ready: before.into(),
            private: 0,
            window_open: false,
            window: Vec::new(),
            crc: Crc::new(),
            head_due: true,
            end_due: false,
            over: false,
            tally,
        }
    }

    /// A frame was put into the queue.
    pub(crate) fn note_push(&mut self) {
        self.private += usize::from(!self.window_open);
    }

    pub(crate) fn open_window(&mut self) {
        self.window_open = true;
    }

    pub(crate) fn finish(&mut self) {
        self.end_due = !self.over;
    }

    /// Compressed bytes that wait.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.ready
    }

    pub(crate) fn advance(&mut self, taken: usize) {
        self.ready.advance(taken);
        if self.ready.is_empty() {
            self.ready = Bytes::new();
        }
    }

    /// Whether nothing is left to be written once the queue is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && !self.end_due
    }

    /// Makes one batch of what waits. Says how many bytes left the queue.
    pub(crate) fn refill(&mut self, frames: &mut VecDeque<Bytes>) -> usize {
        debug_assert!(self.ready.is_empty(), "one batch at a time");
        if self.over {
            // Behind the end of the body there is nothing.
            return frames.drain(..).map(|frame| frame.len()).sum();
        }
        COMPRESSOR.with_borrow_mut(|Compressor { deflate, out }| {
            out.clear();
            if std::mem::take(&mut self.head_due) {
                out.extend_from_slice(&HEAD);
            }
            let bytes = self.add_batch(frames, deflate, out);
            if self.end_due && frames.is_empty() {
                out.extend_from_slice(&LAST_BLOCK);
                out.extend_from_slice(&self.crc.sum().to_le_bytes());
                out.extend_from_slice(&self.crc.amount().to_le_bytes());
                (self.end_due, self.over) = (false, true);
            }
            // Of its own size, and the thread keeps the room.
            self.ready = Bytes::copy_from_slice(out);
            bytes
        })
    }

    fn add_batch(&mut self, frames: &mut VecDeque<Bytes>, deflate: &mut Option<Compress>, out: &mut Vec<u8>) -> usize {
        let is_private = self.private > 0;
        let most = if is_private { self.private } else { frames.len() };
        let (mut count, mut bytes) = (0, 0);
        while count < most && bytes < BATCH_BYTES {
            bytes += frames[count].len();
            count += 1;
        }
        self.private -= if is_private { count } else { 0 };
        let batch: Vec<Bytes> = frames.drain(..count).collect();
        batch.iter().for_each(|frame| self.crc.update(frame));
        if is_private || bytes < self.bytes_min {
            store(&batch, out);
        } else {
            let before = out.len();
            let deflate = deflate.get_or_insert_with(|| Compress::new(Compression::new(LEVEL), false));
            compress(deflate, &self.window, &batch, bytes, out);
            self.tally.count(bytes, out.len() - before);
        }
        if !is_private {
            self.remember(&batch, bytes);
        }
        bytes
    }

    /// Keeps the end of what was sent.
    fn remember(&mut self, batch: &[Bytes], bytes: usize) {
        if self.window.capacity() == 0 && bytes > 0 {
            self.window.reserve_exact(WINDOW_BYTES);
        }
        let surplus = (self.window.len() + bytes).saturating_sub(WINDOW_BYTES);
        self.window.drain(..surplus.min(self.window.len()));
        let mut skip = bytes.saturating_sub(WINDOW_BYTES);
        for frame in batch {
            self.window.extend_from_slice(&frame[skip.min(frame.len())..]);
            skip = skip.saturating_sub(frame.len());
        }
    }
}

/// Adds blocks that hold the frames as they are (RFC 1951, section 3.2.4). They begin and end with whole bytes.
fn store(batch: &[Bytes], out: &mut Vec<u8>) {
    for part in batch.iter().flat_map(|frame| frame.chunks(STORED_BYTES_MAX)) {
        let length = u16::try_from(part.len()).expect("parts are cut to that");
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// Adds blocks that may refer back to the window, and a flush.
fn compress(deflate: &mut Compress, window: &[u8], batch: &[Bytes], bytes: usize, out: &mut Vec<u8>) {
    deflate.reset();
    if !window.is_empty() {
        deflate.set_dictionary(window).expect("a dictionary is taken at the begin of a stream");
    }
    out.reserve(bytes + bytes / 8 + 64);
    let flush = [(&[][..], FlushCompress::Sync)];
    let parts = batch.iter().map(|frame| (&frame[..], FlushCompress::None)).chain(flush);
    for (mut part, flush) in parts {
        loop {
            let read = deflate.total_in();
            deflate.compress_vec(part, out, flush).expect("deflating has no bad input");
            let read = usize::try_from(deflate.total_in() - read).expect("at most the part");
            part = &part[read..];
            if part.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(1_024);
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    fn frames_of(texts: &[String]) -> VecDeque<Bytes> {
        texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
    }

    /// What a reader makes of everything that has come.
    fn read(deflate: &mut Decompress, new: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(300_000);
        let read = deflate.total_in();
        deflate.decompress_vec(new, &mut out, FlushDecompress::Sync).expect("a body in gzip");
        assert_eq!(deflate.total_in() - read, new.len() as u64, "nothing is left over");
        out
    }

    proptest! {
        #[test]
        fn every_batch_is_read_at_once(
            batches in proptest::collection::vec(proptest::collection::vec("[a-f ]{0,300}", 0..6), 1..12),
            private in 0..4usize,
            bytes_min in 0..400usize,
        ) {
            let tally = Arc::new(Tally::default());
            let mut gzip = Gzip::new(Vec::new(), bytes_min, tally);
            let mut reader = Decompress::new_gzip(15);
            for (n, batch) in batches.iter().enumerate() {
                if n >= private {
                    gzip.open_window();
                }
                let mut frames = frames_of(batch);
                frames.iter().for_each(|_| gzip.note_push());
                let (mut heard, expected) = (Vec::new(), batch.concat().into_bytes());
                let mut left = 0;
                while !frames.is_empty() {
                    left += gzip.refill(&mut frames);
                    heard.extend(read(&mut reader, gzip.ready()));
                    gzip.advance(gzip.ready().len());
                }
                prop_assert_eq!(left, expected.len());
                prop_assert_eq!(heard, expected);
                prop_assert!(gzip.window.capacity() <= WINDOW_BYTES);
            }
            gzip.finish();
            prop_assert!(!gzip.is_empty());
            gzip.refill(&mut VecDeque::new());
            let mut out = [0; 16];
            let status = reader.decompress(gzip.ready(), &mut out, FlushDecompress::Finish);
            // The reader has checked the sum and the length.
            prop_assert_eq!(status.expect("a good end"), flate2::Status::StreamEnd);
        }
    }

    #[test]
    fn what_is_private_is_neither_compressed_nor_referred_to() {
        let secret = "a secret that the peer was given, which others may try to guess";
        let mut gzip = Gzip::new(Vec::new(), 0, Arc::default());
        let written = |gzip: &mut Gzip, text: &str| {
            gzip.note_push();
            gzip.refill(&mut frames_of(&[text.to_owned()]));
            let bytes = gzip.ready().to_owned();
            gzip.advance(bytes.len());
            bytes
        };
        let first = written(&mut gzip, secret);
        assert!(first.windows(secret.len()).any(|window| window == secret.as_bytes()), "as it is");
        gzip.open_window();
        let right = written(&mut gzip, secret).len();
        assert!(right > 40, "{right} bytes: a guess that is right is as long as one that is wrong");
        assert!(written(&mut gzip, secret).len() < 15, "but what others said may be referred to");
    }

    #[test]
    fn a_batch_is_cut_where_it_has_enough() {
        let mut gzip = Gzip::new(Vec::new(), 0, Arc::default());
        gzip.open_window();
        let mut frames: VecDeque<Bytes> = (0..4).map(|_| Bytes::from(vec![b'x'; 40_000])).collect();
        assert_eq!(gzip.refill(&mut frames), 80_000);
        assert_eq!(frames.len(), 2);
    }
}
