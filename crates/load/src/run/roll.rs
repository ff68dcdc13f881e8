//! Two servers over one broker and one store, under constant publishing: one after the other is told to go (SIGTERM), its readers move to the
//! other, and it is started again. Nothing may be lost or doubled, and nobody may be told wrong.
//!
//! As in [`super::restart`] one publisher posts to the server API, again after every break until it is acknowledged.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::latency::Percentiles;
use crate::ledger::Ledger;
use crate::options::{Roll, readers};
use crate::publishing::Publishing;
use crate::server::{API_KEY, Server, Setup};
use crate::sockets::returning::{Returning, Tally};
use crate::sockets::{Role, Sockets};

/// How long a server may take to go.
const LEAVE_DEADLINE: Duration = Duration::from_secs(120);

/// Everything that `roll` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    transport: String,
    kind: String,
    readers: u32,
    moves: Vec<Move>,
    /// Entries that were acknowledged: all that were published.
    acknowledged: u64,
    /// Deliveries that were right.
    deliveries: u64,
    /// Deliveries of acknowledged entries that never came.
    lost: u64,
    tally: Tally,
    /// From publishing to receiving; moves are in it.
    latency: Percentiles,
    wall_s: f64,
}

/// One server went.
#[derive(Debug, Clone, Copy, Serialize)]
struct Move {
    /// From the signal until its process had ended.
    gone_s: f64,
    /// From the signal until the last reader was subscribed at the other one.
    all_back_s: f64,
    /// Its exit code; nothing if a signal ended it.
    code: Option<i32>,
}

/// Runs the scenario.
///
/// # Errors
/// [`LoadError`], when the run could not be made. What was wrong stands in the report, see [`Report::verdict`].
pub fn run(options: &Roll) -> Result<Report, LoadError> {
    let Roll { common, readers: count, payload, .. } = options;
    descriptors::make_room(*count as usize + usize::from(common.sources) + 1)?;
    let began = Instant::now();
    let variables = options.variables()?;
    let kind = options.kind.to_string();
    let prepare = |name: &str| {
        let folder = options.data.as_ref().map(|folder| folder.join(name));
        Server::prepare(&Setup {
            binary: &options.binary,
            folder: folder.as_deref(),
            name,
            namespace: &common.namespace,
            kind: &kind,
            variables: &variables,
        })
    };
    let mut servers = [prepare("roll-a")?, prepare("roll-b")?];
    for server in &mut servers {
        server.start()?;
    }
    let mut target = common.target(Some(API_KEY));
    target.server = servers[0].address;
    let ledger = Ledger::new(common.channel(0), *count, *payload as usize);
    let mut sockets = Sockets::new(target, common.patience(), vec![ledger])?;
    let [base, max] = [options.backoff_ms, options.backoff_max_ms].map(Duration::from_millis);
    sockets.returning = Some(Returning::new(base, max));
    sockets.open(&readers(*count, 1), common.opening as usize)?;
    let publisher = sockets.open(&[Role::Api], 1)?;
    let mut publishing = Publishing::new(publisher, options.rate);
    let between = Duration::from_millis(options.between_ms);
    let mut moves = Vec::new();
    for number in 0..options.moves as usize {
        publishing.go_on_for(&mut sockets, between)?;
        let other = servers[(number + 1) % 2].address;
        let leaving = &mut servers[number % 2];
        sockets.move_to(other);
        moves.push(leave(&mut publishing, &mut sockets, leaving, *count as usize + 1)?);
        leaving.start()?;
    }
    publishing.go_on_for(&mut sockets, between)?;
    let lost = publishing.finish(&mut sockets)?;
    drop(servers);
    let tally = sockets.returning.take().map(|returning| returning.tally).unwrap_or_default();
    Ok(Report {
        transport: format!("{:?}", common.transport).to_lowercase(),
        kind,
        readers: *count,
        moves,
        acknowledged: sockets.ledgers[0].published(),
        deliveries: sockets.deliveries,
        lost: lost + tally.skipped(),
        tally,
        latency: sockets.latencies.percentiles(),
        wall_s: began.elapsed().as_secs_f64(),
    })
}

/// Tells a server to go, and goes on publishing until it has and everybody is at the other one.
fn leave(
    publishing: &mut Publishing,
    sockets: &mut Sockets,
    server: &mut Server,
    everybody: usize,
) -> Result<Move, LoadError> {
    let told = Instant::now();
    server.terminate();
    let mut gone = None;
    loop {
        publishing.turn(sockets)?;
        let passed = told.elapsed();
        gone = gone.or_else(|| server.ended().map(|status| (passed, status.code())));
        // Until its end somebody may be with it still.
        if let Some((gone, code)) = gone
            && sockets.ready() == everybody
        {
            return Ok(Move { gone_s: gone.as_secs_f64(), all_back_s: passed.as_secs_f64(), code });
        }
        if passed > LEAVE_DEADLINE {
            let waiting_for = if gone.is_none() { "the server to go" } else { "all readers to be back" };
            return Err(LoadError::Stalled { waited_s: passed.as_secs(), waiting_for: waiting_for.to_owned() });
        }
    }
}

impl Report {
    /// Whether all was right.
    ///
    /// # Errors
    /// [`LoadError::Wrong`] with everything that was not.
    pub fn verdict(&self) -> Result<(), LoadError> {
        let Tally { doubled, swapped, lies, told, changed, first_wrong, .. } = &self.tally;
        let bad_ends = self.moves.iter().filter(|one| one.code != Some(0)).count() as u64;
        let count = self.lost + doubled + swapped + lies + told + changed + bad_ends;
        if count == 0 {
            return Ok(());
        }
        let first = first_wrong.clone().unwrap_or_else(|| "deliveries that never came, or a bad exit code".to_owned());
        Err(LoadError::Wrong { count, first })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, kind, readers, acknowledged, deliveries, lost, tally, .. } = self;
        let Tally { doubled, swapped, lies, told, changed, breaks, last_refusal, .. } = tally;
        let moves = self.moves.len();
        writeln!(f, "{readers} readers of a {kind} channel over {transport}, {moves} moves in {:.0} s", self.wall_s)?;
        for (index, Move { gone_s, all_back_s, code }) in self.moves.iter().enumerate() {
            let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            let number = index + 1;
            writeln!(
                f,
                "move {number}: process gone after {gone_s:.2} s (code {code}), all back after {all_back_s:.2} s"
            )?;
        }
        writeln!(f, "{acknowledged} entries acknowledged; {deliveries} deliveries to {readers} readers were right")?;
        writeln!(
            f,
            "lost {lost}, doubled {doubled}, out of order {swapped}, lies {lies}; gaps that were told {told}, changed {changed}"
        )?;
        write!(f, "{breaks} connections broken or attempts failed; latency with moves {}", self.latency)?;
        if let Some(said) = last_refusal {
            write!(f, "\nthe last refusal: {said}")?;
        }
        tally.first_wrong.as_ref().map_or(Ok(()), |wrong| write!(f, "\nthe first thing that was wrong: {wrong}"))
    }
}
