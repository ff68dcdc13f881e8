//! Publishing to a history channel, and what is forgotten of it.

use std::sync::Arc;

use talewire_proto::trace::Trace;
use talewire_proto::{ClientInfo, Entry, Epoch, Namespace, Payload, Publication, Since};

use super::{ALL, Make, channel, rules, says, text};
use crate::{BrokerError, BrokerSettings, Direction, Message};

pub(super) async fn offsets_rise_by_one_and_the_epoch_stays(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let (a, b) = (channel("chat:a"), channel("chat:b"));
    let epoch = stand.broker.history(&a, &rules(), Since::Oldest, Direction::Forward, ALL).await.unwrap().top.epoch;
    for offset in 1..=20 {
        let published = stand.broker.publish(&a, &rules(), says("a").into()).await.unwrap();
        assert_eq!((published.position.offset, published.repeated), (offset, false));
        assert_eq!(published.position.epoch, epoch);
        match stand.next().await.message {
            Message::Entry { epoch: told, entry } => assert_eq!((told, entry.offset), (epoch.clone(), offset)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stand.publish(&b, "b").await, 1, "channels count by themselves");
    let other = stand.broker.history(&b, &rules(), Since::Oldest, Direction::Forward, ALL).await.unwrap().top.epoch;
    assert_ne!(other, epoch);
}

pub(super) async fn an_entry_is_delivered_as_it_was_published(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let chat = channel("chat:a");
    let publication = Publication {
        data: Some(Payload::parse(br#"{"b": 1, "a": "\u00e9 \n"}"#).unwrap()),
        info: Some(ClientInfo { user: "ana".parse().unwrap(), ..ClientInfo::default() }),
        tags: [("mood".to_owned(), "dark".to_owned())].into(),
        time_ms: 1_234,
        trace: Trace::of_header("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    };
    stand.broker.publish(&chat, &rules(), publication.clone().into()).await.unwrap();
    let expected = Entry { offset: 1, publication };
    assert_eq!(*stand.next_entry().await, expected);
    let page = stand.broker.history(&chat, &rules(), Since::Oldest, Direction::Forward, ALL).await.unwrap();
    assert_eq!(*page.entries[0], expected);
    stand.broker.signal(&chat, says("psst")).await.unwrap();
    let delivery = stand.next().await;
    assert_eq!(delivery.channel, chat);
    match delivery.message {
        Message::Signal(publication) => assert_eq!(text(&publication), "psst"),
        other => panic!("{other:?}"),
    }
    let page = stand.broker.history(&chat, &rules(), Since::Oldest, Direction::Forward, ALL).await.unwrap();
    assert_eq!(page.top.offset, 1, "a signal is not kept");
}

async fn kept(stand: &super::Stand, rules: &Namespace) -> (Vec<u64>, u64) {
    let page = stand.broker.history(&channel("chat:a"), rules, Since::Oldest, Direction::Forward, ALL).await.unwrap();
    (page.entries.iter().map(|entry| entry.offset).collect(), page.top.offset)
}

pub(super) async fn old_entries_go_by_number(make: Make) {
    let stand = make(BrokerSettings::default());
    let small = Namespace { history_size: 3, ..rules() };
    for _ in 0..5 {
        stand.broker.publish(&channel("chat:a"), &small, says("x").into()).await.unwrap();
    }
    assert_eq!(kept(&stand, &small).await, (vec![3, 4, 5], 5));
    let none = Namespace { history_size: 0, ..rules() };
    assert_eq!(kept(&stand, &none).await, (vec![], 5), "rules may change while the channel lives");
    assert_eq!(stand.publish(&channel("chat:a"), "x").await, 6);
}

pub(super) async fn old_entries_go_by_age(make: Make) {
    let stand = make(BrokerSettings::default());
    stand.publish(&channel("chat:a"), "old").await;
    (stand.pass_ms)(40_000);
    stand.publish(&channel("chat:a"), "new").await;
    assert_eq!(kept(&stand, &rules()).await, (vec![1, 2], 2));
    (stand.pass_ms)(30_000);
    assert_eq!(kept(&stand, &rules()).await, (vec![2], 2));
    (stand.pass_ms)(60_000);
    stand.broker.sweep();
    assert_eq!(kept(&stand, &rules()).await, (vec![], 2), "the position outlives the entries");
}

pub(super) async fn ages_without_end_are_no_fault(make: Make) {
    let stand = make(BrokerSettings { key_age_ms: u64::MAX, history_idle_ms: u64::MAX, ..BrokerSettings::default() });
    let rules = Namespace { history_age_ms: u64::MAX, ..rules() };
    stand.broker.publish(&channel("chat:a"), &rules, says("x").into()).await.unwrap();
    (stand.pass_ms)(1_000_000_000);
    stand.broker.sweep();
    assert_eq!(kept(&stand, &rules).await, (vec![1], 1));
}

pub(super) async fn a_silent_channel_is_forgotten_with_its_epoch(make: Make) {
    let stand = make(BrokerSettings { history_idle_ms: 100_000, ..BrokerSettings::default() });
    let chat = channel("chat:a");
    let first = stand.broker.publish(&chat, &rules(), says("x").into()).await.unwrap().position;
    (stand.pass_ms)(90_000);
    stand.broker.sweep();
    let same = stand.broker.publish(&chat, &rules(), says("x").into()).await.unwrap().position;
    assert_eq!((same.offset, &same.epoch), (2, &first.epoch));
    (stand.pass_ms)(101_000);
    stand.broker.sweep();
    let new = stand.broker.publish(&chat, &rules(), says("x").into()).await.unwrap().position;
    assert_eq!(new.offset, 1);
    assert_ne!(new.epoch, first.epoch);
}

pub(super) async fn only_so_many_channels_are_kept(make: Make) {
    let settings = BrokerSettings { history_channels_max: 2, history_idle_ms: 1_000, ..BrokerSettings::default() };
    let stand = make(settings);
    let short = Namespace { history_age_ms: 1_000, ..rules() };
    let publish = async |name: &str| stand.broker.publish(&channel(name), &short, says("x").into()).await;
    publish("chat:a").await.unwrap();
    publish("chat:b").await.unwrap();
    assert!(matches!(publish("chat:c").await, Err(BrokerError::Full(_))));
    publish("chat:a").await.unwrap();
    stand.broker.signal(&channel("chat:c"), says("signals are not counted")).await.unwrap();
    (stand.pass_ms)(2_000);
    stand.broker.sweep();
    publish("chat:c").await.unwrap();
    publish("chat:d").await.unwrap();
    assert!(matches!(publish("chat:a").await, Err(BrokerError::Full(_))));
}

pub(super) async fn what_the_store_committed_is_announced(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let entry = Arc::new(Entry { offset: 7, publication: says("kept elsewhere") });
    stand.broker.announce(&channel("story:x"), &Epoch::new("e"), entry.clone()).await;
    let delivery = stand.next().await;
    assert_eq!(delivery.channel, channel("story:x"));
    match delivery.message {
        Message::Entry { epoch, entry: told } => assert_eq!((epoch.as_str(), told), ("e", entry)),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn what_is_removed_is_missed_by_whoever_was_behind_it(make: Make) {
    let stand = make(BrokerSettings::default());
    let (chat, rules) = (channel("chat:1"), rules());
    for words in ["a", "b", "c"] {
        stand.publish(&chat, words).await;
    }
    let read = |since| stand.broker.history(&chat, &rules, since, Direction::Forward, ALL);
    let before = read(Since::Oldest).await.unwrap();
    stand.broker.remove_history(&chat).await.unwrap();
    stand.broker.remove_history(&channel("chat:none")).await.unwrap();
    let after = read(Since::After(2)).await.unwrap();
    assert_eq!((after.entries.len(), &after.top, after.complete), (0, &before.top, false), "an entry is missing");
    assert!(read(Since::After(3)).await.unwrap().complete, "who had everything misses nothing");
    assert_eq!(stand.publish(&chat, "d").await, 4);
    let page = read(Since::After(3)).await.unwrap();
    assert_eq!((page.entries.len(), page.top.epoch), (1, before.top.epoch));
}

pub(super) async fn asking_about_a_channel_keeps_nothing(make: Make) {
    let settings = BrokerSettings { history_channels_max: 2, history_idle_ms: 1_000, ..BrokerSettings::default() };
    let stand = make(settings);
    let short = Namespace { history_age_ms: 1_000, ..rules() };
    let ask = async |name: &str| {
        stand.broker.history(&channel(name), &short, Since::Oldest, Direction::Forward, ALL).await.unwrap().top
    };
    let told = ask("chat:a").await;
    for n in 0..100 {
        assert_eq!(ask(&format!("chat:{n}")).await.offset, 0);
    }
    let first = stand.broker.publish(&channel("chat:a"), &short, says("x").into()).await.unwrap().position;
    assert_eq!((first.offset, &first.epoch), (1, &told.epoch), "what was told before stays true");
    let mut others = Vec::new();
    for n in 0..100 {
        let name = format!("chat:{n}");
        others.push((name.clone(), ask(&name).await.epoch));
    }
    assert!(others.iter().all(|(_, epoch)| *epoch != told.epoch));
    (stand.pass_ms)(3_000);
    stand.broker.sweep();
    let mut harmed = 0;
    for (name, before) in &others {
        harmed += usize::from(ask(name).await.epoch != *before);
    }
    // One of many thousands may share a counter with what was forgotten.
    assert!(harmed <= 1, "{harmed} who wait for a first publication would be told of a gap");
    let forgotten = ask("chat:a").await;
    assert_eq!(forgotten.offset, 0);
    assert_ne!(forgotten.epoch, told.epoch, "its first offset would mean another entry");
}

pub(super) async fn only_so_many_bytes_are_kept(make: Make) {
    let stand = make(BrokerSettings { history_bytes_max: 2_000, ..BrokerSettings::default() });
    let kept = async |name: &str| {
        let read =
            stand.broker.history(&channel(name), &rules(), Since::Oldest, Direction::Forward, ALL).await.unwrap();
        read.entries.iter().map(|entry| entry.offset).collect::<Vec<u64>>()
    };
    for _ in 0..5 {
        stand.publish(&channel("chat:a"), "0123456789").await;
    }
    assert_eq!(kept("chat:a").await, [1, 2, 3, 4, 5]);
    for _ in 0..5 {
        stand.publish(&channel("chat:b"), &"x".repeat(400)).await;
    }
    assert_eq!(kept("chat:b").await, [5], "who publishes pays");
    assert_eq!(kept("chat:a").await, [1, 2, 3, 4, 5], "and nobody else");
    assert_eq!(stand.broker.history_bytes(), 5 * (256 + 12) + 256 + 402);
    (stand.pass_ms)(70_000);
    stand.broker.sweep();
    assert_eq!((kept("chat:a").await, stand.broker.history_bytes()), (vec![], 0));
}
