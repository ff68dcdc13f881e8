//! Erasing: the words of a durable channel go, its offsets stay.

use rusqlite::{OptionalExtension, params};
use talewire_proto::Channel;

use super::Sqlite;
use crate::StoreError;

/// Offsets that one write looks at: it shares its transaction with the writes of others, who wait for it.
const STEP: i64 = 1_000;

impl Sqlite {
    pub(crate) async fn erase(&self, channel: Channel) -> Result<u64, StoreError> {
        let mut erased = 0;
        let mut from = 0;
        // What is appended meanwhile is none of ours: the end is looked up once.
        let mut to = None;
        loop {
            let name = channel.clone();
            let step = self.write(move |work| {
                let row = work
                    .conn
                    .prepare_cached("SELECT id, top FROM channels WHERE name = ?1")?
                    .query_row([name.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                    .optional()?;
                let Some((id, top)) = row else { return Ok((0, 0)) };
                let changed = work
                    .conn
                    .prepare_cached(
                        "UPDATE log SET data = NULL, info = NULL, tags = NULL
                         WHERE channel = ?1 AND offset > ?2 AND offset <= ?3 AND (data IS NOT NULL OR info IS NOT NULL OR tags IS NOT NULL)",
                    )?
                    .execute(params![id, from, to.unwrap_or(top).min(from + STEP)])?;
                Ok((changed as u64, top))
            });
            let (changed, top) = step.await?;
            erased += changed;
            from += STEP;
            if from >= *to.get_or_insert(top) {
                return Ok(erased);
            }
        }
    }
}
