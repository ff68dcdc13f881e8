//! `/api`: what server programs use, by key. Never by cookie.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use talewire_broker::Key;
use talewire_proto::publication::{self, EVENT_TAG};
use talewire_proto::{Channel, Epoch, ErrorCode, Payload, Publication, UserId, Version};

use super::app::read_json;
use super::error::HttpError;
use crate::node::Node;
use crate::perform::{self, Kept, Publishing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    channel: Channel,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    idempotency_key: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    version: Option<u64>,
    #[serde(default)]
    version_epoch: String,
}

#[derive(Serialize)]
struct Reply<T> {
    result: T,
}

#[derive(Serialize)]
struct Published {
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "Epoch::is_empty")]
    epoch: Epoch,
    /// The channel already had this version or a newer one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that skip_serializing_if wants")]
fn is_zero(offset: &u64) -> bool {
    *offset == 0
}

/// Publishes to a channel, as the server itself.
pub(super) async fn publish(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    check_key(&node, &headers)?;
    let request: Publish<'_> = read_json(&headers, &body)?;
    let data = Payload::from_raw(request.data);
    let rules = node.rules_of(&request.channel)?;
    if rules.platform {
        // Stories are written by their use cases alone, or readers could not trust what they read.
        return Err(ErrorCode::PermissionDenied.into());
    }
    if data.len() > rules.publication_bytes_max || request.idempotency_key.len() > node.limits().key_chars_max {
        return Err(ErrorCode::LimitExceeded.into());
    }
    let key = Some(request.idempotency_key).filter(|key| !key.is_empty());
    let key = key.map(|key| Key { user: UserId::default(), key });
    let mut tags = request.tags;
    if !request.event.is_empty() {
        tags.insert(EVENT_TAG.to_owned(), request.event);
    }
    if !publication::tags_are_good(&tags) {
        let message = "tags are up to 16 texts of up to 256 bytes; an event type has up to 64 of A-Z a-z 0-9 _ . : -";
        return Err(HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message));
    }
    if request.version_epoch.len() > Version::EPOCH_BYTES_MAX {
        return Err(ErrorCode::LimitExceeded.into());
    }
    let version = request.version.map(|number| Version { number, epoch: request.version_epoch });
    let publication = Publication { data: Some(data), tags, ..Publication::default() };
    let publishing = Publishing { channel: &request.channel, rules: &rules, publication, key, version };
    let Kept { position, skipped } = perform::publish(&node, publishing).await?;
    Ok(Json(Reply { result: Published { offset: position.offset, epoch: position.epoch, skipped } }).into_response())
}

/// `X-API-Key`, or `Authorization: apikey …`.
fn check_key(node: &Node, headers: &HeaderMap) -> Result<(), HttpError> {
    let Some(key) = &node.settings.api_key else {
        let message = "the server API is off: set http.api_key to use it";
        return Err(HttpError::new(StatusCode::NOT_FOUND, ErrorCode::NotAvailable, message));
    };
    let header = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = header.or_else(|| authorization?.strip_prefix("apikey "));
    if shown.is_some_and(|shown| key.matches(shown)) {
        return Ok(());
    }
    Err(HttpError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "the key is missing or wrong"))
}
