//! The whole of a channel's history as one node gives it, page by page, by the server API. Called at the end of a run.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Trouble, Who};
use crate::log::Position;

/// Entries in one page: as many as the server gives.
const PAGE: u64 = 300;

/// How long one page may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that stands in a channel.
#[derive(Debug)]
pub struct History {
    /// Its newest position.
    pub top: Position,
    /// Offsets and payloads.
    pub entries: Vec<(u64, Value)>,
}

/// Reads all of it.
///
/// # Errors
/// [`Trouble`].
pub fn page_all(address: SocketAddr, api_key: &str, channel: &str) -> Result<History, Trouble> {
    let ask = |params: Value| {
        let answer = http::post(address, "/api/history", Who::Key(api_key), &params, PATIENCE)?;
        let result = &answer["result"];
        let position = Position {
            epoch: result["epoch"].as_str().unwrap_or_default().into(),
            offset: result["offset"].as_u64().unwrap_or(0),
        };
        Ok((position, result["publications"].as_array().cloned().unwrap_or_default()))
    };
    let mut entries = Vec::new();
    let mut params = json!({ "channel": channel, "limit": PAGE });
    let mut last = 0;
    loop {
        let (top, publications) = ask(params.clone())?;
        let before = last;
        for publication in publications {
            let offset = publication["offset"].as_u64().unwrap_or(0);
            last = last.max(offset);
            entries.push((offset, publication["data"].clone()));
        }
        if last == before || last >= top.offset {
            return Ok(History { top, entries });
        }
        params["since"] = json!({ "offset": last, "epoch": *top.epoch });
    }
}
