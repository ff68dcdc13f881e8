//! Settings of sources and webhooks, each with its unit in its name and what happens beyond it.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use talewire_proto::NoticeKind;

use crate::url;

/// One source: `[sources.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSettings {
    /// What it is: `redis` (a stream), `rabbitmq` (a queue) or `kafka` (topics); the last two are features of the build.
    pub kind: SourceKind,
    /// Where it is: `redis://…`, `amqp://…`, or Kafka's servers as `host:port`, separated by commas. Never shown, since it may hold a password.
    pub url: Hidden,
    /// The stream, the queue, or the topics, separated by commas.
    pub from: String,
    /// The consumer group that keeps the position (Redis, Kafka).
    pub group: String,
    /// Where a new group begins (Redis, Kafka): `oldest` or `newest`.
    pub begin: Begin,
    /// The channel of all messages, whose whole bodies are then the data; without one every message names its channel.
    pub channel: String,
    /// The field of a Redis Streams entry that holds the body.
    pub body_field: String,
    /// The header (Redis: the field) that holds a message's idempotency key; without one the key is made of the position.
    pub key_header: String,
    /// The stream, queue or topic for messages that can never be published, with the reason; without one they are counted and logged without content, and RabbitMQ is told to reject them.
    pub aside: String,
    /// Messages that are taken at once and not yet acknowledged; the source keeps the others.
    pub messages_max: usize,
    /// Largest body, in bytes; a larger one is put aside.
    pub message_bytes_max: usize,
    /// First pause before something is tried again, in milliseconds; doubled each time and jittered by half.
    pub retry_ms: u64,
    /// Longest such pause, in milliseconds. Tries have no end: what waits stays in the source.
    pub retry_ms_max: u64,
    /// Time after which messages that another consumer took and did not acknowledge are taken over, in milliseconds (Redis).
    pub claim_ms: u64,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            kind: SourceKind::Redis,
            url: Hidden::default(),
            from: String::new(),
            group: "talewire".into(),
            begin: Begin::Oldest,
            channel: String::new(),
            body_field: "message".into(),
            key_header: String::new(),
            aside: String::new(),
            messages_max: 64,
            message_bytes_max: 1_048_576,
            retry_ms: 200,
            retry_ms_max: 10_000,
            claim_ms: 60_000,
        }
    }
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A stream of Redis or Valkey, read by a consumer group.
    Redis,
    /// A queue of RabbitMQ.
    RabbitMq,
    /// Topics of Kafka, read by a consumer group.
    Kafka,
}

impl SourceKind {
    /// Whether this build has it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Redis => true,
            Self::RabbitMq => cfg!(feature = "rabbitmq"),
            Self::Kafka => cfg!(feature = "kafka"),
        }
    }

    /// Its word in settings, and the name of its feature.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
        }
    }
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// With everything that is there.
    Oldest,
    /// With what comes from now on.
    Newest,
}

/// One webhook: `[webhooks.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where deliveries are posted: an `https://` address.
    pub url: String,
    /// What signs deliveries (HMAC-SHA256); at least 32 bytes. Never shown.
    pub secret: Hidden,
    /// What is told: any of `channel_occupied`, `channel_vacated`, `client_connected`, `client_disconnected` and `generation_ended`.
    pub events: Vec<NoticeKind>,
    /// Events in one delivery; further ones come with the next.
    pub batch_events_max: usize,
    /// How long events are gathered for one delivery, in milliseconds.
    pub batch_ms: u64,
    /// Events that wait; further ones are dropped, counted, and their number told in the next delivery.
    pub queue_events_max: usize,
    /// Time for one try, from the look-up of the name to the end of the answer, in milliseconds; then it has failed.
    pub timeout_ms: u64,
    /// Bytes of an answer that are read; with more the connection is closed.
    pub answer_bytes_max: usize,
    /// First pause before a delivery is tried again, in milliseconds; doubled each time and jittered by half.
    pub retry_ms: u64,
    /// Longest such pause, in milliseconds, also when the answer's Retry-After asks for more.
    pub retry_ms_max: u64,
    /// How long one delivery is tried, in milliseconds; then its events are dropped, counted and told as above.
    pub give_up_ms: u64,
    /// Time for what waits to be delivered when the server stops, in milliseconds; the rest is lost.
    pub drain_ms: u64,
    /// Whether the address may begin with `http://`. The content is then readable on its way.
    pub http_allowed: bool,
    /// Whether the address may be a private, link-local or loopback one.
    pub private_allowed: bool,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: Hidden::default(),
            events: NoticeKind::ALL.to_vec(),
            batch_events_max: 100,
            batch_ms: 100,
            queue_events_max: 10_000,
            timeout_ms: 10_000,
            answer_bytes_max: 1_048_576,
            retry_ms: 500,
            retry_ms_max: 60_000,
            give_up_ms: 900_000,
            drain_ms: 5_000,
            http_allowed: false,
            private_allowed: false,
        }
    }
}

/// A text that neither its `Debug` nor its serialised form shows; an empty one looks empty.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Takes a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; say why where you call this.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "REDACTED" }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// A shared secret of fewer bytes can be guessed from one delivery.
const SECRET_BYTES_MIN: usize = 32;

