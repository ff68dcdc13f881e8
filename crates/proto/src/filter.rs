//! Filters over the tags of publications: what a subscriber wants to hear of a channel.
//!
//! A filter comes in with a subscription (`tf` of the native protocol, `events` of `/events` and `/poll`), is bounded when it is
//! made, and is asked by the hub for every publication before it goes into an outbox, live and on replay.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::publication::EVENT_TAG;

/// How a publication without a type is called in a filter by event types.
pub const UNTYPED: &str = "message";

/// Nodes of one filter; a larger one is refused.
pub const NODES_MAX: usize = 64;

/// Values in all nodes of one filter; more are refused.
pub const VALUES_MAX: usize = 256;

/// Bytes of one key or value; longer ones are refused.
pub const TEXT_BYTES_MAX: usize = 256;

/// Levels of one filter; a deeper one is refused.
const DEPTH_MAX: usize = 8;

/// Which publications a subscriber hears of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Those that all of these let through.
    All(Vec<Self>),
    /// Those that at least one of these lets through.
    Any(Vec<Self>),
    /// Those that this one holds back.
    Not(Box<Self>),
    /// Those whose tag of this name compares.
    Tag {
        /// The tag's name.
        key: String,
        /// How it is compared.
        comparison: Comparison,
    },
    /// Those of these event types; what has no type is of the type [`UNTYPED`].
    Events(Vec<String>),
}

/// How a tag is compared. A tag that is not there compares with nothing but `Missing` and the negations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// It is this text.
    Equal(String),
    /// It is not this text, or not there.
    NotEqual(String),
    /// It is one of these.
    In(Vec<String>),
    /// It is none of these, or not there.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
    /// It begins with this text.
    StartsWith(String),
    /// It ends with this text.
    EndsWith(String),
    /// It contains this text.
    Contains(String),
    /// It is a number below this one.
    Less(Number),
    /// It is a number at or below this one.
    LessOrEqual(Number),
    /// It is a number above this one.
    Greater(Number),
    /// It is a number at or above this one.
    GreaterOrEqual(Number),
}

/// A decimal number as it stands in a filter or tag, comparable and never NaN.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Number(f64);

// A parsed number is finite.
impl Eq for Number {}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        // What Rust reads beyond decimal numbers ("inf", "nan") is no number here.
        let decimal = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        text.parse::<f64>().ok().filter(|number| decimal && number.is_finite()).map(Self)
    }
}

/// A filter that makes no sense or is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFilter;

/// One node of a filter as it stands on the wire (`FilterNode`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Empty for a comparison; `and`, `or`, `not`.
    pub op: String,
    /// The tag's name.
    pub key: String,
    /// How it is compared.
    pub cmp: String,
    /// With which value.
    pub val: String,
    /// With which values (`in`, `nin`).
    pub vals: Vec<String>,
    /// What `op` stands over.
    pub nodes: Vec<Self>,
}

impl Filter {
    /// Makes a filter of what came in.
    ///
    /// # Errors
    /// [`BadFilter`] for an unknown operation, a number that is none, and everything past the limits of this module.
    pub fn of(node: Node) -> Result<Self, BadFilter> {
        let mut room = Room { nodes: NODES_MAX, values: VALUES_MAX };
        room.filter(node, DEPTH_MAX)
    }

    /// A filter that lets these event types through.
    ///
    /// # Errors
    /// [`BadFilter`] past the limits of this module.
    pub fn events<'a>(types: impl IntoIterator<Item = &'a str>) -> Result<Self, BadFilter> {
        let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
        if types.is_empty() || types.len() > VALUES_MAX || types.iter().any(|t| t.len() > TEXT_BYTES_MAX) {
            return Err(BadFilter);
        }
        Ok(Self::Events(types))
    }

    /// Whether a publication with these tags goes through.
    #[must_use]
    pub fn lets_through(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.lets_through(tags)),
            Self::Any(filters) => filters.iter().any(|filter| filter.lets_through(tags)),
            Self::Not(filter) => !filter.lets_through(tags),
            Self::Tag { key, comparison } => comparison.holds(tags.get(key).map(String::as_str)),
            Self::Events(types) => {
                let event = tags.get(EVENT_TAG).map_or(UNTYPED, String::as_str);
                types.iter().any(|wanted| wanted == event)
            }
        }
    }
}

