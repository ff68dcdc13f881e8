//! Guest logins: a signed text that stands for a person with a display name, in a cookie or as one tab's token.
//!
//! Stateless, so that any node can verify it: `tl1.` + base64url(issued, user, name) + `.` + base64url(HMAC-SHA256). The
//! prefix carries the version and tells a login from a JWT, which begins with `ey`. Which logins were logged out is told by whoever
//! reads the database.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use talewire_proto::{Grant, UserId};

use crate::error::LoginRefusal;
use crate::logged_out::LoggedOut;

const PREFIX: &str = "tl1.";

/// The longest login that is looked at, in bytes: four times what the longest user id and name take.
pub const LOGIN_BYTES_MAX: usize = 2_048;

/// How long a login lasts unless set otherwise, in seconds.
const LIFETIME_S: u64 = 30 * 24 * 3600;

/// Who a login stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The person's id.
    pub user: UserId,
    /// The display name.
    pub name: String,
    /// When it was issued, in Unix milliseconds.
    pub issued_at_ms: i64,
    /// When it ends, in Unix milliseconds.
    pub expires_at_ms: i64,
}

impl Login {
    /// What the login allows: to be this person, until it ends.
    #[must_use]
    pub fn grant(&self) -> Grant {
        let (expires_at_ms, login_ms) = (Some(self.expires_at_ms), Some(self.issued_at_ms));
        Grant { expires_at_ms, login_ms, ..Grant::named(self.user.clone(), &self.name) }
    }
}

/// A login that is ours and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It was not logged out.
    Good(Login),
    /// Whether it was logged out is not known here: the database says it.
    Ask(Login),
}

/// Issues and verifies logins, and the CSRF tokens that belong to them.
pub struct Logins {
    login_key: hmac::Key,
    csrf_key: hmac::Key,
    lifetime_ms: i64,
    out: LoggedOut,
}

/// Logouts that are remembered unless set otherwise.
const LOGOUTS_MAX: usize = 1_000_000;

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("lifetime_ms", &self.lifetime_ms).finish_non_exhaustive()
    }
}

