//! The file: TOML text in, values with their lines out, or problems with line, column and reason.

use toml::de::{DeTable, DeValue};

use super::known::nearest;
use super::{Config, Known, Problem, Said};

/// Reads a file into `said`. All unknown names are told at once; of wrong values the first.
pub(super) fn read(name: &str, text: &str, known: &Known, said: &mut Said) -> Result<(), Vec<Problem>> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        format!("{name}:{}:{}", before.matches('\n').count() + 1, before[line_begin..].chars().count() + 1)
    };
    let broken = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Problem { place: place(at), reason: error.message().to_owned() }]
    };
    let tree = DeTable::parse(text).map_err(broken)?;
    let mut walk = Walk { known, place: &place, problems: Vec::new(), said };
    walk.table("", tree.get_ref());
    if !walk.problems.is_empty() {
        return Err(walk.problems);
    }
    // Read as the whole, so that wrong types and values are told with their place.
    toml::from_str::<Config>(text).map_err(broken)?;
    said.values = toml::from_str(text).map_err(broken)?;
    Ok(())
}

struct Walk<'a> {
    known: &'a Known,
    place: &'a dyn Fn(usize) -> String,
    problems: Vec<Problem>,
    said: &'a mut Said,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        let names: Vec<String> = self.known.names_in(path).into_iter().map(str::to_owned).collect();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let inside = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let place = (self.place)(key.span().start);
            if !Known::is_open(path) && !names.iter().any(|known| known == name) {
                let near = nearest(name, names.iter().map(String::as_str));
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                self.problems.push(Problem { place, reason: format!("unknown setting `{inside}`{near}") });
                continue;
            }
            self.said.places.insert(inside.clone(), place);
            // A setting whose value is a table of its own is the reader's matter.
            match value.get_ref() {
                DeValue::Table(inner) if self.known.default_of(&inside).is_none() => self.table(&inside, inner),
                _ => {}
            }
        }
    }
}