impl Comparison {
    fn holds(&self, tag: Option<&str>) -> bool {
        let number = |holds: &dyn Fn(Number) -> bool| tag.and_then(Number::parse).is_some_and(holds);
        match self {
            Self::Equal(value) => tag == Some(value),
            Self::NotEqual(value) => tag != Some(value),
            Self::In(values) => tag.is_some_and(|tag| values.iter().any(|value| value == tag)),
            Self::NotIn(values) => !tag.is_some_and(|tag| values.iter().any(|value| value == tag)),
            Self::Exists => tag.is_some(),
            Self::Missing => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(value.as_str())),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(value.as_str())),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(value.as_str())),
            Self::Less(value) => number(&|tag| tag < *value),
            Self::LessOrEqual(value) => number(&|tag| tag <= *value),
            Self::Greater(value) => number(&|tag| tag > *value),
            Self::GreaterOrEqual(value) => number(&|tag| tag >= *value),
        }
    }
}

/// What a filter may still use.
struct Room {
    nodes: usize,
    values: usize,
}

impl Room {
    fn filter(&mut self, node: Node, depth: usize) -> Result<Filter, BadFilter> {
        self.nodes = self.nodes.checked_sub(1).ok_or(BadFilter)?;
        let depth = depth.checked_sub(1).ok_or(BadFilter)?;
        let Node { op, key, cmp, val, vals, nodes } = node;
        if op.is_empty() {
            return self.comparison(key, &cmp, val, vals);
        }
        let mut filters =
            nodes.into_iter().map(|node| self.filter(node, depth)).collect::<Result<Vec<_>, BadFilter>>()?;
        match op.as_str() {
            "and" if !filters.is_empty() => Ok(Filter::All(filters)),
            "or" if !filters.is_empty() => Ok(Filter::Any(filters)),
            "not" if filters.len() == 1 => Ok(Filter::Not(Box::new(filters.remove(0)))),
            _ => Err(BadFilter),
        }
    }

    fn comparison(&mut self, key: String, cmp: &str, val: String, vals: Vec<String>) -> Result<Filter, BadFilter> {
        self.values = self.values.checked_sub(1 + vals.len()).ok_or(BadFilter)?;
        let too_long = |text: &String| text.len() > TEXT_BYTES_MAX;
        if key.is_empty() || too_long(&key) || too_long(&val) || vals.iter().any(too_long) {
            return Err(BadFilter);
        }
        let number = || Number::parse(&val).ok_or(BadFilter);
        let comparison = match cmp {
            "lt" => Comparison::Less(number()?),
            "lte" => Comparison::LessOrEqual(number()?),
            "gt" => Comparison::Greater(number()?),
            "gte" => Comparison::GreaterOrEqual(number()?),
            "eq" => Comparison::Equal(val),
            "neq" => Comparison::NotEqual(val),
            "in" => Comparison::In(vals),
            "nin" => Comparison::NotIn(vals),
            "ex" => Comparison::Exists,
            "nex" => Comparison::Missing,
            "sw" => Comparison::StartsWith(val),
            "ew" => Comparison::EndsWith(val),
            "ct" => Comparison::Contains(val),
            _ => return Err(BadFilter),
        };
        Ok(Filter::Tag { key, comparison })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, tags: &[(&str, &str)], expected: Result<bool, BadFilter>) {
        let node: Node = serde_json::from_str(json).expect("a node");
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(Filter::of(node).map(|filter| filter.lets_through(&tags)), expected, "{json} {tags:?}");
    }

