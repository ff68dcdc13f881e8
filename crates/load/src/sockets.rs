//! Every connection of a run and the one loop that serves them: readiness in, checked deliveries out. One thread, one poll,
//! one buffer for all reading.
//!
//! A reader that waits keeps no buffer. Readiness is edge-triggered, and a read that does not fill the buffer has emptied
//! the socket, so that a delivery costs one wait (shared by many) and one read.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::client::{self, Handshake, Line};
use crate::error::LoadError;
use crate::frame::{self, Frame, FrameReader};
use crate::latency::Latencies;
use crate::ledger::{Found, Ledger, Wrong};

/// Bytes read at once.
const BUFFER_BYTES: usize = 262_144;

/// Events taken at once.
const EVENTS_MAX: usize = 1_024;

/// How long the loop sleeps at most before it looks at its deadlines.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The frame that the bare baseline server greets with: an empty pong.
pub const GREETING: [u8; 2] = [0x80 | frame::PONG, 0];

/// What is spoken on the sockets. Others will stand beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The native protocol in JSON over WebSocket.
    WebSocketJson,
    /// Frames and nothing else, from the baseline server.
    Bare,
}

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub server: SocketAddr,
    /// What it speaks.
    pub transport: Transport,
    /// Shown in `connect`.
    pub token: Option<String>,
    /// Shown with `POST /api/publish`.
    pub api_key: Option<String>,
    /// How many loopback addresses connections come from, from 127.0.0.2 up.
    pub sources: u8,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Subscribes to the channel of a ledger, by index; may publish too.
    Reader {
        /// Which.
        ledger: usize,
    },
    /// Publishes over the native protocol.
    Speaker,
    /// Publishes by `POST /api/publish`.
    Api,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Shaking,
    Connecting,
    Subscribing,
    Ready,
    Closing,
    Gone,
}

#[derive(Debug)]
struct Peer {
    socket: Option<TcpStream>,
    role: Role,
    phase: Phase,
    /// The number of the publication that is due.
    next: u64,
    frames: FrameReader,
    handshake: Option<Box<Handshake>>,
    /// Text that is not whole yet: of the handshake, or of an HTTP answer.
    head: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// Publications that are not acknowledged.
    unacknowledged: u32,
    id: u32,
}

/// All connections of a run.
#[derive(Debug)]
pub struct Sockets {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    target: Target,
    limits: Patience,
    peers: Vec<Peer>,
    ready: usize,
    gone: usize,
    progress_at: Instant,
    failure: Option<LoadError>,
    wrong: u64,
    first_wrong: String,
    /// The channels.
    pub ledgers: Vec<Ledger>,
    /// From publishing to receiving.
    pub latencies: Latencies,
    /// Publications that were received and right.
    pub deliveries: u64,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The end of the run whatever happens.
    pub deadline: Instant,
    /// The run's whole time, for people.
    pub deadline_s: u64,
    /// The longest time in which nothing that is waited for comes.
    pub stall: Duration,
}

