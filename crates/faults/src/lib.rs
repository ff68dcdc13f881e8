//! The fault suite: real servers under constant publishing while processes are killed, paused and asked to end, disks filled,
//! clocks moved and connections cut; then everything that anybody saw is checked against what Talewire promises.
//!
//! Reading order: what is written down ([`log`]) and what must hold ([`checkers`]); who publishes and reads ([`clients`]) over
//! which wire ([`http`], [`socket`], [`payload`]); the servers ([`stage`]); which faults come when ([`schedule`]), and how they
//! are carried out ([`nemesis`]); a whole run ([`run`]) and what it says ([`report`]).

pub mod checkers;
pub mod clients;
pub mod history;
pub mod http;
pub mod log;
pub mod nemesis;
pub mod options;
pub mod payload;
pub mod report;
pub mod run;
pub mod schedule;
pub mod socket;
pub mod stage;
