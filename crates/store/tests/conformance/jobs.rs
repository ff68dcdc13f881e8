//! Jobs: one worker at a time, the attempt fences, the end is written once.

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{JobOwner, Payload};
use talewire_store::{About, Decision, Effect, Finish, Finished, Job, Renewed, Rule, Store, StoryEvent};

use crate::Home;
use crate::world::{WHOLE, accepted, add_turn, begin, decide, done, events, main_branch, request, story_id};

const LEASE_MS: i64 = 30_000;

fn owner(name: &str) -> JobOwner {
    name.parse().unwrap()
}

async fn claim(store: &Store, name: &str) -> Option<Job> {
    store.claim(&owner(name), LEASE_MS).await.unwrap()
}

async fn finished(store: &Store, finish: Finish) -> bool {
    matches!(store.finish(finish).await.unwrap(), Finished::Committed { .. })
}

async fn types(store: &Store, story: &str) -> String {
    let events = events(store, &story_id(story)).await;
    let words = events.iter().map(|event| match event {
        StoryEvent::StoryCreated { .. } => "created",
        StoryEvent::StoryRenamed { .. } => "renamed",
        StoryEvent::MemberJoined { .. } => "joined",
        StoryEvent::TurnAdded { .. } => "turn",
        StoryEvent::GenerationRequested { .. } => "requested",
        StoryEvent::GenerationStarted { .. } => "started",
        StoryEvent::GenerationEnded { .. } => "ended",
        StoryEvent::ChoicePicked { .. } => "picked",
    });
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) async fn one_worker_gets_a_job(home: &Home) {
    let store = home.open().await;
    assert_eq!(store.open_jobs().await.unwrap(), 0);
    for number in 0..4 {
        let name = format!("j-one{number}");
        begin(&store, &name).await;
        request(&store, &name, &format!("one-g{number}")).await.unwrap();
    }
    assert_eq!(store.claimable_jobs().await.unwrap(), 4);
    store.close().await;

    let store = home.open().await;
    let mut workers = Vec::new();
    for worker in 0..12 {
        let store = store.clone();
        workers.push(tokio::spawn(async move { claim(&store, &format!("w{worker}")).await }));
    }
    let mut claimed = Vec::new();
    for worker in workers {
        claimed.extend(worker.await.unwrap());
    }
    let mut ids: Vec<_> = claimed.iter().map(|job| job.generation.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["one-g0", "one-g1", "one-g2", "one-g3"]);
    for job in &claimed {
        assert_eq!((job.generation.attempt, job.generation.status), (1, GenerationStatus::Running));
        assert_eq!(job.instruction.as_ref().map(|words| words.as_str()), Some("make it rain"));
        let started: StoryEvent = job.log[0].entry.publication.data.as_ref().unwrap().read().unwrap();
        assert_eq!(started, StoryEvent::GenerationStarted { generation: job.generation.clone() });
        assert!(finished(&store, done(&job.generation.id, 1, "x")).await);
    }
    assert_eq!(store.open_jobs().await.unwrap(), 0);
    store.close().await;
}

