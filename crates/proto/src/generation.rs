//! The stream of one generation: the frames that readers of a story get while an agent writes.
//!
//! `at` counts UTF-16 code units from the start of the attempt, so that a reader can tell by counting alone whether a
//! delta is new, old, or shows that something was missed (PROTOCOL.md, section 4).

use serde::{Deserialize, Serialize};

use crate::ids::GenerationId;

/// How far a generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationStatus {
    /// Asked for; nobody works on it yet.
    Queued,
    /// An attempt is under way.
    Running,
    /// Ended with its turn.
    Done,
    /// Stopped by a person; what was written until then was kept.
    Cancelled,
    /// Given up, with a reason.
    Failed,
}

impl GenerationStatus {
    /// Whether nothing will be written any more.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }

    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The status with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Done, Self::Cancelled, Self::Failed]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

/// One frame of a generation stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum GenerationFrame {
    /// The whole text so far; replaces what a reader has.
    Snapshot {
        /// Which generation.
        generation: GenerationId,
        /// Which attempt at it, from 1; 0 before the first.
        attempt: u32,
        /// Where `text` begins: always 0.
        at: u64,
        /// The text so far.
        text: String,
        /// How far the generation has come.
        status: GenerationStatus,
    },
    /// Text that goes on where the last delta ended.
    Delta {
        /// Which generation.
        generation: GenerationId,
        /// Which attempt at it.
        attempt: u32,
        /// Where `text` begins, in UTF-16 code units from the start of the attempt.
        at: u64,
        /// The new text; never ends or begins inside a surrogate pair, since it is UTF-8.
        text: String,
    },
    /// A new attempt begins from nothing.
    Reset {
        /// Which generation.
        generation: GenerationId,
        /// The new attempt.
        attempt: u32,
    },
    /// Nothing more will come on this stream; the turn itself comes by the story's log.
    End {
        /// Which generation.
        generation: GenerationId,
        /// The attempt that ended.
        attempt: u32,
        /// How long its text is, in UTF-16 code units: whoever has less is missing something. Unknown of an attempt whose writer is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
        /// How it ended.
        status: GenerationStatus,
    },
}

impl GenerationFrame {
    /// The attempt that the frame belongs to.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Snapshot { attempt, .. }
            | Self::Delta { attempt, .. }
            | Self::Reset { attempt, .. }
            | Self::End { attempt, .. } => *attempt,
        }
    }
}

/// Shows lengths and numbers, never the text.
impl std::fmt::Debug for GenerationFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Snapshot { attempt, text, status, .. } => {
                write!(f, "Snapshot {{ attempt: {attempt}, {} bytes, {} }}", text.len(), status.as_str())
            }
            Self::Delta { attempt, at, text, .. } => {
                write!(f, "Delta {{ attempt: {attempt}, at: {at}, {} bytes }}", text.len())
            }
            Self::Reset { attempt, .. } => write!(f, "Reset {{ attempt: {attempt} }}"),
            Self::End { attempt, status, .. } => write!(f, "End {{ attempt: {attempt}, {} }}", status.as_str()),
        }
    }
}

/// The length of a text as `at` counts it.
#[must_use]
pub fn utf16_len(text: &str) -> u64 {
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_as_the_protocol_says() {
        let generation = GenerationId::from_random([0; 13]);
        let frame = GenerationFrame::Delta { generation, attempt: 2, at: 7, text: "🦊 ran".into() };
        let json = serde_json::to_string(&frame).expect("JSON");
        assert_eq!(json, r#"{"type":"delta","generation":"00000000000000000000","attempt":2,"at":7,"text":"🦊 ran"}"#);
        assert_eq!(serde_json::from_str::<GenerationFrame>(&json).expect("JSON"), frame);
        assert!(!format!("{frame:?}").contains("ran"));
    }

    #[test]
    fn lengths_count_utf16_units() {
        assert_eq!(utf16_len("aé🦊"), 4);
    }
}
