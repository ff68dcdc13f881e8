//! Several people at the same moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use talewire_story::StoryLimits;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_never_get_the_same_number() {
    let world = Arc::new(World::peopled(StoryLimits::default()).await);
    let mut tasks = Vec::new();
    for who in ["ana", "ben"] {
        for number in 0..25 {
            let world = world.clone();
            tasks.push(tokio::spawn(async move {
                let params = json!({
                    "story": world.name("story"), "branch": world.name("main"), "text": format!("{who} {number}"), "key": number.to_string(),
                });
                world.call(who, "turn.add", &params).await.unwrap()["turn"]["number"].as_u64().unwrap()
            }));
        }
    }
    let mut numbers = BTreeSet::new();
    for task in tasks {
        assert!(numbers.insert(task.await.unwrap()), "a number was given twice");
    }
    assert_eq!(numbers, (3..53).collect());
    let opened = world.call("rea", "story.open", &json!({"story": world.name("story"), "limit": 200})).await.unwrap();
    assert_eq!(opened["story"]["turns"], 52);
    // Offsets follow the order of commits, and with them the numbers of turns in the log.
    let log = world.log().await;
    let in_log: Vec<u64> = log.iter().filter_map(|event| event["turn"]["number"].as_u64()).collect();
    assert!(in_log.is_sorted(), "{in_log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_choice_picked_by_two_people_at_once_is_picked_once() {
    let world = Arc::new(World::peopled(StoryLimits::default()).await);
    let pick = async |who: &'static str| -> Value {
        let params = json!({"story": world.name("story"), "choice": world.name("choice"), "key": "pick"});
        world.call(who, "choice.pick", &params).await.unwrap()
    };
    let (ana, ben) = tokio::join!(pick("ana"), pick("ben"));
    assert_eq!(ana, ben);
    let picked = world.log().await.iter().filter(|event| event["type"] == "choice.picked").count();
    assert_eq!(picked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_requests_at_once_one_is_told_that_the_narrator_writes_already() {
    let world = Arc::new(World::peopled(StoryLimits::default()).await);
    let open = json!({"story": world.name("story"), "generation": world.name("generation")});
    world.call("ana", "generation.stop", &open).await.unwrap();
    let request = async |who: &'static str| {
        let params = json!({"story": world.name("story"), "branch": world.name("main"), "key": "now"});
        world.call(who, "generation.request", &params).await.map_err(|refusal| refusal.code.code())
    };
    let (ana, ben) = tokio::join!(request("ana"), request("ben"));
    let refused: Vec<u32> = [ana, ben].into_iter().filter_map(Result::err).collect();
    assert_eq!(refused, [409]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_caller_asked_for_before_going_away_is_done_and_announced() {
    let world = Arc::new(World::peopled(StoryLimits::default()).await);
    let params = json!({
        "story": world.name("story"), "branch": world.name("main"), "text": "Last words.", "key": "last",
    });
    let before = world.announced().len();
    // The first poll hands the work over; nobody polls it again.
    let call = world.call("ana", "turn.add", &params);
    tokio::select! { biased; _ = call => {}, () = std::future::ready(()) => {} }
    while world.announced().len() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.announced().last().unwrap()["turn"]["text"], "Last words.");
    let again = world.call("ana", "turn.add", &params).await.unwrap();
    assert_eq!(again["turn"], world.log().await.last().unwrap()["turn"], "the same key finds it");
}
