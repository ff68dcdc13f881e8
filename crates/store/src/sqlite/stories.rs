//! One use case in one transaction: the kept answer, or facts, rule, effects and the answer to keep.

use rusqlite::{OptionalExtension, params};
use talewire_proto::{Payload, UserId};

use super::Sqlite;
use super::accounts::prune_logouts;
use super::orders::prune_orders;
use super::writer::Work;
use super::{apply, facts};
use crate::StoreError;
use crate::stories::{Accepted, CallKey, Decided, Question, Rule};

/// Old answers that a write with a key removes: more than it adds, so that they never pile up.
const PRUNED_PER_WRITE: i64 = 4;
/// Old answers that one prune removes, so that it does not hold up other writes for long.
const PRUNED_PER_CALL: i64 = 10_000;

impl Sqlite {
    pub(crate) async fn decide(&self, question: Question, rule: Rule) -> Result<Decided, StoreError> {
        let answer_ttl_ms = self.answer_ttl_ms;
        self.write(move |work| decide(work, &question, rule, answer_ttl_ms)).await
    }

    pub(crate) async fn prune(&self) -> Result<u64, StoreError> {
        let (answer_ttl_ms, orders_age_ms) = (self.answer_ttl_ms, self.orders_age_ms);
        self.write(move |work| {
            let orders = prune_orders(work, orders_age_ms, PRUNED_PER_CALL)?;
            Ok(prune(work, answer_ttl_ms, PRUNED_PER_CALL)? + prune_logouts(work, PRUNED_PER_CALL)? + orders)
        })
        .await
    }
}

fn decide(work: &Work<'_>, question: &Question, rule: Rule, answer_ttl_ms: i64) -> Result<Decided, StoreError> {
    if let Some(key) = &question.key
        && let Some(answer) = kept_answer(work, &question.user, key)?
    {
        return Ok(Decided::Accepted(Accepted { answer, log: Vec::new(), repeated: true }));
    }
    let facts = facts::load(work, question)?;
    let decision = match rule(&facts) {
        Ok(decision) => decision,
        Err(refusal) => return Ok(Decided::Refused(refusal)),
    };
    let log = apply::effects(work, &decision.story, &decision.effects)?;
    if let Some(key) = &question.key {
        work.conn
            .prepare_cached("INSERT INTO answers (user, method, key, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![question.user.as_str(), key.method, key.key, decision.answer.as_bytes(), work.now_ms])?;
        prune(work, answer_ttl_ms, PRUNED_PER_WRITE)?;
    }
    Ok(Decided::Accepted(Accepted { answer: decision.answer, log, repeated: false }))
}

fn kept_answer(work: &Work<'_>, user: &UserId, key: &CallKey) -> Result<Option<Payload>, StoreError> {
    let answer: Option<Vec<u8>> = work
        .conn
        .prepare_cached("SELECT answer FROM answers WHERE user = ?1 AND method = ?2 AND key = ?3")?
        .query_row(params![user.as_str(), key.method, key.key], |row| row.get(0))
        .optional()?;
    Ok(answer.map(|bytes| Payload::trusted(bytes.into())))
}

fn prune(work: &Work<'_>, answer_ttl_ms: i64, at_most: i64) -> Result<u64, StoreError> {
    let removed = work
        .conn
        .prepare_cached("DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)")?
        .execute([work.now_ms - answer_ttl_ms, at_most])?;
    Ok(removed as u64)
}
