//! The environment and flags: a path and a text in, a value of the right type out, or a problem that names the variable.

use serde_json::Value;

use super::known::nearest;
use super::{Config, Known, Problem, Said, alone};

const PREFIX: &str = "TALEWIRE_";

/// Names a file rather than a setting; read by the command line.
const NOT_SETTINGS: [&str; 2] = ["TALEWIRE_CONFIG", "TALEWIRE_DOCTOR_TOKEN"];

/// The process's variables that are meant for us.
pub(crate) fn environment() -> anyhow::Result<Vec<(String, String)>> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(name)) else {
            continue;
        };
        let Some(value) = value.to_str() else { anyhow::bail!("{name}: the value is not UTF-8") };
        ours.push((name.to_owned(), value.to_owned()));
    }
    ours.sort();
    Ok(ours)
}

impl Said {
    /// Takes the text of a variable or flag as the value of a setting.
    pub(super) fn take(&mut self, known: &Known, path: &str, text: &str, place: String) -> Result<(), Problem> {
        let default = known.default_of(path).unwrap_or(&Value::Null);
        match read(default, path, text) {
            Ok(value) => {
                self.set(path, value, place);
                Ok(())
            }
            Err(reason) => Err(Problem { place, reason: format!("{path}: {reason}") }),
        }
    }
}

/// The default's type says how the text is read; where there is no default, text goes before other types.
fn read(default: &Value, path: &str, text: &str) -> Result<toml::Value, String> {
    let plain = || toml::Value::String(text.to_owned());
    let candidates = match default {
        Value::Bool(_) => vec![literal(text).filter(toml::Value::is_bool).ok_or("it must be true or false")?],
        Value::Number(_) => {
            let number = literal(text).filter(|value| value.is_integer() || value.is_float());
            vec![number.ok_or("it must be a number")?]
        }
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            vec![toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect())]
        }
        Value::Array(_) | Value::Object(_) => vec![literal(text).ok_or("it must be a value as in the file (TOML)")?],
        Value::String(_) => vec![plain()],
        Value::Null => [Some(plain()), literal(text)].into_iter().flatten().collect(),
    };
    let mut reason = String::new();
    for candidate in candidates {
        match alone(path, &candidate) {
            Ok(()) => return Ok(candidate),
            Err(told) => reason = told,
        }
    }
    Err(reason)
}

fn literal(text: &str) -> Option<toml::Value> {
    let table: toml::Table = toml::from_str(&format!("value = {}", text.trim())).ok()?;
    // More lines in the text would be more settings.
    (table.len() == 1).then(|| table.get("value").cloned())?
}

/// A variable that stands for no setting, unless a setting names it as one to be read (`…_variable`).
pub(super) fn unknown(name: &str, known: &Known, config: &Config) -> Option<Problem> {
    let values = serde_json::to_value(config).expect("settings are plain data");
    let named_by_setting = known.all().iter().filter(|setting| setting.path.ends_with("_variable")).any(|setting| {
        let pointer = format!("/{}", setting.path.replace('.', "/"));
        values.pointer(&pointer).and_then(Value::as_str) == Some(name)
    });
    if named_by_setting {
        return None;
    }
    let variables: Vec<String> = known.all().iter().map(super::known::Setting::variable).collect();
    let near = nearest(name, variables.iter().map(String::as_str));
    let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    Some(Problem { place: name.to_owned(), reason: format!("no setting has this variable{near}") })
}
