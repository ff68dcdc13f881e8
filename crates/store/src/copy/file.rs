//! A backup as a file: gzip over a first line, tables with the names of their columns, rows, and a last word.
//!
//! ```text
//! talewire-backup 1\n
//! u32 length, then JSON: {"schema": 2, "rows": {"channels": 3, …}}
//! T u8 length, name, u8 columns, (u8 length, name)…      a table begins
//! R (value)…                                             a row: 0 | 1 i64 | 2 u32 length, text | 3 u32 length, bytes
//! E                                                      the end; without it the file is not whole
//! ```
//!
//! Numbers are little-endian. The checksum is gzip's. A reader believes nothing of it: what a file unpacks to is read row by row, and no
//! row may be larger than [`ROW_BYTES_MAX`]. The file holds secrets: it is for its owner alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::{Column, Row, TABLES, Table, Value};
use crate::{StoreError, sqlite};

/// What every form of a backup begins with, and this one's number behind it.
const NAME: &[u8] = b"talewire-backup ";
const FIRST_LINE: &[u8] = b"talewire-backup 1\n";
/// Rows that are read at once, and the bytes after which fewer are.
const ROWS: usize = 500;
const ROWS_BYTES: usize = 4 * 1024 * 1024;
/// All values of one row. Nothing that a server takes comes near it: what says so is damage, or made to take our memory.
const ROW_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The head.
const HEAD_BYTES_MAX: usize = 65_536;
/// By how much room for a value grows at least.
const GROWTH: usize = 65_536;

#[derive(Serialize, Deserialize)]
struct Head {
    schema: u32,
    rows: BTreeMap<String, u64>,
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::Full("the disk is full");
    }
    StoreError::Refused(format!("{what} {}: {error}", path.display()))
}

/// Writes a backup beside its name, and gives it its name at the end.
pub(super) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<GzEncoder<File>>,
    rows: BTreeMap<&'static str, u64>,
    table: &'static str,
}

impl Writer {
    pub(super) fn create(path: &Path, schema: u32, rows: BTreeMap<String, u64>) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Refused(format!("{} is there already: name a new file", path.display())));
        }
        let mut partial = path.as_os_str().to_owned();
        // A name that nobody else has thought of, and never a file or a link that is there.
        let random = crate::random::<8>()?;
        partial.push(format!(".{:016x}.partial", u64::from_le_bytes(random)));
        let partial = PathBuf::from(partial);
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).map_err(|error| failed("cannot write", path, &error))?;
        let out = BufWriter::new(GzEncoder::new(file, Compression::fast()));
        let head = serde_json::to_vec(&Head { schema, rows }).map_err(|error| StoreError::Broken(error.to_string()))?;
        let mut writer = Self { path: path.to_owned(), partial, out, rows: BTreeMap::new(), table: "" };
        writer.write(FIRST_LINE)?;
        writer.long(&head)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.out.write_all(bytes).map_err(|error| failed("cannot write", &self.partial, &error))
    }

    fn short(&mut self, text: &str) -> Result<(), StoreError> {
        self.write(&[text.len() as u8])?;
        self.write(text.as_bytes())
    }

    fn long(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= ROW_BYTES_MAX);
        let length = length.ok_or_else(|| StoreError::Broken("a value is too long for a backup".into()))?;
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }

    pub(super) fn begin(&mut self, table: &'static Table, columns: &[&'static Column]) -> Result<(), StoreError> {
        self.table = table.name;
        self.write(b"T")?;
        self.short(table.name)?;
        self.write(&[columns.len() as u8])?;
        columns.iter().try_for_each(|column| self.short(column.name))
    }

    pub(super) fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            if bytes_of(row) > ROW_BYTES_MAX {
                return Err(StoreError::Broken(format!("a row of {} is too long for a backup", self.table)));
            }
            self.write(b"R")?;
            for value in row {
                match value {
                    Value::Null => self.write(&[0])?,
                    Value::Integer(number) => {
                        self.write(&[1])?;
                        self.write(&number.to_le_bytes())?;
                    }
                    Value::Text(text) => {
                        self.write(&[2])?;
                        self.long(text.as_bytes())?;
                    }
                    Value::Bytes(bytes) => {
                        self.write(&[3])?;
                        self.long(bytes)?;
                    }
                }
            }
        }
        *self.rows.entry(self.table).or_default() += rows.len() as u64;
        Ok(())
    }

    pub(super) fn count(&self, table: &Table) -> u64 {
        self.rows.get(table.name).copied().unwrap_or_default()
    }

    /// Reads the whole file once more before it gets its name.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.write(b"E")?;
        let Self { path, partial, out, rows, .. } = self;
        let wrong = |error: std::io::Error| failed("cannot write", &partial, &error);
        let file = out.into_inner().map_err(|error| wrong(error.into_error()))?.finish().map_err(wrong)?;
        file.sync_all().map_err(wrong)?;
        let mut written = Reader::open(&partial)?;
        for table in TABLES {
            written.begin(table)?;
            let mut there = 0;
            loop {
                match written.rows()?.len() {
                    0 => break,
                    some => there += some as u64,
                }
            }
            if there != rows.get(table.name).copied().unwrap_or_default() {
                return Err(StoreError::Broken(format!("{} does not read as it was written", partial.display())));
            }
        }
        written.ended()?;
        // Not renamed over a file that has come meanwhile.
        std::fs::hard_link(&partial, &path).map_err(|error| failed("cannot name", &path, &error))?;
        std::fs::remove_file(&partial).map_err(wrong)?;
        sqlite::copy::sync_folder_of(&path)
    }
}

