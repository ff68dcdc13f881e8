//! Jobs in SQLite: claims, leases and ends. Every statement that a worker's effect rests on compares the attempt.

use rusqlite::params;
use talewire_proto::generation::GenerationStatus;
use talewire_proto::{Channel, GenerationId, JobOwner, StoryId};

use super::Sqlite;
use super::facts::{all, number, one};
use super::log::append_event;
use super::rows::{self, parsed};
use super::writer::Work;
use super::{apply, views};
use crate::event::StoryEvent;
use crate::jobs::{Finish, Finished, Job, Renewed, given_up, made_choices, made_turn};
use crate::log::LogEntry;
use crate::objects::Generation;
use crate::text::Words;
use crate::{StoreError, random};

/// Jobs that one sweep ends.
const SWEPT_MAX: i64 = 100;

impl Sqlite {
    pub(crate) async fn claim(&self, owner: JobOwner, lease_ms: i64) -> Result<Option<Job>, StoreError> {
        self.write(move |work| claim(work, &owner, lease_ms)).await
    }

    pub(crate) async fn renew(&self, id: GenerationId, attempt: u32, lease_ms: i64) -> Result<Renewed, StoreError> {
        self.write(move |work| {
            let sql =
                "UPDATE jobs SET deadline = ?3 WHERE id = ?1 AND attempt = ?2 AND status = 'running' RETURNING cancel";
            let cancel = one(work.conn, sql, params![id.as_str(), attempt, work.now_ms + lease_ms], |row| row.get(0))?;
            Ok(cancel.map_or(Renewed::Lost, |cancel| Renewed::Held { cancel }))
        })
        .await
    }

    pub(crate) async fn release(&self, id: GenerationId, attempt: u32) -> Result<bool, StoreError> {
        self.write(move |work| {
            let changed = work
                .conn
                .prepare_cached(
                    "UPDATE jobs SET deadline = ?3, owner = NULL WHERE id = ?1 AND attempt = ?2 AND status = 'running'",
                )?
                .execute(params![id.as_str(), attempt, work.now_ms])?;
            Ok(changed == 1)
        })
        .await
    }

    pub(crate) async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        if !finish.status.is_end() {
            return Err(StoreError::Broken(format!("{} is no end of a generation", finish.status.as_str())));
        }
        self.write(move |work| end(work, finish)).await
    }

    pub(crate) async fn cancel_requested(&self, id: GenerationId) -> Result<bool, StoreError> {
        self.read(move |conn, _| {
            let sql = "SELECT cancel OR status NOT IN ('queued', 'running') FROM jobs WHERE id = ?1";
            Ok(one(conn, sql, [id.as_str()], |row| row.get(0))?.unwrap_or(true))
        })
        .await
    }

    pub(crate) async fn release_all(&self, mine: JobOwner) -> Result<u64, StoreError> {
        self.write(move |work| {
            let changed = work
                .conn
                .prepare_cached(
                    "UPDATE jobs SET deadline = ?1 WHERE status = 'running' AND status IN ('queued', 'running')
                     AND deadline > ?1 AND owner IS NOT ?2",
                )?
                .execute(params![work.now_ms, mine.as_str()])?;
            Ok(changed as u64)
        })
        .await
    }

    pub(crate) async fn claimable_jobs(&self) -> Result<u64, StoreError> {
        self.read(|conn, now_ms| {
            let sql = "SELECT COUNT(*) FROM jobs WHERE status IN ('queued', 'running') AND (status = 'queued' OR deadline <= ?1)";
            number(conn, sql, [now_ms])
        })
        .await
    }

    pub(crate) async fn open_jobs(&self) -> Result<u64, StoreError> {
        self.read(|conn, _| number(conn, "SELECT COUNT(*) FROM jobs WHERE status IN ('queued', 'running')", [])).await
    }

    pub(crate) async fn sweep(&self, attempts_max: u32) -> Result<Vec<LogEntry>, StoreError> {
        self.write(move |work| sweep(work, attempts_max)).await
    }
}

