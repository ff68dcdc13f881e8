//! Jobs: generations as rows. A worker claims one, renews its lease while it works, and finishes it.
//!
//! The attempt number fences every effect: whoever claimed the row last is the only one who can renew or finish it. Deadlines
//! are judged by the database's clock alone. Called by the workers of `talewire-agents`.

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{ChoiceId, GenerationId, JobOwner, StoryId, TurnId};

use crate::log::LogEntry;
use crate::objects::{Author, AuthorKind, Choice, Generation, Reason, Turn, TurnGeneration, TurnKind};
use crate::text::Words;
use crate::{Backend, Store, StoreError};

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The story it belongs to.
    pub story: StoryId,
    /// The generation; its `attempt` is the fencing number of this claim.
    pub generation: Generation,
    /// What the person who asked wants to read.
    pub instruction: Option<Words>,
    /// Whether somebody has asked to stop it already: finish it as cancelled.
    pub cancel: bool,
    /// When the lease ends, in Unix milliseconds of the database.
    pub deadline_ms: i64,
    /// The `generation.started` entry, to be announced.
    pub log: Vec<LogEntry>,
}

/// Whether a lease is still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// It is, and lasts longer now.
    Held {
        /// Whether somebody asked to stop the generation.
        cancel: bool,
    },
    /// A newer attempt runs, or the generation has ended: stop, and write nothing more.
    Lost,
}

/// The turn that a generation made.
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// The text.
    pub text: Words,
    /// The model, or `demo storyteller, no AI model`.
    pub label: String,
}

/// How a generation ends.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which generation.
    pub generation: GenerationId,
    /// The attempt of the claim.
    pub attempt: u32,
    /// `Done`, `Cancelled` or `Failed`.
    pub status: GenerationStatus,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// The turn, if there is text to keep.
    pub turn: Option<NewTurn>,
    /// Labels of the choices that the turn offers.
    pub choices: Vec<Words>,
    /// What it cost, as JSON, kept with the job.
    pub usage: Option<String>,
}

/// What became of a [`Finish`].
#[derive(Debug, Clone)]
pub enum Finished {
    /// It is on disk, once.
    Committed {
        /// The generation as it ended.
        generation: Box<Generation>,
        /// The turn as it was added.
        turn: Option<Box<Turn>>,
        /// The `generation.ended` entry, to be announced.
        log: Vec<LogEntry>,
    },
    /// A newer attempt runs, or the generation has ended already: nothing was written.
    Fenced,
}

impl Store {
    /// Claims the oldest job that is queued, or whose lease has run out, and raises its attempt.
    ///
    /// # Errors
    /// As every write.
    pub async fn claim(&self, owner: &JobOwner, lease_ms: i64) -> Result<Option<Job>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.claim(owner.clone(), lease_ms).await,
            Backend::Postgres(db) => db.claim(owner.clone(), lease_ms).await,
        }
    }

    /// Makes the lease of an attempt last `lease_ms` from now.
    ///
    /// # Errors
    /// As every write.
    pub async fn renew(&self, generation: &GenerationId, attempt: u32, lease_ms: i64) -> Result<Renewed, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.renew(generation.clone(), attempt, lease_ms).await,
            Backend::Postgres(db) => db.renew(generation.clone(), attempt, lease_ms).await,
        }
    }

    /// Gives a claimed job back, for example at shutdown: another worker can claim it at once. False if it was lost before.
    ///
    /// # Errors
    /// As every write.
    pub async fn release(&self, generation: &GenerationId, attempt: u32) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.release(generation.clone(), attempt).await,
            Backend::Postgres(db) => db.release(generation.clone(), attempt).await,
        }
    }

    /// Ends a generation: its status, its turn, its choices and the log entry, in one transaction, exactly once.
    ///
    /// # Errors
    /// As every write. After an error the same call may be made again: it commits once, then answers `Fenced`.
    pub async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.finish(finish).await,
            Backend::Postgres(db) => db.finish(finish).await,
        }
    }

    /// Whether somebody asked to stop the generation, or it has ended.
    ///
    /// # Errors
    /// As every read.
    pub async fn cancel_requested(&self, generation: &GenerationId) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.cancel_requested(generation.clone()).await,
            Backend::Postgres(db) => db.cancel_requested(generation.clone()).await,
        }
    }

    /// Ends the leases of every owner but `mine`, at the start of a process that has the data folder alone. Gives their number.
    /// A database that many nodes may share says nothing about their ends: there it does nothing, and leases run out.
    ///
    /// # Errors
    /// As every write.
    pub async fn release_all(&self, mine: &JobOwner) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.release_all(mine.clone()).await,
            Backend::Postgres(_) => Ok(0),
        }
    }

    /// How many jobs could be claimed now.
    ///
    /// # Errors
    /// As every read.
    pub async fn claimable_jobs(&self) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.claimable_jobs().await,
            Backend::Postgres(db) => db.claimable_jobs().await,
        }
    }

    /// How many jobs are queued or running.
    ///
    /// # Errors
    /// As every read.
    pub async fn open_jobs(&self) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.open_jobs().await,
            Backend::Postgres(db) => db.open_jobs().await,
        }
    }

    /// Ends jobs whose lease has run out and that were asked to stop (cancelled) or have had `attempts_max` attempts
    /// (failed), at most 100 in one call, and gives their entries to announce.
    ///
    /// # Errors
    /// As every write.
    pub async fn sweep(&self, attempts_max: u32) -> Result<Vec<LogEntry>, StoreError> {
        match &self.backend {
            Backend::Sqlite(db) => db.sweep(attempts_max).await,
            Backend::Postgres(db) => db.sweep(attempts_max).await,
        }
    }
}

/// The turn that a generation makes. It stands after whatever was added to the branch while the agent wrote.
pub(crate) fn made_turn(id: [u8; 13], generation: &Generation, new: NewTurn, number: u64, now_ms: i64) -> Turn {
    Turn {
        id: TurnId::from_random(id),
        branch: generation.branch.clone(),
        number,
        author: Author {
            kind: AuthorKind::Agent,
            id: generation.agent.id.clone(),
            name: generation.agent.name.clone(),
        },
        kind: TurnKind::Prose,
        text: new.text,
        created_at: now_ms,
        generation: Some(TurnGeneration {
            id: generation.id.clone(),
            attempt: generation.attempt,
            status: generation.status,
            label: new.label,
        }),
    }
}

/// The choices that a turn offers.
pub(crate) fn made_choices(
    turn: &Turn,
    labels: &[Words],
    random: impl Fn() -> Result<[u8; 13], StoreError>,
) -> Result<Vec<Choice>, StoreError> {
    let choice = |(number, label): (u32, &Words)| {
        let id = ChoiceId::from_random(random()?);
        Ok(Choice { id, turn: turn.id.clone(), number, label: label.clone(), branch: None })
    };
    (1..).zip(labels).map(choice).collect()
}

/// Why a sweep ends a job that nobody asked to stop.
pub(crate) fn given_up(attempts: u32) -> Reason {
    Reason { code: "attempts".into(), message: format!("given up after {attempts} attempts") }
}
