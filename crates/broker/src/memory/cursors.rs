//! Positions of readers of many channels, kept under a name because they are too long for an event id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::clock::Clock;
use super::random_text;
use crate::BrokerSettings;

pub(crate) struct Cursors {
    settings: Arc<BrokerSettings>,
    clock: Clock,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_name: HashMap<String, Vec<u8>>,
    /// Oldest first, each with the time from which it is no longer kept.
    by_age: VecDeque<(u64, String)>,
}

impl Cursors {
    pub(crate) fn new(settings: Arc<BrokerSettings>, clock: Clock) -> Self {
        Self { settings, clock, kept: Mutex::default() }
    }

    pub(crate) fn keep(&self, positions: Vec<u8>) -> String {
        let name = random_text();
        let expires_ms = self.clock.now_ms().saturating_add(self.settings.cursor_age_ms);
        let mut kept = self.kept.lock();
        kept.by_name.insert(name.clone(), positions);
        kept.by_age.push_back((expires_ms, name.clone()));
        kept.trim(self.settings.cursors_max, self.clock.now_ms());
        name
    }

    pub(crate) fn find(&self, name: &str) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        kept.trim(self.settings.cursors_max, self.clock.now_ms());
        kept.by_name.get(name).cloned()
    }

    pub(crate) fn sweep(&self) {
        self.kept.lock().trim(self.settings.cursors_max, self.clock.now_ms());
    }
}

impl Kept {
    fn trim(&mut self, most: usize, now_ms: u64) {
        while self.by_age.len() > most || self.by_age.front().is_some_and(|(expires_ms, _)| *expires_ms <= now_ms) {
            if let Some((_, name)) = self.by_age.pop_front() {
                self.by_name.remove(&name);
            }
        }
    }
}
