//! How a choice is picked: the first pick starts a branch, and every later one leads there.

use talewire_proto::{BranchId, GenerationId, Payload, TurnId};
use talewire_store::{Branch, Choice, Decision, Facts, Refusal, StoryEvent, Turn, TurnKind};

use super::generations::queued;
use super::{log, person, room, writer};
use crate::answers::Picked;
use crate::limits::StoryLimits;
use crate::refusal::not_found;

/// Fresh ids for what the first pick makes.
pub(crate) struct Fresh {
    pub(crate) branch: BranchId,
    pub(crate) turn: TurnId,
    pub(crate) generation: GenerationId,
}

/// A writer picks a choice.
pub(crate) fn pick(facts: &Facts, fresh: Fresh, limits: &StoryLimits) -> Result<Decision, Refusal> {
    let (story, me) = writer(facts)?;
    let found = facts.choice.as_ref().ok_or_else(|| not_found("choice"))?;
    if let Some(picked) = &found.picked {
        let answer =
            Picked { branch: picked.branch.clone(), turn: picked.turn.clone(), generation: picked.generation.clone() };
        return Ok(Decision { story: story.id.clone(), effects: Vec::new(), answer: Payload::of(&answer) });
    }
    room(facts.branches, limits.branches_per_story_max, "the story has as many branches as it may")?;
    room(story.turns, limits.turns_per_story_max, "the story has as many turns as it may")?;
    let now = facts.now_ms;
    let choice = Choice { branch: Some(fresh.branch.clone()), ..found.choice.clone() };
    let branch = Branch {
        id: fresh.branch,
        parent: Some(found.turn.branch.clone()),
        from: Some(found.turn.id.clone()),
        choice: Some(choice.id.clone()),
        label: choice.label.clone(),
        created_at: now,
    };
    let turn = Turn {
        id: fresh.turn,
        branch: branch.id.clone(),
        number: found.turn.number + 1,
        author: person(me),
        kind: TurnKind::Choice,
        text: choice.label.clone(),
        created_at: now,
        generation: None,
    };
    // With too many generations open the pick still counts; a writer can ask the narrator later.
    let has_room = facts.open_generations < limits.open_generations_per_story_max
        && facts.open_generations_of_user < limits.open_generations_per_user_max;
    let generation =
        has_room.then(|| queued(fresh.generation, branch.id.clone(), &me.user, Some(turn.id.clone()), now));
    let answer = Picked { branch: branch.clone(), turn: turn.clone(), generation: generation.clone() };
    let effects = vec![log(StoryEvent::ChoicePicked { choice, branch, turn, generation })];
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&answer) })
}
