//! Fresh ids and invite codes from the operating system's randomness: 100 bits each, not to be guessed.

use talewire_proto::ErrorCode;
use talewire_proto::ids::text_of_random;
use talewire_store::{InviteCode, Refusal};

/// A fresh id, for example `fresh(StoryId::from_random)`.
pub(crate) fn fresh<T>(make: impl FnOnce([u8; 13]) -> T) -> Result<T, Refusal> {
    let mut bytes = [0; 13];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the operating system gives no randomness");
        Refusal::from(ErrorCode::Internal)
    })?;
    Ok(make(bytes))
}

/// A fresh invite code: 20 letters and digits.
pub(crate) fn invite_code() -> Result<InviteCode, Refusal> {
    fresh(|bytes| InviteCode::new(&text_of_random(bytes)))
}
