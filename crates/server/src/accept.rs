//! The accept loop: sockets in, requests out to the router or upgraded to connections.
//!
//! Sockets that begin with the preface of HTTP/2 go to [`crate::http2`]; requests of both are let in by [`decide`].
//! Written over hyper because no ready-made loop closes a socket that says nothing: a deadline for the first byte, one for
//! each head, and caps on sockets stand before everything.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use talewire_proto::CloseCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::Instrument as _;

use crate::arriving::Arrival;
use crate::connection::{self, Taken};
use crate::http2::{self, PREFACE};
use crate::pace::Pace;
use crate::reactor::Reactor;
use crate::replayed::Replayed;
use crate::request_id::RequestId;
use crate::routes;
use crate::settings::ServerSettings;
use crate::socket::Socket;
use crate::transport::events;
use crate::transport::guard::Permit;
use crate::transport::opening::{self, Opening};

/// Headers of one request; more are 431.
const HEADERS_MAX: usize = 64;

/// How often a socket is looked at that may begin with the preface of HTTP/2.
const PEEK_AGAIN: Duration = Duration::from_millis(10);

/// Whose request it is, for routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) IpAddr);

/// What stands behind a listener.
#[derive(Clone)]
pub(crate) struct Door {
    /// The routes.
    pub(crate) router: Router,
    /// Whether connections may be opened here.
    pub(crate) transports: bool,
}

/// The way back to HTTP for a socket that was taken over.
pub(crate) struct Back {
    peer: SocketAddr,
    door: Door,
}

/// How long a socket that was taken in last of all may take to its first byte: whoever connects for a request sends it at once.
const LAST_FIRST_BYTE: Duration = Duration::from_millis(250);

/// Accepts sockets until nobody new is to be taken in. Who had come by then, as far as the kernel knows, is served.
pub(crate) async fn run(reactor: Rc<Reactor>, listener: TcpListener, door: Door) {
    let mut untold = 0u64;
    let mut told: Option<Instant> = None;
    // Operators come in at any time.
    let per_second = if door.transports { reactor.node.settings.accepts_per_second } else { 0 };
    let mut pace = Pace::new(per_second, reactor.node.hub.shards().len(), Instant::now());
    loop {
        if let Some(wait) = pace.wait(Instant::now()) {
            reactor.node.metrics.accept_pauses.inc();
            let waited = reactor.shut.run_until_cancelled(tokio::time::sleep(wait)).await;
            if waited.is_none() {
                break;
            }
        }
        let Some(accepted) = reactor.shut.run_until_cancelled(listener.accept()).await else { break };
        pace.accepted(Instant::now());
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer was gone already. The pause keeps a full table from spinning the thread, and
                // once in a second is enough to be told of it.
                reactor.node.metrics.accepts_failed.inc();
                untold += 1;
                if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
                    tracing::warn!(%error, times = untold, "sockets could not be accepted");
                    (untold, told) = (0, Some(Instant::now()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        admit(&reactor, &door, socket, peer);
    }
    // A proxy whose connection the kernel has taken has sent its request already; with the listener it would be thrown away.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((socket, peer)) = listener.accept() {
        if let Ok(socket) = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
            admit(&reactor, &door, socket, peer);
        }
    }
}

fn admit(reactor: &Rc<Reactor>, door: &Door, socket: TcpStream, peer: SocketAddr) {
    let guard = if door.transports { &reactor.node.guard } else { &reactor.node.admin_guard };
    match guard.admit(peer.ip()) {
        Ok(permit) => {
            tokio::task::spawn_local(serve(reactor.clone(), socket, peer, door.clone(), permit));
        }
        Err(turned) => reactor.node.metrics.turned_away(turned),
    }
}

async fn serve(reactor: Rc<Reactor>, socket: TcpStream, peer: SocketAddr, door: Door, permit: Permit) {
    if prepare(&socket, reactor.node.settings.tcp_user_timeout_ms).is_err() {
        return;
    }
    // Its request may be on the way.
    let unfinished = reactor.unfinished();
    let first_bytes = Duration::from_millis(reactor.node.settings.first_byte_ms);
    let version = tokio::select! {
        version = tokio::time::timeout(first_bytes, version(&socket)) => version.ok().flatten(),
        () = async { reactor.last.cancelled().await; tokio::time::sleep(LAST_FIRST_BYTE).await } => None,
    };
    match version {
        Some(Version::HTTP_2) => Box::pin(http2::serve(reactor, socket, peer, door, permit)).await,
        Some(_) => serve_http1(reactor, Replayed { early: Bytes::new(), socket }, peer, door, permit).await,
        None => {}
    }
    drop(unfinished);
}