pub(crate) async fn an_older_attempt_has_no_effect(home: &Home) {
    let store = home.open().await;
    begin(&store, "j-fence").await;
    let id = request(&store, "j-fence", "fence-g").await.unwrap();
    let first = claim(&store, "slow").await.unwrap();
    assert_eq!(store.renew(&id, 1, LEASE_MS).await.unwrap(), Renewed::Held { cancel: false });
    store.shift_clock(LEASE_MS - 1_000);
    assert!(claim(&store, "other").await.is_none(), "the lease holds");
    assert_eq!(store.renew(&id, 1, LEASE_MS).await.unwrap(), Renewed::Held { cancel: false });
    store.shift_clock(LEASE_MS - 1_000);
    assert!(claim(&store, "other").await.is_none(), "the renewal holds");
    store.shift_clock(1_000);
    let second = claim(&store, "other").await.unwrap();
    assert_eq!((first.generation.attempt, second.generation.attempt), (1, 2));
    store.close().await;

    let store = home.open().await;
    assert_eq!(store.renew(&id, 1, LEASE_MS).await.unwrap(), Renewed::Lost);
    assert!(!store.release(&id, 1).await.unwrap());
    assert!(!finished(&store, done(&id, 1, "of the first attempt")).await);
    assert!(!finished(&store, done(&id, 3, "of none")).await);
    assert!(store.release(&id, 2).await.unwrap());
    assert_eq!(claim(&store, "third").await.unwrap().generation.attempt, 3);
    assert!(!finished(&store, done(&id, 2, "of a released one")).await);
    assert!(finished(&store, done(&id, 3, "of the third attempt")).await);
    assert_eq!(types(&store, "j-fence").await, "created joined requested started started started ended");
    let (generation, turn) = store.generation(&story_id("j-fence"), &id).await.unwrap().unwrap();
    let turn = turn.unwrap();
    assert_eq!((generation.status, generation.attempt), (GenerationStatus::Done, 3));
    assert_eq!((turn.text.as_str(), turn.generation.unwrap().attempt), ("of the third attempt", 3));
    store.close().await;
}

