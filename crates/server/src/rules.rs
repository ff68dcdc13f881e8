//! What can be exchanged while connections are open: the rules of channels with their schemas, and the limits of sessions.
//!
//! Made by the binary from its configuration, held by [`crate::Node`] and exchanged whole; a reader keeps the one it got.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use talewire_proto::session::Refused;
use talewire_proto::{Channel, ErrorCode, Limits, Namespace, Namespaces, Payload};

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
    /// Tells these rules of channels from others.
    digest: String,
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
        let digest = digest(&namespaces);
        Ok(Self { namespaces, limits: Arc::new(limits), schemas, digest })
    }

    /// The same text wherever channels have the same rules, also in a neighbouring version.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether a payload fits what the channel's namespace asks for.
    pub(crate) fn check(&self, channel: &Channel, data: &Payload) -> Result<(), Refused> {
        let Some(schema) = self.schemas.get(channel.namespace()) else { return Ok(()) };
        schema.check(data).map_err(|message| Refused { code: ErrorCode::BadRequest, message: Some(message) })
    }
}

/// Of the configured namespaces: those of the platform belong to the version. What is as by default is left out, so that a setting
/// which only the newer of two versions knows makes no difference until somebody uses it.
fn digest(namespaces: &Namespaces) -> String {
    let value = |rules: &Namespace| serde_json::to_value(rules).expect("rules are plain data");
    let defaults = value(&Namespace::default());
    let set = |rules: &Namespace| match value(rules) {
        Value::Object(members) => members.into_iter().filter(|(name, is)| defaults.get(name) != Some(is)).collect(),
        other => BTreeMap::from([(String::new(), other)]),
    };
    let all = namespaces.all().filter(|(_, rules)| !rules.platform).map(|(name, rules)| (name, set(rules)));
    let all: BTreeMap<&str, BTreeMap<String, Value>> = all.collect();
    talewire_auth::digest(b"namespaces", &serde_json::to_vec(&all).expect("values are written as JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_set_and_not_of_its_order() {
        let of = |all: &[(&str, u32)]| {
            let rules = |size: u32| Namespace { history_size: size, ..Namespace::default() };
            let all = all.iter().map(|(name, size)| ((*name).to_owned(), rules(*size)));
            Rules::new(Namespaces::new(all), Limits::default()).expect("no schemas").digest().to_owned()
        };
        assert_eq!(of(&[("a", 1), ("b", 2)]), of(&[("b", 2), ("a", 1)]));
        let all = [of(&[]), of(&[("a", 1)]), of(&[("a", 2)]), of(&[("b", 1)]), of(&[("a", 1_000)])];
        let apart: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(apart.len(), all.len(), "{all:?}");
    }
}
