//! Publications to durable channels, gathered: what waits while a commit is under way shares the next one.
//!
//! Channels are spread over a few lanes; each lane has one commit under way at a time. A group is one transaction in few
//! round trips: lock the channels' rows (in the order of their ids, so that nodes never wait for each other in a circle),
//! look for the keys, decide here what is new and where it stands, write all of it and commit. Failures stay separate: a
//! group that conflicts is tried again; one that the database refuses is taken apart, and each publication tried alone.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use talewire_proto::{Channel, Entry, Epoch, Payload, Position, Publication, Version};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;

use super::connection::{CLOCK, Connection, Params, Work};
use super::failure::{Failure, Tried};
use super::log::entry;
use super::rows::count;
use super::{CONFLICTS_MAX, LOST_MAX, Place, Postgres, Shared, storable};
use crate::log::{Append, Appended, Key, fresh_epoch, json};
use crate::{StoreError, StoreSettings};

/// Bytes of one group; what comes beyond them goes into the next.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

const LOCK: &str = "SELECT id, name, epoch, top, version, version_epoch FROM channels WHERE name = ANY($1)
    ORDER BY id FOR NO KEY UPDATE";
const BEGIN_CHANNELS: &str = "INSERT INTO channels (name, epoch, top)
    SELECT name, epoch, 0 FROM unnest($1::text[], $2::text[]) AS missing (name, epoch) ORDER BY name ON CONFLICT (name) DO NOTHING";
const ENTRIES_OF_KEYS: &str = r#"SELECT wanted.place, l."offset", l.time_ms, l.data, l.info, l.tags
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS wanted (place, channel, key_user, key)
    CROSS JOIN LATERAL (SELECT * FROM log WHERE log.channel = wanted.channel AND log.key_user = wanted.key_user
      AND log.key = wanted.key AND log.key IS NOT NULL LIMIT 1) l"#;
const RAISE: &str =
    "UPDATE channels SET top = raised.top, version = raised.version, version_epoch = raised.version_epoch
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS raised (id, top, version, version_epoch)
    WHERE channels.id = raised.id";
const INSERT: &str = r#"INSERT INTO log (channel, "offset", time_ms, data, info, tags, key_user, key)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[])"#;

/// A publication and who waits for its answer.
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
    _place: Place,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.append.publication.data.as_ref().map_or(0, |data| data.as_bytes().len())
    }
}

/// The ways to the database. They end, when everything is written, with this value.
pub(super) struct Lanes(Vec<mpsc::Sender<Waiting>>);

impl Lanes {
    pub(super) fn start(shared: &Arc<Shared>, settings: &StoreSettings) -> Self {
        // The rest of the connections is for everything else.
        let lanes = (settings.connections_max / 3).clamp(1, 4);
        let start = |_| {
            let (sender, receiver) = mpsc::channel(settings.write_queue_operations_max.max(1));
            tokio::spawn(lane(shared.clone(), receiver));
            sender
        };
        Self((0..lanes).map(start).collect())
    }

    fn of(&self, channel: &Channel) -> &mpsc::Sender<Waiting> {
        let mut hasher = DefaultHasher::new();
        channel.hash(&mut hasher);
        &self.0[(hasher.finish() % self.0.len() as u64) as usize]
    }
}

impl Postgres {
    pub(crate) async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        let place = self.place(true)?;
        let (reply, answer) = oneshot::channel();
        let lane = self.lanes.of(&append.channel);
        let not_answered = || StoreError::Unavailable("the operation was not answered".into());
        // Places are as many as a lane holds: it is never full.
        lane.try_send(Waiting { append, reply, _place: place }).map_err(|_| not_answered())?;
        // One group may be under way before this one, and it may be waiting for its time to pass.
        match tokio::time::timeout(self.shared.patience(), answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(not_answered())),
            Err(_) => Err(self.shared.too_late()),
        }
    }
}

