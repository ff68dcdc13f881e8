//! The people and programs of a run: each is a thread with a connection of its own, comes back when it breaks, and writes down
//! what it sees. None of them judges anything. Started by [`crate::run`].

pub mod events;
pub mod publisher;
pub mod reader;
pub mod subject;
pub mod teller;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::log::{Log, Name};

/// How long a client waits for any one answer.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Silence after which a connection counts as dead: a ping of the stage's servers and what it may take longer.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The pause before a client comes back, at least and at most.
const BACK_MS: std::ops::Range<u64> = 50..300;

/// Where a node is reached. Changes when it is started again.
#[derive(Debug)]
pub struct Door {
    /// The node's name.
    pub name: Name,
    /// Its own listener.
    direct: Mutex<Option<SocketAddr>>,
    /// The proxy in front of it.
    front: Mutex<Option<SocketAddr>>,
}

impl Door {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), direct: Mutex::new(None), front: Mutex::new(None) }
    }

    /// The node listens here now.
    pub fn opened(&self, address: SocketAddr) {
        *self.direct.lock() = Some(address);
    }

    /// A proxy stands here for good.
    pub fn fronted(&self, address: SocketAddr) {
        *self.front.lock() = Some(address);
    }

    /// The node itself.
    #[must_use]
    pub fn direct(&self) -> Option<SocketAddr> {
        *self.direct.lock()
    }

    fn address(&self, way: Way) -> Option<SocketAddr> {
        match way {
            Way::Direct => self.direct(),
            Way::Proxied => *self.front.lock(),
        }
    }
}

/// Whether a client goes through the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the nodes themselves.
    Direct,
    /// Through the proxy in front of each.
    Proxied,
}

/// Who is subscribed where, as the clients know it: channel and connection of each reader.
pub type Roster = Mutex<BTreeMap<(u32, Name), Name>>;

/// What every client of a run shares.
#[derive(Debug)]
pub struct World {
    /// Where everything is written down.
    pub log: Log,
    /// All nodes.
    pub doors: Vec<Arc<Door>>,
    /// The key of the server API.
    pub api_key: String,
    /// Those who are present.
    pub roster: Roster,
    publishers_stop: AtomicBool,
    everybody_stops: AtomicBool,
}

impl World {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(doors: Vec<Arc<Door>>, api_key: &str) -> Self {
        Self {
            log: Log::default(),
            doors,
            api_key: api_key.to_owned(),
            roster: Roster::default(),
            publishers_stop: AtomicBool::new(false),
            everybody_stops: AtomicBool::new(false),
        }
    }

    /// Nothing new is begun from now on.
    pub fn stop_publishing(&self) {
        self.publishers_stop.store(true, Ordering::Relaxed);
    }

    /// Everybody leaves.
    pub fn stop(&self) {
        self.stop_publishing();
        self.everybody_stops.store(true, Ordering::Relaxed);
    }

    /// See [`World::stop_publishing`].
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.publishers_stop.load(Ordering::Relaxed)
    }

    /// See [`World::stop`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.everybody_stops.load(Ordering::Relaxed)
    }

    /// One node, through the proxy in front of it.
    #[must_use]
    pub fn front(&self, number: usize) -> Option<(Name, SocketAddr)> {
        let door = self.doors.get(number)?;
        door.address(Way::Proxied).map(|address| (door.name.clone(), address))
    }

    /// Some node that has ever listened.
    fn pick(&self, rng: &mut fastrand::Rng, way: Way) -> Option<(Name, SocketAddr)> {
        let door = rng.choice(&self.doors)?;
        door.address(way).map(|address| (door.name.clone(), address))
    }
}

/// The pause before another attempt.
fn pause(rng: &mut fastrand::Rng) {
    std::thread::sleep(Duration::from_millis(rng.u64(BACK_MS)));
}
