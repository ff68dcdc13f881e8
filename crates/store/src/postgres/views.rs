//! What readers of stories ask, each in one snapshot.

use talewire_proto::{BranchId, Channel, GenerationId, StoryId, TurnId, UserId};

use super::Postgres;
use super::connection::{Connection, Work};
use super::facts::{self, all, one};
use super::failure::Tried;
use super::log::top_of;
use super::rows::{self, count, parsed, parsed_or_null};
use crate::StoreError;
use crate::objects::{Choice, Generation, Invite, Role, Story, Turn};
use crate::stories::{InviteView, PageSize, StoryCursor, StoryView, TurnsPage};
use crate::text::InviteCode;

impl Postgres {
    pub(crate) async fn role(&self, user: UserId, story: StoryId) -> Result<Option<Role>, StoreError> {
        self.look((user, story), |work, (user, story)| {
            Box::pin(async move { Ok(facts::member(work.conn, story, user).await?.map(|member| member.role)) })
        })
        .await
    }

    pub(crate) async fn stories_of(
        &self,
        user: UserId,
        limit: usize,
        before: Option<StoryCursor>,
    ) -> Result<Vec<Story>, StoreError> {
        self.look((user, limit, before), |work, (user, limit, before)| {
            Box::pin(async move {
                let sql = format!(
                    "SELECT {} FROM members JOIN stories ON stories.id = members.story
                     WHERE members.\"user\" = $1 AND (stories.active_at, stories.id) < ($2, $3)
                     ORDER BY stories.active_at DESC, stories.id DESC LIMIT $4",
                    rows::STORY
                );
                let (active_at, id) =
                    before.as_ref().map_or((i64::MAX, ""), |cursor| (cursor.active_at, cursor.story.as_str()));
                all(work.conn, &sql, &[&user.as_str(), &active_at, &id, &rows_max(*limit)], rows::story).await
            })
        })
        .await
    }

