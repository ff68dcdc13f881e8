//! Jobs in PostgreSQL: claims, leases and ends. Every statement that a worker's effect rests on compares the attempt, and
//! deadlines are judged by the database's clock.

use std::time::Duration;

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{Channel, GenerationId, JobOwner, StoryId};

use super::connection::Work;
use super::facts::{self, number, one};
use super::failure::Tried;
use super::log::append_events;
use super::rows::{self, parsed};
use super::{Postgres, apply, storable, views};
use crate::event::StoryEvent;
use crate::jobs::{Finish, Finished, Job, Renewed, given_up, made_choices, made_turn};
use crate::log::LogEntry;
use crate::objects::Generation;
use crate::text::Words;
use crate::{StoreError, random};

/// Jobs that one sweep ends.
const SWEPT_MAX: i64 = 100;
/// Looks of one claim at jobs that others hold at that moment.
const CLAIM_LOOKS: u32 = 4;

const CLAIMABLE: &str =
    "SELECT COUNT(*) FROM jobs WHERE status IN ('queued', 'running') AND (status = 'queued' OR deadline <= $1)";

impl Postgres {
    pub(crate) async fn claim(&self, owner: JobOwner, lease_ms: i64) -> Result<Option<Job>, StoreError> {
        // A job whose row or story somebody holds is skipped. That may be a claim, or a word said in the same story, after
        // which the job is still there: look again for a short while, so that it does not wait for the next sweep.
        for look in 1..=CLAIM_LOOKS {
            let claimed = self
                .change((owner.clone(), lease_ms), |work, (owner, lease_ms)| Box::pin(claim(work, owner, *lease_ms)));
            let claimed = claimed.await?;
            if claimed.is_some() || look == CLAIM_LOOKS || self.claimable_jobs().await? == 0 {
                return Ok(claimed);
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=5 * u64::from(look)))).await;
        }
        Ok(None)
    }

    pub(crate) async fn renew(&self, id: GenerationId, attempt: u32, lease_ms: i64) -> Result<Renewed, StoreError> {
        self.statement((id, i64::from(attempt), lease_ms), |work, (id, attempt, lease_ms)| {
            Box::pin(async move {
                let sql = "UPDATE jobs SET deadline = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
                    WHERE id = $1 AND attempt = $2 AND status = 'running' RETURNING cancel";
                let row = work.conn.one(sql, &[&id.as_str(), attempt, &(lease_ms + work.shift_ms())]).await?;
                let cancel = row.map(|row| row.try_get(0)).transpose()?;
                Ok(cancel.map_or(Renewed::Lost, |cancel| Renewed::Held { cancel }))
            })
        })
        .await
    }

    pub(crate) async fn release(&self, id: GenerationId, attempt: u32) -> Result<bool, StoreError> {
        self.statement((id, i64::from(attempt)), |work, (id, attempt)| {
            Box::pin(async move {
                let sql = "UPDATE jobs SET deadline = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3, owner = NULL
                    WHERE id = $1 AND attempt = $2 AND status = 'running'";
                Ok(work.conn.execute(sql, &[&id.as_str(), attempt, &work.shift_ms()]).await? == 1)
            })
        })
        .await
    }

    pub(crate) async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        if !finish.status.is_end() {
            return Err(StoreError::Broken(format!("{} is no end of a generation", finish.status.as_str())));
        }
        self.change(finish, |work, finish| Box::pin(end(work, finish))).await
    }

    pub(crate) async fn cancel_requested(&self, id: GenerationId) -> Result<bool, StoreError> {
        self.look(id, |work, id| {
            Box::pin(async move {
                let sql = "SELECT cancel OR status NOT IN ('queued', 'running') FROM jobs WHERE id = $1";
                let row = work.conn.one(sql, &[&id.as_str()]).await?;
                Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(true))
            })
        })
        .await
    }

    pub(crate) async fn claimable_jobs(&self) -> Result<u64, StoreError> {
        self.snapshot((), |work, ()| Box::pin(async move { number(work.conn, CLAIMABLE, &[&work.now_ms()]).await }))
            .await
    }

    pub(crate) async fn open_jobs(&self) -> Result<u64, StoreError> {
        self.look((), |work, ()| {
            let sql = "SELECT COUNT(*) FROM jobs WHERE status IN ('queued', 'running')";
            Box::pin(number(work.conn, sql, &[]))
        })
        .await
    }

    /// Each in a transaction of its own: nobody waits for all of them.
    pub(crate) async fn sweep(&self, attempts_max: u32) -> Result<Vec<LogEntry>, StoreError> {
        let attempts_max = i64::from(attempts_max);
        let dead = self.snapshot(attempts_max, |work, attempts_max| {
            Box::pin(async move {
                let sql = "SELECT id, story FROM jobs
                    WHERE status IN ('queued', 'running') AND status = 'running' AND deadline <= $1 AND (cancel OR attempt >= $2)
                    ORDER BY seq LIMIT $3";
                let read = |row: &tokio_postgres::Row| Ok((parsed(row, 0)?, parsed(row, 1)?));
                facts::all(work.conn, sql, &[&work.now_ms(), attempts_max, &SWEPT_MAX], read).await
            })
        });
        let dead: Vec<(GenerationId, StoryId)> = dead.await?;
        let mut log = Vec::new();
        for (id, story) in dead {
            let swept = self.change((id, story, attempts_max), |work, (id, story, attempts_max)| {
                Box::pin(sweep(work, id, story, *attempts_max))
            });
            match swept.await {
                Ok(entries) => log.extend(entries),
                // What was ended is told; the rest is found by the next sweep.
                Err(error) if !log.is_empty() => {
                    tracing::warn!(%error, "a sweep of dead jobs was broken off");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(log)
    }
}

async fn claim(work: &Work<'_>, owner: &JobOwner, lease_ms: i64) -> Tried<Option<Job>> {
    // The story is locked with the job, as by everybody who changes it. Neither is waited for.
    let sql = format!(
        "WITH next AS (
           SELECT jobs.seq FROM jobs JOIN stories ON stories.id = jobs.story
           WHERE jobs.status IN ('queued', 'running') AND (jobs.status = 'queued' OR jobs.deadline <= $3)
           ORDER BY jobs.seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
         UPDATE jobs SET status = 'running', attempt = attempt + 1, owner = $1, deadline = $2
         FROM next WHERE jobs.seq = next.seq
         RETURNING {}, story, instruction, cancel",
        rows::GENERATION
    );
    let deadline_ms = work.now_ms() + lease_ms;
    let Some(row) = work.conn.one(&sql, &[&owner.as_str(), &deadline_ms, &work.now_ms()]).await? else {
        return Ok(None);
    };
    let generation = rows::generation(&row)?;
    let story: StoryId = parsed(&row, 11)?;
    let instruction = row.try_get::<_, Option<String>>(12)?.map(Words::from);
    let cancel = row.try_get(13)?;
    let event = StoryEvent::GenerationStarted { generation: generation.clone() };
    let log = append_events(work, &Channel::story(&story), &[&event]).await?;
    Ok(Some(Job { story, generation, instruction, cancel, deadline_ms, log }))
}

async fn end(work: &Work<'_>, finish: &Finish) -> Tried<Finished> {
    let conn = work.conn;
    let id = finish.generation.as_str();
    let story = one(conn, "SELECT story FROM jobs WHERE id = $1", &[&id], |row| parsed::<StoryId, _>(row, 0)).await?;
    let Some(story) = story else { return Ok(Finished::Fenced) };
    facts::lock_story(conn, &story).await?;
    let sql = format!(
        "SELECT {} FROM jobs WHERE id = $1 AND attempt = $2 AND status = 'running' FOR NO KEY UPDATE",
        rows::GENERATION
    );
    let held = one(conn, &sql, &[&id, &i64::from(finish.attempt)], rows::generation).await?;
    let Some(mut generation) = held else { return Ok(Finished::Fenced) };
    generation.status = finish.status;
    generation.reason.clone_from(&finish.reason);
    if let Some(usage) = &finish.usage {
        conn.execute("UPDATE jobs SET usage = $2 WHERE id = $1", &[&id, &storable(usage)]).await?;
    }
    let turn = match &finish.turn {
        Some(new) => {
            let number = views::last_number(conn, &generation.branch).await? + 1;
            Some(made_turn(random()?, &generation, new.clone(), number, work.now_ms()))
        }
        None => None,
    };
    let choices = match &turn {
        Some(turn) => made_choices(turn, &finish.choices, random)?,
        None => Vec::new(),
    };
    let event = StoryEvent::GenerationEnded { generation: generation.clone(), turn: turn.clone(), choices };
    let log = ended(work, &story, &event).await?;
    Ok(Finished::Committed { generation: Box::new(generation), turn: turn.map(Box::new), log })
}

/// Ends one dead job, unless it has come to life again.
async fn sweep(work: &Work<'_>, id: &GenerationId, story: &StoryId, attempts_max: i64) -> Tried<Vec<LogEntry>> {
    facts::lock_story(work.conn, story).await?;
    let sql = format!(
        "SELECT {}, cancel FROM jobs
         WHERE id = $1 AND status = 'running' AND deadline <= $2 AND (cancel OR attempt >= $3) FOR NO KEY UPDATE",
        rows::GENERATION
    );
    let read = |row: &tokio_postgres::Row| Ok((rows::generation(row)?, row.try_get(11)?));
    let dead: Option<(Generation, bool)> =
        one(work.conn, &sql, &[&id.as_str(), &work.now_ms(), &attempts_max], read).await?;
    let Some((mut generation, cancel)) = dead else { return Ok(Vec::new()) };
    if cancel {
        generation.status = GenerationStatus::Cancelled;
    } else {
        generation.status = GenerationStatus::Failed;
        generation.reason = Some(given_up(generation.attempt));
    }
    let event = StoryEvent::GenerationEnded { generation, turn: None, choices: Vec::new() };
    ended(work, story, &event).await
}

async fn ended(work: &Work<'_>, story: &StoryId, event: &StoryEvent) -> Tried<Vec<LogEntry>> {
    apply::rows(work, story, event).await?;
    append_events(work, &Channel::story(story), &[event]).await
}
