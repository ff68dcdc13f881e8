//! Publications, entries and positions: what a channel carries, and where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, UserId};
use crate::payload::Payload;
use crate::trace::Trace;

/// Names one unbroken history of a channel. It changes whenever history was, or may have been, lost.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch from its text; clients treat it as opaque.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The epoch as text, empty where a client does not know it yet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no epoch was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A short stand-in for this epoch where there is little room, for example in event ids. Two epochs of one channel have
    /// the same digest only by a chance of 1 in 2^64.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // FNV-1a: the same on every node and in every version, which the standard hashers do not promise.
        self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// An epoch of which a client has kept only the digest. It equals no epoch, but [`Epoch::means`] the one it is of.
    #[must_use]
    pub fn of_digest(digest: u64) -> Self {
        Self(format!("{DIGEST_MARK}{digest:016x}").into())
    }

    /// The digest that this stands for, if it was made by [`Epoch::of_digest`].
    #[must_use]
    pub fn as_digest(&self) -> Option<u64> {
        u64::from_str_radix(self.0.strip_prefix(DIGEST_MARK)?, 16).ok()
    }

    /// Whether an epoch that a client has kept, whole or as its digest, is `real`.
    #[must_use]
    pub fn means(&self, real: &Self) -> bool {
        self == real || self.0.starts_with(DIGEST_MARK) && *self == Self::of_digest(real.digest())
    }
}

/// What the text of a digest begins with; no real epoch does.
const DIGEST_MARK: char = '~';

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an entry stands in its channel. The first entry has offset 1; offset 0 is the place before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Position {
    /// Rises by one with each entry.
    pub offset: u64,
    /// The history that the offset belongs to.
    pub epoch: Epoch,
}

/// From where a reader wants entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// From the oldest entry that is kept.
    Oldest,
    /// From the entry after this offset on, or, read backwards, from the entry before it down.
    After(u64),
    /// Backwards from the newest.
    Newest,
}

/// The tag that holds a publication's event type.
pub const EVENT_TAG: &str = "event";

/// Characters of an event type.
const EVENT_CHARS_MAX: usize = 64;

/// Event types that mean something of their own in a stream of Server-Sent Events.
const EVENTS_RESERVED: [&str; 9] =
    ["connected", "channel", "gap", "batch", "disconnect", "error", "open", "reply", "message"];

/// Whether a publication may have this event type: letters, digits and `_.:-`, so that no stream needs to escape it.
#[must_use]
pub fn is_event_type(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    !text.is_empty() && text.len() <= EVENT_CHARS_MAX && text.bytes().all(allowed) && !EVENTS_RESERVED.contains(&text)
}

/// Tags of one publication; more are refused.
const TAGS_MAX: usize = 16;

/// Bytes of a tag's name or value; longer ones are refused.
const TAG_BYTES_MAX: usize = 256;

/// Whether a publication may have these tags: not too many, not too long, and a good event type if there is one.
#[must_use]
pub fn tags_are_good(tags: &BTreeMap<String, String>) -> bool {
    let short = |text: &String| text.len() <= TAG_BYTES_MAX && !text.contains(|c: char| c.is_control());
    tags.len() <= TAGS_MAX
        && tags.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
        && tags.get(EVENT_TAG).is_none_or(|event| is_event_type(event))
}

/// Tags with the event type among them, if they are good together. An empty `event` is none.
#[must_use]
pub fn tags_with(event: String, mut tags: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    if !event.is_empty() {
        tags.insert(EVENT_TAG.to_owned(), event);
    }
    tags_are_good(&tags).then_some(tags)
}

/// Who published, as other subscribers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClientInfo {
    /// The user, empty for the anonymous.
    pub user: UserId,
    /// The connection; absent for publications over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// What the token or login says about the user, for example the display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Payload>,
    /// What the subscription token says about the user in this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Payload>,
}

/// One message in a channel, kept (an entry) or not (a signal).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publication {
    /// The payload, absent only in tombstones.
    pub data: Option<Payload>,
    /// Who published it, if a client did.
    pub info: Option<ClientInfo>,
    /// Short labels that filters look at.
    pub tags: BTreeMap<String, String>,
    /// When it was accepted, in Unix milliseconds; 0 if unknown. Never used for order.
    pub time_ms: i64,
    /// Where its way belongs in a trace, if it is followed. It goes with what is delivered, and is told to no client.
    pub trace: Option<Trace>,
}

impl Publication {
    /// The event type, if it has a good one.
    #[must_use]
    pub fn event(&self) -> Option<&str> {
        self.tags.get(EVENT_TAG).map(String::as_str).filter(|event| is_event_type(event))
    }
}

/// A publication that is kept in its channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, from 1.
    pub offset: u64,
    /// What it says.
    pub publication: Publication,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_means_its_epoch_and_no_other() {
        let real = Epoch::new("k3v9q2");
        assert!(real.means(&real));
        assert!(Epoch::of_digest(real.digest()).means(&real));
        assert!(!Epoch::of_digest(real.digest()).means(&Epoch::new("k3v9q3")));
        assert!(!Epoch::new("").means(&real));
        assert_eq!(Epoch::new("a").digest(), 0xaf63_dc4c_8601_ec8c, "the digest is on the wire and stays");
    }

    #[test]
    fn event_types_need_no_escaping_and_do_not_speak_for_the_server() {
        for good in ["turn", "a", "story.turn:1_x-y"] {
            assert!(is_event_type(good), "{good}");
        }
        for bad in ["", "a b", "a\nid: 1", "error", "connected", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_event_type(bad), "{bad:?}");
        }
        let tags = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        assert!(tags_are_good(&tags("event", "turn")) && tags_are_good(&tags("a", "\u{e9} b")));
        assert!(!tags_are_good(&tags("event", "a b")) && !tags_are_good(&tags("", "b")));
        assert!(!tags_are_good(&tags("a", "\r")) && !tags_are_good(&tags("a", &"x".repeat(257))));
        assert!(!tags_are_good(&(0..17).map(|n| (n.to_string(), String::new())).collect()));
    }
}
