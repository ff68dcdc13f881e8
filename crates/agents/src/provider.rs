//! What a generation asks and what it gets back: one request in, pieces of text out until one end or one error.

use std::fmt;

use crate::context::Prompt;
use crate::demo::{DemoReply, DemoStoryteller};
use crate::error::{BadSettings, ProviderError};
use crate::openai::{OpenAi, OpenAiReply};
#[cfg(test)]
use crate::script::{Script, ScriptReply};
use crate::settings::{AgentSettings, ProviderKind};

/// What is asked of a provider.
#[derive(Debug, Clone)]
pub struct Request {
    /// The assembled prompt.
    pub prompt: Prompt,
    /// Longest answer, in tokens.
    pub tokens_max: u32,
    /// Makes an answer repeatable where the provider can do so; 0 for no wish.
    pub seed: u64,
    /// Which request of this attempt it is, from 1.
    pub try_number: u32,
}

/// One part of an answer.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// More text; never empty.
    Text(String),
    /// What the answer costs so far; a later one replaces an earlier one.
    Usage(Tokens),
}

/// Shows lengths, never the text.
impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Usage(tokens) => tokens.fmt(f),
        }
    }
}

/// Tokens as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// Why an answer ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model had finished.
    Stop,
    /// The limit of tokens was reached.
    Length,
}

/// What comes next of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A part of it; more follows.
    Piece(Piece),
    /// Its end; nothing follows.
    End(Finish),
}

/// Who answers. A closed set, so that nothing else in Talewire has to know their wires.
#[derive(Debug, Clone)]
pub enum Provider {
    /// The built-in storyteller, which is no AI.
    Demo(DemoStoryteller),
    /// An OpenAI-compatible endpoint.
    OpenAi(Box<OpenAi>),
    /// Prepared answers, for tests of everything above.
    #[cfg(test)]
    Script(Script),
}

impl Provider {
    /// The provider that the settings name.
    ///
    /// # Errors
    /// [`BadSettings`] when an endpoint is not set up so that it could ever answer.
    pub fn new(settings: &AgentSettings) -> Result<Self, BadSettings> {
        Ok(match settings.provider {
            ProviderKind::Demo => Self::Demo(DemoStoryteller::new(settings.demo.clone(), settings.openai.idle_ms_max)),
            ProviderKind::OpenAi => Self::OpenAi(Box::new(OpenAi::new(settings.openai.clone())?)),
        })
    }

    /// Begins an answer. Nothing is sent before the first [`Reply::next`].
    #[must_use]
    pub fn ask(&self, request: Request) -> Reply {
        match self {
            Self::Demo(demo) => Reply::Demo(demo.ask(&request)),
            Self::OpenAi(openai) => Reply::OpenAi(Box::new(openai.ask(&request))),
            #[cfg(test)]
            Self::Script(script) => Reply::Script(script.ask(&request)),
        }
    }
}

/// An answer under way. Dropping it cancels the request upstream.
pub enum Reply {
    /// The demo storyteller's.
    Demo(DemoReply),
    /// An endpoint's.
    OpenAi(Box<OpenAiReply>),
    /// A prepared one.
    #[cfg(test)]
    Script(ScriptReply),
}

impl Reply {
    /// The next part. Cancel safe: a call that is dropped before it answered has lost nothing.
    ///
    /// # Errors
    /// [`ProviderError`], after which nothing follows.
    pub async fn next(&mut self) -> Result<Next, ProviderError> {
        match self {
            Self::Demo(reply) => reply.next().await,
            Self::OpenAi(reply) => reply.next().await,
            #[cfg(test)]
            Self::Script(reply) => reply.next().await,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
