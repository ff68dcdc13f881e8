//! The demo storyteller: no AI model, but a seeded grammar fed with the story's own names and words, so that Talewire
//! tells stories with no key and no network. A request comes in from a generation, text flows out at the pace of a model.
//!
//! The same story, turn and seed give the same text. [`directives`] in people's words make it misbehave, for tests.

mod compose;
pub mod directives;
mod moods;
mod voice;
mod words;

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::context::Tale;
use crate::error::{ProviderError, Wait};
use crate::provider::{Finish, Next, Piece, Request, Tokens};
use crate::settings::{DemoSettings, ms};
use compose::{Asked, compose};
use directives::Directives;

/// Turns that the storyteller remembers.
const TURNS_MAX: usize = 24;
/// Tokens before a silence that `@stall` asks for.
const STALL_AFTER_TOKENS: usize = 12;

/// The storyteller. Cheap to copy; holds no state between requests.
#[derive(Debug, Clone)]
pub struct DemoStoryteller {
    settings: DemoSettings,
    idle_ms_max: u64,
}

impl DemoStoryteller {
    /// A storyteller that is silent for at most `idle_ms_max` milliseconds, as any provider may be.
    #[must_use]
    pub fn new(settings: DemoSettings, idle_ms_max: u64) -> Self {
        Self { settings, idle_ms_max }
    }

    /// Composes an answer and begins to tell it.
    #[must_use]
    pub fn ask(&self, request: &Request) -> DemoReply {
        let (tale, directives) = self.read(&request.prompt.tale);
        let mut rng = Rng::with_seed(seed_of(&tale, request.seed));
        let asked = Asked { words: directives.words, emoji: directives.emoji };
        let text = compose(&tale, asked, &mut rng);
        let tokens = tokens_of(&text);
        let tokens_per_second = directives.tokens_per_second.unwrap_or(self.settings.tokens_per_second);
        let trouble = match directives {
            Directives { refuse: true, .. } => Some(Trouble::Refuse),
            Directives { error: Some((status, tries)), .. } if request.try_number <= tries => {
                Some(Trouble::Error(status))
            }
            Directives { disconnect: true, .. } => Some(Trouble::Disconnect { after: tokens.len() / 2 }),
            _ => None,
        };
        DemoReply {
            usage: Tokens { prompt: (request.prompt.user.len() / 4) as u64, output: tokens.len() as u64 },
            told_usage: false,
            tokens,
            at: 0,
            due: None,
            rng,
            // Directives outrank an instant setting only when they ask for a pace.
            pause: (tokens_per_second > 0).then(|| Duration::from_secs(1) / tokens_per_second),
            stall: directives.stall,
            idle_max: ms(self.idle_ms_max),
            trouble,
        }
    }

    /// The tale without directives, and the ones that count.
    fn read(&self, tale: &Tale) -> (Tale, Directives) {
        let mut found = Directives::default();
        let forgotten = tale.turns.len().saturating_sub(TURNS_MAX);
        let mut tale = Tale { turns: tale.turns[forgotten..].to_vec(), ..tale.without_turns() };
        let newest = tale.turns.len();
        for (at, turn) in tale.turns.iter_mut().enumerate() {
            let mut here = Directives::default();
            turn.text = directives::read(&turn.text, &mut here);
            if at + 1 == newest && !turn.by_agent {
                found = here;
            }
        }
        if let Some(instruction) = &mut tale.instruction {
            *instruction = directives::read(instruction, &mut found);
        }
        (tale, if self.settings.directives { found } else { Directives::default() })
    }
}

/// Mixes story, turn and seed (FNV-1a), the same on every machine and in every version of Rust.
fn seed_of(tale: &Tale, seed: u64) -> u64 {
    let number = tale.next_number().to_le_bytes();
    let bytes = tale.story.bytes().chain(number).chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Cuts a text as models do: words with the space before them, long words in two, and joined emoji at their seams.
fn tokens_of(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for word in text.split_inclusive(char::is_whitespace) {
        let chars = word.chars().count();
        let cut = if word.is_ascii() && chars < 9 { chars } else { chars.div_ceil(2) };
        let at = word.char_indices().nth(cut).map_or(word.len(), |(at, _)| at);
        tokens.extend([&word[..at], &word[at..]].into_iter().filter(|part| !part.is_empty()).map(String::from));
    }
    tokens
}

enum Trouble {
    Refuse,
    Error(u16),
    Disconnect { after: usize },
}

/// A passage that is being told.
pub struct DemoReply {
    tokens: Vec<String>,
    at: usize,
    /// When the next token is to come.
    due: Option<Instant>,
    rng: Rng,
    pause: Option<Duration>,
    stall: Option<Duration>,
    idle_max: Duration,
    trouble: Option<Trouble>,
    usage: Tokens,
    told_usage: bool,
}

/// Shows numbers, never the text.
impl fmt::Debug for DemoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DemoReply {{ token {} of {} }}", self.at, self.tokens.len())
    }
}

impl DemoReply {
    /// The next token, when its time has come. Cancel safe.
    ///
    /// # Errors
    /// Only what directives ask for.
    pub async fn next(&mut self) -> Result<Next, ProviderError> {
        match self.trouble {
            Some(Trouble::Refuse) => return Err(ProviderError::Refused),
            Some(Trouble::Error(status)) => return Err(error_of(status)),
            Some(Trouble::Disconnect { after }) if self.at >= after => {
                return Err(ProviderError::Broken { message: "cut off, as a directive asked".into() });
            }
            _ => {}
        }
        if self.due.is_none() {
            self.due = Some(Instant::now() + self.wait());
        }
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
            self.due = None;
        }
        if self.stall.is_some_and(|stall| stall > self.idle_max) && self.at == STALL_AFTER_TOKENS {
            return Err(ProviderError::TimedOut(Wait::Idle));
        }
        if let Some(token) = self.tokens.get_mut(self.at) {
            self.at += 1;
            return Ok(Next::Piece(Piece::Text(std::mem::take(token))));
        }
        if !self.told_usage {
            self.told_usage = true;
            return Ok(Next::Piece(Piece::Usage(self.usage)));
        }
        Ok(Next::End(Finish::Stop))
    }

    /// The pause before the next token: the pace, give or take a third.
    fn wait(&mut self) -> Duration {
        let stall = self.stall.filter(|_| self.at == STALL_AFTER_TOKENS).unwrap_or_default().min(self.idle_max);
        let pause = self.pause.unwrap_or_default();
        stall + pause.mul_f64(0.67 + 0.66 * self.rng.f64())
    }
}

fn error_of(status: u16) -> ProviderError {
    match status {
        429 => ProviderError::RateLimited { retry_after: None },
        400..=499 => ProviderError::Configuration { message: format!("status {status}, as a directive asked") },
        _ => ProviderError::Busy { status, retry_after: None },
    }
}

#[cfg(test)]
mod tests;
