//! Accounts and secrets in PostgreSQL.

use talewire_proto::UserId;
use tokio_postgres::Row;

use super::failure::Tried;
use super::rows::parsed;
use super::{Postgres, storable};
use crate::accounts::Account;
use crate::{StoreError, random};

const ACCOUNT: &str = "SELECT id, name, guest, created_at, seen_at FROM users WHERE id = $1";

impl Postgres {
    pub(crate) async fn insert_guest(&self, id: UserId, name: String) -> Result<Account, StoreError> {
        self.change((id, name), |work, (id, name)| {
            Box::pin(async move {
                let sql = "INSERT INTO users (id, name, guest, created_at, seen_at) VALUES ($1, $2, TRUE, $3, $3) ON CONFLICT (id) DO NOTHING";
                work.conn.execute(sql, &[&id.as_str(), &storable(name), &work.now_ms()]).await?;
                account(&work.conn.row(ACCOUNT, &[&id.as_str()]).await?)
            })
        })
        .await
    }

    pub(crate) async fn user(&self, id: UserId) -> Result<Option<Account>, StoreError> {
        self.look(id, |work, id| {
            Box::pin(async move { work.conn.one(ACCOUNT, &[&id.as_str()]).await?.as_ref().map(account).transpose() })
        })
        .await
    }

    pub(crate) async fn seen(&self, id: UserId) -> Result<(), StoreError> {
        self.statement(id, |work, id| {
            Box::pin(async move {
                let sql = "UPDATE users SET seen_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $2 WHERE id = $1";
                work.conn.execute(sql, &[&id.as_str(), &work.shift_ms()]).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn secret(&self, name: &'static str) -> Result<[u8; 32], StoreError> {
        self.change(name, |work, name| {
            Box::pin(async move {
                let fresh: [u8; 32] = random()?;
                // Whoever comes second waits here for the first one, and then reads what it wrote.
                let sql = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
                work.conn.execute(sql, &[name, &fresh.as_slice()]).await?;
                let row = work.conn.row("SELECT value FROM secrets WHERE name = $1", &[name]).await?;
                let kept: &[u8] = row.try_get(0)?;
                Ok(kept
                    .try_into()
                    .map_err(|_| StoreError::Broken(format!("the secret {name} is not 32 bytes long")))?)
            })
        })
        .await
    }
}

fn account(row: &Row) -> Tried<Account> {
    Ok(Account {
        id: parsed(row, 0)?,
        name: row.try_get(1)?,
        guest: row.try_get(2)?,
        created_at: row.try_get(3)?,
        seen_at: row.try_get(4)?,
    })
}
