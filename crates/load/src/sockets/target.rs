//! Where connections go and what they are for: options in; a socket that is being connected out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

/// How readers are connected. Who publishes speaks the native protocol over WebSocket, whatever the readers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The native protocol in JSON over WebSocket.
    WebSocketJson,
    /// The native protocol in JSON lines over HTTP streaming.
    HttpStream,
    /// The native protocol in JSON over Server-Sent Events.
    EventStream,
    /// Plain events.
    Events,
    /// Long polls, one after the other on one socket.
    Poll,
    /// Frames and nothing else, from the baseline server.
    Bare,
}

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub server: SocketAddr,
    /// Where those who only publish connect, if that is another node.
    pub publish_to: Option<SocketAddr>,
    /// What readers speak.
    pub transport: Transport,
    /// Shown by every connection.
    pub token: Option<String>,
    /// Shown with `POST /api/publish`.
    pub api_key: Option<String>,
    /// How many loopback addresses connections come from, from 127.0.0.2 up.
    pub sources: u8,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Subscribes to the channel of a ledger, by index; over WebSocket it may publish too.
    Reader {
        /// Which.
        ledger: usize,
    },
    /// Publishes over the native protocol.
    Speaker,
    /// Publishes by `POST /api/publish`.
    Api,
    /// Carries the answers to pings of connections that flow one way.
    Poster,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The end of the run whatever happens.
    pub deadline: Instant,
    /// The run's whole time, for people.
    pub deadline_s: u64,
    /// The longest time in which nothing that is waited for comes.
    pub stall: Duration,
}

/// Begins to connect, from the loopback address of this number if the server is on loopback.
pub(super) fn dial(target: &Target, role: Role, source: u8) -> io::Result<TcpStream> {
    let server = match role {
        Role::Speaker | Role::Api => target.publish_to.unwrap_or(target.server),
        Role::Reader { .. } | Role::Poster => target.server,
    };
    let domain = socket2::Domain::for_address(server);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let IpAddr::V4(address) = server.ip()
        && address.is_loopback()
        && target.sources > 0
    {
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2 + source), 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
