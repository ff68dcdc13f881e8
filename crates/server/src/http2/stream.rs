//! One HTTP/2 stream as a connection's socket: bytes of the outbox into its window, bytes of the peer out of it.
//!
//! Nothing is queued here beyond what the stream's own buffer holds ([`crate::ServerSettings::stream_buffer_bytes`]): a
//! peer that gives no window, or whose socket is full, leaves the rest in the outbox, where slow readers are dealt with.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::OpenStream;
use crate::transport::head::Head;

/// A stream on which a connection lives.
pub(crate) struct Stream {
    sending: RefCell<Sending>,
    /// What the peer sends; nothing for transports that flow one way, whose peer has said everything.
    receiving: Option<RefCell<Receiving>>,
    /// The peer has ended or reset the stream, or its socket is gone.
    ended: Cell<bool>,
    buffer_bytes: usize,
    place: OpenStream,
}

enum Sending {
    Unanswered(SendResponse<Bytes>),
    Answered(SendStream<Bytes>),
}

struct Receiving {
    stream: RecvStream,
    unread: Bytes,
}

impl Stream {
    pub(super) fn new(
        respond: SendResponse<Bytes>,
        receive: Option<RecvStream>,
        buffer_bytes: usize,
        place: OpenStream,
    ) -> Self {
        Self {
            sending: RefCell::new(Sending::Unanswered(respond)),
            receiving: receive.map(|stream| RefCell::new(Receiving { stream, unread: Bytes::new() })),
            ended: Cell::new(false),
            buffer_bytes,
            place,
        }
    }

    /// Whose place on the socket this stream takes.
    pub(crate) fn place(&self) -> &OpenStream {
        &self.place
    }

    /// Sends the head. A stream that the peer has reset meanwhile ends with the next look at it.
    pub(crate) fn answer(&self, head: &Head) {
        let mut sending = self.sending.borrow_mut();
        if let Sending::Unanswered(respond) = &mut *sending {
            match respond.send_response(head.http2(), false) {
                Ok(stream) => *sending = Sending::Answered(stream),
                Err(_) => self.ended.set(true),
            }
        }
    }

    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut sending = self.sending.borrow_mut();
        let Sending::Answered(stream) = &mut *sending else { return Err(io::ErrorKind::WouldBlock.into()) };
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        // Never more than can be used: what is reserved here is missing to the other streams of this socket.
        stream.reserve_capacity(offered.min(self.buffer_bytes));
        let room = stream.capacity().min(offered);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stream.send_data(gather(slices, room), false).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        // For the rest, so that the window's growth is told; nothing when all of it went.
        stream.reserve_capacity((offered - room).min(self.buffer_bytes));
        Ok(room)
    }

    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.sending.borrow_mut() {
            Sending::Answered(stream) if stream.capacity() > 0 => Poll::Ready(Ok(())),
            Sending::Answered(stream) => match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => Poll::Ready(Ok(())),
                Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => Poll::Pending,
            },
            // Whoever answers writes afterwards.
            Sending::Unanswered(_) => Poll::Pending,
        }
    }

    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.ended.get() {
            return Poll::Ready(());
        }
        let reset = match &mut *self.sending.borrow_mut() {
            Sending::Unanswered(respond) => respond.poll_reset(context),
            Sending::Answered(stream) => stream.poll_reset(context),
        };
        if let Poll::Ready(reason) = reset {
            self.ended.set(true);
            if reason.is_ok() {
                self.place.was_reset();
            }
            return Poll::Ready(());
        }
        let Some(receiving) = &self.receiving else { return Poll::Pending };
        let Receiving { stream, unread } = &mut *receiving.borrow_mut();
        while unread.is_empty() {
            match stream.poll_data(context) {
                Poll::Ready(Some(Ok(bytes))) => *unread = bytes,
                Poll::Ready(_) => {
                    self.ended.set(true);
                    break;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(receiving) = &self.receiving {
            let Receiving { stream, unread } = &mut *receiving.borrow_mut();
            let taken = unread.len().min(into.len());
            if taken > 0 {
                unread.copy_to_slice(&mut into[..taken]);
                // What is not taken stays in the window, so that a peer that is not listened to has to wait.
                let _ = stream.flow_control().release_capacity(taken);
                return Ok(taken);
            }
        }
        if self.ended.get() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(crate) fn shut_down(&self) -> io::Result<()> {
        if self.receiving.is_none() {
            // Both halves are over now, and what is buffered leaves with the socket: there is nothing to wait for.
            self.ended.set(true);
        }
        match &mut *self.sending.borrow_mut() {
            Sending::Answered(stream) => stream.send_data(Bytes::new(), true).map_err(io::Error::other),
            Sending::Unanswered(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// The first `room` bytes of the slices, as one piece: one frame costs less than sharing many small ones.
fn gather(slices: &[IoSlice<'_>], room: usize) -> Bytes {
    let mut gathered = BytesMut::with_capacity(room);
    for slice in slices {
        let left = room - gathered.len();
        gathered.extend_from_slice(&slice[..slice.len().min(left)]);
    }
    gathered.freeze()
}
