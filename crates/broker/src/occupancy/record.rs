//! What all nodes know of a channel that somebody holds: a record, and the two steps by which it changes. Backends whose servers run no
//! scripts take these steps here, as one; the scripts of Redis (`lua/records.lua`) take the same.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who holds a channel, and who was to tell that last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// Rises with every change between held and not held.
    pub(crate) serial: u64,
    /// Who made that change.
    pub(crate) teller: String,
    /// Who holds it.
    pub(crate) names: Vec<String>,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether it was the first to come, or the last to go.
    pub(crate) is_change: bool,
    /// The serial of the latest change.
    pub(crate) serial: u64,
    /// Whether that change was made by whoever asks: now, or before by a step whose answer was lost.
    pub(crate) is_ours: bool,
    /// Whether anybody holds the channel: what the latest change came to.
    pub(crate) is_occupied: bool,
}

impl Record {
    pub(crate) fn written(&self) -> String {
        let mut text = format!("{} {}", self.serial, self.teller);
        for name in &self.names {
            write!(text, " {name}").expect("a String takes every byte");
        }
        text
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (serial, teller) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        Some(Self { serial, teller, names: words.map(str::to_owned).collect() })
    }

    pub(crate) fn is_held_by(&self, name: &str) -> bool {
        self.names.iter().any(|holder| holder == name)
    }

    /// `name` made a change.
    fn turn(&mut self, name: &str, now_us: u64) {
        self.serial = now_us.max(self.serial + 1);
        name.clone_into(&mut self.teller);
    }
}

/// `name` holds a channel, or holds it no more. What is to be kept, if that is something else than before, and the answer.
pub(crate) fn step(record: Option<Record>, name: &str, holds: bool, now_us: u64) -> (Option<Record>, Answer) {
    let is_unknown = record.is_none();
    let mut record = record.unwrap_or_default();
    let was_held_by = record.is_held_by(name);
    let is_change = if holds {
        let is_first = record.names.is_empty();
        if !was_held_by {
            record.names.push(name.to_owned());
        }
        is_first
    } else {
        record.names.retain(|holder| holder != name);
        // Of what was lost nobody knows whether somebody else holds it: whoever does says it again, and that comes later.
        is_unknown || (was_held_by && record.names.is_empty())
    };
    if is_change {
        record.turn(name, now_us);
    }
    let answer = Answer {
        is_change,
        serial: record.serial,
        is_ours: record.teller == name,
        is_occupied: !record.names.is_empty(),
    };
    let is_new = is_change || was_held_by != holds;
    (is_new.then_some(record), answer)
}

/// Whether something about a channel is to be told in the place of `dead`, and what is to be kept: `finder` makes the change.
pub(crate) fn clear(mut record: Record, dead: &str, finder: &str, since_us: u64, now_us: u64) -> (Record, bool) {
    let was_held = record.is_held_by(dead);
    record.names.retain(|holder| holder != dead);
    let is_told = if was_held && record.names.is_empty() {
        record.turn(finder, now_us);
        true
    } else if record.teller == dead && (record.names.is_empty() || record.serial >= since_us) {
        // It may have died before it told its latest change.
        finder.clone_into(&mut record.teller);
        true
    } else {
        false
    };
    (record, is_told)
}

/// The wall clock in microseconds: serials go on rising after everything was lost.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(record: &mut Option<Record>, name: &str, holds: bool) -> (bool, u64) {
        let (kept, answer) = step(record.clone(), name, holds, 0);
        *record = kept.or_else(|| record.take());
        (answer.is_change, answer.serial)
    }

    #[test]
    fn the_first_to_come_and_the_last_to_go_are_changes() {
        let mut record = None;
        assert_eq!(take(&mut record, "a", true), (true, 1));
        assert_eq!(take(&mut record, "a", true), (false, 1), "once");
        assert_eq!(take(&mut record, "b", true), (false, 1));
        assert_eq!(take(&mut record, "a", false), (false, 1));
        assert_eq!(take(&mut record, "a", false), (false, 1));
        assert_eq!(take(&mut record, "b", false), (true, 2));
        assert_eq!(take(&mut record, "b", false), (false, 2));
        assert_eq!(take(&mut record, "a", true), (true, 3));
        let record = record.expect("it is held");
        assert_eq!(Record::read(&record.written()), Some(record));
        assert_eq!(take(&mut None, "a", false), (true, 1), "what was lost may have been held");
        assert_eq!(step(None, "a", true, 9).1, Answer { is_change: true, serial: 9, is_ours: true, is_occupied: true });
        // One who made the channel occupied and says again that it goes hears that it still is.
        let record = Some(Record { serial: 5, teller: "a".into(), names: vec!["b".into()] });
        let again = Answer { is_change: false, serial: 5, is_ours: true, is_occupied: true };
        assert_eq!(step(record, "a", false, 9), (None, again));
    }

    #[test]
    fn what_a_dead_node_has_not_told_is_told_for_it() {
        let record = |names: &[&str], teller: &str| Record {
            serial: 5,
            teller: teller.into(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let (kept, told) = clear(record(&["d"], "d"), "d", "f", 9, 0);
        assert_eq!((kept.serial, kept.teller.as_str(), kept.names.len(), told), (6, "f", 0, true), "it was the last");
        let (kept, told) = clear(record(&["d", "b"], "b"), "d", "f", 0, 0);
        assert_eq!((kept, told), (record(&["b"], "b"), false), "others hold it");
        let (kept, told) = clear(record(&["d", "b"], "d"), "d", "f", 5, 0);
        assert_eq!((kept, told), (record(&["b"], "f"), true), "it came a moment before its end");
        assert!(!clear(record(&["d", "b"], "d"), "d", "f", 6, 0).1, "it came long before");
        let (kept, told) = clear(record(&[], "d"), "d", "f", 6, 0);
        assert_eq!((kept, told), (record(&[], "f"), true), "it went, and is not known to have told it");
    }
}
