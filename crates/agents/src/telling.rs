//! One request to the provider, told to readers as it comes: pieces flow in, deltas flow out to the broker, and what is left
//! at the end is the text and its choices. Called by a generation, once for each try.

use talewire_broker::StreamError;
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
    /// Whether deltas are still sent: after a failure it is not known what arrived, and a delta too many would be a
    /// wrong text. Readers then wait for the turn.
    streams: bool,
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
                        self.chars = 0;
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

    async fn send(&mut self, delta: Option<String>) -> Result<(), Told> {
        let Some(delta) = delta.filter(|_| self.streams) else { return Ok(()) };
        let generation = &self.job.generation;
        let sent =
            self.tools.broker.generation_append(&self.job.story, &generation.id, generation.attempt, &delta).await;
        match sent {
            Ok(()) => {
                self.begun = true;
                count(&self.tools.counts.deltas);
                Ok(())
            }
            Err(StreamError::Fenced) => Err(Told::Fenced),
            Err(error) => {
                tracing::warn!(generation = %generation.id, %error, "a generation is written on without being streamed");
                self.begun = true;
                self.streams = false;
                Ok(())
            }
        }
    }
}
