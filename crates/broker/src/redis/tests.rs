//! What only a shared broker can get wrong: several nodes, and servers that die, stand still, forget, or are replaced.
//!
//! What every broker promises is asked in `crate::tests`.

#![allow(clippy::unwrap_used)]

mod clusters;
mod deaf;
mod doors;
mod garbage;
mod many;
mod occupied;
mod outages;
mod present;
mod proxy;
mod sentinels;
mod successors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use talewire_proto::{Channel, Namespace, Payload, Position, Publication, Since};
use talewire_stand::redis::Redis as Server;
use tokio::sync::mpsc;

use super::{RedisMode, RedisSettings};
use crate::{
    Broker, BrokerError, BrokerHealth, BrokerKind, BrokerSettings, Delivery, Direction, Message, NodeId, Page,
    PageLimit, Published,
};

/// One node's broker, and what it delivers.
struct Node {
    broker: Broker,
    id: NodeId,
    delivered: mpsc::UnboundedReceiver<Delivery>,
}

/// Settings under which a node notices everything soon.
fn quick(urls: Vec<String>) -> BrokerSettings {
    let redis = RedisSettings {
        mode: RedisMode::Single,
        urls,
        connect_timeout_ms: 1_000,
        response_timeout_ms: 600,
        reconnect_wait_ms: 5,
        reconnect_wait_ms_max: 50,
        down_after_ms: 100,
        probe_ms: 50,
        probe_lost_ms: 1_500,
        servers_check_ms: 100,
        subscribe_batch_max: 7,
        ..RedisSettings::default()
    };
    BrokerSettings {
        kind: BrokerKind::Redis,
        node_beat_ms: 100,
        node_lease_ms: 1_500,
        redis,
        ..BrokerSettings::default()
    }
}

async fn node(server: &Server) -> Node {
    node_with(&quick(vec![server.url()])).await
}

async fn node_with(settings: &BrokerSettings) -> Node {
    let id = NodeId::new();
    let broker = Broker::open(settings, &id).await.unwrap();
    let (sender, delivered) = mpsc::unbounded_channel();
    broker.deliver_to(Arc::new(move |delivery| drop(sender.send(delivery))));
    Node { broker, id, delivered }
}

impl Node {
    async fn listen(&self, name: &str) {
        self.broker.listen(&channel(name));
        self.broker.listening(&channel(name)).await.unwrap();
    }

    async fn publish(&self, name: &str, words: &str) -> Result<Published, BrokerError> {
        self.broker.publish(&channel(name), &rules(), says(words).into()).await
    }

    /// Publishes until it is taken.
    async fn publish_at_last(&self, name: &str, words: &str) -> Position {
        let begun = Instant::now();
        loop {
            match self.publish(name, words).await {
                Ok(published) => return published.position,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
        }
    }

    async fn page(&self, name: &str) -> Page {
        let all = PageLimit { entries: 100_000, bytes: 100_000_000 };
        self.broker.history(&channel(name), &rules(), Since::Oldest, Direction::Forward, all).await.unwrap()
    }

    async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(Duration::from_secs(20), self.delivered.recv()).await;
        next.expect("a delivery within twenty seconds").unwrap()
    }

    /// Takes deliveries until one is what is waited for; says how many were passed over.
    async fn wait_for(&mut self, what: impl Fn(&Delivery) -> bool) -> usize {
        let mut passed = 0;
        while !what(&self.next().await) {
            passed += 1;
        }
        passed
    }

    async fn wait_for_doubt(&mut self, name: &str) {
        let channel = channel(name);
        self.wait_for(|delivery| delivery.channel == channel && matches!(delivery.message, Message::Doubt)).await;
    }

    async fn wait_for_health(&self, up: bool) {
        wait_until(|| (self.broker.health() == BrokerHealth::Up) == up).await;
    }
}

/// What a node's hub does with what it hears: entries that follow are taken, whatever else there is is read.
struct Reader {
    name: &'static str,
    seen: std::collections::BTreeMap<u64, String>,
    doubts: usize,
    /// Entries that were read and not heard.
    read: usize,
}

impl Reader {
    fn new(name: &'static str) -> Self {
        Self { name, seen: std::collections::BTreeMap::new(), doubts: 0, read: 0 }
    }

    /// Takes what has been delivered until now.
    async fn catch_up(&mut self, node: &mut Node) {
        while let Ok(delivery) = node.delivered.try_recv() {
            if delivery.channel != channel(self.name) {
                continue;
            }
            match delivery.message {
                Message::Entry { entry, .. } => self.see(entry.offset, words(&entry.publication)),
                Message::Doubt => {
                    self.doubts += 1;
                    self.read(node).await;
                }
                _ => {}
            }
        }
    }

    async fn read(&mut self, node: &Node) {
        let all = PageLimit { entries: 100_000, bytes: 100_000_000 };
        let page = node.broker.history(&channel(self.name), &rules(), Since::Oldest, Direction::Forward, all).await;
        for entry in page.iter().flat_map(|page| &page.entries) {
            self.read += usize::from(!self.seen.contains_key(&entry.offset));
            self.see(entry.offset, words(&entry.publication));
        }
    }

    fn see(&mut self, offset: u64, words: String) {
        let before = self.seen.insert(offset, words.clone());
        assert!(before.as_ref().is_none_or(|before| *before == words), "{offset} is {words} and was {before:?}");
    }
}

/// Publishes with a key until it is acknowledged, once or many times.
async fn publish_surely(broker: &Broker, name: &str, words: &str) -> Position {
    let key = crate::Key { user: "ana".parse().unwrap(), key: words.to_owned() };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let publish = crate::Publish { key: Some(key.clone()), ..says(words).into() };
        match broker.publish(&channel(name), &rules(), publish).await {
            Ok(published) => return published.position,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something is so that nobody tells of.
async fn wait_until(is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "not within thirty seconds");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn rules() -> Namespace {
    Namespace { history_size: 100_000, history_age_ms: 3_600_000, ..Namespace::default() }
}

fn says(words: &str) -> Publication {
    Publication { data: Some(Payload::of(&words)), ..Publication::default() }
}

fn words(publication: &Publication) -> String {
    publication.data.as_ref().unwrap().read().unwrap()
}

/// What somebody who has `position` is owed, by what a page says of older names.
fn is_true(page: &Page, position: &Position) -> bool {
    let shared = |older: &Position| position.epoch == older.epoch && position.offset <= older.offset;
    position.epoch == page.top.epoch && position.offset <= page.top.offset || page.older.iter().any(shared)
}
