//! Reads server-sent events as model endpoints send them: bytes go in as they come off the socket, cut anywhere, and the
//! data of whole events comes out. Bounded, and free of I/O. Used by the OpenAI-compatible client.

/// Events under construction.
#[derive(Debug)]
pub(crate) struct SseReader {
    /// Bytes of the line that is not complete yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// Data lines of the event that is not complete yet.
    data: Option<String>,
    line_bytes_max: usize,
    first_line: bool,
}

/// Why no more events can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadStream {
    /// A line, or the lines of one event, are longer than the limit.
    LineTooLong,
    /// A line is not UTF-8.
    NotUtf8,
}

impl SseReader {
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        Self { line: Vec::new(), after_cr: false, data: None, line_bytes_max, first_line: true }
    }

    /// Takes bytes and adds the data of every event that they complete to `events`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], events: &mut Vec<String>) -> Result<(), BadStream> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return self.hold(bytes);
            };
            self.hold(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(events)?;
        }
        Ok(())
    }

    /// The stream has ended. What the last event holds is given out although its blank line is missing: several servers
    /// leave that away, and a half line will not be valid JSON.
    pub(crate) fn finish(mut self, events: &mut Vec<String>) -> Result<(), BadStream> {
        if !self.line.is_empty() {
            self.end_line(events)?;
        }
        events.extend(self.data.take());
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), BadStream> {
        if self.line.len() + bytes.len() > self.line_bytes_max {
            return Err(BadStream::LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<String>) -> Result<(), BadStream> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| BadStream::NotUtf8)?;
        let line = if std::mem::take(&mut self.first_line) { line.trim_start_matches('\u{feff}') } else { line };
        if line.is_empty() {
            events.extend(self.data.take());
            return Ok(());
        }
        // Some servers write an error as a bare line of JSON into the stream; as an event it would be passed over.
        if line.starts_with("{\"error\"") {
            events.push(line.into());
            return Ok(());
        }
        let Some(value) = line.strip_prefix("data:") else { return Ok(()) };
        let value = value.strip_prefix(' ').unwrap_or(value);
        let data = self.data.get_or_insert_default();
        if data.len() + value.len() > self.line_bytes_max {
            return Err(BadStream::LineTooLong);
        }
        if !data.is_empty() {
            data.push('\n');
        }
        data.push_str(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<Vec<String>, BadStream> {
        let (mut reader, mut events) = (SseReader::new(64), Vec::new());
        for chunk in bytes.chunks(step) {
            reader.push(chunk, &mut events)?;
        }
        reader.finish(&mut events)?;
        Ok(events)
    }

    fn check(bytes: &[u8], expected: Result<&[&str], BadStream>) {
        let expected = expected.map(|events| events.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>());
        for step in [1, 2, 3, 1_000] {
            assert_eq!(read(bytes, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        check("\u{feff}data: é🦊\n\n: ping\n\nevent: x\nid: 1\ndata:b\ndata: c\n\n".as_bytes(), Ok(&["é🦊", "b\nc"]));
        check(b"data: a\r\n\r\ndata: b\r\rdata: [DONE]", Ok(&["a", "b", "[DONE]"]));
        check(b"{\"error\":\"x\"}\n", Ok(&["{\"error\":\"x\"}"]));
        check(b"", Ok(&[]));
    }

    #[test]
    fn hostile_streams_are_refused() {
        check(&[b'x'; 100], Err(BadStream::LineTooLong));
        check(&b"data: 1234567890\n".repeat(10), Err(BadStream::LineTooLong));
        check(b"data: \xff\n", Err(BadStream::NotUtf8));
    }
}
