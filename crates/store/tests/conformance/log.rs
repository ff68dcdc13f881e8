//! The durable log: order, keys, pages, growth.

use std::collections::{BTreeMap, BTreeSet};

use talewire_proto::{ClientInfo, Payload, Publication, Since, Version};
use talewire_store::{Append, Direction, Key};

use crate::Home;
use crate::world::{append, channel, texts, user};

pub(crate) async fn appends_are_numbered_and_kept(home: &Home) {
    let news = channel("news:1");
    let store = home.open().await;
    let empty = store.top(&news).await.unwrap();
    assert_eq!(empty.offset, 0);
    assert!(!empty.epoch.is_empty());
    let publication = Publication {
        data: Some(Payload::of(&"one")),
        info: Some(ClientInfo { user: user("ana"), conn_info: Some(Payload::of(&["x"])), ..ClientInfo::default() }),
        tags: BTreeMap::from([("kind".to_owned(), "first".to_owned())]),
        time_ms: 5,
        trace: None,
    };
    let first = Append { channel: news.clone(), publication: publication.clone(), key: None, version: None };
    assert_eq!(store.append(first).await.unwrap().position.offset, 1);
    store.close().await;

    let store = home.open().await;
    let second = store.append(append(&news, "two")).await.unwrap();
    assert_eq!((second.position.offset, &second.position.epoch), (2, &empty.epoch));
    let second_entry = second.entry.expect("added");
    assert!(second_entry.publication.time_ms > 1_700_000_000_000, "the database sets the time");
    let page = store.history(&news, Since::Oldest, 10, 1_000, Direction::Forward).await.unwrap();
    assert_eq!(page.entries[0].publication, publication);
    assert_eq!(page.entries[1], second_entry);
    assert_eq!(page.top, second.position);
    assert_eq!(store.top(&channel("news:other")).await.unwrap().offset, 0);
    store.close().await;
}

pub(crate) async fn a_repeated_key_is_one_entry(home: &Home) {
    let keyed = channel("keyed:1");
    let with =
        |who: &str, text: &str| Append { key: Some(Key { user: user(who), key: "k1".into() }), ..append(&keyed, text) };
    let store = home.open().await;
    let first = store.append(with("ana", "a")).await.unwrap();
    assert!(!first.repeated);
    store.append(append(&keyed, "b")).await.unwrap();
    store.close().await;

    let store = home.open().await;
    let again = store.append(with("ana", "something else")).await.unwrap();
    assert!(again.repeated);
    assert_eq!((again.position, again.entry), (first.position, first.entry));
    assert!(!store.append(with("ben", "c")).await.unwrap().repeated, "another user's key is another key");
    let elsewhere = Append { channel: channel("keyed:2"), ..with("ana", "d") };
    assert!(!store.append(elsewhere).await.unwrap().repeated, "a key belongs to its channel");
    assert_eq!(texts(&store, &keyed).await, ["a", "b", "c"]);
    store.close().await;
}

