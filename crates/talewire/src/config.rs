//! All settings: defaults, then the file, then the environment, then flags in; one [`Config`] or a list of problems out.
//!
//! Every section is a struct of the crate that uses it. The names of settings, their environment variables and types come
//! from the serialised defaults ([`Known`]), so that a new field has them by itself. Namespaces are written
//! `[namespaces.NAME]`; `[namespaces.default]` holds the rules of channels without a namespace (`news`, not `a:news`). Sources and
//! webhooks have names in the same way.

mod check;
mod file;
mod known;
mod schemas;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use talewire_agents::AgentSettings;
use talewire_auth::{AuthSettings, Secret};
use talewire_broker::BrokerSettings;
use talewire_hub::HubSettings;
use talewire_proto::{Limits, Namespace, Namespaces};
use talewire_server::{BadSchema, Rules, ServerSettings};
use talewire_sources::{SourceSettings, WebhookSettings};
use talewire_store::StoreSettings;
use talewire_story::StoryLimits;

use crate::traces::TraceSettings;

pub(crate) use known::Known;
pub(crate) use variables::environment;

/// How `[namespaces.default]` is written, whose channels have no namespace.
const NO_NAMESPACE: &str = "default";

/// Every setting of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The process itself.
    pub(crate) process: ProcessSettings,
    /// Sockets and HTTP.
    pub(crate) http: ServerSettings,
    /// One session.
    pub(crate) limits: Limits,
    /// Fan-out and outboxes.
    pub(crate) hub: HubSettings,
    /// The database.
    pub(crate) store: StoreSettings,
    /// History, presence and generation streams.
    pub(crate) broker: BrokerSettings,
    /// Stories.
    pub(crate) story: StoryLimits,
    /// AI participants.
    pub(crate) agents: AgentSettings,
    /// Traces by OpenTelemetry.
    pub(crate) traces: TraceSettings,
    /// Tokens, logins, origins.
    pub(crate) auth: AuthSettings,
    /// The rules of channels, by namespace.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    /// Streams and queues of other systems that become publications, by name.
    pub(crate) sources: BTreeMap<String, SourceSettings>,
    /// Other systems that are told what happens here, by name.
    pub(crate) webhooks: BTreeMap<String, WebhookSettings>,
}

/// The process itself: its log and its mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProcessSettings {
    /// Development: everything is allowed in configured namespaces. Only on loopback.
    pub(crate) insecure: bool,
    /// How log lines look: `auto` (plain on a terminal, else JSON), `plain` or `json`.
    pub(crate) log_format: LogFormat,
    /// Which log lines are written, such as `info` or `warn,talewire_server=debug`.
    pub(crate) log_filter: String,
    /// How this node is called in lists of nodes; empty for the name of its machine.
    pub(crate) node_name: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Plain on a terminal, else JSON.
    Auto,
    /// For people.
    Plain,
    /// One JSON object per line.
    Json,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self { insecure: false, log_format: LogFormat::Auto, log_filter: "info".into(), node_name: String::new() }
    }
}

impl ProcessSettings {
    /// How this node is called.
    pub(crate) fn name(&self) -> String {
        if self.node_name.is_empty() { machine() } else { self.node_name.clone() }
    }
}

#[cfg(unix)]
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

impl Config {
    /// The rules of all channels, for the session.
    pub(crate) fn namespaces(&self) -> Namespaces {
        let unnamed = |name: &String| if name == NO_NAMESPACE { String::new() } else { name.clone() };
        Namespaces::new(self.namespaces.iter().map(|(name, rules)| (unnamed(name), rules.clone())))
    }

    /// The settings whose secrets are those of our examples.
    pub(crate) fn secrets_of_examples(&self) -> Vec<&'static str> {
        let all = [("auth.hs256_secret", &self.auth.hs256_secret), ("http.api_key", &self.http.api_key)];
        let of_examples = all.into_iter().filter(|(_, secret)| secret.as_ref().is_some_and(Secret::is_of_an_example));
        of_examples.map(|(setting, _)| setting).collect()
    }

    /// What can be exchanged while connections are open.
    pub(crate) fn rules(&self) -> Result<Rules, BadSchema> {
        Rules::new(self.namespaces(), self.limits.clone())
    }
}

