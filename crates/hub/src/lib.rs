//! Who is subscribed on this node, and how publications reach them.
//!
//! What the broker delivers comes in by [`Hub::deliver`], is put in the order of its offsets and goes once to each shard
//! that has subscribers ([`ShardQueue`]); on the shard's own thread [`Shard::deliver`] puts the same bytes into every
//! subscriber's [`Outbox`]. A gap is always told: a subscriber that missed entries is marked behind and catches up from
//! history ([`Hub::recover`], [`Hub::catch_up`]), or is told to subscribe again. Called by `talewire-server` alone.

mod error;
mod fanout;
mod node;
mod outbox;
mod queue;
mod recovery;
mod settings;
mod shard;

pub use error::HubError;
pub use fanout::{Fanout, What};
pub use node::{Hub, HubParts};
pub use outbox::Outbox;
pub use queue::{ShardCounters, ShardMessage, ShardQueue};
pub use recovery::{CatchUp, Missed, Recovered};
pub use settings::HubSettings;
pub use shard::{ConnectionKey, Shard, ShardEvent};
