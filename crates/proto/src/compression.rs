//! Compression of WebSocket messages (RFC 7692): a message in, its compressed form out where that is worth it.
//!
//! Every message is compressed by itself, without what went before, so that no connection keeps any state and one
//! compressed message is good for all connections that agreed to the same window. Called by [`crate::wire::Wire::pack`].

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Compress, FlushCompress};

/// Measured on English prose of 2 KiB: 16 µs to a third of the size. Higher levels cost more and gain a fiftieth.
const LEVEL: u32 = 3;

/// What a sync flush ends with, and what RFC 7692 leaves out.
pub const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How far back a compressed message refers, which is what the receiver must remember while it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// 4 KiB: all but those who ask for less.
    Wide,
    /// 512 bytes, the least that the compressor can do.
    Narrow,
}

impl Window {
    /// The base-2 logarithm of its size, as `server_max_window_bits` says it.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Wide => 12,
            Self::Narrow => 9,
        }
    }

    /// The widest that a receiver with windows of so many bits can read.
    #[must_use]
    pub const fn within(bits: u8) -> Option<Self> {
        match bits {
            ..9 => None,
            9..12 => Some(Self::Narrow),
            12.. => Some(Self::Wide),
        }
    }
}

/// When to compress, and what came of it.
#[derive(Debug)]
pub struct Compression {
    bytes_min: usize,
    bytes_max: usize,
    tally: Tally,
}

/// What compressing came to.
#[derive(Debug, Default)]
pub struct Tally {
    pieces: AtomicU64,
    bytes_before: AtomicU64,
    bytes_after: AtomicU64,
}

impl Tally {
    /// One more piece was compressed.
    pub fn count(&self, bytes_before: usize, bytes_after: usize) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.bytes_before.fetch_add(bytes_before as u64, Ordering::Relaxed);
        self.bytes_after.fetch_add(bytes_after as u64, Ordering::Relaxed);
    }

    /// Pieces that were compressed. A message for many connections counts once.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// Their bytes before.
    #[must_use]
    pub fn bytes_before(&self) -> u64 {
        self.bytes_before.load(Ordering::Relaxed)
    }

    /// Their bytes after.
    #[must_use]
    pub fn bytes_after(&self) -> u64 {
        self.bytes_after.load(Ordering::Relaxed)
    }
}

impl Compression {
    /// Messages of `bytes_min` up to `bytes_max` bytes are compressed.
    #[must_use]
    pub fn new(bytes_min: usize, bytes_max: usize) -> Self {
        Self { bytes_min, bytes_max, tally: Tally::default() }
    }

    /// What was compressed, and what came of it.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Gives the compressed message to `use_it`, if its size is within the limits and compressing makes it smaller.
    pub(crate) fn compressed<T>(&self, window: Window, message: &[u8], use_it: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if message.is_empty() || !(self.bytes_min..=self.bytes_max).contains(&message.len()) {
            return None;
        }
        COMPRESSOR.with_borrow_mut(|compressor| {
            let compressed = compressor.compress(window, message)?;
            self.tally.count(message.len(), compressed.len());
            Some(use_it(compressed))
        })
    }
}

thread_local! {
    /// A compressor's tables are a quarter of a mebibyte: one for each thread and window that is in use.
    static COMPRESSOR: RefCell<Compressor> = const { RefCell::new(Compressor { wide: None, narrow: None, out: Vec::new() }) };
}

struct Compressor {
    wide: Option<Compress>,
    narrow: Option<Compress>,
    out: Vec<u8>,
}

impl Compressor {
    fn compress(&mut self, window: Window, message: &[u8]) -> Option<&[u8]> {
        let kept = match window {
            Window::Wide => &mut self.wide,
            Window::Narrow => &mut self.narrow,
        };
        let deflate = kept.get_or_insert_with(|| {
            Compress::new_with_window_bits(flate2::Compression::new(LEVEL), false, window.bits())
        });
        deflate.reset();
        self.out.clear();
        // No more room than the message takes by itself: what does not fit is not worth it.
        self.out.reserve(message.len());
        deflate.compress_vec(message, &mut self.out, FlushCompress::Sync).ok()?;
        let done = deflate.total_in() == message.len() as u64 && self.out.len() < message.len();
        self.out.strip_suffix(&FLUSH_TAIL).filter(|_| done)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    fn inflate(window: Window, payload: &[u8], length: usize) -> Vec<u8> {
        let mut inflate = Decompress::new_with_window_bits(false, window.bits());
        let mut out = Vec::with_capacity(length + 1);
        let payload = [payload, &FLUSH_TAIL].concat();
        inflate.decompress_vec(&payload, &mut out, FlushDecompress::Sync).expect("a deflate stream");
        assert_eq!(inflate.total_in(), payload.len() as u64, "nothing is left over");
        out
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back_within_the_window(
            words in proptest::collection::vec("[a-e]{1,9}", 0..2_000),
            narrow in any::<bool>(),
        ) {
            let window = if narrow { Window::Narrow } else { Window::Wide };
            let message = words.join(" ").into_bytes();
            let compression = Compression::new(0, usize::MAX);
            let compressed = compression.compressed(window, &message, <[u8]>::to_vec);
            if let Some(compressed) = compressed {
                prop_assert!(compressed.len() < message.len());
                prop_assert_eq!(inflate(window, &compressed, message.len()), message);
                prop_assert_eq!(compression.tally().pieces(), 1);
            } else {
                prop_assert!(message.len() < 100, "text of some length is always smaller compressed");
            }
        }
    }

    #[test]
    fn the_window_fits_the_receiver() {
        let table = [(8, None), (9, Some(Window::Narrow)), (11, Some(Window::Narrow)), (12, Some(Window::Wide))];
        for (bits, window) in table {
            assert_eq!(Window::within(bits), window, "{bits} bits");
        }
    }

    #[test]
    fn what_was_saved_is_counted() {
        let compression = Compression::new(10, 1_000);
        let after = compression.compressed(Window::Wide, &[b'a'; 500], <[u8]>::len).expect("smaller");
        assert_eq!(compression.compressed(Window::Wide, b"short", <[u8]>::len), None);
        let tally = compression.tally();
        assert_eq!((tally.pieces(), tally.bytes_before(), tally.bytes_after()), (1, 500, after as u64));
    }
}
