//! Everything that a store keeps, copied as a whole: between databases (a move), into a file (a backup) and back.
//!
//! A source gives its rows table by table, all of one moment; a target takes them, and is there at the end as a whole or not
//! at all, so that a copy that was broken off is simply begun again. What was written is counted at the end. The command
//! line calls [`move_all`], [`backup`] and [`restore`].

mod file;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

pub(crate) use self::table::{Column, Row, TABLES, Table, Type, Value};

use crate::postgres::copy as postgres;
use crate::sqlite::copy as sqlite;
use crate::{StoreError, StoreSettings};

/// How far a copy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// What is copied now.
    pub table: &'static str,
    /// Rows of it that are copied.
    pub rows: u64,
    /// Rows that it has.
    pub of: u64,
}

/// What a copy has brought over: tables and their rows, counted in the target.
pub type Copied = Vec<(&'static str, u64)>;

/// What channels are called after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    /// By new epochs: whoever saw entries that are not in the backup is told that history was lost, and loads again.
    Fresh,
    /// By their own: right only if nothing was appended after the backup was made.
    Kept,
}

/// Copies everything from one store into another, empty one. Offsets, epochs, keys and secrets stay what they are, so that
/// readers recover and stay logged in. Neither may be in use; the source says afterwards where its data has gone, and while it goes: a move
/// that was broken off at its very end is brought to it by the same move once more.
///
/// # Errors
/// [`StoreError::Locked`] or [`StoreError::Unavailable`] when one is in use, not there or not empty.
pub async fn move_all(
    from: &StoreSettings,
    to: &StoreSettings,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Copied, StoreError> {
    let place = to.place();
    if is_same(from, to) {
        return Err(StoreError::Refused(format!("the data is in {place} already: name another place")));
    }
    let (mut source, was_leaving) = Source::alone(from, &place).await?;
    if was_leaving && let Some(copied) = arrived(&mut source, to).await? {
        source.leave(&place, Gone::Wholly).await?;
        return Ok(copied);
    }
    let mut target = Target::database(to).await?;
    let copied = copy(&mut source, &mut target, Epochs::Kept, progress).await?;
    // Nobody may go on here from the moment on at which somebody may go on there.
    source.leave(&place, Gone::Perhaps).await?;
    target.finish().await?;
    source.leave(&place, Gone::Wholly).await?;
    Ok(copied)
}

/// Whether two stores are one.
fn is_same(one: &StoreSettings, other: &StoreSettings) -> bool {
    let folder = |settings: &StoreSettings| std::fs::canonicalize(&settings.path).ok();
    match (one.url.is_empty(), other.url.is_empty()) {
        (true, true) => one.path == other.path || folder(one).is_some_and(|path| Some(path) == folder(other)),
        (false, false) => one.url == other.url,
        _ => false,
    }
}

/// What the source of a move says of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is about to be in its new place, or is there.
    Perhaps,
    /// It is there.
    Wholly,
}

/// What the target of a move that was broken off has, if it has the source's data: a target is filled at once or not at all, and no
/// other data has the same secrets.
async fn arrived(source: &mut Source, to: &StoreSettings) -> Result<Option<Copied>, StoreError> {
    let Ok(mut there) = Source::beside(to).await else { return Ok(None) };
    let secrets = table::secrets();
    let (ours, theirs) = (source.all_of(secrets).await?, there.all_of(secrets).await?);
    if ours.is_empty() || !ours.iter().all(|secret| theirs.contains(secret)) {
        return Ok(None);
    }
    let mut copied = Vec::new();
    for table in there.tables() {
        copied.push((table.name, there.count(table).await?));
    }
    Ok(Some(copied))
}

