//! The HTTP routes: logins, CSRF, the use cases, the server API, the admin listener.

use serde_json::{Value, json};
use talewire_proto::session::Anonymous;
use talewire_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, Settings, Stage};

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) async fn request(
    address: std::net::SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Answer {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let mut text = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Content-Type") {
            text += "Content-Type: application/json\r\n";
        }
    }
    text += &format!("\r\n{body}");
    socket.write_all(text.as_bytes()).await.expect("an open socket");
    let mut said = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut said)).await.expect("in time").expect("an answer");
    let said = String::from_utf8_lossy(&said).into_owned();
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_else(|_| json!(body)) }
}

async fn careful() -> Stage {
    Stage::with(Settings { anonymous: Anonymous::Refused, ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_logs_in_with_a_name_and_nothing_else() {
    let stage = careful().await;
    let login = request(stage.address, "POST /app/login", &[], Some(json!({"name": " Ana "}))).await;
    assert_eq!((login.status, &login.body["user"]["name"]), (200, &json!("Ana")));
    assert!(login.body.get("token").is_none());
    let cookie = login.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let me = request(stage.address, "GET /app/me", &[("Cookie", cookie)], None).await;
    assert_eq!((me.status, &me.body["user"]), (200, &login.body["user"]));
    assert_eq!(me.body["csrf"], login.body["csrf"]);

    let tab = request(stage.address, "POST /app/login", &[], Some(json!({"name": "Ben", "tab": true}))).await;
    assert!(tab.header("set-cookie").is_none() && tab.body["token"].is_string());
    let bearer = format!("Bearer {}", tab.body["token"].as_str().expect("a token"));
    let me = request(stage.address, "GET /app/me", &[("Authorization", &bearer)], None).await;
    assert_eq!(me.body["user"]["name"], "Ben");
    let nobody = request(stage.address, "GET /app/me", &[], None).await;
    assert_eq!((nobody.status, nobody.body), (200, json!({})));
    assert_eq!(request(stage.address, "GET /app/me", &[("Authorization", "Bearer x")], None).await.status, 401);
    for bad in ["", "  ", "narrator", &"x".repeat(50), "a\u{202e}b"] {
        let refused = request(stage.address, "POST /app/login", &[], Some(json!({"name": bad}))).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (422, &json!(422)), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_alone_changes_nothing() {
    let stage = careful().await;
    let login = request(stage.address, "POST /app/login", &[], Some(json!({"name": "Ana"}))).await;
    let cookie = login.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let csrf = login.body["csrf"].as_str().expect("a token").to_owned();
    let own = format!("http://{}", stage.address);
    let create = || Some(json!({"title": "T", "key": "k"}));
    let post = |headers: Vec<(&'static str, String)>| {
        let address = stage.address;
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            request(address, "POST /app/rpc/story.create", &headers, create()).await.status
        }
    };
    let with = |origin: &str, csrf: &str| {
        vec![("Cookie", cookie.clone()), ("Origin", origin.to_owned()), ("X-CSRF-Token", csrf.to_owned())]
    };
    assert_eq!(post(with(&own, &csrf)).await, 200);
    assert_eq!(post(with(&own, "x")).await, 403);
    assert_eq!(post(with("http://evil.example", &csrf)).await, 403);
    assert_eq!(post(vec![("Cookie", cookie.clone()), ("X-CSRF-Token", csrf.clone())]).await, 403);
    let mut form = with(&own, &csrf);
    form.push(("Content-Type", "text/plain".into()));
    assert_eq!(post(form).await, 415);
    assert_eq!(post(vec![]).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_cases_are_the_same_over_http() {
    let stage = careful().await;
    let tab = request(stage.address, "POST /app/login", &[], Some(json!({"name": "Ben", "tab": true}))).await;
    let bearer = format!("Bearer {}", tab.body["token"].as_str().expect("a token"));
    let headers = [("Authorization", bearer.as_str())];
    let body = json!({"title": "The Lamp", "opening": "It burned blue.", "key": "k1"});
    let made = request(stage.address, "POST /app/rpc/story.create", &headers, Some(body)).await;
    let story = made.body["story"]["id"].as_str().expect("an id").to_owned();
    let export = request(stage.address, &format!("GET /app/stories/{story}/export.md"), &headers, None).await;
    assert_eq!(export.status, 200);
    assert!(export.header("content-type").is_some_and(|kind| kind.starts_with("text/markdown")));
    let text = export.body.as_str().expect("text").to_owned();
    assert!(text.starts_with("# The Lamp") && text.contains("It burned blue."), "{text}");
    let missing = request(stage.address, "POST /app/rpc/story.open", &headers, Some(json!({"story": "nope"}))).await;
    assert_eq!((missing.status, &missing.body["error"]["code"]), (404, &json!(404)));
    let unknown = request(stage.address, "POST /app/rpc/no.such", &headers, Some(json!({}))).await;
    assert_eq!((unknown.status, &unknown.body["error"]["code"]), (404, &json!(104)));
    let wrong = request(stage.address, "POST /app/rpc/story.open", &headers, Some(json!({"story": 7}))).await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_have_a_rate_and_say_when_to_come_back() {
    let base = Settings::default();
    let http = ServerSettings { login_burst: 2, ..base.http };
    let stage = Stage::with(Settings { http, ..Settings::default() }).await;
    let login = || request(stage.address, "POST /app/login", &[], Some(json!({"name": "Ana"})));
    assert_eq!((login().await.status, login().await.status), (200, 200));
    let refused = login().await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (429, &json!(111)));
    assert!(refused.header("retry-after").and_then(|s| s.parse::<u32>().ok()).is_some_and(|s| s > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_programs_publish_by_key() {
    let stage = Stage::new().await;
    let publish = |key: &'static str, channel: &'static str| {
        let address = stage.address;
        async move {
            let body = json!({"channel": channel, "data": {"n": 1}, "idempotency_key": "once"});
            request(address, "POST /api/publish", &[("X-API-Key", key)], Some(body)).await
        }
    };
    let first = publish("the-key", "log:1").await;
    assert_eq!((first.status, &first.body["result"]["offset"]), (200, &json!(1)), "{}", first.body);
    assert_eq!(publish("the-key", "log:1").await.body, first.body);
    assert_eq!(publish("wrong", "log:1").await.status, 401);
    let refused = |answer: &Answer| (answer.status, answer.body["error"]["code"].as_u64());
    assert_eq!(refused(&publish("the-key", "nowhere:1").await), (200, Some(102)));
    assert_eq!(refused(&publish("the-key", "story:abc").await), (200, Some(103)));
    let signal = publish("the-key", "cursor:1").await;
    assert_eq!((signal.status, &signal.body), (200, &json!({"result": {}})));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_have_a_listener_of_their_own() {
    let stage = Stage::new().await;
    assert_eq!(request(stage.admin, "GET /health", &[], None).await.status, 200);
    assert_eq!(request(stage.admin, "GET /ready", &[], None).await.status, 200);
    let metrics = request(stage.admin, "GET /metrics", &[], None).await;
    let text = metrics.body.as_str().expect("text");
    assert!(text.contains("# TYPE talewire_connections gauge") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(request(stage.address, "GET /metrics", &[], None).await.status, 404);
    assert_eq!(request(stage.admin, "GET /connection/websocket", &[], None).await.status, 404);
    stage.node.store.close().await;
    let ready = request(stage.admin, "GET /ready", &[], None).await;
    assert_eq!(ready.status, 503, "not ready without a store");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_on_a_full_disk_says_so() {
    let full = Stage::with(Settings { free_bytes_min: u64::MAX, ..Settings::default() }).await;
    assert_eq!(request(full.admin, "GET /ready", &[], None).await.status, 200, "nobody has looked");
    full.node.look_at_store().await;
    let ready = request(full.admin, "GET /ready", &[], None).await;
    let reason = ready.body.as_str().expect("text");
    assert!(ready.status == 503 && reason.contains("could not write") && reason.contains("disk is full"), "{reason}");
    assert_eq!(Stage::metric(&full.node, "talewire_store_writable"), 0);
    assert_eq!(Stage::metric(&full.node, "talewire_store_commits_failed_total"), 0, "nobody has written");
    assert_eq!(request(full.admin, "GET /health", &[], None).await.status, 200, "it lives");

    let roomy = Stage::new().await;
    roomy.node.look_at_store().await;
    assert_eq!(request(roomy.admin, "GET /ready", &[], None).await.status, 200);
    assert_eq!(Stage::metric(&roomy.node, "talewire_store_writable"), 1);
    assert!(Stage::metric(&roomy.node, "talewire_store_free_bytes") > 0);
}
