//! I11 and I12: what a reader gets belongs to its channel, and nothing comes of a channel that was taken away.

use std::collections::HashMap;

use super::{Invariant, Promises, Verdict};
use crate::log::{Event, What};

pub(super) fn check(events: &[Event], promises: &Promises, verdict: &mut Verdict) {
    let mut revoked = HashMap::new();
    for event in events {
        match &event.what {
            What::Revoked { reader, channel } => {
                revoked.insert((reader, channel), event.at_us + promises.revoked_ms * 1_000);
            }
            What::Delivered { reader, channel, position, content } => {
                if content.tag != *channel {
                    let tag = &content.tag;
                    verdict.is_wrong(Invariant::Channels, || {
                        format!("reader {reader}: {tag}'s entry came as {channel}'s, at {position:?}")
                    });
                }
                if revoked.get(&(reader, channel)).is_some_and(|until_us| event.at_us > *until_us) {
                    verdict.is_wrong(Invariant::Revoked, || {
                        format!("reader {reader} got {position:?} of {channel}, which was taken away")
                    });
                }
            }
            What::Read { node, channel, entries, .. } => {
                for (offset, content) in entries.iter().filter(|(_, content)| content.tag != *channel) {
                    let tag = &content.tag;
                    verdict.is_wrong(Invariant::Channels, || {
                        format!("{node}: {tag}'s entry stands in {channel}, at {offset}")
                    });
                }
            }
            _ => {}
        }
    }
}
