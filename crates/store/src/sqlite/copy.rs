//! SQLite as the source and the target of a copy.
//!
//! A move takes the folder for itself. A backup does not: it reads one snapshot through a connection that cannot write, beside
//! a server that goes on; until it is done the write-ahead log grows with what is written meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::folder::{self, DATABASE, Folder};
use super::schema;
use crate::StoreError;
use crate::copy::{Column, Gone, Row, Table, Type, Value, incomplete, moved, moving, not_empty};

/// Rows that are read at once, and the bytes after which fewer are.
const ROWS: usize = 500;
const ROWS_BYTES: usize = 4 * 1024 * 1024;

/// The file in a data folder that says where the data has gone.
const MOVED: &str = "moved";
/// The file that says where it may have gone.
const MOVING: &str = "moving";
/// A database that is not whole yet.
const PARTIAL: &str = "talewire.db.partial";

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// Refuses a folder whose data was moved elsewhere, or may have been.
pub(super) fn refuse_moved(folder: &Path) -> Result<(), StoreError> {
    refuse_moved_but(folder, None).map(drop)
}

/// Refuses a folder whose data was moved elsewhere, or may have been moved to another place than this one. Says whether it may have been moved there.
fn refuse_moved_but(folder: &Path, place: Option<&str>) -> Result<bool, StoreError> {
    if let Some((file, to)) = said(folder, MOVED)? {
        return Err(moved(&to, &format!("delete {}", file.display())));
    }
    match said(folder, MOVING)? {
        None => Ok(false),
        Some((_, to)) if place == Some(&to) => Ok(true),
        Some((file, to)) => Err(moving(&to, &format!("delete {}", file.display()))),
    }
}

/// Refuses a folder in which there is only a copy that did not come to its end.
pub(super) fn refuse_partial(folder: &Path) -> Result<(), StoreError> {
    let partial = folder.join(PARTIAL);
    if folder.join(DATABASE).exists() || !partial.exists() {
        return Ok(());
    }
    Err(incomplete(&folder.display().to_string(), &format!("delete {}", partial.display())))
}

/// The place that such a file names.
fn said(folder: &Path, name: &str) -> Result<Option<(PathBuf, String)>, StoreError> {
    let file = folder.join(name);
    match std::fs::read_to_string(&file) {
        Ok(to) => Ok(Some((file, to.trim().to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&file, &error)),
    }
}

/// Makes names of files last.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, &error))
}

pub(crate) struct Source {
    conn: Connection,
    folder: PathBuf,
    schema: u32,
    /// The query of the table that is read, its columns and the last row.
    query: String,
    columns: Vec<&'static Column>,
    last: i64,
    _alone: Option<Folder>,
}

impl Source {
    /// For a move: nobody else has the folder.
    pub(crate) fn alone(path: &Path, place: &str) -> Result<(Self, bool), StoreError> {
        let folder = path;
        if !folder.join(DATABASE).exists() {
            return Err(StoreError::Refused(format!("there is no data in {}", folder.display())));
        }
        let alone = folder::take(folder)?;
        let was_leaving = refuse_moved_but(folder, Some(place))?;
        let mut conn = schema::connect(&folder.join(DATABASE))?;
        schema::migrate(&mut conn)?;
        Ok((Self::of(conn, folder, Some(alone))?, was_leaving))
    }

    /// For a backup: a server may go on beside it.
    pub(crate) fn beside(folder: &Path) -> Result<Self, StoreError> {
        let file = folder.join(DATABASE);
        if !file.exists() {
            return Err(StoreError::Refused(format!("there is no data in {}", folder.display())));
        }
        Self::of(schema::connect_reader(&file)?, folder, None)
    }

    fn of(conn: Connection, folder: &Path, alone: Option<Folder>) -> Result<Self, StoreError> {
        conn.execute_batch("BEGIN")?;
        // The first read is the moment that all of it shows.
        let found: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        conn.query_row("SELECT COUNT(*) FROM secrets", [], |_| Ok(()))?;
        let known = schema::STEPS.len() as u32;
        if found > known {
            return Err(StoreError::NewerSchema { found, known });
        }
        let folder = folder.to_owned();
        Ok(Self { conn, folder, schema: found, query: String::new(), columns: Vec::new(), last: 0, _alone: alone })
    }

    pub(crate) fn schema(&self) -> u32 {
        self.schema
    }

    pub(crate) fn count(&self, table: &Table) -> Result<u64, StoreError> {
        count(&self.conn, table)
    }

    pub(crate) fn begin(&mut self, table: &'static Table) -> Result<Vec<&'static Column>, StoreError> {
        let mut statement = self.conn.prepare(&format!("SELECT name FROM pragma_table_info('{}')", table.name))?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let is_there = |column: &&Column| names.iter().any(|name| name == column.name);
        self.columns = table.columns.iter().filter(is_there).collect();
        let names: Vec<String> = self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        self.query = format!(
            "SELECT rowid, {} FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT {ROWS}",
            names.join(", "),
            table.name
        );
        self.last = i64::MIN;
        Ok(self.columns.clone())
    }

    pub(crate) fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.conn.prepare_cached(&self.query)?;
        let mut found = statement.query([self.last])?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < ROWS_BYTES
            && let Some(row) = found.next()?
        {
            self.last = row.get(0)?;
            let mut values = Vec::with_capacity(self.columns.len());
            for (place, column) in self.columns.iter().enumerate() {
                let (value, size) = value(row.get_ref(place + 1)?, column)?;
                bytes += size;
                values.push(value);
            }
            rows.push(values);
        }
        Ok(rows)
    }

