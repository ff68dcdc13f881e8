//! One thread of the server: its runtime, its hub shard and the connections that live on it.
//!
//! Everything here is of one thread: no lock, no `Send`. Deliveries come in by the shard's queue and are put into
//! outboxes in batches; then every outbox with something new is written once, straight to its socket. A connection's own task is
//! woken only when its socket takes no more.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use talewire_hub::{ConnectionKey, Shard, ShardEvent, ShardMessage};
use talewire_proto::codec::Codec;
use talewire_proto::session::Session;
use talewire_proto::wire::Wire;
use talewire_proto::{ClientId, CloseCode, Notice, UserId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::inbox::Message;
use crate::index::Index;
use crate::node::{Node, unix_ms};
use crate::perform::{self, LiveFrom};
use crate::plain::{self, Gathered};
use crate::rules::Rules;
use crate::socket::Socket;
use crate::timers::{TICK_MS, Timers};
use crate::transport::emulation::{Home, Inbound};
use crate::transport::events;
use crate::wake::Wake;

/// Messages of the shard's queue that are carried out before the outboxes are written.
pub(crate) const BATCH: usize = 256;

/// Bytes read from a socket at once, into a buffer that all connections of the thread share.
pub(crate) const SCRATCH_BYTES: usize = 65_536;

/// What lives on one thread.
pub(crate) struct Reactor {
    pub(crate) node: Arc<Node>,
    pub(crate) index: usize,
    pub(crate) shard: RefCell<Shard>,
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Messages while they are handed to a session, shared by all connections of the thread.
    pub(crate) unpacked: RefCell<talewire_proto::websocket::Scratch>,
    /// The server goes down: sockets that carry many connections are to take no more.
    pub(crate) stop: CancellationToken,
    /// Nobody new is taken in any more.
    pub(crate) shut: CancellationToken,
    /// It is about to end: sockets that serve request after request are to take no more, and silent ones to close.
    pub(crate) last: CancellationToken,
    unfinished: Rc<Cell<usize>>,
    peers: RefCell<Slab<Rc<Peer>>>,
    timers: RefCell<Timers>,
    dirty: RefCell<Vec<ConnectionKey>>,
    messages: RefCell<Vec<ShardMessage>>,
    serials: Cell<u64>,
    users: RefCell<Index>,
    clients: RefCell<Index>,
    inbox: mpsc::Sender<Message>,
}

/// One connection, as its thread knows it.
pub(crate) struct Peer {
    pub(crate) key: ConnectionKey,
    pub(crate) wire: Wire,
    pub(crate) codec: Codec,
    pub(crate) session: RefCell<Session>,
    pub(crate) socket: Socket,
    /// Tells the connection's task to look at `blocked`, `closing` and the session again.
    pub(crate) wake: Wake,
    /// The socket takes no more at the moment.
    pub(crate) blocked: Cell<bool>,
    /// A close frame is, or will be, the last thing in the outbox.
    pub(crate) closing: Cell<bool>,
    /// The socket failed: nothing can be said or heard any more.
    pub(crate) broken: Cell<bool>,
    /// The connection is removed; whatever still comes back for it is too late.
    pub(crate) gone: Cell<bool>,
    /// Subscriptions whose reply is about to be sent, and from where they go live.
    pub(crate) live_from: RefCell<Vec<LiveFrom>>,
    /// What the one answer of a poll is made of. Until that is written, the outbox is kept from the socket.
    pub(crate) gathered: Option<Box<RefCell<Gathered>>>,
    /// It was told that it is connected: from then on it is spoken to.
    pub(crate) known: Cell<bool>,
    /// Since when it is here, on the wall clock.
    pub(crate) since_ms: i64,
    serial: u64,
    armed_ms: Cell<u64>,
}

/// Something that is to come to its end before the thread does.
pub(crate) struct Unfinished(Rc<Cell<usize>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Reactor {
    /// A thread's part of the server; `inbox` is where the rest of the process leaves what it has for it.
    pub(crate) fn new(node: Arc<Node>, index: usize, inbox: mpsc::Sender<Message>) -> Self {
        let mut shard = Shard::new(node.hub.clone(), index);
        let of_ids = node.clone();
        shard.write_ids_with(Box::new(move |positions| events::write_id(&of_ids, positions)));
        let shard = RefCell::new(shard);
        Self {
            node,
            index,
            shard,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            unpacked: RefCell::default(),
            stop: CancellationToken::new(),
            shut: CancellationToken::new(),
            last: CancellationToken::new(),
            unfinished: Rc::default(),
            peers: RefCell::default(),
            timers: RefCell::default(),
            dirty: RefCell::default(),
            messages: RefCell::default(),
            serials: Cell::new(0),
            users: RefCell::default(),
            clients: RefCell::default(),
            inbox,
        }
    }

    /// Where frames for this connection are to be sent by other threads.
    pub(crate) fn home(&self, peer: &Peer) -> Home {
        Home { inbox: self.inbox.clone(), thread: self.index, key: peer.key, serial: peer.serial }
    }

    /// Takes a connection whose transport stands.
    pub(crate) fn add(&self, socket: Socket, session: Session, wire: Wire) -> Rc<Peer> {
        let mut session = session;
        // They may have been exchanged since the request was read.
        session.handle_namespaces(&self.node.rules().namespaces);
        let key = self.shard.borrow_mut().add(wire);
        self.serials.set(self.serials.get() + 1);
        let peer = Rc::new(Peer {
            key,
            wire,
            codec: wire.codec(),
            session: RefCell::new(session),
            socket,
            wake: Wake::default(),
            blocked: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            gone: Cell::new(false),
            live_from: RefCell::default(),
            gathered: (wire == Wire::Poll).then(Box::default),
            known: Cell::new(false),
            since_ms: unix_ms(),
            serial: self.serials.get(),
            armed_ms: Cell::new(u64::MAX),
        });
        let slot = self.peers.borrow_mut().insert(peer.clone());
        debug_assert_eq!(slot, key, "both slabs give and take keys together");
        let hash = self.node.hash(peer.session.borrow().client().as_str());
        self.clients.borrow_mut().insert(key, hash);
        self.node.metrics.opened(wire);
        self.arm(&peer);
        peer
    }

    /// The connection is about to be told that it is connected: who it is stands.
    ///
    /// # Errors
    /// Why it may not: that user has as many as one may have, or has logged out since the login was verified.
    pub(crate) fn connected(self: &Rc<Self>, peer: &Rc<Peer>) -> Result<(), CloseCode> {
        let session = peer.session.borrow();
        if let Some(grant) = session.grant().filter(|grant| !grant.user.is_anonymous()) {
            let hash = self.node.hash(grant.user.as_str());
            if !self.node.guard.enter(hash) {
                return Err(CloseCode::ConnectionLimit);
            }
            self.users.borrow_mut().insert(peer.key, hash);
            // Looked up once it can be found: a logout that is not seen here finds it.
            if let Some(login_ms) = grant.login_ms {
                match self.node.auth.logins.is_out(&grant.user, login_ms) {
                    Some(true) => return Err(CloseCode::ForceDisconnect),
                    Some(false) => {}
                    None => self.ask_again(peer, grant.user.clone(), login_ms),
                }
            }
        }
        drop(session);
        peer.known.set(true);
        self.tell(peer, |client, user, transport| Notice::ClientConnected { client, user, transport });
        Ok(())
    }

    /// Asks the database whether the login of a connection was logged out while it connected.
    fn ask_again(self: &Rc<Self>, peer: &Rc<Peer>, user: UserId, login_ms: i64) {
        let (reactor, peer) = (self.clone(), peer.clone());
        tokio::task::spawn_local(async move {
            let code = match reactor.node.is_out(&user, login_ms).await {
                Some(false) => return,
                Some(true) => CloseCode::ForceDisconnect,
                None => CloseCode::Unavailable,
            };
            if !peer.gone.get() {
                reactor.close(peer.key, code);
                reactor.flush();
            }
        });
    }

    /// Tells other systems of a connection, if they want to know. A poll is a question and no connection to them.
    fn tell(&self, peer: &Peer, notice: impl FnOnce(ClientId, UserId, &'static str) -> Notice) {
        if peer.wire != Wire::Poll {
            self.node.broker.notices().tell(|| {
                let session = peer.session.borrow();
                let user = session.grant().map(|grant| grant.user.clone()).unwrap_or_default();
                notice(session.client().clone(), user, peer.wire.transport())
            });
        }
    }

    /// The connection's task is over.
    pub(crate) fn remove(self: &Rc<Self>, peer: &Rc<Peer>) {
        if peer.known.get() {
            self.tell(peer, |client, user, transport| Notice::ClientDisconnected { client, user, transport });
        }
        peer.session.borrow_mut().handle_gone();
        perform::drive(self, peer);
        peer.gone.set(true);
        self.shard.borrow_mut().remove(peer.key);
        self.peers.borrow_mut().remove(peer.key);
        if let Some(user) = self.users.borrow_mut().remove(peer.key) {
            self.node.guard.leave(user);
        }
        self.clients.borrow_mut().remove(peer.key);
        self.node.metrics.ended(peer.wire);
    }

    /// Whether there are connections.
    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.borrow().is_empty()
    }

    /// Whether nothing is left to be done by this thread: no connection, no socket that serves requests, no work for one of them.
    pub(crate) fn is_drained(&self) -> bool {
        !self.has_peers() && self.unfinished.get() == 0
    }

    /// Counts something that is to come to its end, until what comes back is dropped.
    pub(crate) fn unfinished(&self) -> Unfinished {
        self.unfinished.set(self.unfinished.get() + 1);
        Unfinished(self.unfinished.clone())
    }

    pub(crate) fn all(&self) -> Vec<Rc<Peer>> {
        self.peers.borrow().iter().map(|(_, peer)| peer.clone()).collect()
    }

    /// Connections that may be this user's.
    pub(crate) fn of_user(&self, user: &UserId) -> Vec<Rc<Peer>> {
        let hash = self.node.hash(user.as_str());
        self.users.borrow().find(hash).filter_map(|key| self.peer(key)).collect()
    }

    /// The connection with this id.
    pub(crate) fn with_client(&self, client: &ClientId) -> Option<Rc<Peer>> {
        let hash = self.node.hash(client.as_str());
        let mut found = Vec::new();
        found.extend(self.clients.borrow().find(hash).filter_map(|key| self.peer(key)));
        found.into_iter().find(|peer| control::is_client(peer, client))
    }

    /// The connection with this emulated session.
    pub(crate) fn with_session(&self, session: &str) -> Option<Rc<Peer>> {
        let home = self.node.sessions.home(session).filter(|home| home.thread == self.index)?;
        self.peer(home.key).filter(|peer| peer.serial == home.serial)
    }

    fn peer(&self, key: ConnectionKey) -> Option<Rc<Peer>> {
        self.peers.borrow().get(key).cloned()
    }

    /// Makes sure that the session's next deadline is looked at in time.
    pub(crate) fn arm(&self, peer: &Peer) {
        let Some(at_ms) = peer.session.borrow().poll_deadline() else { return };
        if at_ms < peer.armed_ms.get() {
            peer.armed_ms.set(at_ms);
            self.timers.borrow_mut().arm(at_ms, peer.key, peer.serial);
        }
    }

    /// Writes every outbox that has something new, and carries out what the shard wants done.
    pub(crate) fn flush(self: &Rc<Self>) {
        loop {
            let mut dirty = self.dirty.take();
            self.shard.borrow_mut().take_dirty(&mut dirty);
            for key in dirty.drain(..) {
                if let Some(peer) = self.peer(key) {
                    self.write(&peer);
                }
            }
            self.dirty.replace(dirty);
            self.note_delays();
            // Writing makes room, and what waited for room is to be written.
            if !self.carry_out_events() && !self.shard.borrow().has_dirty() {
                return;
            }
        }
    }

    /// What went into outboxes is written now, or waits for readers who are slow.
    fn note_delays(&self) {
        let mut shard = self.shard.borrow_mut();
        let mut came = shard.take_came().peekable();
        if came.peek().is_some() {
            let now = Instant::now();
            let node = &self.node;
            node.metrics.delivered(came.map(|came| {
                let delay = now.saturating_duration_since(came.at);
                if let (Some(followed), Some(traces)) = (came.followed, &node.traces) {
                    traces.delivered(followed.0, followed.1, delay);
                }
                delay
            }));
        }
    }

    /// Writes one outbox as far as the socket takes it.
    pub(crate) fn write(&self, peer: &Peer) {
        if peer.broken.get() {
            return;
        }
        if peer.gathered.is_some() && !peer.closing.get() {
            return peer.wake.call();
        }
        let mut shard = self.shard.borrow_mut();
        let now_ms = shard.now_ms();
        let Some(outbox) = shard.outbox(peer.key) else { return };
        if !peer.blocked.get() && !outbox.is_empty() {
            match outbox.write_with(now_ms, |slices| peer.socket.try_write(slices)) {
                Ok(written) => self.node.metrics.sent(self.index, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => peer.broken.set(true),
            }
            peer.blocked.set(!outbox.is_empty());
            if peer.blocked.get() || peer.broken.get() || peer.closing.get() {
                peer.wake.call();
            }
        }
        shard.written(peer.key);
    }

    fn carry_out_events(self: &Rc<Self>) -> bool {
        let mut any = false;
        loop {
            let event = self.shard.borrow_mut().poll_event();
            let Some(event) = event else { return any };
            any = true;
            match event {
                ShardEvent::CatchUp(key, missed) => {
                    if let Some(peer) = self.peer(key) {
                        perform::catch_up(self, &peer, missed);
                    }
                }
                ShardEvent::Broken(key, channel) => {
                    if let Some(peer) = self.peer(key) {
                        let at = self.shard.borrow().stands(key, &channel);
                        let mut session = peer.session.borrow_mut();
                        session.handle_broken(&channel, at);
                        session.handle_ready(self.node.now());
                        drop(session);
                        perform::drive(self, &peer);
                    }
                }
                ShardEvent::Overfull(key) => self.close(key, CloseCode::Slow),
                ShardEvent::SignalsMissed(key, channel) => {
                    if let Some(peer) = self.peer(key) {
                        plain::signals_missed(self, &peer, channel);
                    }
                }
            }
        }
    }

    fn close(self: &Rc<Self>, key: ConnectionKey, code: CloseCode) {
        if let Some(peer) = self.peer(key) {
            peer.session.borrow_mut().handle_close(code);
            perform::drive(self, &peer);
        }
    }

    /// Carries deliveries from the shard's queue into outboxes and onto sockets, for ever.
    pub(crate) async fn pump(self: Rc<Self>) {
        let queue = self.node.hub.shards()[self.index].clone();
        loop {
            let due_ms = self.shard.borrow().next_due_ms();
            tokio::select! {
                () = queue.filled() => {}
                () = self.until(due_ms.unwrap_or_default()), if due_ms.is_some() => {}
            }
            while self.take_deliveries() {
                self.flush();
                // Readers and new connections have their turn between two batches.
                tokio::task::yield_now().await;
            }
            self.flush();
        }
    }

    /// Waits until it is so late.
    async fn until(&self, at_ms: u64) {
        let left_ms = at_ms.saturating_sub(self.node.now().mono_ms);
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
    }

    /// Gives frames that came by other requests to the sessions that they are for, carries out orders and answers questions, for ever.
    pub(crate) async fn take_inbound(self: Rc<Self>, mut inbound: mpsc::Receiver<Message>) {
        while let Some(message) = inbound.recv().await {
            let Inbound { key, serial, codec, frame } = match message {
                Message::Frame(inbound) => inbound,
                Message::Control(order) => {
                    control::carry_out(&self, order).await;
                    continue;
                }
                Message::Ask(question) => {
                    question(&self);
                    continue;
                }
            };
            // The connection may have ended, and its key may be another's, since the frame was sent on its way.
            let Some(peer) = self.peer(key).filter(|peer| peer.serial == serial) else { continue };
            if peer.session.borrow().wants_input() {
                peer.session.borrow_mut().handle_bytes(codec, &frame, self.node.now());
            } else {
                // There is no socket to leave unread: who sends faster than we work is told.
                peer.session.borrow_mut().handle_close(CloseCode::TooManyRequests);
            }
            perform::drive(&self, &peer);
            self.flush();
        }
    }

    /// Gives every session the rules of channels whenever they are exchanged, for ever.
    pub(crate) async fn follow_rules(self: Rc<Self>, mut rules: watch::Receiver<Arc<Rules>>) {
        while rules.changed().await.is_ok() {
            let now = rules.borrow_and_update().clone();
            for (count, peer) in self.all().into_iter().enumerate() {
                if !peer.gone.get() {
                    let mut session = peer.session.borrow_mut();
                    session.handle_namespaces(&now.namespaces);
                    session.handle_ready(self.node.now());
                    drop(session);
                    perform::drive(&self, &peer);
                }
                if count % BATCH == BATCH - 1 {
                    self.flush();
                    tokio::task::yield_now().await;
                }
            }
            self.flush();
            // Behind the sessions: from here on nobody of this thread joins by the old rules.
            self.shard.borrow_mut().set_rules(&now.namespaces);
            self.node.hub.set_rules(&now.namespaces);
        }
    }

    /// Puts a batch of what waits in the shard's queue into outboxes. Says whether more is waiting.
    ///
    /// Also called before a publish is acknowledged, so that a publisher hears its own words before the answer to them.
    pub(crate) fn take_deliveries(&self) -> bool {
        let mut messages = self.messages.take();
        let more = self.node.hub.shards()[self.index].take(&mut messages, BATCH);
        let mut shard = self.shard.borrow_mut();
        shard.set_now(self.node.now().mono_ms);
        messages.drain(..).for_each(|message| shard.handle(&message));
        shard.release_due();
        self.messages.replace(messages);
        more
    }

    /// Looks at deadlines a few times a second, and once a second at readers that take nothing.
    pub(crate) async fn tick(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for count in 1u64.. {
            ticks.tick().await;
            let now = self.node.now();
            self.shard.borrow_mut().set_now(now.mono_ms);
            loop {
                let due = self.timers.borrow_mut().due(now.mono_ms);
                let Some((key, serial)) = due else { break };
                let Some(peer) = self.peer(key).filter(|peer| peer.serial == serial) else { continue };
                peer.armed_ms.set(u64::MAX);
                let is_due = peer.session.borrow().poll_deadline().is_some_and(|at_ms| at_ms <= now.mono_ms);
                if is_due {
                    peer.session.borrow_mut().handle_deadline(now);
                    perform::drive(&self, &peer);
                }
                self.arm(&peer);
            }
            if count % (1_000 / TICK_MS) == 0 {
                let stuck = self.shard.borrow().stuck();
                for key in stuck {
                    self.close(key, CloseCode::Slow);
                }
                self.shard.borrow_mut().retry_behind();
                let waiting = self.shard.borrow().bytes_waiting();
                self.node.metrics.waiting(self.index, waiting);
            }
            self.flush();
        }
    }
}
