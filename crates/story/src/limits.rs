//! The named limits of stories, each with its unit in its name; its doc says what happens beyond it.

use serde::{Deserialize, Serialize};

/// Limits of stories. `docs/operations.md` lists them with their settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoryLimits {
    /// Longest title, in characters; longer ones are refused with 422.
    pub title_chars_max: usize,
    /// Longest turn of a person, in characters; longer ones are refused with 422.
    pub turn_chars_max: usize,
    /// Longest instruction to an agent, in characters; longer ones are refused with 422.
    pub instruction_chars_max: usize,
    /// Longest key of a call, in characters; longer ones are refused with 107.
    pub key_chars_max: usize,
    /// Turns in one page when the caller names no number.
    pub page_turns_default: usize,
    /// Turns in one page; a caller who asks for more gets this many.
    pub page_turns_max: usize,
    /// Text in one page, in bytes; the page ends before it is passed, but has one turn at least.
    pub page_bytes_max: usize,
    /// Stories in one page of a list; a caller who asks for more gets this many.
    pub page_stories_max: usize,
    /// Stories that one person may be a member of; creating and joining beyond it are refused with 106.
    pub stories_per_user_max: u64,
    /// Turns of one story, in all branches; people's turns, picks and requests beyond it are refused with 106.
    pub turns_per_story_max: u64,
    /// Branches of one story; picks beyond it are refused with 106.
    pub branches_per_story_max: u64,
    /// Members of one story; joining beyond it is refused with 106.
    pub members_per_story_max: u64,
    /// Invites of one story that are good at the same time; one more is refused with 106.
    pub invites_per_story_max: u64,
    /// Generations of one story that are open at the same time; one more is refused with 106, and a pick asks for none.
    pub open_generations_per_story_max: u64,
    /// Generations that one person has asked for, in all stories, and that are open at the same time; one more is refused
    /// with 106, and a pick asks for none. Keeps one guest from holding every worker.
    pub open_generations_per_user_max: u64,
    /// Time for which an invite is good, in milliseconds; then it is refused with 410.
    pub invite_ttl_ms: i64,
    /// Largest export, in bytes; a longer story is refused with 106.
    pub export_bytes_max: usize,
    /// Turns that an agent is shown; older ones are left out.
    pub context_turns_max: usize,
    /// Text that an agent is shown, in bytes; older turns are left out.
    pub context_bytes_max: usize,
}

impl Default for StoryLimits {
    fn default() -> Self {
        Self {
            title_chars_max: 120,
            turn_chars_max: 8_000,
            instruction_chars_max: 500,
            key_chars_max: 64,
            page_turns_default: 50,
            page_turns_max: 200,
            page_bytes_max: 524_288,
            page_stories_max: 100,
            stories_per_user_max: 500,
            turns_per_story_max: 10_000,
            branches_per_story_max: 200,
            members_per_story_max: 100,
            invites_per_story_max: 20,
            open_generations_per_story_max: 4,
            open_generations_per_user_max: 3,
            invite_ttl_ms: 7 * 24 * 60 * 60 * 1_000,
            export_bytes_max: 16_777_216,
            context_turns_max: 200,
            context_bytes_max: 262_144,
        }
    }
}
