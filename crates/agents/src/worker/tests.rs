//! The worker against the real store and broker: exactly one end per job in every path, and a stream that says what the
//! turn says. Providers are scripted; waits are for named conditions with a deadline.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use serde_json::{Value, json};
use talewire_broker::{BrokerSettings, Message};
use talewire_proto::generation::{GenerationFrame, GenerationStatus, utf16_len};
use talewire_proto::{Channel, Payload, Since};
use talewire_store::{Direction, StoreSettings, StoryEvent};
use talewire_story::{Caller, StoryLimits};
use tokio::task::JoinHandle;

use super::*;
use crate::error::{ProviderError, Wait};
use crate::script::{Script, Step};

/// One story, one branch, one worker.
struct Room {
    store: Store,
    broker: Broker,
    stories: Stories,
    story: StoryId,
    branch: String,
    frames: Arc<Mutex<Vec<Arc<GenerationFrame>>>>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

fn ana() -> Caller {
    Caller { user: "ana".parse().unwrap(), name: "Ana".into() }
}

fn quick() -> AgentSettings {
    let mut settings =
        AgentSettings { sweep_ms: 50, backoff_ms: 1, drain_ms: 50, delta_ms: 5, ..AgentSettings::default() };
    settings.demo.tokens_per_second = 0;
    settings
}

impl Room {
    async fn new(opening: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreSettings { path: folder.path().into(), ..StoreSettings::default() }).await.unwrap();
        let broker = Broker::in_process(&BrokerSettings::default());
        let frames = Arc::new(Mutex::new(Vec::new()));
        let sink = frames.clone();
        broker.deliver_to(Arc::new(move |delivery| {
            if let Message::Generation(frame) = delivery.message {
                sink.lock().unwrap().push(frame);
            }
        }));
        let stories = Stories::new(store.clone(), broker.clone(), StoryLimits::default());
        let data = Payload::of(&json!({"title": "The lamp", "opening": opening, "key": "k1"}));
        let made: Value = stories.call(&ana(), "story.create", &data).await.unwrap().read().unwrap();
        let text = |name: &str| made["story"][name].as_str().unwrap().to_owned();
        Self {
            store,
            broker,
            stories,
            story: text("id").parse().unwrap(),
            branch: text("branch"),
            frames,
            shutdown: CancellationToken::new(),
            tasks: Vec::new(),
            folder,
        }
    }

    fn work(&mut self, settings: AgentSettings, script: Vec<Vec<Step>>) -> (Arc<AgentCounts>, Script) {
        let script = Script::new(script);
        let provider = Provider::Script(script.clone());
        let (store, broker, stories) = (self.store.clone(), self.broker.clone(), self.stories.clone());
        let worker = Worker::with_provider(store, broker, stories, settings, provider).unwrap();
        (self.spawn(worker), script)
    }

    fn spawn(&mut self, worker: Worker) -> Arc<AgentCounts> {
        let counts = worker.counts();
        self.tasks.push(tokio::spawn(worker.run(self.shutdown.clone())));
        counts
    }

    async fn call(&self, method: &str, data: Value) -> Value {
        self.stories.call(&ana(), method, &Payload::of(&data)).await.unwrap().read().unwrap()
    }

    async fn ask(&self, key: &str) -> String {
        let data = json!({"story": self.story, "branch": self.branch, "key": key});
        self.call("generation.request", data).await["generation"]["id"].as_str().unwrap().to_owned()
    }

    async fn events(&self) -> Vec<StoryEvent> {
        let channel = Channel::story(&self.story);
        let page = self.store.history(&channel, Since::Oldest, 1_000, 10_000_000, Direction::Forward).await.unwrap();
        page.entries.iter().map(|e| e.publication.data.as_ref().unwrap().read().unwrap()).collect()
    }

    /// The end of the only generation: its status, reason, text and choices. Fails if there is more than one end.
    async fn end(&self) -> (GenerationStatus, String, String, Vec<String>) {
        let mut ends = Vec::new();
        wait_for("an end", async || {
            ends =
                self.events().await.into_iter().filter(|e| matches!(e, StoryEvent::GenerationEnded { .. })).collect();
            !ends.is_empty()
        })
        .await;
        assert_eq!(ends.len(), 1, "one end");
        let StoryEvent::GenerationEnded { generation, turn, choices } = ends.remove(0) else { unreachable!() };
        let text = turn.map_or(String::new(), |turn| turn.text.into_string());
        let choices = choices.into_iter().map(|c| c.label.into_string()).collect();
        (generation.status, generation.reason.map_or(String::new(), |r| r.code), text, choices)
    }

