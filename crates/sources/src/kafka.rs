//! Kafka: a consumer group keeps the position of each partition; offsets are committed behind the publications.
//!
//! Messages of one partition come in their order. After a rebalance or a failure whatever was not committed is given out again,
//! with the same offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Timestamp};

use crate::counts::{SourceCounts, count};
use crate::feed::{Aside, Feed};
use crate::message::{Identity, Taken};
use crate::run::{Inlet, SourceError, WAIT};
use crate::settings::{Begin, SourceSettings};

/// How long the servers may take to keep what is put aside.
const KEEP: Duration = Duration::from_secs(10);

/// After so long without a sign of life the group gives a consumer's partitions to others.
const LIFE: Duration = Duration::from_secs(10);

/// How long a server may be away before the client is made anew.
const SILENCE: Duration = Duration::from_secs(30);

pub(crate) struct Topics {
    consumer: Arc<StreamConsumer<Watch>>,
    /// Made when the first message is put aside.
    producer: Option<FutureProducer>,
    /// The batch that is under way.
    messages: Vec<OwnedMessage>,
    settings: SourceSettings,
    name: String,
    counts: Arc<SourceCounts>,
}

/// Hears what the client library tells.
struct Watch {
    name: String,
    lag: Arc<AtomicU64>,
}

impl ClientContext for Watch {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(source = %self.name, facility, message, "kafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(source = %self.name, %error, reason, "kafka");
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let lag = partitions.map(|partition| u64::try_from(partition.consumer_lag).unwrap_or(0)).sum();
        self.lag.store(lag, Relaxed);
    }
}

impl ConsumerContext for Watch {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        tracing::debug!(source = %self.name, ?rebalance, "partitions were dealt out");
    }
}

/// Joins the group.
pub(crate) async fn open(feed: &Feed) -> Result<Topics, SourceError> {
    let settings = feed.settings.clone();
    let begin = if settings.begin == Begin::Oldest { "earliest" } else { "latest" };
    let watch = Watch { name: feed.name.clone(), lag: feed.counts.lag.clone() };
    let mut config = servers(&settings);
    config.set("group.id", &settings.group).set("auto.offset.reset", begin);
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("enable.partition.eof", "false").set("allow.auto.create.topics", "false");
    // What the library fetches ahead; what is under way is bounded by ourselves.
    config.set("queued.max.messages.kbytes", "16384").set("queued.min.messages", "1000");
    config.set("statistics.interval.ms", "5000").set("session.timeout.ms", LIFE.as_millis().to_string());
    let consumer: StreamConsumer<Watch> = config.create_with_context(watch)?;
    let topics: Vec<&str> = settings.from.split(',').map(str::trim).filter(|topic| !topic.is_empty()).collect();
    consumer.subscribe(&topics)?;
    let (consumer, name, counts) = (Arc::new(consumer), feed.name.clone(), feed.counts.clone());
    Ok(Topics { consumer, producer: None, messages: Vec::new(), settings, name, counts })
}

fn servers(settings: &SourceSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings.url.reveal()).set("client.id", "talewire");
    config.set("reconnect.backoff.max.ms", settings.retry_ms_max.max(100).to_string());
    config.set_log_level(RDKafkaLogLevel::Notice);
    config
}

fn place(message: &OwnedMessage) -> String {
    // With the time that was stored with it: a topic that was made anew may reach the same offset again.
    let time_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
        Timestamp::NotAvailable => 0,
    };
    format!("{}/{}/{}@{time_ms}", message.topic(), message.partition(), message.offset())
}

impl Topics {
    fn taken(&self, message: &OwnedMessage) -> Taken {
        let name = &self.settings.key_header;
        let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == name));
        let key = header.and_then(|header| String::from_utf8(header.value?.to_vec()).ok());
        let key = key.filter(|key| !key.is_empty());
        let body = message.payload().map(bytes::Bytes::copy_from_slice);
        Taken {
            body: body.ok_or_else(|| "the message has no body (a tombstone)".to_owned()),
            place: place(message),
            identity: key.map_or(Identity::Place, Identity::Key),
        }
    }

    async fn put_aside(&mut self, at: usize, reason: &str) -> Result<(), SourceError> {
        if self.producer.is_none() {
            let mut config = servers(&self.settings);
            config.set("acks", "all").set("message.timeout.ms", KEEP.as_millis().to_string());
            self.producer = Some(config.create()?);
        }
        let producer = self.producer.as_ref().expect("it was just made");
        let message = &self.messages[at];
        let place = place(message);
        let mut headers = OwnedHeaders::new();
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            headers = headers.insert(header);
        }
        for (key, value) in [("talewire_reason", reason), ("talewire_source", &self.name), ("talewire_place", &place)] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.settings.aside).headers(headers);
        record.payload = message.payload();
        record.key = message.key();
        producer.send(record, KEEP).await.map_err(|(error, _)| SourceError::new(error))?;
        Ok(())
    }

    /// The offsets behind the batch, by topic and partition.
    fn offsets(&self) -> KafkaResult<TopicPartitionList> {
        let mut next: HashMap<(&str, i32), i64> = HashMap::new();
        for message in &self.messages {
            let next = next.entry((message.topic(), message.partition())).or_default();
            *next = (*next).max(message.offset() + 1);
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), next) in next {
            offsets.add_partition_offset(topic, partition, Offset::Offset(next))?;
        }
        Ok(offsets)
    }
}

impl Inlet for Topics {
    async fn take(&mut self) -> Result<Vec<Taken>, SourceError> {
        self.messages.clear();
        let mut next = tokio::time::timeout(WAIT, self.consumer.recv()).await.ok();
        while let Some(message) = next {
            match message {
                Ok(message) => self.messages.push(message.detach()),
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(error.into()),
                // Servers that are away: the library looks for them by itself, and the group keeps us while we do not leave.
                Err(error) => {
                    count(&self.counts.failures);
                    tracing::warn!(source = %self.name, %error, "a source is not well");
                    tokio::time::sleep(WAIT).await;
                    break;
                }
            }
            let is_full = self.messages.len() >= self.settings.messages_max;
            next = if is_full { None } else { self.consumer.recv().now_or_never() };
        }
        Ok(self.messages.iter().map(|message| self.taken(message)).collect())
    }

    async fn acknowledge(&mut self, _batch: &[Taken], asides: &[Aside]) -> Result<(), SourceError> {
        if !self.settings.aside.is_empty() {
            for (at, reason) in asides {
                self.put_aside(*at, reason).await?;
            }
        }
        let (consumer, offsets) = (self.consumer.clone(), self.offsets()?);
        // It waits for the servers.
        let commit = tokio::task::spawn_blocking(move || consumer.commit(&offsets, CommitMode::Sync));
        match tokio::time::timeout(SILENCE, commit).await {
            Ok(committed) => Ok(committed.map_err(SourceError::new)??),
            Err(_) => Err(SourceError::new("the servers do not keep our offsets")),
        }
    }

    async fn lag(&mut self) -> Result<Option<u64>, SourceError> {
        // The library tells it by itself, to `Watch`.
        Ok(None)
    }

    async fn close(self) {
        // Leaving the group waits for the servers.
        let consumer = self.consumer;
        let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
    }
}

impl From<KafkaError> for SourceError {
    fn from(error: KafkaError) -> Self {
        Self::new(error)
    }
}