/// Writes everything of one moment into a new file. The store may be in use meanwhile.
///
/// # Errors
/// [`StoreError::Unavailable`] when the store or the file cannot be read or written, or the file is there already.
pub async fn backup(
    from: &StoreSettings,
    file: &Path,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Copied, StoreError> {
    let mut source = Source::beside(from).await?;
    let mut rows = BTreeMap::new();
    for table in source.tables() {
        rows.insert(table.name.to_owned(), source.count(table).await?);
    }
    let mut target = Target::File(file::Writer::create(file, source.schema(), rows)?);
    let copied = copy(&mut source, &mut target, Epochs::Kept, progress).await?;
    target.finish().await?;
    Ok(copied)
}

/// Reads a backup into an empty store that nobody uses.
///
/// # Errors
/// [`StoreError::Unavailable`] when the store is in use or not empty, or the file is damaged; [`StoreError::NewerSchema`]
/// when a newer version of the program wrote it.
pub async fn restore(
    file: &Path,
    to: &StoreSettings,
    epochs: Epochs,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Copied, StoreError> {
    let mut source = Source::File(Box::new(file::Reader::open(file)?));
    let mut target = Target::database(to).await?;
    let copied = copy(&mut source, &mut target, epochs, progress).await;
    let copied = copied.and_then(|copied| source.ended().map(|()| copied)).map_err(|error| match error {
        // No store of ours has written what a store of ours cannot hold.
        StoreError::Broken(reason) => {
            StoreError::Refused(format!("{} is damaged ({reason}): nothing was restored", file.display()))
        }
        other => other,
    })?;
    target.finish().await?;
    Ok(copied)
}

/// Where rows come from.
enum Source {
    Sqlite(sqlite::Source),
    Postgres(Box<postgres::Source>),
    File(Box<file::Reader>),
}

impl Source {
    /// For a move to `place`: nobody uses the store. Says whether it was about to leave for there before.
    async fn alone(settings: &StoreSettings, place: &str) -> Result<(Self, bool), StoreError> {
        Ok(if settings.url.is_empty() {
            let (source, was_leaving) = sqlite::Source::alone(&settings.path, place)?;
            (Self::Sqlite(source), was_leaving)
        } else {
            let (source, was_leaving) = postgres::Source::alone(settings, place).await?;
            (Self::Postgres(Box::new(source)), was_leaving)
        })
    }

    /// Only to read: servers may go on beside it.
    async fn beside(settings: &StoreSettings) -> Result<Self, StoreError> {
        Ok(if settings.url.is_empty() {
            Self::Sqlite(sqlite::Source::beside(&settings.path)?)
        } else {
            Self::Postgres(Box::new(postgres::Source::beside(settings).await?))
        })
    }

    /// The step of the schema that the rows belong to.
    fn schema(&self) -> u32 {
        match self {
            Self::Sqlite(source) => source.schema(),
            Self::Postgres(source) => source.schema(),
            Self::File(source) => source.schema(),
        }
    }

    /// The tables that its schema has: what is only read is not brought up to the newest step.
    fn tables(&self) -> impl Iterator<Item = &'static Table> + use<> {
        let schema = self.schema();
        TABLES.iter().filter(move |table| table.since <= schema)
    }

    async fn count(&mut self, table: &'static Table) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(source) => source.count(table),
            Self::Postgres(source) => source.count(table).await,
            Self::File(source) => Ok(source.count(table)),
        }
    }

    /// Goes to a table, and says which of its columns are there.
    async fn begin(&mut self, table: &'static Table) -> Result<Vec<&'static Column>, StoreError> {
        match self {
            Self::Sqlite(source) => source.begin(table),
            Self::Postgres(source) => source.begin(table).await,
            Self::File(source) => source.begin(table),
        }
    }

    /// Some more rows of that table; none at its end.
    async fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(source) => source.rows(),
            Self::Postgres(source) => source.rows().await,
            Self::File(source) => source.rows(),
        }
    }

    /// All rows of a small table.
    async fn all_of(&mut self, table: &'static Table) -> Result<Vec<Row>, StoreError> {
        self.begin(table).await?;
        let mut all = Vec::new();
        loop {
            let rows = self.rows().await?;
            if rows.is_empty() {
                return Ok(all);
            }
            all.extend(rows);
        }
    }

    /// Writes down that the data is elsewhere now, or may be, so that nobody goes on here by mistake.
    async fn leave(&self, to: &str, gone: Gone) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(source) => source.leave(to, gone),
            Self::Postgres(source) => source.leave(to, gone).await,
            Self::File(_) => Ok(()),
        }
    }

    /// Whether nothing is left after the last table. A database has no end of its own.
    fn ended(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) => Ok(()),
            Self::File(source) => source.ended(),
        }
    }
}

