//! One event of a chat completion stream, or the body of a refusal, as typed values. Tolerant of what compatible servers add
//! or leave out; no text of theirs goes into an error, only short codes.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ProviderError;
use crate::provider::{Finish, Tokens};

/// What one event says.
#[derive(Debug)]
pub(super) enum Frame {
    /// `[DONE]`.
    Done,
    /// A part of the answer.
    Chunk(Chunk),
}

/// A part of the answer.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) text: String,
    /// Whether the model shows that it is thinking.
    pub(super) thinks: bool,
    /// Whether the model, or a filter, declines.
    pub(super) refuses: bool,
    pub(super) usage: Option<Tokens>,
    pub(super) finish: Option<Finish>,
}

#[derive(Deserialize)]
struct RawChunk {
    #[serde(default)]
    choices: Option<Vec<RawChoice>>,
    #[serde(default)]
    usage: Option<RawUsage>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    object: Option<String>,
}

#[derive(Deserialize)]
struct RawChoice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Option<RawDelta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct RawDelta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// Thoughts, as DeepSeek, vLLM and llama.cpp send them.
    #[serde(default)]
    reasoning_content: Option<Value>,
    /// Thoughts, as OpenRouter and Ollama send them.
    #[serde(default)]
    reasoning: Option<Value>,
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

impl Frame {
    /// Reads the data of one event.
    pub(super) fn read(data: &str) -> Result<Self, ProviderError> {
        if data.trim() == "[DONE]" {
            return Ok(Self::Done);
        }
        let unreadable = || ProviderError::Broken { message: "an event of it is not what was agreed".into() };
        let raw: RawChunk = serde_json::from_str(data).map_err(|_| unreadable())?;
        if let Some(error) = raw.error {
            return Err(error_of_value(200, &error, None));
        }
        if raw.object.as_deref() == Some("error") {
            let whole: Value = serde_json::from_str(data).map_err(|_| unreadable())?;
            return Err(error_of_value(200, &whole, None));
        }
        let mut chunk = Chunk::default();
        if let Some(usage) = raw.usage {
            chunk.usage =
                Some(Tokens { prompt: usage.prompt_tokens.unwrap_or(0), output: usage.completion_tokens.unwrap_or(0) });
        }
        for choice in raw.choices.into_iter().flatten().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                chunk.text.push_str(delta.content.as_deref().unwrap_or(""));
                chunk.refuses |= delta.refusal.is_some_and(|refusal| !refusal.is_empty());
                chunk.thinks |=
                    [delta.reasoning_content, delta.reasoning].into_iter().flatten().any(|t| !t.is_null() && t != "");
            }
            match choice.finish_reason.as_deref() {
                None | Some("") => {}
                Some("length") => chunk.finish = Some(Finish::Length),
                Some("content_filter" | "refusal") => {
                    chunk.refuses = true;
                    chunk.finish = Some(Finish::Stop);
                }
                Some("error") => return Err(ProviderError::Broken { message: "the model reported an error".into() }),
                Some(_) => chunk.finish = Some(Finish::Stop),
            }
        }
        Ok(Self::Chunk(chunk))
    }
}

/// What an answer that is no event stream means.
pub(super) fn error_of_body(status: u16, body: &[u8], retry_after: Option<Duration>) -> ProviderError {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = value.get("error").unwrap_or(&value);
    if status == 200 && value.get("error").is_none() {
        let message = "the endpoint answers, but not with an event stream: is base_url right?".into();
        return ProviderError::Configuration { message };
    }
    error_of_value(status, error, retry_after)
}

/// Maps a status and an error object; for errors inside a 200 the object alone has to tell.
fn error_of_value(status: u16, error: &Value, retry_after: Option<Duration>) -> ProviderError {
    let codes: Vec<String> =
        ["code", "type", "status"].iter().filter_map(|name| short_code(error.get(name)?)).collect();
    let has = |words: &[&str]| codes.iter().any(|code| words.iter().any(|word| code.contains(word)));
    let code = codes.first().map_or(String::new(), |code| format!(", {code}"));
    let configuration =
        |text: &str| ProviderError::Configuration { message: format!("{text} (status {status}{code})") };

    if has(&["content_filter", "content_policy", "moderation", "safety"]) {
        return ProviderError::Refused;
    }
    if has(&["insufficient_quota", "billing", "credit"]) || status == 402 {
        return configuration("the account at the endpoint has nothing left");
    }
    match status {
        429 => ProviderError::RateLimited { retry_after },
        401 | 403 => configuration("the endpoint does not accept the key"),
        404 => configuration("the endpoint has no such model or path"),
        408 | 409 | 425 | 500.. => ProviderError::Busy { status, retry_after },
        400..500 => configuration("the endpoint does not accept the request"),
        _ if has(&["rate_limit", "429", "too_many"]) => ProviderError::RateLimited { retry_after },
        _ if has(&["overloaded", "529", "503", "unavailable"]) => ProviderError::Busy { status: 529, retry_after },
        _ if has(&["server_error", "internal", "500", "502"]) => ProviderError::Busy { status: 500, retry_after },
        _ => ProviderError::Broken { message: format!("the model reported an error{code}") },
    }
}

/// A code that can be shown: letters, digits and a few signs, at most 48 of them. Messages are not shown, since they may quote the prompt.
fn short_code(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.to_ascii_lowercase(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let fits = (1..=48).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    fits.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_inside_a_good_answer_are_errors() {
        let check = |data| Frame::read(data).expect_err("an error");
        assert_eq!(
            check(r#"{"error":{"type":"overloaded_error","message":"secret"}}"#),
            ProviderError::Busy { status: 529, retry_after: None }
        );
        assert_eq!(check(r#"{"error":{"code":429}}"#), ProviderError::RateLimited { retry_after: None });
        assert!(
            matches!(check(r#"{"error":"something long that quotes"}"#), ProviderError::Broken { message } if !message.contains("long"))
        );
        assert!(
            matches!(check(r#"{"object":"error","code":"boom"}"#), ProviderError::Broken { message } if message.contains("boom"))
        );
        assert!(matches!(check("{"), ProviderError::Broken { .. }));
    }

    #[test]
    fn statuses_say_what_can_be_done() {
        let check = |status, body: &str| error_of_body(status, body.as_bytes(), Some(Duration::from_secs(3)));
        assert_eq!(check(429, ""), ProviderError::RateLimited { retry_after: Some(Duration::from_secs(3)) });
        assert!(matches!(
            check(429, r#"{"error":{"code":"insufficient_quota"}}"#),
            ProviderError::Configuration { .. }
        ));
        assert!(matches!(check(401, "<html>"), ProviderError::Configuration { message } if message.contains("key")));
        assert!(matches!(check(404, ""), ProviderError::Configuration { message } if message.contains("model")));
        assert!(matches!(check(529, ""), ProviderError::Busy { status: 529, .. }));
        assert_eq!(check(400, r#"{"error":{"code":"content_filter"}}"#), ProviderError::Refused);
        assert!(matches!(check(200, "<html>"), ProviderError::Configuration { .. }));
    }
}
