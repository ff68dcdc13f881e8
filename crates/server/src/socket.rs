//! What a connection's bytes leave and come by: a socket of its own, or one stream of a socket that speaks HTTP/2.
//!
//! The reactor writes here and the connection's loop waits here, without knowing which of the two it is. The socket is
//! the hot path: one match stands between it and the system call.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read};
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::http2::Stream;
use crate::transport::head::Head;

/// Where a peer's bytes go.
pub(crate) enum Socket {
    /// A socket that belongs to one connection.
    Tcp(TcpStream),
    /// A stream of a socket that belongs to many. Boxed: the others need not be as large.
    Stream(Box<Stream>),
}

impl Socket {
    /// Answers the request that opened the connection. What comes back is to be written before everything else.
    pub(crate) fn answer(&self, head: &Head) -> Bytes {
        match self {
            Self::Tcp(_) => head.http1(),
            Self::Stream(stream) => {
                stream.answer(head);
                Bytes::new()
            }
        }
    }

    /// Somebody has said who they are here. A socket of its own knows it by its permit.
    pub(crate) fn known(&self) {
        match self {
            Self::Tcp(_) => {}
            Self::Stream(stream) => stream.place().known(),
        }
    }

    /// Takes what has come. 0 is the peer's end.
    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => try_read(socket, into),
            Self::Stream(stream) => stream.try_read(into),
        }
    }

    /// Hands bytes on as far as there is room for them now.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(socket), [one]) => socket.try_write(one),
            (Self::Tcp(socket), several) => socket.try_write_vectored(several),
            (Self::Stream(stream), slices) => stream.try_write(slices),
        }
    }

    /// Whether something has come, the end too. One task waits for a socket, so that nothing is kept for a waiting one but its waker.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(context),
            Self::Stream(stream) => stream.poll_readable(context).map(Ok),
        }
    }

    /// Whether there may be room again.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(context),
            Self::Stream(stream) => stream.poll_writable(context),
        }
    }

    /// Waits until something has come, the end too.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    /// Waits until there may be room again.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_writable(context)).await
    }

    /// Says that nothing more will be sent, after everything that was written.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket).shutdown(std::net::Shutdown::Write),
            Self::Stream(stream) => stream.shut_down(),
        }
    }
}

/// Reads without a second call that would only say that there is nothing more: a buffer that is not filled says so already, where
/// the system tells of what is new alone (epoll and kqueue, as tokio uses them).
fn try_read(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut drained = 0;
    let read = socket.try_io(Interest::READABLE, || {
        let n = (&*SockRef::from(socket)).read(into)?;
        if n == 0 || n == into.len() {
            return Ok(n);
        }
        drained = n;
        Err(io::ErrorKind::WouldBlock.into())
    });
    if drained > 0 { Ok(drained) } else { read }
}
