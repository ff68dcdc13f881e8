//! Every setting that there is, read off the serialised defaults: its path, environment variable, unit and default.

use serde_json::Value;
use talewire_proto::Namespace;
use talewire_sources::{SourceSettings, WebhookSettings};

use super::Config;

/// Where things with names stand; the second part of their paths is any name.
const OPEN: [&str; 3] = ["namespaces", "sources", "webhooks"];
/// The name that stands for any.
pub(super) const ANY: &str = "NAME";

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// Its place in the file, such as `limits.frame_bytes_max`.
    pub(crate) path: String,
    /// Its default; `null` if there is none.
    pub(crate) default: Value,
}

/// All settings.
pub(crate) struct Known {
    settings: Vec<Setting>,
}

impl Known {
    /// Reads the defaults.
    pub(crate) fn new() -> Self {
        let mut tree = serde_json::to_value(Config::default()).expect("settings are plain data");
        let named = [
            serde_json::to_value(Namespace::default()),
            serde_json::to_value(SourceSettings::default()),
            serde_json::to_value(WebhookSettings::default()),
        ];
        for (table, defaults) in OPEN.into_iter().zip(named) {
            tree[table] = serde_json::json!({ ANY: defaults.expect("settings are plain data") });
        }
        let mut settings = Vec::new();
        leaves("", &tree, &mut settings);
        Self { settings }
    }

    /// All settings, in the order of their paths.
    pub(crate) fn all(&self) -> &[Setting] {
        &self.settings
    }

    /// The default of one setting.
    pub(crate) fn default_of(&self, path: &str) -> Option<&Value> {
        let path = general(path);
        self.settings.iter().find(|setting| setting.path == path).map(|setting| &setting.default)
    }

    /// The names that may stand in a table.
    pub(crate) fn names_in(&self, table: &str) -> Vec<&str> {
        let prefix = if table.is_empty() { String::new() } else { format!("{}.", general(table)) };
        let inside = self.settings.iter().filter_map(|setting| setting.path.strip_prefix(&prefix));
        let mut names: Vec<&str> = inside.map(|rest| rest.split('.').next().unwrap_or(rest)).collect();
        names.dedup();
        names
    }

    /// Whether any name may stand in a table.
    pub(crate) fn is_open(table: &str) -> bool {
        OPEN.contains(&table)
    }

    /// The setting that a variable stands for. Names in variables are in lower case, and the longest field counts.
    pub(crate) fn path_of_variable(&self, name: &str) -> Option<String> {
        if let Some(setting) = self.settings.iter().find(|setting| setting.variable() == name) {
            return (!setting.path.contains(ANY)).then(|| setting.path.clone());
        }
        let rest = name.strip_prefix("TALEWIRE_")?;
        let (table, named) = OPEN
            .into_iter()
            .find_map(|table| Some((table, rest.strip_prefix(table.to_uppercase().as_str())?.strip_prefix('_')?)))?;
        let fields = self.names_in(&format!("{table}.{ANY}")).into_iter().filter_map(|field| {
            let name = named.strip_suffix(&format!("_{}", field.to_uppercase()))?;
            (!name.is_empty()).then(|| (field, name.to_lowercase()))
        });
        let (field, name) = fields.max_by_key(|(field, _)| field.len())?;
        Some(format!("{table}.{name}.{field}"))
    }
}

impl Setting {
    /// `TALEWIRE_<SECTION>_<FIELD>`.
    pub(crate) fn variable(&self) -> String {
        format!("TALEWIRE_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// What the value counts, from the unit in the name.
    pub(crate) fn unit(&self) -> &'static str {
        let words: Vec<&str> = self.path.rsplit('.').next().unwrap_or_default().split('_').collect();
        if self.path.ends_with("_per_second") {
            return "per second";
        }
        if self.path.ends_with("_per_minute") {
            return "per minute";
        }
        let units = [("ms", "ms"), ("s", "s"), ("bytes", "bytes"), ("chars", "characters")];
        let in_name = units.iter().find(|(word, _)| words.contains(word)).map(|(_, unit)| *unit);
        match &self.default {
            Value::Bool(_) => "true, false",
            Value::Number(_) => in_name.unwrap_or("number"),
            Value::Array(_) => "list",
            _ => "text",
        }
    }
}

/// A name among `candidates` that was probably meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(name, candidate);
    let near = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (near.0 <= 2 + name.len() / 5).then_some(near.1)
}

/// `namespaces.chat.kind` is the setting `namespaces.NAME.kind`.
fn general(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    if parts.len() > 1 && OPEN.contains(&parts[0]) {
        parts[1] = ANY;
    }
    parts.join(".")
}

fn leaves(path: &str, value: &Value, settings: &mut Vec<Setting>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, member, settings);
            }
        }
        _ => settings.push(Setting { path: path.to_owned(), default: value.clone() }),
    }
}