impl SourceSettings {
    /// What is wrong with them: the setting and the reason.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, setting, reason: &str| {
            if !holds {
                problems.push((setting, reason.to_owned()));
            }
        };
        let built_in = format!("this build does not have it: build with --features {}", self.kind.as_str());
        must(self.kind.is_built_in(), "kind", &built_in);
        must(!self.from.is_empty(), "from", "names the stream, queue or topics");
        must(self.kind == SourceKind::RabbitMq || !self.group.is_empty(), "group", "names the consumer group");
        must(
            self.channel.is_empty() || self.channel.parse::<talewire_proto::Channel>().is_ok(),
            "channel",
            "is not the name of a channel",
        );
        must(self.aside != self.from || self.aside.is_empty(), "aside", "would come back for ever");
        must(self.messages_max <= MESSAGES_MAX_MAX, "messages_max", "must be at most 65535");
        let numbers = [
            ("messages_max", self.messages_max as u64),
            ("message_bytes_max", self.message_bytes_max as u64),
            ("retry_ms", self.retry_ms),
            ("retry_ms_max", self.retry_ms_max),
            ("claim_ms", self.claim_ms),
        ];
        problems.extend(zeros(&numbers));
        problems.extend(self.address().err().map(|reason| ("url", reason)));
        problems
    }

    /// Whether the address is one of its kind.
    fn address(&self) -> Result<(), String> {
        let text = self.url.reveal();
        if text.is_empty() {
            return Err("says where the source is".into());
        }
        match self.kind {
            SourceKind::Redis => url::redis(text).map(drop),
            SourceKind::RabbitMq => url::server(text, &["amqp", "amqps"]).map(drop),
            SourceKind::Kafka => url::hosts(text),
        }
    }
}

fn zeros(numbers: &[(&'static str, u64)]) -> Vec<(&'static str, String)> {
    let zeros = numbers.iter().filter(|(_, number)| *number == 0);
    zeros.map(|(setting, _)| (*setting, "must be greater than zero".to_owned())).collect()
}

/// What RabbitMQ can bound.
const MESSAGES_MAX_MAX: usize = 65_535;

impl WebhookSettings {
    /// What is wrong with them: the setting and the reason.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(reason) = crate::webhooks::address(self) {
            problems.push(("url", reason));
        }
        if self.secret.reveal().len() < SECRET_BYTES_MIN {
            let reason =
                format!("must have at least {SECRET_BYTES_MIN} bytes; this has {}", self.secret.reveal().len());
            problems.push(("secret", reason));
        }
        if self.events.is_empty() {
            problems.push(("events", "names what is told".to_owned()));
        }
        problems.extend(zeros(&[
            ("batch_events_max", self.batch_events_max as u64),
            ("queue_events_max", self.queue_events_max as u64),
            ("timeout_ms", self.timeout_ms),
            ("retry_ms", self.retry_ms),
            ("retry_ms_max", self.retry_ms_max),
            ("give_up_ms", self.give_up_ms),
        ]));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_password_does_not_print_itself() {
        let settings = SourceSettings { url: Hidden::new("redis://:hunter2@x"), ..SourceSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&settings).expect("JSON").contains("hunter2"));
        assert_eq!(serde_json::to_string(&Hidden::default()).expect("JSON"), "\"\"");
    }

    #[test]
    fn what_is_missing_is_named() {
        let problems = SourceSettings::default().problems();
        let settings: Vec<&str> = problems.iter().map(|(setting, _)| *setting).collect();
        assert_eq!(settings, ["from", "url"]);
        let good = SourceSettings { url: Hidden::new("redis://x"), from: "a".into(), ..SourceSettings::default() };
        assert_eq!(good.problems(), []);
        for (kind, url) in [(SourceKind::Redis, "http://:pw@x"), (SourceKind::Redis, "redis://x:99999")] {
            let bad = SourceSettings { kind, url: Hidden::new(url), ..good.clone() };
            assert_eq!(bad.problems().iter().map(|(setting, _)| *setting).collect::<Vec<_>>(), ["url"], "{url}");
        }
        for (kind, url, fits) in [
            (SourceKind::RabbitMq, "amqp://guest:guest@x:5672/%2f", true),
            (SourceKind::RabbitMq, "redis://x", false),
            (SourceKind::Kafka, "a:9092,b:9092", true),
            (SourceKind::Kafka, "kafka://a", false),
        ] {
            let source = SourceSettings { kind, url: Hidden::new(url), ..good.clone() };
            assert_eq!(source.address().is_ok(), fits, "{url}");
        }
        let again = SourceSettings { aside: "a".into(), channel: "a\nb".into(), ..good };
        assert_eq!(again.problems().len(), 2, "{:?}", again.problems());
        let webhook = WebhookSettings { secret: Hidden::new("short"), ..WebhookSettings::default() };
        let settings: Vec<&str> = webhook.problems().iter().map(|(setting, _)| *setting).collect();
        assert_eq!(settings, ["url", "secret"]);
    }
}
