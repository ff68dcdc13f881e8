//! The durable log in PostgreSQL: reading it, and appending what stories say. What is published goes through `appends`.
//!
//! Whoever appends to a channel holds the channel's row to the end of the transaction, so offset order is commit order, and
//! whoever sees an entry can read every one before it. Across channels there is no order: transactions become visible in
//! another order than they began. So growth is found by the transactions themselves: a mark says up to which transaction
//! everything was told, and which older ones were still open then.

use std::sync::Arc;

use bytes::Bytes;
use talewire_proto::{Channel, Entry, Epoch, Payload, Position, Publication, Since};
use tokio_postgres::Row;

use super::Postgres;
use super::connection::{Connection, Work};
use super::failure::Tried;
use super::rows::{count, parsed};
use crate::StoreError;
use crate::event::StoryEvent;
use crate::log::{Bounds, Direction, LogEntry, LogMark, Page, fresh_epoch, from_json};

/// Entries that one look for grown channels passes, but for the last transaction, which is always whole.
const GROWN_ENTRIES_MAX: i64 = 10_000;

/// The rows of a page: all that a limit of bytes lets through, with the number of rows that there would be without it.
const PAGE: &str = r#"
  SELECT c.epoch, c.top, l."offset", l.time_ms, l.data, l.info, l.tags, l.found
  FROM channels c LEFT JOIN LATERAL (
    SELECT * FROM (
      SELECT e.*, COUNT(*) OVER () AS found, ROW_NUMBER() OVER places AS place, SUM(e.bytes) OVER places - e.bytes AS before
      FROM (
        SELECT "offset", time_ms, data, info, tags,
               COALESCE(octet_length(data), 0) + COALESCE(octet_length(info), 0) + COALESCE(octet_length(tags), 0) AS bytes
        FROM log WHERE channel = c.id AND "offset" > $2 AND "offset" < $3 ORDER BY "offset" ASC LIMIT $4
      ) e
      WINDOW places AS (ORDER BY "offset" ASC ROWS UNBOUNDED PRECEDING)
    ) cut WHERE place = 1 OR before <= $5
  ) l ON TRUE
  WHERE c.name = $1 ORDER BY l.place"#;

const GROWN: &str = r#"
  WITH cut AS (SELECT tx FROM log WHERE tx > $1 ORDER BY tx OFFSET $3 LIMIT 1),
  part AS (
    SELECT channel, MAX("offset") AS top, MAX(tx) AS tx FROM log
    WHERE tx > $1 AND tx <= COALESCE((SELECT tx FROM cut), 9223372036854775807) GROUP BY channel
    UNION ALL
    SELECT channel, MAX("offset"), MAX(tx) FROM log WHERE tx = ANY($2) GROUP BY channel
  )
  SELECT now.snapshot, grown.name, grown.top, grown.tx
  FROM (SELECT pg_current_snapshot()::text AS snapshot) now
  LEFT JOIN (
    SELECT c.name, MAX(part.top) AS top, MAX(part.tx) AS tx FROM part JOIN channels c ON c.id = part.channel GROUP BY c.name
  ) grown ON TRUE"#;

