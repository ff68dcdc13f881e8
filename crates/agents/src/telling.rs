//! One request to the provider, told to readers as it comes: pieces flow in, deltas flow out to the broker, and what is left
//! at the end is the text and its choices. Called by a generation, once for each try.

use std::time::Duration;

use talewire_broker::StreamError;
use talewire_proto::generation::utf16_len;
use talewire_store::Job;
use tokio::time::{Instant, sleep_until};

use crate::coalesce::Coalescer;
use crate::counts::count;
use crate::error::ProviderError;
use crate::generation::Tools;
use crate::keeper::Signals;
use crate::provider::{Next, Piece, Request, Tokens};
use crate::settings::ms;
use crate::splitter::Splitter;

/// Tries to send what the broker does not have: after the first it has said what that is.
const SEND_TRIES_MAX: u32 = 3;

/// How long a broker that did not answer is left alone. Each try costs as long as an answer may take, and the provider waits meanwhile.
const QUIET: Duration = Duration::from_secs(1);

/// How telling came to an end.
#[derive(Debug)]
pub(crate) enum Told {
    /// The answer is complete, with these choices.
    Complete(Vec<String>),
    /// People stopped it.
    Cancelled,
    /// A newer attempt writes.
    Fenced,
    /// The process goes down.
    Drained,
    /// The provider failed.
    Failed(ProviderError),
}

/// A text on its way from the provider to the readers.
pub(crate) struct Telling<'a> {
    tools: &'a Tools,
    job: &'a Job,
    coalescer: Coalescer,
    /// Everything visible so far, sent or not.
    pub(crate) text: String,
    chars: usize,
    /// Whether any of it was sent.
    pub(crate) begun: bool,
    /// Whether deltas are still sent. If not, readers wait for the turn.
    streams: bool,
    /// How much of the text is for readers by now, in bytes.
    due: usize,
    /// How much of it the broker has, as far as is known, in bytes and in UTF-16 code units.
    sent: (usize, u64),
    /// After a failure the broker is left alone until then.
    quiet_until: Option<Instant>,
    pub(crate) usage: Option<Tokens>,
    pub(crate) first_token_at: Option<Instant>,
}

impl<'a> Telling<'a> {
    /// Begins the stream of this attempt.
    pub(crate) async fn begin(tools: &'a Tools, job: &'a Job) -> Result<Self, StreamError> {
        let generation = &job.generation;
        let streams = match tools.broker.generation_begin(&job.story, &generation.id, generation.attempt).await {
            Ok(()) => true,
            Err(StreamError::Fenced) => return Err(StreamError::Fenced),
            Err(error) => {
                tracing::warn!(generation = %generation.id, %error, "a generation is written without being streamed");
                false
            }
        };
        Ok(Self {
            tools,
            job,
            coalescer: Coalescer::new(ms(tools.settings.delta_ms), tools.settings.delta_chars),
            text: String::new(),
            chars: 0,
            begun: false,
            streams,
            due: 0,
            sent: (0, 0),
            quiet_until: None,
            usage: None,
            first_token_at: None,
        })
    }

