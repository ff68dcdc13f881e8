//! Channels by single requests: the rules of a session, asked for by login.

use serde_json::{Value, json};
use talewire_proto::session::Anonymous;

use crate::http::{Answer, request};
use crate::stage::{Settings, Stage};

async fn ask(stage: &Stage, token: &str, what: &str, params: Value) -> Answer {
    let bearer = format!("Bearer {token}");
    request(stage.address, &format!("POST /app/{what}"), &[("Authorization", &bearer)], Some(params)).await
}

fn outcome(answer: &Answer) -> (u16, u64) {
    (answer.status, answer.body["error"]["code"].as_u64().unwrap_or(0))
}

async fn careful() -> Stage {
    Stage::with(Settings { anonymous: Anonymous::Refused, ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_subscribe_may_do_what_is_for_subscribers() {
    let stage = careful().await;
    let (ana, token) = stage.guest("Ana").await;
    let words = json!({"channel": "club:1", "data": {"n": 1}, "event": "turn", "tags": {"a": "b"}, "key": "k"});
    let (mut reader, id) = stage.client_of(&token).await;
    reader.call(json!({"id": 2, "subscribe": {"channel": "club:1"}})).await;
    let published = ask(&stage, &token, "publish", words.clone()).await;
    assert_eq!((published.status, &published.body["offset"]), (200, &json!(1)), "{}", published.body);
    assert_eq!(ask(&stage, &token, "publish", words).await.body, published.body, "the same key adds nothing");
    let told = reader.next().await["push"]["pub"].clone();
    assert_eq!((&told["data"], &told["tags"]), (&json!({"n": 1}), &json!({"a": "b", "event": "turn"})));
    assert_eq!((&told["info"]["user"], &told["info"]["conn_info"]), (&json!(ana), &json!({"name": "Ana"})));

    let page = ask(&stage, &token, "history", json!({"channel": "club:1", "limit": 10})).await;
    assert_eq!((page.status, &page.body["publications"][0]["data"]), (200, &json!({"n": 1})));
    assert_eq!(page.body["epoch"], published.body["epoch"]);
    let since = json!({"channel": "club:1", "limit": 10, "since": {"offset": 1, "epoch": page.body["epoch"]}});
    assert_eq!(ask(&stage, &token, "history", since).await.body["publications"], json!([]));
    let present = ask(&stage, &token, "presence", json!({"channel": "club:1"})).await;
    assert_eq!(present.body["presence"][&id]["user"], json!(ana));
    let stats = ask(&stage, &token, "presence_stats", json!({"channel": "club:1"})).await;
    assert_eq!(stats.body, json!({"num_clients": 1, "num_users": 1}));
    let signal = ask(&stage, &token, "publish", json!({"channel": "cursor:1", "data": 1})).await;
    assert_eq!((signal.status, signal.body), (200, json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_as_on_a_connection() {
    let stage = careful().await;
    let (_, token) = stage.guest("Ana").await;
    let publish = |channel: &str| json!({"channel": channel, "data": 1});
    assert_eq!(outcome(&ask(&stage, "wrong", "publish", publish("club:1")).await), (401, 101));
    let nobody = request(stage.address, "POST /app/publish", &[], Some(publish("club:1"))).await;
    assert_eq!(outcome(&nobody), (401, 101));
    let by_cookie =
        request(stage.address, "POST /app/publish", &[("Cookie", "talewire_login=x")], Some(publish("club:1")));
    assert_eq!(outcome(&by_cookie.await), (401, 101));
    for (what, params, expected) in [
        ("publish", publish("sealed:1"), (403, 103)),
        ("history", json!({"channel": "sealed:1"}), (403, 103)),
        ("presence", json!({"channel": "sealed:1"}), (403, 103)),
        ("publish", publish("nowhere:1"), (404, 102)),
        ("history", json!({"channel": "cursor:1"}), (404, 108)),
        ("publish", json!({"channel": "club:1", "data": 1, "event": "gap"}), (400, 107)),
        ("publish", json!({"channel": "club:1", "data": 1, "key": "x".repeat(65)}), (400, 107)),
        ("publish", json!({"channel": "club:1", "data": "x".repeat(40_000)}), (409, 106)),
        ("publish", json!({"channel": "club:1"}), (400, 107)),
        ("presence_stats", json!({"channel": "club:1", "more": 1}), (400, 107)),
    ] {
        assert_eq!(outcome(&ask(&stage, &token, what, params.clone()).await), expected, "{what} {params}");
    }
    let refused = Stage::metric(&stage.node, "talewire_errors_total");
    assert!(refused >= 10, "each is counted: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_of_a_story_are_for_its_members() {
    let stage = careful().await;
    let (_, ana) = stage.guest("Ana").await;
    let (_, ben) = stage.guest("Ben").await;
    let made = ask(&stage, &ana, "rpc/story.create", json!({"title": "T", "opening": "O", "key": "k"})).await;
    let story = made.body["story"]["id"].as_str().expect("an id").to_owned();
    let log = json!({"channel": format!("story:{story}"), "limit": 10});
    let page = ask(&stage, &ana, "history", log.clone()).await;
    assert_eq!(page.body["publications"][0]["data"]["type"], "story.created", "{}", page.body);
    assert_eq!(outcome(&ask(&stage, &ben, "history", log).await), (403, 103));
    let present = json!({"channel": format!("story:{story}")});
    assert_eq!(ask(&stage, &ana, "presence", present.clone()).await.status, 200);
    assert_eq!(outcome(&ask(&stage, &ben, "presence", present).await), (403, 103));
    let typing = json!({"channel": format!("typing:{story}"), "data": {"typing": true}});
    assert_eq!(ask(&stage, &ana, "publish", typing.clone()).await.status, 200);
    assert_eq!(outcome(&ask(&stage, &ben, "publish", typing).await), (403, 103));
    let into_log = json!({"channel": format!("story:{story}"), "data": 1});
    assert_eq!(outcome(&ask(&stage, &ana, "publish", into_log).await), (403, 103), "use cases write it, nobody else");
}
