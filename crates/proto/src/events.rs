//! Publications for readers that speak no protocol: events of a plain stream (`text/event-stream`), and the elements of a
//! poll's answer. How they look stands in `PROTOCOL.md`, section 5.
//!
//! WHATWG HTML, section 9.2: a block of lines ends with an empty line; a carriage return or line feed inside a value would begin
//! another field. Payloads hold none (checked when they come in), event types are of a few plain characters.

use serde::Serialize;

use crate::channel::Channel;
use crate::codes::CloseCode;
use crate::json;
use crate::publication::{ClientInfo, Epoch, Position, Publication};
use crate::reply::{ConnectResult, Push, Reply};

/// What stands behind `data:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The payload alone.
    Payload,
    /// The payload with its channel, position and publisher.
    Envelope,
}

/// How long a browser waits before it comes back, in milliseconds, unless it is told otherwise.
pub const RETRY_MS: u32 = 3_000;

/// The id of a stream that ended for good: who comes back with it is to stay away.
pub const STOPPED: &str = "stopped";

/// The comment that shows that the stream lives.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// The id of a stream of one channel: `offset-digest`.
#[must_use]
pub fn id(offset: u64, epoch: &Epoch) -> String {
    format!("{offset}-{:016x}", epoch.digest())
}

/// Reads the id of a stream of one channel.
#[must_use]
pub fn position_of(id: &str) -> Option<Position> {
    let (offset, digest) = id.split_once('-')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    if digest.len() != 16 || !plain(offset) || !plain(digest) {
        return None;
    }
    let digest = u64::from_str_radix(digest, 16).ok()?;
    Some(Position { offset: offset.parse().ok()?, epoch: Epoch::of_digest(digest) })
}

/// The line that moves a reader's position, to stand before the other lines of an event or alone before an empty line.
#[must_use]
pub fn id_line(id: &str) -> Vec<u8> {
    [b"id: ", id.as_bytes(), b"\n"].concat()
}

/// The lines of a publication and the empty line that ends them; without the id.
#[must_use]
pub fn publication(channel: &Channel, offset: u64, publication: &Publication, form: Form) -> Vec<u8> {
    let mut block = Vec::with_capacity(publication.data.as_ref().map_or(0, |data| data.len()) + 64);
    if let Some(event) = publication.event() {
        block.extend_from_slice(b"event: ");
        block.extend_from_slice(event.as_bytes());
        block.push(b'\n');
    }
    block.extend_from_slice(b"data: ");
    match (form, &publication.data) {
        (Form::Payload, Some(data)) => block.extend_from_slice(data.as_bytes()),
        (Form::Payload, None) => block.extend_from_slice(b"{}"),
        (Form::Envelope, _) => block.extend_from_slice(&envelope(channel, offset, publication)),
    }
    block.extend_from_slice(b"\n\n");
    block
}

/// A publication with everything that a reader may want to know about it, as one JSON object without line feeds.
#[must_use]
pub fn envelope(channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        channel: &'a Channel,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
        data: json::DataLine<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tags: Option<&'a std::collections::BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<&'a ClientInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<i64>,
    }
    json_of(&Envelope {
        channel,
        offset: Some(offset).filter(|offset| *offset > 0),
        event: publication.event(),
        data: json::DataLine(publication.data.as_ref()),
        tags: Some(&publication.tags).filter(|tags| !tags.is_empty()),
        info: publication.info.as_ref(),
        time: Some(publication.time_ms).filter(|time| *time != 0),
    })
}

/// What the envelopes of a channel begin with, and those of no other.
#[must_use]
pub fn envelope_of(channel: &Channel) -> Vec<u8> {
    let mut beginning = json_of(&std::collections::BTreeMap::from([("channel", channel)]));
    // More follows in an envelope.
    beginning.pop();
    beginning.push(b',');
    beginning
}

/// Writes what a stream of events carries beside publications, each as whole blocks.
#[must_use]
pub fn encode(reply: &Reply, form: Form) -> Vec<u8> {
    match reply {
        Reply::Ping => KEEP_ALIVE.to_vec(),
        Reply::Connect { result, .. } => event("connected", &connected(result)),
        // With the id in the event itself: some browsers do not take one that stands in a block alone.
        Reply::Disconnect(code) if !code.reconnect() => {
            [id_line(STOPPED), event("disconnect", &disconnect(*code))].concat()
        }
        Reply::Disconnect(code) => event("disconnect", &disconnect(*code)),
        Reply::Message(data) => [b"data: ", data.as_bytes(), b"\n\n"].concat(),
        Reply::Push { channel, push } => match push {
            Push::Publication { offset, publication: of } => publication(channel, *offset, of, form),
            Push::Gap(position) => event("gap", &Place { channel, offset: position.offset, epoch: &position.epoch }),
            Push::Join(_) | Push::Leave(_) | Push::Subscribe(_) | Push::Unsubscribe(_) => {
                event("channel", &serde_json::value::to_raw_value(&Raw(&json::encode_down(reply))).expect("it is JSON"))
            }
        },
        reply => event("reply", &Raw(&json::encode(reply))),
    }
}

/// Where a channel stands.
#[derive(Serialize)]
pub struct Place<'a> {
    /// Which channel.
    pub channel: &'a Channel,
    /// The offset of its newest entry.
    pub offset: u64,
    /// Its epoch.
    pub epoch: &'a Epoch,
}

