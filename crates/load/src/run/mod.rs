//! The scenarios, one file each: options in, a report out.

pub mod connect;
pub mod fanout;
pub mod idle;
mod outcome;
pub mod restart;
pub mod roll;
pub mod rooms;
