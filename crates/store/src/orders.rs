//! Orders to the connections of all nodes, in one order, for as long as a node may have missed them. What is in them is the broker's matter;
//! the server keeps them, and every node reads on behind the last one that it has carried out.

use bytes::Bytes;

use crate::{Backend, Store, StoreError};

/// An order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOrder {
    /// Its place: none comes into being below one that can be read.
    pub seq: i64,
    /// What it says.
    pub body: Bytes,
}

/// Bytes of the orders of one look, but for the first, which always comes: a look must end in its time behind a slow link too.
pub(crate) const ORDERS_BYTES_PER_LOOK: usize = 1024 * 1024;

/// Old orders that a new one removes: more than it adds, so that they never pile up.
pub(crate) const ORDERS_PRUNED_PER_WRITE: i64 = 4;

impl Store {
    /// Keeps an order, for `store.orders_age_ms` at least; gives its place.
    ///
    /// # Errors
    /// As every write.
    pub async fn keep_order(&self, body: Bytes) -> Result<i64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.keep_order(body).await,
            Backend::Postgres(db) => db.keep_order(body).await,
        }
    }

    /// Orders behind a place, by their places, at most so many, and fewer if they are long; none only if there are none.
    ///
    /// # Errors
    /// As every read.
    pub async fn orders(&self, after: i64, most: u32) -> Result<Vec<KeptOrder>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.orders(after, most).await,
            Backend::Postgres(db) => db.orders(after, most).await,
        }
    }

    /// The place of the newest order; 0 when there is none.
    ///
    /// # Errors
    /// As every read.
    pub async fn newest_order(&self) -> Result<i64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.newest_order().await,
            Backend::Postgres(db) => db.newest_order().await,
        }
    }
}