impl Logins {
    /// Takes the server's key; each purpose gets a key of its own that is derived from it.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let derived = |purpose: &str| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose.as_bytes()).as_ref());
        let (login_key, csrf_key) = (derived("talewire login 1"), derived("talewire csrf 1"));
        Self { login_key, csrf_key, lifetime_ms: 0, out: LoggedOut::new(LOGOUTS_MAX) }.lasting_s(LIFETIME_S)
    }

    /// Sets how long logins last, in seconds; it holds for logins that exist, too.
    #[must_use]
    pub fn lasting_s(self, lifetime_s: u64) -> Self {
        let lifetime_ms = i64::try_from(lifetime_s).unwrap_or(i64::MAX).saturating_mul(1_000);
        Self { lifetime_ms, ..self }
    }

    /// Sets how many logouts are remembered; beyond them it is not known of logins that are older.
    #[must_use]
    pub fn remembering(self, logouts_max: usize) -> Self {
        Self { out: LoggedOut::new(logouts_max), ..self }
    }

    /// Believes a login no longer.
    pub fn log_out(&self, user: &UserId, issued_at_ms: i64) {
        self.out.add(user, issued_at_ms);
    }

    /// Whether a login was logged out, if that is known here.
    #[must_use]
    pub fn is_out(&self, user: &UserId, issued_at_ms: i64) -> Option<bool> {
        self.out.has(user, issued_at_ms)
    }

    /// Logouts that are remembered now.
    #[must_use]
    pub fn logouts(&self) -> usize {
        self.out.len()
    }

    /// Whether a login that was issued then has ended by itself.
    #[must_use]
    pub fn has_ended(&self, issued_at_ms: i64, now_ms: i64) -> bool {
        now_ms >= issued_at_ms.saturating_add(self.lifetime_ms)
    }

    /// Forgets logouts of logins that have ended by themselves.
    pub fn forget_ended(&self, now_ms: i64) {
        self.out.forget(now_ms.saturating_sub(self.lifetime_ms));
    }

    /// How long logins last, in seconds: the cookie's `Max-Age`.
    #[must_use]
    pub fn lifetime_s(&self) -> i64 {
        self.lifetime_ms / 1_000
    }

    /// Whether a text wants to be a login rather than a JWT.
    #[must_use]
    pub fn is_login(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Signs a login for `user`, who shows `name`; the name has passed [`crate::display_name`].
    #[must_use]
    pub fn issue(&self, user: &UserId, name: &str, now_ms: i64) -> String {
        let user_bytes = u8::try_from(user.as_str().len()).expect("UserId::BYTES_MAX is 255");
        let mut payload = now_ms.to_be_bytes().to_vec();
        payload.push(user_bytes);
        payload.extend_from_slice(user.as_str().as_bytes());
        payload.extend_from_slice(name.as_bytes());
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload));
        let tag = hmac::sign(&self.login_key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Verifies a login.
    ///
    /// # Errors
    /// [`LoginRefusal`]; only `Expired` says anything about a login that was ours.
    pub fn verify(&self, text: &str, now_ms: i64) -> Result<Checked, LoginRefusal> {
        let login = self.read(text, now_ms)?;
        match self.out.has(&login.user, login.issued_at_ms) {
            Some(true) => Err(LoginRefusal::LoggedOut),
            Some(false) => Ok(Checked::Good(login)),
            None => Ok(Checked::Ask(login)),
        }
    }

    /// Reads a login of ours that has not ended, be it logged out or not: for one that was just issued.
    ///
    /// # Errors
    /// As [`Logins::verify`].
    pub fn read(&self, text: &str, now_ms: i64) -> Result<Login, LoginRefusal> {
        if text.len() > LOGIN_BYTES_MAX || !Self::is_login(text) {
            return Err(LoginRefusal::NotALogin);
        }
        let (signed, tag) = text.rsplit_once('.').ok_or(LoginRefusal::NotALogin)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| LoginRefusal::NotALogin)?;
        // Constant time inside; nothing of the payload is looked at before.
        hmac::verify(&self.login_key, signed.as_bytes(), &tag).map_err(|_| LoginRefusal::Signature)?;
        let login = self.parse(signed).ok_or(LoginRefusal::NotALogin)?;
        if now_ms >= login.expires_at_ms { Err(LoginRefusal::Expired) } else { Ok(login) }
    }

    fn parse(&self, signed: &str) -> Option<Login> {
        let payload = URL_SAFE_NO_PAD.decode(signed.strip_prefix(PREFIX)?).ok()?;
        let (issued, rest) = payload.split_first_chunk::<8>()?;
        let (user_bytes, rest) = rest.split_first()?;
        let (user, name) = rest.split_at_checked(usize::from(*user_bytes))?;
        let user: UserId = std::str::from_utf8(user).ok()?.parse().ok()?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let issued_at_ms = i64::from_be_bytes(*issued);
        Some(Login { user, name, issued_at_ms, expires_at_ms: issued_at_ms.saturating_add(self.lifetime_ms) })
    }

    /// The token that a page must send beside the cookie: nobody who cannot read our answers knows it.
    #[must_use]
    pub fn csrf(&self, login: &Login) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.csrf_key, &csrf_message(login)))
    }

    /// Whether `text` is the CSRF token of `login`, compared in constant time.
    #[must_use]
    pub fn csrf_matches(&self, login: &Login, text: &str) -> bool {
        // 43 characters are 32 bytes; a longer header is not worth decoding.
        if text.len() != 43 {
            return false;
        }
        let Ok(tag) = URL_SAFE_NO_PAD.decode(text) else { return false };
        hmac::verify(&self.csrf_key, &csrf_message(login), &tag).is_ok()
    }
}

