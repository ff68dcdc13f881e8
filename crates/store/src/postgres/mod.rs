//! The PostgreSQL backend: a bounded pool of connections, shared with other nodes by nothing but the database.
//!
//! Everything outside calls the async methods in the files named after the subjects. Each operation is a task of its own on
//! the runtime that opened the store: it ends whole whether or not somebody still waits for it, and a connection is never
//! left in the middle of a transaction. What goes on between many writers is ordered by row locks, always taken in this
//! order: the user (an advisory lock), the story, its jobs and other rows, the channel. What conflicts nevertheless
//! (deadlock, serialization) is tried again here, a few times.
//!
//! Publications go another way, `appends`: they are gathered and share commits.

mod accounts;
mod appends;
mod apply;
mod connection;
pub(crate) mod copy;
mod erase;
mod facts;
mod failure;
mod jobs;
mod log;
mod orders;
mod pool;
mod probe;
mod rows;
mod schema;
mod stories;
#[cfg(test)]
mod tests;
mod tls;
mod told;
mod turns;
mod users;
mod views;

pub(crate) use pool::address_problem;
pub(crate) use told::told;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore};
use tokio::time::{timeout, timeout_at};

use self::appends::Lanes;
use self::connection::{CLOCK, Connection, Work};
use self::failure::{Failure, Tried};
use self::pool::{Address, Lease, Pool};
use self::turns::{Turn, Turns};
use crate::{StoreError, StoreFigures, StoreSettings};

/// Tries of one operation against what others do at the same time.
const CONFLICTS_MAX: u32 = 5;
/// Tries of one operation when connections turn out to be broken, before anything was done on them.
const LOST_MAX: u32 = 2;

#[derive(Default)]
struct Counters {
    operations: AtomicU64,
    groups: AtomicU64,
    groups_failed: AtomicU64,
    refused_full: AtomicU64,
    commit_us: AtomicU64,
}

/// What an operation does inside its transaction. It may be done again after a conflict.
type Doing<'c, T> = Pin<Box<dyn Future<Output = Tried<T>> + Send + 'c>>;

/// How an operation stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One query.
    Look,
    /// Several queries in one snapshot.
    Snapshot,
    /// One statement that commits by itself, and may be done twice.
    Statement,
    /// A transaction.
    Change,
}

impl Kind {
    fn is_write(self) -> bool {
        matches!(self, Self::Statement | Self::Change)
    }
}

/// What operations share.
struct Shared {
    pool: Pool,
    counters: Counters,
    clock_shift_ms: AtomicI64,
    operation_time: Duration,
    group_operations_max: usize,
}

/// An open database. What was taken is finished when it is dropped.
pub(crate) struct Postgres {
    shared: Arc<Shared>,
    lanes: Lanes,
    runtime: Handle,
    writes: Arc<Semaphore>,
    writes_max: usize,
    reads: Arc<Semaphore>,
    reads_max: usize,
    answer_ttl_ms: i64,
    orders_age_ms: i64,
    logout_turn: Turn,
    order_turn: Turn,
    turns: Turns,
    /// Commits that had succeeded at the last look.
    probed: AtomicU64,
    closed: AtomicBool,
    /// Every operation that runs holds it for reading.
    running: Arc<RwLock<()>>,
}

/// An operation's place; given back at its end.
struct Place {
    _waiting: OwnedSemaphorePermit,
    _running: tokio::sync::OwnedRwLockReadGuard<()>,
}

