//! The client of any endpoint that speaks OpenAI's chat completions: Ollama, llama.cpp, vLLM, hosted ones. A request comes
//! in from a generation, pieces of text go out as they arrive, and every way to fail becomes one [`ProviderError`].
//!
//! An answer is complete when a finish reason or `[DONE]` came, and at no other time: a connection that just ends, an error
//! frame inside a 200, or a wait that ran out are never a success.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::error::{BadSettings, ProviderError, Wait};
use crate::openai::frame::{Frame, error_of_body};
use crate::provider::{Finish, Next, Piece, Request};
use crate::settings::{OpenAiSettings, ms};
use crate::sse::{BadStream, SseReader};

mod frame;

/// What is read of an answer that is an error, in bytes.
const ERROR_BODY_BYTES_MAX: usize = 16_384;
/// How long the body of an error is waited for.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(2);
/// How long the count of tokens is waited for once the text is complete.
const LINGER: Duration = Duration::from_secs(3);

/// An endpoint. Cheap to copy.
#[derive(Clone)]
pub struct OpenAi {
    client: Client,
    url: Url,
    key: Option<HeaderValue>,
    settings: OpenAiSettings,
}

/// Shows where and which model; the key is REDACTED.
impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_some() { "REDACTED" } else { "none" };
        write!(f, "OpenAi {{ url: {}, model: {}, key: {key} }}", self.url, self.settings.model)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: [Message<'a>; 2],
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// Where answers are asked for.
pub(crate) fn endpoint(settings: &OpenAiSettings) -> Result<Url, BadSettings> {
    let bad = |message: &str| BadSettings { setting: "openai.base_url", message: message.into() };
    let base = settings.base_url.trim_end_matches('/');
    let url = Url::parse(&format!("{base}/chat/completions"))
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.query().is_none())
        .ok_or_else(|| bad("this is no address such as http://localhost:11434/v1"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a key does not belong into the address, but into the environment"));
    }
    Ok(url)
}

/// Whether a model is named.
pub(crate) fn check_model(settings: &OpenAiSettings) -> Result<(), BadSettings> {
    if settings.model.trim().is_empty() {
        let message = "say which model of the endpoint is to write".into();
        return Err(BadSettings { setting: "openai.model", message });
    }
    Ok(())
}

impl OpenAi {
    /// A client with the key that the settings' environment variable holds now.
    ///
    /// # Errors
    /// [`BadSettings`] for an address, model or key that cannot be right.
    pub fn new(settings: OpenAiSettings) -> Result<Self, BadSettings> {
        let key = std::env::var(&settings.key_variable).unwrap_or_default();
        Self::with_key(settings, key.trim())
    }

    /// A client with this key, empty for none.
    ///
    /// # Errors
    /// As [`OpenAi::new`].
    pub fn with_key(settings: OpenAiSettings, key: &str) -> Result<Self, BadSettings> {
        let bad = |setting, message: &str| BadSettings { setting, message: message.into() };
        let url = endpoint(&settings)?;
        check_model(&settings)?;
        let key = match key {
            "" => None,
            key => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                    bad("openai.key_variable", "the key in this variable has characters that no key has")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut client = Client::builder()
            // A redirect could carry the key and the story to another host: never followed.
            .redirect(redirect::Policy::none())
            .connect_timeout(ms(settings.headers_ms_max))
            .user_agent(concat!("talewire/", env!("CARGO_PKG_VERSION")));
        let host = url.host_str().unwrap_or_default();
        if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
            client = client.no_proxy();
        }
        let client =
            client.build().map_err(|_| bad("openai.base_url", "no HTTPS client can be made on this machine"))?;
        Ok(Self { client, url, key, settings })
    }

    /// Begins an answer; nothing is sent before its first `next`.
    #[must_use]
    pub fn ask(&self, request: &Request) -> OpenAiReply {
        // OpenAI's own newer models refuse the old name of the limit; most other servers know only that one.
        let modern = self.url.host_str() == Some("api.openai.com");
        let body = Body {
            model: &self.settings.model,
            messages: [
                Message { role: "system", content: &request.prompt.system },
                Message { role: "user", content: &request.prompt.user },
            ],
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            max_tokens: (!modern).then_some(request.tokens_max),
            max_completion_tokens: modern.then_some(request.tokens_max),
            temperature: self.settings.temperature,
            seed: (request.seed != 0).then_some(request.seed),
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers are always JSON");
        let mut builder = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .header(ACCEPT_ENCODING, "identity")
            .body(body);
        if let Some(key) = &self.key {
            builder = builder.header(AUTHORIZATION, key.clone());
        }
        let headers_max = ms(self.settings.headers_ms_max);
        let opening = Box::pin(async move {
            match timeout(headers_max, builder.send()).await {
                Err(_) => Err(ProviderError::TimedOut(Wait::Headers)),
                Ok(Err(error)) if error.is_builder() => {
                    Err(ProviderError::Configuration { message: "no request can be made to this address".into() })
                }
                Ok(Err(_)) => Err(ProviderError::Unreachable),
                Ok(Ok(response)) => accept(response).await,
            }
        });
        OpenAiReply {
            state: State::Opening(opening),
            reader: Some(SseReader::new(self.settings.line_bytes_max)),
            ready: VecDeque::new(),
            begun_at: None,
            byte_at: None,
            has_token: false,
            finish: None,
            finished_at: None,
            refused: false,
            answer_bytes: 0,
            settings: self.settings.clone(),
        }
    }
}

/// Lets an answer through that is an event stream, and makes an error of every other.
async fn accept(mut response: Response) -> Result<Response, ProviderError> {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    if status.is_redirection() {
        let message = format!("the endpoint redirects (status {}): set base_url to where it is", status.as_u16());
        return Err(ProviderError::Configuration { message });
    }
    let content_type =
        response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    let encoding = response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|e| !e.eq_ignore_ascii_case(b"identity")) {
        let message = "the endpoint compresses its answers although it was asked not to".into();
        return Err(ProviderError::Configuration { message });
    }
    if status == StatusCode::OK && content_type.starts_with("text/event-stream") {
        return Ok(response);
    }
    let mut body = Vec::new();
    let _ = timeout(ERROR_BODY_WAIT, async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BODY_BYTES_MAX {
                break;
            }
        }
    })
    .await;
    Err(error_of_body(status.as_u16(), &body, retry_after))
}

