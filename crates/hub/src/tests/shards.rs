//! One shard's bookkeeping: who gets what, who is too slow, and what is left when somebody goes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use talewire_broker::Tell;
use talewire_proto::compression::Window;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, ClientInfo, Kind, Payload, Publication};

use super::crowd::Crowd;
use super::stage::{Disk, PAGE, Stage, durable, history, wait};
use super::{channel, rules, says};
use crate::fanout::{Fanout, What};
use crate::{HubSettings, Interest, Shard, ShardEvent, ShardMessage};

fn crowd(disk: &Disk, settings: HubSettings) -> Crowd {
    Crowd::new(Stage::new(settings, &disk.store, 1))
}

#[test]
fn a_reader_behind_catches_up_page_by_page_while_more_comes() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { outbox_bytes_max: 300, ..HubSettings::default() });
    for (name, rules) in [("chat:a", history()), ("log:a", durable())] {
        let chat = channel(name);
        let one = crowd.connect(0);
        crowd.join(one, &chat, &rules, None);
        for _ in 0..40 {
            crowd.stage.publish(&chat, &rules);
            crowd.stage.hand_over_all();
        }
        crowd.stage.pump(0, usize::MAX);
        let waiting = crowd.stage.shards[0].bytes_waiting();
        assert!(waiting < 1_000, "{waiting} bytes wait");
        // Three more with every page of five.
        let mut pages = 0;
        loop {
            crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
            crowd.peers[one].read(&crowd.stage);
            let Some(ShardEvent::CatchUp(key, missed)) = crowd.stage.shards[0].poll_event() else { break };
            let answer = wait(crowd.stage.hub.catch_up(&missed, PAGE)).map_err(|_| ());
            pages += 1;
            for _ in 0..3 {
                crowd.stage.publish(&chat, &rules);
            }
            crowd.stage.hand_over_all();
            crowd.stage.pump(0, usize::MAX);
            crowd.stage.shards[0].caught_up(key, &missed.channel, answer);
        }
        assert!(pages > 10, "{pages} pages");
        crowd.settle();
        let (top, _) = crowd.stage.top(&chat, &rules);
        crowd.has(one, &chat, top.offset);
        assert_eq!(crowd.peers[one].entries as u64, top.offset);
    }
}

#[test]
fn a_read_that_fails_is_tried_again() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { outbox_bytes_max: 0, ..HubSettings::default() });
    let (chat, rules) = (channel("chat:a"), history());
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.pump(0, usize::MAX);
    crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
    let Some(ShardEvent::CatchUp(key, missed)) = crowd.stage.shards[0].poll_event() else { panic!("not behind") };
    crowd.stage.shards[0].caught_up(key, &missed.channel, Err(()));
    assert_eq!(crowd.stage.shards[0].poll_event(), None, "not at once");
    crowd.stage.shards[0].retry_behind();
    assert_eq!(crowd.stage.shards[0].poll_event(), Some(ShardEvent::CatchUp(key, missed.clone())));
    crowd.stage.shards[0].retry_behind();
    assert_eq!(crowd.stage.shards[0].poll_event(), None, "one read at a time");
    let answer = wait(crowd.stage.hub.catch_up(&missed, PAGE)).map_err(|_| ());
    crowd.stage.shards[0].caught_up(key, &chat, answer);
    crowd.settle();
    crowd.has(one, &chat, 1);
}

#[test]
fn an_answer_to_a_subscription_that_is_gone_changes_nothing() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { outbox_bytes_max: 0, ..HubSettings::default() });
    let (chat, rules) = (channel("chat:a"), history());
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.pump(0, usize::MAX);
    crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
    crowd.peers[one].read(&crowd.stage);
    let Some(ShardEvent::CatchUp(key, missed)) = crowd.stage.shards[0].poll_event() else { panic!("not behind") };
    let answer = wait(crowd.stage.hub.catch_up(&missed, PAGE)).map_err(|_| ());
    crowd.unsubscribe(one, &chat);
    let joining = crowd.begin(one, &chat, &rules, None);
    crowd.stage.shards[0].caught_up(key, &chat, answer.clone());
    crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
    crowd.peers[one].read(&crowd.stage);
    crowd.finish(joining);
    crowd.stage.shards[0].caught_up(key, &chat, answer.clone());
    // The same while the new subscription catches up itself: the older answer ends before what this one misses.
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.stage.pump(0, usize::MAX);
    crowd.settle_writes(one);
    let Some(ShardEvent::CatchUp(_, again)) = crowd.stage.shards[0].poll_event() else { panic!("not behind") };
    assert_eq!((missed.next, again.next), (1, 2));
    crowd.stage.shards[0].caught_up(key, &chat, answer);
    let answer = wait(crowd.stage.hub.catch_up(&again, PAGE)).map_err(|_| ());
    crowd.stage.shards[0].caught_up(key, &chat, answer);
    crowd.settle();
    crowd.has(one, &chat, 2);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    crowd.settle();
    crowd.has(one, &chat, 3);
}

