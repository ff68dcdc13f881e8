//! The names of things: short text ids, made from random bytes that the caller supplies, or taken from the wire and checked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest id that is accepted from outside, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Digits and lower-case letters without the four that are easily misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// An id that does not fit the rules: 1 to [`ID_BYTES_MAX`] bytes of `A-Z a-z 0-9 _ -`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id has 1 to {ID_BYTES_MAX} letters, digits, '_' or '-'")
    }
}

impl std::error::Error for BadId {}

/// Writes 100 random bits as 20 letters and digits, so that an id cannot be guessed and needs no escaping anywhere.
#[must_use]
pub fn text_of_random(bytes: [u8; 13]) -> String {
    let mut text = String::with_capacity(20);
    let mut bits = 0u32;
    let mut held = 0u32;
    for byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 && text.len() < 20 {
            bits -= 5;
            text.push(char::from(ALPHABET[((held >> bits) & 31) as usize]));
        }
    }
    text
}

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// An id from 13 random bytes of the caller's, 100 bits of which are used.
            #[must_use]
            pub fn from_random(bytes: [u8; 13]) -> Self {
                Self(text_of_random(bytes).into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                if is_id(text) { Ok(Self(text.into())) } else { Err(BadId) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

ids! {
    /// One connection's id, as the native protocol calls it; told to other clients in presence and join.
    ClientId;
    /// A story and its room.
    StoryId;
    /// A turn of a story.
    TurnId;
    /// A branch of a story.
    BranchId;
    /// A choice offered at the end of a turn.
    ChoiceId;
    /// One streamed agent reply, and the job that asks for it.
    GenerationId;
    /// A process that runs jobs, new at every start.
    JobOwner;
}

/// Who somebody is: the `sub` of a token, or the id of a guest login. Empty for the anonymous.
///
/// Tokens come from other systems, so that any text of at most 255 bytes without control characters is a user id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Option<Arc<str>>);

impl UserId {
    /// The longest user id in bytes.
    pub const BYTES_MAX: usize = 255;

    /// A guest's id from 13 random bytes of the caller's.
    #[must_use]
    pub fn from_random(bytes: [u8; 13]) -> Self {
        Self(Some(text_of_random(bytes).into()))
    }

    /// The id as text, empty for the anonymous.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// Whether nobody in particular is meant.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }
}

impl FromStr for UserId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() > Self::BYTES_MAX || text.chars().any(char::is_control) {
            return Err(BadId);
        }
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

impl TryFrom<String> for UserId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> String {
        id.as_str().to_owned()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_become_twenty_safe_characters() {
        assert_eq!(text_of_random([0; 13]), "0".repeat(20));
        assert_eq!(text_of_random([0xff; 13]), "z".repeat(20));
        let id = StoryId::from_random([7; 13]);
        assert_eq!(id.as_str().parse::<StoryId>(), Ok(id));
    }

    #[test]
    fn ids_from_outside_are_checked() {
        assert_eq!("".parse::<TurnId>(), Err(BadId));
        assert_eq!("a/b".parse::<TurnId>(), Err(BadId));
        assert_eq!("a".repeat(65).parse::<TurnId>(), Err(BadId));
        assert!(serde_json::from_str::<TurnId>("\"../x\"").is_err());
        assert_eq!("a\nb".parse::<UserId>(), Err(BadId));
        assert!("".parse::<UserId>().is_ok_and(|u| u.is_anonymous()));
    }
}
