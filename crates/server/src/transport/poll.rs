//! `GET /poll`: one answer to "what is new since this cursor?", at once or as soon as there is something.
//!
//! The cursor says everything, so that any node can answer the next poll. While it waits, a poll is a connection like every other, with a
//! session, subscriptions and an outbox; its words are gathered and go out as one answer.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Version, header};
use http_body::Body as _;
use serde::Serialize;
use talewire_proto::command::{self, Command, Connect, Recover};
use talewire_proto::events::{Beginning, Place};
use talewire_proto::session::Mode;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, CloseCode, ErrorCode, Kind, Payload, Position, cursor};

use super::asked::Asked;
use super::guard::Permit;
use super::head::Head;
use super::opening::{First, Input, Opening, Refusal, cross_origin, session, unclear, visitor};
use super::websocket::has_token;
use crate::node::{Node, unix_ms};
use crate::plain::Gathered;
use crate::reactor::{Peer, Reactor};
use crate::request_id;
use crate::routes::HttpError;
use crate::{connection, perform};

/// How long a poll waits unless it says otherwise, in seconds.
const WAIT_S: u64 = 25;

/// The longest that a poll may wait, in seconds: below what proxies allow.
const WAIT_S_MAX: u64 = 50;

/// When something came, how long a poll waits for more to go along, in milliseconds.
const GATHER_MS: u64 = 20;

/// The epoch of a generation's snapshot in a cursor; its offset is the snapshot's fingerprint.
const SNAPSHOT: &str = "snapshot";

/// The epoch in a cursor of a channel that could not be joined for now; its offset is 1 where it is to begin at its beginning.
const NOT_JOINED: &str = "not joined";

/// When a poll is to come again that could not have all, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// What a poll asks for beside its session.
pub(crate) struct Question {
    /// Where the sent cursor has its channels.
    known: BTreeMap<Channel, Position>,
    /// Where its other channels are to begin.
    new: BTreeMap<Channel, Option<Position>>,
    wait: Duration,
    /// The page's origin, if it is another one than ours.
    cross: Option<String>,
    /// Whether the socket is to serve another request after the answer.
    pub(super) keep: bool,
    /// The request's name, for the answer.
    pub(super) name: String,
}

/// Checks the request.
pub(crate) async fn open(node: &Node, request: Request<Body>) -> Result<Opening, Refusal> {
    if !request.body().is_end_stream() {
        // Nobody would read it before the next request of the same socket is looked for, and so it would be taken for that.
        return Err(unclear("a poll has no body"));
    }
    let headers = request.headers();
    let asked = Asked::read(request.uri().query().unwrap_or(""), headers).map_err(unclear)?;
    let mut known = match &asked.cursor {
        None => BTreeMap::new(),
        Some(text) => {
            let positions = node.cursors.open(text).and_then(|bytes| cursor::read_named(&bytes));
            let positions = positions.ok_or_else(|| unclear("the cursor is not one of ours"))?;
            positions.into_iter().collect()
        }
    };
    let waiting = take_not_joined(&mut known);
    let mut wanted: BTreeMap<Channel, Option<Position>> = asked.channels.iter().cloned().collect();
    if wanted.is_empty() {
        wanted = known.keys().map(|channel| (channel.clone(), None)).chain(waiting).collect();
    }
    if wanted.is_empty() {
        return Err(unclear(match asked.cursor {
            None => "the query names no channel and no cursor",
            Some(_) => "every channel of the cursor was refused: the query has to name one",
        }));
    }
    let known: BTreeMap<Channel, Position> =
        known.into_iter().filter(|(channel, _)| wanted.get(channel).is_some_and(Option::is_none)).collect();
    let new = wanted.iter().filter(|(channel, _)| !known.contains_key(*channel));
    let new = new.map(|(channel, place)| (channel.clone(), place.clone())).collect();
    let subs = wanted.iter().map(|(channel, place)| {
        // A channel of the cursor without an epoch has no positions; one of the query is asked for from its beginning.
        let from = place.as_ref().or_else(|| known.get(channel).filter(|position| !position.epoch.is_empty()));
        asked.wanted(channel, from.cloned().map(Recover::PagesAfter))
    });
    let connect = Connect { token: asked.token.clone(), name: "poll".into(), subs: subs.collect() };
    let login = if asked.token.0.is_empty() { visitor(node, headers).await? } else { None };
    let wait = Duration::from_secs(asked.wait_s.unwrap_or(WAIT_S).min(WAIT_S_MAX));
    let cross = cross_origin(node, headers);
    let keep = request.version() == Version::HTTP_11 && !has_token(headers, &header::CONNECTION, "close");
    Ok(Opening {
        wire: Wire::Poll,
        head: None,
        gzip: false,
        prelude: Bytes::new(),
        input: Input::Poll(Box::new(Question { known, new, wait, cross, keep, name: String::new() })),
        session: session(node, login, Mode::Poll, None),
        first: First::Command(Command { id: 1, body: Ok(command::Body::Connect(connect)) }),
        emulated: None,
    })
}

