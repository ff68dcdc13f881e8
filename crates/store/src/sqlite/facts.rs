//! The facts that a rule decides on, loaded inside the transaction that will write its effects.

use rusqlite::{Connection, OptionalExtension, Params, Row};
use talewire_proto::{BranchId, ChoiceId, GenerationId, StoryId, UserId};

use super::rows::{self, count, parsed};
use super::writer::Work;
use crate::StoreError;
use crate::objects::{Branch, Choice, Generation, Invite, Member, Story, Turn};
use crate::stories::{About, BranchFacts, ChoiceFacts, Facts, InviteFacts, Picked, Question, TurnPlace};
use crate::text::InviteCode;

/// Everything that is true for a question.
pub(super) fn load(work: &Work<'_>, question: &Question) -> Result<Facts, StoreError> {
    let conn = work.conn;
    let mut facts =
        Facts { now_ms: work.now_ms, stories_of_user: stories_of(conn, &question.user)?, ..Facts::default() };
    let story = match &question.about {
        About::Invite(code) => {
            facts.invite = invite(conn, code)?;
            facts.invite.as_ref().map(|found| found.story.clone())
        }
        named => named.story().cloned(),
    };
    let Some(id) = story else { return Ok(facts) };
    let Some(found) = self::story(conn, &id)? else { return Ok(facts) };
    facts.me = member(conn, &id, &question.user)?;
    facts.branches = number(conn, "SELECT COUNT(*) FROM branches WHERE story = ?1", [id.as_str()])?;
    facts.open_generations =
        number(conn, "SELECT COUNT(*) FROM jobs WHERE story = ?1 AND status IN ('queued', 'running')", [id.as_str()])?;
    facts.open_generations_of_user = number(
        conn,
        "SELECT COUNT(*) FROM jobs WHERE by_user = ?1 AND status IN ('queued', 'running')",
        [question.user.as_str()],
    )?;
    facts.invites =
        number(conn, "SELECT COUNT(*) FROM invites WHERE story = ?1 AND expires_at > ?2", (id.as_str(), work.now_ms))?;
    match &question.about {
        About::NewStory | About::Story(_) | About::Invite(_) => {}
        About::Branch(_, wanted) => facts.branch = branch_facts(conn, &id, wanted)?,
        About::Choice(_, wanted) => facts.choice = choice_facts(conn, &id, wanted)?,
        About::Generation(_, wanted) => facts.generation = generation(conn, &id, wanted)?,
    }
    facts.story = Some(found);
    Ok(facts)
}

fn branch_facts(conn: &Connection, story: &StoryId, id: &BranchId) -> Result<Option<BranchFacts>, StoreError> {
    let Some(branch) = branch(conn, story, id)? else { return Ok(None) };
    let own = one(
        conn,
        "SELECT id, branch, number FROM turns WHERE branch = ?1 ORDER BY number DESC LIMIT 1",
        [id.as_str()],
        place,
    )?;
    let tip = match (own, &branch.from) {
        (Some(own), _) => Some(own),
        (None, Some(from)) => one(conn, "SELECT id, branch, number FROM turns WHERE id = ?1", [from.as_str()], place)?,
        (None, None) => None,
    };
    let sql = format!("SELECT {} FROM jobs WHERE branch = ?1 AND status IN ('queued', 'running')", rows::GENERATION);
    let open = one(conn, &sql, [id.as_str()], rows::generation)?;
    Ok(Some(BranchFacts { branch, tip, open }))
}

