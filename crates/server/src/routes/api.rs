//! `/api`: what server programs use, by key. Never by cookie.
//!
//! Names and shapes are those of the server API that belongs to the protocol, so that its libraries work. A refusal is an answer like
//! any other (status 200), unless the caller asks for statuses; only a wrong key and a body that is no JSON have a status in any case.

mod channels;
mod connections;
mod publish;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use talewire_broker::NodeId;
use talewire_proto::ErrorCode;
use talewire_proto::session::Refused;

pub(super) use publish::BAD_TAGS;
pub(crate) use publish::{into_channel, said};

use super::error::HttpError;
use crate::node::Node;
use crate::nodes::{ALL_OTHERS, Silence};
use crate::traces::within;

/// Every method.
#[cfg(test)]
pub(super) const METHODS: [&str; 14] = [
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "connections",
    "info",
    "batch",
];

/// A result that is already JSON, or why there is none.
type Answer = Result<Vec<u8>, Refused>;

async fn answer(node: &Arc<Node>, method: &str, params: &[u8]) -> Answer {
    match method {
        "publish" => publish::publish(node, read(params)?).await,
        "broadcast" => publish::broadcast(node, read(params)?).await,
        "subscribe" => connections::subscribe(node, read(params)?).await,
        "unsubscribe" => connections::unsubscribe(node, read(params)?).await,
        "disconnect" => connections::disconnect(node, read(params)?).await,
        "refresh" => connections::refresh(node, read(params)?).await,
        "connections" => connections::list(node, read(params)?).await,
        "presence" => channels::presence(node, read(params)?).await,
        "presence_stats" => channels::presence_stats(node, read(params)?).await,
        "history" => channels::history(node, read(params)?).await,
        "history_remove" => channels::history_remove(node, read(params)?).await,
        "channels" => channels::list(node, read(params)?).await,
        "info" => channels::info(node, read(params)?).await,
        _ => Err(ErrorCode::MethodNotFound.into()),
    }
}

/// `POST /api/{method}`.
pub(super) async fn call(
    State(node): State<Arc<Node>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = check_key(&node, &headers) {
        return refusal.into_response();
    }
    // Without a body, as if it were empty of parameters.
    let params = if body.is_empty() { &b"{}"[..] } else { &body[..] };
    if serde_json::from_slice::<&RawValue>(params).is_err() {
        return HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, "the body is no JSON").into_response();
    }
    let trace = headers.get("traceparent").and_then(|value| value.to_str().ok());
    if method == "batch" {
        return match within(trace, batch(&node, params)).await {
            Ok(replies) => json(replies),
            Err(refused) => refuse(&node, &headers, refused),
        };
    }
    match within(trace, answer(&node, &method, params)).await {
        Ok(result) => json([b"{\"result\":", &result[..], b"}"].concat()),
        Err(refused) => refuse(&node, &headers, refused),
    }
}

fn json(body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

fn refuse(node: &Node, headers: &HeaderMap, refused: Refused) -> Response {
    node.metrics.error(refused.code);
    let by_status = headers.get("x-centrifugo-error-mode").is_some_and(|mode| mode == "transport");
    if by_status || refused.code == ErrorCode::MethodNotFound {
        return HttpError::from(refused).into_response();
    }
    json([b"{\"error\":", &error(&refused)[..], b"}"].concat())
}

/// The error as it stands in answers.
fn error(refused: &Refused) -> Vec<u8> {
    #[derive(Serialize)]
    struct Error<'a> {
        code: u32,
        message: &'a str,
    }
    let message = refused.message.as_deref().unwrap_or(refused.code.text());
    written(&Error { code: refused.code.code(), message })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    commands: Vec<BTreeMap<String, &'a RawValue>>,
    /// Whether they may be carried out at once and in any order.
    #[serde(default)]
    parallel: bool,
}

