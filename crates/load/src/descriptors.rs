//! How many descriptors the process may have: raised as far as it goes, and told if that is too little.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::LoadError;

/// Beside sockets: the standard streams, the poll, `/proc`, pipes.
const OTHERS: u64 = 32;

/// Makes room for `sockets` sockets.
///
/// # Errors
/// [`LoadError::Descriptors`] with what is missing.
pub fn make_room(sockets: usize) -> Result<(), LoadError> {
    let needed = sockets as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    // `None` means without limit.
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if needed > hard {
        return Err(LoadError::Descriptors { needed, hard });
    }
    if limit.current.is_some_and(|soft| soft < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
            .map_err(|error| LoadError::Io { doing: "raising the limit of descriptors", error: error.into() })?;
    }
    Ok(())
}