impl Question {
    /// The head of the answer.
    fn head(&self, node: &Node, status: StatusCode, bytes: usize) -> Head {
        let keep = self.keep && !node.is_stopping();
        let head = Head::body(status, "application/json", bytes, keep).for_origin(self.cross.clone());
        head.with(request_id::NAME, self.name.clone())
    }
}

/// Waits for something to tell, and answers. Says whether the peer has taken the whole answer. What it sends meanwhile is put
/// behind `early`: it is its next request.
pub(crate) async fn answer(
    reactor: &Rc<Reactor>,
    peer: &Rc<Peer>,
    question: &Question,
    permit: Option<&mut Permit>,
    early: &mut BytesMut,
) -> bool {
    let Some(gathered) = &peer.gathered else { return false };
    let until = tokio::time::Instant::now() + question.wait;
    // The session itself waits for the store at times; that is no waiting for news.
    while gathered.borrow().is_pending() {
        tokio::select! {
            () = peer.wake.called() => {}
            () = gone(reactor, peer, early) => return false,
        }
    }
    connection::known(peer, permit);
    while !has_news(reactor, peer, question) && tokio::time::Instant::now() < until {
        tokio::select! {
            () = peer.wake.called() => {}
            () = tokio::time::sleep_until(until) => {}
            () = gone(reactor, peer, early) => return false,
        }
    }
    let is_open = gathered.borrow().closed.is_none();
    if is_open && has_news(reactor, peer, question) && !question.wait.is_zero() {
        tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
    }
    let (head, body) = compose(reactor, peer, question).await;
    peer.closing.set(true);
    if let Some(outbox) = reactor.shard.borrow_mut().outbox(peer.key) {
        outbox.take_all();
    }
    connection::send_head(reactor, peer, &head);
    reactor.shard.borrow_mut().send(peer.key, body);
    reactor.flush();
    let within = Duration::from_millis(reactor.node.settings.close_ms);
    tokio::time::timeout(within, connection::written(reactor, peer)).await.unwrap_or(false)
}

