//! HTTP/2: one socket, many streams; each is answered as a request, or becomes a connection of its own.
//!
//! [`crate::accept`] gives a socket here when it begins with the preface (prior knowledge; ALPN will lead here too). The
//! socket counts once among sockets and strangers, however many streams it has. Streams live on the socket's thread:
//! a request is a short task ([`answer`]); a connection writes into its stream directly ([`stream`]).

mod answer;
mod stream;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub(crate) use self::stream::Stream;
use crate::accept::Door;
use crate::reactor::Reactor;
use crate::settings::ServerSettings;
use crate::transport::guard::Permit;

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams that may fill their windows before the whole socket has to wait: one that is not listened to is not to stop
/// the others.
const STREAM_WINDOWS: usize = 4;

/// The time over which resets are counted.
const RESETS_WITHIN: Duration = Duration::from_secs(10);

/// A socket that speaks HTTP/2, as its streams know it.
pub(crate) struct Shared {
    peer: SocketAddr,
    door: Door,
    permit: RefCell<Permit>,
    open: Cell<usize>,
    /// A stream has ended, or there were too many resets.
    changed: Notify,
    resets_max: u32,
    resets: Cell<u32>,
    resets_since: Cell<Instant>,
}

/// A stream's place on its socket, given back when dropped.
pub(crate) struct OpenStream(Rc<Shared>);

impl OpenStream {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        Self(shared.clone())
    }

    /// Somebody has said who they are on this stream: its socket is no stranger's.
    pub(crate) fn known(&self) {
        self.0.permit.borrow_mut().known();
    }

    /// The peer has taken back what it asked for on this stream.
    fn was_reset(&self) {
        let shared = &self.0;
        if shared.resets_since.get().elapsed() > RESETS_WITHIN {
            shared.resets_since.set(Instant::now());
            shared.resets.set(0);
        }
        shared.resets.set(shared.resets.get() + 1);
        if shared.flooded() {
            shared.changed.notify_one();
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.changed.notify_one();
        }
    }
}

impl Shared {
    fn flooded(&self) -> bool {
        self.resets.get() > self.resets_max
    }
}

/// Serves a socket to its end.
pub(crate) async fn serve<T>(reactor: Rc<Reactor>, io: T, peer: SocketAddr, door: Door, permit: Permit)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &reactor.node.settings;
    let handshake = builder(settings).handshake(io);
    let Ok(Ok(mut connection)) = timeout(Duration::from_millis(settings.head_ms), handshake).await else { return };
    let shared = Rc::new(Shared {
        peer,
        door,
        permit: RefCell::new(permit),
        open: Cell::new(0),
        changed: Notify::new(),
        resets_max: settings.stream_resets_max,
        resets: Cell::new(0),
        resets_since: Cell::new(Instant::now()),
    });
    let _counted = reactor.unfinished();
    carry(&reactor, &mut connection, &shared).await;
}

/// What the peer may do on one socket.
fn builder(settings: &ServerSettings) -> Builder {
    let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).min((1 << 31) - 1);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(bytes(settings.head_bytes_max))
        .initial_window_size(bytes(settings.stream_window_bytes))
        .initial_connection_window_size(bytes(settings.stream_window_bytes.saturating_mul(STREAM_WINDOWS)))
        .max_send_buffer_size(settings.stream_buffer_bytes.max(1))
        .enable_connect_protocol();
    builder
}

/// Takes streams and moves bytes, until the peer leaves, nothing happens for too long, or the server stops.
async fn carry<T>(reactor: &Rc<Reactor>, connection: &mut Connection<T, Bytes>, shared: &Rc<Shared>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &reactor.node.settings;
    let (idle, close) = (Duration::from_millis(settings.head_ms), Duration::from_millis(settings.close_ms));
    let mut deadline = std::pin::pin!(tokio::time::sleep(idle));
    let (mut leaving, mut flooded) = (false, false);
    loop {
        // While streams are open each has its own deadlines.
        let timed = flooded || shared.open.get() == 0;
        tokio::select! {
            biased;
            () = reactor.stop.cancelled(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                deadline.as_mut().reset(Instant::now() + close);
            }
            () = shared.changed.notified() => {
                if shared.flooded() && !flooded {
                    (leaving, flooded) = (true, true);
                    reactor.node.metrics.http2_floods.inc();
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                deadline.as_mut().reset(Instant::now() + if leaving { close } else { idle });
            }
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => answer::begin(reactor, shared, request, respond),
                Some(Err(error)) => {
                    if !flooded && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        reactor.node.metrics.http2_floods.inc();
                    }
                    tracing::debug!(peer = %shared.peer, %error, "a socket ended early");
                    return;
                }
                None => return,
            },
            () = deadline.as_mut(), if timed => {
                if leaving {
                    return;
                }
                leaving = true;
                connection.graceful_shutdown();
                deadline.as_mut().reset(Instant::now() + close);
            }
        }
    }
}
