//! The binary between other systems: a stream comes in while it is killed with -9, webhooks go out, and NATS carries publications.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use talewire_stand::nats::Nats;
use talewire_stand::postgres::Postgres;
use talewire_stand::redis::Redis;

use super::{Running, talewire};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);

const KEY: &str = "the key of the server API";

/// A running server and where it listens.
struct Server {
    _running: Running,
    address: String,
}

impl Server {
    fn start(folder: &Path, config: &str) -> Self {
        let data = folder.join("data");
        let data = data.to_str().expect("UTF-8");
        let config = super::file(folder, config);
        let arguments =
            ["serve", "--config", &config, "--listen", "127.0.0.1:0", "--data", data, "--log-format", "json"];
        let mut command = talewire(&arguments);
        command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_HTTP_API_KEY", KEY);
        let mut running = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
        let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("talewire is ready")).expect("it gets ready");
        // Its log goes on, and must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let address = ready["page"].as_str().and_then(|page| page.strip_prefix("http://")).expect("an address");
        Self { _running: running, address: address.to_owned() }
    }

    fn post(&self, path: &str, header: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut socket = TcpStream::connect(&self.address).expect("it listens");
        let host = &self.address;
        let length = body.len();
        write!(
            socket,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("an open socket");
        let mut said = String::new();
        socket.read_to_string(&mut said).expect("an answer");
        let body = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {said}")).1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn api(&self, method: &str, params: &Value) -> Value {
        self.post(&format!("/api/{method}"), &format!("X-API-Key: {KEY}"), params)["result"].clone()
    }

    /// The newest offset of a channel.
    fn top(&self, channel: &str) -> u64 {
        self.api("history", &json!({"channel": channel, "limit": 0}))["offset"].as_u64().unwrap_or(0)
    }

    /// Waits until a channel has so many entries.
    fn until(&self, channel: &str, entries: u64) {
        let began = Instant::now();
        while self.top(channel) < entries {
            assert!(began.elapsed() < SOON, "{channel} has {} of {entries}", self.top(channel));
            std::thread::yield_now();
        }
    }

    /// Everything that a channel says, in its order.
    fn all(&self, channel: &str) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let since = json!({"offset": all.len(), "epoch": ""});
            let page = self.api("history", &json!({"channel": channel, "limit": 1_000, "since": since}));
            let page = page["publications"].as_array().expect("a list").clone();
            if page.is_empty() {
                return all;
            }
            all.extend(page.iter().map(|publication| publication["data"].as_u64().expect("a number")));
        }
    }
}

#[test]
fn a_stream_becomes_a_durable_channel_whatever_is_killed_on_the_way() {
    const MESSAGES: u64 = 1_500;
    let mut redis = Redis::lasting();
    for n in 0..MESSAGES {
        let body = format!(r#"{{"channel":"log:1","data":{n}}}"#);
        redis.say(&["XADD", "orders", "*", "message", &body]).expect("it is added");
    }
    redis.say(&["XADD", "orders", "*", "message", r#"{"channel":"nowhere:1","data":1}"#]).expect("it is added");
    redis.say(&["XADD", "orders", "*", "message", r#"{"channel":"small:1","data":"x"}"#]).expect("it is added");
    let url = redis.url();
    let config = format!(
        "[namespaces.log]\nkind = 'durable'\n[namespaces.small]\nschema = '{{\"type\": \"number\"}}'\n\
         [sources.orders]\nurl = '{url}'\nfrom = 'orders'\naside = 'aside'\nmessages_max = 32\nclaim_ms = 300\nretry_ms_max = 500\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    for wanted in [MESSAGES / 10, MESSAGES / 4] {
        let server = Server::start(folder.path(), &config);
        server.until("log:1", wanted);
        // It is killed with -9 here.
        drop(server);
    }
    let server = Server::start(folder.path(), &config);
    server.until("log:1", MESSAGES / 2);
    assert!(server.top("log:1") < MESSAGES, "it was all over before Redis was killed");
    redis.restart();
    server.until("log:1", MESSAGES);
    // What comes again behind the last one adds nothing; then nothing is pending.
    let began = Instant::now();
    while redis.say(&["XPENDING", "orders", "talewire"]).ok().is_none_or(|_| pending(&redis) > 0) {
        assert!(began.elapsed() < SOON, "{} messages are pending", pending(&redis));
        std::thread::yield_now();
    }
    let mut all = server.all("log:1");
    let late = all.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(late <= 2, "each kill leaves at most one batch to be taken over: {late} breaks in the order");
    all.sort_unstable();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>(), "each message once");
    assert_eq!(redis.say(&["XLEN", "aside"]).expect("a stream"), ":2");
}

/// Messages that are taken and not acknowledged.
fn pending(redis: &Redis) -> u64 {
    let answer = redis.say(&["EVAL", "return redis.call('XPENDING', 'orders', 'talewire')[1]", "0"]);
    answer.ok().and_then(|line| line.strip_prefix(':')?.parse().ok()).unwrap_or(u64::MAX)
}

/// Takes deliveries and hands on their events.
fn hook() -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(&socket, &sender));
        }
    });
    (port, events)
}

