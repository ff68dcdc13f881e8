//! Which texts are taken: lengths in characters, and characters that would disturb other readers. Texts are kept as they
//! are; only a title loses the white space around it.

use talewire_proto::ErrorCode;
use talewire_store::{Refusal, Words};

use crate::limits::StoryLimits;

/// A title: one line, and nothing that turns the direction of the text around it.
pub(crate) fn title(words: &Words, limits: &StoryLimits) -> Result<Words, Refusal> {
    let text = words.as_str().trim();
    length("a title", text, limits.title_chars_max)?;
    if text.chars().any(|c| c.is_control() || is_bidi_control(c) || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(bad("a title cannot hold control characters"));
    }
    Ok(text.into())
}

/// The text of a turn: any lines of text.
pub(crate) fn turn(words: &Words, limits: &StoryLimits) -> Result<(), Refusal> {
    passage("a turn", words, limits.turn_chars_max)
}

/// What an agent is asked to do.
pub(crate) fn instruction(words: &Words, limits: &StoryLimits) -> Result<(), Refusal> {
    passage("an instruction", words, limits.instruction_chars_max)
}

/// The key of a call.
pub(crate) fn key(key: &str, limits: &StoryLimits) -> Result<(), Refusal> {
    let fits = !key.is_empty() && !is_longer(key, limits.key_chars_max) && !key.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::BadRequest, format!("a key has 1 to {} characters", limits.key_chars_max)))
    }
}

fn passage(what: &str, words: &Words, chars_max: usize) -> Result<(), Refusal> {
    let text = words.as_str();
    length(what, text, chars_max)?;
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(bad(format!("{what} cannot hold control characters but line feeds and tabs")));
    }
    Ok(())
}

fn length(what: &str, text: &str, chars_max: usize) -> Result<(), Refusal> {
    if text.trim().is_empty() || is_longer(text, chars_max) {
        return Err(bad(format!("{what} has 1 to {chars_max} characters")));
    }
    Ok(())
}

/// Counts no further than it must.
fn is_longer(text: &str, chars_max: usize) -> bool {
    text.chars().nth(chars_max).is_some()
}

/// Embeddings, overrides and isolates: a title with them can make the page around it read differently.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::BadText, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn titles_are_one_short_line() {
        let limits = StoryLimits::default();
        let check = |text: &str| title(&text.into(), &limits).map(Words::into_string).map_err(|refusal| refusal.code);
        assert_eq!(check("  The Fox  "), Ok("The Fox".into()));
        assert_eq!(check(&"é".repeat(120)).unwrap().chars().count(), 120);
        for wrong in ["", "   ", "a\nb", "a\tb", "a\0", "\u{202e}exe.txt", "\u{2066}x", "a\u{2028}b", &"x".repeat(121)]
        {
            assert_eq!(check(wrong), Err(ErrorCode::BadText), "{wrong:?}");
        }
    }

    #[test]
    fn turns_are_kept_as_they_are_or_refused() {
        let limits = StoryLimits::default();
        let check = |text: &str| turn(&text.into(), &limits).map_err(|refusal| refusal.code);
        for right in ["One.\n\n\tTwo. ", "🦊", "\u{202e}kept", &"é".repeat(8_000)] {
            assert_eq!(check(right), Ok(()));
        }
        for wrong in ["", " \n ", "a\0b", "a\rb", "\u{1b}[31m", "\u{9b}", &"x".repeat(8_001)] {
            assert_eq!(check(wrong), Err(ErrorCode::BadText), "{wrong:?}");
        }
    }

    #[test]
    fn keys_are_short_and_printable() {
        let limits = StoryLimits::default();
        assert_eq!(key(&"k".repeat(64), &limits), Ok(()));
        for wrong in ["", "a\nb", &"k".repeat(65)] {
            assert_eq!(key(wrong, &limits).unwrap_err().code, ErrorCode::BadRequest, "{wrong:?}");
        }
    }
}
