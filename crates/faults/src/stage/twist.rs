//! A server that breaks its promises, made of a good one: the proxy in front changes what is said on the way. One lie for each
//! invariant, so that a test can show that the checker notices. Nothing of this is in the program under test.
//!
//! The bytes of a connection come in as they are read and go out changed: JSON lines in WebSocket frames from the server, and
//! whole requests and answers of the server API.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use talewire_load::frame::{self, FrameReader};

use crate::http;

/// What is told that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lie {
    /// I1: a publication is acknowledged and thrown away.
    Acknowledge,
    /// I1: a publication does not reach one of its readers.
    Swallow,
    /// I2: one comes twice.
    Double,
    /// I3: two come in the wrong order.
    Swap,
    /// I3: one says something else to one of its readers.
    Garble,
    /// I4: what was missed comes, but for the first of it, and is called all.
    RecoverHalf,
    /// I4: what was missed is called lost.
    DenyRecovery,
    /// I4: what is lost is called recovered.
    ClaimRecovery,
    /// I6: the server does not know the keys of publications, and answers late.
    ForgetKeys,
    /// I7: one request is carried out twice, and not answered.
    CarryOutTwice,
    /// I8: somebody is named who is not there.
    Haunt,
    /// I9: a piece of a generation's text is another for its reader.
    Misquote,
    /// I11: an order to take a channel away is answered and thrown away.
    IgnoreOrders,
    /// I12: a publication comes in the name of another channel.
    Misaddress,
}

/// How often a lie is told: once in so many occasions.
const ONE_IN: u64 = 15;

/// Remembers how often there was an occasion to lie, over all connections.
#[derive(Debug)]
pub struct Liar {
    lie: Lie,
    occasions: u64,
    /// The newest acknowledgement: a false one has to look like the next.
    acknowledged: Option<(u64, Value)>,
    /// Channels that have been seen.
    channels: Vec<Value>,
}

impl Liar {
    /// One who tells this lie.
    #[must_use]
    pub fn new(lie: Lie) -> Self {
        Self { lie, occasions: 0, acknowledged: None, channels: Vec::new() }
    }

    fn is_due(&mut self) -> bool {
        self.occasions += 1;
        self.occasions.is_multiple_of(ONE_IN)
    }

    /// The lines that reach the client in place of this one. `held` is a line that waits for its successor.
    fn line(&mut self, mut line: Value, held: &mut Option<Value>) -> Vec<Value> {
        let is_publication = line["push"]["pub"]["offset"].is_u64();
        let is_recovery = line["subscribe"]["recovered"] == true;
        let is_delta = line["push"]["pub"]["data"]["type"] == "delta";
        let lie = self.lie;
        match lie {
            Lie::Swallow if is_publication && self.is_due() => return Vec::new(),
            Lie::Double if is_publication && self.is_due() => return vec![line.clone(), line],
            Lie::Swap if is_publication => {
                if let Some(first) = held.take() {
                    return vec![line, first];
                }
                if self.is_due() {
                    *held = Some(line);
                    return Vec::new();
                }
            }
            Lie::Garble if is_publication && self.is_due() => line["push"]["pub"]["data"]["fill"] = json!("garbled"),
            Lie::RecoverHalf if is_recovery => {
                if let Some(missed) = line["subscribe"]["publications"].as_array_mut().filter(|all| all.len() > 1) {
                    missed.remove(0);
                }
            }
            Lie::ClaimRecovery if line["subscribe"]["was_recovering"] == true && !is_recovery => {
                line["subscribe"]["recovered"] = json!(true);
            }
            Lie::DenyRecovery if is_recovery => {
                line["subscribe"]["recovered"] = json!(false);
                line["subscribe"]["publications"] = json!([]);
            }
            Lie::Misquote if is_delta => {
                let text = line["push"]["pub"]["data"]["text"].as_str().unwrap_or_default();
                line["push"]["pub"]["data"]["text"] = text.replace('e', "3").into();
            }
            Lie::Misaddress if is_publication => {
                let channel = line["push"]["channel"].clone();
                if !self.channels.contains(&channel) {
                    self.channels.push(channel.clone());
                }
                let other = self.channels.iter().find(|other| **other != channel).cloned();
                if let Some(other) = other.filter(|_| self.is_due()) {
                    line["push"]["channel"] = other;
                }
            }
            _ => {}
        }
        vec![line]
    }