    /// What a reader has who was there all the time, by the rule of PROTOCOL.md; checks that nothing was missed or doubled.
    fn streamed(&self) -> (String, Option<GenerationStatus>) {
        let (mut text, mut attempt, mut end) = (String::new(), 0, None);
        for frame in self.frames.lock().unwrap().iter() {
            match &**frame {
                GenerationFrame::Reset { attempt: new, .. } => (text, attempt) = (String::new(), *new),
                GenerationFrame::Delta { attempt: of, at, text: delta, .. } if *of == attempt => {
                    assert_eq!(*at, utf16_len(&text), "a gap");
                    text.push_str(delta);
                }
                GenerationFrame::End { attempt: of, status, at, .. } if *of >= attempt => {
                    end = Some(*status);
                    assert!(*status != Done || *at == Some(utf16_len(&text)), "the end says how long the text is");
                }
                _ => {}
            }
        }
        (text, end)
    }

    async fn stop(mut self) -> Self {
        self.shutdown.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
        self
    }
}

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs one generation by a script and gives its end; the stream must have told the same.
async fn check(script: Vec<Vec<Step>>, status: GenerationStatus, reason: &str, text: &str) -> (Room, u64) {
    let mut room = Room::new("The lamp went out.").await;
    let (counts, script) = room.work(quick(), script);
    room.ask("g1").await;
    let (found, code, turn, _) = room.end().await;
    assert_eq!((found, code.as_str(), turn.as_str()), (status, reason, text));
    let room = room.stop().await;
    let (streamed, end) = room.streamed();
    assert_eq!(end, Some(status));
    if status == GenerationStatus::Done {
        assert_eq!(streamed, turn);
    }
    assert_eq!(room.store.open_jobs().await.unwrap(), 0);
    assert_eq!(counts.running.load(Ordering::SeqCst), 0);
    (room, script.asked.load(Ordering::SeqCst) as u64)
}

use GenerationStatus::{Cancelled, Done, Failed};

#[tokio::test]
async fn a_reply_becomes_a_turn_with_its_choices() {
    let script = vec![vec![
        Step::Text(" The fox "),
        Step::Text("ran. \n\n>"),
        Step::Text("> Follow it\n>> Go"),
        Step::Text(" home"),
    ]];
    let (room, _) = check(script, Done, "", "The fox ran.").await;
    assert_eq!(room.end().await.3, ["Follow it", "Go home"]);
    let opened = room.call("story.open", json!({"story": room.story})).await;
    let turn = &opened["turns"][1];
    assert_eq!((turn["number"].as_u64(), turn["author"]["kind"].as_str()), (Some(2), Some("agent")));
    assert_eq!(turn["generation"]["label"], "demo storyteller, no AI model");
}

#[tokio::test]
async fn failures_before_the_first_word_are_tried_again() {
    let busy = Step::Fail(ProviderError::Busy { status: 529, retry_after: None });
    let script = vec![vec![busy], vec![Step::Fail(ProviderError::TimedOut(Wait::Idle))], vec![Step::Text("At last.")]];
    assert_eq!(check(script, Done, "", "At last.").await.1, 3);
    let limited = Step::Fail(ProviderError::RateLimited { retry_after: None });
    assert_eq!(check(vec![vec![limited]], Failed, "rate_limited", "").await.1, 3);
    assert_eq!(check(vec![vec![Step::Text(" \n")]], Failed, "empty", "").await.1, 3);
    assert_eq!(check(vec![vec![Step::Fail(ProviderError::Refused)]], Failed, "refused", "").await.1, 1);
}

#[tokio::test]
async fn a_failure_after_the_first_word_keeps_nothing() {
    let broken = || Step::Fail(ProviderError::Broken { message: "x".into() });
    let long = "a word and another word and still more words until it is sent at once, which is after some";
    assert_eq!(check(vec![vec![Step::Text(long), broken()]], Failed, "broken", "").await.1, 1);
    // What nobody has seen yet may be forgotten.
    assert_eq!(
        check(vec![vec![Step::Text("a word"), broken()], vec![Step::Text("New.")]], Done, "", "New.").await.1,
        2
    );
}

#[tokio::test]
async fn a_panic_is_tried_again_and_then_given_up() {
    check(vec![vec![Step::Panic], vec![Step::Text("Fine.")]], Done, "", "Fine.").await;
    let (room, asked) = check(vec![vec![Step::Panic]], Failed, "internal", "").await;
    assert_eq!(asked, 3);
    let started = room.events().await.iter().filter(|e| matches!(e, StoryEvent::GenerationStarted { .. })).count();
    assert_eq!(started, 3);
}