/// Reads a backup.
pub(super) struct Reader {
    path: PathBuf,
    input: BufReader<GzDecoder<BufReader<File>>>,
    head: Head,
    columns: usize,
    /// Rows of the table that are still to come, by the head.
    left: u64,
    /// The mark that was read and belongs to what comes next.
    next: u8,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let wrong = |error| failed("cannot read", path, &error);
        // Opening a pipe would wait for somebody who writes into it.
        if !std::fs::metadata(path).map_err(wrong)?.is_file() {
            return Err(StoreError::Refused(format!("{} is no regular file, as a backup is", path.display())));
        }
        let file = File::open(path).map_err(wrong)?;
        let mut input = BufReader::new(GzDecoder::new(BufReader::new(file)));
        let mut first = vec![0; FIRST_LINE.len()];
        let is_read = input.read_exact(&mut first).is_ok();
        if !is_read || first != FIRST_LINE {
            let is = if is_read && first.starts_with(NAME) {
                "is a backup in a form that only a newer version of talewire knows"
            } else {
                "is no backup of talewire"
            };
            return Err(StoreError::Refused(format!("{} {is}", path.display())));
        }
        let head = Head { schema: 0, rows: BTreeMap::new() };
        let mut reader = Self { path: path.to_owned(), input, head, columns: 0, left: 0, next: 0 };
        let head = reader.long(HEAD_BYTES_MAX)?;
        reader.head = serde_json::from_slice(&head).map_err(|_| reader.damaged())?;
        let known = sqlite::STEPS_KNOWN;
        if reader.head.schema > known {
            return Err(StoreError::NewerSchema { found: reader.head.schema, known });
        }
        // Each table of its version, and no other.
        let has = |table: &Table| reader.head.rows.contains_key(table.name);
        let tables = TABLES.iter().filter(|table| has(table)).count();
        let is_whole = TABLES.iter().all(|table| has(table) || table.since > reader.head.schema);
        if reader.head.schema == 0 || !is_whole || tables != reader.head.rows.len() {
            return Err(reader.damaged());
        }
        reader.next = reader.byte()?;
        Ok(reader)
    }

    pub(super) fn schema(&self) -> u32 {
        self.head.schema
    }

    pub(super) fn count(&self, table: &Table) -> u64 {
        self.head.rows.get(table.name).copied().unwrap_or_default()
    }

    fn damaged(&self) -> StoreError {
        StoreError::Refused(format!("{} is damaged or not whole: nothing was restored", self.path.display()))
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| self.damaged())?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.exact::<1>()?[0])
    }

    fn long(&mut self, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
        let length = u32::from_le_bytes(self.exact()?) as usize;
        if length > bytes_max {
            return Err(self.damaged());
        }
        // Taken as it comes: a length that is not true costs no memory.
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let (there, more) = (bytes.len(), (length - bytes.len()).min(bytes.len().max(GROWTH)));
            bytes.reserve_exact(more);
            bytes.resize(there + more, 0);
            self.input.read_exact(&mut bytes[there..]).map_err(|_| self.damaged())?;
        }
        Ok(bytes)
    }

    fn short(&mut self) -> Result<String, StoreError> {
        let length = usize::from(self.byte()?);
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(|_| self.damaged())?;
        String::from_utf8(bytes).map_err(|_| self.damaged())
    }

    /// A table that an older version did not know is empty.
    pub(super) fn begin(&mut self, table: &'static Table) -> Result<Vec<&'static Column>, StoreError> {
        let Some(rows) = self.head.rows.get(table.name) else { return Ok(Vec::new()) };
        self.left = *rows;
        if self.next != b'T' || self.short()? != table.name {
            return Err(self.damaged());
        }
        let mut columns = Vec::new();
        for _ in 0..self.byte()? {
            let name = self.short()?;
            columns.push(table.column(&name).ok_or_else(|| self.damaged())?);
        }
        self.columns = columns.len();
        self.next = self.byte()?;
        Ok(columns)
    }

    pub(super) fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        while self.next == b'R' && rows.len() < ROWS && bytes < ROWS_BYTES {
            self.left = self.left.checked_sub(1).ok_or_else(|| self.damaged())?;
            let mut row = Vec::with_capacity(self.columns);
            for _ in 0..self.columns {
                let most = ROW_BYTES_MAX - bytes_of(&row).min(ROW_BYTES_MAX);
                row.push(match self.byte()? {
                    0 => Value::Null,
                    1 => Value::Integer(i64::from_le_bytes(self.exact()?)),
                    2 => Value::Text(String::from_utf8(self.long(most)?).map_err(|_| self.damaged())?),
                    3 => Value::Bytes(self.long(most)?),
                    _ => return Err(self.damaged()),
                });
            }
            bytes += bytes_of(&row);
            rows.push(row);
            self.next = self.byte()?;
        }
        if matches!(self.next, b'R' | b'T' | b'E') { Ok(rows) } else { Err(self.damaged()) }
    }

    /// Whether the last word has come behind the last table, and nothing behind it.
    pub(super) fn ended(&mut self) -> Result<(), StoreError> {
        let mut rest = [0];
        // What gzip has to say about the whole comes with its end, and that is the end of the file.
        let is_over = matches!(self.input.read(&mut rest), Ok(0))
            && matches!(self.input.get_mut().get_mut().read(&mut rest), Ok(0));
        if self.next == b'E' && is_over { Ok(()) } else { Err(self.damaged()) }
    }
}

