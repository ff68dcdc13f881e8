//! What can go wrong when a channel is joined, told by what a caller can do.

use std::sync::Arc;

use talewire_broker::BrokerError;
use talewire_proto::ErrorCode;
use talewire_store::StoreError;

/// Why a channel could not be joined or read.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The broker did not do it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What several readers waited for together was not done.
    #[error("{0}")]
    Together(Arc<Self>),
}

impl HubError {
    /// What a client is told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Together(error) => error.code(),
            Self::Broker(BrokerError::Full(_)) => ErrorCode::LimitExceeded,
            Self::Broker(BrokerError::Unavailable(_) | BrokerError::Unknown(_)) | Self::Store(_) => {
                ErrorCode::Unavailable
            }
        }
    }
}
