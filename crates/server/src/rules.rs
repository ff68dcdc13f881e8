//! What can be exchanged while connections are open: the rules of channels with their schemas, and the limits of sessions.
//!
//! Made by the binary from its configuration, held by [`crate::Node`] and exchanged whole; a reader keeps the one it got.

use std::collections::HashMap;
use std::sync::Arc;

use talewire_proto::session::Refused;
use talewire_proto::{Channel, ErrorCode, Limits, Namespaces, Payload};

use crate::schema::Schema;

/// The rules of one moment.
#[derive(Debug)]
pub struct Rules {
    /// The rules of channels.
    pub namespaces: Namespaces,
    /// Limits of sessions: those that begin from now on.
    pub limits: Arc<Limits>,
    /// What payloads must look like, by namespace.
    schemas: HashMap<String, Schema>,
}

/// A namespace whose schema cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("namespace `{namespace}`: {reason}")]
pub struct BadSchema {
    /// Which.
    pub namespace: String,
    /// Why.
    pub reason: String,
}

impl Rules {
    /// Compiles the schemas.
    ///
    /// # Errors
    /// The first schema that cannot be used.
    pub fn new(namespaces: Namespaces, limits: Limits) -> Result<Self, BadSchema> {
        let mut schemas = HashMap::new();
        for (name, rules) in namespaces.all() {
            if let Some(text) = &rules.schema {
                let bad = |reason| BadSchema { namespace: name.to_owned(), reason };
                schemas.insert(name.to_owned(), Schema::compile(text).map_err(bad)?);
            }
        }
        Ok(Self { namespaces, limits: Arc::new(limits), schemas })
    }

    /// Whether a payload fits what the channel's namespace asks for.
    pub(crate) fn check(&self, channel: &Channel, data: &Payload) -> Result<(), Refused> {
        let Some(schema) = self.schemas.get(channel.namespace()) else { return Ok(()) };
        schema.check(data).map_err(|message| Refused { code: ErrorCode::BadRequest, message: Some(message) })
    }
}
