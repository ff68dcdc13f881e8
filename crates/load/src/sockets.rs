//! Every connection of a run and the one loop that serves them: readiness in, checked deliveries out. One thread, one poll,
//! one buffer for all reading. Used by the scenarios.
//!
//! A reader that waits keeps no buffer. Readiness is edge-triggered, and a read that does not fill the buffer has emptied
//! the socket, so that a delivery costs one wait (shared by many) and one read.
//!
//! What a connection says and hears is each transport's own: [`websocket`] and [`streams`], both of which carry the native protocol
//! ([`native`]), plain events in [`streams`] too, [`polls`], and posts ([`posts`]).

mod http;
mod native;
mod polls;
mod posts;
pub mod returning;
mod streams;
mod target;
mod websocket;

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

pub use self::target::{Patience, Role, Target, Transport};

use self::http::Pieces;
use self::returning::Returning;
use crate::client::Handshake;
use crate::error::LoadError;
use crate::frame::{self, FrameReader};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TCP is being connected.
    Opening,
    /// The first words are said.
    Connecting,
    Subscribing,
    Ready,
    Closing,
    /// Broken, and to come back.
    Away,
    Gone,
}

/// How what comes in is read.
#[derive(Debug)]
enum Input {
    Nothing,
    Handshake {
        handshake: Box<Handshake>,
        head: Vec<u8>,
    },
    Frames(FrameReader),
    /// The head of a stream.
    Head(Vec<u8>),
    /// A stream behind its head.
    Pieces(Pieces),
    /// One whole answer after the other.
    Answers(Vec<u8>),
}

