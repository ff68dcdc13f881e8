//! What is published: a payload that says where it belongs and which key it was published with; and what stands in a delivery.

use serde_json::{Value, json};

use crate::log::{self, Content, Name};

/// A payload. `n` makes its length differ from its neighbours'.
#[must_use]
pub fn payload(channel: &Name, key: &Name, n: u64) -> Value {
    let fill = "x".repeat(usize::try_from(n % 7).unwrap_or(0) * 16);
    json!({ "tag": **channel, "key": **key, "n": n, "fill": fill })
}

/// Reads one.
#[must_use]
pub fn content(data: &Value) -> Content {
    let text = |name: &str| -> Name { data[name].as_str().unwrap_or("?").into() };
    Content { key: text("key"), tag: text("tag"), sum: log::sum(data.to_string().as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_where_it_belongs() {
        let data = payload(&"talk:a".into(), &"w-1".into(), 9);
        let read = content(&data);
        assert_eq!((&*read.tag, &*read.key), ("talk:a", "w-1"));
        let mut other = data.clone();
        other["fill"] = json!("y");
        assert_ne!(content(&other).sum, read.sum);
        assert_eq!(&*content(&json!(7)).key, "?");
    }
}
