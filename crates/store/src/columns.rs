//! Rows to objects: one function per table, with the columns that it reads, the same in every backend; a backend says how it reads a column
//! ([`Columns`]).

use std::str::FromStr;

use talewire_proto::generation::GenerationStatus;

use crate::objects::{
    Agent, Author, AuthorKind, Branch, Choice, Generation, Invite, Member, Reason, Role, Story, Turn, TurnGeneration,
    TurnKind,
};
use crate::text::{InviteCode, Words};

pub(crate) const STORY: &str = "stories.id, stories.title, stories.owner, stories.branch, stories.created_at, stories.active_at, stories.turns, stories.members";
pub(crate) const MEMBER: &str = "\"user\", name, role, joined_at";
pub(crate) const BRANCH: &str = "id, parent, from_turn, choice, label, created_at";
pub(crate) const TURN: &str = "id, branch, number, author_kind, author_id, author_name, kind, text, created_at, generation, attempt, status, label";
pub(crate) const CHOICE: &str = "id, turn, number, label, branch";
pub(crate) const GENERATION: &str =
    "id, branch, agent_id, agent_name, status, attempt, by_user, requested_at, after_turn, reason_code, reason_message";
pub(crate) const INVITE: &str = "code, role, created_at, expires_at, uses";

/// A row of a backend.
pub(crate) trait Columns {
    /// What the backend says of a column that it cannot read.
    type Error;

    fn text(&self, column: usize) -> Result<&str, Self::Error>;

    fn text_or_null(&self, column: usize) -> Result<Option<&str>, Self::Error>;

    fn integer(&self, column: usize) -> Result<i64, Self::Error>;

    /// Says that a column holds what this program did not write.
    fn unreadable(column: usize, what: String) -> Self::Error;
}

/// An id or another type with a checked text form.
pub(crate) fn parsed<T: FromStr, R: Columns>(row: &R, column: usize) -> Result<T, R::Error> {
    row.text(column)?.parse().map_err(|_| R::unreadable(column, format!("the text in column {column}")))
}

pub(crate) fn parsed_or_null<T: FromStr, R: Columns>(row: &R, column: usize) -> Result<Option<T>, R::Error> {
    if row.text_or_null(column)?.is_none() { Ok(None) } else { parsed(row, column).map(Some) }
}

fn word<T, R: Columns>(row: &R, column: usize, from_word: impl Fn(&str) -> Option<T>) -> Result<T, R::Error> {
    let text = row.text(column)?;
    from_word(text).ok_or_else(|| R::unreadable(column, format!("the word {text:?}")))
}

/// Counts and numbers are kept as signed integers; a negative one is a fault in the data.
pub(crate) fn count<R: Columns>(row: &R, column: usize) -> Result<u64, R::Error> {
    let number = row.integer(column)?;
    u64::try_from(number).map_err(|_| R::unreadable(column, format!("the number {number}")))
}

fn small<R: Columns>(row: &R, column: usize) -> Result<u32, R::Error> {
    let number = row.integer(column)?;
    u32::try_from(number).map_err(|_| R::unreadable(column, format!("the number {number}")))
}

fn words<R: Columns>(row: &R, column: usize) -> Result<Words, R::Error> {
    Ok(Words::from(row.text(column)?.to_owned()))
}

pub(crate) fn story<R: Columns>(row: &R) -> Result<Story, R::Error> {
    Ok(Story {
        id: parsed(row, 0)?,
        title: words(row, 1)?,
        owner: parsed(row, 2)?,
        branch: parsed(row, 3)?,
        created_at: row.integer(4)?,
        active_at: row.integer(5)?,
        turns: count(row, 6)?,
        members: count(row, 7)?,
    })
}

fn role<R: Columns>(row: &R, column: usize) -> Result<Role, R::Error> {
    word(row, column, Role::from_word)
}

pub(crate) fn member<R: Columns>(row: &R) -> Result<Member, R::Error> {
    Ok(Member { user: parsed(row, 0)?, name: row.text(1)?.to_owned(), role: role(row, 2)?, joined_at: row.integer(3)? })
}

pub(crate) fn branch<R: Columns>(row: &R) -> Result<Branch, R::Error> {
    Ok(Branch {
        id: parsed(row, 0)?,
        parent: parsed_or_null(row, 1)?,
        from: parsed_or_null(row, 2)?,
        choice: parsed_or_null(row, 3)?,
        label: words(row, 4)?,
        created_at: row.integer(5)?,
    })
}

pub(crate) fn author_word(kind: AuthorKind) -> &'static str {
    match kind {
        AuthorKind::Person => "person",
        AuthorKind::Agent => "agent",
    }
}

pub(crate) fn kind_word(kind: TurnKind) -> &'static str {
    match kind {
        TurnKind::Prose => "prose",
        TurnKind::Choice => "choice",
    }
}

pub(crate) fn turn<R: Columns>(row: &R) -> Result<Turn, R::Error> {
    let author_kind = word(row, 3, |text| {
        [AuthorKind::Person, AuthorKind::Agent].into_iter().find(|kind| author_word(*kind) == text)
    })?;
    let kind =
        word(row, 6, |text| [TurnKind::Prose, TurnKind::Choice].into_iter().find(|kind| kind_word(*kind) == text))?;
    let generation = match parsed_or_null(row, 9)? {
        Some(id) => Some(TurnGeneration {
            id,
            attempt: small(row, 10)?,
            status: word(row, 11, GenerationStatus::from_word)?,
            label: row.text(12)?.to_owned(),
        }),
        None => None,
    };
    Ok(Turn {
        id: parsed(row, 0)?,
        branch: parsed(row, 1)?,
        number: count(row, 2)?,
        author: Author { kind: author_kind, id: row.text(4)?.to_owned(), name: row.text(5)?.to_owned() },
        kind,
        text: words(row, 7)?,
        created_at: row.integer(8)?,
        generation,
    })
}

pub(crate) fn choice<R: Columns>(row: &R) -> Result<Choice, R::Error> {
    Ok(Choice {
        id: parsed(row, 0)?,
        turn: parsed(row, 1)?,
        number: small(row, 2)?,
        label: words(row, 3)?,
        branch: parsed_or_null(row, 4)?,
    })
}

pub(crate) fn generation<R: Columns>(row: &R) -> Result<Generation, R::Error> {
    let reason = match row.text_or_null(9)? {
        Some(code) => {
            Some(Reason { code: code.to_owned(), message: row.text_or_null(10)?.unwrap_or_default().to_owned() })
        }
        None => None,
    };
    Ok(Generation {
        id: parsed(row, 0)?,
        branch: parsed(row, 1)?,
        agent: Agent { id: row.text(2)?.to_owned(), name: row.text(3)?.to_owned() },
        status: word(row, 4, GenerationStatus::from_word)?,
        attempt: small(row, 5)?,
        by: parsed(row, 6)?,
        requested_at: row.integer(7)?,
        after: parsed_or_null(row, 8)?,
        reason,
    })
}

pub(crate) fn invite<R: Columns>(row: &R) -> Result<Invite, R::Error> {
    Ok(Invite {
        code: InviteCode::new(row.text(0)?),
        role: role(row, 1)?,
        created_at: row.integer(2)?,
        expires_at: row.integer(3)?,
        uses: count(row, 4)?,
    })
}
