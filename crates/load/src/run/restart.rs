//! A durable channel under constant publishing while the server is killed and started again on the same data. Every entry that was
//! acknowledged must come to every reader once and in order, and no reader may be told that it has everything when it has not.
//!
//! One publisher posts to the server API, each publication with an idempotency key, and again after every break until it is
//! acknowledged. So one order is known, and whatever comes besides is wrong.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::latency::Percentiles;
use crate::ledger::Ledger;
use crate::options::{Restart, readers};
use crate::pace::{Pace, Schedule};
use crate::sockets::returning::{Returning, Tally};
use crate::sockets::{Role, Sockets};

/// The key of the server API, for a server that lives as long as the run.
const API_KEY: &str = "the-key-of-a-load-run";

/// How long the server may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The server is killed within this after a publication was sent.
const KILL_WITHIN: Duration = Duration::from_millis(8);

/// How often to look whether it does, and whether all readers have everything.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Everything that `restart` has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    transport: String,
    readers: u32,
    kills: Vec<Kill>,
    /// Entries that were acknowledged: all that were published.
    acknowledged: u64,
    /// Deliveries that were right.
    deliveries: u64,
    /// Deliveries of acknowledged entries that never came.
    lost: u64,
    tally: Tally,
    /// From publishing to receiving; outages are in it.
    latency: Percentiles,
    wall_s: f64,
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
    let Restart { common, readers: count, payload, .. } = options;
    descriptors::make_room(*count as usize + usize::from(common.sources) + 1)?;
    let began = Instant::now();
    let mut server = Server::prepare(options)?;
    server.start()?;
    let mut target = common.target(Some(API_KEY));
    target.server = server.address;
    let ledger = Ledger::new(common.channel(0), *count, *payload as usize);
    let mut sockets = Sockets::new(target, common.patience(), vec![ledger])?;
    let [base, max] = [options.backoff_ms, options.backoff_max_ms].map(Duration::from_millis);
    sockets.returning = Some(Returning::new(base, max));
    sockets.open(&readers(*count, 1), common.opening as usize)?;
    let publisher = sockets.open(&[Role::Api], 1)?;

    let mut publishing = Publishing { publisher, options, schedule: None };
    let between = Duration::from_millis(options.between_ms);
    let mut kills = Vec::new();
    for _ in 0..options.kills {
        publishing.go_on_for(&mut sockets, between)?;
        kills.push(publishing.kill(&mut sockets, &mut server)?);
    }
    publishing.go_on_for(&mut sockets, between)?;
    let lost = publishing.finish(&mut sockets)?;
    drop(server);
    let tally = sockets.returning.take().map(|returning| returning.tally).unwrap_or_default();
    let report = Report {
        transport: format!("{:?}", common.transport).to_lowercase(),
        readers: *count,
        kills,
        acknowledged: sockets.ledgers[0].published(),
        deliveries: sockets.deliveries,
        lost: lost + tally.skipped(),
        tally,
        latency: sockets.latencies.percentiles(),
        wall_s: began.elapsed().as_secs_f64(),
    };
    Ok(report)
}

impl Report {
    /// Whether all was right.
    ///
    /// # Errors
    /// [`LoadError::Wrong`] with everything that was not.
    pub fn verdict(&self) -> Result<(), LoadError> {
        let Tally { doubled, swapped, lies, told, changed, first_wrong, .. } = &self.tally;
        let count = self.lost + doubled + swapped + lies + told + changed;
        if count == 0 {
            return Ok(());
        }
        let first = first_wrong.clone().unwrap_or_else(|| "deliveries that never came".to_owned());
        Err(LoadError::Wrong { count, first })
    }
}

struct Publishing<'a> {
    publisher: usize,
    options: &'a Restart,
    schedule: Option<Schedule>,
}

