//! What can go wrong in the broker, told by what a caller can do.

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Try again later; nothing was done.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// The answer was lost: it may have been done, and may be done yet. Only what is the same when it is done twice may be said again.
    #[error("the broker did not answer, and may have done it: {0}")]
    Unknown(String),
    /// A limit on what is kept is reached; nothing was done.
    #[error("the broker keeps as much as it may: {0}")]
    Full(&'static str),
}

/// Why text could not be added to a generation stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A newer attempt writes, or the generation has ended: stop writing and say nothing.
    #[error("a newer attempt writes, or the generation has ended")]
    Fenced,
    /// The text so far ends elsewhere than where this was to go on: something was lost, or had arrived all the same.
    #[error("the text so far ends at {at}")]
    Elsewhere {
        /// Where, in UTF-16 code units from the start of the attempt.
        at: u64,
    },
    /// The text would pass the limit: end the generation.
    #[error("the text of the generation is too long")]
    TooLong,
    /// Try again later.
    #[error("the broker does not answer")]
    Unavailable,
}
