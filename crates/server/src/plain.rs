//! What a session says to a reader without a protocol: events with ids instead of replies, and positions that the shard keeps.
//!
//! Called by [`crate::perform`] in place of the native way. A poll's words are gathered for its one answer ([`Gathered`]).

use std::collections::BTreeMap;
use std::rc::Rc;

use talewire_proto::reply::{ConnectResult, Push, Refused, Reply, SubscribeResult};
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, CloseCode, Position, events};

use crate::perform::LiveFrom;
use crate::reactor::{Peer, Reactor};

/// What a poll's answer is made of, beside the publications in its outbox.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Who it is and what it joined, once that stands.
    pub(crate) connected: Option<ConnectResult>,
    /// Why it does not.
    pub(crate) refused: Option<Refused>,
    /// How it ended before it was answered.
    pub(crate) closed: Option<CloseCode>,
    /// Channels that it has lost entries of, and where they go on.
    pub(crate) gaps: BTreeMap<Channel, Position>,
}

/// Puts what the session says into the outbox, or aside for the answer of a poll.
pub(crate) fn send(reactor: &Rc<Reactor>, peer: &Rc<Peer>, reply: Reply) {
    match reply {
        Reply::Connect { id, result } => connected(reactor, peer, id, result),
        Reply::Push { channel, push: Push::Gap(position) } => {
            let lives = peer.live_from.take();
            let mut shard = reactor.shard.borrow_mut();
            shard.mark(peer.key, &channel, position.clone());
            let next = position.offset + 1;
            if let Some(gathered) = &peer.gathered {
                // An answer has no order between its gaps and its events: those of the channel are what comes behind the gap.
                if let Some(outbox) = shard.outbox(peer.key) {
                    let before = events::envelope_of(&channel);
                    outbox.leave_out(|element| element.starts_with(&before));
                }
                gathered.borrow_mut().gaps.insert(channel, position);
            } else {
                let id = shard.id_line(peer.key);
                shard.send(peer.key, id);
                shard.send(peer.key, frame(peer.wire, &Reply::Push { channel, push: Push::Gap(position) }));
            }
            for live in lives {
                // What lies between the place that was told and what comes live is read when the event is written.
                let more = live.more || next < live.next;
                LiveFrom { next: next.min(live.next), more, ..live }.begin(&mut shard, peer.key);
            }
        }
        Reply::Push { channel, push: Push::Subscribe(result) } => goes_on(reactor, peer, &channel, result),
        Reply::Ping => keep_alive(reactor, peer),
        Reply::Error { code, message, .. } if peer.gathered.is_some() => {
            if let Some(gathered) = &peer.gathered {
                gathered.borrow_mut().refused.get_or_insert(Refused { code, message });
            }
        }
        _ if peer.gathered.is_some() => {}
        reply => reactor.shard.borrow_mut().send(peer.key, frame(peer.wire, &reply)),
    }
}

/// The history of a channel has another name, and the reader has lost nothing: it gets what is new, under ids of the new name.
fn goes_on(reactor: &Rc<Reactor>, peer: &Rc<Peer>, channel: &Channel, result: SubscribeResult) {
    let lives = peer.live_from.take();
    let mut shard = reactor.shard.borrow_mut();
    let position = result.position.unwrap_or_default();
    let next = position.offset + 1;
    shard.mark(peer.key, channel, position);
    if peer.gathered.is_none() {
        let id = shard.id_line(peer.key);
        shard.send(peer.key, [&id[..], b"\n"].concat().into());
    }
    shard.replay(peer.key, channel, next, result.entries);
    lives.iter().for_each(|live| live.begin(&mut shard, peer.key));
    drop(shard);
    peer.wake.call();
}

fn frame(wire: Wire, reply: &Reply) -> bytes::Bytes {
    wire.frame(&wire.codec().encode(reply))
}

/// The channels are joined: the reader is told where each begins, and then what it missed, as if it came now.
fn connected(reactor: &Rc<Reactor>, peer: &Rc<Peer>, id: u32, mut result: ConnectResult) {
    let lives = peer.live_from.take();
    let budget = reactor.node.hub.settings().outbox_bytes_max;
    let mut shard = reactor.shard.borrow_mut();
    let mut replays = Vec::new();
    for (channel, sub) in &mut result.subs {
        shard.mark(peer.key, channel, sub.position.clone().unwrap_or_default());
        replays.push((channel.clone(), std::mem::take(&mut sub.entries)));
    }
    if peer.gathered.is_none() {
        let id_line = shard.id_line(peer.key);
        shard.send(peer.key, id_line);
        shard.send(peer.key, frame(peer.wire, &Reply::Connect { id, result: result.clone() }));
        // It has gone by itself; others' words come from here on.
        shard.open_window(peer.key);
        for (channel, sub) in &result.subs {
            lost(sub).into_iter().for_each(|position| {
                let push = Push::Gap(position);
                shard.send(peer.key, frame(peer.wire, &Reply::Push { channel: channel.clone(), push }));
            });
            if let Some(data) = &sub.data {
                shard.send(peer.key, frame(peer.wire, &Reply::Message(data.clone())));
            }
        }
    }
    for (channel, entries) in replays {
        let first = entries.first().map(|entry| entry.offset);
        let Some(mut live) = lives.iter().find(|live| live.channel == channel).cloned() else { continue };
        match first {
            // What would be too much at once is read again, page by page, as the reader takes it.
            Some(first) if shard.outbox(peer.key).is_some_and(|outbox| outbox.bytes() > budget) => {
                live = LiveFrom { next: first, more: true, ..live };
            }
            Some(first) => shard.replay(peer.key, &channel, first, entries),
            None => {}
        }
        live.begin(&mut shard, peer.key);
    }
    if let Some(gathered) = &peer.gathered {
        let mut gathered = gathered.borrow_mut();
        gathered.gaps.extend(result.subs.iter().filter_map(|(channel, sub)| Some((channel.clone(), lost(sub)?))));
        gathered.connected = Some(result);
    }
    drop(shard);
    peer.wake.call();
}

/// Signals of a channel may have been missed, and are lost: the reader is told of a gap without a position.
pub(crate) fn signals_missed(reactor: &Rc<Reactor>, peer: &Rc<Peer>, channel: Channel) {
    let nowhere = Position::default();
    if let Some(gathered) = &peer.gathered {
        gathered.borrow_mut().gaps.insert(channel, nowhere);
        return peer.wake.call();
    }
    let push = Push::Gap(nowhere);
    reactor.shard.borrow_mut().send(peer.key, frame(peer.wire, &Reply::Push { channel, push }));
}

/// Where a channel goes on of which something is lost.
fn lost(sub: &SubscribeResult) -> Option<Position> {
    sub.position.clone().filter(|_| sub.was_recovering && !sub.recovered)
}

/// A sign of life: where the reader stands, if it moved unseen; else a comment, unless events show already that the stream lives.
fn keep_alive(reactor: &Rc<Reactor>, peer: &Rc<Peer>) {
    let now = reactor.node.now();
    let mut shard = reactor.shard.borrow_mut();
    if shard.has_moved(peer.key) {
        let id = shard.id_line(peer.key);
        shard.send(peer.key, [&id[..], b"\n"].concat().into());
        return;
    }
    let quiet_ms = shard.outbox(peer.key).map_or(0, |outbox| outbox.quiet_ms(now.mono_ms));
    if quiet_ms < reactor.node.limits().comment_interval_ms {
        peer.session.borrow_mut().handle_busy(now);
    } else {
        shard.send(peer.key, frame(peer.wire, &Reply::Ping));
    }
}
