//! Reading the configuration again while the server runs: SIGHUP and requests in, other rules for the node out.
//!
//! What can be exchanged without ending a connection is: namespaces with their schemas, the limits of sessions (for those
//! that begin later) and the log filter. What else has changed is named and waits for the next start. A configuration with
//! a mistake changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use talewire_server::{Node, ReloadRequest, Reloaded};
use tokio::sync::mpsc;

use crate::Source;
use crate::config::Config;
use crate::logging::LogFilter;

/// What reading again needs to know.
pub(crate) struct Reloader {
    pub(crate) source: Source,
    /// What is in force.
    pub(crate) config: Config,
    pub(crate) log_filter: LogFilter,
}

impl Reloader {
    /// Answers signals and requests, one after another, for ever.
    pub(crate) async fn run(mut self, node: Arc<Node>, mut requests: mpsc::Receiver<ReloadRequest>) {
        let mut hangups = hangups();
        loop {
            let request = tokio::select! {
                () = next(&mut hangups) => None,
                request = requests.recv() => request,
            };
            // Files are read: other work of this thread goes elsewhere meanwhile.
            let answer = tokio::task::block_in_place(|| self.reload(&node));
            if let Some(request) = request {
                // Whoever asked may have gone away.
                let _ = request.send(answer);
            }
        }
    }

    fn reload(&mut self, node: &Node) -> Result<Reloaded, Vec<String>> {
        let done = self.try_reload(node);
        match &done {
            Ok(Reloaded { changed, waiting }) => {
                tracing::info!(changed = %changed.join(", "), "the configuration was read again");
                if !waiting.is_empty() {
                    tracing::warn!(settings = %waiting.join(", "), "these have changed and wait for the next start");
                }
            }
            Err(problems) => {
                node.exchange_failed();
                tracing::error!(problems = %problems.join("; "), "the configuration cannot be used; nothing has changed");
            }
        }
        done
    }

    fn try_reload(&mut self, node: &Node) -> Result<Reloaded, Vec<String>> {
        let new = self.source.load().map_err(|problems| problems.to_strings())?;
        let rules = new.rules().map_err(|error| vec![error.to_string()])?;
        let (changed, waiting) = differences(&self.config, &new);
        self.log_filter.set(&new.process.log_filter).map_err(|error| vec![format!("process.log_filter: {error:#}")])?;
        node.exchange(rules);
        self.config.namespaces = new.namespaces;
        self.config.limits = new.limits;
        self.config.process.log_filter = new.process.log_filter;
        Ok(Reloaded { changed, waiting })
    }
}

/// The settings that differ: those that are exchanged, and those that wait.
fn differences(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let (before, after) = (values(old), values(new));
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut different: Vec<String> =
        all.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
    // Secrets look alike from outside.
    let secrets = [
        ("auth.hs256_secret", old.auth.hs256_secret != new.auth.hs256_secret),
        ("http.api_key", old.http.api_key != new.http.api_key),
        ("broker.nats.password", old.broker.nats.password != new.broker.nats.password),
        ("broker.redis.password", old.broker.redis.password != new.broker.redis.password),
        ("broker.redis.sentinel_password", old.broker.redis.sentinel_password != new.broker.redis.sentinel_password),
        ("sources", old.sources != new.sources),
        ("webhooks", old.webhooks != new.webhooks),
    ];
    for (path, differs) in secrets {
        let is_told = |known: &String| known == path || known.starts_with(&format!("{path}."));
        if differs && !different.iter().any(is_told) {
            different.push(path.to_owned());
        }
    }
    different.into_iter().partition(|path| is_exchanged(path))
}

fn is_exchanged(path: &str) -> bool {
    path == "process.log_filter" || path.starts_with("namespaces.") || path.starts_with("limits.")
}

/// All values by path. What has a name is one value: that it came, went or changed is what matters.
fn values(config: &Config) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let tree = serde_json::to_value(config).expect("settings are plain data");
    leaves("", &tree, &mut values);
    values
}

fn leaves(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let has_name = ["namespaces.", "sources.", "webhooks."].iter().any(|table| path.starts_with(table));
    match value {
        Value::Object(members) if !has_name => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, member, into);
            }
        }
        _ => drop(into.insert(path.to_owned(), value.clone())),
    }
}

#[cfg(unix)]
fn hangups() -> Option<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup()).inspect_err(|error| tracing::error!(%error, "SIGHUP cannot be awaited")).ok()
}

#[cfg(unix)]
async fn next(hangups: &mut Option<tokio::signal::unix::Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
fn hangups() {}

#[cfg(not(unix))]
async fn next((): &mut ()) {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use talewire_auth::Secret;
    use talewire_proto::Namespace;

    use super::*;

    #[test]
    fn what_differs_is_named_by_whether_it_can_be_exchanged() {
        let mut old = Config::default();
        old.namespaces.insert("goes".into(), Namespace::default());
        old.namespaces.insert("changes".into(), Namespace::default());
        old.namespaces.insert("stays".into(), Namespace::default());
        let mut new = old.clone();
        assert_eq!(differences(&old, &new), (vec![], vec![]));
        new.namespaces.remove("goes");
        new.namespaces.insert("comes".into(), Namespace::default());
        new.namespaces.insert("changes".into(), Namespace { history_size: 3, ..Namespace::default() });
        new.limits.subscriptions_max = 3;
        new.process.log_filter = "warn".into();
        new.process.insecure = true;
        new.hub.gap_wait_ms = 7;
        old.auth.hs256_secret = Some(Secret::new("one"));
        new.auth.hs256_secret = Some(Secret::new("other"));
        new.http.api_key = Some(Secret::new("new"));
        let hook = |secret: &str| talewire_sources::WebhookSettings {
            secret: talewire_sources::settings::Hidden::new(secret),
            ..talewire_sources::WebhookSettings::default()
        };
        old.webhooks.insert("a".into(), hook("one"));
        new.webhooks.insert("a".into(), hook("other"));
        new.sources.insert("b".into(), talewire_sources::SourceSettings::default());
        let (changed, waiting) = differences(&old, &new);
        let namespaces = ["namespaces.changes", "namespaces.comes", "namespaces.goes"];
        assert_eq!(changed, [&["limits.subscriptions_max"], &namespaces[..], &["process.log_filter"]].concat());
        assert_eq!(
            waiting,
            ["http.api_key", "hub.gap_wait_ms", "process.insecure", "sources.b", "auth.hs256_secret", "webhooks"]
        );
    }
}
