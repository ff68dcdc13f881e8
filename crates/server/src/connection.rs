//! The life of one connection: the only loop that waits for its socket, whatever the transport.
//!
//! Frames go in to the session and outputs are carried out in [`perform`]; the outbox is written by the reactor, and here
//! only when the socket had been full.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use talewire_proto::CloseCode;
use talewire_proto::codec::Codec;
use talewire_proto::session::Now;
use talewire_proto::websocket::{Event, Reader};
use talewire_proto::wire::websocket_close;

use crate::accept::{self, Back};
use crate::perform;
use crate::reactor::{Peer, Reactor};
use crate::socket::Socket;
use crate::transport::emulation::SessionId;
use crate::transport::guard::Permit;
use crate::transport::head::Head;
use crate::transport::opening::{Input, Opening};
use crate::transport::poll;

/// A socket that was taken over from HTTP, or a stream of one.
pub(crate) struct Taken {
    pub(crate) socket: Socket,
    /// What came right behind the request.
    pub(crate) early: Bytes,
    /// The socket's place; a stream has none of its own.
    pub(crate) permit: Option<Permit>,
    /// How the socket goes back to HTTP, where it may.
    pub(crate) back: Option<Box<Back>>,
}

/// Begins a connection, and leaves it to a task of its own. What is only needed to begin is gone by then: a task keeps whatever
/// it has ever held while it waits.
pub(crate) fn start(reactor: Rc<Reactor>, taken: Taken, opening: Box<Opening>) {
    let Taken { socket, early, permit, back } = taken;
    let Opening { wire, head, gzip, prelude, mut input, session, first, emulated } = *opening;
    let peer = reactor.add(socket, session, wire);
    if let Some(head) = head {
        send_head(&reactor, &peer, &head);
    }
    {
        let mut shard = reactor.shard.borrow_mut();
        if gzip {
            shard.gzip(peer.key);
        }
        shard.send(peer.key, prelude);
    }
    if let Some(id) = &emulated {
        reactor.node.sessions.insert(id.clone(), reactor.home(&peer));
    }
    first.give(&mut peer.session.borrow_mut(), wire.codec(), reactor.node.now());
    take_in(&reactor, &peer, &mut input, &early);
    if let Input::Poll(question) = input {
        tokio::task::spawn_local(run_poll(reactor, peer, question, early, permit, back));
    } else {
        tokio::task::spawn_local(run(reactor, peer, input, permit, emulated));
    }
}

/// Runs a connection to its end.
async fn run(
    reactor: Rc<Reactor>,
    peer: Rc<Peer>,
    mut input: Input,
    mut permit: Option<Permit>,
    emulated: Option<SessionId>,
) {
    let mut give_up = None;
    let end = poll_fn(|context| poll_end(&reactor, &peer, &mut input, permit.as_mut(), &mut give_up, context)).await;
    if end == End::Closing {
        // The peer may still be sending; closing at once would reset the connection and lose our last words.
        Box::pin(linger(&reactor, &peer)).await;
    }
    if let Some(id) = &emulated {
        reactor.node.sessions.remove(id);
    }
    reactor.remove(&peer);
}

/// Runs a poll: one answer, after which its socket goes back to HTTP.
async fn run_poll(
    reactor: Rc<Reactor>,
    peer: Rc<Peer>,
    question: Box<poll::Question>,
    early: Bytes,
    mut permit: Option<Permit>,
    back: Option<Box<Back>>,
) {
    let mut next_request = BytesMut::from(&early[..]);
    drop(early);
    let taken = poll::answer(&reactor, &peer, &question, permit.as_mut(), &mut next_request).await;
    // A server that goes down has said that it does not keep the socket.
    let back = back.filter(|_| !reactor.node.is_stopping());
    if taken && back.is_none() {
        linger(&reactor, &peer).await;
    }
    reactor.remove(&peer);
    if let (true, Some(back), Some(permit)) = (taken, back, permit)
        // Work that is still under way for the connection keeps its socket, which is then closed like any other.
        && let Some(Socket::Tcp(socket)) = Rc::into_inner(peer).map(|peer| peer.socket)
    {
        accept::take_back(reactor, socket, next_request.freeze(), *back, permit);
    }
}

/// Sends the head of the answer, before anything else of the connection.
pub(crate) fn send_head(reactor: &Reactor, peer: &Peer, head: &Head) {
    let first = peer.socket.answer(head);
    if !first.is_empty() {
        reactor.shard.borrow_mut().send(peer.key, first);
    }
}

/// Somebody has said who they are: the socket is no stranger's.
pub(crate) fn known(peer: &Peer, permit: Option<&mut Permit>) {
    match permit {
        Some(permit) => permit.known(),
        None => peer.socket.known(),
    }
}

/// Why a connection ends.
#[derive(PartialEq, Eq)]
enum End {
    /// The peer is gone, or does not take even our close frame.
    Gone,
    /// Our close frame is sent.
    Closing,
}

/// How long the peer may take for our close frame.
type GiveUp = Option<Pin<Box<tokio::time::Sleep>>>;