/// A user id holds no control characters, so that the zero byte ends it.
fn csrf_message(login: &Login) -> Vec<u8> {
    let mut message = login.user.as_str().as_bytes().to_vec();
    message.push(0);
    message.extend_from_slice(&login.issued_at_ms.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn logins() -> Logins {
        Logins::new([7; 32])
    }

    fn ana() -> UserId {
        "ana".parse().expect("an id")
    }

    fn good(checked: Checked) -> Login {
        let Checked::Good(login) = checked else { panic!("nothing was forgotten: {checked:?}") };
        login
    }

    #[track_caller]
    fn check(text: &str, now_ms: i64, expected: Result<&str, LoginRefusal>) {
        let verified = logins().verify(text, now_ms).map(good);
        assert_eq!(verified.as_ref().map(|l| l.name.as_str()).map_err(|e| *e), expected, "{text}");
    }

    #[test]
    fn a_login_is_good_until_its_lifetime_has_passed() {
        let text = logins().issue(&ana(), "Ana Ünal", NOW);
        let day_ms = 24 * 3_600_000;
        check(&text, NOW, Ok("Ana Ünal"));
        check(&text, NOW + 30 * day_ms - 1, Ok("Ana Ünal"));
        check(&text, NOW + 30 * day_ms, Err(LoginRefusal::Expired));
        assert_eq!(logins().lasting_s(1).verify(&text, NOW + 1_000), Err(LoginRefusal::Expired));
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "fits a cookie: {text}");
    }

    #[test]
    fn the_longest_user_and_name_fit() {
        let user: UserId = "u".repeat(255).parse().expect("an id");
        let name = "n".repeat(crate::name::NAME_BYTES_MAX);
        check(&logins().issue(&user, &name, NOW), NOW, Ok(&name));
    }

    #[test]
    fn changed_cut_and_foreign_logins_are_refused() {
        let text = logins().issue(&ana(), "Ana", NOW);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(logins().verify(&changed, NOW).is_err(), "{changed}");
            assert!(logins().verify(&text[..at], NOW).is_err(), "cut at {at}");
        }
        check(&Logins::new([8; 32]).issue(&ana(), "Ana", NOW), NOW, Err(LoginRefusal::Signature));
        check(&text.replace("tl1.", "tl2."), NOW, Err(LoginRefusal::NotALogin));
        check(&format!("{text}="), NOW, Err(LoginRefusal::NotALogin));
        check(&format!("tl1.{}", "A".repeat(1 << 20)), NOW, Err(LoginRefusal::NotALogin));
        check("tl1.", NOW, Err(LoginRefusal::Signature));
        check("", NOW, Err(LoginRefusal::NotALogin));
    }

    #[test]
    fn a_login_that_was_logged_out_is_refused_until_it_ends() {
        let logins = logins();
        let text = logins.issue(&ana(), "Ana", NOW);
        logins.log_out(&ana(), NOW);
        assert_eq!(logins.verify(&text, NOW + 1), Err(LoginRefusal::LoggedOut));
        assert!(logins.verify(&logins.issue(&ana(), "Ana", NOW + 1), NOW + 1).is_ok(), "another login");
        logins.forget_ended(NOW + 1);
        assert_eq!(logins.verify(&text, NOW + 1), Err(LoginRefusal::LoggedOut), "it would still last");
        logins.forget_ended(NOW + 30 * 24 * 3_600_000);
        assert_eq!(logins.verify(&text, NOW + 30 * 24 * 3_600_000), Err(LoginRefusal::Expired));
    }

    #[test]
    fn a_login_that_is_older_than_what_is_remembered_is_asked_for_and_not_refused() {
        let logins = logins().remembering(2);
        let ben: UserId = "ben".parse().expect("an id");
        let issue = |user: &UserId, at| logins.issue(user, "Somebody", at);
        let (old, new) = (issue(&ana(), NOW), issue(&ana(), NOW + 9));
        (0..5).for_each(|at| logins.log_out(&ben, NOW + at));
        assert_eq!(logins.logouts(), 2);
        let verify = |text: &str| logins.verify(text, NOW + 10);
        assert!(matches!(verify(&old), Ok(Checked::Ask(login)) if login.user == ana()), "{:?}", verify(&old));
        assert!(matches!(verify(&new), Ok(Checked::Good(_))));
        assert_eq!(verify(&issue(&ben, NOW + 4)), Err(LoginRefusal::LoggedOut));
    }

    #[test]
    fn a_csrf_token_belongs_to_one_login() {
        let logins = logins();
        let login = good(logins.verify(&logins.issue(&ana(), "Ana", NOW), NOW).expect("good"));
        let other = Login { user: "ben".parse().expect("an id"), ..login.clone() };
        let later = Login { issued_at_ms: NOW + 1, ..login.clone() };
        let csrf = logins.csrf(&login);
        assert!(logins.csrf_matches(&login, &csrf));
        assert!(!logins.csrf_matches(&other, &csrf));
        assert!(!logins.csrf_matches(&later, &csrf));
        assert!(!logins.csrf_matches(&login, ""));
        assert!(!logins.csrf_matches(&login, &csrf[..42]));
        assert!(!Logins::new([8; 32]).csrf_matches(&login, &csrf));
    }

    #[test]
    fn a_login_grants_being_the_person() {
        let login = good(logins().verify(&logins().issue(&ana(), "Ana", NOW), NOW).expect("good"));
        let grant = login.grant();
        assert_eq!(grant.user, ana());
        assert_eq!(grant.info.expect("named").as_bytes(), br#"{"name":"Ana"}"#);
        assert_eq!((grant.expires_at_ms, grant.login_ms), (Some(login.expires_at_ms), Some(NOW)));
        assert!(!grant.insecure);
    }
}