/// Where rows go.
enum Target {
    Sqlite(sqlite::Target),
    Postgres(Box<postgres::Target>),
    File(file::Writer),
}

impl Target {
    async fn database(settings: &StoreSettings) -> Result<Self, StoreError> {
        Ok(if settings.url.is_empty() {
            Self::Sqlite(sqlite::Target::create(&settings.path)?)
        } else {
            Self::Postgres(Box::new(postgres::Target::create(settings).await?))
        })
    }

    async fn begin(&mut self, table: &'static Table, columns: &[&'static Column]) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(target) => target.begin(table, columns),
            Self::Postgres(target) => target.begin(table, columns).await,
            Self::File(target) => target.begin(table, columns),
        }
    }

    async fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(target) => target.put(rows),
            Self::Postgres(target) => target.put(rows).await,
            Self::File(target) => target.put(rows),
        }
    }

    /// How many rows a table has in the target, by the target itself.
    async fn count(&mut self, table: &'static Table) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(target) => target.count(table),
            Self::Postgres(target) => target.count(table).await,
            Self::File(target) => Ok(target.count(table)),
        }
    }

    /// Makes all of it last, at once.
    async fn finish(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(target) => target.finish(),
            Self::Postgres(target) => target.finish().await,
            Self::File(target) => target.finish(),
        }
    }
}

async fn copy(
    source: &mut Source,
    target: &mut Target,
    epochs: Epochs,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Copied, StoreError> {
    let mut copied = Vec::new();
    for table in source.tables() {
        let of = source.count(table).await?;
        let columns = source.begin(table).await?;
        target.begin(table, &columns).await?;
        let renamed = columns.iter().position(|column| epochs == Epochs::Fresh && column.is_epoch);
        let mut done = 0;
        loop {
            let mut rows = source.rows().await?;
            if rows.is_empty() {
                break;
            }
            if let Some(place) = renamed {
                rows.iter_mut().try_for_each(|row| rename(row, place))?;
            }
            target.put(&rows).await?;
            done += rows.len() as u64;
            progress(CopyProgress { table: table.name, rows: done, of });
        }
        let there = target.count(table).await?;
        if done != of || there != of {
            return Err(StoreError::Broken(format!(
                "{} has {of} rows, {done} were read and {there} are in the copy: nothing was kept",
                table.name
            )));
        }
        copied.push((table.name, there));
    }
    Ok(copied)
}

fn rename(row: &mut Row, place: usize) -> Result<(), StoreError> {
    if let Some(epoch) = row.get_mut(place) {
        *epoch = Value::Text(crate::log::fresh_epoch()?);
    }
    Ok(())
}

/// The sentence of a target that holds something.
pub(crate) fn not_empty(what: &str) -> StoreError {
    StoreError::Refused(format!("{what} holds data already, and nothing is ever written over it: name an empty one"))
}

/// The sentence of a store in which there is nothing but a copy that did not come to its end: who began empty there could not repeat it.
pub(crate) fn incomplete(what: &str, undo: &str) -> StoreError {
    StoreError::Refused(format!(
        "a move or a restore into {what} did not come to its end: begin it again, or, to start without any data, {undo}"
    ))
}

/// The sentence of a store whose data may be elsewhere now.
pub(crate) fn moving(to: &str, undo: &str) -> StoreError {
    StoreError::Refused(format!(
        "a move of the data to {to} was broken off at its end: begin the same move again, and it is finished. Only if no server was started there, this copy may be used again: {undo}"
    ))
}

/// The sentence of a store whose data is elsewhere now.
pub(crate) fn moved(to: &str, undo: &str) -> StoreError {
    StoreError::Refused(format!(
        "the data was moved to {to}: use it there (store.url, store.path). Only if nothing was written there, this old copy may be used again: {undo}"
    ))
}
