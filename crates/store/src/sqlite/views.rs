//! What readers of stories ask, each in one snapshot.

use rusqlite::{Connection, params};
use talewire_proto::{BranchId, Channel, GenerationId, StoryId, TurnId, UserId};

use super::Sqlite;
use super::facts::{self, all, one};
use super::log::top_of;
use super::rows::{self, count, parsed, parsed_or_null};
use crate::StoreError;
use crate::objects::{Choice, Generation, Invite, Role, Story, Turn};
use crate::stories::{InviteView, PageSize, StoryCursor, StoryView, TurnsPage};
use crate::text::InviteCode;

impl Sqlite {
    pub(crate) async fn role(&self, user: UserId, story: StoryId) -> Result<Option<Role>, StoreError> {
        self.read(move |conn, _| Ok(facts::member(conn, &story, &user)?.map(|member| member.role))).await
    }

    pub(crate) async fn stories_of(
        &self,
        user: UserId,
        limit: usize,
        before: Option<StoryCursor>,
    ) -> Result<Vec<Story>, StoreError> {
        self.read(move |conn, _| {
            let sql = format!(
                "SELECT {} FROM members JOIN stories ON stories.id = members.story
                 WHERE members.user = ?1 AND (stories.active_at, stories.id) < (?2, ?3)
                 ORDER BY stories.active_at DESC, stories.id DESC LIMIT ?4",
                rows::STORY
            );
            let (active_at, id) =
                before.map_or((i64::MAX, String::new()), |cursor| (cursor.active_at, cursor.story.into()));
            all(conn, &sql, params![user.as_str(), active_at, id, rows_max(limit)], rows::story)
        })
        .await
    }

    pub(crate) async fn story_view(
        &self,
        story: StoryId,
        branch: Option<BranchId>,
        size: PageSize,
    ) -> Result<Option<StoryView>, StoreError> {
        self.read(move |conn, _| {
            let Some(found) = facts::story(conn, &story)? else { return Ok(None) };
            let branch = branch.unwrap_or_else(|| found.branch.clone());
            if facts::branch(conn, &story, &branch)?.is_none() {
                return Ok(None);
            }
            let id = [story.as_str()];
            let sql = format!("SELECT {} FROM members WHERE story = ?1 ORDER BY seq", rows::MEMBER);
            let members = all(conn, &sql, id, rows::member)?;
            let sql = format!("SELECT {} FROM branches WHERE story = ?1 ORDER BY seq", rows::BRANCH);
            let branches = all(conn, &sql, id, rows::branch)?;
            let sql = format!(
                "SELECT {} FROM jobs WHERE story = ?1 AND status IN ('queued', 'running') ORDER BY seq",
                rows::GENERATION
            );
            let generations = all(conn, &sql, id, rows::generation)?;
            let page = path(conn, &branch, i64::MAX, size)?;
            let position = top_of(conn, &Channel::story(&story))?
                .ok_or_else(|| StoreError::Broken(format!("story {story} has no log")))?;
            Ok(Some(StoryView { story: found, members, branches, branch, page, generations, position }))
        })
        .await
    }

    pub(crate) async fn turns_before(
        &self,
        story: StoryId,
        branch: BranchId,
        before: TurnId,
        size: PageSize,
    ) -> Result<Option<TurnsPage>, StoreError> {
        self.read(move |conn, _| {
            if facts::branch(conn, &story, &branch)?.is_none() {
                return Ok(None);
            }
            let sql = "SELECT id, branch, number FROM turns WHERE id = ?1 AND story = ?2";
            let Some(place) = one(conn, sql, [before.as_str(), story.as_str()], facts::place)? else { return Ok(None) };
            if !is_on_path(conn, &branch, &place.branch, place.number)? {
                return Ok(None);
            }
            path(conn, &branch, place.number as i64, size).map(Some)
        })
        .await
    }

    pub(crate) async fn invites(&self, story: StoryId) -> Result<Vec<Invite>, StoreError> {
        self.read(move |conn, now_ms| {
            let sql =
                format!("SELECT {} FROM invites WHERE story = ?1 AND expires_at > ?2 ORDER BY seq DESC", rows::INVITE);
            all(conn, &sql, params![story.as_str(), now_ms], rows::invite)
        })
        .await
    }