/// Waits for the peer's end. Whatever else it sends before it is answered is kept, up to the size of a head.
async fn gone(reactor: &Reactor, peer: &Peer, early: &mut BytesMut) {
    while early.len() <= reactor.node.settings.head_bytes_max {
        if peer.socket.readable().await.is_err() {
            return;
        }
        let mut scratch = reactor.scratch.borrow_mut();
        match peer.socket.try_read(&mut scratch) {
            Ok(0) => return,
            Ok(n) => early.extend_from_slice(&scratch[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    std::future::pending().await
}

impl Gathered {
    fn is_pending(&self) -> bool {
        self.connected.is_none() && self.refused.is_none() && self.closed.is_none()
    }
}

/// Whether there is anything that the reader does not know.
fn has_news(reactor: &Reactor, peer: &Peer, question: &Question) -> bool {
    let Some(gathered) = &peer.gathered else { return false };
    let gathered = gathered.borrow();
    let Some(connected) = &gathered.connected else { return true };
    let is_new = |channel: &Channel| !question.known.contains_key(channel);
    let changed = |(channel, position): (&Channel, &Position)| {
        let data = connected.subs.get(channel).and_then(|sub| sub.data.as_ref());
        data.is_some_and(|data| snapshot(data) != *position)
    };
    gathered.closed.is_some()
        || !gathered.gaps.is_empty()
        || !connected.refused.is_empty()
        || connected.subs.keys().any(is_new)
        || question.known.iter().any(changed)
        || reactor.shard.borrow_mut().outbox(peer.key).is_some_and(|outbox| !outbox.is_empty())
}

/// What a cursor keeps of a generation's snapshot: enough to see that it has changed.
fn snapshot(data: &Payload) -> Position {
    let text = String::from_utf8_lossy(data.as_bytes());
    // One less than the whole range: a cursor counts offsets from one.
    let offset = talewire_proto::Epoch::new(&text).digest() >> 1;
    Position { offset, epoch: marked(SNAPSHOT) }
}

/// How a cursor keeps a channel that could not be joined, by where it was to begin.
fn not_joined(place: &Option<Position>) -> Position {
    match place {
        Some(position) if !position.epoch.is_empty() => position.clone(),
        place => Position { offset: place.is_some().into(), epoch: marked(NOT_JOINED) },
    }
}

/// The channels of a cursor that could not be joined, with where they are to begin: they are new still.
fn take_not_joined(known: &mut BTreeMap<Channel, Position>) -> Vec<(Channel, Option<Position>)> {
    let marked = marked(NOT_JOINED);
    let taken = known.extract_if(.., |_, position| position.epoch == marked);
    let beginning = |offset| (offset > 0).then(|| Position { offset: 0, epoch: talewire_proto::Epoch::new("") });
    taken.map(|(channel, position)| (channel, beginning(position.offset))).collect()
}

/// An epoch that no history has.
fn marked(word: &str) -> talewire_proto::Epoch {
    talewire_proto::Epoch::of_digest(talewire_proto::Epoch::new(word).digest())
}

#[derive(Serialize)]
struct RefusedChannel<'a> {
    channel: &'a Channel,
    code: u32,
    message: &'a str,
}

/// The whole answer, head and body.
async fn compose(reactor: &Rc<Reactor>, peer: &Rc<Peer>, question: &Question) -> (Head, Bytes) {
    let gathered = peer.gathered.as_ref().map(|gathered| gathered.take()).unwrap_or_default();
    let Gathered { connected, refused, closed, gaps } = gathered;
    let Some(mut connected) = connected else { return refusal(&reactor.node, question, refused, closed) };
    let (elements, mut positions) = {
        let mut shard = reactor.shard.borrow_mut();
        let elements = shard.outbox(peer.key).map(talewire_hub::Outbox::take_all).unwrap_or_default();
        let positions = shard.marks(peer.key).map(|marks| marks.positions().to_vec()).unwrap_or_default();
        (elements, positions)
    };
    for (channel, sub) in &mut connected.subs {
        let is_generation = reactor.node.rules_of(channel).is_ok_and(|rules| rules.kind == Kind::Generation);
        if is_generation && elements.iter().any(Bytes::is_empty) {
            // It went on while we waited: what the reader gets is the text as it is now.
            sub.data = perform::snapshot(&reactor.node, channel).await.or_else(|| sub.data.take());
        }
        if let (Some(data), Some(mark)) = (&sub.data, positions.iter_mut().find(|(of, _)| of == channel)) {
            mark.1 = snapshot(data);
        }
    }
    // What could not be joined is asked for again by the same cursor.
    positions.extend(connected.refused.iter().filter_map(|(channel, refused)| {
        let known = question.known.get(channel).cloned();
        let new = || question.new.get(channel).filter(|_| refused.code.temporary()).map(not_joined);
        Some((channel.clone(), known.or_else(new)?))
    }));
    let is_told = |channel: &Channel, data: Option<&Payload>| match question.known.get(channel) {
        None => true,
        Some(position) => data.is_some_and(|data| snapshot(data) != *position),
    };
    let channels: BTreeMap<&Channel, Beginning<'_>> = connected
        .subs
        .iter()
        .filter(|(channel, sub)| is_told(channel, sub.data.as_ref()))
        .map(|(channel, sub)| (channel, sub.into()))
        .collect();
    let gaps: Vec<Place<'_>> = gaps
        .iter()
        .map(|(channel, position)| Place { channel, offset: position.offset, epoch: &position.epoch })
        .collect();
    let refused: Vec<RefusedChannel<'_>> = connected
        .refused
        .iter()
        .map(|(channel, refused)| {
            let message = refused.message.as_deref().unwrap_or(refused.code.text());
            RefusedChannel { channel, code: refused.code.code(), message }
        })
        .collect();
    let is_incomplete = closed.is_some() || connected.refused.iter().any(|(_, refused)| refused.code.temporary());
    let mut body = Vec::with_capacity(256 + elements.iter().map(Bytes::len).sum::<usize>());
    let mut put = |name: &str, value: &[u8]| {
        body.push(if body.is_empty() { b'{' } else { b',' });
        body.extend_from_slice(format!("\"{name}\":").as_bytes());
        body.extend_from_slice(value);
    };
    put("cursor", &json(&reactor.node.cursors.close(&cursor::named(&positions))));
    put("channels", &json(&channels));
    let mut events = elements.concat();
    events.pop();
    put("events", &[b"[", events.as_slice(), b"]"].concat());
    put("gaps", &json(&gaps));
    put("refused", &json(&refused));
    put("time", &json(&unix_ms()));
    if is_incomplete {
        put("retry_ms", &json(&RETRY_MS));
    }
    body.push(b'}');
    (question.head(&reactor.node, StatusCode::OK, body.len()), body.into())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types are written as JSON")
}

/// The answer to somebody who may not poll here, or not now.
fn refusal(
    node: &Node,
    question: &Question,
    refused: Option<talewire_proto::reply::Refused>,
    closed: Option<CloseCode>,
) -> (Head, Bytes) {
    let error = match (refused, closed) {
        (Some(refused), _) => HttpError::from(refused),
        (None, Some(CloseCode::InvalidToken)) => ErrorCode::Unauthorized.into(),
        (None, Some(CloseCode::PermissionDenied)) => ErrorCode::PermissionDenied.into(),
        (None, Some(CloseCode::ChannelLimit)) => ErrorCode::LimitExceeded.into(),
        (None, Some(CloseCode::ConnectionLimit)) => ErrorCode::TooManyRequests.into(),
        (None, Some(code)) if code.reconnect() => ErrorCode::Unavailable.into(),
        (None, _) => ErrorCode::BadRequest.into(),
    };
    let (status, retry_after_s, body) = error.parts();
    let head = question.head(node, status, body.len());
    let head = match retry_after_s {
        Some(seconds) => head.with("Retry-After", seconds.to_string()),
        None => head,
    };
    (head, body.into())
}
