//! The HTTP routes: one readable list, with what each of them may be asked by whom.

mod api;
mod app;
mod error;
mod health;
mod reload;
mod web;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::node::Node;
use crate::transport::emulation;

pub(crate) use app::login_of;
pub(crate) use error::HttpError;

/// What people and programs reach.
pub(crate) fn public(node: Arc<Node>) -> Router {
    let body = DefaultBodyLimit::max(node.settings.body_bytes_max);
    Router::new()
        // By login: the cookie (with CSRF) or a bearer token.
        .route("/app/config", get(app::config))
        .route("/app/login", post(app::login))
        .route("/app/logout", post(app::logout))
        .route("/app/me", get(app::me))
        .route("/app/rpc/{method}", post(app::rpc))
        .route("/app/stories/{story}/export.md", get(app::export))
        // By server key, never by cookie.
        .route("/api/publish", post(api::publish))
        // By the secret name of a session.
        .route("/emulation", post(emulation::post).options(emulation::options))
        // The page, for everybody.
        .fallback(web::page)
        .layer(body)
        .with_state(node)
}

/// What operators reach, on a listener of its own.
pub(crate) fn admin(node: Arc<Node>) -> Router {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/admin/reload", post(reload::reload))
        .with_state(node)
}