    /// Writes down where the data is now, or may be.
    pub(crate) fn leave(&self, to: &str, gone: Gone) -> Result<(), StoreError> {
        use std::io::Write as _;
        let path = self.folder.join(if gone == Gone::Wholly { MOVED } else { MOVING });
        let written = File::create(&path).and_then(|mut file| {
            writeln!(file, "{to}")?;
            file.sync_all()
        });
        written.map_err(|error| failed(&path, &error))?;
        sync_folder_of(&path)?;
        if gone == Gone::Wholly {
            // What says less is in the way of whoever takes the data back.
            let _ = std::fs::remove_file(self.folder.join(MOVING));
        }
        Ok(())
    }
}

fn count(conn: &Connection, table: &Table) -> Result<u64, StoreError> {
    let rows: i64 = conn.query_row(&format!("SELECT COUNT(*) FROM {}", table.name), [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

/// A value and its size.
fn value(value: ValueRef<'_>, column: &Column) -> Result<(Value, usize), StoreError> {
    let wrong = || StoreError::Broken(format!("the column {} holds what it cannot hold", column.name));
    let bytes = |bytes: &[u8]| (Value::Bytes(bytes.to_vec()), bytes.len());
    Ok(match (value, column.kind) {
        (ValueRef::Null, _) => (Value::Null, 1),
        (ValueRef::Integer(number), Type::Integer | Type::Boolean) => (Value::Integer(number), 8),
        (ValueRef::Text(text), Type::Text) => {
            let text = str::from_utf8(text).map_err(|_| wrong())?;
            (Value::Text(text.to_owned()), text.len())
        }
        (ValueRef::Blob(data) | ValueRef::Text(data), Type::Bytes) => bytes(data),
        _ => return Err(wrong()),
    })
}

/// A new database, made beside its name and renamed at the end.
pub(crate) struct Target {
    conn: Connection,
    partial: PathBuf,
    path: PathBuf,
    insert: String,
    _alone: Folder,
}

impl Target {
    pub(crate) fn create(folder: &Path) -> Result<Self, StoreError> {
        let alone = folder::take(folder)?;
        let path = folder.join(DATABASE);
        if path.exists() {
            return Err(not_empty(&folder.display().to_string()));
        }
        let partial = folder.join(PARTIAL);
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&partial, &error)),
            _ => {}
        }
        folder::own(&partial)?;
        let mut conn = Connection::open(&partial)?;
        conn.set_prepared_statement_cache_capacity(32);
        // It is nothing until it has its name, and is synced before that.
        conn.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
        schema::migrate(&mut conn)?;
        conn.execute_batch("BEGIN")?;
        Ok(Self { conn, partial, path, insert: String::new(), _alone: alone })
    }

    pub(crate) fn begin(&mut self, table: &Table, columns: &[&'static Column]) -> Result<(), StoreError> {
        let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let values: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
        self.insert = format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), values.join(", "));
        Ok(())
    }

    pub(crate) fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare_cached(&self.insert)?;
        for row in rows {
            statement.execute(params_from_iter(row.iter()))?;
        }
        Ok(())
    }

    pub(crate) fn count(&self, table: &Table) -> Result<u64, StoreError> {
        count(&self.conn, table)
    }

    pub(crate) fn finish(self) -> Result<(), StoreError> {
        self.conn.execute_batch("COMMIT")?;
        self.conn.close().map_err(|(_, error)| error)?;
        let synced = File::open(&self.partial).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(&self.partial, &self.path)).map_err(|error| failed(&self.path, &error))?;
        sync_folder_of(&self.path)
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::TABLES;

    #[test]
    fn every_column_is_copied() {
        let mut conn = Connection::open_in_memory().expect("a database");
        schema::migrate(&mut conn).expect("a schema");
        let strings = |sql: &str| -> Vec<String> {
            let mut statement = conn.prepare(sql).expect("SQL");
            let rows = statement.query_map([], |row| row.get(0)).expect("rows");
            rows.collect::<Result<_, _>>().expect("texts")
        };
        let mut tables = strings("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        tables.sort();
        let mut ours: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        ours.sort_unstable();
        assert_eq!(tables, ours);
        for table in TABLES {
            let columns = strings(&format!("SELECT name FROM pragma_table_info('{}')", table.name));
            let ours: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            // The log's own order of rows means nothing to anybody else.
            let columns: Vec<&String> = columns.iter().filter(|name| !(table.name == "log" && *name == "id")).collect();
            assert_eq!(columns, ours, "{}", table.name);
        }
    }
}
