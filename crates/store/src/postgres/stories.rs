//! One use case in one transaction: locks, the kept answer, or facts, rule, effects and the answer to keep.

use std::sync::{Mutex, PoisonError};

use talewire_proto::{Payload, UserId};

use super::accounts::prune_logouts;
use super::connection::{CLOCK, Work};
use super::failure::{Failure, Tried};
use super::orders::prune_orders;
use super::turns::Whose;
use super::{Kind, Postgres, apply, facts, storable};
use crate::StoreError;
use crate::stories::{Accepted, CallKey, Decided, Decision, Facts, Question, Refusal, Rule};

/// Old answers that a write with a key removes: more than it adds, so that they never pile up.
const PRUNED_PER_WRITE: i64 = 4;
/// Old answers that one prune removes, so that it does not hold up other writes for long.
const PRUNED_PER_CALL: i64 = 10_000;

/// The namespace of the advisory locks that stand for users.
const USER_LOCKS: i32 = 0x7477_7573;
const LOCK_USER: &str = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
const KEPT_ANSWER: &str = "SELECT answer FROM answers WHERE \"user\" = $1 AND method = $2 AND key = $3";
/// Rows that somebody else removes at this moment are left to them.
const PRUNE: &str = "DELETE FROM answers WHERE id IN
    (SELECT id FROM answers WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// A rule, which can be asked once, and what it said: a second try after a conflict has the same answer, if the facts are
/// the same.
struct Thought {
    rule: Option<Rule>,
    said: Option<(Facts, Result<Decision, Refusal>)>,
}

impl Thought {
    /// What the rule says to these facts.
    fn decide(&mut self, facts: Facts) -> Tried<Result<Decision, Refusal>> {
        if let Some((before, said)) = &self.said {
            let same_but_time = Facts { now_ms: before.now_ms, ..facts } == *before;
            return if same_but_time { Ok(said.clone()) } else { Err(Failure::Ours(changed())) };
        }
        let rule = self.rule.take().ok_or_else(|| StoreError::Broken("a rule that was asked has no answer".into()))?;
        let said = rule(&facts);
        self.said = Some((facts, said.clone()));
        Ok(said)
    }
}

fn changed() -> StoreError {
    StoreError::Unavailable("others changed the story at the same time".into())
}

impl Postgres {
    pub(crate) async fn decide(&self, question: Question, rule: Rule) -> Result<Decided, StoreError> {
        let thought = Mutex::new(Thought { rule: Some(rule), said: None });
        // In the order of the locks.
        let mut turns = vec![self.turns.of(Whose::User(question.user.clone()))];
        turns.extend(Whose::of(&question.about).map(|whose| self.turns.of(whose)));
        self.run(
            Kind::Change,
            turns,
            (question, thought, self.answer_ttl_ms),
            |work, (question, thought, answer_ttl_ms)| Box::pin(decide(work, question, thought, *answer_ttl_ms)),
        )
        .await
    }

    pub(crate) async fn prune(&self) -> Result<u64, StoreError> {
        self.change((self.answer_ttl_ms, self.orders_age_ms), |work, (ttl_ms, orders_age_ms)| {
            Box::pin(async move {
                let orders = prune_orders(work, *orders_age_ms, PRUNED_PER_CALL).await?;
                Ok(prune(work, *ttl_ms, PRUNED_PER_CALL).await? + prune_logouts(work, PRUNED_PER_CALL).await? + orders)
            })
        })
        .await
    }
}

async fn decide(work: &Work<'_>, question: &Question, thought: &Mutex<Thought>, answer_ttl_ms: i64) -> Tried<Decided> {
    let conn = work.conn;
    let user = question.user.as_str();
    // The user first: limits of users count over stories, and a call that comes twice must find its own answer.
    conn.execute(LOCK_USER, &[&USER_LOCKS, &user]).await?;
    if let Some(key) = &question.key
        && let Some(answer) = kept_answer(work, &question.user, key).await?
    {
        return Ok(Decided::Accepted(Accepted { answer, log: Vec::new(), repeated: true }));
    }
    let story = match facts::story_of(work, &question.about).await? {
        Some(id) => facts::lock_story(conn, &id).await?,
        None => None,
    };
    // Others may have been waited for.
    work.set_clock(&conn.row(CLOCK, &[]).await?)?;
    let facts = facts::load(work, question, story).await?;
    let said = thought.lock().unwrap_or_else(PoisonError::into_inner).decide(facts)?;
    let decision = match said {
        Ok(decision) => decision,
        Err(refusal) => return Ok(Decided::Refused(refusal)),
    };
    if let Some(key) = &question.key {
        let sql = "INSERT INTO answers (\"user\", method, key, answer, created_at) VALUES ($1, $2, $3, $4, $5)";
        let answer = decision.answer.as_bytes();
        conn.execute(sql, &[&user, &key.method, &storable(&key.key), &answer, &work.now_ms()]).await?;
        prune(work, answer_ttl_ms, PRUNED_PER_WRITE).await?;
    }
    let log = apply::effects(work, &decision.story, &decision.effects).await?;
    Ok(Decided::Accepted(Accepted { answer: decision.answer, log, repeated: false }))
}

async fn kept_answer(work: &Work<'_>, user: &UserId, key: &CallKey) -> Tried<Option<Payload>> {
    let row = work.conn.one(KEPT_ANSWER, &[&user.as_str(), &key.method, &storable(&key.key)]).await?;
    let Some(row) = row else { return Ok(None) };
    let answer: Vec<u8> = row.try_get(0)?;
    Ok(Some(Payload::trusted(answer.into())))
}

async fn prune(work: &Work<'_>, answer_ttl_ms: i64, at_most: i64) -> Tried<u64> {
    work.conn.execute(PRUNE, &[&(work.now_ms() - answer_ttl_ms), &at_most]).await
}
