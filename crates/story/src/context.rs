//! What an agent is shown of a story before it writes. Called by the workers of `talewire-agents`.

use talewire_proto::{BranchId, StoryId};
use talewire_store::{Choice, PageSize, Refusal, Turn, Words};

use crate::Stories;
use crate::refusal::{not_found, of_store};

/// The end of a branch's path and who is in the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryContext {
    /// The story's title.
    pub title: Words,
    /// The last turns of the path, oldest first, within the limits of the context.
    pub turns: Vec<Turn>,
    /// Whether older turns were left out.
    pub more: bool,
    /// The members' display names, in the order in which they joined.
    pub members: Vec<String>,
    /// The choices that these turns offer.
    pub choices: Vec<Choice>,
}

impl Stories {
    /// What an agent is shown of a branch.
    ///
    /// # Errors
    /// Not found when the story has no such branch, or when the store does not answer.
    pub async fn context(&self, story: &StoryId, branch: &BranchId) -> Result<StoryContext, Refusal> {
        let size = PageSize { turns_max: self.limits.context_turns_max, bytes_max: self.limits.context_bytes_max };
        let view = self.store.story_view(story, Some(branch), size).await.map_err(of_store)?;
        let view = view.ok_or_else(|| not_found("story or branch"))?;
        Ok(StoryContext {
            title: view.story.title,
            turns: view.page.turns,
            more: view.page.more,
            members: view.members.into_iter().map(|member| member.name).collect(),
            choices: view.page.choices,
        })
    }
}
