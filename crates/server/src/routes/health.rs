//! For operators: metrics, whether the process lives, and whether it can serve.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::node::Node;

/// All metrics, in the OpenMetrics text format.
pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, node.metrics.text()).into_response()
}

/// The process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// The process can serve: it is not going down, and the store answers.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response {
    if node.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "going down\n").into_response();
    }
    match node.store.log_mark().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the store does not answer: {error}\n")).into_response()
        }
    }
}
