//! Redis Streams: a consumer group keeps the position; what a dead consumer left unacknowledged is taken over.
//!
//! One connection waits for messages, another says everything else. After a reconnect the messages that were taken before and
//! not acknowledged come first, because this process keeps its consumer's name.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoGroupsReply;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, Value};
use tokio::time::Instant;

use crate::feed::{Aside, Feed};
use crate::message::{Identity, Taken};
use crate::run::{Inlet, SourceError, WAIT};
use crate::settings::{Begin, SourceSettings};

/// How long the server may take to answer beside waiting for messages.
const ANSWER: Duration = Duration::from_secs(5);

/// A consumer with nothing pending that was not seen for so many times `claim_ms` is forgotten.
const FORGET_CLAIMS: u64 = 10;

/// Forgets consumers of a group that have nothing pending and were idle for long; one step, so that nothing pending is lost.
const FORGET: &str = r"
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for at = 1, #consumer, 2 do fields[consumer[at]] = consumer[at + 1] end
  local fits = ARGV[3] == '' or fields['name'] == ARGV[3]
  if fits and fields['pending'] == 0 and fields['idle'] >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    forgotten = forgotten + 1
  end
end
return forgotten";

/// This process among the consumers of its groups; new at every start.
static CONSUMER: LazyLock<String> = LazyLock::new(|| format!("talewire-{:016x}", fastrand::u64(..)));

pub(crate) struct Stream {
    reader: MultiplexedConnection,
    writer: MultiplexedConnection,
    settings: SourceSettings,
    name: String,
    /// What was taken before and not acknowledged has been read again up to here; none when that is done.
    unfinished_after: Option<String>,
    /// Where the search for what others left goes on, and when.
    claim_after: String,
    claim_at: Instant,
}

/// Connects, and makes the group if it is not there yet.
pub(crate) async fn open(feed: &Feed) -> Result<Stream, SourceError> {
    let settings = feed.settings.clone();
    // The address with its password goes to the client alone; its errors do not repeat it.
    let client = Client::open(settings.url.reveal())?;
    let config =
        |answer| AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(answer));
    let reader = client.get_multiplexed_async_connection_with_config(&config(WAIT + ANSWER)).await?;
    let mut writer = client.get_multiplexed_async_connection_with_config(&config(ANSWER)).await?;
    let begin = if settings.begin == Begin::Oldest { "0" } else { "$" };
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(&settings.from).arg(&settings.group).arg(begin).arg("MKSTREAM");
    match create.query_async::<()>(&mut writer).await {
        Err(error) if error.code() == Some("BUSYGROUP") => {}
        created => created?,
    }
    let name = feed.name.clone();
    let (unfinished_after, claim_after) = (Some("0".to_owned()), "0-0".to_owned());
    Ok(Stream { reader, writer, settings, name, unfinished_after, claim_after, claim_at: Instant::now() })
}

impl Stream {
    /// What this process has taken before and not acknowledged.
    async fn unfinished(&mut self, after: &str) -> Result<Vec<Entry>, RedisError> {
        self.read(after, None).await
    }

