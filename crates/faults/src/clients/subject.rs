//! Somebody from whom something is taken away during a fault: connected to one node over the native protocol, while the order is
//! given at another. They hear until they are told that it is over, and do not come back. Started by [`crate::nemesis`]; what they heard
//! is judged by I11 alone.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, World};
use crate::http::{self, Trouble, Who};
use crate::log::{Name, What};
use crate::socket::Socket;

/// How long after the fault begins an order is given: time for the fault to come.
const ORDER_AFTER: Duration = Duration::from_millis(300);

/// Time between two attempts at giving an order, and how long it is tried.
const ORDER_AGAIN: Duration = Duration::from_millis(100);
const ORDER_MAX: Duration = Duration::from_secs(15);

/// Ends of a subscription from here on are no order: the client subscribes again.
const SUBSCRIBE_AGAIN: u64 = 2_500;

/// The code with which an order closes a connection.
const FORCE_DISCONNECT: &str = "3503";

/// What subjects read: of each kind one.
const DURABLE: &str = "talk:b";
const HISTORY: &str = "news:b";

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One channel.
    Unsubscribe(&'static str),
    /// The connection.
    Disconnect,
}

/// Of each fault, one subject for each of these.
const ORDERS: [Order; 3] = [Order::Unsubscribe(DURABLE), Order::Unsubscribe(HISTORY), Order::Disconnect];

/// How many subjects a fault has.
pub const SUBJECTS: u32 = ORDERS.len() as u32;

/// Subjects who are connected to a node, and the orders that they are to get.
#[derive(Debug)]
pub struct Subjects {
    all: Vec<(u32, String, Order)>,
    node: Name,
    threads: Vec<JoinHandle<()>>,
}

impl Subjects {
    /// Connects them to the node with this number; `tokens` says who each is, `first` numbers them.
    ///
    /// # Errors
    /// If the node does not let them in.
    pub fn begin(world: &Arc<World>, node: usize, first: u32, tokens: &[(String, String)]) -> Result<Self, Trouble> {
        let nowhere = || Trouble::NotSent("no such node listens yet".to_owned());
        let door = world.doors.get(node).ok_or_else(nowhere)?;
        let address = door.direct().ok_or_else(nowhere)?;
        let mut subjects = Self { all: Vec::new(), node: door.name.clone(), threads: Vec::new() };
        for ((number, order), (user, token)) in (first..).zip(ORDERS).zip(tokens) {
            let mut socket = Socket::open(address, PATIENCE)?;
            socket.connect(token, PATIENCE)?;
            for channel in [DURABLE, HISTORY] {
                socket.call("subscribe", json!({ "channel": channel }), PATIENCE)?;
            }
            let of_thread = world.clone();
            subjects.threads.push(std::thread::spawn(move || hear(number, order, socket, &of_thread)));
            subjects.all.push((number, user.clone(), order));
        }
        Ok(subjects)
    }

    /// Has the orders given at another node as soon as the fault has come, each until it is acknowledged. Returns at once.
    #[must_use]
    pub fn ordered(mut self, world: &Arc<World>, by: usize) -> Self {
        for (subject, user, order) in std::mem::take(&mut self.all) {
            let (world, on) = (world.clone(), self.node.clone());
            self.threads.push(std::thread::spawn(move || {
                std::thread::sleep(ORDER_AFTER);
                give(&world, by, subject, &user, order, on);
            }));
        }
        self
    }

    /// Whether all have heard the last.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

fn give(world: &World, by: usize, subject: u32, user: &str, order: Order, on: Name) {
    let (path, body, channel) = match order {
        Order::Unsubscribe(channel) => ("/api/unsubscribe", json!({ "user": user, "channel": channel }), channel),
        Order::Disconnect => ("/api/disconnect", json!({ "user": user }), ""),
    };
    let deadline = Instant::now() + ORDER_MAX;
    while let Some(door) = world.doors.get(by).filter(|_| Instant::now() < deadline && !world.is_quiet()) {
        let done = door.direct().map(|address| http::post(address, path, Who::Key(&world.api_key), &body, PATIENCE));
        if matches!(done, Some(Ok(_))) {
            let channel = (!channel.is_empty()).then(|| channel.into());
            world.log.say(What::Ordered { subject, channel, on, by: door.name.clone() });
            return;
        }
        std::thread::sleep(ORDER_AGAIN);
    }
}

/// Until what the order is about has ended, in whatever way.
fn hear(subject: u32, order: Order, mut socket: Socket, world: &World) {
    let mut heard = || -> Result<(), Trouble> {
        while !world.is_quiet() {
            let Some(push) = socket.next_push()? else { continue };
            let channel = push["channel"].as_str().unwrap_or_default();
            if push.get("pub").is_some() {
                world.log.say(What::Heard { subject, channel: channel.into() });
            }
            if let Some(code) = push["unsubscribe"]["code"].as_u64() {
                if code >= SUBSCRIBE_AGAIN {
                    socket.call("subscribe", json!({ "channel": channel }), PATIENCE)?;
                } else if matches!(order, Order::Unsubscribe(of) if of == channel) {
                    world.log.say(What::Dismissed { subject, is_ordered: true, how: format!("unsubscribed: {code}") });
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    if let Err(trouble) = heard() {
        let how = trouble.to_string();
        let is_ordered = order == Order::Disconnect && how.contains(FORCE_DISCONNECT);
        world.log.say(What::Dismissed { subject, is_ordered, how });
    }
    socket.close();
}
