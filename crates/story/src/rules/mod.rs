//! The rules of stories as pure functions: facts and a command in, effects and the answer or a refusal out.
//!
//! No clock, no randomness, no I/O: the time is in the facts, fresh ids are in the command. One file per subject; the use
//! cases hand these functions to the store, which runs them inside the transaction that the facts come from.

pub(crate) mod choices;
pub(crate) mod generations;
pub(crate) mod members;
pub(crate) mod stories;
pub(crate) mod texts;
pub(crate) mod turns;

use talewire_proto::ErrorCode;
use talewire_store::{Agent, Author, AuthorKind, Effect, Facts, Member, Refusal, Role, Story, StoryEvent};

use crate::refusal::not_found;

/// The agent that every story has.
#[must_use]
pub fn narrator() -> Agent {
    Agent { id: "narrator".into(), name: "Narrator".into() }
}

/// The story and the caller in it. Strangers learn nothing, not even that it exists.
pub(crate) fn member(facts: &Facts) -> Result<(&Story, &Member), Refusal> {
    facts.story.as_ref().zip(facts.me.as_ref()).ok_or_else(|| not_found("story"))
}

/// As [`member`], for what readers may not do.
pub(crate) fn writer(facts: &Facts) -> Result<(&Story, &Member), Refusal> {
    let (story, me) = member(facts)?;
    if me.role.may_write() {
        Ok((story, me))
    } else {
        Err(Refusal::new(ErrorCode::PermissionDenied, "readers of a story cannot do this"))
    }
}

/// As [`member`], for what the owner alone may do.
pub(crate) fn owner(facts: &Facts) -> Result<(&Story, &Member), Refusal> {
    let (story, me) = member(facts)?;
    if me.role == Role::Owner {
        Ok((story, me))
    } else {
        Err(Refusal::new(ErrorCode::PermissionDenied, "only the owner of a story can do this"))
    }
}

/// Refuses what would pass a limit.
pub(crate) fn room(there: u64, max: u64, what: &str) -> Result<(), Refusal> {
    if there < max { Ok(()) } else { Err(Refusal::new(ErrorCode::LimitExceeded, format!("{what} (at most {max})"))) }
}

fn person(me: &Member) -> Author {
    Author { kind: AuthorKind::Person, id: me.user.as_str().to_owned(), name: me.name.clone() }
}

fn log(event: StoryEvent) -> Effect {
    Effect::Log(Box::new(event))
}
