//! What this node has, for server programs and for other nodes that ask on their behalf: connections page by page, and channels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use talewire_proto::{Channel, ClientId, ErrorCode, UserId};

use crate::control;
use crate::node::Node;

/// Which connections are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionsAsked {
    /// Of this user; nothing for everybody's.
    pub(crate) user: Option<UserId>,
    /// From this thread on,
    pub(crate) thread: usize,
    /// there from this place on.
    pub(crate) place: u64,
    /// At most so many.
    pub(crate) most: usize,
}

/// A connection, as server programs see it, and where a page that begins with it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) thread: usize,
    pub(crate) place: u64,
    pub(crate) client: ClientId,
    pub(crate) user: UserId,
    pub(crate) transport: String,
    pub(crate) protocol: String,
    pub(crate) channels: usize,
    pub(crate) connected_at: i64,
}

/// Connections of this node, in no order that means anything. Who comes while one reads on may be missed.
pub(crate) async fn connections(node: &Node, asked: &ConnectionsAsked) -> Result<Vec<Seen>, ErrorCode> {
    let Some(inboxes) = node.inboxes() else { return Err(ErrorCode::Unavailable) };
    let most = asked.most.min(node.settings.api_items_max.saturating_add(1));
    let mut found: Vec<Seen> = Vec::new();
    let mut place = asked.place;
    for thread in asked.thread..inboxes.threads() {
        let room = most - found.len();
        if room == 0 {
            break;
        }
        let user = asked.user.clone();
        found.extend(inboxes.ask(thread, move |reactor| control::list(reactor, user.as_ref(), place, room)).await?);
        place = 0;
    }
    Ok(found)
}

/// Which channels are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelsAsked {
    /// A name with `*` for any text and `?` for any character; empty for all.
    pub(crate) pattern: String,
    /// At most so many: the first by name.
    pub(crate) most: usize,
}

/// Channels that somebody is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct ChannelsFound {
    /// How many connections each has.
    pub(crate) channels: BTreeMap<Channel, u64>,
    /// There are more, behind the last of these.
    pub(crate) cut: bool,
}

impl ChannelsFound {
    /// Adds what another node has. Each has told its first ones by name: what is among the first of all is counted in full.
    pub(crate) fn add(&mut self, other: Self, most: usize) {
        self.cut |= other.cut;
        for (channel, clients) in other.channels {
            *self.channels.entry(channel).or_default() += clients;
        }
        while self.channels.len() > most {
            self.channels.pop_last();
            self.cut = true;
        }
    }
}

/// Channels with subscribers on this node.
pub(crate) async fn channels(node: &Node, asked: &ChannelsAsked) -> Result<ChannelsFound, ErrorCode> {
    let (hub, most) = (node.hub.clone(), asked.most.min(node.settings.api_items_max));
    let pattern = asked.pattern.clone();
    let fits = move |channel: &Channel| pattern.is_empty() || fits(pattern.as_bytes(), channel.as_str().as_bytes());
    // It may be long, and this thread has connections to serve.
    let found = tokio::task::spawn_blocking(move || hub.list_channels(most, fits)).await;
    let (channels, all) = found.map_err(|_| ErrorCode::Internal)?;
    Ok(ChannelsFound { channels: channels.into_iter().map(|(name, n)| (name, u64::from(n))).collect(), cut: !all })
}

/// Whether a name is what a pattern describes, without trying again more often than there are stars.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(expected) if *expected == b'?' || *expected == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                (p, n) = (behind, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_describes_names() {
        for (pattern, name, expected) in [
            ("chat:*", "chat:1", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chats:1", false),
            ("*", "anything:1", true),
            ("*:1", "a:1:1", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("c?at:1", "chat:1", true),
            ("c?at:1", "cat:1", false),
            ("chat:1", "chat:1", true),
            ("chat:1", "chat:12", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn channels_of_several_nodes_are_counted_together() {
        let found = |names: &[(&str, u64)], cut| ChannelsFound {
            channels: names.iter().map(|(name, n)| (name.parse().expect("a channel"), *n)).collect(),
            cut,
        };
        let mut all = found(&[("a", 1), ("c", 1)], false);
        all.add(found(&[("a", 2), ("b", 1)], true), 3);
        assert_eq!(all, found(&[("a", 3), ("b", 1), ("c", 1)], true));
        all.add(found(&[("b", 1), ("bb", 1)], false), 3);
        assert_eq!(all, found(&[("a", 3), ("b", 2), ("bb", 1)], true));
    }
}
