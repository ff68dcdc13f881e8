//! Announcements that a shared broker has lost: found by its own doubt or by the look at positions. And positions of a history that has
//! been renamed on its way: true as far as the old and the new one are the same.

use talewire_broker::{Delivery, Message};
use talewire_proto::command::Recover;
use talewire_proto::events::Form;
use talewire_proto::wire::Wire;
use talewire_proto::{Epoch, Kind, Position, Since};

use super::crowd::Crowd;
use super::stage::{Disk, Stage, history, wait};
use super::{ALL, channel, rules};
use crate::recovery::answer;
use crate::{HubSettings, Interest};

/// A reader of a history channel, of which three announcements were lost after the first entry.
fn with_a_loss(disk: &Disk) -> (Crowd, usize, talewire_proto::Channel) {
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 2));
    let chat = channel("chat:a");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &history(), None);
    crowd.stage.publish(&chat, &history());
    crowd.stage.hand_over_all();
    for _ in 0..3 {
        crowd.stage.publish(&chat, &history());
    }
    crowd.stage.post.lock().clear();
    crowd.settle();
    crowd.has(one, &chat, 1);
    (crowd, one, chat)
}

#[test]
fn a_doubt_is_followed_by_a_read() {
    let disk = Disk::new();
    let (mut crowd, one, chat) = with_a_loss(&disk);
    crowd.stage.hub.deliver(Delivery { channel: chat.clone(), message: Message::Doubt });
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &chat, 4);
    assert_eq!(crowd.peers[one].entries, 4, "each once");
}

#[test]
fn a_look_at_positions_finds_what_nobody_doubts() {
    let disk = Disk::new();
    let (mut crowd, one, chat) = with_a_loss(&disk);
    wait(crowd.stage.hub.look_at_positions()).unwrap();
    crowd.stage.repair();
    crowd.settle();
    crowd.has(one, &chat, 4);
}

#[test]
fn a_look_at_positions_finds_another_history() {
    let disk = Disk::new();
    let (mut crowd, one, chat) = with_a_loss(&disk);
    crowd.stage.forget_histories();
    crowd.stage.publish(&chat, &history());
    crowd.stage.post.lock().clear();
    wait(crowd.stage.hub.look_at_positions()).unwrap();
    crowd.stage.repair();
    crowd.settle();
    assert!(crowd.was_ended(one, &chat));
}

#[test]
fn a_position_under_an_older_name_is_true_as_far_as_both_are_the_same() {
    let disk = Disk::new();
    let (crowd, _, chat) = with_a_loss(&disk);
    let recovered = |epoch: &str, offset: u64| {
        let mut read = wait(crowd.stage.hub.read(&chat, &history(), Since::After(offset), ALL)).unwrap();
        read.older = vec![Position { offset: 2, epoch: Epoch::new("older") }];
        let asked = Position { offset, epoch: Epoch::new(epoch) };
        let answer = answer(Some(&Recover::After(asked)), read).result;
        assert!(answer.was_recovering);
        answer.recovered.then_some(answer.entries.len())
    };
    assert_eq!(recovered("older", 1), Some(3));
    assert_eq!(recovered("older", 2), Some(2), "the last that both share");
    assert_eq!(recovered("older", 3), None, "the old third was another one");
    assert_eq!(recovered("oldest", 1), None);
}

#[test]
fn lost_signals_are_told_to_those_who_can_be_told_and_counted() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let cursor = channel("cursor:a");
    let native = crowd.connect(0);
    crowd.join(native, &cursor, &rules(Kind::Signal), None);
    let shard = &mut crowd.stage.shards[0];
    let plain = shard.add(Wire::Events(Form::Payload));
    shard.subscribe(plain, &cursor, &rules(Kind::Signal), Interest::default());
    shard.go_live(plain, &cursor, 0, false);
    crowd.stage.hub.deliver(Delivery { channel: cursor.clone(), message: Message::Doubt });
    crowd.stage.pump(0, usize::MAX);
    crowd.carry_out_events();
    assert_eq!(crowd.missed, [(plain, cursor)]);
    let counters = &crowd.stage.hub.shards()[0].counters;
    assert_eq!(counters.signals_missed.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(crowd.stage.hub.doubts(), 1);
}
