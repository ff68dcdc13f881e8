//! The whole way: a person asks, a worker asks a fake endpoint over the real wire, and a turn comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use talewire_agents::settings::{OpenAiSettings, ProviderKind};
use talewire_agents::{AgentSettings, Worker};
use talewire_broker::{Broker, BrokerSettings};
use talewire_proto::Payload;
use talewire_store::{Store, StoreSettings};
use talewire_story::{Caller, Stories, StoryLimits};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake::{Act, Fake, SSE_HEAD};

struct Room {
    stories: Stories,
    story: Value,
    generation: Value,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Room {
    /// A story with one turn whose narrator has been asked.
    async fn new(fake: &Fake) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreSettings { path: folder.path().into(), ..StoreSettings::default() }).await.unwrap();
        let broker = Broker::in_process(&BrokerSettings::default());
        let stories = Stories::new(store.clone(), broker.clone(), StoryLimits::default());
        let openai =
            OpenAiSettings { base_url: fake.base_url.clone(), model: "m1".into(), ..OpenAiSettings::default() };
        let settings = AgentSettings { provider: ProviderKind::OpenAi, openai, ..AgentSettings::default() };
        let worker = Worker::new(store, broker, stories.clone(), settings).unwrap();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(worker.run(shutdown.clone()));
        let mut room = Self { stories, story: Value::Null, generation: Value::Null, shutdown, worker, _folder: folder };
        let made = room.call("story.create", json!({"title": "T", "opening": "A secret lamp.", "key": "k"})).await;
        room.story = made["story"]["id"].clone();
        let ask = json!({"story": room.story, "branch": made["story"]["branch"], "key": "k"});
        room.generation = room.call("generation.request", ask).await["generation"]["id"].clone();
        room
    }

    async fn call(&self, method: &str, data: Value) -> Value {
        let ana = Caller { user: "ana".parse().unwrap(), name: "Ana".into() };
        self.stories.call(&ana, method, &Payload::of(&data)).await.unwrap().read().unwrap()
    }

    /// Waits until the story looks as it should, and gives it.
    async fn when(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let opened = self.call("story.open", json!({"story": self.story})).await;
            if holds(&opened) {
                return opened;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap();
    }
}

fn part(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

#[tokio::test]
async fn a_turn_comes_back_after_the_pause_that_the_endpoint_asked_for() {
    let limited = b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    let body =
        [SSE_HEAD, &part("The fox"), &part(" ran.\n\n>"), &part("> Follow\n>> Wait"), "data: [DONE]\n\n"].concat();
    let fake = Fake::in_turn(vec![vec![Act::Send(limited)], vec![Act::Send(body.into_bytes())]]).await;
    let begun = Instant::now();
    let room = Room::new(&fake).await;
    let opened = room.when("the turn", |opened| opened["turns"].as_array().is_some_and(|turns| turns.len() == 2)).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let turn = &opened["turns"][1];
    assert_eq!(
        (turn["text"].as_str(), turn["generation"]["label"].as_str()),
        (Some("The fox ran."), Some("model m1 at 127.0.0.1"))
    );
    let labels: Vec<&str> = opened["choices"].as_array().unwrap().iter().filter_map(|c| c["label"].as_str()).collect();
    assert_eq!(labels, ["Follow", "Wait"]);
    let requests = fake.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].body["messages"][1]["content"].as_str().unwrap().contains("A secret lamp."));
    room.stop().await;
}

#[tokio::test]
async fn stopping_closes_the_connection_upstream() {
    let body = [SSE_HEAD, &part("The fox ran and")].concat();
    let fake = Fake::start(vec![Act::Send(body.into_bytes()), Act::Hang]).await;
    let room = Room::new(&fake).await;
    let stream = json!({"story": room.story, "generation": room.generation});
    let deadline = Instant::now() + Duration::from_secs(20);
    while room.call("generation.snapshot", stream.clone()).await["text"] != "The fox ran and" {
        assert!(Instant::now() < deadline, "waited in vain for the first words");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked_at = Instant::now();
    room.call("generation.stop", stream).await;
    tokio::time::timeout(Duration::from_secs(5), fake.closed_by_client.notified()).await.expect("closed upstream");
    let opened = room.when("the turn", |opened| opened["turns"].as_array().is_some_and(|turns| turns.len() == 2)).await;
    assert!(asked_at.elapsed() < Duration::from_millis(500), "{:?}", asked_at.elapsed());
    assert_eq!(opened["turns"][1]["generation"]["status"], "cancelled");
    room.stop().await;
}

#[tokio::test]
async fn half_an_answer_fails_with_a_sentence_for_people() {
    let body =
        [SSE_HEAD, &part("The fox ran and ran and ran and ran and ran and ran and ran and ran and ran.")].concat();
    let fake =
        Fake::start(vec![Act::Send(body.into_bytes()), Act::Pause(Duration::from_millis(100)), Act::Reset]).await;
    let room = Room::new(&fake).await;
    let opened = room.when("the end", |opened| opened["generations"].as_array().is_some_and(Vec::is_empty)).await;
    assert_eq!(opened["turns"].as_array().unwrap().len(), 1, "nothing is kept");
    assert_eq!(fake.requests.lock().unwrap().len(), 1, "no second try once readers have seen words");
    room.stop().await;
}
