//! A PostgreSQL server for the cases of one test, with a new database for each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use talewire_stand::postgres::Postgres;
use talewire_store::{StoreSettings, StoreUrl};
use tokio_postgres::NoTls;

pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    databases: AtomicU32,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self { postgres: Postgres::start(), databases: AtomicU32::new(0) }
    }

    /// Settings that name a new, empty database.
    pub(crate) async fn settings(&self) -> StoreSettings {
        let name = format!("case{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.ask(&format!("CREATE DATABASE {name}")).await;
        StoreSettings { url: StoreUrl::new(self.postgres.url_of(&name)), ..StoreSettings::default() }
    }

    /// Has the server carry something out in its own database.
    pub(crate) async fn ask(&self, sql: &str) {
        ask(&self.postgres.url(), sql).await;
    }
}

/// Has a database carry something out, and gives the first column of the first row that it says.
pub(crate) async fn ask(url: &str, sql: &str) -> Option<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let rows = client.simple_query(sql).await.unwrap();
    let said = rows.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    drop(client);
    // Its end is waited for, so that nobody is left in a database that is to be copied or dropped.
    let _ = tokio::time::timeout(Duration::from_secs(5), driver).await;
    said
}
