//! What proves to the other side that a delivery is ours and new.

use aws_lc_rs::hmac;

/// The header that carries it.
pub(super) const HEADER: &str = "talewire-signature";

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over the time as text, a point and the body.
pub(super) fn sign(secret: &str, unix_s: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(unix_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let hex = context.sign().as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("t={unix_s},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_others_compute() {
        // printf '1800000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let signed = sign("0123456789abcdef0123456789abcdef", 1_800_000_000, br#"{"a":1}"#);
        assert_eq!(signed, "t=1800000000,v1=d40e555bc2c1dae21953757b24b165a171698880732ac310a5c8cf0ab751abf2");
    }
}
