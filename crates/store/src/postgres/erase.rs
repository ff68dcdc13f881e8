//! Erasing: the words of a durable channel go, its offsets stay.

use talewire_proto::Channel;

use super::Postgres;
use crate::StoreError;

/// Offsets that one statement looks at: a short one holds its rows for a short time.
const STEP: i64 = 1_000;

impl Postgres {
    pub(crate) async fn erase(&self, channel: Channel) -> Result<u64, StoreError> {
        // What is appended meanwhile is none of ours: the end is looked up once.
        let found = self.look(channel, |work, channel| {
            Box::pin(async move {
                let sql = "SELECT id, top FROM channels WHERE name = $1";
                let row = work.conn.one(sql, &[&channel.as_str()]).await?;
                Ok(row.map(|row| Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
            })
        });
        let Some((id, top)): Option<(i64, i64)> = found.await? else { return Ok(0) };
        let mut erased = 0;
        let mut from = 0;
        while from < top {
            let step = self.statement((id, from, top.min(from + STEP)), |work, (id, from, to)| {
                Box::pin(async move {
                    let sql = "UPDATE log SET data = NULL, info = NULL, tags = NULL
                        WHERE channel = $1 AND \"offset\" > $2 AND \"offset\" <= $3
                          AND (data IS NOT NULL OR info IS NOT NULL OR tags IS NOT NULL)";
                    work.conn.execute(sql, &[id, from, to]).await
                })
            });
            erased += step.await?;
            from += STEP;
        }
        Ok(erased)
    }
}
