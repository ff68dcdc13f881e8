//! Transports: how bytes of a connection become messages, and who is let in at all.

pub(crate) mod guard;
pub(crate) mod websocket;
