//! Marks that count once, inside the process.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use super::clock::Clock;
use crate::BrokerError;

pub(crate) struct Marks {
    most: usize,
    clock: Clock,
    spent: Mutex<Spent>,
}

#[derive(Default)]
struct Spent {
    marks: HashSet<String>,
    /// In the order of spending, each with the time until which it is remembered. Their lives differ little.
    by_age: VecDeque<(u64, String)>,
}

impl Marks {
    pub(crate) fn new(most: usize, clock: Clock) -> Self {
        Self { most, clock, spent: Mutex::default() }
    }

    pub(crate) fn spend(&self, mark: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        let now_ms = self.clock.now_ms();
        let mut spent = self.spent.lock();
        spent.forget(now_ms);
        if spent.marks.contains(mark) {
            return Ok(false);
        }
        if spent.marks.len() >= self.most {
            return Err(BrokerError::Full("marks_max"));
        }
        spent.marks.insert(mark.to_owned());
        spent.by_age.push_back((now_ms.saturating_add(ttl_ms), mark.to_owned()));
        Ok(true)
    }

    pub(crate) fn sweep(&self) {
        self.spent.lock().forget(self.clock.now_ms());
    }
}

impl Spent {
    fn forget(&mut self, now_ms: u64) {
        while self.by_age.front().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            if let Some((_, mark)) = self.by_age.pop_front() {
                self.marks.remove(&mark);
            }
        }
    }
}
