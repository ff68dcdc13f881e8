//! RabbitMQ's queues. The server takes seconds to start: one test for all stories, each with queues of its own.

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use talewire_sources::SourceKind;
use talewire_sources::settings::{Hidden, SourceSettings};
use talewire_stand::rabbitmq::RabbitMq;

use crate::world::{
    self, DEADLINE, POISON, REASONS, Running, World, assert_all, down_behind_the_source, killed_in_mid_batch, message,
    quick,
};

/// A client of the server, with a queue.
struct Client {
    _connection: Connection,
    channel: Channel,
    queue: String,
}

impl Client {
    async fn new(rabbit: &RabbitMq, queue: &str, arguments: FieldTable) -> Self {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.expect("it listens");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let client = Self { _connection: connection, channel, queue: queue.to_owned() };
        client.declare(queue, arguments).await;
        client
    }

    async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await.expect("a queue");
    }

    async fn add(&self, bodies: impl IntoIterator<Item = String>) {
        for (n, body) in (0..).zip(bodies) {
            self.add_one(&body, Some(&format!("{n}-{body}"))).await;
        }
    }

    async fn add_one(&self, body: &str, id: Option<&str>) {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let properties = id.map_or(properties.clone(), |id| properties.with_message_id(id.into()));
        let (queue, options) = (self.queue.as_str().into(), BasicPublishOptions::default());
        let sent = self.channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await;
        assert!(sent.expect("it is sent").await.expect("it is confirmed").is_ack());
    }

    /// The next message of a queue: its body and, if there is one, the reason in its headers.
    async fn get(&self, queue: &str) -> (String, Option<String>) {
        let got = async {
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Some(got) = self.channel.basic_get(queue.into(), options).await.expect("a queue") {
                    return got.delivery;
                }
                tokio::task::yield_now().await;
            }
        };
        let delivery = tokio::time::timeout(DEADLINE, got).await.expect("a message in time");
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let reason = headers.inner().get("talewire_reason").map(|value| match value {
            AMQPValue::LongString(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        (String::from_utf8(delivery.data.clone()).expect("text"), reason)
    }
}

fn settings(rabbit: &RabbitMq, queue: &str) -> SourceSettings {
    let url = Hidden::new(rabbit.url());
    let settings = quick(SourceSettings { kind: SourceKind::RabbitMq, url, ..SourceSettings::default() });
    SourceSettings { from: queue.into(), ..settings }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_of_rabbitmq_live_through_everything() {
    let mut rabbit = RabbitMq::start();

    let client = Client::new(&rabbit, "crash", FieldTable::default()).await;
    client.add((0..100).map(message)).await;
    killed_in_mid_batch(&settings(&rabbit, "crash")).await;

    let client = Client::new(&rabbit, "down", FieldTable::default()).await;
    client.add((0..100).map(message)).await;
    down_behind_the_source(&settings(&rabbit, "down")).await;

    poison_is_put_aside_or_rejected(&rabbit).await;
    what_has_no_name_comes_again_as_another(&rabbit).await;

    let world = World::new();
    let client = Client::new(&rabbit, "dies", FieldTable::default()).await;
    let running = Running::start(&world, &settings(&rabbit, "dies"));
    client.add((0..50).map(message)).await;
    world.until("the first half", |state| state.kept.len() == 50).await;
    tokio::task::block_in_place(|| rabbit.restart());
    let client = Client::new(&rabbit, "dies", FieldTable::default()).await;
    client.add((50..100).map(message)).await;
    world.until("the second half", |state| state.kept.len() == 100).await;
    assert_all(&world, 100);
    running.stop().await;
}

async fn poison_is_put_aside_or_rejected(rabbit: &RabbitMq) {
    let client = Client::new(rabbit, "poison", FieldTable::default()).await;
    client.declare("aside", FieldTable::default()).await;
    client.add(POISON.map(str::to_owned)).await;
    let with_aside = SourceSettings { aside: "aside".into(), ..settings(rabbit, "poison") };
    let running = world::poison(&with_aside).await;
    for (body, reason) in [(POISON[1], REASONS[0]), (POISON[2], REASONS[1])] {
        assert_eq!(client.get("aside").await, (body.to_owned(), Some(reason.to_owned())));
    }
    running.stop().await;

    // Without a queue for it, the server's own place for what is rejected has it.
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("rejected".into()));
    let client = Client::new(rabbit, "rejecting", arguments).await;
    client.declare("rejected", FieldTable::default()).await;
    client.add(POISON.map(str::to_owned)).await;
    let running = world::poison(&settings(rabbit, "rejecting")).await;
    for body in [POISON[1], POISON[2]] {
        assert_eq!(client.get("rejected").await, (body.to_owned(), None));
    }
    running.stop().await;
}

/// As docs/sources.md says: without an id there is no key.
async fn what_has_no_name_comes_again_as_another(rabbit: &RabbitMq) {
    let client = Client::new(rabbit, "names", FieldTable::default()).await;
    for (body, id) in [(1, Some("x")), (2, Some("x")), (3, None), (3, None)] {
        client.add_one(&format!(r#"{{"channel":"c0","data":{body}}}"#), id).await;
    }
    let world = World::new();
    let running = Running::start(&world, &settings(rabbit, "names"));
    world.until("three of four", |state| state.kept.len() == 3).await;
    assert_eq!(world.lanes()["c0"], [1, 3, 3]);
    assert_eq!(running.repeated(), 1);
    running.stop().await;
}
