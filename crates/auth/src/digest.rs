//! Digests by which nodes see whether they are set alike: bytes in, a short text out. The binary makes them, nodes compare them.

use aws_lc_rs::hmac;

/// Bytes of a digest: enough to tell settings apart, which nobody forges here.
const DIGEST_BYTES: usize = 8;

/// A short text that differs whenever the key or the bytes do. What is secret needs a key that only those who compare have: a short
/// secret could be guessed from its digest.
#[must_use]
pub fn digest(key: &[u8], bytes: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes);
    tag.as_ref()[..DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_differs_with_the_key_and_with_the_bytes() {
        let one = digest(b"part", b"bytes");
        assert_eq!((one.len(), &one), (16, &digest(b"part", b"bytes")));
        assert!(one != digest(b"other", b"bytes") && one != digest(b"part", b"other") && !digest(b"", b"").is_empty());
    }
}