/// Which HTTP is spoken, by the first bytes; they stay where they are. Nothing for a peer that is gone.
async fn version(socket: &TcpStream) -> Option<Version> {
    let mut first = [0; PREFACE.len()];
    loop {
        let n = socket.peek(&mut first).await.ok().filter(|n| *n > 0)?;
        if first[..n] != PREFACE[..n] {
            return Some(Version::HTTP_11);
        }
        if n == PREFACE.len() {
            return Some(Version::HTTP_2);
        }
        // A preface in pieces, or the first letter of a POST: nothing tells when there is more to peek at than before.
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}

/// Serves a socket further that a connection has given back after a whole answer. `early` are bytes of the next request.
pub(crate) fn take_back(reactor: Rc<Reactor>, socket: TcpStream, early: Bytes, back: Back, permit: Permit) {
    let socket = Replayed { early, socket };
    tokio::task::spawn_local(serve_http1(reactor, socket, back.peer, back.door, permit));
}

async fn serve_http1(reactor: Rc<Reactor>, socket: Replayed, peer: SocketAddr, door: Door, permit: Permit) {
    let settings = &reactor.node.settings;
    let opened = Rc::new(Cell::new(None));
    let service = {
        let (reactor, door, opened) = (reactor.clone(), door.clone(), opened.clone());
        service_fn(move |request| {
            let (reactor, door, opened) = (reactor.clone(), door.clone(), opened.clone());
            // Boxed: an answer is short, and its size would stay with the connection.
            Box::pin(answer(reactor, door, request, peer, opened))
        })
    };
    // Its requests are answered before the thread ends.
    let unfinished = reactor.unfinished();
    let stop = reactor.last.clone();
    let mut leaving = stop.is_cancelled();
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(!leaving)
        .header_read_timeout(Duration::from_millis(settings.head_ms))
        .max_buf_size(settings.head_bytes_max.max(8_192))
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut stopped = pin!(stop.cancelled());
    let served = std::future::poll_fn(|context| {
        if !leaving && stopped.as_mut().poll(context).is_ready() {
            leaving = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(context)
    });
    let served = served.await;
    drop(unfinished);
    let parts = connection.into_parts();
    let Replayed { early, socket } = parts.io.into_inner();
    if let Some(opening) = opened.take() {
        let early = if early.is_empty() { parts.read_buf } else { [parts.read_buf, early].concat().into() };
        let back = opening.keeps_socket().then(|| Box::new(Back { peer, door }));
        let taken = Taken { socket: Socket::Tcp(socket), early, permit: Some(permit), back };
        // A task of its own: this one is as large as an HTTP connection.
        connection::start(reactor, taken, opening);
        return;
    }
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a socket ended early");
    }
    // Not before everything is sent, which dropping it at once could cut off.
    let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
}

/// Small frames leave at once, and a peer that vanished is found although nothing is read from it.
fn prepare(socket: &TcpStream, user_timeout_ms: u64) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_millis(user_timeout_ms)))?;
    socket.set_keepalive(true)
}

/// The request has opened a connection: the socket leaves HTTP, and nobody answers here.
#[derive(Debug, thiserror::Error)]
#[error("the socket was taken over")]
struct TakenOver;

