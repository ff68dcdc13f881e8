//! The objects of a story as they are kept and as they travel (PROTOCOL.md, section 3): one shape for both, so that an
//! entry of the log can be made inside the transaction that writes the rows.
//!
//! Times are Unix milliseconds.

use serde::{Deserialize, Serialize};
use talewire_proto::generation::GenerationStatus;
use talewire_proto::{BranchId, ChoiceId, GenerationId, StoryId, TurnId, UserId};

use crate::text::{InviteCode, Words};

/// A story, as lists and headings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Story {
    pub id: StoryId,
    pub title: Words,
    pub owner: UserId,
    /// The live branch.
    pub branch: BranchId,
    pub created_at: i64,
    /// When the last turn came.
    pub active_at: i64,
    /// How many turns there are, in all branches.
    pub turns: u64,
    /// How many members there are.
    pub members: u64,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, invites and the title too.
    Owner,
    /// Adds turns, picks choices, asks agents.
    Writer,
    /// Reads.
    Reader,
}

impl Role {
    /// The word on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Writer => "writer",
            Self::Reader => "reader",
        }
    }

    /// The role with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Owner, Self::Writer, Self::Reader].into_iter().find(|role| role.as_str() == word)
    }

    /// Whether the role may add to the story.
    #[must_use]
    pub fn may_write(self) -> bool {
        matches!(self, Self::Owner | Self::Writer)
    }
}

/// A person in a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Member {
    pub user: UserId,
    pub name: String,
    pub role: Role,
    pub joined_at: i64,
}

/// One line of a story. Its path is its parent's path up to and including `from`, then its own turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Branch {
    pub id: BranchId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BranchId>,
    /// The last turn that it shares with its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TurnId>,
    /// The choice that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceId>,
    pub label: Words,
    pub created_at: i64,
}

/// What an author is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorKind {
    /// A member.
    Person,
    /// An AI participant.
    Agent,
}

/// Who wrote a turn. The name is the one that was shown at the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Author {
    pub kind: AuthorKind,
    pub id: String,
    pub name: String,
}

/// What a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnKind {
    /// A passage of the story.
    Prose,
    /// The label of a choice that was picked.
    Choice,
}

/// One step of a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Turn {
    pub id: TurnId,
    /// The branch that it was added to; branches that come from later turns share it.
    pub branch: BranchId,
    /// Rises by one along the path of its branch, from 1.
    pub number: u64,
    pub author: Author,
    pub kind: TurnKind,
    pub text: Words,
    pub created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<TurnGeneration>,
}

/// Which generation made a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct TurnGeneration {
    pub id: GenerationId,
    pub attempt: u32,
    pub status: GenerationStatus,
    /// The model, or `demo storyteller, no AI model`.
    pub label: String,
}

/// A way to go on that a turn offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Choice {
    pub id: ChoiceId,
    pub turn: TurnId,
    /// Its place among the choices of the turn, from 1.
    pub number: u32,
    pub label: Words,
    /// The branch that it started, once it was picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchId>,
}

/// An AI participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Agent {
    pub id: String,
    pub name: String,
}

/// Why a generation gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// One streamed reply of an agent, asked for, under way or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Generation {
    pub id: GenerationId,
    pub branch: BranchId,
    pub agent: Agent,
    pub status: GenerationStatus,
    /// The number of the newest attempt, 0 before the first.
    pub attempt: u32,
    /// Who asked.
    pub by: UserId,
    pub requested_at: i64,
    /// The last turn of the branch when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TurnId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A way into a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "PROTOCOL.md names the fields")]
pub struct Invite {
    pub code: InviteCode,
    pub role: Role,
    pub created_at: i64,
    pub expires_at: i64,
    pub uses: u64,
}
