//! How people add turns. An agent's turn is the end of its generation, and is numbered by the store in the same way.

use talewire_proto::{Payload, TurnId};
use talewire_store::{Decision, Facts, Refusal, StoryEvent, Turn, TurnKind, Words};

use super::{log, person, room, writer};
use crate::answers::OfTurn;
use crate::limits::StoryLimits;
use crate::refusal::not_found;

/// A writer adds a turn to the end of a branch, whether or not an agent writes there at the moment.
pub(crate) fn add(facts: &Facts, id: TurnId, text: Words, limits: &StoryLimits) -> Result<Decision, Refusal> {
    let (story, me) = writer(facts)?;
    let branch = facts.branch.as_ref().ok_or_else(|| not_found("branch"))?;
    room(story.turns, limits.turns_per_story_max, "the story has as many turns as it may")?;
    let turn = Turn {
        id,
        branch: branch.branch.id.clone(),
        number: branch.tip.as_ref().map_or(0, |tip| tip.number) + 1,
        author: person(me),
        kind: TurnKind::Prose,
        text,
        created_at: facts.now_ms,
        generation: None,
    };
    let effects = vec![log(StoryEvent::TurnAdded { turn: turn.clone() })];
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfTurn { turn }) })
}
