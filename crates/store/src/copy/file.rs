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
//! Numbers are little-endian. The checksum is gzip's. The file holds secrets: it is for its owner alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::{Column, Row, TABLES, Table, Value};
use crate::{StoreError, sqlite};

const FIRST_LINE: &[u8] = b"talewire-backup 1\n";
/// Rows that are read at once, and the bytes after which fewer are.
const ROWS: usize = 500;
const ROWS_BYTES: usize = 4 * 1024 * 1024;
/// No value is longer: what says so is damage.
const VALUE_BYTES_MAX: u32 = 256 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    schema: u32,
    rows: BTreeMap<String, u64>,
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::Full("the disk is full");
    }
    StoreError::Unavailable(format!("{what} {}: {error}", path.display()))
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
    pub(super) fn create(path: &Path, schema: u32, counts: &[u64]) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(super::not_empty(&path.display().to_string()));
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
        let file = options.open(&partial).map_err(|error| failed("cannot write", &partial, &error))?;
        let out = BufWriter::new(GzEncoder::new(file, Compression::fast()));
        let rows = TABLES.iter().map(|table| table.name.to_owned()).zip(counts.iter().copied()).collect();
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
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= VALUE_BYTES_MAX);
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
    /// The mark that was read and belongs to what comes next.
    next: u8,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| failed("cannot read", path, &error))?;
        let mut input = BufReader::new(GzDecoder::new(BufReader::new(file)));
        let mut first = vec![0; FIRST_LINE.len()];
        let is_ours = input.read_exact(&mut first).is_ok() && first == FIRST_LINE;
        if !is_ours {
            return Err(StoreError::Unavailable(format!("{} is no backup of talewire", path.display())));
        }
        let head = Head { schema: 0, rows: BTreeMap::new() };
        let mut reader = Self { path: path.to_owned(), input, head, columns: 0, next: 0 };
        let head = reader.long()?;
        reader.head = serde_json::from_slice(&head).map_err(|_| reader.damaged())?;
        let known = sqlite::STEPS_KNOWN;
        if reader.head.schema > known {
            return Err(StoreError::NewerSchema { found: reader.head.schema, known });
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
        StoreError::Unavailable(format!("{} is damaged or not whole: nothing was restored", self.path.display()))
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| self.damaged())?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.exact::<1>()?[0])
    }

    fn long(&mut self) -> Result<Vec<u8>, StoreError> {
        let length = u32::from_le_bytes(self.exact()?);
        if length > VALUE_BYTES_MAX {
            return Err(self.damaged());
        }
        // Taken as it comes: a length that is not true costs no memory.
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(u64::from(length)).read_to_end(&mut bytes);
        if read.ok() == Some(length as usize) { Ok(bytes) } else { Err(self.damaged()) }
    }

    fn short(&mut self) -> Result<String, StoreError> {
        let length = usize::from(self.byte()?);
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(|_| self.damaged())?;
        String::from_utf8(bytes).map_err(|_| self.damaged())
    }

    /// A table that an older version did not know is empty.
    pub(super) fn begin(&mut self, table: &'static Table) -> Result<Vec<&'static Column>, StoreError> {
        if self.next != b'T' || !self.head.rows.contains_key(table.name) {
            return if self.head.rows.contains_key(table.name) { Err(self.damaged()) } else { Ok(Vec::new()) };
        }
        if self.short()? != table.name {
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
            let mut row = Vec::with_capacity(self.columns);
            for _ in 0..self.columns {
                row.push(match self.byte()? {
                    0 => Value::Null,
                    1 => Value::Integer(i64::from_le_bytes(self.exact()?)),
                    2 => Value::Text(String::from_utf8(self.long()?).map_err(|_| self.damaged())?),
                    3 => Value::Bytes(self.long()?),
                    _ => return Err(self.damaged()),
                });
                bytes += match row.last() {
                    Some(Value::Text(text)) => text.len(),
                    Some(Value::Bytes(data)) => data.len(),
                    _ => 8,
                };
            }
            rows.push(row);
            self.next = self.byte()?;
        }
        if self.next == b'E' {
            // What gzip has to say about the whole comes with its end.
            let mut rest = [0];
            if !matches!(self.input.read(&mut rest), Ok(0)) {
                return Err(self.damaged());
            }
        } else if self.next != b'R' && self.next != b'T' {
            return Err(self.damaged());
        }
        Ok(rows)
    }
}
