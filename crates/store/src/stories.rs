//! Stories: use cases as one transaction each, and what readers ask.
//!
//! [`Store::decide`] is the one way in which a story changes by hand: inside a transaction it loads the [`Facts`] that a
//! [`Question`] is about, lets a rule of `talewire-story` decide (a pure function: no clock, no I/O), then writes the
//! rows, the log entries and the answer of the call, or nothing. The same shape works for every backend, because the rule
//! never sees the transaction.

use std::fmt;

use talewire_proto::{BranchId, ChoiceId, ErrorCode, GenerationId, Payload, Position, StoryId, TurnId, UserId};

use crate::event::StoryEvent;
use crate::log::LogEntry;
use crate::objects::{Branch, Choice, Generation, Invite, Member, Role, Story, Turn};
use crate::text::{InviteCode, Words};
use crate::{Backend, Store, StoreError};

/// What a use case is about, so that the store knows which facts to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A story that is not there yet.
    NewStory,
    /// A story as a whole.
    Story(StoryId),
    /// A branch of a story.
    Branch(StoryId, BranchId),
    /// A choice of a story.
    Choice(StoryId, ChoiceId),
    /// A generation of a story.
    Generation(StoryId, GenerationId),
    /// The story that an invite leads to.
    Invite(InviteCode),
}

impl About {
    /// The story, if it is named.
    pub(crate) fn story(&self) -> Option<&StoryId> {
        match self {
            Self::Story(story) | Self::Branch(story, _) | Self::Choice(story, _) | Self::Generation(story, _) => {
                Some(story)
            }
            Self::NewStory | Self::Invite(_) => None,
        }
    }
}

/// What makes a repeated call the same call, beside its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallKey {
    /// The method; the same key of another method is another key.
    pub method: &'static str,
    /// The key itself.
    pub key: String,
}

/// Who asks for what.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asks.
    pub user: UserId,
    /// What about.
    pub about: About,
    /// If given, the answer is kept, and a second call with the same key gets it without any effect.
    pub key: Option<CallKey>,
}

/// What is true when a rule decides. Everything is of one moment, and nothing changes until its effects are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The database's time, in Unix milliseconds.
    pub now_ms: i64,
    /// How many stories the user is a member of.
    pub stories_of_user: u64,
    /// The story, if there is one.
    pub story: Option<Story>,
    /// The user in the story.
    pub me: Option<Member>,
    /// Branches of the story.
    pub branches: u64,
    /// Open generations of the story.
    pub open_generations: u64,
    /// Open generations that the user asked for, in all stories.
    pub open_generations_of_user: u64,
    /// Invites of the story that are still good.
    pub invites: u64,
    /// The branch asked about, if it belongs to the story.
    pub branch: Option<BranchFacts>,
    /// The choice asked about, if it belongs to the story.
    pub choice: Option<ChoiceFacts>,
    /// The generation asked about, if it belongs to the story.
    pub generation: Option<Generation>,
    /// The invite asked about, if it has not been revoked.
    pub invite: Option<InviteFacts>,
}

/// A branch, where it ends and who writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchFacts {
    /// The branch.
    pub branch: Branch,
    /// The last turn of its path.
    pub tip: Option<TurnPlace>,
    /// The generation that is open on it.
    pub open: Option<Generation>,
}

/// Where a turn stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnPlace {
    /// The turn.
    pub id: TurnId,
    /// The branch that it was added to.
    pub branch: BranchId,
    /// Its number.
    pub number: u64,
}

/// A choice, the turn that offers it, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceFacts {
    /// The choice.
    pub choice: Choice,
    /// The turn that offers it.
    pub turn: TurnPlace,
    /// What the first pick made.
    pub picked: Option<Picked>,
}

/// What the first pick of a choice made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// The branch that it started.
    pub branch: Branch,
    /// The choice as a turn.
    pub turn: Turn,
    /// The generation that it asked for, as it stands now.
    pub generation: Option<Generation>,
}

/// An invite and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteFacts {
    /// The invite.
    pub invite: Invite,
    /// The story.
    pub story: StoryId,
}

/// One thing to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the rows that the event tells of, and append it to the story's log.
    Log(Box<StoryEvent>),
    /// Keep what was asked of a generation that an event before this one has requested.
    Instruct(GenerationId, Words),
    /// Note that somebody wants the running generation to stop.
    Cancel(GenerationId),
    /// Keep an invite, and forget those of the story that have expired.
    Invite(Invite),
    /// Forget an invite of the story.
    Revoke(InviteCode),
    /// Count one more use of an invite.
    UseInvite(InviteCode),
}

/// What a rule has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The story that the effects belong to.
    pub story: StoryId,
    /// What to write, in order.
    pub effects: Vec<Effect>,
    /// What the caller gets.
    pub answer: Payload,
}

/// Why a rule said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// A sentence for the person or programmer who called; never holds story text.
    pub message: String,
}

impl Refusal {
    /// A refusal with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// With the sentence of the code.
impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: code.text().to_owned() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.code())
    }
}

impl std::error::Error for Refusal {}

/// A rule: facts in, decision or refusal out. It runs on the database's writer: no I/O, no waiting.
pub type Rule = Box<dyn FnOnce(&Facts) -> Result<Decision, Refusal> + Send>;

