//! Opening a connection: the request that asks for it in, everything that the connection begins with out, or a refusal.
//!
//! Each transport checks its own request here; what they share is the page that the request comes from, the login that it
//! shows, and the session. The socket itself is taken over from HTTP afterwards ([`crate::accept`]).

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use talewire_auth::{Credentials, Login};
use talewire_proto::codec::Codec;
use talewire_proto::command::Command;
use talewire_proto::session::{Mode, Now, Session, SessionStart};
use talewire_proto::websocket::Reader;
use talewire_proto::wire::Wire;
use talewire_proto::{CloseCode, ErrorCode};

use super::emulation::SessionId;
use super::head::Head;
use super::{events, poll, websocket};
use crate::accept::plain;
use crate::node::{Node, new_client};
use crate::request_id::{self, RequestId};
use crate::routes::{HttpError, login_of};

/// The answer to send instead of opening a connection. Boxed, because it is large and rare.
pub(crate) type Refusal = Box<Response<Body>>;

/// What a connection begins with.
pub(crate) struct Opening {
    /// How messages stand on it.
    pub(crate) wire: Wire,
    /// The head of the answer, to be sent before everything else; without one, whoever answers sends it later.
    pub(crate) head: Option<Head>,
    /// Whether everything behind the head is one body in gzip.
    pub(crate) gzip: bool,
    /// What of the body is to be sent at once: some proxies hold the head back until there is a body.
    pub(crate) prelude: Bytes,
    /// How bytes of the peer are read.
    pub(crate) input: Input,
    /// The protocol's state.
    pub(crate) session: Session,
    /// What was said with the request.
    pub(crate) first: First,
    /// The name under which commands come by other requests.
    pub(crate) emulated: Option<SessionId>,
}

impl Opening {
    /// Whether the socket is to serve another request afterwards.
    pub(crate) fn keeps_socket(&self) -> bool {
        matches!(&self.input, Input::Poll(question) if question.keep)
    }

    /// Says the request's name in the answer, and which connection comes of it in the log.
    pub(crate) fn named(&mut self, id: &RequestId) {
        self.head = self.head.take().map(|head| head.with(request_id::NAME, id.to_string()));
        if let Input::Poll(question) = &mut self.input {
            question.name = id.to_string();
        }
        tracing::debug!(%id, client = %self.session.client(), transport = self.wire.transport(), "a connection opens");
    }
}

/// What a peer has said with its request.
pub(crate) enum First {
    /// Nothing yet.
    Nothing,
    /// A frame.
    Frame(Bytes),
    /// What a command would have said.
    Command(Command),
}

impl First {
    /// Gives it to the session.
    pub(crate) fn give(self, session: &mut Session, codec: Codec, now: Now) {
        match self {
            Self::Nothing => {}
            Self::Frame(frame) => session.handle_bytes(codec, &frame, now),
            Self::Command(command) => session.handle_commands(vec![command], now),
        }
    }
}

/// How bytes of the peer are read.
pub(crate) enum Input {
    /// As WebSocket frames.
    WebSocket(Box<Reader>),
    /// Not at all: the peer has said everything; its end is still seen.
    Nothing,
    /// Not at all, and it gets one answer.
    Poll(Box<poll::Question>),
}

/// Where plain events are.
pub(crate) const EVENTS: &str = "/events";

/// Whether connections are opened at this path.
pub(crate) fn is_transport(path: &str) -> bool {
    path.starts_with("/connection/") || path == EVENTS || path == "/poll"
}

/// Checks a request for a connection.
///
/// # Errors
/// The answer to send instead.
pub(crate) async fn open(node: &Node, request: Request<Body>) -> Result<Opening, Refusal> {
    if node.is_closing() && request.uri().path() == EVENTS {
        return Err(Box::new(events::come_later(node, request.headers(), CloseCode::Shutdown)));
    }
    if node.is_closing() {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is going down; try again soon"));
    }
    let path = request.uri().path().to_owned();
    match (path.as_str(), request.method()) {
        ("/connection/websocket", _) => open_websocket(node, &request, Mode::Duplex).await,
        ("/connection/uni_websocket", _) => open_websocket(node, &request, Mode::Down).await,
        (_, &Method::OPTIONS) => Err(Box::new(preflight(node, request.headers()))),
        ("/connection/http_stream", &Method::POST) => open_stream(node, request, Mode::Duplex).await,
        ("/connection/uni_http_stream", &Method::POST) => open_stream(node, request, Mode::Down).await,
        ("/connection/sse", &Method::GET | &Method::POST) => open_event_stream(node, request, Mode::Duplex).await,
        ("/connection/uni_sse", &Method::GET | &Method::POST) => open_event_stream(node, request, Mode::Down).await,
        (EVENTS, &Method::GET) => events::open(node, request).await,
        ("/poll", &Method::GET) => poll::open(node, request).await,
        (
            "/connection/http_stream"
            | "/connection/sse"
            | "/connection/uni_http_stream"
            | "/connection/uni_sse"
            | EVENTS
            | "/poll",
            _,
        ) => Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "this address is opened by another method")),
        _ => Err(refuse(StatusCode::NOT_FOUND, "there is no such transport here")),
    }
}

