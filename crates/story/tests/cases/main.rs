//! Cases of stories: given what was done before, when somebody calls, then these events or that refusal. Every case runs
//! over a real store and the in-process broker.

#![allow(clippy::unwrap_used, missing_docs)]

mod at_once;
mod limits;
mod permissions;
mod reading;
mod scripts;
mod world;
