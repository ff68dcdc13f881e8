//! Transports: how bytes of a connection become messages, and who is let in at all.

pub(crate) mod asked;
pub(crate) mod emulation;
pub(crate) mod events;
pub(crate) mod guard;
pub(crate) mod head;
pub(crate) mod opening;
pub(crate) mod poll;
pub(crate) mod websocket;