pub(crate) async fn an_end_is_written_exactly_once(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "j-once").await;
    add_turn(&store, &story, &main_branch("j-once"), "once-t1", None).await;
    let id = request(&store, "j-once", "once-g").await.unwrap();
    claim(&store, "w").await.unwrap();
    // Somebody writes while the agent does.
    add_turn(&store, &story, &main_branch("j-once"), "once-t2", None).await;
    let mut tries = Vec::new();
    for number in 0..8 {
        let (store, id) = (store.clone(), id.clone());
        tries.push(tokio::spawn(async move { finished(&store, done(&id, 1, &format!("try {number}"))).await }));
    }
    let mut committed = 0;
    for attempt in tries {
        committed += usize::from(attempt.await.unwrap());
    }
    assert_eq!(committed, 1);
    store.close().await;

    let store = home.open().await;
    assert!(!finished(&store, done(&id, 1, "late")).await);
    assert_eq!(store.renew(&id, 1, LEASE_MS).await.unwrap(), Renewed::Lost);
    assert_eq!(types(&store, "j-once").await, "created joined turn requested started turn ended");
    let page = store.story_view(&story, None, WHOLE).await.unwrap().unwrap().page;
    assert_eq!(page.turns.iter().map(|turn| turn.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(page.choices.iter().map(|choice| choice.label.as_str()).collect::<Vec<_>>(), ["left", "right"]);
    let Some(StoryEvent::GenerationEnded { generation, turn, choices }) = events(&store, &story).await.pop() else {
        panic!("the last entry is the end");
    };
    assert_eq!(generation.status, GenerationStatus::Done);
    assert_eq!((turn.as_ref(), &choices), (page.turns.last(), &page.choices));
    store.close().await;
}

pub(crate) async fn a_branch_has_one_open_generation(home: &Home) {
    let store = home.open().await;
    begin(&store, "j-branch").await;
    let (a, b) = tokio::join!(request(&store, "j-branch", "branch-g1"), request(&store, "j-branch", "branch-g2"));
    assert!(a.is_ok() != b.is_ok());
    let job = claim(&store, "w").await.unwrap();
    assert!(request(&store, "j-branch", "branch-g3").await.is_err());
    assert!(finished(&store, done(&job.generation.id, 1, "x")).await);
    request(&store, "j-branch", "branch-g4").await.unwrap();
    assert_eq!(types(&store, "j-branch").await, "created joined requested started ended requested");
    let job = claim(&store, "w").await.unwrap();
    assert!(finished(&store, done(&job.generation.id, 1, "y")).await);
    store.close().await;
}

async fn cancel(store: &Store, story: &str, generation: &talewire_proto::GenerationId) {
    let (made_in, wanted) = (story_id(story), generation.clone());
    let rule: Rule = Box::new(move |_| {
        Ok(Decision { story: made_in, effects: vec![Effect::Cancel(wanted)], answer: Payload::of(&()) })
    });
    accepted(decide(store, "ana", About::Generation(story_id(story), generation.clone()), None, rule).await);
}

pub(crate) async fn requests_to_stop_reach_the_worker(home: &Home) {
    let store = home.open().await;
    begin(&store, "j-stop").await;
    let id = request(&store, "j-stop", "stop-g").await.unwrap();
    claim(&store, "w").await.unwrap();
    assert!(!store.cancel_requested(&id).await.unwrap());
    cancel(&store, "j-stop", &id).await;
    store.close().await;

    let store = home.open().await;
    assert!(store.cancel_requested(&id).await.unwrap());
    assert_eq!(store.renew(&id, 1, LEASE_MS).await.unwrap(), Renewed::Held { cancel: true });
    assert!(store.release(&id, 1).await.unwrap());
    assert!(claim(&store, "w2").await.unwrap().cancel, "whoever takes over is to end it");
    let kept = Finish { status: GenerationStatus::Cancelled, choices: vec![], ..done(&id, 2, "half a sen") };
    assert!(finished(&store, kept).await);
    assert!(store.cancel_requested(&id).await.unwrap());
    store.close().await;
}

pub(crate) async fn dead_jobs_are_swept(home: &Home) {
    let store = home.open().await;
    for name in ["j-dead1", "j-dead2"] {
        begin(&store, name).await;
    }
    request(&store, "j-dead1", "dead-g1").await.unwrap();
    claim(&store, "w").await.unwrap();
    let stopped = request(&store, "j-dead2", "dead-g2").await.unwrap();
    claim(&store, "w").await.unwrap();
    cancel(&store, "j-dead2", &stopped).await;
    assert_eq!(store.sweep(1).await.unwrap().len(), 0, "the leases hold");
    store.shift_clock(LEASE_MS);
    assert_eq!(store.claimable_jobs().await.unwrap(), 2);
    assert_eq!(store.sweep(2).await.unwrap().len(), 1, "the one that was to stop");
    assert_eq!(store.sweep(1).await.unwrap().len(), 1, "the one without attempts left");
    store.close().await;

    let store = home.open().await;
    let status = async |story: &str, id: &str| {
        store.generation(&story_id(story), &id.parse().unwrap()).await.unwrap().unwrap().0
    };
    let failed = status("j-dead1", "dead-g1").await;
    assert_eq!((failed.status, failed.reason.unwrap().code.as_str()), (GenerationStatus::Failed, "attempts"));
    assert_eq!(status("j-dead2", "dead-g2").await.status, GenerationStatus::Cancelled);
    assert_eq!(types(&store, "j-dead1").await, "created joined requested started ended");
    assert!(claim(&store, "w").await.is_none());
    store.close().await;
}

pub(crate) async fn a_new_process_takes_over(home: &Home) {
    let store = home.open().await;
    begin(&store, "j-new").await;
    let id = request(&store, "j-new", "new-g").await.unwrap();
    claim(&store, "dead-process").await.unwrap();
    store.close().await;

    let store = home.open().await;
    assert!(claim(&store, "new-process").await.is_none());
    if home.is_alone {
        assert_eq!(store.release_all(&owner("new-process")).await.unwrap(), 1);
    } else {
        assert_eq!(store.release_all(&owner("new-process")).await.unwrap(), 0, "the other may be a living node");
        assert!(claim(&store, "new-process").await.is_none());
        store.shift_clock(LEASE_MS);
    }
    assert_eq!(claim(&store, "new-process").await.unwrap().generation.attempt, 2);
    assert_eq!(store.release_all(&owner("new-process")).await.unwrap(), 0, "one's own lease stays");
    assert!(finished(&store, done(&id, 2, "x")).await);
    store.close().await;
}