fn choice_facts(conn: &Connection, story: &StoryId, id: &ChoiceId) -> Result<Option<ChoiceFacts>, StoreError> {
    let sql = format!("SELECT {} FROM choices WHERE id = ?1 AND story = ?2", rows::CHOICE);
    let Some(choice) = one(conn, &sql, [id.as_str(), story.as_str()], rows::choice)? else { return Ok(None) };
    let turn = one(conn, "SELECT id, branch, number FROM turns WHERE id = ?1", [choice.turn.as_str()], place)?
        .ok_or_else(|| StoreError::Broken(format!("choice {id} has no turn")))?;
    let picked = match &choice.branch {
        Some(branch) => Some(picked(conn, story, branch, &choice)?),
        None => None,
    };
    Ok(Some(ChoiceFacts { choice, turn, picked }))
}

/// The branch that the first pick started, its first turn, and the generation that was asked for after that turn.
fn picked(conn: &Connection, story: &StoryId, id: &BranchId, choice: &Choice) -> Result<Picked, StoreError> {
    let broken = || StoreError::Broken(format!("the branch of choice {} is not whole", choice.id));
    let branch = branch(conn, story, id)?.ok_or_else(broken)?;
    let sql = format!("SELECT {} FROM turns WHERE branch = ?1 ORDER BY number LIMIT 1", rows::TURN);
    let turn: Turn = one(conn, &sql, [id.as_str()], rows::turn)?.ok_or_else(broken)?;
    let sql = format!("SELECT {} FROM jobs WHERE branch = ?1 ORDER BY seq LIMIT 1", rows::GENERATION);
    let first: Option<Generation> = one(conn, &sql, [id.as_str()], rows::generation)?;
    let generation = first.filter(|generation| generation.after.as_ref() == Some(&turn.id));
    Ok(Picked { branch, turn, generation })
}

fn invite(conn: &Connection, code: &InviteCode) -> Result<Option<InviteFacts>, StoreError> {
    let sql = format!("SELECT {}, story FROM invites WHERE code = ?1", rows::INVITE);
    one(conn, &sql, [code.as_str()], |row| {
        let invite: Invite = rows::invite(row)?;
        Ok(InviteFacts { invite, story: parsed(row, 5)? })
    })
}

pub(super) fn story(conn: &Connection, id: &StoryId) -> Result<Option<Story>, StoreError> {
    one(conn, &format!("SELECT {} FROM stories WHERE id = ?1", rows::STORY), [id.as_str()], rows::story)
}

pub(super) fn member(conn: &Connection, story: &StoryId, user: &UserId) -> Result<Option<Member>, StoreError> {
    let sql = format!("SELECT {} FROM members WHERE user = ?1 AND story = ?2", rows::MEMBER);
    one(conn, &sql, [user.as_str(), story.as_str()], rows::member)
}

pub(super) fn branch(conn: &Connection, story: &StoryId, id: &BranchId) -> Result<Option<Branch>, StoreError> {
    let sql = format!("SELECT {} FROM branches WHERE id = ?1 AND story = ?2", rows::BRANCH);
    one(conn, &sql, [id.as_str(), story.as_str()], rows::branch)
}

pub(super) fn generation(
    conn: &Connection,
    story: &StoryId,
    id: &GenerationId,
) -> Result<Option<Generation>, StoreError> {
    let sql = format!("SELECT {} FROM jobs WHERE id = ?1 AND story = ?2", rows::GENERATION);
    one(conn, &sql, [id.as_str(), story.as_str()], rows::generation)
}

fn stories_of(conn: &Connection, user: &UserId) -> Result<u64, StoreError> {
    number(conn, "SELECT COUNT(*) FROM members WHERE user = ?1", [user.as_str()])
}

/// `id, branch, number`.
pub(super) fn place(row: &Row<'_>) -> Result<TurnPlace, rusqlite::Error> {
    Ok(TurnPlace { id: parsed(row, 0)?, branch: parsed(row, 1)?, number: count(row, 2)? })
}

/// The first row of a query, if there is one.
pub(super) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Option<T>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// All rows of a query.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<Result<Vec<T>, _>>()?)
}

pub(super) fn number(conn: &Connection, sql: &str, params: impl Params) -> Result<u64, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, |row| count(row, 0))?)
}
