//! Accounts, logouts and secrets in SQLite.

use rusqlite::{Connection, OptionalExtension, Row, params};
use talewire_proto::UserId;

use super::Sqlite;
use super::rows::parsed;
use super::writer::Work;
use crate::StoreError;
use crate::accounts::{Account, LOGOUTS_PRUNED_PER_WRITE, Logout};

impl Sqlite {
    pub(crate) async fn insert_guest(&self, id: UserId, name: String) -> Result<Account, StoreError> {
        self.write(move |work| {
            work.conn
                .prepare_cached(
                    "INSERT INTO users (id, name, guest, created_at, seen_at) VALUES (?1, ?2, TRUE, ?3, ?3) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![id.as_str(), name, work.now_ms])?;
            account(work.conn, &id)?.ok_or_else(|| StoreError::Broken("a guest that was just written is not there".into()))
        })
        .await
    }

    pub(crate) async fn user(&self, id: UserId) -> Result<Option<Account>, StoreError> {
        self.read(move |conn, _| account(conn, &id)).await
    }

    pub(crate) async fn seen(&self, id: UserId) -> Result<(), StoreError> {
        self.write(move |work| {
            work.conn
                .prepare_cached("UPDATE users SET seen_at = ?2 WHERE id = ?1")?
                .execute(params![id.as_str(), work.now_ms])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn log_out(&self, user: UserId, issued_at: i64, expires_at: i64) -> Result<(), StoreError> {
        self.write(move |work| {
            work.conn
                .prepare_cached(
                    "INSERT INTO logouts (user, issued_at, expires_at) VALUES (?1, ?2, ?3) ON CONFLICT (user, issued_at) DO NOTHING",
                )?
                .execute(params![user.as_str(), issued_at, expires_at])?;
            prune_logouts(work, LOGOUTS_PRUNED_PER_WRITE).map(drop)
        })
        .await
    }

    pub(crate) async fn is_logged_out(&self, user: UserId, issued_at: i64) -> Result<bool, StoreError> {
        self.read(move |conn, _| {
            let mut statement = conn.prepare_cached("SELECT 1 FROM logouts WHERE user = ?1 AND issued_at = ?2")?;
            Ok(statement.exists(params![user.as_str(), issued_at])?)
        })
        .await
    }

    pub(crate) async fn logouts(&self, after: i64, most: u32) -> Result<Vec<Logout>, StoreError> {
        self.read(move |conn, _| {
            let logout = |row: &Row<'_>| Ok(Logout { seq: row.get(0)?, user: parsed(row, 1)?, issued_at: row.get(2)? });
            let mut statement =
                conn.prepare_cached("SELECT seq, user, issued_at FROM logouts WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let logouts = statement.query_map(params![after, most], logout)?;
            Ok(logouts.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(crate) async fn secret(&self, name: &'static str) -> Result<[u8; 32], StoreError> {
        self.write(move |work| {
            let fresh: [u8; 32] = crate::random()?;
            work.conn
                .prepare_cached("INSERT INTO secrets (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?
                .execute(params![name, fresh.as_slice()])?;
            let kept = work
                .conn
                .prepare_cached("SELECT value FROM secrets WHERE name = ?1")?
                .query_row([name], |row| row.get(0))?;
            Ok(kept)
        })
        .await
    }
}

/// Forgets logouts whose logins have ended by themselves. The newest stays: its place must not be given again.
pub(super) fn prune_logouts(work: &Work<'_>, at_most: i64) -> Result<u64, StoreError> {
    let removed = work
        .conn
        .prepare_cached(
            "DELETE FROM logouts WHERE seq IN (SELECT seq FROM logouts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
             AND seq < (SELECT MAX(seq) FROM logouts)",
        )?
        .execute([work.now_ms, at_most])?;
    Ok(removed as u64)
}

fn account(conn: &Connection, id: &UserId) -> Result<Option<Account>, StoreError> {
    let account = conn
        .prepare_cached("SELECT id, name, guest, created_at, seen_at FROM users WHERE id = ?1")?
        .query_row([id.as_str()], |row| {
            Ok(Account {
                id: parsed(row, 0)?,
                name: row.get(1)?,
                guest: row.get(2)?,
                created_at: row.get(3)?,
                seen_at: row.get(4)?,
            })
        })
        .optional()?;
    Ok(account)
}
