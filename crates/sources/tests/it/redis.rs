//! Redis Streams.

use redis::Value;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use talewire_sources::settings::{Hidden, SourceSettings};
use talewire_stand::redis::Redis;

use crate::world::{
    self, POISON, REASONS, Running, World, assert_all, down_behind_the_source, killed_in_mid_batch, message, quick,
};

fn settings(redis: &Redis) -> SourceSettings {
    quick(SourceSettings { url: Hidden::new(redis.url()), ..SourceSettings::default() })
}

async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("an address");
    client.get_multiplexed_async_connection().await.expect("it listens")
}

async fn add(connection: &mut MultiplexedConnection, bodies: impl IntoIterator<Item = String>) {
    for body in bodies {
        let mut command = redis::cmd("XADD");
        command.arg("in").arg("*").arg("message").arg(body);
        command.query_async::<()>(connection).await.expect("it is added");
    }
}

async fn pending(connection: &mut MultiplexedConnection) -> u64 {
    let summary: Vec<Value> =
        redis::cmd("XPENDING").arg("in").arg("talewire").query_async(connection).await.expect("a group");
    redis::from_redis_value(summary[0].clone()).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_mid_batch_loses_and_doubles_nothing() {
    let redis = Redis::start();
    let mut connection = connect(&redis).await;
    add(&mut connection, (0..100).map(message)).await;
    killed_in_mid_batch(&settings(&redis)).await;
    assert_eq!(pending(&mut connection).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_in_order_when_the_server_behind_is_back() {
    let redis = Redis::start();
    add(&mut connect(&redis).await, (0..100).map(message)).await;
    down_behind_the_source(&settings(&redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_and_comes_back_is_read_on() {
    let mut redis = Redis::lasting();
    let world = World::new();
    let running = Running::start(&world, &settings(&redis));
    add(&mut connect(&redis).await, (0..50).map(message)).await;
    world.until("the first half", |state| state.kept.len() == 50).await;
    redis.kill();
    redis.restart();
    add(&mut connect(&redis).await, (50..100).map(message)).await;
    world.until("the second half", |state| state.kept.len() == 100).await;
    assert_all(&world, 100);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_with_the_reason() {
    let redis = Redis::start();
    let mut connection = connect(&redis).await;
    add(&mut connection, POISON.map(str::to_owned)).await;
    let mut strange = redis::cmd("XADD");
    strange.arg("in").arg("*").arg("other").arg("field").query_async::<()>(&mut connection).await.expect("added");
    let running = world::poison(&SourceSettings { aside: "aside".into(), ..settings(&redis) }).await;
    running.stop().await;
    let aside: StreamRangeReply =
        redis::cmd("XRANGE").arg("aside").arg("-").arg("+").query_async(&mut connection).await.expect("a stream");
    let told: Vec<[String; 2]> = aside
        .ids
        .iter()
        .map(|entry| ["message", "talewire_reason"].map(|field| entry.get(field).unwrap_or_default()))
        .collect();
    let reasons = [REASONS[0], REASONS[1], "the entry has no field `message`"];
    let expected: Vec<[String; 2]> = [POISON[1], POISON[2], ""]
        .iter()
        .zip(reasons)
        .map(|(body, reason)| [(*body).to_owned(), reason.to_owned()])
        .collect();
    assert_eq!(told, expected);
    assert_eq!(aside.ids[2].get::<String>("other").as_deref(), Some("field"), "an entry keeps its fields");
    assert!(
        aside.ids.iter().all(|entry| entry.get::<String>("talewire_place").is_some_and(|at| at.starts_with("in/")))
    );
    assert_eq!(pending(&mut connection).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_consumer_left_is_taken_over_and_its_name_forgotten() {
    let redis = Redis::start();
    let mut connection = connect(&redis).await;
    add(&mut connection, (0..9).map(message)).await;
    let group = ["CREATE", "in", "talewire", "0"];
    redis::cmd("XGROUP").arg(&group).query_async::<()>(&mut connection).await.expect("a group");
    let dead = ["GROUP", "talewire", "dead", "COUNT", "6", "STREAMS", "in", ">"];
    redis::cmd("XREADGROUP").arg(&dead).query_async::<Value>(&mut connection).await.expect("six messages");
    assert_eq!(pending(&mut connection).await, 6);
    let world = World::new();
    let running = Running::start(&world, &SourceSettings { claim_ms: 50, ..settings(&redis) });
    world.until("all nine", |state| state.kept.len() == 9).await;
    let mut all: Vec<u64> = world.lanes().into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..9).collect::<Vec<u64>>());
    let forgotten = async {
        loop {
            let consumers: Value = redis::cmd("XINFO")
                .arg("CONSUMERS")
                .arg("in")
                .arg("talewire")
                .query_async(&mut connection)
                .await
                .expect("a list");
            if !format!("{consumers:?}").contains("dead") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::DEADLINE, forgotten).await.expect("the dead consumer is forgotten");
    running.stop().await;
    let consumers: Vec<Value> = redis::cmd("XINFO")
        .arg("CONSUMERS")
        .arg("in")
        .arg("talewire")
        .query_async(&mut connection)
        .await
        .expect("a list");
    assert_eq!(consumers, [], "who stops takes leave");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_the_source_and_a_key_in_a_field() {
    let redis = Redis::start();
    let mut connection = connect(&redis).await;
    for (key, body) in [("one", "1"), ("one", "2"), ("two", "3")] {
        let mut command = redis::cmd("XADD");
        command.arg("in").arg("*").arg("body").arg(body).arg("id").arg(key);
        command.query_async::<()>(&mut connection).await.expect("it is added");
    }
    let world = World::new();
    let settings = SourceSettings {
        channel: "news".into(),
        body_field: "body".into(),
        key_header: "id".into(),
        ..settings(&redis)
    };
    let running = Running::start(&world, &settings);
    world.until("both", |state| state.kept.len() == 2).await;
    assert_eq!(world.lanes()["news"], [1, 3]);
    assert_eq!(running.repeated(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_of_any_bytes_stop_nothing() {
    let redis = Redis::start();
    let mut connection = connect(&redis).await;
    for body in [&b"1"[..], b"\xff", b"2"] {
        let mut command = redis::cmd("XADD");
        command.arg("in").arg("*").arg("body").arg(body).arg(&b"\xfe\xff"[..]).arg(&b"\xfd"[..]);
        command.query_async::<()>(&mut connection).await.expect("it is added");
    }
    let world = World::new();
    let settings =
        SourceSettings { channel: "news".into(), body_field: "body".into(), aside: "aside".into(), ..settings(&redis) };
    let running = Running::start(&world, &settings);
    world.until("both", |state| state.kept.len() == 2).await;
    assert_eq!(world.lanes()["news"], [1, 2]);
    running.stop().await;
    let aside: u64 = redis::cmd("XLEN").arg("aside").query_async(&mut connection).await.expect("a number");
    assert_eq!((aside, pending(&mut connection).await), (1, 0));
}
