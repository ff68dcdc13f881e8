//! The durable log in SQLite: offsets are given inside the writer's transaction, so that offset order is commit order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use talewire_proto::{Channel, ClientInfo, Entry, Epoch, Payload, Position, Publication, Since, Version};

use super::Sqlite;
use super::rows::{count, parsed};
use super::writer::Work;
use crate::StoreError;
use crate::event::StoryEvent;
use crate::log::{Append, Appended, Bounds, Direction, Key, LogEntry, LogMark, Page, fresh_epoch, from_json, json};

/// Entries that one look for grown channels passes at most.
const GROWN_ENTRIES_MAX: i64 = 10_000;

/// A channel's row.
struct ChannelRow {
    id: i64,
    epoch: Epoch,
    top: u64,
}

impl Sqlite {
    pub(crate) async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.write(move |work| append_to(work, append)).await
    }

    pub(crate) async fn history(
        &self,
        channel: Channel,
        since: Since,
        entries_max: usize,
        bytes_max: usize,
        direction: Direction,
    ) -> Result<Page, StoreError> {
        loop {
            let (wanted, since) = (channel.clone(), since.clone());
            let page = self
                .read(move |conn, _| match channel_row(conn, &wanted)? {
                    Some(row) => page(conn, &row, since, entries_max, bytes_max, direction).map(Some),
                    None => Ok(None),
                })
                .await?;
            if let Some(page) = page {
                return Ok(page);
            }
            let top = self.begin_channel(channel.clone()).await?;
            if top.offset == 0 {
                return Ok(Page { entries: Vec::new(), top, complete: true });
            }
            // Somebody was quicker to begin it, and its entries are not in what was read.
        }
    }

    pub(crate) async fn top(&self, channel: Channel) -> Result<Position, StoreError> {
        let wanted = channel.clone();
        match self.read(move |conn, _| top_of(conn, &wanted)).await? {
            Some(top) => Ok(top),
            None => self.begin_channel(channel).await,
        }
    }

    /// Gives a channel that nobody has asked about its row, so that its epoch is the same at the next ask.
    async fn begin_channel(&self, channel: Channel) -> Result<Position, StoreError> {
        self.write(move |work| {
            let row = channel_row_made(work.conn, &channel)?;
            Ok(Position { offset: row.top, epoch: row.epoch })
        })
        .await
    }

    pub(crate) async fn log_mark(&self) -> Result<LogMark, StoreError> {
        self.read(|conn, _| {
            let newest: Option<i64> =
                conn.prepare_cached("SELECT MAX(id) FROM log")?.query_row([], |row| row.get(0))?;
            Ok(LogMark { last: newest.unwrap_or(0), ..LogMark::default() })
        })
        .await
    }

    pub(crate) async fn grown(&self, after: LogMark) -> Result<(LogMark, Vec<(Channel, u64)>), StoreError> {
        self.read(move |conn, _| {
            let mut statement = conn.prepare_cached(
                "SELECT channels.name, MAX(part.offset), MAX(part.id)
                 FROM (SELECT id, channel, offset FROM log WHERE id > ?1 ORDER BY id LIMIT ?2) AS part
                 JOIN channels ON channels.id = part.channel
                 GROUP BY part.channel",
            )?;
            let mut rows = statement.query(params![after.last, GROWN_ENTRIES_MAX])?;
            let mut last = after.last;
            let mut grown = Vec::new();
            while let Some(row) = rows.next()? {
                grown.push((parsed(row, 0)?, count(row, 1)?));
                last = last.max(row.get(2)?);
            }
            Ok((LogMark { last, ..LogMark::default() }, grown))
        })
        .await
    }
}

/// Appends one publication inside the writer's transaction, unless its key or its version says that there is nothing to add.
fn append_to(work: &Work<'_>, append: Append) -> Result<Appended, StoreError> {
    let Append { channel, publication, key, version } = append;
    let row = channel_row_made(work.conn, &channel)?;
    if let Some(key) = &key
        && let Some(entry) = entry_of_key(work.conn, row.id, key)?
    {
        let position = Position { offset: entry.offset, epoch: row.epoch };
        return Ok(Appended { position, entry: Some(Arc::new(entry)), repeated: true });
    }
    if let Some(version) = version {
        if !version.supersedes(version_of(work.conn, row.id)?.as_ref()) {
            let position = Position { offset: row.top, epoch: row.epoch };
            return Ok(Appended { position, entry: None, repeated: false });
        }
        work.conn
            .prepare_cached("UPDATE channels SET version = ?2, version_epoch = ?3 WHERE id = ?1")?
            // The bits of the number: SQLite's integers have a sign, and the order is ours to look at.
            .execute(params![row.id, version.number.cast_signed(), version.epoch])?;
    }
    let entry = insert(work, &row, publication, key.as_ref())?;
    let position = Position { offset: entry.offset, epoch: row.epoch };
    Ok(Appended { position, entry: Some(entry), repeated: false })
}

/// Puts an entry behind the newest one of a channel.
fn insert(
    work: &Work<'_>,
    row: &ChannelRow,
    mut publication: Publication,
    key: Option<&Key>,
) -> Result<Arc<Entry>, StoreError> {
    if publication.time_ms == 0 {
        publication.time_ms = work.now_ms;
    }
    let offset = row.top + 1;
    work.conn.prepare_cached("UPDATE channels SET top = ?2 WHERE id = ?1")?.execute(params![row.id, offset as i64])?;
    work.conn
        .prepare_cached(
            "INSERT INTO log (channel, offset, time_ms, data, info, tags, key_user, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row.id,
            offset as i64,
            publication.time_ms,
            publication.data.as_ref().map(Payload::as_bytes),
            publication.info.as_ref().map(json).transpose()?,
            if publication.tags.is_empty() { None } else { Some(json(&publication.tags)?) },
            key.map(|key| key.user.as_str()),
            key.map(|key| key.key.as_str()),
        ])?;
    Ok(Arc::new(Entry { offset, publication }))
}