#[test]
fn only_who_wants_hears_who_comes_and_goes() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let (chat, rules) = (channel("chat:a"), rules(Kind::Signal));
    let (wants, does_not) = (crowd.connect(0), crowd.connect(0));
    crowd.join(wants, &chat, &rules, None);
    crowd.join(does_not, &chat, &rules, None);
    let key = crowd.peers[does_not].key;
    crowd.stage.shards[0].subscribe(key, &chat, &rules, Interest::default());
    crowd.stage.shards[0].go_live(key, &chat, 0, false);
    let info = Arc::new(ClientInfo { user: "ana".parse().unwrap(), ..ClientInfo::default() });
    let client = "c1".parse().unwrap();
    wait(crowd.stage.broker.enter(&chat, &client, &info, Tell::Subscribers)).unwrap();
    wait(crowd.stage.broker.signal(&chat, says("hello"))).unwrap();
    wait(crowd.stage.broker.leave(&chat, &client, Tell::Subscribers));
    crowd.stage.hand_over_all();
    crowd.settle();
    let told = |peer: usize| {
        let words = |push: &serde_json::Value| {
            ["join", "leave", "pub"]
                .into_iter()
                .find(|word| push.get(word).is_some_and(|told| !told["data"].is_null() || *word != "pub"))
        };
        crowd.peers[peer].signals.iter().filter_map(words).collect::<Vec<_>>()
    };
    assert_eq!(told(wants), ["join", "pub", "leave"]);
    assert_eq!(told(does_not), ["pub"]);
}

#[test]
fn who_takes_nothing_is_closed_once_and_its_key_is_innocent() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { outbox_bytes_hard_max: 1_000, ..HubSettings::default() });
    let one = crowd.connect(0);
    let key = crowd.peers[one].key;
    let frame = Wire::WebSocketJson.frame(&[b' '; 600]);
    for _ in 0..5 {
        crowd.stage.shards[0].send(key, frame.clone());
    }
    assert!(crowd.stage.shards[0].bytes_waiting() < 2_000, "nothing is added beyond the limit");
    crowd.stage.shards[0].remove(key);
    assert_eq!(crowd.stage.shards[0].add(Wire::WebSocketJson), key, "the key is used again");
    assert_eq!(crowd.stage.shards[0].poll_event(), None, "what the other did is not laid to it");
    crowd.stage.shards[0].send(key, frame.clone());
    crowd.stage.shards[0].send(key, frame);
    assert_eq!(crowd.stage.shards[0].poll_event(), Some(ShardEvent::Overfull(key)));
    assert_eq!(crowd.stage.shards[0].poll_event(), None);
    crowd.stage.shards[0].set_now(30_000);
    assert!(crowd.stage.shards[0].stuck().is_empty());
    crowd.stage.shards[0].set_now(30_001);
    assert_eq!(crowd.stage.shards[0].stuck(), [key]);
}

#[test]
fn signals_wait_for_nobody_and_are_counted() {
    let disk = Disk::new();
    let settings =
        HubSettings { outbox_bytes_max: 500, shard_queue_max: 50, signals_waiting_max: 5, ..HubSettings::default() };
    let mut crowd = crowd(&disk, settings);
    let (chat, rules) = (channel("chat:a"), rules(Kind::Signal));
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    for _ in 0..100 {
        wait(crowd.stage.broker.signal(&chat, says("psst"))).unwrap();
    }
    crowd.stage.hand_over_all();
    crowd.settle();
    let counters = &crowd.stage.hub.shards()[0].counters;
    let (delivered, dropped) = (counters.deliveries.load(Relaxed), counters.dropped.load(Relaxed));
    assert_eq!(delivered + dropped, 100);
    assert!(delivered > 0 && dropped >= 50);
    // One more than the reply.
    assert_eq!(crowd.peers[one].signals.len() as u64, delivered + 1);
}

#[test]
fn what_was_missed_is_told_although_the_queue_is_never_empty() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings { shard_queue_max: 4, ..HubSettings::default() });
    let (chat, rules) = (channel("chat:a"), history());
    let busy = channel("typing:x");
    let one = crowd.connect(0);
    crowd.join(one, &chat, &rules, None);
    crowd.join(one, &busy, &super::rules(Kind::Signal), None);
    let flood = |crowd: &mut Crowd| {
        for _ in 0..6 {
            wait(crowd.stage.broker.signal(&busy, says("psst"))).unwrap();
        }
        crowd.stage.hand_over_all();
    };
    flood(&mut crowd);
    crowd.stage.publish(&chat, &rules);
    crowd.stage.hand_over_all();
    for _ in 0..6 {
        crowd.stage.pump(0, 1);
        flood(&mut crowd);
        assert!(crowd.stage.hub.shards()[0].take(&mut Vec::new(), 0), "never empty");
    }
    crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
    crowd.carry_out_events();
    crowd.peers[one].take(&mut crowd.stage.shards[0], usize::MAX);
    crowd.peers[one].read(&crowd.stage);
    crowd.has(one, &chat, 1);
}

