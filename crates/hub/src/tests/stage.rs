//! One node on a stage: hub, shards, broker and store, and the post between broker and hub.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use talewire_broker::{Broker, BrokerSettings, Delivery, Direction, PageLimit};
use talewire_proto::filter::Filter;
use talewire_proto::publication::EVENT_TAG;
use talewire_proto::{Channel, Kind, Namespace, Position, Publication, Since};
use talewire_store::{Append, LogMark, Store, StoreSettings};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{ALL, rules, says};
use crate::{Hub, HubParts, HubSettings, Interest, Shard, ShardMessage};

/// Whether a publication of [`Stage::publish`] is of the type that [`evens`] lets through.
pub(super) fn is_even(words: &str) -> bool {
    words.bytes().last().is_some_and(|digit| digit % 2 == 0)
}

/// An interest in every other publication.
pub(super) fn evens() -> Interest {
    Interest { filter: Some(Arc::new(Filter::events(["even"]).unwrap())), ..Interest::default() }
}

/// A store in a folder that lives as long as it does.
pub(super) struct Disk {
    pub(super) store: Store,
    _folder: TempDir,
}

impl Disk {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let settings =
            StoreSettings { path: folder.path().join("data"), reader_threads: 1, ..StoreSettings::default() };
        Self { store: wait(Store::open(&settings)).unwrap(), _folder: folder }
    }
}

pub(super) struct Stage {
    pub(super) hub: Hub,
    pub(super) parts: Option<HubParts>,
    pub(super) shards: Vec<Shard>,
    pub(super) broker: Broker,
    pub(super) store: Store,
    /// What the broker delivered and the hub has not got yet.
    pub(super) post: Arc<Mutex<VecDeque<Delivery>>>,
    /// What was said at every position, by channel, epoch and offset.
    pub(super) truth: HashMap<(Channel, String, u64), String>,
    /// Whether every other publication is of another type.
    pub(super) typed: bool,
    said: u64,
    mark: Option<LogMark>,
}

impl Stage {
    pub(super) fn new(settings: HubSettings, store: &Store, shards: usize) -> Self {
        // Tests have no timer.
        let settings = HubSettings { read_gather_ms: 0, ..settings };
        let broker = Broker::in_process(&BrokerSettings { history_idle_ms: 100_000, ..BrokerSettings::default() });
        let parts = Hub::detached(settings, store.clone(), broker.clone(), shards);
        let hub = parts.hub.clone();
        let post: Arc<Mutex<VecDeque<Delivery>>> = Arc::default();
        let letters = post.clone();
        broker.deliver_to(Arc::new(move |delivery| letters.lock().push_back(delivery)));
        let shards = (0..shards).map(|index| Shard::new(hub.clone(), index)).collect();
        let mut stage = Self {
            hub,
            parts: Some(parts),
            shards,
            broker,
            store: store.clone(),
            post,
            truth: HashMap::new(),
            typed: false,
            said: 0,
            mark: None,
        };
        stage.look_at_growth();
        stage
    }

    /// Publishes as the server does. Says where it stands.
    pub(super) fn publish(&mut self, channel: &Channel, rules: &Namespace) -> Position {
        self.said += 1;
        let words = format!("words {}", self.said);
        let publication = self.next(&words);
        let position = match rules.kind {
            Kind::Durable => self.append(channel, publication, true),
            _ => wait(self.broker.publish(channel, rules, publication.into())).unwrap().position,
        };
        self.truth.insert((channel.clone(), position.epoch.as_str().to_owned(), position.offset), words);
        position
    }

    /// Publishes to a durable channel without telling anybody.
    pub(super) fn publish_silently(&mut self, channel: &Channel) -> Position {
        self.said += 1;
        let words = format!("words {}", self.said);
        let publication = self.next(&words);
        let position = self.append(channel, publication, false);
        self.truth.insert((channel.clone(), position.epoch.as_str().to_owned(), position.offset), words);
        position
    }

