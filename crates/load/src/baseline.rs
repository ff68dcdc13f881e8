//! The baseline: the least that a server can do for the same deliveries, in a process of its own. One thread, one epoll, plain
//! sockets; each frame that comes by the control connection is written once to every other.
//!
//! What it leaves out is what a real server is for: a protocol, queues, order, limits. A socket that is full ends it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::error::LoadError;
use crate::sockets::GREETING;

const LISTENER: Token = Token(usize::MAX);
/// The first connection is the control.
const CONTROL: Token = Token(0);

/// Longer frames are a mistake.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// How long the child may take to listen, and to end.
const CHILD_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the bare server until the control connection ends.
///
/// # Errors
/// If a socket fails, or is full.
pub fn serve() -> io::Result<()> {
    let listen = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(4_096)?;
        Ok::<_, io::Error>(TcpListener::from_std(socket.into()))
    };
    let mut listener = listen()?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sockets: Vec<TcpStream> = Vec::new();
    let mut events = Events::with_capacity(1_024);
    let mut control: Vec<u8> = Vec::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut sockets)?,
                CONTROL => {
                    let goes_on = read(&mut sockets[0], &mut control)?;
                    spread(&mut control, &mut sockets[1..])?;
                    if !goes_on {
                        return Ok(());
                    }
                }
                // Readers say nothing. One that has gone is noticed when it is written to.
                Token(_) => {}
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, sockets: &mut Vec<TcpStream>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut socket, _)) => {
                socket.set_nodelay(true)?;
                poll.registry().register(&mut socket, Token(sockets.len()), Interest::READABLE)?;
                if !sockets.is_empty() {
                    socket.write_all(&GREETING)?;
                }
                sockets.push(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Reads everything that is there. Says whether more may come.
fn read(socket: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut part = [0; 65_536];
    loop {
        match socket.read(&mut part) {
            Ok(0) => return Ok(false),
            Ok(n) => into.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Writes every whole frame (four bytes of length, then the bytes) to every socket.
fn spread(control: &mut Vec<u8>, sockets: &mut [TcpStream]) -> io::Result<()> {
    let mut used = 0;
    while let Some((length, after)) = control[used..].split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other("a frame that is too long"));
        }
        let Some(frame) = after.get(..length) else { break };
        for socket in &mut *sockets {
            // A reader that is gone has nothing coming; one that is full makes the comparison void.
            match socket.write(frame) {
                Ok(n) if n == frame.len() => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
                Ok(_) => return Err(io::Error::other("a reader's socket is full")),
                Err(error) => return Err(error),
            }
        }
        used += 4 + length;
    }
    control.drain(..used);
    Ok(())
}

/// A baseline server under our command.
#[derive(Debug)]
pub struct Baseline {
    child: Child,
    control: Option<std::net::TcpStream>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Baseline {
    /// Starts it as a child of this process.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start() -> Result<Self, LoadError> {
        let start = || {
            let mut command = Command::new(std::env::current_exe()?);
            let child = command.arg("baseline").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            // From here on the child is ended whatever fails.
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut baseline = Self { child, control: None, address };
            let mut line = String::new();
            let stdout = baseline.child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
            BufReader::new(stdout).read_line(&mut line)?;
            baseline.address = line.trim().parse().map_err(io::Error::other)?;
            let control = std::net::TcpStream::connect_timeout(&baseline.address, CHILD_DEADLINE)?;
            control.set_nodelay(true)?;
            control.set_write_timeout(Some(CHILD_DEADLINE))?;
            baseline.control = Some(control);
            Ok(baseline)
        };
        start().map_err(LoadError::io("starting the baseline server"))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has frames written to every reader, each by writes of its own.
    ///
    /// # Errors
    /// If it is gone.
    pub fn publish<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> Result<(), LoadError> {
        let mut bytes = Vec::new();
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        let Some(control) = &mut self.control else { return Ok(()) };
        control.write_all(&bytes).map_err(LoadError::io("telling the baseline server"))
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // It ends with its control connection; if it does not, it is made to.
        self.control = None;
        let deadline = Instant::now() + CHILD_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