/// The newest version that was published to a channel.
fn version_of(conn: &Connection, channel: i64) -> Result<Option<Version>, StoreError> {
    let (number, epoch) = conn
        .prepare_cached("SELECT version, version_epoch FROM channels WHERE id = ?1")?
        .query_row([channel], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<String>>(1)?)))?;
    Ok(number.map(|number| Version { number: number.cast_unsigned(), epoch: epoch.unwrap_or_default() }))
}

/// Appends an event to a story's log.
pub(super) fn append_event(work: &Work<'_>, channel: &Channel, event: &StoryEvent) -> Result<LogEntry, StoreError> {
    let publication = Publication { data: Some(Payload::of(event)), time_ms: work.now_ms, ..Publication::default() };
    let row = channel_row_made(work.conn, channel)?;
    let entry = insert(work, &row, publication, None)?;
    Ok(LogEntry { channel: channel.clone(), epoch: row.epoch, entry })
}

/// The newest position of a channel that has a row.
pub(super) fn top_of(conn: &Connection, channel: &Channel) -> Result<Option<Position>, StoreError> {
    Ok(channel_row(conn, channel)?.map(|row| Position { offset: row.top, epoch: row.epoch }))
}

fn channel_row(conn: &Connection, channel: &Channel) -> Result<Option<ChannelRow>, StoreError> {
    let row = conn
        .prepare_cached("SELECT id, epoch, top FROM channels WHERE name = ?1")?
        .query_row([channel.as_str()], |row| {
            Ok(ChannelRow { id: row.get(0)?, epoch: Epoch::new(row.get_ref(1)?.as_str()?), top: count(row, 2)? })
        })
        .optional()?;
    Ok(row)
}

fn channel_row_made(conn: &Connection, channel: &Channel) -> Result<ChannelRow, StoreError> {
    if let Some(row) = channel_row(conn, channel)? {
        return Ok(row);
    }
    let epoch = fresh_epoch()?;
    conn.prepare_cached("INSERT INTO channels (name, epoch, top) VALUES (?1, ?2, 0)")?
        .execute([channel.as_str(), &epoch])?;
    Ok(ChannelRow { id: conn.last_insert_rowid(), epoch: Epoch::new(&epoch), top: 0 })
}

fn entry_of_key(conn: &Connection, channel: i64, key: &Key) -> Result<Option<Entry>, StoreError> {
    let found = conn
        .prepare_cached(
            "SELECT offset, time_ms, data, info, tags FROM log WHERE channel = ?1 AND key_user = ?2 AND key = ?3 AND key IS NOT NULL",
        )?
        .query_row(params![channel, key.user.as_str(), key.key], |row| Ok(entry(row)))
        .optional()?;
    Ok(found.transpose()?.map(|(entry, _)| entry))
}

fn page(
    conn: &Connection,
    channel: &ChannelRow,
    since: Since,
    entries_max: usize,
    bytes_max: usize,
    direction: Direction,
) -> Result<Page, StoreError> {
    let top = Position { offset: channel.top, epoch: channel.epoch.clone() };
    let Bounds { from, to, direction } = Bounds::new(since, direction);
    let mut statement = conn.prepare_cached(match direction {
        Direction::Forward => {
            "SELECT offset, time_ms, data, info, tags FROM log WHERE channel = ?1 AND offset > ?2 AND offset < ?3 ORDER BY offset LIMIT ?4"
        }
        Direction::Backward => {
            "SELECT offset, time_ms, data, info, tags FROM log WHERE channel = ?1 AND offset > ?2 AND offset < ?3 ORDER BY offset DESC LIMIT ?4"
        }
    })?;
    // One more than asked for tells whether there is more.
    let rows_max = i64::try_from(entries_max).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = statement.query(params![channel.id, from, to, rows_max])?;
    let mut entries = Vec::new();
    let mut bytes_left = bytes_max;
    while let Some(row) = rows.next()? {
        let (entry, bytes) = entry(row)?;
        if entries.len() >= entries_max || (bytes > bytes_left && !entries.is_empty()) {
            return Ok(Page { entries, top, complete: false });
        }
        bytes_left = bytes_left.saturating_sub(bytes);
        entries.push(Arc::new(entry));
    }
    Ok(Page { entries, top, complete: true })
}

/// An entry and its size in bytes, from `offset, time_ms, data, info, tags`.
fn entry(row: &Row<'_>) -> Result<(Entry, usize), StoreError> {
    let data = row.get_ref(2)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    let info = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let tags = row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let bytes = data.map_or(0, <[u8]>::len) + info.map_or(0, str::len) + tags.map_or(0, str::len);
    let info: Option<ClientInfo> = info.map(from_json).transpose()?;
    let tags: BTreeMap<String, String> = tags.map(from_json).transpose()?.unwrap_or_default();
    let data = data.map(|data| Payload::trusted(Bytes::copy_from_slice(data)));
    let publication = Publication { data, info, tags, time_ms: row.get(1)?, trace: None };
    Ok((Entry { offset: count(row, 0)?, publication }, bytes))
}
