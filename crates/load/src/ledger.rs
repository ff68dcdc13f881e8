//! What was published in a channel, and whether a reader got the next of it: the checker. Fed by the socket loop for every
//! delivery.
//!
//! The first reader of a publication has it checked in full: the JSON, the payload byte by byte, the offset. The frame is
//! then remembered, and every other reader's copy must equal it; that is as exact and costs one comparison.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::Instant;

/// The shortest payload: the number and at least one byte after it.
pub const PAYLOAD_BYTES_MIN: usize = 40;

/// Publications of one channel, from the oldest that some reader still waits for.
#[derive(Debug)]
pub struct Ledger {
    channel: String,
    readers: u32,
    payload_bytes: usize,
    sent: VecDeque<Sent>,
    /// The number of the first in `sent`.
    first: u64,
    offsets: Offsets,
    /// The epoch, or its digest, as readers are told it; empty until the first was.
    epoch: String,
    message_bytes: usize,
}

/// How offsets follow from numbers; the first publication shows it.
#[derive(Debug, Clone, Copy)]
enum Offsets {
    Unknown,
    /// A signal has none.
    Absent,
    /// What must be added to a number.
    From(u64),
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    data: Box<[u8]>,
    /// The message as the first reader got it, checked.
    message: Option<Box<[u8]>>,
    /// Readers who wait for it.
    left: u32,
}

/// What is wrong with a delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Something in between did not come.
    #[error("a gap: number {got} came where {wanted} was due")]
    Gap {
        /// What was due.
        wanted: u64,
        /// What came.
        got: u64,
    },
    /// It has come before, or comes after a later one.
    #[error("number {got} came twice or late; {wanted} was due")]
    Again {
        /// What was due.
        wanted: u64,
        /// What came.
        got: u64,
    },
    /// The payload is not what was published.
    #[error("the payload of number {0} is not what was published")]
    Payload(u64),
    /// The payload has no number, or one that was never published.
    #[error("a publication that nobody published")]
    Unknown,
    /// Another channel's.
    #[error("a publication of another channel, {0}")]
    Channel(String),
    /// The server said itself that something is lost, where nothing may be.
    #[error("the server told of a gap")]
    Told,
    /// The channel began anew.
    #[error("the channel has another epoch, {0}")]
    Epoch(String),
    /// Offsets must rise by one with every publication.
    #[error("number {number} has offset {got} instead of {wanted}")]
    Offset {
        /// Of this publication.
        number: u64,
        /// The offset that follows the last one's.
        wanted: u64,
        /// The offset that came.
        got: u64,
    },
}

/// A publication as a reader found it in a message.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its channel.
    pub channel: &'a str,
    /// The payload, byte by byte as it came.
    pub data: &'a [u8],
    /// Its offset; 0 where there is none.
    pub offset: u64,
}

