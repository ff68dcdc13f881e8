//! What each method gives (PROTOCOL.md, section 3), written as JSON once and kept with the call's key.

use serde::Serialize;
use talewire_proto::Position;
use talewire_store::{Branch, Choice, Generation, Invite, Member, Role, Story, Turn, Words};

/// For methods that give nothing.
#[derive(Serialize)]
pub(crate) struct Nothing {}

#[derive(Serialize)]
pub(crate) struct OfStory {
    pub(crate) story: Story,
}

#[derive(Serialize)]
pub(crate) struct Joined {
    pub(crate) story: Story,
    pub(crate) me: Member,
}

#[derive(Serialize)]
pub(crate) struct Listed {
    pub(crate) stories: Vec<Story>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Opened {
    pub(crate) story: Story,
    pub(crate) me: Member,
    pub(crate) members: Vec<Member>,
    pub(crate) branches: Vec<Branch>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) more: bool,
    pub(crate) generations: Vec<Generation>,
    pub(crate) position: Position,
}

#[derive(Serialize)]
pub(crate) struct TurnsBefore {
    pub(crate) turns: Vec<Turn>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) more: bool,
}

#[derive(Serialize)]
pub(crate) struct OfInvite {
    pub(crate) invite: Invite,
}

#[derive(Serialize)]
pub(crate) struct Invites {
    pub(crate) invites: Vec<Invite>,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) title: Words,
    pub(crate) role: Role,
    pub(crate) members: u64,
}

#[derive(Serialize)]
pub(crate) struct OfTurn {
    pub(crate) turn: Turn,
}

#[derive(Serialize)]
pub(crate) struct OfGeneration {
    pub(crate) generation: Generation,
}

#[derive(Serialize)]
pub(crate) struct Picked {
    pub(crate) branch: Branch,
    pub(crate) turn: Turn,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<Generation>,
}
