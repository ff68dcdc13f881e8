//! A seal on bytes that a client keeps for us and shows again: what comes back is what was given, on every node with the same key.
//!
//! What is sealed can be read by whoever has it; it carries no right. A cursor says where a reader stands, never what it may read.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the seal: half of the hash, as RFC 2104, section 5, allows.
const TAG_BYTES: usize = 16;

/// The longest text that is opened, in bytes; a longer one is no seal of ours.
const TEXT_BYTES_MAX: usize = 65_536;

/// Seals bytes with one key.
pub struct Seal(hmac::Key);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// A seal with this key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The bytes and their seal, in letters, digits, `-` and `_`.
    #[must_use]
    pub fn close(&self, bytes: &[u8]) -> String {
        let tag = hmac::sign(&self.0, bytes);
        URL_SAFE_NO_PAD.encode([&tag.as_ref()[..TAG_BYTES], bytes].concat())
    }

    /// How long the text of [`Seal::close`] is for so many bytes.
    #[must_use]
    pub const fn text_len(bytes: usize) -> usize {
        ((bytes + TAG_BYTES) * 4).div_ceil(3)
    }

    /// The bytes, if the seal is ours.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, bytes) = sealed.split_at_checked(TAG_BYTES)?;
        let wanted = hmac::sign(&self.0, bytes);
        aws_lc_rs::constant_time::verify_slices_are_equal(&wanted.as_ref()[..TAG_BYTES], tag).ok()?;
        Some(sealed.split_off(TAG_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_with_the_key_is_opened() {
        let seal = Seal::new([7; 32]);
        for bytes in [&b""[..], b"a", b"where a reader stands"] {
            let text = seal.close(bytes);
            assert_eq!(text.len(), Seal::text_len(bytes.len()));
            assert_eq!(seal.open(&text).as_deref(), Some(bytes));
            assert_eq!(Seal::new([8; 32]).open(&text), None, "another key");
            for at in 0..text.len() {
                let mut forged = text.clone().into_bytes();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                let forged = String::from_utf8(forged).expect("ASCII");
                assert_ne!(seal.open(&forged).as_deref(), Some(bytes), "forged at {at}");
            }
        }
        for nonsense in ["", "AAAA", "é", &"A".repeat(70_000)] {
            assert_eq!(seal.open(nonsense), None);
        }
    }
}
