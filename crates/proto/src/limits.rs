//! The limits of one session, each with its unit in its name. What happens beyond a limit stands in its doc.

use serde::{Deserialize, Serialize};

/// Limits that the session keeps by itself. `docs/operations.md` lists them with their settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest frame from a client, in bytes; larger ones close the connection (1009), before they are read.
    pub frame_bytes_max: usize,
    /// Commands in one frame; more close the connection with 3501.
    pub frame_commands_max: usize,
    /// Commands that wait while one is carried out; beyond it the socket is not read until there is room.
    pub commands_waiting_max: usize,
    /// Commands that may come at once before the rate applies; beyond it they are refused with 111.
    pub command_burst: u32,
    /// Commands per second in the long run; beyond it they are refused with 111.
    pub commands_per_second: u32,
    /// Refused commands in a row after which the connection is closed with 3013.
    pub refusals_max: u32,
    /// Time from opening to a `connect`, in milliseconds; then the connection is closed with 3502.
    pub connect_deadline_ms: u64,
    /// Time between pings, in milliseconds. The first comes at a random point in the second half.
    pub ping_interval_ms: u64,
    /// Time for the answer to a ping, in milliseconds; then the connection is closed with 3012.
    pub pong_deadline_ms: u64,
    /// Time between comments on a silent stream of plain events, in milliseconds. The first comes at a random point in the second half.
    pub comment_interval_ms: u64,
    /// What that time grows to while events flow, in milliseconds.
    pub comment_interval_max_ms: u64,
    /// Time after expiry in which a refresh is still taken, in milliseconds; then 3005.
    pub expiry_grace_ms: u64,
    /// Subscriptions of one connection; one more is refused with 106.
    pub subscriptions_max: usize,
    /// Entries in one recovery or history answer; more missed ones are `recovered: false`.
    pub history_entries_max: usize,
    /// Entries of one recovery or history answer in bytes; counted as the limit above.
    pub history_bytes_max: usize,
    /// Largest rpc payload, in bytes; larger ones are refused with 106.
    pub rpc_bytes_max: usize,
    /// Longest idempotency key, in characters; longer ones are refused with 107.
    pub key_chars_max: usize,
}

impl Limits {
    /// Whether this is an idempotency key, or none (empty). The character zero is in none: not every database keeps it apart from others.
    #[must_use]
    pub fn takes_key(&self, key: &str) -> bool {
        key.chars().count() <= self.key_chars_max && !key.contains('\0')
    }

    /// How many entries of history are given to who asks for so many; negative for as many as there are.
    #[must_use]
    pub fn history_entries(&self, asked: i32) -> i32 {
        let most = i32::try_from(self.history_entries_max).unwrap_or(i32::MAX);
        if asked < 0 { most } else { asked.min(most) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 65_536,
            frame_commands_max: 512,
            commands_waiting_max: 256,
            command_burst: 300,
            commands_per_second: 50,
            refusals_max: 1_000,
            connect_deadline_ms: 10_000,
            ping_interval_ms: 25_000,
            pong_deadline_ms: 8_000,
            comment_interval_ms: 15_000,
            comment_interval_max_ms: 45_000,
            expiry_grace_ms: 25_000,
            subscriptions_max: 128,
            history_entries_max: 300,
            history_bytes_max: 1_048_576,
            rpc_bytes_max: 65_536,
            key_chars_max: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_the_same_in_every_database() {
        let limits = Limits { key_chars_max: 3, ..Limits::default() };
        for good in ["", "k", "\u{1f98a}\u{1f98a}\u{1f98a}", "a b"] {
            assert!(limits.takes_key(good), "{good}");
        }
        for bad in ["four", "\0", "a\0"] {
            assert!(!limits.takes_key(bad), "{bad:?}");
        }
    }
}
