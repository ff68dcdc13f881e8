//! Publications, entries and positions: what a channel carries, and where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, UserId};
use crate::payload::Payload;

/// Names one unbroken history of a channel. It changes whenever history was, or may have been, lost.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch from its text; clients treat it as opaque.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The epoch as text, empty where a client does not know it yet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no epoch was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an entry stands in its channel. The first entry has offset 1; offset 0 is the place before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Position {
    /// Rises by one with each entry.
    pub offset: u64,
    /// The history that the offset belongs to.
    pub epoch: Epoch,
}

/// From where a reader wants entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// From the oldest entry that is kept.
    Oldest,
    /// From the entry after this offset on, or, read backwards, from the entry before it down.
    After(u64),
    /// Backwards from the newest.
    Newest,
}

/// Who published, as other subscribers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClientInfo {
    /// The user, empty for the anonymous.
    pub user: UserId,
    /// The connection; absent for publications over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// What the token or login says about the user, for example the display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Payload>,
    /// What the subscription token says about the user in this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Payload>,
}

/// One message in a channel, kept (an entry) or not (a signal).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publication {
    /// The payload, absent only in tombstones.
    pub data: Option<Payload>,
    /// Who published it, if a client did.
    pub info: Option<ClientInfo>,
    /// Short labels that filters look at.
    pub tags: BTreeMap<String, String>,
    /// When it was accepted, in Unix milliseconds; 0 if unknown. Never used for order.
    pub time_ms: i64,
}

/// A publication that is kept in its channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, from 1.
    pub offset: u64,
    /// What it says.
    pub publication: Publication,
}
