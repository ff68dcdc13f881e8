//! What is told after a commit: log entries to the hubs, wake-ups to the workers. All of it may be lost; hubs and workers
//! look by themselves.

use std::fmt;

use talewire_broker::{Broker, BrokerError, GenerationSnapshot, WakeUp};
use talewire_proto::generation::GenerationStatus;
use talewire_proto::{GenerationId, StoryId};
use talewire_store::LogEntry;

/// The broker, as use cases use it.
#[derive(Clone)]
pub(crate) struct Announcer(Broker);

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcer")
    }
}

impl Announcer {
    pub(crate) fn new(broker: Broker) -> Self {
        Self(broker)
    }

    /// Tells of entries that are on disk, in order.
    pub(crate) async fn entries(&self, log: &[LogEntry]) {
        for written in log {
            self.0.announce(&written.channel, &written.epoch, written.entry.clone()).await;
        }
    }

    /// There is a job to claim.
    pub(crate) fn job(&self) {
        self.0.wake(WakeUp::Jobs);
    }

    /// Whoever writes this generation is to look whether it should stop.
    pub(crate) fn cancel(&self, generation: &GenerationId) {
        self.0.wake(WakeUp::Cancel(generation.clone()));
    }

    /// Readers of a generation that never began hear its end.
    pub(crate) async fn ended(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
    ) {
        if let Err(error) = self.0.generation_end(story, generation, attempt, status, None).await {
            tracing::debug!(%error, "the end of a generation's stream was not told; the story's log tells it");
        }
    }

    /// The text of a generation so far.
    pub(crate) async fn snapshot(
        &self,
        story: &StoryId,
        generation: &GenerationId,
    ) -> Result<Option<GenerationSnapshot>, BrokerError> {
        self.0.generation_snapshot(story, generation).await
    }
}
