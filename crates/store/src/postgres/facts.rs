//! The facts that a rule decides on, loaded inside the transaction that will write its effects.
//!
//! Nothing of them changes until then: the caller has locked the user and the story, and whoever changes anything of a story
//! locks it first.

use talewire_proto::{BranchId, ChoiceId, GenerationId, StoryId, UserId};
use tokio_postgres::Row;

use super::connection::{Connection, Params, Work};
use super::failure::Tried;
use super::rows::{self, count, parsed};
use crate::StoreError;
use crate::objects::{Branch, Generation, Member, Story};
use crate::stories::{About, BranchFacts, ChoiceFacts, Facts, InviteFacts, Picked, Question, TurnPlace};
use crate::text::InviteCode;

const STORIES_OF_USER: &str = "SELECT COUNT(*) FROM members WHERE \"user\" = $1";
const BRANCHES: &str = "SELECT COUNT(*) FROM branches WHERE story = $1";
const OPEN: &str = "SELECT COUNT(*) FROM jobs WHERE story = $1 AND status IN ('queued', 'running')";
const OPEN_OF_USER: &str = "SELECT COUNT(*) FROM jobs WHERE by_user = $1 AND status IN ('queued', 'running')";
const INVITES: &str = "SELECT COUNT(*) FROM invites WHERE story = $1 AND expires_at > $2";

/// Which story a question is about, looked up without a lock.
pub(super) async fn story_of(work: &Work<'_>, about: &About) -> Tried<Option<StoryId>> {
    Ok(match about {
        About::Invite(code) => invite(work.conn, code).await?.map(|found| found.story),
        named => named.story().cloned(),
    })
}

