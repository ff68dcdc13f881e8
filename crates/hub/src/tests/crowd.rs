//! Clients that do at once what the server's threads do: for tests in which only one thing is out of order.

use std::sync::Arc;

use talewire_proto::command::Recover;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, Namespace, Position};

use super::peer::{Peer, Standing, ended, subscribed};
use super::stage::{PAGE, Stage, Step, wait};
use crate::{HubError, Interest, Recovered, ShardEvent};

pub(super) struct Crowd {
    pub(super) stage: Stage,
    pub(super) peers: Vec<Peer>,
    /// Connections that were over their hard limit.
    pub(super) overfull: Vec<usize>,
    /// Readers of events that may have missed signals.
    pub(super) missed: Vec<(usize, Channel)>,
}

/// A subscription whose history is being read.
pub(super) struct Joining {
    peer: usize,
    channel: Channel,
    step: Step<'static, Result<Recovered, HubError>>,
}

impl Joining {
    /// Carries the read on by one step. Says whether it is answered; then it cannot be finished any more.
    pub(super) fn is_answered(&mut self) -> bool {
        self.step.go().is_some()
    }

    /// The answer of the read, for a subscriber that is gone.
    pub(super) fn into_answer(mut self) -> Result<Recovered, HubError> {
        loop {
            if let Some(answer) = self.step.go() {
                return answer;
            }
        }
    }
}

impl Crowd {
    pub(super) fn new(stage: Stage) -> Self {
        Self { stage, peers: Vec::new(), overfull: Vec::new(), missed: Vec::new() }
    }

    pub(super) fn connect(&mut self, shard: usize) -> usize {
        let key = self.stage.shards[shard].add(Wire::WebSocketJson);
        self.peers.push(Peer::new(shard, key));
        self.peers.len() - 1
    }

    /// Subscribes and lets the history be read, without taking the answer.
    pub(super) fn begin(
        &mut self,
        peer: usize,
        channel: &Channel,
        rules: &Arc<Namespace>,
        recover: Option<Position>,
    ) -> Joining {
        let at = &mut self.peers[peer];
        at.standings.insert(channel.clone(), Standing::Asked(recover.clone()));
        self.stage.shards[at.shard].subscribe(
            at.key,
            channel,
            rules,
            Interest { join_leave: true, ..Interest::default() },
        );
        let (hub, wanted, rules) = (self.stage.hub.clone(), channel.clone(), rules.clone());
        let recover = recover.map(Recover::After);
        let step = Step::new(async move { hub.recover(&wanted, &rules, recover.as_ref(), PAGE).await });
        Joining { peer, channel: channel.clone(), step }
    }

    /// Subscribes to a channel that nobody else is subscribed to; its history has been read, and nobody has seen the answer.
    pub(super) fn begin_and_read(&mut self, peer: usize, channel: &Channel, rules: &Arc<Namespace>) -> Joining {
        for _ in 0..10_000 {
            let mut joining = self.begin(peer, channel, rules, None);
            // The store's thread may have been so quick that the answer was taken at once.
            if joining.step.go().is_none() {
                return joining;
            }
            self.unsubscribe(peer, channel);
        }
        panic!("the store always answers at once");
    }

    pub(super) fn finish(&mut self, mut joining: Joining) -> Recovered {
        let recovered = loop {
            if let Some(answer) = joining.step.go() {
                break answer.unwrap();
            }
        };
        let peer = &self.peers[joining.peer];
        let shard = &mut self.stage.shards[peer.shard];
        shard.send(peer.key, subscribed(&joining.channel, &recovered.result));
        shard.go_live(peer.key, &joining.channel, recovered.next, recovered.more);
        recovered
    }

    pub(super) fn join(
        &mut self,
        peer: usize,
        channel: &Channel,
        rules: &Arc<Namespace>,
        recover: Option<Position>,
    ) -> Recovered {
        let joining = self.begin(peer, channel, rules, recover);
        self.finish(joining)
    }

    pub(super) fn unsubscribe(&mut self, peer: usize, channel: &Channel) {
        let peer = &mut self.peers[peer];
        self.stage.shards[peer.shard].unsubscribe(peer.key, channel);
        peer.standings.remove(channel);
    }

    /// Pumps, writes and reads until nothing moves.
    pub(super) fn settle(&mut self) {
        let mut moves = true;
        while moves {
            moves = false;
            for shard in 0..self.stage.shards.len() {
                moves |= self.stage.pump(shard, usize::MAX);
                self.stage.shards[shard].take_dirty(&mut Vec::new());
            }
            for peer in &mut self.peers {
                if self.stage.shards[peer.shard].outbox(peer.key).is_some() {
                    peer.take(&mut self.stage.shards[peer.shard], usize::MAX);
                    peer.read(&self.stage);
                }
            }
            moves |= self.carry_out_events();
            moves |= self.stage.shards.iter().any(crate::Shard::has_dirty);
        }
    }

    /// Writes and reads what waits for one client.
    pub(super) fn settle_writes(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        peer.take(&mut self.stage.shards[peer.shard], usize::MAX);
        peer.read(&self.stage);
    }

    /// Carries out what the shards want done, at once. Says whether there was any.
    pub(super) fn carry_out_events(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.stage.shards.len() {
            while let Some(event) = self.stage.shards[index].poll_event() {
                any = true;
                let shard = &mut self.stage.shards[index];
                match event {
                    ShardEvent::CatchUp(key, missed) => {
                        let answer = wait(self.stage.hub.catch_up(&missed, PAGE)).map_err(|_| ());
                        shard.caught_up(key, &missed.channel, answer);
                    }
                    ShardEvent::Broken(key, channel) => {
                        shard.unsubscribe(key, &channel);
                        shard.send(key, ended(&channel));
                    }
                    ShardEvent::SignalsMissed(key, channel) => self.missed.push((key, channel)),
                    ShardEvent::Overfull(key) => {
                        self.overfull.push(key);
                        shard.remove(key);
                    }
                }
            }
        }
        any
    }

    /// That this client has everything of the channel up to `offset`.
    pub(super) fn has(&self, peer: usize, channel: &Channel, offset: u64) {
        match self.peers[peer].standings.get(channel) {
            Some(Standing::Stands { next, .. }) => assert_eq!(*next, offset + 1, "{channel}"),
            standing => panic!("{channel}: {standing:?}"),
        }
    }

    pub(super) fn was_ended(&self, peer: usize, channel: &Channel) -> bool {
        self.peers[peer].standings.get(channel) == Some(&Standing::Ended)
    }
}
