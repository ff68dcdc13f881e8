//! What comes from and goes to other systems.
//!
//! *Sources* turn messages of Redis Streams, RabbitMQ queues and Kafka topics into publications: at least once, in order, the
//! position kept in the source itself. A batch comes in by an [`Inlet`](run::Inlet), goes through [`feed`] to the
//! [`Publisher`] that the binary gives, which is the server's own way to publish, and is acknowledged behind it.
//! *Webhooks* tell other systems what happens here: [`Notice`](talewire_proto::Notice)s come in from the hub, the server and the broker,
//! signed deliveries go out ([`webhooks`]). Called by the binary alone; docs/sources.md tells formats and promises.

mod backoff;
pub mod counts;
mod feed;
#[cfg(feature = "kafka")]
mod kafka;
mod message;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod redis;
mod run;
pub mod settings;
pub mod url;
pub mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use counts::Counts;
pub use feed::{Outcome, Publisher, Refusal};
pub use message::Words;
pub use settings::{SourceKind, SourceSettings, WebhookSettings};
pub use webhooks::{WebhookError, Webhooks};

use counts::SourceCounts;
use feed::Feed;

/// The running sources of a process.
#[derive(Debug, Default)]
pub struct Sources {
    tasks: JoinSet<()>,
    counts: Vec<(String, Arc<SourceCounts>)>,
}

impl Sources {
    /// Starts a task for each; they end when `stop` is cancelled.
    #[must_use]
    pub fn start(all: &BTreeMap<String, SourceSettings>, publisher: &Publisher, stop: &CancellationToken) -> Self {
        let mut sources = Self::default();
        for (name, settings) in all {
            let counts: Arc<SourceCounts> = Arc::default();
            sources.counts.push((name.clone(), counts.clone()));
            let feed = Feed::new(name, settings.clone(), publisher.clone(), counts);
            sources.tasks.spawn(run_one(feed, stop.clone()));
        }
        sources
    }

    /// What each has done.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Arc<SourceCounts>)> {
        self.counts.clone()
    }

    /// Waits until all have ended.
    pub async fn ended(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a source panicked");
            }
        }
    }
}

async fn run_one(feed: Feed, stop: CancellationToken) {
    match feed.settings.kind {
        SourceKind::Redis => run::run(feed, redis::open, stop).await,
        #[cfg(feature = "rabbitmq")]
        SourceKind::RabbitMq => run::run(feed, rabbitmq::open, stop).await,
        #[cfg(feature = "kafka")]
        SourceKind::Kafka => run::run(feed, kafka::open, stop).await,
        #[expect(clippy::allow_attributes, reason = "whether it can be reached depends on the features")]
        #[allow(unreachable_patterns)]
        kind => {
            tracing::error!(source = %feed.name, kind = kind.as_str(), "this build does not have this kind of source")
        }
    }
}
