//! What nodes do with each other over the broker: reports, letters, leases, marks, and looks at where channels stand.

use std::sync::Arc;

use bytes::Bytes;

use super::{Make, Stand, channel};
use crate::{BrokerError, BrokerHealth, BrokerSettings, NodeId, NodeReport, TOPS_MAX};

fn report(id: &NodeId) -> NodeReport {
    NodeReport {
        id: id.clone(),
        name: "here".into(),
        version: "1".into(),
        store: "s".into(),
        started_ms: 5,
        connections: 1,
        users: 1,
        subscriptions: 2,
        channels: 3,
        draining: false,
        agreed: Default::default(),
    }
}

pub(super) async fn a_node_is_listed_until_it_departs(make: Make) {
    let stand = make(BrokerSettings::default());
    assert_eq!(stand.broker.nodes().await.unwrap(), []);
    let mut told = report(&stand.node);
    stand.broker.beat(told.clone()).await.unwrap();
    told.draining = true;
    stand.broker.beat(told.clone()).await.unwrap();
    assert_eq!(stand.broker.nodes().await.unwrap(), [told]);
    stand.broker.depart().await;
    assert_eq!(stand.broker.nodes().await.unwrap(), []);
}

pub(super) async fn letters_reach_the_node_that_is_named(make: Make) {
    let stand = make(BrokerSettings::default());
    let (sender, mut letters) = tokio::sync::mpsc::unbounded_channel();
    stand.broker.letters_to(Arc::new(move |letter| drop(sender.send(letter))));
    assert_eq!(stand.broker.post(&NodeId::named("nobody"), Bytes::from_static(b"a")).await, Ok(false));
    assert_eq!(stand.broker.post(&stand.node, Bytes::from_static(b"b\0")).await, Ok(true));
    assert_eq!(letters.recv().await.unwrap(), b"b\0"[..]);
    assert!(letters.try_recv().is_err());
}

pub(super) async fn a_lease_is_kept_and_given_back(make: Make) {
    let stand = make(BrokerSettings::default());
    assert_eq!(stand.broker.lease("prune", 10_000).await, Ok(true));
    assert_eq!(stand.broker.lease("prune", 10_000).await, Ok(true), "whoever has it keeps it");
    stand.broker.release("prune").await;
    assert_eq!(stand.broker.lease("prune", 10_000).await, Ok(true));
}

pub(super) async fn a_mark_counts_once(make: Make) {
    let stand = make(BrokerSettings { marks_max: 2, ..BrokerSettings::default() });
    assert_eq!(stand.broker.spend("a", 10_000).await, Ok(true));
    assert_eq!(stand.broker.spend("a", 10_000).await, Ok(false));
    assert_eq!(stand.broker.spend("b:a", 10_000).await, Ok(true));
    (stand.pass_ms)(10_001);
    assert_eq!(stand.broker.spend("a", 10_000).await, Ok(true), "it was forgotten");
}

pub(super) async fn one_mark_by_many_at_once_is_spent_once(make: Make) {
    let stand = make(BrokerSettings::default());
    let spending = (0..50).map(|_| {
        let broker = stand.broker.clone();
        tokio::spawn(async move { broker.spend("ticket", 60_000).await.unwrap() })
    });
    let mut first = 0;
    for spent in spending.collect::<Vec<_>>() {
        first += u32::from(spent.await.unwrap());
    }
    assert_eq!(first, 1);
}

pub(super) async fn tops_tell_where_channels_stand(make: Make) {
    let stand = make(BrokerSettings::default());
    let (one, two) = (channel("a:one"), channel("a:two"));
    for _ in 0..3 {
        publish(&stand, "a:one").await;
    }
    publish(&stand, "a:two").await;
    let mut asked: Vec<_> = (2..TOPS_MAX).map(|n| channel(&format!("a:none-{n}"))).collect();
    asked.extend([one.clone(), two.clone()]);
    let mut tops = stand.broker.tops(&asked).await.unwrap();
    tops.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    let offsets: Vec<_> = tops.iter().map(|(channel, top)| (channel.clone(), top.offset)).collect();
    assert_eq!(offsets, [(one, 3), (two, 1)]);
    assert!(tops.iter().all(|(_, top)| !top.epoch.is_empty()));
}

async fn publish(stand: &Stand, name: &str) {
    stand.publish(&channel(name), "words").await;
}

pub(super) async fn what_is_listened_to_is_delivered(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let chat = channel("a:chat");
    stand.broker.listen(&chat);
    assert_eq!(stand.broker.listening(&chat).await, Ok(()));
    stand.publish(&chat, "words").await;
    assert_eq!(stand.next_entry().await.offset, 1);
    stand.broker.unlisten(&chat);
    assert_eq!(stand.broker.health(), BrokerHealth::Up);
    assert!(!matches!(stand.broker.spend("x", 1).await, Err(BrokerError::Unavailable(_))));
}
