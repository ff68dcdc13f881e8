//! The HTTP routes: one readable list, with what each of them may be asked by whom.

mod api;
mod app;
mod channels;
mod docs;
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

pub(crate) use api::{has_key, into_channel, said};
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
        .route("/app/publish", post(channels::publish))
        .route("/app/history", post(channels::history))
        .route("/app/presence", post(channels::presence))
        .route("/app/presence_stats", post(channels::presence_stats))
        .route("/app/stories/{story}/export.md", get(app::export))
        // By server key, never by cookie.
        .route("/api/{method}", post(api::call))
        // What all of this looks like, for everybody; the page in development alone.
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::page))
        .route("/docs.js", get(docs::script))
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
        .route("/nodes", get(health::nodes))
        .route("/admin/reload", post(reload::reload))
        .with_state(node)
}
