//! How many descriptors the process may have: raised as far as it goes, and told where that is less than the settings promise.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside sockets: the database, listeners, the standard streams.
const OTHERS: u64 = 64;

/// Raises the limit of descriptors to what the system allows, and warns if that is too few for so many sockets.
pub(crate) fn raise(sockets_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files stays where it is");
        }
    }
    if let Some(missing) = missing(getrlimit(Resource::Nofile).current, sockets_max) {
        tracing::warn!(
            sockets_max,
            missing,
            "the system allows too few open files for http.sockets_max: raise the hard limit (ulimit -Hn), or lower the setting"
        );
    }
}

/// How many descriptors are too few, if any. No limit is enough for everything.
fn missing(limit: Option<u64>, sockets_max: usize) -> Option<u64> {
    let missing = (sockets_max as u64).saturating_add(OTHERS).saturating_sub(limit?);
    (missing > 0).then_some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(missing(None, 1_000_000), None);
        assert_eq!(missing(Some(1_064), 1_000), None);
        assert_eq!(missing(Some(1_024), 1_000), Some(40));
    }

    #[test]
    fn the_soft_limit_ends_up_at_the_hard_one() {
        raise(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
