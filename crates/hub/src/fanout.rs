//! One thing to be told to all subscribers of a channel, encoded at most once for each wire.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use talewire_broker::Message;
use talewire_proto::generation::GenerationFrame;
use talewire_proto::reply::{Push, Reply};
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, ClientInfo, Entry, Payload, Publication, json};

/// What is told, shared by every shard of the node.
pub struct Fanout {
    /// To whose subscribers.
    pub channel: Channel,
    /// What.
    pub what: What,
    encoded: [OnceLock<Bytes>; Wire::COUNT],
}

/// What a fan-out tells.
#[derive(Debug, Clone)]
pub enum What {
    /// A kept publication: every subscriber gets it, in order, or hears of the gap.
    Entry(Arc<Entry>),
    /// A publication that is not kept: dropped for readers who are slow, and counted.
    Signal(Arc<Publication>),
    /// Somebody subscribed.
    Join(Arc<ClientInfo>),
    /// Somebody is gone.
    Leave(Arc<ClientInfo>),
    /// A frame of a generation stream: a reader who is slow gets a snapshot later.
    Generation(Arc<GenerationFrame>),
}

impl Fanout {
    /// Something to be told.
    #[must_use]
    pub fn new(channel: Channel, what: What) -> Self {
        Self { channel, what, encoded: Default::default() }
    }

    pub(crate) fn of(channel: Channel, message: Message) -> Self {
        let what = match message {
            Message::Entry { entry, .. } => What::Entry(entry),
            Message::Signal(publication) => What::Signal(publication),
            Message::Join(info) => What::Join(info),
            Message::Leave(info) => What::Leave(info),
            Message::Generation(frame) => What::Generation(frame),
        };
        Self::new(channel, what)
    }

    /// The bytes for one wire. The first caller encodes; everybody else shares.
    pub fn bytes(&self, wire: Wire) -> Bytes {
        self.encoded[wire.index()].get_or_init(|| wire.frame(&self.encode(wire))).clone()
    }

    fn encode(&self, wire: Wire) -> Vec<u8> {
        let Wire::WebSocketJson = wire;
        let push = match &self.what {
            What::Entry(entry) => return json::encode_publication(&self.channel, entry.offset, &entry.publication),
            What::Signal(publication) => return json::encode_publication(&self.channel, 0, publication),
            What::Generation(frame) => {
                let publication = Publication { data: Some(Payload::of(frame)), ..Publication::default() };
                return json::encode_publication(&self.channel, 0, &publication);
            }
            What::Join(info) => Push::Join(info.clone()),
            What::Leave(info) => Push::Leave(info.clone()),
        };
        json::encode(&Reply::Push { channel: self.channel.clone(), push })
    }
}
