//! WebSocket frames (RFC 6455, section 5.2) from the client's side: bytes as a socket gives them in, frames out, without
//! copying unless a frame is cut in two.

/// An unmasked frame as the server sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is: [`TEXT`], [`CLOSE`], [`PING`] or another.
    pub opcode: u8,
    /// Its content.
    pub payload: &'a [u8],
}

/// A text message.
pub const TEXT: u8 = 0x1;
/// The end of the connection: two bytes of code, then a reason.
pub const CLOSE: u8 = 0x8;
/// To be answered by a [`PONG`] with the same content.
pub const PING: u8 = 0x9;
/// The answer to a ping.
pub const PONG: u8 = 0xA;

/// The longest content we take.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A frame that the server should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Only clients mask.
    #[error("a masked frame")]
    Masked,
    /// No extension was agreed on.
    #[error("a frame with reserved bits")]
    Reserved,
    /// The server sends whole messages.
    #[error("a fragment")]
    Fragment,
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    TooLong(u64),
}

/// The first frame in `bytes` and how many bytes it takes, or nothing yet.
///
/// # Errors
/// [`FrameError`], as soon as the bytes show it.
pub fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let &[first, second, ref after @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err(FrameError::Fragment);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (length, header) = match second {
        126 => match after.first_chunk::<2>() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match after.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        length => (u64::from(length), 2),
    };
    let fits = usize::try_from(length).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX);
    let length = fits.ok_or(FrameError::TooLong(length))?;
    let Some(payload) = bytes.get(header..header + length) else { return Ok(None) };
    Ok(Some((Frame { opcode: first & 0x0f, payload }, header + length)))
}

/// Cuts a stream of bytes into frames. Holds bytes only between two parts of one frame.
#[derive(Debug, Default)]
pub struct FrameReader {
    rest: Vec<u8>,
}

impl FrameReader {
    /// Takes what a socket gave; every frame that is whole by now goes to `on_frame`.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read on after it.
    pub fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            let used = all(bytes, &mut on_frame)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = all(&self.rest, &mut on_frame)?;
            self.rest.drain(..used);
        }
        if self.rest.is_empty() {
            // A reader that waits holds nothing.
            self.rest = Vec::new();
        }
        Ok(())
    }
}

fn all(bytes: &[u8], on_frame: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
    let mut used = 0;
    while let Some((frame, length)) = parse(&bytes[used..])? {
        on_frame(frame);
        used += length;
    }
    Ok(used)
}

/// Writes a frame as clients do: whole and masked.
pub fn write(opcode: u8, payload: &[u8], mask: [u8; 4], into: &mut Vec<u8>) {
    into.reserve(payload.len() + 14);
    into.push(0x80 | opcode);
    if payload.len() < 126 {
        into.push(0x80 | payload.len() as u8);
    } else if let Ok(length) = u16::try_from(payload.len()) {
        into.push(0x80 | 126);
        into.extend_from_slice(&length.to_be_bytes());
    } else {
        into.push(0x80 | 127);
        into.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    into.extend_from_slice(&mask);
    into.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            short @ ..126 => bytes.push(short as u8),
            long => {
                bytes.push(126);
                bytes.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn read(parts: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let (mut reader, mut seen) = (FrameReader::default(), Vec::new());
        for part in parts {
            reader.feed(part, |frame| seen.push((frame.opcode, frame.payload.to_vec())))?;
        }
        assert!(reader.rest.is_empty(), "whole frames leave nothing behind");
        Ok(seen)
    }

    #[test]
    fn frames_come_out_whole_wherever_the_bytes_are_cut() {
        let long = vec![b'x'; 300];
        let wanted = vec![(TEXT, b"one".to_vec()), (PING, Vec::new()), (TEXT, long.clone()), (CLOSE, vec![3, 232])];
        let bytes: Vec<u8> = wanted.iter().flat_map(|(opcode, payload)| frame(*opcode, payload)).collect();
        for first in 0..=bytes.len() {
            for second in [first, (first + 1).min(bytes.len()), (first + 5).min(bytes.len()), bytes.len()] {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(&parts), Ok(wanted.clone()), "cut at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), Ok(wanted));
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(parse(b"\x81\x82mask"), Err(FrameError::Masked));
        assert_eq!(parse(b"\xc1\x01x"), Err(FrameError::Reserved));
        assert_eq!(parse(b"\x01\x01x"), Err(FrameError::Fragment));
        assert_eq!(parse(b"\x80\x01x"), Err(FrameError::Fragment));
        assert_eq!(parse(b"\x81\x7f\0\0\0\x01\0\0\0\0"), Err(FrameError::TooLong(1 << 32)));
    }

    #[test]
    fn what_clients_write_is_masked_and_of_the_shortest_form() {
        for (length, header) in [(125, &[0x81, 0xfd][..]), (126, &[0x81, 0xfe, 0, 126]), (65_536, &[0x81, 0xff])] {
            let mut bytes = Vec::new();
            write(TEXT, &vec![7; length], [1, 2, 3, 4], &mut bytes);
            assert_eq!(&bytes[..header.len()], header);
            assert_eq!(&bytes[bytes.len() - length..][..4], [6, 5, 4, 3]);
        }
    }
}
