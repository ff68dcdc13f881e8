//! Logins that were logged out, at this node or another one: the database is read, and neither the login nor what it has open counts
//! any longer.
//!
//! The binary calls [`Node::learn_logouts`] before the doors open, and spawns [`Node::follow_logouts`]. A logout here needs no look
//! ([`Node::log_out`]), and orders to connections go to all nodes at once; the looks are for what a broker did not carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use talewire_auth::Login;
use talewire_broker::{Control, Order, Whom};
use talewire_proto::{CloseCode, UserId};
use talewire_store::StoreError;

use crate::node::{Node, unix_ms};

/// Logouts that are read at once.
const PAGE: u32 = 1_000;

/// How far before the last place a look begins again: two nodes may be at it at once, and the later place be there first.
const OVERLAP: i64 = 500;

/// How far logouts have been read.
#[derive(Debug, Default)]
pub(crate) struct LogoutsRead(AtomicI64);

impl Node {
    /// Looks which logins were logged out since the last look.
    ///
    /// # Errors
    /// When the store does not answer: what was not read is read next time.
    pub async fn learn_logouts(&self) -> Result<(), StoreError> {
        let logins = &self.auth.logins;
        let mut after = self.logouts_read.0.load(Ordering::Relaxed).saturating_sub(OVERLAP);
        loop {
            let logouts = self.store.logouts(after, PAGE).await?;
            for logout in &logouts {
                after = logout.seq;
                self.logouts_read.0.fetch_max(after, Ordering::Relaxed);
                if logins.log_out(&logout.user, logout.issued_at) {
                    self.close_here(&logout.user);
                }
            }
            if logouts.len() < PAGE as usize {
                break;
            }
        }
        logins.forget_ended(unix_ms());
        Ok(())
    }

    /// Looks again and again, for ever.
    pub async fn follow_logouts(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.learn_logouts().await {
                tracing::debug!(%error, "logouts at other nodes could not be read");
            }
        }
    }

    /// Ends a login for good, with everything that it has open on any node.
    ///
    /// # Errors
    /// When the store did not take it: then the login is as it was.
    pub(crate) async fn log_out(&self, login: &Login) -> Result<(), StoreError> {
        self.store.log_out(&login.user, login.issued_at_ms, login.expires_at_ms).await?;
        self.auth.logins.log_out(&login.user, login.issued_at_ms);
        if let Err(error) = self.broker.control(ending(&login.user)).await {
            tracing::warn!(%error, "other nodes hear of a logout by the database alone");
            self.close_here(&login.user);
        }
        Ok(())
    }

    /// A guest has one login: whoever is here as this user is here by it.
    fn close_here(&self, user: &UserId) {
        let taken = self.inboxes().is_none_or(|inboxes| inboxes.control(&ending(user)));
        if !taken {
            tracing::warn!("connections outlive a logout: a thread has no room for the order");
        }
    }
}

fn ending(user: &UserId) -> Control {
    let order = Order::Disconnect { code: CloseCode::ForceDisconnect, keep: Vec::new() };
    Control { whom: Whom::user(user.clone()), order }
}
