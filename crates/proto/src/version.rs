//! Versions: what a publisher says about how new its state is, so that stale state that arrives late adds nothing.
//!
//! A publication brings one in; broker and store keep the newest of each channel and ask [`Version::supersedes`] in the
//! same step in which they would add the entry.

/// How new the state is that a publication carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Rises with every change of the state.
    pub number: u64,
    /// Names the count that `number` belongs to, for publishers that may have to begin anew; empty if there is only one.
    pub epoch: String,
}

impl Version {
    /// The longest epoch of a version in bytes.
    pub const EPOCH_BYTES_MAX: usize = 64;

    /// Whether this is newer than what is kept. A number of another count says nothing about ours: the newcomer wins.
    #[must_use]
    pub fn supersedes(&self, kept: Option<&Self>) -> bool {
        kept.is_none_or(|kept| self.number > kept.number || (!self.epoch.is_empty() && self.epoch != kept.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_supersedes() {
        let version = |number, epoch: &str| Version { number, epoch: epoch.into() };
        let check = |new: (u64, &str), kept: (u64, &str), expected: bool| {
            let (new, kept) = (version(new.0, new.1), version(kept.0, kept.1));
            assert_eq!(new.supersedes(Some(&kept)), expected, "{new:?} after {kept:?}");
        };
        assert!(version(0, "").supersedes(None));
        check((2, ""), (1, ""), true);
        check((2, ""), (2, ""), false);
        check((1, ""), (2, ""), false);
        check((1, "b"), (2, "a"), true);
        check((1, "a"), (2, "a"), false);
        check((1, ""), (2, "a"), false);
        check((1, "a"), (2, ""), true);
        check((u64::MAX, ""), (u64::MAX - 1, ""), true);
    }
}
