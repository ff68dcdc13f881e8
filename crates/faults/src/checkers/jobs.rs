//! I9: every generation that was accepted ends once, and its turn is the text that readers of its stream put together.

use std::collections::{BTreeMap, HashMap};

use super::{Invariant, Verdict};
use crate::log::{self, Event, JobEnd, Kind, Lasts, Name, What};

pub(super) fn check(events: &[Event], verdict: &mut Verdict) {
    // Where a broker may be away, so may be the end of a stream; the turn in the story's log takes its place. But whoever heard the end
    // was told that something is missing.
    let in_memory = |kind: &Kind| matches!(kind, Kind::History { lasts: Lasts::InMemory, .. });
    let may_be_cut = !log::kinds(events).values().any(in_memory);
    let mut ends: BTreeMap<&Name, Vec<&JobEnd>> = BTreeMap::new();
    let mut texts: HashMap<&Name, (u64, &str, Option<u64>)> = HashMap::new();
    let mut worked: BTreeMap<(&Name, u32), (u64, u64)> = BTreeMap::new();
    for event in events {
        match &event.what {
            What::Worked { node, number, done, fenced, .. } => {
                worked.insert((node, *number), (*done, *fenced));
            }
            What::JobAccepted { job } => {
                ends.entry(job).or_default();
            }
            What::JobEnded { job, end } => ends.entry(job).or_default().push(end),
            What::JobText { job, attempt, text, ended: true, at, .. } => {
                let known = texts.entry(job).or_insert((*attempt, text, *at));
                if *attempt >= known.0 {
                    *known = (*attempt, text, *at);
                }
            }
            What::JobLate { job, attempt } => {
                verdict.is_wrong(Invariant::Jobs, || format!("{job}: text of attempt {attempt} behind its end"));
            }
            _ => {}
        }
    }
    verdict.counts.taken_over = texts.values().filter(|(attempt, ..)| *attempt > 1).count() as u64;
    for ((node, _), (done, fenced)) in worked {
        verdict.counts.fenced += fenced;
        verdict.counts.done_by_workers += if node.starts_with("worker") { done } else { 0 };
    }
    for (job, ends) in ends {
        verdict.counts.jobs += 1;
        let [end] = ends.as_slice() else {
            verdict.is_wrong(Invariant::Jobs, || format!("{job} was accepted and ended {} times", ends.len()));
            continue;
        };
        if (end.status == "done") != end.turn.is_some() && end.status != "cancelled" {
            verdict.is_wrong(Invariant::Jobs, || {
                format!("{job} is {} and its turn is there: {}", end.status, end.turn.is_some())
            });
        }
        let Some((turn, (attempt, text, at))) = end.turn.as_deref().zip(texts.get(job)) else { continue };
        verdict.counts.job_texts += 1;
        let is_cut = turn.trim() != text.trim() && turn.trim().starts_with(text.trim());
        verdict.counts.job_texts_cut += u64::from(is_cut);
        let is_told = at.is_none_or(|at| at > text.encode_utf16().count() as u64);
        if turn.trim() != text.trim() && !(is_cut && may_be_cut && is_told) {
            let (a, b) = (turn.chars().count(), text.chars().count());
            verdict.is_wrong(Invariant::Jobs, || {
                format!("{job}: the turn of {a} characters is not the text of attempt {attempt}, {b} characters")
            });
        }
    }
}
