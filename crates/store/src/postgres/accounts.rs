//! Accounts, logouts and secrets in PostgreSQL.

use talewire_proto::UserId;
use tokio_postgres::Row;

use super::connection::Work;
use super::failure::Tried;
use super::rows::parsed;
use super::{Kind, Postgres, storable};
use crate::accounts::{Account, LOGOUTS_PRUNED_PER_WRITE, Logout};
use crate::{StoreError, random};

const ACCOUNT: &str = "SELECT id, name, guest, created_at, seen_at FROM users WHERE id = $1";
/// Logouts take their places one after the other and each commits before the next: whoever has read up to one has read all before it.
/// One statement, so that nobody who hangs or dies keeps the turn. Ended ones that somebody else removes at this moment are left to them.
const LOG_OUT: &str = "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($4::bigint)),
    pruned AS (DELETE FROM logouts WHERE seq IN
        (SELECT seq FROM logouts WHERE expires_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $5::bigint
         ORDER BY expires_at LIMIT $6::bigint FOR UPDATE SKIP LOCKED))
    INSERT INTO logouts (\"user\", issued_at, expires_at) SELECT $1::text, $2::bigint, $3::bigint FROM turn
    ON CONFLICT DO NOTHING";
pub(super) const LOGOUT_TURN_LOCK: i64 = 0x7461_6c65_6c6f_7574;
const IS_LOGGED_OUT: &str = "SELECT EXISTS (SELECT FROM logouts WHERE \"user\" = $1 AND issued_at = $2)";
const LOGOUTS: &str = "SELECT seq, \"user\", issued_at FROM logouts WHERE seq > $1 ORDER BY seq LIMIT $2";
/// Rows that somebody else removes at this moment are left to them.
const PRUNE: &str = "DELETE FROM logouts WHERE seq IN
    (SELECT seq FROM logouts WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

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

    pub(crate) async fn log_out(&self, user: UserId, issued_at: i64, expires_at: i64) -> Result<(), StoreError> {
        self.run(
            Kind::Statement,
            vec![self.logout_turn.clone()],
            (user, issued_at, expires_at),
            |work, (user, issued_at, expires_at)| {
                Box::pin(async move {
                    let (user, shift_ms) = (user.as_str(), work.shift_ms());
                    let prune = LOGOUTS_PRUNED_PER_WRITE;
                    work.conn
                        .execute(LOG_OUT, &[&user, issued_at, expires_at, &LOGOUT_TURN_LOCK, &shift_ms, &prune])
                        .await
                        .map(drop)
                })
            },
        )
        .await
    }

    pub(crate) async fn is_logged_out(&self, user: UserId, issued_at: i64) -> Result<bool, StoreError> {
        self.look((user, issued_at), |work, (user, issued_at)| {
            Box::pin(async move { Ok(work.conn.row(IS_LOGGED_OUT, &[&user.as_str(), issued_at]).await?.try_get(0)?) })
        })
        .await
    }

    pub(crate) async fn logouts(&self, after: i64, most: u32) -> Result<Vec<Logout>, StoreError> {
        self.look((after, i64::from(most)), |work, (after, most)| {
            Box::pin(async move {
                let rows = work.conn.all(LOGOUTS, &[after, most]).await?;
                let logout =
                    |row: &Row| Ok(Logout { seq: row.try_get(0)?, user: parsed(row, 1)?, issued_at: row.try_get(2)? });
                rows.iter().map(logout).collect()
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

/// Forgets logouts whose logins have ended by themselves.
pub(super) async fn prune_logouts(work: &Work<'_>, at_most: i64) -> Tried<u64> {
    work.conn.execute(PRUNE, &[&work.now_ms(), &at_most]).await
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
