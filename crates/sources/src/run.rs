//! The one loop of every source: open it, take a batch, publish it, put aside what cannot be, acknowledge; after a
//! failure open it again, whereupon it gives once more whatever was not acknowledged.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::counts::count;
use crate::feed::{Aside, Feed};
use crate::message::Taken;

/// How long a source waits for messages before it looks whether it is to stop.
pub(crate) const WAIT: Duration = Duration::from_millis(500);

/// Why a source does not go on. It is opened again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SourceError(String);

impl SourceError {
    pub(crate) fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// An open source.
pub(crate) trait Inlet: Sized {
    /// The next messages in their order, at most as many as may be under way; none when there are none for [`WAIT`].
    async fn take(&mut self) -> Result<Vec<Taken>, SourceError>;

    /// All messages of the batch are published or named in `asides`: puts those aside with their reasons, then gives up all claims to
    /// the batch. What was taken and not acknowledged comes again.
    async fn acknowledge(&mut self, batch: &[Taken], asides: &[Aside]) -> Result<(), SourceError>;

    /// How many messages wait in the source, as far as that is known.
    async fn lag(&mut self) -> Result<Option<u64>, SourceError>;

    /// Takes leave: everything taken was acknowledged.
    async fn close(self);
}

/// How often the source is asked how much waits.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Runs a source until `stop`.
pub(crate) async fn run<I: Inlet>(
    feed: Feed,
    open: impl AsyncFn(&Feed) -> Result<I, SourceError>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(feed.settings.retry_ms, feed.settings.retry_ms_max);
    loop {
        let Some(opened) = stop.run_until_cancelled(open(&feed)).await else { return };
        let ended = match opened {
            Ok(inlet) => {
                feed.counts.connected.store(1, Relaxed);
                carry_all(&feed, inlet, &stop, &mut backoff).await
            }
            Err(error) => Err(error),
        };
        feed.counts.connected.store(0, Relaxed);
        let Err(error) = ended else { return };
        count(&feed.counts.failures);
        tracing::warn!(source = %feed.name, %error, "a source failed and is opened again");
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
            return;
        }
    }
}

async fn carry_all<I: Inlet>(
    feed: &Feed,
    mut inlet: I,
    stop: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), SourceError> {
    let mut lag_asked = None;
    while !stop.is_cancelled() {
        if lag_asked.is_none_or(|at: tokio::time::Instant| at.elapsed() >= LAG_EVERY) {
            if let Some(lag) = inlet.lag().await? {
                feed.counts.lag.store(lag, Relaxed);
            }
            lag_asked = Some(tokio::time::Instant::now());
        }
        let batch = inlet.take().await?;
        if batch.is_empty() {
            continue;
        }
        // What is under way when we are stopped comes again, to whoever opens the source next.
        let Some(asides) = stop.run_until_cancelled(feed.carry(&batch)).await else { return Ok(()) };
        inlet.acknowledge(&batch, &asides).await?;
        backoff.reset();
    }
    inlet.close().await;
    Ok(())
}
