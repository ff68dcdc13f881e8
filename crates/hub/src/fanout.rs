//! One thing to be told to all subscribers of a channel, encoded at most once for each wire.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use talewire_proto::compression::Compression;
use talewire_proto::generation::GenerationFrame;
use talewire_proto::reply::{Push, Reply};
use talewire_proto::trace::Trace;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, ClientInfo, Entry, Epoch, Payload, Publication};

use crate::queue::Ticket;

/// What is told, shared by every shard of the node.
pub struct Fanout {
    /// To whose subscribers.
    pub channel: Channel,
    /// What.
    pub what: What,
    /// Every join before this was told has a lower ticket: who joined later has read it from history.
    told_at: Ticket,
    /// When the channel's history last began anew: who joined before that belongs to an older one.
    since: Ticket,
    /// When this node got it; nothing for what was read from history.
    came: Option<Instant>,
    /// Where its way belongs in a trace, if it is followed.
    trace: Option<Trace>,
    encoded: [OnceLock<Bytes>; Wire::COUNT],
}

/// What a fan-out tells.
#[derive(Debug, Clone)]
pub enum What {
    /// A kept publication: every subscriber gets it, in order, or hears of the gap.
    Entry(Arc<Entry>, Epoch),
    /// A publication that is not kept: dropped for readers who are slow, and counted.
    Signal(Arc<Publication>),
    /// Somebody subscribed.
    Join(Arc<ClientInfo>),
    /// Somebody is gone.
    Leave(Arc<ClientInfo>),
    /// A frame of a generation stream: a reader who is slow gets a snapshot later.
    Generation(Arc<GenerationFrame>),
}

/// When this node got something that it tells.
#[derive(Debug)]
pub struct Came {
    /// When.
    pub at: Instant,
    /// Where its way belongs in a trace, and its channel, if it is followed.
    pub followed: Option<Box<(Trace, Channel)>>,
}

impl Fanout {
    /// Something to be told.
    #[must_use]
    pub fn new(channel: Channel, what: What) -> Self {
        Self { channel, what, told_at: Ticket::MAX, since: 0, came: None, trace: None, encoded: Default::default() }
    }

    pub(crate) fn stamped(channel: Channel, what: What, told_at: Ticket, since: Ticket) -> Self {
        let trace = match &what {
            What::Entry(entry, _) => entry.publication.trace,
            What::Signal(publication) => publication.trace,
            What::Join(_) | What::Leave(_) | What::Generation(_) => None,
        };
        Self { told_at, since, came: Some(Instant::now()), trace, ..Self::new(channel, what) }
    }

    /// When this node got it, and what it is followed by; nothing for what was read from history.
    pub(crate) fn came(&self) -> Option<Came> {
        let followed = self.trace.map(|trace| Box::new((trace, self.channel.clone())));
        Some(Came { at: self.came?, followed })
    }

    /// Whether it was told before the subscriber with this ticket joined.
    pub(crate) fn is_before(&self, joined: Ticket) -> bool {
        self.told_at < joined
    }

    /// Whether it belongs to a history that began after the subscriber with this ticket joined.
    pub(crate) fn is_beyond(&self, joined: Ticket) -> bool {
        self.since > joined
    }

    /// The publication that it tells, if it is one that a subscriber may filter.
    pub(crate) fn publication(&self) -> Option<&Publication> {
        match &self.what {
            What::Entry(entry, _) => Some(&entry.publication),
            What::Signal(publication) => Some(publication),
            What::Join(_) | What::Leave(_) | What::Generation(_) => None,
        }
    }

    /// The bytes for one wire. The first caller encodes, and compresses where that is agreed; everybody else shares.
    pub fn bytes(&self, wire: Wire, compression: &Compression) -> Bytes {
        self.encoded[wire.index()].get_or_init(|| self.encode(wire, compression)).clone()
    }

    fn encode(&self, wire: Wire, compression: &Compression) -> Bytes {
        let push = match &self.what {
            What::Entry(entry, epoch) => {
                return wire.publication(&self.channel, entry.offset, Some(epoch), &entry.publication, compression);
            }
            What::Signal(publication) => return wire.publication(&self.channel, 0, None, publication, compression),
            // A poll answers with the whole text: that there is more of it is all it needs to know.
            What::Generation(_) if wire == Wire::Poll => return Bytes::new(),
            What::Generation(frame) => {
                let publication = Publication { data: Some(Payload::of(frame)), ..Publication::default() };
                return wire.publication(&self.channel, 0, None, &publication, compression);
            }
            What::Join(info) => Push::Join(info.clone()),
            What::Leave(info) => Push::Leave(info.clone()),
        };
        wire.pack(&wire.codec().encode(&Reply::Push { channel: self.channel.clone(), push }), compression)
    }
}
