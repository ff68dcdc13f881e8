//! The servers of a run: Talewire's own processes with their settings, folders and proxies, and what they stand on. All of it is
//! on the loopback address, on ports that were free, and ends with the value.

pub mod apart;
pub mod broker;
pub mod disk;
pub mod node;
pub mod proxy;
pub mod twist;

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use talewire_stand::postgres::Postgres;
use tempfile::TempDir;

use self::apart::Network;
use self::broker::Broker;
use self::disk::SmallDisk;
use self::node::{Node, Part};
use self::proxy::Proxy;
use self::twist::{Liar, Lie};
use crate::clients::Door;
use crate::log::{Lasts, Log, What};
use crate::schedule::Place;

/// The key of the server API.
pub const API_KEY: &str = "the-key-of-a-run-of-faults";

/// What signs the tokens of everybody in a run.
const SECRET: &str = "a-secret-of-servers-that-live-for-a-run";

/// How a stage is set up.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// The program under test.
    pub binary: PathBuf,
    /// Another version of it, for every second node.
    pub other: Option<PathBuf>,
    /// On what the nodes stand.
    pub ground: Ground,
    /// How many nodes.
    pub nodes: usize,
    /// Whether the data is on a disk that can be filled: the nodes' own, or that of the PostgreSQL or Redis that they stand on, if it is one server.
    pub small_disk: bool,
    /// Whether the clocks of the nodes and of PostgreSQL can be moved.
    pub moved_clock: bool,
    /// Whether each node has a network of its own, so that it can be cut off from single servers.
    pub apart: bool,
    /// A break, for tests: nodes never look whether announcements reach them.
    pub unwatched: bool,
    /// What the proxies tell that is not so.
    pub lie: Option<Lie>,
}

/// On what nodes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// One node with SQLite and its own memory.
    Alone,
    /// One node with PostgreSQL and its own memory.
    Postgres,
    /// Nodes that share PostgreSQL and one Redis, which syncs every write to its disk.
    Redis,
    /// Nodes that share PostgreSQL and a Redis master with two replicas, watched by three Sentinels. Nothing of it is on a disk.
    Sentinel,
    /// Nodes that share PostgreSQL and a Redis cluster of three masters, each with a replica. Nothing of it is on a disk.
    Cluster,
    /// Nodes that share PostgreSQL and one NATS server, which keeps its streams in files.
    Nats,
}

impl Ground {
    /// Whether there is a PostgreSQL server.
    #[must_use]
    pub fn has_postgres(self) -> bool {
        self != Self::Alone
    }

    /// Whether processes share what they stand on, so that there is a worker of its own.
    #[must_use]
    pub fn has_worker(self) -> bool {
        !matches!(self, Self::Alone | Self::Postgres)
    }

