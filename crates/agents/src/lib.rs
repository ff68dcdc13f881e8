//! AI participants: a job comes in from the store, a turn goes back into it, and while it is being written its text
//! goes out through the broker.
//!
//! Nothing else in Talewire knows what a language model is, and this crate knows neither sockets nor SQL. Reading order:
//! the [`worker`] claims jobs and keeps their leases; a `generation` is one attempt at one job; the [`context`] puts its
//! prompt together; a [`provider`] answers it with text, either the [`demo`] storyteller, which is no AI at all, or any
//! [`openai`]-compatible endpoint; the `splitter` parts prose from choices, and the `coalesce` buffer makes deltas of it.

mod coalesce;
pub mod context;
pub mod counts;
pub mod demo;
mod ending;
mod error;
mod generation;
mod keeper;
pub mod openai;
pub mod provider;
#[cfg(test)]
mod script;
pub mod settings;
mod splitter;
mod sse;
mod telling;
pub mod worker;

pub use error::{BadSettings, ProviderError, Reason, Wait};
pub use settings::AgentSettings;
pub use worker::Worker;
