//! Who there is (guests so far), which logins were logged out, and the secrets that the server keeps for itself. Called by the login routes and at start.

use serde::{Deserialize, Serialize};
use talewire_proto::UserId;

use crate::{Backend, Store, StoreError};

/// A person that the server knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The id that everything else names.
    pub id: UserId,
    /// The display name.
    pub name: String,
    /// Whether the account is a guest login, without a password or a provider.
    pub guest: bool,
    /// When it was made, in Unix milliseconds.
    pub created_at: i64,
    /// When [`Store::seen`] was last told that it is in use, in Unix milliseconds.
    pub seen_at: i64,
}

/// A login that was logged out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// Its place among all logouts: none with a lower one comes later.
    pub seq: i64,
    /// Whose login it was.
    pub user: UserId,
    /// When it was issued, in Unix milliseconds: with the user, this names it.
    pub issued_at: i64,
}

/// Ended logins that a logout removes: more than it adds, so that they never pile up.
pub(crate) const LOGOUTS_PRUNED_PER_WRITE: i64 = 4;

impl Store {
    /// Keeps that a login was logged out, until it would have ended by itself. Once more changes nothing.
    ///
    /// # Errors
    /// As every write.
    pub async fn log_out(&self, user: &UserId, issued_at: i64, expires_at: i64) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.log_out(user.clone(), issued_at, expires_at).await,
            Backend::Postgres(db) => db.log_out(user.clone(), issued_at, expires_at).await,
        }
    }

    /// Whether a login was logged out.
    ///
    /// # Errors
    /// As every read.
    pub async fn is_logged_out(&self, user: &UserId, issued_at: i64) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.is_logged_out(user.clone(), issued_at).await,
            Backend::Postgres(db) => db.is_logged_out(user.clone(), issued_at).await,
        }
    }

    /// Logouts behind a place, by their places, at most so many.
    ///
    /// # Errors
    /// As every read.
    pub async fn logouts(&self, after: i64, most: u32) -> Result<Vec<Logout>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.logouts(after, most).await,
            Backend::Postgres(db) => db.logouts(after, most).await,
        }
    }

    /// Keeps a new guest. The same id again changes nothing and gives the account that is there.
    ///
    /// # Errors
    /// As every write.
    pub async fn insert_guest(&self, id: &UserId, name: &str) -> Result<Account, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.insert_guest(id.clone(), name.to_owned()).await,
            Backend::Postgres(db) => db.insert_guest(id.clone(), name.to_owned()).await,
        }
    }

    /// The account with this id.
    ///
    /// # Errors
    /// As every read.
    pub async fn user(&self, id: &UserId) -> Result<Option<Account>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.user(id.clone()).await,
            Backend::Postgres(db) => db.user(id.clone()).await,
        }
    }

    /// Notes that the account is in use now.
    ///
    /// # Errors
    /// As every write.
    pub async fn seen(&self, id: &UserId) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.seen(id.clone()).await,
            Backend::Postgres(db) => db.seen(id.clone()).await,
        }
    }

    /// 32 random bytes under a name, made at first ask and the same ever after. They never leave the database otherwise.
    ///
    /// # Errors
    /// As every write.
    pub async fn secret(&self, name: &'static str) -> Result<[u8; 32], StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.secret(name).await,
            Backend::Postgres(db) => db.secret(name).await,
        }
    }
}
