//! Kept orders in SQLite: whatever stands over one database is in one process, and finds them there as it would in PostgreSQL.

use bytes::Bytes;
use rusqlite::params;

use super::Sqlite;
use super::writer::Work;
use crate::StoreError;
use crate::orders::{KeptOrder, ORDERS_BYTES_PER_LOOK, ORDERS_PRUNED_PER_WRITE};

impl Sqlite {
    pub(crate) async fn keep_order(&self, body: Bytes) -> Result<i64, StoreError> {
        let age_ms = self.orders_age_ms;
        self.write(move |work| {
            work.conn
                .prepare_cached("INSERT INTO orders (at, body) VALUES (?1, ?2)")?
                .execute(params![work.now_ms, body.as_ref()])?;
            let seq = work.conn.last_insert_rowid();
            prune_orders(work, age_ms, ORDERS_PRUNED_PER_WRITE)?;
            Ok(seq)
        })
        .await
    }

    pub(crate) async fn orders(&self, after: i64, most: u32) -> Result<Vec<KeptOrder>, StoreError> {
        self.read(move |conn, _| {
            let mut statement =
                conn.prepare_cached("SELECT seq, body FROM orders WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = statement.query(params![after, most])?;
            let (mut orders, mut bytes) = (Vec::new(), 0);
            while bytes < ORDERS_BYTES_PER_LOOK
                && let Some(row) = rows.next()?
            {
                let body: Vec<u8> = row.get(1)?;
                bytes += body.len();
                orders.push(KeptOrder { seq: row.get(0)?, body: body.into() });
            }
            Ok(orders)
        })
        .await
    }

    pub(crate) async fn newest_order(&self) -> Result<i64, StoreError> {
        self.read(|conn, _| {
            Ok(conn.prepare_cached("SELECT COALESCE(MAX(seq), 0) FROM orders")?.query_row([], |row| row.get(0))?)
        })
        .await
    }
}

/// Forgets orders that every node has had the time to find. The newest stays: its place must not be given again.
pub(super) fn prune_orders(work: &Work<'_>, age_ms: i64, at_most: i64) -> Result<u64, StoreError> {
    let removed = work
        .conn
        .prepare_cached(
            "DELETE FROM orders WHERE seq IN (SELECT seq FROM orders WHERE at <= ?1 ORDER BY at LIMIT ?2)
             AND seq < (SELECT MAX(seq) FROM orders)",
        )?
        .execute([work.now_ms.saturating_sub(age_ms), at_most])?;
    Ok(removed as u64)
}