#[derive(Debug)]
struct Peer {
    socket: Option<TcpStream>,
    role: Role,
    /// Which loopback address it comes from.
    source: u8,
    phase: Phase,
    /// The number of the publication that is due.
    next: u64,
    /// The offset at which it was subscribed first.
    began_at: Option<u64>,
    /// The server told of a gap since the last publication.
    gap_told: bool,
    input: Input,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// What the server gave to be shown again: a poll's cursor, or the members that name an emulated session.
    given: Option<Box<str>>,
    /// A request that is said again after a break, until it is answered.
    request: Option<Box<[u8]>>,
    /// Publications that are not acknowledged.
    unacknowledged: u32,
    id: u32,
    /// Breaks in a row.
    attempts: u32,
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
    /// Who posts for the connections of each source.
    posters: Vec<Option<usize>>,
    ready: usize,
    gone: usize,
    progress_at: Instant,
    failure: Option<LoadError>,
    wrong: u64,
    first_wrong: String,
    /// Whether, and how, connections come back; without it a broken one ends the run.
    pub returning: Option<Returning>,
    /// The channels.
    pub ledgers: Vec<Ledger>,
    /// From publishing to receiving.
    pub latencies: Latencies,
    /// Publications that were received and right.
    pub deliveries: u64,
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
            posters: vec![None; usize::from(target.sources.max(1))],
            target,
            limits,
            peers: Vec::new(),
            ready: 0,
            gone: 0,
            progress_at: Instant::now(),
            failure: None,
            wrong: 0,
            first_wrong: String::new(),
            returning: None,
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
            let source = self.peers.len() % self.posters.len();
            self.begin(*role, source);
        }
        let wanted = before + roles.len();
        self.wait("the last connections to become ready", |sockets| sockets.ready >= wanted)?;
        Ok(first)
    }

    fn begin(&mut self, role: Role, source: usize) -> usize {
        let index = self.peers.len();
        self.peers.push(Peer {
            socket: None,
            role,
            source: u8::try_from(source).unwrap_or(0),
            phase: Phase::Opening,
            next: 0,
            began_at: None,
            gap_told: false,
            input: Input::Nothing,
            out: Vec::new(),
            given: None,
            request: None,
            unacknowledged: 0,
            id: 0,
            attempts: 0,
        });
        self.dial(index);
        index
    }

    fn dial(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.phase = Phase::Opening;
        peer.input = Input::Nothing;
        peer.out.clear();
        let socket = target::dial(&self.target, peer.role, peer.source).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => peer.socket = Some(socket),
            Err(error) => self.broken(index, LoadError::Io { doing: "opening a connection", error }),
        }
    }

    /// Says goodbye on every connection and waits until the server has closed them all.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn close(&mut self) -> Result<(), LoadError> {
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            let is_ours = matches!(peer.role, Role::Api | Role::Poster) || self.target.transport == Transport::Bare;
            match peer.phase {
                Phase::Gone => continue,
                Phase::Away => {
                    peer.phase = Phase::Gone;
                    self.gone += 1;
                    continue;
                }
                _ => {}
            }
            if is_ours {
                self.drop_socket(index);
                continue;
            }
            peer.phase = Phase::Closing;
            if self.spoken_by(index) == Transport::WebSocketJson {
                self.send_frame(index, frame::CLOSE, &1_000_u16.to_be_bytes());
            } else if let Some(socket) = &self.peers[index].socket {
                // A server that has gone already has closed it, too.
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        let all = self.peers.len();
        self.wait("the server to close connections", |sockets| sockets.gone >= all)?;
        self.peers.clear();
        self.posters.fill(None);
        (self.ready, self.gone) = (0, 0);
        Ok(())
    }

    /// From now on whoever connects, or comes back, goes there.
    pub fn move_to(&mut self, server: std::net::SocketAddr) {
        self.target.server = server;
    }

    /// What is spoken on a connection.
    fn spoken_by(&self, index: usize) -> Transport {
        match (self.peers[index].role, self.target.transport) {
            (Role::Reader { .. }, transport) | (_, transport @ Transport::Bare) => transport,
            _ => Transport::WebSocketJson,
        }
    }

    /// Connections that are ready, those who publish with them.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Publications of a connection that are not acknowledged yet.
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
        let sleep = self.come_back(now).map_or(sleep, |next| sleep.min(next));
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
        if self.wrong > 0 && self.returning.is_none() {
            return Err(LoadError::Wrong { count: self.wrong, first: self.first_wrong.clone() });
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn writable(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match peer.phase {
            Phase::Opening => self.opened(index),
            Phase::Gone | Phase::Away => {}
            _ if peer.out.is_empty() => {}
            _ => {
                let out = std::mem::take(&mut peer.out);
                self.send(index, &out);
            }
        }
    }

    /// TCP is connected: the first words.
    fn opened(&mut self, index: usize) {
        let Some(socket) = &self.peers[index].socket else { return };
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                return self.broken(index, LoadError::Io { doing: "connecting", error });
            }
        }
        if socket.peer_addr().is_err() {
            return;
        }
        self.peers[index].phase = Phase::Connecting;
        match (self.peers[index].role, self.spoken_by(index)) {
            (Role::Api | Role::Poster, _) => self.begin_posting(index),
            (_, Transport::Bare) => self.peers[index].input = Input::Frames(FrameReader::default()),
            (_, Transport::WebSocketJson) => self.begin_websocket(index),
            (_, Transport::HttpStream) => self.begin_http_stream(index),
            (_, Transport::EventStream) => self.begin_event_stream(index),
            (_, Transport::Events) => self.begin_events(index),
            (_, Transport::Poll) => {
                self.peers[index].input = Input::Answers(Vec::new());
                self.ask(index);
            }
        }
    }

    fn readable(&mut self, index: usize, ends: bool, buffer: &mut [u8]) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else { return };
            let Some(socket) = &mut peer.socket else { return };
            match socket.read(buffer) {
                Ok(0) => {
                    let failure = LoadError::Refused("a connection was closed without a word".to_owned());
                    return self.broken(index, failure);
                }
                Ok(n) => {
                    self.take_in(index, &buffer[..n]);
                    if n < buffer.len() && !ends {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(index, LoadError::Io { doing: "reading", error }),
            }
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let now = Instant::now();
        match std::mem::replace(&mut self.peers[index].input, Input::Nothing) {
            Input::Nothing => {}
            Input::Handshake { handshake, head } => self.take_handshake(index, handshake, head, bytes, now),
            Input::Frames(frames) => self.take_frames(index, frames, bytes, now),
            Input::Head(head) => self.take_stream_head(index, head, bytes, now),
            Input::Pieces(pieces) => self.take_pieces(index, pieces, bytes, now),
            Input::Answers(rest) => self.take_answers(index, rest, bytes, now),
        }
    }

    /// Puts the reader of a connection back, unless the connection broke over what it read.
    fn read_on(&mut self, index: usize, input: Input) {
        if self.peers[index].socket.is_some() {
            self.peers[index].input = input;
        }
    }

    /// A connection has ended or makes no sense any more. The first such failure is the one that is told.
    fn broken(&mut self, index: usize, failure: LoadError) {
        let peer = &self.peers[index];
        let is_expected = peer.phase == Phase::Closing || peer.role == Role::Poster;
        self.drop_socket(index);
        if !is_expected && !self.will_come_back(index, &failure) {
            self.failure.get_or_insert(failure);
        }
    }

    fn drop_socket(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if matches!(peer.phase, Phase::Gone | Phase::Away) {
            return;
        }
        if let Some(mut socket) = peer.socket.take() {
            // The descriptor is closed next, which ends its registration in any case.
            let _ = self.poll.registry().deregister(&mut socket);
        }
        if peer.phase == Phase::Ready && peer.role != Role::Poster {
            self.ready = self.ready.saturating_sub(1);
        }
        peer.phase = Phase::Gone;
        peer.input = Input::Nothing;
        self.gone += 1;
        self.progress_at = Instant::now();
    }

    fn became_ready(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.phase = Phase::Ready;
        peer.attempts = 0;
        if peer.role != Role::Poster {
            self.ready += 1;
        }
        self.progress_at = Instant::now();
    }

    fn delivered(&mut self, published: Instant, now: Instant) {
        self.deliveries += 1;
        self.latencies.add(now.saturating_duration_since(published));
        self.progress_at = now;
    }

    /// The quick way: whether this is the publication that is due, as another reader has it already.
    fn took_known(&mut self, index: usize, message: &[u8], now: Instant) -> bool {
        let peer = &mut self.peers[index];
        let Role::Reader { ledger } = peer.role else { return false };
        let known = self.ledgers[ledger].take_known(&mut peer.next, message);
        known.is_some_and(|at| {
            self.delivered(at, now);
            true
        })
    }

    /// The careful way; `message` is what others will have word by word.
    fn take_publication(&mut self, index: usize, found: Found<'_>, message: Option<&[u8]>, now: Instant) {
        let peer = &mut self.peers[index];
        let Role::Reader { ledger } = peer.role else { return };
        match self.ledgers[ledger].take(&mut peer.next, found, message) {
            Ok(published) => self.delivered(published, now),
            Err(wrong) => self.note(index, &wrong),
        }
    }

    fn note(&mut self, index: usize, wrong: &Wrong) {
        if self.wrong == 0 {
            self.first_wrong = format!("connection {index}: {wrong}");
        }
        self.wrong += 1;
        let told = std::mem::take(&mut self.peers[index].gap_told);
        if let Some(returning) = &mut self.returning {
            returning.tally.note(index, wrong, told);
        }
    }

    /// The server says that something is lost to this reader.
    fn gap_told(&mut self, index: usize) {
        match &mut self.returning {
            Some(returning) => {
                returning.tally.told += 1;
                self.peers[index].gap_told = true;
            }
            None => self.note(index, &Wrong::Told),
        }
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
                Err(error) => return self.broken(index, LoadError::Io { doing: "writing", error }),
            }
        }
        peer.out.extend_from_slice(rest);
    }
}
