//! Agents in a process of their own, and nodes that do not belong together.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use talewire_stand::postgres::Postgres;
use talewire_stand::redis::Redis;

use super::traces::serve;
use super::{Running, check, talewire};

/// One request of somebody with a token; the answer's body.
pub(super) fn ask(address: &str, path: &str, token: &str, body: &Value) -> Value {
    let mut socket = TcpStream::connect(address).expect("the server");
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n");
    let who = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    write!(socket, "{head}{who}Content-Length: {}\r\n\r\n{body}", body.len()).expect("an open socket");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("an answer");
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {said}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn a_worker_alone_says_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = talewire(&["worker"]);
    command.env("TALEWIRE_STORE_PATH", folder.path());
    check(&mut command, 1, &["store.url", "broker.kind"]);
}

#[test]
fn nodes_with_different_data_do_not_share_a_broker() {
    let redis = Redis::start();
    let urls = format!("[\"{}\"]", redis.url());
    let settings = [("TALEWIRE_BROKER_KIND", "redis"), ("TALEWIRE_BROKER_REDIS_URLS", urls.as_str())];
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (_running, _) = serve(one.path(), &settings);
    let data = two.path().join("data");
    let mut command = talewire(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("UTF-8")]);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").envs(settings);
    check(&mut command, 1, &["over the same broker keeps its data in another database"]);
}

#[test]
fn a_node_of_another_broker_is_warned_of() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (urls, store) = (format!("[\"{}\"]", redis.url()), postgres.url());
    let alone = [("TALEWIRE_STORE_URL", store.as_str()), ("TALEWIRE_BROKER_NODE_BEAT_MS", "50")];
    let folder = tempfile::tempdir().expect("a folder");
    let (_one, _) = serve(folder.path(), &alone);
    let mut command = talewire(&["serve", "--insecure", "--listen", "127.0.0.1:0"]);
    command.envs(alone).env("TALEWIRE_BROKER_KIND", "redis").env("TALEWIRE_BROKER_REDIS_URLS", urls);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
    let mut other = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(other.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let warning = lines.find(|line| line.contains("is not heard over the broker")).expect("it warns");
    let warning: Value = serde_json::from_str(&warning).expect("JSON");
    assert_eq!(warning["level"], "WARN", "{warning}");
}

#[test]
fn nodes_that_are_set_otherwise_are_warned_of() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (urls, store) = (format!("[\"{}\"]", redis.url()), postgres.url());
    let settings = [
        ("TALEWIRE_BROKER_KIND", "redis"),
        ("TALEWIRE_BROKER_REDIS_URLS", urls.as_str()),
        ("TALEWIRE_STORE_URL", store.as_str()),
        ("TALEWIRE_BROKER_NODE_BEAT_MS", "50"),
        ("TALEWIRE_NAMESPACES_CHAT_HISTORY_SIZE", "7"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let (_one, _) = serve(folder.path(), &settings);
    let mut command = talewire(&["serve", "--insecure", "--listen", "127.0.0.1:0"]);
    command.envs(settings).env("TALEWIRE_NAMESPACES_CHAT_HISTORY_SIZE", "8").env("TALEWIRE_STORY_TITLE_CHARS_MAX", "9");
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
    command.env("TALEWIRE_HTTP_API_KEY", "a-key-for-tests-that-is-long-enough");
    let mut other = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(other.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let warning = lines.find(|line| line.contains("set otherwise")).expect("it warns");
    let warning: Value = serde_json::from_str(&warning).expect("JSON");
    assert_eq!((&warning["level"], &warning["parts"]), (&json!("WARN"), &json!("namespaces, story")), "{warning}");
    // As the second is set; both live.
    let mut doctor = talewire(&["doctor"]);
    doctor.envs(settings).env("TALEWIRE_NAMESPACES_CHAT_HISTORY_SIZE", "8").env("TALEWIRE_HTTP_SOCKETS_MAX", "100");
    check(
        &mut doctor,
        1,
        &["WRONG   nodes are set otherwise than this configuration", "in auth, namespaces", "in auth, story"],
    );
}

#[test]
fn a_worker_writes_for_servers_that_run_no_agents() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (urls, store) = (format!("[\"{}\"]", redis.url()), postgres.url());
    let settings = [
        ("TALEWIRE_BROKER_KIND", "redis"),
        ("TALEWIRE_BROKER_REDIS_URLS", urls.as_str()),
        ("TALEWIRE_STORE_URL", store.as_str()),
        ("TALEWIRE_AGENTS_RUN_HERE", "false"),
        ("TALEWIRE_AGENTS_DEMO_TOKENS_PER_SECOND", "0"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = serve(folder.path(), &settings);
    let login = ask(&address, "/app/login", "", &json!({"name": "Ana", "tab": true}));
    let token = login["token"].as_str().expect("a token");
    let call = |method: &str, params: Value| ask(&address, &format!("/app/rpc/{method}"), token, &params);
    let story =
        call("story.create", json!({"title": "A lamp", "opening": "It went out.", "key": "a"}))["story"].clone();
    let asked = json!({"story": story["id"], "branch": story["branch"], "key": "b"});
    call("generation.request", asked);
    let open = || call("story.open", json!({"story": story["id"]}));
    assert_eq!(open()["generations"][0]["status"], "queued", "nobody here writes");

    let mut command = talewire(&["worker"]);
    command.envs(settings).env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
    let mut worker = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(worker.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let ready = lines.find(|line| line.contains("the worker is ready")).expect("it gets ready");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    std::thread::spawn(move || lines.for_each(drop));
    let admin = ready["admin"].as_str().expect("an address");
    let began = Instant::now();
    while !super::ask(admin, "GET /metrics").contains("talewire_agents_done_total 1") {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody writes: {}", open());
    }
    assert_eq!(open()["turns"].as_array().map(Vec::len), Some(2), "{}", open());
    assert!(super::ask(admin, "GET /ready").starts_with("HTTP/1.1 200"));
}
