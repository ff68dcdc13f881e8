//! What can go wrong on the way to PostgreSQL and there, sorted by what is to be done about it: again, elsewhere, or told.

use tokio_postgres::error::SqlState;

use crate::StoreError;

/// Why a try did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection or the server said so.
    Database(tokio_postgres::Error),
    /// We did; the transaction is undone.
    Ours(StoreError),
    /// The commit was sent and not answered: nobody knows whether it happened.
    Unknown(tokio_postgres::Error),
}

/// How one try ended.
pub(super) type Tried<T> = Result<T, Failure>;

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Ours(error)
    }
}

impl Failure {
    /// Whether the transaction was undone because of what others did at the same time.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Database(error) => {
                let code = error.code();
                code == Some(&SqlState::T_R_SERIALIZATION_FAILURE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
            }
            Self::Ours(_) | Self::Unknown(_) => false,
        }
    }

    /// Whether nothing was done, because the connection was gone before.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Database(error) if is_connection(error))
    }

    /// Whether the connection can be used again after a rollback.
    pub(super) fn spares_connection(&self) -> bool {
        match self {
            // A server that has become a standby refuses writes for good: look for another one.
            Self::Database(error) => {
                !is_connection(error) && error.code() != Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
            }
            Self::Ours(_) => true,
            Self::Unknown(_) => false,
        }
    }

    /// What the caller is told.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Database(error) => told(&error),
            Self::Ours(error) => error,
            Self::Unknown(error) => {
                StoreError::Unavailable(format!("the commit was not answered: {}", sentence(&error)))
            }
        }
    }
}

/// Whether the connection itself has ended, or is about to.
fn is_connection(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            code.code().starts_with("08")
                || *code == SqlState::ADMIN_SHUTDOWN
                || *code == SqlState::CRASH_SHUTDOWN
                || *code == SqlState::CANNOT_CONNECT_NOW
                || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        }
    }
}

/// The server's message and code, without the values that its details may show.
pub(super) fn sentence(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Sorts PostgreSQL's codes by what a caller can do.
pub(super) fn told(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else { return unavailable_or_broken(error) };
    if *code == SqlState::DISK_FULL {
        return StoreError::Full("the disk is full");
    }
    // Connections, resources, limits, locks and timeouts, operators, the system, rights and names: somebody can mend that
    // beside us. The rest is a fault of ours or of the data.
    let temporary = ["08", "25006", "28", "3D", "40", "42501", "53", "54", "55", "57", "58"];
    if temporary.iter().any(|class| code.code().starts_with(class)) {
        StoreError::Unavailable(sentence(error))
    } else {
        StoreError::Broken(sentence(error))
    }
}

/// Errors without a code are the connection's, but for values that do not fit their types.
fn unavailable_or_broken(error: &tokio_postgres::Error) -> StoreError {
    let text = sentence(error);
    if error.to_string().starts_with("error serializing") || error.to_string().starts_with("error deserializing") {
        StoreError::Broken(text)
    } else {
        StoreError::Unavailable(text)
    }
}
