//! The accept loop: sockets in, requests out to the router or upgraded to connections.
//!
//! Written over hyper because no ready-made loop closes a socket that says nothing: a deadline for the first byte, one for
//! each head, and caps on sockets stand before everything.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use talewire_proto::CloseCode;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::connection;
use crate::reactor::Reactor;
use crate::transport::events;
use crate::transport::guard::Permit;
use crate::transport::opening::{self, Opening};

/// Headers of one request; more are 431.
const HEADERS_MAX: usize = 64;

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

/// Accepts sockets until the listener is dropped with its task.
pub(crate) async fn run(reactor: Rc<Reactor>, listener: TcpListener, door: Door) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer was gone already. The pause keeps a full table from spinning the thread.
                tracing::warn!(%error, "a socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let guard = if door.transports { &reactor.node.guard } else { &reactor.node.admin_guard };
        match guard.admit(peer.ip()) {
            Ok(permit) => {
                tokio::task::spawn_local(serve(reactor.clone(), socket, peer, door.clone(), permit));
            }
            Err(turned) => reactor.node.metrics.turned_away(turned),
        }
    }
}

async fn serve(reactor: Rc<Reactor>, socket: TcpStream, peer: SocketAddr, door: Door, permit: Permit) {
    if prepare(&socket, reactor.node.settings.tcp_user_timeout_ms).is_err() {
        return;
    }
    let settings = &reactor.node.settings;
    let first_byte = Duration::from_millis(settings.first_byte_ms);
    match tokio::time::timeout(first_byte, socket.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        _ => return,
    }
    let opened = Rc::new(Cell::new(None));
    let service = {
        let (reactor, opened) = (reactor.clone(), opened.clone());
        service_fn(move |request| {
            let (reactor, door, opened) = (reactor.clone(), door.clone(), opened.clone());
            // Boxed: an answer is short, and its size would stay with the connection.
            Box::pin(answer(reactor, door, request, peer, opened))
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.head_ms))
        .max_buf_size(settings.head_bytes_max.max(8_192))
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let served = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let parts = connection.into_parts();
    let socket = parts.io.into_inner();
    if let Some(opening) = opened.take() {
        // A task of its own: this one is as large as an HTTP connection.
        tokio::task::spawn_local(connection::run(reactor, socket, parts.read_buf, opening, permit));
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
    mut request: Request<Incoming>,
    peer: SocketAddr,
    opened: Rc<Cell<Option<Box<Opening>>>>,
) -> Result<Response<Body>, TakenOver> {
    let guard = &reactor.node.guard;
    let visitor = guard.visitor(peer.ip(), request.headers());
    if door.transports && guard.request(visitor).is_err() {
        if request.uri().path() == opening::EVENTS {
            return Ok(events::come_later(&reactor.node, request.headers(), CloseCode::TooManyRequests));
        }
        return Ok(plain(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"));
    }
    let limit = Duration::from_millis(reactor.node.settings.request_ms);
    if door.transports && opening::is_transport(request.uri().path()) {
        return match tokio::time::timeout(limit, opening::open(&reactor.node, request)).await {
            Ok(Ok(opening)) => {
                opened.set(Some(Box::new(opening)));
                Err(TakenOver)
            }
            Ok(Err(refusal)) => Ok(*refusal),
            Err(_) => Ok(plain(StatusCode::REQUEST_TIMEOUT, "the request did not come in time")),
        };
    }
    request.extensions_mut().insert(Remote(visitor));
    match tokio::time::timeout(limit, door.router.oneshot(request.map(Body::new))).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(never)) => match never {},
        Err(_) => Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the request took too long")),
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
