//! Reads of history that several readers share: whoever asks for the same while nobody has begun to read gets the same answer.
//!
//! Called by [`crate::recovery`] for every subscriber that comes back or falls behind. When a node dies, its clients come to others all at
//! once and ask for the same piece of the same channels: the first is answered by a read of its own, and those who come while it is under
//! way, or within a moment, wait together for the next.
//!
//! What keeps it right: a reader looks where its channel stands on this node ([`Hub::look`]), then joins a read that has *not yet begun*.
//! So every read that it gets an answer from began after its look, as if it were its own, and what it concludes from it
//! ([`Hub::observe`]) holds. A read that has begun takes nobody in any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use talewire_broker::PageLimit;
use talewire_proto::{Channel, Kind, Namespace, Since};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::error::HubError;
use crate::node::Hub;
use crate::recovery::Read;

/// Readers whose positions fall into the same piece of so many entries are served by one read from the lowest of them.
const PIECE: u64 = 64;

/// What is read, as far as one read may serve all who ask for it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    channel: Channel,
    kind: Kind,
    from: From,
    entries: usize,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum From {
    Oldest,
    Newest,
    /// From somewhere in this piece of the history.
    Piece(u64),
    /// From right behind this offset.
    Exactly(u64),
}

/// Those who wait for the same read.
struct Batch {
    /// The lowest offset after which somebody wants to read.
    after: AtomicU64,
    answer: OnceCell<Result<Read, Arc<HubError>>>,
}

/// Held while one reads; with when the last one began.
type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// The reads of one key: one at a time.
#[derive(Default)]
struct Flight {
    turn: Turn,
    /// Who comes now waits here, for a read that has not begun.
    open: Option<Arc<Batch>>,
}

/// The reads that are shared.
pub(crate) struct Reads {
    flights: Mutex<HashMap<Key, Flight>>,
    max: usize,
    gather: Duration,
    /// Reads that were made.
    pub(crate) made: AtomicU64,
    /// Readers that were answered by the read of another one.
    pub(crate) shared: AtomicU64,
}

impl Reads {
    pub(crate) fn new(max: usize, gather_ms: u64) -> Self {
        Self {
            flights: Mutex::default(),
            max,
            gather: Duration::from_millis(gather_ms),
            made: AtomicU64::new(0),
            shared: AtomicU64::new(0),
        }
    }

    /// A read that has not begun, and whose turn has to be waited for; nothing when too many are kept apart.
    fn join(&self, key: &Key, after: u64) -> Option<(Arc<Batch>, Turn)> {
        let mut flights = self.flights.lock();
        if flights.len() >= self.max && !flights.contains_key(key) {
            flights.retain(|_, flight| flight.open.is_some() || Arc::strong_count(&flight.turn) > 1);
            if flights.len() >= self.max {
                return None;
            }
        }
        let flight = flights.entry(key.clone()).or_default();
        let batch = flight
            .open
            .get_or_insert_with(|| Arc::new(Batch { after: AtomicU64::new(after), answer: OnceCell::new() }));
        // Under the lock, as is beginning.
        batch.after.fetch_min(after, Ordering::Relaxed);
        Some((batch.clone(), flight.turn.clone()))
    }

    /// The read begins: who comes from now on waits for the next. Says after which offset.
    fn begin(&self, key: &Key, batch: &Arc<Batch>) -> u64 {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get_mut(key)
            && flight.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, batch))
        {
            flight.open = None;
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        batch.after.load(Ordering::Relaxed)
    }
}

impl Hub {
    /// Reads history, with others who want the same. The caller has looked where the channel stands before.
    ///
    /// # Errors
    /// Those of the store and the broker.
    pub(crate) async fn read_together(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: Since,
        limit: PageLimit,
    ) -> Result<Read, HubError> {
        let (from, after) = match since {
            Since::Oldest => (From::Oldest, 0),
            Since::Newest => (From::Newest, 0),
            Since::After(offset) => (From::Piece(offset / PIECE), offset),
        };
        let key =
            |from| Key { channel: channel.clone(), kind: rules.kind, from, entries: limit.entries, bytes: limit.bytes };
        let (wide, began_after) = self.read_as(key(from), rules, &since, limit).await?;
        if let Some(read) = cut(wide, began_after, after) {
            return Ok(read);
        }
        // The limit has cut what lies before this reader's place and left out what lies behind.
        Ok(self.read_as(key(From::Exactly(after)), rules, &since, limit).await?.0)
    }

    async fn read_as(
        &self,
        key: Key,
        rules: &Namespace,
        since: &Since,
        limit: PageLimit,
    ) -> Result<(Read, u64), HubError> {
        let reads = self.reads();
        let after = if let Since::After(offset) = since { *offset } else { 0 };
        let Some((batch, turn)) = reads.join(&key, after) else {
            reads.made.fetch_add(1, Ordering::Relaxed);
            return Ok((self.read(&key.channel, rules, since.clone(), limit).await?, after));
        };
        let mut mine = false;
        let answer = batch.answer.get_or_init(|| async {
            mine = true;
            let mut last = turn.lock().await;
            if let Some(began) = *last
                && began.elapsed() < reads.gather
            {
                tokio::time::sleep_until(began + reads.gather).await;
            }
            #[cfg(test)]
            breathe().await;
            let after = reads.begin(&key, &batch);
            *last = Some(Instant::now());
            let since = if let Since::After(_) = since { Since::After(after) } else { since.clone() };
            let read = self.read(&key.channel, rules, since, limit).await;
            #[cfg(test)]
            breathe().await;
            read.map_err(Arc::new)
        });
        let answer = answer.await.clone().map_err(HubError::Together)?;
        if !mine {
            reads.shared.fetch_add(1, Ordering::Relaxed);
        }
        Ok((answer, batch.after.load(Ordering::Relaxed)))
    }
}

/// What a reader that wants everything after `after` finds in a read that began after `began_after`, at or before it. Nothing if the read
/// ends before the top.
fn cut(mut read: Read, began_after: u64, after: u64) -> Option<Read> {
    if began_after == after {
        return Some(read);
    }
    if read.entries.last().is_some_and(|last| last.offset < read.top.offset) {
        return None;
    }
    read.entries.retain(|entry| entry.offset > after);
    read.complete = read.entries.first().map_or(read.top.offset <= after, |first| first.offset == after + 1);
    Some(read)
}

#[cfg(test)]
thread_local! {
    /// Whether reads on this thread wait where in truth the broker is waited for, so that others go on in between.
    pub(crate) static BREATHES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
async fn breathe() {
    let mut waited = !BREATHES.get();
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
