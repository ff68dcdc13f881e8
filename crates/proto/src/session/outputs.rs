//! What a session is made from, what it wants done, and what that came to: the values that pass between it and whoever drives it.

use std::sync::Arc;

use crate::channel::Channel;
use crate::codes::CloseCode;
use crate::command::{History, Recover, Rpc, Token};
use crate::filter::Filter;
use crate::grant::Grant;
use crate::ids::ClientId;
use crate::limits::Limits;
use crate::namespace::{Namespace, Namespaces};
use crate::payload::Payload;
use crate::publication::{ClientInfo, Position};
use crate::reply::Reply;

/// What the session wants done. Whoever drives it carries each out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Put this on the wire.
    Send(Reply),
    /// Verify a connection token (on connect, and on refresh); answer with [`Session::handle_verified`].
    Verify(Token),
    /// Verify a subscription token; answer with [`Session::handle_subscription_verified`].
    VerifySubscription(Token),
    /// Look up whether the user has the role; answer with [`Session::handle_role`].
    AskRole {
        /// In the story of which channel.
        channel: Channel,
        /// Which role.
        role: RoleNeeded,
    },
    /// Join a channel; answer with [`Session::handle_subscribed`].
    Subscribe(Join),
    /// Leave a channel. No answer.
    Unsubscribe {
        /// Which channel.
        channel: Channel,
        /// Its rules.
        rules: Arc<Namespace>,
    },
    /// From now on, the subscriber hears of these publications of a channel alone; nothing for all. No answer.
    SetFilter {
        /// Which channel.
        channel: Channel,
        /// What it lets through.
        filter: Option<Arc<Filter>>,
    },
    /// Carry out a command that changes or asks something elsewhere; answer with [`Session::handle_done`].
    Perform(Task),
    /// Close the connection with this code. Nothing follows.
    Close(CloseCode),
}

/// A subscription to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Which channel.
    pub channel: Channel,
    /// Its rules.
    pub rules: Arc<Namespace>,
    /// What is wanted of what was missed, if anything.
    pub recover: Option<Recover>,
    /// How the subscriber appears to others.
    pub info: Arc<ClientInfo>,
    /// Whether the subscriber hears who comes and goes.
    pub join_leave: bool,
    /// Which publications it hears of; nothing for all.
    pub filter: Option<Arc<Filter>>,
    /// Whether it hears its own connection's publications.
    pub echo: bool,
}

/// A command that needs others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Publish to a channel.
    Publish {
        /// Which channel.
        channel: Channel,
        /// Its rules.
        rules: Arc<Namespace>,
        /// What.
        data: Payload,
        /// Who says so.
        info: Arc<ClientInfo>,
        /// The idempotency key, if given.
        key: Option<String>,
    },
    /// Read history.
    History {
        /// Its rules.
        rules: Arc<Namespace>,
        /// What was asked, with `limit` cut to what the server gives.
        request: History,
    },
    /// Who is subscribed?
    Presence(Channel),
    /// How many are subscribed?
    PresenceStats(Channel),
    /// Call a method.
    Rpc(Rpc),
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was published.
    Published,
    /// A page of history.
    History {
        /// The entries.
        entries: Vec<Arc<crate::Entry>>,
        /// Where the channel stands.
        top: Position,
    },
    /// Who is subscribed.
    Presence(Vec<(ClientId, Arc<ClientInfo>)>),
    /// How many are subscribed.
    PresenceStats {
        /// Connections.
        clients: u32,
        /// Different users.
        users: u32,
    },
    /// A method's result.
    Rpc(Payload),
}

/// A role in a story that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleNeeded {
    /// Any member.
    Member,
    /// A member who may write.
    Writer,
}

/// Who may connect without a token or a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Refused,
    /// Everybody, with the rights that rules give to anyone.
    Allowed,
    /// Everybody, with every right (the insecure development flag).
    Insecure,
}

/// How much of the protocol the peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of it: commands come at any time, pings are answered.
    Duplex,
    /// It says who it is and what it wants once, and then listens. A channel that it may not have ends the connection.
    Down,
    /// As [`Mode::Down`] for readers that know nothing of subscriptions: a gap is told, and the stream goes on behind it. Commands
    /// but those that change subscriptions may come by other requests.
    Events,
    /// As [`Mode::Events`] for one answer: a channel that it may not have is told beside the others, and nobody is pinged.
    Poll,
}

/// What a session is made from. It has no `Debug`: the name of an emulated session is a secret.
#[derive(Clone)]
pub struct SessionStart {
    /// The connection's id, unguessable.
    pub client: ClientId,
    /// The login that the browser's cookie stands for.
    pub login: Option<Grant>,
    /// Who may connect without showing who they are.
    pub anonymous: Anonymous,
    /// The limits.
    pub limits: Arc<Limits>,
    /// The rules of channels.
    pub namespaces: Namespaces,
    /// Spreads the first ping of many connections.
    pub seed: u64,
    /// On emulated transports: the session's name, unguessable, and the node's. Both are told in the answer to `connect`.
    pub emulation: Option<(String, String)>,
    /// How much of the protocol the peer speaks.
    pub mode: Mode,
}
