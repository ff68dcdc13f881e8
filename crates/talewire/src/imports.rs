//! What sources publish by: their words in, the server's own way to publish, and its answer out.

use std::sync::Arc;

use talewire_server::{Import, ImportRefused, Imported, Node};
use talewire_sources::{Outcome, Publisher, Refusal, Words};

/// Publishes into `node`.
pub(crate) fn publisher(node: &Arc<Node>) -> Publisher {
    let node = node.clone();
    Arc::new(move |words| {
        let node = node.clone();
        Box::pin(async move {
            let Words { channel, data, event, tags, key } = words;
            let import = Import { channel, data, event, tags, key: key.unwrap_or_default() };
            match node.import(import).await {
                Ok(Imported::Published) => Ok(Outcome::Published),
                Ok(Imported::Repeated) => Ok(Outcome::Repeated),
                Err(ImportRefused { again, reason }) => Err(Refusal { again, reason }),
            }
        })
    })
}