#[test]
fn everybody_keeps_their_place_when_others_go() {
    let disk = Disk::new();
    let mut crowd = crowd(&disk, HubSettings::default());
    let rules = history();
    let channels: Vec<Channel> = (0..30).map(|n| channel(&format!("chat:{n}"))).collect();
    let peers: Vec<usize> = (0..8).map(|_| crowd.connect(0)).collect();
    for chat in &channels {
        peers.iter().for_each(|peer| drop(crowd.join(*peer, chat, &rules, None)));
    }
    crowd.settle();
    // The first, the last and one in the middle unsubscribe from some; two connections go with all they have.
    for (n, chat) in channels.iter().enumerate() {
        crowd.unsubscribe([0, 7, 3][n % 3], chat);
        crowd.unsubscribe([0, 7, 3][n % 3], chat);
    }
    for gone in [1, 6] {
        let key = crowd.peers[gone].key;
        crowd.stage.shards[0].remove(key);
    }
    let key = crowd.connect(0);
    assert!([1, 6].map(|gone: usize| crowd.peers[gone].key).contains(&crowd.peers[key].key), "a key is used again");
    crowd.peers.swap(6, key);
    crowd.peers.remove(1);
    crowd.peers.truncate(7);
    for chat in &channels {
        crowd.stage.publish(chat, &rules);
    }
    crowd.stage.hand_over_all();
    crowd.settle();
    let entries: Vec<usize> = crowd.peers.iter().map(|peer| peer.entries).collect();
    assert_eq!(entries, [20, 30, 20, 30, 30, 0, 20]);
    assert_eq!(crowd.stage.hub.channels(), 30);
    let keys: Vec<usize> = crowd.peers.iter().map(|peer| peer.key).collect();
    keys.into_iter().for_each(|key| crowd.stage.shards[0].remove(key));
    assert_eq!((crowd.stage.hub.channels(), crowd.stage.shards[0].len()), (0, 0));
}

#[test]
fn subscribing_twice_or_without_a_connection_leaves_nothing_behind() {
    let disk = Disk::new();
    let stage = Stage::new(HubSettings::default(), &disk.store, 1);
    let mut shard = Shard::new(stage.hub.clone(), 0);
    let (chat, rules) = (channel("chat:a"), history());
    shard.subscribe(7, &chat, &rules, Interest::default());
    assert_eq!(stage.hub.channels(), 0);
    let key = shard.add(Wire::WebSocketJson);
    shard.subscribe(key, &chat, &rules, Interest::default());
    shard.subscribe(key, &chat, &rules, Interest::default());
    shard.go_live(key, &chat, 1, false);
    shard.go_live(key, &chat, 9, false);
    shard.handle(&ShardMessage::Missed(channel("chat:b")));
    shard.unsubscribe(key, &chat);
    shard.unsubscribe(key, &chat);
    assert_eq!(stage.hub.channels(), 0);
    shard.remove(key);
}

#[test]
fn a_publication_is_compressed_once_for_all_who_share_a_window() {
    let disk = Disk::new();
    let stage = Stage::new(HubSettings { compress_bytes_min: 10, ..HubSettings::default() }, &disk.store, 1);
    let mut shard = Shard::new(stage.hub.clone(), 0);
    let (chat, rules) = (channel("chat:a"), history());
    let wires = [Wire::WebSocketJsonDeflate(Window::Wide), Wire::WebSocketJsonDeflate(Window::Narrow)];
    let keys: Vec<_> = (0..100).map(|n| shard.add(if n % 2 == 0 { wires[0] } else { wires[1] })).collect();
    for key in &keys {
        shard.subscribe(*key, &chat, &rules, Interest::default());
        shard.go_live(*key, &chat, 1, false);
    }
    let data = Payload::of(&"again and ".repeat(100));
    let signal = What::Signal(Arc::new(Publication { data: Some(data), ..Publication::default() }));
    shard.handle(&ShardMessage::Deliver(Arc::new(Fanout::new(chat.clone(), signal))));
    let tally = stage.hub.compression().tally();
    assert_eq!(tally.pieces(), 2, "once for each window");
    assert!(tally.bytes_after() * 5 < tally.bytes_before());
    for key in keys {
        shard
            .outbox(key)
            .unwrap()
            .write_with(0, |slices| {
                assert_eq!((slices.len(), slices[0][0]), (1, 0xc1));
                Ok(slices[0].len())
            })
            .unwrap();
    }
}
