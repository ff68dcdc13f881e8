//! Who comes in: invites and joining.

use talewire_proto::{ErrorCode, Payload};
use talewire_store::{Decision, Effect, Facts, Invite, InviteCode, Member, Refusal, Role, Story, StoryEvent};

use super::{log, owner, room};
use crate::answers::{Joined, Nothing, OfInvite};
use crate::limits::StoryLimits;

/// The owner makes an invite for a writer or a reader.
pub(crate) fn invite(facts: &Facts, code: InviteCode, role: Role, limits: &StoryLimits) -> Result<Decision, Refusal> {
    let (story, _) = owner(facts)?;
    if role == Role::Owner {
        return Err(Refusal::new(ErrorCode::BadRequest, "an invite is for a writer or a reader"));
    }
    room(facts.invites, limits.invites_per_story_max, "the story has as many invites as it may")?;
    let invite =
        Invite { code, role, created_at: facts.now_ms, expires_at: facts.now_ms + limits.invite_ttl_ms, uses: 0 };
    let effects = vec![Effect::Invite(invite.clone())];
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&OfInvite { invite }) })
}

/// The owner ends an invite. One that is not there is as good as ended.
pub(crate) fn revoke(facts: &Facts, code: InviteCode) -> Result<Decision, Refusal> {
    let (story, _) = owner(facts)?;
    Ok(Decision { story: story.id.clone(), effects: vec![Effect::Revoke(code)], answer: Payload::of(&Nothing {}) })
}

/// Somebody joins by an invite. Who is in already stays what they are.
pub(crate) fn join(
    facts: &Facts,
    user: &talewire_proto::UserId,
    name: &str,
    limits: &StoryLimits,
) -> Result<Decision, Refusal> {
    // Unknown, revoked and expired look alike, so that codes cannot be sounded out.
    let (Some(found), Some(story)) = (&facts.invite, &facts.story) else { return Err(ErrorCode::BadInvite.into()) };
    if found.invite.expires_at <= facts.now_ms {
        return Err(ErrorCode::BadInvite.into());
    }
    if let Some(me) = &facts.me {
        let answer = Payload::of(&Joined { story: story.clone(), me: me.clone() });
        return Ok(Decision { story: story.id.clone(), effects: Vec::new(), answer });
    }
    room(story.members, limits.members_per_story_max, "the story has as many members as it may")?;
    room(facts.stories_of_user, limits.stories_per_user_max, "you are in as many stories as one person may be")?;
    let me = Member { user: user.clone(), name: name.to_owned(), role: found.invite.role, joined_at: facts.now_ms };
    let effects =
        vec![log(StoryEvent::MemberJoined { member: me.clone() }), Effect::UseInvite(found.invite.code.clone())];
    let story = Story { members: story.members + 1, ..story.clone() };
    Ok(Decision { story: story.id.clone(), effects, answer: Payload::of(&Joined { story, me }) })
}
