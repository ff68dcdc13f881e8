//! The hub driven by hand: shards without threads, connections without sockets, a real broker and a real store.
//!
//! [`Stage`] owns one node. Deliveries of the broker wait in its post until a test hands them over, late, doubled, swapped
//! or never; [`Peer`] reads the bytes that came out of an outbox as a client does, and fails when they are not what was
//! promised: after its reply every entry of a subscription, in order, each once, as it was published.

#![allow(clippy::unwrap_used)]

mod batches;
mod crowd;
mod doubts;
mod epochs;
mod following;
mod generations;
mod interests;
mod latest;
mod model;
mod peer;
mod repairs;
mod shards;
mod sharing;
mod stage;
mod waiting;

use std::sync::Arc;

use talewire_broker::PageLimit;
use talewire_proto::namespace::Recovery;
use talewire_proto::{Channel, Kind, Namespace, Payload, Publication};

/// As much as a test ever publishes.
const ALL: PageLimit = PageLimit { entries: 10_000, bytes: 100_000_000 };

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn rules(kind: Kind) -> Arc<Namespace> {
    Arc::new(Namespace { kind, history_size: 1_000, history_age_ms: 100_000, ..Namespace::default() })
}

/// Rules by which a client that comes back gets the newest entry alone.
fn latest(kind: Kind) -> Arc<Namespace> {
    Arc::new(Namespace { recovery: Recovery::Latest, history_size: 3, ..(*rules(kind)).clone() })
}

fn says(words: &str) -> Publication {
    Publication { data: Some(Payload::of(&words)), time_ms: 1, ..Publication::default() }
}
