//! Somebody who publishes numbered entries in turn into some channels: to the server API of any node, or over a connection of
//! their own. Each publication has a key, and each attempt is written down before it is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, Way, World, pause};
use crate::http::{self, Trouble, Who};
use crate::log::{Name, Outcome, Position, What};
use crate::payload;
use crate::socket::Socket;

/// What somebody does who got no acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Says it again, with the same key, until it is acknowledged.
    Surely,
    /// Goes on with the next.
    Once,
}

/// By what they publish.
#[derive(Debug, Clone)]
pub enum By {
    /// The server API.
    Api,
    /// A connection, with this token.
    Socket {
        /// Of a user of their own: keys belong to users.
        token: String,
    },
}

/// Who publishes what.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Begins all keys; of this publisher alone.
    pub name: String,
    /// In turn.
    pub channels: Vec<Name>,
    /// What happens without an acknowledgement.
    pub manner: Manner,
    /// By what.
    pub by: By,
    /// Through proxies or not.
    pub way: Way,
    /// Time between two publications.
    pub every: Duration,
    /// One in so many is said again later, to any node; 0 for none.
    pub repeats: u64,
    /// For everything that is random about it.
    pub seed: u64,
}

/// How long somebody tries on after the end of publishing.
const TRIES_ON_FOR: Duration = Duration::from_secs(15);

/// Entries that are remembered to be said again.
const REMEMBERED_MAX: usize = 64;

struct Publishing<'a> {
    publisher: Publisher,
    world: &'a World,
    rng: fastrand::Rng,
    socket: Option<(Name, Socket)>,
    said: Vec<(Name, Name, u64)>,
}

impl Publisher {
    /// Publishes until it is quiet.
    pub fn run(self, world: &Arc<World>) {
        let rng = fastrand::Rng::with_seed(self.seed);
        let mut publishing = Publishing { publisher: self, world, rng, socket: None, said: Vec::new() };
        let mut n = 0;
        while !world.is_quiet() {
            let due = Instant::now() + publishing.publisher.every;
            n += 1;
            publishing.publish(n);
            let repeats = publishing.publisher.repeats;
            if repeats > 0 && publishing.rng.u64(0..repeats) == 0 {
                publishing.repeat();
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

impl Publishing<'_> {
    fn publish(&mut self, n: u64) {
        let channels = &self.publisher.channels;
        let channel = channels[usize::try_from(n).unwrap_or(0) % channels.len()].clone();
        let key: Name = format!("{}-{n}", self.publisher.name).into();
        let mut deadline = None;
        loop {
            let is_kept = self.attempt(&channel, &key, n);
            if is_kept {
                if self.said.len() == REMEMBERED_MAX {
                    self.said.remove(0);
                }
                self.said.push((channel, key, n));
                return;
            }
            if self.world.is_quiet() && deadline.is_none() {
                deadline = Some(Instant::now() + TRIES_ON_FOR);
            }
            let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
            if self.publisher.manner == Manner::Once || is_late || self.world.is_over() {
                return;
            }
            pause(&mut self.rng);
        }
    }

    /// Says something again that was acknowledged long ago.
    fn repeat(&mut self) {
        if let Some((channel, key, n)) = self.rng.choice(&self.said).cloned() {
            self.attempt(&channel, &key, n);
        }
    }

    /// Whether it was acknowledged.
    fn attempt(&mut self, channel: &Name, key: &Name, n: u64) -> bool {
        let by_socket = matches!(self.publisher.by, By::Socket { .. });
        if by_socket && self.socket.is_none() && !self.connect() {
            return false;
        }
        let over = self.socket.as_ref().map(|(node, _)| node.clone());
        let picked = match over {
            Some(node) => Some((node, None)),
            None => self.world.pick(&mut self.rng, self.publisher.way).map(|(node, address)| (node, Some(address))),
        };
        let Some((node, address)) = picked else { return false };
        let log = &self.world.log;
        let op = log.operation();
        log.say(What::Asked { op, channel: channel.clone(), key: key.clone(), node });
        let data = payload::payload(channel, key, n);
        let answer = match (&mut self.socket, address) {
            (Some((_, socket)), _) => {
                socket.call("publish", json!({ "channel": **channel, "data": data, "key": **key }), PATIENCE)
            }
            (None, Some(address)) => {
                let body = json!({ "channel": **channel, "data": data, "idempotency_key": **key });
                let who = Who::Key(&self.world.api_key);
                http::post(address, "/api/publish", who, &body, PATIENCE).map(|mut answer| answer["result"].take())
            }
            (None, None) => return false,
        };
        if matches!(answer, Err(Trouble::Unknown(_) | Trouble::NotSent(_))) {
            self.socket = None;
        }
        let outcome = outcome(answer, by_socket);
        let is_kept = matches!(outcome, Outcome::Kept(_) | Outcome::Said);
        log.say(What::Answered { op, outcome });
        is_kept
    }

    fn connect(&mut self) -> bool {
        let By::Socket { token } = &self.publisher.by else { return false };
        let Some((node, address)) = self.world.pick(&mut self.rng, self.publisher.way) else { return false };
        let opened = Socket::open(address, PATIENCE).and_then(|mut socket| {
            socket.connect(token, PATIENCE)?;
            Ok(socket)
        });
        self.socket = opened.ok().map(|socket| (node, socket));
        self.socket.is_some()
    }
}

/// Over a connection an acknowledgement has no position; it is found in the history by the key.
fn outcome(answer: Result<serde_json::Value, Trouble>, by_socket: bool) -> Outcome {
    match answer {
        Ok(_) if by_socket => Outcome::Said,
        Ok(result) => match (result["epoch"].as_str(), result["offset"].as_u64()) {
            (Some(epoch), Some(offset)) => Outcome::Kept(Position { epoch: epoch.into(), offset }),
            _ => Outcome::Unknown(format!("acknowledged without a position: {result}")),
        },
        Err(Trouble::Unknown(why)) => Outcome::Unknown(why),
        Err(refused) => Outcome::Refused(refused.to_string()),
    }
}