    pub(crate) async fn invite(&self, code: InviteCode) -> Result<Option<InviteView>, StoreError> {
        self.read(move |conn, now_ms| {
            let sql = format!("SELECT {}, story FROM invites WHERE code = ?1", rows::INVITE);
            let found: Option<(Invite, StoryId)> =
                one(conn, &sql, [code.as_str()], |row| Ok((rows::invite(row)?, parsed(row, 5)?)))?;
            let Some((invite, story)) = found else { return Ok(None) };
            let expired = invite.expires_at <= now_ms;
            Ok(facts::story(conn, &story)?.map(|story| InviteView { invite, story, expired }))
        })
        .await
    }

    pub(crate) async fn generation(
        &self,
        story: StoryId,
        id: GenerationId,
    ) -> Result<Option<(Generation, Option<Turn>)>, StoreError> {
        self.read(move |conn, _| {
            let Some(generation) = facts::generation(conn, &story, &id)? else { return Ok(None) };
            let sql = format!("SELECT {} FROM turns WHERE generation = ?1", rows::TURN);
            Ok(Some((generation, one(conn, &sql, [id.as_str()], rows::turn)?)))
        })
        .await
    }
}

/// The part of a branch's path before the turn number `before`: its own turns from the end, then its parent's up to where
/// it left, and so on, each by the index on (branch, number). The cost follows the page and the depth of the branch.
fn path(conn: &Connection, branch: &BranchId, before: i64, size: PageSize) -> Result<TurnsPage, StoreError> {
    let mut page = TurnsPage::default();
    let mut bytes_left = size.bytes_max;
    let mut walk = Some(Step { branch: branch.clone(), before });
    let own =
        format!("SELECT {} FROM turns WHERE branch = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3", rows::TURN);
    let mut statement = conn.prepare_cached(&own)?;
    'path: while let Some(step) = walk {
        let left = size.turns_max.saturating_sub(page.turns.len());
        // One more than there is room for tells whether there is more.
        let mut found =
            statement.query(params![step.branch.as_str(), step.before, rows_max(left.saturating_add(1))])?;
        while let Some(row) = found.next()? {
            let turn = rows::turn(row)?;
            let bytes = turn.text.as_str().len();
            if page.turns.len() >= size.turns_max || (bytes > bytes_left && !page.turns.is_empty()) {
                page.more = true;
                break 'path;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            page.turns.push(turn);
        }
        walk = step.up(conn)?;
    }
    page.turns.reverse();
    page.choices = choices_of(conn, &page.turns)?;
    Ok(page)
}

/// A number of rows as SQLite takes it.
fn rows_max(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// One branch of a path, and the number before which its turns belong to the path.
struct Step {
    branch: BranchId,
    before: i64,
}

impl Step {
    /// The parent's part of the path.
    fn up(&self, conn: &Connection) -> Result<Option<Step>, StoreError> {
        let sql = "SELECT parent, from_number FROM branches WHERE id = ?1";
        let found = one(conn, sql, [self.branch.as_str()], |row| {
            Ok((parsed_or_null::<BranchId, _>(row, 0)?, row.get::<_, i64>(1)?))
        })?;
        Ok(match found {
            Some((Some(parent), from)) => Some(Step { branch: parent, before: self.before.min(from + 1) }),
            _ => None,
        })
    }
}

/// Whether the turn `number` of the branch `of` belongs to the path of `branch`.
fn is_on_path(conn: &Connection, branch: &BranchId, of: &BranchId, number: u64) -> Result<bool, StoreError> {
    let mut walk = Some(Step { branch: branch.clone(), before: i64::MAX });
    while let Some(step) = walk {
        if step.branch == *of {
            return Ok((number as i64) < step.before);
        }
        walk = step.up(conn)?;
    }
    Ok(false)
}

fn choices_of(conn: &Connection, turns: &[Turn]) -> Result<Vec<Choice>, StoreError> {
    let sql = format!("SELECT {} FROM choices WHERE turn = ?1 ORDER BY number", rows::CHOICE);
    let mut choices = Vec::new();
    for turn in turns {
        choices.extend(all(conn, &sql, [turn.id.as_str()], rows::choice)?);
    }
    Ok(choices)
}

/// The last number on a branch's path, 0 if it has no turns.
pub(super) fn last_number(conn: &Connection, branch: &BranchId) -> Result<u64, StoreError> {
    let sql = "SELECT COALESCE((SELECT MAX(number) FROM turns WHERE branch = ?1), (SELECT from_number FROM branches WHERE id = ?1), 0)";
    Ok(one(conn, sql, [branch.as_str()], |row| count(row, 0))?.unwrap_or(0))
}
