//! What only a shared broker can get wrong: several nodes, and a server that dies, stands still, or forgets.
//!
//! What every broker promises is asked in `crate::tests`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use talewire_proto::{
    Channel, ClientId, ClientInfo, CloseCode, Epoch, Namespace, Notice, NoticeKind, Payload, Publication, Since,
};
use talewire_stand::nats::Nats as Server;
use tokio::sync::mpsc;

use super::NatsSettings;
use crate::{
    Broker, BrokerError, BrokerHealth, BrokerKind, BrokerSettings, Control, Delivery, Direction, Key, Message, NodeId,
    NodeReport, Order, Page, PageLimit, Publish, Published, Tell, Whom,
};

/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// One node's broker, and what it delivers.
struct Node {
    broker: Broker,
    id: NodeId,
    delivered: mpsc::UnboundedReceiver<Delivery>,
}

/// Settings under which a node notices everything soon.
fn quick(server: &Server) -> BrokerSettings {
    let nats = NatsSettings {
        urls: vec![server.url()],
        response_timeout_ms: 1_000,
        probe_ms: 50,
        probe_lost_ms: 1_000,
        ..NatsSettings::default()
    };
    let kind = BrokerKind::Nats;
    BrokerSettings { kind, node_beat_ms: 100, node_lease_ms: 1_500, nats, ..BrokerSettings::default() }
}

