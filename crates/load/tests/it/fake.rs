//! A server of the few commands that the tool needs, over every transport, one thread per connection, with a fault of one's choice at
//! the first reader's publication number 2.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use talewire_proto::wire::Wire;
use tungstenite::Message;

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Number 2 does not come.
    Leaves,
    /// The last, number 7, does not come.
    LeavesLast,
    /// Number 2 comes twice.
    Doubles,
    /// Number 3 comes before number 2.
    Swaps,
    /// A letter of number 2 is another.
    Changes,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
}

struct Shared {
    fault: Fault,
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    sockets: Vec<Reader>,
    published: u64,
    /// Held back from the first reader until the next one.
    held: Option<String>,
}

/// How a reader hears.
enum Reader {
    WebSocket(TcpStream),
    Lines(TcpStream),
    EventsOfLines(TcpStream),
    Events(TcpStream),
    /// Its thread answers the polls.
    Poll(mpsc::Sender<String>),
}

/// A publication.
struct Said<'a> {
    channel: &'a Value,
    data: String,
    offset: u64,
}

impl Said<'_> {
    fn push(&self) -> String {
        let Self { channel, data, offset } = self;
        format!(r#"{{"push":{{"channel":{channel},"pub":{{"data":{data},"offset":{offset}}}}}}}"#)
    }
}

impl Reader {
    fn hear(&mut self, said: &Said<'_>) {
        // Whoever is gone hears nothing.
        let _ = match self {
            Self::WebSocket(socket) => socket.write_all(&Wire::WebSocketJson.frame(said.push().as_bytes())),
            Self::Lines(socket) => writeln!(socket, "{}", said.push()),
            Self::EventsOfLines(socket) => write!(socket, "data: {}\n\n", said.push()),
            Self::Events(socket) => write!(socket, "id: {}-e\ndata: {}\n\n", said.offset, said.data),
            Self::Poll(sender) => {
                let Said { channel, data, offset } = said;
                let _ = sender.send(format!(r#"{{"channel":{channel},"offset":{offset},"data":{data}}}"#));
                Ok(())
            }
        };
    }
}

impl Fake {
    /// Serves until the test's process ends.
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { fault, readers: Mutex::default() });
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(&shared, socket));
            }
        });
        Self { address }
    }
}

fn serve(shared: &Shared, socket: TcpStream) {
    let mut begin = [0; 32];
    let seen = socket.peek(&mut begin).expect("a request");
    let begin = String::from_utf8_lossy(&begin[..seen]).into_owned();
    match begin.split(' ').nth(1) {
        Some("/connection/websocket") => serve_websocket(shared, socket),
        Some("/connection/http_stream") => serve_stream(shared, socket, "", Reader::Lines),
        Some(path) if path.starts_with("/connection/sse") => {
            serve_stream(shared, socket, "data: ", Reader::EventsOfLines)
        }
        Some(path) if path.starts_with("/events") => serve_events(shared, socket),
        Some(path) if path.starts_with("/poll") => serve_polls(shared, &socket),
        _ => panic!("what is {begin}?"),
    }
}

/// Reads a request with its body, if there is another.
fn request(socket: &mut impl std::io::BufRead) -> Option<String> {
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("a length");
        }
        text += &line;
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).expect("the body");
    Some(text + &String::from_utf8_lossy(&body))
}