/// Everything that is true for a question about a story that is locked.
pub(super) async fn load(work: &Work<'_>, question: &Question, locked: Option<Story>) -> Tried<Facts> {
    let conn = work.conn;
    let user = question.user.as_str();
    let mut facts = Facts { now_ms: work.now_ms(), ..Facts::default() };
    if let About::Invite(code) = &question.about {
        facts.invite = invite(conn, code).await?;
    }
    let Some(story) = locked else {
        facts.stories_of_user = number(conn, STORIES_OF_USER, &[&user]).await?;
        return Ok(facts);
    };
    let id = story.id.as_str();
    conn.ready(&[STORIES_OF_USER, BRANCHES, OPEN, OPEN_OF_USER, INVITES]).await?;
    let now_ms = work.now_ms();
    let (of_user, of_story, good): (Params<'_>, Params<'_>, Params<'_>) = (&[&user], &[&id], &[&id, &now_ms]);
    let (stories_of_user, branches, open, open_of_user, invites, me) = tokio::try_join!(biased;
        number(conn, STORIES_OF_USER, of_user),
        number(conn, BRANCHES, of_story),
        number(conn, OPEN, of_story),
        number(conn, OPEN_OF_USER, of_user),
        number(conn, INVITES, good),
        member(conn, &story.id, &question.user),
    )?;
    facts.stories_of_user = stories_of_user;
    facts.branches = branches;
    facts.open_generations = open;
    facts.open_generations_of_user = open_of_user;
    facts.invites = invites;
    facts.me = me;
    match &question.about {
        About::NewStory | About::Story(_) | About::Invite(_) => {}
        About::Branch(_, wanted) => facts.branch = branch_facts(conn, &story.id, wanted).await?,
        About::Choice(_, wanted) => facts.choice = choice_facts(conn, &story.id, wanted).await?,
        About::Generation(_, wanted) => facts.generation = generation(conn, &story.id, wanted).await?,
    }
    facts.story = Some(story);
    Ok(facts)
}

async fn branch_facts(conn: &Connection, story: &StoryId, id: &BranchId) -> Tried<Option<BranchFacts>> {
    let Some(branch) = branch(conn, story, id).await? else { return Ok(None) };
    let sql = "SELECT id, branch, number FROM turns WHERE branch = $1 ORDER BY number DESC LIMIT 1";
    let own = one(conn, sql, &[&id.as_str()], place).await?;
    let tip = match (own, &branch.from) {
        (Some(own), _) => Some(own),
        (None, Some(from)) => place_of(conn, from.as_str()).await?,
        (None, None) => None,
    };
    let sql = format!("SELECT {} FROM jobs WHERE branch = $1 AND status IN ('queued', 'running')", rows::GENERATION);
    let open = one(conn, &sql, &[&id.as_str()], rows::generation).await?;
    Ok(Some(BranchFacts { branch, tip, open }))
}

async fn choice_facts(conn: &Connection, story: &StoryId, id: &ChoiceId) -> Tried<Option<ChoiceFacts>> {
    let sql = format!("SELECT {} FROM choices WHERE id = $1 AND story = $2", rows::CHOICE);
    let Some(choice) = one(conn, &sql, &[&id.as_str(), &story.as_str()], rows::choice).await? else { return Ok(None) };
    let turn = place_of(conn, choice.turn.as_str()).await?;
    let turn = turn.ok_or_else(|| StoreError::Broken(format!("choice {id} has no turn")))?;
    let picked = match &choice.branch {
        Some(branch) => Some(picked(conn, story, branch, id).await?),
        None => None,
    };
    Ok(Some(ChoiceFacts { choice, turn, picked }))
}

/// The branch that the first pick started, its first turn, and the generation that was asked for after that turn.
async fn picked(conn: &Connection, story: &StoryId, id: &BranchId, choice: &ChoiceId) -> Tried<Picked> {
    let broken = || StoreError::Broken(format!("the branch of choice {choice} is not whole"));
    let branch = branch(conn, story, id).await?.ok_or_else(broken)?;
    let sql = format!("SELECT {} FROM turns WHERE branch = $1 ORDER BY number LIMIT 1", rows::TURN);
    let turn = one(conn, &sql, &[&id.as_str()], rows::turn).await?.ok_or_else(broken)?;
    let sql = format!("SELECT {} FROM jobs WHERE branch = $1 ORDER BY seq LIMIT 1", rows::GENERATION);
    let first = one(conn, &sql, &[&id.as_str()], rows::generation).await?;
    let generation = first.filter(|generation| generation.after.as_ref() == Some(&turn.id));
    Ok(Picked { branch, turn, generation })
}

async fn invite(conn: &Connection, code: &InviteCode) -> Tried<Option<InviteFacts>> {
    let sql = format!("SELECT {}, story FROM invites WHERE code = $1", rows::INVITE);
    one(conn, &sql, &[&code.as_str()], |row| Ok(InviteFacts { invite: rows::invite(row)?, story: parsed(row, 5)? }))
        .await
}

pub(super) async fn story(conn: &Connection, id: &StoryId) -> Tried<Option<Story>> {
    let sql = format!("SELECT {} FROM stories WHERE id = $1", rows::STORY);
    one(conn, &sql, &[&id.as_str()], rows::story).await
}

/// Locks a story to the end of the transaction, for everything that changes it.
pub(super) async fn lock_story(conn: &Connection, id: &StoryId) -> Tried<Option<Story>> {
    let sql = format!("SELECT {} FROM stories WHERE id = $1 FOR NO KEY UPDATE", rows::STORY);
    one(conn, &sql, &[&id.as_str()], rows::story).await
}

pub(super) async fn member(conn: &Connection, story: &StoryId, user: &UserId) -> Tried<Option<Member>> {
    let sql = format!("SELECT {} FROM members WHERE \"user\" = $1 AND story = $2", rows::MEMBER);
    one(conn, &sql, &[&user.as_str(), &story.as_str()], rows::member).await
}

pub(super) async fn branch(conn: &Connection, story: &StoryId, id: &BranchId) -> Tried<Option<Branch>> {
    let sql = format!("SELECT {} FROM branches WHERE id = $1 AND story = $2", rows::BRANCH);
    one(conn, &sql, &[&id.as_str(), &story.as_str()], rows::branch).await
}

pub(super) async fn generation(conn: &Connection, story: &StoryId, id: &GenerationId) -> Tried<Option<Generation>> {
    let sql = format!("SELECT {} FROM jobs WHERE id = $1 AND story = $2", rows::GENERATION);
    one(conn, &sql, &[&id.as_str(), &story.as_str()], rows::generation).await
}

async fn place_of(conn: &Connection, turn: &str) -> Tried<Option<TurnPlace>> {
    one(conn, "SELECT id, branch, number FROM turns WHERE id = $1", &[&turn], place).await
}

/// `id, branch, number`.
pub(super) fn place(row: &Row) -> Tried<TurnPlace> {
    Ok(TurnPlace { id: parsed(row, 0)?, branch: parsed(row, 1)?, number: count(row, 2)? })
}

/// The first row of a query, if there is one.
pub(super) async fn one<T>(
    conn: &Connection,
    sql: &str,
    params: Params<'_>,
    read: impl FnOnce(&Row) -> Tried<T>,
) -> Tried<Option<T>> {
    conn.one(sql, params).await?.as_ref().map(read).transpose()
}

/// All rows of a query.
pub(super) async fn all<T>(
    conn: &Connection,
    sql: &str,
    params: Params<'_>,
    read: impl FnMut(&Row) -> Tried<T>,
) -> Tried<Vec<T>> {
    conn.all(sql, params).await?.iter().map(read).collect()
}

pub(super) async fn number(conn: &Connection, sql: &str, params: Params<'_>) -> Tried<u64> {
    count(&conn.row(sql, params).await?, 0)
}