impl Sockets {
    /// No connections yet.
    ///
    /// # Errors
    /// If the system gives no poll.
    pub fn new(target: Target, limits: Patience, ledgers: Vec<Ledger>) -> Result<Self, LoadError> {
        Ok(Self {
            poll: Poll::new().map_err(LoadError::io("creating a poll"))?,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES],
            target,
            limits,
            peers: Vec::new(),
            ready: 0,
            gone: 0,
            progress_at: Instant::now(),
            failure: None,
            wrong: 0,
            first_wrong: String::new(),
            ledgers,
            latencies: Latencies::default(),
            deliveries: 0,
        })
    }

    /// Opens connections until all of them are ready, so many at once. Gives the index of the first.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(&mut self, roles: &[Role], at_once: usize) -> Result<usize, LoadError> {
        let first = self.peers.len();
        let before = self.ready;
        for (opened, role) in roles.iter().enumerate() {
            if opened >= at_once {
                let wanted = before + opened + 1 - at_once;
                self.wait("a connection to become ready", |sockets| sockets.ready >= wanted)?;
            }
            self.begin(*role)?;
        }
        let wanted = before + roles.len();
        self.wait("the last connections to become ready", |sockets| sockets.ready >= wanted)?;
        Ok(first)
    }

    fn begin(&mut self, role: Role) -> Result<(), LoadError> {
        let index = self.peers.len();
        let socket = dial(&self.target, index).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest)?;
            Ok(socket)
        });
        self.peers.push(Peer {
            socket: Some(socket.map_err(LoadError::io("opening a connection"))?),
            role,
            phase: Phase::Opening,
            next: 0,
            frames: FrameReader::default(),
            handshake: None,
            head: Vec::new(),
            out: Vec::new(),
            unacknowledged: 0,
            id: 0,
        });
        Ok(())
    }

    /// Says goodbye on every connection and waits until the server has closed them all.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn close(&mut self) -> Result<(), LoadError> {
        for index in 0..self.peers.len() {
            if self.target.transport == Transport::Bare || self.peers[index].role == Role::Api {
                self.drop_socket(index);
            } else if self.peers[index].phase != Phase::Gone {
                self.peers[index].phase = Phase::Closing;
                self.send_frame(index, frame::CLOSE, &1_000_u16.to_be_bytes());
            }
        }
        let all = self.peers.len();
        self.wait("the server to close connections", |sockets| sockets.gone >= all)?;
        self.peers.clear();
        (self.ready, self.gone) = (0, 0);
        Ok(())
    }

    /// Publications of all connections that are not acknowledged yet.
    #[must_use]
    pub fn unacknowledged(&self, index: usize) -> u32 {
        self.peers[index].unacknowledged
    }

    /// Whether every publication so far has reached every reader.
    #[must_use]
    pub fn all_delivered(&self) -> bool {
        self.ledgers.iter().all(|ledger| ledger.waiting() == 0)
    }

    /// Serves the sockets until `done` says so.
    ///
    /// # Errors
    /// [`LoadError`]: also when nothing comes for too long.
    pub fn wait(&mut self, waiting_for: &str, done: impl Fn(&Self) -> bool) -> Result<(), LoadError> {
        self.progress_at = Instant::now();
        while !done(self) {
            self.turn(None)?;
            if self.progress_at.elapsed() > self.limits.stall {
                return Err(LoadError::Stalled {
                    waited_s: self.limits.stall.as_secs(),
                    waiting_for: waiting_for.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Serves the sockets once: what is there now, or comes until `until`.
    ///
    /// # Errors
    /// What went wrong at any connection.
    pub fn turn(&mut self, until: Option<Instant>) -> Result<(), LoadError> {
        let now = Instant::now();
        if now >= self.limits.deadline {
            return Err(LoadError::Deadline(self.limits.deadline_s));
        }
        let sleep = until.map_or(SLEEP_MAX, |until| until.saturating_duration_since(now).min(SLEEP_MAX));
        match self.poll.poll(&mut self.events, Some(sleep)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(LoadError::Io { doing: "waiting for sockets", error });
            }
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut buffer = std::mem::take(&mut self.buffer);
        for event in &events {
            let Token(index) = event.token();
            if event.is_writable() {
                self.writable(index);
            }
            if event.is_readable() {
                self.readable(index, event.is_read_closed() || event.is_error(), &mut buffer);
            }
        }
        self.events = events;
        self.buffer = buffer;
        if self.wrong > 0 {
            return Err(LoadError::Wrong { count: self.wrong, first: self.first_wrong.clone() });
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Publishes the next `count` publications of a channel over one connection, in as few writes as the server takes.
    pub fn publish(&mut self, index: usize, ledger: usize, count: u32) {
        /// Well below what servers take as one frame.
        const FRAME_BYTES: usize = 32_768;
        let is_api = self.peers[index].role == Role::Api;
        let mut text = Vec::new();
        for left in (0..count).rev() {
            let peer = &mut self.peers[index];
            peer.id += 1;
            peer.unacknowledged += 1;
            let id = peer.id;
            let now = Instant::now();
            let channel = self.ledgers[ledger].channel().to_owned();
            let data = self.ledgers[ledger].publish(now);
            if is_api {
                post(&self.target, &channel, data, &mut text);
            } else {
                client::publish(id, &channel, data, &mut text);
                if left > 0 && text.len() < FRAME_BYTES {
                    text.push(b'\n');
                    continue;
                }
                self.send_frame(index, frame::TEXT, &text);
                text.clear();
            }
        }
        if is_api {
            self.send(index, &text);
        }
    }

    fn writable(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match peer.phase {
            Phase::Opening => self.opened(index),
            Phase::Gone => {}
            _ if peer.out.is_empty() => {}
            _ => {
                let out = std::mem::take(&mut peer.out);
                self.send(index, &out);
            }
        }
    }

    fn opened(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(socket) = &peer.socket else { return };
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(LoadError::Io { doing: "connecting", error }),
        }
        if socket.peer_addr().is_err() {
            return;
        }
        if peer.role == Role::Api {
            return self.became_ready(index);
        }
        if self.target.transport == Transport::Bare {
            peer.phase = Phase::Connecting;
            return;
        }
        let handshake = Handshake::default();
        let request = handshake.request(self.target.server);
        peer.handshake = Some(Box::new(handshake));
        peer.phase = Phase::Shaking;
        self.send(index, &request);
    }

    fn readable(&mut self, index: usize, ends: bool, buffer: &mut [u8]) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else { return };
            let Some(socket) = &mut peer.socket else { return };
            match socket.read(buffer) {
                Ok(0) => return self.ended(index),
                Ok(n) => {
                    self.take_in(index, &buffer[..n]);
                    if n < buffer.len() && !ends {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if peer.phase != Phase::Closing {
                        self.fail(LoadError::Io { doing: "reading", error });
                    }
                    return self.drop_socket(index);
                }
            }
        }
    }

    fn ended(&mut self, index: usize) {
        if self.peers[index].phase != Phase::Closing {
            self.fail(LoadError::Refused("a connection was closed without a word".to_owned()));
        }
        self.drop_socket(index);
    }

    fn drop_socket(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if let Some(mut socket) = peer.socket.take() {
            // The descriptor is closed next, which ends its registration in any case.
            let _ = self.poll.registry().deregister(&mut socket);
            peer.phase = Phase::Gone;
            self.gone += 1;
            self.progress_at = Instant::now();
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let now = Instant::now();
        let peer = &mut self.peers[index];
        if peer.role == Role::Api {
            return self.take_http(index, bytes);
        }
        let Some(handshake) = &peer.handshake else { return self.take_frames(index, bytes, now) };
        peer.head.extend_from_slice(bytes);
        match handshake.answer(&peer.head) {
            Ok(None) => {}
            Ok(Some(used)) => {
                let head = std::mem::take(&mut peer.head);
                peer.handshake = None;
                peer.phase = Phase::Connecting;
                let connect = client::connect(1, self.target.token.as_deref());
                self.send_frame(index, frame::TEXT, connect.as_bytes());
                self.take_frames(index, &head[used..], now);
            }
            Err(said) => self.fail(LoadError::Refused(said)),
        }
    }

    fn take_frames(&mut self, index: usize, bytes: &[u8], now: Instant) {
        let mut frames = std::mem::take(&mut self.peers[index].frames);
        if let Err(error) = frames.feed(bytes, |frame| self.take_frame(index, frame, now)) {
            self.fail(LoadError::Refused(error.to_string()));
        }
        self.peers[index].frames = frames;
    }

    /// The hot path: nearly every frame is the publication that is due, as another reader has it already.
    fn take_frame(&mut self, index: usize, frame: Frame<'_>, now: Instant) {
        let peer = &mut self.peers[index];
        match frame.opcode {
            frame::TEXT => {
                if let Role::Reader { ledger } = peer.role
                    && let Some(at) = self.ledgers[ledger].take_known(&mut peer.next, frame.payload)
                {
                    return self.delivered(at, now);
                }
                self.take_lines(index, frame.payload, now);
            }
            frame::PING => self.send_frame(index, frame::PONG, frame.payload),
            frame::PONG if peer.phase == Phase::Connecting && self.target.transport == Transport::Bare => {
                self.became_ready(index);
            }
            frame::CLOSE if peer.phase != Phase::Closing => {
                let (code, reason) = client::closed(frame.payload);
                self.fail(LoadError::Refused(format!("a connection was closed with {code} {reason}")));
            }
            _ => {}
        }
    }

    fn delivered(&mut self, published: Instant, now: Instant) {
        self.deliveries += 1;
        self.latencies.add(now.saturating_duration_since(published));
        self.progress_at = now;
    }

    fn take_lines(&mut self, index: usize, text: &[u8], now: Instant) {
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        let mut is_first = true;
        while let Some(line) = lines.next() {
            // Only a message with nothing else in it can be compared as a whole.
            let alone = is_first && lines.peek().is_none();
            is_first = false;
            match serde_json::from_slice::<Line<'_>>(line) {
                Ok(read) if read.is_ping() => self.send_frame(index, frame::TEXT, b"{}"),
                Ok(read) => self.take_line(index, &read, alone.then_some(text), now),
                Err(error) => self.fail(LoadError::Refused(format!("a line that is not as expected: {error}"))),
            }
        }
    }

    fn take_line(&mut self, index: usize, line: &Line<'_>, message: Option<&[u8]>, now: Instant) {
        let peer = &mut self.peers[index];
        if let Some(refusal) = &line.error {
            return self.fail(LoadError::Refused(format!("a command: {} {}", refusal.code, refusal.message)));
        }
        if let Some(push) = &line.push {
            if let Some(end) = &push.unsubscribe {
                return self.fail(LoadError::Refused(format!("a subscription ended: {} {}", end.code, end.message)));
            }
            let (Some(publication), Role::Reader { ledger }) = (&push.publication, peer.role) else { return };
            let data = publication.data.get().as_bytes();
            let found = Found { channel: &push.channel, data, offset: publication.offset };
            return match self.ledgers[ledger].take(&mut peer.next, found, message) {
                Ok(published) => self.delivered(published, now),
                Err(wrong) => self.note(index, &wrong),
            };
        }
        if line.publish.is_some() {
            peer.unacknowledged = peer.unacknowledged.saturating_sub(1);
            self.progress_at = now;
        } else if line.connect.is_some() {
            match peer.role {
                Role::Reader { ledger } => {
                    peer.phase = Phase::Subscribing;
                    peer.id = 2;
                    let subscribe = client::subscribe(2, self.ledgers[ledger].channel());
                    self.send_frame(index, frame::TEXT, subscribe.as_bytes());
                }
                Role::Speaker | Role::Api => {
                    peer.id = 1;
                    self.became_ready(index);
                }
            }
        } else if line.subscribe.is_some() {
            self.became_ready(index);
        }
    }

    fn take_http(&mut self, index: usize, bytes: &[u8]) {
        let peer = &mut self.peers[index];
        peer.head.extend_from_slice(bytes);
        while let Some((status, used)) = http_answer(&peer.head) {
            if status != 200 {
                let said = String::from_utf8_lossy(&peer.head).into_owned();
                return self.fail(LoadError::Refused(format!("POST /api/publish: {said}")));
            }
            peer.head.drain(..used);
            peer.unacknowledged = peer.unacknowledged.saturating_sub(1);
            self.progress_at = Instant::now();
        }
    }

    fn became_ready(&mut self, index: usize) {
        self.peers[index].phase = Phase::Ready;
        self.ready += 1;
        self.progress_at = Instant::now();
    }

    fn note(&mut self, index: usize, wrong: &Wrong) {
        if self.wrong == 0 {
            self.first_wrong = format!("connection {index}: {wrong}");
        }
        self.wrong += 1;
    }

    /// The first failure is the one that is told.
    fn fail(&mut self, failure: LoadError) {
        self.failure.get_or_insert(failure);
    }

    fn send_frame(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(opcode, payload, fastrand::u32(..).to_be_bytes(), &mut bytes);
        self.send(index, &bytes);
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let peer = &mut self.peers[index];
        let Some(socket) = &mut peer.socket else { return };
        let mut rest = bytes;
        while peer.out.is_empty() && !rest.is_empty() {
            match socket.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if peer.phase != Phase::Closing {
                        self.fail(LoadError::Io { doing: "writing", error });
                    }
                    return self.drop_socket(index);
                }
            }
        }
        peer.out.extend_from_slice(rest);
    }
}

/// Begins to connect, from one of the loopback addresses if the server is on loopback.
fn dial(target: &Target, index: usize) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(target.server);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let IpAddr::V4(address) = target.server.ip()
        && address.is_loopback()
        && target.sources > 0
    {
        let last = 2 + u8::try_from(index % usize::from(target.sources)).unwrap_or(0);
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    match socket.connect(&target.server.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

fn post(target: &Target, channel: &str, data: &[u8], into: &mut Vec<u8>) {
    let channel = serde_json::Value::from(channel).to_string();
    let key = target.api_key.as_deref().unwrap_or_default();
    let length = channel.len() + data.len() + r#"{"channel":,"data":}"#.len();
    write!(
        into,
        "POST /api/publish HTTP/1.1\r\nHost: {}\r\nX-API-Key: {key}\r\nX-Centrifugo-Error-Mode: transport\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{{\"channel\":{channel},\"data\":",
        target.server
    )
    .expect("a Vec takes every byte");
    into.extend_from_slice(data);
    into.push(b'}');
}

/// Status and length of the first HTTP answer, if it is whole.
fn http_answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = end + length.unwrap_or(0);
    (bytes.len() >= whole).then_some((status, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_answers_are_told_apart() {
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 429 Too Many\r\n\r\n";
        assert_eq!(http_answer(answers), Some((200, 40)));
        assert_eq!(http_answer(&answers[..39]), None);
        assert_eq!(http_answer(&answers[40..]), Some((429, 25)));
    }

    #[test]
    fn a_post_states_its_length() {
        let server = SocketAddr::from(([127, 0, 0, 1], 8000));
        let api_key = Some("k".to_owned());
        let target = Target { server, transport: Transport::WebSocketJson, token: None, api_key, sources: 1 };
        let mut request = Vec::new();
        post(&target, "load:a", b"{\"n\":1}", &mut request);
        let request = String::from_utf8(request).expect("text");
        let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(body, r#"{"channel":"load:a","data":{"n":1}}"#);
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
