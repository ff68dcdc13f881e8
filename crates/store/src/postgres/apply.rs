//! Effects to rows: what each event of a story changes in the tables, always in the transaction that appends it to the log.
//!
//! Rows first, all entries at the end: the channel's row is the last lock that a transaction takes.

use talewire_proto::{Channel, StoryId};

use super::connection::Work;
use super::failure::Tried;
use super::log::append_events;
use super::rows::{author_word, kind_word};
use super::storable;
use crate::StoreError;
use crate::event::StoryEvent;
use crate::log::LogEntry;
use crate::objects::{Branch, Choice, Generation, Invite, Member, Story, Turn};
use crate::stories::Effect;

/// Writes the effects of one decision, and gives the entries that it added to the story's log.
pub(super) async fn effects(work: &Work<'_>, story: &StoryId, effects: &[Effect]) -> Tried<Vec<LogEntry>> {
    let conn = work.conn;
    let mut events = Vec::new();
    for effect in effects {
        match effect {
            Effect::Log(event) => {
                rows(work, story, event).await?;
                events.push(&**event);
            }
            Effect::Instruct(generation, words) => {
                let sql = "UPDATE jobs SET instruction = $2 WHERE id = $1";
                conn.execute(sql, &[&generation.as_str(), &storable(words.as_str())]).await?;
            }
            Effect::Cancel(generation) => {
                let sql =
                    "UPDATE jobs SET cancel = TRUE WHERE id = $1 AND story = $2 AND status IN ('queued', 'running')";
                conn.execute(sql, &[&generation.as_str(), &story.as_str()]).await?;
            }
            Effect::Invite(invite) => insert_invite(work, story, invite).await?,
            Effect::Revoke(code) => {
                let sql = "DELETE FROM invites WHERE code = $1 AND story = $2";
                conn.execute(sql, &[&code.as_str(), &story.as_str()]).await?;
            }
            Effect::UseInvite(code) => {
                conn.execute("UPDATE invites SET uses = uses + 1 WHERE code = $1", &[&code.as_str()]).await?;
            }
        }
    }
    append_events(work, &Channel::story(story), &events).await
}

/// Writes the rows that an event tells of.
pub(super) async fn rows(work: &Work<'_>, story: &StoryId, event: &StoryEvent) -> Tried<()> {
    let conn = work.conn;
    match event {
        StoryEvent::StoryCreated { story } => insert_story(work, story).await?,
        StoryEvent::StoryRenamed { title } => {
            let sql = "UPDATE stories SET title = $2 WHERE id = $1";
            conn.execute(sql, &[&story.as_str(), &storable(title.as_str())]).await?;
        }
        StoryEvent::MemberJoined { member } => insert_member(work, story, member).await?,
        StoryEvent::TurnAdded { turn } => insert_turn(work, story, turn).await?,
        StoryEvent::GenerationRequested { generation } => insert_job(work, story, generation).await?,
        // The claim has changed the row already.
        StoryEvent::GenerationStarted { .. } => {}
        StoryEvent::GenerationEnded { generation, turn, choices } => {
            end_job(work, generation).await?;
            if let Some(turn) = turn {
                insert_turn(work, story, turn).await?;
            }
            for choice in choices {
                insert_choice(work, story, choice).await?;
            }
        }
        StoryEvent::ChoicePicked { choice, branch, turn, generation } => {
            let sql = "UPDATE choices SET branch = $2 WHERE id = $1 AND branch IS NULL";
            let changed = conn.execute(sql, &[&choice.id.as_str(), &branch.id.as_str()]).await?;
            expect_one(changed, "a choice was picked twice")?;
            insert_branch(work, story, branch, turn.number.saturating_sub(1)).await?;
            insert_turn(work, story, turn).await?;
            let sql = "UPDATE stories SET branch = $2 WHERE id = $1";
            conn.execute(sql, &[&story.as_str(), &branch.id.as_str()]).await?;
            if let Some(generation) = generation {
                insert_job(work, story, generation).await?;
            }
        }
    }
    Ok(())
}

async fn insert_story(work: &Work<'_>, story: &Story) -> Tried<()> {
    let sql = "INSERT INTO stories (id, title, owner, branch, created_at, active_at, turns, members) VALUES ($1, $2, $3, $4, $5, $6, 0, 0)";
    let (title, branch) = (storable(story.title.as_str()), story.branch.as_str());
    work.conn
        .execute(
            sql,
            &[&story.id.as_str(), &title, &story.owner.as_str(), &branch, &story.created_at, &story.active_at],
        )
        .await?;
    let first = Branch {
        id: story.branch.clone(),
        parent: None,
        from: None,
        choice: None,
        label: "Main".into(),
        created_at: story.created_at,
    };
    insert_branch(work, &story.id, &first, 0).await
}

async fn insert_member(work: &Work<'_>, story: &StoryId, member: &Member) -> Tried<()> {
    let sql = "INSERT INTO members (story, \"user\", name, role, joined_at) VALUES ($1, $2, $3, $4, $5)";
    let (user, name) = (member.user.as_str(), storable(&member.name));
    work.conn.execute(sql, &[&story.as_str(), &user, &name, &member.role.as_str(), &member.joined_at]).await?;
    work.conn.execute("UPDATE stories SET members = members + 1 WHERE id = $1", &[&story.as_str()]).await?;
    Ok(())
}

