//! What a process has used, from `/proc`: processor time of all its threads, and memory; and how busy the machine was.

use std::io;
use std::ops::Sub;
use std::time::Duration;

use serde::Serialize;

use crate::error::LoadError;

/// User and system time of a process and all its threads since it began.
///
/// # Errors
/// If there is no such process.
pub fn cpu(pid: u32) -> Result<Duration, LoadError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).and_then(|stat| ticks(&stat));
    stat.map(time).map_err(|error| LoadError::Process { pid, error })
}

/// The same of this process, exactly.
#[must_use]
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// `utime` and `stime` are fields 14 and 15; the name in field 2 may hold anything, so that we count from its end.
fn ticks(stat: &str) -> io::Result<u64> {
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace());
    let mut fields = fields.into_iter().flatten().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => Err(io::Error::other("/proc/…/stat is not as expected")),
    }
}

fn time(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Memory {
    /// Everything that is resident (`VmRSS`).
    pub rss_bytes: u64,
    /// What is its alone: heap and stacks (`RssAnon`).
    pub anonymous_bytes: u64,
}

/// The memory of a process.
///
/// # Errors
/// If there is no such process.
pub fn memory(pid: u32) -> Result<Memory, LoadError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.map(|status| read_memory(&status)).map_err(|error| LoadError::Process { pid, error })
}

fn read_memory(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1_024
    };
    Memory { rss_bytes: bytes("VmRSS"), anonymous_bytes: bytes("RssAnon") }
}

/// How long all processors together were busy and idle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine {
    busy: u64,
    idle: u64,
}

impl Machine {
    /// Since the machine began; zeros if it does not say.
    #[must_use]
    pub fn now() -> Self {
        std::fs::read_to_string("/proc/stat").map(|stat| Self::read(&stat)).unwrap_or_default()
    }

    fn read(stat: &str) -> Self {
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let fields: Vec<u64> = fields.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what follows is counted in user already.
        let idle = fields.iter().skip(3).take(2).sum();
        Self { busy: fields.iter().take(8).sum::<u64>() - idle, idle }
    }

    /// The busy time.
    #[must_use]
    pub fn busy(&self) -> Duration {
        time(self.busy)
    }

    /// The share of idle time, in percent.
    #[must_use]
    pub fn idle_percent(&self) -> f64 {
        100.0 * self.idle as f64 / ((self.idle + self.busy).max(1) as f64)
    }
}

impl Sub for Machine {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { busy: self.busy.saturating_sub(earlier.busy), idle: self.idle.saturating_sub(earlier.idle) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 17 4 0 0 20 0 3";
        assert_eq!(ticks(stat).ok(), Some(21));
        assert!(ticks("42 (a").is_err() && ticks("42 (a) S 1").is_err());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     1024 kB\nRssFile:\t 1024 kB\n";
        assert_eq!(read_memory(status), Memory { rss_bytes: 2_097_152, anonymous_bytes: 1_048_576 });
        assert_eq!(read_memory(""), Memory::default());
    }

    #[test]
    fn the_machine_tells_busy_from_idle() {
        let earlier = Machine::read("cpu  1 1 1 10 0 0 0 0 0 0\ncpu0 9 9 9 9\n");
        let later = Machine::read("cpu  11 1 11 70 10 0 10 0 5 0\n");
        let between = later - earlier;
        assert_eq!((between.busy, between.idle), (30, 70));
        assert!((between.idle_percent() - 70.0).abs() < 0.01);
    }

    #[test]
    fn this_process_has_figures() {
        let pid = std::process::id();
        assert!(memory(pid).expect("this process").rss_bytes > 0);
        assert!(cpu(pid).is_ok() && own_cpu() > Duration::ZERO);
        assert!(cpu(u32::MAX).is_err());
    }
}