async fn open_websocket(node: &Node, request: &Request<Body>, mode: Mode) -> Result<Opening, Refusal> {
    let accept = websocket::handshake(request).map_err(|(status, text)| {
        let mut response = refuse(status, text);
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    })?;
    let login = visitor(node, request.headers()).await?;
    let (wire, name) = match (accept.codec, mode) {
        (Codec::Protobuf, Mode::Duplex) => (Wire::WebSocketProtobuf, "centrifuge-protobuf"),
        (Codec::Protobuf, _) => (Wire::WebSocketProtobufDown, "centrifuge-protobuf"),
        (_, Mode::Duplex) => (Wire::WebSocketJson, "centrifuge-json"),
        (_, _) => (Wire::WebSocketJsonDown, "centrifuge-json"),
    };
    // A connection that flows one way may say in its address what its first message would say.
    let first = connect_of(request).filter(|_| mode == Mode::Down).map_or(First::Nothing, First::Frame);
    let deflate = accept.deflate.filter(|_| node.settings.compress_websockets);
    let wire = deflate.as_ref().map_or(wire, |deflate| wire.compressed(deflate.window));
    let head = Head::frames(accept.key);
    let head = if accept.echo { head.with("Sec-WebSocket-Protocol", name) } else { head };
    let head = match &deflate {
        Some(deflate) => head.with("Sec-WebSocket-Extensions", deflate.answer()),
        None => head,
    };
    Ok(Opening {
        wire,
        head: Some(head),
        gzip: false,
        prelude: Bytes::new(),
        input: Input::WebSocket(Box::new(Reader::new(node.limits().frame_bytes_max, deflate.is_some()))),
        session: session(node, login, mode, None),
        first,
        emulated: None,
    })
}

/// HTTP streaming: the first frame is the body, every message a line or a piece with its length.
async fn open_stream(node: &Node, request: Request<Body>, mode: Mode) -> Result<Opening, Refusal> {
    let login = visitor(node, request.headers()).await?;
    let (wire, kind) = match (content_type(request.headers()), mode) {
        (Some("application/octet-stream"), Mode::Duplex) => (Wire::StreamProtobuf, "application/octet-stream"),
        (Some("application/json"), Mode::Duplex) => (Wire::StreamJson, "application/json"),
        (Some("application/json"), _) => (Wire::StreamJsonDown, "application/json"),
        _ => {
            return Err(refuse(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send application/json or application/octet-stream",
            ));
        }
    };
    let cross = cross_origin(node, request.headers());
    let gzip = wants_gzip(node, request.headers());
    let first_frame = body(node, request).await?;
    let opening = stream(node, login, mode, wire, Head::stream(kind, gzip).for_origin(cross), first_frame);
    Ok(Opening { gzip, ..opening })
}

/// The native protocol over Server-Sent Events: the first frame is in the query or the body, every message one event.
async fn open_event_stream(node: &Node, request: Request<Body>, mode: Mode) -> Result<Opening, Refusal> {
    let login = visitor(node, request.headers()).await?;
    let cross = cross_origin(node, request.headers());
    let gzip = wants_gzip(node, request.headers());
    let first_frame = if request.method() == Method::GET {
        connect_of(&request).ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "the query needs cf_connect"))?
    } else {
        body(node, request).await?
    };
    let head = Head::stream("text/event-stream", gzip).for_origin(cross);
    let wire = if mode == Mode::Duplex { Wire::EventStreamJson } else { Wire::EventStreamJsonDown };
    let opening = stream(node, login, mode, wire, head, first_frame);
    // A first byte at once: some proxies hold the head back until there is a body.
    Ok(Opening { gzip, prelude: Bytes::from_static(b"\n"), ..opening })
}

/// What the address says in place of a first frame.
fn connect_of(request: &Request<Body>) -> Option<Bytes> {
    let query = request.uri().query().unwrap_or("");
    let connect = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cf_connect");
    connect.map(|(_, frame)| Bytes::from(frame.into_owned()))
}

