//! The native protocol over WebSocket: fan-out, recovery, slow readers, presence, closes.

use futures_util::future::join_all;
use serde_json::{Value, json};
use talewire_hub::HubSettings;
use talewire_proto::Limits;
use talewire_proto::session::Anonymous;

use crate::stage::{Client, Settings, Stage};

async fn subscribe(client: &mut Client, channel: &str) -> Value {
    let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    reply["subscribe"].clone()
}

/// The offsets and data of the next `n` publications.
async fn publications(client: &mut Client, n: usize) -> Vec<(u64, Value)> {
    let mut found = Vec::new();
    while found.len() < n {
        let message = client.next().await;
        let publication = &message["push"]["pub"];
        if publication.is_object() {
            found.push((publication["offset"].as_u64().unwrap_or(0), publication["data"].clone()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_everything_in_the_same_order() {
    let stage = Stage::new().await;
    for channel in ["chat:1", "log:1"] {
        let mut readers = join_all((0..8).map(|_| stage.client())).await;
        for reader in &mut readers {
            subscribe(reader, channel).await;
        }
        // Two writers at once, on whichever thread the kernel put them.
        let write = |who: &'static str| {
            let stage = &stage;
            async move {
                let mut writer = stage.client().await;
                for n in 0..50 {
                    let publish = json!({"channel": channel, "data": format!("{who}{n}")});
                    let reply = writer.call(json!({"id": n + 10, "publish": publish})).await;
                    assert!(reply["publish"].is_object(), "{reply}");
                }
            }
        };
        tokio::join!(write("a"), write("b"));
        let mut all = Vec::new();
        for reader in &mut readers {
            all.push(publications(reader, 100).await);
        }
        let offsets: Vec<u64> = all[0].iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (1..=100).collect::<Vec<u64>>());
        assert!(all.iter().all(|one| *one == all[0]), "{channel}: different orders");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_recovered_or_honestly_lost() {
    let stage = Stage::with(Settings {
        limits: Limits { history_entries_max: 10, command_burst: 1_000, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    for channel in ["chat:1", "log:1"] {
        let mut writer = stage.client().await;
        let mut reader = stage.client().await;
        let position = subscribe(&mut reader, channel).await;
        let epoch = position["epoch"].as_str().expect("an epoch").to_owned();
        drop(reader);
        for n in 1..=20 {
            writer.call(json!({"id": n + 10, "publish": {"channel": channel, "data": n}})).await;
        }
        let mut again = stage.client().await;
        let from = |offset: u64, epoch: &str| json!({"id": 2, "subscribe": {"channel": channel, "recover": true, "offset": offset, "epoch": epoch}});
        let near = again.call(from(12, &epoch)).await["subscribe"].clone();
        assert_eq!(near["recovered"], true, "{near}");
        assert_eq!(near["offset"], 12);
        let missed: Vec<u64> =
            near["publications"].as_array().expect("a list").iter().filter_map(|p| p["offset"].as_u64()).collect();
        assert_eq!(missed, (13..=20).collect::<Vec<u64>>());
        writer.call(json!({"id": 99, "publish": {"channel": channel, "data": "live"}})).await;
        assert_eq!(publications(&mut again, 1).await, [(21, json!("live"))]);

        for (offset, epoch) in [(5, epoch.as_str()), (12, "another"), (99, &epoch)] {
            let mut far = stage.client().await;
            let lost = far.call(from(offset, epoch)).await["subscribe"].clone();
            assert_eq!(lost["was_recovering"], true, "{lost}");
            assert_eq!((&lost["recovered"], &lost["publications"]), (&Value::Null, &Value::Null), "{lost}");
            assert_eq!(lost["offset"], 21);
        }
        let page = again.call(json!({"id": 3, "history": {"channel": channel, "limit": 3, "reverse": true}})).await;
        let newest: Vec<u64> = page["history"]["publications"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|p| p["offset"].as_u64())
            .collect();
        assert_eq!(newest, [21, 20, 19]);
        let since = json!({"offset": 12, "epoch": "another"});
        let wrong = again.call(json!({"id": 4, "history": {"channel": channel, "limit": 3, "since": since}})).await;
        assert_eq!(wrong["error"]["code"], 112);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_one_entry() {
    let stage = Stage::new().await;
    for channel in ["chat:1", "log:1"] {
        let mut reader = stage.client().await;
        subscribe(&mut reader, channel).await;
        for id in 3..6 {
            let mut writer = stage.client().await;
            let publish = json!({"channel": channel, "data": "once", "key": "k"});
            assert!(writer.call(json!({"id": id, "publish": publish})).await["publish"].is_object());
        }
        reader.send(json!({"id": 9, "publish": {"channel": channel, "data": "end"}})).await;
        assert_eq!(publications(&mut reader, 2).await, [(1, json!("once")), (2, json!("end"))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_catches_up_without_a_gap_and_harms_nobody() {
    let stage = Stage::with(Settings {
        hub: HubSettings { outbox_bytes_max: 20_000, ..HubSettings::default() },
        limits: Limits { command_burst: 10_000, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    let mut slow = stage.client().await;
    let mut quick = stage.client().await;
    subscribe(&mut slow, "log:1").await;
    subscribe(&mut quick, "log:1").await;
    let mut writer = stage.client().await;
    let text = "x".repeat(20_000);
    // Far more than the sockets' own buffers hold.
    for n in 0..600u64 {
        let reply = writer.call(json!({"id": n + 10, "publish": {"channel": "log:1", "data": [n, text]}})).await;
        assert!(reply["publish"].is_object(), "{reply}");
        assert_eq!(publications(&mut quick, 1).await[0].0, n + 1);
    }
    assert!(Stage::metric(&stage.node, "talewire_behind_total") > 0, "the reader was not slow enough to show anything");
    let all = publications(&mut slow, 600).await;
    for (n, (offset, data)) in (0u64..).zip(&all) {
        assert_eq!((*offset, &data[0]), (n + 1, &json!(n)));
    }
    writer.call(json!({"id": 9_999, "publish": {"channel": "log:1", "data": "live again"}})).await;
    assert_eq!(publications(&mut slow, 1).await, [(601, json!("live again"))]);
    assert!(Stage::metric(&stage.node, "talewire_caught_up_total") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_takes_nothing_is_closed_as_slow() {
    let stage = Stage::with(Settings {
        hub: HubSettings { outbox_age_max_ms: 300, ..HubSettings::default() },
        limits: Limits { command_burst: 10_000, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    let mut stuck = stage.client().await;
    subscribe(&mut stuck, "cursor:1").await;
    let mut writer = stage.client().await;
    let text = "x".repeat(30_000);
    let closed = |node: &talewire_server::Node| node.metrics.text().contains("talewire_closes_total{code=\"3008\"} 1");
    let mut n = 10;
    while !closed(&stage.node) {
        writer.call(json!({"id": n, "publish": {"channel": "cursor:1", "data": text}})).await;
        n += 1;
        assert!(n < 8_000, "never closed");
    }
    assert!(Stage::metric(&stage.node, "talewire_dropped_total") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_follows_who_comes_and_goes_however_they_go() {
    let stage = Stage::new().await;
    let mut watcher = stage.client().await;
    let watch = json!({"id": 2, "subscribe": {"channel": "chat:1", "join_leave": true}});
    assert!(watcher.call(watch).await["subscribe"].is_object());
    let own = watcher.next().await;
    assert!(own["push"]["join"]["info"]["client"].is_string(), "{own}");
    for polite in [true, false] {
        let mut other = stage.client().await;
        subscribe(&mut other, "chat:1").await;
        assert!(watcher.next().await["push"]["join"].is_object());
        let stats = watcher.call(json!({"id": 3, "presence_stats": {"channel": "chat:1"}})).await;
        assert_eq!(stats["presence_stats"]["num_clients"], 2);
        let all = watcher.call(json!({"id": 4, "presence": {"channel": "chat:1"}})).await;
        assert_eq!(all["presence"]["presence"].as_object().map(serde_json::Map::len), Some(2));
        if polite {
            assert!(
                other.call(json!({"id": 5, "unsubscribe": {"channel": "chat:1"}})).await["unsubscribe"].is_object()
            );
        } else {
            other.drop_hard();
        }
        assert!(watcher.next().await["push"]["leave"].is_object());
    }
    drop(watcher);
    stage.until("nobody is left", |node| Stage::metric(node, "talewire_connections") == 0).await;
    assert_eq!(Stage::metric(&stage.node, "talewire_channels"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_told() {
    let mut stage = Stage::new().await;
    let mut client = stage.client().await;
    let address = stage.address;
    let (_, closed) = tokio::join!(stage.stop(), client.closed());
    assert_eq!(closed, (3001, "shutdown".to_owned()));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_protocol_is_closed_with_its_code() {
    let stage = Stage::with(Settings {
        limits: Limits { connect_deadline_ms: 300, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    let mut client = stage.client().await;
    client.send_text("nonsense".into()).await;
    assert_eq!(client.closed().await, (3501, "bad request".to_owned()));
    let mut large = stage.client().await;
    large.send_text(format!("\"{}\"", "x".repeat(70_000))).await;
    assert_eq!(large.closed().await.0, 1009);
    let mut silent = stage.open(&[]).await.expect("an upgrade");
    assert_eq!(silent.closed().await, (3502, "stale".to_owned()));
    // Commands that came with the closing one are not carried out.
    let mut last = stage.client().await;
    last.send_text("nonsense\n{\"id\":2,\"publish\":{\"channel\":\"log:9\",\"data\":1}}".into()).await;
    assert_eq!(last.closed().await.0, 3501);
    let mut reader = stage.client().await;
    assert_eq!(subscribe(&mut reader, "log:9").await["offset"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_or_a_login_nobody_connects() {
    let stage = Stage::with(Settings { anonymous: Anonymous::Refused, ..Settings::default() }).await;
    let mut nobody = stage.open(&[]).await.expect("an upgrade");
    nobody.send(json!({"id": 1, "connect": {}})).await;
    assert_eq!(nobody.next().await["error"]["code"], 101);
    assert_eq!(nobody.closed().await.0, 3507);
    let mut liar = stage.open(&[]).await.expect("an upgrade");
    liar.send(json!({"id": 1, "connect": {"token": "a.b.c"}})).await;
    assert_eq!(liar.closed().await, (3500, "invalid token".to_owned()));
    let login = stage.node.auth.logins.issue(&"ana".parse().expect("an id"), "Ana", now_ms());
    let mut tab = stage.open(&[]).await.expect("an upgrade");
    tab.send(json!({"id": 1, "connect": {"token": login}})).await;
    assert!(tab.next().await["connect"]["client"].is_string());
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_taken_only_from_pages_that_may_come() {
    let stage = Stage::with(Settings { anonymous: Anonymous::Refused, ..Settings::default() }).await;
    let login = stage.node.auth.logins.issue(&"ana".parse().expect("an id"), "Ana", now_ms());
    let cookie = ("cookie", format!("other=1; talewire_login={login}"));
    let own = ("origin", format!("http://{}", stage.address));
    let evil = ("origin", "http://evil.example".to_owned());
    assert!(stage.open(&[cookie.clone(), own.clone()]).await.is_ok());
    assert_eq!(stage.open(&[cookie.clone(), evil.clone()]).await.err(), Some(403));
    assert_eq!(stage.open(std::slice::from_ref(&cookie)).await.err(), Some(403));
    assert_eq!(stage.open(&[evil]).await.err(), Some(403));
    assert_eq!(stage.open(&[("origin", "null".into())]).await.err(), Some(403));
    let mut ana = stage.open(&[cookie, own]).await.expect("an upgrade");
    ana.send(json!({"id": 1, "connect": {}})).await;
    assert!(ana.next().await["connect"]["client"].is_string());
    let made = ana.call(json!({"id": 2, "rpc": {"method": "story.create", "data": {"title": "T", "key": "k"}}})).await;
    assert_eq!(made["rpc"]["data"]["story"]["title"], "T", "{made}");
    let story = made["rpc"]["data"]["story"]["id"].as_str().expect("an id").to_owned();
    let mine = ana.call(json!({"id": 3, "subscribe": {"channel": format!("story:{story}")}})).await;
    assert_eq!(mine["subscribe"]["recoverable"], true, "{mine}");
    let forged = ana.call(json!({"id": 4, "publish": {"channel": format!("story:{story}"), "data": 1}})).await;
    assert_eq!(forged["error"]["code"], 103);

    let stranger = stage.node.auth.logins.issue(&"eve".parse().expect("an id"), "Eve", now_ms());
    let mut eve = stage.open(&[]).await.expect("an upgrade");
    eve.send(json!({"id": 1, "connect": {"token": stranger}})).await;
    eve.next().await;
    for channel in [format!("story:{story}"), format!("typing:{story}"), format!("generation:{story}.g1")] {
        let refused = eve.call(json!({"id": 2, "subscribe": {"channel": channel}})).await;
        assert_eq!(refused["error"]["code"], 103, "{channel}");
    }
    let unknown = eve.call(json!({"id": 3, "rpc": {"method": "no.such", "data": {}}})).await;
    assert_eq!(unknown["error"]["code"], 104);
}
