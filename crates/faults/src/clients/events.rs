//! Readers without a protocol: a stream of plain events, and long polls. Both keep only what the server gave them, an id or a
//! cursor, and show it when they come back.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, Way, World, pause};
use crate::http::{self, Chunks, Trouble};
use crate::log::{Name, Position, Told, What};
use crate::payload;

/// Silence after which a stream counts as dead: the stage's servers comment more often.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(6);

/// How long a poll waits for news, in seconds.
const POLL_WAIT_S: u32 = 1;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// `GET /events`.
    Events,
    /// `GET /poll`.
    Polls,
}

/// Who reads what.
#[derive(Debug, Clone)]
pub struct PlainReader {
    /// Of this reader alone.
    pub number: u32,
    /// In which way.
    pub plain: Plain,
    /// All of them in one stream.
    pub channels: Vec<Name>,
    /// Says who it is.
    pub token: String,
    /// Through proxies or not.
    pub way: Way,
    /// For everything that is random about it.
    pub seed: u64,
}

struct Reading<'a> {
    reader: PlainReader,
    world: &'a World,
    rng: fastrand::Rng,
    stands: BTreeMap<Name, Position>,
    /// Where the last loss that was told ends: a gap event says the same again.
    lost: BTreeMap<Name, Position>,
    /// The id of the last event, or the cursor.
    given: Option<String>,
}

impl PlainReader {
    /// Reads until everything is over.
    pub fn run(self, world: &Arc<World>) {
        let (number, channels, plain) = (self.number, self.channels.clone(), self.plain);
        let wire = format!("{plain:?}").to_lowercase();
        world.log.say(What::Reader { reader: number, wire, channels });
        let rng = fastrand::Rng::with_seed(self.seed);
        let mut reading =
            Reading { reader: self, world, rng, stands: BTreeMap::new(), lost: BTreeMap::new(), given: None };
        while !world.is_over() {
            let nowhere = || Trouble::NotSent("no node listens yet".to_owned());
            let ended =
                world.pick(&mut reading.rng, reading.reader.way).ok_or_else(nowhere).and_then(|(node, address)| {
                    match plain {
                        Plain::Events => reading.stream(&node, address),
                        Plain::Polls => reading.poll(&node, address),
                    }
                });
            world.roster.lock().retain(|(reader, _), _| *reader != number);
            if let Err(trouble) = ended {
                world.log.say(What::Broke { reader: number, why: trouble.to_string() });
                pause(&mut reading.rng);
            }
        }
    }
}

