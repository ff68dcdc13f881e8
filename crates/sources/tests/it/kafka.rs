//! Kafka's topics, against the mock cluster of the client library: no real cluster.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use talewire_sources::SourceKind;
use talewire_sources::settings::{Hidden, SourceSettings};

use crate::world::{
    self, DEADLINE, POISON, REASONS, Running, World, assert_all, down_behind_the_source, killed_in_mid_batch, message,
    quick,
};

/// Partitions of the topic `in`: one for each channel of the messages.
const PARTITIONS: i32 = 3;

struct Cluster(MockCluster<'static, DefaultProducerContext>);

impl Cluster {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("in", PARTITIONS, 1).expect("a topic");
        cluster.create_topic("aside", 1, 1).expect("a topic");
        Self(cluster)
    }

    fn settings(&self) -> SourceSettings {
        let url = Hidden::new(self.0.bootstrap_servers());
        quick(SourceSettings { kind: SourceKind::Kafka, url, ..SourceSettings::default() })
    }

    async fn add(&self, bodies: impl IntoIterator<Item = String>) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", self.0.bootstrap_servers()).create().expect("a producer");
        for (n, body) in (0..).zip(bodies) {
            let record = FutureRecord::<(), _>::to("in").payload(&body).partition(n % PARTITIONS);
            producer.send(record, DEADLINE).await.expect("it is kept");
        }
    }

    /// Where the group stands, all partitions together.
    fn committed(&self) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .set("group.id", "talewire")
            .create()
            .expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range("in", 0, PARTITIONS - 1);
        let offsets = consumer.committed_offsets(partitions, DEADLINE).expect("offsets");
        offsets.elements().iter().map(|element| element.offset().to_raw().unwrap_or(0).max(0)).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_mid_batch_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    cluster.add((0..99).map(message)).await;
    // The hundredth of the story.
    cluster.add([message(99)]).await;
    killed_in_mid_batch(&cluster.settings()).await;
    assert_eq!(tokio::task::block_in_place(|| cluster.committed()), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_in_order_when_the_server_behind_is_back() {
    let cluster = Cluster::start();
    cluster.add((0..100).map(message)).await;
    down_behind_the_source(&cluster.settings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_away_and_come_back_are_read_on() {
    let cluster = Cluster::start();
    let world = World::new();
    cluster.add((0..51).map(message)).await;
    let running = Running::start(&world, &cluster.settings());
    world.until("the first half", |state| state.kept.len() == 51).await;
    cluster.0.broker_down(1).expect("it goes");
    // Every connection to it has broken off by now.
    cluster.0.broker_up(1).expect("it comes back");
    cluster.add((51..100).map(message)).await;
    world.until("the second half", |state| state.kept.len() == 100).await;
    assert_all(&world, 100);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_with_the_reason() {
    let cluster = Cluster::start();
    cluster.add(POISON.map(str::to_owned)).await;
    let running = world::poison(&SourceSettings { aside: "aside".into(), ..cluster.settings() }).await;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.0.bootstrap_servers())
        .set("group.id", "looks")
        .create()
        .expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("aside", 0, Offset::Beginning).expect("a partition");
    consumer.assign(&partitions).expect("assigned");
    let mut told: Vec<[String; 2]> = tokio::task::block_in_place(|| {
        let next = || {
            let message = consumer.poll(DEADLINE).expect("a message in time").expect("no error").detach();
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("not empty").to_vec()).expect("text");
            let headers = message.headers().expect("headers");
            let header = |name: &str| text(headers.iter().find(|header| header.key == name).expect(name).value);
            assert!(header("talewire_place").starts_with("in/"), "{}", header("talewire_place"));
            [text(message.payload()), header("talewire_reason")]
        };
        [next(), next()].into()
    });
    // They were in different partitions.
    told.sort();
    let mut expected = [[POISON[1], REASONS[0]], [POISON[2], REASONS[1]]].map(|pair| pair.map(str::to_owned));
    expected.sort();
    assert_eq!(told, expected);
    running.stop().await;
    assert_eq!(tokio::task::block_in_place(|| cluster.committed()), 4, "what is put aside is acknowledged, too");
}
