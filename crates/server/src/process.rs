//! What the process takes of its machine, read from `/proc` when somebody asks: the figures that every exporter has, by their usual names.
//!
//! Called by [`crate::metrics`]. Where there is no `/proc` there are no figures.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};

/// This process.
#[derive(Debug)]
pub(crate) struct Process;

/// What `/proc/self/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// User and system time of all threads, in ticks.
    used: u64,
    threads: u64,
    /// Ticks from the machine's start to the process's.
    started: u64,
    /// In bytes.
    virtual_memory: u64,
    /// In pages.
    resident: u64,
}

impl Stat {
    /// The name in field 2 may hold anything, so that we count from its end.
    fn read(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The first of them is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            used: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_memory: field(23)?,
            resident: field(24)?,
        })
    }
}

/// When the machine started, in Unix seconds.
fn booted(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// How many descriptors are open.
fn descriptors() -> Option<u64> {
    const PLACE: &str = "/proc/self/fd";
    // Kernels since 6.2 count them; before, each is an entry, and one of them is our own look.
    match fs::metadata(PLACE).ok()?.len() {
        0 => Some((fs::read_dir(PLACE).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) else {
            return Ok(());
        };
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64;
        let help = "User and system time of the process";
        let used = ConstCounter::new(seconds(stat.used));
        used.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?)?;
        let started = fs::read_to_string("/proc/stat").ok().as_deref().and_then(booted);
        let gauges = [
            (
                "process_resident_memory",
                "Resident memory of the process",
                Some(Unit::Bytes),
                Some((stat.resident * rustix::param::page_size() as u64) as f64),
            ),
            (
                "process_virtual_memory",
                "Virtual memory of the process",
                Some(Unit::Bytes),
                Some(stat.virtual_memory as f64),
            ),
            ("process_threads", "Threads of the process", None, Some(stat.threads as f64)),
            ("process_open_fds", "Descriptors that the process has open", None, descriptors().map(|n| n as f64)),
            (
                "process_max_fds",
                "Descriptors that the process may have open",
                None,
                Some(getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64)),
            ),
            (
                "process_start_time",
                "When the process started, in Unix time",
                Some(Unit::Seconds),
                started.map(|booted| booted as f64 + seconds(stat.started)),
            ),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text =
            "12 (tale) wire 1 2 3) S 1 2 3 4 -5 6 7 8 9 10 70 30 11 12 20 0 5 0 4000 8192 17 18446744073709551615 1";
        let expected = Stat { used: 100, threads: 5, started: 4_000, virtual_memory: 8_192, resident: 17 };
        assert_eq!(Stat::read(text), Some(expected));
        assert_eq!((Stat::read("12 (a) S 1 2"), Stat::read("")), (None, None));
        assert_eq!((booted("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), booted("")), (Some(1_700_000_000), None));
    }
}
