//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::LoadError;
use crate::ledger::{Ledger, PAYLOAD_BYTES_MIN};
use crate::pace::Pace;
use crate::sockets::{Patience, Role, Sockets, Target, Transport};

/// Load for a Talewire server, with every publication checked at every reader.
///
/// Exit codes: 0 all was right, 1 the run could not be made, 2 a wrong command line, 3 a delivery was wrong or missing.
#[derive(Debug, Parser)]
#[command(name = "talewire-load", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// One channel with many subscribers: deliveries per processor second, latency
    Fanout(Fanout),
    /// Connections that wait, with one subscription each: memory
    Idle(Idle),
    /// Connections that come and go: processor time of each
    Connect(Connect),
    /// Many rooms with some members each, who chat
    Rooms(Rooms),
    /// A durable channel with many readers, under constant publishing, while the server is killed and started again
    Restart(Restart),
    /// Two servers over one broker and one store, under constant publishing: one after the other goes or is killed, and its readers move
    Roll(Roll),
    /// The bare server of `fanout --with-baseline`; prints its address, and ends with its first connection
    Baseline,
}

/// What all scenarios share.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub server: SocketAddr,
    /// Where those who publish connect, if that is another node than the readers'
    #[arg(long)]
    pub publish_to: Option<SocketAddr>,
    /// The server's process, for its processor time and memory
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// How readers are connected; who publishes speaks WebSocket, or POST /api/publish
    #[arg(long, value_enum, default_value = "websocket")]
    pub transport: TransportName,
    /// The token of every connection; none for a server that runs with --insecure
    #[arg(long, env = "TALEWIRE_LOAD_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The namespace of the channels
    #[arg(long, default_value = "load")]
    pub namespace: String,
    /// Loopback addresses to come from: limits of the server count by address
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u8).range(..=250))]
    pub sources: u8,
    /// Connections that are being opened at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub opening: u32,
    /// Give up when nothing that is due comes for so long, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub stall_s: u64,
    /// Give up when the run is not over by then, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline_s: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The transports that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TransportName {
    /// The native protocol in JSON over WebSocket.
    #[value(alias = "websocket-json")]
    Websocket,
    /// The native protocol over HTTP streaming.
    HttpStream,
    /// The native protocol over Server-Sent Events, at /connection/sse.
    Sse,
    /// Plain events, GET /events.
    Events,
    /// Long polls, GET /poll, on sockets that are kept.
    Poll,
}

impl TransportName {
    fn transport(self) -> Transport {
        match self {
            Self::Websocket => Transport::WebSocketJson,
            Self::HttpStream => Transport::HttpStream,
            Self::Sse => Transport::EventStream,
            Self::Events => Transport::Events,
            Self::Poll => Transport::Poll,
        }
    }
}

/// Who publishes what, and how fast.
#[derive(Debug, Clone, Args)]
pub struct Publishing {
    /// The size of a payload in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..=1_000_000))]
    pub payload: u32,
    /// Publications that are measured
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub messages: u32,
    /// Publications before that, which are checked and not measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub warmup: u32,
    /// Publications per second; without it the next goes when all readers have got the last
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
}

impl Publishing {
    /// How fast.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.rate.map_or(Pace::AsReadersKeepUp, Pace::PerSecond)
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 1000000".to_owned()),
    }
}

/// Options of `fanout`.
#[derive(Debug, Clone, Args)]
pub struct Fanout {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Publishing.
    #[command(flatten)]
    pub publishing: Publishing,
    /// Readers of the channel
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub subscribers: u32,
    /// Publications that go at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub burst: u32,
    /// Publish by POST /api/publish with this key, instead of over client connections
    #[arg(long, env = "TALEWIRE_LOAD_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Connections that publish in turn: limits of the server count by connection
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub publishers: u32,
    /// Runs; medians are printed too
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Measure a bare epoll loop in the same way, in turn with the server, and print the ratio
    #[arg(long, requires = "server_pid")]
    pub with_baseline: bool,
}

/// Options of `idle`.
#[derive(Debug, Clone, Args)]
pub struct Idle {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Connections
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Channels that they are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub channels: u32,
    /// How long to hold them, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub hold_s: u64,
}

