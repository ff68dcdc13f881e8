//! What a run says at its end, for people and as JSON.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::checkers::{Counts, Verdict};
use crate::log::{self, Event, Kind, Name, Outcome, What};
use crate::run::RunOptions;

/// One fault and what it did to writers and readers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FaultLine {
    /// Its place in the schedule.
    pub number: u32,
    /// What was done.
    pub fault: String,
    /// Until everything was whole again, in milliseconds.
    pub lasted_ms: u64,
    /// The longest time without an acknowledgement in durable channels, until the next fault, in milliseconds.
    pub durable_gap_ms: u64,
    /// The same in history channels.
    pub history_gap_ms: u64,
    /// From its beginning until somebody got something that was published since, in milliseconds.
    pub delivery_ms: Option<u64>,
    /// Entries that were acknowledged between its beginning and the next fault's, and are gone with their epoch.
    pub gone: usize,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What it is made from again.
    pub seed: u64,
    /// On what the nodes stood.
    pub stage: String,
    /// How many nodes.
    pub nodes: usize,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// What was seen, and what was wrong.
    pub verdict: Verdict,
    /// Every fault.
    pub faults: Vec<FaultLine>,
}

impl Report {
    /// Out of a finished run.
    #[must_use]
    pub fn new(options: &RunOptions, events: &[Event], verdict: Verdict, took: Duration) -> Self {
        let mut faults = faults(events);
        gone(&mut faults, events, &verdict);
        Self {
            seed: options.seed,
            stage: format!("{:?}", options.stage.ground).to_lowercase(),
            nodes: options.stage.nodes,
            took_s: took.as_secs_f64(),
            verdict,
            faults,
        }
    }
}

fn gone(lines: &mut [FaultLine], events: &[Event], verdict: &Verdict) {
    let begins = |event: &Event| matches!(event.what, What::Fault { .. } | What::Quiet).then_some(event.at_us);
    let begins_us: Vec<u64> = events.iter().filter_map(begins).collect();
    for (line, between) in lines.iter_mut().zip(begins_us.windows(2)) {
        line.gone = verdict.gone_us.range(between[0]..between[1]).count();
    }
}

/// What is seen between the beginning of a fault and that of the next.
fn faults(events: &[Event]) -> Vec<FaultLine> {
    let kinds = log::kinds(events);
    let mut lines: Vec<FaultLine> = Vec::new();
    let mut asked: HashMap<&Name, u64> = HashMap::new();
    let mut is_durable: HashMap<u64, bool> = HashMap::new();
    let mut began_us = 0;
    // In durable and in history channels.
    let mut acknowledged_us = [0, 0];
    for Event { at_us, what } in events {
        let since_ms = |from_us: u64| at_us.saturating_sub(from_us) / 1_000;
        match what {
            What::Fault { .. } | What::Quiet => {
                if let Some(line) = lines.last_mut() {
                    line.durable_gap_ms = line.durable_gap_ms.max(since_ms(acknowledged_us[0]));
                    line.history_gap_ms = line.history_gap_ms.max(since_ms(acknowledged_us[1]));
                }
                let What::Fault { number, fault } = what else { return lines };
                (began_us, acknowledged_us) = (*at_us, [*at_us; 2]);
                let line = FaultLine { number: *number, fault: fault.clone(), ..FaultLine::default() };
                lines.push(line);
            }
            What::Healed { .. } => {
                if let Some(line) = lines.last_mut() {
                    line.lasted_ms = since_ms(began_us);
                }
            }
            What::Asked { op, channel, key, .. } => {
                asked.entry(key).or_insert(*at_us);
                is_durable.insert(*op, kinds.get(channel) == Some(&Kind::Durable));
            }
            What::Answered { op, outcome: Outcome::Kept(_) | Outcome::Said } => {
                let which = usize::from(is_durable.remove(op) == Some(false));
                if let Some(line) = lines.last_mut() {
                    let gap_ms = if which == 0 { &mut line.durable_gap_ms } else { &mut line.history_gap_ms };
                    *gap_ms = (*gap_ms).max(since_ms(acknowledged_us[which]));
                }
                acknowledged_us[which] = *at_us;
            }
            What::Delivered { content, .. } => {
                let is_new = asked.get(&content.key).is_some_and(|asked_us| *asked_us >= began_us);
                if let Some(line) = lines.last_mut().filter(|line| line.delivery_ms.is_none() && is_new) {
                    line.delivery_ms = Some(since_ms(began_us));
                }
            }
            _ => {}
        }
    }
    lines
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, stage, nodes, took_s, verdict, faults } = self;
        writeln!(f, "stage {stage}, {nodes} node(s), seed {seed}, {} faults in {took_s:.0} s", faults.len())?;
        for FaultLine { number, fault, lasted_ms, durable_gap_ms, history_gap_ms, delivery_ms, gone } in faults {
            let gone = if *gone == 0 { String::new() } else { format!(", gone with their epoch: {gone}") };
            let delivery = delivery_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
            writeln!(
                f,
                "{number:>3}  {fault}: lasted {lasted_ms} ms, writing stood still for {durable_gap_ms} ms (durable) and {history_gap_ms} ms (history), \
                 news after {delivery}{gone}"
            )?;
        }
        let Counts {
            published,
            acknowledged,
            unknown,
            unknown_kept,
            refused,
            repeated,
            gone_with_epoch,
            begun_anew,
            ..
        } = &verdict.counts;
        let anew = if *begun_anew == 0 { String::new() } else { format!(" (histories begun anew: {begun_anew})") };
        writeln!(
            f,
            "published {published}: acknowledged {acknowledged}, refused {refused}, unknown {unknown} (of which kept \
             {unknown_kept}); said again {repeated}; gone with their epoch, which was told: {gone_with_epoch}{anew}"
        )?;
        let Counts {
            delivered,
            breaks,
            resumes,
            resumes_lost,
            gaps,
            jobs,
            job_texts,
            job_texts_cut,
            presence_reads,
            taken_over,
            done_by_workers,
            fenced,
            orders,
            orders_seen,
            ..
        } = &verdict.counts;
        writeln!(
            f,
            "delivered {delivered} over connections that broke {breaks} times; resumed {resumes} times, of which {resumes_lost} \
             were told of a loss; gaps told on open connections {gaps}"
        )?;
        writeln!(
            f,
            "generations {jobs} (by the worker {done_by_workers}, taken over {taken_over}, attempts fenced off {fenced}), texts \
             compared {job_texts} (cut off {job_texts_cut}); presence compared {presence_reads} times"
        )?;
        writeln!(f, "orders given during faults {orders}, carried out before their readers' eyes {orders_seen}")?;
        let Counts { lost, doubled, out_of_order, lies, needless, .. } = &verdict.counts;
        writeln!(f, "lost {lost}, doubled {doubled}, out of order {out_of_order}, lies {lies}, needless {needless}")?;
        write!(f, "{verdict}")?;
        f.write_str(if verdict.is_green() { "GREEN" } else { "RED" })
    }
}
