//! Redis is killed and comes back with everything that it had acknowledged: its histories have new names then, and no reader who lost
//! nothing is told of a gap.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use talewire_stand::redis::Redis;

use super::traces::{post, reader, serve};

/// What a reader is told until it has heard of this number.
fn told_until(reader: &mut impl std::io::BufRead, number: u32) -> String {
    let mut told = String::new();
    while !told.contains(&format!("data: {{\"n\":{number}}}")) {
        assert!(reader.read_line(&mut told).expect("the stream goes on") > 0, "it ended: {told}");
    }
    told
}

/// Publishes, again and again while Redis is away.
fn publish(address: &str, number: u32) {
    let began = Instant::now();
    let body = format!(r#"{{"channel":"chat:a","data":{{"n":{number}}},"idempotency_key":"{number}"}}"#);
    while !post(address, &body, "").contains("offset") {
        assert!(began.elapsed() < Duration::from_secs(30), "Redis does not come back to {number}");
    }
}

#[test]
fn a_reader_that_lost_nothing_goes_on_without_a_gap() {
    let mut redis = Redis::lasting();
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("[\"{}\"]", redis.url());
    let (_running, address) =
        serve(folder.path(), &[("TALEWIRE_BROKER_KIND", "redis"), ("TALEWIRE_BROKER_REDIS_URLS", &url)]);
    let mut reader = reader(&address);
    publish(&address, 1);
    let before = told_until(&mut reader, 1);
    for number in 2..4 {
        redis.restart();
        publish(&address, number);
        let told = told_until(&mut reader, number);
        assert!(!told.contains("event: gap"), "{told}");
    }
    // Whoever comes back with an id of the first name, which was good as far as the second, has lost nothing either.
    let id = before.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("events have ids").to_owned();
    let mut late = super::traces::reader_from(&address, &id);
    let told = told_until(&mut late, 3);
    assert!(told.contains("data: {\"n\":2}") && !told.contains("event: gap"), "{told}");
}

/// What a poll says.
fn poll(address: &str, query: &str) -> Value {
    let answer = super::ask(address, &format!("GET /poll?wait=0&{query}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_poll_that_began_without_a_broker_goes_on_by_its_cursor() {
    let mut redis = Redis::lasting();
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("[\"{}\"]", redis.url());
    let settings = [
        ("TALEWIRE_BROKER_KIND", "redis"),
        ("TALEWIRE_BROKER_REDIS_URLS", &url),
        ("TALEWIRE_HTTP_REQUESTS_PER_SECOND", "100000"),
        ("TALEWIRE_HTTP_REQUEST_BURST", "100000"),
    ];
    let (_running, address) = serve(folder.path(), &settings);
    publish(&address, 1);
    redis.process.kill();
    for (query, begins, numbers) in [("channel=chat:a@0-", 0, vec![json!(1)]), ("channel=chat:a", 1, vec![])] {
        let away = poll(&address, query);
        assert_eq!((&away["refused"][0]["code"], &away["retry_ms"]), (&json!(503), &json!(2_000)), "{away}");
        let mut last = away;
        redis.restart();
        let began = Instant::now();
        while last["refused"] != json!([]) {
            assert!(began.elapsed() < Duration::from_secs(30), "Redis does not come back: {last}");
            last = poll(&address, &format!("cursor={}", last["cursor"].as_str().expect("a cursor")));
        }
        assert_eq!(last["channels"]["chat:a"]["offset"], begins, "it is told where the channel begins: {last}");
        let told: Vec<_> =
            last["events"].as_array().expect("events").iter().map(|event| event["data"]["n"].clone()).collect();
        assert_eq!(told, numbers, "{last}");
        redis.process.kill();
    }
}
