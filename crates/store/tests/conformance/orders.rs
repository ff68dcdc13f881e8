//! Orders to connections: kept for their time, and read by every node in one order, whoever else is adding some.

use std::collections::BTreeSet;

use crate::Home;

pub(crate) async fn orders_stay_for_their_time(home: &Home) {
    let store = home.open().await;
    assert_eq!(store.newest_order().await.unwrap(), 0);
    let mut places = Vec::new();
    for body in ["one", "two", "three"] {
        places.push(store.keep_order(body.into()).await.unwrap());
    }
    store.close().await;

    let store = home.open().await;
    let all = store.orders(0, 10).await.unwrap();
    assert_eq!(all.iter().map(|order| order.seq).collect::<Vec<_>>(), places);
    assert_eq!(all.iter().map(|order| &order.body[..]).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
    assert_eq!(store.newest_order().await.unwrap(), places[2]);
    assert_eq!(store.orders(0, 2).await.unwrap(), all[..2]);
    assert_eq!(store.orders(places[1], 10).await.unwrap(), all[2..]);
    store.shift_clock(59 * 60_000);
    store.prune().await.unwrap();
    assert_eq!(store.orders(0, 10).await.unwrap(), all, "an hour is not over");
    store.shift_clock(2 * 60 * 60_000);
    store.prune().await.unwrap();
    assert!(store.orders(0, 10).await.unwrap().len() <= 1, "they are forgotten");
    // Places are never given again, or nobody who has read so far would find the next one.
    let next = store.keep_order("four".into()).await.unwrap();
    assert!(next > places[2]);
    assert_eq!(store.orders(places[2], 10).await.unwrap().iter().map(|order| order.seq).collect::<Vec<_>>(), [next]);
    store.close().await;
}

pub(crate) async fn long_orders_come_a_mebibyte_at_a_time(home: &Home) {
    let store = home.open().await;
    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(store.keep_order(vec![b'x'; 400_000].into()).await.unwrap());
    }
    for (after, expected) in [(0, &places[..3]), (places[2], &places[3..])] {
        let read = store.orders(after, 10).await.unwrap();
        assert_eq!(read.iter().map(|order| order.seq).collect::<Vec<_>>(), expected);
    }
    store.close().await;
}

pub(crate) async fn no_order_turns_up_behind_a_reader(home: &Home) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let store = home.open().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    store.keep_order(format!("{writer}-{number}").into()).await.unwrap();
                }
            })
        })
        .collect();
    let (mut after, mut read) = (0, BTreeSet::new());
    while read.len() < WRITERS * EACH {
        let is_last = writers.iter().all(tokio::task::JoinHandle::is_finished);
        for order in store.orders(after, 7).await.unwrap() {
            assert!(order.seq > after);
            after = order.seq;
            assert!(read.insert(order.body));
        }
        if is_last && after == store.newest_order().await.unwrap() {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read.len(), WRITERS * EACH, "some turned up behind the reader");
    store.close().await;
}
