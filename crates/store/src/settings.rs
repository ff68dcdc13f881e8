//! The named settings of the store, each with its unit in its name and what happens beyond it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

/// Settings of the store. `docs/operations.md` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The PostgreSQL database that keeps everything, as `postgres://user:password@host:port/database`. Empty: SQLite in `store.path`.
    pub url: StoreUrl,
    /// The data folder, made for its owner alone if it is not there. The binary puts `~/.local/share/talewire` in place of this default.
    pub path: PathBuf,
    /// Writes that may wait; one more is refused at once (503).
    pub write_queue_operations_max: usize,
    /// Reads that may wait; one more is refused at once (503).
    pub read_queue_operations_max: usize,
    /// SQLite: threads that read, each with a connection of its own.
    pub reader_threads: usize,
    /// Writes in one commit; more go into the next one. PostgreSQL: publications in one commit.
    pub group_operations_max: usize,
    /// SQLite: time for which one commit collects writes while more are waiting, in milliseconds; later ones go into the next.
    pub group_ms_max: u64,
    /// SQLite: writes after which the write-ahead log is copied into the database file.
    pub checkpoint_operations: u64,
    /// PostgreSQL: connections of this node; whoever finds all of them busy waits for `store.acquire_ms_max`.
    pub connections_max: usize,
    /// PostgreSQL: time to wait for a connection, free or new, in milliseconds; then the call fails (503).
    pub acquire_ms_max: u64,
    /// PostgreSQL: time for one operation with all its waiting for locks, in milliseconds; then it is broken off and fails (503).
    pub operation_ms_max: u64,
    /// PostgreSQL over TLS: file with the certificates (PEM) that may sign the server's. Empty: those that the system trusts.
    pub tls_ca: PathBuf,
    /// Time for which the answer of a repeated call is kept at least, in milliseconds; after it, the call counts as new.
    pub answer_ttl_ms: i64,
    /// Time for which orders to the connections of all nodes (disconnect, unsubscribe, …) are kept, in milliseconds. A node that could not read
    /// them for longer asks everybody whom it has to come again.
    pub orders_age_ms: i64,
    /// Time between two looks for orders that no other node has pointed to, in milliseconds.
    pub orders_every_ms: u64,
    /// SQLite: bytes that must be free on the disk of the data folder; with fewer the node is not ready.
    pub free_bytes_min: u64,
    /// Time between two looks whether the store could write, in milliseconds. SQLite looks at the disk; PostgreSQL is written to, unless it was since the last look.
    pub look_ms: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            path: PathBuf::from("data"),
            write_queue_operations_max: 8_192,
            read_queue_operations_max: 4_096,
            reader_threads: 4,
            group_operations_max: 1_024,
            group_ms_max: 2,
            checkpoint_operations: 1_000,
            connections_max: 12,
            acquire_ms_max: 5_000,
            operation_ms_max: 10_000,
            tls_ca: PathBuf::new(),
            answer_ttl_ms: 24 * 60 * 60 * 1_000,
            orders_age_ms: 60 * 60 * 1_000,
            orders_every_ms: 1_000,
            free_bytes_min: 16_777_216,
            look_ms: 5_000,
        }
    }
}

impl StoreSettings {
    /// Where everything is kept, for people: the folder, or the address without its password.
    #[must_use]
    pub fn place(&self) -> String {
        if self.url.is_empty() { self.path.display().to_string() } else { self.url.to_string() }
    }

    /// What is wrong with the address, if there is one. It is not asked whether anybody is there.
    #[must_use]
    pub fn url_problem(&self) -> Option<String> {
        if self.url.is_empty() { None } else { crate::postgres::address_problem(self.url.reveal()) }
    }
}

/// The address of a PostgreSQL database. It may hold a password: `Debug`, `Display` and its serialised form leave that out.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Takes the address as it was written.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether none was given, so that SQLite keeps everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it, the password too.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// User, host and database, without the password wherever it stands.
    fn shown(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return if self.0.is_empty() { String::new() } else { "REDACTED".into() };
        };
        if rest.find('?').is_some_and(|query| rest[query..].contains('@')) {
            // A password with a question mark, or an option with an at sign: where the password ends is not for us to guess.
            return format!("{scheme}://REDACTED");
        }
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        let Some((login, place)) = rest.rsplit_once('@') else { return format!("{scheme}://{rest}") };
        let (user, _) = login.split_once(':').unwrap_or((login, ""));
        format!("{scheme}://{user}@{place}")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_print_its_password() {
        for (written, shown) in [
            ("", ""),
            ("postgres://ana:hunter2@db:5432/tales", "postgres://ana@db:5432/tales"),
            ("postgres://ana:hun@ter2@db/tales?sslmode=require", "postgres://ana@db/tales"),
            ("postgres://ana:hun?ter2@db/tales", "postgres://REDACTED"),
            ("postgres://db/tales?user=ana&password=hunt@er2", "postgres://REDACTED"),
            ("postgresql://db/tales?user=ana&password=hunter2", "postgresql://db/tales"),
            ("host=db password=hunter2", "REDACTED"),
        ] {
            let url = StoreUrl::new(written);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("ter2"), "{url:?}");
            assert_eq!(serde_json::to_value(&url).expect("JSON"), shown);
            assert_eq!(url.reveal(), written);
        }
    }
}
