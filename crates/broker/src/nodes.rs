//! What nodes know of each other: their names, what they report, and how the broker itself is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use talewire_proto::ids;

/// Names one run of one node: new at every start, so that nothing of an earlier run is taken for it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A new one that nobody can guess.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = [0; 13];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(ids::text_of_random(bytes).into())
    }

    /// One that somebody names; it may be of no node at all.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text: letters and digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NodeId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node tells of itself with every beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which run of which node.
    pub id: NodeId,
    /// How operators call it, for example the name of its machine.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Names its database: nodes of one broker have one. Empty if it does not say.
    #[serde(default)]
    pub store: String,
    /// When it started, in Unix milliseconds by its own clock.
    pub started_ms: i64,
    /// Open connections.
    pub connections: u64,
    /// Users among them, told apart by a hash.
    #[serde(default)]
    pub users: u64,
    /// Subscriptions of all of them.
    pub subscriptions: u64,
    /// Channels that somebody there is subscribed to.
    pub channels: u64,
    /// Whether it goes down and takes nobody new.
    pub draining: bool,
}

/// How the broker is, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerHealth {
    /// It answers, and what others publish comes here.
    Up,
    /// It does not: what is published may fail, and what others publish may come late.
    Down {
        /// Why, in words for an operator.
        reason: String,
    },
}

/// Takes letters from other nodes. Called from any thread; it must not block.
pub type LetterSink = Arc<dyn Fn(Bytes) + Send + Sync>;