    /// What becomes of a request: what goes on to the server, and what is answered in its place.
    fn request(&mut self, path: &str, body: &mut Value) -> Fate {
        match (self.lie, path) {
            (Lie::Acknowledge, "/api/publish") if self.acknowledged.is_some() && self.is_due() => {
                let (offset, epoch) = self.acknowledged.clone().unwrap_or_default();
                Fate::Answered(json!({ "result": { "offset": offset + 1, "epoch": epoch } }))
            }
            (Lie::ForgetKeys, "/api/publish") => {
                body["idempotency_key"] = json!(format!("other-{:x}", fastrand::u64(..)));
                if self.is_due() { Fate::NeverAnswered } else { Fate::GoesOn }
            }
            (Lie::CarryOutTwice, "/api/publish") if self.is_due() => {
                body["idempotency_key"] = json!(format!("other-{:x}", fastrand::u64(..)));
                Fate::Twice
            }
            (Lie::IgnoreOrders, "/api/unsubscribe" | "/api/disconnect") => Fate::Answered(json!({ "result": {} })),
            _ => Fate::GoesOn,
        }
    }

    fn answer(&mut self, answer: &mut Value) {
        let result = &mut answer["result"];
        if let (Some(offset), epoch @ Value::String(_)) = (result["offset"].as_u64(), result["epoch"].clone()) {
            self.acknowledged = Some((offset, epoch));
        }
        if self.lie == Lie::Haunt && result["presence"].is_object() {
            result["presence"]["a-ghost"] = json!({ "client": "a-ghost", "user": "nobody" });
        }
    }
}

enum Fate {
    GoesOn,
    Answered(Value),
    NeverAnswered,
    Twice,
}

/// What becomes of bytes.
#[derive(Debug, Default)]
pub struct Twisted {
    /// They go on.
    pub on: Vec<u8>,
    /// They go back to where the bytes came from.
    pub back: Vec<u8>,
    /// The connection ends here.
    pub ends: bool,
}

/// What both directions of a connection know of it.
#[derive(Debug, Default)]
struct Shared {
    is_post: bool,
    /// Answers that are thrown away; with the last, the connection ends.
    unanswered: u8,
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Twist {
    liar: Arc<Mutex<Liar>>,
    shared: Arc<Mutex<Shared>>,
    is_from_server: bool,
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The head is not whole.
    Head,
    /// WebSocket frames of the server.
    Frames { frames: FrameReader, held: Option<Value> },
    /// A request or an answer that is changed when it is whole.
    Body,
    /// Everything goes on as it is.
    Through,
}

impl Twist {
    /// For what the client says, and for what it hears.
    #[must_use]
    pub fn pair(liar: &Arc<Mutex<Liar>>) -> [Self; 2] {
        let shared = Arc::new(Mutex::new(Shared::default()));
        [false, true].map(|is_from_server| Self {
            liar: liar.clone(),
            shared: shared.clone(),
            is_from_server,
            bytes: Vec::new(),
            state: State::Head,
        })
    }

    /// Takes bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) -> Twisted {
        self.bytes.extend_from_slice(bytes);
        let mut twisted = Twisted::default();
        if matches!(self.state, State::Head) {
            self.begin(&mut twisted);
        }
        match &mut self.state {
            State::Head => {}
            State::Through => twisted.on.append(&mut self.bytes),
            State::Frames { frames, held } => {
                let bytes = std::mem::take(&mut self.bytes);
                let mut liar = self.liar.lock();
                let fed = frames.feed(&bytes, |frame| match frame.opcode {
                    frame::TEXT => lines(&mut liar, frame.payload, held, &mut twisted.on),
                    opcode => unmasked(opcode, frame.payload, &mut twisted.on),
                });
                twisted.ends = fed.is_err();
            }
            State::Body => self.body(&mut twisted),
        }
        twisted
    }

    /// Reads the head, and decides what this connection is.
    fn begin(&mut self, twisted: &mut Twisted) {
        let Ok(Some(head)) = http::head(&self.bytes) else { return };
        let is_api = self.bytes.starts_with(b"POST /api/");
        if !self.is_from_server && is_api {
            self.shared.lock().is_post = true;
        }
        self.state = if self.is_from_server && head.status == 101 {
            twisted.on.extend(self.bytes.drain(..head.bytes));
            State::Frames { frames: FrameReader::default(), held: None }
        } else if self.shared.lock().is_post && head.length.is_some() {
            State::Body
        } else {
            State::Through
        };
    }

