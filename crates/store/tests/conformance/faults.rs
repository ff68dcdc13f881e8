//! PostgreSQL killed, stopped and started again under its nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use talewire_store::{Append, Key, Store, StoreError, StoreSettings};

use crate::server::Server;
use crate::world::{append, begin, channel, texts, user};

/// Killed with -9 under writers of two nodes, three times: what was acknowledged is there once, what was repeated with its
/// key until it was acknowledged is there once, and what was not acknowledged is there at most once.
pub(crate) async fn nothing_acknowledged_is_lost_when_postgres_is_killed(server: &mut Server) {
    const KILLS: usize = 3;
    const BETWEEN: usize = 120;
    let settings = server.settings().await;
    let over = Arc::new(AtomicBool::new(false));
    let acks = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for task in 0..12 {
        let node = Store::open(&settings).await.unwrap();
        let (over, acks) = (over.clone(), acks.clone());
        writers.push(tokio::spawn(async move {
            let mut acked = Vec::new();
            let mut tried = Vec::new();
            for number in 0.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                let text = format!("{task}-{number}");
                let keyed = task % 2 == 0;
                let key = keyed.then(|| Key { user: user("ana"), key: text.clone() });
                tried.push(text.clone());
                loop {
                    match node.append(Append { key: key.clone(), ..append(&channel("killed:1"), &text) }).await {
                        Ok(done) => {
                            acked.push((done.position.offset, text));
                            acks.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Err(StoreError::Unavailable(_)) if keyed => tokio::task::yield_now().await,
                        Err(StoreError::Unavailable(_)) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (acked, tried)
        }));
    }
    for _ in 0..KILLS {
        let from = acks.load(Ordering::Relaxed);
        until("writers go on", || acks.load(Ordering::Relaxed) > from + BETWEEN).await;
        server.postgres.kill();
        server.postgres.restart();
    }
    let from = acks.load(Ordering::Relaxed);
    until("writers go on after the last kill", || acks.load(Ordering::Relaxed) > from + BETWEEN).await;
    over.store(true, Ordering::Release);
    let reader = Store::open(&settings).await.unwrap();
    let mut acked = HashMap::new();
    let mut tried = Vec::new();
    for writer in writers {
        let (of_one, all) = writer.await.unwrap();
        acked.extend(of_one);
        tried.extend(all);
    }
    let kept = texts(&reader, &channel("killed:1")).await;
    let mut times: HashMap<&str, usize> = HashMap::new();
    for text in &kept {
        *times.entry(text).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "something is there twice");
    for (offset, text) in &acked {
        assert_eq!(kept.get(*offset as usize - 1), Some(text), "acknowledged at {offset} and lost");
    }
    assert!(acked.len() > (KILLS + 1) * BETWEEN);
    assert!(times.keys().all(|text| tried.iter().any(|one| one == text)), "nobody has written that");
}

/// Short times, so that what never answers is told soon.
fn impatient(settings: StoreSettings) -> StoreSettings {
    StoreSettings { acquire_ms_max: 400, operation_ms_max: 400, ..settings }
}

/// The times are short for a busy machine too: as often as it takes.
async fn opened(settings: &StoreSettings) -> Store {
    loop {
        match Store::open(settings).await {
            Ok(store) => return store,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every call fails within its time while PostgreSQL does not answer, and works again by itself.
pub(crate) async fn a_silent_server_is_told_in_time(server: &mut Server) {
    let settings = server.settings().await;
    let patient = Store::open(&settings).await.unwrap();
    let story = begin(&patient, "silent").await;
    patient.append(append(&channel("silent:1"), "before")).await.unwrap();
    let node = opened(&StoreSettings { write_queue_operations_max: 4, ..impatient(settings) }).await;
    server.postgres.pause();
    // Writes that wait are bounded: one too many is told at once.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.append(append(&channel("silent:1"), "waits")).await })
        })
        .collect();
    until("writes wait", || node.figures().writes_waiting == 4).await;
    assert!(matches!(node.append(append(&channel("silent:1"), "x")).await, Err(StoreError::Full(_))));
    for one in waiting {
        assert!(matches!(one.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    calls_fail(&node, &story).await;
    server.postgres.go_on();
    comes_back(&node).await;
    assert_eq!(texts(&node, &channel("silent:1")).await[0], "before");
}

/// The same when it is not there at all.
pub(crate) async fn an_absent_server_is_told_in_time(server: &mut Server) {
    let settings = server.settings().await;
    let patient = Store::open(&settings).await.unwrap();
    let story = begin(&patient, "absent").await;
    let node = opened(&impatient(settings)).await;
    server.postgres.kill();
    calls_fail(&node, &story).await;
    server.postgres.restart();
    comes_back(&node).await;
    // A node that starts while it is not there says so.
    let settings = impatient(server.settings().await);
    server.postgres.kill();
    let error = Store::open(&settings).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("postgres://")), "{error}");
}

/// Whoever comes to an idle connection after a restart notices nothing.
pub(crate) async fn a_restart_between_two_calls_is_not_noticed(server: &mut Server) {
    let node = Store::open(&server.settings().await).await.unwrap();
    let calls = (0..8).map(|number| {
        let node = node.clone();
        tokio::spawn(async move { node.top(&channel(&format!("idle:{number}"))).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    for round in 1..=3 {
        server.postgres.restart();
        assert_eq!(node.append(append(&channel("idle:1"), "x")).await.unwrap().position.offset, round);
    }
}

async fn calls_fail(node: &Store, story: &talewire_proto::StoryId) {
    let began = Instant::now();
    let failed = |what: &str, error: Option<StoreError>| {
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{what}: {error:?}");
        // Four times of 0.4 s at most, on a machine that does other things too.
        assert!(began.elapsed() < Duration::from_secs(20), "{what} took {:?}", began.elapsed());
    };
    failed("an append", node.append(append(&channel("silent:1"), "lost?")).await.err());
    failed("a read", node.top(&channel("silent:1")).await.err());
    failed("a role", node.role(&user("ana"), story).await.err());
    failed("a guest", node.insert_guest(&user("guest"), "Guest").await.err());
    failed("a claim", node.claim(&"w".parse().unwrap(), 1_000).await.err());
    failed("growth", node.grown(Default::default()).await.err());
}

async fn comes_back(node: &Store) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = node.append(append(&channel("back:1"), "again")).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
    assert!(!texts(node, &channel("back:1")).await.is_empty());
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Nobody writes, and the database would not take it.
pub(crate) async fn a_database_that_refuses_writes_is_found(server: &mut Server) {
    let settings = server.settings().await;
    let store = Store::open(&settings).await.unwrap();
    assert_eq!((store.look().await, store.look().await), (Ok(()), Ok(())));
    let table = |from: &str, to: &str| format!("ALTER TABLE talewire.{from} RENAME TO {to}");
    let url = settings.url.to_string();
    crate::server::ask(&url, &table("steps", "hidden")).await;
    assert!(store.look().await.is_err());
    assert!(store.figures().groups_failed > 0, "it has tried");
    crate::server::ask(&url, &table("hidden", "steps")).await;
    assert_eq!(store.look().await, Ok(()));
    store.append(append(&channel("looked:1"), "x")).await.unwrap();
    crate::server::ask(&url, &table("steps", "hidden")).await;
    assert_eq!(store.look().await, Ok(()), "somebody has written since");
    assert!(store.look().await.is_err(), "nobody has");
    store.close().await;
}