impl Ledger {
    /// A channel with so many readers, in which payloads of `payload_bytes` are published.
    #[must_use]
    pub fn new(channel: String, readers: u32, payload_bytes: usize) -> Self {
        let payload_bytes = payload_bytes.max(PAYLOAD_BYTES_MIN);
        Self {
            channel,
            readers: readers.max(1),
            payload_bytes,
            sent: VecDeque::new(),
            first: 0,
            offsets: Offsets::Unknown,
            epoch: String::new(),
            message_bytes: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// How many read it.
    #[must_use]
    pub fn readers(&self) -> u32 {
        self.readers
    }

    /// The longest message that carried a publication, without the transport's framing.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Publications that some reader still waits for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sent.len()
    }

    /// How many were published.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// The offset of a publication, once one was seen.
    #[must_use]
    pub fn offset_of(&self, number: u64) -> Option<u64> {
        match self.offsets {
            Offsets::From(from) => Some(from.wrapping_add(number)),
            Offsets::Unknown | Offsets::Absent => None,
        }
    }

    /// The epoch, or its digest, as the first reader was told it.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Whether this is the channel's epoch. What the first reader is told is believed.
    pub fn is_of_epoch(&mut self, epoch: &str) -> bool {
        if self.epoch.is_empty() {
            epoch.clone_into(&mut self.epoch);
        }
        self.epoch == epoch
    }

    /// Notes the next publication and gives its payload: its number and letters that follow from the number.
    pub fn publish(&mut self, at: Instant) -> &[u8] {
        let number = self.published();
        let data = payload(number, self.payload_bytes).into();
        self.sent.push_back(Sent { at, data, message: None, left: self.readers });
        &self.sent[self.sent.len() - 1].data
    }

    /// The quick way: whether `message` is the one that is due at a reader, and if so, when it was published.
    pub fn take_known(&mut self, next: &mut u64, message: &[u8]) -> Option<Instant> {
        let sent = self.at(*next)?;
        (sent.message.as_deref() == Some(message)).then(|| self.taken(next)).flatten()
    }

    /// The careful way: checks a publication for a reader who waits for number `next`. `message` is remembered if there was
    /// nothing else in it. Gives the time at which it was published.
    ///
    /// # Errors
    /// [`Wrong`]. The reader goes on behind what came.
    pub fn take(&mut self, next: &mut u64, found: Found<'_>, message: Option<&[u8]>) -> Result<Instant, Wrong> {
        if found.channel != self.channel {
            return Err(Wrong::Channel(found.channel.to_owned()));
        }
        let got = number_of(found.data).ok_or(Wrong::Unknown)?;
        let wanted = *next;
        if got < wanted {
            return Err(Wrong::Again { wanted, got });
        }
        let Some(sent) = self.at(got) else { return Err(Wrong::Unknown) };
        if *sent.data != *found.data {
            return Err(Wrong::Payload(got));
        }
        *next = got;
        let offset = self.check_offset(got, found.offset);
        if let (Ok(()), Some(message), Some(sent)) = (&offset, message, self.at(got)) {
            sent.message.get_or_insert_with(|| message.into());
            self.message_bytes = self.message_bytes.max(message.len());
        }
        let at = self.taken(next).ok_or(Wrong::Unknown)?;
        if got > wanted {
            return Err(Wrong::Gap { wanted, got });
        }
        offset.map(|()| at)
    }

    fn at(&mut self, number: u64) -> Option<&mut Sent> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.sent.get_mut(place)
    }

    fn taken(&mut self, next: &mut u64) -> Option<Instant> {
        let sent = self.at(*next)?;
        sent.left = sent.left.saturating_sub(1);
        let at = sent.at;
        *next += 1;
        while self.sent.front().is_some_and(|sent| sent.left == 0) {
            self.sent.pop_front();
            self.first += 1;
        }
        Some(at)
    }

    fn check_offset(&mut self, number: u64, got: u64) -> Result<(), Wrong> {
        if matches!(self.offsets, Offsets::Unknown) {
            self.offsets = if got == 0 { Offsets::Absent } else { Offsets::From(got.wrapping_sub(number)) };
        }
        let wanted = match self.offsets {
            Offsets::From(from) => from.wrapping_add(number),
            Offsets::Absent | Offsets::Unknown => 0,
        };
        if got == wanted { Ok(()) } else { Err(Wrong::Offset { number, wanted, got }) }
    }
}

/// The payload with this number: a JSON object of exactly `bytes` bytes.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(bytes);
    write!(data, "{{\"n\":{number},\"text\":\"").expect("a Vec takes every byte");
    let mut letters = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while data.len() + 2 < bytes {
        letters = letters.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
        data.push(b'a' + (letters >> 60) as u8);
    }
    data.extend_from_slice(b"\"}");
    data
}

