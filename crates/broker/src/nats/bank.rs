//! What is kept in JetStream: streams whose subjects hold either a row of messages or the newest alone, and one way to write to a
//! subject: if nobody has written to it since it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, Republish, Stream};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use super::names::Names;
use super::settings::NatsSettings;
use crate::{BrokerError, BrokerSettings};

/// Messages that are read at once when many are read.
pub(super) const AT_ONCE: usize = 64;

/// The code of the server's error for a stream that is not there.
const NO_STREAM: u64 = 10_059;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shelf {
    /// Entries, announced by the server as they are kept.
    History,
    /// The newest message of each subject alone.
    Records,
    /// Nodes, and who is present on them.
    Nodes,
}

/// How long records stay at least, in milliseconds; those that count for longer by their settings stay for that.
const RECORDS_MS: u64 = 86_400_000;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is kept, and stands there in its stream.
    Done(u64),
    /// Somebody else has written to the subject.
    Conflict,
}

/// The streams.
pub(super) struct Bank {
    pub(super) names: Names,
    context: Context,
    settings: NatsSettings,
    /// How long a record stays at most, in milliseconds.
    records_ms: u64,
    clock: Clock,
    identity: Mutex<Arc<str>>,
}

/// The server's time, as far as this node knows: read off messages, and carried on by a clock that is never set.
struct Clock {
    began: Instant,
    offset_ms: AtomicI64,
    shift_ms: AtomicU64,
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Unavailable(error.to_string())
}

impl Bank {
    pub(super) fn new(context: Context, settings: &BrokerSettings) -> Self {
        let clock = Clock { began: Instant::now(), offset_ms: AtomicI64::new(0), shift_ms: AtomicU64::new(0) };
        let names = Names::new(&settings.nats.prefix);
        let longest_ms = settings.key_age_ms.max(settings.generation_age_ms).max(settings.cursor_age_ms);
        let records_ms = longest_ms.max(RECORDS_MS).min(settings.nats.keep_ms);
        let identity = Mutex::new("".into());
        Self { names, context, settings: settings.nats.clone(), records_ms, clock, identity }
    }

    /// Makes the streams that are not there, and finds out which ones these are.
    pub(super) async fn ensure(&self) -> Result<(), BrokerError> {
        let names = &self.names;
        let announce = Republish {
            source: names.history("*"),
            destination: names.announcements("{{wildcard(1)}}"),
            headers_only: false,
        };
        let newest = |what: &str, subjects: Vec<String>, max_age: Duration| Config {
            max_messages_per_subject: 1,
            ..self.config(what, subjects, max_age)
        };
        let keep = Duration::from_millis(self.settings.keep_ms);
        let history = Config { republish: Some(announce), ..self.config("history", vec![names.history("*")], keep) };
        let records = newest("records", vec![names.records()], Duration::from_millis(self.records_ms));
        let (holders, holder) = (names.holders("*"), names.holder("*"));
        let of_nodes = vec![names.present("*", "*", "*"), names.node("*"), holders, holder, names.floor()];
        let nodes = newest("nodes", of_nodes, Duration::ZERO);
        for config in [records, nodes] {
            self.make(config).await?;
        }
        let identity = self.make(history).await?;
        *self.identity.lock() = identity.into();
        Ok(())
    }

    fn config(&self, what: &str, subjects: Vec<String>, max_age: Duration) -> Config {
        // Whoever makes the stream names it: another stream under the same name is another history.
        let description = Some(crate::memory::random_text());
        let (name, num_replicas) = (self.names.stream(what), self.settings.replicas.max(1));
        Config { name, subjects, max_age, num_replicas, description, ..Config::default() }
    }

    /// The description of a stream, made if it is not there.
    async fn make(&self, config: Config) -> Result<String, BrokerError> {
        let (name, max_age, subjects) = (config.name.clone(), config.max_age, config.subjects.clone());
        // Another node may be faster, and has then described it otherwise.
        let made = self.context.create_stream(config).await;
        let stream = match self.context.get_stream(&name).await {
            Ok(stream) => stream,
            Err(error) => return Err(made.err().map_or_else(|| unavailable(error), unavailable)),
        };
        let is = &stream.cached_info().config;
        // An older version knows of fewer subjects, and must find its own.
        let is_less = subjects.iter().any(|subject| !is.subjects.contains(subject));
        if is.max_age != max_age || is_less {
            // The settings have changed, or the version has.
            let changed = Config { max_age, subjects, ..is.clone() };
            self.context.update_stream(changed).await.map_err(unavailable)?;
        }
        Ok(is.description.clone().unwrap_or_default())
    }

    /// What tells this history stream from another under the same name. Asked anew when nothing is found where something was.
    pub(super) async fn identity(&self) -> Result<Arc<str>, BrokerError> {
        let found = self.context.get_stream(self.names.stream("history")).await;
        if found.is_err() {
            self.ensure().await?;
            return Ok(self.identity.lock().clone());
        }
        let identity = found.map_err(unavailable)?.cached_info().config.description.clone().unwrap_or_default();
        let identity: Arc<str> = identity.into();
        *self.identity.lock() = identity.clone();
        Ok(identity)
    }

