//! A bounded queue from async callers to threads: full is told at once, closing lets the threads finish what is in it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What became of a push.
pub(super) enum Pushed {
    Taken,
    Full,
    Closed,
}

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    capacity: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), filled: Condvar::new(), capacity }
    }

    /// Nothing in here can panic while the lock is held, so that a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: T) -> Pushed {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Closed;
        }
        if state.waiting.len() >= self.capacity {
            return Pushed::Full;
        }
        state.waiting.push_back(item);
        drop(state);
        self.filled.notify_one();
        Pushed::Taken
    }

    /// Waits for the next item; nothing when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next item if there is one now.
    pub(super) fn pop_now(&self) -> Option<T> {
        self.lock().waiting.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}
