//! `POST /admin/reload`: the configuration is read again, and what was wrong with it is told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use talewire_proto::ErrorCode;
use tokio::sync::oneshot;

use super::error::HttpError;
use crate::letters::Question;
use crate::node::Node;
use crate::nodes::Silence;
use crate::reload::Reloaded;

#[derive(Deserialize)]
pub(super) struct Where {
    /// `all`: every node reads its own configuration again.
    nodes: Option<String>,
}

pub(super) async fn reload(
    State(node): State<Arc<Node>>,
    Query(place): Query<Where>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    if headers.contains_key(header::ORIGIN) {
        // The listener asks nobody for a key: a page in an operator's browser must not be able to use it.
        return Err(ErrorCode::PermissionDenied.into());
    }
    match place.nodes.as_deref() {
        None => {}
        Some("all") => return reload_all(&node).await,
        Some(_) => return Err(ErrorCode::BadRequest.into()),
    }
    let Some(reloads) = &node.reloads else { return Err(ErrorCode::NotAvailable.into()) };
    let (request, answer) = oneshot::channel();
    reloads.try_send(request).map_err(|_| ErrorCode::Unavailable)?;
    Ok(match answer.await.map_err(|_| ErrorCode::Internal)? {
        Ok(reloaded) => Json(json!({ "result": reloaded })).into_response(),
        Err(problems) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": refusal(&problems) }))).into_response()
        }
    })
}

fn refusal(problems: &[String]) -> Value {
    json!({
        "code": ErrorCode::BadRequest.code(),
        "name": ErrorCode::BadRequest.text(),
        "message": "the configuration cannot be used; nothing has changed",
        "problems": problems,
    })
}

/// Every node reads its own configuration again: `{"nodes":{UID:{"result":…}|{"error":…}}}`, in the order of their ages, one by one, so
/// that a mistake does not stop all of them at once.
async fn reload_all(node: &Arc<Node>) -> Result<Response, HttpError> {
    let (nodes, complete) = node.nodes().await;
    if !complete {
        return Err(ErrorCode::Unavailable.into());
    }
    let mut told = Map::new();
    let mut good = true;
    for report in nodes {
        let answer: Result<Result<Reloaded, Vec<String>>, Silence> = if report.id == *node.id() {
            node.answer(Question::Reload)
                .await
                .map_err(Silence::Refused)
                .and_then(|answer| serde_json::from_slice(&answer).map_err(|_| Silence::NoAnswer))
        } else {
            node.ask(&report.id, Question::Reload, Bytes::new()).await
        };
        good &= matches!(answer, Ok(Ok(_)));
        let answer = match answer {
            Ok(Ok(reloaded)) => json!({ "result": reloaded }),
            Ok(Err(problems)) => json!({ "error": refusal(&problems) }),
            Err(Silence::Refused(code)) => json!({ "error": { "code": code.code(), "message": code.text() } }),
            Err(Silence::Nobody | Silence::NoAnswer) => {
                json!({ "error": { "code": ErrorCode::Unavailable.code(), "message": "no answer" } })
            }
        };
        told.insert(report.id.to_string(), answer);
    }
    let status = if good { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, Json(json!({ "nodes": told }))).into_response())
}