impl Postgres {
    pub(crate) async fn open(settings: &StoreSettings, name: &str) -> Result<Self, StoreError> {
        let address = Address::new(settings)?.named(name);
        let first = address.connect_shared().await?;
        copy::refuse_moved(&first).await.map_err(Failure::into_error)?;
        schema::migrate(&first).await?;
        let shared = Arc::new(Shared {
            pool: Pool::new(address, settings.connections_max),
            counters: Counters::default(),
            clock_shift_ms: AtomicI64::new(0),
            operation_time: Duration::from_millis(settings.operation_ms_max),
            group_operations_max: settings.group_operations_max.max(1),
        });
        let (writes_max, reads_max) = (settings.write_queue_operations_max, settings.read_queue_operations_max);
        Ok(Self {
            lanes: Lanes::start(&shared, settings),
            shared,
            runtime: Handle::current(),
            writes: Arc::new(Semaphore::new(writes_max)),
            writes_max,
            reads: Arc::new(Semaphore::new(reads_max)),
            reads_max,
            answer_ttl_ms: settings.answer_ttl_ms,
            orders_age_ms: settings.orders_age_ms,
            logout_turn: turns::one_at_once(),
            order_turn: turns::one_at_once(),
            turns: Turns::new(writes_max, settings.connections_max),
            probed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            running: Arc::default(),
        })
    }

    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _all_done = self.running.write().await;
        self.shared.pool.close();
    }

    pub(crate) fn figures(&self) -> StoreFigures {
        let Counters { operations, groups, groups_failed, refused_full, commit_us } = &self.shared.counters;
        StoreFigures {
            operations: operations.load(Ordering::Relaxed),
            groups: groups.load(Ordering::Relaxed),
            groups_failed: groups_failed.load(Ordering::Relaxed),
            refused_full: refused_full.load(Ordering::Relaxed),
            commit_us: commit_us.load(Ordering::Relaxed),
            writes_waiting: self.writes_max.saturating_sub(self.writes.available_permits()) as u64,
            reads_waiting: self.reads_max.saturating_sub(self.reads.available_permits()) as u64,
            free_bytes: None,
        }
    }

    pub(crate) fn shift_clock(&self, by_ms: i64) {
        self.shared.clock_shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// A place among the operations that wait or run.
    fn place(&self, is_write: bool) -> Result<Place, StoreError> {
        let closed = || StoreError::Unavailable("it is closed".into());
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let (places, full) = if is_write {
            (&self.writes, "too many writes are waiting")
        } else {
            (&self.reads, "too many reads are waiting")
        };
        let waiting = places.clone().try_acquire_owned().map_err(|_| {
            self.shared.counters.refused_full.fetch_add(1, Ordering::Relaxed);
            StoreError::Full(full)
        })?;
        let running = self.running.clone().try_read_owned().map_err(|_| closed())?;
        Ok(Place { _waiting: waiting, _running: running })
    }

    /// Does an operation to its end, in a task of its own, when it has its turns: those that it will wait for in the database, in the order of
    /// that.
    async fn run<A, T, F>(&self, kind: Kind, turns: Vec<Turn>, args: A, op: F) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T> + Send + Sync + 'static,
    {
        let place = self.place(kind.is_write())?;
        let shared = self.shared.clone();
        let task = self.runtime.spawn(async move {
            let _place = place;
            let _turns = timeout(shared.patience(), turns::take(turns)).await.map_err(|_| shared.too_late())?;
            shared.tries(kind, &args, &op).await
        });
        task.await.unwrap_or_else(|lost| {
            Err(if lost.is_panic() {
                StoreError::Broken("an operation panicked and was undone".into())
            } else {
                StoreError::Unavailable("the operation was not answered".into())
            })
        })
    }

    async fn look<A, T, F>(&self, args: A, op: F) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T> + Send + Sync + 'static,
    {
        self.run(Kind::Look, Vec::new(), args, op).await
    }

    async fn snapshot<A, T, F>(&self, args: A, op: F) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T> + Send + Sync + 'static,
    {
        self.run(Kind::Snapshot, Vec::new(), args, op).await
    }

    async fn statement<A, T, F>(&self, args: A, op: F) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T> + Send + Sync + 'static,
    {
        self.run(Kind::Statement, Vec::new(), args, op).await
    }

    async fn change<A, T, F>(&self, args: A, op: F) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T> + Send + Sync + 'static,
    {
        self.run(Kind::Change, Vec::new(), args, op).await
    }
}

