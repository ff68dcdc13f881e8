//! Why a run ended early, and the exit code that says so.

use std::io;
use std::process::ExitCode;

/// Why a run cannot go on. [`LoadError::Wrong`] is the server's fault, [`LoadError::Descriptors`] the machine's.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A reader got what it should not have got, or not what it should.
    #[error("{count} deliveries were wrong; the first: {first}")]
    Wrong {
        /// How many.
        count: u64,
        /// The first of them, for people.
        first: String,
    },
    /// Nothing came any more although something was due.
    #[error("nothing came for {waited_s} s: {waiting_for}")]
    Stalled {
        /// How long we waited.
        waited_s: u64,
        /// What was due.
        waiting_for: String,
    },
    /// The run as a whole took too long.
    #[error("the run was not over after {0} s (--deadline-s)")]
    Deadline(u64),
    /// More descriptors are needed than the process may have.
    #[error("{needed} descriptors are needed and the hard limit is {hard}: raise it (ulimit -Hn) or ask for less")]
    Descriptors {
        /// How many the run needs.
        needed: u64,
        /// How many there may be.
        hard: u64,
    },
    /// The server refused something or closed a connection.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The figures of a process cannot be read.
    #[error("process {pid}: {error}")]
    Process {
        /// Its id.
        pid: u32,
        /// Why not.
        error: io::Error,
    },
    /// Options that do not fit together.
    #[error("{0}")]
    Options(String),
    /// A socket or a child process failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl LoadError {
    /// Names what was being done when an operation of the system failed.
    pub fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }

    /// 3 when a delivery was wrong or missing, 1 when the run could not be made. (2 is for the command line.)
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Wrong { .. } | Self::Stalled { .. } => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}