    pub(crate) async fn story_view(
        &self,
        story: StoryId,
        branch: Option<BranchId>,
        size: PageSize,
    ) -> Result<Option<StoryView>, StoreError> {
        self.snapshot((story, branch, size), |work, (story, branch, size)| {
            Box::pin(view(work, story, branch.as_ref(), *size))
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
        self.snapshot((story, branch, before, size), |work, (story, branch, before, size)| {
            Box::pin(async move {
                if facts::branch(work.conn, story, branch).await?.is_none() {
                    return Ok(None);
                }
                let sql = "SELECT id, branch, number FROM turns WHERE id = $1 AND story = $2";
                let place = one(work.conn, sql, &[&before.as_str(), &story.as_str()], facts::place).await?;
                let Some(place) = place else { return Ok(None) };
                if !is_on_path(work.conn, branch, &place.branch, place.number).await? {
                    return Ok(None);
                }
                path(work.conn, branch, place.number as i64, *size).await.map(Some)
            })
        })
        .await
    }

    pub(crate) async fn invites(&self, story: StoryId) -> Result<Vec<Invite>, StoreError> {
        self.snapshot(story, |work, story| {
            Box::pin(async move {
                let sql = format!(
                    "SELECT {} FROM invites WHERE story = $1 AND expires_at > $2 ORDER BY seq DESC",
                    rows::INVITE
                );
                all(work.conn, &sql, &[&story.as_str(), &work.now_ms()], rows::invite).await
            })
        })
        .await
    }

    pub(crate) async fn invite(&self, code: InviteCode) -> Result<Option<InviteView>, StoreError> {
        self.snapshot(code, |work, code| {
            Box::pin(async move {
                let sql = format!("SELECT {}, story FROM invites WHERE code = $1", rows::INVITE);
                let read = |row: &tokio_postgres::Row| Ok((rows::invite(row)?, parsed(row, 5)?));
                let found: Option<(Invite, StoryId)> = one(work.conn, &sql, &[&code.as_str()], read).await?;
                let Some((invite, story)) = found else { return Ok(None) };
                let expired = invite.expires_at <= work.now_ms();
                let story = facts::story(work.conn, &story).await?;
                Ok(story.map(|story| InviteView { invite, story, expired }))
            })
        })
        .await
    }

    pub(crate) async fn generation(
        &self,
        story: StoryId,
        id: GenerationId,
    ) -> Result<Option<(Generation, Option<Turn>)>, StoreError> {
        self.snapshot((story, id), |work, (story, id)| {
            Box::pin(async move {
                let Some(generation) = facts::generation(work.conn, story, id).await? else { return Ok(None) };
                let sql = format!("SELECT {} FROM turns WHERE generation = $1", rows::TURN);
                Ok(Some((generation, one(work.conn, &sql, &[&id.as_str()], rows::turn).await?)))
            })
        })
        .await
    }
}

async fn view(work: &Work<'_>, story: &StoryId, branch: Option<&BranchId>, size: PageSize) -> Tried<Option<StoryView>> {
    let conn = work.conn;
    let Some(found) = facts::story(conn, story).await? else { return Ok(None) };
    let branch = branch.unwrap_or(&found.branch).clone();
    if facts::branch(conn, story, &branch).await?.is_none() {
        return Ok(None);
    }
    let id = story.as_str();
    let sql = format!("SELECT {} FROM members WHERE story = $1 ORDER BY seq", rows::MEMBER);
    let members = all(conn, &sql, &[&id], rows::member).await?;
    let sql = format!("SELECT {} FROM branches WHERE story = $1 ORDER BY seq", rows::BRANCH);
    let branches = all(conn, &sql, &[&id], rows::branch).await?;
    let sql = format!(
        "SELECT {} FROM jobs WHERE story = $1 AND status IN ('queued', 'running') ORDER BY seq",
        rows::GENERATION
    );
    let generations = all(conn, &sql, &[&id], rows::generation).await?;
    let page = path(conn, &branch, i64::MAX, size).await?;
    let position = top_of(conn, &Channel::story(story)).await?;
    let position = position.ok_or_else(|| StoreError::Broken(format!("story {story} has no log")))?;
    Ok(Some(StoryView { story: found, members, branches, branch, page, generations, position }))
}

/// The part of a branch's path before the turn number `before`: its own turns from the end, then its parent's up to where
/// it left, and so on, each by the index on (branch, number). The cost follows the page and the depth of the branch.
async fn path(conn: &Connection, branch: &BranchId, before: i64, size: PageSize) -> Tried<TurnsPage> {
    let mut page = TurnsPage::default();
    let mut bytes_left = size.bytes_max;
    let mut walk = Some(Step { branch: branch.clone(), before });
    let own =
        format!("SELECT {} FROM turns WHERE branch = $1 AND number < $2 ORDER BY number DESC LIMIT $3", rows::TURN);
    'path: while let Some(step) = walk {
        let left = size.turns_max.saturating_sub(page.turns.len());
        // One more than there is room for tells whether there is more.
        let rows_max = rows_max(left.saturating_add(1));
        for row in conn.all(&own, &[&step.branch.as_str(), &step.before, &rows_max]).await? {
            let turn = rows::turn(&row)?;
            let bytes = turn.text.as_str().len();
            if page.turns.len() >= size.turns_max || (bytes > bytes_left && !page.turns.is_empty()) {
                page.more = true;
                break 'path;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            page.turns.push(turn);
        }
        walk = step.up(conn).await?;
    }
    page.turns.reverse();
    page.choices = choices_of(conn, &page.turns).await?;
    Ok(page)
}

/// A number of rows as PostgreSQL takes it.
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
    async fn up(&self, conn: &Connection) -> Tried<Option<Step>> {
        let sql = "SELECT parent, from_number FROM branches WHERE id = $1";
        let Some(row) = conn.one(sql, &[&self.branch.as_str()]).await? else { return Ok(None) };
        let from: i64 = row.try_get(1)?;
        let parent = parsed_or_null::<BranchId, _>(&row, 0)?;
        Ok(parent.map(|parent| Step { branch: parent, before: self.before.min(from + 1) }))
    }
}

/// Whether the turn `number` of the branch `of` belongs to the path of `branch`.
async fn is_on_path(conn: &Connection, branch: &BranchId, of: &BranchId, number: u64) -> Tried<bool> {
    let mut walk = Some(Step { branch: branch.clone(), before: i64::MAX });
    while let Some(step) = walk {
        if step.branch == *of {
            return Ok((number as i64) < step.before);
        }
        walk = step.up(conn).await?;
    }
    Ok(false)
}

async fn choices_of(conn: &Connection, turns: &[Turn]) -> Tried<Vec<Choice>> {
    if turns.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = turns.iter().map(|turn| turn.id.as_str()).collect();
    let sql =
        format!("SELECT {} FROM choices WHERE turn = ANY($1) ORDER BY array_position($1, turn), number", rows::CHOICE);
    all(conn, &sql, &[&ids], rows::choice).await
}

/// The last number on a branch's path, 0 if it has no turns.
pub(super) async fn last_number(conn: &Connection, branch: &BranchId) -> Tried<u64> {
    let sql = "SELECT COALESCE((SELECT MAX(number) FROM turns WHERE branch = $1), (SELECT from_number FROM branches WHERE id = $1), 0)";
    count(&conn.row(sql, &[&branch.as_str()]).await?, 0)
}
