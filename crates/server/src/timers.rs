//! One thread's deadlines: a heap of times, looked at a few times a second, instead of a timer per connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use talewire_hub::ConnectionKey;

/// How often deadlines are looked at, in milliseconds: how late one may be.
pub(crate) const TICK_MS: u64 = 200;

/// Deadlines of connections. One that was moved stays in the heap and is found out of date when its time comes.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, ConnectionKey, u64)>>,
}

impl Timers {
    /// Asks for a look at the connection `serial` at `key` when `at_ms` has come.
    pub(crate) fn arm(&mut self, at_ms: u64, key: ConnectionKey, serial: u64) {
        self.heap.push(Reverse((at_ms, key, serial)));
    }

    /// A connection whose time has come, if any.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<(ConnectionKey, u64)> {
        let Reverse((at_ms, key, serial)) = *self.heap.peek()?;
        if at_ms > now_ms {
            return None;
        }
        self.heap.pop();
        Some((key, serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_their_order_and_not_before() {
        let mut timers = Timers::default();
        timers.arm(30, 1, 7);
        timers.arm(10, 2, 8);
        assert_eq!(timers.due(9), None);
        assert_eq!(timers.due(30), Some((2, 8)));
        assert_eq!(timers.due(30), Some((1, 7)));
        assert_eq!(timers.due(99), None);
    }
}
