//! What a verified login or token allows on one connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::Channel;
use crate::ids::UserId;
use crate::payload::Payload;

/// What a client may do, made by `talewire-auth` from a token or a login, and asked by the session on every command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Who it is; empty for the anonymous.
    pub user: UserId,
    /// What other subscribers see about the user (`conn_info`).
    pub info: Option<Payload>,
    /// When the connection ends unless refreshed, in Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// When the login was issued that it comes from, in Unix milliseconds: with the user, this names the login. A token is none of ours.
    pub login_ms: Option<i64>,
    /// Channels that the token subscribes the connection to by itself.
    pub channels: BTreeSet<Channel>,
    /// Everything is allowed, in namespaces that are configured; only by the insecure development flag.
    pub insecure: bool,
}

/// What a verified subscription token allows: one user, one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionGrant {
    /// Whom the token is for.
    pub user: UserId,
    /// The channel it is for.
    pub channel: Channel,
    /// What other subscribers see about the user in this channel (`chan_info`).
    pub info: Option<Payload>,
    /// When the subscription ends unless refreshed, in Unix milliseconds.
    pub expires_at_ms: Option<i64>,
}

/// What verifying a token came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenVerdict<G> {
    /// It is good.
    Good(G),
    /// It was good once.
    Expired,
    /// It is not good; why is for the log, never for the client.
    Bad,
    /// Whether it is good cannot be said now.
    Unknown,
}

/// Fixed labels of a grant for tests and logs.
impl Grant {
    /// A grant for a user with nothing else.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self { user, ..Self::default() }
    }

    /// The `conn_info` of a person with a display name.
    #[must_use]
    pub fn named(user: UserId, name: &str) -> Self {
        let info = Payload::of(&BTreeMap::from([("name", name)]));
        Self { user, info: Some(info), ..Self::default() }
    }
}