impl Shared {
    /// Tries an operation until it succeeds, fails for good, or its time is over.
    async fn tries<A, T, F>(&self, kind: Kind, args: &A, op: &F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T>,
    {
        let (mut conflicts, mut lost) = (0, 0);
        let mut deadline = None;
        loop {
            let lease = self.pool.take().await?;
            let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + self.operation_time);
            let work = Work::new(lease.conn(), self.clock_shift_ms.load(Ordering::Relaxed));
            // Beyond the deadline the connection is dropped with the lease, and the server undoes what is open.
            let tried = timeout_at(deadline, self.one(kind, &work, args, op)).await;
            if kind.is_write() {
                let failed = !matches!(tried, Ok(Ok(_)) | Ok(Err(Failure::Ours(_))));
                self.counters.operations.fetch_add(1, Ordering::Relaxed);
                self.counters.groups.fetch_add(1, Ordering::Relaxed);
                self.counters.groups_failed.fetch_add(u64::from(failed), Ordering::Relaxed);
            }
            let failure = match tried {
                Ok(Ok(value)) => {
                    self.pool.give_back(lease);
                    return Ok(value);
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(self.too_late()),
            };
            self.after(&failure, kind, lease).await;
            let again = if failure.is_conflict() {
                conflicts += 1;
                conflicts < CONFLICTS_MAX
            } else {
                lost += 1;
                failure.is_lost_connection() && lost <= LOST_MAX
            };
            if !again || tokio::time::Instant::now() >= deadline {
                return Err(failure.into_error());
            }
            if conflicts > 0 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=10 * u64::from(conflicts)))).await;
            }
        }
    }

    /// One try.
    async fn one<A, T, F>(&self, kind: Kind, work: &Work<'_>, args: &A, op: &F) -> Tried<T>
    where
        F: for<'c> Fn(&'c Work<'c>, &'c A) -> Doing<'c, T>,
    {
        let conn = work.conn;
        match kind {
            Kind::Look | Kind::Statement => return op(work, args).await,
            Kind::Snapshot => begin(work, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
            Kind::Change => begin(work, "BEGIN").await?,
        }
        let value = op(work, args).await?;
        let before = Instant::now();
        conn.commit().await?;
        if kind.is_write() {
            self.committed(before);
        }
        Ok(value)
    }

    fn committed(&self, before: Instant) {
        let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.commit_us.fetch_add(took, Ordering::Relaxed);
    }

    /// Puts a connection back into order after a failed try, or away.
    async fn after(&self, failure: &Failure, kind: Kind, lease: Lease) {
        if failure.is_lost_connection() {
            // The others have most likely gone the same way.
            self.pool.forget_idle();
        }
        if !failure.spares_connection() {
            return;
        }
        let in_order = match kind {
            Kind::Look | Kind::Statement => true,
            Kind::Snapshot | Kind::Change => rolled_back(lease.conn(), self.operation_time).await,
        };
        if in_order {
            self.pool.give_back(lease);
        }
    }

    /// How long an operation may take that has another one of its kind before it.
    fn patience(&self) -> Duration {
        self.pool.acquire_time() + self.operation_time
    }

    fn too_late(&self) -> StoreError {
        StoreError::Unavailable(format!("PostgreSQL did not answer within {} ms", self.operation_time.as_millis()))
    }
}

/// Opens a transaction and looks at the clock, in one round trip. Nothing is written before the answer.
async fn begin(work: &Work<'_>, sql: &str) -> Tried<()> {
    work.conn.ready(&[CLOCK]).await?;
    let (begun, clock) = tokio::join!(biased; work.conn.plain(sql), work.conn.row(CLOCK, &[]));
    begun?;
    work.set_clock(&clock?)
}

async fn rolled_back(conn: &Connection, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, conn.plain("ROLLBACK")).await, Ok(Ok(())))
}

/// PostgreSQL's texts cannot hold the character zero. Rules and names refuse it; what comes from elsewhere gets the sign
/// for an unreadable character in its place.
fn storable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
