//! PostgreSQL as the source and the target of a copy.
//!
//! A move and a restore hold the lock that every running server shares. A target is filled in one transaction: a copy that is
//! broken off leaves nothing behind.

use std::borrow::Cow;

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::failure::{Failure, Tried};
use super::pool::{Address, lock_alone};
use super::{schema, storable};
use crate::copy::{Column, Gone, Row, TABLES, Table, Type, Value, incomplete, moved, moving, not_empty};
use crate::{StoreError, StoreSettings};

/// Rows that are read at once.
const ROWS: usize = 500;

/// Copies take their time.
const PATIENT: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// How the data's new place is written down: as the comment on the schema.
const MOVED: &str = "moved to ";
/// How the place where it may be is.
const MOVING: &str = "moving to ";
/// The comment on the schema of a target until everything is in it.
const INCOMPLETE: &str = "incomplete";

/// Refuses a database whose data was moved elsewhere, or may have been.
pub(super) async fn refuse_moved(conn: &Connection) -> Tried<()> {
    refuse_moved_but(conn, None).await.map(drop)
}

/// Refuses a database whose data was moved elsewhere, or may have been moved to another place than this one. Says whether it may have been
/// moved there.
async fn refuse_moved_but(conn: &Connection, place: Option<&str>) -> Tried<bool> {
    let comment = comment(conn).await?;
    // An older program does not know that, and may have begun there.
    if comment == INCOMPLETE && is_empty(conn).await? {
        return Err(incomplete("this database", "run DROP SCHEMA talewire CASCADE").into());
    }
    let undo = "COMMENT ON SCHEMA talewire IS NULL";
    match (comment.strip_prefix(MOVED), comment.strip_prefix(MOVING)) {
        (Some(to), _) => Err(moved(to, undo).into()),
        (None, Some(to)) if place == Some(to) => Ok(true),
        (None, Some(to)) => Err(moving(to, undo).into()),
        (None, None) => Ok(false),
    }
}

/// What was written down about the schema, if it is there.
async fn comment(conn: &Connection) -> Tried<String> {
    let sql = "SELECT obj_description(to_regnamespace('talewire')::oid, 'pg_namespace')";
    let comment: Option<String> = conn.row(sql, &[]).await?.try_get(0)?;
    Ok(comment.unwrap_or_default())
}

