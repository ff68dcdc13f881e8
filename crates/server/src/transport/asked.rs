//! What a reader without a protocol asks for in the query of its address (`PROTOCOL.md`, section 5): which channels, from where, and
//! which of their events. Used by `/events` and `/poll`.

use std::sync::Arc;

use http::{HeaderMap, header};
use talewire_proto::command::{Recover, Token, Wanted};
use talewire_proto::filter::Filter;
use talewire_proto::{Channel, Epoch, Position};

/// Channels of one reader; more are refused.
const CHANNELS_MAX: usize = 32;

/// A question that cannot be understood, and why.
pub(crate) type Unclear = &'static str;

/// The query of a reader.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Channels by name, each with the position after which to begin, if one was given. Sorted, each once.
    pub(crate) channels: Vec<(Channel, Option<Position>)>,
    /// Which events are wanted.
    pub(crate) filter: Option<Arc<Filter>>,
    /// Who asks, where no header can say so.
    pub(crate) token: Token,
    /// The last event id, as a first connection gives it.
    pub(crate) last_event_id: Option<String>,
    /// The cursor of the last poll.
    pub(crate) cursor: Option<String>,
    /// How long a poll may wait, in seconds.
    pub(crate) wait_s: Option<u64>,
    /// Whether events come with their channel and position.
    pub(crate) envelope: bool,
}

impl Asked {
    /// Reads the query and the `Authorization` header.
    pub(crate) fn read(query: &str, headers: &HeaderMap) -> Result<Self, Unclear> {
        let mut asked = Self::default();
        let mut channels = std::collections::BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "channel" => {
                    let (channel, position) = place(&value).ok_or(
                        "a channel is written NAME or NAME@OFFSET-EPOCH, with letters, digits or any of _.:#$,- in its name",
                    )?;
                    channels.insert(channel, position);
                }
                "events" => {
                    let types = value.split(',').map(str::trim).filter(|one| !one.is_empty());
                    let filter = Filter::events(types).map_err(|_| "events names event types, separated by commas")?;
                    asked.filter = Some(Arc::new(filter));
                }
                "token" => asked.token = Token(value.into_owned()),
                "last_event_id" | "lastEventId" => asked.last_event_id = Some(value.into_owned()),
                "cursor" => asked.cursor = Some(value.into_owned()).filter(|cursor| !cursor.is_empty()),
                "wait" => asked.wait_s = Some(value.parse().map_err(|_| "wait is a number of seconds")?),
                "envelope" => asked.envelope = matches!(&*value, "1" | "true"),
                // Proxies and browsers add parameters of their own.
                _ => {}
            }
        }
        if channels.len() > CHANNELS_MAX {
            return Err("too many channels for one reader");
        }
        asked.channels = channels.into_iter().collect();
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            asked.token = Token(token.trim().to_owned());
        }
        Ok(asked)
    }

    /// A channel as the session takes it.
    pub(crate) fn wanted(&self, channel: &Channel, recover: Option<Recover>) -> Wanted {
        Wanted { recover, filter: self.filter.clone(), ..Wanted::new(channel.clone()) }
    }
}

/// `NAME` or `NAME@OFFSET-EPOCH`.
fn place(text: &str) -> Option<(Channel, Option<Position>)> {
    let Some((name, position)) = text.split_once('@') else { return Some((text.parse().ok()?, None)) };
    let (offset, epoch) = position.split_once('-')?;
    Some((name.parse().ok()?, Some(Position { offset: offset.parse().ok()?, epoch: Epoch::new(epoch) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, Unclear> {
        Asked::read(query, &HeaderMap::new())
    }

    #[test]
    fn channels_come_sorted_each_once_and_with_their_positions() {
        let asked = read("channel=chat%3A2&channel=a@7-e.1-x&channel=chat:2&other=1").expect("a question");
        let texts: Vec<String> = asked
            .channels
            .iter()
            .map(|(channel, position)| match position {
                Some(position) => format!("{channel} {} {}", position.offset, position.epoch.as_str()),
                None => channel.to_string(),
            })
            .collect();
        assert_eq!(texts, ["a 7 e.1-x", "chat:2"]);
        for bad in ["channel=", "channel=a%20b", "channel=a@", "channel=a@x-e", "channel=a@1", "wait=x", "events=,"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many: String = (0..=CHANNELS_MAX).map(|n| format!("channel=c{n}&")).collect();
        assert!(read(&many).is_err());
    }

    #[test]
    fn a_header_says_better_than_the_address_who_asks() {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer T2".parse().expect("a value"))]);
        assert_eq!(Asked::read("token=T1", &headers).expect("a question").token.0, "T2");
        assert_eq!(read("token=T1").expect("a question").token.0, "T1");
    }
}