#[tokio::test]
async fn stopping_keeps_what_was_written() {
    let mut room = Room::new("The lamp went out.").await;
    room.work(quick(), vec![vec![Step::Text("The fox ran and"), Step::Hang]]);
    let generation = room.ask("g1").await;
    wait_for("the first words", async || room.streamed().0 == "The fox ran and").await;
    let asked_at = Instant::now();
    room.call("generation.stop", json!({"story": room.story, "generation": generation})).await;
    let (status, _, text, choices) = room.end().await;
    assert!(asked_at.elapsed() < Duration::from_millis(500), "{:?}", asked_at.elapsed());
    assert_eq!((status, text.as_str(), choices.len()), (Cancelled, "The fox ran and", 0));
    assert_eq!(room.stop().await.streamed(), ("The fox ran and".into(), Some(Cancelled)));
}

#[tokio::test]
async fn stopping_before_the_first_word_leaves_no_turn() {
    let mut room = Room::new("The lamp went out.").await;
    let (_, script) = room.work(quick(), vec![vec![Step::Hang]]);
    let generation = room.ask("g1").await;
    wait_for("the provider to be asked", async || script.asked.load(Ordering::SeqCst) == 1).await;
    room.call("generation.stop", json!({"story": room.story, "generation": generation})).await;
    let (status, _, text, _) = room.end().await;
    assert_eq!((status, text.as_str()), (Cancelled, ""));
    room.stop().await;
}

#[tokio::test]
async fn who_lost_the_lease_writes_nothing_more() {
    let mut room = Room::new("The lamp went out.").await;
    // A lease long enough that this worker does not renew it during the test: it is "paused" for others' eyes.
    let first = AgentSettings { lease_ms: 600_000, sweep_ms: 600_000, concurrency: 1, ..quick() };
    let (counts, _) = room.work(
        first,
        vec![vec![
            Step::Text("Old words"),
            Step::Pause(Duration::from_millis(1_500)),
            Step::Text(" of a ghost."),
            Step::Hang,
        ]],
    );
    room.ask("g1").await;
    wait_for("the first words", async || room.streamed().0 == "Old words").await;
    room.store.shift_clock(700_000);
    let second = AgentSettings { lease_ms: 60_000, sweep_ms: 10, ..quick() };
    room.work(second, vec![vec![Step::Text("New words.")]]);
    let (status, _, text, _) = room.end().await;
    assert_eq!((status, text.as_str()), (Done, "New words."));
    wait_for("the first worker to be fenced", async || counts.fenced.load(Ordering::SeqCst) == 1).await;
    assert_eq!(room.end().await.2, "New words.");
    assert_eq!(room.stop().await.streamed(), ("New words.".into(), Some(Done)));
}

/// The broker took a piece and its answer was lost: the writer goes on behind it, and sends nothing twice.
#[tokio::test]
async fn a_piece_that_arrived_all_the_same_is_not_sent_again() {
    let mut room = Room::new("The lamp went out.").await;
    let script = [Step::Text("Half a"), Step::Pause(Duration::from_millis(500)), Step::Text(" whole fox 🦊.")];
    room.work(quick(), vec![script.into()]);
    let generation = room.ask("g1").await.parse().unwrap();
    wait_for("the first words", async || room.streamed().0 == "Half a").await;
    room.broker.generation_append(&room.story, &generation, 1, 6, " whole fox 🦊").await.unwrap();
    assert_eq!(room.end().await.2, "Half a whole fox 🦊.");
    assert_eq!(room.stop().await.streamed(), ("Half a whole fox 🦊.".into(), Some(Done)));
}

/// What the stream holds is no beginning of what is written: it is left as it is, and its end says how long the text is.
#[tokio::test]
async fn a_stream_that_somebody_else_wrote_to_is_left_alone() {
    let mut room = Room::new("The lamp went out.").await;
    let script = [Step::Text("Half a"), Step::Pause(Duration::from_millis(500)), Step::Text(" whole.")];
    room.work(quick(), vec![script.into()]);
    let generation = room.ask("g1").await.parse().unwrap();
    wait_for("the first words", async || room.streamed().0 == "Half a").await;
    room.broker.generation_append(&room.story, &generation, 1, 6, " text of somebody else").await.unwrap();
    assert_eq!(room.end().await.2, "Half a whole.");
    let room = room.stop().await;
    let frames = room.frames.lock().unwrap();
    let ended = |frame: &Arc<GenerationFrame>| matches!(**frame, GenerationFrame::End { at: Some(13), .. });
    assert!(frames.iter().any(ended), "{frames:?}");
    assert_eq!(frames.iter().filter(|frame| matches!(***frame, GenerationFrame::Delta { .. })).count(), 2);
}

