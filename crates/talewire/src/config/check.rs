//! What types cannot say: settings that contradict each other or mean nothing, each with the path and the reason.

use reqwest::Url;
use serde_json::Value;
use talewire_proto::namespace::{RESERVED, Recovery, Rule};
use talewire_proto::{Channel, Kind, Namespace};
use talewire_sources::url;

use super::{Config, Known, NO_NAMESPACE};

/// Settings above zero by default that may be zero: it means "at once", "as fast as possible", or "none".
const MAY_BE_ZERO: &[&str] = &[
    "agents.demo.tokens_per_second",
    "agents.drain_ms",
    "http.drain_ms",
    "http.drain_spread_ms",
    "hub.batches_max",
    "hub.gap_wait_ms",
    "hub.signals_waiting_max",
    "limits.expiry_grace_ms",
    "store.free_bytes_min",
    "store.group_ms_max",
    "traces.ratio",
];

/// The longest time for which publications are gathered, in milliseconds.
const BATCH_MS_MAX: u64 = 10_000;

pub(super) type Findings = Vec<(String, String)>;

/// Everything that is wrong.
pub(super) fn check(config: &Config) -> Findings {
    let mut findings = Vec::new();
    zeros(config, &mut findings);
    contradictions(config, &mut findings);
    addresses(config, &mut findings);
    for (name, rules) in &config.namespaces {
        namespace(name, rules, config, &mut findings);
    }
    let sources = config.sources.iter().map(|(name, source)| ("sources", name, source.problems()));
    let webhooks = config.webhooks.iter().map(|(name, webhook)| ("webhooks", name, webhook.problems()));
    for (table, name, problems) in sources.chain(webhooks) {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            findings.push((format!("{table}.{name}"), "is named with letters, digits, - and _".into()));
        }
        findings.extend(problems.into_iter().map(|(setting, reason)| (format!("{table}.{name}.{setting}"), reason)));
    }
    findings
}

fn zeros(config: &Config, findings: &mut Findings) {
    let values = serde_json::to_value(config).expect("settings are plain data");
    let is = |value: &Value, wanted: fn(f64) -> bool| value.as_f64().is_some_and(wanted);
    for setting in Known::new().all() {
        let value = values.pointer(&format!("/{}", setting.path.replace('.', "/")));
        let became_zero = is(&setting.default, |d| d > 0.0) && value.is_some_and(|value| is(value, |v| v <= 0.0));
        if became_zero && !MAY_BE_ZERO.contains(&setting.path.as_str()) {
            findings.push((setting.path.clone(), "must be greater than zero".into()));
        }
    }
}

fn contradictions(config: &Config, findings: &mut Findings) {
    let Config { process, http, limits, hub, store, .. } = config;
    let mut must = |holds: bool, path: &str, reason: String| {
        if !holds {
            findings.push((path.to_owned(), reason));
        }
    };
    must(
        limits.pong_deadline_ms < limits.ping_interval_ms,
        "limits.pong_deadline_ms",
        format!(
            "must be less than limits.ping_interval_ms ({}): a pong is due before the next ping",
            limits.ping_interval_ms
        ),
    );
    must(
        limits.rpc_bytes_max <= limits.frame_bytes_max,
        "limits.rpc_bytes_max",
        format!("cannot be more than limits.frame_bytes_max ({}): no larger one would arrive", limits.frame_bytes_max),
    );
    must(
        hub.outbox_bytes_max <= hub.outbox_bytes_hard_max,
        "hub.outbox_bytes_max",
        format!("cannot be more than hub.outbox_bytes_hard_max ({})", hub.outbox_bytes_hard_max),
    );
    must(
        !process.insecure || http.listen.ip().is_loopback(),
        "process.insecure",
        format!(
            "everything would be allowed to everybody who reaches {}; http.listen must be a loopback address",
            http.listen
        ),
    );
    must(
        http.drain_wait_ms == 0 || http.drain_wait_ms < http.drain_ms,
        "http.drain_wait_ms",
        format!("must be less than http.drain_ms ({}): connections need time too", http.drain_ms),
    );
    must(
        store.orders_every_ms < store.orders_age_ms.unsigned_abs(),
        "store.orders_every_ms",
        format!(
            "must be less than store.orders_age_ms ({}): orders would be gone before anybody looks",
            store.orders_age_ms
        ),
    );
    must(
        http.listen.port() == 0 || http.listen != http.admin_listen,
        "http.admin_listen",
        "cannot be the address of http.listen: metrics are not for everybody".into(),
    );
    if let Err(reason) = config.auth.check() {
        findings.push(("auth".into(), reason.to_string()));
    }
    for reason in config.agents.problems() {
        findings.push((format!("agents.{}", reason.setting), reason.message));
    }
    if tracing_subscriber::EnvFilter::try_new(&process.log_filter).is_err() {
        findings.push((
            "process.log_filter".into(),
            "is not a filter such as `info` or `warn,talewire_server=debug`".into(),
        ));
    }
}

