//! Rules of namespaces as clients and programs meet them: schemas, rates, versions, and rules that are exchanged while
//! connections are open.

use serde_json::{Value, json};
use talewire_hub::HubSettings;
use talewire_proto::{Kind, Limits, Namespace, Namespaces};
use talewire_server::{Reloaded, Rules};
use tokio::sync::mpsc;

use crate::http::{Answer, request};
use crate::readers::Stream;
use crate::stage::{Client, Settings, Stage, open};

fn namespaces(all: Vec<(&str, Namespace)>) -> Namespaces {
    Namespaces::new(all.into_iter().map(|(name, rules)| (name.to_owned(), rules)))
}

async fn stage(all: Vec<(&str, Namespace)>) -> Stage {
    Stage::with(Settings { namespaces: namespaces(all), ..Settings::default() }).await
}

async fn api_publish(stage: &Stage, body: Value) -> Answer {
    request(stage.address, "POST /api/publish", &[("X-API-Key", "the-key")], Some(body)).await
}

async fn subscribe(client: &mut Client, id: u32, channel: &str) {
    let reply = client.call(json!({"id": id, "subscribe": {"channel": channel}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
}

/// A number with labels from the metrics page.
fn labelled(stage: &Stage, line: &str) -> u64 {
    let text = stage.node.metrics.text();
    let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)).expect("the metric is there");
    found.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_schema_reaches_nobody() {
    let schema = r#"{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]}"#;
    let with = |kind| Namespace { schema: Some(schema.to_owned()), ..open(kind) };
    let kinds = [("cursor", Kind::Signal), ("chat", Kind::History), ("log", Kind::Durable)];
    let stage = stage(kinds.map(|(name, kind)| (name, with(kind))).into()).await;
    for (name, _) in kinds {
        let channel = format!("{name}:1");
        let mut client = stage.client().await;
        subscribe(&mut client, 2, &channel).await;
        let bad = client.call(json!({"id": 3, "publish": {"channel": channel, "data": {"x": "far"}}})).await;
        assert_eq!(bad["error"]["code"], 107, "{bad}");
        assert!(bad["error"]["message"].as_str().is_some_and(|message| message.starts_with("/x: ")), "{bad}");
        let bad = api_publish(&stage, json!({"channel": channel, "data": [1]})).await;
        assert_eq!((bad.status, &bad.body["error"]["code"]), (200, &json!(107)));
        assert_eq!(api_publish(&stage, json!({"channel": channel, "data": {"x": 7}})).await.status, 200);
        assert_eq!(client.next().await["push"]["pub"]["data"], json!({"x": 7}), "the first that comes is the good one");
    }
    assert_eq!(labelled(&stage, r#"talewire_publications_refused_total{reason="schema"}"#), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_too_fast_is_refused_and_others_are_not() {
    let slow = Namespace { publications_per_second: 1, publication_burst: 3, ..open(Kind::Signal) };
    let stage = stage(vec![("chat", slow)]).await;
    let (mut one, mut two) = (stage.client().await, stage.client().await);
    let mut refused = Vec::new();
    for id in 2..8 {
        // Another channel is no way around it.
        let channel = format!("chat:{id}");
        let reply = one.call(json!({"id": id, "publish": {"channel": channel, "data": 1}})).await;
        refused.push(reply["error"]["code"].as_u64());
    }
    assert_eq!(refused, [None, None, None, Some(111), Some(111), Some(111)]);
    let reply = two.call(json!({"id": 2, "publish": {"channel": "chat:1", "data": 1}})).await;
    assert!(reply["publish"].is_object(), "another connection of the anonymous: {reply}");
    for _ in 0..6 {
        assert_eq!(api_publish(&stage, json!({"channel": "chat:1", "data": 1})).await.status, 200);
    }
    assert_eq!(labelled(&stage, r#"talewire_publications_refused_total{reason="rate"}"#), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_state_is_acknowledged_and_skipped() {
    let stage = Stage::new().await;
    for channel in ["chat:1", "log:1"] {
        let mut reader = stage.client().await;
        subscribe(&mut reader, 2, channel).await;
        let publish =
            |version: u64| json!({"channel": channel, "data": version, "version": version, "version_epoch": "a"});
        let first = api_publish(&stage, publish(5)).await;
        assert_eq!((first.status, &first.body["result"]["offset"]), (200, &json!(1)));
        assert!(first.body["result"].get("skipped").is_none());
        for old in [4, 5] {
            let skipped = api_publish(&stage, publish(old)).await;
            assert_eq!((skipped.status, &skipped.body["result"]["skipped"]), (200, &json!(true)));
        }
        api_publish(&stage, publish(6)).await;
        assert_eq!(reader.next().await["push"]["pub"]["data"], 5);
        assert_eq!(reader.next().await["push"]["pub"]["data"], 6);
    }
    let signal = api_publish(&stage, json!({"channel": "cursor:1", "data": 1, "version": 1})).await;
    assert_eq!(signal.body["error"]["code"], 108, "nothing is kept that it could be compared with");
    let long = json!({"channel": "chat:1", "data": 1, "version": 1, "version_epoch": "e".repeat(65)});
    assert_eq!(api_publish(&stage, long).await.body["error"]["code"], 106);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_entry_comes_to_who_asks_from_the_beginning() {
    let latest = Namespace { recovery: talewire_proto::namespace::Recovery::Latest, ..open(Kind::History) };
    let stage = stage(vec![("price", latest)]).await;
    for n in 1..=5 {
        api_publish(&stage, json!({"channel": "price:1", "data": n})).await;
    }
    let mut client = stage.client().await;
    let ask = json!({"id": 2, "subscribe": {"channel": "price:1", "recover": true}});
    let reply = client.call(ask).await["subscribe"].clone();
    assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(true), &json!(4)), "{reply}");
    assert_eq!(reply["publications"].as_array().map(Vec::len), Some(1));
    assert_eq!(reply["publications"][0]["data"], 5);
    api_publish(&stage, json!({"channel": "price:1", "data": 6})).await;
    assert_eq!(client.next().await["push"]["pub"]["offset"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_exchanged_while_connections_are_open() {
    let before = vec![("gone", open(Kind::History)), ("turned", open(Kind::History)), ("stays", open(Kind::History))];
    let stage = stage(before).await;
    let mut clients = Vec::new();
    // Enough for both threads.
    for _ in 0..8 {
        let mut client = stage.client().await;
        for (id, channel) in [(2, "gone:1"), (3, "turned:1"), (4, "stays:1")] {
            subscribe(&mut client, id, channel).await;
        }
        clients.push(client);
    }
    let stays = Namespace { publication_bytes_max: 10, history_size: 7, ..open(Kind::History) };
    let after = namespaces(vec![("turned", open(Kind::Durable)), ("stays", stays), ("new", open(Kind::Signal))]);
    let limits = Limits { subscriptions_max: 1, ..Limits::default() };
    stage.node.exchange(Rules::new(after, limits).expect("no schemas"));
    for client in &mut clients {
        let mut ended = Vec::new();
        while ended.len() < 2 {
            let push = client.next().await["push"].clone();
            if let Some(code) = push["unsubscribe"]["code"].as_u64() {
                ended.push((push["channel"].as_str().expect("a channel").to_owned(), code));
            }
        }
        ended.sort();
        assert_eq!(ended, [("gone:1".to_owned(), 2_000), ("turned:1".to_owned(), 2_500)]);
    }
    let [one, two, ..] = &mut clients[..] else { panic!("eight") };
    // The old limits hold for who was there, the new rules for everybody.
    subscribe(one, 5, "turned:1").await;
    subscribe(one, 6, "new:1").await;
    let reply = one.call(json!({"id": 7, "subscribe": {"channel": "gone:1"}})).await;
    assert_eq!(reply["error"]["code"], 102);
    let reply = one.call(json!({"id": 8, "publish": {"channel": "stays:1", "data": "longer than ten bytes"}})).await;
    assert_eq!(reply["error"]["code"], 106);
    one.send(json!({"id": 9, "publish": {"channel": "stays:1", "data": "short"}})).await;
    let heard = loop {
        let message = two.next().await;
        if message["push"]["pub"].is_object() {
            break message;
        }
    };
    assert_eq!((&heard["push"]["channel"], &heard["push"]["pub"]["data"]), (&json!("stays:1"), &json!("short")));
    let mut newcomer = stage.client().await;
    subscribe(&mut newcomer, 2, "stays:1").await;
    let reply = newcomer.call(json!({"id": 3, "subscribe": {"channel": "new:1"}})).await;
    assert_eq!(reply["error"]["code"], 106, "new limits are for newcomers");
    assert_eq!(labelled(&stage, r#"talewire_reloads_total{outcome="done"}"#), 1);
    assert_eq!(labelled(&stage, r#"talewire_reloads_total{outcome="refused"}"#), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_ask_for_the_configuration_to_be_read_again() {
    let (sender, mut requests) = mpsc::channel(1);
    let stage = Stage::with(Settings { reloads: Some(sender), ..Settings::default() }).await;
    let answers = tokio::spawn(async move {
        let good = Reloaded { changed: vec!["namespaces.chat.kind".into()], waiting: vec!["http.listen".into()] };
        for answer in [Ok(good), Err(vec!["t.toml:2:1: no".to_owned()])] {
            let request = requests.recv().await.expect("a request");
            assert!(request.send(answer).is_ok());
        }
    });
    let reload = |headers| request(stage.admin, "POST /admin/reload", headers, None);
    let page = reload(&[("Origin", "http://evil.example")]).await;
    assert_eq!(page.status, 403, "a page cannot ask");
    let done = reload(&[]).await;
    let expected = json!({"result": {"changed": ["namespaces.chat.kind"], "waiting": ["http.listen"]}});
    assert_eq!((done.status, done.body), (200, expected));
    let bad = reload(&[]).await;
    assert_eq!((bad.status, &bad.body["error"]["problems"]), (422, &json!(["t.toml:2:1: no"])));
    answers.await.expect("both were asked");
    assert_eq!(request(stage.address, "POST /admin/reload", &[], None).await.status, 405, "not for everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn gathered_publications_come_together_and_in_time() {
    let batched = |kind| Namespace { batch_ms: 40, batch_max: 5, ..open(kind) };
    let stage = stage(vec![("chat", batched(Kind::History)), ("cursor", batched(Kind::Signal))]).await;
    for channel in ["chat:1", "cursor:1"] {
        let mut reader = stage.client().await;
        subscribe(&mut reader, 2, channel).await;
        let mut waits = Vec::new();
        for round in 0..15 {
            let begun = std::time::Instant::now();
            for n in 0..3 {
                api_publish(&stage, json!({"channel": channel, "data": [round, n]})).await;
            }
            for n in 0..3 {
                assert_eq!(reader.next().await["push"]["pub"]["data"], json!([round, n]));
                // Later ones come with the first, or when their own window ends.
                waits.push(begun.elapsed().as_millis());
            }
        }
        // Deadlines are in whole milliseconds of a clock that began in the middle of one.
        assert!(waits[0] >= 39, "not before its time: {waits:?}");
        waits.sort_unstable();
        // A look at deadlines every 200 ms would make it 140 in the middle.
        assert!(waits[waits.len() / 2] < 110, "{waits:?}");
        for n in 0..5 {
            api_publish(&stage, json!({"channel": channel, "data": n})).await;
        }
        for n in 0..5 {
            assert_eq!(reader.next().await["push"]["pub"]["data"], n);
        }
    }
    assert!(Stage::metric(&stage.node, "talewire_batches_total") >= 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_gets_the_newest_of_each_key() {
    let cursors = Namespace { conflation_key: Some("who".to_owned()), ..open(Kind::Signal) };
    let hub = HubSettings { outbox_bytes_max: 50_000, ..HubSettings::default() };
    let stage =
        Stage::with(Settings { namespaces: namespaces(vec![("cursor", cursors)]), hub, ..Settings::default() }).await;
    let mut reader = stage.client().await;
    subscribe(&mut reader, 2, "cursor:1").await;
    // More than the kernel keeps for a socket that nobody reads, so that the outbox fills.
    let padding = "x".repeat(30_000);
    let mut sent = 0;
    let publish = |who: &str, n: u64| {
        let tags = json!({"who": who});
        api_publish(&stage, json!({"channel": "cursor:1", "tags": tags, "data": {"n": n, "padding": padding}}))
    };
    while Stage::metric(&stage.node, "talewire_conflated_total") < 50 {
        sent += 1;
        assert!(sent < 5_000, "the outbox never fills");
        let who = if sent % 2 == 0 { "ana" } else { "ben" };
        assert_eq!(publish(who, sent).await.status, 200);
    }
    let mut newest = std::collections::HashMap::new();
    let mut heard = 0;
    // The newest of both come, whatever was left out on the way.
    while newest.len() < 2 || newest.values().any(|n| *n + 1 < sent) {
        let publication = reader.next().await["push"]["pub"].clone();
        let n = publication["data"]["n"].as_u64().expect("a number");
        let before = newest.insert(publication["tags"]["who"].as_str().expect("a tag").to_owned(), n);
        assert!(before.is_none_or(|before| before < n), "an older one after {before:?}: {n}");
        heard += 1;
    }
    assert!(heard < sent, "{heard} of {sent}");
    assert_eq!(Stage::metric(&stage.node, "talewire_dropped_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_events_goes_on_with_the_newest_entry_after_a_gap() {
    let latest = Namespace { recovery: talewire_proto::namespace::Recovery::Latest, ..open(Kind::History) };
    let stage = stage(vec![("price", latest)]).await;
    let mut stream = Stream::open(&stage, "/events?channel=price:1", "").await;
    assert_eq!(stream.event().await.expect("an open stream").name, "connected");
    api_publish(&stage, json!({"channel": "price:1", "data": "old"})).await;
    assert_eq!(stream.event().await.expect("an open stream").data, "old");
    // The history is forgotten, and begins anew.
    stage.node.broker.shift_clock(200_000_000);
    stage.node.broker.sweep();
    api_publish(&stage, json!({"channel": "price:1", "data": "new"})).await;
    let gap = stream.event().await.expect("an open stream");
    assert_eq!(gap.name, "gap", "{gap:?}");
    let event = stream.event().await.expect("an open stream");
    assert_eq!(event.data, "new", "{event:?}");
    api_publish(&stage, json!({"channel": "price:1", "data": "newer"})).await;
    assert_eq!(stream.event().await.expect("an open stream").data, "newer");
}
