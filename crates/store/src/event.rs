//! The entries of a story's log (PROTOCOL.md, section 4): made by rules and jobs, applied to the rows and appended to the
//! durable channel in the same transaction, read by every client.

use serde::{Deserialize, Serialize};

use crate::objects::{Branch, Choice, Generation, Member, Story, Turn};
use crate::text::Words;

/// One thing that happened in a story. A reader ignores types that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub enum StoryEvent {
    /// The story began, with an empty first branch.
    #[serde(rename = "story.created")]
    StoryCreated { story: Story },
    /// The story has another title.
    #[serde(rename = "story.renamed")]
    StoryRenamed { title: Words },
    /// Somebody joined.
    #[serde(rename = "member.joined")]
    MemberJoined { member: Member },
    /// A turn was added to a branch.
    #[serde(rename = "turn.added")]
    TurnAdded { turn: Turn },
    /// An agent was asked to write.
    #[serde(rename = "generation.requested")]
    GenerationRequested { generation: Generation },
    /// A new attempt runs.
    #[serde(rename = "generation.started")]
    GenerationStarted { generation: Generation },
    /// The end of a generation and the turn that it made.
    #[serde(rename = "generation.ended")]
    GenerationEnded {
        generation: Generation,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn: Option<Turn>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        choices: Vec<Choice>,
    },
    /// Somebody picked a choice first: its branch becomes the live one.
    #[serde(rename = "choice.picked")]
    ChoicePicked {
        choice: Choice,
        branch: Branch,
        turn: Turn,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<Generation>,
    },
}
