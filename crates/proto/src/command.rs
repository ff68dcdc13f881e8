//! What clients ask: the commands of the Centrifuge client protocol, version 2, as types.
//!
//! Names are checked when a command is decoded and never again. Field names and numbers are those of the public
//! `client.proto`; what the server declines is decoded far enough to be declined by name.

use std::fmt;
use std::sync::Arc;

use crate::channel::Channel;
use crate::codes::ErrorCode;
use crate::filter::Filter;
use crate::payload::Payload;
use crate::publication::Position;

/// One command of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Chosen by the client, above 0, echoed in the reply; 0 for what has no reply.
    pub id: u32,
    /// What is asked, or why it cannot even be read.
    pub body: Result<Body, ErrorCode>,
}

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Who is there? Always the first command.
    Connect(Connect),
    /// Get a channel's publications.
    Subscribe(Subscribe),
    /// No longer get them.
    Unsubscribe {
        /// Which channel.
        channel: Channel,
    },
    /// Put a publication into a channel.
    Publish(Publish),
    /// Who is subscribed?
    Presence {
        /// Which channel.
        channel: Channel,
    },
    /// How many are subscribed?
    PresenceStats {
        /// Which channel.
        channel: Channel,
    },
    /// What was published?
    History(History),
    /// A message with no reply, for which this server has no taker.
    Send,
    /// Call a method.
    Rpc(Rpc),
    /// Go on with a new connection token.
    Refresh {
        /// The token.
        token: Token,
    },
    /// Go on with a new subscription token.
    SubRefresh {
        /// Which channel.
        channel: Channel,
        /// The token.
        token: Token,
    },
    /// The answer to a ping: an empty command without an id.
    Pong,
}

/// Text that opens something for whoever has it: a bearer token, or the name of an emulated session. Its `Debug` prints only the length.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// `ConnectRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connect {
    /// Who it is; empty where a cookie tells, or nobody needs to know.
    pub token: Token,
    /// What the client library calls itself, for logs; at most 16 characters are kept.
    pub name: String,
    /// Channels that come with the connection: where to go on in those that the server subscribes it to, and, on
    /// transports that flow one way, which others are wanted.
    pub subs: Vec<Wanted>,
}

impl Connect {
    pub(crate) fn new(token: String, name: &str, subs: Vec<Wanted>) -> Self {
        Self { token: Token(token), name: name.chars().take(16).filter(|c| !c.is_control()).collect(), subs }
    }
}

/// A channel that comes with a connection instead of by a command of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which channel.
    pub channel: Channel,
    /// From where.
    pub recover: Option<Recover>,
    /// Which of its publications.
    pub filter: Option<Arc<Filter>>,
    /// Whether the client wants to hear who comes and goes.
    pub join_leave: bool,
    /// What others see about the user in this channel (`chan_info`), where a server program says so.
    pub info: Option<Payload>,
    /// What the client is told with the subscription, where a server program says so.
    pub data: Option<Payload>,
}

impl Wanted {
    /// A channel from now on, with everything in it.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel, recover: None, filter: None, join_leave: false, info: None, data: None }
    }
}

/// What a subscriber wants of what it missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recover {
    /// Everything after this position in one answer, or to be told that it cannot be had.
    After(Position),
    /// Everything after this position, in as many pages as it takes, or to be told that some of it is gone.
    PagesAfter(Position),
    /// Everything that is kept, in as many pages as it takes.
    PagesFromOldest,
}

/// `SubscribeRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Which channel.
    pub channel: Channel,
    /// A subscription token, or empty.
    pub token: Token,
    /// The last position that the client saw, if it wants what it missed since.
    pub recover: Option<Position>,
    /// Refuse with 112 instead of answering `recovered: false` (flag value 2).
    pub must_recover: bool,
    /// Whether the client wants to hear who comes and goes.
    pub join_leave: bool,
    /// Which publications it wants; nothing for all.
    pub filter: Option<Arc<Filter>>,
}

/// `PublishRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Which channel.
    pub channel: Channel,
    /// What to publish.
    pub data: Payload,
    /// Publishing the same key again adds nothing; empty for none.
    pub key: String,
}

/// `HistoryRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Which channel.
    pub channel: Channel,
    /// How many entries: 0 for the position alone, negative for as many as the server gives.
    pub limit: i32,
    /// After (or, in reverse, before) which position.
    pub since: Option<Position>,
    /// Newest first.
    pub reverse: bool,
}

/// `RPCRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpc {
    /// Which method.
    pub method: String,
    /// Its parameters; absent is an empty object.
    pub data: Payload,
}
