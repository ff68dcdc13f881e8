//! Generation streams in JetStream: one record for each, written anew with every delta if nobody else has written it meanwhile.
//!
//! A text is short and has one writer, so that this is simple and cheap enough. Frames are announced behind the record; on this node
//! in the order of the text.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::client::Client;
use bytes::Bytes;
use talewire_proto::generation::{GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, StoryId};
use tokio::sync::Mutex;

use super::bank::{Bank, Put, Shelf, number};
use super::names::{self, Record, digest};
use crate::{BrokerError, BrokerSettings, GenerationSnapshot, StreamError};

/// Tries to write where others write at the same time.
const TRIES_MAX: u32 = 16;

/// Locks over generations.
const STRIPES: usize = 64;

mod said {
    pub(super) const ATTEMPT: &str = "Tw-Attempt";
    pub(super) const STATUS: &str = "Tw-Status";
    pub(super) const TIME: &str = "Tw-Time";
}

struct Stream {
    sequence: u64,
    attempt: u32,
    status: GenerationStatus,
    text: String,
}

/// What a change comes to: what is kept from now on, if anything changes, and what readers are told.
struct Change {
    kept: Option<(u32, GenerationStatus, String)>,
    told: String,
}

pub(crate) struct Generations {
    settings: Arc<BrokerSettings>,
    bank: Arc<Bank>,
    client: Client,
    stripes: Vec<Mutex<()>>,
}

impl Generations {
    pub(super) fn new(settings: Arc<BrokerSettings>, bank: Arc<Bank>, client: Client) -> Self {
        Self { settings, bank, client, stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }

    pub(crate) async fn begin(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
    ) -> Result<(), StreamError> {
        let begin = |found: Option<&Stream>| match found {
            Some(stream) if stream.attempt >= attempt || stream.status.is_end() => Err(StreamError::Fenced),
            _ => Ok(Change {
                kept: Some((attempt, GenerationStatus::Running, String::new())),
                told: format!("R{attempt}"),
            }),
        };
        self.change(story, generation, begin).await
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
        let append = |found: Option<&Stream>| {
            let stream = found.filter(|stream| stream.attempt == attempt && !stream.status.is_end());
            let stream = stream.ok_or(StreamError::Fenced)?;
            let stands = utf16_len(&stream.text);
            if stands != at {
                return Err(StreamError::Elsewhere { at: stands });
            }
            if stream.text.len() + text.len() > self.settings.generation_bytes_max {
                return Err(StreamError::TooLong);
            }
            let told = format!("D{attempt} {at} {text}");
            Ok(Change { kept: Some((attempt, GenerationStatus::Running, format!("{}{text}", stream.text))), told })
        };
        self.change(story, generation, append).await
    }

    pub(crate) async fn end(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
        at: Option<u64>,
    ) -> Result<(), StreamError> {
        let end = |found: Option<&Stream>| {
            let of_attempt = found.filter(|stream| stream.attempt == attempt);
            let at = at.unwrap_or_else(|| of_attempt.map_or(0, |stream| utf16_len(&stream.text)));
            let told = format!("X{attempt} {} {at}", status.as_str());
            let text = match found {
                Some(stream) if stream.status.is_end() && (stream.attempt, stream.status) != (attempt, status) => {
                    return Err(StreamError::Fenced);
                }
                Some(stream) if stream.attempt > attempt => return Err(StreamError::Fenced),
                Some(stream) if stream.status.is_end() => return Ok(Change { kept: None, told }),
                Some(stream) if stream.attempt == attempt => stream.text.clone(),
                // The attempt that ends never began: what an older one wrote is not its text.
                _ => String::new(),
            };
            Ok(Change { kept: Some((attempt, status, text)), told })
        };
        self.change(story, generation, end).await
    }

    async fn change(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        change: impl Fn(Option<&Stream>) -> Result<Change, StreamError>,
    ) -> Result<(), StreamError> {
        let channel = Channel::generation(story, generation);
        let name = names::of(&channel);
        let at = digest(&[name.as_bytes()]) % STRIPES as u64;
        let _order = self.stripes[usize::try_from(at).unwrap_or(0)].lock().await;
        let subject = self.bank.names.record(Record::Generation, &name);
        let unavailable = |error: BrokerError| {
            tracing::debug!(%error, "a generation's stream could not be written");
            StreamError::Unavailable
        };
        for _ in 0..TRIES_MAX {
            let (found, expected) = self.find(&subject).await.map_err(unavailable)?;
            let Change { kept, told } = change(found.as_ref())?;
            if let Some((attempt, status, text)) = kept {
                let mut headers = HeaderMap::new();
                headers.insert(said::ATTEMPT, attempt.to_string().as_str());
                headers.insert(said::STATUS, status.as_str());
                headers.insert(said::TIME, self.bank.now_ms().to_string().as_str());
                let put = self.bank.put(subject.clone(), headers, text.into(), Some(expected)).await;
                if put.map_err(unavailable)? == Put::Conflict {
                    continue;
                }
            }
            let announced = self.client.publish(self.bank.names.announcements(&name), Bytes::from(told)).await;
            if let Err(error) = announced {
                tracing::debug!(%error, "a frame was not announced: readers take a snapshot");
            }
            return Ok(());
        }
        Err(StreamError::Unavailable)
    }

    /// What is kept by this name and not too old, and what a write has to expect there.
    async fn find(&self, subject: &str) -> Result<(Option<Stream>, u64), BrokerError> {
        let Some(last) = self.bank.last(Shelf::Records, subject).await? else { return Ok((None, 0)) };
        let sequence = last.sequence;
        let age_ms = self.settings.generation_age_ms;
        let until_ms = number(&last.headers, said::TIME).unwrap_or(0).saturating_add(age_ms);
        let stream = || {
            let attempt = u32::try_from(number(&last.headers, said::ATTEMPT)?).ok()?;
            let status = GenerationStatus::from_word(last.headers.get(said::STATUS)?.as_str())?;
            let text = String::from_utf8(last.payload.to_vec()).ok()?;
            Some(Stream { sequence, attempt, status, text })
        };
        let found = if self.bank.now_ms() < until_ms { stream() } else { None };
        let expected = found.as_ref().map_or(sequence, |stream| stream.sequence);
        Ok((found, expected))
    }

    pub(crate) async fn snapshot(
        &self,
        story: &StoryId,
        generation: &GenerationId,
    ) -> Result<Option<GenerationSnapshot>, BrokerError> {
        let name = names::of(&Channel::generation(story, generation));
        let (found, _) = self.find(&self.bank.names.record(Record::Generation, &name)).await?;
        Ok(found.map(|Stream { attempt, status, text, .. }| GenerationSnapshot { attempt, text, status }))
    }
}
