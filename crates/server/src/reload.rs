//! Reading the configuration again: what asks for it (a signal, `POST /admin/reload`) and what comes back.
//!
//! The binary takes the requests, one at a time, since it alone knows where the settings came from.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A request to read the configuration again; it is answered when the new rules stand, or with the problems.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, Vec<String>>>;

/// Requests that wait; one more is told to come again.
pub const RELOADS_WAITING_MAX: usize = 4;

/// What reading the configuration again has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Settings that have changed and are in force now.
    pub changed: Vec<String>,
    /// Settings that have changed and wait for the next start.
    pub waiting: Vec<String>,
}
