//! Kept orders in PostgreSQL.

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::Work;
use super::failure::Tried;
use super::{Kind, Postgres};
use crate::StoreError;
use crate::orders::{KeptOrder, ORDERS_BYTES_PER_LOOK, ORDERS_PRUNED_PER_WRITE};

/// Orders take their places one after the other and each commits before the next: whoever has read up to one has read all before it.
/// One statement, so that nobody who hangs or dies keeps the turn. Old ones that somebody else removes at this moment are left to them.
const KEEP: &str = "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($1::bigint)),
    time AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $2::bigint AS now_ms FROM turn),
    pruned AS (DELETE FROM orders WHERE seq IN
        (SELECT seq FROM orders WHERE at <= (SELECT now_ms FROM time) - $4::bigint ORDER BY at LIMIT $5::bigint FOR UPDATE SKIP LOCKED))
    INSERT INTO orders (at, body) SELECT now_ms, $3::bytea FROM time RETURNING seq";
pub(super) const TURN_LOCK: i64 = 0x7461_6c65_6f72_6465;
/// As many as are not too long together; sizes are known without reading what is long.
const READ: &str = "SELECT seq, body FROM (
      SELECT seq, body, SUM(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
      FROM (SELECT seq, body FROM orders WHERE seq > $1 ORDER BY seq LIMIT $2) part
    ) cut WHERE before < $3 ORDER BY seq";
/// Rows that somebody else removes at this moment are left to them.
const PRUNE: &str = "DELETE FROM orders WHERE seq IN
    (SELECT seq FROM orders WHERE at <= $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";

impl Postgres {
    pub(crate) async fn keep_order(&self, body: Bytes) -> Result<i64, StoreError> {
        let turns = vec![self.order_turn.clone()];
        self.run(Kind::Statement, turns, (body, self.orders_age_ms), |work, (body, age_ms)| {
            Box::pin(async move {
                let params: [&(dyn ToSql + Sync); 5] =
                    [&TURN_LOCK, &work.shift_ms(), &body.as_ref(), age_ms, &ORDERS_PRUNED_PER_WRITE];
                Ok(work.conn.row(KEEP, &params).await?.try_get(0)?)
            })
        })
        .await
    }

    pub(crate) async fn orders(&self, after: i64, most: u32) -> Result<Vec<KeptOrder>, StoreError> {
        self.look((after, i64::from(most)), |work, (after, most)| {
            Box::pin(async move {
                let rows = work.conn.all(READ, &[after, most, &(ORDERS_BYTES_PER_LOOK as i64)]).await?;
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