    fn stream(&self, shelf: Shelf) -> Stream<()> {
        let what = match shelf {
            Shelf::History => "history",
            Shelf::Records => "records",
            Shelf::Nodes => "nodes",
        };
        // Only its name is looked at.
        futures_util::FutureExt::now_or_never(self.context.get_stream_no_info(self.names.stream(what)))
            .and_then(Result::ok)
            .expect("a name that is good is only taken")
    }

    /// The newest message of a subject, from the server that leads the stream.
    pub(super) async fn last(&self, shelf: Shelf, subject: &str) -> Result<Option<StreamMessage>, BrokerError> {
        match self.stream(shelf).get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(inner) if inner.error_code().0 == NO_STREAM => {
                    self.ensure().await?;
                    Ok(None)
                }
                _ => Err(unavailable(error)),
            },
        }
    }

    /// Writes to a subject whose newest message has to be `expected` (0 for none), or whatever it is.
    pub(super) async fn put(
        &self,
        subject: String,
        mut headers: HeaderMap,
        body: Bytes,
        expected: Option<u64>,
    ) -> Result<Put, BrokerError> {
        if let Some(expected) = expected {
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        }
        let sent = self.context.publish_with_headers(subject, headers, body).await.map_err(unavailable)?;
        match sent.await {
            Ok(ack) => Ok(Put::Done(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Put::Conflict),
            Err(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.ensure().await?;
                    return Err(unavailable(error));
                }
                // It was sent.
                Err(BrokerError::Unknown(error.to_string()))
            }
        }
    }

    /// Forgets a subject, but for its newest `keep` messages.
    pub(super) async fn purge(&self, shelf: Shelf, subject: String, keep: u64) -> Result<(), BrokerError> {
        let purge = self.stream(shelf).purge().filter(subject);
        let purged = if keep == 0 { purge.await } else { purge.keep(keep).await };
        purged.map(drop).map_err(unavailable)
    }

    /// Forgets a subject whose newest message is this one; one that came later stays.
    pub(super) async fn purge_through(&self, shelf: Shelf, subject: String, sequence: u64) -> Result<(), BrokerError> {
        let purge = self.stream(shelf).purge().filter(subject).sequence(sequence + 1);
        purge.await.map(drop).map_err(unavailable)
    }

    /// The subjects that fit a filter and hold something.
    pub(super) async fn subjects(&self, shelf: Shelf, filter: &str) -> Result<Vec<String>, BrokerError> {
        let found = self.stream(shelf).info_with_subjects(filter).await.map_err(unavailable)?;
        let subjects = found.map_ok(|(subject, _)| subject).try_collect();
        subjects.await.map_err(unavailable)
    }

    /// The newest messages of many subjects; those that are gone by then are left out.
    pub(super) async fn many(
        &self,
        shelf: Shelf,
        subjects: impl IntoIterator<Item = String>,
    ) -> Result<Vec<(String, StreamMessage)>, BrokerError> {
        let found = futures_util::stream::iter(subjects).map(|subject| async move {
            let last = self.last(shelf, &subject).await?;
            Ok(last.map(|message| (subject, message)))
        });
        let found: Vec<Option<_>> = found.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// All messages of a subject of the history, oldest first.
    pub(super) async fn row(&self, subject: &str) -> Result<Vec<jetstream::Message>, BrokerError> {
        let config = pull::Config {
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            ..pull::Config::default()
        };
        let stream = self.stream(Shelf::History);
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let count = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let mut row = Vec::with_capacity(count.min(10_000));
        while row.len() < count {
            let wanted = (count - row.len()).min(BATCH);
            let before = row.len();
            let mut messages = consumer.fetch().max_messages(wanted).messages().await.map_err(unavailable)?;
            while let Some(message) = messages.next().await {
                row.push(message.map_err(unavailable)?);
            }
            if row.len() == before {
                // They were trimmed meanwhile.
                break;
            }
        }
        let (stream, name) = (self.stream(Shelf::History), consumer.cached_info().name.clone());
        // It would end by itself.
        tokio::spawn(async move { drop(stream.delete_consumer(&name).await) });
        Ok(row)
    }

    /// A look at the server's clock, in the time of a message that was written just now.
    pub(super) fn see(&self, written: &StreamMessage) {
        let server_ms = i64::try_from(written.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let own_ms = i64::try_from(self.clock.began.elapsed().as_millis()).unwrap_or(0);
        self.clock.offset_ms.store(server_ms - own_ms, Ordering::Relaxed);
    }

    /// The server's time in Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        let own_ms = i64::try_from(self.clock.began.elapsed().as_millis()).unwrap_or(0);
        let now_ms = own_ms.saturating_add(self.clock.offset_ms.load(Ordering::Relaxed));
        u64::try_from(now_ms).unwrap_or(0).saturating_add(self.clock.shift_ms.load(Ordering::Relaxed))
    }

    /// How long anything stays at most, in milliseconds.
    pub(super) fn keep_ms(&self) -> u64 {
        self.settings.keep_ms.max(1)
    }

    /// For tests: moves the clock.
    pub(super) fn shift_clock(&self, by_ms: u64) {
        self.clock.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// Messages of one fetch.
const BATCH: usize = 500;

/// A number in a header.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}
