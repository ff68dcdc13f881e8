//! A client at the other end of an outbox: it believes only the bytes, and complains when they break a promise.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use talewire_proto::reply::{Push, Reply, SubscribeResult};
use talewire_proto::{Channel, Position, UnsubscribeCode, json};

use super::stage::{Stage, is_even};
use crate::{ConnectionKey, Shard};

/// What a client knows of its subscription to one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Asked for, with this position to recover from; no reply has been read.
    Asked(Option<Position>),
    /// It stands: the next entry is this one.
    Stands { epoch: String, next: u64 },
    /// It stands, and has no positions.
    Signals,
    /// The server has ended it.
    Ended,
}

pub(super) struct Peer {
    pub(super) shard: usize,
    pub(super) key: ConnectionKey,
    pub(super) standings: HashMap<Channel, Standing>,
    /// The last position in each channel, to recover from.
    pub(super) positions: HashMap<Channel, Position>,
    /// Channels of which it hears every other entry alone.
    pub(super) evens: HashSet<Channel>,
    /// Publications without an offset, joins and leaves, as they came.
    pub(super) signals: Vec<Value>,
    /// Entries read since the beginning.
    pub(super) entries: usize,
    unread: Vec<u8>,
}

impl Peer {
    pub(super) fn new(shard: usize, key: ConnectionKey) -> Self {
        Self {
            shard,
            key,
            standings: HashMap::new(),
            positions: HashMap::new(),
            evens: HashSet::new(),
            signals: Vec::new(),
            entries: 0,
            unread: Vec::new(),
        }
    }

