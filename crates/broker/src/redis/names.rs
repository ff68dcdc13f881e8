//! The names of keys and of channels to announce on.
//!
//! What must be changed in one step carries the same hash tag, so that a cluster keeps it on one server. The tag is the channel's name
//! between braces that we put there: names of channels hold letters, digits and `_.:#$,-` alone ([`Channel`]), so that none can
//! end its tag or reach the keys of another. Other text from outside is written in hexadecimal digits.

use std::fmt::Write as _;

use talewire_proto::Channel;

use crate::NodeId;

/// Names under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Whether a prefix can stand before keys: it must not have a hash tag of its own.
    pub(crate) fn is_prefix(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
    }

    /// Where a channel's deliveries are announced.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        format!("{}:c:{{{channel}}}", self.prefix)
    }

    pub(crate) fn meta(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'm')
    }

    pub(crate) fn stream(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'h')
    }

    pub(crate) fn keys(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'k')
    }

    pub(crate) fn order_of_keys(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'o')
    }

    pub(crate) fn presence(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'p')
    }

    pub(crate) fn generation(&self, channel: &Channel) -> String {
        self.of_channel(channel, 'g')
    }

    pub(crate) fn text(&self, channel: &Channel) -> String {
        self.of_channel(channel, 't')
    }

    fn of_channel(&self, channel: &Channel, what: char) -> String {
        format!("{}:c:{{{channel}}}:{what}", self.prefix)
    }

    /// The nodes, by the time until which they are taken to live.
    pub(crate) fn nodes(&self) -> String {
        format!("{}:n:{{nodes}}", self.prefix)
    }

    /// What the nodes report.
    pub(crate) fn reports(&self) -> String {
        format!("{}:n:{{nodes}}:r", self.prefix)
    }

    /// The channels in which somebody is present on a node.
    pub(crate) fn channels_of(&self, node: &str) -> String {
        format!("{}:n:{{{}}}:c", self.prefix, hex(node.as_bytes()))
    }

    /// Who holds which channels, of one part of all channels.
    pub(crate) fn records(&self, part: usize) -> String {
        format!("{}:n:{{held-{part}}}", self.prefix)
    }

    /// What one name holds of that part.
    pub(crate) fn held(&self, name: &str, part: usize) -> String {
        format!("{}:n:{{held-{part}}}:{}", self.prefix, hex(name.as_bytes()))
    }

    /// The names that may hold channels of that part.
    pub(crate) fn holders(&self, part: usize) -> String {
        format!("{}:n:{{held-{part}}}:names", self.prefix)
    }

    /// Where letters to a node are sent.
    pub(crate) fn letters(&self, node: &NodeId) -> String {
        format!("{}:n:{{{}}}:l", self.prefix, hex(node.as_str().as_bytes()))
    }

    /// Where all nodes listen.
    pub(crate) fn everybody(&self) -> String {
        format!("{}:n:{{everybody}}", self.prefix)
    }

    /// Where one node listens for its own probes of one connection.
    pub(crate) fn probe(&self, node: &NodeId, connection: u64) -> String {
        format!("{}:n:{{{}}}:probe:{connection}", self.prefix, hex(node.as_str().as_bytes()))
    }

    /// Wake-ups for jobs.
    pub(crate) fn jobs(&self) -> String {
        format!("{}:n:{{jobs}}", self.prefix)
    }

    pub(crate) fn lease(&self, name: &str) -> String {
        format!("{}:n:{{lease-{}}}", self.prefix, hex(name.as_bytes()))
    }

    pub(crate) fn mark(&self, mark: &str) -> String {
        format!("{}:n:{{mark-{}}}", self.prefix, hex(mark.as_bytes()))
    }

    pub(crate) fn cursor(&self, name: &str) -> String {
        format!("{}:n:{{cursor-{}}}", self.prefix, hex(name.as_bytes()))
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

/// Hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// The hash slot of a name: of what stands between its first braces, if they hold something.
pub(crate) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(name);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16 as clusters use it: polynomial 0x1021, from 0, most significant bit first.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_clusters() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{foo}.bar"), 12_182);
        assert_eq!(slot("{}foo"), crc16(b"{}foo") % SLOTS);
    }

    #[test]
    fn what_belongs_to_a_channel_stands_in_one_slot() {
        let names = Names::new("tw");
        let chat: Channel = "chat:a".parse().expect("a plain name");
        let of_chat = [names.meta(&chat), names.stream(&chat), names.keys(&chat), names.presence(&chat)];
        assert!(of_chat.iter().all(|name| slot(name) == slot(&names.channel(&chat))));
        assert_eq!(slot(&names.channel(&chat)), slot("chat:a"));
    }

    #[test]
    fn text_from_outside_cannot_leave_its_key() {
        let names = Names::new("tw");
        assert_eq!(names.mark("}:{a\r\n"), "tw:n:{mark-7d3a7b610d0a}");
        assert!(!Names::is_prefix("a{b}") && !Names::is_prefix("") && Names::is_prefix("talewire-2"));
    }
}