/// Where other systems are. Whether anybody is there is not asked.
fn addresses(config: &Config, findings: &mut Findings) {
    let mut wrong = |path: &str, reason: String| findings.push((path.to_owned(), reason));
    let all = |urls: &[String], read: fn(&str) -> Result<Url, String>| -> Result<Vec<Url>, String> {
        if urls.is_empty() {
            return Err("names no server".into());
        }
        let nth =
            |at: usize, reason: String| if urls.len() == 1 { reason } else { format!("number {} {reason}", at + 1) };
        urls.iter().enumerate().map(|(at, text)| read(text).map_err(|reason| nth(at, reason))).collect()
    };
    let broker = &config.broker;
    match all(&broker.redis.urls, url::redis) {
        Err(reason) => wrong("broker.redis.urls", reason),
        Ok(urls) if urls.iter().any(|url| url.scheme() != urls[0].scheme()) => {
            wrong("broker.redis.urls", "must all begin with redis://, or all with rediss:// (TLS)".into());
        }
        Ok(_) => {}
    }
    if let Err(reason) = all(&broker.nats.urls, |text| url::server(text, &["nats", "tls"])) {
        wrong("broker.nats.urls", reason);
    }
    if let Some(reason) = config.store.url_problem() {
        wrong("store.url", reason);
    }
    if !config.traces.endpoint.is_empty()
        && let Err(reason) = url::server(&config.traces.endpoint, &["http", "https"])
    {
        wrong("traces.endpoint", reason);
    }
}

fn namespace(name: &str, rules: &Namespace, config: &Config, findings: &mut Findings) {
    let path = format!("namespaces.{name}");
    let mut must = |holds: bool, field: &str, reason: &str| {
        if !holds {
            let path = if field.is_empty() { path.clone() } else { format!("{path}.{field}") };
            findings.push((path, reason.to_owned()));
        }
    };
    let is_name = format!("{name}:x").parse::<Channel>().is_ok_and(|channel| channel.namespace() == name);
    must(is_name && !name.is_empty(), "", "a namespace is named with letters, digits or any of _.#$,-");
    must(
        !RESERVED.contains(&name),
        "",
        &format!("this name belongs to the story platform; `{NO_NAMESPACE}` and every other are free"),
    );
    must(
        rules.kind != Kind::Generation,
        "kind",
        "generations belong to the story platform; use history, durable or signal",
    );
    if rules.kind == Kind::History {
        must(rules.history_size > 0, "history_size", "must be greater than zero, or kind must be signal");
        must(rules.history_age_ms > 0, "history_age_ms", "must be greater than zero, or kind must be signal");
    }
    let rate = rules.publications_per_second;
    must(rate <= 1_000_000, "publications_per_second", "must be at most 1000000; 0 sets no limit");
    must(
        rate == 0 || rules.publication_burst > 0,
        "publication_burst",
        "must be greater than zero, or nobody publishes",
    );
    must(rules.batch_ms <= BATCH_MS_MAX, "batch_ms", "must be at most 10000: readers would take it for silence");
    must(rules.batch_max > 0, "batch_max", "must be greater than zero");
    let latest = rules.recovery == Recovery::Latest;
    must(
        !latest || rules.is_recoverable(),
        "recovery",
        "a signal is not kept: there is no latest; use kind history or durable",
    );
    let conflates = rules.conflation_key.is_some();
    must(!conflates || rules.kind == Kind::Signal, "conflation_key", "only signals take the place of older ones");
    must(rules.conflation_key.as_deref() != Some(""), "conflation_key", "names a tag, `publisher` or `channel`");
    let fits = rules.publication_bytes_max > 0 && rules.publication_bytes_max <= config.limits.frame_bytes_max;
    must(fits, "publication_bytes_max", "must be between 1 and limits.frame_bytes_max");
    let who = [
        ("subscribe", rules.subscribe),
        ("publish", rules.publish),
        ("history", rules.history),
        ("presence_for", rules.presence_for),
    ];
    for (field, rule) in who {
        let of_story = matches!(rule, Rule::Member | Rule::Writer);
        must(!of_story, field, "only channels of stories have members and writers");
        must(rule != Rule::Token || field == "subscribe", field, "a token names a channel for subscribing only");
    }
    must(rules.subscribe != Rule::Subscribers, "subscribe", "nobody could be the first subscriber");
}