    fn next(&self, words: &str) -> Publication {
        if !self.typed {
            return says(words);
        }
        let event = if is_even(words) { "even" } else { "odd" };
        Publication { tags: [(EVENT_TAG.to_owned(), event.to_owned())].into(), ..says(words) }
    }

    fn append(&mut self, channel: &Channel, publication: Publication, announce: bool) -> Position {
        let append = Append { channel: channel.clone(), publication, key: None, version: None };
        let appended = wait(self.store.append(append)).unwrap();
        if announce {
            wait(self.broker.announce(channel, &appended.position.epoch, appended.entry.unwrap()));
        }
        appended.position
    }

    /// Hands over the waiting delivery at this place, if there is one.
    pub(super) fn hand_over(&mut self, place: usize) {
        let letter = self.post.lock().remove(place);
        if let Some(letter) = letter {
            self.hub.deliver(letter);
        }
    }

    pub(super) fn hand_over_all(&mut self) {
        while !self.post.lock().is_empty() {
            self.hand_over(0);
        }
    }

    /// Where a channel truly stands, and the oldest offset that is kept.
    pub(super) fn top(&self, channel: &Channel, rules: &Namespace) -> (Position, u64) {
        if rules.kind == Kind::Durable {
            return (wait(self.store.top(channel)).unwrap(), 1);
        }
        let page = wait(self.broker.history(channel, rules, Since::Oldest, Direction::Forward, ALL)).unwrap();
        let oldest = page.entries.first().map_or(page.top.offset + 1, |entry| entry.offset);
        (page.top, oldest)
    }

    /// Carries out every repair that was asked for, whether its time has come or not.
    pub(super) fn repair(&mut self) {
        while let Some(channel) = self.hub.repairs().take(Instant::now() + Duration::from_secs(3_600)) {
            wait(self.hub.repair(&channel));
        }
    }

    pub(super) fn look_at_growth(&mut self) {
        self.mark = Some(wait(self.hub.look_at_growth(self.mark.clone())).unwrap());
    }

    /// History channels are forgotten: their epochs change.
    pub(super) fn forget_histories(&self) {
        self.broker.shift_clock(200_000);
        self.broker.sweep();
    }

    /// Carries out up to `most` messages of a shard's queue. Says whether there was any.
    pub(super) fn pump(&mut self, shard: usize, most: usize) -> bool {
        let mut messages: Vec<ShardMessage> = Vec::new();
        self.hub.shards()[shard].take(&mut messages, most);
        messages.iter().for_each(|message| self.shards[shard].handle(message));
        !messages.is_empty()
    }
}

pub(super) fn history() -> Arc<Namespace> {
    rules(Kind::History)
}

pub(super) fn durable() -> Arc<Namespace> {
    rules(Kind::Durable)
}

pub(super) const PAGE: PageLimit = PageLimit { entries: 5, bytes: 1_000_000 };

/// Waits for what another thread answers.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut step = Step::new(future);
    let began = std::time::Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "an answer of the store");
        if let Some(answer) = step.go() {
            return answer;
        }
    }
}

/// A future that a test carries on step by step.
pub(super) struct Step<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    waker: Waker,
    woken: mpsc::Receiver<()>,
}

struct Woken(Mutex<mpsc::Sender<()>>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().send(());
    }
}

impl<'a, T> Step<'a, T> {
    pub(super) fn new(future: impl Future<Output = T> + 'a) -> Self {
        let (sender, woken) = mpsc::channel();
        Self { future: Box::pin(future), waker: Waker::from(Arc::new(Woken(Mutex::new(sender)))), woken }
    }

    /// One step: gives the answer, or returns when what it waits for is done and the next step can take it, or when that may be for
    /// another step to do.
    pub(super) fn go(&mut self) -> Option<T> {
        match self.future.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => {
                let _ = self.woken.recv_timeout(Duration::from_micros(200));
                None
            }
        }
    }
}
