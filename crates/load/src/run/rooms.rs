//! Many rooms with some members each. Members chat at random; a room hears one publication at a time, so that every
//! reader knows which is next.

use std::fmt;
use std::time::Instant;

use fastrand::Rng;
use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::latency::Percentiles;
use crate::ledger::Ledger;
use crate::options::{Rooms, TransportName, readers};
use crate::pace::Schedule;
use crate::process;
use crate::report::{Cost, Growth, Window, number};
use crate::sockets::Sockets;

/// Everything that `rooms` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    rooms: u32,
    members: u32,
    payload_bytes: u32,
    rate: Option<f64>,
    seed: u64,
    publications: u32,
    deliveries: u64,
    deliveries_per_cpu_second: Option<f64>,
    cpu_us_per_publication: Option<f64>,
    late_max_us: u64,
    /// Publications that had to wait because every room was busy.
    waited: u32,
    latency: Percentiles,
    cost: Cost,
    connect_cpu_us: Option<f64>,
    memory: Option<Growth>,
}

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`].
pub fn run(options: &Rooms) -> Result<Report, LoadError> {
    let Rooms { common, publishing, rooms, members, seed } = options;
    if common.transport != TransportName::Websocket {
        return Err(LoadError::Options("members of rooms publish, which needs --transport websocket".to_owned()));
    }
    let connections = rooms.saturating_mul(*members);
    descriptors::make_room(connections as usize)?;
    let ledger = |room| Ledger::new(common.channel(room), *members, publishing.payload as usize);
    let ledgers = (0..*rooms).map(ledger).collect();
    let mut sockets = Sockets::new(common.target(None), common.patience(), ledgers)?;
    let memory = || common.server_pid.map(process::memory).transpose();
    let before = memory()?;
    let window = Window::open(common.server_pid)?;
    // The member with index `i` is in room `i % rooms`.
    sockets.open(&readers(connections, *rooms), common.opening as usize)?;
    let opening = window.close()?;
    let with = memory()?;

    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut chat = Chat { options, random: Rng::with_seed(seed), waited: 0 };
    chat.run(&mut sockets, publishing.warmup)?;
    sockets.latencies.clear();
    chat.waited = 0;
    let deliveries = sockets.deliveries;
    let window = Window::open(common.server_pid)?;
    let late_max_us = chat.run(&mut sockets, publishing.messages)?;
    let cost = window.close()?;
    let deliveries = sockets.deliveries - deliveries;
    let report = Report {
        rooms: *rooms,
        members: *members,
        payload_bytes: publishing.payload,
        rate: publishing.rate,
        seed,
        publications: publishing.messages,
        deliveries,
        deliveries_per_cpu_second: cost.per_cpu_second(deliveries),
        cpu_us_per_publication: cost.cpu_us_each(u64::from(publishing.messages)),
        late_max_us,
        waited: chat.waited,
        latency: sockets.latencies.percentiles(),
        cost,
        connect_cpu_us: opening.cpu_us_each(u64::from(connections)),
        memory: before.zip(with).map(|(before, with)| Growth::new(before, with, connections)),
    };
    sockets.close()?;
    Ok(report)
}

struct Chat<'a> {
    options: &'a Rooms,
    random: Rng,
    waited: u32,
}

impl Chat<'_> {
    /// Lets members say so many things, and waits until all are heard.
    fn run(&mut self, sockets: &mut Sockets, count: u32) -> Result<u64, LoadError> {
        let mut schedule = Schedule::new(self.options.publishing.pace(), 1, Instant::now());
        let mut said = 0;
        while said < count {
            if !schedule.take(Instant::now(), true) {
                sockets.turn(schedule.waits_until())?;
                continue;
            }
            let room = self.free_room(sockets)?;
            let member = self.random.usize(..self.options.members as usize);
            sockets.publish(room + member * self.options.rooms as usize, room, 1);
            said += 1;
        }
        sockets.wait("the last deliveries", Sockets::all_delivered)?;
        Ok(u64::try_from(schedule.late_max().as_micros()).unwrap_or(u64::MAX))
    }

    /// A random room that has heard everything; from there on the next, if that one has not.
    fn free_room(&mut self, sockets: &mut Sockets) -> Result<usize, LoadError> {
        let rooms = sockets.ledgers.len();
        let first = self.random.usize(..rooms);
        let free = |sockets: &Sockets| {
            (first..first + rooms).map(|room| room % rooms).find(|room| sockets.ledgers[*room].waiting() == 0)
        };
        if let Some(room) = free(sockets) {
            return Ok(room);
        }
        self.waited += 1;
        sockets.wait("a room to hear what was said", |sockets| free(sockets).is_some())?;
        Ok(free(sockets).unwrap_or(first))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rooms, members, payload_bytes, publications, deliveries, seed, .. } = self;
        let pace = self.rate.map_or("as readers keep up".to_owned(), |rate| format!("{rate} per second"));
        writeln!(
            f,
            "{rooms} rooms of {members}, payload {payload_bytes} bytes, {publications} publications, {pace}, seed {seed}"
        )?;
        writeln!(f, "every publication came to every member once, in order and unchanged\n")?;
        let rate = number(self.deliveries_per_cpu_second);
        writeln!(f, "{deliveries} deliveries, {rate} per CPU-second of the server")?;
        if let Some(us) = self.cpu_us_per_publication {
            writeln!(f, "{us:.1} CPU-us for each publication")?;
        }
        writeln!(f, "latency {}", self.latency)?;
        write!(f, "{}", self.cost)?;
        if self.rate.is_some() {
            write!(f, "\na publication went {} us late at most, {} waited for a room", self.late_max_us, self.waited)?;
        }
        if let (Some(connect), Some(memory)) = (self.connect_cpu_us, &self.memory) {
            write!(f, "\neach connection: {connect:.0} CPU-us with its subscription, {memory}")?;
        }
        self.cost.remark().map_or(Ok(()), |remark| write!(f, "\n{remark}"))
    }
}
