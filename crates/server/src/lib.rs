//! Every socket and every HTTP route.
//!
//! [`Server::start`] opens the listeners and one thread per hub shard, each with its own runtime, accept loop and
//! connections ([`reactor`]); [`Node`] is what all of them share. A byte's way in: [`accept`], [`transport`], the session of
//! `talewire-proto`, [`perform`]; its way out: the hub's shard, [`reactor`], the socket. Called by the binary alone.

mod accept;
mod agreement;
mod arriving;
mod connection;
mod control;
mod drain;
mod health;
mod http2;
mod imports;
mod inbox;
mod index;
mod letters;
mod listing;
mod logouts;
mod metrics;
mod network;
mod node;
mod nodes;
mod orders;
mod pace;
mod perform;
mod plain;
#[cfg(unix)]
mod process;
mod rates;
mod reactor;
mod reload;
mod replayed;
mod request_id;
mod routes;
mod rules;
mod schema;
mod server;
mod settings;
mod socket;
mod timers;
mod traces;
mod transport;
mod wake;

pub use imports::{Import, ImportRefused, Imported};
pub use metrics::Metrics;
pub use network::{Network, NoNetwork};
pub use node::{About, Node, NodeParts};
pub use reload::{RELOADS_WAITING_MAX, ReloadRequest, Reloaded};
pub use rules::{BadSchema, Rules};
pub use schema::Schema;
pub use server::{Server, ServerError};
pub use settings::ServerSettings;
pub use traces::Traces;
