//! Accounts and secrets in SQLite.

use rusqlite::{Connection, OptionalExtension, params};
use talewire_proto::UserId;

use super::Sqlite;
use super::rows::parsed;
use crate::StoreError;
use crate::accounts::Account;

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
