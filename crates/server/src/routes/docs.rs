//! What the HTTP interfaces look like, for programs (`/openapi.json`) and, in development, for people (`/docs`).
//!
//! The document is written by hand: tests compare it with the routes and send its examples. The page is our own and small, since
//! the usual one is many times the size of this server's page and wants scripts and styles that our policy does not allow.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use talewire_proto::session::Anonymous;

use super::web::POLICY;
use crate::node::Node;

/// The document.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The document, for everybody: it holds no secret and is the same on every server.
pub(super) async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, OPENAPI).into_response()
}

/// The page that shows it.
pub(super) async fn page(State(node): State<Arc<Node>>) -> Response {
    own(&node, "text/html; charset=utf-8", include_str!("docs.html"))
}

/// The page's script.
pub(super) async fn script(State(node): State<Arc<Node>>) -> Response {
    own(&node, "text/javascript; charset=utf-8", include_str!("docs.js"))
}

fn own(node: &Node, kind: &'static str, text: &'static str) -> Response {
    if !node.settings.api_docs && node.anonymous != Anonymous::Insecure {
        return (StatusCode::NOT_FOUND, "there is nothing at this address\n").into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::api::METHODS;
    use super::OPENAPI;

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("JSON")
    }

    /// Every route of the public listener with its methods, read off the code.
    fn routes() -> BTreeSet<String> {
        let mut routes = BTreeSet::new();
        let code = include_str!("mod.rs");
        let public = code.split("pub(crate) fn admin").next().expect("the public part");
        for line in public.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, handlers) = line.split_once("\", ").expect("a path and its handlers");
            let method = handlers.split('(').next().expect("a method");
            match path {
                "/api/{method}" => routes.extend(METHODS.map(|name| format!("{method} /api/{name}"))),
                // Pages for people.
                "/docs" | "/docs.js" => {}
                path => drop(routes.insert(format!("{method} {path}"))),
            }
        }
        let code = include_str!("../transport/opening.rs");
        for line in code.lines().map(str::trim).filter(|line| line.contains("=>") && line.starts_with('(')) {
            let Some((path, rest)) = line.trim_start_matches('(').split_once(", ") else { continue };
            let path = match path {
                "EVENTS" => "/events",
                path => path.trim_matches('"'),
            };
            if !path.starts_with('/') {
                continue;
            }
            let get = rest.contains("Method::GET") || rest.starts_with('_');
            routes.extend(get.then(|| format!("get {path}")));
            routes.extend(rest.contains("Method::POST").then(|| format!("post {path}")));
        }
        routes
    }

    #[test]
    fn it_lists_every_route_and_no_other() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let listed: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().expect("methods").keys().map(move |m| format!("{m} {path}"))
            })
            .collect();
        let routes = routes();
        assert!(routes.len() > 30 && routes.contains("get /poll"), "{routes:?}");
        assert_eq!(listed, routes);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_name_is_of_one_operation() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{method} {path}: {name} is there twice");
                assert!(operation["responses"].is_object() && operation["summary"].is_string(), "{method} {path}");
            }
        }
        for reference in OPENAPI.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().expect("an end");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
