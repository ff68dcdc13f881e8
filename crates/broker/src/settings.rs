//! The broker's limits, each with its unit in its name and what happens beyond it.

use serde::{Deserialize, Serialize};

use crate::{NatsSettings, RedisSettings};

/// What carries publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerKind {
    /// The process itself: one node, nothing to install.
    InProcess,
    /// Redis or Valkey: as many nodes as are wanted.
    Redis,
    /// NATS with JetStream: the same, with fewer promises.
    Nats,
}

/// The broker and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// What carries publications: `in_process` for one node alone, `redis`, or `nats`.
    pub kind: BrokerKind,
    /// Time between two signs of life of a node, in milliseconds.
    pub node_beat_ms: u64,
    /// How long a node is taken to live after its last sign of life, in milliseconds; then it is off the list, and so is who was present there.
    pub node_lease_ms: u64,
    /// One-time marks remembered at once; spending one more is refused.
    pub marks_max: usize,
    /// History channels kept at once; publishing to one more is refused (106).
    pub history_channels_max: usize,
    /// Payloads of all history channels, with 256 bytes for each entry, in bytes; beyond it a channel that is published to keeps only its newest entry.
    pub history_bytes_max: usize,
    /// How long the position of a silent history channel is remembered after its last entry, in milliseconds; then its epoch changes.
    pub history_idle_ms: u64,
    /// Idempotency keys kept per history channel; the oldest go first.
    pub keys_per_channel_max: usize,
    /// How long an idempotency key of a history channel is kept, in milliseconds.
    pub key_age_ms: u64,
    /// Connections kept in one channel's presence; further ones are subscribed but not listed.
    pub presence_per_channel_max: usize,
    /// Channels whose first subscriber on this node came, or whose last one left, and that wait to say so to a shared broker, where webhooks want to know; further ones are found later, when everything is compared.
    pub occupancy_waiting_max: usize,
    /// Generation streams kept at once; beginning one more forgets the one that ended longest ago, or is refused if none has.
    pub generations_max: usize,
    /// Text of one generation, in bytes; an append beyond it is refused and ends the generation.
    pub generation_bytes_max: usize,
    /// How long the text of a generation stays readable after its end or, if its writer vanished, after its last delta, in milliseconds.
    pub generation_age_ms: u64,
    /// Positions of streams of many channels, too long for an event id, that are kept at once; beyond it the oldest are forgotten and their readers are told of a gap.
    pub cursors_max: usize,
    /// How long such a position is kept, in milliseconds.
    pub cursor_age_ms: u64,
    /// Wake-ups waiting for one listener; a listener that lags looks at everything.
    pub wakeups_waiting_max: usize,
    /// How Redis is reached, for the kind `redis`.
    pub redis: RedisSettings,
    /// How NATS is reached, for the kind `nats`.
    pub nats: NatsSettings,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            kind: BrokerKind::InProcess,
            node_beat_ms: 5_000,
            node_lease_ms: 15_000,
            marks_max: 100_000,
            history_channels_max: 100_000,
            history_bytes_max: 1_073_741_824,
            history_idle_ms: 86_400_000,
            keys_per_channel_max: 10_000,
            key_age_ms: 300_000,
            presence_per_channel_max: 10_000,
            occupancy_waiting_max: 100_000,
            generations_max: 10_000,
            generation_bytes_max: 131_072,
            generation_age_ms: 3_600_000,
            cursors_max: 100_000,
            cursor_age_ms: 300_000,
            wakeups_waiting_max: 1_024,
            redis: RedisSettings::default(),
            nats: NatsSettings::default(),
        }
    }
}
