//! Rows to objects: one function per table, with the columns that it reads, used by every query of that table.

use std::str::FromStr;

use talewire_proto::generation::GenerationStatus;

use tokio_postgres::Row;

use super::failure::Tried;
use crate::StoreError;
use crate::objects::{
    Agent, Author, AuthorKind, Branch, Choice, Generation, Invite, Member, Reason, Role, Story, Turn, TurnGeneration,
    TurnKind,
};
use crate::text::{InviteCode, Words};

pub(super) const STORY: &str = "stories.id, stories.title, stories.owner, stories.branch, stories.created_at, stories.active_at, stories.turns, stories.members";
pub(super) const MEMBER: &str = "\"user\", name, role, joined_at";
pub(super) const BRANCH: &str = "id, parent, from_turn, choice, label, created_at";
pub(super) const TURN: &str = "id, branch, number, author_kind, author_id, author_name, kind, text, created_at, generation, attempt, status, label";
pub(super) const CHOICE: &str = "id, turn, number, label, branch";
pub(super) const GENERATION: &str =
    "id, branch, agent_id, agent_name, status, attempt, by_user, requested_at, after_turn, reason_code, reason_message";
pub(super) const INVITE: &str = "code, role, created_at, expires_at, uses";

/// A stored word that this program did not write.
fn unknown(what: String) -> StoreError {
    StoreError::Broken(format!("unreadable data: {what}"))
}

/// An id or another type with a checked text form.
pub(super) fn parsed<T: FromStr>(row: &Row, column: usize) -> Tried<T> {
    let text: &str = row.try_get(column)?;
    Ok(text.parse().map_err(|_| unknown(format!("the text in column {column}")))?)
}

pub(super) fn parsed_or_null<T: FromStr>(row: &Row, column: usize) -> Tried<Option<T>> {
    if row.try_get::<_, Option<&str>>(column)?.is_none() { Ok(None) } else { parsed(row, column).map(Some) }
}

fn word<T>(row: &Row, column: usize, from_word: impl Fn(&str) -> Option<T>) -> Tried<T> {
    let text: &str = row.try_get(column)?;
    Ok(from_word(text).ok_or_else(|| unknown(format!("the word {text:?}")))?)
}

/// Counts and numbers are kept as signed integers; a negative one is a fault in the data.
pub(super) fn count(row: &Row, column: usize) -> Tried<u64> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).map_err(|_| unknown(format!("the number {number}")))?)
}

fn small(row: &Row, column: usize) -> Tried<u32> {
    let number: i64 = row.try_get(column)?;
    Ok(u32::try_from(number).map_err(|_| unknown(format!("the number {number}")))?)
}

fn words(row: &Row, column: usize) -> Tried<Words> {
    Ok(Words::from(row.try_get::<_, String>(column)?))
}

pub(super) fn story(row: &Row) -> Tried<Story> {
    Ok(Story {
        id: parsed(row, 0)?,
        title: words(row, 1)?,
        owner: parsed(row, 2)?,
        branch: parsed(row, 3)?,
        created_at: row.try_get(4)?,
        active_at: row.try_get(5)?,
        turns: count(row, 6)?,
        members: count(row, 7)?,
    })
}

pub(super) fn role(row: &Row, column: usize) -> Tried<Role> {
    word(row, column, Role::from_word)
}

pub(super) fn member(row: &Row) -> Tried<Member> {
    Ok(Member { user: parsed(row, 0)?, name: row.try_get(1)?, role: role(row, 2)?, joined_at: row.try_get(3)? })
}

pub(super) fn branch(row: &Row) -> Tried<Branch> {
    Ok(Branch {
        id: parsed(row, 0)?,
        parent: parsed_or_null(row, 1)?,
        from: parsed_or_null(row, 2)?,
        choice: parsed_or_null(row, 3)?,
        label: words(row, 4)?,
        created_at: row.try_get(5)?,
    })
}

pub(super) fn author_word(kind: AuthorKind) -> &'static str {
    match kind {
        AuthorKind::Person => "person",
        AuthorKind::Agent => "agent",
    }
}

pub(super) fn kind_word(kind: TurnKind) -> &'static str {
    match kind {
        TurnKind::Prose => "prose",
        TurnKind::Choice => "choice",
    }
}

pub(super) fn turn(row: &Row) -> Tried<Turn> {
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
            label: row.try_get(12)?,
        }),
        None => None,
    };
    Ok(Turn {
        id: parsed(row, 0)?,
        branch: parsed(row, 1)?,
        number: count(row, 2)?,
        author: Author { kind: author_kind, id: row.try_get(4)?, name: row.try_get(5)? },
        kind,
        text: words(row, 7)?,
        created_at: row.try_get(8)?,
        generation,
    })
}

pub(super) fn choice(row: &Row) -> Tried<Choice> {
    Ok(Choice {
        id: parsed(row, 0)?,
        turn: parsed(row, 1)?,
        number: small(row, 2)?,
        label: words(row, 3)?,
        branch: parsed_or_null(row, 4)?,
    })
}

pub(super) fn generation(row: &Row) -> Tried<Generation> {
    let reason = match row.try_get::<_, Option<String>>(9)? {
        Some(code) => Some(Reason { code, message: row.try_get::<_, Option<String>>(10)?.unwrap_or_default() }),
        None => None,
    };
    Ok(Generation {
        id: parsed(row, 0)?,
        branch: parsed(row, 1)?,
        agent: Agent { id: row.try_get(2)?, name: row.try_get(3)? },
        status: word(row, 4, GenerationStatus::from_word)?,
        attempt: small(row, 5)?,
        by: parsed(row, 6)?,
        requested_at: row.try_get(7)?,
        after: parsed_or_null(row, 8)?,
        reason,
    })
}

pub(super) fn invite(row: &Row) -> Tried<Invite> {
    Ok(Invite {
        code: InviteCode::new(row.try_get(0)?),
        role: role(row, 1)?,
        created_at: row.try_get(2)?,
        expires_at: row.try_get(3)?,
        uses: count(row, 4)?,
    })
}
