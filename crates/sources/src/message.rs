//! From the bytes of another system to a publication: what a message says, or why it can never be published.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use talewire_proto::{Channel, Payload};

/// A message as it was taken from a source.
#[derive(Clone)]
pub(crate) struct Taken {
    /// What it says, or why nothing can be made of it.
    pub(crate) body: Result<Bytes, String>,
    /// Where it stands in the source, for people.
    pub(crate) place: String,
    /// What makes it the same message when it comes again.
    pub(crate) identity: Identity,
}

/// What makes a message the same one when it comes again.
#[cfg_attr(not(any(test, feature = "rabbitmq")), expect(dead_code, reason = "what only RabbitMQ's messages have"))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Identity {
    /// An idempotency key that its sender gave.
    Key(String),
    /// Where it stands: the same place with the same body is the same message.
    Place,
    /// An id that its sender gave, whatever its body says.
    Id(String),
    /// Nothing: if it comes again, it is another message.
    None,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Where.
    pub channel: Channel,
    /// What.
    pub data: Payload,
    /// Its event type, if any.
    pub event: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What makes it the same publication when it comes again.
    pub key: Option<String>,
}

/// What a message says that names its channel itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    channel: Channel,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    event: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    idempotency_key: String,
}

/// Reads messages of one source.
pub(crate) struct Reader {
    /// The source's name, which is a part of keys.
    pub(crate) source: String,
    /// The channel of all messages.
    pub(crate) channel: Option<Channel>,
    pub(crate) message_bytes_max: usize,
}

impl Reader {
    /// What a message says, or why it can never be published.
    pub(crate) fn read(&self, taken: &Taken) -> Result<Words, String> {
        let body = taken.body.as_ref().map_err(Clone::clone)?;
        if body.len() > self.message_bytes_max {
            return Err(format!("the body has {} bytes, {} are allowed", body.len(), self.message_bytes_max));
        }
        if let Some(channel) = &self.channel {
            let data = Payload::parse(body).map_err(|_| "the body is not one JSON value".to_owned())?;
            let (event, tags) = Default::default();
            return Ok(Words { channel: channel.clone(), data, event, tags, key: self.key(taken, body) });
        }
        // The parser's own words would show the content.
        let bad = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => {
                format!(
                    "not {{\"channel\", \"data\", \"event\"?, \"tags\"?, \"idempotency_key\"?}}: see column {} of line {}",
                    error.column(),
                    error.line()
                )
            }
            _ => "the body is not JSON".to_owned(),
        };
        let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(bad)?;
        let Envelope { channel, data, event, tags, idempotency_key } = envelope;
        let key = if idempotency_key.is_empty() { self.key(taken, body) } else { Some(idempotency_key) };
        Ok(Words { channel, data: Payload::from_raw(data), event, tags, key })
    }

    fn key(&self, taken: &Taken, body: &[u8]) -> Option<String> {
        let digest = |kind: &str, parts: &[&[u8]]| {
            let mut context = digest::Context::new(&digest::SHA256);
            for part in [kind.as_bytes(), self.source.as_bytes()].iter().chain(parts) {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            let hex =
                context.finish().as_ref()[..20].iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            format!("source-{hex}")
        };
        match &taken.identity {
            Identity::Key(key) => Some(key.clone()),
            // With the body, because a stream that was made anew may reach the same place again.
            Identity::Place => Some(digest("place", &[taken.place.as_bytes(), body])),
            Identity::Id(id) => Some(digest("id", &[id.as_bytes()])),
            Identity::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: &str, identity: Identity) -> Taken {
        Taken { body: Ok(Bytes::copy_from_slice(body.as_bytes())), place: "1-1".into(), identity }
    }

    fn reader(channel: Option<&str>) -> Reader {
        let channel = channel.map(|channel| channel.parse().expect("a channel"));
        Reader { source: "orders".into(), channel, message_bytes_max: 200 }
    }

    #[test]
    fn an_envelope_names_its_channel() {
        let body = r#"{"channel":"chat:1","data":{"a":1},"event":"turn","tags":{"k":"v"},"idempotency_key":"mine"}"#;
        let words = reader(None).read(&taken(body, Identity::Place)).expect("good");
        assert_eq!((words.channel.as_str(), words.data.as_bytes()), ("chat:1", &br#"{"a":1}"#[..]));
        assert_eq!((words.event.as_str(), words.tags["k"].as_str(), words.key.as_deref()), ("turn", "v", Some("mine")));
    }

    #[test]
    fn a_body_is_the_data_of_the_sources_channel() {
        let words = reader(Some("news")).read(&taken(r#"{"channel":"x"}"#, Identity::None)).expect("good");
        assert_eq!((words.channel.as_str(), words.data.as_bytes()), ("news", &br#"{"channel":"x"}"#[..]));
        assert_eq!(words.key, None);
    }

    #[test]
    fn what_is_no_message_is_refused_without_its_words() {
        let long = format!("\"{}\"", "x".repeat(200));
        let cases = [
            (None, "{", "not JSON"),
            (None, "\u{0}secret", "not JSON"),
            (None, r#"{"channel":"chat:1"}"#, "not {"),
            (None, r#"{"channel":"chat:1","data":1,"secret":2}"#, "not {"),
            (None, r#"{"channel":"","data":"secret"}"#, "not {"),
            (Some("news"), "secret", "not one JSON value"),
            (Some("news"), &long, "202 bytes"),
        ];
        for (channel, body, reason) in cases {
            let refused = reader(channel).read(&taken(body, Identity::Place)).expect_err(body);
            assert!(refused.contains(reason) && !refused.contains("secret"), "{body}: {refused}");
        }
    }

    #[test]
    fn keys_are_the_same_only_for_what_comes_again() {
        let key = |body: &str, place: &str, identity: Identity, source: &str| {
            let reader = Reader { source: source.into(), ..reader(Some("news")) };
            reader.read(&Taken { place: place.into(), ..taken(body, identity) }).expect("good").key.expect("a key")
        };
        let one = key("1", "1-1", Identity::Place, "a");
        assert_eq!(one, key("1", "1-1", Identity::Place, "a"));
        assert_eq!(one.len(), "source-".len() + 40, "it fits into what a key may have");
        let id = key("1", "1-1", Identity::Id("7".into()), "a");
        assert_eq!(id, key("2", "", Identity::Id("7".into()), "a"), "a sender's id goes before place and body");
        let others = [
            key("2", "1-1", Identity::Place, "a"),
            key("1", "1-2", Identity::Place, "a"),
            key("1", "1-1", Identity::Place, "b"),
            id,
            key("1", "1-1", Identity::Key("mine".into()), "a"),
        ];
        assert!(!others.contains(&one));
    }
}
