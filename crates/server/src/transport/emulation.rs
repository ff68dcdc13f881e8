//! Commands for connections that flow one way only: a POST names the session, and its frame goes to the thread that has it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use talewire_broker::NodeId;
use talewire_hub::ConnectionKey;
use talewire_proto::codec::{Codec, EmulationRequest};
use talewire_proto::command::Token;
use talewire_proto::{ErrorCode, ids};
use tokio::sync::mpsc;

use super::opening::{content_type, cross_origin, preflight};
use crate::accept::plain;
use crate::inbox::Message;
use crate::letters::Question;
use crate::node::Node;
use crate::nodes::{Silence, may_be_node};

/// The name of an emulated session: whoever knows it speaks as its client, so it cannot be guessed and is never logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Arc<str>);

impl SessionId {
    pub(crate) fn new() -> Self {
        let key = talewire_auth::new_key();
        let (mut first, mut second) = ([0; 13], [0; 13]);
        first.copy_from_slice(&key[..13]);
        second.copy_from_slice(&key[13..26]);
        Self((ids::text_of_random(first) + &ids::text_of_random(second)).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A frame on its way to the thread of its connection.
pub(crate) struct Inbound {
    pub(crate) key: ConnectionKey,
    pub(crate) serial: u64,
    pub(crate) codec: Codec,
    pub(crate) frame: Bytes,
}

/// Where an emulated session lives.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) inbox: mpsc::Sender<Message>,
    /// Which thread's it is.
    pub(crate) thread: usize,
    pub(crate) key: ConnectionKey,
    pub(crate) serial: u64,
}

/// The emulated sessions of this node.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Home>>);

impl Sessions {
    pub(crate) fn insert(&self, id: SessionId, home: Home) {
        self.0.lock().insert(id, home);
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        self.0.lock().remove(id);
    }

    pub(crate) fn home(&self, id: &str) -> Option<Home> {
        self.0.lock().get(&SessionId(id.into())).cloned()
    }
}

/// `POST /emulation`: 204 when the frame is on its way, 404 when no such session is here.
pub(crate) async fn post(State(node): State<Arc<Node>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = take(&node, &headers, &body).await;
    if let Some(origin) = cross_origin(&node, &headers).and_then(|origin| HeaderValue::from_str(&origin).ok()) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// `OPTIONS /emulation`, asked by browsers for pages of other origins.
pub(crate) async fn options(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response<Body> {
    preflight(&node, &headers)
}

async fn take(node: &Node, headers: &HeaderMap, body: &Bytes) -> Response {
    let codec = match content_type(headers) {
        Some("application/json") => Codec::Json,
        Some("application/octet-stream") => Codec::Protobuf,
        _ => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json or application/octet-stream"),
    };
    if body.len() > node.limits().frame_bytes_max {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the frame is too large");
    }
    let Ok(request) = EmulationRequest::decode(codec, body) else {
        return plain(StatusCode::BAD_REQUEST, "the body is no emulation request");
    };
    let given = if request.node == node.id.as_str() {
        give(node, &request.session, codec, request.data)
    } else {
        send_on(node, request, codec).await
    };
    // The session alone opens the door: a wrong node or session is answered alike.
    match given {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(ErrorCode::NotFound) => plain(StatusCode::NOT_FOUND, "no such session is here"),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the frame cannot be delivered now; try again soon"),
    }
}

/// Gives a frame to the thread of its session on this node.
///
/// # Errors
/// [`ErrorCode::NotFound`] when there is no such session, [`ErrorCode::Unavailable`] when its thread has no room.
pub(crate) fn give(node: &Node, session: &str, codec: Codec, frame: Bytes) -> Result<(), ErrorCode> {
    let Home { inbox, key, serial, .. } = node.sessions.home(session).ok_or(ErrorCode::NotFound)?;
    inbox.try_send(Message::Frame(Inbound { key, serial, codec, frame })).map_err(|_| ErrorCode::Unavailable)
}

/// Gives a frame to the node that has its session.
async fn send_on(node: &Node, request: EmulationRequest, codec: Codec) -> Result<(), ErrorCode> {
    let EmulationRequest { session, node: home, data } = request;
    if !may_be_node(&home) {
        return Err(ErrorCode::NotFound);
    }
    let question = Question::Frame { session: Token(session), protobuf: codec == Codec::Protobuf };
    match node.ask::<()>(&NodeId::named(&home), question, data).await {
        Ok(()) => Ok(()),
        Err(Silence::Nobody) => Err(ErrorCode::NotFound),
        Err(Silence::Refused(code)) => Err(code),
        Err(Silence::NoAnswer) => Err(ErrorCode::Unavailable),
    }
}
