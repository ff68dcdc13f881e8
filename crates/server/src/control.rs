//! Orders and questions of server programs about the connections of one thread, carried out on that thread.
//!
//! Called by the reactor for what comes by its inbox. Whom an order means is found by the thread's indexes, so that a word to one user
//! does not look at everybody.

use std::rc::Rc;

use talewire_broker::{Control, Order, Whom};
use talewire_proto::codec::Codec;
use talewire_proto::{ClientId, UnsubscribeCode, UserId};

use crate::listing::Seen;
use crate::perform;
use crate::reactor::{BATCH, Peer, Reactor};

/// Carries an order out. Everybody else of the thread has a turn between two batches of connections.
pub(crate) async fn carry_out(reactor: &Rc<Reactor>, control: Control) {
    let Control { whom, order } = control;
    for (count, peer) in meant(reactor, &whom).into_iter().enumerate() {
        if !peer.gone.get() {
            obey(reactor, &peer, &order);
            perform::drive(reactor, &peer);
        }
        if count % BATCH == BATCH - 1 {
            reactor.flush();
            tokio::task::yield_now().await;
        }
    }
    reactor.flush();
}

/// The connections of this thread that are meant: of those that have said who they are and were told that they are connected.
fn meant(reactor: &Reactor, whom: &Whom) -> Vec<Rc<Peer>> {
    let Whom::Of { user, client, session } = whom else {
        return reactor.all().into_iter().filter(|peer| peer.known.get()).collect();
    };
    let candidates = match (session, client, user) {
        (Some(session), _, _) => reactor.with_session(&session.0).into_iter().collect(),
        (None, Some(client), _) => reactor.with_client(client).into_iter().collect(),
        (None, None, Some(user)) => reactor.of_user(user),
        (None, None, None) => Vec::new(),
    };
    let fits = |peer: &Rc<Peer>| {
        let is_users = user.as_ref().is_none_or(|user| is_of(peer, user));
        peer.known.get() && is_users && client.as_ref().is_none_or(|client| is_client(peer, client))
    };
    candidates.into_iter().filter(fits).collect()
}

/// Whether the connection is this user's. The anonymous are nobody's.
pub(crate) fn is_of(peer: &Peer, user: &UserId) -> bool {
    !user.is_anonymous() && peer.session.borrow().grant().is_some_and(|grant| grant.user == *user)
}

pub(crate) fn is_client(peer: &Peer, client: &ClientId) -> bool {
    peer.session.borrow().client() == client
}

fn obey(reactor: &Reactor, peer: &Peer, order: &Order) {
    let now = reactor.node.now();
    let mut session = peer.session.borrow_mut();
    match order {
        Order::Message(data) => session.handle_message(data.clone()),
        Order::Disconnect { keep, .. } if keep.contains(session.client()) => {}
        Order::Disconnect { code, .. } => session.handle_close(*code),
        // A reader without a protocol has its channels in its address, and its ids and cursors tell of these alone.
        Order::Subscribe(_) if peer.wire.is_plain() => {}
        Order::Subscribe(wanted) => session.handle_wanted((**wanted).clone(), now),
        Order::Unsubscribe(channel) => {
            session.handle_dropped(channel, UnsubscribeCode::Server);
            session.handle_ready(now);
        }
        Order::Lasting(expires_at_ms) => session.handle_lasting(*expires_at_ms, now),
    }
}

/// Connections of this thread from a place on, at most so many; of one user, or of all.
pub(crate) fn list(reactor: &Reactor, user: Option<&UserId>, from: u64, most: usize) -> Vec<Seen> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let mut peers = user.map_or_else(|| reactor.all(), |user| reactor.of_user(user));
    peers.retain(|peer| peer.key >= from && peer.known.get() && user.is_none_or(|user| is_of(peer, user)));
    peers.sort_unstable_by_key(|peer| peer.key);
    peers.truncate(most);
    peers.iter().filter_map(|peer| see(reactor, peer)).collect()
}

fn see(reactor: &Reactor, peer: &Peer) -> Option<Seen> {
    let session = peer.session.borrow();
    let is_protobuf = matches!(peer.codec, Codec::Protobuf | Codec::ProtobufDown);
    Some(Seen {
        thread: reactor.index,
        place: peer.key as u64,
        client: session.client().clone(),
        user: session.grant()?.user.clone(),
        transport: peer.wire.transport().to_owned(),
        protocol: if is_protobuf { "protobuf" } else { "json" }.to_owned(),
        channels: reactor.shard.borrow().subscriptions(peer.key),
        connected_at: peer.since_ms,
    })
}
