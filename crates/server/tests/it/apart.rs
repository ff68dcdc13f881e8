//! Two nodes that hear nothing of each other and share one PostgreSQL: every announcement is lost, and what is durable reaches the
//! readers of the other all the same.

use std::time::{Duration, Instant};

use serde_json::json;
use talewire_stand::postgres::Postgres;
use talewire_store::{StoreSettings, StoreUrl};

use crate::api::{call, push, subscribe};
use crate::readers::Stream;
use crate::stage::{Settings, Stage};

/// A look each second, and as much again for a slow machine.
const FOUND_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_no_announcement_told_of_is_found_within_a_second_by_default() {
    assert_eq!(Settings::default().hub.growth_check_ms, 1_000);
    let postgres = tokio::task::block_in_place(Postgres::start);
    let store = StoreSettings { url: StoreUrl::new(postgres.url()), ..StoreSettings::default() };
    let a = Stage::alone(Settings::default(), &store, "node-a").await;
    let b = Stage::alone(Settings::default(), &store, "node-b").await;
    let mut client = b.client().await;
    for channel in ["log:1", "chat:1"] {
        subscribe(&mut client, channel).await;
    }
    let mut stream = Stream::open(&b, "/events?channel=log:1&channel=chat:1", "").await;
    assert_eq!(stream.event().await.expect("an event").name, "connected");
    for n in 0..5 {
        // No broker carries it: this one is never heard, which shows that they are apart.
        call(&a, "publish", json!({"channel": "chat:1", "data": "unheard"})).await;
        let begun = Instant::now();
        call(&a, "publish", json!({"channel": "log:1", "data": n})).await;
        let pushed = push(&mut client).await;
        assert_eq!((&pushed["channel"], &pushed["pub"]["data"]), (&json!("log:1"), &json!(n)), "{pushed}");
        let told = loop {
            let event = stream.event().await.expect("an event");
            if event.name != "channel" {
                break event;
            }
        };
        assert_eq!((told.name.as_str(), &told.data), ("message", &json!(n)));
        assert!(begun.elapsed() < FOUND_WITHIN, "{n} after {:?}", begun.elapsed());
    }
}