/// An answer that is on disk.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What the caller gets.
    pub answer: Payload,
    /// The entries that were appended, to be announced. Empty for a repeated call.
    pub log: Vec<LogEntry>,
    /// Whether the answer is the one of an earlier call with the same key.
    pub repeated: bool,
}

/// What became of a use case.
#[derive(Debug, Clone)]
pub enum Decided {
    /// It is on disk.
    Accepted(Accepted),
    /// The rule said no, and nothing was written.
    Refused(Refusal),
}

/// How much of something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// At most this many turns.
    pub turns_max: usize,
    /// At most this many bytes of text, but one turn at least.
    pub bytes_max: usize,
}

/// A part of a branch's path and the choices that its turns offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnsPage {
    /// The turns, oldest first.
    pub turns: Vec<Turn>,
    /// The choices of these turns, in order.
    pub choices: Vec<Choice>,
    /// Whether the path has turns before these.
    pub more: bool,
}

/// A story as somebody who opens it sees it, and the position of its log at which all of it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryView {
    /// The story.
    pub story: Story,
    /// Everybody in it, in the order in which they joined.
    pub members: Vec<Member>,
    /// Its branches, oldest first.
    pub branches: Vec<Branch>,
    /// The branch that `page` shows the end of.
    pub branch: BranchId,
    /// The end of that branch's path.
    pub page: TurnsPage,
    /// The open generations.
    pub generations: Vec<Generation>,
    /// Where the log stands.
    pub position: Position,
}

/// An invite as somebody who has its code sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteView {
    /// The invite.
    pub invite: Invite,
    /// The story that it leads to.
    pub story: Story,
    /// Whether it has expired by the database's clock.
    pub expired: bool,
}

/// A place in somebody's list of stories, newest activity first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryCursor {
    /// The last story's activity.
    pub active_at: i64,
    /// The last story.
    pub story: StoryId,
}

impl Store {
    /// Carries out one use case: facts, rule, effects and the kept answer in one transaction.
    ///
    /// # Errors
    /// As every write. A refusal by the rule is no error, it is [`Decided::Refused`].
    pub async fn decide(&self, question: Question, rule: Rule) -> Result<Decided, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.decide(question, rule).await,
            Backend::Postgres(db) => db.decide(question, rule).await,
        }
    }

    /// Forgets kept answers that are older than their time, at most 10,000 in one call; gives their number. Writes do this by
    /// themselves too, a few at a time.
    ///
    /// # Errors
    /// As every write.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.prune().await,
            Backend::Postgres(db) => db.prune().await,
        }
    }

    /// What `user` may do in `story`; nothing if it does not exist or they are not in it.
    ///
    /// # Errors
    /// As every read.
    pub async fn role(&self, user: &UserId, story: &StoryId) -> Result<Option<Role>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.role(user.clone(), story.clone()).await,
            Backend::Postgres(db) => db.role(user.clone(), story.clone()).await,
        }
    }

    /// The stories that `user` is in, newest activity first, after `before`.
    ///
    /// # Errors
    /// As every read.
    pub async fn stories_of(
        &self,
        user: &UserId,
        limit: usize,
        before: Option<StoryCursor>,
    ) -> Result<Vec<Story>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.stories_of(user.clone(), limit, before).await,
            Backend::Postgres(db) => db.stories_of(user.clone(), limit, before).await,
        }
    }

    /// A story with the end of a branch's path (the live branch if none is named); nothing if there is no such story or branch.
    ///
    /// # Errors
    /// As every read.
    pub async fn story_view(
        &self,
        story: &StoryId,
        branch: Option<&BranchId>,
        size: PageSize,
    ) -> Result<Option<StoryView>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.story_view(story.clone(), branch.cloned(), size).await,
            Backend::Postgres(db) => db.story_view(story.clone(), branch.cloned(), size).await,
        }
    }

    /// The turns of a branch's path just before a turn of that path; nothing if story, branch or turn do not belong together.
    ///
    /// # Errors
    /// As every read.
    pub async fn turns_before(
        &self,
        story: &StoryId,
        branch: &BranchId,
        before: &TurnId,
        size: PageSize,
    ) -> Result<Option<TurnsPage>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.turns_before(story.clone(), branch.clone(), before.clone(), size).await,
            Backend::Postgres(db) => db.turns_before(story.clone(), branch.clone(), before.clone(), size).await,
        }
    }

    /// The invites of a story that are still good, newest first.
    ///
    /// # Errors
    /// As every read.
    pub async fn invites(&self, story: &StoryId) -> Result<Vec<Invite>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.invites(story.clone()).await,
            Backend::Postgres(db) => db.invites(story.clone()).await,
        }
    }

    /// The invite with this code, unless it was revoked.
    ///
    /// # Errors
    /// As every read.
    pub async fn invite(&self, code: &InviteCode) -> Result<Option<InviteView>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.invite(code.clone()).await,
            Backend::Postgres(db) => db.invite(code.clone()).await,
        }
    }

    /// A generation of a story, and the turn that it made.
    ///
    /// # Errors
    /// As every read.
    pub async fn generation(
        &self,
        story: &StoryId,
        generation: &GenerationId,
    ) -> Result<Option<(Generation, Option<Turn>)>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.generation(story.clone(), generation.clone()).await,
            Backend::Postgres(db) => db.generation(story.clone(), generation.clone()).await,
        }
    }
}