    async fn read(&mut self, after: &str, wait: Option<Duration>) -> Result<Vec<Entry>, RedisError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.settings.group).arg(CONSUMER.as_str());
        command.arg("COUNT").arg(self.settings.messages_max);
        if let Some(wait) = wait {
            command.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        command.arg("STREAMS").arg(&self.settings.from).arg(after);
        // One stream was asked for: [[name, entries]], or {name: entries} in a later version of the protocol; nothing when none came.
        Ok(match command.query_async(&mut self.reader).await? {
            Value::Nil => Vec::new(),
            Value::Map(streams) => streams.into_iter().flat_map(|(_, found)| entries(found)).collect(),
            streams => {
                list(streams).into_iter().flat_map(|stream| list(stream).into_iter().nth(1)).flat_map(entries).collect()
            }
        })
    }

    /// What others took and left for too long.
    async fn left_by_others(&mut self) -> Result<Vec<Entry>, RedisError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&self.settings.from).arg(&self.settings.group).arg(CONSUMER.as_str());
        command.arg(self.settings.claim_ms).arg(&self.claim_after).arg("COUNT").arg(self.settings.messages_max);
        let mut reply = list(command.query_async(&mut self.writer).await?).into_iter();
        let next = reply.next().and_then(bytes).map(|next| String::from_utf8_lossy(&next).into_owned());
        self.claim_after = next.unwrap_or_else(|| "0-0".to_owned());
        if self.claim_after == "0-0" {
            self.forget(self.settings.claim_ms.saturating_mul(FORGET_CLAIMS), "").await?;
            self.claim_at = Instant::now() + Duration::from_millis(self.settings.claim_ms / 2);
        }
        Ok(reply.next().map(entries).unwrap_or_default())
    }

    async fn forget(&mut self, idle_ms: u64, consumer: &str) -> Result<(), RedisError> {
        let script = Script::new(FORGET);
        let mut call = script.key(&self.settings.from);
        call.arg(&self.settings.group).arg(idle_ms).arg(consumer).invoke_async::<()>(&mut self.writer).await
    }

    fn taken(&self, entry: Entry) -> Taken {
        let Entry { id, fields } = entry;
        let of = |name: &str| fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.clone());
        let field = &self.settings.body_field;
        let body = of(field).ok_or_else(|| format!("the entry has no field `{field}`"));
        let key = of(&self.settings.key_header);
        let key = key.and_then(|key| String::from_utf8(key.to_vec()).ok()).filter(|key| !key.is_empty());
        Taken { body, place: id, identity: key.map_or(Identity::Place, Identity::Key) }
    }

    /// Copies an entry with all its fields, and the reason.
    async fn put_aside(&mut self, id: &str, reason: &str) -> Result<(), RedisError> {
        let mut range = redis::cmd("XRANGE");
        let found = entries(range.arg(&self.settings.from).arg(id).arg(id).query_async(&mut self.writer).await?);
        let mut add = redis::cmd("XADD");
        add.arg(&self.settings.aside).arg("*");
        for (field, value) in found.into_iter().flat_map(|entry| entry.fields) {
            add.arg(field.as_ref()).arg(value.as_ref());
        }
        add.arg("talewire_reason").arg(reason).arg("talewire_source").arg(&self.name);
        add.arg("talewire_place").arg(format!("{}/{id}", self.settings.from));
        add.query_async::<()>(&mut self.writer).await
    }
}

/// An entry as it came: names and values may be any bytes.
struct Entry {
    id: String,
    fields: Vec<(Bytes, Bytes)>,
}

/// Entries as commands answer them: [[id, [name, value, …]], …]. One that was deleted meanwhile has no fields.
fn entries(value: Value) -> Vec<Entry> {
    let entry = |value: Value| {
        let mut parts = list(value).into_iter();
        let id = String::from_utf8(parts.next().and_then(bytes)?.to_vec()).ok()?;
        let mut words =
            parts.next().map(list).unwrap_or_default().into_iter().map(|word| bytes(word).unwrap_or_default());
        let mut fields = Vec::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            fields.push((name, value));
        }
        Some(Entry { id, fields })
    };
    list(value).into_iter().filter_map(entry).collect()
}

fn list(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { Vec::new() }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

impl Inlet for Stream {
    async fn take(&mut self) -> Result<Vec<Taken>, SourceError> {
        let mut entries = Vec::new();
        if let Some(after) = self.unfinished_after.take() {
            entries = self.unfinished(&after).await?;
            // Behind these: until there are none, so that they all come before what is new.
            self.unfinished_after = entries.last().map(|entry| entry.id.clone());
        }
        if entries.is_empty() && Instant::now() >= self.claim_at {
            entries = self.left_by_others().await?;
        }
        if entries.is_empty() {
            entries = self.read(">", Some(WAIT)).await?;
        }
        Ok(entries.into_iter().map(|entry| self.taken(entry)).collect())
    }

    async fn acknowledge(&mut self, batch: &[Taken], asides: &[Aside]) -> Result<(), SourceError> {
        if !self.settings.aside.is_empty() {
            for (at, reason) in asides {
                self.put_aside(&batch[*at].place, reason).await?;
            }
        }
        let mut command = redis::cmd("XACK");
        command.arg(&self.settings.from).arg(&self.settings.group);
        for taken in batch {
            command.arg(&taken.place);
        }
        Ok(command.query_async(&mut self.writer).await?)
    }

    async fn lag(&mut self) -> Result<Option<u64>, SourceError> {
        let mut command = redis::cmd("XINFO");
        let reply: StreamInfoGroupsReply =
            command.arg("GROUPS").arg(&self.settings.from).query_async(&mut self.writer).await?;
        let group = reply.groups.into_iter().find(|group| group.name == self.settings.group);
        Ok(group.and_then(|group| group.lag.map(|lag| (lag + group.pending) as u64)))
    }

    async fn close(mut self) {
        if let Err(error) = self.forget(0, &CONSUMER).await {
            tracing::debug!(%error, "a consumer stays listed in its group");
        }
    }
}

impl From<RedisError> for SourceError {
    fn from(error: RedisError) -> Self {
        Self::new(error)
    }
}
