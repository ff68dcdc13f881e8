//! Generation streams in Redis: the text of each attempt so far, fenced by the attempt's number inside the scripts.

use std::sync::Arc;

use talewire_proto::generation::{GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, StoryId};

use super::answers::{integer, list, text, unknown};
use super::scripts::Script;
use super::servers::{Lost, Servers};
use crate::{BrokerError, BrokerSettings, GenerationSnapshot, StreamError};

pub(crate) struct Generations {
    settings: Arc<BrokerSettings>,
    servers: Arc<Servers>,
}

impl Generations {
    pub(crate) fn new(settings: Arc<BrokerSettings>, servers: Arc<Servers>) -> Self {
        Self { settings, servers }
    }

    pub(crate) async fn begin(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
    ) -> Result<(), StreamError> {
        self.call(Script::GenerationBegin, story, generation, attempt, &[], Lost::Fail).await
    }

    pub(crate) async fn append(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        at: u64,
        text: &str,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        let (units, most) = (utf16_len(text).to_string(), self.settings.generation_bytes_max.to_string());
        let at = at.to_string();
        let more = [text.as_bytes(), units.as_bytes(), most.as_bytes(), at.as_bytes()];
        // Whoever writes finds out by the next piece what became of this one.
        self.call(Script::GenerationAppend, story, generation, attempt, &more, Lost::Fail).await
    }

    pub(crate) async fn end(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
        at: Option<u64>,
    ) -> Result<(), StreamError> {
        let at = at.map(|at| at.to_string()).unwrap_or_default();
        let more = [status.as_str().as_bytes(), at.as_bytes()];
        self.call(Script::GenerationEnd, story, generation, attempt, &more, Lost::Repeat).await
    }

    async fn call(
        &self,
        script: Script,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        more: &[&[u8]],
        lost: Lost,
    ) -> Result<(), StreamError> {
        let names = &self.servers.names;
        let channel = Channel::generation(story, generation);
        let keys = [names.generation(&channel), names.text(&channel)];
        let (told, attempt, age) =
            (names.channel(&channel), attempt.to_string(), self.settings.generation_age_ms.max(1).to_string());
        let mut arguments: Vec<&[u8]> = vec![told.as_bytes(), attempt.as_bytes(), age.as_bytes()];
        arguments.extend(more);
        let answer = self.servers.call(script, &keys, &arguments, lost).await;
        match answer.and_then(|answer| integer(&answer.value)) {
            Ok(1) => Ok(()),
            Ok(0) => Err(StreamError::Fenced),
            Ok(2) => Err(StreamError::TooLong),
            Ok(below @ ..0) => Err(StreamError::Elsewhere { at: below.unsigned_abs() - 1 }),
            Ok(_) => Err(StreamError::Unavailable),
            Err(error) => {
                tracing::debug!(%error, "a generation's stream could not be written");
                Err(StreamError::Unavailable)
            }
        }
    }

    pub(crate) async fn snapshot(
        &self,
        story: &StoryId,
        generation: &GenerationId,
    ) -> Result<Option<GenerationSnapshot>, BrokerError> {
        let names = &self.servers.names;
        let channel = Channel::generation(story, generation);
        let keys = [names.generation(&channel), names.text(&channel)];
        let answer = self.servers.call(Script::GenerationSnapshot, &keys, &[], Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let (Some(attempt), Some(status), Some(written)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let attempt = text(attempt)?.parse().map_err(|_| unknown())?;
        let status = GenerationStatus::from_word(&text(status)?).ok_or_else(unknown)?;
        Ok(Some(GenerationSnapshot { attempt, text: text(written)?, status }))
    }
}
