//! `/app/publish`, `/app/history`, `/app/presence` and `/app/presence_stats`: what a session does in channels, by single requests.
//!
//! The rules are those of a session ([`perform::allowed`]); who asks is shown as for everything under `/app`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use talewire_proto::command::History;
use talewire_proto::namespace::Action;
use talewire_proto::publication;
use talewire_proto::session::Anonymous;
use talewire_proto::{Channel, ClientInfo, Epoch, ErrorCode, Grant, Payload, Position, Publication, json};

use super::api::BAD_TAGS;
use super::app::{Unsafe, no_store, read_json, who};
use super::error::HttpError;
use crate::node::Node;
use crate::perform;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    channel: Channel,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    event: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    key: String,
}

/// Who asks, with the rights that a connection of theirs would have.
async fn grant(node: &Node, headers: &HeaderMap) -> Result<Grant, HttpError> {
    let mut grant = who(node, headers, Unsafe::Yes).await?;
    grant.insecure |= node.anonymous == Anonymous::Insecure;
    Ok(grant)
}

fn counted(node: &Node, error: HttpError) -> HttpError {
    node.metrics.error(error.code());
    error
}

async fn answer(node: &Node, work: impl Future<Output = Result<Vec<u8>, HttpError>>) -> Result<Response, HttpError> {
    let body = work.await.map_err(|error| counted(node, error))?;
    Ok(no_store(([(header::CONTENT_TYPE, "application/json")], body).into_response()))
}

/// Publishes as the person who asks.
pub(super) async fn publish(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let publish = async {
        let grant = grant(&node, &headers).await?;
        let Publish { channel, data, event, tags, key } = read_json(&headers, &body)?;
        let bad = |message: &str| HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message);
        if !node.limits().takes_key(&key) {
            return Err(bad("the key is too long, or has the character zero"));
        }
        let tags = publication::tags_with(event, tags).ok_or_else(|| bad(BAD_TAGS))?;
        let rules = perform::allowed(&node, &grant, &channel, Action::Publish).await?;
        let data = Payload::from_raw(data);
        if data.len() > rules.publication_bytes_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let Grant { user, info: conn_info, .. } = grant;
        let key = Some(key).filter(|key| !key.is_empty());
        let info = ClientInfo { user, conn_info, ..ClientInfo::default() };
        let publication = Publication { data: Some(data), tags, ..Publication::default() };
        let kept = perform::publish_as(&node, &info, &channel, &rules, publication, key).await?;
        let Position { offset, epoch } = kept.position;
        let kept = !epoch.is_empty();
        let position =
            if kept { serde_json::json!({ "offset": offset, "epoch": epoch }) } else { serde_json::json!({}) };
        Ok(position.to_string().into_bytes())
    };
    answer(&node, publish).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    channel: Channel,
    #[serde(default)]
    limit: i32,
    since: Option<Since>,
    #[serde(default)]
    reverse: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    offset: u64,
    epoch: Epoch,
}

/// A page of a channel's history.
pub(super) async fn history(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let read = async {
        let grant = grant(&node, &headers).await?;
        let Page { channel, limit, since, reverse } = read_json(&headers, &body)?;
        let rules = perform::allowed(&node, &grant, &channel, Action::History).await?;
        let limit = node.limits().history_entries(limit);
        let since = since.map(|Since { offset, epoch }| Position { offset, epoch });
        let done = perform::history(&node, &rules, History { channel, limit, since, reverse }).await?;
        Ok(json::result(&done))
    };
    answer(&node, read).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfChannel {
    channel: Channel,
}

/// Who is subscribed to a channel.
pub(super) async fn presence(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let look = async {
        let channel = present(&node, &headers, &body).await?;
        Ok(json::result(&perform::presence(&node, &channel).await?))
    };
    answer(&node, look).await
}

/// How many are subscribed to a channel.
pub(super) async fn presence_stats(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let look = async {
        let channel = present(&node, &headers, &body).await?;
        Ok(json::result(&perform::presence_stats(&node, &channel).await?))
    };
    answer(&node, look).await
}

/// The channel whose presence may be looked at.
async fn present(node: &Node, headers: &HeaderMap, body: &[u8]) -> Result<Channel, HttpError> {
    let grant = grant(node, headers).await?;
    let OfChannel { channel } = read_json(headers, body)?;
    perform::allowed(node, &grant, &channel, Action::Presence).await?;
    Ok(channel)
}
