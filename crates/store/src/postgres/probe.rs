//! A write that changes nothing: a database that nobody writes to may have become one that nobody can write to.

use std::sync::atomic::Ordering;

use super::Postgres;
use crate::StoreError;

/// A row that is always there, and that nobody changes.
const PROBE: &str = "UPDATE steps SET since = since WHERE number = 1";

impl Postgres {
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        let good = |counters: &super::Counters| {
            let (groups, failed) = (&counters.groups, &counters.groups_failed);
            groups.load(Ordering::Relaxed).saturating_sub(failed.load(Ordering::Relaxed))
        };
        let counters = &self.shared.counters;
        if self.probed.swap(good(counters), Ordering::Relaxed) != good(counters) {
            // Somebody has written since the last look.
            return Ok(());
        }
        self.statement((), |work, ()| Box::pin(async move { work.conn.execute(PROBE, &[]).await.map(drop) })).await?;
        // Its own write is nobody's.
        self.probed.store(good(counters), Ordering::Relaxed);
        Ok(())
    }
}
