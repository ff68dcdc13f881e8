//! Readers of a generation's text, however slow: by the protocol's rule alone they end with the text that was written.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use talewire_proto::generation::{GenerationFrame, GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, Kind, Namespace, StoryId};

use super::crowd::{Crowd, Joining};
use super::rules;
use super::stage::{Disk, Stage, wait};
use crate::HubSettings;

#[derive(Debug, Clone)]
enum Op {
    Begin,
    BeginAnew,
    Append(String),
    End,
    Subscribe(usize),
    Answer(bool),
    Unsubscribe(usize),
    Pump(usize),
    Take(usize, usize),
    Events,
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..3usize;
    prop_oneof![
        2 => Just(Op::Begin),
        1 => Just(Op::BeginAnew),
        20 => "[a-zé🦊日]{1,12}".prop_map(Op::Append),
        1 => Just(Op::End),
        4 => peer.clone().prop_map(Op::Subscribe),
        6 => any::<bool>().prop_map(Op::Answer),
        1 => peer.clone().prop_map(Op::Unsubscribe),
        10 => (1..6usize).prop_map(Op::Pump),
        8 => (peer, prop_oneof![1..60usize, 200..900usize]).prop_map(|(peer, room)| Op::Take(peer, room)),
        4 => Just(Op::Events),
    ]
}

fn limits() -> impl Strategy<Value = HubSettings> {
    let few = || prop_oneof![Just(1), 2..4usize, Just(1_000)];
    (prop_oneof![Just(0), 1..600usize, Just(100_000)], few(), few()).prop_map(|(outbox, queue, joining)| HubSettings {
        outbox_bytes_max: outbox,
        shard_queue_max: queue,
        joining_held_max: joining,
        ..HubSettings::default()
    })
}

/// A reader that knows only the rule of PROTOCOL.md, section 4.
#[derive(Default, Debug)]
struct Reader {
    attempt: u32,
    text: String,
    status: Option<GenerationStatus>,
}

impl Reader {
    fn read(&mut self, frame: GenerationFrame) {
        if let GenerationFrame::Snapshot { attempt, text, status, .. } = frame {
            if attempt > self.attempt || attempt == self.attempt && text.len() >= self.text.len() {
                *self = Self { attempt, text, status: Some(status) };
            }
            return;
        }
        if frame.attempt() < self.attempt {
            return;
        }
        if frame.attempt() > self.attempt {
            *self = Self { attempt: frame.attempt(), ..Self::default() };
        }
        match frame {
            // Past what there is: something was missed, and the server sends a snapshot by itself.
            GenerationFrame::Delta { at, text, .. } if at == utf16_len(&self.text) => self.text.push_str(&text),
            GenerationFrame::End { status, .. } => self.status = Some(status),
            _ => {}
        }
    }
}

struct Model {
    crowd: Crowd,
    stream: Channel,
    rules: Arc<Namespace>,
    story: StoryId,
    generation: GenerationId,
    attempt: u32,
    joining: Vec<(usize, Joining)>,
}

impl Model {
    fn carry_out(&mut self, op: Op) {
        let Self { crowd, story, generation, attempt, .. } = self;
        let broker = crowd.stage.broker.clone();
        match op {
            Op::Begin if *attempt > 0 => {}
            Op::Begin | Op::BeginAnew => {
                *attempt += 1;
                let _ = wait(broker.generation_begin(story, generation, *attempt));
            }
            Op::Append(text) => {
                let so_far = wait(broker.generation_snapshot(story, generation)).unwrap();
                let at = so_far.map_or(0, |so_far| utf16_len(&so_far.text));
                let _ = wait(broker.generation_append(story, generation, *attempt, at, &text));
            }
            Op::End => {
                let _ = wait(broker.generation_end(story, generation, *attempt, GenerationStatus::Done, None));
            }
            Op::Subscribe(peer) => {
                if !crowd.peers[peer].standings.contains_key(&self.stream) {
                    let joining = crowd.begin(peer, &self.stream, &self.rules, None);
                    self.joining.push((peer, joining));
                }
            }
            Op::Answer(newest) => {
                if !self.joining.is_empty() {
                    let (_, joining) = self.joining.remove(if newest { self.joining.len() - 1 } else { 0 });
                    crowd.finish(joining);
                }
            }
            Op::Unsubscribe(peer) => {
                if crowd.peers[peer].standings.contains_key(&self.stream)
                    && !self.joining.iter().any(|(joining, _)| *joining == peer)
                {
                    crowd.settle_writes(peer);
                    crowd.unsubscribe(peer, &self.stream);
                    crowd.peers[peer].signals.clear();
                }
            }
            Op::Pump(most) => {
                crowd.stage.pump(0, most);
            }
            Op::Take(peer, room) => {
                let at = &mut crowd.peers[peer];
                at.take(&mut crowd.stage.shards[0], room);
                at.read(&crowd.stage);
            }
            Op::Events => {
                crowd.carry_out_events();
            }
        }
        self.crowd.stage.hand_over_all();
    }

    fn finish(mut self) {
        for (_, joining) in std::mem::take(&mut self.joining) {
            self.crowd.finish(joining);
        }
        self.crowd.settle();
        let truth = wait(self.crowd.stage.broker.generation_snapshot(&self.story, &self.generation)).unwrap();
        for peer in &self.crowd.peers {
            if !peer.standings.contains_key(&self.stream) {
                continue;
            }
            let mut reader = Reader::default();
            for push in &peer.signals {
                reader.read(serde_json::from_value::<GenerationFrame>(push["pub"]["data"].clone()).unwrap());
            }
            let (attempt, text, status) = truth
                .as_ref()
                .map_or((0, "", GenerationStatus::Queued), |truth| (truth.attempt, truth.text.as_str(), truth.status));
            assert_eq!((reader.attempt, reader.text.as_str()), (attempt, text));
            if status.is_end() {
                assert_eq!(reader.status, Some(status));
            } else {
                assert!(!reader.status.is_some_and(GenerationStatus::is_end));
            }
        }
    }
}

#[test]
fn every_reader_ends_with_the_whole_text() {
    let disk = Disk::new();
    let config = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let ops = prop::collection::vec(op(), 1..150);
    proptest!(config, |(settings in limits(), ops in ops)| {
        let (story, generation) = (StoryId::from_random([1; 13]), GenerationId::from_random([2; 13]));
        let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 1));
        for _ in 0..3 {
            crowd.connect(0);
        }
        let stream = Channel::generation(&story, &generation);
        let rules = rules(Kind::Generation);
        let mut model = Model { crowd, stream, rules, story, generation, attempt: 0, joining: Vec::new() };
        ops.into_iter().for_each(|op| model.carry_out(op));
        model.finish();
    });
}

#[test]
fn a_channel_that_names_no_generation_has_no_snapshot() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let one = crowd.connect(0);
    let recovered = crowd.join(one, &super::channel("generation:x"), &rules(Kind::Generation), None);
    assert_eq!((recovered.result.data.map(|data| data.read::<Value>().is_ok()), recovered.next), (None, 0));
}
