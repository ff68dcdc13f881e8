//! Following one publication through the nodes: where it belongs in a trace, in the words of W3C Trace Context.
//!
//! Few publications are followed; the others carry nothing. Spans go to a sink that the binary gives, and only it knows how they
//! are exported.

use std::fmt;
use std::sync::Arc;

use crate::channel::Channel;

/// A place in a trace: what happens next is a child of it. There is one only where the trace is sampled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    /// Which trace; never 0.
    pub id: u128,
    /// Which span of it; never 0.
    pub span: u64,
}

impl Trace {
    /// The place that a `traceparent` header names (W3C Trace Context, section 3.2), if it is one and is sampled.
    #[must_use]
    pub fn of_header(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // A later version may have more parts; this one may not.
        let is_whole = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !is_whole || !is_hex(id, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let trace = Self { id: u128::from_str_radix(id, 16).ok()?, span: u64::from_str_radix(span, 16).ok()? };
        (is_sampled && trace.id != 0 && trace.span != 0).then_some(trace)
    }

    /// The header that names this place.
    #[must_use]
    pub fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.id, self.span)
    }

    /// A span of the same trace.
    #[must_use]
    pub fn child(self, span: u64) -> Self {
        Self { span: span.max(1), ..self }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.header())
    }
}

/// Something that took its time, on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which span of which trace.
    pub trace: Trace,
    /// The span that it is a part of; 0 for none.
    pub parent: u64,
    /// What was done.
    pub name: &'static str,
    /// When it began, in Unix nanoseconds.
    pub began_ns: u64,
    /// When it ended, in Unix nanoseconds.
    pub ended_ns: u64,
    /// In which channel. Only its namespace is exported.
    pub channel: Channel,
    /// Whether it was done.
    pub done: bool,
}

/// Takes spans. Called from any thread; it must not block, and it may drop them.
pub type SpanSink = Arc<dyn Fn(Span) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::of_header(text).expect("the example of the standard");
        assert_eq!(trace.header(), text);
        assert_eq!(trace.child(0).header(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more";
        assert_eq!(Trace::of_header(later), Some(trace));
    }

    #[test]
    fn what_is_no_header_or_not_sampled_is_not_followed() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333\u{e9}-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::of_header(bad), None, "{bad}");
        }
    }
}