impl Reading<'_> {
    fn stream(&mut self, node: &Name, address: SocketAddr) -> Result<(), Trouble> {
        let mut path = "/events?envelope=1".to_owned();
        for channel in &self.reader.channels {
            path.push_str(&format!("&channel={}", http::escaped(channel)));
        }
        let last = self.given.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let token = &self.reader.token;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n{last}\r\n"
        );
        let mut socket = http::dial(address, PATIENCE)?;
        let unknown = |error: std::io::Error| Trouble::Unknown(error.to_string());
        socket.write_all(request.as_bytes()).map_err(unknown)?;
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        let mut chunks = None;
        let mut heard = Instant::now();
        while !self.world.is_over() {
            match http::read_some(&mut socket, &mut bytes).map_err(unknown)? {
                Some(0) => return Err(Trouble::Unknown("the stream was cut off".to_owned())),
                Some(_) => heard = Instant::now(),
                None if heard.elapsed() > STREAM_SILENCE_MAX => {
                    return Err(Trouble::Unknown("silence, without comments".to_owned()));
                }
                None => continue,
            }
            if chunks.is_none() {
                let Some(head) = http::head(&bytes)? else { continue };
                if head.status != 200 {
                    return Err(Trouble::refusal(u64::from(head.status), &String::from_utf8_lossy(&bytes)));
                }
                bytes.drain(..head.bytes);
                chunks = Some(head.is_chunked.then(Chunks::default));
            }
            match &mut chunks {
                Some(Some(chunks)) => chunks.feed(&std::mem::take(&mut bytes), &mut text).map_err(Trouble::Unknown)?,
                _ => text.append(&mut bytes),
            }
            while let Some(end) = text.windows(2).position(|window| window == b"\n\n") {
                let block: Vec<u8> = text.drain(..end + 2).collect();
                self.block(node, &String::from_utf8_lossy(&block))?;
            }
        }
        Ok(())
    }

    fn block(&mut self, node: &Name, block: &str) -> Result<(), Trouble> {
        let (mut id, mut name, mut data) = (None, "", String::new());
        for line in block.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => id = Some(value.to_owned()),
                ("event", value) => name = value,
                ("data", value) => data.push_str(value),
                _ => {}
            }
        }
        if id.is_some() {
            self.given = id;
        }
        if data.is_empty() {
            return Ok(());
        }
        let data: Value = serde_json::from_str(&data).map_err(|_| Trouble::Unknown(format!("no JSON: {data}")))?;
        match name {
            "connected" => {
                self.begins(node, &data["channels"]);
                if let Some(client) = data["client"].as_str() {
                    let mut roster = self.world.roster.lock();
                    let here = self.reader.channels.iter().map(|channel| (self.reader.number, channel.clone()));
                    roster.extend(here.map(|place| (place, client.into())));
                }
            }
            "gap" => self.gap(&data),
            "disconnect" | "error" => return Err(Trouble::Unknown(format!("told to leave: {data}"))),
            "channel" | "reply" => {}
            _ => self.event(&data),
        }
        Ok(())
    }

    fn poll(&mut self, node: &Name, address: SocketAddr) -> Result<(), Trouble> {
        let mut path = format!("/poll?wait={POLL_WAIT_S}");
        match &self.given {
            Some(cursor) => path.push_str(&format!("&cursor={}", http::escaped(cursor))),
            None => {
                for channel in &self.reader.channels {
                    path.push_str(&format!("&channel={}", http::escaped(channel)));
                }
            }
        }
        let token = &self.reader.token;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let patience = PATIENCE + Duration::from_secs(u64::from(POLL_WAIT_S));
        let answer = http::exchange(address, request.as_bytes(), patience)?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        let body: Value = serde_json::from_slice(&answer.body).map_err(|_| Trouble::Unknown(text()))?;
        let Some(cursor) = body["cursor"].as_str().filter(|_| answer.status == 200) else {
            return Err(Trouble::refusal(u64::from(answer.status), &text()));
        };
        if body["refused"].as_array().is_some_and(|refused| !refused.is_empty()) {
            return Err(Trouble::Unknown(format!("channels are refused: {}", body["refused"])));
        }
        self.begins(node, &body["channels"]);
        for gap in body["gaps"].as_array().into_iter().flatten() {
            self.gap(gap);
        }
        for event in body["events"].as_array().into_iter().flatten() {
            self.event(event);
        }
        // Only now: whoever falls in the midst of an answer asks for it again.
        self.given = Some(cursor.to_owned());
        Ok(())
    }

    /// Where channels begin, and whether what was missed follows.
    fn begins(&mut self, node: &Name, channels: &Value) {
        for (channel, beginning) in channels.as_object().into_iter().flatten() {
            let channel: Name = channel.as_str().into();
            let epoch: Name = beginning["epoch"].as_str().unwrap_or_default().into();
            let top = Position { epoch, offset: beginning["offset"].as_u64().unwrap_or(0) };
            let from = self.stands.get(&channel).cloned();
            let told = match (&from, beginning["recovered"].as_bool()) {
                (None, _) => Told::Fresh,
                (Some(_), Some(true)) => Told::Recovered,
                (Some(_), _) => Told::Lost,
            };
            let stand = match (told, &from) {
                (Told::Recovered, Some(from)) => Position { epoch: top.epoch.clone(), offset: from.offset },
                _ => top.clone(),
            };
            if told == Told::Lost {
                self.lost.insert(channel.clone(), top.clone());
            }
            self.stands.insert(channel.clone(), stand);
            let (reader, node) = (self.reader.number, node.clone());
            self.world.log.say(What::Subscribed { reader, channel, node, from, told, top });
        }
    }

    fn gap(&mut self, gap: &Value) {
        let channel: Name = gap["channel"].as_str().unwrap_or_default().into();
        let epoch: Name = gap["epoch"].as_str().unwrap_or_default().into();
        let position = Position { epoch, offset: gap["offset"].as_u64().unwrap_or(0) };
        if self.lost.remove(&channel).as_ref() == Some(&position) {
            return;
        }
        self.stands.insert(channel.clone(), position.clone());
        self.world.log.say(What::Gap { reader: self.reader.number, channel, position });
    }

    fn event(&mut self, envelope: &Value) {
        let channel: Name = envelope["channel"].as_str().unwrap_or_default().into();
        let offset = envelope["offset"].as_u64().unwrap_or(0);
        let stand = self.stands.entry(channel.clone()).or_insert(Position { epoch: "?".into(), offset: 0 });
        stand.offset = stand.offset.max(offset);
        let position = Position { epoch: stand.epoch.clone(), offset };
        let content = payload::content(&envelope["data"]);
        self.world.log.say(What::Delivered { reader: self.reader.number, channel, position, content });
    }
}
