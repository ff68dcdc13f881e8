//! Two nodes over one broker and one store: the server API speaks for both, and what belongs to one is found by way of the other.

use std::time::Duration;

use serde_json::{Value, json};
use talewire_broker::{Control, NodeId, NodeReport, Order, Whom};
use talewire_proto::command::Wanted;
use talewire_proto::{CloseCode, Kind, Limits, Namespace, Namespaces, UserId};
use talewire_server::{Rules, ServerSettings};

use crate::api::{ask, call, push, subscribe};
use crate::http::request;
use crate::readers::Stream;
use crate::stage::{DEADLINE, Settings, Stage, open};

async fn two() -> (Stage, Stage) {
    two_with(|http| http).await
}

async fn two_with(change: impl Fn(ServerSettings) -> ServerSettings) -> (Stage, Stage) {
    two_of(|| {
        let base = Settings::default();
        Settings { http: change(base.http), ..Settings::default() }
    })
    .await
}

async fn two_of(settings: impl Fn() -> Settings) -> (Stage, Stage) {
    let a = Stage::with(settings()).await;
    let b = a.beside(settings()).await;
    (a, b)
}

fn uid(stage: &Stage) -> String {
    stage.node.id().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_one_node_is_heard_at_the_other() {
    let (a, b) = two().await;
    for channel in ["chat:1", "log:1", "cursor:1"] {
        let (mut here, mut there) = (a.client().await, b.client().await);
        subscribe(&mut here, channel).await;
        subscribe(&mut there, channel).await;
        call(&a, "publish", json!({"channel": channel, "data": 1})).await;
        call(&b, "publish", json!({"channel": channel, "data": 2})).await;
        for client in [&mut here, &mut there] {
            let said = [push(client).await, push(client).await].map(|push| push["pub"]["data"].clone());
            assert_eq!(said, [json!(1), json!(2)], "{channel}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_a_user_on_every_node() {
    let (a, b) = two().await;
    let (ana, token) = a.guest("Ana").await;
    let (mut first, _) = a.client_of(&token).await;
    let (mut second, second_id) = b.client_of(&token).await;
    let mut other = b.client().await;
    call(&a, "publish", json!({"user": ana, "data": "hello"})).await;
    assert_eq!(push(&mut first).await["message"]["data"], "hello");
    assert_eq!(push(&mut second).await["message"]["data"], "hello");
    call(&a, "subscribe", json!({"user": ana, "client": second_id, "channel": "chat:1"})).await;
    assert_eq!(push(&mut second).await["channel"], "chat:1");
    call(&a, "unsubscribe", json!({"user": ana, "channel": "chat:1"})).await;
    assert_eq!(push(&mut second).await["unsubscribe"]["code"], 2_000);
    call(&a, "disconnect", json!({"user": ana})).await;
    assert_eq!(first.closed().await.0, 3_503);
    assert_eq!(second.closed().await.0, 3_503);
    assert_eq!(subscribe(&mut other, "chat:1").await["recoverable"], true, "others stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_nobody_heard_are_carried_out_in_their_order() {
    let (a, b) = two().await;
    let (ana, token) = a.guest("Ana").await;
    let (mut client, _) = b.client_of(&token).await;
    let mut other = b.client().await;
    let channel = || "chat:1".parse().expect("a channel");
    let user: UserId = ana.parse().expect("an id");
    let disconnect = Order::Disconnect { code: CloseCode::ForceDisconnect, keep: Vec::new() };
    // As another node would, whose word was lost.
    let keep = async |order: Order| {
        let control = Control { whom: Whom::user(user.clone()), order };
        let packed = control.packed(&NodeId::new()).expect("no filter");
        a.node.store.keep_order(packed).await.expect("a store");
    };
    keep(Order::Subscribe(Box::new(Wanted::new(channel())))).await;
    assert_eq!(push(&mut client).await["channel"], "chat:1");
    a.node.store.keep_order("something new".into()).await.expect("a store");
    keep(Order::Unsubscribe(channel())).await;
    assert_eq!(push(&mut client).await["unsubscribe"]["code"], 2_000);
    keep(disconnect).await;
    assert_eq!(client.closed().await.0, 3_503);
    assert_eq!(subscribe(&mut other, "chat:1").await["recoverable"], true, "others stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_at_a_node_that_may_have_missed_orders_comes_again() {
    let (a, _b) = two_of(|| Settings { orders_age: Duration::ZERO, ..Settings::default() }).await;
    let (_, token) = a.guest("Ana").await;
    let (mut client, _) = a.client_of(&token).await;
    assert_eq!(client.closed().await.0, 3_011, "force reconnect");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_of_all_nodes_and_say_where() {
    let (a, b) = two_with(|http| ServerSettings { api_items_max: 4, ..http }).await;
    let mut clients = Vec::new();
    for n in 0..5 {
        let mut client = if n % 2 == 0 { a.client().await } else { b.client().await };
        subscribe(&mut client, &format!("chat:{}", n % 3)).await;
        clients.push(client);
    }
    let expected = json!({
        "chat:0": {"num_clients": 2}, "chat:1": {"num_clients": 2}, "chat:2": {"num_clients": 1},
    });
    for stage in [&a, &b] {
        assert_eq!(call(stage, "channels", json!({})).await, json!({"channels": expected}));
        let mut seen: Vec<(String, String)> = Vec::new();
        let mut after = json!("");
        loop {
            let page = call(stage, "connections", json!({"after": after, "limit": 2})).await;
            let rows = page["connections"].as_object().expect("a page");
            assert!(rows.len() <= 2 && page.get("unheard").is_none(), "{page}");
            seen.extend(rows.iter().map(|(id, row)| (id.clone(), row["node"].as_str().expect("a node").to_owned())));
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
            assert!(seen.len() < 10);
        }
        let of = |stage: &Stage| seen.iter().filter(|(_, node)| *node == uid(stage)).count();
        assert_eq!((seen.len(), of(&a), of(&b)), (5, 3, 2), "{seen:?}");
        seen.sort();
        seen.dedup_by(|one, other| one.0 == other.0);
        assert_eq!(seen.len(), 5, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_named() {
    let stage = Stage::with(Settings {
        http: ServerSettings { node_answer_ms: 100, ..Settings::default().http },
        ..Settings::default()
    })
    .await;
    let client = stage.client().await;
    let silent = NodeId::new();
    let broker = stage.node.broker.beside(&silent);
    broker.letters_to(std::sync::Arc::new(drop));
    let report = NodeReport { id: silent.clone(), name: "silent".into(), connections: 7, ..stage.node.report() };
    broker.beat(report).await.expect("a sign of life");
    let unheard = json!([silent.as_str()]);
    let connections = call(&stage, "connections", json!({})).await;
    assert_eq!(
        (connections["connections"].as_object().map(serde_json::Map::len), &connections["unheard"]),
        (Some(1), &unheard)
    );
    assert_eq!(call(&stage, "channels", json!({})).await, json!({"channels": {}, "unheard": unheard}));
    let info = call(&stage, "info", json!({})).await;
    let nodes: Vec<(&Value, &Value)> =
        info["nodes"].as_array().expect("nodes").iter().map(|node| (&node["name"], &node["num_clients"])).collect();
    assert!(nodes.contains(&(&json!("silent"), &json!(7))) && nodes.contains(&(&json!("node-a"), &json!(1))), "{info}");
    let emulated = json!({"session": "s", "node": silent.as_str(), "data": "{}"});
    assert_eq!(request(stage.address, "POST /emulation", &[], Some(emulated)).await.status, 503);
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_land_on_another_node_find_their_stream() {
    let (a, b) = two().await;
    let mut stream = Stream::open(&a, "/events?channel=chat:1", "").await;
    let connected = stream.event().await.expect("an event").data;
    assert_eq!(connected["node"], uid(&a));
    let to = |session: &Value, node: &str, command: Value| json!({"session": session, "node": node, "data": command.to_string()});
    for n in 1..=3 {
        let publish = json!({"id": n, "publish": {"channel": "chat:1", "data": n}});
        let answer =
            request(b.address, "POST /emulation", &[], Some(to(&connected["session"], &uid(&a), publish))).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let event = stream.event().await.expect("an event");
            if event.name != "channel" {
                heard.push((event.name, event.data));
            }
        }
        assert_eq!(heard[0], ("message".to_owned(), json!(n)));
        assert_eq!(heard[1].0, "reply");
    }
    let command = || json!({"id": 9, "publish": {"channel": "chat:1", "data": 9}});
    for (session, node) in [
        (json!("unknown"), uid(&a)),
        (connected["session"].clone(), uid(&b)),
        (connected["session"].clone(), "nobody".into()),
    ] {
        let answer = request(b.address, "POST /emulation", &[], Some(to(&session, &node, command()))).await;
        assert_eq!(answer.status, 404, "{node}: {}", answer.body);
    }
    let strange = to(&connected["session"], "a b\n*", command());
    assert_eq!(request(b.address, "POST /emulation", &[], Some(strange)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_at_another_node() {
    let (a, b) = two().await;
    let path = "/events?channel=chat:1&channel=log:1";
    let mut stream = Stream::open(&a, path, "").await;
    assert_eq!(stream.event().await.expect("an event").name, "connected");
    let poll = request(a.address, "GET /poll?channel=chat:1&channel=log:1&wait=0", &[], None).await.body;
    for n in 0..4 {
        let channel = if n % 2 == 0 { "chat:1" } else { "log:1" };
        call(if n < 2 { &a } else { &b }, "publish", json!({"channel": channel, "data": n})).await;
    }
    let mut id = String::new();
    while id.is_empty() {
        let event = stream.event().await.expect("an event");
        if event.name == "message" {
            assert_eq!(event.data, 0);
            id = stream.last_id().to_owned();
        }
    }
    drop(stream);
    let mut stream = Stream::open(&b, path, &format!("Last-Event-ID: {id}\r\n")).await;
    let connected = stream.event().await.expect("an event");
    let channels = &connected.data["channels"];
    assert!(channels["chat:1"]["recovered"] == true && channels["log:1"]["recovered"] == true, "{channels}");
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let event = stream.event().await.expect("an event");
        assert_ne!(event.name, "gap");
        if event.name == "message" {
            heard.push(event.data);
        }
    }
    heard.sort_by_key(Value::as_i64);
    assert_eq!(heard, [json!(1), json!(2), json!(3)]);
    let cursor = poll["cursor"].as_str().expect("a cursor");
    let more = request(b.address, &format!("GET /poll?cursor={cursor}"), &[], None).await.body;
    assert_eq!((more["events"].as_array().map(Vec::len), &more["gaps"]), (Some(4), &json!([])), "{more}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_all_nodes() {
    let (a, b) = two().await;
    let client = b.client().await;
    b.node.beat().await;
    let told = request(a.admin, "GET /nodes", &[], None).await.body;
    assert_eq!((&told["me"], &told["unready"], &told["complete"]), (&json!(uid(&a)), &Value::Null, &json!(true)));
    let nodes = told["nodes"].as_array().expect("nodes").iter();
    // Both may have begun in the same millisecond.
    let mut shown: Vec<_> = nodes.map(|node| (node["name"].as_str(), node["connections"].as_u64())).collect();
    shown.sort();
    assert_eq!(shown, [(Some("node-a"), Some(0)), (Some("node-b"), Some(1))]);
    let page = request(a.admin, "GET /nodes", &[("Accept", "text/html,*/*")], None).await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{}", page.head);
    assert!(page.body.as_str().is_some_and(|page| page.contains("node-a (this one)") && page.contains("node-b")));
    assert_eq!(request(a.address, "GET /nodes", &[], None).await.status, 404, "not for everybody");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while Stage::metric(&a.node, "talewire_nodes") != 2 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(Stage::metric(&a.node, "talewire_broker_up"), 1);
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_which_nodes_are_set_otherwise() {
    let a = Stage::new().await;
    let b = a.beside(Settings::default()).await;
    a.node.beat().await;
    assert_eq!(Stage::metric(&a.node, "talewire_nodes_differing"), 0);
    let other = Namespaces::new([("chat".to_owned(), Namespace { history_size: 1, ..open(Kind::History) })]);
    b.node.exchange(Rules::new(other, Limits::default()).expect("no schemas"));
    b.node.beat().await;
    a.node.beat().await;
    assert_eq!(Stage::metric(&a.node, "talewire_nodes_differing"), 1);
    let differing = |nodes: &Value| -> Vec<(String, String)> {
        let nodes = nodes.as_array().expect("nodes").iter();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        nodes.filter_map(|node| Some((text(&node["name"])?, text(&node["differs"])?))).collect()
    };
    let expected = [("node-b".to_owned(), "namespaces".to_owned())];
    assert_eq!(differing(&request(a.admin, "GET /nodes", &[], None).await.body["nodes"]), expected);
    assert_eq!(differing(&call(&a, "info", json!({})).await["nodes"]), expected);
    let page = request(a.admin, "GET /nodes", &[("Accept", "text/html")], None).await.body;
    assert!(page.as_str().is_some_and(|page| page.contains("set otherwise: namespaces")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_reads_its_configuration_again() {
    let stage = |names: &'static [&'static str]| {
        let (reloads, mut requests) = tokio::sync::mpsc::channel::<talewire_server::ReloadRequest>(1);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let changed = names.iter().map(|name| (*name).to_owned()).collect();
                let _ = request.send(match names {
                    [] => Err(vec!["t.toml:1:1: bad".into()]),
                    _ => Ok(talewire_server::Reloaded { changed, waiting: Vec::new() }),
                });
            }
        });
        Settings { reloads: Some(reloads), ..Settings::default() }
    };
    let a = Stage::with(stage(&["limits.x"])).await;
    let b = a.beside(stage(&["limits.y"])).await;
    let told = request(a.admin, "POST /admin/reload?nodes=all", &[], None).await;
    let changed = |stage: &Stage| told.body["nodes"][uid(stage)]["result"]["changed"].clone();
    assert_eq!((told.status, changed(&a), changed(&b)), (200, json!(["limits.x"]), json!(["limits.y"])));
    let c = b.beside(stage(&[])).await;
    let told = request(a.admin, "POST /admin/reload?nodes=all", &[], None).await;
    let of = |stage: &Stage| &told.body["nodes"][uid(stage)];
    assert_eq!((told.status, &of(&c)["error"]["problems"][0]), (422, &json!("t.toml:1:1: bad")), "{}", told.body);
    assert_eq!(of(&a)["result"]["changed"], json!(["limits.x"]), "a mistake on one node is no other's");
    assert_eq!(request(a.admin, "POST /admin/reload?nodes=some", &[], None).await.status, 400);
    assert_eq!(ask(&a, "info", json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_connections_on_other_nodes() {
    let (a, b) = two().await;
    let login = request(a.address, "POST /app/login", &[], Some(json!({"name": "Ana"}))).await;
    let cookie = login.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let csrf = login.body["csrf"].as_str().expect("a token").to_owned();
    let origin = format!("http://{}", a.address);
    let mut client = a.open(&[("cookie", cookie.clone()), ("origin", origin)]).await.expect("an upgrade");
    client.call(json!({"id": 1, "connect": {}})).await;
    let mut other = a.client().await;
    let origin = format!("http://{}", b.address);
    let headers = [("Cookie", cookie.as_str()), ("X-CSRF-Token", &csrf), ("Origin", &origin)];
    assert_eq!(request(b.address, "POST /app/logout", &headers, Some(json!({}))).await.status, 200);
    assert_eq!(client.closed().await.0, 3_503);
    assert_eq!(subscribe(&mut other, "chat:1").await["recoverable"], true, "others stay");

    // Whoever has kept a copy of it is nobody: at once where it was logged out, and soon at the others, also after a new start.
    let me = async |stage: &Stage| request(stage.address, "GET /app/me", &[("Cookie", &cookie)], None).await.body;
    assert_eq!(me(&b).await, json!({}));
    let token = cookie.strip_prefix("talewire_login=").expect("a login");
    a.until("the other node knows", |node| node.auth.logins.verify(token, i64::MIN).is_err()).await;
    let bearer = format!("Bearer {token}");
    let c = b.beside(Settings::default()).await;
    for stage in [&a, &b, &c] {
        assert_eq!(me(stage).await, json!({}));
        let headers = [("Authorization", bearer.as_str())];
        assert_eq!(request(stage.address, "GET /app/me", &headers, None).await.status, 401);
        let mut client = stage.open(&[]).await.expect("an upgrade");
        client.send(json!({"id": 1, "connect": {"token": token}})).await;
        assert_eq!(client.closed().await.0, 3_500, "an invalid token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_by_a_logged_out_login_ends_without_the_brokers_word() {
    let (a, _b) = two().await;
    let (ana, token) = a.guest("Ana").await;
    let (mut client, _) = a.client_of(&token).await;
    let (mut other, _) = a.client_of(&a.guest("Ben").await.1).await;
    let issued_at = a.node.auth.logins.verify(&token, i64::MIN).expect("a login").issued_at_ms;
    // As another node would, whose order was lost.
    let user = ana.parse().expect("an id");
    a.node.store.log_out(&user, issued_at, i64::MAX).await.expect("a store");
    assert_eq!(client.closed().await.0, 3_503);
    assert_eq!(subscribe(&mut other, "chat:1").await["recoverable"], true, "others stay");
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    assert_eq!(request(a.address, "GET /app/me", &headers, None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_events_hear_that_signals_may_be_missing() {
    let (a, _b) = two().await;
    let mut stream = Stream::open(&a, "/events?channel=cursor:1", "").await;
    assert_eq!(stream.event().await.expect("an event").name, "connected");
    let empty = request(a.address, "GET /poll?channel=cursor:1&wait=0", &[], None).await.body;
    let line = format!("GET /poll?cursor={}", empty["cursor"].as_str().expect("a cursor"));
    a.until("the first poll is over", |node| Stage::metric(node, "talewire_subscriptions") == 1).await;
    let address = a.address;
    let polling = tokio::spawn(async move { request(address, &line, &[], None).await.body });
    a.until("the poll waits", |node| Stage::metric(node, "talewire_subscriptions") == 2).await;
    let channel: talewire_proto::Channel = "cursor:1".parse().expect("a channel");
    a.node.hub.deliver(talewire_broker::Delivery { channel, message: talewire_broker::Message::Doubt });
    let gap = json!({"channel": "cursor:1", "offset": 0, "epoch": ""});
    let told = loop {
        let event = stream.event().await.expect("an event");
        if event.name == "gap" {
            break event.data;
        }
    };
    assert_eq!(told, gap);
    assert_eq!(polling.await.expect("an answer")["gaps"], json!([gap]));
    call(&a, "publish", json!({"channel": "cursor:1", "data": 1})).await;
    let said = loop {
        let event = stream.event().await.expect("an event");
        if event.name == "message" {
            break event.data;
        }
    };
    assert_eq!(said, 1, "the stream goes on");
}
