//! Who somebody is and what they may do: bytes and a clock in, a grant or a reason out.
//!
//! Nothing here reads a clock, a file or a socket; times are arguments, in Unix milliseconds. The only randomness is in
//! [`new_key`] and [`new_user`], where a secret or an id is made. This is the one crate that holds keys. Reading order:
//! the settings ([`settings`]), tokens of other systems ([`tokens`], their [`claims`], the [`verified`] cache), our own
//! guest [`login`]s, the [`name`]s that people show, the [`origin`]s that browsers come from, the [`seal`] on what a reader keeps
//! for us, and the [`digest()`] by which nodes compare their settings.

pub mod claims;
pub mod digest;
pub mod error;
mod logged_out;
pub mod login;
pub mod name;
pub mod origin;
pub mod seal;
pub mod secret;
pub mod settings;
pub mod tokens;
pub mod verified;

pub use claims::Claims;
pub use digest::digest;
pub use error::{BadName, BadSettings, LoginRefusal, OriginRefusal, TokenRefusal};
pub use login::{Checked, Login, Logins};
pub use name::display_name;
pub use origin::{Credentials, Hosts, OriginRule};
pub use seal::Seal;
pub use secret::{Secret, new_key, new_user};
pub use settings::AuthSettings;
pub use tokens::Tokens;

/// Both ways of showing who one is: a token that another system signed, and a guest login that we signed. [`Logins::is_login`] tells
/// them apart.
#[derive(Debug)]
pub struct Auth {
    /// Tokens (JWT).
    pub tokens: Tokens,
    /// Guest logins.
    pub logins: Logins,
}