/// Where a channel begins in a stream or in a poll's answer.
#[derive(Serialize)]
pub struct Beginning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a crate::Payload>,
}

impl<'a> From<&'a crate::reply::SubscribeResult> for Beginning<'a> {
    fn from(result: &'a crate::reply::SubscribeResult) -> Self {
        Self {
            offset: result.position.as_ref().map(|position| position.offset),
            epoch: result.position.as_ref().map(|position| &position.epoch),
            recovered: result.was_recovering.then_some(result.recovered),
            data: result.data.as_ref(),
        }
    }
}

fn connected(result: &ConnectResult) -> impl Serialize {
    #[derive(Serialize)]
    struct Connected<'a> {
        client: &'a str,
        time: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<&'a str>,
        channels: std::collections::BTreeMap<&'a Channel, Beginning<'a>>,
    }
    Connected {
        client: result.client.as_str(),
        time: result.time_ms,
        ttl: result.ttl_s,
        session: result.session.as_ref().map(|session| session.0.as_str()),
        node: result.node.as_deref(),
        channels: result.subs.iter().map(|(channel, sub)| (channel, sub.into())).collect(),
    }
}

fn disconnect(code: CloseCode) -> impl Serialize {
    #[derive(Serialize)]
    struct Disconnect {
        code: u32,
        reason: &'static str,
        reconnect: bool,
    }
    Disconnect { code: code.code(), reason: code.text(), reconnect: code.reconnect() }
}

fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    [b"event: ", name.as_bytes(), b"\ndata: ", &json_of(data), b"\n\n"].concat()
}

fn json_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types are written as JSON")
}

/// JSON that is already written.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(self.0).map_err(serde::ser::Error::custom)?;
        let raw: &serde_json::value::RawValue = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Payload, publication::EVENT_TAG};

    fn tagged(event: &str, data: &str) -> Publication {
        let tags = [(EVENT_TAG.to_owned(), event.to_owned())].into();
        Publication { data: Some(Payload::parse(data.as_bytes()).expect("JSON")), tags, ..Publication::default() }
    }

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is() {
        let epoch = Epoch::new("k3v9q2");
        let written = id(18, &epoch);
        assert!(written.len() <= 37, "{written}");
        let read = position_of(&written).expect("an id");
        assert_eq!(read.offset, 18);
        assert!(read.epoch.means(&epoch));
        for bad in
            ["", "18", "18-", "-1234567890abcdef", "+1-1234567890abcdef", "1-1234567890abcdeg", "1-+234567890abcdef"]
        {
            assert_eq!(position_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn envelopes_of_a_channel_begin_as_those_of_no_other() {
        let [one, longer] = ["chat:1", "chat:11"].map(|name| name.parse::<Channel>().expect("a name"));
        for offset in [0, 7] {
            let envelope = super::envelope(&one, offset, &tagged("turn", "1"));
            assert!(envelope.starts_with(&envelope_of(&one)) && !envelope.starts_with(&envelope_of(&longer)));
        }
    }

    #[test]
    fn a_publication_is_one_block_whatever_is_in_it() {
        let channel: Channel = "chat:1".parse().expect("a name");
        let block = |publication: &Publication, form| {
            String::from_utf8(super::publication(&channel, 7, publication, form)).expect("UTF-8")
        };
        assert_eq!(block(&tagged("turn", "{\"a\":\r\n1}"), Form::Payload), "event: turn\ndata: {\"a\":  1}\n\n");
        assert_eq!(block(&tagged("x\nid: 1", "\"\\n\\r\\u0000\""), Form::Payload), "data: \"\\n\\r\\u0000\"\n\n");
        assert_eq!(
            block(&tagged("turn", "1"), Form::Envelope),
            "event: turn\ndata: {\"channel\":\"chat:1\",\"offset\":7,\"event\":\"turn\",\"data\":1,\"tags\":{\"event\":\"turn\"}}\n\n"
        );
        assert_eq!(block(&Publication::default(), Form::Payload), "data: {}\n\n", "an erased one");
    }

    #[test]
    fn what_is_no_publication_has_a_name_of_its_own() {
        let text = |reply: &Reply| String::from_utf8(encode(reply, Form::Payload)).expect("UTF-8");
        assert_eq!(text(&Reply::Ping), ":\n\n");
        assert_eq!(
            text(&Reply::Disconnect(CloseCode::Shutdown)),
            "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}\n\n"
        );
        assert_eq!(
            text(&Reply::Disconnect(CloseCode::InvalidToken)),
            "id: stopped\nevent: disconnect\ndata: {\"code\":3500,\"reason\":\"invalid token\",\"reconnect\":false}\n\n"
        );
        assert_eq!(text(&Reply::Publish { id: 3 }), "event: reply\ndata: {\"id\":3,\"publish\":{}}\n\n");
        let gap = Push::Gap(Position { offset: 4, epoch: Epoch::new("e") });
        assert_eq!(
            text(&Reply::Push { channel: "a".parse().expect("a name"), push: gap }),
            "event: gap\ndata: {\"channel\":\"a\",\"offset\":4,\"epoch\":\"e\"}\n\n"
        );
    }
}
