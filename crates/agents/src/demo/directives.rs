//! Directives in people's words that make the demo storyteller misbehave on purpose, for tests, demos and load tests.
//!
//! | directive | what the demo storyteller does |
//! |---|---|
//! | `@stall 10s` | falls silent for that long (`500ms`, `10s`, `2m`) after its first dozen tokens; longer than the idle limit is a time-out |
//! | `@error 529` | answers with this status instead of text, at every try; `@error 529 x2` at the first two tries only |
//! | `@disconnect` | breaks off in the middle of its text |
//! | `@refuse` | declines |
//! | `@long` | writes about 1,500 words; `@long 300` about 300, at most 5,000 |
//! | `@slow`, `@fast` | 5 or 200 tokens per second |
//! | `@emoji` | puts emoji of every make into its text |
//!
//! They count in the instruction and in the newest turn, if a person wrote it.

use std::time::Duration;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// A silence in the middle.
    pub stall: Option<Duration>,
    /// A status instead of text, at this many tries.
    pub error: Option<(u16, u32)>,
    /// Whether to break off.
    pub disconnect: bool,
    /// Whether to decline.
    pub refuse: bool,
    /// About how many words to write.
    pub words: Option<usize>,
    /// Tokens per second.
    pub tokens_per_second: Option<u32>,
    /// Whether to write emoji.
    pub emoji: bool,
}

/// The longest text that `@long` gives, in words.
const WORDS_MAX: usize = 5_000;
/// The longest `@stall`.
const STALL_MAX: Duration = Duration::from_secs(600);

/// Reads the directives of a text and gives the text without them.
#[must_use]
pub fn read(text: &str, directives: &mut Directives) -> String {
    let mut rest = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().peekable();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            match word.trim_end_matches(['.', ',', ';', '!']) {
                "@stall" => {
                    let wait = words.peek().and_then(|w| duration(w));
                    directives.stall = Some(wait.unwrap_or(Duration::from_secs(10)).min(STALL_MAX));
                    words.next_if(|_| wait.is_some());
                }
                "@error" => {
                    let status = words.peek().and_then(|w| w.parse().ok()).filter(|s| (400..600).contains(s));
                    words.next_if(|_| status.is_some());
                    let tries = words.peek().and_then(|w| w.strip_prefix('x')?.parse().ok());
                    words.next_if(|_| tries.is_some());
                    directives.error = Some((status.unwrap_or(529), tries.unwrap_or(u32::MAX)));
                }
                "@disconnect" => directives.disconnect = true,
                "@refuse" => directives.refuse = true,
                "@long" => {
                    let count = words.peek().and_then(|w| w.parse().ok());
                    words.next_if(|_| count.is_some());
                    directives.words = Some(count.unwrap_or(1_500).min(WORDS_MAX));
                }
                "@slow" => directives.tokens_per_second = Some(5),
                "@fast" => directives.tokens_per_second = Some(200),
                "@emoji" => directives.emoji = true,
                _ => kept.push(word),
            }
        }
        rest.push(kept.join(" "));
    }
    rest.join("\n").trim().to_owned()
}

fn duration(word: &str) -> Option<Duration> {
    let word = word.trim_end_matches(['.', ',']);
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = word[..digits].parse().ok()?;
    match &word[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.saturating_mul(60))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, rest: &str, expected: Directives) {
        let mut found = Directives::default();
        assert_eq!((read(text, &mut found).as_str(), found), (rest, expected), "{text}");
    }

    #[test]
    fn directives_are_taken_out_of_the_text() {
        let none = Directives::default;
        check("The fox\nran @home.", "The fox\nran @home.", none());
        check("@stall 500ms The fox", "The fox", Directives { stall: Some(Duration::from_millis(500)), ..none() });
        check("Go @stall now", "Go now", Directives { stall: Some(Duration::from_secs(10)), ..none() });
        check("@stall 99999999s", "", Directives { stall: Some(STALL_MAX), ..none() });
        check("@error 429 x2 Hi", "Hi", Directives { error: Some((429, 2)), ..none() });
        check("@error", "", Directives { error: Some((529, u32::MAX)), ..none() });
        check("@long 300 @fast.", "", Directives { words: Some(300), tokens_per_second: Some(200), ..none() });
        check(
            "a @refuse @disconnect @emoji b",
            "a b",
            Directives { refuse: true, disconnect: true, emoji: true, ..none() },
        );
    }
}