/// Several commands in one request: `{"replies":[{"publish":{…}},{"error":{…}}]}`, in the order of the commands.
async fn batch(node: &Arc<Node>, params: &[u8]) -> Answer {
    let Batch { commands, parallel } = read(params)?;
    most(node, commands.len())?;
    let mut replies: Vec<Vec<u8>> = Vec::with_capacity(commands.len());
    if parallel {
        let run = |command: BTreeMap<String, &RawValue>| {
            let command: BTreeMap<String, Box<RawValue>> =
                command.into_iter().map(|(method, params)| (method, params.to_owned())).collect();
            let node = node.clone();
            tokio::spawn(async move { one(&node, command.iter().map(|(method, params)| (method, &**params))).await })
        };
        let running: Vec<_> = commands.into_iter().map(run).collect();
        for task in running {
            replies.push(
                task.await.unwrap_or_else(|_| [b"{\"error\":", &error(&ErrorCode::Internal.into())[..], b"}"].concat()),
            );
        }
    } else {
        for command in commands {
            replies.push(one(node, command.iter().map(|(method, params)| (method, *params))).await);
        }
    }
    Ok([b"{\"replies\":[", &replies.join(&b","[..])[..], b"]}"].concat())
}

/// The reply to one command of a batch: an object of one method.
async fn one<'a>(node: &Arc<Node>, mut command: impl Iterator<Item = (&'a String, &'a RawValue)>) -> Vec<u8> {
    let (method, answer) = match (command.next(), command.next()) {
        (Some((method, params)), None) => (method.as_str(), answer(node, method, params.get().as_bytes()).await),
        _ => ("", Err(refused(ErrorCode::BadRequest, "a command is an object with one method"))),
    };
    match answer {
        Ok(result) => [b"{\"", method.as_bytes(), b"\":", &result, b"}"].concat(),
        Err(refused) => {
            node.metrics.error(refused.code);
            [b"{\"error\":", &error(&refused)[..], b"}"].concat()
        }
    }
}

/// That one request does not ask for too much.
fn most(node: &Node, items: usize) -> Result<(), Refused> {
    let max = node.settings.api_items_max;
    if items <= max { Ok(()) } else { Err(refused(ErrorCode::LimitExceeded, format!("at most {max} in one request"))) }
}

fn refused(code: ErrorCode, message: impl Into<String>) -> Refused {
    Refused { code, message: Some(message.into()) }
}

fn read<'a, T: Deserialize<'a>>(params: &'a [u8]) -> Result<T, Refused> {
    serde_json::from_slice(params)
        .map_err(|error| refused(ErrorCode::BadRequest, format!("the parameters do not fit: {error}")))
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types are written as JSON")
}

/// Nodes that an answer leaves out because they could not be asked, by uid; `*` for all others.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
struct Unheard(Vec<String>);

impl Unheard {
    fn new(all_known: bool) -> Self {
        Self(if all_known { Vec::new() } else { vec![ALL_OTHERS.to_owned()] })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, node: &NodeId, silence: Silence) {
        // Who has gone since the list was made has nothing any more.
        if silence != Silence::Nobody {
            self.0.push(node.to_string());
        }
    }
}

/// Nothing to tell but that it is done.
fn done() -> Answer {
    Ok(b"{}".to_vec())
}

/// Whether a request shows the key of server programs.
pub(crate) fn has_key(node: &Node, headers: &HeaderMap) -> bool {
    let header = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = header.or_else(|| authorization?.strip_prefix("apikey "));
    shown.zip(node.settings.api_key.as_ref()).is_some_and(|(shown, key)| key.matches(shown))
}

/// `X-API-Key`, or `Authorization: apikey …`.
fn check_key(node: &Node, headers: &HeaderMap) -> Result<(), HttpError> {
    if node.settings.api_key.is_none() {
        let message = "the server API is off: set http.api_key to use it";
        return Err(HttpError::new(StatusCode::NOT_FOUND, ErrorCode::NotAvailable, message));
    }
    if has_key(node, headers) {
        return Ok(());
    }
    Err(HttpError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "the key is missing or wrong"))
}
