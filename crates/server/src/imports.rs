//! What comes from streams and queues of other systems: published as a server program's words are, with an answer that says
//! whether it is worth trying again. Called by the binary for the sources.

use std::collections::BTreeMap;

use talewire_proto::{Channel, ErrorCode, Payload};

use crate::node::Node;
use crate::routes;

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Import {
    /// Where.
    pub channel: Channel,
    /// What.
    pub data: Payload,
    /// Its event type; empty for none.
    pub event: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What makes it the same publication when it comes again; empty for nothing. It shares its room with the server API's keys.
    pub key: String,
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is kept as its channel promises.
    Published,
    /// The same key had been published before: nothing was added.
    Repeated,
}

/// Why it was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRefused {
    /// Whether the same may succeed later.
    pub again: bool,
    /// The code and the reason, without the content.
    pub reason: String,
}

impl Node {
    /// Publishes what another system says, and answers once it is kept as its channel promises.
    ///
    /// # Errors
    /// [`ImportRefused`] when the rules of the channel refuse it, or something that it needs does not answer now.
    pub async fn import(&self, import: Import) -> Result<Imported, ImportRefused> {
        let Import { channel, data, event, tags, key } = import;
        let refused = |refused: talewire_proto::session::Refused, again: bool| {
            let code = refused.code;
            self.metrics.error(code);
            let reason = refused.message.map_or_else(|| code.text().to_owned(), |message| message.to_string());
            ImportRefused { again, reason: format!("{}: {reason}", code.code()) }
        };
        let rules = self.rules_of(&channel).map_err(|code| refused(code.into(), false))?;
        if data.len() > rules.publication_bytes_max {
            return Err(refused(ErrorCode::LimitExceeded.into(), false));
        }
        let words = routes::said(self, data, event, tags, key).map_err(|reason| refused(reason, false))?;
        match routes::into_channel(self, &channel, &words).await {
            Ok(kept) if kept.repeated => Ok(Imported::Repeated),
            Ok(_) => Ok(Imported::Published),
            // Its size was looked at: there is no room for one more channel now, which passes.
            Err(reason) if reason.code == ErrorCode::LimitExceeded => Err(refused(reason, true)),
            Err(reason) => {
                let again = reason.code.temporary();
                Err(refused(reason, again))
            }
        }
    }
}
