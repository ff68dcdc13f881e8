//! A TCP proxy in front of one server, with weather: it delays, cuts, resets, closes one side, or lets nothing through. The kernels
//! that we test on cannot do this by themselves without rights. It can also lie (see [`super::twist`]).

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::twist::{Liar, Twist};
use crate::clients::Door;

/// Connections of one proxy at once; further ones are closed.
const CONNECTIONS_MAX: u64 = 512;

/// What a client of Redis says that listens: `SUBSCRIBE` and `SSUBSCRIBE`.
const SUBSCRIBE: &[u8] = b"SUBSCRIBE\r\n";

/// How often a waiting connection looks at the weather.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weather {
    /// They go on at once.
    Clear,
    /// They come late, each read by so much and up to so much more.
    Slow {
        /// At least, in milliseconds.
        latency_ms: u64,
        /// At most so much more.
        jitter_ms: u64,
    },
    /// Nothing goes through, and nobody is told.
    BlackHole,
    /// Nothing comes through to those who listen to announcements of Redis; their connections stay, and all others are fine.
    Deaf,
    /// Open connections end as if both sides had closed them; new ones are fine.
    Cut,
    /// Open connections end with RST; new ones are fine.
    Reset,
    /// Of open connections, the side of the client is told that nothing more comes; what it says still goes through.
    HalfClosed,
}

#[derive(Debug)]
struct Sky {
    weather: Mutex<Weather>,
    /// Rises with every change: what happens once to each connection happens at the change.
    changes: AtomicU64,
    connections: AtomicU64,
    is_over: AtomicBool,
}

/// A running proxy; it ends with the value.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    sky: Arc<Sky>,
}

/// One direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    sky: Arc<Sky>,
    is_to_client: bool,
    /// Whether this connection has subscribed to anything.
    listens: Arc<AtomicBool>,
    twist: Option<Twist>,
}

impl Proxy {
    /// Stands in front of whoever the door leads to.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(door: Arc<Door>, liar: Option<Arc<Mutex<Liar>>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let sky = Arc::new(Sky {
            weather: Mutex::new(Weather::Clear),
            changes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let of_thread = sky.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(server) = door.direct() {
                    // Whoever comes when the server is gone finds a closed connection.
                    let _ = begin(client, server, &of_thread, liar.as_ref());
                }
            }
        });
        Ok(Self { address, sky })
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        *self.sky.weather.lock() = weather;
        self.sky.changes.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.sky.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn begin(client: TcpStream, server: SocketAddr, sky: &Arc<Sky>, liar: Option<&Arc<Mutex<Liar>>>) -> io::Result<()> {
    if sky.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        return Ok(());
    }
    // A black hole swallows the first words too: they wait here.
    let server = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_AGAIN))?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
    }
    let (client_2, server_2) = (client.try_clone()?, server.try_clone()?);
    let [said, heard] = liar.map_or([None, None], |liar| Twist::pair(liar).map(Some));
    let pump = |from, to, is_to_client, listens: &Arc<AtomicBool>, twist| {
        let (sky, listens) = (sky.clone(), listens.clone());
        Pump { from, to, sky, is_to_client, listens, twist }
    };
    let listens = Arc::new(AtomicBool::new(false));
    let up = pump(client, server, false, &listens, said);
    let down = pump(server_2, client_2, true, &listens, heard);
    sky.connections.fetch_add(1, Ordering::Relaxed);
    let counted = sky.clone();
    std::thread::spawn(move || {
        let other = std::thread::spawn(move || up.run());
        down.run();
        // It has nothing to say about how it ended.
        let _ = other.join();
        counted.connections.fetch_sub(1, Ordering::Relaxed);
    });
    Ok(())
}

