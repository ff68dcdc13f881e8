//! A publication is followed from the request that made it to the sockets that it went to, by a collector that speaks OTLP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::{Running, talewire};

/// How long spans may take to come.
const SOON: Duration = Duration::from_secs(20);

/// Takes spans by HTTP, one request per connection or many, and hands them on.
fn collect() -> (String, mpsc::Receiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
    let (sender, spans) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || while take(&socket, &sender).is_some() {});
        }
    });
    (endpoint, spans)
}

/// One request; nothing when the connection ends.
fn take(socket: &TcpStream, spans: &mpsc::Sender<Span>) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(&body[..]).expect("what OTLP says");
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).for_each(|span| drop(spans.send(span)));
    let mut answer = socket;
    answer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").ok()
}

/// A server with a channel `chat:a` and further settings; its address.
pub(super) fn serve(folder: &std::path::Path, settings: &[(&str, &str)]) -> (Running, String) {
    let data = folder.join("data");
    let data = data.to_str().expect("UTF-8");
    let config = super::file(folder, "[namespaces.chat]\nhistory_size = 10\n");
    let arguments = ["serve", "--insecure", "--config", &config, "--listen", "127.0.0.1:0", "--data", data];
    let mut command = talewire(&arguments);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_PROCESS_LOG_FORMAT", "json");
    command.envs(settings.iter().copied());
    command.env("TALEWIRE_HTTP_API_KEY", "a-key-for-tests-that-is-long-enough");
    let mut running = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let ready = lines.by_ref().find(|line| line.contains("talewire is ready")).expect("it gets ready");
    std::thread::spawn(move || lines.for_each(drop));
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    let address = ready["page"].as_str().expect("an address").trim_start_matches("http://").to_owned();
    (running, address)
}

/// A reader of `chat:a` that has begun to listen.
pub(super) fn reader(address: &str) -> BufReader<TcpStream> {
    reader_from(address, "")
}

/// A reader of `chat:a` that was last told this id.
pub(super) fn reader_from(address: &str, id: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).expect("the server");
    let last = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
    write!(socket, "GET /events?channel=chat:a HTTP/1.1\r\nHost: {address}\r\n{last}\r\n").expect("an open socket");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while !line.contains("chat:a") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("the stream begins") > 0, "it ended");
    }
    reader
}

/// Publishes, with further header lines; the whole answer.
pub(super) fn post(address: &str, body: &str, more: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("the server");
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    let key = "X-API-Key: a-key-for-tests-that-is-long-enough";
    write!(socket, "{head}{key}\r\n{more}\r\n{body}").expect("an open socket");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("an answer");
    said
}

fn publish(address: &str, traceparent: &str) {
    let body = r#"{"channel":"chat:a","data":{"words":"hello"}}"#;
    let said = post(address, body, &format!("traceparent: {traceparent}\r\n"));
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("offset"), "{said}");
}

#[test]
fn a_publication_is_followed_to_the_sockets() {
    let (endpoint, spans) = collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (_running, address) =
        serve(folder.path(), &[("TALEWIRE_TRACES_ENDPOINT", &endpoint), ("TALEWIRE_TRACES_RATIO", "0")]);
    let _reader = reader(&address);
    // Not sampled: nothing is told of it.
    publish(&address, "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    publish(&address, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut found = [spans.recv_timeout(SOON).expect("a span"), spans.recv_timeout(SOON).expect("another")];
    found.sort_by(|a, b| b.name.cmp(&a.name));
    let [publish, deliver] = found;
    assert_eq!((publish.name.as_str(), deliver.name.as_str()), ("publish", "deliver"));
    let id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes().to_vec();
    assert_eq!((&publish.trace_id, &deliver.trace_id), (&id, &id));
    assert_eq!(publish.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(deliver.parent_span_id, publish.span_id);
    assert!(publish.start_time_unix_nano <= publish.end_time_unix_nano);
    assert!(publish.start_time_unix_nano <= deliver.end_time_unix_nano);
    let told = format!("{publish:?}{deliver:?}");
    assert!(told.contains("\"chat\"") && !told.contains("hello") && !told.contains("chat:a"), "{told}");
}

#[test]
fn a_publication_is_followed_to_the_sockets_of_another_node() {
    let (endpoint, spans) = collect();
    let (redis, postgres) = (talewire_stand::redis::Redis::start(), talewire_stand::postgres::Postgres::start());
    let (urls, store) = (format!("[\"{}\"]", redis.url()), postgres.url());
    let settings = [
        ("TALEWIRE_TRACES_ENDPOINT", endpoint.as_str()),
        ("TALEWIRE_TRACES_RATIO", "0"),
        ("TALEWIRE_BROKER_KIND", "redis"),
        ("TALEWIRE_BROKER_REDIS_URLS", urls.as_str()),
        ("TALEWIRE_STORE_URL", store.as_str()),
    ];
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (_here, here) = serve(one.path(), &settings);
    let (_there, there) = serve(two.path(), &settings);
    let _reader = reader(&there);
    publish(&here, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut found = [spans.recv_timeout(SOON).expect("a span"), spans.recv_timeout(SOON).expect("another")];
    found.sort_by(|a, b| b.name.cmp(&a.name));
    let [publish, deliver] = found;
    assert_eq!((publish.name.as_str(), deliver.name.as_str()), ("publish", "deliver"));
    assert_eq!((deliver.trace_id, deliver.parent_span_id), (publish.trace_id, publish.span_id));
}