async fn lane(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut left_over = None;
    loop {
        let Some(first) = (match left_over.take() {
            Some(first) => Some(first),
            None => waiting.recv().await,
        }) else {
            return;
        };
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < shared.group_operations_max
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.bytes();
            if bytes > GROUP_BYTES_MAX {
                left_over = Some(next);
                break;
            }
            group.push(next);
        }
        // In a task of its own: a panic must not end the lane.
        let shared = shared.clone();
        if let Err(lost) = tokio::spawn(async move { answer(&shared, group).await }).await {
            tracing::error!(%lost, "a group of publications was lost; whoever waited is told so");
        }
    }
}

async fn answer(shared: &Shared, group: Vec<Waiting>) {
    let appends: Vec<&Append> = group.iter().map(|waiting| &waiting.append).collect();
    let answers = match shared.group(&appends).await {
        Ok(appended) => appended.into_iter().map(Ok).collect(),
        // The database did not take the whole: perhaps because of one of them.
        Err(StoreError::Broken(_)) if appends.len() > 1 => {
            let mut answers = Vec::with_capacity(appends.len());
            for append in appends {
                let alone = shared.group(&[append]).await;
                answers.push(alone.and_then(|mut one| one.pop().ok_or_else(nothing)));
            }
            answers
        }
        Err(error) => vec![Err(error); group.len()],
    };
    for (waiting, answer) in group.into_iter().zip(answers) {
        // Whoever has gone away finds the outcome by its key, or does not care.
        let _ = waiting.reply.send(answer);
    }
}

fn nothing() -> StoreError {
    StoreError::Broken("a group without an answer".into())
}

