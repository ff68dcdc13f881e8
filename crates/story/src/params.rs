//! What each method takes, as it comes from the wire: ids are checked by their types, unknown fields are refused, texts
//! and keys are checked by [`crate::rules::texts`].

use serde::Deserialize;
use talewire_proto::{BranchId, ChoiceId, ErrorCode, GenerationId, Payload, StoryId, TurnId};
use talewire_store::{InviteCode, Refusal, Role, Words};

/// Reads the parameters of a method.
///
/// What the parser says is passed on only where it cannot hold story text.
pub(crate) fn read<'a, T: Deserialize<'a>>(data: &'a Payload) -> Result<T, Refusal> {
    data.read().map_err(|error| {
        let text = error.to_string();
        let telling = ["missing field", "duplicate field"].iter().any(|start| text.starts_with(start));
        let message = if telling {
            text
        } else if text.starts_with("unknown field") {
            "a parameter is not known".to_owned()
        } else {
            "a parameter has the wrong form".to_owned()
        };
        Refusal::new(ErrorCode::BadRequest, message)
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) title: Words,
    pub(crate) opening: Option<Words>,
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    pub(crate) limit: Option<usize>,
    pub(crate) before: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    pub(crate) story: StoryId,
    pub(crate) branch: Option<BranchId>,
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turns {
    pub(crate) story: StoryId,
    pub(crate) branch: BranchId,
    pub(crate) before: TurnId,
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    pub(crate) story: StoryId,
    pub(crate) title: Words,
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteCreate {
    pub(crate) story: StoryId,
    pub(crate) role: Role,
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteList {
    pub(crate) story: StoryId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteRevoke {
    pub(crate) story: StoryId,
    pub(crate) code: InviteCode,
}

/// For `invite.show` and `story.join`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByCode {
    pub(crate) code: InviteCode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TurnAdd {
    pub(crate) story: StoryId,
    pub(crate) branch: BranchId,
    pub(crate) text: Words,
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationRequest {
    pub(crate) story: StoryId,
    pub(crate) branch: BranchId,
    pub(crate) instruction: Option<Words>,
    pub(crate) key: String,
}

/// For `generation.stop` and `generation.snapshot`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfGeneration {
    pub(crate) story: StoryId,
    pub(crate) generation: GenerationId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChoicePick {
    pub(crate) story: StoryId,
    pub(crate) choice: ChoiceId,
    pub(crate) key: String,
}
