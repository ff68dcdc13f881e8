//! What is measured over a stretch of time, and how figures are printed: as a table or as JSON.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::LoadError;
use crate::process::{self, Machine, Memory};

/// A share of its time from which on the generator's one thread is in the way.
const BUSY_PERCENT: f64 = 90.0;

/// A stretch of time under measurement.
#[derive(Debug)]
pub struct Window {
    server_pid: Option<u32>,
    server: Duration,
    generator: Duration,
    machine: Machine,
    began: Instant,
}

/// What a stretch of time has cost.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    /// The clock.
    pub wall_s: f64,
    /// Processor time of the server, all threads, user and system; resolution 10 ms.
    pub server_cpu_s: Option<f64>,
    /// Processor time of the generator.
    pub generator_cpu_s: f64,
    /// Processor time of everything else on the machine.
    pub others_cpu_s: f64,
    /// The share of time in which the machine's processors were idle.
    pub machine_idle_percent: f64,
}

impl Window {
    /// Begins.
    ///
    /// # Errors
    /// If the server's figures cannot be read.
    pub fn open(server_pid: Option<u32>) -> Result<Self, LoadError> {
        let server = server_pid.map(process::cpu).transpose()?.unwrap_or_default();
        let (machine, generator) = (Machine::now(), process::own_cpu());
        Ok(Self { server_pid, server, generator, machine, began: Instant::now() })
    }

    /// Ends.
    ///
    /// # Errors
    /// If the server's figures cannot be read, because it is gone for example.
    pub fn close(self) -> Result<Cost, LoadError> {
        let wall = self.began.elapsed();
        let generator = process::own_cpu() - self.generator;
        let server = self.server_pid.map(process::cpu).transpose()?.map(|cpu| cpu.saturating_sub(self.server));
        let machine = Machine::now() - self.machine;
        Ok(Cost {
            wall_s: wall.as_secs_f64(),
            server_cpu_s: server.map(|cpu| cpu.as_secs_f64()),
            generator_cpu_s: generator.as_secs_f64(),
            others_cpu_s: machine.busy().saturating_sub(generator + server.unwrap_or_default()).as_secs_f64(),
            machine_idle_percent: machine.idle_percent(),
        })
    }
}

impl Cost {
    /// How many of `count` things the server did per second of its processor time.
    #[must_use]
    pub fn per_cpu_second(&self, count: u64) -> Option<f64> {
        self.server_cpu_s.filter(|cpu| *cpu > 0.0).map(|cpu| count as f64 / cpu)
    }

    /// The server's processor time for each of `count` things, in microseconds.
    #[must_use]
    pub fn cpu_us_each(&self, count: u64) -> Option<f64> {
        self.server_cpu_s.map(|cpu| cpu * 1_000_000.0 / count.max(1) as f64)
    }

    /// A sentence if something but the server set the pace.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let busy = 100.0 * self.generator_cpu_s / self.wall_s.max(0.001);
        if busy >= BUSY_PERCENT {
            return Some(format!(
                "the generator's thread was busy {busy:.0} % of the time and may have set the pace: \
                 times and rates by the clock say little, figures per CPU-second hold"
            ));
        }
        let all = self.server_cpu_s.unwrap_or_default() + self.generator_cpu_s + self.others_cpu_s;
        let others = 100.0 * self.others_cpu_s / all.max(0.001);
        let crowded = self.machine_idle_percent < 5.0 && others > 10.0;
        crowded.then(|| format!("others took {others:.0} % of a machine without idle time: only ratios say something"))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall_s, generator_cpu_s, others_cpu_s, machine_idle_percent, .. } = self;
        match self.server_cpu_s {
            Some(cpu) => write!(f, "server {cpu:.2} s")?,
            None => write!(f, "server unknown (--server-pid)")?,
        }
        write!(f, ", generator {generator_cpu_s:.2} s, others {others_cpu_s:.2} s")?;
        write!(f, " in {wall_s:.2} s by the clock, {machine_idle_percent:.0} % idle")
    }
}

/// How memory has grown.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Growth {
    /// Connections that it grew for.
    pub connections: u32,
    /// Before.
    pub before: Memory,
    /// With them.
    pub with: Memory,
    /// Resident memory for each.
    pub rss_bytes_each: i64,
    /// Heap and stacks for each.
    pub anonymous_bytes_each: i64,
}

impl Growth {
    /// From `before` to `with`, for so many connections.
    #[must_use]
    pub fn new(before: Memory, with: Memory, connections: u32) -> Self {
        let each = |with: u64, before: u64| (with.cast_signed() - before.cast_signed()) / i64::from(connections.max(1));
        Self {
            connections,
            before,
            with,
            rss_bytes_each: each(with.rss_bytes, before.rss_bytes),
            anonymous_bytes_each: each(with.anonymous_bytes, before.anonymous_bytes),
        }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let (before, with) = (mib(self.before.rss_bytes), mib(self.with.rss_bytes));
        write!(f, "{} bytes RSS, {} bytes of them anonymous", self.rss_bytes_each, self.anonymous_bytes_each)?;
        write!(f, " (RSS {before:.1} to {with:.1} MiB)")
    }
}

/// The middle value; of an even number the lower of the two in the middle. Nothing if there is none.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// A number for people: without digits behind the point, with commas; a dash if there is none.
#[must_use]
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

/// Prints a report as asked for.
pub fn print(json: bool, report: &(impl Serialize + fmt::Display)) {
    if json {
        println!("{}", serde_json::to_string_pretty(report).expect("reports are plain structs"));
    } else {
        println!("{report}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_values_that_were_measured() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(Some(1_234_567.8)), "1,234,568");
        assert_eq!(
            (number(Some(999.0)), number(Some(-1_000.0)), number(None)),
            ("999".into(), "-1,000".into(), "-".into())
        );
    }

    #[test]
    fn memory_may_shrink() {
        let memory = |n| Memory { rss_bytes: n, anonymous_bytes: n / 2 };
        let growth = Growth::new(memory(1_000), memory(600), 10);
        assert_eq!((growth.rss_bytes_each, growth.anonymous_bytes_each), (-40, -20));
    }

    #[test]
    fn a_busy_generator_and_a_crowded_machine_are_told() {
        let calm = Cost { wall_s: 10.0, server_cpu_s: Some(4.0), generator_cpu_s: 3.0, ..Cost::default() };
        assert_eq!(Cost { machine_idle_percent: 50.0, ..calm }.remark(), None);
        let busy = Cost { generator_cpu_s: 9.5, ..calm }.remark().expect("a remark");
        assert!(busy.contains("95 %"), "{busy}");
        let crowded = Cost { others_cpu_s: 7.0, ..calm }.remark().expect("a remark");
        assert!(crowded.contains("50 %"), "{crowded}");
    }
}
