//! `GET /events`: plain Server-Sent Events for whatever can read a stream, a bare `EventSource` first of all.
//!
//! A browser gives up for ever on any answer but a stream (WHATWG HTML, section 9.2.3). So whoever is to come again gets a stream that
//! says when and ends, and 204 is for those who are to stay away: they are known by the id that the last stream gave them.

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use talewire_auth::Seal;
use talewire_proto::command::{self, Command, Connect, Recover};
use talewire_proto::events::{self, Form, RETRY_MS, STOPPED};
use talewire_proto::session::Mode;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, CloseCode, Position, cursor};

use super::asked::Asked;
use super::emulation::SessionId;
use super::head::Head;
use super::opening::{First, Input, Opening, Refusal, cross_origin, session, unclear, visitor, wants_gzip};
use crate::node::Node;

/// An id that names what the broker keeps begins with this.
const KEPT: char = '.';

/// Asks for everything that is kept.
const EARLIEST: &str = "earliest";

/// Checks the request and opens the stream.
pub(crate) async fn open(node: &Node, request: Request<Body>) -> Result<Opening, Refusal> {
    let headers = request.headers();
    let asked = Asked::read(request.uri().query().unwrap_or(""), headers).map_err(unclear)?;
    if asked.channels.is_empty() {
        return Err(unclear("the query names no channel"));
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let last = last.filter(|id| !id.is_empty()).or_else(|| asked.last_event_id.clone());
    if last.as_deref() == Some(STOPPED) {
        let mut nothing = Response::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Err(Box::new(nothing));
    }
    let login = if asked.token.0.is_empty() {
        // An EventSource gives up for good at any other status than 200.
        visitor(node, headers).await.map_err(|refusal| match refusal.status() {
            StatusCode::SERVICE_UNAVAILABLE => Box::new(come_later(node, headers, CloseCode::Unavailable)),
            _ => refusal,
        })?
    } else {
        None
    };
    let form = if asked.envelope { Form::Envelope } else { Form::Payload };
    let wire = if asked.channels.len() == 1 { Wire::Events(form) } else { Wire::EventsOfMany(form) };
    let recover = match last.as_deref() {
        Some(EARLIEST) => Resume::Oldest,
        Some(id) => Resume::At(positions_of(node, &asked, id).await),
        None => Resume::Now,
    };
    let wanted =
        asked.channels.iter().map(|(channel, place)| asked.wanted(channel, recover.of(channel, place.as_ref())));
    let connect = Connect { token: asked.token.clone(), name: "events".into(), subs: wanted.collect() };
    let id = SessionId::new();
    let gzip = wants_gzip(node, headers);
    Ok(Opening {
        wire,
        head: Some(Head::stream("text/event-stream", gzip).for_origin(cross_origin(node, headers))),
        gzip,
        prelude: format!("retry: {RETRY_MS}\n\n").into(),
        input: Input::Nothing,
        session: session(node, login, Mode::Events, Some(&id)),
        first: First::Command(Command { id: 1, body: Ok(command::Body::Connect(connect)) }),
        emulated: Some(id),
    })
}

/// From where a stream goes on.
enum Resume {
    Now,
    Oldest,
    /// Where each channel stood; nothing if the id says nothing to us.
    At(Option<cursor::Positions>),
}

impl Resume {
    fn of(&self, channel: &Channel, place: Option<&Position>) -> Option<Recover> {
        match self {
            Self::Now => place.cloned().map(Recover::PagesAfter),
            Self::Oldest => Some(Recover::PagesFromOldest),
            Self::At(positions) => {
                let known = positions.iter().flatten().find(|(of, _)| of == channel).map(|(_, position)| position);
                match known {
                    // A channel without positions has none to go on from.
                    Some(position) if position.epoch.is_empty() => None,
                    Some(position) => Some(Recover::PagesAfter(position.clone())),
                    // A position that nobody knows any more is one that no channel has: the reader is told of the gap.
                    None => {
                        Some(Recover::PagesAfter(Position { offset: 0, epoch: talewire_proto::Epoch::of_digest(0) }))
                    }
                }
            }
        }
    }
}

/// What an id stands for, if it is ours and of these channels.
async fn positions_of(node: &Node, asked: &Asked, id: &str) -> Option<cursor::Positions> {
    if let [(channel, _)] = asked.channels.as_slice() {
        return events::position_of(id).map(|position| vec![(channel.clone(), position)]);
    }
    let bytes = match id.strip_prefix(KEPT) {
        Some(name) => node.broker.kept_cursor(name).await.ok()??,
        None => node.cursors.open(id)?,
    };
    let channels: Vec<Channel> = asked.channels.iter().map(|(channel, _)| channel.clone()).collect();
    cursor::read_nameless(&bytes, &channels)
}

/// The id of a reader of several channels: where it stands, if that is short, else under which name the broker keeps it.
pub(crate) fn write_id(node: &Node, positions: &[(Channel, Position)]) -> String {
    let bytes = cursor::nameless(positions);
    if Seal::text_len(bytes.len()) <= cursor::ID_BYTES_MAX {
        node.cursors.close(&bytes)
    } else {
        format!("{KEPT}{}", node.broker.keep_cursor(bytes))
    }
}

/// Asks to come again, some time between one and three times as long as usual: not all at once. The last words of a stream
/// that told of an end which is not for good.
pub(crate) fn retry_later() -> String {
    let spread = u32::from_le_bytes(talewire_auth::new_key()[..4].try_into().expect("four bytes")) % (RETRY_MS * 2);
    format!("retry: {}\n\n", RETRY_MS + spread)
}

/// The answer to a reader for whom there is no room now: a stream that says so and ends.
pub(crate) fn come_later(node: &Node, headers: &HeaderMap, code: CloseCode) -> Response<Body> {
    let told = events::encode(&talewire_proto::reply::Reply::Disconnect(code), Form::Payload);
    let text = [retry_later().into_bytes(), told].concat();
    let mut response = Response::new(Body::from(text));
    let answer = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = value.parse() {
            answer.insert(name, value);
        }
    };
    set("content-type", "text/event-stream");
    set("cache-control", "no-cache, no-store, no-transform");
    set("x-accel-buffering", "no");
    set("connection", "close");
    if let Some(origin) = cross_origin(node, headers) {
        set("access-control-allow-origin", &origin);
        set("access-control-allow-credentials", "true");
        set("vary", "Origin");
    }
    response
}
