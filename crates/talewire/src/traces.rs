//! Spans out of the process: gathered, and sent by the OpenTelemetry protocol (OTLP 1.x over HTTP, Protobuf) to a collector.
//!
//! Nothing waits for it: a span for which there is no room is dropped and counted in a line of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use serde::{Deserialize, Serialize};
use talewire_proto::trace::{Span, SpanSink};
use talewire_server::Traces;
use tokio::sync::mpsc;

/// Traces by OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSettings {
    /// Where spans are sent, for example `http://127.0.0.1:4318/v1/traces`; empty for no traces.
    pub(crate) endpoint: String,
    /// The share of clients' publications that is followed, from 0 to 1. Requests of server programs say so themselves (`traceparent`).
    pub(crate) ratio: f64,
    /// Spans that wait to be sent; further ones are dropped and counted in the log.
    pub(crate) waiting_max: usize,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { endpoint: String::new(), ratio: 0.001, waiting_max: 4_096 }
    }
}

/// Spans sent at once.
const BATCH_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);

/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Follows publications as the settings say; nothing where no endpoint is set.
///
/// # Errors
/// When the endpoint is no address.
pub(crate) fn start(settings: &TraceSettings, node: &str) -> anyhow::Result<Option<Traces>> {
    if settings.endpoint.is_empty() {
        return Ok(None);
    }
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&settings.endpoint)
        .with_timeout(ANSWER)
        .build()
        .context("traces.endpoint")?;
    let version = env!("CARGO_PKG_VERSION");
    let about = [("service.version", version.to_owned()), ("service.instance.id", node.to_owned())];
    let about = about.map(|(name, value)| KeyValue::new(name, value));
    exporter.set_resource(&Resource::builder().with_service_name("talewire").with_attributes(about).build());
    let (sender, waiting) = mpsc::channel(settings.waiting_max.max(1));
    let dropped = Arc::new(AtomicU64::new(0));
    tokio::spawn(send_all(exporter, waiting, dropped.clone()));
    let sink: SpanSink = Arc::new(move |span| {
        if sender.try_send(span).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Some(Traces { sink, ratio: settings.ratio }))
}

async fn send_all(exporter: SpanExporter, mut waiting: mpsc::Receiver<Span>, dropped: Arc<AtomicU64>) {
    let scope = InstrumentationScope::builder("talewire").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        if waiting.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH_MAX {
            match tokio::time::timeout_at(until, waiting.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let spans: Vec<_> = batch.drain(..).map(|span| data(span, &scope)).collect();
        let count = spans.len();
        if let Err(error) = exporter.export(spans).await {
            tracing::warn!(%error, count, "spans could not be sent, and are dropped");
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(count, "spans were dropped because too many were waiting");
        }
    }
}

fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let at = |ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
    let Span { trace, parent, name, began_ns, ended_ns, channel, done } = span;
    let id = SpanId::from_bytes(trace.span.to_be_bytes());
    let sampled = TraceFlags::SAMPLED;
    let kind = if name == "deliver" { SpanKind::Consumer } else { SpanKind::Producer };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace.id.to_be_bytes()),
            id,
            sampled,
            false,
            TraceState::NONE,
        ),
        parent_span_id: SpanId::from_bytes(parent.to_be_bytes()),
        parent_span_is_remote: parent != 0,
        span_kind: kind,
        name: name.into(),
        start_time: at(began_ns),
        end_time: at(ended_ns),
        // The rest of a channel's name may tell who speaks with whom.
        attributes: vec![KeyValue::new("talewire.namespace", channel.namespace().to_owned())],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if done { Status::Unset } else { Status::error("refused") },
        instrumentation_scope: scope.clone(),
    }
}
