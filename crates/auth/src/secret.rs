//! Secrets, as values that do not print themselves, and the only place where random ones are made.

use std::fmt;

use aws_lc_rs::{constant_time, rand};
use serde::{Deserialize, Serialize, Serializer};
use talewire_proto::UserId;

/// A secret from configuration. Neither its `Debug` nor its serialised form shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret's text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; say why where you call this.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the secrets in our examples, which everybody has read: they all begin alike.
    #[must_use]
    pub fn is_of_an_example(&self) -> bool {
        self.0.starts_with("change-me")
    }

    /// Whether this is what somebody showed, compared in constant time.
    #[must_use]
    pub fn matches(&self, shown: &str) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), shown.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("REDACTED")
    }
}

/// A new key for [`crate::Logins`]; the caller keeps it, since every login dies with it.
#[must_use]
pub fn new_key() -> [u8; 32] {
    random()
}

/// A new guest's id.
#[must_use]
pub fn new_user() -> UserId {
    UserId::from_random(random())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "REDACTED");
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), "\"REDACTED\"");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn made_secrets_differ() {
        assert_ne!(new_key(), new_key());
        assert_ne!(new_user(), new_user());
    }
}