impl Shared {
    /// Appends a group in one transaction, and tries again after conflicts.
    async fn group(&self, appends: &[&Append]) -> Result<Vec<Appended>, StoreError> {
        let (mut conflicts, mut lost) = (0, 0);
        let mut deadline = None;
        loop {
            let lease = self.pool.take().await?;
            let now = tokio::time::Instant::now();
            let deadline = *deadline.get_or_insert(now + self.operation_time);
            let work = Work::new(lease.conn(), self.clock_shift_ms.load(std::sync::atomic::Ordering::Relaxed));
            let tried = tokio::time::timeout_at(deadline, self.append_all(&work, appends)).await;
            self.count(appends.len(), matches!(tried, Ok(Ok(_))));
            let failure = match tried {
                Ok(Ok(appended)) => {
                    self.pool.give_back(lease);
                    return Ok(appended);
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(self.too_late()),
            };
            self.after(&failure, super::Kind::Change, lease).await;
            let again = if failure.is_conflict() {
                conflicts += 1;
                conflicts < CONFLICTS_MAX
            } else {
                lost += 1;
                failure.is_lost_connection() && lost <= LOST_MAX
            };
            if !again || tokio::time::Instant::now() >= deadline {
                return Err(failure.into_error());
            }
        }
    }

    fn count(&self, operations: usize, done: bool) {
        use std::sync::atomic::Ordering::Relaxed;
        self.counters.operations.fetch_add(operations as u64, Relaxed);
        self.counters.groups.fetch_add(1, Relaxed);
        self.counters.groups_failed.fetch_add(u64::from(!done), Relaxed);
    }

    async fn append_all(&self, work: &Work<'_>, appends: &[&Append]) -> Tried<Vec<Appended>> {
        let conn = work.conn;
        let mut group = Group::new(lock(work, appends).await?);
        let known = entries_of_keys(conn, &group.channels, appends).await?;
        let mut appended = Vec::with_capacity(appends.len());
        for (place, append) in appends.iter().enumerate() {
            appended.push(group.add(append, known.get(&(place as i64)), work.now_ms())?);
        }
        if group.new.is_empty() {
            conn.plain("ROLLBACK").await?;
        } else {
            let before = Instant::now();
            group.write(conn).await?;
            self.committed(before);
        }
        Ok(appended)
    }
}

/// A channel whose row is locked.
struct Locked {
    id: i64,
    epoch: Epoch,
    top: u64,
    version: Option<Version>,
    is_raised: bool,
}

/// Locks the rows of all channels of a group, and makes those that are not there.
async fn lock(work: &Work<'_>, appends: &[&Append]) -> Tried<HashMap<Channel, Locked>> {
    let conn = work.conn;
    let mut names: Vec<&str> = appends.iter().map(|append| append.channel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    conn.ready(&[CLOCK, LOCK]).await?;
    loop {
        // One round trip; nothing is written before the answer to BEGIN is there.
        let wanted: Params<'_> = &[&names];
        let (begun, rows, clock) =
            tokio::join!(biased; conn.plain("BEGIN"), conn.all(LOCK, wanted), conn.row(CLOCK, &[]));
        begun?;
        let locked: HashMap<Channel, Locked> = rows?.iter().map(locked).collect::<Tried<_>>()?;
        work.set_clock(&clock?)?;
        if locked.len() == names.len() {
            return Ok(locked);
        }
        // Not while rows are locked: somebody who makes the same channel may wait for one of them.
        conn.plain("ROLLBACK").await?;
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| !locked.keys().any(|one| one.as_str() == *name)).collect();
        let epochs = missing.iter().map(|_| fresh_epoch()).collect::<Result<Vec<_>, _>>()?;
        conn.execute(BEGIN_CHANNELS, &[&missing, &epochs]).await?;
    }
}

fn locked(row: &Row) -> Tried<(Channel, Locked)> {
    let version = match row.try_get::<_, Option<i64>>(4)? {
        Some(number) => Some(Version {
            number: number.cast_unsigned(),
            epoch: row.try_get::<_, Option<String>>(5)?.unwrap_or_default(),
        }),
        None => None,
    };
    let locked = Locked {
        id: row.try_get(0)?,
        epoch: Epoch::new(row.try_get(2)?),
        top: count(row, 3)?,
        version,
        is_raised: false,
    };
    Ok((super::rows::parsed(row, 1)?, locked))
}

/// The entries that are there already for keys of the group, by place in it. Asked while the channels are locked: nobody
/// can add one.
async fn entries_of_keys(
    conn: &Connection,
    channels: &HashMap<Channel, Locked>,
    appends: &[&Append],
) -> Tried<HashMap<i64, Entry>> {
    let (mut places, mut ids, mut users, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (place, append) in appends.iter().enumerate() {
        if let (Some(key), Some(channel)) = (&append.key, channels.get(&append.channel)) {
            places.push(place as i64);
            ids.push(channel.id);
            users.push(key.user.as_str());
            keys.push(storable(&key.key));
        }
    }
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = conn.all(ENTRIES_OF_KEYS, &[&places, &ids, &users, &keys]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, entry(row, 1)?.0))).collect()
}

/// What a group comes to, before it is written.
struct Group<'g> {
    channels: HashMap<Channel, Locked>,
    /// Entries that the group itself adds, by channel and key.
    by_key: HashMap<(i64, &'g Key), Arc<Entry>>,
    new: Vec<New<'g>>,
}

struct New<'g> {
    channel: i64,
    entry: Arc<Entry>,
    key: Option<&'g Key>,
}

impl<'g> Group<'g> {
    fn new(channels: HashMap<Channel, Locked>) -> Self {
        Self { channels, by_key: HashMap::new(), new: Vec::new() }
    }

