//! A proxy before a server that can swallow what the server says: sockets that stay open and tell nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;

pub(super) struct Proxy {
    port: u16,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    connections: Mutex<Vec<Arc<Connection>>>,
    new_ones_are_mute: AtomicBool,
}

#[derive(Default)]
struct Connection {
    has_subscribed: AtomicBool,
    is_mute: AtomicBool,
    /// The next that the server says is swallowed, and the connection ends.
    is_to_be_cut: AtomicBool,
}

impl Proxy {
    pub(super) fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner::default());
        let accepting = inner.clone();
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let connection = Arc::new(Connection::default());
                connection.is_mute.store(accepting.new_ones_are_mute.load(Ordering::Relaxed), Ordering::Relaxed);
                accepting.connections.lock().push(connection.clone());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let asking = connection.clone();
                thread::spawn(move || {
                    pass(from, to, |bytes| {
                        if bytes.windows(9).any(|word| word == b"SUBSCRIBE") {
                            asking.has_subscribed.store(true, Ordering::Relaxed);
                        }
                        true
                    });
                });
                let _ = thread::spawn(move || {
                    let cut = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    pass(server, client, |_| {
                        let is_cut = connection.is_to_be_cut.load(Ordering::Relaxed);
                        if is_cut {
                            let _ = (cut.0.shutdown(Shutdown::Both), cut.1.shutdown(Shutdown::Both));
                        }
                        !is_cut && !connection.is_mute.load(Ordering::Relaxed)
                    });
                });
            }
        });
        Self { port, inner }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on those connections tell nothing that have subscribed to something.
    pub(super) fn mute_those_who_subscribed(&self) {
        for connection in self.inner.connections.lock().iter() {
            if connection.has_subscribed.load(Ordering::Relaxed) {
                connection.is_mute.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The connections for commands that stand now end with the next answer, which nobody hears.
    pub(super) fn lose_the_next_answer(&self) {
        for connection in self.inner.connections.lock().iter() {
            if !connection.has_subscribed.load(Ordering::Relaxed) {
                connection.is_to_be_cut.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Connections that are made from now on tell nothing.
    pub(super) fn mute_all_from_now_on(&self) {
        self.inner.new_ones_are_mute.store(true, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 16_384];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || passes(&buffer[..count]) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
