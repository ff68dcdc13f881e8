//! Many at once: one order for each channel, and wake-ups.

use std::collections::HashMap;

use talewire_proto::generation::GenerationFrame;
use talewire_proto::{GenerationId, Namespace, StoryId};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::{Make, channel, rules, says, text};
use crate::{BrokerSettings, Key, Message, Publish, StreamError, WakeUp};

pub(super) async fn deliveries_of_a_channel_come_in_its_order(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let mut publishers = JoinSet::new();
    for publisher in 0..8 {
        let broker = stand.broker.clone();
        publishers.spawn(async move {
            let mut done = Vec::new();
            for n in 0..200 {
                let name = format!("chat:{}", n % 4);
                let words = format!("{publisher}-{n}");
                let small = Namespace { history_size: 7, ..rules() };
                let published = broker.publish(&channel(&name), &small, says(&words).into()).await.unwrap();
                done.push(((name, published.position.offset), words));
                tokio::task::yield_now().await;
            }
            done
        });
    }
    let mut answers = HashMap::new();
    while let Some(done) = publishers.join_next().await {
        for (place, words) in done.unwrap() {
            assert!(answers.insert(place, words).is_none(), "two publications at one place");
        }
    }
    let mut tops: HashMap<String, u64> = HashMap::new();
    for _ in 0..1_600 {
        let delivery = stand.next().await;
        let Message::Entry { entry, .. } = delivery.message else { panic!("not an entry") };
        let name = delivery.channel.to_string();
        let top = tops.entry(name.clone()).or_default();
        *top += 1;
        assert_eq!(entry.offset, *top, "{name}");
        assert_eq!(text(&entry.publication), answers[&(name, entry.offset)]);
    }
}

pub(super) async fn one_key_by_many_at_once_is_one_entry(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let mut publishers = JoinSet::new();
    for _ in 0..16 {
        let broker = stand.broker.clone();
        publishers.spawn(async move {
            let key = Key { user: "ana".parse().unwrap(), key: "k".into() };
            let publish = Publish { key: Some(key), ..says("x").into() };
            broker.publish(&channel("chat:a"), &rules(), publish).await.unwrap()
        });
    }
    let all = publishers.join_all().await;
    assert!(all.iter().all(|published| published.position.offset == 1));
    assert_eq!(all.iter().filter(|published| !published.repeated).count(), 1);
    assert_eq!(stand.next_entry().await.offset, 1);
    stand.nothing_more(&channel("chat:a")).await;
}

pub(super) async fn deltas_come_in_the_order_of_the_text(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let (story, generation) = (StoryId::from_random([7; 13]), GenerationId::from_random([1; 13]));
    stand.broker.generation_begin(&story, &generation, 1).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (broker, story, generation) = (stand.broker.clone(), story.clone(), generation.clone());
        writers.spawn(async move {
            for n in 0..100 {
                let text = format!("🦊{writer}.{n} ");
                let mut at = 0;
                while let Err(error) = broker.generation_append(&story, &generation, 1, at, &text).await {
                    let StreamError::Elsewhere { at: ends } = error else { panic!("{error}") };
                    at = ends;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    writers.join_all().await;
    let mut read = String::new();
    stand.next().await;
    for _ in 0..400 {
        let Message::Generation(frame) = stand.next().await.message else { panic!("not a frame") };
        let GenerationFrame::Delta { at, text, .. } = &*frame else { panic!("not a delta") };
        assert_eq!(*at, read.encode_utf16().count() as u64);
        read.push_str(text);
    }
    let snapshot = stand.broker.generation_snapshot(&story, &generation).await.unwrap().unwrap();
    assert_eq!(read, snapshot.text);
}

pub(super) async fn wake_ups_reach_everybody_who_listens(make: Make) {
    let stand = make(BrokerSettings { wakeups_waiting_max: 4, ..BrokerSettings::default() });
    stand.broker.wake(WakeUp::Jobs);
    let (mut one, mut two) = (stand.broker.wakeups(), stand.broker.wakeups());
    let cancel = WakeUp::Cancel(GenerationId::from_random([1; 13]));
    stand.broker.wake(cancel.clone());
    stand.broker.wake(WakeUp::Jobs);
    for listener in [&mut one, &mut two] {
        assert_eq!(listener.recv().await.unwrap(), cancel, "only from now on");
        assert_eq!(listener.recv().await.unwrap(), WakeUp::Jobs);
    }
    for _ in 0..20 {
        stand.broker.wake(WakeUp::Jobs);
    }
    assert!(matches!(one.recv().await, Err(RecvError::Lagged(_))), "who lags is told");
}
