//! What publications carry: one JSON value as its author wrote it, checked once, without line feeds.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One valid JSON value, kept as text. It holds no raw CR or LF, so that it can stand in a line-delimited stream.
///
/// Its `Debug` prints only the length: payloads are people's words.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(Bytes);

/// Bytes that are not one valid JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data is not one valid JSON value")
    }
}

impl std::error::Error for NotJson {}

impl Payload {
    /// Checks that `bytes` are one JSON value.
    ///
    /// # Errors
    /// [`NotJson`] for anything else, nesting deeper than 128 included.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotJson> {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|_| NotJson)?;
        Ok(Self::from_raw(raw))
    }

    /// Takes a value that the JSON parser has already checked.
    #[must_use]
    pub fn from_raw(raw: &RawValue) -> Self {
        let text = raw.get();
        // Inside a JSON string a line feed is always escaped: what is left here is white space between tokens.
        if text.bytes().any(|b| b == b'\n' || b == b'\r') {
            return Self(text.replace(['\n', '\r'], " ").into_bytes().into());
        }
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Writes a value as JSON.
    ///
    /// # Panics
    /// If `value` cannot be written as JSON (a map with keys that are no strings), which is a bug in its type.
    #[must_use]
    pub fn of<T: Serialize>(value: &T) -> Self {
        Self(serde_json::to_vec(value).expect("our own types are written as JSON").into())
    }

    /// Takes bytes that come from a place where others may write, such as a shared broker. What is a payload is not copied.
    ///
    /// # Errors
    /// As [`Payload::parse`].
    pub fn checked(bytes: Bytes) -> Result<Self, NotJson> {
        let raw: &RawValue = serde_json::from_slice(&bytes).map_err(|_| NotJson)?;
        let is_whole = raw.get().len() == bytes.len() && !bytes.iter().any(|b| matches!(b, b'\n' | b'\r'));
        if is_whole { Ok(Self(bytes)) } else { Ok(Self::from_raw(raw)) }
    }

    /// Takes bytes that were a payload before, for example in the store.
    ///
    /// The caller vouches for them; they are not checked again.
    #[must_use]
    pub fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The JSON text as shared bytes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The length of the JSON text in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true for a checked payload: the shortest JSON value has one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the payload as a type.
    ///
    /// # Errors
    /// The parser's, if the JSON has another shape.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        let raw: &RawValue = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self::from_raw(raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_json_value_is_a_payload() {
        for bad in ["", "{", "1 2", "nul", "\"\u{1}\"", "{\"a\":1}x"] {
            assert_eq!(Payload::parse(bad.as_bytes()), Err(NotJson), "{bad:?}");
            assert_eq!(Payload::checked(Bytes::from(bad)), Err(NotJson), "{bad:?}");
        }
        assert_eq!(Payload::parse(b"\"\xff\""), Err(NotJson));
        assert_eq!(Payload::parse(b" {\"a\": 1} ").expect("JSON").as_bytes(), b"{\"a\": 1}");
    }

    #[test]
    fn line_feeds_between_tokens_are_replaced_and_those_in_strings_stay_escaped() {
        let payload = Payload::parse(b"{\n\"a\":\r\n\"b\\nc\"}").expect("JSON");
        assert_eq!(payload.as_bytes(), b"{ \"a\":  \"b\\nc\"}");
    }

    #[test]
    fn what_is_a_payload_already_stays_where_it_is() {
        let bytes = Bytes::from_static(b"{\"a\": 1}");
        let payload = Payload::checked(bytes.clone()).expect("JSON");
        assert_eq!(payload.bytes().as_ptr(), bytes.as_ptr());
        assert_eq!(Payload::checked(Bytes::from_static(b" [1,\n2] ")).expect("JSON").as_bytes(), b"[1, 2]");
    }

    #[test]
    fn debug_shows_no_words() {
        assert_eq!(format!("{:?}", Payload::of(&"secret")), "Payload(8 bytes)");
    }
}
