//! Tokens (JWT) that another system signed: a text and a time in, a grant or a refusal out.
//!
//! Called by the server for `connect`, `refresh`, `subscribe` and `sub_refresh`. The order of the checks is their cost:
//! length, shape, header, signature, and only then what the token claims (RFC 8725, sections 3.1 to 3.3).

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use talewire_proto::Grant;
use talewire_proto::grant::{SubscriptionGrant, TokenVerdict};

use crate::claims::{Claims, check_header};
use crate::error::{BadSettings, TokenRefusal};
use crate::settings::{AuthSettings, TOKEN_BYTES_MAX};
use crate::verified::{Known, Verified};

/// The one algorithm so far, by its name in a header. A key belongs to one algorithm; a header never chooses.
const ALGORITHM: (&str, Algorithm) = ("HS256", Algorithm::HS256);

/// Verifies tokens.
pub struct Tokens {
    key: Option<DecodingKey>,
    audience: Option<String>,
    issuer: Option<String>,
    leeway_ms: i64,
    expiry_required: bool,
    connects: Verified<Grant>,
    subscriptions: Verified<SubscriptionGrant>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("audience", &self.audience).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes the settings, with the secret in them.
    ///
    /// # Errors
    /// [`BadSettings`] when they are not safe to use.
    pub fn new(settings: AuthSettings) -> Result<Self, BadSettings> {
        settings.check()?;
        Ok(Self {
            key: settings.hs256_secret.as_ref().map(|secret| DecodingKey::from_secret(secret.reveal().as_bytes())),
            audience: settings.audience,
            issuer: settings.issuer,
            leeway_ms: i64::from(settings.leeway_s) * 1_000,
            expiry_required: settings.expiry_required,
            connects: Verified::new(settings.verified_tokens_max),
            subscriptions: Verified::new(settings.verified_tokens_max),
        })
    }

    /// Verifies a connection token; nothing but the verdict is for the client.
    #[must_use]
    pub fn verify_connect(&self, token: &str, now_ms: i64) -> TokenVerdict<Grant> {
        verdict(self.connect_grant(token, now_ms))
    }

    /// Verifies a subscription token. That its user and channel are the right ones is the session's to check.
    #[must_use]
    pub fn verify_subscription(&self, token: &str, now_ms: i64) -> TokenVerdict<SubscriptionGrant> {
        verdict(self.subscription_grant(token, now_ms))
    }

    /// As [`Tokens::verify_connect`], with the reason.
    ///
    /// # Errors
    /// [`TokenRefusal`], for the log.
    pub fn connect_grant(&self, token: &str, now_ms: i64) -> Result<Grant, TokenRefusal> {
        self.verify(&self.connects, token, now_ms, |claims, expires_at_ms| {
            if claims.channel.is_some() {
                return Err(TokenRefusal::Kind);
            }
            Ok(Grant {
                user: claims.sub.clone().unwrap_or_default(),
                info: claims.public_info()?,
                expires_at_ms,
                channels: claims.channels.iter().flatten().cloned().collect::<BTreeSet<_>>(),
                login_ms: None,
                insecure: false,
            })
        })
    }

    /// As [`Tokens::verify_subscription`], with the reason.
    ///
    /// # Errors
    /// [`TokenRefusal`], for the log.
    pub fn subscription_grant(&self, token: &str, now_ms: i64) -> Result<SubscriptionGrant, TokenRefusal> {
        self.verify(&self.subscriptions, token, now_ms, |claims, expires_at_ms| {
            Ok(SubscriptionGrant {
                user: claims.sub.clone().unwrap_or_default(),
                channel: claims.channel.clone().ok_or(TokenRefusal::Kind)?,
                info: claims.public_info()?,
                expires_at_ms,
            })
        })
    }

