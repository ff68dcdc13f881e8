//! Why something was refused. The reasons are for our log and tests; a client is only told that it was refused.

use thiserror::Error;

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenRefusal {
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// No key is configured, so that no token can be verified.
    #[error("no token secret is configured")]
    NoKey,
    /// Longer than [`crate::settings::TOKEN_BYTES_MAX`]; nothing was parsed.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of unpadded base64url, or not JSON objects in them.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// The header names another algorithm than the key's, another type than JWT, or critical extensions.
    #[error("the token's header does not fit the key")]
    Header,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim has a wrong type, stands there twice, or has a value that cannot be right.
    #[error("the token's claims are malformed")]
    Claims,
    /// The token is for later.
    #[error("the token is not valid yet")]
    NotYet,
    /// The token is for somebody else, or does not say for whom although it must.
    #[error("the token is for another audience")]
    Audience,
    /// Somebody else made the token, or it does not say who although it must.
    #[error("the token is from another issuer")]
    Issuer,
    /// A subscription token where a connection token is due, or the other way round.
    #[error("the token is of the other kind")]
    Kind,
}

/// Why a guest login is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LoginRefusal {
    /// It is not a login of a version that we know.
    #[error("not a login")]
    NotALogin,
    /// It was not signed with our key.
    #[error("the login's signature is wrong")]
    Signature,
    /// Its lifetime has passed.
    #[error("the login has expired")]
    Expired,
    /// It was logged out.
    #[error("the login was logged out")]
    LoggedOut,
    /// The database does not say now whether it was logged out.
    #[error("it is not known now whether the login was logged out")]
    Unknown,
}

/// Why a display name is refused; people read this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadName {
    /// Nothing that could be seen.
    #[error("a name needs at least one visible character")]
    Empty,
    /// More than [`crate::name::NAME_CHARS_MAX`] characters.
    #[error("a name has at most 40 characters")]
    TooLong,
    /// Control characters, text direction marks and other characters that nobody sees.
    #[error("a name cannot contain invisible or control characters")]
    Invisible,
    /// Too many combining marks in a row.
    #[error("a name cannot pile up accents")]
    Marks,
    /// A name that would be taken for the server, an agent or a moderator.
    #[error("this name is reserved")]
    Reserved,
}

/// Why a browser's origin is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OriginRefusal {
    /// No `Origin` where a cookie was used.
    #[error("a cookie was sent without an Origin header")]
    Missing,
    /// Several `Origin` headers.
    #[error("several Origin headers were sent")]
    Several,
    /// `null`, a path, a user name, a wildcard: not one plain http(s) origin.
    #[error("the Origin header is not a plain origin")]
    Malformed,
    /// A plain origin that is neither ours nor listed.
    #[error("the Origin is not allowed")]
    Foreign,
    /// The `Host` is not one under which this server may be reached (DNS rebinding).
    #[error("the Host is not allowed")]
    Host,
}

/// Settings that cannot be used, with the field's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSettings {
    /// A secret of no length signs everything.
    #[error("auth.hs256_secret must not be empty")]
    SecretEmpty,
    /// A short secret can be guessed offline from one token.
    #[error(
        "auth.hs256_secret has {0} bytes; 32 or more are needed (RFC 7518), or auth.short_secret_allowed for development"
    )]
    SecretShort(usize),
    /// Leeway is for clock differences, not for longer lives.
    #[error("auth.leeway_s is {0}; at most 30 is allowed")]
    Leeway(u32),
    /// A size or time of zero.
    #[error("auth.{0} must be greater than zero")]
    Zero(&'static str),
    /// Empty text where something must be named.
    #[error("auth.{0} must not be empty")]
    Empty(&'static str),
    /// An allowed origin that no browser could send.
    #[error(
        "auth.allowed_origins: {0:?} is not an origin such as https://tales.example (scheme, host, optional port, nothing else)"
    )]
    Origin(String),
}
