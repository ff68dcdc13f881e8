//! Any order of subscribing, publishing, losing, reading slowly and repairing: no gap that is not told, nothing twice.

use std::sync::Arc;

use proptest::prelude::*;
use talewire_proto::command::Recover;
use talewire_proto::namespace::Recovery;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, Kind, Namespace, Position};

use super::peer::{Peer, Standing, ended, subscribed};
use super::stage::{self, Disk, PAGE, Stage, Step, durable, history};
use super::{channel, latest, says};
use crate::{CatchUp, HubError, HubSettings, Interest, Recovered, ShardEvent};

const SHARDS: usize = 2;
const CHANNELS: usize = 6;

#[derive(Debug, Clone)]
enum Op {
    Connect {
        shard: usize,
        greedy: bool,
    },
    Disconnect {
        peer: usize,
    },
    Subscribe {
        peer: usize,
        channel: usize,
        recover: bool,
        evens: bool,
    },
    Unsubscribe {
        peer: usize,
        channel: usize,
    },
    /// The oldest or the newest read that is under way goes on by one step.
    Step {
        newest: bool,
    },
    Publish {
        channel: usize,
    },
    PublishSilently {
        channel: usize,
    },
    Signal {
        channel: usize,
    },
    Post {
        place: usize,
    },
    PostTwice {
        place: usize,
    },
    PostNever {
        place: usize,
    },
    Pump {
        shard: usize,
        most: usize,
    },
    Take {
        peer: usize,
        room: usize,
    },
    Repair,
    Growth,
    Forget,
    /// Time passes on the shards: what was gathered long enough is told.
    Pass {
        ms: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..4usize;
    let any_channel = 0..CHANNELS;
    prop_oneof![
        2 => (0..SHARDS, any::<bool>()).prop_map(|(shard, greedy)| Op::Connect { shard, greedy }),
        1 => peer.clone().prop_map(|peer| Op::Disconnect { peer }),
        8 => (peer.clone(), any_channel.clone(), prop::bool::weighted(0.7), prop::bool::weighted(0.3))
            .prop_map(|(peer, channel, recover, evens)| Op::Subscribe { peer, channel, recover, evens }),
        2 => (peer.clone(), any_channel.clone()).prop_map(|(peer, channel)| Op::Unsubscribe { peer, channel }),
        10 => any::<bool>().prop_map(|newest| Op::Step { newest }),
        14 => any_channel.clone().prop_map(|channel| Op::Publish { channel }),
        2 => any_channel.clone().prop_map(|channel| Op::PublishSilently { channel }),
        1 => any_channel.clone().prop_map(|channel| Op::Signal { channel }),
        12 => (0..4usize).prop_map(|place| Op::Post { place: place.saturating_sub(1) }),
        1 => (0..3usize).prop_map(|place| Op::PostTwice { place }),
        2 => (0..3usize).prop_map(|place| Op::PostNever { place }),
        10 => (0..SHARDS, 1..5usize).prop_map(|(shard, most)| Op::Pump { shard, most }),
        6 => (peer, prop_oneof![1..40usize, 100..2_000usize]).prop_map(|(peer, room)| Op::Take { peer, room }),
        3 => Just(Op::Repair),
        1 => Just(Op::Growth),
        1 => Just(Op::Forget),
        4 => (1..15u64).prop_map(|ms| Op::Pass { ms }),
    ]
}

fn limits() -> impl Strategy<Value = HubSettings> {
    let outbox = prop_oneof![Just(0), 1..200usize, Just(100_000)];
    let hard = prop_oneof![1 => 2_000..4_000usize, 3 => Just(4_000_000)];
    let few = || prop_oneof![Just(1), 2..4usize, Just(1_000)];
    (outbox, hard, few(), few(), few(), few()).prop_map(|(outbox, hard, queue, joining, ahead, repairs)| HubSettings {
        outbox_bytes_max: outbox,
        outbox_bytes_hard_max: hard,
        shard_queue_max: queue,
        joining_held_max: joining,
        ahead_held_max: ahead,
        repairs_waiting_max: repairs,
        gap_wait_ms: 0,
        ..HubSettings::default()
    })
}

enum Reading {
    Joins(Step<'static, Result<Recovered, HubError>>),
    CatchesUp(Step<'static, Result<CatchUp, HubError>>),
}

struct Model {
    stage: Stage,
    channels: Vec<(Channel, Arc<Namespace>)>,
    /// With whether it reads as soon as there is something, and when it came.
    peers: Vec<Option<(Peer, bool, u64)>>,
    readings: Vec<(usize, u64, Channel, Reading)>,
    came: u64,
}

impl Model {
    fn new(stage: Stage, run: u64) -> Self {
        let small = Namespace { history_size: 4, ..(*history()).clone() };
        let batched = Namespace { batch_ms: 10, batch_max: 4, ..(*history()).clone() };
        let channels = vec![
            (channel(&format!("history:{run}")), history()),
            (channel(&format!("small:{run}")), Arc::new(small)),
            (channel(&format!("durable:{run}")), durable()),
            (channel(&format!("latest:{run}")), latest(Kind::History)),
            (channel(&format!("durable-latest:{run}")), latest(Kind::Durable)),
            (channel(&format!("batched:{run}")), Arc::new(batched)),
        ];
        Self { stage, channels, peers: Vec::new(), readings: Vec::new(), came: 0 }
    }

    fn peer(&self, wanted: usize) -> Option<usize> {
        let there: Vec<usize> = (0..self.peers.len()).filter(|at| self.peers[*at].is_some()).collect();
        (!there.is_empty()).then(|| there[wanted % there.len()])
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Connect { shard, greedy } => {
                if self.peers.iter().flatten().count() < 4 {
                    let key = self.stage.shards[shard].add(Wire::WebSocketJson);
                    self.came += 1;
                    self.peers.push(Some((Peer::new(shard, key), greedy, self.came)));
                }
            }
            Op::Disconnect { peer } => {
                if let Some(at) = self.peer(peer) {
                    self.disconnect(at);
                }
            }
            Op::Subscribe { peer, channel, recover, evens } => self.subscribe(peer, channel, recover, evens),
            Op::Unsubscribe { peer, channel } => self.unsubscribe(peer, channel),
            Op::Step { newest } => self.step(newest),
            Op::Publish { channel } => {
                let (channel, rules) = self.channels[channel].clone();
                self.stage.publish(&channel, &rules);
            }
            Op::PublishSilently { channel } => {
                let (channel, rules) = self.channels[channel].clone();
                if rules.kind == Kind::Durable {
                    self.stage.publish_silently(&channel);
                }
            }
            Op::Signal { channel } => {
                let signal = self.stage.broker.signal(&self.channels[channel].0, says("psst"));
                super::stage::wait(signal).unwrap();
            }
            Op::Post { place } => self.stage.hand_over(place),
            Op::PostTwice { place } => {
                let letter = self.stage.post.lock().get(place).cloned();
                if let Some(letter) = letter {
                    self.stage.hub.deliver(letter);
                }
            }
            Op::PostNever { place } => drop(self.stage.post.lock().remove(place)),
            Op::Pump { shard, most } => {
                self.stage.pump(shard, most);
            }
            Op::Take { peer, room } => {
                if let Some(at) = self.peer(peer) {
                    self.take(at, room);
                }
            }
            Op::Repair => self.stage.repair(),
            Op::Growth => self.stage.look_at_growth(),
            Op::Forget => self.stage.forget_histories(),
            Op::Pass { ms } => self.pass(ms),
        }
        self.flush();
    }

    fn pass(&mut self, ms: u64) {
        for shard in &mut self.stage.shards {
            let now_ms = shard.now_ms() + ms;
            shard.set_now(now_ms);
            shard.release_due();
            assert!(shard.next_due_ms().is_none_or(|due_ms| due_ms > now_ms));
        }
    }

    fn disconnect(&mut self, at: usize) {
        let Some((peer, ..)) = self.peers[at].take() else { return };
        self.stage.shards[peer.shard].remove(peer.key);
    }

    fn subscribe(&mut self, peer: usize, wanted: usize, recover: bool, evens: bool) {
        let Some(at) = self.peer(peer) else { return };
        let (channel, rules) = self.channels[wanted].clone();
        let Some((peer, _, came)) = &mut self.peers[at] else { return };
        if !matches!(peer.standings.get(&channel), None | Some(Standing::Ended)) {
            return;
        }
        let known = peer.positions.get(&channel).cloned();
        // Who has nothing yet and wants the newest entry alone asks for it from the beginning.
        let known = known.or_else(|| (rules.recovery == Recovery::Latest).then(Position::default));
        let recover: Option<Position> = known.filter(|_| recover);
        peer.standings.insert(channel.clone(), Standing::Asked(recover.clone()));
        // Of a channel in which the newest alone counts, everybody hears everything.
        let evens = evens && rules.recovery == Recovery::Stream;
        if evens {
            peer.evens.insert(channel.clone());
        } else {
            peer.evens.remove(&channel);
        }
        let interest = if evens { stage::evens() } else { Interest::default() };
        self.stage.shards[peer.shard].subscribe(peer.key, &channel, &rules, interest);
        let hub = self.stage.hub.clone();
        let wanted = channel.clone();
        let recover = recover.map(Recover::After);
        let reading = async move { hub.recover(&wanted, &rules, recover.as_ref(), PAGE).await };
        self.readings.push((at, *came, channel, Reading::Joins(Step::new(reading))));
    }

    fn unsubscribe(&mut self, peer: usize, wanted: usize) {
        let Some(at) = self.peer(peer) else { return };
        let channel = self.channels[wanted].0.clone();
        let Some((peer, ..)) = &mut self.peers[at] else { return };
        if matches!(peer.standings.get(&channel), Some(Standing::Stands { .. })) {
            let shard = &mut self.stage.shards[peer.shard];
            shard.unsubscribe(peer.key, &channel);
            shard.send(peer.key, ended(&channel));
            // As a client does that unsubscribes: what is still on its way is not for it.
            peer.take(&mut self.stage.shards[peer.shard], usize::MAX);
            peer.read(&self.stage);
            assert_eq!(peer.standings.get(&channel), Some(&Standing::Ended));
        }
    }

    fn step(&mut self, newest: bool) {
        if self.readings.is_empty() {
            return;
        }
        let place = if newest { self.readings.len() - 1 } else { 0 };
        let (at, came, channel, mut reading) = self.readings.remove(place);
        let is_there = matches!(&self.peers[at], Some((_, _, then)) if *then == came);
        match &mut reading {
            Reading::Joins(step) => match step.go() {
                None => self.readings.insert(place, (at, came, channel, reading)),
                Some(answer) if is_there => self.joined(at, &channel, &answer.unwrap()),
                Some(_) => {}
            },
            Reading::CatchesUp(step) => match step.go() {
                None => self.readings.insert(place, (at, came, channel, reading)),
                Some(answer) if is_there => {
                    let Some((peer, ..)) = &self.peers[at] else { return };
                    let answer = answer.map_err(|_| ());
                    self.stage.shards[peer.shard].caught_up(peer.key, &channel, answer);
                }
                Some(_) => {}
            },
        }
    }

    fn joined(&mut self, at: usize, channel: &Channel, recovered: &Recovered) {
        let Some((peer, ..)) = &self.peers[at] else { return };
        let Some(Standing::Asked(asked)) = peer.standings.get(channel) else { panic!("nobody asked") };
        if let (Some(asked), false) = (asked, recovered.result.recovered) {
            let rules = &self.channels.iter().find(|(name, _)| name == channel).unwrap().1;
            let (top, oldest) = self.stage.top(channel, rules);
            let told = recovered.result.position.clone().unwrap();
            let is_lost = match rules.recovery {
                Recovery::Stream => {
                    top.epoch != asked.epoch
                        || oldest > asked.offset + 1
                        || top.offset - asked.offset > PAGE.entries as u64
                }
                // Nothing was there then, or what was the newest then is gone.
                Recovery::Latest => told.offset == 0 || told.epoch != top.epoch || oldest > told.offset,
            };
            assert!(is_lost, "not recovered although nothing was lost: {asked:?} {top:?} {oldest}");
        }
        let mut result = recovered.result.clone();
        if peer.evens.contains(channel) {
            // As the server does for native clients.
            result.entries.retain(|entry| stage::evens().hears(&entry.publication));
        }
        let shard = &mut self.stage.shards[peer.shard];
        shard.send(peer.key, subscribed(channel, &result));
        shard.go_live(peer.key, channel, recovered.next, recovered.more);
    }

    fn take(&mut self, at: usize, room: usize) {
        if let Some((peer, ..)) = &mut self.peers[at] {
            peer.take(&mut self.stage.shards[peer.shard], room);
            peer.read(&self.stage);
        }
    }

    /// What a thread's loop does after every batch.
    fn flush(&mut self) {
        loop {
            let mut any = false;
            for index in 0..SHARDS {
                let mut dirty = Vec::new();
                self.stage.shards[index].take_dirty(&mut dirty);
                for key in dirty {
                    let at = self.at(index, key).expect("only connections that are there are dirty");
                    let greedy = self.peers[at].as_ref().is_some_and(|(_, greedy, _)| *greedy);
                    self.take(at, if greedy { usize::MAX } else { 0 });
                }
                while let Some(event) = self.stage.shards[index].poll_event() {
                    any = true;
                    self.happened(index, event);
                }
                // Writing may have made room for what waited.
                any |= self.stage.shards[index].has_dirty();
            }
            if !any {
                return;
            }
        }
    }

    fn at(&self, shard: usize, key: usize) -> Option<usize> {
        self.peers.iter().position(|peer| matches!(peer, Some((peer, ..)) if (peer.shard, peer.key) == (shard, key)))
    }

    fn happened(&mut self, shard: usize, event: ShardEvent) {
        match event {
            ShardEvent::SignalsMissed(..) => panic!("native clients are not told"),
            ShardEvent::CatchUp(key, missed) => {
                let at = self.at(shard, key).expect("the connection is there");
                let came = self.peers[at].as_ref().map_or(0, |(_, _, came)| *came);
                let hub = self.stage.hub.clone();
                let channel = missed.channel.clone();
                let reading = async move { hub.catch_up(&missed, PAGE).await };
                self.readings.push((at, came, channel, Reading::CatchesUp(Step::new(reading))));
            }
            ShardEvent::Broken(key, channel) => {
                self.at(shard, key).expect("the connection is there");
                self.stage.shards[shard].unsubscribe(key, &channel);
                self.stage.shards[shard].send(key, ended(&channel));
            }
            ShardEvent::Overfull(key) => {
                let at = self.at(shard, key).expect("the connection is there");
                self.disconnect(at);
            }
        }
    }

    /// Lets everything come to rest, then looks whether everybody has everything, or was told.
    fn finish(&mut self) {
        // A lost delivery of a history channel shows with the next one.
        for (channel, rules) in self.channels.clone() {
            self.stage.hand_over_all();
            self.stage.publish(&channel, &rules);
        }
        for (_, greedy, _) in self.peers.iter_mut().flatten() {
            *greedy = true;
        }
        for round in 0.. {
            assert!(round < 1_000, "it does not come to rest");
            self.stage.hand_over_all();
            self.stage.look_at_growth();
            self.stage.repair();
            let mut any = false;
            for shard in 0..SHARDS {
                any |= self.stage.pump(shard, usize::MAX);
                any |= self.stage.shards[shard].next_due_ms().is_some();
            }
            self.pass(10);
            for at in 0..self.peers.len() {
                self.take(at, usize::MAX);
            }
            self.flush();
            while !self.readings.is_empty() {
                any = true;
                self.step(false);
                self.flush();
                if !self.readings.is_empty() {
                    // It may wait for what another one reads.
                    self.readings.rotate_left(1);
                }
            }
            if !any && self.stage.hub.repairs().are_done() {
                break;
            }
        }
        let mut expected = 0;
        for (channel, rules) in self.channels.clone() {
            let (top, _) = self.stage.top(&channel, &rules);
            let mut anybody = false;
            for (peer, ..) in self.peers.iter().flatten() {
                match peer.standings.get(&channel) {
                    Some(Standing::Stands { epoch, next }) => {
                        let unheard = |offset| &self.stage.truth[&(channel.clone(), epoch.clone(), offset)];
                        let heard = (*next..=top.offset)
                            .rev()
                            .find(|offset| !peer.evens.contains(&channel) || stage::is_even(unheard(*offset)));
                        assert_eq!((epoch.as_str(), heard), (top.epoch.as_str(), None), "{channel}");
                        assert!(*next <= top.offset + 1, "{channel}");
                        anybody = true;
                    }
                    None | Some(Standing::Ended) => {}
                    standing => panic!("{channel}: {standing:?}"),
                }
            }
            expected += usize::from(anybody);
        }
        assert_eq!(self.stage.hub.channels(), expected, "what nobody wants is forgotten");
        for at in 0..self.peers.len() {
            self.disconnect(at);
        }
        assert_eq!(self.stage.hub.channels(), 0);
        assert!(self.stage.shards.iter().all(crate::Shard::is_empty));
        assert!(self.stage.shards.iter().all(|shard| shard.next_due_ms().is_none()), "nothing is gathered for nobody");
    }
}

#[test]
fn nothing_is_lost_in_silence() {
    let disk = Disk::new();
    let run = std::sync::atomic::AtomicU64::new(0);
    let config = ProptestConfig {
        cases: 1_200,
        max_shrink_iters: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ops = prop::collection::vec(op(), 1..120);
    crate::reads::BREATHES.set(true);
    proptest!(config, |(settings in limits(), ops in ops)| {
        let run = run.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut stage = Stage::new(settings, &disk.store, SHARDS);
        stage.typed = true;
        let mut model = Model::new(stage, run);
        ops.into_iter().for_each(|op| model.carry_out(op));
        model.finish();
    });
}
