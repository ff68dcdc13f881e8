//! In which settings nodes of one broker must agree: a configuration in, a digest of each part out, for [`crate::run`] and the doctor.
//!
//! The rules of channels are not here: they can be exchanged while a node runs, and [`talewire_server::Rules`] has their digest. What
//! is as by default is left out, so that neighbouring versions agree on what only one of them knows.

use std::collections::BTreeMap;

use serde_json::Value;
use talewire_auth::{Secret, digest};

use crate::config::Config;

/// Settings by part. `broker`: whoever publishes keeps and trims by its own. `auth`: whom one node lets in, another one must not refuse.
/// `story`: what one node takes, another one must not refuse. The rest may differ: sizes, times and places of a node's own.
const PARTS: [(&str, &[&str]); 3] = [
    (
        "auth",
        &[
            "process.insecure",
            "auth.allowed_origins",
            "auth.anonymous_allowed",
            "auth.audience",
            "auth.expiry_required",
            "auth.issuer",
            "auth.leeway_s",
            "auth.login_lifetime_s",
        ],
    ),
    (
        "broker",
        &[
            "broker.cursor_age_ms",
            "broker.generation_age_ms",
            "broker.generation_bytes_max",
            "broker.history_idle_ms",
            "broker.key_age_ms",
            "broker.keys_per_channel_max",
            "broker.node_lease_ms",
            "broker.presence_per_channel_max",
        ],
    ),
    ("story", &["story"]),
];

/// The digest of each part that holds no secret.
pub(crate) fn open(config: &Config) -> BTreeMap<String, String> {
    let value = |config| serde_json::to_value(config).expect("settings are plain data");
    let (is, defaults) = (value(config), value(&Config::default()));
    let part = |(part, paths): (&str, &[&str])| {
        let mut set = BTreeMap::new();
        paths.iter().for_each(|path| differing(path, at(&is, path), at(&defaults, path), &mut set));
        let bytes = serde_json::to_vec(&set).expect("values are written as JSON");
        (part.to_owned(), digest(part.as_bytes(), &bytes))
    };
    PARTS.map(part).into()
}

/// The digests of all parts. The key is one that the nodes of a database share: others learn nothing about secrets from a digest.
pub(crate) fn all(config: &Config, key: &[u8; 32]) -> BTreeMap<String, String> {
    let mut all = open(config);
    let secret = |of: &Option<Secret>| of.as_ref().map(|secret| digest(key, secret.reveal().as_bytes()));
    let secrets = [secret(&config.auth.hs256_secret), secret(&config.http.api_key)];
    all.insert("secrets".to_owned(), digest(key, format!("{secrets:?}").as_bytes()));
    all
}

fn at<'a>(tree: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(tree, |value, name| &value[name])
}

/// Gathers the values below a path that are not as by default.
fn differing<'a>(path: &str, is: &'a Value, default: &Value, into: &mut BTreeMap<String, &'a Value>) {
    match is {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, member)| differing(&format!("{path}.{name}"), member, &default[name.as_str()], into)),
        _ if is == default => {}
        _ => drop(into.insert(path.to_owned(), is)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_tells_what_it_holds_and_nothing_else() {
        let tree = serde_json::to_value(Config::default()).expect("settings are plain data");
        for path in PARTS.iter().flat_map(|(_, paths)| *paths) {
            assert!(path.split('.').try_fold(&tree, |value, name| value.get(name)).is_some(), "there is no {path}");
        }
        let parts = |change: fn(&mut Config)| {
            let (before, mut config) = (all(&Config::default(), &[7; 32]), Config::default());
            change(&mut config);
            let after = all(&config, &[7; 32]);
            before.into_iter().filter(|(part, digest)| after[part] != *digest).map(|(part, _)| part).collect::<Vec<_>>()
        };
        assert_eq!(parts(|config| config.process.insecure = true), ["auth"]);
        assert_eq!(parts(|config| config.auth.issuer = Some("a".into())), ["auth"]);
        assert_eq!(parts(|config| config.broker.key_age_ms = 1), ["broker"]);
        assert_eq!(parts(|config| config.story.turn_chars_max = 1), ["story"]);
        assert_eq!(parts(|config| config.http.api_key = Some(Secret::new("a"))), ["secrets"]);
        assert_eq!(parts(|config| config.auth.hs256_secret = Some(Secret::new("a"))), ["secrets"]);
        assert!(parts(|config| config.http.sockets_max = 1).is_empty(), "a machine's own");
    }
}
