//! Generation streams inside the process: the text of each attempt so far, fenced by the attempt's number.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use talewire_proto::generation::{GenerationFrame, GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, StoryId};

use super::Outlet;
use super::clock::Clock;
use crate::{BrokerSettings, GenerationSnapshot, Message, StreamError};

pub(crate) struct Generations {
    settings: Arc<BrokerSettings>,
    clock: Clock,
    outlet: Outlet,
    /// By story too: whoever may read one story's streams must not reach another's by its generation's id.
    streams: Mutex<HashMap<Name, Stream>>,
}

type Name = (StoryId, GenerationId);

struct Stream {
    attempt: u32,
    text: String,
    utf16_units: u64,
    status: GenerationStatus,
    ended: bool,
    /// When it was last begun, appended to or ended.
    changed_ms: u64,
}

impl Stream {
    fn new(attempt: u32, now_ms: u64) -> Self {
        let status = GenerationStatus::Running;
        Self { attempt, text: String::new(), utf16_units: 0, status, ended: false, changed_ms: now_ms }
    }
}

impl Generations {
    pub(crate) fn new(settings: Arc<BrokerSettings>, clock: Clock, outlet: Outlet) -> Self {
        Self { settings, clock, outlet, streams: Mutex::default() }
    }

    pub(crate) fn begin(&self, story: &StoryId, generation: &GenerationId, attempt: u32) -> Result<(), StreamError> {
        let mut streams = self.streams.lock();
        let name = (story.clone(), generation.clone());
        match streams.get(&name).map(|stream| (stream.attempt, stream.ended)) {
            Some((begun, ended)) if begun >= attempt || ended => return Err(StreamError::Fenced),
            Some(_) => {}
            None if self.make_room(&mut streams) => {}
            None => return Err(StreamError::Unavailable),
        }
        streams.insert(name, Stream::new(attempt, self.clock.now_ms()));
        self.send(story, generation, GenerationFrame::Reset { generation: generation.clone(), attempt });
        Ok(())
    }

    pub(crate) fn append(
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
        let mut streams = self.streams.lock();
        let stream = streams.get_mut(&(story.clone(), generation.clone())).ok_or(StreamError::Fenced)?;
        if stream.attempt != attempt || stream.ended {
            return Err(StreamError::Fenced);
        }
        if stream.utf16_units != at {
            return Err(StreamError::Elsewhere { at: stream.utf16_units });
        }
        if stream.text.len() + text.len() > self.settings.generation_bytes_max {
            return Err(StreamError::TooLong);
        }
        stream.text.push_str(text);
        stream.utf16_units += utf16_len(text);
        stream.changed_ms = self.clock.now_ms();
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
        at: Option<u64>,
    ) -> Result<(), StreamError> {
        let mut streams = self.streams.lock();
        let name = (story.clone(), generation.clone());
        match streams.get(&name).map(|stream| (stream.attempt, stream.ended.then_some(stream.status))) {
            Some((begun, Some(end))) if (begun, end) != (attempt, status) => return Err(StreamError::Fenced),
            Some((begun, _)) if begun > attempt => return Err(StreamError::Fenced),
            Some((begun, _)) if begun == attempt => {}
            // The attempt that ends never began: what an older one wrote is not its text.
            Some(_) => {
                streams.insert(name.clone(), Stream::new(attempt, self.clock.now_ms()));
            }
            // Kept, so that an older attempt cannot begin after the end; without room the end is only told.
            None if self.make_room(&mut streams) => {
                streams.insert(name.clone(), Stream::new(attempt, self.clock.now_ms()));
            }
            None => {}
        }
        if let Some(stream) = streams.get_mut(&name).filter(|stream| !stream.ended) {
            stream.status = status;
            stream.ended = true;
            stream.changed_ms = self.clock.now_ms();
        }
        let at = at.or_else(|| streams.get(&name).map(|stream| stream.utf16_units));
        self.send(story, generation, GenerationFrame::End { generation: generation.clone(), attempt, at, status });
        Ok(())
    }

    pub(crate) fn snapshot(&self, story: &StoryId, generation: &GenerationId) -> Option<GenerationSnapshot> {
        let streams = self.streams.lock();
        let stream = streams.get(&(story.clone(), generation.clone()))?;
        Some(GenerationSnapshot { attempt: stream.attempt, text: stream.text.clone(), status: stream.status })
    }

    pub(crate) fn sweep(&self) {
        let (now_ms, age_ms) = (self.clock.now_ms(), self.settings.generation_age_ms);
        // A stream that has not ended either, if nothing has come for so long: its writer is gone, and it would stay for ever.
        self.streams.lock().retain(|_, stream| now_ms.saturating_sub(stream.changed_ms) < age_ms);
    }

    /// Makes room for one more stream by forgetting the one that ended longest ago. Says whether there is room.
    fn make_room(&self, streams: &mut HashMap<Name, Stream>) -> bool {
        if streams.len() < self.settings.generations_max {
            return true;
        }
        let ended = streams.iter().filter(|(_, stream)| stream.ended);
        let oldest = ended.min_by_key(|(_, stream)| stream.changed_ms).map(|(id, _)| id.clone());
        oldest.is_some_and(|oldest| streams.remove(&oldest).is_some())
    }

    /// Called under the lock, so that frames leave in the order of the text.
    fn send(&self, story: &StoryId, generation: &GenerationId, frame: GenerationFrame) {
        self.outlet.send(&Channel::generation(story, generation), Message::Generation(Arc::new(frame)));
    }
}
