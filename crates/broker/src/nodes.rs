//! What nodes know of each other: their names, what they report, and how the broker itself is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use talewire_proto::ids;

use crate::BrokerError;

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
    /// Digests of the settings in which nodes of one broker must agree, by the name of their part. A node of another version may know
    /// fewer parts, or none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agreed: BTreeMap<String, String>,
}

impl NodeReport {
    /// The parts in which the two are set otherwise. A part that one of them does not know tells nothing.
    pub fn differs_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let differs = |(part, digest): &(&String, &String)| other.agreed.get(*part).is_some_and(|its| its != *digest);
        self.agreed.iter().filter(differs).map(|(part, _)| part.as_str())
    }
}

/// How the broker is, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerHealth {
    /// It answers, and what others publish comes here.
    Up,
    /// Some of its servers do not; most channels are with the others.
    Partly {
        /// Which, and why, in words for an operator.
        reason: String,
    },
    /// It does not: what is published may fail, and what others publish may come late.
    Down {
        /// Why, in words for an operator.
        reason: String,
    },
}

/// Takes letters from other nodes. Called from any thread; it must not block.
pub type LetterSink = Arc<dyn Fn(Bytes) + Send + Sync>;

/// How this node's signs of life fare.
#[derive(Debug)]
pub(crate) struct Signs {
    /// How long they may fail.
    patience: Duration,
    state: Mutex<Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    /// Since when they fail, and why the last did.
    since: Option<(Instant, String)>,
    /// Whether one that said what this node is was ever taken.
    is_known: bool,
    /// Whether the first such failed.
    is_unknown: bool,
}

impl Signs {
    pub(crate) fn new(beat_ms: u64) -> Self {
        Self { patience: Duration::from_millis(beat_ms.max(1)) * 2, state: Mutex::default() }
    }

    /// What came of one; `is_report` of one that says what this node is.
    pub(crate) fn note(&self, taken: Result<(), &BrokerError>, is_report: bool) {
        let mut state = self.state.lock();
        match taken {
            Ok(()) => {
                state.is_known |= is_report;
                state.since = None;
                state.is_unknown &= !is_report;
            }
            Err(error) => {
                let at = state.since.take().map_or_else(Instant::now, |(at, _)| at);
                state.since = Some((at, error.to_string()));
                state.is_unknown |= is_report && !state.is_known;
            }
        }
    }

    /// Why this node counts as gone for the others, or soon will: the first was not taken, or several were not.
    pub(crate) fn fault(&self) -> Option<String> {
        let state = self.state.lock();
        let (since, reason) = state.since.as_ref()?;
        let is_fault = state.is_unknown || since.elapsed() >= self.patience;
        is_fault.then(|| format!("it takes no sign of life of this node: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_versions_read_each_others_reports() {
        let old = r#"{"id":"n1","name":"a","version":"0.1.0","started_ms":5,"connections":1,"subscriptions":2,"channels":3,"draining":false}"#;
        let mut old: NodeReport = serde_json::from_str(old).expect("what is missing is empty");
        assert_eq!(old.agreed, BTreeMap::new());
        assert!(!serde_json::to_string(&old).expect("JSON").contains("agreed"));
        let agreed = |parts: &[(&str, &str)]| {
            parts.iter().map(|(part, digest)| ((*part).to_owned(), (*digest).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let new = NodeReport { agreed: agreed(&[("auth", "1"), ("namespaces", "2"), ("story", "3")]), ..old.clone() };
        assert_eq!(
            (new.differs_in(&old).count(), old.differs_in(&new).count()),
            (0, 0),
            "who says nothing differs in nothing"
        );
        old.agreed = agreed(&[("auth", "1"), ("namespaces", "other"), ("later", "9")]);
        assert_eq!(new.differs_in(&old).collect::<Vec<_>>(), ["namespaces"]);
    }
}
