//! Histories that break off while something is under way: every race between a read, a delivery and a reset.

use talewire_proto::{Channel, Position, Since};

use super::crowd::Crowd;
use super::stage::{Disk, Stage, history, wait};
use super::{ALL, channel};
use crate::node::Observed;
use crate::recovery::Read;
use crate::{HubSettings, ShardEvent};

fn crowd(disk: &Disk, settings: HubSettings) -> Crowd {
    Crowd::new(Stage::new(settings, &disk.store, 2))
}

fn read(crowd: &Crowd, chat: &Channel) -> Read {
    wait(crowd.stage.hub.read(chat, &history(), Since::After(0), ALL)).unwrap()
}

/// Publishes to the old history, forgets it and publishes to the new one; nothing is handed over.
fn break_off(crowd: &mut Crowd, chat: &Channel, old: usize, new: usize) {
    for _ in 0..old {
        crowd.stage.publish(chat, &history());
    }
    crowd.stage.forget_histories();
    for _ in 0..new {
        crowd.stage.publish(chat, &history());
    }
}

#[test]
fn a_first_read_that_a_new_history_overtook_is_doubted() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.stage.publish(&chat, &history());
    crowd.stage.hand_over_all();
    let joining = crowd.begin(one, &chat, &history(), None);
    let since = crowd.stage.hub.look(&chat).since;
    let old = read(&crowd, &chat);
    break_off(&mut crowd, &chat, 0, 1);
    crowd.stage.hand_over_all();
    assert_eq!(crowd.stage.hub.observe(&chat, since, &old.top), Observed::Steady);
    crowd.stage.repair();
    crowd.finish(joining);
    crowd.settle();
    assert!(crowd.was_ended(one, &chat), "without waiting for another entry");
}

#[test]
fn a_read_of_the_old_history_does_not_bring_it_back() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &history(), None);
    crowd.stage.publish(&chat, &history());
    crowd.stage.publish(&chat, &history());
    crowd.stage.hand_over(1);
    let gap = crowd.stage.hub.gap(&chat).unwrap();
    let since = crowd.stage.hub.look(&chat).since;
    let old = read(&crowd, &chat);
    break_off(&mut crowd, &chat, 0, 1);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    let now = crowd.stage.hub.look(&chat);
    assert_eq!(crowd.stage.hub.observe(&chat, since, &old.top), Observed::Stale);
    crowd.stage.hub.fill(&chat, &gap, old);
    let then = crowd.stage.hub.look(&chat);
    assert_eq!((now.since, &now.position), (then.since, &then.position));
    assert_eq!(then.position.unwrap(), crowd.stage.top(&chat, &history()).0);
}

#[test]
fn who_joins_while_the_history_is_doubted_reads_it() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let (one, two) = (crowd.connect(0), crowd.connect(1));
    crowd.join(one, &chat, &history(), None);
    crowd.settle();
    break_off(&mut crowd, &chat, 1, 2);
    crowd.stage.hand_over_all();
    let joined = crowd.join(two, &chat, &history(), None).result.position.unwrap();
    assert_eq!(joined, crowd.stage.top(&chat, &history()).0);
}

#[test]
fn what_is_held_of_the_old_history_does_not_follow_a_reply_of_the_new() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let (one, two) = (crowd.connect(0), crowd.connect(0));
    crowd.join(one, &chat, &history(), None);
    let epoch = crowd.stage.top(&chat, &history()).0.epoch;
    let joining = crowd.begin(two, &chat, &history(), Some(Position { offset: 9, epoch }));
    crowd.stage.publish(&chat, &history());
    crowd.stage.hand_over_all();
    crowd.stage.pump(0, usize::MAX);
    crowd.stage.forget_histories();
    assert!(!crowd.finish(joining).result.recovered);
    crowd.settle();
    assert!(crowd.was_ended(two, &chat));
    assert_eq!((crowd.peers[one].entries, crowd.peers[two].entries), (1, 0));
}

#[test]
fn entries_behind_a_reset_that_found_no_room_are_not_taken_for_the_old_ones() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { shard_queue_max: 2, ..HubSettings::default() });
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &history(), None);
    break_off(&mut crowd, &chat, 2, 2);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.stage.pump(0, 1);
    assert_eq!(crowd.stage.publish(&chat, &history()).offset, 3);
    crowd.stage.hand_over_all();
    crowd.stage.pump(0, 2);
    crowd.settle();
    assert!(crowd.was_ended(one, &chat));
    assert_eq!(crowd.peers[one].entries, 2);
}

#[test]
fn a_history_that_breaks_off_twice_is_told_once() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &history(), None);
    for _ in 0..3 {
        break_off(&mut crowd, &chat, 0, 1);
        crowd.stage.hand_over_all();
        crowd.stage.repair();
    }
    crowd.stage.pump(0, usize::MAX);
    let shard = &mut crowd.stage.shards[0];
    assert_eq!(shard.poll_event(), Some(ShardEvent::Broken(0, chat)));
    assert_eq!(shard.poll_event(), None);
}

#[test]
fn what_is_told_to_a_subscription_that_is_gone_is_not_told_to_the_next() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &history(), None);
    break_off(&mut crowd, &chat, 0, 1);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.stage.pump(0, usize::MAX);
    crowd.settle_writes(one);
    crowd.unsubscribe(one, &chat);
    crowd.join(one, &chat, &history(), None);
    assert_eq!(crowd.stage.shards[0].poll_event(), None);
    crowd.settle();
    crowd.has(one, &chat, 1);
}