/// `Retry-After` as a duration, from seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

type Opening = Pin<Box<dyn Future<Output = Result<Response, ProviderError>> + Send>>;

enum State {
    Opening(Opening),
    Streaming(Response),
    Over,
}

/// An answer under way. Dropping it closes the connection, which is how endpoints are told to stop.
pub struct OpenAiReply {
    state: State,
    reader: Option<SseReader>,
    ready: VecDeque<Next>,
    begun_at: Option<Instant>,
    byte_at: Option<Instant>,
    has_token: bool,
    finish: Option<Finish>,
    finished_at: Option<Instant>,
    refused: bool,
    answer_bytes: usize,
    settings: OpenAiSettings,
}

impl fmt::Debug for OpenAiReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenAiReply {{ {} bytes }}", self.answer_bytes)
    }
}

impl OpenAiReply {
    /// The next part. Cancel safe.
    ///
    /// # Errors
    /// [`ProviderError`], after which nothing follows.
    pub async fn next(&mut self) -> Result<Next, ProviderError> {
        let answer = self.step().await;
        if matches!(answer, Err(_) | Ok(Next::End(_))) {
            self.state = State::Over;
        }
        answer
    }

    async fn step(&mut self) -> Result<Next, ProviderError> {
        let begun_at = *self.begun_at.get_or_insert_with(Instant::now);
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(next);
            }
            match &mut self.state {
                State::Opening(opening) => {
                    let response = opening.as_mut().await?;
                    self.state = State::Streaming(response);
                    self.byte_at = Some(Instant::now());
                }
                State::Streaming(response) => {
                    let (wait, until) =
                        deadline(&self.settings, begun_at, self.byte_at.unwrap_or(begun_at), self.has_token);
                    let linger = self.finished_at.map(|at| at + LINGER);
                    let until = linger.map_or(until, |linger| linger.min(until));
                    let chunk = match tokio::time::timeout_at(until, response.chunk()).await {
                        // The text was complete: what is missing is only the count of tokens.
                        Err(_) | Ok(Err(_)) if self.finish.is_some() => None,
                        Err(_) => return Err(ProviderError::TimedOut(wait)),
                        Ok(Err(_)) => return Err(broken("the connection was lost")),
                        Ok(Ok(chunk)) => chunk,
                    };
                    self.byte_at = Some(Instant::now());
                    match chunk {
                        Some(bytes) => self.read(&bytes)?,
                        None => self.end_of_stream()?,
                    }
                }
                State::Over => return Err(broken("it was over already")),
            }
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), ProviderError> {
        self.answer_bytes += bytes.len();
        if self.answer_bytes > self.settings.answer_bytes_max {
            return Err(broken("it is longer than openai.answer_bytes_max"));
        }
        let mut events = Vec::new();
        let read = self.reader.as_mut().map_or(Ok(()), |reader| reader.push(bytes, &mut events));
        self.take(&events)?;
        read.map_err(bad_stream)
    }

    fn end_of_stream(&mut self) -> Result<(), ProviderError> {
        let mut events = Vec::new();
        if let Some(reader) = self.reader.take() {
            reader.finish(&mut events).map_err(bad_stream)?;
        }
        self.take(&events)?;
        match self.finish {
            _ if self.ready.iter().any(|next| matches!(next, Next::End(_))) => Ok(()),
            Some(_) => self.end(),
            None => Err(broken("it ended before it was complete")),
        }
    }

    fn take(&mut self, events: &[String]) -> Result<(), ProviderError> {
        for event in events {
            match Frame::read(event)? {
                Frame::Done => return self.end(),
                Frame::Chunk(chunk) => {
                    self.has_token |= chunk.thinks || !chunk.text.is_empty();
                    self.refused |= chunk.refuses;
                    // After the finish some servers send the last text again: it is no longer looked at.
                    if self.finish.is_none() && !chunk.text.is_empty() {
                        self.ready.push_back(Next::Piece(Piece::Text(chunk.text)));
                    }
                    if let Some(tokens) = chunk.usage {
                        self.ready.push_back(Next::Piece(Piece::Usage(tokens)));
                    }
                    if let (Some(finish), None) = (chunk.finish, self.finish) {
                        self.finish = Some(finish);
                        self.finished_at = Some(Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ProviderError> {
        if self.refused {
            return Err(ProviderError::Refused);
        }
        self.ready.push_back(Next::End(self.finish.unwrap_or(Finish::Stop)));
        Ok(())
    }
}

/// The wait that runs out next.
fn deadline(settings: &OpenAiSettings, begun: Instant, byte: Instant, has_token: bool) -> (Wait, Instant) {
    let waits = [
        Some((Wait::Total, begun + ms(settings.total_ms_max))),
        Some((Wait::Idle, byte + ms(settings.idle_ms_max))),
        (!has_token).then(|| (Wait::FirstToken, begun + ms(settings.first_token_ms_max))),
    ];
    waits.into_iter().flatten().min_by_key(|(_, at)| *at).expect("two waits are always there")
}

fn broken(message: &str) -> ProviderError {
    ProviderError::Broken { message: message.into() }
}

fn bad_stream(bad: BadStream) -> ProviderError {
    match bad {
        BadStream::LineTooLong => broken("a line is longer than openai.line_bytes_max"),
        BadStream::NotUtf8 => broken("it is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(base_url: &str, model: &str) -> OpenAiSettings {
        OpenAiSettings { base_url: base_url.into(), model: model.into(), ..OpenAiSettings::default() }
    }

    #[test]
    fn settings_that_cannot_be_right_are_named() {
        let check =
            |url, model, key| OpenAi::with_key(settings(url, model), key).map(|_| ()).map_err(|bad| bad.setting);
        assert_eq!(check("http://localhost:11434/v1/", "m", ""), Ok(()));
        assert_eq!(check("", "m", ""), Err("openai.base_url"));
        assert_eq!(check("ftp://x/v1", "m", ""), Err("openai.base_url"));
        assert_eq!(check("https://u:p@x/v1", "m", ""), Err("openai.base_url"));
        assert_eq!(check("https://x/v1", " ", ""), Err("openai.model"));
        assert_eq!(check("https://x/v1", "m", "a\nb"), Err("openai.key_variable"));
    }

    #[test]
    fn the_key_is_never_shown() {
        let openai = OpenAi::with_key(settings("https://x/v1", "m"), "sk-secret").expect("good settings");
        assert_eq!(format!("{openai:?}"), "OpenAi { url: https://x/v1/chat/completions, model: m, key: REDACTED }");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).expect("ASCII"))]);
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770))
        };
        assert_eq!(check("7"), Some(Duration::from_secs(7)));
        assert_eq!(check("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(check("Sat, 05 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(check("soon"), None);
    }
}
