//! Reads that several readers share: one for all who come at the same time, and never one that had begun before they looked.

use std::sync::Arc;

use talewire_broker::PageLimit;
use talewire_proto::command::Recover;
use talewire_proto::{Channel, Kind, Position, Since};

use super::crowd::Crowd;
use super::stage::{Disk, Stage, Step, durable, history};
use super::{channel, rules};
use crate::reads::BREATHES;
use crate::{Hub, HubSettings, Recovered};

/// A stage whose reads wait where in truth the broker is waited for, so that others come in between.
fn breathing(disk: &Disk) -> Stage {
    BREATHES.set(true);
    Stage::new(HubSettings::default(), &disk.store, 2)
}

#[test]
fn nobody_shares_a_read_that_had_begun_before_they_came() {
    let disk = Disk::new();
    for rules in [history(), durable()] {
        let mut crowd = Crowd::new(breathing(&disk));
        let chat = channel("chat:begun");
        let follower = crowd.connect(0);
        crowd.join(follower, &chat, &rules, None);
        let start = Position { offset: 0, ..crowd.stage.publish(&chat, &rules) };
        crowd.stage.hand_over_all();
        let (early, late) = (crowd.connect(1), crowd.connect(1));
        let mut first = crowd.begin(early, &chat, &rules, Some(start.clone()));
        let made = crowd.stage.hub.history_reads().0;
        while crowd.stage.hub.history_reads().0 == made {
            assert!(!first.is_answered(), "it has not begun to read");
        }
        // The first has read, and nobody has seen the answer: what comes now is not in it.
        crowd.stage.publish(&chat, &rules);
        crowd.stage.hand_over_all();
        let mut second = crowd.begin(late, &chat, &rules, Some(start));
        assert!(!second.is_answered(), "it waits for its turn");
        crowd.finish(first);
        let recovered = crowd.finish(second);
        assert_eq!(recovered.result.entries.len(), 2, "the second reads for itself");
        crowd.settle();
        for reader in [follower, early, late] {
            crowd.has(reader, &chat, 2);
        }
        assert_eq!(crowd.stage.hub.history_reads().1, 0);
    }
}

#[test]
fn who_comes_while_another_one_reads_waits_for_the_next_read_with_all_others() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(breathing(&disk));
    let chat = channel("chat:crowd");
    let top = (0..5).map(|_| crowd.stage.publish(&chat, &history())).last().unwrap();
    crowd.stage.hand_over_all();
    let recovers = |n: u64| Some(Position { offset: n % 3, ..top.clone() });
    let peers: Vec<usize> = (0..50).map(|n| crowd.connect(n % 2)).collect();
    let mut first = crowd.begin(peers[0], &chat, &history(), recovers(0));
    while crowd.stage.hub.history_reads().0 == 0 {
        assert!(!first.is_answered());
    }
    let rest: Vec<_> =
        peers[1..].iter().zip(1..).map(|(peer, n)| crowd.begin(*peer, &chat, &history(), recovers(n))).collect();
    let mut waiting: Vec<_> = std::iter::once(first).chain(rest).collect();
    // Each looks and joins before anybody is answered.
    assert!(waiting.iter_mut().skip(1).all(|joining| !joining.is_answered()));
    for (n, joining) in waiting.into_iter().enumerate() {
        let recovered = crowd.finish(joining);
        assert!(recovered.result.recovered);
        assert_eq!(recovered.result.entries.len(), 5 - n % 3, "each gets what it misses");
    }
    crowd.settle();
    peers.iter().for_each(|peer| crowd.has(*peer, &chat, 5));
    assert_eq!(crowd.stage.hub.history_reads(), (2, 48));
}

#[test]
fn who_gives_up_leaves_the_read_to_the_others() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(breathing(&disk));
    let chat = channel("chat:given-up");
    let start = Position { offset: 0, ..crowd.stage.publish(&chat, &history()) };
    let (gone, stays) = (crowd.connect(0), crowd.connect(0));
    let mut first = crowd.begin(gone, &chat, &history(), Some(start.clone()));
    assert!(!first.is_answered());
    let mut second = crowd.begin(stays, &chat, &history(), Some(start));
    assert!(!second.is_answered(), "it waits with the first");
    drop(first);
    assert_eq!(crowd.finish(second).result.entries.len(), 1);
}

