//! The hub's background work: what waits for repair is bounded, and one channel delays no other.

use std::time::Duration;

use talewire_proto::Channel;
use tokio::time::Instant;

use super::channel;
use super::crowd::Crowd;
use super::stage::{Disk, Stage, durable, history};
use crate::HubSettings;
use crate::repair::Repairs;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_channel_waits_once_however_often_it_is_asked_for() {
    let repairs = Repairs::new(100);
    let (a, b) = (channel("chat:a"), channel("chat:b"));
    for _ in 0..1_000 {
        repairs.ask(&a, 0);
        repairs.ask(&b, 50_000);
    }
    assert_eq!(repairs.waiting(), 2);
    assert_eq!(repairs.take(Instant::now()), Some(a.clone()));
    assert_eq!(repairs.take(Instant::now()), None, "the other is not due");
    for _ in 0..1_000 {
        repairs.ask(&a, 0);
    }
    assert_eq!(repairs.take(Instant::now()), None, "one repair of a channel at a time");
    repairs.done(&a);
    assert_eq!(repairs.take(Instant::now()), Some(a.clone()), "and one more for what was asked meanwhile");
    repairs.done(&a);
    assert_eq!(repairs.take(soon()), Some(b.clone()));
    repairs.done(&b);
    assert!(repairs.are_done());
}

#[test]
fn what_waits_is_bounded_and_what_found_no_room_is_searched_for() {
    let repairs = Repairs::new(2);
    for n in 0..1_000 {
        repairs.ask(&channel(&format!("chat:{n}")), 0);
    }
    assert_eq!(repairs.waiting(), 2);
    while let Some(channel) = repairs.take(soon()) {
        repairs.done(&channel);
    }
    assert!(!repairs.are_done(), "it is remembered that there was more");
}

/// Runs the background work on this thread until everybody has everything, for at most `within`.
fn run_until(crowd: &mut Crowd, within: Duration, done: impl Fn(&Crowd) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let parts = crowd.stage.parts.take().unwrap();
    runtime.block_on(async {
        let work = tokio::spawn(parts.run());
        let deadline = Instant::now() + within;
        while !done(crowd) {
            assert!(Instant::now() < deadline, "not done in {within:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            crowd.settle();
        }
        work.abort();
    });
}

#[test]
fn many_gaps_are_repaired_side_by_side() {
    let disk = Disk::new();
    let settings = HubSettings { gap_wait_ms: 300, repairs_at_once_max: 2, ..HubSettings::default() };
    let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 2));
    let one = crowd.connect(0);
    let channels: Vec<Channel> = (0..60).map(|n| channel(&format!("chat:{n}"))).collect();
    for chat in &channels {
        crowd.join(one, chat, &history(), None);
        for _ in 0..3 {
            crowd.stage.publish(chat, &history());
        }
        drop(crowd.stage.post.lock().remove(1));
        crowd.stage.hand_over_all();
    }
    // One after the other they would wait for 18 seconds.
    run_until(&mut crowd, Duration::from_secs(9), |crowd| crowd.peers[one].entries == 180);
}

#[test]
fn channels_that_found_no_room_are_repaired_too() {
    let disk = Disk::new();
    let settings = HubSettings { gap_wait_ms: 1, growth_check_ms: 2, repairs_waiting_max: 3, ..HubSettings::default() };
    let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 1));
    let one = crowd.connect(0);
    for n in 0..20 {
        let chat = channel(&format!("chat:{n}"));
        crowd.join(one, &chat, &history(), None);
        crowd.stage.publish(&chat, &history());
        crowd.stage.publish(&chat, &history());
        drop(crowd.stage.post.lock().pop_front());
        crowd.stage.hand_over_all();
    }
    run_until(&mut crowd, Duration::from_secs(20), |crowd| crowd.peers[one].entries == 40);
}

#[test]
fn a_channel_that_grew_before_the_first_look_is_found() {
    let disk = Disk::new();
    let settings = HubSettings { growth_check_ms: 2, gap_wait_ms: 1, ..HubSettings::default() };
    let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 1));
    let log = channel("log:a");
    let one = crowd.connect(0);
    crowd.join(one, &log, &durable(), None);
    crowd.stage.publish_silently(&log);
    run_until(&mut crowd, Duration::from_secs(20), |crowd| crowd.peers[one].entries == 1);
}

#[test]
fn a_repair_that_fails_is_tried_again() {
    let disk = Disk::new();
    let mut crowd = Crowd::new(Stage::new(HubSettings::default(), &disk.store, 1));
    let log = channel("log:a");
    let one = crowd.connect(0);
    crowd.join(one, &log, &durable(), None);
    crowd.stage.publish(&log, &durable());
    crowd.stage.publish(&log, &durable());
    super::stage::wait(disk.store.close());
    crowd.stage.hand_over(1);
    let repairs = crowd.stage.hub.repairs();
    assert_eq!(repairs.take(soon()), Some(log.clone()));
    super::stage::wait(crowd.stage.hub.repair(&log));
    assert_eq!(repairs.waiting(), 1);
    assert_eq!(repairs.take(Instant::now()), None, "not at once");
    crowd.stage.hand_over_all();
    crowd.settle();
    crowd.has(one, &log, 2);
}
