//! Which channels are occupied, on whichever node: what is told, and that the last word is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use talewire_proto::{Channel, Notice, NoticeKind};
use tokio::sync::mpsc;

use super::{Make, Stand, channel};
use crate::{Broker, BrokerSettings, NodeId};

const BOTH: [NoticeKind; 2] = [NoticeKind::ChannelOccupied, NoticeKind::ChannelVacated];

/// What was told: on which node, of which channel, whether it is occupied, and the serial.
type Heard = mpsc::UnboundedReceiver<(&'static str, Channel, bool, u64)>;

/// Two more nodes over the broker of a stand, told to one ear.
struct Pair {
    stand: Stand,
    a: Broker,
    b: Broker,
    heard: Heard,
}

fn settings() -> BrokerSettings {
    BrokerSettings { node_beat_ms: 50, ..BrokerSettings::default() }
}

fn pair(make: Make) -> Pair {
    let stand = make(settings());
    let (sender, heard) = mpsc::unbounded_channel();
    let node = |name: &'static str| {
        let broker = (stand.another)(&NodeId::new());
        let sender = sender.clone();
        let sink = move |notice| {
            let told = match notice {
                Notice::ChannelOccupied { channel, serial } => (name, channel, true, serial),
                Notice::ChannelVacated { channel, serial } => (name, channel, false, serial),
                other => panic!("nobody told {other:?}"),
            };
            let _ = sender.send(told);
        };
        broker.notices_to(Arc::new(sink), &BOTH, &settings());
        broker
    };
    let (a, b) = (node("a"), node("b"));
    Pair { stand, a, b, heard }
}

impl Pair {
    async fn next(&mut self) -> (&'static str, Channel, bool, u64) {
        let next = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
        next.expect("a notice in time").expect("it is open")
    }
}

pub(super) async fn the_first_and_the_last_of_all_nodes_are_told(make: Make) {
    let mut pair = pair(make);
    let (chat, other) = (channel("chat:x"), channel("chat:y"));
    pair.a.listen(&chat);
    let (by, of, is_occupied, first) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("a", chat.clone(), true));
    // Neither the second to come nor the first to go is told; what the same node says later of another channel is.
    pair.b.listen(&chat);
    pair.b.listen(&other);
    let (by, of, is_occupied, _) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("b", other.clone(), true));
    settled(&pair.b).await;
    pair.a.unlisten(&chat);
    pair.a.listen(&channel("chat:z"));
    assert_eq!(pair.next().await.1, channel("chat:z"));
    settled(&pair.a).await;
    pair.b.unlisten(&chat);
    let (by, of, is_occupied, last) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("b", chat.clone(), false));
    pair.a.listen(&chat);
    let (by, of, is_occupied, again) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("a", chat, true));
    assert!(first < last && last < again, "{first} {last} {again}");
    drop(pair.stand);
}

/// Waits until nothing waits.
async fn settled(broker: &Broker) {
    let begun = std::time::Instant::now();
    while !broker.occupancy_is_settled() {
        assert!(begun.elapsed() < Duration::from_secs(20), "something waits for ever");
        tokio::task::yield_now().await;
    }
}

pub(super) async fn many_at_once_end_in_the_truth(make: Make) {
    let Pair { stand, a, b, mut heard } = pair(make);
    let channels: Vec<Channel> = (0..8).map(|n| channel(&format!("flip:{n}"))).collect();
    let truth = Arc::new(Mutex::new(HashMap::<Channel, [bool; 2]>::new()));
    let mut flipping = Vec::new();
    for (at, broker) in [a.clone(), b.clone()].into_iter().enumerate() {
        let (channels, truth) = (channels.clone(), truth.clone());
        flipping.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(at as u64 + 7);
            for _ in 0..400 {
                let channel = &channels[random.usize(..channels.len())];
                {
                    let mut truth = truth.lock();
                    let holds = &mut truth.entry(channel.clone()).or_default()[at];
                    *holds = !*holds;
                    if *holds { broker.listen(channel) } else { broker.unlisten(channel) }
                }
                for _ in 0..random.u8(..40) {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    for flipping in flipping {
        flipping.await.expect("it does not panic");
    }
    settled(&a).await;
    settled(&b).await;
    let mut last: HashMap<Channel, (u64, bool)> = HashMap::new();
    while let Ok((_, channel, is_occupied, serial)) = heard.try_recv() {
        let told = last.entry(channel).or_insert((serial, is_occupied));
        assert!(told.0 != serial || told.1 == is_occupied, "one serial is one change");
        if told.0 < serial {
            *told = (serial, is_occupied);
        }
    }
    for (channel, held) in truth.lock().iter() {
        let told = last.get(channel).is_some_and(|(_, is_occupied)| *is_occupied);
        assert_eq!(told, held[0] || held[1], "{channel}: {held:?}");
    }
    drop(stand);
}

pub(super) async fn a_node_that_departs_gives_up_what_it_held(make: Make) {
    let mut pair = pair(make);
    let (mine, ours) = (channel("chat:mine"), channel("chat:ours"));
    pair.b.listen(&ours);
    assert_eq!(pair.next().await.1, ours);
    pair.a.listen(&ours);
    pair.a.listen(&mine);
    assert_eq!(pair.next().await.1, mine);
    settled(&pair.a).await;
    pair.a.depart().await;
    let (by, of, is_occupied, _) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("a", mine, false));
    pair.b.unlisten(&ours);
    let (by, of, is_occupied, _) = pair.next().await;
    assert_eq!((by, of, is_occupied), ("b", ours, false));
}

pub(super) async fn who_does_not_want_to_hear_is_not_counted(make: Make) {
    let mut pair = pair(make);
    let chat = channel("chat:x");
    // The node of the stand has no webhooks.
    pair.stand.broker.listen(&chat);
    pair.a.listen(&chat);
    assert!(pair.next().await.2);
    pair.a.unlisten(&chat);
    assert!(!pair.next().await.2);
    assert!(pair.stand.broker.occupancy_counts().is_none());
}