#[tokio::test]
async fn a_shutdown_hands_back_what_it_cannot_finish() {
    let mut room = Room::new("The lamp went out.").await;
    let (counts, _) = room.work(quick(), vec![vec![Step::Text("Half a"), Step::Hang]]);
    room.ask("g1").await;
    wait_for("the first words", async || room.streamed().0 == "Half a").await;
    let mut room = room.stop().await;
    assert_eq!(counts.handed_back.load(Ordering::SeqCst), 1);
    room.shutdown = CancellationToken::new();
    room.work(quick(), vec![vec![Step::Text("A whole.")]]);
    assert_eq!(room.end().await.2, "A whole.");
    assert_eq!(room.stop().await.streamed(), ("A whole.".into(), Some(Done)));
}

#[tokio::test]
async fn a_stream_that_is_lost_for_good_leaves_no_job_open() {
    let mut room = Room::new("The lamp went out.").await;
    let generation = room.ask("g1").await.parse().unwrap();
    room.broker.generation_begin(&room.story, &generation, 99).await.unwrap();
    room.work(quick(), vec![vec![Step::Text("Never.")]]);
    let (status, reason, text, _) = room.end().await;
    assert_eq!((status, reason.as_str(), text.as_str()), (Failed, "attempts_used_up", ""));
    room.stop().await;
}

#[tokio::test]
async fn a_job_outlives_its_store() {
    let mut room = Room::new("The lamp went out.").await;
    room.work(quick(), vec![vec![Step::Text("Half a"), Step::Hang]]);
    room.ask("g1").await;
    wait_for("the first words", async || room.streamed().0 == "Half a").await;
    room.store.close().await;
    let mut room = room.stop().await;
    assert_eq!(room.streamed(), ("Half a".into(), None), "no end is told that is not on disk");
    room.store =
        Store::open(&StoreSettings { path: room.folder.path().into(), ..StoreSettings::default() }).await.unwrap();
    room.stories = Stories::new(room.store.clone(), room.broker.clone(), StoryLimits::default());
    room.shutdown = CancellationToken::new();
    let script = Provider::Script(Script::new(vec![vec![Step::Text("A whole.")]]));
    let (store, broker, stories) = (room.store.clone(), room.broker.clone(), room.stories.clone());
    let worker = Worker::with_provider(store, broker, stories, quick(), script).unwrap();
    worker.take_over().await;
    room.spawn(worker);
    assert_eq!(room.end().await.2, "A whole.");
    assert_eq!(room.stop().await.streamed(), ("A whole.".into(), Some(Done)));
}

#[tokio::test]
async fn a_shutdown_lets_short_work_finish() {
    let mut room = Room::new("The lamp went out.").await;
    let settings = AgentSettings { drain_ms: 10_000, ..quick() };
    room.work(settings, vec![vec![Step::Text("Soon"), Step::Pause(Duration::from_millis(100)), Step::Text(" done.")]]);
    room.ask("g1").await;
    wait_for("the first word", async || room.streamed().0 == "Soon").await;
    let room = room.stop().await;
    assert_eq!(room.end().await.2, "Soon done.");
}

#[tokio::test]
async fn jobs_that_nobody_finishes_are_swept() {
    let mut room = Room::new("The lamp went out.").await;
    room.ask("g1").await;
    let ghost = JobOwner::from_random([7; 13]);
    for _ in 0..3 {
        room.store.claim(&ghost, 1_000).await.unwrap().expect("a job");
        room.store.shift_clock(2_000);
    }
    room.work(quick(), vec![vec![Step::Text("Never.")]]);
    let (status, reason, text, _) = room.end().await;
    assert_eq!((status, text.as_str()), (Failed, ""), "{reason}");
    assert_eq!(room.stop().await.streamed().1, Some(Failed));
}

#[tokio::test]
async fn a_lease_is_kept_as_long_as_the_work_takes() {
    let mut room = Room::new("The lamp went out.").await;
    let settings = AgentSettings { lease_ms: 1_200, ..quick() };
    let pause = Step::Pause(Duration::from_millis(2_500));
    let (first, _) = room.work(settings.clone(), vec![vec![Step::Text("Slow"), pause, Step::Text(" but sure.")]]);
    room.ask("g1").await;
    wait_for("the first word", async || room.streamed().0 == "Slow").await;
    let (second, _) = room.work(settings, vec![vec![Step::Text("Stolen.")]]);
    assert_eq!(room.end().await.2, "Slow but sure.");
    assert_eq!((first.claimed.load(Ordering::SeqCst), second.claimed.load(Ordering::SeqCst)), (1, 0));
    room.stop().await;
}