/// Goes on with a connection as far as it goes now. Written without futures inside, because they would lie in every idle connection.
fn poll_end(
    reactor: &Rc<Reactor>,
    peer: &Rc<Peer>,
    input: &mut Input,
    mut permit: Option<&mut Permit>,
    give_up: &mut GiveUp,
    context: &mut Context<'_>,
) -> Poll<End> {
    loop {
        if peer.session.borrow().grant().is_some() {
            known(peer, permit.as_deref_mut());
        }
        if peer.broken.get() {
            return Poll::Ready(End::Gone);
        }
        let closing = peer.closing.get();
        if closing {
            if !peer.blocked.get() {
                return Poll::Ready(End::Closing);
            }
            let wait = Duration::from_millis(reactor.node.settings.close_ms);
            let give_up = give_up.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            if give_up.as_mut().poll(context).is_ready() {
                return Poll::Ready(End::Gone);
            }
        }
        if peer.wake.poll_called(context).is_ready() {
            continue;
        }
        if peer.blocked.get()
            && let Poll::Ready(writable) = peer.socket.poll_writable(context)
        {
            peer.blocked.set(false);
            if writable.is_err() {
                return Poll::Ready(End::Gone);
            }
            reactor.write(peer);
            reactor.flush();
            continue;
        }
        if !closing
            && wants_input(reactor, peer)
            && let Poll::Ready(readable) = peer.socket.poll_readable(context)
        {
            if readable.is_err() || !read(reactor, peer, input) {
                return Poll::Ready(End::Gone);
            }
            continue;
        }
        return Poll::Pending;
    }
}

/// Waits until the peer has taken everything. Says whether it has.
pub(crate) async fn written(reactor: &Rc<Reactor>, peer: &Rc<Peer>) -> bool {
    loop {
        if peer.broken.get() {
            return false;
        }
        if !peer.blocked.get() {
            return true;
        }
        if peer.socket.writable().await.is_err() {
            return false;
        }
        peer.blocked.set(false);
        reactor.write(peer);
    }
}

/// Whether more may be read: not while commands wait or the peer takes no answers.
fn wants_input(reactor: &Reactor, peer: &Peer) -> bool {
    let max = reactor.node.hub.settings().outbox_bytes_max;
    peer.session.borrow().wants_input()
        && reactor.shard.borrow_mut().outbox(peer.key).is_some_and(|outbox| outbox.bytes() <= max)
}

/// Reads once. Says whether the connection goes on.
fn read(reactor: &Rc<Reactor>, peer: &Rc<Peer>, input: &mut Input) -> bool {
    let mut scratch = reactor.scratch.take();
    let read = peer.socket.try_read(&mut scratch);
    let goes_on = match read {
        Ok(0) => false,
        Ok(n) => {
            reactor.node.metrics.received(reactor.index, n);
            take_in(reactor, peer, input, &scratch[..n]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    reactor.scratch.replace(scratch);
    goes_on
}

/// Gives bytes to the transport's reader, messages to the session, and carries out what comes of them.
fn take_in(reactor: &Rc<Reactor>, peer: &Rc<Peer>, input: &mut Input, bytes: &[u8]) {
    let now = reactor.node.now();
    reactor.shard.borrow_mut().set_now(now.mono_ms);
    // A peer whose transport flows one way has said everything; whatever else it sends is not looked at.
    if let Input::WebSocket(reader) = input
        && !bytes.is_empty()
    {
        read_websocket(reactor, peer, reader, bytes, now);
    }
    perform::drive(reactor, peer);
    reactor.flush();
}

fn read_websocket(reactor: &Reactor, peer: &Peer, reader: &mut Reader, bytes: &[u8], now: Now) {
    let mut control = Vec::new();
    let mut violation = None;
    let mut closed = false;
    let mut unpacked = reactor.unpacked.borrow_mut();
    reader.feed(bytes, now.mono_ms, &mut unpacked, &mut control, |event| match (event, peer.codec) {
        (Event::Text(text), codec @ (Codec::Json | Codec::JsonDown)) => {
            peer.session.borrow_mut().handle_bytes(codec, text.as_bytes(), now);
        }
        (Event::Binary(frame), codec @ (Codec::Protobuf | Codec::ProtobufDown)) => {
            peer.session.borrow_mut().handle_bytes(codec, frame, now);
        }
        (Event::Text(_) | Event::Binary(_), _) => {
            peer.session.borrow_mut().handle_close(CloseCode::InappropriateProtocol);
        }
        (Event::Close, _) => closed = true,
        (Event::Violation(code), _) => violation = Some(code),
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
}

/// Waits for the peer's end within `close_ms`, reading what still comes and throwing it away.
async fn linger(reactor: &Reactor, peer: &Peer) {
    if peer.socket.shut_down().is_err() {
        return;
    }
    let until_end = async {
        while peer.socket.readable().await.is_ok() {
            let read = peer.socket.try_read(&mut reactor.scratch.borrow_mut());
            match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(reactor.node.settings.close_ms), until_end).await;
}
