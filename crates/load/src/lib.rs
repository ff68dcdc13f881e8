//! The load generator: it opens connections as clients do, checks every publication at every reader, and says what
//! that cost the server.
//!
//! It knows the server from outside alone: the wire, and `/proc`. Its reading side shares no code with the server, so
//! that both cannot be wrong in the same way. Reading order: the words of a client ([`client`], [`frame`]), what is
//! right ([`ledger`]), the one loop over all sockets ([`sockets`]), who publishes and how fast ([`speakers`],
//! [`pace`]), what is measured ([`process`], [`latency`], [`report`]), and the scenarios ([`run`]).

pub mod baseline;
pub mod client;
pub mod descriptors;
pub mod error;
pub mod frame;
pub mod latency;
pub mod ledger;
pub mod options;
pub mod pace;
pub mod process;
mod publishing;
pub mod report;
pub mod run;
mod server;
pub mod sockets;
pub mod speakers;