async fn insert_branch(work: &Work<'_>, story: &StoryId, branch: &Branch, from_number: u64) -> Tried<()> {
    let sql = "INSERT INTO branches (id, story, parent, from_turn, from_number, choice, label, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    work.conn
        .execute(
            sql,
            &[
                &branch.id.as_str(),
                &story.as_str(),
                &branch.parent.as_ref().map(|id| id.as_str()),
                &branch.from.as_ref().map(|id| id.as_str()),
                &(from_number as i64),
                &branch.choice.as_ref().map(|id| id.as_str()),
                &storable(branch.label.as_str()),
                &branch.created_at,
            ],
        )
        .await?;
    Ok(())
}

async fn insert_turn(work: &Work<'_>, story: &StoryId, turn: &Turn) -> Tried<()> {
    let generation = turn.generation.as_ref();
    let sql = "INSERT INTO turns (id, story, branch, number, author_kind, author_id, author_name, kind, text, created_at, generation, attempt, status, label)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    work.conn
        .execute(
            sql,
            &[
                &turn.id.as_str(),
                &story.as_str(),
                &turn.branch.as_str(),
                &(turn.number as i64),
                &author_word(turn.author.kind),
                &storable(&turn.author.id),
                &storable(&turn.author.name),
                &kind_word(turn.kind),
                &storable(turn.text.as_str()),
                &turn.created_at,
                &generation.map(|made| made.id.as_str()),
                &generation.map(|made| i64::from(made.attempt)),
                &generation.map(|made| made.status.as_str()),
                &generation.map(|made| storable(&made.label)),
            ],
        )
        .await?;
    let sql = "UPDATE stories SET turns = turns + 1, active_at = GREATEST(active_at, $2) WHERE id = $1";
    work.conn.execute(sql, &[&story.as_str(), &turn.created_at]).await?;
    Ok(())
}

async fn insert_choice(work: &Work<'_>, story: &StoryId, choice: &Choice) -> Tried<()> {
    let sql = "INSERT INTO choices (id, story, turn, number, label, branch) VALUES ($1, $2, $3, $4, $5, NULL)";
    let (number, label) = (i64::from(choice.number), storable(choice.label.as_str()));
    work.conn.execute(sql, &[&choice.id.as_str(), &story.as_str(), &choice.turn.as_str(), &number, &label]).await?;
    Ok(())
}

async fn insert_job(work: &Work<'_>, story: &StoryId, generation: &Generation) -> Tried<()> {
    let sql = "INSERT INTO jobs (id, story, branch, agent_id, agent_name, status, attempt, by_user, requested_at, after_turn, cancel)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, FALSE)";
    work.conn
        .execute(
            sql,
            &[
                &generation.id.as_str(),
                &story.as_str(),
                &generation.branch.as_str(),
                &storable(&generation.agent.id),
                &storable(&generation.agent.name),
                &generation.status.as_str(),
                &generation.by.as_str(),
                &generation.requested_at,
                &generation.after.as_ref().map(|id| id.as_str()),
            ],
        )
        .await?;
    Ok(())
}

/// Ends an open job. The caller has compared the attempt in the same transaction.
async fn end_job(work: &Work<'_>, generation: &Generation) -> Tried<()> {
    let sql = "UPDATE jobs SET status = $2, reason_code = $3, reason_message = $4, ended_at = $5, owner = NULL, deadline = NULL
         WHERE id = $1 AND status IN ('queued', 'running')";
    let reason = generation.reason.as_ref();
    let changed = work
        .conn
        .execute(
            sql,
            &[
                &generation.id.as_str(),
                &generation.status.as_str(),
                &reason.map(|reason| storable(&reason.code)),
                &reason.map(|reason| storable(&reason.message)),
                &work.now_ms(),
            ],
        )
        .await?;
    expect_one(changed, "a generation ended twice")
}

/// Expired invites of the story go when a new one comes, so that there are never many.
async fn insert_invite(work: &Work<'_>, story: &StoryId, invite: &Invite) -> Tried<()> {
    let sql = "DELETE FROM invites WHERE story = $1 AND expires_at <= $2";
    work.conn.execute(sql, &[&story.as_str(), &work.now_ms()]).await?;
    let sql = "INSERT INTO invites (code, story, role, created_at, expires_at, uses) VALUES ($1, $2, $3, $4, $5, $6)";
    work.conn
        .execute(
            sql,
            &[
                &invite.code.as_str(),
                &story.as_str(),
                &invite.role.as_str(),
                &invite.created_at,
                &invite.expires_at,
                &(invite.uses as i64),
            ],
        )
        .await?;
    Ok(())
}

/// A rule or a claim has looked before, in the same transaction: anything else is a fault, and undoes the operation.
fn expect_one(changed: u64, otherwise: &'static str) -> Tried<()> {
    if changed == 1 { Ok(()) } else { Err(StoreError::Broken(otherwise.into()).into()) }
}
