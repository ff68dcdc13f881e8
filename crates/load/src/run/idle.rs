//! Connections with one subscription each that wait: what each costs in memory, and what keeping them costs in time.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::options::{Idle, readers};
use crate::process;
use crate::report::{Cost, Growth, Window};
use crate::sockets::Sockets;

/// Everything that `idle` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    connections: u32,
    channels: u32,
    opening: Cost,
    connect_cpu_us: Option<f64>,
    /// Just after the last connection was ready.
    opened: Option<Growth>,
    holding: Cost,
    /// After they were held.
    held: Option<Growth>,
    closing: Cost,
    close_cpu_us: Option<f64>,
    /// What is left when all are gone.
    left: Option<Growth>,
}

/// How long to wait for memory to be given back.
const AFTER: Duration = Duration::from_secs(2);

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`].
pub fn run(options: &Idle) -> Result<Report, LoadError> {
    let Idle { common, connections, channels, hold_s } = options;
    descriptors::make_room(*connections as usize)?;
    let mut sockets = common.silent(*channels)?;
    let memory = || common.server_pid.map(process::memory).transpose();
    let before = memory()?;
    let growth = |with| before.zip(with).map(|(before, with)| Growth::new(before, with, *connections));

    let window = Window::open(common.server_pid)?;
    sockets.open(&readers(*connections, *channels), common.opening as usize)?;
    let opening = window.close()?;
    let opened = growth(memory()?);

    let window = Window::open(common.server_pid)?;
    serve_for(&mut sockets, Duration::from_secs(*hold_s))?;
    let holding = window.close()?;
    let held = growth(memory()?);

    let window = Window::open(common.server_pid)?;
    sockets.close()?;
    let closing = window.close()?;
    serve_for(&mut sockets, AFTER)?;
    Ok(Report {
        connections: *connections,
        channels: *channels,
        connect_cpu_us: opening.cpu_us_each(u64::from(*connections)),
        opening,
        opened,
        holding,
        held,
        close_cpu_us: closing.cpu_us_each(u64::from(*connections)),
        closing,
        left: growth(memory()?),
    })
}

/// Answers pings meanwhile.
fn serve_for(sockets: &mut Sockets, time: Duration) -> Result<(), LoadError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        sockets.turn(Some(until))?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let growth = |growth: &Option<Growth>| growth.map_or("-".to_owned(), |growth| growth.to_string());
        writeln!(f, "{} connections with one subscription each, {} channels", self.connections, self.channels)?;
        writeln!(f, "open    each: {} CPU-us; {}", each(self.connect_cpu_us), growth(&self.opened))?;
        writeln!(f, "        {}", self.opening)?;
        writeln!(f, "held    each: {}", growth(&self.held))?;
        writeln!(f, "        {}", self.holding)?;
        writeln!(f, "closed  each: {} CPU-us; left {}", each(self.close_cpu_us), growth(&self.left))?;
        write!(f, "        {}", self.closing)?;
        self.opening.remark().map_or(Ok(()), |remark| write!(f, "\n  {remark}"))
    }
}
