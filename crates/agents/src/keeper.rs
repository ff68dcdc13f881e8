//! Keeps the lease of one job while its attempt runs, and tells the attempt what it learns: that people want it to stop,
//! or that the lease is gone. Started by the worker beside each attempt.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use talewire_proto::GenerationId;
use talewire_store::{Renewed, Store};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// What an attempt has to heed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// People want it to stop: keep what is there and end.
    pub(crate) cancel: CancellationToken,
    /// The lease is gone: write nothing more.
    pub(crate) lost: CancellationToken,
    /// The process goes down: hand the job back.
    pub(crate) drain: CancellationToken,
}

/// Renews every third of the lease, and at once when nudged. Never ends by itself; dropped with the attempt.
pub(crate) async fn keep(
    store: &Store,
    generation: &GenerationId,
    attempt: u32,
    lease: Duration,
    nudge: &Notify,
    signals: &Signals,
) -> Infallible {
    let mut held_until = Instant::now() + lease;
    let mut pause = lease / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = nudge.notified() => {}
        }
        let asked_at = Instant::now();
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        match timeout(lease / 3, store.renew(generation, attempt, lease_ms)).await {
            Ok(Ok(Renewed::Held { cancel })) => {
                held_until = asked_at + lease;
                pause = lease / 3;
                if cancel {
                    signals.cancel.cancel();
                }
            }
            Ok(Ok(Renewed::Lost)) => break,
            // The store does not answer: ask more often, and give up before others may take the job.
            Ok(Err(_)) | Err(_) => {
                pause = lease / 10;
                if Instant::now() + pause >= held_until {
                    break;
                }
            }
        }
    }
    signals.lost.cancel();
    pending().await
}
