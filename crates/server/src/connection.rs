//! The life of one connection: the only loop that waits for its socket, whatever the transport.
//!
//! Frames go in to the session and outputs are carried out in [`perform`]; the outbox is written by the reactor, and here
//! only when the socket had been full.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use talewire_proto::CloseCode;
use talewire_proto::session::Session;
use talewire_proto::wire::websocket_close;
use tokio::net::TcpStream;

use crate::perform;
use crate::reactor::{Peer, Reactor};
use crate::transport::guard::Permit;
use crate::transport::websocket::{Event, Reader};

/// Runs a WebSocket connection to its end. `early` are bytes that came right behind the handshake.
pub(crate) async fn run(reactor: Rc<Reactor>, socket: TcpStream, early: Bytes, session: Session, mut permit: Permit) {
    let peer = reactor.add(socket, session);
    let mut reader = Box::new(Reader::new(reactor.node.limits.frame_bytes_max));
    if !early.is_empty() {
        take_in(&reactor, &peer, &mut reader, &early);
    }
    if wait_for_end(&reactor, &peer, &mut reader, &mut permit).await == End::Closing {
        // The peer may still be sending; closing at once would reset the connection and lose our close frame.
        let wait = Duration::from_millis(reactor.node.settings.close_ms);
        let _ = tokio::time::timeout(wait, linger(&reactor, &peer)).await;
    }
    reactor.remove(&peer);
}

/// Why a connection ends.
#[derive(PartialEq, Eq)]
enum End {
    /// The peer is gone, or does not take even our close frame.
    Gone,
    /// Our close frame is sent.
    Closing,
}

async fn wait_for_end(reactor: &Rc<Reactor>, peer: &Rc<Peer>, reader: &mut Reader, permit: &mut Permit) -> End {
    let mut give_up: Option<Pin<Box<tokio::time::Sleep>>> = None;
    loop {
        if peer.session.borrow().grant().is_some() {
            permit.known();
        }
        if peer.broken.get() {
            return End::Gone;
        }
        let closing = peer.closing.get();
        if closing && !peer.blocked.get() {
            return End::Closing;
        }
        let listen = !closing && wants_input(reactor, peer);
        let deadline = give_up.as_mut().filter(|_| closing);
        tokio::select! {
            biased;
            () = peer.wake.notified() => {}
            () = at(deadline) => return End::Gone,
            writable = peer.socket.writable(), if peer.blocked.get() => {
                peer.blocked.set(false);
                if writable.is_err() {
                    return End::Gone;
                }
                reactor.write(peer);
                reactor.flush();
            }
            readable = peer.socket.readable(), if listen => {
                if readable.is_err() || !read(reactor, peer, reader) {
                    return End::Gone;
                }
            }
        }
        if peer.closing.get() && give_up.is_none() {
            let wait = Duration::from_millis(reactor.node.settings.close_ms);
            give_up = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }
}

async fn at(deadline: Option<&mut Pin<Box<tokio::time::Sleep>>>) {
    match deadline {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Whether more may be read: not while commands wait or the peer takes no answers.
fn wants_input(reactor: &Reactor, peer: &Peer) -> bool {
    let max = reactor.node.hub.settings().outbox_bytes_max;
    peer.session.borrow().wants_input()
        && reactor.shard.borrow_mut().outbox(peer.key).is_some_and(|outbox| outbox.bytes() <= max)
}

/// Reads once. Says whether the connection goes on.
fn read(reactor: &Rc<Reactor>, peer: &Rc<Peer>, reader: &mut Reader) -> bool {
    let mut scratch = reactor.scratch.take();
    let read = peer.socket.try_read(&mut scratch);
    let goes_on = match read {
        Ok(0) => false,
        Ok(n) => {
            reactor.node.metrics.received(reactor.index, n);
            take_in(reactor, peer, reader, &scratch[..n]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    reactor.scratch.replace(scratch);
    goes_on
}

/// Gives bytes to the reader, messages to the session, and carries out what comes of them.
fn take_in(reactor: &Rc<Reactor>, peer: &Rc<Peer>, reader: &mut Reader, bytes: &[u8]) {
    let now = reactor.node.now();
    reactor.shard.borrow_mut().set_now(now.mono_ms);
    let mut control = Vec::new();
    let mut violation = None;
    let mut closed = false;
    reader.feed(bytes, &mut control, |event| match event {
        Event::Text(text) => peer.session.borrow_mut().handle_frame(text.as_bytes(), now),
        Event::Binary => peer.session.borrow_mut().handle_close(CloseCode::InappropriateProtocol),
        Event::Close => closed = true,
        Event::Violation(code) => violation = Some(code),
    });
    if !control.is_empty() {
        reactor.shard.borrow_mut().send(peer.key, control.into());
    }
    if let Some(code) = violation {
        reactor.node.metrics.violations.inc();
        reactor.shard.borrow_mut().send(peer.key, websocket_close(code, ""));
    }
    if closed || violation.is_some() {
        peer.session.borrow_mut().handle_gone();
        peer.closing.set(true);
    }
    perform::drive(reactor, peer);
    reactor.flush();
}

/// Waits for the peer's end, reading what still comes and throwing it away.
async fn linger(reactor: &Reactor, peer: &Peer) {
    if shut_down(&peer.socket).is_err() {
        return;
    }
    while peer.socket.readable().await.is_ok() {
        let read = peer.socket.try_read(&mut reactor.scratch.borrow_mut());
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Says that nothing more will be sent, after everything that was written.
fn shut_down(socket: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write)
}
