//! Use cases that only read. Membership is checked in the snapshot or before it; nobody is ever taken out of a story.

use talewire_proto::generation::GenerationFrame;
use talewire_proto::{ErrorCode, Payload, StoryId};
use talewire_store::{PageSize, Refusal, Role, StoryCursor, Turn};

use crate::refusal::{not_found, of_broker, of_store};
use crate::{Caller, Stories, answers, params};

impl Stories {
    pub(crate) async fn list(&self, who: &Caller, params: params::List) -> Result<Payload, Refusal> {
        let most = self.limits.page_stories_max.max(1);
        let limit = params.limit.unwrap_or(most).clamp(1, most);
        let before = params.before.as_deref().map(cursor_of).transpose()?;
        let mut stories = self.store.stories_of(&who.user, limit + 1, before).await.map_err(of_store)?;
        let more = stories.len() > limit;
        stories.truncate(limit);
        let next = stories.last().filter(|_| more).map(|last| format!("{}.{}", last.active_at, last.id));
        Ok(Payload::of(&answers::Listed { stories, next }))
    }

    pub(crate) async fn open(&self, who: &Caller, params: params::Open) -> Result<Payload, Refusal> {
        let size = self.page_size(params.limit);
        let view = self.store.story_view(&params.story, params.branch.as_ref(), size).await.map_err(of_store)?;
        let view = view.ok_or_else(|| not_found("story or branch"))?;
        let me = view.members.iter().find(|member| member.user == who.user).cloned();
        let me = me.ok_or_else(|| not_found("story or branch"))?;
        Ok(Payload::of(&answers::Opened {
            story: view.story,
            me,
            members: view.members,
            branches: view.branches,
            choices: view.page.choices,
            turns: view.page.turns,
            more: view.page.more,
            generations: view.generations,
            position: view.position,
        }))
    }

    pub(crate) async fn turns(&self, who: &Caller, params: params::Turns) -> Result<Payload, Refusal> {
        self.member(who, &params.story).await?;
        let size = self.page_size(params.limit);
        let page =
            self.store.turns_before(&params.story, &params.branch, &params.before, size).await.map_err(of_store)?;
        let page = page.ok_or_else(|| not_found("branch or turn"))?;
        Ok(Payload::of(&answers::TurnsBefore { turns: page.turns, choices: page.choices, more: page.more }))
    }

    pub(crate) async fn invite_list(&self, who: &Caller, params: params::InviteList) -> Result<Payload, Refusal> {
        if self.member(who, &params.story).await? != Role::Owner {
            return Err(Refusal::new(ErrorCode::PermissionDenied, "only the owner of a story can do this"));
        }
        let invites = self.store.invites(&params.story).await.map_err(of_store)?;
        Ok(Payload::of(&answers::Invites { invites }))
    }

    pub(crate) async fn invite_show(&self, params: params::ByCode) -> Result<Payload, Refusal> {
        let found = self.store.invite(&params.code).await.map_err(of_store)?;
        let found = found.filter(|view| !view.expired).ok_or(ErrorCode::BadInvite)?;
        let shown = answers::Shown { title: found.story.title, role: found.invite.role, members: found.story.members };
        Ok(Payload::of(&shown))
    }

    pub(crate) async fn generation_snapshot(
        &self,
        who: &Caller,
        params: params::OfGeneration,
    ) -> Result<Payload, Refusal> {
        self.member(who, &params.story).await?;
        let found = self.store.generation(&params.story, &params.generation).await.map_err(of_store)?;
        let (generation, turn) = found.ok_or_else(|| not_found("generation"))?;
        let (attempt, text, status) = match turn {
            // The turn is the text's last word, whatever the stream still holds.
            Some(Turn { text, .. }) => (generation.attempt, text.into_string(), generation.status),
            None => {
                let stream = self.broker.snapshot(&params.story, &params.generation).await.map_err(of_broker)?;
                match stream {
                    Some(stream) if generation.status.is_end() => (stream.attempt, stream.text, generation.status),
                    // The stream is ahead of the row that was read before it.
                    Some(stream) if stream.attempt >= generation.attempt => {
                        (stream.attempt, stream.text, stream.status)
                    }
                    _ => (generation.attempt, String::new(), generation.status),
                }
            }
        };
        let frame = GenerationFrame::Snapshot { generation: generation.id, attempt, at: 0, text, status };
        Ok(Payload::of(&frame))
    }

    /// The caller's role; strangers learn nothing.
    pub(crate) async fn member(&self, who: &Caller, story: &StoryId) -> Result<Role, Refusal> {
        self.role(&who.user, story).await?.ok_or_else(|| not_found("story"))
    }

    fn page_size(&self, limit: Option<usize>) -> PageSize {
        let most = self.limits.page_turns_max.max(1);
        let turns_max = limit.unwrap_or(self.limits.page_turns_default).clamp(1, most);
        PageSize { turns_max, bytes_max: self.limits.page_bytes_max }
    }
}

/// A place in the list of stories, as `next` tells it.
fn cursor_of(text: &str) -> Result<StoryCursor, Refusal> {
    let wrong = || Refusal::new(ErrorCode::BadRequest, "before is the next of an earlier page");
    let (active_at, story) = text.split_once('.').ok_or_else(wrong)?;
    Ok(StoryCursor { active_at: active_at.parse().map_err(|_| wrong())?, story: story.parse().map_err(|_| wrong())? })
}