impl Pump {
    fn run(mut self) {
        let mut seen = self.sky.changes.load(Ordering::Acquire);
        let mut part = vec![0; 16_384];
        loop {
            let changes = self.sky.changes.load(Ordering::Acquire);
            let weather = *self.sky.weather.lock();
            if self.sky.is_over.load(Ordering::Relaxed) || (changes != seen && self.strikes(weather)) {
                return self.end();
            }
            seen = changes;
            if self.holds(weather) {
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            match self.from.read(&mut part) {
                Ok(0) => {
                    let _ = self.to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(n) => {
                    // It may have become dark while this was read.
                    while self.holds(*self.sky.weather.lock()) && !self.sky.is_over.load(Ordering::Relaxed) {
                        std::thread::sleep(LOOK_AGAIN);
                    }
                    if let Weather::Slow { latency_ms, jitter_ms } = weather {
                        std::thread::sleep(Duration::from_millis(latency_ms + fastrand::u64(0..=jitter_ms)));
                    }
                    if self.forward(&part[..n]).is_err() {
                        return self.end();
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => return self.end(),
            }
        }
    }

    fn holds(&self, weather: Weather) -> bool {
        let is_deaf = weather == Weather::Deaf && self.is_to_client && self.listens.load(Ordering::Relaxed);
        is_deaf || weather == Weather::BlackHole
    }

    fn forward(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_to_client && bytes.windows(SUBSCRIBE.len()).any(|word| word == SUBSCRIBE) {
            self.listens.store(true, Ordering::Relaxed);
        }
        match &mut self.twist {
            None => self.to.write_all(bytes),
            Some(twist) => {
                let twisted = twist.feed(bytes);
                self.to.write_all(&twisted.on)?;
                if !twisted.back.is_empty() {
                    self.from.write_all(&twisted.back)?;
                }
                if twisted.ends { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
            }
        }
    }

    /// What the change of the weather does to an open connection; whether it ends it.
    fn strikes(&mut self, weather: Weather) -> bool {
        match weather {
            Weather::Cut => true,
            Weather::Reset => {
                for socket in [&self.from, &self.to] {
                    // Without it the connection ends in the usual way, which is a fault too.
                    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
                }
                // The other direction has to let go as well before the kernel says RST.
                true
            }
            Weather::HalfClosed if self.is_to_client => {
                let _ = self.to.shutdown(Shutdown::Write);
                true
            }
            _ => false,
        }
    }

    fn end(self) {
        let weather = *self.sky.weather.lock();
        if !matches!(weather, Weather::Reset | Weather::HalfClosed) {
            // It may be closed already.
            let _ = self.from.shutdown(Shutdown::Both);
            let _ = self.to.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything back, a proxy before it, and a connection through both.
    fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let door = Arc::new(Door::new("echo"));
        door.opened(server.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for socket in server.incoming().flatten() {
                std::thread::spawn(move || io::copy(&mut &socket, &mut &socket));
            }
        });
        let proxy = Proxy::start(door, None).expect("a free port");
        let client = TcpStream::connect(proxy.address).expect("it listens");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a good time");
        (proxy, client)
    }

    fn said_back(client: &mut TcpStream, word: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(word)?;
        let mut back = vec![0; word.len()];
        client.read_exact(&mut back)?;
        Ok(back)
    }

    #[test]
    fn bytes_go_through_in_clear_and_in_slow_weather() {
        let (proxy, mut client) = echo();
        assert_eq!(said_back(&mut client, b"one").expect("open"), b"one");
        proxy.set(Weather::Slow { latency_ms: 30, jitter_ms: 5 });
        assert_eq!(said_back(&mut client, b"warm").expect("open"), b"warm");
        let began = std::time::Instant::now();
        assert_eq!(said_back(&mut client, b"two").expect("open"), b"two");
        assert!(began.elapsed() >= Duration::from_millis(60), "both ways");
    }

    #[test]
    fn a_black_hole_holds_everything_and_gives_it_back() {
        let (proxy, mut client) = echo();
        assert_eq!(said_back(&mut client, b"one").expect("open"), b"one");
        proxy.set(Weather::BlackHole);
        client.set_read_timeout(Some(Duration::from_millis(200))).expect("a good time");
        assert!(said_back(&mut client, b"two").is_err());
        proxy.set(Weather::Clear);
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a good time");
        let mut back = [0; 3];
        client.read_exact(&mut back).expect("it was only held");
        assert_eq!(&back, b"two");
    }

    #[test]
    fn who_listens_is_deaf_and_others_are_not() {
        let (proxy, mut client) = echo();
        let mut other = TcpStream::connect(proxy.address).expect("it listens");
        assert_eq!(said_back(&mut client, b"$9\r\nSUBSCRIBE\r\n").expect("open"), b"$9\r\nSUBSCRIBE\r\n");
        proxy.set(Weather::Deaf);
        assert_eq!(said_back(&mut other, b"one").expect("it does not listen"), b"one");
        client.set_read_timeout(Some(Duration::from_millis(200))).expect("a good time");
        assert!(said_back(&mut client, b"two").is_err());
        proxy.set(Weather::Clear);
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a good time");
        let mut back = [0; 3];
        client.read_exact(&mut back).expect("it was only held");
        assert_eq!(&back, b"two");
    }

    #[test]
    fn connections_end_in_the_way_that_was_asked_for() {
        for (weather, is_reset) in [(Weather::Cut, false), (Weather::Reset, true), (Weather::HalfClosed, false)] {
            let (proxy, mut client) = echo();
            assert_eq!(said_back(&mut client, b"one").expect("open"), b"one");
            proxy.set(weather);
            let mut rest = Vec::new();
            let ended = client.read_to_end(&mut rest);
            assert_eq!(ended.is_err(), is_reset, "{weather:?}: {ended:?}");
            let mut next = TcpStream::connect(proxy.address).expect("it listens");
            next.set_read_timeout(Some(Duration::from_secs(10))).expect("a good time");
            assert_eq!(said_back(&mut next, b"two").expect("new ones are fine"), b"two");
        }
    }
}
