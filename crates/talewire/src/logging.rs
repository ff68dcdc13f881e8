//! The log: one line per event on standard error, plain or JSON, in which nobody can fake another line.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, ProcessSettings};

/// Which lines are written, to be changed while the process runs.
pub(crate) struct LogFilter(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send>);

impl LogFilter {
    /// Writes other lines from now on.
    pub(crate) fn set(&self, filter: &str) -> anyhow::Result<()> {
        self.0(EnvFilter::try_new(filter)?)
    }

    fn of<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Self {
        Self(Box::new(move |filter| Ok(handle.reload(filter)?)))
    }
}

/// Starts the log; once per process.
pub(crate) fn start(settings: &ProcessSettings) -> anyhow::Result<LogFilter> {
    let filter = EnvFilter::try_new(&settings.log_filter).context("process.log_filter")?;
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Plain => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    // Without colours: every escape character in a line is then somebody else's, and made visible.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Escaped(io::stderr()));
    let (started, filter) = if json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let filter = LogFilter::of(builder.reload_handle());
        (builder.try_init(), filter)
    } else {
        let builder = builder.with_filter_reloading();
        let filter = LogFilter::of(builder.reload_handle());
        (builder.try_init(), filter)
    };
    started.map_err(|error| anyhow::anyhow!("the log does not start: {error}"))?;
    Ok(filter)
}

/// Writes events of one line each, with control and direction characters of names and texts made visible.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    /// An event arrives as one write with its line feed at the end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(escaped(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Also valid inside JSON strings, which know the same escapes.
fn escaped(event: &str) -> Cow<'_, str> {
    let line = event.strip_suffix('\n').unwrap_or(event);
    if !line.chars().any(deceives) {
        return Cow::Borrowed(event);
    }
    let mut safe = String::with_capacity(event.len() + 16);
    for c in line.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if deceives(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe.push_str(&event[line.len()..]);
    Cow::Owned(safe)
}

fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_visible_line() {
        let check = |event: &str, expected: &str| assert_eq!(escaped(event), expected);
        check("name=Ünal 李\n", "name=Ünal 李\n");
        check("name=a\r\nERROR faked\n", "name=a\\r\\nERROR faked\n");
        check("name=\u{1b}[2Ja\u{9b}m\n", "name=\\u001b[2Ja\\u009bm\n");
        check("name=\u{202e}evil\u{2028}\n", "name=\\u202eevil\\u2028\n");
        check("no line feed\0", "no line feed\\u0000");
    }

    #[test]
    fn a_hostile_name_stays_in_its_line_plain_and_json() {
        use std::sync::{Arc, Mutex};

        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("not poisoned").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [false, true] {
            let kept = Kept::default();
            let writer = kept.clone();
            let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Escaped(writer.clone()));
            let log = || tracing::info!(name = %"a\n\u{1b}[31m\u{9b}\u{202e}faked", "joined\nfaked");
            if json {
                tracing::subscriber::with_default(builder.json().finish(), log);
            } else {
                tracing::subscriber::with_default(builder.finish(), log);
            }
            let text = String::from_utf8(kept.0.lock().expect("not poisoned").clone()).expect("UTF-8");
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && !text.trim_end_matches('\n').chars().any(deceives), "{text:?}");
            assert!(!json || serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text:?}");
        }
    }
}
