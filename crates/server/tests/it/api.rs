//! The server API: its shapes, what it publishes, and what it does with connections.

use serde_json::{Value, json};

use crate::http::{Answer, request};
use crate::stage::{Client, DEADLINE, Settings, Stage};

pub(crate) async fn ask(stage: &Stage, method: &str, params: Value) -> Answer {
    request(stage.address, &format!("POST /api/{method}"), &[("X-API-Key", "the-key")], Some(params)).await
}

/// The result of a call that must be carried out.
pub(crate) async fn call(stage: &Stage, method: &str, params: Value) -> Value {
    let answer = ask(stage, method, params).await;
    assert!(answer.status == 200 && answer.body.get("error").is_none(), "{method}: {}", answer.body);
    answer.body["result"].clone()
}

/// The code of a call that must be refused, with status 200.
async fn refused(stage: &Stage, method: &str, params: Value) -> u64 {
    let answer = ask(stage, method, params).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["error"]["code"].as_u64().unwrap_or_else(|| panic!("not refused: {}", answer.body))
}

/// Subscribes, and gives the reply.
pub(crate) async fn subscribe(client: &mut Client, channel: &str) -> Value {
    client.call(json!({"id": 9, "subscribe": {"channel": channel}})).await["subscribe"].clone()
}

/// The next push that is not of somebody's coming or going.
pub(crate) async fn push(client: &mut Client) -> Value {
    loop {
        let push = client.next().await["push"].clone();
        if push.get("join").is_none() && push.get("leave").is_none() {
            return push;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_answer_unless_a_status_is_asked_for() {
    let stage = Stage::new().await;
    let nowhere = || json!({"channel": "nowhere:1", "data": 1});
    let answer = ask(&stage, "publish", nowhere()).await;
    assert_eq!((answer.status, answer.body), (200, json!({"error": {"code": 102, "message": "unknown channel"}})));
    let headers = [("Authorization", "apikey the-key"), ("X-Centrifugo-Error-Mode", "transport")];
    let answer = request(stage.address, "POST /api/publish", &headers, Some(nowhere())).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (404, &json!(102)));
    assert_eq!(ask(&stage, "nothing", json!({})).await.status, 404);
    let no_key = request(stage.address, "POST /api/info", &[("Cookie", "talewire_login=x")], Some(json!({}))).await;
    assert_eq!((no_key.status, &no_key.body["error"]["code"]), (401, &json!(101)));
    let no_json = request(stage.address, "POST /api/info", &[("X-API-Key", "the-key")], Some(json!("x"))).await;
    assert_eq!((no_json.status, &no_json.body["error"]["code"]), (200, &json!(107)), "JSON, but no parameters");
    for bad in [
        json!({"channel": "chat:1"}),
        json!({"data": 1}),
        json!({"channel": "chat:1", "user": "ana", "data": 1}),
        json!({"channel": "chat:1", "data": 1, "wrong": 1}),
        json!({"channel": "chat:1", "data": 1, "tags": {"a": "\n"}}),
        json!({"user": "ana", "data": 1, "event": "turn"}),
        json!({"user": "", "data": 1}),
    ] {
        assert_eq!(refused(&stage, "publish", bad.clone()).await, 107, "{bad}");
    }
    assert_eq!(refused(&stage, "publish", json!({"channel": "chat:1", "b64data": "eA=="})).await, 108);
    let long = json!({"channel": "chat:1", "data": "x".repeat(40_000)});
    assert_eq!(refused(&stage, "publish", long).await, 106);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_there_is_no_server_api() {
    let base = Settings::default();
    let http = talewire_server::ServerSettings { api_key: None, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    assert_eq!(ask(&stage, "info", json!({})).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_kept_as_its_channel_promises() {
    let stage = Stage::new().await;
    let mut reader = stage.client().await;
    subscribe(&mut reader, "chat:1").await;
    let kept =
        call(&stage, "publish", json!({"channel": "chat:1", "data": 1, "event": "turn", "tags": {"a": "b"}})).await;
    assert_eq!(kept["offset"], 1);
    let pub_ = push(&mut reader).await["pub"].clone();
    assert_eq!((&pub_["data"], &pub_["tags"]), (&json!(1), &json!({"event": "turn", "a": "b"})));
    let passing = call(&stage, "publish", json!({"channel": "chat:1", "data": 2, "skip_history": true})).await;
    assert_eq!(passing, json!({}), "nothing is kept");
    assert_eq!(push(&mut reader).await["pub"]["data"], 2, "but it is told");
    let durable = json!({"channel": "log:1", "data": 2, "skip_history": true});
    assert_eq!(refused(&stage, "publish", durable).await, 108);

    let many = json!({"channels": ["chat:1", "log:1", "story:x", "no name"], "data": 3, "idempotency_key": "k"});
    let told = call(&stage, "broadcast", many.clone()).await;
    let responses = told["responses"].as_array().expect("responses").clone();
    assert_eq!((&responses[0]["result"]["offset"], &responses[1]["result"]["offset"]), (&json!(2), &json!(1)));
    assert_eq!((&responses[2]["error"]["code"], &responses[3]["error"]["code"]), (&json!(103), &json!(107)));
    assert_eq!(call(&stage, "broadcast", many).await["responses"], told["responses"], "the same key adds nothing");

    let state = |version: u64| json!({"channels": ["chat:9", "cursor:9"], "data": version, "version": version});
    assert_eq!(call(&stage, "broadcast", state(2)).await["responses"][0]["result"]["offset"], 1);
    let late = call(&stage, "broadcast", state(1)).await["responses"].clone();
    assert_eq!((&late[0]["result"]["offset"], &late[0]["result"]["skipped"]), (&json!(1), &json!(true)), "{late}");
    assert_eq!(late[1]["error"]["code"], 108, "a signal is not kept, and has no version");

    let page = call(&stage, "history", json!({"channel": "chat:1", "limit": -1})).await;
    let data: Vec<&Value> = page["publications"].as_array().expect("a page").iter().map(|one| &one["data"]).collect();
    assert_eq!((data, &page["offset"]), (vec![&json!(1), &json!(3)], &json!(2)));
    let since = json!({"channel": "chat:1", "limit": 5, "since": {"offset": 1, "epoch": page["epoch"]}});
    assert_eq!(call(&stage, "history", since).await["publications"][0]["offset"], 2);
    let other = json!({"channel": "chat:1", "limit": 5, "since": {"offset": 1, "epoch": "other"}});
    assert_eq!(refused(&stage, "history", other).await, 112);
    assert_eq!(refused(&stage, "history", json!({"channel": "cursor:1"})).await, 108);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_command_by_command() {
    let base = Settings::default();
    let http = talewire_server::ServerSettings { api_items_max: 4, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    for parallel in [false, true] {
        let channel = format!("log:{parallel}");
        let commands = json!([
            {"publish": {"channel": channel, "data": 1}},
            {"nothing": {}},
            {"publish": {}, "info": {}},
            {"presence_stats": {"channel": channel}},
        ]);
        let answer = ask(&stage, "batch", json!({"commands": commands, "parallel": parallel})).await;
        let replies = answer.body["replies"].as_array().unwrap_or_else(|| panic!("{}", answer.body)).clone();
        assert_eq!(replies[0]["publish"]["offset"], 1);
        assert_eq!((&replies[1]["error"]["code"], &replies[2]["error"]["code"]), (&json!(104), &json!(107)));
        assert_eq!(replies[3]["presence_stats"], json!({"num_clients": 0, "num_users": 0}));
    }
    let five = json!({"commands": vec![json!({"info": {}}); 5]});
    assert_eq!(refused(&stage, "batch", five).await, 106);
    assert_eq!(refused(&stage, "broadcast", json!({"channels": vec!["a"; 5], "data": 1})).await, 106);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_reaches_a_user_on_every_device_a_connection_or_everybody() {
    let stage = Stage::new().await;
    let (ana, ana_token) = stage.guest("Ana").await;
    let (_, ben_token) = stage.guest("Ben").await;
    // On both threads, as the kernel deals them out.
    let mut devices = Vec::new();
    for _ in 0..8 {
        devices.push(stage.client_of(&ana_token).await);
    }
    let (mut ben, ben_client) = stage.client_of(&ben_token).await;
    let mut nobody = stage.client().await;
    let said = |data: &str| json!({"push": {"message": {"data": data}}});
    assert_eq!(call(&stage, "publish", json!({"user": ana, "data": "to ana"})).await, json!({}));
    call(&stage, "publish", json!({"client": ben_client, "data": "to ben"})).await;
    call(&stage, "publish", json!({"client": "nobodys", "data": "to nobody"})).await;
    call(&stage, "publish", json!({"everyone": true, "data": "to all"})).await;
    for (device, _) in &mut devices {
        assert_eq!((device.next().await, device.next().await), (said("to ana"), said("to all")));
    }
    assert_eq!((ben.next().await, ben.next().await), (said("to ben"), said("to all")));
    assert_eq!(nobody.next().await, said("to all"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_disconnected_but_for_the_connections_that_are_kept() {
    let stage = Stage::new().await;
    let (ana, token) = stage.guest("Ana").await;
    let (mut first, _) = stage.client_of(&token).await;
    let (mut kept, kept_id) = stage.client_of(&token).await;
    let mut nobody = stage.client().await;
    assert_eq!(refused(&stage, "disconnect", json!({})).await, 107, "nobody is named");
    assert_eq!(refused(&stage, "disconnect", json!({"user": ""})).await, 107, "the anonymous are not one user");
    assert_eq!(refused(&stage, "disconnect", json!({"user": ana, "disconnect": {"code": 4999}})).await, 107);
    call(&stage, "disconnect", json!({"user": ana, "whitelist": [kept_id]})).await;
    assert_eq!(first.closed().await, (3503, "force disconnect".into()));
    let wrong = json!({"user": "somebody-else", "client": kept_id});
    call(&stage, "disconnect", wrong).await;
    assert!(kept.call(json!({"id": 2, "rpc": {"method": "story.list"}})).await["rpc"].is_object(), "still here");
    let by_client = json!({"user": ana, "client": kept_id, "disconnect": {"code": 3011, "reason": "x"}});
    call(&stage, "disconnect", by_client).await;
    assert_eq!(kept.closed().await, (3011, "force reconnect".into()), "the reason is the table's");
    assert!(subscribe(&mut nobody, "chat:1").await.is_object(), "others were left alone");
    stage.until("the indexes are empty", |node| Stage::metric(node, "talewire_connections") == 1).await;
    let info = call(&stage, "info", json!({})).await;
    assert_eq!((&info["nodes"][0]["num_clients"], &info["nodes"][0]["num_users"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_session_is_ended_by_its_name() {
    let stage = Stage::new().await;
    let connect = json!({"id": 1, "connect": {}}).to_string();
    let mut stream = tokio::net::TcpStream::connect(stage.address).await.expect("a connection");
    let head = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{connect}",
        connect.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("an open socket");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(&mut stream));
    let mut named = false;
    let connected: Value = loop {
        let line = lines.next_line().await.expect("an open socket").expect("a line");
        named |= line == "X-Request-Id: mine-1";
        if line.starts_with('{') {
            break serde_json::from_str(&line).expect("JSON");
        }
    };
    assert!(named, "the request's name is in the answer");
    call(&stage, "disconnect", json!({"session": connected["connect"]["session"]})).await;
    let last = lines.next_line().await.expect("an open socket").expect("a line");
    assert!(last.contains("\"code\":3503"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_subscribed_and_unsubscribed_by_the_server() {
    let stage = Stage::new().await;
    let (ana, token) = stage.guest("Ana").await;
    let (mut client, id) = stage.client_of(&token).await;
    let how = json!({"user": ana, "channel": "sealed:1", "info": {"seat": 7}, "data": {"topic": "t"}});
    call(&stage, "subscribe", how).await;
    let told = push(&mut client).await;
    assert_eq!((&told["channel"], &told["subscribe"]["data"]), (&json!("sealed:1"), &json!({"topic": "t"})));
    let present = call(&stage, "presence", json!({"channel": "sealed:1"})).await;
    let shown = &present["presence"][&id];
    assert_eq!((&shown["user"], &shown["chan_info"]), (&json!(ana), &json!({"seat": 7})));
    call(&stage, "publish", json!({"channel": "sealed:1", "data": "in"})).await;
    assert_eq!(push(&mut client).await["pub"]["data"], "in");
    call(&stage, "unsubscribe", json!({"user": ana, "channel": "sealed:1"})).await;
    assert_eq!(push(&mut client).await["unsubscribe"]["code"], 2000);
    // The list hears of it beside the client.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while call(&stage, "presence_stats", json!({"channel": "sealed:1"})).await["num_clients"] != 0 {
        assert!(tokio::time::Instant::now() < deadline, "the client is still listed");
    }
    call(&stage, "unsubscribe", json!({"client": id, "channel": "sealed:1"})).await;

    let recover = json!({"client": id, "channel": "sealed:1", "recover_since": {"offset": 0, "epoch": ""}});
    call(&stage, "subscribe", recover).await;
    assert!(push(&mut client).await["subscribe"].is_object());
    call(&stage, "publish", json!({"channel": "sealed:1", "data": "and on"})).await;
    assert_eq!(push(&mut client).await["pub"]["data"], "in", "what was missed comes first");
    assert_eq!(push(&mut client).await["pub"]["offset"], 2);
    assert_eq!(refused(&stage, "subscribe", json!({"user": ana, "channel": "story:abc"})).await, 103);
    assert_eq!(refused(&stage, "subscribe", json!({"user": ana, "channel": "chat:1", "override": {}})).await, 108);
    assert_eq!(refused(&stage, "unsubscribe", json!({"user": ana, "channel": "nowhere:1"})).await, 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_how_long_connections_last() {
    let stage = Stage::new().await;
    let (ana, token) = stage.guest("Ana").await;
    let (mut client, _) = stage.client_of(&token).await;
    call(&stage, "refresh", json!({"user": ana, "expire_at": 4_000_000_000u64})).await;
    assert!(subscribe(&mut client, "chat:1").await.is_object(), "still here");
    call(&stage, "refresh", json!({"user": ana, "expired": true})).await;
    assert_eq!(client.closed().await.0, 3005);
    let (mut client, _) = stage.client_of(&token).await;
    call(&stage, "refresh", json!({"user": ana, "expire_at": 1})).await;
    assert_eq!(client.closed().await.0, 3005, "long past");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_history_is_told_to_whoever_missed_some_of_it() {
    let stage = Stage::new().await;
    let mut live = stage.client().await;
    let begin = subscribe(&mut live, "chat:1").await;
    for n in 1..=3 {
        call(&stage, "publish", json!({"channel": "chat:1", "data": n})).await;
        assert_eq!(push(&mut live).await["pub"]["offset"], n);
    }
    call(&stage, "history_remove", json!({"channel": "chat:1"})).await;
    let page = call(&stage, "history", json!({"channel": "chat:1", "limit": 10})).await;
    assert_eq!((&page["publications"], &page["offset"], &page["epoch"]), (&json!([]), &json!(3), &begin["epoch"]));
    let back = |offset: u64| json!({"id": 9, "subscribe": {"channel": "chat:1", "recover": true, "offset": offset, "epoch": begin["epoch"]}});
    let behind = stage.client().await.call(back(2)).await;
    assert_eq!(behind["subscribe"].get("recovered"), None, "{behind}");
    let at_the_top = stage.client().await.call(back(3)).await;
    assert_eq!(at_the_top["subscribe"]["recovered"], true, "{at_the_top}");
    call(&stage, "publish", json!({"channel": "chat:1", "data": 4})).await;
    assert_eq!(push(&mut live).await["pub"]["offset"], 4, "who listens goes on");

    assert_eq!(refused(&stage, "history_remove", json!({"channel": "log:1"})).await, 108);
    assert_eq!(refused(&stage, "history_remove", json!({"channel": "story:abc"})).await, 103);
    assert_eq!(refused(&stage, "history_remove", json!({"channel": "cursor:1"})).await, 108);
    call(&stage, "publish", json!({"channel": "shred:1", "data": "secret"})).await;
    call(&stage, "history_remove", json!({"channel": "shred:1"})).await;
    let page = call(&stage, "history", json!({"channel": "shred:1", "limit": 10})).await;
    let one = &page["publications"][0];
    assert_eq!((&one["offset"], &one["data"]), (&json!(1), &json!({})), "its place stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_and_connections_are_listed_page_by_page() {
    let base = Settings::default();
    let http = talewire_server::ServerSettings { api_items_max: 3, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let (ana, token) = stage.guest("Ana").await;
    let mut clients = Vec::new();
    for n in 0..7 {
        let (mut client, id) =
            if n < 5 { stage.client_of(&token).await } else { (stage.client().await, String::new()) };
        subscribe(&mut client, &format!("chat:{}", n % 2)).await;
        clients.push((client, id));
    }
    let all = call(&stage, "channels", json!({})).await;
    assert_eq!(all, json!({"channels": {"chat:0": {"num_clients": 4}, "chat:1": {"num_clients": 3}}}));
    let some = call(&stage, "channels", json!({"pattern": "*:1"})).await;
    assert_eq!(some, json!({"channels": {"chat:1": {"num_clients": 3}}}));
    assert_eq!(refused(&stage, "channels", json!({"pattern": "[ab]"})).await, 107);
    let mut more = stage.client().await;
    for n in 2..5 {
        subscribe(&mut more, &format!("chat:{n}")).await;
    }
    let cut = call(&stage, "channels", json!({})).await;
    assert_eq!((cut["channels"].as_object().map(serde_json::Map::len), &cut["cut"]), (Some(3), &json!(true)));

    for (user, expected) in [(ana.as_str(), 5), ("", 8), ("nobody", 0)] {
        let mut seen = serde_json::Map::new();
        let mut after = json!("");
        let mut pages = 0;
        loop {
            let page = call(&stage, "connections", json!({"user": user, "after": after, "limit": 2})).await;
            let page_of = page["connections"].as_object().expect("a page").clone();
            assert!(page_of.len() <= 2, "{page}");
            pages += 1;
            for (client, row) in page_of {
                assert!(seen.insert(client, row).is_none(), "listed twice");
            }
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
            assert!(pages < 10);
        }
        assert_eq!(seen.len(), expected, "{user}");
        if user == ana {
            let row = &seen[&clients[0].1];
            assert_eq!(
                (&row["transport"], &row["protocol"], &row["channels"]),
                (&json!("websocket"), &json!("json"), &json!(1))
            );
            assert!(
                row["user"] == *ana && row["connected_at"].as_i64().is_some_and(|at| at > 1_700_000_000_000),
                "{row}"
            );
        }
    }
    assert_eq!(refused(&stage, "connections", json!({"after": "x"})).await, 107);
    let info = call(&stage, "info", json!({})).await["nodes"][0].clone();
    assert_eq!((&info["num_clients"], &info["num_users"], &info["num_subs"]), (&json!(8), &json!(1), &json!(10)));
    assert_eq!(info["num_channels"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_programs_are_not_held_to_the_rate_of_strangers() {
    let base = Settings::default();
    let http = talewire_server::ServerSettings { request_burst: 3, requests_per_second: 1, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    for _ in 0..10 {
        call(&stage, "publish", json!({"channel": "cursor:1", "data": 1})).await;
    }
    let guess = || request(stage.address, "POST /api/info", &[("X-API-Key", "a-guess")], None);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(guess().await.status);
    }
    assert_eq!((statuses[0], statuses[4]), (401, 429), "{statuses:?}");
}