    #[test]
    fn every_comparison_holds_for_what_it_says_and_for_nothing_else() {
        let a = |cmp: &str, val: &str| format!(r#"{{"key":"a","cmp":"{cmp}","val":"{val}"}}"#);
        for (cmp, val, tag, absent) in [
            ("eq", "x", [("x", true), ("y", false)], false),
            ("neq", "x", [("x", false), ("y", true)], true),
            ("sw", "x", [("xy", true), ("yx", false)], false),
            ("ew", "x", [("yx", true), ("xy", false)], false),
            ("ct", "x", [("yxy", true), ("y", false)], false),
            ("lt", "10", [("9.5", true), ("10", false)], false),
            ("lte", "10", [("10", true), ("11", false)], false),
            ("gt", "10", [("10.1", true), ("nan", false)], false),
            ("gte", "-1", [("-1", true), ("word", false)], false),
            ("ex", "", [("x", true), ("", true)], false),
            ("nex", "", [("x", false), ("", false)], true),
        ] {
            for (value, expected) in tag {
                check(&a(cmp, val), &[("a", value)], Ok(expected));
            }
            check(&a(cmp, val), &[("b", "x")], Ok(absent));
        }
        let among = |cmp: &str| format!(r#"{{"key":"a","cmp":"{cmp}","vals":["x","y"]}}"#);
        check(&among("in"), &[("a", "y")], Ok(true));
        check(&among("in"), &[("a", "z")], Ok(false));
        check(&among("nin"), &[("a", "y")], Ok(false));
        check(&among("nin"), &[], Ok(true));
    }

    #[test]
    fn filters_are_joined() {
        let a = r#"{"key":"a","cmp":"ex"}"#;
        let b = r#"{"key":"b","cmp":"ex"}"#;
        let over = |op: &str, nodes: &str| format!(r#"{{"op":"{op}","nodes":[{nodes}]}}"#);
        check(&over("and", &format!("{a},{b}")), &[("a", "")], Ok(false));
        check(&over("or", &format!("{a},{b}")), &[("a", "")], Ok(true));
        check(&over("not", a), &[("a", "")], Ok(false));
        for bad in
            [over("and", ""), over("not", &format!("{a},{b}")), over("xor", a), r#"{"key":"a","cmp":"like"}"#.into()]
        {
            check(&bad, &[], Err(BadFilter));
        }
        check(r#"{"key":"a","cmp":"lt","val":"inf"}"#, &[], Err(BadFilter));
        check(r#"{"cmp":"ex"}"#, &[], Err(BadFilter));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let mut deep = r#"{"key":"a","cmp":"ex"}"#.to_owned();
        for _ in 0..DEPTH_MAX - 1 {
            deep = format!(r#"{{"op":"not","nodes":[{deep}]}}"#);
        }
        check(&deep, &[], Ok(true));
        check(&format!(r#"{{"op":"not","nodes":[{deep}]}}"#), &[], Err(BadFilter));
        let wide = vec![r#"{"key":"a","cmp":"ex"}"#; NODES_MAX].join(",");
        check(&format!(r#"{{"op":"or","nodes":[{wide}]}}"#), &[], Err(BadFilter));
        let many = vec!["\"x\""; VALUES_MAX].join(",");
        check(&format!(r#"{{"key":"a","cmp":"in","vals":[{many}]}}"#), &[], Err(BadFilter));
        check(&format!(r#"{{"key":"a","cmp":"eq","val":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1)), &[], Err(BadFilter));
    }

    #[test]
    fn what_has_no_type_is_a_message() {
        let of =
            |event: Option<&str>| event.map(|event| (EVENT_TAG.to_owned(), event.to_owned())).into_iter().collect();
        let filter = Filter::events(["turn", UNTYPED]).expect("a filter");
        assert!(filter.lets_through(&of(Some("turn"))));
        assert!(filter.lets_through(&of(None)));
        assert!(!filter.lets_through(&of(Some("vote"))));
        assert_eq!(Filter::events([]), Err(BadFilter));
    }
}
