//! The server's settings and limits, each with its unit in its name and what happens beyond it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use talewire_auth::Secret;

use crate::network::Network;

/// Settings of sockets and HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Where people and programs connect.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/health` and `/ready` stand: loopback unless an operator says otherwise. Port 0 chooses a free one.
    pub admin_listen: SocketAddr,
    /// Threads that carry connections, one hub shard each; 0 for one per core.
    pub shards: usize,
    /// Connections waiting to be accepted, per listener; the kernel drops what is beyond.
    pub backlog: u32,
    /// Sockets accepted in a second by all threads together; what comes faster waits in the kernel's queue (`http.backlog`). 0 for no limit.
    pub accepts_per_second: u32,
    /// Open sockets of this process; one more is closed at once.
    pub sockets_max: usize,
    /// Open sockets from one IP address (of IPv6, from one network of 64 bits, here and below); one more is closed at once.
    pub sockets_per_ip_max: usize,
    /// Connections of one user, on all transports; one more is closed with 3504. The anonymous are counted by address alone.
    pub connections_per_user_max: u32,
    /// Sockets on which nobody has said who they are; one more is closed at once.
    pub strangers_max: usize,
    /// The same from one IP address; one more is closed at once.
    pub strangers_per_ip_max: usize,
    /// Addresses and networks (`10.0.0.0/8`) of proxies in front: their `X-Forwarded-For` is believed (its last entry), and limits per address are for whom it names.
    pub trusted_proxies: Vec<Network>,
    /// Time to the first byte of a new socket, in milliseconds; then it is closed.
    pub first_byte_ms: u64,
    /// Time for the head of a request, also the idle time between requests, in milliseconds; then it is closed.
    pub head_ms: u64,
    /// Time for a whole request with its answer, in milliseconds; then 503.
    pub request_ms: u64,
    /// Largest head of a request, in bytes; beyond it 431.
    pub head_bytes_max: usize,
    /// Largest body of a request, in bytes; beyond it 413.
    pub body_bytes_max: usize,
    /// Open streams of one HTTP/2 socket; one more is refused.
    pub streams_max: u32,
    /// Streams of one HTTP/2 socket that its peer takes back within ten seconds; one more closes the socket.
    pub stream_resets_max: u32,
    /// Bytes that a peer may send on one HTTP/2 stream before they are taken, and a quarter of those on all streams of its socket; beyond it the peer has to wait.
    pub stream_window_bytes: usize,
    /// Bytes that one HTTP/2 stream holds for its peer beside what waits in the outbox; beyond it the outbox has to wait.
    pub stream_buffer_bytes: usize,
    /// Time that data may stay unacknowledged by the peer's TCP, in milliseconds; then the socket is dead (Linux).
    pub tcp_user_timeout_ms: u64,
    /// Guest logins from one IP address at once before the rate applies; beyond it 429.
    pub login_burst: u32,
    /// Guest logins from one IP address per minute in the long run; beyond it 429.
    pub logins_per_minute: u32,
    /// Requests from one IP address at once before the rate applies; beyond it 429.
    pub request_burst: u32,
    /// Requests from one IP address per second in the long run; beyond it 429.
    pub requests_per_second: u32,
    /// IP addresses whose rates are remembered; beyond it the oldest are forgotten.
    pub rates_kept_max: usize,
    /// Publishers whose rates are remembered; beyond it those go first who may publish at once again.
    pub publish_rates_kept_max: usize,
    /// Frames from `/emulation`, and orders and questions of server programs, that wait for one thread; beyond it 503.
    pub inbox_max: usize,
    /// Whether WebSocket messages are compressed for clients that offer it (permessage-deflate); sizes are in `hub`.
    pub compress_websockets: bool,
    /// Whether event streams and HTTP streaming are compressed for clients that say `Accept-Encoding: gzip`; about 5 µs a reader and write. Off, because whoever publishes into one channel of a reader and sees the lengths of what is sent can guess at the words of another.
    pub compress_streams: bool,
    /// Time for the other side of a close, in milliseconds; then the socket is closed hard.
    pub close_ms: u64,
    /// Time from a stopping server's red `/ready` until it closes the first connection, in milliseconds: as long as a load balancer needs to notice.
    pub drain_wait_ms: u64,
    /// Time over which a stopping server closes its connections, in milliseconds, so that other nodes do not get them all at once; a thousand a second go in any case.
    pub drain_spread_ms: u64,
    /// Time for the rest of a request's body when a stopping server has begun to close connections, in milliseconds; then 503 and the end of its socket.
    pub drain_body_ms: u64,
    /// Time for all of a stop, in milliseconds: both of these, and for connections to take what waits for them; then the rest is cut off.
    pub drain_ms: u64,
    /// Time for another node to answer a question, in milliseconds; then it counts as unheard, and a frame for it is refused (503).
    pub node_answer_ms: u64,
    /// Letters of other nodes that wait here, and questions to them under way; beyond it they are dropped and counted, or count as unheard.
    pub node_letters_max: usize,
    /// Largest answer to another node, in bytes; a larger one is not sent, and this node counts as unheard.
    pub letter_bytes_max: usize,
    /// Stories that are exported at the same time; one more is refused (503).
    pub exports_at_once_max: usize,
    /// Time for a reader to take a whole export, in milliseconds; then it is cut off.
    pub export_ms_max: u64,
    /// The key of server programs for `/api`; without one `/api` answers 404.
    pub api_key: Option<Secret>,
    /// Commands of a batch, channels of a broadcast and rows of a list in one request to `/api`; more are refused (106), or come
    /// with the next page.
    pub api_items_max: usize,
    /// Whether `/docs` shows and tries what `/openapi.json` describes; in development it does in any case.
    pub api_docs: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            shards: 0,
            backlog: 4_096,
            accepts_per_second: 0,
            sockets_max: 100_000,
            sockets_per_ip_max: 20_000,
            connections_per_user_max: 1_000,
            strangers_max: 10_000,
            strangers_per_ip_max: 512,
            trusted_proxies: Vec::new(),
            first_byte_ms: 10_000,
            head_ms: 10_000,
            request_ms: 30_000,
            head_bytes_max: 16_384,
            body_bytes_max: 262_144,
            streams_max: 128,
            stream_resets_max: 100,
            stream_window_bytes: 65_536,
            stream_buffer_bytes: 16_384,
            tcp_user_timeout_ms: 30_000,
            login_burst: 20,
            logins_per_minute: 10,
            request_burst: 200,
            requests_per_second: 50,
            rates_kept_max: 65_536,
            publish_rates_kept_max: 65_536,
            inbox_max: 4_096,
            compress_websockets: true,
            compress_streams: false,
            close_ms: 5_000,
            drain_wait_ms: 0,
            drain_spread_ms: 10_000,
            drain_body_ms: 2_000,
            drain_ms: 25_000,
            node_answer_ms: 2_000,
            node_letters_max: 1_024,
            letter_bytes_max: 4_194_304,
            exports_at_once_max: 4,
            export_ms_max: 60_000,
            api_key: None,
            api_items_max: 1_000,
            api_docs: false,
        }
    }
}
