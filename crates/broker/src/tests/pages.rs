//! Reading history: from where, which way, how much, and whether that was all.

use talewire_proto::{Namespace, Since};

use super::{ALL, Make, Stand, channel, rules, says};
use crate::Direction::{Backward, Forward};
use crate::{BrokerSettings, Direction, PageLimit};

async fn page(stand: &Stand, rules: &Namespace, since: Since, way: Direction, limit: PageLimit) -> (Vec<u64>, bool) {
    let page = stand.broker.history(&channel("chat:a"), rules, since, way, limit).await.unwrap();
    (page.entries.iter().map(|entry| entry.offset).collect(), page.complete)
}

/// Six entries of 12 bytes each.
async fn six(make: Make) -> Stand {
    let stand = make(BrokerSettings::default());
    for _ in 0..6 {
        stand.publish(&channel("chat:a"), "0123456789").await;
    }
    stand
}

/// What `page` must answer, told the slow way. `kept` are the offsets in history, without a gap up to `top`.
fn expected(kept: &[u64], top: u64, since: &Since, way: Direction, limit: usize) -> (Vec<u64>, bool) {
    let backward = way == Backward || *since == Since::Newest;
    let wanted: Vec<u64> = match (since, backward) {
        (Since::Oldest, true) => vec![],
        (Since::Oldest, false) => kept.to_vec(),
        (Since::Newest, _) => (1..=top).rev().collect(),
        (Since::After(offset), true) => (1..=top).rev().filter(|o| o < offset).collect(),
        (Since::After(offset), false) => (1..=top).filter(|o| o > offset).collect(),
    };
    let there: Vec<u64> = wanted.iter().copied().filter(|offset| kept.contains(offset)).take(limit).collect();
    let complete = there.len() == wanted.len();
    (there, complete)
}

async fn every(stand: &Stand, rules: &Namespace, kept: &[u64], top: u64) {
    let offsets = [0, 1, 2, 3, 4, 5, 6, 7, 8, u64::MAX];
    let all = offsets.map(Since::After).into_iter().chain([Since::Oldest, Since::Newest]);
    for since in all {
        for way in [Forward, Backward] {
            for limit in [0, 1, 2, 5, 6, 7] {
                let got = page(stand, rules, since.clone(), way, PageLimit { entries: limit, ..ALL }).await;
                assert_eq!(got, expected(kept, top, &since, way, limit), "{since:?} {way:?} {limit}");
            }
        }
    }
}

pub(super) async fn every_page_of_a_short_history(make: Make) {
    every(&six(make).await, &rules(), &[1, 2, 3, 4, 5, 6], 6).await;
}

pub(super) async fn limits_by_entries_and_bytes(make: Make) {
    let stand = six(make).await;
    let bytes = |bytes| PageLimit { entries: 100, bytes };
    for (limit, offsets) in [(0, vec![1]), (12, vec![1]), (23, vec![1]), (24, vec![1, 2]), (71, vec![1, 2, 3, 4, 5])] {
        assert_eq!(page(&stand, &rules(), Since::Oldest, Forward, bytes(limit)).await, (offsets, false), "{limit}");
    }
    assert_eq!(page(&stand, &rules(), Since::After(0), Forward, bytes(72)).await, (vec![1, 2, 3, 4, 5, 6], true));
    assert_eq!(page(&stand, &rules(), Since::Newest, Backward, bytes(30)).await, (vec![6, 5], false));
    assert_eq!(page(&stand, &rules(), Since::After(2), Backward, bytes(0)).await, (vec![1], true));
    let both = PageLimit { entries: 2, bytes: 13 };
    assert_eq!(page(&stand, &rules(), Since::Oldest, Forward, both).await, (vec![1], false));
}

pub(super) async fn a_trimmed_page_says_so(make: Make) {
    let stand = six(make).await;
    let small = Namespace { history_size: 3, ..rules() };
    every(&stand, &small, &[4, 5, 6], 6).await;
    let none = Namespace { history_size: 0, ..rules() };
    every(&stand, &none, &[], 6).await;
}

pub(super) async fn an_empty_history_has_a_position(make: Make) {
    let stand = make(BrokerSettings::default());
    every(&stand, &rules(), &[], 0).await;
    let chat = channel("chat:a");
    let top = stand.broker.history(&chat, &rules(), Since::Newest, Backward, ALL).await.unwrap().top;
    let again = stand.broker.history(&chat, &rules(), Since::Newest, Backward, ALL).await.unwrap().top;
    assert_eq!(top, again, "what was told stays true");
    let first = stand.broker.publish(&chat, &rules(), says("x").into()).await.unwrap().position;
    assert_eq!((first.offset, first.epoch), (1, top.epoch));
}
