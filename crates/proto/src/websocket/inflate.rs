//! Inflating a compressed message (RFC 7692, section 7.2.2) under a cap. Called by the reader for each such message.

use flate2::{Decompress, FlushDecompress, Status};

use crate::compression::FLUSH_TAIL;

/// Room for the first bytes that come out; more is taken as more comes.
const FIRST_BYTES: usize = 4_096;

/// An inflater and its output. Clients keep nothing from message to message either, so that one is good for all
/// connections of a thread.
#[derive(Debug, Default)]
pub struct Inflater {
    /// Made when it is first needed; with its window it is some 40 KiB.
    machine: Option<Decompress>,
    out: Vec<u8>,
}

/// Why a message was not inflated, as a close code says it.
const TOO_BIG: u16 = 1009;
const NOT_DEFLATE: u16 = 1007;

impl Inflater {
    /// Gives back what a message holds.
    ///
    /// # Errors
    /// 1009 as soon as more than `bytes_max` came out, 1007 for what is not compressed data.
    pub fn inflate(&mut self, compressed: &[u8], bytes_max: usize) -> Result<&[u8], u16> {
        let machine = self.machine.get_or_insert_with(|| Decompress::new(false));
        machine.reset(false);
        self.out.clear();
        for part in [compressed, &FLUSH_TAIL] {
            Self::inflate_part(machine, part, &mut self.out, bytes_max)?;
        }
        Ok(&self.out)
    }

    fn inflate_part(machine: &mut Decompress, mut part: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), u16> {
        loop {
            if out.len() > bytes_max {
                return Err(TOO_BIG);
            }
            if out.len() == out.capacity() {
                // Room for one byte beyond the cap, which tells that it was passed.
                out.reserve_exact(out.len().max(FIRST_BYTES).min(bytes_max + 1 - out.len()));
            }
            let (read, written) = (machine.total_in(), out.len());
            let status = machine.decompress_vec(part, out, FlushDecompress::Sync).map_err(|_| NOT_DEFLATE)?;
            let read = usize::try_from(machine.total_in() - read).map_err(|_| NOT_DEFLATE)?;
            part = &part[read..];
            if status == Status::StreamEnd {
                // A sender may end its stream with a last block; what follows is a new one (section 7.2.3.4).
                machine.reset(false);
            }
            if out.len() < out.capacity() {
                if part.is_empty() {
                    return if out.len() > bytes_max { Err(TOO_BIG) } else { Ok(()) };
                }
                if read == 0 && out.len() == written {
                    return Err(NOT_DEFLATE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let mut inflater = Inflater::default();
        for (payload, text) in [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], "Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
            (&[0x00], ""),
        ] {
            assert_eq!(inflater.inflate(payload, 100), Ok(text.as_bytes()), "{payload:02x?}");
        }
        assert_eq!(inflater.inflate(&[0xff, 0xff, 0xff], 100), Err(NOT_DEFLATE));
    }

    #[test]
    fn a_bomb_ends_at_the_cap() {
        let mut bomb = Vec::with_capacity(1_000_000);
        let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
        deflate.compress_vec(&vec![0; 50_000_000], &mut bomb, flate2::FlushCompress::Sync).expect("compressed");
        let payload = bomb.strip_suffix(&FLUSH_TAIL).expect("a sync flush");
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(payload, 65_536), Err(TOO_BIG));
        assert!(inflater.out.capacity() <= 65_537, "{} bytes for the bomb", inflater.out.capacity());
    }

    #[test]
    fn the_cap_is_exact() {
        let mut payload = Vec::with_capacity(1_000);
        let mut deflate = flate2::Compress::new(flate2::Compression::fast(), false);
        deflate.compress_vec(&[7; 10_000], &mut payload, flate2::FlushCompress::Sync).expect("compressed");
        let payload = payload.strip_suffix(&FLUSH_TAIL).expect("a sync flush");
        for (bytes_max, expected) in [(9_999, Err(TOO_BIG)), (10_000, Ok(10_000)), (10_001, Ok(10_000))] {
            assert_eq!(Inflater::default().inflate(payload, bytes_max).map(<[u8]>::len), expected, "{bytes_max}");
        }
    }
}
