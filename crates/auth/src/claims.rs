//! What stands in a token: its header and claims, read strictly.
//!
//! The usual libraries round floats, take a `null` for "absent" and the last of two equal names for the truth. Here a
//! claim of a wrong type, or one that stands there twice, makes the token bad.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::value::RawValue;
use talewire_proto::{Channel, Payload, UserId};

use crate::error::TokenRefusal;

/// The last second that is taken for a time (the year 2286). More digits mean milliseconds by mistake.
pub const TIME_S_MAX: u64 = 9_999_999_999;

/// The claims that count; others, `meta` among them, are ignored.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Claims<'a> {
    /// Who it is; empty or absent for the anonymous.
    #[serde(deserialize_with = "present")]
    pub sub: Option<UserId>,
    /// When the token ends, in Unix seconds.
    #[serde(deserialize_with = "time")]
    pub exp: Option<u64>,
    /// When the token begins, in Unix seconds.
    #[serde(deserialize_with = "time")]
    pub nbf: Option<u64>,
    /// When the token was made, in Unix seconds; only its type is checked.
    #[serde(deserialize_with = "time")]
    pub iat: Option<u64>,
    /// When the connection or subscription ends instead of at `exp`, in Unix seconds; 0 for never.
    #[serde(deserialize_with = "time")]
    pub expire_at: Option<u64>,
    /// The token's own id; only its type is checked.
    #[serde(deserialize_with = "present")]
    pub jti: Option<String>,
    /// Who made the token.
    #[serde(deserialize_with = "present")]
    pub iss: Option<String>,
    /// Whom the token is for.
    #[serde(deserialize_with = "present")]
    pub aud: Option<Audience>,
    /// What others see about the user, as JSON.
    #[serde(borrow)]
    pub info: Option<&'a RawValue>,
    /// The same as base64; it goes before `info`.
    #[serde(deserialize_with = "present")]
    pub b64info: Option<String>,
    /// Channels that a connection token subscribes to.
    #[serde(deserialize_with = "present")]
    pub channels: Option<Vec<Channel>>,
    /// The channel of a subscription token.
    #[serde(deserialize_with = "present")]
    pub channel: Option<Channel>,
}

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several, any of which may be us.
    Several(Vec<String>),
}

impl Audience {
    /// Whether `name` is meant, letter by letter.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

/// The header's members that count. `kid`, `jku`, `jwk`, `x5u` and the like are never followed nor looked at: the key
/// is ours, and it alone says which algorithm is right (RFC 8725, sections 3.1 and 3.10).
#[derive(Debug, serde::Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: &'a str,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(borrow)]
    crit: Option<&'a RawValue>,
}

/// Checks a header's JSON against the one algorithm of the key.
///
/// # Errors
/// [`TokenRefusal::Malformed`] for what is no header, [`TokenRefusal::Header`] for one that does not fit.
pub fn check_header(json: &[u8], algorithm: &str) -> Result<(), TokenRefusal> {
    let header: Header<'_> = object(json).ok_or(TokenRefusal::Malformed)?;
    let typ_fits = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    // RFC 7515, section 4.1.11: who does not understand a critical extension must refuse; we understand none.
    if header.alg != algorithm || !typ_fits || header.crit.is_some() {
        return Err(TokenRefusal::Header);
    }
    Ok(())
}

impl<'a> Claims<'a> {
    /// Reads claims from a verified payload.
    ///
    /// # Errors
    /// [`TokenRefusal::Claims`] for anything that is not exactly as it should be.
    pub fn parse(json: &'a [u8]) -> Result<Self, TokenRefusal> {
        object(json).ok_or(TokenRefusal::Claims)
    }

    /// What others see about the user, from `b64info` or `info`.
    ///
    /// # Errors
    /// [`TokenRefusal::Claims`] if `b64info` is not base64 of one JSON value.
    pub fn public_info(&self) -> Result<Option<Payload>, TokenRefusal> {
        let Some(text) = &self.b64info else {
            return Ok(self.info.map(Payload::from_raw));
        };
        let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
        let bytes = bytes.or_else(|_| URL_SAFE_NO_PAD.decode(text)).map_err(|_| TokenRefusal::Claims)?;
        Payload::parse(&bytes).map(Some).map_err(|_| TokenRefusal::Claims)
    }
}

/// Reads a JSON object. Derived readers also take an array of the members in order, which no token may be.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// A claim that is there must have its type: `null` is no way to leave it out.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if seconds > TIME_S_MAX {
        return Err(D::Error::custom("not a time in seconds"));
    }
    Ok(Some(seconds))
}
