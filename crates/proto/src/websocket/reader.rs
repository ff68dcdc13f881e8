//! The reading side of one WebSocket connection: frames become messages. Driven by the connection's loop in the server.

use super::{Event, Scratch};

/// Bytes of framing that may come for one message beyond its payload: stops endless empty fragments.
const FRAMING_BYTES_MAX: usize = 16_384;

/// Pings, pongs and closes in a [`CONTROL_PERIOD_MS`] without a message; more are a flood.
const CONTROL_FRAMES_MAX: u32 = 64;

/// For how long control frames are counted together, in milliseconds. A peer that only listens pings for hours.
const CONTROL_PERIOD_MS: u64 = 10_000;

/// The payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The longest head of a frame: two bytes, eight for the length, four for the mask.
const HEAD_BYTES_MAX: usize = 14;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;

/// Reads what one peer sends.
#[derive(Debug)]
pub struct Reader {
    message_bytes_max: usize,
    /// Whether the peer may send compressed messages.
    deflate: bool,
    /// Nothing is read behind a close or a violation.
    ended: bool,
    /// The head of the next frame, as far as it has come.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message whose frames are being read.
    message: Option<Message>,
    /// What has come of a message that is not whole, unmasked.
    data: Vec<u8>,
    /// The same of a control frame.
    control: Vec<u8>,
    /// Bytes of the message and its framing.
    message_bytes: usize,
    control_frames: u32,
    control_since_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: u8,
    last: bool,
    /// The mask of the next byte first.
    mask: [u8; 4],
    remaining: usize,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    is_text: bool,
    compressed: bool,
    /// Payload that its frames have announced.
    announced: usize,
    /// How much of what has come is known to be UTF-8.
    checked: usize,
}

impl Reader {
    /// A reader of messages up to a size, compressed ones too if that was negotiated.
    #[must_use]
    pub fn new(message_bytes_max: usize, deflate: bool) -> Self {
        Self {
            message_bytes_max,
            deflate,
            ended: false,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            frame: None,
            message: None,
            data: Vec::new(),
            control: Vec::new(),
            message_bytes: 0,
            control_frames: 0,
            control_since_ms: 0,
        }
    }