    /// Takes up to `room` bytes out of the outbox, as a socket does, and lets the shard go on.
    pub(super) fn take(&mut self, shard: &mut Shard, room: usize) {
        let mut left = room;
        let unread = &mut self.unread;
        let outbox = shard.outbox(self.key).expect("the connection is there");
        let _ = outbox.write_with(0, |slices| {
            if left == 0 {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            let mut taken = 0;
            for slice in slices {
                let n = slice.len().min(left);
                unread.extend_from_slice(&slice[..n]);
                left -= n;
                taken += n;
            }
            Ok(taken)
        });
        shard.written(self.key);
    }

    /// Reads what has come. `stage` tells what was to come.
    pub(super) fn read(&mut self, stage: &Stage) {
        while let Some(message) = self.next_message() {
            let message: Value = serde_json::from_slice(&message).unwrap();
            self.understand(&message, stage);
        }
    }

    /// The payload of the next whole WebSocket frame.
    fn next_message(&mut self) -> Option<Vec<u8>> {
        let (header, length) = match *self.unread.get(1)? {
            short @ 0..=125 => (2, usize::from(short)),
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().unwrap()))),
            _ => (10, u64::from_be_bytes(self.unread.get(2..10)?.try_into().unwrap()) as usize),
        };
        assert_eq!(self.unread[0], 0x81, "a whole text frame");
        if self.unread.len() < header + length {
            return None;
        }
        let message = self.unread[header..header + length].to_vec();
        self.unread.drain(..header + length);
        Some(message)
    }

    fn understand(&mut self, message: &Value, stage: &Stage) {
        if let Some(result) = message.get("subscribed") {
            let channel: Channel = message["channel"].as_str().unwrap().parse().unwrap();
            return self.joined(channel, result, stage);
        }
        let push = &message["push"];
        let channel: Channel = push["channel"].as_str().unwrap_or_else(|| panic!("{message}")).parse().unwrap();
        let standing = self.standings.get(&channel).cloned();
        if push.get("unsubscribe").is_some() {
            assert!(!matches!(standing, Some(Standing::Asked(_)) | None), "told before its reply");
            self.standings.insert(channel, Standing::Ended);
            return;
        }
        let Some(offset) = push["pub"]["offset"].as_u64() else {
            assert!(matches!(standing, Some(Standing::Stands { .. } | Standing::Signals)), "{standing:?} got {push}");
            self.signals.push(push.clone());
            return;
        };
        self.entry(&channel, offset, push["pub"]["data"].as_str().unwrap(), stage);
    }

    fn entry(&mut self, channel: &Channel, offset: u64, words: &str, stage: &Stage) {
        let Some(Standing::Stands { epoch, next }) = self.standings.get_mut(channel) else {
            panic!("{channel}:{offset} came to {:?}", self.standings.get(channel));
        };
        while self.evens.contains(channel) && *next < offset {
            // What was kept from it is what it did not want to hear.
            let kept = stage.truth.get(&(channel.clone(), epoch.clone(), *next));
            assert!(kept.is_some_and(|words| !is_even(words)), "{channel} {epoch} {next}: {kept:?}");
            *next += 1;
        }
        assert!(!self.evens.contains(channel) || is_even(words), "{channel} {offset}: not for it");
        assert_eq!(offset, *next, "{channel}: out of order");
        let truth = stage.truth.get(&(channel.clone(), epoch.clone(), offset));
        assert_eq!(truth.map(String::as_str), Some(words), "{channel} {epoch} {offset}");
        *next += 1;
        self.entries += 1;
        self.positions.insert(channel.clone(), Position { offset, epoch: talewire_proto::Epoch::new(epoch) });
    }

    fn joined(&mut self, channel: Channel, result: &Value, stage: &Stage) {
        let Some(Standing::Asked(asked)) = self.standings.remove(&channel) else { panic!("a reply to nothing") };
        let Some(epoch) = result["epoch"].as_str() else {
            self.standings.insert(channel, Standing::Signals);
            self.signals.push(serde_json::json!({"pub": {"data": result["data"]}}));
            return;
        };
        let offset = result["offset"].as_u64().unwrap();
        let recovered = result["recovered"].as_bool().unwrap();
        assert_eq!(result["was_recovering"].as_bool().unwrap(), asked.is_some());
        let entries = result["entries"].as_array().unwrap();
        if recovered {
            let asked = asked.expect("recovered without having asked");
            // A namespace with this name gives the newest entry alone, and the place in front of it.
            if channel.namespace().ends_with("latest") && (!entries.is_empty() || asked.epoch.is_empty()) {
                assert!(entries.len() <= 1, "more than the newest: {entries:?}");
                assert!((offset, epoch) >= (asked.offset, "") || epoch != asked.epoch.as_str(), "back to the old");
            } else {
                assert_eq!((offset, epoch), (asked.offset, asked.epoch.as_str()), "recovered from elsewhere");
            }
        }
        let standing = Standing::Stands { epoch: epoch.to_owned(), next: offset + 1 };
        self.standings.insert(channel.clone(), standing);
        let position = Position { offset, epoch: talewire_proto::Epoch::new(epoch) };
        self.positions.insert(channel.clone(), position);
        assert!(recovered || entries.is_empty());
        for entry in entries {
            self.entry(&channel, entry[0].as_u64().unwrap(), entry[1].as_str().unwrap(), stage);
        }
    }
}

/// A subscribe reply in words that are easily read back.
pub(super) fn subscribed(channel: &Channel, result: &SubscribeResult) -> bytes::Bytes {
    let words = |data: &talewire_proto::Payload| data.read::<Value>().unwrap();
    let entries: Vec<_> = result
        .entries
        .iter()
        .map(|e| serde_json::json!([e.offset, words(e.publication.data.as_ref().unwrap())]))
        .collect();
    let line = serde_json::json!({
        "channel": channel.as_str(),
        "subscribed": {
            "offset": result.position.as_ref().map(|position| position.offset),
            "epoch": result.position.as_ref().map(|position| position.epoch.as_str()),
            "was_recovering": result.was_recovering,
            "recovered": result.recovered,
            "entries": entries,
            "data": result.data.as_ref().map(words),
        },
    });
    talewire_proto::wire::Wire::WebSocketJson.frame(&serde_json::to_vec(&line).unwrap())
}

/// That the server has ended a subscription.
pub(super) fn ended(channel: &Channel) -> bytes::Bytes {
    let push = Push::Unsubscribe(UnsubscribeCode::InsufficientState);
    let line = json::encode(&Reply::Push { channel: channel.clone(), push });
    talewire_proto::wire::Wire::WebSocketJson.frame(&line)
}
