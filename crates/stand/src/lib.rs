//! Real servers for tests and for the fault suite: each in a folder of its own, on a free port of the loopback address,
//! killed when its value is dropped.
//!
//! Nothing here is skipped: a program that the machine lacks is a panic that names its Debian package. Tests kill, stop
//! and restart what they have started here, by its process id, and nothing else.

pub mod nats;
pub mod postgres;
pub mod process;
pub mod rabbitmq;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinel;
pub mod redis_tls;

use std::net::TcpListener;

/// A port of the loopback address that nobody listens on now.
///
/// # Panics
/// When the system has none.
#[must_use]
pub fn free_port() -> u16 {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    free.expect("the loopback address has a free port").port()
}
