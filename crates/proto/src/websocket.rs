//! WebSocket as a server reads it (RFC 6455, and compressed messages of RFC 7692): bytes in, messages and what is to be
//! answered at once out. No buffer is kept while the peer is silent.
//!
//! Bytes come from the thread's scratch buffer, cut anywhere. A message that lies in them whole is handed out from
//! [`Scratch`], which connections of a thread share; only what is cut off waits in the reader. How messages are written
//! stands in [`crate::wire`].

mod extension;
mod inflate;
mod reader;
#[cfg(test)]
mod tests;

pub use extension::{Deflate, agree};
pub use inflate::Inflater;
pub use reader::Reader;

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// The peer closes; the answer is among the control bytes. Nothing follows.
    Close,
    /// The peer broke the rules: close with this code (RFC 6455, section 7.4.1). Nothing follows.
    Violation(u16),
}

/// Memory for messages while they are handed out, shared by the connections of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    unmasked: Vec<u8>,
    inflater: Inflater,
}
