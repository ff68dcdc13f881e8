//! Orders of server programs to connections, wherever these are: made by the server API, carried to every node, and carried out there
//! by the threads that have the connections.
//!
//! A broker tells them at most once and keeps them nowhere. What must reach every connection is kept in the database as well, and read from there
//! by every node, in one order (the server's `orders`); a broker then tells the others to look. A message is told alone: what of that must
//! not be lost goes through a channel.

use std::sync::Arc;

use bytes::Bytes;
use talewire_proto::command::{Token, Wanted};
use talewire_proto::{Channel, ClientId, CloseCode, Payload, UserId};

use crate::NodeId;
use crate::between::orders;

/// Something to be done with connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// With which.
    pub whom: Whom,
    /// What.
    pub order: Order,
}

impl Control {
    /// As it is kept; nothing when it holds what orders do not carry (a filter).
    #[must_use]
    pub fn packed(&self, from: &NodeId) -> Option<Bytes> {
        orders::write(from, self, true)
    }

    /// Reads what was kept; nothing when that is no order, or one of a newer version.
    #[must_use]
    pub fn unpacked(bytes: Bytes) -> Option<Self> {
        match orders::read(bytes) {
            Ok(orders::Told::Control { control, .. }) => Some(control),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Which connections are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// All that have said who they are, the anonymous too.
    Everyone,
    /// Those that fit everything that is named here. One that names nothing fits nobody.
    Of {
        /// Of this user, on all devices. Never the anonymous: they are not one person.
        user: Option<UserId>,
        /// This one.
        client: Option<ClientId>,
        /// The one with this emulated session, whose name is a secret.
        session: Option<Token>,
    },
}

impl Whom {
    /// All connections of a user.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self::Of { user: Some(user), client: None, session: None }
    }

    /// One connection.
    #[must_use]
    pub fn client(client: ClientId) -> Self {
        Self::Of { user: None, client: Some(client), session: None }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Send them this.
    Message(Payload),
    /// Close them.
    Disconnect {
        /// With which code.
        code: CloseCode,
        /// But not these.
        keep: Vec<ClientId>,
    },
    /// Subscribe them to a channel.
    Subscribe(Box<Wanted>),
    /// End their subscription.
    Unsubscribe(Channel),
    /// They may last until then, in Unix milliseconds; nothing for as long as they like.
    Lasting(Option<i64>),
}

/// Takes orders for the connections of one node. Called from any thread; it must not block. Says whether it took all of it:
/// when a thread has no room, nothing is taken.
pub type ControlSink = Arc<dyn Fn(Control) -> bool + Send + Sync>;
