//! Who uses the database: every session says by its name whose it is, so that nodes see each other here whatever else they share.

use super::pool::PROGRAM;
use super::{Postgres, facts};
use crate::StoreError;

/// What stands behind the name of the program.
const USERS: &str = "SELECT DISTINCT substr(application_name, length($1) + 2) FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, $1 || ' ')";

impl Postgres {
    pub(crate) async fn users(&self) -> Result<Vec<String>, StoreError> {
        let read = |row: &tokio_postgres::Row| row.try_get(0).map_err(super::failure::Failure::from);
        self.look((), move |work, ()| Box::pin(async move { facts::all(work.conn, USERS, &[&PROGRAM], read).await }))
            .await
    }
}
