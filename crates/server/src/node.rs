//! What all threads of one server share: the rooms of the house, as the binary has assembled them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use talewire_agents::counts::AgentCounts;
use talewire_auth::{Auth, OriginRule, Seal};
use talewire_broker::{Broker, NodeId};
use talewire_hub::Hub;
use talewire_proto::session::{Anonymous, Now};
use talewire_proto::{Channel, ClientId, ErrorCode, Limits, Namespace};
use talewire_store::Store;
use talewire_story::Stories;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::health::Commits;
use crate::inbox::Inboxes;
use crate::logouts::LogoutsRead;
use crate::metrics::Metrics;
use crate::nodes::Peers;
use crate::orders::OrdersRead;
use crate::rates::PublishRates;
use crate::reload::ReloadRequest;
use crate::rules::Rules;
use crate::settings::ServerSettings;
use crate::traces::Traces;
use crate::transport::emulation::Sessions;
use crate::transport::guard::Guard;

/// Open sockets of the admin listener; one more is closed at once.
const ADMIN_SOCKETS_MAX: usize = 256;

/// What the page shows about the server.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Which provider the narrator uses: `demo` or `openai`.
    pub provider: String,
    /// What readers are told about it.
    pub label: String,
}

/// The parts of a server, assembled.
pub struct Node {
    /// Sockets and HTTP.
    pub settings: ServerSettings,
    /// Who may connect without showing who they are.
    pub anonymous: Anonymous,
    /// Tokens and logins.
    pub auth: Auth,
    /// From which pages browsers may come.
    pub origins: OriginRule,
    /// Seals where readers without a protocol stand.
    pub cursors: Seal,
    /// What must last.
    pub store: Store,
    /// What carries publications.
    pub broker: Broker,
    /// Who is subscribed here.
    pub hub: Hub,
    /// The use cases of stories.
    pub stories: Stories,
    /// What the page shows about the server.
    pub about: About,
    /// Which publications are followed, if any.
    pub traces: Option<Traces>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// The rules of channels and the limits of sessions: exchanged whole, and told to every thread.
    rules: watch::Sender<Arc<Rules>>,
    pub(crate) rates: PublishRates,
    pub(crate) reloads: Option<mpsc::Sender<ReloadRequest>>,
    /// Names this node among others; new at every start.
    pub(crate) id: NodeId,
    /// What is known of the store's commits.
    pub(crate) commits: Commits,
    /// How far logouts have been read.
    pub(crate) logouts_read: LogoutsRead,
    /// How far kept orders have been carried out.
    pub(crate) orders_read: OrdersRead,
    /// What it knows of others.
    pub(crate) peers: Peers,
    /// When it started, on the wall clock.
    pub(crate) started_ms: i64,
    /// Connections whose commands come by other requests.
    pub(crate) sessions: Sessions,
    /// Caps and rates before anything is parsed.
    pub(crate) guard: Arc<Guard>,
    /// Operators have places of their own, or a full house could not be looked at.
    pub(crate) admin_guard: Guard,
    /// Exports under way.
    pub(crate) exports: Arc<Semaphore>,
    /// It goes down and says so; who is here is served.
    pub(crate) stopping: AtomicBool,
    /// It has gone on to close connections: it takes no new ones.
    pub(crate) closing: AtomicBool,
    inboxes: Arc<OnceLock<Inboxes>>,
    hashes: RandomState,
    started: Instant,
}

/// What a node is made from.
pub struct NodeParts {
    /// Which run of which node it is.
    pub id: NodeId,
    /// How operators call the node.
    pub name: String,
    /// Names its database: nodes over one broker have the same.
    pub store_name: String,
    /// Time between two signs of life, in milliseconds.
    pub beat_ms: u64,
    /// For how long the store keeps orders to connections.
    pub orders_age: Duration,
    /// Digests of settings that must be the same at every node over one broker, by part; that of channels' rules comes by itself.
    pub agreed: BTreeMap<String, String>,
    /// Sockets and HTTP.
    pub settings: ServerSettings,
    /// The rules of channels and the limits of sessions, to begin with.
    pub rules: Rules,
    /// Who takes requests to read the configuration again.
    pub reloads: Option<mpsc::Sender<ReloadRequest>>,
    /// Who may connect without showing who they are.
    pub anonymous: Anonymous,
    /// Tokens and logins.
    pub auth: Auth,
    /// From which pages browsers may come.
    pub origins: OriginRule,
    /// Seals where readers without a protocol stand.
    pub cursors: Seal,
    /// Who is subscribed here; store and broker are its.
    pub hub: Hub,
    /// The use cases of stories.
    pub stories: Stories,
    /// What the page shows about the server.
    pub about: About,
    /// Which publications are followed, if any.
    pub traces: Option<Traces>,
    /// What the worker of this process has done, for metrics.
    pub agents: Arc<AgentCounts>,
}

