//! What PostgreSQL tells of how it is set, for whoever examines it.

use super::failure::{self, Failure};
use super::pool::Address;
use crate::{StoreError, StoreSettings};

/// Asks on a connection of its own, and leaves tables as they are.
pub(crate) async fn told(settings: &StoreSettings) -> Result<Vec<(String, String)>, StoreError> {
    let conn = Address::new(settings)?.connect().await?;
    let sql = "SELECT name, setting FROM pg_settings
               WHERE name IN ('fsync', 'full_page_writes', 'max_connections', 'server_version', 'superuser_reserved_connections')
               UNION ALL SELECT 'now_ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint::text";
    let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let rows = conn.all(sql, &[]).await.map_err(Failure::into_error)?;
    rows.iter().map(read).collect::<Result<_, tokio_postgres::Error>>().map_err(|error| failure::told(&error))
}
