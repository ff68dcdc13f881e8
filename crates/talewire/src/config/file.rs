//! The file: TOML text in, values with their lines out, and problems with line, column and reason.
//!
//! Each value is read by itself, so that one wrong one does not hide the next; what is wrong counts as not said.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::known::{ANY, nearest};
use super::{Known, Problem, Said, alone};

/// Reads a file into `said`. All unknown names and wrong values are told; of what is not TOML the first place.
pub(super) fn read(name: &str, text: &str, known: &Known, said: &mut Said) -> Vec<Problem> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        format!("{name}:{}:{}", before.matches('\n').count() + 1, before[line_begin..].chars().count() + 1)
    };
    let broken = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Problem { place: place(at), reason: error.message().to_owned() }]
    };
    let tree = match DeTable::parse(text) {
        Ok(tree) => tree,
        Err(error) => return broken(error),
    };
    let values = match toml::from_str(text) {
        Ok(values) => values,
        Err(error) => return broken(error),
    };
    let mut walk = Walk { known, place: &place, problems: Vec::new(), places: &mut said.places };
    said.values = walk.table(&Path::default(), tree.get_ref(), values);
    walk.problems
}

/// Where a value stands: names as they are written, and as the list of settings has them.
#[derive(Default, Clone)]
struct Path {
    written: Vec<String>,
    general: Vec<String>,
}

impl Path {
    fn inside(&self, name: &str) -> Self {
        let mut inside = self.clone();
        let any = Known::is_open(&self.general());
        inside.written.push(name.to_owned());
        inside.general.push(if any { ANY.to_owned() } else { name.to_owned() });
        inside
    }

    fn general(&self) -> String {
        self.general.join(".")
    }

    fn written(&self) -> String {
        self.written.join(".")
    }
}

struct Walk<'a> {
    known: &'a Known,
    place: &'a dyn Fn(usize) -> String,
    problems: Vec<Problem>,
    places: &'a mut BTreeMap<String, String>,
}

impl Walk<'_> {
    /// What is good of a table.
    fn table(&mut self, path: &Path, table: &DeTable<'_>, mut values: toml::Table) -> toml::Table {
        let names: Vec<String> = self.known.names_in(&path.general()).into_iter().map(str::to_owned).collect();
        let mut good = toml::Table::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let inside = path.inside(name);
            let place = (self.place)(key.span().start);
            if !Known::is_open(&path.general()) && !names.iter().any(|known| known == name) {
                let near = nearest(name, names.iter().map(String::as_str));
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let reason = format!("unknown setting `{}`{near}", inside.written());
                self.problems.push(Problem { place, reason });
                continue;
            }
            self.places.insert(inside.written(), place);
            let Some(plain) = values.remove(name) else { continue };
            match (value.get_ref(), plain) {
                // A setting whose value is a table of its own is the reader's matter.
                (DeValue::Table(inner), toml::Value::Table(plain))
                    if self.known.default_of(&inside.general()).is_none() =>
                {
                    let inner = self.table(&inside, inner, plain);
                    good.insert(name.to_owned(), toml::Value::Table(inner));
                }
                (_, plain) => match alone(&inside.general(), &plain) {
                    Ok(()) => drop(good.insert(name.to_owned(), plain)),
                    Err(reason) => {
                        self.problems.push(Problem { place: (self.place)(value.span().start), reason });
                    }
                },
            }
        }
        good
    }
}
