//! What a connection's bytes leave and come by: a socket of its own, or one stream of a socket that speaks HTTP/2.
//!
//! The reactor writes here and the connection's loop waits here, without knowing which of the two it is. The socket is
//! the hot path: one match stands between it and the system call.

use std::io::{self, IoSlice};

use bytes::Bytes;
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
            Self::Tcp(socket) => socket.try_read(into),
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

    /// Waits until something has come, the end too.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Stream(stream) => {
                stream.readable().await;
                Ok(())
            }
        }
    }

    /// Waits until there may be room again.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.writable().await,
            Self::Stream(stream) => stream.writable().await,
        }
    }

    /// Says that nothing more will be sent, after everything that was written.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write),
            Self::Stream(stream) => stream.shut_down(),
        }
    }
}
