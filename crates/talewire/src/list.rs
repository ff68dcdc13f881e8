//! `talewire settings`: every setting, from the code.

use std::io::{ErrorKind, Write as _};

use serde_json::Value;

use crate::config::Known;

/// Prints path, variable, unit and default, in columns.
pub(crate) fn print() -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(table(&Known::new()).as_bytes()) {
        // The reader (`| head`) has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn table(known: &Known) -> String {
    let head = ["setting", "variable", "unit", "default"].map(str::to_owned);
    let rows = known.all().iter().map(|s| [s.path.clone(), s.variable(), s.unit().to_owned(), shown(&s.default)]);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [path, variable, unit, default] = row;
        format!("{path:0$}  {variable:1$}  {unit:2$}  {default}\n", widths[0], widths[1], widths[2])
    };
    rows.iter().map(line).collect()
}

fn shown(default: &Value) -> String {
    match default {
        Value::Null => "(none)".into(),
        Value::String(text) if text.is_empty() => "(empty)".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_path_variable_unit_and_default() {
        let table = table(&Known::new());
        let words = |path: &str| {
            let line = table.lines().find(|line| line.starts_with(&format!("{path} "))).expect("listed");
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("limits.frame_bytes_max"), "TALEWIRE_LIMITS_FRAME_BYTES_MAX bytes 65536");
        assert_eq!(words("limits.ping_interval_ms"), "TALEWIRE_LIMITS_PING_INTERVAL_MS ms 25000");
        assert_eq!(words("auth.hs256_secret"), "TALEWIRE_AUTH_HS256_SECRET text (none)");
        assert_eq!(words("namespaces.NAME.kind"), "TALEWIRE_NAMESPACES_NAME_KIND text history");
    }

    #[test]
    fn the_operators_document_lists_every_setting_and_no_other() {
        let document = include_str!("../../../docs/operations.md");
        let known = Known::new();
        for setting in known.all() {
            let row = format!("| `{}` | {} | `{}` | ", setting.path, setting.unit(), shown(&setting.default));
            assert!(document.contains(&row), "docs/operations.md has no row that begins with {row}");
        }
        let is_row = |line: &&str| line.starts_with("| `") && line.contains('.') && !line.starts_with("| `talewire_");
        assert_eq!(document.lines().filter(is_row).count(), known.all().len(), "a setting is listed that is not there");
    }
}
