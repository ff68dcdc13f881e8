//! The accept loop: sockets in, requests out to the router or upgraded to connections.
//!
//! Written over hyper because no ready-made loop closes a socket that says nothing: a deadline for the first byte, one for
//! each head, and caps on sockets stand before everything.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use talewire_auth::Credentials;
use talewire_proto::session::{Session, SessionStart};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::connection;
use crate::node::new_client;
use crate::reactor::Reactor;
use crate::routes::login_of;
use crate::transport::guard::Permit;
use crate::transport::websocket;

/// Headers of one request; more are 431.
const HEADERS_MAX: usize = 64;

/// Where a request came from, for routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

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
        match reactor.node.guard.admit(peer.ip()) {
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
    let permit = Rc::new(std::cell::RefCell::new(Some(permit)));
    let service = {
        let (reactor, permit) = (reactor.clone(), permit.clone());
        service_fn(move |request| {
            let (reactor, door, permit) = (reactor.clone(), door.clone(), permit.clone());
            async move { Ok::<_, Infallible>(answer(reactor, door, request, peer, permit).await) }
        })
    };
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.head_ms))
        .max_buf_size(settings.head_bytes_max.max(8_192))
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a socket ended early");
    }
}

/// Small frames leave at once, and a peer that vanished is found although nothing is read from it.
fn prepare(socket: &TcpStream, user_timeout_ms: u64) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_millis(user_timeout_ms)))?;
    socket.set_keepalive(true)
}

type SharedPermit = Rc<std::cell::RefCell<Option<Permit>>>;

async fn answer(
    reactor: Rc<Reactor>,
    door: Door,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    permit: SharedPermit,
) -> Response<Body> {
    if reactor.node.guard.request(peer.ip()).is_err() {
        return plain(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address");
    }
    if door.transports && request.uri().path() == "/connection/websocket" {
        return upgrade(reactor, &mut request, permit);
    }
    request.extensions_mut().insert(Remote(peer));
    let limit = Duration::from_millis(reactor.node.settings.request_ms);
    let answer = tokio::time::timeout(limit, door.router.oneshot(request.map(Body::new))).await;
    match answer {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the request took too long"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("2"));
    }
    response
}

/// Opens a WebSocket: the handshake's checks, the page it comes from, the login it shows; then the connection has the socket.
fn upgrade(reactor: Rc<Reactor>, request: &mut Request<Incoming>, permit: SharedPermit) -> Response<Body> {
    let node = reactor.node.clone();
    if node.is_stopping() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the server is going down; try again soon");
    }
    let accept = match websocket::handshake(request) {
        Ok(accept) => accept,
        Err((status, text)) => {
            let mut response = plain(status, text);
            if status == StatusCode::UPGRADE_REQUIRED {
                let headers = response.headers_mut();
                headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, http::HeaderValue::from_static("13"));
            }
            return response;
        }
    };
    let now = node.now();
    let login = login_of(&node, request.headers(), now.unix_ms);
    // A browser always says where a WebSocket comes from; programs that send no cookie need not.
    let credentials = if login.is_some() { Credentials::Cookie } else { Credentials::Explicit };
    let origins = request.headers().get_all(header::ORIGIN).into_iter().map(http::HeaderValue::as_bytes);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if let Err(refusal) = node.origins.check(origins, host, credentials) {
        tracing::info!(%refusal, "a WebSocket was refused for where it comes from");
        node.metrics.refused_origins.inc();
        return plain(StatusCode::FORBIDDEN, "this page may not connect here");
    }
    let Some(permit) = permit.take() else {
        return plain(StatusCode::BAD_REQUEST, "this socket was upgraded already");
    };
    let client = new_client();
    let seed = client.as_str().bytes().fold(0u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let start = SessionStart {
        client,
        login: login.map(|login| login.grant()),
        anonymous: node.anonymous,
        limits: node.limits.clone(),
        namespaces: node.namespaces.clone(),
        seed,
    };
    let session = Session::new(start, now);
    let upgraded = hyper::upgrade::on(request);
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("only such sockets are served");
        // The parts' read buffer is dropped with them: an idle connection keeps none.
        connection::run(reactor, parts.io.into_inner(), parts.read_buf, session, permit).await;
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept.key);
    if let Some(protocol) = accept.protocol {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response.body(Body::empty()).expect("these headers are plain ASCII")
}
