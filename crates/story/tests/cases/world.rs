//! A small world for cases: people by name, one store in a temporary folder, one broker whose deliveries are kept, and a
//! script language of one line per call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use talewire_broker::{Broker, BrokerSettings, Delivery, Message};
use talewire_proto::generation::GenerationStatus;
use talewire_proto::{Channel, GenerationId, Payload, Since, StoryId};
use talewire_store::{Direction, Finish, Finished, NewTurn, Reason, Store, StoreSettings};
use talewire_story::{Caller, Refusal, Stories, StoryLimits};

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) stories: Stories,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    names: HashMap<String, String>,
    _folder: tempfile::TempDir,
}

pub(crate) fn caller(name: &str) -> Caller {
    let mut shown = name.to_owned();
    shown[..1].make_ascii_uppercase();
    Caller { user: name.parse().unwrap(), name: shown }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(StoryLimits::default()).await
    }

    pub(crate) async fn with(limits: StoryLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreSettings { path: folder.path().join("data"), ..StoreSettings::default() }).await.unwrap();
        let broker = Broker::in_process(&BrokerSettings::default());
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let kept = deliveries.clone();
        broker.deliver_to(Arc::new(move |delivery| kept.lock().unwrap().push(delivery)));
        let stories = Stories::new(store.clone(), broker.clone(), limits);
        Self { store, broker, stories, deliveries, names: HashMap::new(), _folder: folder }
    }

    pub(crate) async fn call(&self, who: &str, method: &str, params: &Value) -> Result<Value, Refusal> {
        let answer = self.stories.call(&caller(who), method, &Payload::of(params)).await?;
        Ok(answer.read().unwrap())
    }

    /// A name that an answer has brought: `story`, `branch`, `main`, `turn`, `generation`, `choice`, `code`.
    pub(crate) fn name(&self, name: &str) -> String {
        self.names.get(name).unwrap_or_else(|| panic!("no {name} so far")).clone()
    }

    pub(crate) fn story(&self) -> StoryId {
        self.name("story").parse().unwrap()
    }

    fn remember(&mut self, answer: &Value) {
        for (name, path) in [
            ("story", "/story/id"),
            ("main", "/story/branch"),
            ("branch", "/branch/id"),
            ("turn", "/turn/id"),
            ("generation", "/generation/id"),
            ("code", "/invite/code"),
            ("choice", "/choices/0/id"),
        ] {
            if let Some(text) = answer.pointer(path).and_then(Value::as_str) {
                let taken = name == "main" && self.names.contains_key("main");
                if !taken {
                    self.names.insert(name.to_owned(), text.to_owned());
                }
            }
        }
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("${name}"), value);
        }
        assert!(!text.contains('$'), "a name that is not known yet: {text}");
        text
    }

    /// The events in the story's log.
    pub(crate) async fn log(&self) -> Vec<Value> {
        let Some(story) = self.names.get("story") else { return Vec::new() };
        let channel = Channel::story(&story.parse().unwrap());
        let page =
            self.store.history(&channel, Since::Oldest, usize::MAX, usize::MAX, Direction::Forward).await.unwrap();
        page.entries.iter().map(|entry| entry.publication.data.as_ref().unwrap().read().unwrap()).collect()
    }

    /// The events that the broker was told of, in the order in which it was.
    pub(crate) fn announced(&self) -> Vec<Value> {
        let deliveries = self.deliveries.lock().unwrap();
        let entries = deliveries.iter().filter_map(|delivery| match &delivery.message {
            Message::Entry { entry, .. } => Some(entry.publication.data.as_ref().unwrap().read().unwrap()),
            _ => None,
        });
        entries.collect()
    }

    /// The frames of generation streams.
    pub(crate) fn frames(&self) -> Vec<Value> {
        let deliveries = self.deliveries.lock().unwrap();
        let frames = deliveries.iter().filter_map(|delivery| match &delivery.message {
            Message::Generation(frame) => Some(serde_json::to_value(&**frame).unwrap()),
            _ => None,
        });
        frames.collect()
    }

    /// The worker's part: takes the oldest job.
    pub(crate) async fn claim(&self) -> Option<GenerationId> {
        let job = self.store.claim(&"worker".parse().unwrap(), 30_000).await.unwrap()?;
        Some(job.generation.id)
    }

    /// The worker's part: ends its job with a text and two choices.
    pub(crate) async fn finish(&self, generation: &GenerationId, status: GenerationStatus, text: &str) {
        let finish = Finish {
            generation: generation.clone(),
            attempt: 1,
            status,
            reason: (status == GenerationStatus::Failed).then(|| Reason { code: "x".into(), message: "y".into() }),
            turn: (!text.is_empty()).then(|| NewTurn { text: text.into(), label: "a model".into() }),
            choices: vec!["Open the door".into(), "Run".into()],
            usage: None,
        };
        let Finished::Committed { log, .. } = self.store.finish(finish).await.unwrap() else { panic!("fenced") };
        for entry in log {
            self.broker.announce(&entry.channel, &entry.epoch, entry.entry).await;
        }
    }

    /// Plays a script. `who method params -> what`, where `what` is the types of the events that the call adds, `nothing`,
    /// or the code of the refusal; `worker ends TEXT -> what` takes the oldest job and ends it. Names like `$story` stand for what
    /// answers have brought.
    pub(crate) async fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (call, wanted) = line.rsplit_once(" -> ").unwrap();
            let (who, rest) = call.trim().split_once(' ').unwrap();
            let before = self.log().await.len();
            let got = if who == "worker" {
                let text = rest.strip_prefix("ends ").unwrap();
                let generation = self.claim().await.unwrap();
                self.finish(&generation, GenerationStatus::Done, text).await;
                let view = serde_json::json!({ "story": self.name("story") });
                let opened = self.call("ana", "story.open", &view).await.unwrap();
                self.remember(&opened);
                None
            } else {
                let (method, params) = rest.split_once(' ').unwrap();
                let params: Value = serde_json::from_str(&self.filled(params)).unwrap();
                match self.call(who, method, &params).await {
                    Ok(answer) => {
                        self.remember(&answer);
                        None
                    }
                    Err(refusal) => Some(refusal.code.code().to_string()),
                }
            };
            let before = if rest.starts_with("story.create") { 0 } else { before };
            let log = self.log().await;
            let added: Vec<&str> = log[before..].iter().map(|event| event["type"].as_str().unwrap()).collect();
            let got = got.unwrap_or_else(|| if added.is_empty() { "nothing".to_owned() } else { added.join(" ") });
            assert_eq!(got, wanted.trim(), "{line}");
        }
    }

    /// Ana's story with one turn, Ben as a writer and Rea as a reader; a generation has ended with two choices, and another
    /// one is open.
    pub(crate) async fn peopled(limits: StoryLimits) -> Self {
        let mut world = Self::with(limits).await;
        world
            .play(
                r#"
                ana story.create {"title":"The Fox","opening":"Once.","key":"c"} -> story.created member.joined turn.added
                ana invite.create {"story":"$story","role":"reader","key":"r"} -> nothing
                rea story.join {"code":"$code"} -> member.joined
                ana invite.create {"story":"$story","role":"writer","key":"w"} -> nothing
                ben story.join {"code":"$code"} -> member.joined
                ben generation.request {"story":"$story","branch":"$main","key":"g1"} -> generation.requested
                worker ends It rained. -> generation.started generation.ended
                ben generation.request {"story":"$story","branch":"$main","key":"g2"} -> generation.requested
                "#,
            )
            .await;
        world
    }
}
