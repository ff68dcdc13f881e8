//! The end of a generation: one transaction in the store, then the announcement, then the end of its stream. Called by
//! generations and, for what no generation could end, by the worker.

use std::time::Duration;

use talewire_proto::generation::{GenerationStatus, utf16_len};
use talewire_proto::{GenerationId, StoryId};
use talewire_store::{Finish, Finished, LogEntry, StoryEvent};

use crate::counts::count;
use crate::error::Reason;
use crate::generation::{Outcome, Tools};
use crate::keeper::Signals;

/// Tries at the one transaction; then the job is handed back and written again.
const FINISH_TRIES_MAX: u32 = 8;

impl Tools {
    /// Ends a generation, exactly once: a newer attempt or an earlier end wins.
    pub(crate) async fn finish(&self, story: &StoryId, finish: Finish, signals: &Signals) -> Outcome {
        for tried in 0..FINISH_TRIES_MAX {
            match self.store.finish(finish.clone()).await {
                Ok(Finished::Committed { generation, log, .. }) => {
                    self.announce(&log).await;
                    self.end_stream(story, &finish.generation, finish.attempt, generation.status, length(&finish))
                        .await;
                    self.count_end(generation.status);
                    return Outcome::Ended(generation.status);
                }
                // After an error it is not known whether the commit was made; "fenced" may then mean our own success.
                Ok(Finished::Fenced) if tried > 0 => return self.ended_before(story, &finish).await,
                Ok(Finished::Fenced) => return Outcome::Fenced,
                Err(error) => {
                    tracing::warn!(generation = %finish.generation, %error, "the end of a generation could not be kept yet");
                    let pause = Duration::from_millis(50 << tried.min(6));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = signals.lost.cancelled() => return Outcome::Fenced,
                    }
                }
            }
        }
        Outcome::HandBack
    }

    async fn ended_before(&self, story: &StoryId, finish: &Finish) -> Outcome {
        let found = self.store.generation(story, &finish.generation).await.ok().flatten();
        let Some((generation, _)) = found else { return Outcome::Fenced };
        if generation.attempt != finish.attempt || !generation.status.is_end() {
            return Outcome::Fenced;
        }
        self.end_stream(story, &finish.generation, finish.attempt, generation.status, length(finish)).await;
        self.count_end(generation.status);
        Outcome::Ended(generation.status)
    }

    /// Ends a generation as failed without a turn.
    pub(crate) async fn fail(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        reason: Reason,
        usage: Option<String>,
        signals: &Signals,
    ) -> Outcome {
        let finish = Finish {
            generation: generation.clone(),
            attempt,
            status: GenerationStatus::Failed,
            reason: Some(talewire_store::Reason { code: reason.code.into(), message: reason.message }),
            turn: None,
            choices: Vec::new(),
            usage,
        };
        self.finish(story, finish, signals).await
    }

    /// Tells hubs of entries that are on disk.
    pub(crate) async fn announce(&self, log: &[LogEntry]) {
        for written in log {
            self.broker.announce(&written.channel, &written.epoch, written.entry.clone()).await;
        }
    }

    /// Announces what a sweep of the store has ended, and ends the streams.
    pub(crate) async fn announce_swept(&self, log: &[LogEntry]) {
        self.announce(log).await;
        for written in log {
            let event = written.entry.publication.data.as_ref().and_then(|data| data.read::<StoryEvent>().ok());
            if let (Some(StoryEvent::GenerationEnded { generation, .. }), Some(story)) =
                (event, written.channel.story_id())
            {
                self.end_stream(&story, &generation.id, generation.attempt, generation.status, None).await;
                self.count_end(generation.status);
            }
        }
    }

    async fn end_stream(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
        at: Option<u64>,
    ) {
        if let Err(error) = self.broker.generation_end(story, generation, attempt, status, at).await {
            tracing::debug!(%generation, %error, "the end of a stream was not told; the story's log tells it");
        }
    }

    fn count_end(&self, status: GenerationStatus) {
        match status {
            GenerationStatus::Done => count(&self.counts.done),
            GenerationStatus::Cancelled => count(&self.counts.cancelled),
            GenerationStatus::Failed => count(&self.counts.failed),
            GenerationStatus::Queued | GenerationStatus::Running => {}
        }
    }
}

/// How long the text is that was to be streamed. A reader who has less knows by it that its stream was cut off.
fn length(finish: &Finish) -> Option<u64> {
    finish.turn.as_ref().map(|turn| utf16_len(turn.text.as_str()))
}
