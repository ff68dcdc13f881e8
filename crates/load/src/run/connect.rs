//! Connections that come and go: what opening one with a subscription costs, and what closing it costs.

use std::fmt;

use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::options::{Connect, readers};
use crate::process;
use crate::report::{Cost, Growth, Window, median};

/// Everything that `connect` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    connections: u32,
    rounds: Vec<Round>,
    /// The median of the rounds: handshake, connect and subscribe.
    open_cpu_us: Option<f64>,
    /// The median of the rounds: from the client's close to the end of the socket.
    close_cpu_us: Option<f64>,
    /// What is left when all are gone.
    left: Option<Growth>,
}

#[derive(Debug, Serialize)]
struct Round {
    connections: u32,
    open_cpu_us: Option<f64>,
    close_cpu_us: Option<f64>,
    opening: Cost,
    closing: Cost,
}

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`].
pub fn run(options: &Connect) -> Result<Report, LoadError> {
    let Connect { common, connections, open, channels } = options;
    descriptors::make_room(*open as usize)?;
    let mut sockets = common.silent(*channels)?;
    let memory = || common.server_pid.map(process::memory).transpose();
    let before = memory()?;
    let mut rounds = Vec::new();
    let mut left = *connections;
    while left > 0 {
        let count = left.min(*open);
        left -= count;
        let window = Window::open(common.server_pid)?;
        sockets.open(&readers(count, *channels), common.opening as usize)?;
        let opening = window.close()?;
        let window = Window::open(common.server_pid)?;
        sockets.close()?;
        let closing = window.close()?;
        let open_cpu_us = opening.cpu_us_each(u64::from(count));
        let close_cpu_us = closing.cpu_us_each(u64::from(count));
        rounds.push(Round { connections: count, open_cpu_us, close_cpu_us, opening, closing });
    }
    Ok(Report {
        connections: *connections,
        open_cpu_us: median(rounds.iter().filter_map(|round| round.open_cpu_us)),
        close_cpu_us: median(rounds.iter().filter_map(|round| round.close_cpu_us)),
        left: before.zip(memory()?).map(|(before, with)| Growth::new(before, with, *connections)),
        rounds,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let (open, close) = (each(self.open_cpu_us), each(self.close_cpu_us));
        writeln!(f, "{} connections in {} rounds, each with one subscription", self.connections, self.rounds.len())?;
        write!(f, "median CPU-us of the server for each: {open} to open and subscribe, {close} to close")?;
        for Round { connections, open_cpu_us, close_cpu_us, opening, .. } in &self.rounds {
            let rate = number_per_second(*connections, opening);
            let (open, close) = (each(*open_cpu_us), each(*close_cpu_us));
            write!(f, "\n  {connections}: {open} + {close}; {rate:.0} per second by the clock; opening: {opening}")?;
            if let Some(remark) = opening.remark() {
                write!(f, "\n    {remark}")?;
            }
        }
        self.left.map_or(Ok(()), |left| write!(f, "\nleft for each that came and went: {left}"))
    }
}

fn number_per_second(count: u32, cost: &Cost) -> f64 {
    f64::from(count) / cost.wall_s.max(0.001)
}