impl Postgres {
    pub(crate) async fn history(
        &self,
        channel: Channel,
        since: Since,
        entries_max: usize,
        bytes_max: usize,
        direction: Direction,
    ) -> Result<Page, StoreError> {
        let bounds = Bounds::new(since, direction);
        loop {
            let wanted = (channel.clone(), bounds, entries_max, bytes_max);
            let page = self
                .look(wanted, |work, (channel, bounds, entries_max, bytes_max)| {
                    Box::pin(page(work, channel, bounds, *entries_max, *bytes_max))
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
        match self.look(wanted, |work, channel| Box::pin(top_of(work.conn, channel))).await? {
            Some(top) => Ok(top),
            None => self.begin_channel(channel).await,
        }
    }

    /// Gives a channel that nobody has asked about its row, so that its epoch is the same at the next ask.
    async fn begin_channel(&self, channel: Channel) -> Result<Position, StoreError> {
        self.change(channel, |work, channel| {
            Box::pin(async move {
                let sql = "INSERT INTO channels (name, epoch, top) VALUES ($1, $2, 0) ON CONFLICT (name) DO NOTHING";
                work.conn.execute(sql, &[&channel.as_str(), &fresh_epoch()?]).await?;
                let top = top_of(work.conn, channel).await?;
                Ok(top.ok_or_else(|| StoreError::Broken(format!("{channel} was begun and is not there")))?)
            })
        })
        .await
    }

    pub(crate) async fn log_mark(&self) -> Result<LogMark, StoreError> {
        self.look((), |work, ()| {
            Box::pin(async move {
                let sql = "SELECT pg_current_snapshot()::text, COALESCE((SELECT MAX(tx) FROM log), 0)";
                let row = work.conn.row(sql, &[]).await?;
                Ok(mark(row.try_get(0)?, row.try_get(1)?)?)
            })
        })
        .await
    }

    pub(crate) async fn grown(&self, after: LogMark) -> Result<(LogMark, Vec<(Channel, u64)>), StoreError> {
        self.look(after, |work, after| {
            Box::pin(async move {
                let open: &[i64] = &after.open;
                let rows = work.conn.all(GROWN, &[&after.last, &open, &(GROWN_ENTRIES_MAX - 1)]).await?;
                let mut last = after.last;
                let mut grown = Vec::new();
                for row in &rows {
                    if let Some(tx) = row.try_get::<_, Option<i64>>(3)? {
                        last = last.max(tx);
                        grown.push((parsed(row, 1)?, count(row, 2)?));
                    }
                }
                let snapshot = rows.first().map(|row| row.try_get::<_, &str>(0)).transpose()?;
                let snapshot =
                    snapshot.ok_or_else(|| StoreError::Broken("a look at growth without an answer".into()))?;
                Ok((mark(snapshot, last)?, grown))
            })
        })
        .await
    }
}

/// The mark for somebody who has been told of everything up to the transaction `last` that this snapshot sees.
///
/// It names only transactions whose entries were seen. That matters after a crash: numbers of transactions that left
/// nothing on disk are given again, but all of those are above the last one that has been seen.
fn mark(snapshot: &str, last: i64) -> Result<LogMark, StoreError> {
    let broken = || StoreError::Broken(format!("{snapshot:?} is no snapshot"));
    let open = snapshot.split(':').nth(2).ok_or_else(broken)?;
    let open = open.split(',').filter(|number| !number.is_empty()).map(|number| number.parse().map_err(|_| broken()));
    let mut open = open.collect::<Result<Vec<i64>, _>>()?;
    open.retain(|tx| *tx <= last);
    Ok(LogMark { last, open: open.into() })
}

async fn page(
    work: &Work<'_>,
    channel: &Channel,
    bounds: &Bounds,
    entries_max: usize,
    bytes_max: usize,
) -> Tried<Option<Page>> {
    let backward;
    let sql = match bounds.direction {
        Direction::Forward => PAGE,
        Direction::Backward => {
            backward = PAGE.replace("ASC", "DESC");
            &backward
        }
    };
    let number = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    // One more than asked for tells whether there is more.
    let rows_max = number(entries_max).saturating_add(1);
    let params: super::connection::Params<'_> =
        &[&channel.as_str(), &bounds.from, &bounds.to, &rows_max, &number(bytes_max)];
    let rows = work.conn.all(sql, params).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let top = position(first, 0)?;
    let found = first.try_get::<_, Option<i64>>(7)?.unwrap_or(0);
    let mut entries = Vec::new();
    let mut bytes_left = bytes_max;
    for row in rows.iter().filter(|_| found > 0) {
        let (entry, bytes) = entry(row, 2)?;
        if entries.len() >= entries_max || (bytes > bytes_left && !entries.is_empty()) {
            break;
        }
        bytes_left = bytes_left.saturating_sub(bytes);
        entries.push(Arc::new(entry));
    }
    let complete = entries.len() as i64 == found;
    Ok(Some(Page { entries, top, complete }))
}

/// `epoch, top` from a column on.
fn position(row: &Row, column: usize) -> Tried<Position> {
    Ok(Position { epoch: Epoch::new(row.try_get(column)?), offset: count(row, column + 1)? })
}

/// An entry and its size in bytes, from `offset, time_ms, data, info, tags`, from a column on.
pub(super) fn entry(row: &Row, column: usize) -> Tried<(Entry, usize)> {
    let data: Option<&[u8]> = row.try_get(column + 2)?;
    let info: Option<&str> = row.try_get(column + 3)?;
    let tags: Option<&str> = row.try_get(column + 4)?;
    let bytes = data.map_or(0, <[u8]>::len) + info.map_or(0, str::len) + tags.map_or(0, str::len);
    let publication = Publication {
        data: data.map(|data| Payload::trusted(Bytes::copy_from_slice(data))),
        info: info.map(from_json).transpose()?,
        tags: tags.map(from_json).transpose()?.unwrap_or_default(),
        time_ms: row.try_get(column + 1)?,
        trace: None,
    };
    Ok((Entry { offset: count(row, column)?, publication }, bytes))
}

/// The newest position of a channel that has a row.
pub(super) async fn top_of(conn: &Connection, channel: &Channel) -> Tried<Option<Position>> {
    let row = conn.one("SELECT epoch, top FROM channels WHERE name = $1", &[&channel.as_str()]).await?;
    row.map(|row| position(&row, 0)).transpose()
}

/// Appends events to a story's log.
pub(super) async fn append_events(work: &Work<'_>, channel: &Channel, events: &[&StoryEvent]) -> Tried<Vec<LogEntry>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let added = events.len() as i64;
    let sql = "UPDATE channels SET top = top + $2 WHERE name = $1 RETURNING id, epoch, top";
    let row = match work.conn.one(sql, &[&channel.as_str(), &added]).await? {
        Some(row) => row,
        None => {
            let sql = "INSERT INTO channels (name, epoch, top) VALUES ($1, $2, $3)
                ON CONFLICT (name) DO UPDATE SET top = channels.top + $3 RETURNING id, epoch, top";
            work.conn.row(sql, &[&channel.as_str(), &fresh_epoch()?, &added]).await?
        }
    };
    let id: i64 = row.try_get(0)?;
    let top = position(&row, 1)?;
    let first = top.offset + 1 - events.len() as u64;
    let payloads: Vec<Payload> = events.iter().map(Payload::of).collect();
    let data: Vec<&[u8]> = payloads.iter().map(Payload::as_bytes).collect();
    let sql = "INSERT INTO log (channel, \"offset\", time_ms, data)
        SELECT $1, $2 + place - 1, $3, data FROM unnest($4::bytea[]) WITH ORDINALITY AS entries (data, place)";
    work.conn.execute(sql, &[&id, &(first as i64), &work.now_ms(), &data]).await?;
    let entry = |(offset, data)| LogEntry {
        channel: channel.clone(),
        epoch: top.epoch.clone(),
        entry: Arc::new(Entry {
            offset,
            publication: Publication { data: Some(data), time_ms: work.now_ms(), ..Publication::default() },
        }),
    };
    Ok((first..).zip(payloads).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_what_was_open_below_it() {
        let mark = |snapshot, last| mark(snapshot, last).map(|mark| (mark.last, mark.open.to_vec()));
        assert_eq!(mark("10:10:", 9), Ok((9, vec![])));
        assert_eq!(mark("10:20:10,14,15", 14), Ok((14, vec![10, 14])));
        assert_eq!(mark("10:20:10,14,15", 0), Ok((0, vec![])));
        assert!(mark("10:20", 1).is_err());
        assert!(mark("10:20:x", 1).is_err());
    }
}