async fn answer(
    reactor: Rc<Reactor>,
    door: Door,
    request: Request<Incoming>,
    peer: SocketAddr,
    opened: Rc<Cell<Option<Box<Opening>>>>,
) -> Result<Response<Body>, TakenOver> {
    let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
    match decide(&reactor, &door, request, peer).await {
        Decision::Answer(mut response) => {
            if reactor.node.is_stopping() {
                // The next request is another node's.
                response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            Ok(response)
        }
        Decision::Open(opening) => {
            opened.set(Some(opening));
            Err(TakenOver)
        }
    }
}

/// What comes of a request.
pub(crate) enum Decision {
    /// An answer.
    Answer(Response<Body>),
    /// A connection, which answers for itself.
    Open(Box<Opening>),
}

/// Lets a request in under a name, and asks whom it is for: the routes, or the transports.
pub(crate) async fn decide(reactor: &Rc<Reactor>, door: &Door, request: Request<Body>, peer: SocketAddr) -> Decision {
    let id = RequestId::of(&reactor.node, request.headers());
    let span = tracing::info_span!("request", %id);
    let mut decision = decide_named(reactor, door, request, peer).instrument(span).await;
    match &mut decision {
        Decision::Answer(response) => id.put(response),
        Decision::Open(opening) => opening.named(&id),
    }
    decision
}

async fn decide_named(reactor: &Rc<Reactor>, door: &Door, request: Request<Body>, peer: SocketAddr) -> Decision {
    let (guard, settings) = (&reactor.node.guard, &reactor.node.settings);
    let visitor = guard.visitor(peer.ip(), request.headers());
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        // RFC 9112, section 3.2: who is meant must not depend on who reads it.
        return Decision::Answer(plain(StatusCode::BAD_REQUEST, "one Host header, please"));
    }
    // The rate is for strangers: a server program has shown its key, and speaks for many.
    let is_ours = || request.uri().path().starts_with("/api/") && routes::has_key(&reactor.node, request.headers());
    if door.transports && !is_ours() && guard.request(visitor).is_err() {
        if request.uri().path() == opening::EVENTS {
            let later = events::come_later(&reactor.node, request.headers(), CloseCode::TooManyRequests);
            return Decision::Answer(later);
        }
        return Decision::Answer(plain(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"));
    }
    let (parts, body) = request.into_parts();
    let (arrival, body) = Arrival::watch(body);
    let mut request = Request::from_parts(parts, body);
    if door.transports && opening::is_transport(request.uri().path()) {
        return match in_time(&reactor.stop, settings, &arrival, opening::open(&reactor.node, request)).await {
            Ok(Ok(opening)) => Decision::Open(Box::new(opening)),
            Ok(Err(refusal)) => Decision::Answer(*refusal),
            Err(Late::Server) => Decision::Answer(Late::Server.answer()),
            Err(Late::Request) => {
                Decision::Answer(plain(StatusCode::REQUEST_TIMEOUT, "the request did not come in time"))
            }
        };
    }
    request.extensions_mut().insert(Remote(visitor));
    Decision::Answer(match in_time(&reactor.stop, settings, &arrival, door.router.clone().oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(late) => late.answer(),
    })
}

/// Why a request is not worked on any longer.
enum Late {
    /// Its own time is over.
    Request,
    /// The server goes down, and the rest of its body does not come.
    Server,
}

impl Late {
    fn answer(&self) -> Response<Body> {
        let text = match self {
            Self::Request => "the request took too long",
            Self::Server => "the server is going down and has not got all of the request; try again soon",
        };
        plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

/// Works on a request for as long as it may take.
async fn in_time<T>(
    stop: &CancellationToken,
    settings: &ServerSettings,
    arrival: &Arrival,
    work: impl Future<Output = T>,
) -> Result<T, Late> {
    let stays_away = async {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_millis(settings.drain_body_ms)).await;
        // Nothing was carried out of one whose body is still waited for; all others are worked on to their end. It is the work that
        // asks for the body, and this is looked at whenever the work has gone on.
        poll_fn(|_| if arrival.is_awaited() { Poll::Ready(()) } else { Poll::Pending }).await;
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = stays_away => Err(Late::Server),
        () = tokio::time::sleep(Duration::from_millis(settings.request_ms)) => Err(Late::Request),
    }
}

/// An answer in plain text; one that asks to come again says when.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("2"));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// A request's body that does not come, and whether it is waited for.
    fn never() -> (Arrival, Body) {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        Arrival::watch(Body::new(http_body_util::StreamBody::new(frames)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_down_waits_for_work_and_not_for_bodies() {
        let settings = ServerSettings { drain_body_ms: 2_000, request_ms: 30_000, ..ServerSettings::default() };
        let stop = CancellationToken::new();
        stop.cancel();
        let takes = |ms| tokio::time::timeout(Duration::from_millis(ms), std::future::pending::<()>());
        // As a logout: what was sent with it is not looked at, and may be there or not.
        let (arrival, body) = never();
        let work = async {
            let _ = takes(5_000).await;
            drop(body);
            "done"
        };
        assert_eq!(in_time(&stop, &settings, &arrival, work).await.ok(), Some("done"));
        // Whoever asks for it late does not wait for it either.
        for late_ms in [0, 5_000] {
            let (arrival, body) = never();
            let began = tokio::time::Instant::now();
            let work = async {
                let _ = takes(late_ms).await;
                drop(body.collect().await);
            };
            let cut = in_time(&stop, &settings, &arrival, work).await;
            assert!(matches!(cut, Err(Late::Server)), "{late_ms}");
            assert_eq!(began.elapsed(), Duration::from_millis(late_ms.max(2_000)));
        }
    }
}