fn number_of(data: &[u8]) -> Option<u64> {
    let digits = data.strip_prefix(b"{\"n\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel with two readers and five publications.
    struct Case {
        ledger: Ledger,
        data: Vec<Vec<u8>>,
        next: [u64; 2],
    }

    impl Case {
        fn new() -> Self {
            let mut ledger = Ledger::new("load:a".into(), 2, 128);
            let data = (0..5).map(|_| ledger.publish(Instant::now()).to_vec()).collect();
            Self { ledger, data, next: [0; 2] }
        }

        /// Brings a message to a reader as the socket loop does: the quick way first.
        fn bring(&mut self, reader: usize, number: usize, offset: u64) -> Result<(), Wrong> {
            let message = [b"<", &self.data[number][..], b">", &offset.to_be_bytes()].concat();
            let next = &mut self.next[reader];
            if self.ledger.take_known(next, &message).is_some() {
                return Ok(());
            }
            let found = Found { channel: "load:a", data: &self.data[number], offset };
            self.ledger.take(next, found, Some(&message)).map(|_| ())
        }
    }

    #[test]
    fn everything_in_order_is_right_and_nothing_is_kept() {
        let mut case = Case::new();
        for number in 0..5 {
            assert_eq!(case.data[number].len(), 128);
            for reader in 0..2 {
                assert_eq!(case.bring(reader, number, 70 + number as u64), Ok(()));
            }
        }
        assert_eq!(case.ledger.waiting(), 0);
        assert_eq!(case.ledger.publish(Instant::now()), payload(5, 128));
    }

    #[test]
    fn a_gap_is_found() {
        let mut case = Case::new();
        assert_eq!(case.bring(0, 0, 1), Ok(()));
        assert_eq!(case.bring(0, 2, 3), Err(Wrong::Gap { wanted: 1, got: 2 }));
        assert!(case.ledger.waiting() > 0);
    }

    #[test]
    fn a_gap_is_found_where_the_other_reader_had_none() {
        let mut case = Case::new();
        (0..3).for_each(|number| assert_eq!(case.bring(0, number, 1 + number as u64), Ok(())));
        assert_eq!(case.bring(1, 1, 2), Err(Wrong::Gap { wanted: 0, got: 1 }));
    }

    #[test]
    fn a_duplicate_is_found() {
        let mut case = Case::new();
        assert_eq!(case.bring(0, 0, 1), Ok(()));
        assert_eq!(case.bring(0, 0, 1), Err(Wrong::Again { wanted: 1, got: 0 }));
        assert_eq!(case.bring(1, 0, 1), Ok(()));
        assert_eq!(case.bring(1, 0, 1), Err(Wrong::Again { wanted: 1, got: 0 }), "also of what everybody has");
    }

    #[test]
    fn a_channel_has_one_epoch_and_offsets_that_follow_from_numbers() {
        let mut case = Case::new();
        assert_eq!((case.ledger.published(), case.ledger.offset_of(0)), (5, None));
        assert_eq!(case.bring(0, 0, 70), Ok(()));
        assert_eq!(case.ledger.offset_of(4), Some(74));
        assert!(case.ledger.is_of_epoch("a") && case.ledger.is_of_epoch("a") && !case.ledger.is_of_epoch("b"));
        assert_eq!(case.ledger.epoch(), "a");
    }

    #[test]
    fn two_that_are_swapped_are_found_twice() {
        let mut case = Case::new();
        assert_eq!(case.bring(0, 1, 2), Err(Wrong::Gap { wanted: 0, got: 1 }));
        assert_eq!(case.bring(0, 0, 1), Err(Wrong::Again { wanted: 2, got: 0 }));
    }

    #[test]
    fn another_payload_channel_or_offset_is_found() {
        let mut case = Case::new();
        let mut other = case.data[0].clone();
        other[40] ^= 1;
        let mut take = |channel, data: &[u8], offset| {
            case.ledger.take(&mut case.next[0], Found { channel, data, offset }, None).map(|_| ())
        };
        assert_eq!(take("load:a", &other, 1), Err(Wrong::Payload(0)));
        assert_eq!(take("load:b", &case.data[0], 1), Err(Wrong::Channel("load:b".into())));
        assert_eq!(take("load:a", b"{\"n\":9,\"text\":\"\"}", 1), Err(Wrong::Unknown));
        assert_eq!(take("load:a", b"null", 1), Err(Wrong::Unknown));
        assert_eq!(take("load:a", &case.data[0], 8), Ok(()));
        assert_eq!(take("load:a", &case.data[1], 10), Err(Wrong::Offset { number: 1, wanted: 9, got: 10 }));
    }
}
