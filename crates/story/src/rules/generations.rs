//! How people ask the narrator to go on, and to stop.

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{BranchId, ErrorCode, GenerationId, Payload, TurnId, UserId};
use talewire_store::{Decision, Effect, Facts, Generation, Refusal, StoryEvent, Words};

use super::{log, narrator, room, writer};
use crate::answers::OfGeneration;
use crate::limits::StoryLimits;
use crate::refusal::not_found;

/// A writer asks the narrator to go on. One generation at a time on a branch.
pub(crate) fn request(
    facts: &Facts,
    id: GenerationId,
    instruction: Option<Words>,
    limits: &StoryLimits,
) -> Result<Decision, Refusal> {
    let (story, me) = writer(facts)?;
    let branch = facts.branch.as_ref().ok_or_else(|| not_found("branch"))?;
    if branch.open.is_some() {
        return Err(ErrorCode::GenerationOpen.into());
    }
    room(story.turns, limits.turns_per_story_max, "the story has as many turns as it may")?;
    room(
        facts.open_generations,
        limits.open_generations_per_story_max,
        "the narrator writes on as many branches as it may",
    )?;
    room(
        facts.open_generations_of_user,
        limits.open_generations_per_user_max,
        "the narrator is still writing elsewhere for you",
    )?;
    let after = branch.tip.as_ref().map(|tip| tip.id.clone());
    let generation = queued(id, branch.branch.id.clone(), &me.user, after, facts.now_ms);
    let mut effects = vec![log(StoryEvent::GenerationRequested { generation: generation.clone() })];
    effects.extend(instruction.map(|words| Effect::Instruct(generation.id.clone(), words)));
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfGeneration { generation }) })
}

/// A writer asks the narrator to stop. What waits ends at once; what runs is told to end; what has ended stays as it is.
pub(crate) fn stop(facts: &Facts) -> Result<Decision, Refusal> {
    let (story, _) = writer(facts)?;
    let found = facts.generation.as_ref().ok_or_else(|| not_found("generation"))?;
    let mut generation = found.clone();
    let effects = match found.status {
        GenerationStatus::Queued => {
            generation.status = GenerationStatus::Cancelled;
            let event = StoryEvent::GenerationEnded { generation: generation.clone(), turn: None, choices: Vec::new() };
            vec![log(event)]
        }
        GenerationStatus::Running => vec![Effect::Cancel(generation.id.clone())],
        GenerationStatus::Done | GenerationStatus::Cancelled | GenerationStatus::Failed => Vec::new(),
    };
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfGeneration { generation }) })
}

/// A generation that waits for a worker.
pub(super) fn queued(
    id: GenerationId,
    branch: BranchId,
    by: &UserId,
    after: Option<TurnId>,
    now_ms: i64,
) -> Generation {
    Generation {
        id,
        branch,
        agent: narrator(),
        status: GenerationStatus::Queued,
        attempt: 0,
        by: by.clone(),
        requested_at: now_ms,
        after,
        reason: None,
    }
}
