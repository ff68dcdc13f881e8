//! What stands in for the server behind sources: it keeps publications and their keys as a durable channel does, can be down,
//! and can stand still in the middle of a batch. Beside it the stories that every kind of source has to live through.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use talewire_sources::{Outcome, Publisher, Refusal, SourceSettings, Sources};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// No event within this time is a failure, never a wait that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct State {
    /// Channel and data of everything that is kept, in its order.
    pub(crate) kept: Vec<(String, String)>,
    keys: HashSet<String>,
    /// Publications that were refused for now.
    refused: usize,
    /// So many are kept. Whoever brought the last of them is never answered, nor is anybody after it.
    hold_at: Option<usize>,
    held: bool,
    down: bool,
}

/// The server behind the sources.
#[derive(Clone)]
pub(crate) struct World(Arc<watch::Sender<State>>);

impl World {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    pub(crate) fn publisher(&self) -> Publisher {
        let world = self.clone();
        Arc::new(move |words| {
            let world = world.clone();
            Box::pin(async move {
                if words.channel.as_str() == "shut" {
                    return Err(Refusal { again: false, reason: "102: unknown channel".into() });
                }
                let mut answer = Ok(Outcome::Published);
                let mut holds = false;
                world.0.send_modify(|state| {
                    let is_new = words.key.as_ref().is_none_or(|key| !state.keys.contains(key));
                    if state.down {
                        state.refused += 1;
                        answer = Err(Refusal { again: true, reason: "503: temporarily unavailable".into() });
                    } else if !is_new {
                        answer = Ok(Outcome::Repeated);
                    } else {
                        let most = state.hold_at.unwrap_or(usize::MAX);
                        if state.kept.len() < most {
                            let data = String::from_utf8(words.data.as_bytes().to_vec()).expect("JSON");
                            state.kept.push((words.channel.to_string(), data));
                            state.keys.extend(words.key.clone());
                        }
                        holds = state.kept.len() >= most;
                        state.held |= holds;
                    }
                });
                if holds {
                    std::future::pending::<()>().await;
                }
                answer
            })
        })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }

    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&State) -> bool) {
        let mut states = self.0.subscribe();
        let waited = tokio::time::timeout(DEADLINE, states.wait_for(holds)).await;
        if let Ok(met) = waited {
            met.expect("the sender is ours");
            return;
        }
        let state = self.0.borrow();
        panic!("{what}: not in time; kept {}, refused {}, held {}", state.kept.len(), state.refused, state.held);
    }

    /// What is kept in each channel.
    pub(crate) fn lanes(&self) -> BTreeMap<String, Vec<u64>> {
        let mut lanes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (channel, data) in &self.0.borrow().kept {
            lanes.entry(channel.clone()).or_default().push(data.parse().expect("a number"));
        }
        lanes
    }
}

/// A running source by the name `a`.
pub(crate) struct Running {
    pub(crate) sources: Sources,
    stop: CancellationToken,
}

impl Running {
    pub(crate) fn start(world: &World, settings: &SourceSettings) -> Self {
        let stop = CancellationToken::new();
        let all = BTreeMap::from([("a".to_owned(), settings.clone())]);
        Self { sources: Sources::start(&all, &world.publisher(), &stop), stop }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.sources.ended()).await.expect("it ends");
    }

    /// Ends it as a crash would: its connections break off, and nobody takes leave.
    pub(crate) fn crash(self) {
        drop(self.sources);
    }

    pub(crate) fn repeated(&self) -> u64 {
        self.sources.counts()[0].1.repeated.load(Relaxed)
    }
}

/// Settings that try again quickly.
pub(crate) fn quick(settings: SourceSettings) -> SourceSettings {
    SourceSettings { from: "in".into(), messages_max: 16, retry_ms: 10, retry_ms_max: 200, ..settings }
}

/// Message number `n`, for one of three channels.
pub(crate) fn message(n: u64) -> String {
    format!(r#"{{"channel":"c{}","data":{n}}}"#, n % 3)
}

/// Every message from 0 on, once and in order, in its channel.
#[track_caller]
pub(crate) fn assert_all(world: &World, count: u64) {
    let expected = (0..3).map(|lane| (format!("c{lane}"), (0..count).filter(|n| n % 3 == lane).collect::<Vec<_>>()));
    let expected: BTreeMap<_, _> = expected.filter(|(_, all)| !all.is_empty()).collect();
    assert_eq!(world.lanes(), expected);
}

/// A hundred messages wait; the process dies in the middle of a batch, with at least one message of it kept, however few the
/// source gives at once; another one goes on.
pub(crate) async fn killed_in_mid_batch(settings: &SourceSettings) {
    let world = World::new();
    world.change(|state| state.hold_at = Some(37));
    let running = Running::start(&world, settings);
    world.until("the middle of a batch", |state| state.held).await;
    running.crash();
    assert_eq!(world.0.borrow().kept.len(), 37);
    world.change(|state| state.hold_at = None);
    let running = Running::start(&world, settings);
    world.until("all hundred", |state| state.kept.len() == 100).await;
    assert_all(&world, 100);
    assert!(running.repeated() > 0, "nothing came again: the batch had been acknowledged before it was published");
    running.stop().await;
}

/// What is behind the source is down for a while: everything waits and then goes on in order.
pub(crate) async fn down_behind_the_source(settings: &SourceSettings) {
    let world = World::new();
    world.change(|state| state.down = true);
    let running = Running::start(&world, settings);
    world.until("refusals", |state| state.refused > 6).await;
    assert!(world.lanes().is_empty());
    world.change(|state| state.down = false);
    world.until("all hundred", |state| state.kept.len() == 100).await;
    assert_all(&world, 100);
    running.stop().await;
}

/// The messages of [`poison`], of which two are good.
pub(crate) const POISON: [&str; 4] =
    [r#"{"channel":"c0","data":0}"#, "{ no JSON", r#"{"channel":"shut","data":7}"#, r#"{"channel":"c1","data":1}"#];

/// Why the bad ones of [`POISON`] are put aside.
pub(crate) const REASONS: [&str; 2] = ["the body is not JSON", "102: unknown channel"];

/// What can never be published does not hold up the rest. The caller looks at what was put aside.
pub(crate) async fn poison(settings: &SourceSettings) -> Running {
    let world = World::new();
    let running = Running::start(&world, settings);
    world.until("what is good", |state| state.kept.len() == 2).await;
    assert_all(&world, 2);
    running
}
