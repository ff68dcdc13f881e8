//! The `[auth]` section of the configuration, each field with its unit and what happens beyond it.

use serde::{Deserialize, Serialize};

use crate::error::BadSettings;
use crate::secret::Secret;

/// The longest token that is looked at, in bytes; a longer one is bad before any work is done on it.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The largest clock difference that can be forgiven, in seconds.
pub const LEEWAY_S_MAX: u32 = 30;

/// The shortest HS256 secret in bytes (RFC 7518, section 3.2): as long as the hash.
pub const SECRET_BYTES_MIN: usize = 32;

/// How people and programs show who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// The secret that signs tokens (JWT, HS256); without one no token is accepted. At least 32 bytes.
    pub hs256_secret: Option<Secret>,
    /// Accept a shorter secret. For development only: a short secret can be guessed from one token.
    pub short_secret_allowed: bool,
    /// What `aud` must contain; without it, tokens that name an audience are refused.
    pub audience: Option<String>,
    /// What `iss` must be; without it, `iss` is not looked at.
    pub issuer: Option<String>,
    /// Clock difference that is forgiven for `exp` and `nbf`, in seconds, 0 to 30.
    pub leeway_s: u32,
    /// Refuse tokens without `exp`. Off, because the protocol's clients may use tokens that do not expire.
    pub expiry_required: bool,
    /// Verified tokens that are remembered until they expire; beyond it the older half is forgotten.
    pub verified_tokens_max: usize,
    /// How long a guest login lasts, in seconds; then the guest is asked for a name again.
    pub login_lifetime_s: u64,
    /// Logged-out logins that each node keeps in memory, about 55 bytes each; beyond it of old logins the database is asked.
    pub logouts_max: usize,
    /// Time between two looks at the database for logins that were logged out at other nodes, in milliseconds: so long one may still be believed.
    pub logouts_every_ms: u64,
    /// Let everybody connect who shows no token and no login, with the rights that rules give to `anyone`. Off: they are refused with 101.
    pub anonymous_allowed: bool,
    /// Origins beside our own from which browsers may come, such as `https://tales.example`.
    pub allowed_origins: Vec<String>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            hs256_secret: None,
            short_secret_allowed: false,
            audience: None,
            issuer: None,
            leeway_s: 0,
            expiry_required: false,
            verified_tokens_max: 10_000,
            login_lifetime_s: 30 * 24 * 3600,
            logouts_max: 1_000_000,
            logouts_every_ms: 1_000,
            anonymous_allowed: false,
            allowed_origins: Vec::new(),
        }
    }
}

impl AuthSettings {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`BadSettings`] names the field and the reason.
    pub fn check(&self) -> Result<(), BadSettings> {
        if let Some(secret) = &self.hs256_secret {
            match secret.reveal().len() {
                0 => return Err(BadSettings::SecretEmpty),
                short if short < SECRET_BYTES_MIN && !self.short_secret_allowed => {
                    return Err(BadSettings::SecretShort(short));
                }
                _ => {}
            }
        }
        if self.leeway_s > LEEWAY_S_MAX {
            return Err(BadSettings::Leeway(self.leeway_s));
        }
        let zero =
            [("verified_tokens_max", self.verified_tokens_max == 0), ("login_lifetime_s", self.login_lifetime_s == 0)];
        let empty = [("audience", &self.audience), ("issuer", &self.issuer)];
        if let Some((name, _)) = zero.into_iter().find(|(_, bad)| *bad) {
            return Err(BadSettings::Zero(name));
        }
        if let Some((name, _)) = empty.into_iter().find(|(_, text)| text.as_deref() == Some("")) {
            return Err(BadSettings::Empty(name));
        }
        crate::origin::parse_all(&self.allowed_origins).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut AuthSettings), expected: Result<(), BadSettings>) {
        let mut settings = AuthSettings::default();
        change(&mut settings);
        assert_eq!(settings.check(), expected);
    }

    #[test]
    fn weak_settings_are_refused_with_their_names() {
        check(|_| {}, Ok(()));
        check(|s| s.hs256_secret = Some(Secret::new("")), Err(BadSettings::SecretEmpty));
        check(|s| s.hs256_secret = Some(Secret::new("x".repeat(31))), Err(BadSettings::SecretShort(31)));
        check(|s| s.hs256_secret = Some(Secret::new("x".repeat(32))), Ok(()));
        check(|s| s.leeway_s = 30, Ok(()));
        check(|s| s.leeway_s = 31, Err(BadSettings::Leeway(31)));
        check(|s| s.audience = Some(String::new()), Err(BadSettings::Empty("audience")));
        check(|s| s.login_lifetime_s = 0, Err(BadSettings::Zero("login_lifetime_s")));
        check(|s| s.allowed_origins = vec!["*".into()], Err(BadSettings::Origin("*".into())));
    }

    #[test]
    fn development_may_use_a_short_secret_but_never_an_empty_one() {
        let mut settings = AuthSettings { short_secret_allowed: true, ..AuthSettings::default() };
        settings.hs256_secret = Some(Secret::new("secret"));
        assert_eq!(settings.check(), Ok(()));
        settings.hs256_secret = Some(Secret::new(""));
        assert_eq!(settings.check(), Err(BadSettings::SecretEmpty));
    }
}
