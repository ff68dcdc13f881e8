//! Letters between nodes, as the broker carries them: a question with the name of who asks, or the answer to one.
//!
//! A letter is a line of JSON and, behind it, whatever bytes belong to it. Written and read by [`crate::nodes`] alone. Two neighbouring
//! versions of the program read each other's: who does not know a question says so ([`ErrorCode::MethodNotFound`]).

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use talewire_broker::NodeId;
use talewire_proto::ErrorCode;
use talewire_proto::command::Token;

use crate::listing::{ChannelsAsked, ConnectionsAsked};

/// What one node wants of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Give the frame that comes with this to the connection with this emulated session.
    Frame {
        /// Which.
        #[serde(with = "as_text")]
        session: Token,
        /// Whether the frame is Protobuf; else it is JSON.
        protobuf: bool,
    },
    /// Which connections are there?
    Connections(ConnectionsAsked),
    /// Which channels have subscribers there?
    Channels(ChannelsAsked),
    /// Read the configuration again.
    Reload,
    /// Something that a newer version knows.
    #[serde(skip)]
    Unknown,
}

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Letter {
    /// Somebody wants something.
    Ask {
        /// Who.
        from: NodeId,
        /// What the answer is to be called.
        id: u64,
        /// What.
        question: Question,
        /// What belongs to the question.
        body: Bytes,
    },
    /// What came of it.
    Answer {
        /// Of which question.
        id: u64,
        /// JSON, or the code of a refusal.
        answer: Result<Bytes, u32>,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ask: Option<(NodeId, serde_json::Value)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<u32>,
}

impl Letter {
    /// As the broker carries it.
    pub(crate) fn write(self) -> Bytes {
        let (line, body) = match self {
            Self::Ask { from, id, question, body } => {
                let question = serde_json::to_value(question).expect("our own types are written as JSON");
                (Line { id, ask: Some((from, question)), refused: None }, body)
            }
            Self::Answer { id, answer: Ok(body) } => (Line { id, ask: None, refused: None }, body),
            Self::Answer { id, answer: Err(code) } => (Line { id, ask: None, refused: Some(code) }, Bytes::new()),
        };
        let line = serde_json::to_vec(&line).expect("our own types are written as JSON");
        let mut letter = BytesMut::with_capacity(line.len() + 1 + body.len());
        letter.put_slice(&line);
        letter.put_u8(b'\n');
        letter.put_slice(&body);
        letter.freeze()
    }

    /// Reads a letter; nothing for what is none.
    pub(crate) fn read(letter: &Bytes) -> Option<Self> {
        let end = letter.iter().position(|byte| *byte == b'\n')?;
        let Line { id, ask, refused } = serde_json::from_slice(&letter[..end]).ok()?;
        let body = letter.slice(end + 1..);
        Some(match (ask, refused) {
            (Some((from, question)), _) => {
                let question = serde_json::from_value(question).unwrap_or(Question::Unknown);
                Self::Ask { from, id, question, body }
            }
            (None, Some(code)) => Self::Answer { id, answer: Err(code) },
            (None, None) => Self::Answer { id, answer: Ok(body) },
        })
    }
}

/// A session's name as it stands in a letter; in logs it is a length.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use talewire_proto::command::Token;

    pub(super) fn serialize<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
        token.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
        String::deserialize(deserializer).map(Token)
    }
}

/// The code that another node has refused with.
pub(crate) fn code_of(number: u32) -> ErrorCode {
    ErrorCode::ALL.iter().copied().find(|code| code.code() == number).unwrap_or(ErrorCode::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_were_written() {
        let from = NodeId::new();
        let ask = |question| Letter::Ask { from: from.clone(), id: 7, question, body: Bytes::from_static(b"a\nb") };
        for letter in [
            ask(Question::Frame { session: Token("secret".into()), protobuf: true }),
            ask(Question::Connections(ConnectionsAsked { user: None, thread: 1, place: 2, most: 3 })),
            ask(Question::Channels(ChannelsAsked { pattern: "chat:*".into(), most: 3 })),
            ask(Question::Reload),
            Letter::Answer { id: 7, answer: Ok(Bytes::from_static(b"{}")) },
            Letter::Answer { id: 7, answer: Err(404) },
        ] {
            assert_eq!(Letter::read(&letter.clone().write()), Some(letter));
        }
        assert!(
            !format!("{:?}", ask(Question::Frame { session: Token("secret".into()), protobuf: true }))
                .contains("secret")
        );
    }

    #[test]
    fn what_only_others_know_is_no_fault() {
        let newer = Bytes::from_static(b"{\"id\":1,\"ask\":[\"n1\",\"something_new\"],\"more\":1}\n");
        let Some(Letter::Ask { question, .. }) = Letter::read(&newer) else { panic!("no question") };
        assert_eq!(question, Question::Unknown);
        for bad in ["", "\n", "{}\n", "{\"id\":1}", "x\n"] {
            assert_eq!(Letter::read(&Bytes::from_static(bad.as_bytes())), None, "{bad}");
        }
        assert_eq!(code_of(404), ErrorCode::NotFound);
        assert_eq!(code_of(9), ErrorCode::Internal);
    }
}
