//! Generation streams inside the process: the text of each attempt so far, fenced by the attempt's number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use talewire_proto::generation::{GenerationFrame, GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, StoryId};

use super::Outlet;
use crate::{BrokerSettings, GenerationSnapshot, Message, StreamError};

pub(crate) struct Generations {
    settings: Arc<BrokerSettings>,
    outlet: Outlet,
    streams: Mutex<HashMap<GenerationId, Stream>>,
}

struct Stream {
    attempt: u32,
    text: String,
    utf16_units: u64,
    status: GenerationStatus,
    ended: Option<Instant>,
}

impl Generations {
    pub(crate) fn new(settings: Arc<BrokerSettings>, outlet: Outlet) -> Self {
        Self { settings, outlet, streams: Mutex::default() }
    }

    pub(crate) fn begin(&self, story: &StoryId, generation: &GenerationId, attempt: u32) -> Result<(), StreamError> {
        let mut streams = self.streams.lock();
        match streams.get(generation) {
            Some(stream) if stream.attempt >= attempt || stream.ended.is_some() => return Err(StreamError::Fenced),
            Some(_) => {}
            None if streams.len() >= self.settings.generations_max => {
                let oldest = streams.iter().filter_map(|(id, s)| Some((s.ended?, id.clone()))).min();
                let (_, oldest) = oldest.ok_or(StreamError::Unavailable)?;
                streams.remove(&oldest);
            }
            None => {}
        }
        let stream =
            Stream { attempt, text: String::new(), utf16_units: 0, status: GenerationStatus::Running, ended: None };
        streams.insert(generation.clone(), stream);
        self.send(story, generation, GenerationFrame::Reset { generation: generation.clone(), attempt });
        Ok(())
    }

    pub(crate) fn append(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        text: &str,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut streams = self.streams.lock();
        let stream = streams.get_mut(generation).ok_or(StreamError::Fenced)?;
        if stream.attempt != attempt || stream.ended.is_some() {
            return Err(StreamError::Fenced);
        }
        if stream.text.len() + text.len() > self.settings.generation_bytes_max {
            return Err(StreamError::TooLong);
        }
        let at = stream.utf16_units;
        stream.text.push_str(text);
        stream.utf16_units += utf16_len(text);
        let frame = GenerationFrame::Delta { generation: generation.clone(), attempt, at, text: text.to_owned() };
        self.send(story, generation, frame);
        Ok(())
    }

    pub(crate) fn end(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
    ) -> Result<(), StreamError> {
        let mut streams = self.streams.lock();
        if let Some(stream) = streams.get_mut(generation) {
            if stream.attempt > attempt || stream.ended.is_some_and(|_| stream.status != status) {
                return Err(StreamError::Fenced);
            }
            stream.attempt = attempt;
            stream.status = status;
            stream.ended = Some(Instant::now());
        }
        self.send(story, generation, GenerationFrame::End { generation: generation.clone(), attempt, status });
        Ok(())
    }

    pub(crate) fn snapshot(&self, generation: &GenerationId) -> Option<GenerationSnapshot> {
        let streams = self.streams.lock();
        let stream = streams.get(generation)?;
        Some(GenerationSnapshot { attempt: stream.attempt, text: stream.text.clone(), status: stream.status })
    }

    pub(crate) fn sweep(&self) {
        let age = Duration::from_millis(self.settings.generation_age_ms);
        self.streams.lock().retain(|_, stream| stream.ended.is_none_or(|ended| ended.elapsed() < age));
    }

    /// Called under the lock, so that frames leave in the order of the text.
    fn send(&self, story: &StoryId, generation: &GenerationId, frame: GenerationFrame) {
        self.outlet.send(&Channel::generation(story, generation), Message::Generation(Arc::new(frame)));
    }
}