async fn node(server: &Server) -> Node {
    let id = NodeId::new();
    let broker = Broker::open(&quick(server), &id).await.unwrap();
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

    async fn publish_at_last(&self, name: &str, words: &str) -> Published {
        let begun = Instant::now();
        loop {
            match self.publish(name, words).await {
                Ok(published) => return published,
                Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn page(&self, name: &str) -> Page {
        let all = PageLimit { entries: 100_000, bytes: 100_000_000 };
        self.broker.history(&channel(name), &rules(), Since::Oldest, Direction::Forward, all).await.unwrap()
    }

    async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(DEADLINE, self.delivered.recv()).await;
        next.expect("a delivery in time").unwrap()
    }

    async fn next_offset(&mut self) -> u64 {
        loop {
            if let Message::Entry { entry, .. } = self.next().await.message {
                return entry.offset;
            }
        }
    }

    async fn wait_for_doubt(&mut self) {
        while !matches!(self.next().await.message, Message::Doubt) {}
    }

    async fn wait_for_health(&self, up: bool) {
        wait_until(|| (self.broker.health() == BrokerHealth::Up) == up).await;
    }

    async fn enter(&self, name: &str, client: &str) {
        let client: ClientId = client.parse().unwrap();
        let info = ClientInfo { user: "ana".parse().unwrap(), client: Some(client.clone()), ..ClientInfo::default() };
        self.broker.enter(&channel(name), &client, &Arc::new(info), Tell::Subscribers).await.unwrap();
    }

    async fn wait_for_present(&self, name: &str, clients: &[&str]) {
        let begun = Instant::now();
        let wanted: BTreeSet<String> = clients.iter().map(|client| (*client).to_owned()).collect();
        loop {
            let found = self
                .broker
                .presence(&channel(name))
                .await
                .map(|all| all.into_iter().map(|(client, _)| client.to_string()).collect::<BTreeSet<_>>());
            if found.as_ref() == Ok(&wanted) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{found:?} and not {wanted:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until something is so that nobody tells of.
async fn wait_until(is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "not in time");
        tokio::task::yield_now().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_publish_into_one_order() {
    let server = Server::start();
    let (mut one, two) = (node(&server).await, node(&server).await);
    one.listen("chat:a").await;
    let publishing = [&one, &two].map(|node| {
        let broker = node.broker.clone();
        let name = node.id.to_string();
        tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..100 {
                let words = format!("{name}-{n}");
                let published = broker.publish(&channel("chat:a"), &rules(), says(&words).into()).await.unwrap();
                places.push((published.position.offset, words));
            }
            places
        })
    });
    let mut told = HashMap::new();
    for places in publishing {
        let places = places.await.unwrap();
        assert!(places.is_sorted(), "each node's own come in its order");
        told.extend(places);
    }
    assert_eq!(told.len(), 200, "no offset twice");
    for offset in 1..=200 {
        assert_eq!(one.next_offset().await, offset, "the server announces in its own order");
    }
    let page = two.page("chat:a").await;
    assert!(page.complete);
    for entry in page.entries {
        let words: String = entry.publication.data.as_ref().unwrap().read().unwrap();
        assert_eq!(told[&entry.offset], words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_to_every_node_also_when_its_publisher_died() {
    let server = Server::start();
    let (dying, two, three) = (node(&server).await, node(&server).await, node(&server).await);
    let with_key = |key: &str| Publish {
        key: Some(Key { user: "ana".parse().unwrap(), key: key.to_owned() }),
        ..says("x").into()
    };
    let chat = channel("chat:a");
    // Three remembers how the channel stood before.
    three.publish("chat:a", "first").await.unwrap();
    let first = dying.broker.publish(&chat, &rules(), with_key("k")).await.unwrap();
    assert_eq!((first.position.offset, first.repeated), (2, false));
    // Its record was not written yet: that is for whoever publishes next.
    drop(dying);
    let again = three.broker.publish(&chat, &rules(), with_key("k")).await.unwrap();
    assert_eq!((again.position, again.repeated), (first.position.clone(), true));
    two.publish("chat:a", "between").await.unwrap();
    for node in [&two, &three] {
        let again = node.broker.publish(&chat, &rules(), with_key("k")).await.unwrap();
        assert_eq!((again.position, again.repeated), (first.position.clone(), true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_comes_back_has_kept_everything() {
    let mut server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    node.enter("chat:a", "1").await;
    let before = node.publish("chat:a", "before").await.unwrap().position;
    server.kill();
    node.wait_for_health(false).await;
    let away = node.publish("chat:a", "while it is away").await;
    assert!(matches!(away, Err(BrokerError::Unknown(_) | BrokerError::Unavailable(_))), "it may wait: {away:?}");
    assert!(matches!(node.broker.signal(&channel("chat:a"), says("x")).await, Err(BrokerError::Unavailable(_))));
    server.restart();
    node.wait_for_health(true).await;
    node.wait_for_doubt().await;
    let after = node.publish_at_last("chat:a", "after").await.position;
    assert_eq!(after.epoch, before.epoch);
    let page = node.page("chat:a").await;
    assert!(page.complete && page.entries[0].offset == 1 && page.top == after, "{page:?}");
    while node.next_offset().await != after.offset {}
    node.wait_for_present("chat:a", &["1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_everything_begins_another_epoch() {
    let mut server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    node.enter("chat:a", "1").await;
    let nothing: Epoch = node.page("chat:silent").await.top.epoch;
    for _ in 0..3 {
        node.publish("chat:a", "before").await.unwrap();
    }
    let before = node.page("chat:a").await.top;
    server.restart_empty();
    node.wait_for_doubt().await;
    node.wait_for_health(true).await;
    let after = node.publish_at_last("chat:a", "after").await.position;
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch);
    let page = node.page("chat:a").await;
    assert_eq!((page.entries.len(), page.top), (1, after));
    assert_ne!(node.page("chat:silent").await.top.epoch, nothing, "its first entry would have an offset that was told");
    // This node has not forgotten who is here.
    node.wait_for_present("chat:a", &["1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_somebody_deleted_is_not_taken_for_the_same() {
    let server = Server::start();
    let node = node(&server).await;
    let before = node.publish("chat:a", "before").await.unwrap().position;
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream("talewire-history").await.unwrap();
    let after = node.publish_at_last("chat:a", "after").await.position;
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_noticed() {
    let server = Server::start();
    let mut node = node(&server).await;
    node.listen("chat:a").await;
    server.process.pause();
    let begun = Instant::now();
    node.wait_for_health(false).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(node.broker.listening(&channel("chat:a")).await, Err(BrokerError::Unavailable(_))));
    server.process.go_on();
    node.wait_for_health(true).await;
    node.wait_for_doubt().await;
    let published = node.publish_at_last("chat:a", "after").await.position;
    while node.next_offset().await != published.offset {}
}

/// What stood still carries out later what nobody waits for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_came_or_left_without_an_answer_is_no_ghost() {
    let server = Server::start();
    let (one, two) = (node(&server).await, node(&server).await);
    for client in ["stays", "leaves"] {
        one.enter("chat:a", client).await;
    }
    two.wait_for_present("chat:a", &["leaves", "stays"]).await;
    server.process.pause();
    let info = Arc::new(ClientInfo { user: "ana".parse().unwrap(), ..ClientInfo::default() });
    let (name, late, leaves) = (channel("chat:a"), "late".parse().unwrap(), "leaves".parse().unwrap());
    let late = one.broker.enter(&name, &late, &info, Tell::Nobody);
    let left = one.broker.leave(&name, &leaves, Tell::Nobody);
    let (late, ()) = tokio::join!(late, left);
    if late.is_ok() {
        // It was faster than the signal.
        one.broker.leave(&name, &"late".parse().unwrap(), Tell::Nobody).await;
    }
    server.process.go_on();
    two.wait_for_present("chat:a", &["stays"]).await;
    // It stays so, beat after beat.
    let kept = one.publish_at_last("chat:a", "after").await;
    assert!(!kept.repeated);
    two.wait_for_present("chat:a", &["stays"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_with_their_node_and_are_told_once() {
    let server = Server::start();
    let (mut one, two, dying) = (node(&server).await, node(&server).await, node(&server).await);
    one.listen("chat:a").await;
    one.enter("chat:a", "1").await;
    two.enter("chat:a", "2").await;
    dying.enter("chat:a", "3").await;
    dying.enter("chat:b", "4").await;
    two.wait_for_present("chat:a", &["1", "2", "3"]).await;
    drop(dying);
    two.wait_for_present("chat:a", &["1", "2"]).await;
    two.wait_for_present("chat:b", &[]).await;
    let mut joined = 0;
    let left = loop {
        match one.next().await.message {
            Message::Join(_) => joined += 1,
            Message::Leave(info) => break info.client.clone().unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((joined, left.as_str()), (3, "3"));
    two.broker.depart().await;
    one.wait_for_present("chat:a", &["1"]).await;
    let Message::Leave(info) = one.next().await.message else { panic!("nobody left, or somebody twice") };
    assert_eq!(info.client.clone().unwrap().as_str(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_letters_and_leases_go_between_nodes() {
    let server = Server::start();
    let (one, two) = (node(&server).await, node(&server).await);
    let (sender, mut orders) = mpsc::unbounded_channel();
    for (name, node) in [("one", &one), ("two", &two)] {
        let sender = sender.clone();
        node.broker.control_with(Arc::new(move |control| sender.send((name, control)).is_ok()));
    }
    let order = Control {
        whom: Whom::Everyone,
        order: Order::Disconnect { code: CloseCode::ForceDisconnect, keep: Vec::new() },
    };
    one.broker.control(order.clone()).await.unwrap();
    let mut taken = [orders.recv().await.unwrap(), orders.recv().await.unwrap()];
    taken.sort_by_key(|(name, _)| *name);
    assert_eq!(taken, [("one", order.clone()), ("two", order)]);

    let (sender, mut letters) = mpsc::unbounded_channel();
    two.broker.letters_to(Arc::new(move |letter| drop(sender.send(letter))));
    assert_eq!(one.broker.post(&two.id, Bytes::from_static(b"hello")).await, Ok(true));
    assert_eq!(letters.recv().await.unwrap(), "hello");

    assert_eq!(one.broker.lease("prune", 60_000).await, Ok(true));
    assert_eq!(two.broker.lease("prune", 60_000).await, Ok(false));
    one.broker.release("prune").await;
    assert_eq!(two.broker.lease("prune", 60_000).await, Ok(true));
    assert_eq!(one.broker.spend("ticket", 60_000).await, Ok(true));
    assert_eq!(two.broker.spend("ticket", 60_000).await, Ok(false));

    one.broker.beat(report(&one, 2)).await.unwrap();
    two.broker.beat(report(&two, 1)).await.unwrap();
    assert_eq!(one.broker.nodes().await.unwrap(), [report(&two, 1), report(&one, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_behind_what_was_removed_is_told_to_look() {
    let server = Server::start();
    let (mut one, two) = (node(&server).await, node(&server).await);
    one.listen("chat:a").await;
    for offset in 1..=3 {
        two.publish("chat:a", "x").await.unwrap();
        assert_eq!(one.next_offset().await, offset);
    }
    two.broker.remove_history(&channel("chat:a")).await.unwrap();
    one.wait_for_doubt().await;
    assert_eq!(one.publish("chat:a", "x").await.unwrap().position.offset, 4);
    assert_eq!(two.page("chat:a").await.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_alone_held_is_vacated_once() {
    let server = Server::start();
    let (heard, mut told) = mpsc::unbounded_channel();
    let telling = async |name: &'static str| {
        let (node, heard) = (node(&server).await, heard.clone());
        let sink = move |notice| drop(heard.send((name, notice)));
        let wanted = [NoticeKind::ChannelOccupied, NoticeKind::ChannelVacated];
        node.broker.notices_to(Arc::new(sink), &wanted, &quick(&server));
        node
    };
    let (a, b) = (telling("a").await, telling("b").await);
    let mut next = async || {
        let (name, notice) = tokio::time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
        match notice {
            Notice::ChannelOccupied { channel, serial } => (name, channel.to_string(), true, serial),
            Notice::ChannelVacated { channel, serial } => (name, channel.to_string(), false, serial),
            other => panic!("nobody told {other:?}"),
        }
    };
    for name in ["chat:own", "chat:both"] {
        a.broker.listen(&channel(name));
        let (by, of, is_occupied, _) = next().await;
        assert_eq!((by, of.as_str(), is_occupied), ("a", name, true));
    }
    b.broker.listen(&channel("chat:both"));
    wait_until(|| a.broker.occupancy_is_settled() && b.broker.occupancy_is_settled()).await;
    drop(a);
    let mut vacated = Vec::new();
    while vacated.is_empty() {
        let (by, of, is_occupied, _) = next().await;
        // Of what it told a moment before its end nobody knows whether it was heard.
        if is_occupied {
            assert_eq!((by, of.as_str()), ("b", "chat:both"));
        } else {
            vacated.push((by, of));
        }
    }
    assert_eq!(vacated, [("b", "chat:own".to_owned())]);
    b.broker.unlisten(&channel("chat:both"));
    loop {
        let (by, of, is_occupied, _) = next().await;
        assert_eq!((by, of.as_str()), ("b", "chat:both"));
        if !is_occupied {
            break;
        }
    }
}

fn inner(node: &Node) -> &Arc<super::Nats> {
    let crate::Backend::Nats(nats) = &node.broker.backend else { panic!("it is NATS") };
    nats
}

fn report(node: &Node, started_ms: i64) -> NodeReport {
    NodeReport {
        id: node.id.clone(),
        name: "here".into(),
        version: "1".into(),
        started_ms,
        connections: 1,
        users: 1,
        subscriptions: 2,
        channels: 3,
        store: String::new(),
        draining: false,
        agreed: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_at_once_are_no_lapse() {
    let server = Server::start();
    let node = node(&server).await;
    let beats = (0..50).map(|_| node.broker.beat(report(&node, 1)));
    for beaten in futures_util::future::join_all(beats).await {
        beaten.unwrap();
    }
    assert_eq!(inner(&node).doubts().borrow().lapses, 0);
}

/// What is forgotten takes its serial with it, and clocks differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serials_rise_also_where_a_clock_goes_behind() {
    let server = Server::start();
    let (heard, mut told) = mpsc::unbounded_channel();
    let telling = async || {
        let (node, heard) = (node(&server).await, heard.clone());
        let sink = move |notice| drop(heard.send(notice));
        let wanted = [NoticeKind::ChannelOccupied, NoticeKind::ChannelVacated];
        node.broker.notices_to(Arc::new(sink), &wanted, &quick(&server));
        node
    };
    let (a, b) = (telling().await, telling().await);
    let mut next = async || match tokio::time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap() {
        Notice::ChannelOccupied { serial, .. } => (true, serial),
        Notice::ChannelVacated { serial, .. } => (false, serial),
        other => panic!("nobody told {other:?}"),
    };
    let chat = channel("chat:a");
    // To the other it is as if the answer to its last beat had come late.
    a.broker.shift_clock(1_000);
    a.broker.listen(&chat);
    let (_, first) = next().await;
    a.broker.unlisten(&chat);
    let (is_occupied, vacated) = next().await;
    assert!(!is_occupied && first < vacated);
    let bank = &inner(&b).bank;
    let begun = Instant::now();
    while !bank.subjects(super::Shelf::Nodes, &bank.names.holders("*")).await.unwrap().is_empty() {
        assert!(begun.elapsed() < DEADLINE, "it is not forgotten");
    }
    b.broker.listen(&chat);
    let (is_occupied, again) = next().await;
    assert!(is_occupied && vacated < again, "{vacated} and then {again}");
    // So, too, when the first goes away.
    a.broker.listen(&channel("chat:b"));
    let (_, first) = next().await;
    a.broker.depart().await;
    let (is_occupied, vacated) = next().await;
    assert!(!is_occupied && first < vacated);
    b.broker.listen(&channel("chat:b"));
    let (is_occupied, again) = next().await;
    assert!(is_occupied && vacated < again, "{vacated} and then {again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_that_are_not_taken_turn_health_red_with_the_reason() {
    let server = Server::start();
    let node = node(&server).await;
    node.broker.beat(report(&node, 1)).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let streams = async_nats::jetstream::new(client);
    let is = streams.get_stream("talewire-nodes").await.unwrap().cached_info().config.clone();
    let closed = async_nats::jetstream::stream::Config { max_message_size: 1, ..is.clone() };
    streams.update_stream(closed).await.unwrap();
    wait_until(|| matches!(node.broker.health(), BrokerHealth::Down { reason } if reason.contains("sign of life")))
        .await;
    streams.update_stream(is).await.unwrap();
    node.wait_for_health(true).await;
}