impl Node {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let guard = Arc::new(Guard::new(&parts.settings));
        let inboxes = Arc::new(OnceLock::new());
        let peers = Peers::new(parts.name, parts.store_name, parts.beat_ms, parts.agreed);
        Self {
            metrics: Metrics::new(&parts.hub, &guard, parts.agents, inboxes.clone(), peers.known.clone()),
            id: parts.id,
            commits: Commits::default(),
            logouts_read: LogoutsRead::default(),
            orders_read: OrdersRead::new(parts.orders_age),
            peers,
            started_ms: unix_ms(),
            sessions: Sessions::default(),
            guard,
            admin_guard: Guard::new(&ServerSettings { sockets_max: ADMIN_SOCKETS_MAX, ..ServerSettings::default() }),
            exports: Arc::new(Semaphore::new(parts.settings.exports_at_once_max.max(1))),
            rules: watch::Sender::new(Arc::new(parts.rules)),
            rates: PublishRates::new(parts.settings.publish_rates_kept_max),
            reloads: parts.reloads,
            anonymous: parts.anonymous,
            auth: parts.auth,
            origins: parts.origins,
            cursors: parts.cursors,
            store: parts.hub.store().clone(),
            broker: parts.hub.broker().clone(),
            hub: parts.hub,
            stories: parts.stories,
            about: parts.about,
            traces: parts.traces,
            settings: parts.settings,
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            inboxes,
            hashes: RandomState::new(),
            started: Instant::now(),
        }
    }

    /// The rules as they are now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }

    /// The limits of sessions that begin now.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.rules.borrow().limits.clone()
    }

    /// The rules of a channel as they are now.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`], as [`Namespaces::of`](talewire_proto::Namespaces::of).
    pub fn rules_of(&self, channel: &Channel) -> Result<Arc<Namespace>, ErrorCode> {
        self.rules.borrow().namespaces.of(channel).cloned()
    }

    /// Puts other rules in force. Every thread gives them to its sessions; limits are for those that begin from now on.
    pub fn exchange(&self, rules: Rules) {
        self.rules.send_replace(Arc::new(rules));
        self.metrics.reloaded("done");
    }

    /// Counts rules that could not be put in force.
    pub fn exchange_failed(&self) {
        self.metrics.reloaded("refused");
    }

    /// The rules whenever they are exchanged.
    pub(crate) fn follow_rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// The ways into the threads, once they have been made: before that there are no connections.
    pub(crate) fn inboxes(&self) -> Option<&Inboxes> {
        self.inboxes.get()
    }

    /// The threads are about to start: orders go to them from now on.
    pub(crate) fn open_inboxes(&self, inboxes: &Inboxes) {
        assert!(self.inboxes.set(inboxes.clone()).is_ok(), "a node is started once");
        let inboxes = inboxes.clone();
        self.broker.control_with(Arc::new(move |control| inboxes.control(&control)));
    }

    /// Stands for a name in the indexes of the threads.
    pub(crate) fn hash(&self, name: &str) -> u32 {
        // Half of it is enough, since names are compared.
        (self.hashes.hash_one(name) >> 32) as u32
    }

    /// The time, for sessions.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, unix_ms: unix_ms() }
    }

    /// Whether the server is going down: it says so to whoever asks, and keeps no socket for another request.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether it is closing its connections, and takes no new ones.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// The wall clock in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An unguessable id for a new connection.
pub(crate) fn new_client() -> ClientId {
    let key = talewire_auth::new_key();
    let mut bytes = [0; 13];
    bytes.copy_from_slice(&key[..13]);
    ClientId::from_random(bytes)
}