/// Waits for the reader's end, and ends, too.
fn until_it_ends(mut socket: TcpStream) {
    let _ = socket.read(&mut [0; 1]);
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

/// The native protocol over a stream: both answers, then what is published.
fn serve_stream(shared: &Shared, socket: TcpStream, before: &str, reader: fn(TcpStream) -> Reader) {
    let mut writer = socket.try_clone().expect("a second handle");
    let text = request(&mut BufReader::new(&socket)).expect("a request");
    assert!(text.contains("subscribe"), "{text}");
    let after = if before.is_empty() { "\n" } else { "\n\n" };
    for answer in [r#"{"id":1,"connect":{"session":"s","node":"n"}}"#, r#"{"id":2,"subscribe":{}}"#] {
        let head = if answer.contains("connect") { STREAM } else { "" };
        write!(writer, "{head}{before}{answer}{after}").expect("it listens");
    }
    shared.readers.lock().expect("no panic").sockets.push(reader(writer));
    until_it_ends(socket);
}

/// The channel that a query names.
fn channel_of(request: &str) -> String {
    let (_, after) = request.split_once("channel=").expect("a channel");
    after.split([' ', '&']).next().unwrap_or_default().replace("%3A", ":")
}

fn serve_events(shared: &Shared, socket: TcpStream) {
    let mut writer = socket.try_clone().expect("a second handle");
    let channel = channel_of(&request(&mut BufReader::new(&socket)).expect("a request"));
    let connected = json!({ "channels": { channel: { "offset": 0, "epoch": "e" } } });
    write!(writer, "{STREAM}retry: 3000\n\nid: 0-e\nevent: connected\ndata: {connected}\n\n:\n\n").expect("it listens");
    shared.readers.lock().expect("no panic").sockets.push(Reader::Events(writer));
    until_it_ends(socket);
}

/// The first poll is answered at once, each further one with what comes next.
fn serve_polls(shared: &Shared, socket: &TcpStream) {
    let (sender, receiver) = mpsc::channel();
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    let mut polls = 0;
    while let Some(text) = request(&mut reader) {
        let mut channels = json!({});
        let events = if polls == 0 {
            channels = json!({ channel_of(&text): { "offset": 0, "epoch": "e" } });
            shared.readers.lock().expect("no panic").sockets.push(Reader::Poll(sender.clone()));
            String::new()
        } else {
            assert!(text.contains(&format!("cursor=c{polls}")), "{text}");
            let Some(first) = news(&receiver, socket) else { break };
            [first].into_iter().chain(receiver.try_iter()).collect::<Vec<_>>().join(",")
        };
        polls += 1;
        let body =
            format!(r#"{{"cursor":"c{polls}","channels":{channels},"events":[{events}],"gaps":[],"refused":[]}}"#);
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it listens");
    }
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

/// The next thing that is published, or nothing when the reader has gone.
fn news(receiver: &mpsc::Receiver<String>, socket: &TcpStream) -> Option<String> {
    loop {
        if let Ok(first) = receiver.recv_timeout(Duration::from_millis(20)) {
            return Some(first);
        }
        socket.set_nonblocking(true).expect("a socket");
        let has_ended = matches!(socket.peek(&mut [0]), Ok(0));
        socket.set_nonblocking(false).expect("a socket");
        if has_ended {
            return None;
        }
    }
}

fn serve_websocket(shared: &Shared, socket: TcpStream) {
    let mut writer = socket.try_clone().expect("a second handle");
    let mut websocket = tungstenite::accept(socket).expect("a handshake");
    // The close frame is answered by the library while it reads.
    while let Ok(message) = websocket.read() {
        let Message::Text(text) = message else { continue };
        for command in text.lines() {
            let command: Value = serde_json::from_str(command).expect("a command");
            let id = command["id"].clone();
            if command.get("connect").is_some() {
                say(&mut writer, &json!({ "id": id, "connect": { "client": "c" } }).to_string());
            } else if command["subscribe"]["channel"] == "no" {
                let error = json!({ "code": 102, "message": "unknown channel" });
                say(&mut writer, &json!({ "id": id, "error": error }).to_string());
            } else if command.get("subscribe").is_some() {
                // A ping on the way, which every client answers.
                say(&mut writer, "{}");
                say(&mut writer, &json!({ "id": id, "subscribe": {} }).to_string());
                let handle = writer.try_clone().expect("another handle");
                shared.readers.lock().expect("no panic").sockets.push(Reader::WebSocket(handle));
            } else if command.get("publish").is_some() {
                say(&mut writer, &json!({ "id": id, "publish": {} }).to_string());
                spread(shared, &text, &command["publish"]["channel"], &id);
            }
        }
    }
    let _ = writer.shutdown(std::net::Shutdown::Both);
}

/// Sends a publication to every reader. The payload is cut out of the command, so that it stays as it was written.
fn spread(shared: &Shared, text: &str, channel: &Value, id: &Value) {
    let start = format!("{{\"id\":{id},");
    let line = text.lines().find(|line| line.starts_with(&start)).expect("the command");
    let (_, data) = line.split_once("\"data\":").expect("data");
    let data = data.strip_suffix("}}").expect("two ends");
    let mut readers = shared.readers.lock().expect("no panic");
    let number = readers.published;
    readers.published += 1;
    let said = |data: &str| Said { channel, data: data.to_owned(), offset: number + 1 };
    let right = said(data);
    let held = readers.held.take().map(|data| Said { channel, data, offset: number });
    let first = match (shared.fault, number) {
        (Fault::Leaves, 2) | (Fault::LeavesLast, 7) => Vec::new(),
        (Fault::Doubles, 2) => vec![said(data), said(data)],
        (Fault::Changes, 2) => vec![said(&data.replace("\"text\":\"", "\"text\":\"z"))],
        (Fault::Swaps, 2) => {
            readers.held = Some(data.to_owned());
            Vec::new()
        }
        _ => [said(data)].into_iter().chain(held).collect(),
    };
    for (index, reader) in readers.sockets.iter_mut().enumerate() {
        if index == 0 {
            first.iter().for_each(|said| reader.hear(said));
        } else {
            reader.hear(&right);
        }
    }
}

fn say(socket: &mut TcpStream, message: &str) {
    // Whoever is gone hears nothing.
    let _ = socket.write_all(&Wire::WebSocketJson.frame(message.as_bytes()));
}
