//! Long polls on the loop's connections: one request after the other on a socket that is kept, each with the cursor of the last answer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::streams::Beginning;
use super::{Phase, Role, Sockets, http};
use crate::error::LoadError;
use crate::ledger::Found;

/// How long a poll waits for news, in seconds: as long as the server lets it.
const WAIT_S: u32 = 50;

/// An answer.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    cursor: Cow<'a, str>,
    #[serde(borrow)]
    channels: HashMap<Cow<'a, str>, Beginning>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(borrow)]
    gaps: Vec<&'a RawValue>,
    #[serde(borrow)]
    refused: Vec<&'a RawValue>,
}

/// One of its events.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Sockets {
    /// Asks for what is new.
    pub(super) fn ask(&mut self, index: usize) {
        let peer = &self.peers[index];
        let Role::Reader { ledger } = peer.role else { return };
        let token = self.token_in_query();
        let path = match &peer.given {
            Some(cursor) => format!("/poll?wait={WAIT_S}&cursor={}{token}", http::escaped(cursor)),
            None => {
                let channel = http::escaped(self.ledgers[ledger].channel());
                format!("/poll?wait={WAIT_S}&channel={channel}{token}")
            }
        };
        let request = http::get(&self.target, &path, "");
        self.send(index, &request);
    }

    pub(super) fn take_poll(&mut self, index: usize, body: &[u8], now: Instant) {
        let answer = match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) if answer.refused.is_empty() => answer,
            Ok(_) => {
                let said = String::from_utf8_lossy(body).into_owned();
                return self.broken(index, LoadError::Refused(said));
            }
            Err(error) => {
                return self.broken(index, LoadError::Refused(format!("a poll's answer is not as expected: {error}")));
            }
        };
        if !answer.gaps.is_empty() || answer.channels.values().any(|beginning| beginning.recovered == Some(false)) {
            self.gap_told(index);
        }
        for element in &answer.events {
            let text = element.get();
            if self.took_known(index, text.as_bytes(), now) {
                continue;
            }
            match serde_json::from_str::<Envelope<'_>>(text) {
                Ok(Envelope { channel, offset, data }) => {
                    let found = Found { channel: &channel, data: data.get().as_bytes(), offset };
                    self.take_publication(index, found, Some(text.as_bytes()), now);
                }
                Err(error) => {
                    return self.broken(index, LoadError::Refused(format!("an event of a poll: {error}")));
                }
            }
        }
        self.peers[index].given = Some(answer.cursor.into());
        match self.peers[index].phase {
            Phase::Closing => return,
            Phase::Connecting => self.became_ready(index),
            _ => self.progress_at = now,
        }
        self.ask(index);
    }
}