/// Many at once, so that some of them come into one commit.
pub(crate) async fn keys_in_one_group_are_one_entry(home: &Home) {
    let store = home.open().await;
    let mut tries = Vec::new();
    for number in 0..60 {
        let key = Some(Key { user: user("ana"), key: format!("k{}", number % 5) });
        let (store, append) = (store.clone(), Append { key, ..append(&channel("same:1"), &format!("{number}")) });
        tries.push(tokio::spawn(async move { store.append(append).await.unwrap() }));
    }
    let mut by_offset: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
    let mut said: BTreeMap<u64, Publication> = BTreeMap::new();
    for one in tries {
        let done = one.await.unwrap();
        by_offset.entry(done.position.offset).or_default().push(done.repeated);
        let publication = done.entry.unwrap().publication.clone();
        assert_eq!(said.entry(done.position.offset).or_insert_with(|| publication.clone()), &publication);
    }
    assert_eq!(by_offset.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for repeated in by_offset.values() {
        assert_eq!((repeated.len(), repeated.iter().filter(|repeated| !**repeated).count()), (12, 1));
    }
    assert_eq!(texts(&store, &channel("same:1")).await.len(), 5);
    store.close().await;
}

pub(crate) async fn an_older_version_adds_nothing(home: &Home) {
    let state = channel("versions:1");
    let with = |number: u64, epoch: &str| Append {
        version: Some(Version { number, epoch: epoch.into() }),
        ..append(&state, &format!("{number}{epoch}"))
    };
    let store = home.open().await;
    assert!(store.append(with(5, "")).await.unwrap().entry.is_some());
    assert!(store.append(append(&state, "plain")).await.unwrap().entry.is_some(), "without a version it is always new");
    store.close().await;

    let store = home.open().await;
    for old in [0, 4, 5] {
        let skipped = store.append(with(old, "")).await.unwrap();
        assert_eq!((skipped.entry.is_none(), skipped.repeated, skipped.position.offset), (true, false, 2), "{old}");
    }
    // Beyond the half of what the number may be, where a sign would turn it over.
    assert_eq!(store.append(with(u64::MAX - 1, "")).await.unwrap().position.offset, 3);
    assert!(store.append(with(7, "")).await.unwrap().entry.is_none());
    assert_eq!(store.append(with(u64::MAX, "")).await.unwrap().position.offset, 4);
    assert_eq!(store.append(with(1, "b")).await.unwrap().position.offset, 5, "another count");
    let elsewhere = Append { channel: channel("versions:2"), ..with(1, "") };
    assert!(store.append(elsewhere).await.unwrap().entry.is_some(), "a version belongs to its channel");
    store.close().await;

    let store = home.open().await;
    assert!(store.append(with(1, "b")).await.unwrap().entry.is_none());
    // A key that comes again gets its own answer, however old its version has become.
    let key = Some(Key { user: user("ana"), key: "k".into() });
    let keyed = Append { key: key.clone(), ..with(2, "b") };
    let first = store.append(keyed.clone()).await.unwrap();
    store.append(with(3, "b")).await.unwrap();
    let again = store.append(keyed).await.unwrap();
    assert_eq!((again.position, again.repeated), (first.position, true));
    let at_once = (0..8).map(|_| {
        let (store, append) = (store.clone(), with(9, "b"));
        tokio::spawn(async move { store.append(append).await.unwrap().entry.is_some() })
    });
    let mut added = 0;
    for one in at_once.collect::<Vec<_>>() {
        added += usize::from(one.await.unwrap());
    }
    assert_eq!(added, 1, "one version by many at once is one entry");
    let expected = ["5", "plain", "18446744073709551614", "18446744073709551615", "1b", "2b", "3b", "9b"];
    assert_eq!(texts(&store, &state).await, expected);
    store.close().await;
}

pub(crate) async fn pages_are_cut_by_entries_and_bytes(home: &Home) {
    let paged = channel("paged:1");
    let store = home.open().await;
    for number in 1..=9 {
        store.append(append(&paged, &number.to_string())).await.unwrap();
    }
    let page = |since, entries, bytes, direction| {
        let (store, paged) = (store.clone(), paged.clone());
        async move {
            let page = store.history(&paged, since, entries, bytes, direction).await.unwrap();
            assert_eq!(page.top.offset, 9);
            (page.entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), page.complete)
        }
    };
    use Direction::{Backward, Forward};
    assert_eq!(page(Since::After(6), 9, 999, Forward).await, (vec![7, 8, 9], true));
    assert_eq!(page(Since::After(6), 3, 999, Forward).await, (vec![7, 8, 9], true));
    assert_eq!(page(Since::After(6), 2, 999, Forward).await, (vec![7, 8], false));
    assert_eq!(page(Since::After(9), 2, 999, Forward).await, (vec![], true));
    assert_eq!(page(Since::After(u64::MAX), 2, 999, Forward).await, (vec![], true));
    assert_eq!(page(Since::Oldest, 0, 999, Forward).await, (vec![], false));
    assert_eq!(page(Since::Oldest, 9, 7, Forward).await, (vec![1, 2], false), "three bytes each");
    assert_eq!(page(Since::Oldest, 9, 1, Forward).await, (vec![1], false), "one at least");
    assert_eq!(page(Since::Newest, 2, 999, Forward).await, (vec![9, 8], false));
    assert_eq!(page(Since::After(3), 9, 999, Backward).await, (vec![2, 1], true));
    assert_eq!(page(Since::After(1), 9, 999, Backward).await, (vec![], true));
    store.close().await;
}

