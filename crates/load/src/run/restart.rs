//! A durable channel under constant publishing while the server is killed and started again on the same data. Every entry that was
//! acknowledged must come to every reader once and in order, and no reader may be told that it has everything when it has not.
//!
//! One publisher posts to the server API, each publication with an idempotency key, and again after every break until it is
//! acknowledged. So one order is known, and whatever comes besides is wrong.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::outcome::{self, Outcome};
use crate::error::LoadError;
use crate::options::Restart;
use crate::publishing::Publishing;
use crate::server::{START_DEADLINE, Server, Setup};
use crate::sockets::Sockets;

/// The server is killed within this after a publication was sent.
const KILL_WITHIN: Duration = Duration::from_millis(8);

/// Everything that `restart` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    kills: Vec<Kill>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// One kill and what came after.
#[derive(Debug, Clone, Copy, Serialize)]
struct Kill {
    /// Entries that were acknowledged before.
    acknowledged: u64,
    /// From the kill until the server listens again.
    listens_s: f64,
    /// From the kill until it has acknowledged a new publication.
    publishes_s: f64,
    /// From the kill until the last reader is subscribed again.
    all_back_s: f64,
}

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`], when the run could not be made. What was wrong stands in the report, see [`Report::verdict`].
pub fn run(options: &Restart) -> Result<Report, LoadError> {
    let Restart { common, ending, .. } = options;
    let began = Instant::now();
    let mut server = Server::prepare(&Setup {
        binary: &ending.binary,
        folder: ending.data.as_deref(),
        name: "restart",
        namespace: &common.namespace,
        kind: "durable",
        variables: &ending.variables()?,
    })?;
    server.start()?;
    let (mut sockets, mut publishing) = outcome::open(common, ending, server.address)?;
    let between = Duration::from_millis(ending.between_ms);
    let mut kills = Vec::new();
    for _ in 0..options.kills {
        publishing.go_on_for(&mut sockets, between)?;
        kills.push(kill_once(&mut publishing, ending.readers, &mut sockets, &mut server)?);
    }
    publishing.go_on_for(&mut sockets, between)?;
    Ok(Report { kills, outcome: Outcome::of(common, sockets, publishing, began)? })
}

impl Report {
    /// Whether all was right.
    ///
    /// # Errors
    /// [`LoadError::Wrong`] with everything that was not.
    pub fn verdict(&self) -> Result<(), LoadError> {
        self.outcome.verdict(0)
    }
}

/// Kills the server while a publication is under way, starts it again, and goes on until everybody is back.
fn kill_once(
    publishing: &mut Publishing,
    readers: u32,
    sockets: &mut Sockets,
    server: &mut Server,
) -> Result<Kill, LoadError> {
    let everybody = readers as usize + 1;
    while sockets.unacknowledged(publishing.publisher) > 0 {
        publishing.turn(sockets)?;
    }
    let acknowledged = sockets.ledgers[0].published();
    sockets.publish_surely(publishing.publisher, 0);
    // It is read, committed, announced or acknowledged by then: each kill comes at another point.
    std::thread::sleep(KILL_WITHIN.mul_f64(fastrand::f64()));
    let killed = Instant::now();
    server.kill()?;
    server.spawn()?;
    let (mut listens, mut publishes) = (None, None);
    // Readers that have not noticed yet count as ready.
    let mut were_away = false;
    loop {
        publishing.turn(sockets)?;
        let passed = killed.elapsed();
        if listens.is_none() && server.listens() {
            listens = Some(passed);
        }
        were_away |= sockets.ready() < everybody;
        let answered = sockets.ledgers[0].published() - u64::from(sockets.unacknowledged(publishing.publisher));
        if publishes.is_none() && were_away && answered > acknowledged + 1 {
            publishes = Some(passed);
        }
        if let (Some(listens), Some(publishes)) = (listens, publishes)
            && sockets.ready() == everybody
        {
            let [listens_s, publishes_s, all_back_s] = [listens, publishes, passed].map(|time| time.as_secs_f64());
            return Ok(Kill { acknowledged, listens_s, publishes_s, all_back_s });
        }
        if passed > START_DEADLINE && listens.is_none() {
            return Err(LoadError::Stalled {
                waited_s: passed.as_secs(),
                waiting_for: "the server to listen again".to_owned(),
            });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome.title(f, "durable", &format!("{} kills", self.kills.len()))?;
        for (index, kill) in self.kills.iter().enumerate() {
            let Kill { acknowledged, listens_s, publishes_s, all_back_s } = kill;
            writeln!(
                f,
                "kill {} after {acknowledged} acknowledgements: listens after {listens_s:.2} s, publishes after \
                 {publishes_s:.2} s, all readers back after {all_back_s:.2} s",
                index + 1
            )?;
        }
        writeln!(f, "in each kill one entry more was under way, and was said again unless its answer was out")?;
        self.outcome.fmt(f)
    }
}
