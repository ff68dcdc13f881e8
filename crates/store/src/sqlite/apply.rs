//! Effects to rows: what each event of a story changes in the tables, always in the transaction that appends it to the log.

use rusqlite::params;
use talewire_proto::{Channel, StoryId};

use super::log::append_event;
use super::rows::{author_word, kind_word};
use super::writer::Work;
use crate::StoreError;
use crate::event::StoryEvent;
use crate::log::LogEntry;
use crate::objects::{Branch, Choice, Generation, Invite, Member, Story, Turn};
use crate::stories::Effect;

/// Writes the effects of one decision, and gives the entries that it added to the story's log.
pub(super) fn effects(work: &Work<'_>, story: &StoryId, effects: &[Effect]) -> Result<Vec<LogEntry>, StoreError> {
    let channel = Channel::story(story);
    let mut log = Vec::new();
    for effect in effects {
        match effect {
            Effect::Log(event) => log.push(event_and_entry(work, story, &channel, event)?),
            Effect::Instruct(generation, words) => {
                work.conn
                    .prepare_cached("UPDATE jobs SET instruction = ?2 WHERE id = ?1")?
                    .execute([generation.as_str(), words.as_str()])?;
            }
            Effect::Cancel(generation) => {
                work.conn
                    .prepare_cached("UPDATE jobs SET cancel = TRUE WHERE id = ?1 AND story = ?2 AND status IN ('queued', 'running')")?
                    .execute([generation.as_str(), story.as_str()])?;
            }
            Effect::Invite(invite) => insert_invite(work, story, invite)?,
            Effect::Revoke(code) => {
                work.conn
                    .prepare_cached("DELETE FROM invites WHERE code = ?1 AND story = ?2")?
                    .execute([code.as_str(), story.as_str()])?;
            }
            Effect::UseInvite(code) => {
                work.conn
                    .prepare_cached("UPDATE invites SET uses = uses + 1 WHERE code = ?1")?
                    .execute([code.as_str()])?;
            }
        }
    }
    Ok(log)
}

/// Writes the rows that an event tells of, then the event.
pub(super) fn event_and_entry(
    work: &Work<'_>,
    story: &StoryId,
    channel: &Channel,
    event: &StoryEvent,
) -> Result<LogEntry, StoreError> {
    match event {
        StoryEvent::StoryCreated { story } => insert_story(work, story)?,
        StoryEvent::StoryRenamed { title } => {
            work.conn
                .prepare_cached("UPDATE stories SET title = ?2 WHERE id = ?1")?
                .execute([story.as_str(), title.as_str()])?;
        }
        StoryEvent::MemberJoined { member } => insert_member(work, story, member)?,
        StoryEvent::TurnAdded { turn } => insert_turn(work, story, turn)?,
        StoryEvent::GenerationRequested { generation } => insert_job(work, story, generation)?,
        // The claim has changed the row already.
        StoryEvent::GenerationStarted { .. } => {}
        StoryEvent::GenerationEnded { generation, turn, choices } => {
            end_job(work, generation)?;
            if let Some(turn) = turn {
                insert_turn(work, story, turn)?;
            }
            for choice in choices {
                insert_choice(work, story, choice)?;
            }
        }
        StoryEvent::ChoicePicked { choice, branch, turn, generation } => {
            let changed = work
                .conn
                .prepare_cached("UPDATE choices SET branch = ?2 WHERE id = ?1 AND branch IS NULL")?
                .execute([choice.id.as_str(), branch.id.as_str()])?;
            expect_one(changed, "a choice was picked twice")?;
            insert_branch(work, story, branch, turn.number.saturating_sub(1))?;
            insert_turn(work, story, turn)?;
            work.conn
                .prepare_cached("UPDATE stories SET branch = ?2 WHERE id = ?1")?
                .execute([story.as_str(), branch.id.as_str()])?;
            if let Some(generation) = generation {
                insert_job(work, story, generation)?;
            }
        }
    }
    append_event(work, channel, event)
}

fn insert_story(work: &Work<'_>, story: &Story) -> Result<(), StoreError> {
    work.conn
        .prepare_cached(
            "INSERT INTO stories (id, title, owner, branch, created_at, active_at, turns, members) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)",
        )?
        .execute(params![
            story.id.as_str(),
            story.title.as_str(),
            story.owner.as_str(),
            story.branch.as_str(),
            story.created_at,
            story.active_at,
        ])?;
    let first = Branch {
        id: story.branch.clone(),
        parent: None,
        from: None,
        choice: None,
        label: "Main".into(),
        created_at: story.created_at,
    };
    insert_branch(work, &story.id, &first, 0)
}