    /// Gives one publication its place, unless its key or its version says that there is nothing to add.
    fn add(&mut self, append: &'g Append, known: Option<&Entry>, now_ms: i64) -> Tried<Appended> {
        let channel = self
            .channels
            .get_mut(&append.channel)
            .ok_or_else(|| Failure::Ours(StoreError::Broken("a channel was not locked".into())))?;
        let own = append.key.as_ref().and_then(|key| self.by_key.get(&(channel.id, key)).cloned());
        if let Some(entry) = own.or_else(|| known.cloned().map(Arc::new)) {
            let position = Position { offset: entry.offset, epoch: channel.epoch.clone() };
            return Ok(Appended { position, entry: Some(entry), repeated: true });
        }
        if let Some(version) = &append.version {
            if !version.supersedes(channel.version.as_ref()) {
                let position = Position { offset: channel.top, epoch: channel.epoch.clone() };
                return Ok(Appended { position, entry: None, repeated: false });
            }
            channel.version = Some(version.clone());
        }
        channel.top += 1;
        channel.is_raised = true;
        let mut publication: Publication = append.publication.clone();
        if publication.time_ms == 0 {
            publication.time_ms = now_ms;
        }
        let entry = Arc::new(Entry { offset: channel.top, publication });
        if let Some(key) = &append.key {
            self.by_key.insert((channel.id, key), entry.clone());
        }
        self.new.push(New { channel: channel.id, entry: entry.clone(), key: append.key.as_ref() });
        let position = Position { offset: channel.top, epoch: channel.epoch.clone() };
        Ok(Appended { position, entry: Some(entry), repeated: false })
    }

    /// Writes and commits, in one round trip.
    async fn write(&self, conn: &Connection) -> Tried<()> {
        let raised: Vec<&Locked> = self.channels.values().filter(|channel| channel.is_raised).collect();
        let ids: Vec<i64> = raised.iter().map(|channel| channel.id).collect();
        let tops: Vec<i64> = raised.iter().map(|channel| channel.top as i64).collect();
        let version = |channel: &&Locked| channel.version.as_ref().map(|version| version.number.cast_signed());
        let versions: Vec<Option<i64>> = raised.iter().map(version).collect();
        let epoch = |channel: &&Locked| channel.version.as_ref().map(|version| storable(&version.epoch).into_owned());
        let version_epochs: Vec<Option<String>> = raised.iter().map(epoch).collect();

        let each = |read: fn(&New<'_>) -> i64| self.new.iter().map(read).collect::<Vec<i64>>();
        let channels = each(|new| new.channel);
        let offsets = each(|new| new.entry.offset as i64);
        let times = each(|new| new.entry.publication.time_ms);
        fn payload<'n>(new: &'n New<'_>) -> Option<&'n [u8]> {
            new.entry.publication.data.as_ref().map(Payload::as_bytes)
        }
        let data: Vec<Option<&[u8]>> = self.new.iter().map(payload).collect();
        let (mut infos, mut tags) = (Vec::new(), Vec::new());
        for New { entry, .. } in &self.new {
            infos.push(entry.publication.info.as_ref().map(json).transpose()?);
            let said = &entry.publication.tags;
            tags.push(if said.is_empty() { None } else { Some(json(said)?) });
        }
        let users: Vec<Option<&str>> = self.new.iter().map(|new| new.key.map(|key| key.user.as_str())).collect();
        let keys: Vec<_> = self.new.iter().map(|new| new.key.map(|key| storable(&key.key))).collect();

        conn.ready(&[RAISE, INSERT]).await?;
        let raise: Params<'_> = &[&ids, &tops, &versions, &version_epochs];
        let insert: Params<'_> = &[&channels, &offsets, &times, &data, &infos, &tags, &users, &keys];
        // A commit after a failed statement is a rollback: it is committed if all three succeed.
        let (raised, inserted, committed) =
            tokio::join!(biased; conn.execute(RAISE, raise), conn.execute(INSERT, insert), conn.commit());
        raised.map_err(unknown_if_lost)?;
        inserted.map_err(unknown_if_lost)?;
        committed
    }
}

/// The commit was sent with the rest: after a lost connection nobody knows.
fn unknown_if_lost(failure: Failure) -> Failure {
    match failure {
        Failure::Database(error) if error.code().is_none() => Failure::Unknown(error),
        other => other,
    }
}