    fn verify<G: Clone>(
        &self,
        cache: &Verified<G>,
        token: &str,
        now_ms: i64,
        grant: impl FnOnce(&Claims<'_>, Option<i64>) -> Result<G, TokenRefusal>,
    ) -> Result<G, TokenRefusal> {
        let key = self.key.as_ref().ok_or(TokenRefusal::NoKey)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::TooLong);
        }
        let cache_key = Verified::<G>::key(token);
        let known = match cache.find(&cache_key) {
            Some(known) => known,
            None => {
                let payload = signed_payload(token, key)?;
                let claims = Claims::parse(&payload)?;
                let life = self.life(&claims, now_ms)?;
                let known = Known { grant: grant(&claims, life.ends_at_ms)?, good_until_ms: life.good_until_ms };
                cache.remember(cache_key, known.clone());
                known
            }
        };
        if now_ms >= known.good_until_ms { Err(TokenRefusal::Expired) } else { Ok(known.grant) }
    }

    /// Checks whom, by whom and from when; says until when. What has already expired is found by the caller.
    fn life(&self, claims: &Claims<'_>, now_ms: i64) -> Result<Life, TokenRefusal> {
        match (&self.audience, &claims.aud) {
            (Some(ours), Some(theirs)) if theirs.contains(ours) => {}
            (None, None) => {}
            // A token that says whom it is for is not for one who does not know its own name (RFC 7519, 4.1.3).
            _ => return Err(TokenRefusal::Audience),
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(TokenRefusal::Issuer);
        }
        if self.expiry_required && claims.exp.is_none() {
            return Err(TokenRefusal::Claims);
        }
        if claims.nbf.is_some_and(|nbf| ms(nbf) - self.leeway_ms > now_ms) {
            return Err(TokenRefusal::NotYet);
        }
        let exp_ms = claims.exp.map(|exp| ms(exp) + self.leeway_ms);
        let ends_at_ms = match claims.expire_at {
            Some(0) => None,
            Some(at) => Some(ms(at)),
            None => exp_ms,
        };
        let good_until_ms = exp_ms.into_iter().chain(ends_at_ms).min().unwrap_or(i64::MAX);
        Ok(Life { ends_at_ms, good_until_ms })
    }
}

struct Life {
    /// When the connection or subscription ends unless refreshed.
    ends_at_ms: Option<i64>,
    /// From when on the token begins nothing any more.
    good_until_ms: i64,
}

fn verdict<G>(result: Result<G, TokenRefusal>) -> TokenVerdict<G> {
    match result {
        Ok(grant) => TokenVerdict::Good(grant),
        Err(TokenRefusal::Expired) => TokenVerdict::Expired,
        Err(_) => TokenVerdict::Bad,
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).expect("claims are bounded by TIME_S_MAX") * 1_000
}

/// The decoded payload of a token whose header fits and whose signature is right.
fn signed_payload(token: &str, key: &DecodingKey) -> Result<Vec<u8>, TokenRefusal> {
    let (message, signature) = token.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenRefusal::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefusal::Malformed);
    check_header(&decode(header)?, ALGORITHM.0)?;
    match crypto::verify(signature, message.as_bytes(), key, ALGORITHM.1) {
        Ok(true) => decode(payload),
        Ok(false) => Err(TokenRefusal::Signature),
        Err(_) => Err(TokenRefusal::Malformed),
    }
}

/// Signs claims with an HS256 secret; for `talewire token` and tests.
///
/// # Errors
/// [`BadSettings::SecretEmpty`].
pub fn issue(
    claims: &serde_json::Map<String, serde_json::Value>,
    secret: &crate::Secret,
) -> Result<String, BadSettings> {
    if secret.reveal().is_empty() {
        return Err(BadSettings::SecretEmpty);
    }
    let claims = serde_json::to_vec(claims).expect("a JSON object is written as JSON");
    Ok(sign(r#"{"alg":"HS256","typ":"JWT"}"#, &claims, secret.reveal().as_bytes()))
}

fn sign(header: &str, payload: &[u8], secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), ALGORITHM.1);
    format!("{message}.{}", signature.expect("an HMAC can always be made"))
}

#[cfg(test)]
mod tests;
