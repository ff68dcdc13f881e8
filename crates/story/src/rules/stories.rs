//! How a story begins, and how it gets another title.

use talewire_proto::{BranchId, Payload, StoryId, TurnId, UserId};
use talewire_store::{Decision, Facts, Member, Refusal, Role, Story, StoryEvent, Turn, TurnKind, Words};

use super::{log, owner, person, room};
use crate::answers::OfStory;
use crate::limits::StoryLimits;

/// Somebody begins a story.
pub(crate) struct Create {
    pub(crate) story: StoryId,
    pub(crate) branch: BranchId,
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) title: Words,
    /// The first turn and its id.
    pub(crate) opening: Option<(TurnId, Words)>,
}

/// The story, its owner as its first member, and the opening as its first turn.
pub(crate) fn create(facts: &Facts, command: Create, limits: &StoryLimits) -> Result<Decision, Refusal> {
    room(facts.stories_of_user, limits.stories_per_user_max, "you are in as many stories as one person may be")?;
    let now = facts.now_ms;
    let mut story = Story {
        id: command.story,
        title: command.title,
        owner: command.user.clone(),
        branch: command.branch.clone(),
        created_at: now,
        active_at: now,
        turns: 0,
        members: 0,
    };
    let member = Member { user: command.user, name: command.name, role: Role::Owner, joined_at: now };
    let author = person(&member);
    let mut effects =
        vec![log(StoryEvent::StoryCreated { story: story.clone() }), log(StoryEvent::MemberJoined { member })];
    story.members = 1;
    if let Some((id, text)) = command.opening {
        let turn = Turn {
            id,
            branch: command.branch,
            number: 1,
            author,
            kind: TurnKind::Prose,
            text,
            created_at: now,
            generation: None,
        };
        effects.push(log(StoryEvent::TurnAdded { turn }));
        story.turns = 1;
    }
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfStory { story }) })
}

/// The owner gives the story another title. The same title again changes nothing.
pub(crate) fn rename(facts: &Facts, title: Words) -> Result<Decision, Refusal> {
    let (story, _) = owner(facts)?;
    let effects =
        if story.title == title { Vec::new() } else { vec![log(StoryEvent::StoryRenamed { title: title.clone() })] };
    let story = Story { title, ..story.clone() };
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfStory { story }) })
}
