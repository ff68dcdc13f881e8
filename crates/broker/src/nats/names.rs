//! The names of streams and subjects. Names from outside are one token each: letters and digits stay, all else is written `=XX`, so
//! that none can reach the subjects of another.

use std::fmt::Write as _;

use talewire_proto::Channel;

use crate::NodeId;

/// Names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

/// What a record is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Record {
    Key,
    Generation,
    Lease,
    Mark,
    Cursor,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Whether a prefix can stand in the names of streams.
    pub(super) fn is_prefix(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
    }

    /// A stream's name.
    pub(super) fn stream(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Where entries are kept; `*` for all channels.
    pub(super) fn history(&self, channel: &str) -> String {
        format!("{}.h.{channel}", self.prefix)
    }

    /// Where a channel's deliveries are announced; `*` for all channels.
    pub(super) fn announcements(&self, channel: &str) -> String {
        format!("{}.a.{channel}", self.prefix)
    }

    pub(super) fn record(&self, what: Record, name: &str) -> String {
        let what = match what {
            Record::Key => "k",
            Record::Generation => "g",
            Record::Lease => "l",
            Record::Mark => "m",
            Record::Cursor => "c",
        };
        format!("{}.r.{what}.{name}", self.prefix)
    }

    pub(super) fn records(&self) -> String {
        format!("{}.r.>", self.prefix)
    }

    /// Who is present; `*` for any.
    pub(super) fn present(&self, node: &str, channel: &str, client: &str) -> String {
        format!("{}.p.{node}.{channel}.{client}", self.prefix)
    }

    /// A node's record; `*` for all nodes.
    pub(super) fn node(&self, node: &str) -> String {
        format!("{}.n.{node}", self.prefix)
    }

    /// Who holds a channel; `*` for all channels.
    pub(super) fn holders(&self, channel: &str) -> String {
        format!("{}.o.{channel}", self.prefix)
    }

    /// A name that may hold channels; `*` for all.
    pub(super) fn holder(&self, name: &str) -> String {
        format!("{}.b.{name}", self.prefix)
    }

    /// The greatest serial of what was forgotten about who holds channels.
    pub(super) fn floor(&self) -> String {
        format!("{}.f", self.prefix)
    }

    pub(super) fn letters(&self, node: &NodeId) -> String {
        format!("{}.l.{}", self.prefix, token(node.as_str()))
    }

    pub(super) fn everybody(&self) -> String {
        format!("{}.e", self.prefix)
    }

    pub(super) fn jobs(&self) -> String {
        format!("{}.w", self.prefix)
    }

    /// Where a node answers its own probes.
    pub(super) fn probe(&self, node: &NodeId) -> String {
        format!("{}.q.{}", self.prefix, token(node.as_str()))
    }
}

pub(super) fn of(channel: &Channel) -> String {
    token(channel.as_str())
}

/// Any text as one token of a subject.
pub(super) fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02x}").expect("a String takes every byte");
        }
    }
    if token.is_empty() { "=".to_owned() } else { token }
}

/// What [`token`] has made a token of.
pub(super) fn text(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.strip_prefix('=').filter(|rest| rest.is_empty()).unwrap_or(token).bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The same for the same parts on every node and in every version; different for others but by a chance of 1 in 2^64.
pub(super) fn digest(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        (part.len() as u64).to_le_bytes().into_iter().for_each(&mut take);
        part.iter().copied().for_each(&mut take);
    }
    // Its last bytes would else move its low bits alone.
    hash ^ (hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_token_and_comes_back() {
        for name in ["chat:a", "a.b", "*", ">", "", " ", "\u{e9}=", "dm:x#a,b", "plain_-9"] {
            let token = token(name);
            assert!(!token.is_empty() && !token.contains(['.', '*', '>', ' ']), "{token}");
            assert_eq!(text(&token).as_deref(), Some(name));
        }
        assert_ne!(digest(&[b"a", b"bc"]), digest(&[b"ab", b"c"]));
    }
}
