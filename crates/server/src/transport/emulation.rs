//! Commands for connections that flow one way only: a POST names the session, and its frame goes to the thread that has it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use talewire_hub::ConnectionKey;
use talewire_proto::codec::{Codec, EmulationRequest};
use talewire_proto::ids;
use tokio::sync::mpsc;

use super::opening::{content_type, cross_origin, preflight};
use crate::accept::plain;
use crate::inbox::Message;
use crate::node::Node;

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
    let mut response = take(&node, &headers, &body);
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

fn take(node: &Node, headers: &HeaderMap, body: &Bytes) -> Response {
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
    // The session alone opens the door: a wrong node or session is answered alike.
    let home = if request.node == node.id.as_str() { node.sessions.home(&request.session) } else { None };
    let Some(Home { inbox, key, serial, .. }) = home else {
        return plain(StatusCode::NOT_FOUND, "no such session is here");
    };
    match inbox.try_send(Message::Frame(Inbound { key, serial, codec, frame: request.data })) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "too many frames are waiting; try again soon"),
    }
}
