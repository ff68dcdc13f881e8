//! `POST /admin/reload`: the configuration is read again, and what was wrong with it is told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use talewire_proto::ErrorCode;
use tokio::sync::oneshot;

use super::error::HttpError;
use crate::node::Node;

pub(super) async fn reload(State(node): State<Arc<Node>>, headers: HeaderMap) -> Result<Response, HttpError> {
    if headers.contains_key(header::ORIGIN) {
        // The listener asks nobody for a key: a page in an operator's browser must not be able to use it.
        return Err(ErrorCode::PermissionDenied.into());
    }
    let Some(reloads) = &node.reloads else { return Err(ErrorCode::NotAvailable.into()) };
    let (request, answer) = oneshot::channel();
    reloads.try_send(request).map_err(|_| ErrorCode::Unavailable)?;
    Ok(match answer.await.map_err(|_| ErrorCode::Internal)? {
        Ok(reloaded) => Json(json!({ "result": reloaded })).into_response(),
        Err(problems) => {
            let message = "the configuration cannot be used; nothing has changed";
            let error = json!({
                "code": ErrorCode::BadRequest.code(),
                "name": ErrorCode::BadRequest.text(),
                "message": message,
                "problems": problems,
            });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response()
        }
    })
}
