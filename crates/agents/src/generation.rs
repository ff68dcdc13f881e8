//! One attempt at one job: reads the story, asks the provider (again, as long as no reader has seen a word), and ends the
//! generation with its turn, as cancelled, or as failed. Called by the worker, which keeps the lease meanwhile.
//!
//! A failure after the first word keeps nothing: half a passage that nobody asked to stop is no turn, and the reason says
//! so. A cancelled generation keeps what was written: somebody wanted exactly that much.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use talewire_broker::Broker;
use talewire_proto::ErrorCode;
use talewire_proto::generation::GenerationStatus;
use talewire_store::{AuthorKind, Finish, Job, NewTurn, Store, TurnKind};
use talewire_story::{Stories, StoryContext};
use tokio::time::Instant;

use crate::context::{Assembly, Budget, Prompt, Tale, TaleTurn, assemble};
use crate::counts::{AgentCounts, count};
use crate::error::{ProviderError, Reason};
use crate::keeper::Signals;
use crate::provider::{Provider, Request};
use crate::settings::{AgentSettings, ms};
use crate::telling::{Telling, Told};

/// What every attempt works with.
pub(crate) struct Tools {
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) stories: Stories,
    pub(crate) provider: Provider,
    pub(crate) settings: AgentSettings,
    /// Who writes, as readers are told.
    pub(crate) label: String,
    pub(crate) counts: Arc<AgentCounts>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The generation has ended.
    Ended(GenerationStatus),
    /// Somebody else has the job, or it has ended otherwise.
    Fenced,
    /// The job is to be tried again by whoever claims it next.
    HandBack,
}

/// Tries at reading the story before the job is handed back.
const READ_TRIES_MAX: u32 = 6;

/// What an attempt cost, kept with the job.
#[derive(Serialize)]
struct Usage<'a> {
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    prompt_chars: usize,
    output_chars: usize,
    tries: u32,
    turns_shown: usize,
    turns_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<u64>,
    total_ms: u64,
}

/// Runs one attempt to its end.
pub(crate) async fn run(tools: &Tools, job: &Job, signals: &Signals) -> Outcome {
    let generation = &job.generation;
    if job.cancel {
        return tools.finish(&job.story, finish_of(job, GenerationStatus::Cancelled), signals).await;
    }
    if generation.attempt > tools.settings.attempts_max {
        return tools.fail(&job.story, &generation.id, generation.attempt, used_up(), None, signals).await;
    }
    let Ok(mut telling) = Telling::begin(tools, job).await else { return Outcome::Fenced };
    let tale = match read(tools, job, signals).await {
        Ok(tale) => tale,
        Err(Unread::Gone) => {
            let reason = Reason { code: "gone", message: "The story or its branch is no longer there.".into() };
            return tools.fail(&job.story, &generation.id, generation.attempt, reason, None, signals).await;
        }
        Err(Unread::Later) => return Outcome::HandBack,
    };
    let budget =
        Budget { story_chars_max: tools.settings.context_chars_max, turns_max: tools.settings.context_turns_max };
    let (prompt, assembly) = assemble(Arc::new(tale), budget);
    tracing::debug!(generation = %generation.id, attempt = generation.attempt, ?assembly, "a prompt was put together");

    let began_at = Instant::now();
    let (told, tries) = ask(tools, job, &mut telling, &prompt, signals).await;
    let usage = usage_of(tools, &telling, &prompt, &assembly, tries, began_at);
    end(tools, job, telling, told, usage, signals).await
}