/// Takes what one node delivers.
fn serve(socket: &TcpStream, sender: &mpsc::Sender<Value>) {
    let mut reader = BufReader::new(socket);
    while let Some(delivery) = read(&mut reader) {
        let events = delivery["events"].as_array().expect("a list");
        events.iter().for_each(|event| drop(sender.send(event.clone())));
        let mut answer = socket;
        if answer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn webhooks_hear_of_readers_and_of_generations() {
    let (port, events) = hook();
    let config = format!(
        "[namespaces.default]\nsubscribe = 'authenticated'\n[agents.demo]\ntokens_per_second = 0\n\
         [webhooks.other]\nurl = 'http://127.0.0.1:{port}/'\nsecret = '{}'\nhttp_allowed = true\nprivate_allowed = true\nbatch_ms = 10\n",
        super::SECRET
    );
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &config);
    // Which of two comes first is nobody's promise.
    let two = |wanted: [&str; 2]| {
        let mut came =
            [(); 2].map(|()| events.recv_timeout(SOON).unwrap_or_else(|error| panic!("{wanted:?}: {error}")));
        came.sort_by_key(|event| event["event"].to_string());
        assert_eq!([&came[0]["event"], &came[1]["event"]], wanted, "{came:?}");
        came
    };
    let login = server.post("/app/login", "X-None: x", &json!({"name": "Ana", "tab": true}));
    let token = login["token"].as_str().expect("a token");
    let mut reader = TcpStream::connect(&server.address).expect("it listens");
    write!(reader, "GET /events?channel=news&token={token} HTTP/1.1\r\nHost: x\r\n\r\n").expect("an open socket");
    let [occupied, connected] = two(["channel_occupied", "client_connected"]);
    assert_eq!(occupied["channel"], "news");
    assert_eq!((&connected["user"], &connected["transport"]), (&login["user"]["id"], &json!("sse")), "{connected}");
    drop(reader);
    let [vacated, disconnected] = two(["channel_vacated", "client_disconnected"]);
    assert_eq!((&vacated["channel"], &disconnected["client"]), (&json!("news"), &connected["client"]));

    let bearer = format!("Authorization: Bearer {token}");
    let rpc = |method: &str, params: Value| server.post(&format!("/app/rpc/{method}"), &bearer, &params);
    let story = rpc("story.create", json!({"title": "One", "opening": "Once.", "key": "1"}))["story"].clone();
    let asked = rpc("generation.request", json!({"story": story["id"], "branch": story["branch"], "key": "2"}));
    let ended = events.recv_timeout(SOON).expect("an event");
    assert_eq!(
        (&ended["event"], &ended["story"], &ended["generation"], &ended["status"]),
        (&json!("generation_ended"), &story["id"], &asked["generation"]["id"], &json!("done")),
        "{ended} {asked}"
    );
}

/// What receivers do: the greatest serial of each channel is the truth.
#[derive(Default)]
struct Truth(BTreeMap<String, (u64, bool)>, usize);

impl Truth {
    /// Takes events until a channel is told to be so.
    fn until(&mut self, events: &mpsc::Receiver<Value>, channel: &str, is_occupied: bool) {
        while self.0.get(channel).is_none_or(|told| told.1 != is_occupied) {
            let event = events.recv_timeout(SOON).unwrap_or_else(|error| panic!("{channel} {is_occupied}: {error}"));
            let told = (event["serial"].as_u64().expect("a serial"), event["event"] == "channel_occupied");
            let known = self.0.entry(event["channel"].as_str().expect("a name").to_owned()).or_insert(told);
            assert!(known.0 != told.0 || *known == told, "one serial is one change: {event} {known:?}");
            self.1 += usize::from(known.0 < told.0 && known.1 == told.1);
            *known = told.max(*known);
        }
    }
}

#[test]
fn webhooks_of_two_nodes_say_what_is_true_of_both() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (port, events) = hook();
    let config = format!(
        "[store]\nurl = '{}'\n[broker]\nkind = 'redis'\nnode_beat_ms = 200\nnode_lease_ms = 2000\n[broker.redis]\nurls = ['{}']\n\
         [namespaces.default]\nsubscribe = 'authenticated'\n\
         [webhooks.other]\nurl = 'http://127.0.0.1:{port}/'\nsecret = '{}'\nhttp_allowed = true\nprivate_allowed = true\nbatch_ms = 10\n\
         events = ['channel_occupied', 'channel_vacated']\n",
        postgres.url(),
        redis.url(),
        super::SECRET
    );
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let a = Server::start(folders[0].path(), &config);
    let b = Server::start(folders[1].path(), &config);
    let login = a.post("/app/login", "X-None: x", &json!({"name": "Ana", "tab": true}));
    let token = login["token"].as_str().expect("a token");
    let read = |server: &Server, channel: &str| {
        let mut reader = TcpStream::connect(&server.address).expect("it listens");
        write!(reader, "GET /events?channel={channel}&token={token} HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("an open socket");
        let mut line = String::new();
        BufReader::new(&reader).read_line(&mut line).expect("an answer");
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        reader
    };
    let mut truth = Truth::default();
    // One after the other on two nodes is once for the whole.
    let on_a = read(&a, "news");
    truth.until(&events, "news", true);
    let on_b = read(&b, "news");
    let mark = read(&b, "mark");
    truth.until(&events, "mark", true);
    drop(on_a);
    let other = read(&a, "other");
    truth.until(&events, "other", true);
    assert!(truth.0["news"].1, "somebody is still there: {truth:?}", truth = truth.0);
    drop(on_b);
    truth.until(&events, "news", false);
    assert_eq!(truth.1, 0, "nothing was told twice");
    // A node that is killed with -9 vacates what it alone held.
    let (_both, shared) = (read(&a, "both"), read(&b, "both"));
    truth.until(&events, "both", true);
    drop(b);
    truth.until(&events, "mark", false);
    assert!(truth.0["both"].1 && truth.0["other"].1, "{:?}", truth.0);
    drop((mark, shared, other));
    truth.until(&events, "other", false);
    assert!(truth.0["both"].1);
}

#[test]
fn history_that_nats_keeps_outlives_a_kill_of_both() {
    let mut nats = Nats::start();
    let config = format!("[broker]\nkind = 'nats'\n[broker.nats]\nurls = ['{}']\n[namespaces.chat]\n", nats.url());
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &config);
    let publish = |server: &Server, n: u64| server.api("publish", &json!({"channel": "chat:1", "data": n}));
    let first = publish(&server, 0);
    assert_eq!(first["offset"], 1, "{first}");
    drop(server);
    nats.kill();
    nats.restart();
    let server = Server::start(folder.path(), &config);
    let second = publish(&server, 1);
    assert_eq!((&second["offset"], &second["epoch"]), (&json!(2), &first["epoch"]));
    assert_eq!(server.all("chat:1"), [0, 1]);
}
