//! What agents have done since the start, for metrics. Counted by the worker and its generations, read by the server.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        /// Counters that only rise, but for `running`.
        #[derive(Debug, Default)]
        pub struct AgentCounts {$(
            $(#[$doc])*
            pub $name: AtomicU64,
        )+}

        impl AgentCounts {
            /// All counters by name, for metrics.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),+]
            }
        }
    };
}

counts! {
    /// Generations that run now.
    running;
    /// Attempts that were claimed.
    claimed;
    /// Generations that ended with their turn.
    done;
    /// Generations that were stopped by people.
    cancelled;
    /// Generations that were given up.
    failed;
    /// Requests to the provider that were made again.
    retries;
    /// Attempts that stopped because a newer one writes.
    fenced;
    /// Attempts that were handed back to be tried again.
    handed_back;
    /// Attempts that ended in a panic.
    panics;
    /// Deltas that were sent.
    deltas;
    /// Tokens of prompts, where providers told.
    prompt_tokens;
    /// Tokens of answers, where providers told.
    output_tokens;
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