impl Publishing<'_> {
    /// Serves the sockets, and publishes what is due once the last was acknowledged.
    fn turn(&mut self, sockets: &mut Sockets) -> Result<(), LoadError> {
        let now = Instant::now();
        let rate = self.options.rate;
        let schedule = self.schedule.get_or_insert_with(|| Schedule::new(Pace::PerSecond(rate), 1, now));
        if sockets.unacknowledged(self.publisher) == 0 {
            if schedule.take(now, true) {
                sockets.publish_surely(self.publisher, 0);
            }
        } else if schedule.waits_until().is_some_and(|due| now > due) {
            // What an outage held up is not made up for in a rush.
            *schedule = Schedule::new(Pace::PerSecond(rate), 1, now + Duration::from_secs_f64(1.0 / rate));
        }
        let until = schedule.waits_until().filter(|due| *due > now).unwrap_or(now + LOOK_AGAIN);
        sockets.turn(Some(until.min(now + LOOK_AGAIN)))
    }

    fn go_on_for(&mut self, sockets: &mut Sockets, time: Duration) -> Result<(), LoadError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(sockets)?;
        }
        Ok(())
    }

    /// Kills the server while a publication is under way, starts it again, and goes on until everybody is back.
    fn kill(&mut self, sockets: &mut Sockets, server: &mut Server) -> Result<Kill, LoadError> {
        let everybody = self.options.readers as usize + 1;
        while sockets.unacknowledged(self.publisher) > 0 {
            self.turn(sockets)?;
        }
        let acknowledged = sockets.ledgers[0].published();
        sockets.publish_surely(self.publisher, 0);
        // It is read, committed, announced or acknowledged by then: each kill comes at another point.
        std::thread::sleep(KILL_WITHIN.mul_f64(fastrand::f64()));
        let killed = Instant::now();
        server.kill()?;
        server.spawn()?;
        let (mut listens, mut publishes) = (None, None);
        // Readers that have not noticed yet count as ready.
        let mut were_away = false;
        loop {
            self.turn(sockets)?;
            let passed = killed.elapsed();
            if listens.is_none() && server.listens() {
                listens = Some(passed);
            }
            were_away |= sockets.ready() < everybody;
            let answered = sockets.ledgers[0].published() - u64::from(sockets.unacknowledged(self.publisher));
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

    /// Publishes nothing more, and waits until everything has come; says how many deliveries never did.
    fn finish(&mut self, sockets: &mut Sockets) -> Result<u64, LoadError> {
        let publisher = self.publisher;
        sockets.wait("the last acknowledgement", |sockets| sockets.unacknowledged(publisher) == 0)?;
        match sockets.wait("the last deliveries", |sockets| sockets.undelivered() == 0) {
            // It stands in the report, with everything else.
            Ok(()) | Err(LoadError::Stalled { .. }) => Ok(sockets.undelivered()),
            Err(error) => Err(error),
        }
    }
}

/// The server under our command.
struct Server {
    binary: PathBuf,
    folder: PathBuf,
    /// Whether the folder is of this run alone.
    is_ours: bool,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    fn prepare(options: &Restart) -> Result<Self, LoadError> {
        let is_ours = options.data.is_none();
        let ours = || std::env::temp_dir().join(format!("talewire-restart-{}", std::process::id()));
        let folder = options.data.clone().unwrap_or_else(ours);
        if folder.exists() {
            return Err(LoadError::Options(format!("{} is there already", folder.display())));
        }
        std::fs::create_dir_all(&folder).map_err(LoadError::io("making the data folder"))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(LoadError::io("finding a free port"))?;
        let config = format!(
            "[http]\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\napi_key = \"{API_KEY}\"\n\
             [namespaces.{}]\nkind = \"durable\"\n",
            options.common.namespace
        );
        std::fs::write(folder.join("server.toml"), config).map_err(LoadError::io("writing the server's settings"))?;
        Ok(Self { binary: options.binary.clone(), folder, is_ours, address, child: None })
    }

    /// Starts it and waits until it listens.
    fn start(&mut self) -> Result<(), LoadError> {
        self.spawn()?;
        let deadline = Instant::now() + START_DEADLINE;
        while !self.listens() {
            if Instant::now() > deadline || self.has_ended() {
                let said = std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
                return Err(LoadError::Refused(format!("it does not start: {said}")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<(), LoadError> {
        let spawn = |folder: &Path| {
            let log = File::options().create(true).append(true).open(folder.join("server.log"))?;
            let mut command = Command::new(&self.binary);
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALEWIRE_")) {
                command.env_remove(name);
            }
            command.args(["serve", "--insecure", "--config"]).arg(folder.join("server.toml"));
            command.arg("--data").arg(folder.join("data"));
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
        };
        self.child = Some(spawn(&self.folder).map_err(LoadError::io("starting the server"))?);
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn listens(&self) -> bool {
        std::net::TcpStream::connect_timeout(&self.address, LOOK_AGAIN).is_ok()
    }

    /// By SIGKILL, without a word.
    fn kill(&mut self) -> Result<(), LoadError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map(|_| ()).map_err(LoadError::io("killing the server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.kill();
        if self.is_ours && ended.is_ok() && !std::thread::panicking() {
            // What is left in the folder of temporary files harms nobody.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, readers, acknowledged, deliveries, lost, tally, .. } = self;
        let Tally { doubled, swapped, lies, told, changed, breaks, last_refusal, .. } = tally;
        writeln!(f, "{readers} readers over {transport}, {} kills in {:.0} s", self.kills.len(), self.wall_s)?;
        for (index, kill) in self.kills.iter().enumerate() {
            let Kill { acknowledged, listens_s, publishes_s, all_back_s } = kill;
            writeln!(
                f,
                "kill {} after {acknowledged} acknowledgements: listens after {listens_s:.2} s, publishes after \
                 {publishes_s:.2} s, all readers back after {all_back_s:.2} s",
                index + 1
            )?;
        }
        writeln!(
            f,
            "{acknowledged} entries acknowledged; in each kill one more was under way, and was said again unless its answer was out"
        )?;
        writeln!(f, "{deliveries} deliveries to {readers} readers were right")?;
        writeln!(
            f,
            "lost {lost}, doubled {doubled}, out of order {swapped}, lies {lies}; gaps that were told {told}, changed {changed}"
        )?;
        write!(f, "{breaks} connections broken or attempts failed; latency with outages {}", self.latency)?;
        if let Some(said) = last_refusal {
            write!(f, "\nthe last refusal: {said}")?;
        }
        tally.first_wrong.as_ref().map_or(Ok(()), |wrong| write!(f, "\nthe first thing that was wrong: {wrong}"))
    }
}
