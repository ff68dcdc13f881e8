//! What the server says: replies to commands, and pushes that nobody asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::channel::Channel;
use crate::codes::{CloseCode, ErrorCode, UnsubscribeCode};
use crate::command::Token;
use crate::ids::ClientId;
use crate::payload::Payload;
use crate::publication::{ClientInfo, Entry, Position, Publication};

/// One message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The command was refused.
    Error {
        /// The command's id.
        id: u32,
        /// The code.
        code: ErrorCode,
        /// A sentence in place of the code's own, where a use case has more to say.
        message: Option<String>,
    },
    /// The connection stands.
    Connect {
        /// The command's id.
        id: u32,
        /// What the client needs to know.
        result: ConnectResult,
    },
    /// The subscription stands.
    Subscribe {
        /// The command's id.
        id: u32,
        /// What the client needs to know.
        result: SubscribeResult,
    },
    /// The subscription is gone.
    Unsubscribe {
        /// The command's id.
        id: u32,
    },
    /// The publication was accepted, as the channel's kind promises.
    Publish {
        /// The command's id.
        id: u32,
    },
    /// Who is subscribed.
    Presence {
        /// The command's id.
        id: u32,
        /// Connections and who they are.
        clients: Vec<(ClientId, Arc<ClientInfo>)>,
    },
    /// How many are subscribed.
    PresenceStats {
        /// The command's id.
        id: u32,
        /// Connections.
        clients: u32,
        /// Different users.
        users: u32,
    },
    /// A page of history.
    History {
        /// The command's id.
        id: u32,
        /// The entries.
        entries: Vec<Arc<Entry>>,
        /// Where the channel stands.
        top: Position,
    },
    /// A method's result.
    Rpc {
        /// The command's id.
        id: u32,
        /// The result.
        data: Payload,
    },
    /// The new connection token was taken.
    Refresh {
        /// The command's id.
        id: u32,
        /// The connection.
        client: ClientId,
        /// Seconds until the next refresh is due; absent if the token never expires.
        ttl_s: Option<u32>,
    },
    /// The new subscription token was taken.
    SubRefresh {
        /// The command's id.
        id: u32,
        /// Seconds until the next refresh is due; absent if the token never expires.
        ttl_s: Option<u32>,
    },
    /// A sign of life, to be answered by an empty command.
    Ping,
    /// The connection ends, told where the transport has no close of its own. Nothing follows.
    Disconnect(CloseCode),
    /// Something for this connection alone, of no channel.
    Message(Payload),
    /// Something nobody asked for.
    Push {
        /// Of which channel.
        channel: Channel,
        /// What.
        push: Push,
    },
}

/// Why something was refused: a code, and a sentence where there is more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: ErrorCode,
    /// What to tell in place of the code's own sentence.
    pub message: Option<String>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

/// What a push carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// A publication; `offset` is 0 for signals.
    Publication {
        /// Where it stands.
        offset: u64,
        /// What it says.
        publication: Arc<Publication>,
    },
    /// Somebody subscribed.
    Join(Arc<ClientInfo>),
    /// Somebody is gone.
    Leave(Arc<ClientInfo>),
    /// The server ended the subscription.
    Unsubscribe(UnsubscribeCode),
    /// The server has subscribed the connection.
    Subscribe(SubscribeResult),
    /// Entries before this position are lost to this reader; it goes on from there. Only where there is no client that could
    /// subscribe again.
    Gap(Position),
}

/// `ConnectResult`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResult {
    /// The connection's id.
    pub client: ClientId,
    /// Seconds until a refresh is due; absent if the client never expires.
    pub ttl_s: Option<u32>,
    /// Seconds between pings; 0 for none.
    pub ping_s: u32,
    /// Whether pings are to be answered.
    pub pong: bool,
    /// The server's time, in Unix milliseconds.
    pub time_ms: i64,
    /// Subscriptions that the server made.
    pub subs: BTreeMap<Channel, SubscribeResult>,
    /// Channels that were wanted and refused, where that does not end the connection.
    pub refused: Vec<(Channel, Refused)>,
    /// On emulated transports: under which name commands are sent by other requests. It opens the session, hence a token.
    pub session: Option<Token>,
    /// On emulated transports: the node that holds the session.
    pub node: Option<String>,
}

/// `SubscribeResult`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeResult {
    /// Seconds until a refresh is due; absent if the subscription never expires.
    pub ttl_s: Option<u32>,
    /// Where the subscription begins, for channels that can be recovered: what was recovered comes after it.
    pub position: Option<Position>,
    /// Whether the client had asked to recover.
    pub was_recovering: bool,
    /// Whether it got everything it missed.
    pub recovered: bool,
    /// What it missed, oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// For generation streams: the snapshot.
    pub data: Option<Payload>,
}