/// Options of `connect`.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Connections in all
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub connections: u32,
    /// Connections that are open before all of them are closed again
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub open: u32,
    /// Channels that they are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub channels: u32,
}

/// Options of `rooms`.
#[derive(Debug, Clone, Args)]
pub struct Rooms {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Publishing. Without --rate every room's next goes when its members have got its last.
    #[command(flatten)]
    pub publishing: Publishing,
    /// Rooms
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rooms: u32,
    /// Members of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub members: u32,
    /// For the choice of rooms and members; a random one is printed
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What the scenarios share in which servers end. `--server` and `--server-pid` are not used: they start servers of their own.
#[derive(Debug, Clone, Args)]
pub struct Ending {
    /// The server's binary
    #[arg(long, value_name = "FILE")]
    pub binary: PathBuf,
    /// A setting of every server as a variable, such as TALEWIRE_STORE_URL=postgres://…; several share a broker and a store
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// The folder of the servers, which must not be there yet; one for this run if absent, removed afterwards
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Readers, each on its own connection
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub readers: u32,
    /// Time from when all readers are there until the next end, and after the last, in milliseconds
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub between_ms: u64,
    /// Publications per second; each waits for the acknowledgement of the last
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub rate: f64,
    /// The size of a payload in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..=60_000))]
    pub payload: u32,
    /// The longest pause before a reader's first attempt to come back, in milliseconds; each further one may take twice as long
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub backoff_ms: u64,
    /// What that grows to, in milliseconds
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub backoff_max_ms: u64,
}

impl Ending {
    /// The settings of every server.
    ///
    /// # Errors
    /// [`LoadError::Options`] for one that is no `NAME=VALUE`.
    pub fn variables(&self) -> Result<Vec<(String, String)>, LoadError> {
        let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.set
            .iter()
            .map(|text| pair(text).ok_or_else(|| LoadError::Options(format!("{text} is no NAME=VALUE"))))
            .collect()
    }
}

/// Options of `restart`.
#[derive(Debug, Clone, Args)]
pub struct Restart {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Those of servers that end.
    #[command(flatten)]
    pub ending: Ending,
    /// How often the server is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub kills: u32,
}

/// The kinds of channel that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindName {
    /// Kept in the broker
    History,
    /// Kept in the store
    Durable,
}

impl std::fmt::Display for KindName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::History { "history" } else { "durable" })
    }
}

/// Options of `roll`.
#[derive(Debug, Clone, Args)]
pub struct Roll {
    /// Shared ones.
    #[command(flatten)]
    pub common: Common,
    /// Those of servers that end.
    #[command(flatten)]
    pub ending: Ending,
    /// The kind of the channel
    #[arg(long, value_enum, default_value = "durable")]
    pub kind: KindName,
    /// How often one of the servers goes, in turn
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub moves: u32,
    /// They are killed (SIGKILL) instead of told to go
    #[arg(long)]
    pub kill: bool,
}

impl Common {
    /// Where to connect.
    #[must_use]
    pub fn target(&self, api_key: Option<&str>) -> Target {
        Target {
            server: self.server,
            publish_to: self.publish_to,
            transport: self.transport.transport(),
            token: self.token.clone(),
            api_key: api_key.map(str::to_owned),
            sources: self.sources,
        }
    }

    /// How long a run that begins now may take.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience {
            deadline: Instant::now() + Duration::from_secs(self.deadline_s),
            deadline_s: self.deadline_s,
            stall: Duration::from_secs(self.stall_s),
        }
    }

    /// The name of a channel that no other run uses.
    #[must_use]
    pub fn channel(&self, number: u32) -> String {
        format!("{}:{:x}-{number}", self.namespace, std::process::id())
    }

    /// Connections for a scenario in which nobody publishes, spread over channels.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn silent(&self, channels: u32) -> Result<Sockets, LoadError> {
        let ledgers = (0..channels).map(|number| Ledger::new(self.channel(number), 1, 0)).collect();
        Sockets::new(self.target(None), self.patience(), ledgers)
    }
}

/// Readers spread over channels.
#[must_use]
pub fn readers(count: u32, channels: u32) -> Vec<Role> {
    (0..count).map(|index| Role::Reader { ledger: (index % channels) as usize }).collect()
}
