//! Two servers over one broker and one store, under constant publishing: one after the other is told to go (SIGTERM) or killed (SIGKILL),
//! its readers move to the other, and it is started again. Nothing may be lost or doubled, and nobody may be told wrong.
//!
//! As in [`super::restart`] one publisher posts to the server API, again after every break until it is acknowledged.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::outcome::{self, Outcome};
use crate::error::LoadError;
use crate::options::Roll;
use crate::publishing::Publishing;
use crate::server::{Server, Setup};
use crate::sockets::Sockets;

/// How long a server may take to go.
const LEAVE_DEADLINE: Duration = Duration::from_secs(120);

/// Everything that `roll` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: String,
    /// Whether the servers were killed.
    killed: bool,
    moves: Vec<Move>,
    #[serde(flatten)]
    outcome: Outcome,
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
    let Roll { common, ending, .. } = options;
    let began = Instant::now();
    let variables = ending.variables()?;
    let kind = options.kind.to_string();
    let prepare = |name: &str| {
        let folder = ending.data.as_ref().map(|folder| folder.join(name));
        Server::prepare(&Setup {
            binary: &ending.binary,
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
    let (mut sockets, mut publishing) = outcome::open(common, ending, servers[0].address)?;
    let between = Duration::from_millis(ending.between_ms);
    let mut moves = Vec::new();
    for number in 0..options.moves as usize {
        publishing.go_on_for(&mut sockets, between)?;
        let other = servers[(number + 1) % 2].address;
        let leaving = &mut servers[number % 2];
        sockets.move_to(other);
        moves.push(leave(&mut publishing, &mut sockets, leaving, options)?);
        leaving.start()?;
    }
    publishing.go_on_for(&mut sockets, between)?;
    let outcome = Outcome::of(common, sockets, publishing, began)?;
    Ok(Report { kind, killed: options.kill, moves, outcome })
}

/// Ends a server, and goes on publishing until it is gone and everybody is at the other one.
fn leave(
    publishing: &mut Publishing,
    sockets: &mut Sockets,
    server: &mut Server,
    options: &Roll,
) -> Result<Move, LoadError> {
    let everybody = options.ending.readers as usize + 1;
    let breaks = |sockets: &Sockets| sockets.returning.as_ref().map_or(0, |returning| returning.tally.breaks);
    // Who has not noticed yet counts as ready: everybody must have broken off once.
    let all_noticed = breaks(sockets) + everybody as u64;
    let told = Instant::now();
    if options.kill {
        server.strike()
    } else {
        server.terminate()
    }
    let mut gone = None;
    loop {
        publishing.turn(sockets)?;
        let passed = told.elapsed();
        gone = gone.or_else(|| server.ended().map(|status| (passed, status.code())));
        if let Some((gone, code)) = gone
            && sockets.ready() == everybody
            && breaks(sockets) >= all_noticed
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
        let expected = if self.killed { None } else { Some(0) };
        self.outcome.verdict(self.moves.iter().filter(|one| one.code != expected).count() as u64)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = if self.killed { "moves by kill" } else { "moves" };
        self.outcome.title(f, &self.kind, &format!("{} {ends}", self.moves.len()))?;
        for (index, Move { gone_s, all_back_s, code }) in self.moves.iter().enumerate() {
            let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            let number = index + 1;
            writeln!(
                f,
                "move {number}: process gone after {gone_s:.2} s (code {code}), all back after {all_back_s:.2} s"
            )?;
        }
        self.outcome.fmt(f)
    }
}