    /// Bytes that the reader holds on the heap: none between messages.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.data.capacity() + self.control.capacity()
    }

    /// Takes bytes from the socket. Events go to `on_event` in order; bytes to be sent at once (pongs, the answer to a
    /// close) go into `answers` before the event that follows them.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        now_ms: u64,
        scratch: &mut Scratch,
        answers: &mut Vec<u8>,
        mut on_event: impl FnMut(Event<'_>),
    ) {
        while !self.ended {
            match self.step(&mut bytes, now_ms, scratch, answers, &mut on_event) {
                Ok(true) => {}
                Ok(false) => return,
                Err(code) => {
                    self.ended = true;
                    on_event(Event::Violation(code));
                }
            }
        }
        // A peer may go on sending for a while: nothing is kept for it.
        (self.data, self.control) = Default::default();
    }

    /// Reads a head or a part of a payload. Says whether there may be more to read.
    fn step(
        &mut self,
        bytes: &mut &[u8],
        now_ms: u64,
        scratch: &mut Scratch,
        answers: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<bool, u16> {
        let Some(mut frame) = self.frame.take() else {
            if self.take_head(bytes)? {
                self.begin_frame(now_ms)?;
                return Ok(true);
            }
            return Ok(false);
        };
        let (part, rest) = bytes.split_at(frame.remaining.min(bytes.len()));
        *bytes = rest;
        frame.remaining -= part.len();
        let whole = frame.remaining == 0;
        if is_control(frame.opcode) {
            unmask(part, &mut frame.mask, &mut self.control);
            if whole {
                let payload = std::mem::take(&mut self.control);
                self.take_control(frame.opcode, &payload, answers, on_event)?;
            }
        } else {
            let mut message = self.message.take().expect("a data frame begins or goes on with a message");
            if whole && frame.last {
                self.end_message(message, part, frame.mask, scratch, on_event)?;
            } else {
                unmask(part, &mut frame.mask, &mut self.data);
                message.check_text(&self.data)?;
                self.message = Some(message);
            }
        }
        if !whole {
            self.frame = Some(frame);
        }
        Ok(whole)
    }

    /// Takes what is missing of a head. Says whether it is whole.
    fn take_head(&mut self, bytes: &mut &[u8]) -> Result<bool, u16> {
        loop {
            let has = usize::from(self.head_len);
            let needs = match (has, self.head[1] & 0x7f) {
                (..2, _) => 2,
                (_, 126) => 2 + 2 + 4,
                (_, 127) => 2 + 8 + 4,
                (_, _) => 2 + 4,
            };
            if has == needs {
                return Ok(true);
            }
            let (part, rest) = bytes.split_at((needs - has).min(bytes.len()));
            if part.is_empty() {
                return Ok(false);
            }
            self.head[has..has + part.len()].copy_from_slice(part);
            self.head_len += u8::try_from(part.len()).expect("a part of a head");
            *bytes = rest;
            if has < 2 && self.head_len == 2 {
                self.check_head(self.head[0], self.head[1])?;
            }
        }
    }

    /// What the first two bytes of a frame must be (RFC 6455, sections 5.2, 5.4 and 5.5). That a length takes more bytes
    /// than it needs harms nobody and is let through.
    fn check_head(&self, first: u8, second: u8) -> Result<(), u16> {
        let (opcode, last, masked) = (first & 0x0f, first & 0x80 != 0, second & 0x80 != 0);
        let may_be_compressed = self.deflate && matches!(opcode, TEXT | BINARY);
        let reserved = if may_be_compressed { 0x30 } else { 0x70 };
        let in_place = match opcode {
            CONTINUATION => self.message.is_some(),
            TEXT | BINARY => self.message.is_none(),
            CLOSE | PING | PONG => last,
            _ => false,
        };
        if first & reserved == 0 && masked && in_place { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    /// The head is whole: what it announces is believed only within the limits.
    fn begin_frame(&mut self, now_ms: u64) -> Result<(), u16> {
        let head = &self.head[..usize::from(std::mem::take(&mut self.head_len))];
        let (before, mask) = head.split_last_chunk::<4>().expect("a head has a mask");
        let length = match before {
            [_, _, long @ ..] if !long.is_empty() => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => u64::from(head[1] & 0x7f),
        };
        let (opcode, last, compressed) = (head[0] & 0x0f, head[0] & 0x80 != 0, head[0] & 0x40 != 0);
        let framing = head.len();
        let remaining = usize::try_from(length).map_err(|_| TOO_BIG)?;
        self.frame = Some(Frame { opcode, last, mask: *mask, remaining });
        if is_control(opcode) {
            if remaining > CONTROL_BYTES_MAX {
                return Err(PROTOCOL_ERROR);
            }
            if now_ms.saturating_sub(self.control_since_ms) > CONTROL_PERIOD_MS {
                (self.control_since_ms, self.control_frames) = (now_ms, 0);
            }
            self.control_frames += 1;
            return if self.control_frames > CONTROL_FRAMES_MAX { Err(POLICY) } else { Ok(()) };
        }
        let first = Message { is_text: opcode == TEXT, compressed, announced: 0, checked: 0 };
        let message = self.message.get_or_insert(first);
        if remaining > self.message_bytes_max - message.announced {
            return Err(TOO_BIG);
        }
        message.announced += remaining;
        self.message_bytes += framing + remaining;
        if self.message_bytes > self.message_bytes_max + FRAMING_BYTES_MAX { Err(POLICY) } else { Ok(()) }
    }

    /// The last part of a message is here: hands the message out.
    fn end_message(
        &mut self,
        message: Message,
        part: &[u8],
        mut mask: [u8; 4],
        scratch: &mut Scratch,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), u16> {
        (self.message_bytes, self.control_frames) = (0, 0);
        let mut data = std::mem::take(&mut self.data);
        let whole = if data.is_empty() {
            scratch.unmasked.clear();
            &mut scratch.unmasked
        } else {
            &mut data
        };
        unmask(part, &mut mask, whole);
        let payload =
            if message.compressed { scratch.inflater.inflate(whole, self.message_bytes_max)? } else { &whole[..] };
        if message.is_text {
            on_event(Event::Text(std::str::from_utf8(payload).map_err(|_| NOT_UTF8)?));
        } else {
            on_event(Event::Binary(payload));
        }
        Ok(())
    }

    fn take_control(
        &mut self,
        opcode: u8,
        payload: &[u8],
        answers: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), u16> {
        let mut answer = |opcode, payload: &[u8]| {
            let length = u8::try_from(payload.len()).expect("control frames are short");
            answers.extend_from_slice(&[0x80 | opcode, length]);
            answers.extend_from_slice(payload);
        };
        match (opcode, payload) {
            (PING, _) => answer(PONG, payload),
            (CLOSE, []) => answer(CLOSE, &[]),
            (CLOSE, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                // Those that a peer may send (RFC 6455, section 7.4, and the registry).
                if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
                    return Err(PROTOCOL_ERROR);
                }
                std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
                answer(CLOSE, &[*high, *low]);
            }
            (CLOSE, _) => return Err(PROTOCOL_ERROR),
            _ => {}
        }
        if opcode == CLOSE {
            self.ended = true;
            on_event(Event::Close);
        }
        Ok(())
    }
}

impl Message {
    /// Text that is no UTF-8 ends the connection as soon as it comes. What is cut within a character waits.
    fn check_text(&mut self, data: &[u8]) -> Result<(), u16> {
        if !self.is_text || self.compressed {
            return Ok(());
        }
        match std::str::from_utf8(&data[self.checked..]) {
            Ok(_) => self.checked = data.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// Adds unmasked bytes, and turns the mask to where the next part begins.
fn unmask(part: &[u8], mask: &mut [u8; 4], into: &mut Vec<u8>) {
    let begin = into.len();
    into.extend_from_slice(part);
    // Pieces of a known length are what the compiler makes one operation of many bytes from.
    let (fours, rest) = into[begin..].as_chunks_mut::<4>();
    let four_masks = u32::from_ne_bytes(*mask);
    fours.iter_mut().for_each(|four| *four = (u32::from_ne_bytes(*four) ^ four_masks).to_ne_bytes());
    rest.iter_mut().zip(mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
    mask.rotate_left(part.len() % 4);
}
