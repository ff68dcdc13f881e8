//! Who is subscribed on this node, and how publications reach them.
//!
//! What the broker delivers comes in by [`Hub::deliver`], is put in the order of its offsets and goes once to each shard
//! that has subscribers ([`ShardQueue`]); on the shard's own thread [`Shard::handle`] puts the same bytes into every
//! subscriber's [`Outbox`]. A gap is always told: a subscriber that missed entries is marked behind and catches up from
//! history ([`Hub::recover`], [`Hub::catch_up`]), or is told to subscribe again. Called by `talewire-server` alone.

mod batches;
mod error;
mod fanout;
mod gzip;
mod marks;
mod node;
mod outbox;
mod queue;
mod reads;
mod recovery;
mod repair;
mod settings;
mod shard;
mod subscriber;
#[cfg(test)]
mod tests;
mod waiting;

pub use error::HubError;
pub use fanout::{Came, Fanout, What};
pub use marks::{IdWriter, Marks};
pub use node::Hub;
pub use outbox::Outbox;
pub use queue::{ShardCounters, ShardMessage, ShardQueue};
pub use recovery::{CatchUp, Found, Missed, Recovered};
pub use repair::HubParts;
pub use settings::HubSettings;
pub use shard::{ConnectionKey, Shard, ShardEvent};
pub use subscriber::Interest;
