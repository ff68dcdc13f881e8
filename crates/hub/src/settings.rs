//! The hub's limits, each with its unit in its name and what happens beyond it.

use serde::{Deserialize, Serialize};

/// Limits of fan-out and recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    /// Bytes that wait for one connection; beyond it signals wait beside it, and entries mark the subscription behind.
    pub outbox_bytes_max: usize,
    /// Bytes that wait for one connection with replies counted in; beyond it the connection is closed with 3008.
    pub outbox_bytes_hard_max: usize,
    /// Signals that wait for room in one connection's outbox; beyond it the oldest are dropped and counted.
    pub signals_waiting_max: usize,
    /// Channels of one shard whose publications are gathered at the same time; those of one more leave at once.
    pub batches_max: usize,
    /// How long the oldest waiting frame may wait while the peer takes nothing, in milliseconds; then the connection is closed with 3008.
    pub outbox_age_max_ms: u64,
    /// Deliveries that wait for one shard; beyond it signals are dropped and counted, and the channels' subscribers are marked behind.
    pub shard_queue_max: usize,
    /// Deliveries held for a subscriber while its history is read; beyond it the history is read again.
    pub joining_held_max: usize,
    /// Deliveries held for a channel while an earlier one is awaited; beyond it history is read at once.
    pub ahead_held_max: usize,
    /// How long an earlier delivery is awaited before history is read, in milliseconds.
    pub gap_wait_ms: u64,
    /// Time between two looks at which durable channels have grown, in milliseconds.
    pub growth_check_ms: u64,
    /// Time between two looks at where the history channels of this node stand in a shared broker, in milliseconds.
    pub position_check_ms: u64,
    /// Channels that wait to have a gap repaired; beyond it the next look at growth finds them among all.
    pub repairs_waiting_max: usize,
    /// Channels whose gaps are repaired at the same time; further ones wait, so that a slow one delays few others.
    pub repairs_at_once_max: usize,
    /// Pieces of history whose reads are shared by those who come back at the same time; of more each reader reads for itself.
    pub reads_shared_max: usize,
    /// Least time between two reads of the same piece of history for those who come back, in milliseconds: who comes in between shares the next.
    pub read_gather_ms: u64,
    /// Smallest message that is compressed for WebSocket connections which agreed to it, in bytes; smaller ones are sent as they are.
    pub compress_bytes_min: usize,
    /// Largest message that is compressed, in bytes; larger ones are sent as they are, since they would hold their thread for more than a millisecond.
    pub compress_bytes_max: usize,
    /// Smallest batch that is compressed for a stream with `Content-Encoding: gzip`, in bytes; smaller ones are stored in it as they are.
    pub gzip_bytes_min: usize,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 262_144,
            outbox_bytes_hard_max: 4_194_304,
            signals_waiting_max: 64,
            batches_max: 4_096,
            outbox_age_max_ms: 30_000,
            shard_queue_max: 65_536,
            joining_held_max: 512,
            ahead_held_max: 512,
            gap_wait_ms: 20,
            growth_check_ms: 1_000,
            position_check_ms: 10_000,
            repairs_waiting_max: 4_096,
            repairs_at_once_max: 8,
            reads_shared_max: 4_096,
            read_gather_ms: 10,
            compress_bytes_min: 1_024,
            compress_bytes_max: 131_072,
            gzip_bytes_min: 1_024,
        }
    }
}
