//! Whether the nodes of one broker are set alike, and whether those of one database are all of one broker: what each says of itself comes
//! in, whom to warn of goes out.
//!
//! Nodes with other rules for the same channel keep two histories of it, or let in whom others refuse, and neither of them errs. So each
//! says with its signs of life how it is set ([`NodeReport::agreed`]), and [`crate::nodes`] asks here after each what is to be told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use talewire_broker::{NodeId, NodeReport};

/// Beats for which others may differ before it is told: nodes that are restarted or read their settings again one by one differ a while.
const PATIENCE_BEATS: u32 = 6;

/// Those that differ from this node, for as long as they live and do.
#[derive(Debug)]
pub(crate) struct Agreement {
    patience: Duration,
    differing: HashMap<NodeId, Since>,
}

#[derive(Debug)]
struct Since {
    parts: String,
    began: Instant,
    told: bool,
}

/// Users of the same database that are not heard over this broker: what they publish comes late here, or never.
#[derive(Debug)]
pub(crate) struct Unheard {
    patience: Duration,
    /// Since when, and whether it was told.
    since: HashMap<String, (Instant, bool)>,
}

/// Beats for which a user of the database may be unheard: one that starts or has just died is, for a moment.
const UNHEARD_BEATS: u32 = 3;

impl Unheard {
    pub(crate) fn new(beat: Duration) -> Self {
        Self { patience: beat * UNHEARD_BEATS, since: HashMap::new() }
    }

    /// How many have been unheard for too long.
    pub(crate) fn count(&self) -> usize {
        self.since.values().filter(|(_, told)| *told).count()
    }

    /// Takes note of who is unheard now. Each is told once.
    pub(crate) fn note(&mut self, names: impl IntoIterator<Item = String>, now: Instant) -> Vec<String> {
        let mut before = std::mem::take(&mut self.since);
        let mut news = Vec::new();
        for name in names {
            let (began, mut told) = before.remove(&name).unwrap_or((now, false));
            if !told && now.saturating_duration_since(began) >= self.patience {
                told = true;
                news.push(name.clone());
            }
            self.since.insert(name, (began, told));
        }
        news
    }
}

/// What is to be told about another node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News<'a> {
    /// It has been set otherwise for too long, in these parts.
    Differs(&'a NodeReport, String),
    /// It is set like this one again.
    Agrees(&'a NodeReport),
}

/// The parts in which another node is set otherwise, in words; nothing if there are none.
pub(crate) fn parts(me: &NodeReport, other: &NodeReport) -> Option<String> {
    let parts: Vec<_> = me.differs_in(other).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

impl Agreement {
    pub(crate) fn new(beat: Duration) -> Self {
        Self { patience: beat * PATIENCE_BEATS, differing: HashMap::new() }
    }

    /// How many nodes differ.
    pub(crate) fn differing(&self) -> usize {
        self.differing.len()
    }

    /// Takes note of who lives now. Each difference is told once, and its end if it was told.
    pub(crate) fn note<'a>(&mut self, me: &NodeReport, known: &'a [NodeReport], now: Instant) -> Vec<News<'a>> {
        let mut before = std::mem::take(&mut self.differing);
        let mut news = Vec::new();
        for other in known {
            let was = before.remove(&other.id);
            let Some(parts) = parts(me, other) else {
                if was.is_some_and(|was| was.told) {
                    news.push(News::Agrees(other));
                }
                continue;
            };
            let mut since = was.unwrap_or_else(|| Since { parts: parts.clone(), began: now, told: false });
            if since.parts != parts {
                since = Since { parts, told: false, ..since };
            }
            if !since.told && now.saturating_duration_since(since.began) >= self.patience {
                since.told = true;
                news.push(News::Differs(other, since.parts.clone()));
            }
            self.differing.insert(other.id.clone(), since);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, agreed: &[(&str, &str)]) -> NodeReport {
        let mut report: NodeReport = serde_json::from_value(serde_json::json!({
            "id": name, "name": name, "version": "1", "started_ms": 0, "connections": 0, "subscriptions": 0, "channels": 0,
            "draining": false,
        }))
        .expect("a report");
        report.agreed = agreed.iter().map(|(part, digest)| ((*part).to_owned(), (*digest).to_owned())).collect();
        report
    }

    #[test]
    fn who_is_unheard_for_long_is_told_of_once() {
        let (beat, start) = (Duration::from_secs(5), Instant::now());
        let mut unheard = Unheard::new(beat);
        let mut note = |names: &[&str], beats| {
            let told = unheard.note(names.iter().map(|name| (*name).to_owned()), start + beat * beats);
            (told, unheard.count())
        };
        assert_eq!(note(&["a", "b"], 0), (vec![], 0));
        assert_eq!(note(&["a"], 2), (vec![], 0), "b was only starting");
        assert_eq!(note(&["a", "b"], 3), (vec!["a".to_owned()], 1));
        assert_eq!(note(&["a", "b"], 4), (vec![], 1), "once");
        assert_eq!(note(&["b"], 6), (vec!["b".to_owned()], 1));
        assert_eq!(note(&[], 7), (vec![], 0));
    }

    #[test]
    fn who_differs_for_long_is_told_of_once() {
        let beat = Duration::from_secs(5);
        let (mut agreement, start) = (Agreement::new(beat), Instant::now());
        let me = report("me", &[("auth", "1"), ("namespaces", "1")]);
        let other = report("other", &[("auth", "1"), ("namespaces", "2")]);
        let nodes = [me.clone(), other.clone(), report("old", &[])];
        let later = |beats| start + beat * beats;
        assert_eq!(
            (agreement.note(&me, &nodes, start), agreement.differing()),
            (vec![], 1),
            "a restart of all, one by one"
        );
        assert_eq!(agreement.note(&me, &nodes, later(PATIENCE_BEATS - 1)), []);
        assert_eq!(agreement.note(&me, &nodes, later(PATIENCE_BEATS)), [News::Differs(&other, "namespaces".into())]);
        assert_eq!((agreement.note(&me, &nodes, later(60)), agreement.differing()), (vec![], 1), "once");
        let worse = [report("other", &[("auth", "2"), ("namespaces", "2")])];
        assert_eq!(agreement.note(&me, &worse, later(61)), [News::Differs(&worse[0], "auth, namespaces".into())]);
        let mended = [report("other", &[("auth", "1"), ("namespaces", "1")])];
        assert_eq!(
            (agreement.note(&me, &mended, later(62)), agreement.differing()),
            (vec![News::Agrees(&mended[0])], 0)
        );
        assert_eq!(agreement.note(&me, &nodes, later(63)), [], "the time begins anew");
        assert_eq!(
            (agreement.note(&me, &[], later(64)), agreement.differing()),
            (vec![], 0),
            "who is gone differs no more"
        );
    }
}