/// What the values of a row take.
fn bytes_of(row: &Row) -> usize {
    let bytes = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(data) => data.len(),
        Value::Null | Value::Integer(_) => 8,
    };
    row.iter().map(bytes).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A file that says what the test wants it to say.
    fn file(folder: &Path, head: &str, rest: &[u8]) -> PathBuf {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        let length = u32::try_from(head.len()).unwrap().to_le_bytes();
        for bytes in [FIRST_LINE, &length, head.as_bytes(), rest] {
            out.write_all(bytes).unwrap();
        }
        let path = folder.join("backup");
        std::fs::write(&path, out.finish().unwrap()).unwrap();
        path
    }

    /// Reads all of it; how many rows there were.
    fn read(path: &Path) -> Result<usize, StoreError> {
        let mut reader = Reader::open(path)?;
        let mut there = 0;
        for table in TABLES {
            reader.begin(table)?;
            loop {
                match reader.rows()?.len() {
                    0 => break,
                    some => there += some,
                }
            }
        }
        reader.ended().map(|()| there)
    }

    /// A head that names every table of a version, with so many secrets.
    fn head(schema: u32, secrets: u64) -> String {
        let tables = TABLES.iter().filter(|table| table.since <= schema);
        let rows: BTreeMap<_, _> =
            tables.map(|table| (table.name, if table.name == "secrets" { secrets } else { 0 })).collect();
        serde_json::json!({"schema": schema, "rows": rows}).to_string()
    }

    /// Tables of a version, all without rows but for the last, and an end.
    fn tables(schema: u32, secrets: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for table in TABLES.iter().filter(|table| table.since <= schema) {
            bytes.extend_from_slice(&[b'T', table.name.len() as u8]);
            bytes.extend_from_slice(table.name.as_bytes());
            bytes.push(if table.name == "secrets" { 2 } else { 0 });
        }
        bytes.extend_from_slice(b"\x04name\x05value");
        bytes.extend_from_slice(secrets);
        bytes.push(b'E');
        bytes
    }

    /// A row of secrets whose value says that it is so long, and is of zeros.
    fn secret(says: usize, zeros: usize) -> Vec<u8> {
        let mut row = b"R\x02\x01\0\0\0a\x03".to_vec();
        row.extend_from_slice(&u32::try_from(says).unwrap().to_le_bytes());
        row.resize(row.len() + zeros, 0);
        row
    }

    #[test]
    fn a_file_is_read_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let check = |head: &str, rest: &[u8], expected: Option<usize>| {
            assert_eq!(read(&file(folder.path(), head, rest)).ok(), expected, "{head}");
        };
        for schema in 1..=sqlite::STEPS_KNOWN {
            check(&head(schema, 0), &tables(schema, b""), Some(0));
        }
        let now = sqlite::STEPS_KNOWN;
        let row = secret(100_000, 100_000);
        check(&head(now, 1), &tables(now, &row), Some(1));
        check(&head(now, 1), &tables(now, &row.repeat(2)), None);
        check(r#"{"schema":1,"rows":{}}"#, b"E", None);
        check(r#"{"schema":1,"rows":{}}"#, b"", None);
        check(&head(0, 0), b"E", None);
        check(&head(now, 0), &tables(now, b"")[..20], None);
        let without_end = tables(now, b"");
        check(&head(now, 0), &without_end[..without_end.len() - 1], None);
        check(&head(now, 0), &[&without_end[..], b"more"].concat(), None);
        check(&head(now, 0).replace("secrets", "strange"), &tables(now, b""), None);
        // Behind all that was packed, where gzip does not look.
        let path = file(folder.path(), &head(now, 0), &tables(now, b""));
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"more".to_vec()].concat()).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn a_file_of_another_form_is_told_from_one_that_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        for (first, said) in [("talewire-backup 2\n", "only a newer version"), ("something else, or", "is no backup")] {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            out.write_all(first.as_bytes()).unwrap();
            std::fs::write(&path, out.finish().unwrap()).unwrap();
            let refused = Reader::open(&path).err().unwrap().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_file_that_unpacks_to_very_much_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let now = sqlite::STEPS_KNOWN;
        let long = 20 * 1024 * 1024;
        assert_eq!(read(&file(folder.path(), &head(now, 1), &tables(now, &secret(long, long)))), Ok(1));
        let too_long = tables(now, &secret(ROW_BYTES_MAX + 1, ROW_BYTES_MAX + 1));
        assert!(read(&file(folder.path(), &head(now, 1), &too_long)).is_err());
        // It is not true, either.
        assert!(read(&file(folder.path(), &head(now, 1), &tables(now, &secret(ROW_BYTES_MAX, 5)))).is_err());
        let head = "x".repeat(HEAD_BYTES_MAX + 1);
        assert!(read(&file(folder.path(), &head, b"E")).is_err());
        // Two values that would each do.
        let mut row = b"R".to_vec();
        for _ in 0..2 {
            row.push(3);
            row.extend_from_slice(&u32::try_from(ROW_BYTES_MAX / 2 + 1).unwrap().to_le_bytes());
            row.resize(row.len() + ROW_BYTES_MAX / 2 + 1, 0);
        }
        assert!(read(&file(folder.path(), &self::head(now, 1), &tables(now, &row))).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            let refused = Reader::open(path).err().unwrap().to_string();
            assert!(refused.contains("is no regular file"), "{refused}");
        }
    }
}
