//! Where a reader of several channels stands, as few bytes: what a stream's event ids and a poll's cursor hold.
//!
//! Bytes in and out; `talewire-auth` signs them, so that what comes back is what was given. Two forms: with the names of the
//! channels (a poll's), and without, for streams whose address names them already and whose ids must be short.

use crate::channel::Channel;
use crate::publication::{Epoch, Position};

/// Bytes of an event id beyond which a browser asks first whether another origin may send it (the Fetch standard).
pub const ID_BYTES_MAX: usize = 128;

/// Channels of one cursor; more are not read.
pub const CHANNELS_MAX: usize = 128;

/// Positions in the order of a stream's channels.
pub type Positions = Vec<(Channel, Position)>;

const WITH_NAMES: u8 = 1;
const WITHOUT_NAMES: u8 = 2;

/// Writes positions with the names of their channels.
#[must_use]
pub fn named(positions: &[(Channel, Position)]) -> Vec<u8> {
    let mut bytes = vec![WITH_NAMES];
    for (channel, position) in positions {
        bytes.push(u8::try_from(channel.as_str().len()).expect("names have at most 255 bytes"));
        bytes.extend_from_slice(channel.as_str().as_bytes());
        put_position(&mut bytes, position);
    }
    bytes
}

/// Reads positions with the names of their channels.
#[must_use]
pub fn read_named(bytes: &[u8]) -> Option<Positions> {
    let mut bytes = bytes.strip_prefix(&[WITH_NAMES])?;
    let mut positions = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let channel = std::str::from_utf8(name).ok()?.parse().ok()?;
        bytes = rest;
        positions.push((channel, take_position(&mut bytes)?));
        if positions.len() > CHANNELS_MAX {
            return None;
        }
    }
    Some(positions)
}

/// Writes positions without names, and what shows that they are of these channels.
#[must_use]
pub fn nameless(positions: &[(Channel, Position)]) -> Vec<u8> {
    let mut bytes = vec![WITHOUT_NAMES];
    bytes.extend_from_slice(&fingerprint(positions.iter().map(|(channel, _)| channel)));
    positions.iter().for_each(|(_, position)| put_position(&mut bytes, position));
    bytes
}

/// Reads positions of these channels, in their order. Nothing if they were written for others.
#[must_use]
pub fn read_nameless(bytes: &[u8], channels: &[Channel]) -> Option<Positions> {
    let bytes = bytes.strip_prefix(&[WITHOUT_NAMES])?;
    let mut bytes = bytes.strip_prefix(&fingerprint(channels.iter()))?;
    let position = |channel: &Channel| Some((channel.clone(), take_position(&mut bytes)?));
    let positions = channels.iter().map(position).collect::<Option<Positions>>()?;
    bytes.is_empty().then_some(positions)
}

/// Four bytes that are the same for the same channels in the same order.
fn fingerprint<'a>(channels: impl Iterator<Item = &'a Channel>) -> [u8; 4] {
    let joined = channels.map(Channel::as_str).collect::<Vec<_>>().join(" ");
    let [a, b, c, d, ..] = Epoch::new(&joined).digest().to_le_bytes();
    [a, b, c, d]
}

/// An offset as a varint (7 bits a byte, the lowest first), and the epoch's digest; of a channel without positions a zero alone.
fn put_position(bytes: &mut Vec<u8>, position: &Position) {
    if position.epoch.is_empty() {
        return bytes.push(0);
    }
    // One more than the offset: zero means that there is none.
    let mut rest = position.offset.saturating_add(1);
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    let digest = position.epoch.as_digest().unwrap_or_else(|| position.epoch.digest());
    bytes.extend_from_slice(&digest.to_le_bytes());
}

fn take_position(bytes: &mut &[u8]) -> Option<Position> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if *byte < 0x80 {
            let Some(offset) = number.checked_sub(1) else { return Some(Position::default()) };
            let (digest, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            return Some(Position { offset, epoch: Epoch::of_digest(u64::from_le_bytes(*digest)) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions(of: &[(&str, u64, &str)]) -> Positions {
        let position = |offset, epoch| Position { offset, epoch: Epoch::new(epoch) };
        of.iter().map(|(name, offset, epoch)| (name.parse().expect("a name"), position(*offset, epoch))).collect()
    }

    fn same(read: &Positions, written: &Positions) {
        assert_eq!(read.len(), written.len());
        for ((channel, position), (wanted_channel, wanted)) in read.iter().zip(written) {
            assert_eq!((channel, position.offset), (wanted_channel, wanted.offset));
            assert!(position.epoch.means(&wanted.epoch), "{channel}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let written =
            positions(&[("a", 0, "e1"), ("chat:2", 300, "e2"), ("typing:x", 0, ""), ("b", u64::MAX - 1, "e3")]);
        same(&read_named(&named(&written)).expect("positions"), &written);
        let channels: Vec<Channel> = written.iter().map(|(channel, _)| channel.clone()).collect();
        let read = read_nameless(&nameless(&written), &channels).expect("positions");
        same(&read, &written);
        // What was read may be written again before the real epochs are known.
        assert_eq!(nameless(&read), nameless(&written));
        assert_eq!(read_nameless(&nameless(&written), &channels[1..]), None, "other channels");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(read) = read_named(&bytes) {
                prop_assert!(read.len() <= CHANNELS_MAX);
            }
            prop_assert!(read_nameless(&bytes, &["a".parse().expect("a name")]).is_none_or(|read| read.len() == 1));
        }
    }
}
