//! RabbitMQ: a queue with manual acknowledgements and a bound on what is under way.
//!
//! The queue keeps the position: what was not acknowledged when a connection ends is given out again, at its old place. A
//! message has no place that could make a key; its sender's `message_id` or a configured header does.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Consumer, Error};

use crate::feed::{Aside, Feed};
use crate::message::{Identity, Taken};
use crate::run::{Inlet, SourceError, WAIT};
use crate::settings::SourceSettings;

/// Seconds between heartbeats unless the address says otherwise: a dead connection is found after twice that.
const HEARTBEAT_S: u16 = 10;

/// Milliseconds for connecting unless the address says otherwise.
const CONNECT_MS: u64 = 10_000;

/// The delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;

pub(crate) struct Queue {
    // Dropping it would close the channel.
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// The batch that is under way.
    deliveries: Vec<Delivery>,
    settings: SourceSettings,
    name: String,
}

/// Connects and begins to consume. The queues must be there.
pub(crate) async fn open(feed: &Feed) -> Result<Queue, SourceError> {
    let settings = feed.settings.clone();
    let mut uri: AMQPUri =
        settings.url.reveal().parse().map_err(|_| SourceError::new("`url` is no amqp:// address"))?;
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_S));
    uri.query.connection_timeout = uri.query.connection_timeout.or(Some(CONNECT_MS));
    let properties = ConnectionProperties::default().with_connection_name("talewire".into());
    let connection = Connection::connect_uri(uri, properties).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    if !settings.aside.is_empty() {
        waiting(&channel, &settings.aside).await?;
    }
    let most = u16::try_from(settings.messages_max).unwrap_or(u16::MAX);
    channel.basic_qos(most, BasicQosOptions::default()).await?;
    let (queue, tag) = (short(&settings.from), short(""));
    let consumer = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    Ok(Queue { connection, channel, consumer, deliveries: Vec::new(), settings, name: feed.name.clone() })
}

/// How many messages wait in a queue, which must be there.
async fn waiting(channel: &Channel, queue: &str) -> Result<u64, Error> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(short(queue), options, FieldTable::default()).await?;
    Ok(queue.message_count().into())
}

fn short(text: &str) -> ShortString {
    text.into()
}

impl Queue {
    fn taken(&self, delivery: &Delivery) -> Taken {
        let properties = &delivery.properties;
        let header = properties.headers().as_ref().and_then(|headers| {
            let value = headers.inner().get(self.settings.key_header.as_str())?;
            match value {
                AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
                AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
                AMQPValue::LongLongInt(number) => Some(number.to_string()),
                AMQPValue::LongInt(number) => Some(number.to_string()),
                _ => None,
            }
        });
        let header = header.filter(|key| !key.is_empty()).map(Identity::Key);
        let id = properties.message_id().as_ref().filter(|id| !id.as_str().is_empty());
        let id = id.map(|id| Identity::Id(id.as_str().to_owned()));
        Taken {
            body: Ok(delivery.data.clone().into()),
            place: format!("delivery {}", delivery.delivery_tag),
            identity: header.or(id).unwrap_or(Identity::None),
        }
    }

    async fn put_aside(&self, delivery: &Delivery, reason: &str) -> Result<(), SourceError> {
        let mut headers = delivery.properties.headers().clone().unwrap_or_default();
        let from = &self.settings.from;
        for (name, value) in [("talewire_reason", reason), ("talewire_source", &self.name), ("talewire_place", from)] {
            headers.insert(short(name), AMQPValue::LongString(value.into()));
        }
        let properties = delivery.properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish =
            self.channel.basic_publish(short(""), short(&self.settings.aside), options, &delivery.data, properties);
        let confirmed = publish.await?.await?;
        // What no queue takes is confirmed too, and comes back.
        if confirmed.is_ack() && confirmed.take_message().is_none() {
            return Ok(());
        }
        Err(SourceError::new("the queue for what is put aside took nothing"))
    }
}

impl Inlet for Queue {
    async fn take(&mut self) -> Result<Vec<Taken>, SourceError> {
        self.deliveries.clear();
        let gone = || SourceError::new("the queue gives nothing any more");
        let Ok(first) = tokio::time::timeout(WAIT, self.consumer.next()).await else { return Ok(Vec::new()) };
        self.deliveries.push(first.ok_or_else(gone)??);
        while self.deliveries.len() < self.settings.messages_max {
            let Some(more) = self.consumer.next().now_or_never() else { break };
            self.deliveries.push(more.ok_or_else(gone)??);
        }
        Ok(self.deliveries.iter().map(|delivery| self.taken(delivery)).collect())
    }

    async fn acknowledge(&mut self, batch: &[Taken], asides: &[Aside]) -> Result<(), SourceError> {
        let deliveries = std::mem::take(&mut self.deliveries);
        debug_assert_eq!(deliveries.len(), batch.len(), "one batch is under way at a time");
        for (at, reason) in asides {
            if self.settings.aside.is_empty() {
                // A queue with a dead letter exchange keeps it there.
                deliveries[*at].acker.reject(BasicRejectOptions { requeue: false }).await?;
            } else {
                self.put_aside(&deliveries[*at], reason).await?;
            }
        }
        if let Some(last) = deliveries.last() {
            // With everything before it that was neither acknowledged nor rejected.
            self.channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }

    async fn lag(&mut self) -> Result<Option<u64>, SourceError> {
        Ok(Some(waiting(&self.channel, &self.settings.from).await?))
    }

    async fn close(self) {
        if let Err(error) = self.connection.close(200, short("")).await {
            tracing::debug!(%error, "a connection was not closed in good order");
        }
    }
}

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}
