//! Kept orders in PostgreSQL.

use bytes::Bytes;
use tokio_postgres::Row;

use super::Postgres;
use super::connection::Work;
use super::failure::Tried;
use crate::StoreError;
use crate::orders::{KeptOrder, ORDERS_PRUNED_PER_WRITE};

/// Whoever adds an order has this lock until the commit: orders can be read in the order of their places, and none turns up behind.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8387794199371670117)";
const KEEP: &str = "INSERT INTO orders (at, body) VALUES ($1, $2) RETURNING seq";
const READ: &str = "SELECT seq, body FROM orders WHERE seq > $1 ORDER BY seq LIMIT $2";
/// Rows that somebody else removes at this moment are left to them.
const PRUNE: &str = "DELETE FROM orders WHERE seq IN
    (SELECT seq FROM orders WHERE at <= $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";

impl Postgres {
    pub(crate) async fn keep_order(&self, body: Bytes) -> Result<i64, StoreError> {
        self.change((body, self.orders_age_ms), |work, (body, age_ms)| {
            Box::pin(async move {
                prune_orders(work, *age_ms, ORDERS_PRUNED_PER_WRITE).await?;
                work.conn.row(LOCK, &[]).await?;
                Ok(work.conn.row(KEEP, &[&work.now_ms(), &body.as_ref()]).await?.try_get(0)?)
            })
        })
        .await
    }

    pub(crate) async fn orders(&self, after: i64, most: u32) -> Result<Vec<KeptOrder>, StoreError> {
        self.look((after, i64::from(most)), |work, (after, most)| {
            Box::pin(async move {
                let rows = work.conn.all(READ, &[after, most]).await?;
                let order =
                    |row: &Row| Ok(KeptOrder { seq: row.try_get(0)?, body: Bytes::copy_from_slice(row.try_get(1)?) });
                rows.iter().map(order).collect()
            })
        })
        .await
    }

    pub(crate) async fn newest_order(&self) -> Result<i64, StoreError> {
        self.look((), |work, ()| {
            Box::pin(
                async move { Ok(work.conn.row("SELECT COALESCE(MAX(seq), 0) FROM orders", &[]).await?.try_get(0)?) },
            )
        })
        .await
    }
}

/// Forgets orders that every node has had the time to find.
pub(super) async fn prune_orders(work: &Work<'_>, age_ms: i64, at_most: i64) -> Tried<u64> {
    work.conn.execute(PRUNE, &[&work.now_ms().saturating_sub(age_ms), &at_most]).await
}