    /// Asks once and tells the answer. After a failure before anything was sent it may be called again.
    pub(crate) async fn tell(&mut self, request: Request, signals: &Signals) -> Told {
        let settings = &self.tools.settings;
        let mut splitter = Splitter::new(settings.choices_max, settings.choice_chars_max);
        let mut reply = self.tools.provider.ask(request);
        loop {
            let due = self.coalescer.due_at();
            let next = tokio::select! {
                biased;
                () = signals.lost.cancelled() => return Told::Fenced,
                () = signals.cancel.cancelled() => return Told::Cancelled,
                () = signals.drain.cancelled() => return Told::Drained,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let delta = self.coalescer.due(Instant::now());
                    match self.send(delta).await {
                        Ok(()) => continue,
                        Err(told) => return told,
                    }
                }
                next = reply.next() => next,
            };
            match next {
                Ok(Next::Piece(Piece::Usage(usage))) => self.usage = Some(usage),
                Ok(Next::Piece(Piece::Text(piece))) => {
                    self.first_token_at.get_or_insert_with(Instant::now);
                    let mut visible = String::new();
                    splitter.push(&piece, &mut visible);
                    let full = self.add(&visible);
                    let delta = self.coalescer.added(Instant::now());
                    if let Err(told) = self.send(delta).await {
                        return told;
                    }
                    if full {
                        tracing::info!(generation = %self.job.generation.id, "a text ended at text_chars_max");
                        return Told::Complete(Vec::new());
                    }
                }
                Ok(Next::End(_)) => {
                    let mut visible = String::new();
                    let choices = splitter.finish(&mut visible);
                    self.add(&visible);
                    if self.text.is_empty() {
                        return Told::Failed(ProviderError::Empty);
                    }
                    return Told::Complete(choices);
                }
                Err(error) => {
                    if !self.begun {
                        self.coalescer.flush();
                        self.text.clear();
                        (self.chars, self.due) = (0, 0);
                    }
                    return Told::Failed(error);
                }
            }
        }
    }

    /// Sends what still waits, so that the stream says what the turn says.
    pub(crate) async fn flush(&mut self) -> Result<(), Told> {
        let rest = self.coalescer.flush();
        self.send(rest).await
    }

    /// Takes visible text; true when the text has its full length.
    fn add(&mut self, visible: &str) -> bool {
        let room = self.tools.settings.text_chars_max - self.chars;
        let cut = visible.char_indices().nth(room).map_or(visible.len(), |(at, _)| at);
        let taken = &visible[..cut];
        self.chars += taken.chars().count();
        self.text.push_str(taken);
        self.coalescer.buffer().push_str(taken);
        cut < visible.len()
    }

    /// Sends a delta, and before it whatever the broker did not get while it was away.
    async fn send(&mut self, delta: Option<String>) -> Result<(), Told> {
        let Some(delta) = delta else { return Ok(()) };
        self.due += delta.len();
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let generation = &self.job.generation;
        for _ in 0..SEND_TRIES_MAX {
            let (sent, at) = self.sent;
            if !self.streams || sent >= self.due {
                break;
            }
            let rest = &self.text[sent..self.due];
            let (story, broker) = (&self.job.story, &self.tools.broker);
            match broker.generation_append(story, &generation.id, generation.attempt, at, rest).await {
                Ok(()) => {
                    self.sent = (self.due, at + utf16_len(rest));
                    count(&self.tools.counts.deltas);
                }
                Err(StreamError::Fenced) => return Err(Told::Fenced),
                // What was lost is sent again; what had arrived all the same is not.
                Err(StreamError::Elsewhere { at }) => match place(&self.text[..self.due], at) {
                    Some(place) => self.sent = (place, at),
                    None => self.streams = false,
                },
                Err(StreamError::Unavailable) => {
                    tracing::warn!(generation = %generation.id, "a generation is written on without being streamed for now");
                    self.quiet_until = Some(Instant::now() + QUIET);
                    self.begun = true;
                    break;
                }
                Err(error @ StreamError::TooLong) => {
                    tracing::warn!(generation = %generation.id, %error, "a generation is written on without being streamed");
                    self.streams = false;
                }
            }
            self.begun = true;
        }
        Ok(())
    }
}

/// Where so many UTF-16 code units of a text end, in bytes; nothing if it has none so many, or they end within a character.
fn place(text: &str, units: u64) -> Option<usize> {
    let mut left = units;
    for (place, c) in text.char_indices() {
        if left == 0 {
            return Some(place);
        }
        left = left.checked_sub(c.len_utf16() as u64)?;
    }
    (left == 0).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_utf16_units() {
        let text = "a\u{1f98a}\u{e9}";
        assert_eq!([0, 1, 3, 4].map(|units| place(text, units)), [Some(0), Some(1), Some(5), Some(7)]);
        assert_eq!([2, 5].map(|units| place(text, units)), [None, None]);
        assert_eq!(place("", 0), Some(0));
    }
}
