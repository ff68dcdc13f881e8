//! The broker inside the process: everything under short locks, deliveries made in the order of the lock.

mod clock;
mod cursors;
mod generations;
mod history;
mod marks;
mod presence;

use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use talewire_proto::{Channel, ids};
use tokio::sync::broadcast;

use crate::{
    BrokerError, BrokerSettings, Control, ControlSink, Delivery, LetterSink, Message, NodeId, NodeReport, Sink, WakeUp,
};

/// Locks per table, so that channels rarely wait for each other. A power of two.
const STRIPES: usize = 64;

/// The in-process backend.
pub(crate) struct Memory {
    pub(crate) history: history::Histories,
    pub(crate) presence: presence::Presence,
    pub(crate) generations: generations::Generations,
    pub(crate) cursors: cursors::Cursors,
    pub(crate) marks: marks::Marks,
    pub(crate) wakeups: broadcast::Sender<WakeUp>,
    node: NodeId,
    report: Mutex<Option<NodeReport>>,
    clock: clock::Clock,
    outlet: Outlet,
    controls: OnceLock<ControlSink>,
    letters: OnceLock<LetterSink>,
}

/// Where deliveries go, shared by the tables.
#[derive(Clone, Default)]
pub(crate) struct Outlet(Arc<OnceLock<Sink>>);

impl Outlet {
    pub(crate) fn send(&self, channel: &Channel, message: Message) {
        if let Some(sink) = self.0.get() {
            sink(Delivery { channel: channel.clone(), message });
        }
    }
}

impl Memory {
    pub(crate) fn new(settings: BrokerSettings, node: NodeId) -> Self {
        let settings = Arc::new(settings);
        let outlet = Outlet::default();
        let clock = clock::Clock::new();
        let (wakeups, _) = broadcast::channel(settings.wakeups_waiting_max.max(1));
        Self {
            history: history::Histories::new(settings.clone(), clock.clone(), outlet.clone()),
            presence: presence::Presence::new(settings.presence_per_channel_max),
            cursors: cursors::Cursors::new(settings.clone(), clock.clone()),
            marks: marks::Marks::new(settings.marks_max, clock.clone()),
            generations: generations::Generations::new(settings, clock.clone(), outlet.clone()),
            wakeups,
            node,
            report: Mutex::default(),
            clock,
            outlet,
            controls: OnceLock::new(),
            letters: OnceLock::new(),
        }
    }

    pub(crate) fn deliver_to(&self, sink: Sink) {
        assert!(self.outlet.0.set(sink).is_ok(), "a node has one hub, which attaches once");
    }

    pub(crate) fn control_with(&self, sink: ControlSink) {
        assert!(self.controls.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    pub(crate) fn control(&self, control: Control) -> Result<(), BrokerError> {
        // Without a server there are no connections, and nothing is left undone.
        let taken = self.controls.get().is_none_or(|sink| sink(control));
        if taken { Ok(()) } else { Err(BrokerError::Unavailable("a thread has no room for more orders".into())) }
    }

    pub(crate) fn letters_to(&self, sink: LetterSink) {
        assert!(self.letters.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    /// The only node there is, if it has that name.
    pub(crate) fn post(&self, node: &NodeId, letter: Bytes) -> bool {
        let hears = self.letters.get().filter(|_| *node == self.node);
        if let Some(sink) = hears {
            sink(letter);
        }
        hears.is_some()
    }

    pub(crate) fn beat(&self, report: NodeReport) {
        *self.report.lock() = Some(report);
    }

    pub(crate) fn depart(&self) {
        *self.report.lock() = None;
    }

    pub(crate) fn nodes(&self) -> Vec<NodeReport> {
        self.report.lock().clone().into_iter().collect()
    }

    pub(crate) fn deliver(&self, channel: &Channel, message: Message) {
        self.outlet.send(channel, message);
    }

    pub(crate) fn shift_clock(&self, by_ms: u64) {
        self.clock.shift(by_ms);
    }

    pub(crate) fn sweep(&self) {
        self.history.sweep();
        self.generations.sweep();
        self.cursors.sweep();
        self.marks.sweep();
    }
}

/// A table in stripes, each under its own lock.
pub(crate) struct Striped<T> {
    stripes: Vec<Mutex<T>>,
    hasher: std::hash::RandomState,
}

impl<T: Default> Striped<T> {
    pub(crate) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), hasher: std::hash::RandomState::new() }
    }

    pub(crate) fn of(&self, key: &impl Hash) -> &Mutex<T> {
        let at = self.hasher.hash_one(key) as usize & (STRIPES - 1);
        &self.stripes[at]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Mutex<T>> {
        self.stripes.iter()
    }
}

/// Random text for a new epoch.
pub(crate) fn random_text() -> String {
    let mut bytes = [0; 13];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    ids::text_of_random(bytes)
}
