//! How the node follows a channel: announcements that come swapped, doubled, late or never, and histories that break off.

use talewire_proto::{Namespace, Position};

use super::channel;
use super::crowd::Crowd;
use super::stage::{Disk, Stage, durable, history};
use crate::HubSettings;

fn crowd(disk: &Disk, settings: HubSettings) -> Crowd {
    Crowd::new(Stage::new(settings, &disk.store, 2))
}

#[test]
fn swapped_and_doubled_announcements_come_in_order_and_once() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (log, rules) = (channel("log:a"), durable());
    let (one, two) = (crowd.connect(0), crowd.connect(1));
    crowd.join(one, &log, &rules, None);
    crowd.join(two, &log, &rules, None);
    for _ in 0..4 {
        crowd.stage.publish(&log, &rules);
    }
    let twice = crowd.stage.post.lock()[2].clone();
    for place in [3, 1, 0, 0] {
        crowd.stage.hub.deliver(twice.clone());
        crowd.stage.hand_over(place);
    }
    crowd.settle();
    crowd.has(one, &log, 4);
    crowd.has(two, &log, 4);
    assert_eq!(crowd.peers[one].entries, 4);
}

#[test]
fn a_lost_announcement_is_found_by_the_look_at_growth() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (log, rules) = (channel("log:a"), durable());
    let one = crowd.connect(0);
    crowd.join(one, &log, &rules, None);
    for _ in 0..1_200 {
        crowd.stage.publish_silently(&log);
    }
    crowd.settle();
    crowd.has(one, &log, 0);
    crowd.stage.look_at_growth();
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &log, 1_200);
}

#[test]
fn growth_is_not_forgotten_while_the_first_read_is_under_way() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (log, rules) = (channel("log:a"), durable());
    crowd.stage.publish_silently(&log);
    let one = crowd.connect(0);
    let joining = crowd.begin_and_read(one, &log, &rules);
    crowd.stage.publish_silently(&log);
    crowd.stage.look_at_growth();
    crowd.finish(joining);
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &log, 2);
}

#[test]
fn what_came_between_two_first_reads_is_not_lost() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (log, rules) = (channel("log:a"), durable());
    let first = crowd.stage.publish_silently(&log);
    let (slow, quick) = (crowd.connect(0), crowd.connect(1));
    let joining = crowd.begin_and_read(slow, &log, &rules);
    crowd.stage.publish(&log, &rules);
    crowd.stage.hand_over_all();
    // Another piece, or it would wait until the first has read.
    crowd.join(quick, &log, &rules, Some(first));
    crowd.finish(joining);
    crowd.settle();
    crowd.has(slow, &log, 2);
    crowd.has(quick, &log, 2);
}

#[test]
fn the_read_of_an_earlier_subscriber_does_not_move_the_node_back() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (log, rules) = (channel("log:a"), durable());
    let first = crowd.stage.publish_silently(&log);
    let (gone, stays) = (crowd.connect(0), crowd.connect(1));
    let joining = crowd.begin_and_read(gone, &log, &rules);
    crowd.stage.publish_silently(&log);
    crowd.stage.look_at_growth();
    crowd.unsubscribe(gone, &log);
    // Nobody is subscribed for a moment; then somebody is, and the old read comes back.
    let next = crowd.begin(stays, &log, &rules, Some(first));
    let late = joining.into_answer();
    assert_eq!(late.unwrap().result.position.unwrap().offset, 2, "it was read again");
    assert!(crowd.finish(next).result.recovered);
    crowd.settle();
    crowd.has(stays, &log, 2);
}

#[test]
fn a_changed_epoch_is_told_to_everybody_who_was_there_before() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), history());
    let (one, two) = (crowd.connect(0), crowd.connect(1));
    crowd.join(one, &chat, &rules, None);
    let old = crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.settle();
    let joining = crowd.begin(two, &chat, &rules, None);
    crowd.stage.forget_histories();
    crowd.stage.publish(&chat, &rules);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.finish(joining);
    crowd.stage.repair();
    crowd.settle();
    assert!(crowd.was_ended(one, &chat));
    assert_eq!(crowd.peers[one].entries, 1, "nothing of the new history came before it was told");
    let lost = crowd.join(one, &chat, &rules, Some(old));
    assert!(!lost.result.recovered);
    if crowd.was_ended(two, &chat) {
        crowd.join(two, &chat, &rules, None);
    }
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.settle();
    crowd.has(one, &chat, 3);
    crowd.has(two, &chat, 3);
}

#[test]
fn a_late_delivery_of_an_older_epoch_disturbs_nobody() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), history());
    for _ in 0..3 {
        crowd.stage.publish(&chat, &rules);
    }
    crowd.stage.forget_histories();
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.settle();
    crowd.has(one, &chat, 1);
}

#[test]
fn a_reset_that_found_no_room_is_told_all_the_same() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { shard_queue_max: 1, ..HubSettings::default() });
    let (chat, rules) = (channel("chat:a"), history());
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    let position = crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    // The queue is full by now. The new history goes on exactly where the old one stood.
    crowd.stage.forget_histories();
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    let next = crowd.stage.publish(&chat, &rules);
    assert_eq!(next.offset, position.offset + 1);
    crowd.stage.pump(0, 1);
    crowd.stage.hand_over_all();
    crowd.settle();
    assert!(crowd.was_ended(one, &chat));
    assert_eq!(crowd.peers[one].entries, 1);
}

#[test]
fn entries_that_are_lost_and_trimmed_are_told_once() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let chat = channel("chat:a");
    let rules = std::sync::Arc::new(Namespace { history_size: 2, ..(*history()).clone() });
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    let mut position = Position::default();
    for _ in 0..5 {
        position = crowd.stage.publish(&chat, &rules);
    }
    crowd.stage.post.lock().drain(..4);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.settle();
    assert!(crowd.was_ended(one, &chat));
    let asked = Position { offset: 0, ..position.clone() };
    assert!(!crowd.join(one, &chat, &rules, Some(asked)).result.recovered);
    let two = crowd.connect(1);
    let asked = Position { offset: 3, ..position };
    assert!(crowd.join(two, &chat, &rules, Some(asked)).result.recovered);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &chat, 6);
    crowd.has(two, &chat, 6);
}

#[test]
fn what_waits_for_its_predecessor_is_bounded() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { ahead_held_max: 3, repairs_waiting_max: 1, ..HubSettings::default() });
    let (log, rules) = (channel("log:a"), durable());
    let one = crowd.connect(0);
    let joining = crowd.begin(one, &log, &rules, None);
    for _ in 0..50 {
        crowd.stage.publish(&log, &rules);
    }
    drop(crowd.stage.post.lock().pop_front());
    for _ in 0..49 {
        crowd.stage.hand_over(0);
        assert!(crowd.stage.hub.ahead(&log) <= 3);
    }
    crowd.finish(joining);
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &log, 50);
    assert_eq!(crowd.stage.hub.ahead(&log), 0);
}
