//! A server of the few commands that the tool needs, one thread per connection, with a fault of one's choice at the first
//! reader's publication number 2.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

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
    sockets: Vec<TcpStream>,
    published: u64,
    /// Held back from the first reader until the next one.
    held: Option<String>,
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
                shared.readers.lock().expect("no panic").sockets.push(handle);
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
    let push =
        |data: &str| format!(r#"{{"push":{{"channel":{channel},"pub":{{"data":{data},"offset":{}}}}}}}"#, number + 1);
    let right = push(data);
    let held = readers.held.take();
    let first = match (shared.fault, number) {
        (Fault::Leaves, 2) | (Fault::LeavesLast, 7) => Vec::new(),
        (Fault::Doubles, 2) => vec![right.clone(), right.clone()],
        (Fault::Changes, 2) => vec![push(&data.replace("\"text\":\"", "\"text\":\"z"))],
        (Fault::Swaps, 2) => {
            readers.held = Some(right.clone());
            Vec::new()
        }
        _ => [right.clone()].into_iter().chain(held).collect(),
    };
    for (index, reader) in readers.sockets.iter_mut().enumerate() {
        if index == 0 {
            first.iter().for_each(|message| say(reader, message));
        } else {
            say(reader, &right);
        }
    }
}

fn say(socket: &mut TcpStream, message: &str) {
    // Whoever is gone hears nothing.
    let _ = socket.write_all(&Wire::WebSocketJson.frame(message.as_bytes()));
}