pub(crate) async fn many_writers_share_few_channels(home: &Home) {
    const TASKS: usize = 24;
    const EACH: usize = 40;
    let store = home.open().await;
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..EACH {
                let busy = channel(&format!("busy:{}", (task + number) % 3));
                let text = format!("{task}-{number}");
                let done = store.append(append(&busy, &text)).await.unwrap();
                // Whoever is told of an entry can read it, and every entry before it.
                let offset = done.position.offset;
                let page = store.history(&busy, Since::After(offset - 1), 1, 100, Direction::Forward).await.unwrap();
                assert_eq!(page.entries, [done.entry.unwrap()]);
                acknowledged.push((busy, offset, text));
            }
            acknowledged
        }));
    }
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    let figures = store.figures();
    assert!(figures.groups < figures.operations, "commits are shared: {figures:?}");
    store.close().await;

    let store = home.open().await;
    let mut kept = BTreeSet::new();
    for number in 0..3 {
        let busy = channel(&format!("busy:{number}"));
        for (place, text) in texts(&store, &busy).await.into_iter().enumerate() {
            kept.insert((busy.clone(), place as u64 + 1, text));
        }
    }
    assert_eq!(kept.len(), TASKS * EACH);
    assert_eq!(kept, acknowledged.into_iter().collect());
    store.close().await;
}

pub(crate) async fn what_has_grown_is_found(home: &Home) {
    let (one, two) = (channel("grown:1"), channel("grown:2"));
    let store = home.open().await;
    let mark = store.log_mark().await.unwrap();
    let (mark, grown) = store.grown(mark).await.unwrap();
    assert_eq!(grown, []);
    store.append(append(&one, "a")).await.unwrap();
    store.append(append(&two, "b")).await.unwrap();
    store.append(append(&one, "c")).await.unwrap();
    store.close().await;

    let store = home.open().await;
    let (next, mut grown) = store.grown(mark.clone()).await.unwrap();
    grown.sort();
    assert_eq!(grown, [(one.clone(), 2), (two, 1)]);
    let (next, grown) = store.grown(next).await.unwrap();
    assert_eq!(grown, []);
    store.append(append(&one, "d")).await.unwrap();
    assert_eq!(store.grown(next).await.unwrap().1, [(one.clone(), 3)]);
    // Whoever begins now is told of nothing that is there already, and whoever begins at the beginning of all of it.
    let now = store.log_mark().await.unwrap();
    assert_eq!(store.grown(now).await.unwrap().1, []);
    let mut all = store.grown(Default::default()).await.unwrap().1;
    all.sort();
    assert_eq!(all, [(one, 3), (channel("grown:2"), 1)]);
    store.close().await;
}

pub(crate) async fn what_is_erased_leaves_its_place(home: &Home) {
    let (gone, kept) = (channel("erased:1"), channel("erased:2"));
    let store = home.open().await;
    let writers = (0..50).map(|writer| {
        let (store, gone) = (store.clone(), gone.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                store.append(append(&gone, &format!("{writer}-{n}"))).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    store.append(append(&kept, "stays")).await.unwrap();
    let top = store.top(&gone).await.unwrap();
    assert_eq!(store.erase(&gone).await.unwrap(), 2_500);
    assert_eq!(store.erase(&gone).await.unwrap(), 0, "once is enough");
    assert_eq!(store.erase(&channel("erased:none")).await.unwrap(), 0);
    store.close().await;

    let store = home.open().await;
    let page = store.history(&gone, Since::Oldest, 5_000, 1_000_000, Direction::Forward).await.unwrap();
    assert_eq!((page.entries.len(), &page.top), (2_500, &top), "offsets and epoch stay");
    assert!(page.entries.iter().all(|entry| entry.publication.data.is_none() && entry.publication.info.is_none()));
    assert_eq!(store.append(append(&gone, "new")).await.unwrap().position.offset, 2_501);
    assert_eq!(texts(&store, &kept).await, ["stays"]);
    store.close().await;
}
