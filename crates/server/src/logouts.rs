//! Logins that were logged out, at this node or another one: the database is read, and neither the login nor what it has open counts
//! any longer. Logins are verified here: of those that memory says nothing of, the database is asked.
//!
//! The binary calls [`Node::learn_logouts`] before the doors open, and spawns [`Node::follow_logouts`]. A logout here needs no look
//! ([`Node::log_out`]), and orders to connections go to all nodes at once; the looks are for what neither of them has reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use talewire_auth::{Checked, Login, LoginRefusal, Logins};
use talewire_broker::{Control, Order, Whom};
use talewire_proto::grant::TokenVerdict;
use talewire_proto::{CloseCode, Grant, UserId};
use talewire_store::StoreError;

use crate::node::{Node, unix_ms};

/// Logouts that are read at once.
const PAGE: u32 = 1_000;

/// How far logouts have been read, by their places.
#[derive(Debug, Default)]
pub(crate) struct LogoutsRead {
    /// Logins up to here are not believed any more.
    believed: AtomicI64,
    /// What they had open here is ended up to here: not as far while a thread has no room for the order.
    ended: AtomicI64,
}

impl Node {
    /// Looks which logins were logged out since the last look.
    ///
    /// # Errors
    /// When the store does not answer: what was not read is read next time.
    pub async fn learn_logouts(&self) -> Result<(), StoreError> {
        let (logins, read) = (&self.auth.logins, &self.logouts_read);
        loop {
            let logouts = self.store.logouts(read.believed.load(Ordering::Relaxed), PAGE).await?;
            let now_ms = unix_ms();
            for logout in logouts.iter().filter(|logout| !logins.has_ended(logout.issued_at, now_ms)) {
                logins.log_out(&logout.user, logout.issued_at);
            }
            if let Some(last) = logouts.last() {
                read.believed.store(last.seq, Ordering::Relaxed);
            }
            if logouts.len() < PAGE as usize {
                break;
            }
        }
        logins.forget_ended(unix_ms());
        self.metrics.logouts_kept.set(i64::try_from(logins.logouts()).unwrap_or(i64::MAX));
        self.end_what_is_open().await
    }

    /// Ends what logins have open here that are not believed any more. The database keeps those for which there is no room.
    async fn end_what_is_open(&self) -> Result<(), StoreError> {
        let LogoutsRead { believed, ended } = &self.logouts_read;
        let to = believed.load(Ordering::Relaxed);
        if self.inboxes().is_none() {
            // The doors are not open: nobody has anything open.
            ended.store(to, Ordering::Relaxed);
        }
        while ended.load(Ordering::Relaxed) < to {
            let logouts = self.store.logouts(ended.load(Ordering::Relaxed), PAGE).await?;
            let now_ms = unix_ms();
            for logout in logouts.iter().take_while(|logout| logout.seq <= to) {
                if !self.auth.logins.has_ended(logout.issued_at, now_ms) && !self.end_here(&logout.user) {
                    return Ok(());
                }
                ended.store(logout.seq, Ordering::Relaxed);
            }
            if logouts.last().is_none_or(|last| last.seq >= to) {
                ended.store(to, Ordering::Relaxed);
            }
        }
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

    /// Verifies a login.
    ///
    /// # Errors
    /// [`LoginRefusal`]; [`LoginRefusal::Unknown`] says nothing against it.
    pub(crate) async fn verify_login(&self, text: &str, now_ms: i64) -> Result<Login, LoginRefusal> {
        let login = match self.auth.logins.verify(text, now_ms)? {
            Checked::Good(login) => return Ok(login),
            Checked::Ask(login) => login,
        };
        match self.is_out(&login.user, login.issued_at_ms).await {
            Some(false) => Ok(login),
            Some(true) => Err(LoginRefusal::LoggedOut),
            None => Err(LoginRefusal::Unknown),
        }
    }

    /// Verifies the token of a connect or refresh command, be it a token of another system or a login.
    pub(crate) async fn verify_connect(&self, token: &str, now_ms: i64) -> TokenVerdict<Grant> {
        if !Logins::is_login(token) {
            return self.auth.tokens.verify_connect(token, now_ms);
        }
        match self.verify_login(token, now_ms).await {
            Ok(login) => TokenVerdict::Good(login.grant()),
            Err(LoginRefusal::Expired) => TokenVerdict::Expired,
            Err(LoginRefusal::Unknown) => TokenVerdict::Unknown,
            Err(_) => TokenVerdict::Bad,
        }
    }

    /// Whether a login was logged out, by memory or by the database; nothing if neither says it.
    pub(crate) async fn is_out(&self, user: &UserId, issued_at_ms: i64) -> Option<bool> {
        let known = self.auth.logins.is_out(user, issued_at_ms);
        if known.is_some() {
            return known;
        }
        self.metrics.logins_asked.inc();
        let asked = self.store.is_logged_out(user, issued_at_ms).await;
        asked.inspect_err(|error| tracing::warn!(%error, "it is not known whether a login was logged out")).ok()
    }

    /// Ends a login for good, with everything that it has open on any node.
    ///
    /// # Errors
    /// When the store did not say that it took it: then it may have, and the next look tells.
    pub(crate) async fn log_out(&self, user: &UserId, issued_at_ms: i64, expires_at_ms: i64) -> Result<(), StoreError> {
        self.store.log_out(user, issued_at_ms, expires_at_ms).await?;
        // Here and at once: whoever asked for it may not stay until other nodes are told.
        self.auth.logins.log_out(user, issued_at_ms);
        self.end_here(user);
        if let Err(error) = self.broker.control(ending(user)).await {
            tracing::warn!(%error, "other nodes hear of a logout by the database alone");
        }
        Ok(())
    }

    /// Ends what a user has open here. A guest has one login: whoever is here as this user is here by it. False if a thread has no
    /// room for the order: the next look gives it again.
    fn end_here(&self, user: &UserId) -> bool {
        if !self.guard.is_here(self.hash(user.as_str())) {
            return true;
        }
        let taken = self.inboxes().is_none_or(|inboxes| inboxes.control(&ending(user)));
        if !taken {
            tracing::warn!("connections outlive a logout for now: a thread has no room for the order");
        }
        taken
    }
}

fn ending(user: &UserId) -> Control {
    let order = Order::Disconnect { code: CloseCode::ForceDisconnect, keep: Vec::new() };
    Control { whom: Whom::user(user.clone()), order }
}

#[cfg(test)]
mod tests;