    /// What history channels promise here.
    #[must_use]
    pub fn history(self) -> Lasts {
        match self {
            Self::Alone | Self::Postgres => Lasts::InMemory,
            Self::Redis | Self::Nats => Lasts::Synced,
            Self::Sentinel | Self::Cluster => Lasts::Replicated,
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    /// Talewire's own processes.
    pub nodes: Vec<Node>,
    /// Processes that write generations and take no connections.
    pub workers: Vec<Node>,
    /// One in front of each node.
    pub fronts: Vec<Proxy>,
    /// One between each node and PostgreSQL, if there is one.
    pub store_ways: Vec<Proxy>,
    /// One between each node and its broker, if that is one server.
    pub broker_ways: Vec<Proxy>,
    /// PostgreSQL, if the ground has it.
    pub postgres: Option<Postgres>,
    /// Where PostgreSQL's clock is set, if it can be.
    pub store_clock: Option<PathBuf>,
    /// Redis or NATS, if the ground has one.
    pub broker: Option<Broker>,
    /// The network of each node, if they have their own.
    pub networks: Vec<Arc<Network>>,
    /// Where the data is, if it can be filled.
    pub disk: Option<Arc<SmallDisk>>,
    binary: PathBuf,
    other: Option<PathBuf>,
    /// Goes last: the nodes' files are in it.
    folder: TempDir,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// If a server does not start, with what it said.
    pub fn start(options: &StageOptions) -> anyhow::Result<Self> {
        if options.apart {
            apart::prepare()?;
        }
        let folder = tempfile::Builder::new().prefix("talewire-faults-").tempdir().context("a temporary folder")?;
        let disk = options.small_disk.then(|| Arc::new(SmallDisk::mount(folder.path())));
        let on_disk = |ground: Ground| disk.as_ref().filter(|_| options.ground == ground);
        let store_clock =
            (options.moved_clock && options.ground.has_postgres()).then(|| folder.path().join("store.clock"));
        if let Some(clock) = &store_clock {
            set_clock(clock, 0)?;
            // It runs as somebody else, who has to get there.
            std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).context("the stage's folder")?;
        }
        let place = on_disk(Ground::Postgres).map(|disk| disk.for_postgres(folder.path())).transpose()?;
        let under = store_clock.as_deref().map(node::under_clock).unwrap_or_default();
        let postgres = options.ground.has_postgres().then(|| Postgres::start_with(place, under));
        let broker = Broker::start(options.ground, on_disk(Ground::Redis).map(|disk| &**disk));
        let mut stage = Self {
            nodes: Vec::new(),
            workers: Vec::new(),
            fronts: Vec::new(),
            store_ways: Vec::new(),
            broker_ways: Vec::new(),
            postgres,
            store_clock,
            broker,
            networks: Vec::new(),
            disk,
            binary: options.binary.clone(),
            other: options.other.clone(),
            folder,
        };
        let lie = options.lie.map(|lie| Arc::new(Mutex::new(Liar::new(lie))));
        for number in 1..=options.nodes {
            stage.add_node(number, options, lie.clone())?;
        }
        if options.ground.has_worker() {
            stage.add_worker()?;
        }
        Ok(stage)
    }

    fn add_node(
        &mut self,
        number: usize,
        options: &StageOptions,
        liar: Option<Arc<Mutex<Liar>>>,
    ) -> anyhow::Result<()> {
        let name = format!("n{number}");
        let door = Arc::new(Door::new(&name));
        let store = self.postgres.as_ref().map(|postgres| way(postgres.port)).transpose()?;
        let port = self.broker.as_ref().and_then(Broker::single_port);
        let broker = port.map(way).transpose()?;
        let config = self.folder.path().join(format!("{name}.toml"));
        let store_at = store.as_ref().map(|way| way.address);
        let of_broker = self.broker.as_ref().map(|all| all.settings(broker.as_ref().map(|way| way.address)));
        let network = options.apart.then(|| Network::make(number, self.folder.path())).transpose()?.map(Arc::new);
        let address = network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.address);
        let mut written = settings(address, store_at, of_broker);
        // The last writes, too: it takes over what the worker leaves behind.
        if options.ground.has_worker() && number < options.nodes {
            written = written.replacen("[agents]\n", "[agents]\nrun_here = false\n", 1);
        }
        if options.unwatched {
            written.push_str(UNWATCHED);
        }
        std::fs::write(&config, written).context("writing settings")?;
        self.store_ways.extend(store);
        self.broker_ways.extend(broker);
        let disk = self.disk.as_ref().filter(|_| options.ground == Ground::Alone);
        let data = disk.map_or(self.folder.path(), |disk| disk.outside()).join(&name);
        let binary = self.other.as_ref().filter(|_| number.is_multiple_of(2)).unwrap_or(&self.binary);
        let mut node = Node::new(Part::Serve, door.clone(), binary, &config, &data);
        node.disk = disk.map(|disk| (disk.inside().join(&name), disk.clone()));
        node.network.clone_from(&network);
        self.networks.extend(network);
        if options.moved_clock {
            let clock = self.folder.path().join(format!("{name}.clock"));
            set_clock(&clock, 0)?;
            node.clock = Some(clock);
        }
        node.start()?;
        self.nodes.push(node);
        let front = Proxy::start(door.clone(), liar).context("starting a proxy")?;
        door.fronted(front.address);
        self.fronts.push(front);
        Ok(())
    }

    /// It stands straight on everything: no proxy and no network is between.
    fn add_worker(&mut self) -> anyhow::Result<()> {
        let name = "worker";
        let config = self.folder.path().join(format!("{name}.toml"));
        let store = self.postgres.as_ref().map(|postgres| (Ipv4Addr::LOCALHOST, postgres.port).into());
        let of_broker = self.broker.as_ref().map(|all| all.settings(None));
        std::fs::write(&config, settings(Ipv4Addr::LOCALHOST, store, of_broker)).context("writing settings")?;
        let data = self.folder.path().join(name);
        let mut worker = Node::new(Part::Work, Arc::new(Door::new(name)), &self.binary, &config, &data);
        worker.start()?;
        self.workers.push(worker);
        Ok(())
    }

    /// Where each node is reached.
    #[must_use]
    pub fn doors(&self) -> Vec<Arc<Door>> {
        self.nodes.iter().map(|node| node.door.clone()).collect()
    }

