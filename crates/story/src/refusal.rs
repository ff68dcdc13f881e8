//! Faults below to refusals above: logged here, once, and told without their details.

use talewire_broker::BrokerError;
use talewire_proto::ErrorCode;
use talewire_store::{Refusal, StoreError};

/// What a caller hears when the store fails.
pub(crate) fn of_store(error: StoreError) -> Refusal {
    if error.is_temporary() {
        tracing::warn!(%error, "a use case of stories is put off");
        ErrorCode::Unavailable.into()
    } else {
        tracing::error!(%error, "a use case of stories failed");
        ErrorCode::Internal.into()
    }
}

/// What a caller hears when the broker fails.
pub(crate) fn of_broker(error: BrokerError) -> Refusal {
    tracing::warn!(%error, "the broker did not give a generation's text");
    ErrorCode::Unavailable.into()
}

/// For what does not exist, and for what is not the caller's to know of: the two cannot be told apart.
pub(crate) fn not_found(what: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no such {what}, or it is not yours to see"))
}