/// What settings are made of.
pub(crate) struct Layers<'a> {
    /// The file's name and text.
    pub(crate) file: Option<(&'a str, &'a str)>,
    /// Where the paths in settings start.
    pub(crate) folder: PathBuf,
    /// Variables that begin with `TALEWIRE_`.
    pub(crate) environment: Vec<(String, String)>,
    /// Flags with the setting that each stands for and the text that was typed.
    pub(crate) flags: Vec<(&'static str, &'static str, String)>,
    /// Where data lies unless something is set.
    pub(crate) data_folder: PathBuf,
}

/// Something that is not right, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    place: String,
    reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// What has been said so far: values by path, and the place of each.
#[derive(Default)]
struct Said {
    values: toml::Table,
    places: BTreeMap<String, String>,
}

impl Said {
    fn set(&mut self, path: &str, value: toml::Value, place: String) {
        put(&mut self.values, path, value);
        self.places.insert(path.to_owned(), place);
    }
}

/// Puts a value at a path whose inner parts are tables or not there yet.
fn put(table: &mut toml::Table, path: &str, value: toml::Value) {
    let Some((first, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let inner = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

/// Whether a value is one that its setting takes. The reason never shows more of the value than its type needs.
fn alone(path: &str, value: &toml::Value) -> Result<(), String> {
    let mut alone = toml::Table::new();
    put(&mut alone, path, value.clone());
    let read: Result<Config, toml::de::Error> = toml::Value::Table(alone).try_into();
    // The first line alone: the others show the value, which may be a secret.
    read.map(drop).map_err(|error| match error.message().lines().next().unwrap_or_default() {
        reason @ "invalid socket address syntax" => {
            format!("{reason}: it is written 127.0.0.1:8000, [::1]:8000, or 0.0.0.0:8000 for all addresses")
        }
        reason => reason.to_owned(),
    })
}

/// Lays the layers over each other and checks the whole.
pub(crate) fn load(layers: Layers<'_>) -> Result<Config, Vec<Problem>> {
    let known = Known::new();
    let mut said = Said::default();
    let mut problems = Vec::new();
    if let Some((name, text)) = layers.file {
        problems.extend(file::read(name, text, &known, &mut said));
    }
    let mut unknown = Vec::new();
    for (name, text) in layers.environment {
        match known.path_of_variable(&name) {
            Some(path) => problems.extend(said.take(&known, &path, &text, name).err()),
            None => unknown.push(name),
        }
    }
    for (flag, path, text) in layers.flags {
        problems.extend(said.take(&known, path, &text, flag.to_owned()).err());
    }
    if !said.places.contains_key("store.path") {
        let folder = layers.data_folder.to_string_lossy().into_owned();
        said.set("store.path", toml::Value::String(folder), "the default data folder".into());
    }
    let Said { values, places } = said;
    let mut config: Config = match toml::Value::Table(values).try_into() {
        Ok(config) => config,
        Err(error) => {
            let error: toml::de::Error = error;
            problems.push(Problem { place: "configuration".into(), reason: error.message().to_owned() });
            return Err(problems);
        }
    };
    problems.extend(unknown.iter().filter_map(|name| variables::unknown(name, &known, &config)));
    let mut findings = schemas::read(&mut config, &layers.folder);
    findings.extend(check::check(&config));
    let is_whole = problems.is_empty();
    problems.extend(findings.into_iter().filter_map(|(path, reason)| {
        let place = places.get(&path).cloned();
        // What contradicts a default may contradict what was meant by a value that could not be read.
        let place = place.or_else(|| is_whole.then(|| "default".to_owned()))?;
        Some(Problem { place, reason: format!("{path}: {reason}") })
    }));
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}
