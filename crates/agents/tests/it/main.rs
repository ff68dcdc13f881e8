//! The OpenAI-compatible client, alone and inside a worker, against a fake endpoint that speaks the real wire, with its faults.
#![allow(clippy::unwrap_used)]

mod fake;
mod openai;
mod whole;
