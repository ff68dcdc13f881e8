//! Gathers visible text into deltas: small pieces go in, and out come pieces worth sending, cut between characters that
//! belong together whenever that costs no more than one window. No clock inside: times are arguments.

use std::time::Duration;

use tokio::time::Instant;

/// Text that waits for the next delta.
#[derive(Debug)]
pub(crate) struct Coalescer {
    pending: String,
    /// When the pending text is due.
    due: Option<Instant>,
    /// Whether the last cluster was held back once already.
    held: bool,
    window: Duration,
    chars: usize,
}

impl Coalescer {
    pub(crate) fn new(window: Duration, chars: usize) -> Self {
        Self { pending: String::new(), due: None, held: false, window, chars }
    }

    /// Where new text is to be added; tell [`Self::added`] afterwards.
    pub(crate) fn buffer(&mut self) -> &mut String {
        &mut self.pending
    }

    /// Text was added at `now`. Answers with a delta if so much has come together that it should not wait.
    pub(crate) fn added(&mut self, now: Instant) -> Option<String> {
        if self.pending.is_empty() {
            return None;
        }
        if self.due.is_none() {
            self.due = Some(now + self.window);
        }
        if self.pending.chars().count() < self.chars {
            return None;
        }
        self.cut(now)
    }

    /// When [`Self::due`] is to be called, if anything waits.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.due
    }

    /// The window has passed: the delta that is to be sent now, if any.
    pub(crate) fn due(&mut self, now: Instant) -> Option<String> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        if self.held {
            return self.flush();
        }
        self.cut(now)
    }

    /// Everything that is left, at the end.
    pub(crate) fn flush(&mut self) -> Option<String> {
        self.due = None;
        self.held = false;
        (!self.pending.is_empty()).then(|| std::mem::take(&mut self.pending))
    }

    /// All but a last cluster that may still grow; that one waits for one more window.
    fn cut(&mut self, now: Instant) -> Option<String> {
        let at = open_cluster(&self.pending);
        if at == self.pending.len() {
            return self.flush();
        }
        let rest = self.pending.split_off(at);
        let delta = std::mem::replace(&mut self.pending, rest);
        self.due = Some(now + self.window);
        self.held = true;
        (!delta.is_empty()).then_some(delta)
    }
}

/// Where the last cluster begins, if more characters could join it; else the end of the text.
///
/// ASCII is taken as complete: marks after it are rare, and waiting would delay most deltas by a character.
fn open_cluster(text: &str) -> usize {
    let mut chars = text.char_indices().rev().peekable();
    let mut start = text.len();
    while let Some((at, c)) = chars.next() {
        if c.is_ascii() {
            // An ASCII character is only the base of marks that follow it (a keycap, a combining accent).
            return if start < text.len() && text[start..].chars().next().is_some_and(joins_before) {
                at
            } else {
                start
            };
        }
        start = at;
        let joined = joins_before(c) || chars.peek().is_some_and(|(_, before)| *before == ZWJ);
        let flag = is_flag(c) && chars.peek().is_some_and(|(_, before)| is_flag(*before));
        if !joined && !flag {
            return start;
        }
        // A run of marks without end must not hold text back for ever.
        if text.len() - start > CLUSTER_BYTES_MAX {
            return text.len();
        }
    }
    start
}

const ZWJ: char = '\u{200d}';
const CLUSTER_BYTES_MAX: usize = 256;

fn is_flag(c: char) -> bool {
    matches!(c, '\u{1f1e6}'..='\u{1f1ff}')
}

/// Whether a character belongs to the one before it: the common marks, joiners, selectors, skin tones and tags.
fn joins_before(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}'
        | '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200d}' | '\u{20d0}'..='\u{20ff}' | '\u{3099}' | '\u{309a}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        // One origin per thread, so that times can be compared.
        thread_local!(static ORIGIN: Instant = Instant::now());
        ORIGIN.with(|origin| *origin + Duration::from_millis(ms))
    }

    fn coalescer() -> Coalescer {
        Coalescer::new(Duration::from_millis(30), 8)
    }

    #[test]
    fn a_delta_leaves_when_its_window_ends_or_when_it_is_long_enough() {
        let mut c = coalescer();
        c.buffer().push_str("ab");
        assert_eq!(c.added(at(0)), None);
        c.buffer().push_str("cd");
        assert_eq!(c.added(at(20)), None);
        assert_eq!(c.due(at(29)), None);
        assert_eq!(c.due(at(30)).as_deref(), Some("abcd"));
        assert_eq!(c.due_at(), None);
        c.buffer().push_str("12345678");
        assert_eq!(c.added(at(31)).as_deref(), Some("12345678"));
    }

    #[test]
    fn clusters_stay_together_but_wait_only_once() {
        let mut c = coalescer();
        c.buffer().push_str("hi 👩");
        assert_eq!(c.added(at(0)), None);
        assert_eq!(c.due(at(30)).as_deref(), Some("hi "));
        c.buffer().push_str("\u{200d}🚀 go");
        assert_eq!(c.added(at(40)), None);
        assert_eq!(c.due(at(60)).as_deref(), Some("👩\u{200d}🚀 go"));
        c.buffer().push('é');
        assert_eq!(c.added(at(70)), None);
        assert_eq!(c.due(at(100)), None, "held once");
        assert_eq!(c.due(at(130)).as_deref(), Some("é"));
    }

    #[test]
    fn marks_without_end_are_let_go() {
        let zalgo = "a".to_owned() + &"\u{301}".repeat(300);
        assert_eq!(open_cluster(&zalgo), zalgo.len());
        assert_eq!(open_cluster("ab"), 2);
        assert_eq!(open_cluster("e\u{301}"), 0);
        assert_eq!(open_cluster("x🇫🇷"), 1);
        assert_eq!(open_cluster(""), 0);
    }
}