/// Whether there is nothing in any of the tables, which are there.
async fn is_empty(conn: &Connection) -> Tried<bool> {
    for table in TABLES {
        let sql = format!("SELECT EXISTS (SELECT FROM talewire.{})", table.name);
        if conn.row(&sql, &[]).await?.try_get(0)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A session that has the database without any server.
async fn alone(settings: &StoreSettings) -> Result<Connection, StoreError> {
    let conn = Address::new(settings)?.connect().await?;
    let outcome = async {
        conn.plain(PATIENT).await?;
        if lock_alone(&conn).await? {
            return Ok(());
        }
        Err(StoreError::Refused(format!("{} is in use: stop its servers first", settings.url)).into())
    };
    outcome.await.map_err(Failure::into_error)?;
    Ok(conn)
}

pub(crate) struct Source {
    conn: Connection,
    schema: u32,
    columns: Vec<&'static Column>,
}

impl Source {
    /// For a move: no server runs.
    pub(crate) async fn alone(settings: &StoreSettings, place: &str) -> Result<(Self, bool), StoreError> {
        let conn = alone(settings).await?;
        let was_leaving = refuse_moved_but(&conn, Some(place)).await.map_err(Failure::into_error)?;
        if !was_leaving {
            schema::migrate(&conn).await?;
        }
        Ok((Self::of(conn).await?, was_leaving))
    }

    /// For a backup: servers may go on beside it.
    pub(crate) async fn beside(settings: &StoreSettings) -> Result<Self, StoreError> {
        let conn = Address::new(settings)?.connect().await?;
        conn.plain(PATIENT).await.map_err(Failure::into_error)?;
        Self::of(conn).await
    }

    async fn of(conn: Connection) -> Result<Self, StoreError> {
        let outcome = async {
            conn.plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            // The first query is the moment that all of it shows.
            let there: bool = conn.row("SELECT to_regclass('talewire.steps') IS NOT NULL", &[]).await?.try_get(0)?;
            if !there {
                return Err(StoreError::Refused("there is no data in that database".into()).into());
            }
            let found: i32 = conn.row("SELECT COALESCE(MAX(number), 0) FROM steps", &[]).await?.try_get(0)?;
            Tried::Ok(found.cast_unsigned())
        };
        let found = outcome.await.map_err(Failure::into_error)?;
        let known = schema::STEPS.len() as u32;
        if found > known {
            return Err(StoreError::NewerSchema { found, known });
        }
        Ok(Self { conn, schema: found, columns: Vec::new() })
    }

    pub(crate) fn schema(&self) -> u32 {
        self.schema
    }

    pub(crate) async fn count(&self, table: &Table) -> Result<u64, StoreError> {
        count(&self.conn, table).await.map_err(Failure::into_error)
    }

    pub(crate) async fn begin(&mut self, table: &'static Table) -> Result<Vec<&'static Column>, StoreError> {
        let names = columns_of(&self.conn, table.name).await.map_err(Failure::into_error)?;
        let is_there = |column: &&Column| names.iter().any(|name| name == column.name);
        self.columns = table.columns.iter().filter(is_there).collect();
        let sql = format!(
            "CLOSE ALL; DECLARE part NO SCROLL CURSOR FOR SELECT {} FROM {} ORDER BY {}",
            quoted(&self.columns),
            table.name,
            table.order
        );
        self.conn.plain(&sql).await.map_err(Failure::into_error)?;
        Ok(self.columns.clone())
    }

    pub(crate) async fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        // Not prepared for good: the cursor has other columns for every table.
        let rows = self.conn.once(&format!("FETCH {ROWS} FROM part")).await.map_err(Failure::into_error)?;
        let read = |row: &tokio_postgres::Row| {
            let value = |(place, column): (usize, &&Column)| value(row, place, column);
            self.columns.iter().enumerate().map(value).collect::<Tried<Row>>()
        };
        rows.iter().map(read).collect::<Tried<Vec<Row>>>().map_err(Failure::into_error)
    }

    /// Writes down where the data is now, or may be: nothing is read here after that.
    pub(crate) async fn leave(&self, to: &str, gone: Gone) -> Result<(), StoreError> {
        let said = if gone == Gone::Wholly { MOVED } else { MOVING };
        let comment = format!("{said}{to}").replace('\'', "''");
        let sql = format!("COMMIT; COMMENT ON SCHEMA talewire IS '{comment}'");
        self.conn.plain(&sql).await.map_err(Failure::into_error)
    }
}

fn quoted(columns: &[&'static Column]) -> String {
    columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

async fn columns_of(conn: &Connection, table: &str) -> Tried<Vec<String>> {
    let sql = "SELECT column_name::text FROM information_schema.columns
        WHERE table_schema = 'talewire' AND table_name = $1 ORDER BY ordinal_position";
    let rows = conn.all(sql, &[&table]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn count(conn: &Connection, table: &Table) -> Tried<u64> {
    let rows: i64 = conn.row(&format!("SELECT COUNT(*) FROM {}", table.name), &[]).await?.try_get(0)?;
    Ok(rows.cast_unsigned())
}

fn value(row: &tokio_postgres::Row, place: usize, column: &Column) -> Tried<Value> {
    let value = match column.kind {
        Type::Integer => row.try_get::<_, Option<i64>>(place)?.map(Value::Integer),
        Type::Boolean => row.try_get::<_, Option<bool>>(place)?.map(|is| Value::Integer(i64::from(is))),
        Type::Text => row.try_get(place).map(|text: Option<String>| text.map(Value::Text))?,
        Type::Bytes => row.try_get(place).map(|bytes: Option<Vec<u8>>| bytes.map(Value::Bytes))?,
    };
    Ok(value.unwrap_or(Value::Null))
}

pub(crate) struct Target {
    conn: Connection,
    insert: String,
    kinds: Vec<Type>,
}

impl Target {
    pub(crate) async fn create(settings: &StoreSettings) -> Result<Self, StoreError> {
        let conn = alone(settings).await?;
        let outcome = async {
            // Of a copy that is begun again it is taken away with the commit of everything, and not before.
            if comment(&conn).await? != INCOMPLETE {
                refuse_moved(&conn).await?;
            }
            schema::migrate(&conn).await?;
            if !is_empty(&conn).await? {
                return Err(not_empty(&settings.url.to_string()).into());
            }
            // Not in one message with the transaction: it would be part of that.
            conn.plain(&format!("COMMENT ON SCHEMA talewire IS '{INCOMPLETE}'")).await?;
            conn.plain("BEGIN").await
        };
        outcome.await.map_err(Failure::into_error)?;
        Ok(Self { conn, insert: String::new(), kinds: Vec::new() })
    }

    pub(crate) async fn begin(&mut self, table: &Table, columns: &[&'static Column]) -> Result<(), StoreError> {
        self.kinds = columns.iter().map(|column| column.kind).collect();
        let arrays = self.kinds.iter().zip(1..).map(|(kind, number)| {
            let kind = match kind {
                Type::Integer => "bigint",
                Type::Boolean => "boolean",
                Type::Text => "text",
                Type::Bytes => "bytea",
            };
            format!("${number}::{kind}[]")
        });
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        // Entries that come from elsewhere belong to no transaction of this server.
        let (tx, zero) = if table.name == "log" { (", tx", ", 0") } else { ("", "") };
        let names = quoted(columns);
        self.insert = format!("INSERT INTO {} ({names}{tx}) SELECT *{zero} FROM unnest({arrays})", table.name);
        Ok(())
    }

    pub(crate) async fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let arrays: Vec<Box<dyn ToSql + Sync + Send>> =
            self.kinds.iter().enumerate().map(|(place, kind)| array(rows, place, *kind)).collect();
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| &**array as &(dyn ToSql + Sync)).collect();
        self.conn.execute(&self.insert, &params).await.map_err(Failure::into_error)?;
        Ok(())
    }

    pub(crate) async fn count(&self, table: &Table) -> Result<u64, StoreError> {
        count(&self.conn, table).await.map_err(Failure::into_error)
    }

    pub(crate) async fn finish(self) -> Result<(), StoreError> {
        let outcome = async {
            for table in TABLES {
                let (name, Some(counter)) = (table.name, table.counter) else { continue };
                let sql = format!(
                    "SELECT setval(pg_get_serial_sequence('talewire.{name}', '{counter}'), COALESCE(MAX({counter}), 0) + 1, false) FROM {name}"
                );
                self.conn.row(&sql, &[]).await?;
            }
            self.conn.plain("COMMENT ON SCHEMA talewire IS NULL").await?;
            self.conn.commit().await?;
            self.conn.plain("ANALYZE").await
        };
        outcome.await.map_err(Failure::into_error)
    }
}

fn array<'r>(rows: &'r [Row], place: usize, kind: Type) -> Box<dyn ToSql + Sync + Send + 'r> {
    let values = rows.iter().map(move |row| &row[place]);
    let number = |value: &Value| if let Value::Integer(number) = value { Some(*number) } else { None };
    match kind {
        Type::Integer => Box::new(values.map(number).collect::<Vec<_>>()),
        Type::Boolean => Box::new(values.map(|value| number(value).map(|number| number != 0)).collect::<Vec<_>>()),
        Type::Text => {
            let text = |value: &'r Value| if let Value::Text(text) = value { Some(storable(text)) } else { None };
            Box::new(values.map(text).collect::<Vec<Option<Cow<'r, str>>>>())
        }
        Type::Bytes => {
            let bytes = |value: &'r Value| if let Value::Bytes(bytes) = value { Some(&bytes[..]) } else { None };
            Box::new(values.map(bytes).collect::<Vec<Option<&'r [u8]>>>())
        }
    }
}
