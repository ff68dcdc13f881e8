//! The roll of nodes: who lives, by the server's clock, and what each reports.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::answers::{integer, list, text, unknown};
use super::scripts::Script;
use super::servers::{Lost, Servers};
use crate::{BrokerError, NodeId, NodeReport};

/// Bytes of a node's stamp, as members of presence carry it.
pub(crate) const STAMP_BYTES: usize = 20;

/// How long the roll as it was read is believed.
const BELIEVED: Duration = Duration::from_millis(1_000);

pub(crate) struct Roll {
    stamp: String,
    lease_ms: u64,
    /// What this node reports, as JSON; nothing before its first report.
    report: Mutex<Option<String>>,
    seen: Mutex<Option<(Instant, Arc<HashSet<String>>)>>,
    /// Whether this node has taken its leave: nobody is present on it any more.
    pub(crate) departed: AtomicBool,
}

/// What a sign of life has shown.
pub(crate) struct Seen {
    /// Whether the others still took this node to live.
    pub(crate) was_known: bool,
    /// Names the run of the master that keeps the roll.
    pub(crate) mastership: String,
    /// Nodes that do not live any more and have not been cleared away.
    pub(crate) dead: Vec<String>,
    /// Another text whenever some node has put garbage out of the way.
    pub(crate) mended: String,
}

impl Roll {
    pub(crate) fn new(node: &NodeId, lease_ms: u64) -> Self {
        let stamp = crate::occupancy::stamp_of(node);
        Self { stamp, lease_ms, report: Mutex::default(), seen: Mutex::default(), departed: false.into() }
    }

    /// This node as the others know it.
    pub(crate) fn stamp(&self) -> &str {
        &self.stamp
    }

    pub(crate) fn report(&self, report: &NodeReport) {
        *self.report.lock() = serde_json::to_string(report).ok();
    }

    /// Whether this node has said what it is.
    pub(crate) fn has_report(&self) -> bool {
        self.report.lock().is_some()
    }

    /// Gives a sign of life, and looks who else does.
    pub(crate) async fn beat(&self, servers: &Servers) -> Result<Seen, BrokerError> {
        let keys = [servers.names.nodes(), servers.names.reports()];
        let lease = self.lease_ms.max(1).to_string();
        let report = self.report.lock().clone().unwrap_or_default();
        let arguments = [self.stamp.as_bytes(), lease.as_bytes(), report.as_bytes()];
        let answer = servers.call(Script::Beat, &keys, &arguments, Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let (Some(known), Some(mastership), Some(live), Some(dead), Some(mended)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        // What is no stamp was not written by us.
        let stamps = |value| Ok(list(value)?.into_iter().filter_map(|value| text(value).ok()).collect::<Vec<String>>());
        self.note(stamps(live)?);
        Ok(Seen {
            was_known: integer(&known)? == 1,
            mastership: text(mastership)?,
            dead: stamps(dead)?,
            mended: text(mended)?,
        })
    }

    fn note(&self, live: Vec<String>) -> Arc<HashSet<String>> {
        let live: Arc<HashSet<String>> = Arc::new(live.into_iter().collect());
        *self.seen.lock() = Some((Instant::now(), live.clone()));
        live
    }

    /// The nodes that live, as of a moment ago.
    pub(crate) async fn live(&self, servers: &Servers) -> Result<HashSet<String>, BrokerError> {
        let seen = self.seen.lock().clone();
        match seen {
            Some((at, live)) if at.elapsed() < BELIEVED => Ok((*live).clone()),
            _ => self.look(servers).await,
        }
    }

    /// The nodes that live now.
    pub(crate) async fn look(&self, servers: &Servers) -> Result<HashSet<String>, BrokerError> {
        let live = self.read(servers).await?.into_iter().map(|(stamp, _)| stamp).collect();
        Ok((*self.note(live)).clone())
    }

    /// What the nodes that live report, those that have reported, oldest first.
    pub(crate) async fn reports(&self, servers: &Servers) -> Result<Vec<NodeReport>, BrokerError> {
        let read = self.read(servers).await?;
        let mut reports: Vec<NodeReport> =
            read.iter().filter_map(|(_, report)| serde_json::from_str(report).ok()).collect();
        reports.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
        Ok(reports)
    }

    async fn read(&self, servers: &Servers) -> Result<Vec<(String, String)>, BrokerError> {
        let keys = [servers.names.nodes(), servers.names.reports()];
        let answer = servers.call(Script::Nodes, &keys, &[], Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let mut nodes = Vec::with_capacity(parts.len() / 2);
        while let (Some(stamp), Some(report)) = (parts.next(), parts.next()) {
            if let Ok(stamp) = text(stamp) {
                nodes.push((stamp, text(report).unwrap_or_default()));
            }
        }
        Ok(nodes)
    }

    /// Takes a node off the roll: this one, that goes, or one that does not live.
    pub(crate) async fn strike(&self, servers: &Servers, stamp: &str) -> Result<(), BrokerError> {
        let keys = [servers.names.nodes(), servers.names.reports()];
        let by_itself: &[u8] = if stamp == self.stamp { b"1" } else { b"0" };
        servers.call(Script::Bury, &keys, &[stamp.as_bytes(), by_itself], Lost::Repeat).await.map(drop)
    }
}
