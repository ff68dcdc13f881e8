//! For operators: metrics, whether the process lives, whether it can serve, and which nodes there are.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use talewire_broker::NodeReport;

use crate::agreement;
use crate::node::{Node, unix_ms};

/// All metrics, in the OpenMetrics text format.
pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    // Files of the kernel are read, and this thread has readers of its own.
    match tokio::task::spawn_blocking(move || node.metrics.text()).await {
        Ok(text) => (kind, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// The process can serve, and what does not work all the same; or why it cannot.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response {
    match node.unready().await {
        None => match node.degraded() {
            None => "ready\n".into_response(),
            Some(reason) => format!("ready, but degraded: {reason}\n").into_response(),
        },
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// What is told about all nodes.
#[derive(Serialize)]
struct Nodes {
    /// Who answers this.
    me: String,
    /// Why this node is not to be sent anybody.
    unready: Option<String>,
    /// What does not work although it can serve.
    degraded: Option<String>,
    /// Without the broker, nobody but this node is known.
    complete: bool,
    /// This node as it is now, the others as of their last sign of life.
    nodes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    report: NodeReport,
    /// The settings in which it differs from the node that answers, by part; absent where they agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<String>,
}

/// The nodes, as a page for people and as JSON for programs.
pub(super) async fn nodes(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let (nodes, complete) = node.nodes().await;
    let me = node.report();
    let row = |report| Row { differs: agreement::parts(&me, &report), report };
    let nodes = nodes.into_iter().map(row).collect();
    let told =
        Nodes { me: node.id().to_string(), unready: node.unready().await, degraded: node.degraded(), complete, nodes };
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accepts.contains("text/html") {
        return ([(header::CACHE_CONTROL, "no-store")], Json(told)).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, page(&told, unix_ms())).into_response()
}

fn page(told: &Nodes, now_ms: i64) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Talewire nodes</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"5\">\
         <style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}\
         table{border-collapse:collapse}th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #8886}\
         th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}</style><h1>Nodes</h1>",
    );
    let state = match (&told.unready, &told.degraded) {
        (None, None) => "This node can serve.".to_owned(),
        (None, Some(reason)) => format!("<strong>This node can serve, but is degraded:</strong> {}.", escaped(reason)),
        (Some(reason), _) => format!("<strong>This node is not ready:</strong> {}.", escaped(reason)),
    };
    let others = if told.complete { "" } else { " The broker does not answer: other nodes are not shown." };
    let columns = "<tr><th>Name<th>Id<th>Version<th>Up<th>Connections<th>Users<th>Subscriptions<th>Channels<th>State";
    put(&mut page, format_args!("<p>{state}{others}</p><table>{columns}"));
    for Row { report: node, differs } in &told.nodes {
        let (name, id, version) = (escaped(&node.name), escaped(node.id.as_str()), escaped(&node.version));
        let up = up(now_ms - node.started_ms);
        let state = if node.draining { "going down" } else { "serves" };
        let here = if node.id.as_str() == told.me { " (this one)" } else { "" };
        let NodeReport { connections, users, subscriptions, channels, .. } = node;
        put(&mut page, format_args!("<tr><td>{name}{here}<td>{id}<td>{version}<td>{up}<td>{connections}<td>{users}"));
        put(&mut page, format_args!("<td>{subscriptions}<td>{channels}<td>{state}"));
        if let Some(parts) = differs {
            put(&mut page, format_args!(", <strong>set otherwise: {}</strong>", escaped(parts)));
        }
    }
    put(&mut page, format_args!("</table><p>Others are shown as of their last sign of life.</p></html>\n"));
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes everything");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A time for people.
fn up(ms: i64) -> String {
    let s = ms.max(0) / 1_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use talewire_broker::NodeId;

    use super::*;

    #[test]
    fn the_page_shows_names_as_text() {
        let report = NodeReport {
            id: NodeId::named("n1"),
            name: "<b>a&b</b>".into(),
            version: "0.1.0".into(),
            store: String::new(),
            started_ms: 0,
            connections: 3,
            users: 2,
            subscriptions: 4,
            channels: 1,
            draining: true,
            agreed: Default::default(),
        };
        let told = Nodes {
            me: "n1".into(),
            unready: Some("x < y".into()),
            degraded: None,
            complete: false,
            nodes: vec![Row { report, differs: Some("a, <b>".into()) }],
        };
        let page = page(&told, 3_700_000);
        for part in [
            "&lt;b&gt;a&amp;b&lt;/b&gt; (this one)",
            "1 h 1 min",
            "going down",
            "x &lt; y",
            "<td>3<td>2<td>4<td>1",
            "otherwise: a, &lt;b&gt;",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!((up(59_999), up(-1), up(90_000_000)), ("59 s".into(), "0 s".into(), "1 d 1 h".into()));
    }
}