    /// Writes down what everything uses, and who ended by themselves.
    pub fn look(&mut self, log: &Log) {
        for node in self.nodes.iter_mut().chain(&mut self.workers) {
            node.look(log);
            node.measure(log);
        }
        for (number, process) in self.broker.iter().flat_map(Broker::processes).enumerate() {
            node::measure(&format!("broker-{number}"), process.id(), 0, log);
        }
    }

    /// Writes down what the agents of all processes have done.
    pub fn worked(&self, log: &Log) {
        for node in self.nodes.iter().chain(&self.workers) {
            node.worked(log);
        }
    }

    /// Writes down how many keys the masters of Redis have: asked between faults alone, since a paused Redis does not answer.
    pub fn count_keys(&self, log: &Log) {
        if let Some(keys) = self.broker.as_ref().and_then(Broker::keys) {
            log.say(What::Keys { keys });
        }
    }

    /// The proxy at a place.
    ///
    /// # Errors
    /// If this stage has none there.
    pub fn way(&self, place: Place) -> anyhow::Result<&Proxy> {
        let proxy = match place {
            Place::Front(node) => self.fronts.get(node),
            Place::Store(node) => self.store_ways.get(node),
            Place::Broker(node) => self.broker_ways.get(node),
        };
        proxy.with_context(|| format!("no proxy at {place:?}"))
    }

    /// A token for a user.
    ///
    /// # Errors
    /// If the program does not make one.
    pub fn token(&self, user: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.binary);
        node::without_surroundings(&mut command);
        command.args(["token", "--ttl", "30d", "--user", user, "--name", user, "--config"]);
        let made = command.arg(self.folder.path().join("n1.toml")).output().context("running talewire token")?;
        if !made.status.success() {
            bail!("no token: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(String::from_utf8_lossy(&made.stdout).lines().last().unwrap_or_default().trim().to_owned())
    }

    /// A folder for whatever else is needed.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Moves the nodes' wall clock by so many seconds.
///
/// # Errors
/// If the file cannot be written.
pub fn set_clock(file: &Path, seconds: i64) -> anyhow::Result<()> {
    // Renamed into place: a reader never sees half a line.
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).context("setting the clock")?;
    std::fs::rename(&new, file).context("setting the clock")
}

/// A way to a server on this machine that can be cut.
fn way(port: u16) -> anyhow::Result<Proxy> {
    let door = Arc::new(Door::new("way"));
    door.opened((Ipv4Addr::LOCALHOST, port).into());
    Proxy::start(door, None).context("starting a proxy")
}

/// Short times, so that a fault is noticed soon, and limits that one machine with many clients does not meet.
fn settings(address: Ipv4Addr, store: Option<SocketAddr>, broker: Option<String>) -> String {
    let store = store
        .map_or_else(String::new, |address| format!("[store]\nurl = \"postgres://talewire@{address}/postgres\"\n"));
    let broker = broker.unwrap_or_default();
    format!(
        r#"[http]
listen = "{address}:0"
admin_listen = "127.0.0.1:0"
api_key = "{API_KEY}"
requests_per_second = 100_000
request_burst = 100_000
first_byte_ms = 120_000
[auth]
hs256_secret = "{SECRET}"
[limits]
ping_interval_ms = 2_000
pong_deadline_ms = 1_900
comment_interval_ms = 2_000
comment_interval_max_ms = 4_000
commands_per_second = 10_000
command_burst = 10_000
[agents]
lease_ms = 3_000
sweep_ms = 1_000
[agents.demo]
tokens_per_second = 100
[namespaces.talk]
kind = "durable"
publish = "authenticated"
presence = true
join_leave = true
[namespaces.news]
kind = "history"
history_size = {HISTORY_SIZE}
history_age_ms = 7_200_000
publish = "authenticated"
{store}[broker]
generation_age_ms = 10_000
{broker}"#
    )
}

/// Behind the section of Redis.
const UNWATCHED: &str = "probe_lost_ms = 3_600_000\n[hub]\nposition_check_ms = 3_600_000\n";

/// Entries that history channels of a stage keep: more than a run of ten minutes publishes, so that all of them are there to be checked.
pub const HISTORY_SIZE: u64 = 30_000;

/// The program under test: `TALEWIRE_BIN`, or what this workspace has built beside the running program.
///
/// # Errors
/// If it is not there.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("TALEWIRE_BIN") {
        return Ok(named.into());
    }
    let own = std::env::current_exe().context("where this program is")?;
    // A test stands one folder deeper than a program.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("talewire")).find(|candidate| candidate.is_file());
    found.context("no talewire beside this program: cargo build -p talewire, or say where it is in TALEWIRE_BIN")
}
