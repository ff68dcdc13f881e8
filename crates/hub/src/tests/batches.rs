//! Gathered publications: when they leave, in which order, and what ends the gathering early.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use talewire_proto::{Channel, Kind, Namespace};

use super::crowd::Crowd;
use super::stage::{Disk, Stage, wait};
use super::{channel, rules, says};
use crate::HubSettings;

fn batched(kind: Kind) -> Arc<Namespace> {
    Arc::new(Namespace { batch_ms: 100, batch_max: 5, ..(*rules(kind)).clone() })
}

fn crowd(disk: &Disk, settings: HubSettings) -> Crowd {
    let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 1));
    crowd.stage.shards[0].set_now(1_000);
    crowd
}

/// Publishes so many, and lets them reach the shard.
fn publish(crowd: &mut Crowd, chat: &Channel, rules: &Namespace, count: usize) {
    for _ in 0..count {
        if rules.kind == Kind::Signal {
            wait(crowd.stage.broker.signal(chat, says("psst"))).unwrap();
        } else {
            crowd.stage.publish(chat, rules);
        }
    }
    crowd.stage.hand_over_all();
    crowd.settle();
}

fn pass_to(crowd: &mut Crowd, now_ms: u64) {
    crowd.stage.shards[0].set_now(now_ms);
    crowd.stage.shards[0].release_due();
    crowd.settle();
}

#[test]
fn a_batch_leaves_when_its_time_has_come_or_it_is_full() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), batched(Kind::History));
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.settle();
    assert_eq!(crowd.stage.shards[0].next_due_ms(), None);
    publish(&mut crowd, &chat, &rules, 3);
    assert_eq!((crowd.peers[one].entries, crowd.stage.shards[0].next_due_ms()), (0, Some(1_100)));
    pass_to(&mut crowd, 1_099);
    assert_eq!(crowd.peers[one].entries, 0);
    pass_to(&mut crowd, 1_100);
    assert_eq!((crowd.peers[one].entries, crowd.stage.shards[0].next_due_ms()), (3, None));
    publish(&mut crowd, &chat, &rules, 12);
    assert_eq!(crowd.peers[one].entries, 13, "two full batches");
    assert_eq!(crowd.stage.shards[0].next_due_ms(), Some(1_200));
    pass_to(&mut crowd, 1_200);
    crowd.has(one, &chat, 15);
    assert_eq!(crowd.stage.hub.shards()[0].counters.batches.load(Relaxed), 4);
}

#[test]
fn a_batch_is_one_write() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    for (name, kind) in [("chat:a", Kind::History), ("cursor:a", Kind::Signal)] {
        let (chat, rules) = (channel(name), batched(kind));
        let one = crowd.connect(0);
        crowd.join(one, &chat, &rules, None);
        crowd.settle();
        publish(&mut crowd, &chat, &rules, 4);
        let now_ms = crowd.stage.shards[0].now_ms() + 100;
        crowd.stage.shards[0].set_now(now_ms);
        crowd.stage.shards[0].release_due();
        let key = crowd.peers[one].key;
        let mut frames = Vec::new();
        let outbox = crowd.stage.shards[0].outbox(key).unwrap();
        let written = outbox.write_with(0, |slices| {
            frames.push(slices.len());
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
        assert!(written.is_ok());
        assert_eq!(frames, [4], "{name}");
    }
}

#[test]
fn whoever_joins_or_leaves_while_a_batch_is_gathered_gets_each_entry_once() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), batched(Kind::History));
    let (one, two, three) = (crowd.connect(0), crowd.connect(0), crowd.connect(0));
    crowd.join(one, &chat, &rules, None);
    crowd.settle();
    let start = crowd.stage.top(&chat, &rules).0;
    publish(&mut crowd, &chat, &rules, 2);
    crowd.join(two, &chat, &rules, None);
    crowd.join(three, &chat, &rules, Some(start));
    crowd.settle();
    assert_eq!(crowd.peers[three].entries, 2, "recovered what is not told yet");
    publish(&mut crowd, &chat, &rules, 2);
    pass_to(&mut crowd, 1_100);
    assert_eq!([one, two, three].map(|peer| crowd.peers[peer].entries), [4, 2, 4]);
    [one, two, three].iter().for_each(|peer| crowd.has(*peer, &chat, 4));
    // A batch for nobody is forgotten, with its place in the list.
    publish(&mut crowd, &chat, &rules, 2);
    [one, two, three].iter().for_each(|peer| crowd.unsubscribe(*peer, &chat));
    assert_eq!(crowd.stage.shards[0].next_due_ms(), None);
}

#[test]
fn a_batch_goes_before_what_breaks_the_channel_off() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), batched(Kind::History));
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.settle();
    publish(&mut crowd, &chat, &rules, 2);
    crowd.stage.forget_histories();
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.settle();
    assert_eq!(crowd.peers[one].entries, 2);
    assert!(crowd.was_ended(one, &chat));
}

#[test]
fn only_so_many_channels_are_gathered_and_rules_may_end_it() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { batches_max: 1, ..HubSettings::default() });
    let rules = batched(Kind::History);
    let (first, second) = (channel("chat:a"), channel("chat:b"));
    let one = crowd.connect(0);
    crowd.join(one, &first, &rules, None);
    crowd.join(one, &second, &rules, None);
    crowd.settle();
    publish(&mut crowd, &first, &rules, 1);
    publish(&mut crowd, &second, &rules, 2);
    crowd.has(one, &first, 0);
    crowd.has(one, &second, 2);
    let plain = talewire_proto::Namespaces::new([("chat".to_owned(), (*super::rules(Kind::History)).clone())]);
    crowd.stage.shards[0].set_rules(&plain);
    publish(&mut crowd, &first, &rules, 1);
    crowd.has(one, &first, 2);
    assert_eq!(crowd.stage.shards[0].next_due_ms(), None);
}
