//! The broker inside the process: everything under short locks, deliveries made in the order of the lock.

mod clock;
mod cursors;
mod generations;
mod history;
mod marks;
mod occupancy;
mod presence;

use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use talewire_proto::{Channel, ids};
use tokio::sync::broadcast;

use crate::occupancy::Told;
use crate::{
    BrokerError, BrokerSettings, Control, ControlSink, Delivery, LetterSink, Message, NodeId, NodeReport, Sink, WakeUp,
};

/// Locks per table, so that channels rarely wait for each other. A power of two.
const STRIPES: usize = 64;

/// The in-process backend, as one node has it. The tables belong to all nodes of the process; tests alone have more than one.
pub(crate) struct Memory {
    pub(crate) history: Arc<history::Histories>,
    pub(crate) presence: Arc<presence::Presence>,
    pub(crate) generations: Arc<generations::Generations>,
    pub(crate) cursors: Arc<cursors::Cursors>,
    pub(crate) marks: Arc<marks::Marks>,
    occupancy: Arc<occupancy::Occupancy>,
    pub(crate) wakeups: broadcast::Sender<WakeUp>,
    clock: clock::Clock,
    outlet: Outlet,
    me: Arc<End>,
    ends: Arc<RwLock<Vec<Arc<End>>>>,
}

/// Where one node hears.
struct End {
    node: NodeId,
    report: Mutex<Option<NodeReport>>,
    controls: OnceLock<ControlSink>,
    letters: OnceLock<LetterSink>,
}

impl End {
    fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node, report: Mutex::default(), controls: OnceLock::new(), letters: OnceLock::new() })
    }
}

/// Where deliveries go, shared by the tables: to the hub of every node.
#[derive(Clone, Default)]
pub(crate) struct Outlet(Arc<RwLock<Vec<Sink>>>);

impl Outlet {
    pub(crate) fn send(&self, channel: &Channel, message: Message) {
        let sinks = self.0.read();
        if let [sink] = sinks.as_slice() {
            return sink(Delivery { channel: channel.clone(), message });
        }
        sinks.iter().for_each(|sink| sink(Delivery { channel: channel.clone(), message: message.clone() }));
    }
}

impl Memory {
    pub(crate) fn new(settings: BrokerSettings, node: NodeId) -> Self {
        let settings = Arc::new(settings);
        let outlet = Outlet::default();
        let clock = clock::Clock::new();
        let (wakeups, _) = broadcast::channel(settings.wakeups_waiting_max.max(1));
        let me = End::new(node);
        Self {
            history: Arc::new(history::Histories::new(settings.clone(), clock.clone(), outlet.clone())),
            presence: Arc::new(presence::Presence::new(settings.presence_per_channel_max)),
            cursors: Arc::new(cursors::Cursors::new(settings.clone(), clock.clone())),
            marks: Arc::new(marks::Marks::new(settings.marks_max, clock.clone())),
            occupancy: Arc::new(occupancy::Occupancy::new()),
            generations: Arc::new(generations::Generations::new(settings, clock.clone(), outlet.clone())),
            wakeups,
            clock,
            outlet,
            ends: Arc::new(RwLock::new(vec![me.clone()])),
            me,
        }
    }

    /// Another node of the same process.
    pub(crate) fn beside(&self, node: NodeId) -> Self {
        let me = End::new(node);
        self.ends.write().push(me.clone());
        Self {
            history: self.history.clone(),
            presence: self.presence.clone(),
            generations: self.generations.clone(),
            cursors: self.cursors.clone(),
            marks: self.marks.clone(),
            occupancy: self.occupancy.clone(),
            wakeups: self.wakeups.clone(),
            clock: self.clock.clone(),
            outlet: self.outlet.clone(),
            me,
            ends: self.ends.clone(),
        }
    }

    /// Whether there is more than one node.
    pub(crate) fn is_shared(&self) -> bool {
        self.ends.read().len() > 1
    }

    pub(crate) fn deliver_to(&self, sink: Sink) {
        let mut sinks = self.outlet.0.write();
        assert!(sinks.len() < self.ends.read().len(), "a node has one hub, which attaches once");
        sinks.push(sink);
    }

    pub(crate) fn control_with(&self, sink: ControlSink) {
        assert!(self.me.controls.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    pub(crate) fn control(&self, control: Control) -> Result<(), BrokerError> {
        // Without a server there are no connections, and nothing is left undone.
        let taken = self.me.controls.get().is_none_or(|sink| sink(control.clone()));
        if !taken {
            return Err(BrokerError::Unavailable("a thread has no room for more orders".into()));
        }
        for end in self.ends.read().iter().filter(|end| !Arc::ptr_eq(end, &self.me)) {
            let _ = end.controls.get().is_some_and(|sink| sink(control.clone()));
        }
        Ok(())
    }

    pub(crate) fn letters_to(&self, sink: LetterSink) {
        assert!(self.me.letters.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    /// Gives the letter to the node of that name, if it hears.
    pub(crate) fn post(&self, node: &NodeId, letter: Bytes) -> bool {
        let ends = self.ends.read();
        let hears = ends.iter().find(|end| end.node == *node).and_then(|end| end.letters.get()).cloned();
        drop(ends);
        if let Some(sink) = &hears {
            sink(letter);
        }
        hears.is_some()
    }

    pub(crate) fn beat(&self, report: NodeReport) {
        *self.me.report.lock() = Some(report);
    }

    pub(crate) fn depart(&self) {
        *self.me.report.lock() = None;
    }

    /// This node holds a channel, or holds it no more: what is to be told of that.
    pub(crate) fn hold(&self, channel: &Channel, holds: bool) -> Option<Told> {
        self.occupancy.hold(&self.me.node, channel, holds)
    }

    /// This node holds nothing any more: what is to be told of that.
    pub(crate) fn hold_nothing(&self) -> Vec<Told> {
        self.occupancy.depart(&self.me.node)
    }

    pub(crate) fn nodes(&self) -> Vec<NodeReport> {
        let mut nodes: Vec<_> = self.ends.read().iter().filter_map(|end| end.report.lock().clone()).collect();
        nodes.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
        nodes
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