    fn body(&mut self, twisted: &mut Twisted) {
        let Ok(Some(head)) = http::head(&self.bytes) else { return };
        let whole = head.bytes + head.length.unwrap_or(0);
        if self.bytes.len() < whole {
            return;
        }
        let text = String::from_utf8_lossy(&self.bytes[..head.bytes]).into_owned();
        let Ok(mut body) = serde_json::from_slice::<Value>(&self.bytes[head.bytes..whole]) else {
            twisted.on.append(&mut self.bytes);
            return;
        };
        self.bytes.drain(..whole);
        if self.is_from_server {
            let unanswered = std::mem::take(&mut self.shared.lock().unanswered);
            match unanswered {
                0 => {
                    self.liar.lock().answer(&mut body);
                    twisted.on.extend(message(&text, &body));
                }
                1 => twisted.ends = true,
                more => {
                    self.shared.lock().unanswered = more - 1;
                    self.body(twisted);
                }
            }
            return;
        }
        let path = text.split(' ').nth(1).unwrap_or_default();
        match self.liar.lock().request(path, &mut body) {
            Fate::GoesOn => twisted.on = message(&text, &body),
            Fate::Answered(answer) => twisted.back = message("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &answer),
            Fate::NeverAnswered => {
                self.shared.lock().unanswered = 1;
                twisted.on = message(&text, &body);
            }
            Fate::Twice => {
                self.shared.lock().unanswered = 2;
                let kept_open = text.replace("Connection: close", "Connection: keep-alive");
                twisted.on = message(&kept_open, &body);
                body["idempotency_key"] = json!(format!("other-{:x}", fastrand::u64(..)));
                twisted.on.extend(message(&text, &body));
            }
        }
    }
}

/// A message of HTTP with another body.
fn message(head: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let mut message = String::new();
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        if !line.to_ascii_lowercase().starts_with("content-length:") {
            message.push_str(line);
            message.push_str("\r\n");
        }
    }
    message.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    message.into_bytes()
}

fn lines(liar: &mut Liar, text: &[u8], held: &mut Option<Value>, out: &mut Vec<u8>) {
    let lines: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(text).into_iter().collect();
    let Ok(lines) = lines else { return unmasked(frame::TEXT, text, out) };
    let twisted: Vec<String> =
        lines.into_iter().flat_map(|line| liar.line(line, held)).map(|line| line.to_string()).collect();
    if !twisted.is_empty() {
        unmasked(frame::TEXT, twisted.join("\n").as_bytes(), out);
    }
}

/// A frame as a server writes it.
fn unmasked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => out.push(u8::try_from(length).unwrap_or(125)),
        Ok(length) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64) -> Value {
        json!({ "push": { "channel": "a:1", "pub": { "data": { "n": offset }, "offset": offset } } })
    }

    /// What a client sees of thirty publications.
    fn seen(lie: Lie) -> Vec<u64> {
        let [_, mut twist] = Twist::pair(&Arc::new(Mutex::new(Liar::new(lie))));
        let head = twist.feed(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert_eq!(head.on, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        let mut seen = Vec::new();
        for offset in 1..=30 {
            let mut frame = Vec::new();
            unmasked(frame::TEXT, publication(offset).to_string().as_bytes(), &mut frame);
            let mut twisted = twist.feed(&frame[..3]).on;
            twisted.extend(twist.feed(&frame[3..]).on);
            let fed = FrameReader::default().feed(&twisted, |frame| {
                for line in serde_json::Deserializer::from_slice(frame.payload).into_iter::<Value>() {
                    seen.push(line.expect("JSON")["push"]["pub"]["offset"].as_u64().expect("an offset"));
                }
            });
            fed.expect("frames");
        }
        seen
    }

    #[test]
    fn publications_are_swallowed_doubled_and_swapped() {
        let all: Vec<u64> = (1..=30).collect();
        assert_eq!(seen(Lie::Haunt), all, "no occasion");
        assert_eq!(seen(Lie::Swallow), [&all[..14], &all[15..29]].concat());
        assert_eq!(seen(Lie::Double), [&all[..15], &all[14..30], &[30]].concat());
        assert_eq!(seen(Lie::Swap)[13..16], [14, 16, 15]);
    }

    #[test]
    fn requests_and_answers_are_changed_as_a_whole() {
        let liar = Arc::new(Mutex::new(Liar::new(Lie::IgnoreOrders)));
        let [mut said, _] = Twist::pair(&liar);
        let request = b"POST /api/unsubscribe HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(said.feed(&request[..20]).back, b"");
        let twisted = said.feed(&request[20..]);
        assert!(twisted.on.is_empty() && twisted.back.ends_with(br#"{"result":{}}"#));
        let [mut said, _] = Twist::pair(&liar);
        let request = b"POST /api/publish HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"a\": 1 }";
        let on = String::from_utf8(said.feed(request).on).expect("text");
        assert_eq!(on, "POST /api/publish HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    }
}
