//! What can go wrong while a provider answers: variants say what the caller can do, and [`Reason`] is what readers are told.

use std::time::Duration;

/// Which wait for a provider ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For the head of the answer, connecting included.
    Headers,
    /// For the first word, or the first sign that the model thinks.
    FirstToken,
    /// For any byte at all.
    Idle,
    /// For the whole answer.
    Total,
}

/// Why a provider gave no complete answer. No variant carries a key, a prompt or a word of the story.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No connection came about. Worth another try before the first token.
    #[error("the model cannot be reached")]
    Unreachable,
    /// The server answered that it cannot serve now (408, 5xx, 529). Worth another try before the first token.
    #[error("the model is overloaded or out of order (status {status})")]
    Busy {
        /// The HTTP status, or the nearest one to an error frame's type.
        status: u16,
        /// When the server wants to be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// Too many requests. Worth another try after the time that the server asks for.
    #[error("the model takes no more requests now")]
    RateLimited {
        /// When the server wants to be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The model, or a filter before it, will not write this. The same request will be refused again.
    #[error("the model declined to write this")]
    Refused,
    /// The endpoint, model or key is wrong: an operator has to look. Never worth another try.
    #[error("the model is set up wrongly: {message}")]
    Configuration {
        /// What to look at; made of our own words and short codes only.
        message: String,
    },
    /// The answer broke off, or an error came in its midst.
    #[error("the model's answer broke off: {message}")]
    Broken {
        /// What was seen; made of our own words and short codes only.
        message: String,
    },
    /// A wait ran out.
    #[error("the model took too long ({})", wait_text(*.0))]
    TimedOut(Wait),
    /// The answer ended well, and there was nothing to read in it.
    #[error("the model wrote nothing")]
    Empty,
}

fn wait_text(wait: Wait) -> &'static str {
    match wait {
        Wait::Headers => "no answer",
        Wait::FirstToken => "no first word",
        Wait::Idle => "it fell silent",
        Wait::Total => "the whole answer took too long",
    }
}

/// Why a generation failed, as the story's log tells everyone: a short code and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A word that programs may look at.
    pub code: &'static str,
    /// A sentence that people understand.
    pub message: String,
}

impl ProviderError {
    /// Whether the same request may go better later, as long as no reader has seen a word.
    #[must_use]
    pub fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Unreachable | Self::Busy { .. } | Self::RateLimited { .. } | Self::Broken { .. } | Self::Empty => {
                true
            }
            Self::TimedOut(wait) => *wait != Wait::Total,
            Self::Refused | Self::Configuration { .. } => false,
        }
    }

    /// How long the server asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::RateLimited { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// What readers of the story are told; `begun` says whether they had already seen some of the text.
    #[must_use]
    pub fn reason(&self, begun: bool) -> Reason {
        let (code, sentence) = match self {
            Self::Unreachable => ("unreachable", "The narrator could not be reached"),
            Self::Busy { .. } => ("busy", "The narrator is overloaded at the moment"),
            Self::RateLimited { .. } => ("rate_limited", "The narrator has been asked too often and needs a pause"),
            Self::Refused => ("refused", "The narrator declined to write this"),
            Self::Configuration { .. } => ("configuration", "The narrator is not set up correctly on this server"),
            Self::Broken { .. } => ("broken", "The narrator's answer broke off"),
            Self::TimedOut(_) => ("timed_out", "The narrator took too long"),
            Self::Empty => ("empty", "The narrator could think of nothing to write"),
        };
        let rest = match (begun, self) {
            (true, _) => ", so the unfinished passage was not kept. You can ask again.",
            (false, Self::Refused) => ". Try asking for something else.",
            (false, Self::Configuration { .. }) => ". Whoever runs it has to look.",
            (false, _) => ". You can ask again.",
        };
        Reason { code, message: format!("{sentence}{rest}") }
    }
}

/// Settings that no worker can run with: says which one, never what a key holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agents.{setting}: {message}")]
pub struct BadSettings {
    /// The setting's name.
    pub setting: &'static str,
    /// What is wrong with it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_learn_what_happened_to_what_they_saw() {
        let error = ProviderError::Broken { message: "the stream ended early".into() };
        assert!(error.reason(true).message.contains("was not kept"));
        assert!(!error.reason(false).message.contains("kept"));
        assert!(!ProviderError::Refused.is_worth_retrying());
        assert!(!ProviderError::TimedOut(Wait::Total).is_worth_retrying());
        assert!(ProviderError::TimedOut(Wait::Idle).is_worth_retrying());
    }
}