#[test]
fn a_reader_whose_piece_was_cut_off_by_the_limit_reads_for_itself() {
    let disk = Disk::new();
    let mut stage = breathing(&disk);
    let chat = channel("chat:long");
    for _ in 0..20 {
        stage.publish(&chat, &history());
    }
    let limit = PageLimit { entries: 10, bytes: 1_000_000 };
    let read = |after: u64| {
        let (hub, chat) = (stage.hub.clone(), chat.clone());
        Step::new(async move { hub.read_together(&chat, &history(), Since::After(after), limit).await.map_err(drop) })
    };
    let mut steps = [(0, read(0)), (12, read(12)), (15, read(15))];
    let mut found = std::collections::BTreeMap::new();
    while found.len() < steps.len() {
        for (after, step) in &mut steps {
            if !found.contains_key(after)
                && let Some(read) = step.go()
            {
                let read = read.unwrap();
                let offsets: Vec<u64> = read.entries.iter().map(|entry| entry.offset).collect();
                found.insert(*after, (offsets, read.complete));
            }
        }
    }
    assert_eq!(found[&0], ((1..=10).collect(), false));
    assert_eq!(found[&12], ((13..=20).collect(), true));
    assert_eq!(found[&15], ((16..=20).collect(), true));
}

/// 10,000 clients of a node that died come to this one within a few seconds, each with what it had last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_costs_few_reads() {
    const CROWD: u64 = 10_000;
    let disk = Disk::new();
    for kind in [Kind::History, Kind::Durable] {
        let stage = tokio::task::block_in_place(|| {
            let mut stage = Stage::new(HubSettings::default(), &disk.store, 2);
            for _ in 0..100 {
                stage.publish(&lost(kind), &rules(kind));
            }
            stage
        });
        let hub = Hub::detached(HubSettings::default(), stage.store.clone(), stage.broker.clone(), 1).hub;
        let top = tokio::task::block_in_place(|| stage.top(&lost(kind), &rules(kind)).0);
        let mut readers = Vec::new();
        for n in 0..CROWD {
            let asked = Position { offset: 95 - n % 3, epoch: top.epoch.clone() };
            let hub = hub.clone();
            readers.push(tokio::spawn(async move {
                let limit = PageLimit { entries: 300, bytes: 1_000_000 };
                let rules = rules(kind);
                let Recovered { result, .. } =
                    hub.recover(&lost(kind), &rules, Some(&Recover::After(asked.clone())), limit).await.unwrap();
                assert!(result.recovered);
                assert_eq!(result.entries.len() as u64, 100 - asked.offset);
            }));
            if n % 50 == 0 {
                // Not all in the same moment.
                tokio::task::yield_now().await;
            }
        }
        for reader in readers {
            reader.await.unwrap();
        }
        let (made, shared) = hub.history_reads();
        assert_eq!(made + shared, CROWD);
        assert!(made <= 200, "{made} reads for {CROWD} readers of {kind:?}");
    }
}

fn lost(kind: Kind) -> Channel {
    channel(if kind == Kind::Durable { "log:lost" } else { "chat:lost" })
}

#[test]
fn more_pieces_than_are_kept_apart_are_read_one_by_one() {
    let disk = Disk::new();
    let settings = HubSettings { reads_shared_max: 1, ..HubSettings::default() };
    BREATHES.set(true);
    let mut stage = Stage::new(settings, &disk.store, 1);
    let channels: Vec<(Channel, Arc<_>)> = (0..3).map(|n| (channel(&format!("chat:{n}")), history())).collect();
    channels.iter().for_each(|(channel, rules)| drop(stage.publish(channel, rules)));
    let mut steps: Vec<_> = channels
        .iter()
        .map(|(channel, rules)| {
            let (hub, channel, rules) = (stage.hub.clone(), channel.clone(), rules.clone());
            let recover = Recover::After(Position::default());
            let limit = PageLimit { entries: 300, bytes: 1_000_000 };
            Step::new(async move { hub.recover(&channel, &rules, Some(&recover), limit).await.map_err(drop) })
        })
        .collect();
    while !steps.is_empty() {
        steps.retain_mut(|step| match step.go() {
            Some(answer) => {
                assert_eq!(answer.unwrap().result.entries.len(), 1);
                false
            }
            None => true,
        });
    }
    assert_eq!(stage.hub.history_reads(), (3, 0));
}
