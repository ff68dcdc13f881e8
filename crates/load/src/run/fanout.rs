//! One channel with many subscribers. Each run opens the connections, publishes, checks and closes them, first at the server and
//! then at the baseline; from the second run on in turn.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::baseline::Baseline;
use crate::descriptors;
use crate::error::LoadError;
use crate::latency::Percentiles;
use crate::ledger::Ledger;
use crate::options::{Fanout, readers};
use crate::pace::Schedule;
use crate::process;
use crate::report::{Cost, Growth, Window, median, number};
use crate::sockets::{Patience, Role, Sockets, Target, Transport};
use crate::speakers::Speakers;

/// Everything that `fanout` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    subscribers: u32,
    payload_bytes: u32,
    burst: u32,
    rate: Option<f64>,
    runs: Vec<Run>,
    /// Medians over the runs.
    deliveries_per_cpu_second: Option<f64>,
    baseline_deliveries_per_cpu_second: Option<f64>,
    ratio_to_baseline: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Run {
    server: Episode,
    baseline: Option<Episode>,
    ratio_to_baseline: Option<f64>,
}

/// One server under the load.
#[derive(Debug, Serialize)]
struct Episode {
    deliveries: u64,
    deliveries_per_cpu_second: Option<f64>,
    deliveries_per_second: f64,
    message_bytes: usize,
    late_max_us: u64,
    latency: Percentiles,
    cost: Cost,
    /// The server's time for each connection, with its subscription.
    connect_cpu_us: Option<f64>,
    memory: Option<Growth>,
}

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`].
pub fn run(options: &Fanout) -> Result<Report, LoadError> {
    descriptors::make_room((options.subscribers + options.publishers + 1) as usize)?;
    let patience = options.common.patience();
    let mut runs = Vec::new();
    for index in 0..options.runs {
        // The baseline's messages are as long as the server's, so that the server is first in the first run.
        let baseline_first = index % 2 == 1;
        let early = match runs.last() {
            Some(Run { server, .. }) if options.with_baseline && baseline_first => {
                Some(baseline(options, patience, index, server.message_bytes)?)
            }
            _ => None,
        };
        let server = server(options, patience, index)?;
        let baseline = match early {
            None if options.with_baseline => Some(baseline(options, patience, index, server.message_bytes)?),
            early => early,
        };
        let other = baseline.as_ref().and_then(|baseline| baseline.deliveries_per_cpu_second);
        let ratio = server.deliveries_per_cpu_second.zip(other).map(|(server, other)| server / other);
        runs.push(Run { server, baseline, ratio_to_baseline: ratio });
    }
    let rates = |of: fn(&Run) -> Option<f64>| median(runs.iter().filter_map(of));
    Ok(Report {
        subscribers: options.subscribers,
        payload_bytes: options.publishing.payload,
        burst: options.burst,
        rate: options.publishing.rate,
        deliveries_per_cpu_second: rates(|run| run.server.deliveries_per_cpu_second),
        baseline_deliveries_per_cpu_second: rates(|run| run.baseline.as_ref()?.deliveries_per_cpu_second),
        ratio_to_baseline: rates(|run| run.ratio_to_baseline),
        runs,
    })
}

fn ledger(options: &Fanout, run: u32) -> Ledger {
    Ledger::new(options.common.channel(run), options.subscribers, options.publishing.payload as usize)
}

fn server(options: &Fanout, patience: Patience, run: u32) -> Result<Episode, LoadError> {
    let pid = options.common.server_pid;
    let target = options.common.target(options.api_key.as_deref());
    let mut sockets = Sockets::new(target, patience, vec![ledger(options, run)])?;
    let before = pid.map(process::memory).transpose()?;
    let window = Window::open(pid)?;
    sockets.open(&readers(options.subscribers, 1), options.common.opening as usize)?;
    let opening = window.close()?;
    let with = pid.map(process::memory).transpose()?;
    let role = if options.api_key.is_some() { Role::Api } else { Role::Speaker };
    let mut speakers = Speakers::open(&mut sockets, role, options.publishers as usize)?;
    let mut episode = measure(options, &mut sockets, &mut speakers, pid)?;
    episode.connect_cpu_us = opening.cpu_us_each(u64::from(options.subscribers));
    episode.memory = before.zip(with).map(|(before, with)| Growth::new(before, with, options.subscribers));
    sockets.close()?;
    Ok(episode)
}

fn baseline(options: &Fanout, patience: Patience, run: u32, message_bytes: usize) -> Result<Episode, LoadError> {
    let server = Baseline::start()?;
    let pid = server.pid();
    let target = Target {
        server: server.address,
        publish_to: None,
        transport: Transport::Bare,
        token: None,
        api_key: None,
        sources: options.common.sources,
    };
    let mut sockets = Sockets::new(target, patience, vec![ledger(options, run)])?;
    sockets.open(&readers(options.subscribers, 1), options.common.opening as usize)?;
    let mut speakers = Speakers::Baseline { server: Box::new(server), message_bytes };
    let episode = measure(options, &mut sockets, &mut speakers, Some(pid))?;
    sockets.close()?;
    Ok(episode)
}

fn measure(
    options: &Fanout,
    sockets: &mut Sockets,
    speakers: &mut Speakers,
    pid: Option<u32>,
) -> Result<Episode, LoadError> {
    publish(options, sockets, speakers, options.publishing.warmup)?;
    sockets.latencies.clear();
    let before = sockets.deliveries;
    let window = Window::open(pid)?;
    let late_max = publish(options, sockets, speakers, options.publishing.messages)?;
    let cost = window.close()?;
    let deliveries = sockets.deliveries - before;
    Ok(Episode {
        deliveries,
        deliveries_per_cpu_second: cost.per_cpu_second(deliveries),
        deliveries_per_second: deliveries as f64 / cost.wall_s.max(0.001),
        message_bytes: sockets.ledgers[0].message_bytes(),
        late_max_us: late_max,
        latency: sockets.latencies.percentiles(),
        cost,
        connect_cpu_us: None,
        memory: None,
    })
}

/// Publishes so many and waits until every reader has got them all. Says how late the latest went, in microseconds.
fn publish(options: &Fanout, sockets: &mut Sockets, speakers: &mut Speakers, count: u32) -> Result<u64, LoadError> {
    let mut schedule = Schedule::new(options.publishing.pace(), options.burst, Instant::now());
    let mut left = count;
    while left > 0 {
        if schedule.take(Instant::now(), sockets.all_delivered()) {
            let burst = options.burst.min(left);
            speakers.publish(sockets, 0, burst)?;
            left -= burst;
        } else if let Some(until) = schedule.waits_until() {
            sockets.turn(Some(until))?;
        } else {
            sockets.wait("deliveries", Sockets::all_delivered)?;
        }
    }
    sockets.wait("the last deliveries", Sockets::all_delivered)?;
    Ok(u64::try_from(schedule.late_max().as_micros()).unwrap_or(u64::MAX))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscribers, payload_bytes, burst, .. } = self;
        let pace = self.rate.map_or("the next when all have the last".to_owned(), |rate| format!("{rate} per second"));
        let bytes = self.runs.first().map_or(0, |run| run.server.message_bytes);
        writeln!(
            f,
            "{subscribers} subscribers, payload {payload_bytes} bytes (message {bytes}), {burst} at once, {pace}"
        )?;
        writeln!(f, "every publication came to every reader once, in order and unchanged\n")?;
        writeln!(f, "{:>10} {:>17} {:>12}  latency", "run", "deliveries/CPU-s", "by clock/s")?;
        for (index, run) in self.runs.iter().enumerate() {
            let of = |name| format!("{name} {}", index + 1);
            run.server.row(f, &of("server"))?;
            if let Some(baseline) = &run.baseline {
                baseline.row(f, &of("bare"))?;
            }
            if let Some(ratio) = run.ratio_to_baseline {
                writeln!(f, "{:>10} {ratio:>17.2}", of("ratio"))?;
            }
        }
        writeln!(f, "{:>10} {:>17}", "median", number(self.deliveries_per_cpu_second))?;
        if let Some(ratio) = self.ratio_to_baseline {
            writeln!(f, "{:>10} {:>17}", "bare", number(self.baseline_deliveries_per_cpu_second))?;
            writeln!(f, "{:>10} {ratio:>17.2}", "ratio")?;
        }
        for run in &self.runs {
            let Episode { cost, connect_cpu_us, memory, late_max_us, .. } = &run.server;
            write!(f, "\n{cost}")?;
            if let (Some(connect), Some(memory)) = (connect_cpu_us, memory) {
                write!(f, "\n  each connection: {connect:.0} CPU-us with its subscription, {memory}")?;
            }
            if self.rate.is_some() {
                write!(f, "\n  a publication went {late_max_us} us late at most")?;
            }
            if let Some(remark) = cost.remark() {
                write!(f, "\n  {remark}")?;
            }
        }
        Ok(())
    }
}

impl Episode {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let (rate, clock) = (number(self.deliveries_per_cpu_second), number(Some(self.deliveries_per_second)));
        writeln!(f, "{name:>10} {rate:>17} {clock:>12}  {}", self.latency)
    }
}