/// Asks until the answer is complete or no further try is worth it.
async fn ask(tools: &Tools, job: &Job, telling: &mut Telling<'_>, prompt: &Prompt, signals: &Signals) -> (Told, u32) {
    let settings = &tools.settings;
    let mut try_number = 1;
    loop {
        let request =
            Request { prompt: prompt.clone(), tokens_max: settings.tokens_max, seed: settings.seed, try_number };
        let told = telling.tell(request, signals).await;
        let Told::Failed(error) = &told else { return (told, try_number) };
        let pause = backoff(settings, error, try_number);
        let (generation, begun) = (&job.generation.id, telling.begun);
        tracing::warn!(%generation, try_number, begun, %error, "a provider failed");
        let Some(pause) = pause.filter(|_| !begun) else { return (told, try_number) };
        count(&tools.counts.retries);
        try_number += 1;
        tokio::select! {
            biased;
            () = signals.lost.cancelled() => return (Told::Fenced, try_number),
            () = signals.cancel.cancelled() => return (Told::Cancelled, try_number),
            () = signals.drain.cancelled() => return (Told::Drained, try_number),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How long to wait before the next try; nothing if there is to be none.
fn backoff(settings: &AgentSettings, error: &ProviderError, try_number: u32) -> Option<Duration> {
    if try_number >= settings.tries_max || !error.is_worth_retrying() {
        return None;
    }
    let longest = ms(settings.backoff_ms_max);
    let doubled = ms(settings.backoff_ms).saturating_mul(1 << (try_number - 1).min(20)).min(longest);
    // Half of it is chance, so that workers that failed together do not come back together.
    let jittered = doubled.mul_f64(0.5 + fastrand::f64() / 2.0);
    match error.retry_after() {
        Some(asked) if asked > longest => None,
        Some(asked) => Some(asked.max(jittered)),
        None => Some(jittered),
    }
}

async fn end(
    tools: &Tools,
    job: &Job,
    mut telling: Telling<'_>,
    told: Told,
    usage: String,
    signals: &Signals,
) -> Outcome {
    let generation = &job.generation;
    let (status, choices) = match told {
        Told::Fenced => return Outcome::Fenced,
        Told::Drained => return Outcome::HandBack,
        Told::Failed(error) => {
            let reason = error.reason(telling.begun);
            return tools.fail(&job.story, &generation.id, generation.attempt, reason, Some(usage), signals).await;
        }
        Told::Cancelled => (GenerationStatus::Cancelled, Vec::new()),
        Told::Complete(choices) => (GenerationStatus::Done, choices),
    };
    if telling.flush().await.is_err() {
        return Outcome::Fenced;
    }
    let turn = (!telling.text.is_empty()).then(|| NewTurn { text: telling.text.into(), label: tools.label.clone() });
    let choices = choices.into_iter().map(Into::into).collect();
    let finish = Finish { turn, choices, usage: Some(usage), ..finish_of(job, status) };
    tools.finish(&job.story, finish, signals).await
}

fn finish_of(job: &Job, status: GenerationStatus) -> Finish {
    Finish {
        generation: job.generation.id.clone(),
        attempt: job.generation.attempt,
        status,
        reason: None,
        turn: None,
        choices: Vec::new(),
        usage: None,
    }
}

/// Why a job failed whose attempts all came to nothing.
pub(crate) fn used_up() -> Reason {
    let message = "The narrator could not finish this, although it was tried several times. You can ask again.";
    Reason { code: "attempts_used_up", message: message.into() }
}

enum Unread {
    Gone,
    Later,
}

/// Reads what the narrator has to know.
async fn read(tools: &Tools, job: &Job, signals: &Signals) -> Result<Tale, Unread> {
    for tried in 0..READ_TRIES_MAX {
        match tools.stories.context(&job.story, &job.generation.branch).await {
            Ok(context) => return Ok(tale_of(job, context)),
            Err(refusal) if refusal.code == ErrorCode::NotFound => return Err(Unread::Gone),
            Err(refusal) => tracing::warn!(generation = %job.generation.id, %refusal, "a story could not be read yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50 << tried)) => {}
            () = signals.lost.cancelled() => return Err(Unread::Later),
            () = signals.drain.cancelled() => return Err(Unread::Later),
        }
    }
    Err(Unread::Later)
}

fn tale_of(job: &Job, context: StoryContext) -> Tale {
    let turns = context.turns.into_iter().map(|turn| TaleTurn {
        number: turn.number,
        by_agent: turn.author.kind == AuthorKind::Agent,
        author: turn.author.name,
        is_choice: turn.kind == TurnKind::Choice,
        text: turn.text.into_string(),
    });
    Tale {
        story: job.story.as_str().into(),
        title: context.title.into_string(),
        cast: context.members,
        turns: turns.collect(),
        instruction: job.instruction.as_ref().map(|words| words.as_str().into()),
    }
}

fn usage_of(
    tools: &Tools,
    telling: &Telling<'_>,
    prompt: &Prompt,
    assembly: &Assembly,
    tries: u32,
    began_at: Instant,
) -> String {
    if let Some(tokens) = telling.usage {
        tools.counts.prompt_tokens.fetch_add(tokens.prompt, std::sync::atomic::Ordering::Relaxed);
        tools.counts.output_tokens.fetch_add(tokens.output, std::sync::atomic::Ordering::Relaxed);
    }
    let millis = |from: Instant, to: Instant| u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX);
    let usage = Usage {
        label: &tools.label,
        prompt_tokens: telling.usage.map(|tokens| tokens.prompt),
        output_tokens: telling.usage.map(|tokens| tokens.output),
        prompt_chars: prompt.system.chars().count() + prompt.user.chars().count(),
        output_chars: telling.text.chars().count(),
        tries,
        turns_shown: assembly.turns.len(),
        turns_left_out: assembly.turns_left_out,
        first_token_ms: telling.first_token_at.map(|at| millis(began_at, at)),
        total_ms: millis(began_at, Instant::now()),
    };
    serde_json::to_string(&usage).expect("numbers and a label are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_heed_the_server() {
        let settings = AgentSettings::default();
        let busy = |retry_after| ProviderError::Busy { status: 529, retry_after };
        let first = backoff(&settings, &busy(None), 1).expect("a try is left");
        assert!((250..=500).contains(&first.as_millis()));
        let second = backoff(&settings, &busy(None), 2).expect("a try is left");
        assert!((500..=1_000).contains(&second.as_millis()));
        assert_eq!(backoff(&settings, &busy(None), 3), None);
        let asked = Some(Duration::from_secs(7));
        assert_eq!(backoff(&settings, &ProviderError::RateLimited { retry_after: asked }, 1), asked);
        assert_eq!(backoff(&settings, &busy(Some(Duration::from_secs(3_600))), 1), None);
        assert_eq!(backoff(&settings, &ProviderError::Refused, 1), None);
    }
}
