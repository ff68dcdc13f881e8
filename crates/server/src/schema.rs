//! What payloads must look like: the text of a JSON Schema in, a compiled check out, asked before anything is published.
//!
//! Nothing is fetched: a reference leads inside the schema or to nowhere. Patterns are matched without backtracking, since
//! the texts are strangers'.

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use talewire_proto::Payload;

/// Characters of a message about a payload that does not fit.
const MESSAGE_CHARS_MAX: usize = 300;

/// Bytes that a pattern of a schema may take when compiled.
const PATTERN_BYTES_MAX: usize = 1_048_576;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Validator);

/// Refuses what lies outside.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} lies outside: a schema refers to itself alone").into())
    }
}

impl Schema {
    /// Compiles a schema from its JSON text.
    ///
    /// # Errors
    /// Why it cannot be used, as a sentence for whoever wrote it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let schema = serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX);
        let compiled = jsonschema::options().with_retriever(Nowhere).with_pattern_options(patterns).build(&schema);
        compiled.map(Self).map_err(|error| cut(&format!("the schema cannot be used: {error}")))
    }

    /// Whether a payload fits; if not, the first place where it does not and why. Values of the payload are not repeated.
    ///
    /// # Errors
    /// The place, as a JSON pointer, and what it must be.
    pub fn check(&self, payload: &Payload) -> Result<(), String> {
        let value: serde_json::Value = payload.read().map_err(|_| "the data is not JSON".to_owned())?;
        let Err(error) = self.0.validate(&value) else { return Ok(()) };
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { "the data".to_owned() } else { place };
        Err(cut(&format!("{place}: {}", error.masked_with("this"))))
    }
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: &str = r##"{
        "type": "object",
        "properties": {
            "x": {"$ref": "#/$defs/part"},
            "y": {"$ref": "#/$defs/part"},
            "name": {"type": "string", "pattern": "^(a+)+$", "maxLength": 40}
        },
        "required": ["x", "y"],
        "additionalProperties": false,
        "$defs": {"part": {"type": "number", "minimum": 0}}
    }"##;

    #[track_caller]
    fn check(data: &str, expected: Option<&str>) {
        let schema = Schema::compile(POINT).expect("a good schema");
        let said = schema.check(&Payload::parse(data.as_bytes()).expect("JSON"));
        match expected {
            None => assert_eq!(said, Ok(()), "{data}"),
            Some(part) => {
                let said = said.expect_err("it does not fit");
                assert!(said.contains(part) && said.chars().count() <= MESSAGE_CHARS_MAX + 1, "{data}: {said}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        check(r#"{"x":1,"y":2}"#, None);
        check(r#"{"x":1,"y":2,"name":"aaa"}"#, None);
        check(r#"{"x":1,"y":-2}"#, Some("/y: this"));
        check(r#"{"x":1}"#, Some("the data: "));
        check("[]", Some("the data: this is not of type"));
        let many: Vec<String> = (0..200).map(|n| format!(r#""member{n}":1"#)).collect();
        check(&format!(r#"{{"x":1,"y":2,{}}}"#, many.join(",")), Some("the data: "));
    }

    #[test]
    fn payloads_are_not_repeated_and_take_no_time() {
        let schema = Schema::compile(POINT).expect("a good schema");
        let data = format!(r#"{{"x":1,"y":2,"name":"{}!"}}"#, "a".repeat(30_000));
        let said = schema.check(&Payload::parse(data.as_bytes()).expect("JSON")).expect_err("it does not fit");
        assert!(said.starts_with("/name: ") && !said.contains("aaaa"), "{said}");
    }

    #[test]
    fn schemas_that_cannot_be_used_are_refused() {
        let refused = |text: &str, part: &str| {
            let reason = Schema::compile(text).expect_err("it cannot be used");
            assert!(reason.contains(part), "{text}: {reason}");
        };
        refused("{", "not JSON");
        refused(r#"{"type":"nothing"}"#, "cannot be used");
        refused(r#"{"$ref":"file:///etc/passwd"}"#, "lies outside");
        refused(r#"{"$ref":"http://127.0.0.1:1/x"}"#, "lies outside");
        refused(r#"{"pattern":"("}"#, "cannot be used");
        refused(r#"{"pattern":"((a{1000}){1000}){1000}"}"#, "cannot be used");
        assert!(Schema::compile("true").is_ok());
    }
}