/// Whether the body of a stream is to be compressed: the client says that it reads gzip, and the setting allows it.
pub(super) fn wants_gzip(node: &Node, headers: &HeaderMap) -> bool {
    node.settings.compress_streams && accepts_gzip(headers)
}

/// Whether `Accept-Encoding` names gzip (RFC 9110, section 12.5.3). A client that says only `*` gets nothing special.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

fn stream(node: &Node, login: Option<Login>, mode: Mode, wire: Wire, head: Head, first_frame: Bytes) -> Opening {
    let emulated = (mode == Mode::Duplex).then(SessionId::new);
    let session = session(node, login, mode, emulated.as_ref());
    Opening {
        wire,
        head: Some(head),
        gzip: false,
        prelude: Bytes::new(),
        input: Input::Nothing,
        session,
        first: First::Frame(first_frame),
        emulated,
    }
}

/// A question to a reader's address that cannot be understood, told as every other error over HTTP.
pub(super) fn unclear(why: &'static str) -> Refusal {
    Box::new(HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, why).into_response())
}

pub(super) fn refuse(status: StatusCode, text: &'static str) -> Refusal {
    Box::new(plain(status, text))
}

/// Reads the body of a request, up to the size of a frame.
async fn body(node: &Node, request: Request<Body>) -> Result<Bytes, Refusal> {
    let collected = Limited::new(request.into_body(), node.limits().frame_bytes_max).collect().await;
    let collected = collected.map_err(|_| refuse(StatusCode::PAYLOAD_TOO_LARGE, "the first frame is too large"))?;
    Ok(collected.to_bytes())
}

pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().unwrap_or("").trim())
}

/// A session; `emulated` is the name under which its commands come by other requests.
pub(super) fn session(node: &Node, login: Option<Login>, mode: Mode, emulated: Option<&SessionId>) -> Session {
    let client = new_client();
    let seed = client.as_str().bytes().fold(0u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let rules = node.rules();
    let start = SessionStart {
        client,
        login: login.map(|login| login.grant()),
        anonymous: node.anonymous,
        limits: rules.limits.clone(),
        namespaces: rules.namespaces.clone(),
        seed,
        emulation: emulated.map(|id| (id.as_str().to_owned(), node.id.to_string())),
        mode,
    };
    Session::new(start, node.now())
}

/// Who knocks: the cookie's login if there is one, when the page that the request comes from may use it.
pub(super) async fn visitor(node: &Node, headers: &HeaderMap) -> Result<Option<Login>, Refusal> {
    let login = login_of(node, headers, node.now().unix_ms).await;
    let login =
        login.map_err(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "who you are cannot be told now; try again soon"))?;
    let mut origins = headers.get_all(header::ORIGIN).into_iter().map(HeaderValue::as_bytes).peekable();
    // A browser says where a WebSocket, a POST or a request to another origin comes from. Without an origin, a cookie counts only
    // when the browser says that the page is ours (an EventSource of our own), and a program needs none.
    let own_page = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    let needs_origin = login.is_some() && !(origins.peek().is_none() && own_page);
    let credentials = if needs_origin { Credentials::Cookie } else { Credentials::Explicit };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match node.origins.check(origins, host, credentials) {
        Ok(()) => Ok(login),
        Err(refusal) => {
            tracing::info!(%refusal, "a connection was refused for where it comes from");
            node.metrics.refused_origins.inc();
            Err(refuse(StatusCode::FORBIDDEN, "this page may not connect here"))
        }
    }
}

/// The request's origin, if it is another one than ours and may come: to be named in the answer.
pub(crate) fn cross_origin(node: &Node, headers: &HeaderMap) -> Option<String> {
    let origin = headers.get(header::ORIGIN)?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let allowed = node.origins.check([origin.as_bytes()], host, Credentials::Cookie).is_ok();
    let text = origin.to_str().ok().filter(|_| allowed)?;
    Some(text.to_owned())
}

/// The answer to a browser that asks whether another origin may send such a request.
pub(crate) fn preflight(node: &Node, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(origin) = cross_origin(node, headers).and_then(|origin| HeaderValue::from_str(&origin).ok()) {
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let allowed = HeaderValue::from_static("content-type, authorization, last-event-id, x-csrf-token");
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        answer.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_asks_for_it() {
        for (value, expected) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("gzip;q=x", false),
            ("br, deflate", false),
            ("*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().expect("a value"))]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
    }
}