/// Many generations over two workers, with panics, failures, stops and stolen leases: each ends exactly once.
#[tokio::test]
async fn every_generation_ends_exactly_once() {
    let mut room = Room::new("The lamp went out.").await;
    let pause = || Step::Pause(Duration::from_millis(20));
    let answers = [
        vec![Step::Text("One."), pause(), Step::Text(" Two.")],
        vec![Step::Panic],
        vec![Step::Fail(ProviderError::Unreachable)],
        vec![Step::Text("Half"), pause(), Step::Fail(ProviderError::Broken { message: "x".into() })],
        vec![Step::Fail(ProviderError::Refused)],
    ];
    let script = || answers.iter().cycle().take(60).cloned().collect::<Vec<_>>();
    let settings = AgentSettings { concurrency: 3, lease_ms: 500, ..quick() };
    room.work(settings.clone(), script());
    room.work(settings, script());
    for round in 0..30 {
        let generation = room.ask(&format!("g{round}")).await;
        if round % 5 == 1 {
            room.call("generation.stop", json!({"story": room.story, "generation": generation})).await;
        }
        if round % 7 == 2 {
            room.store.shift_clock(1_000);
        }
        let ends = async |wanted: &str| {
            let is_end = |e: &StoryEvent| matches!(e, StoryEvent::GenerationEnded { generation, .. } if generation.id.as_str() == wanted);
            room.events().await.iter().filter(|e| is_end(e)).count()
        };
        wait_for("the end", async || ends(&generation).await > 0).await;
        assert_eq!(ends(&generation).await, 1, "round {round}");
    }
    let room = room.stop().await;
    let events = room.events().await;
    assert_eq!(events.iter().filter(|e| matches!(e, StoryEvent::GenerationEnded { .. })).count(), 30);
    assert_eq!(room.store.open_jobs().await.unwrap(), 0);
}

#[tokio::test]
async fn a_text_ends_at_its_limit_and_is_kept() {
    let mut room = Room::new("The lamp went out.").await;
    let settings = AgentSettings { text_chars_max: 100, ..quick() };
    room.work(settings, vec![vec![Step::Pieces(vec!["äöü ".into(); 100]), Step::Hang]]);
    room.ask("g1").await;
    let (status, _, text, _) = room.end().await;
    assert_eq!((status, text.chars().count()), (Done, 100));
    assert_eq!(room.stop().await.streamed().0, text);
}

#[tokio::test]
async fn the_demo_storyteller_answers_what_was_written() {
    let mut room = Room::new("Mira found a brass compass. @emoji").await;
    let (store, broker, stories) = (room.store.clone(), room.broker.clone(), room.stories.clone());
    room.spawn(Worker::new(store, broker, stories, quick()).unwrap());
    room.ask("g1").await;
    let (status, _, text, choices) = room.end().await;
    assert_eq!((status, choices.len()), (Done, 2), "{text}");
    assert!(text.contains("Mira") && text.contains("compass") && text.contains("👩‍🚀") && !text.contains(">>"), "{text}");
    assert_eq!(room.stop().await.streamed().0, text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However a provider cuts its text, the deltas put together are the turn.
    #[test]
    fn any_cutting_gives_the_same_text(
        text in "[a-z é🦊👩‍🚀\u{301}\n>🇫🇷]{1,200}",
        cuts in proptest::collection::vec(0usize..200, 0..30),
        chars in 1usize..80,
    ) {
        let all: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).chain([0, all.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<String> = cuts.windows(2).map(|w| all[w[0]..w[1]].iter().collect()).filter(|p: &String| !p.is_empty()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut room = Room::new("Go.").await;
            let settings = AgentSettings { delta_chars: chars, delta_ms: 1, tries_max: 1, ..quick() };
            room.work(settings, vec![vec![Step::Pieces(pieces)]]);
            room.ask("g1").await;
            let (status, reason, turn, _) = room.end().await;
            let mut splitter = crate::splitter::Splitter::new(4, 120);
            let mut whole = String::new();
            splitter.push(&text, &mut whole);
            splitter.finish(&mut whole);
            assert_eq!(turn, whole, "{status:?} {reason}");
            assert_eq!(status, if whole.is_empty() { Failed } else { Done });
            assert_eq!(room.stop().await.streamed().0, turn);
        });
    }
}