fn insert_member(work: &Work<'_>, story: &StoryId, member: &Member) -> Result<(), StoreError> {
    work.conn
        .prepare_cached("INSERT INTO members (story, user, name, role, joined_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![story.as_str(), member.user.as_str(), member.name, member.role.as_str(), member.joined_at])?;
    work.conn.prepare_cached("UPDATE stories SET members = members + 1 WHERE id = ?1")?.execute([story.as_str()])?;
    Ok(())
}

fn insert_branch(work: &Work<'_>, story: &StoryId, branch: &Branch, from_number: u64) -> Result<(), StoreError> {
    work.conn
        .prepare_cached(
            "INSERT INTO branches (id, story, parent, from_turn, from_number, choice, label, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            branch.id.as_str(),
            story.as_str(),
            branch.parent.as_ref().map(|id| id.as_str()),
            branch.from.as_ref().map(|id| id.as_str()),
            from_number as i64,
            branch.choice.as_ref().map(|id| id.as_str()),
            branch.label.as_str(),
            branch.created_at,
        ])?;
    Ok(())
}

fn insert_turn(work: &Work<'_>, story: &StoryId, turn: &Turn) -> Result<(), StoreError> {
    let generation = turn.generation.as_ref();
    work.conn
        .prepare_cached(
            "INSERT INTO turns (id, story, branch, number, author_kind, author_id, author_name, kind, text, created_at, generation, attempt, status, label)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            turn.id.as_str(),
            story.as_str(),
            turn.branch.as_str(),
            turn.number as i64,
            author_word(turn.author.kind),
            turn.author.id,
            turn.author.name,
            kind_word(turn.kind),
            turn.text.as_str(),
            turn.created_at,
            generation.map(|made| made.id.as_str()),
            generation.map(|made| made.attempt),
            generation.map(|made| made.status.as_str()),
            generation.map(|made| made.label.as_str()),
        ])?;
    work.conn
        .prepare_cached("UPDATE stories SET turns = turns + 1, active_at = MAX(active_at, ?2) WHERE id = ?1")?
        .execute(params![story.as_str(), turn.created_at])?;
    Ok(())
}

fn insert_choice(work: &Work<'_>, story: &StoryId, choice: &Choice) -> Result<(), StoreError> {
    work.conn
        .prepare_cached(
            "INSERT INTO choices (id, story, turn, number, label, branch) VALUES (?1, ?2, ?3, ?4, ?5, NULL)",
        )?
        .execute(params![
            choice.id.as_str(),
            story.as_str(),
            choice.turn.as_str(),
            choice.number,
            choice.label.as_str()
        ])?;
    Ok(())
}

fn insert_job(work: &Work<'_>, story: &StoryId, generation: &Generation) -> Result<(), StoreError> {
    work.conn
        .prepare_cached(
            "INSERT INTO jobs (id, story, branch, agent_id, agent_name, status, attempt, by_user, requested_at, after_turn, cancel)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, FALSE)",
        )?
        .execute(params![
            generation.id.as_str(),
            story.as_str(),
            generation.branch.as_str(),
            generation.agent.id,
            generation.agent.name,
            generation.status.as_str(),
            generation.by.as_str(),
            generation.requested_at,
            generation.after.as_ref().map(|id| id.as_str()),
        ])?;
    Ok(())
}

/// Ends an open job. The caller has compared the attempt in the same transaction.
fn end_job(work: &Work<'_>, generation: &Generation) -> Result<(), StoreError> {
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE jobs SET status = ?2, reason_code = ?3, reason_message = ?4, ended_at = ?5, owner = NULL, deadline = NULL
             WHERE id = ?1 AND status IN ('queued', 'running')",
        )?
        .execute(params![
            generation.id.as_str(),
            generation.status.as_str(),
            generation.reason.as_ref().map(|reason| reason.code.as_str()),
            generation.reason.as_ref().map(|reason| reason.message.as_str()),
            work.now_ms,
        ])?;
    expect_one(changed, "a generation ended twice")
}

/// Expired invites of the story go when a new one comes, so that there are never many.
fn insert_invite(work: &Work<'_>, story: &StoryId, invite: &Invite) -> Result<(), StoreError> {
    work.conn
        .prepare_cached("DELETE FROM invites WHERE story = ?1 AND expires_at <= ?2")?
        .execute(params![story.as_str(), work.now_ms])?;
    work.conn
        .prepare_cached(
            "INSERT INTO invites (code, story, role, created_at, expires_at, uses) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            invite.code.as_str(),
            story.as_str(),
            invite.role.as_str(),
            invite.created_at,
            invite.expires_at,
            invite.uses as i64,
        ])?;
    Ok(())
}

/// A rule or a claim has looked before, in the same transaction: anything else is a fault, and undoes the operation.
fn expect_one(changed: usize, otherwise: &'static str) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::Broken(otherwise.into())) }
}