fn claim(work: &Work<'_>, owner: &JobOwner, lease_ms: i64) -> Result<Option<Job>, StoreError> {
    // The subquery walks the index of open jobs alone, oldest first.
    let sql = format!(
        "UPDATE jobs SET status = 'running', attempt = attempt + 1, owner = ?1, deadline = ?2
         WHERE seq = (SELECT seq FROM jobs WHERE status IN ('queued', 'running') AND (status = 'queued' OR deadline <= ?3)
                      ORDER BY seq LIMIT 1)
         RETURNING {}, story, instruction, cancel",
        rows::GENERATION
    );
    let deadline_ms = work.now_ms + lease_ms;
    let claimed = one(work.conn, &sql, params![owner.as_str(), deadline_ms, work.now_ms], |row| {
        let instruction: Option<String> = row.get(12)?;
        Ok((
            rows::generation(row)?,
            parsed::<StoryId, _>(row, 11)?,
            instruction.map(Words::from),
            row.get::<_, bool>(13)?,
        ))
    })?;
    let Some((generation, story, instruction, cancel)) = claimed else { return Ok(None) };
    let event = StoryEvent::GenerationStarted { generation: generation.clone() };
    let log = vec![append_event(work, &Channel::story(&story), &event)?];
    Ok(Some(Job { story, generation, instruction, cancel, deadline_ms, log }))
}

fn end(work: &Work<'_>, finish: Finish) -> Result<Finished, StoreError> {
    let sql =
        format!("SELECT {}, story FROM jobs WHERE id = ?1 AND attempt = ?2 AND status = 'running'", rows::GENERATION);
    let held: Option<(Generation, StoryId)> =
        one(work.conn, &sql, params![finish.generation.as_str(), finish.attempt], |row| {
            Ok((rows::generation(row)?, parsed(row, 11)?))
        })?;
    let Some((mut generation, story)) = held else { return Ok(Finished::Fenced) };
    generation.status = finish.status;
    generation.reason = finish.reason;
    if let Some(usage) = &finish.usage {
        work.conn
            .prepare_cached("UPDATE jobs SET usage = ?2 WHERE id = ?1")?
            .execute([generation.id.as_str(), usage])?;
    }
    let turn = match finish.turn {
        Some(new) => {
            let number = views::last_number(work.conn, &generation.branch)? + 1;
            Some(made_turn(random()?, &generation, new, number, work.now_ms))
        }
        None => None,
    };
    let choices = match &turn {
        Some(turn) => made_choices(turn, &finish.choices, random)?,
        None => Vec::new(),
    };
    let event = StoryEvent::GenerationEnded { generation: generation.clone(), turn: turn.clone(), choices };
    let log = vec![apply::event_and_entry(work, &story, &Channel::story(&story), &event)?];
    Ok(Finished::Committed { generation: Box::new(generation), turn: turn.map(Box::new), log })
}

fn sweep(work: &Work<'_>, attempts_max: u32) -> Result<Vec<LogEntry>, StoreError> {
    let sql = format!(
        "SELECT {}, story, cancel FROM jobs
         WHERE status IN ('queued', 'running') AND status = 'running' AND deadline <= ?1 AND (cancel OR attempt >= ?2)
         ORDER BY seq LIMIT ?3",
        rows::GENERATION
    );
    let dead: Vec<(Generation, StoryId, bool)> =
        all(work.conn, &sql, params![work.now_ms, attempts_max, SWEPT_MAX], |row| {
            Ok((rows::generation(row)?, parsed(row, 11)?, row.get(12)?))
        })?;
    let mut log = Vec::with_capacity(dead.len());
    for (mut generation, story, cancel) in dead {
        if cancel {
            generation.status = GenerationStatus::Cancelled;
        } else {
            generation.status = GenerationStatus::Failed;
            generation.reason = Some(given_up(generation.attempt));
        }
        let event = StoryEvent::GenerationEnded { generation, turn: None, choices: Vec::new() };
        log.push(apply::event_and_entry(work, &story, &Channel::story(&story), &event)?);
    }
    Ok(log)
}
