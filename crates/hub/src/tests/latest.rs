//! The newest entry alone: who gets it, from where offsets rise, and what is lost.

use talewire_proto::command::Recover;
use talewire_proto::{Channel, Epoch, Kind, Position};

use super::crowd::Crowd;
use super::stage::{Disk, PAGE, Stage, wait};
use super::{channel, latest};
use crate::HubSettings;

/// What joining with this position gives: whether it was recovered, the offset that is told, and those of the entries.
#[track_caller]
fn check(crowd: &mut Crowd, chat: &Channel, kind: Kind, asked: (u64, &Epoch), expected: (bool, u64, &[u64])) {
    let peer = crowd.connect(0);
    let position = Position { offset: asked.0, epoch: asked.1.clone() };
    let result = crowd.join(peer, chat, &latest(kind), Some(position)).result;
    let offsets: Vec<u64> = result.entries.iter().map(|entry| entry.offset).collect();
    let told = result.position.as_ref().map_or(u64::MAX, |position| position.offset);
    assert!(result.was_recovering);
    assert_eq!((result.recovered, told, &offsets[..]), expected, "{asked:?}");
    crowd.settle();
    let (top, _) = crowd.stage.top(chat, &latest(kind));
    crowd.has(peer, chat, top.offset);
    crowd.stage.publish(chat, &latest(kind));
    crowd.stage.hand_over_all();
    crowd.settle();
    crowd.has(peer, chat, top.offset + 1);
}

#[test]
fn a_client_that_comes_back_gets_the_newest_entry_and_no_other() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let none = Epoch::default();
    let other = Epoch::new("another");
    for (name, kind) in [("latest:a", Kind::History), ("durable-latest:a", Kind::Durable)] {
        let chat = channel(name);
        // Nothing was ever published: there is nothing to miss for who has nothing, and everything for who had something.
        check(&mut crowd, &chat, kind, (0, &none), (true, 0, &[]));
        let (top, _) = crowd.stage.top(&chat, &latest(kind));
        assert_eq!(top.offset, 1);
        let epoch = top.epoch;
        check(&mut crowd, &chat, kind, (0, &none), (true, 0, &[1]));
        for _ in 0..18 {
            crowd.stage.publish(&chat, &latest(kind));
        }
        crowd.stage.hand_over_all();
        // Each look publishes one more.
        check(&mut crowd, &chat, kind, (20, &epoch), (true, 20, &[]));
        check(&mut crowd, &chat, kind, (20, &epoch), (true, 20, &[21]));
        check(&mut crowd, &chat, kind, (2, &epoch), (true, 21, &[22]));
        check(&mut crowd, &chat, kind, (0, &none), (true, 22, &[23]));
        check(&mut crowd, &chat, kind, (24, &other), (true, 23, &[24]));
        check(&mut crowd, &chat, kind, (99, &epoch), (false, 25, &[]));
        // Who asks for nothing gets nothing.
        let peer = crowd.connect(0);
        let plain = crowd.join(peer, &chat, &latest(kind), None).result;
        assert_eq!((plain.was_recovering, plain.entries.len()), (false, 0));
    }
}

#[test]
fn readers_without_a_protocol_get_the_newest_entry_too() {
    let disk = Disk::new();
    let crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let mut stage = crowd.stage;
    let (chat, rules) = (channel("latest:a"), latest(Kind::History));
    let epoch = (0..5).map(|_| stage.publish(&chat, &rules).epoch).last().unwrap();
    let at = |offset| Position { offset, epoch: Epoch::of_digest(epoch.digest()) };
    for (asked, expected) in [
        (Recover::PagesFromOldest, vec![5]),
        (Recover::PagesAfter(at(1)), vec![5]),
        (Recover::PagesAfter(at(5)), vec![]),
    ] {
        let found = wait(stage.hub.recover(&chat, &rules, Some(&asked), PAGE)).unwrap();
        let offsets: Vec<u64> = found.result.entries.iter().map(|entry| entry.offset).collect();
        assert_eq!((offsets, found.next, found.more), (expected, 6, false), "{asked:?}");
    }
}

#[test]
fn a_newest_entry_that_is_gone_is_told() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let chat = channel("latest:a");
    let kind = Kind::History;
    crowd.stage.publish(&chat, &latest(kind));
    let last = crowd.stage.publish(&chat, &latest(kind));
    crowd.stage.hand_over_all();
    // Longer than an entry is kept, shorter than the position is.
    crowd.stage.broker.shift_clock(100_000 - 1);
    crowd.stage.publish(&chat, &latest(kind));
    crowd.stage.hand_over_all();
    crowd.stage.broker.shift_clock(100_000 + 1);
    check(&mut crowd, &chat, kind, (2, &last.epoch), (false, 3, &[]));
    crowd.stage.broker.shift_clock(100_000 + 1);
    check(&mut crowd, &chat, kind, (4, &last.epoch), (true, 4, &[]));
}
