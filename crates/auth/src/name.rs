//! The names that people show each other: what was typed in, a name that cannot deceive out.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::error::BadName;

/// The longest name in characters as people count them (grapheme clusters).
pub const NAME_CHARS_MAX: usize = 40;

/// The longest name in bytes: one character can be made of many.
pub const NAME_BYTES_MAX: usize = 320;

/// The most combining marks in a row; more stack up over other people's lines.
pub const MARKS_MAX: usize = 4;

/// Names that would be taken for the server, an agent or somebody with power, as [`skeleton`]s.
const RESERVED: [&str; 18] = [
    "admin",
    "administrator",
    "agent",
    "ai",
    "anonymous",
    "assistant",
    "bot",
    "everyone",
    "mod",
    "moderator",
    "narrator",
    "official",
    "owner",
    "root",
    "server",
    "staff",
    "system",
    "talewire",
];

/// Checks a display name and brings it into one form: compatibility forms composed (NFKC), trimmed, single spaces.
///
/// # Errors
/// [`BadName`] says what to change.
pub fn display_name(typed: &str) -> Result<String, BadName> {
    // Before any work: no name that is allowed comes from so much text.
    if typed.len() > 4 * NAME_BYTES_MAX {
        return Err(BadName::TooLong);
    }
    // Looked at before and after: NFKC must not hide what was typed, nor make what was not.
    if typed.trim().chars().any(is_forbidden) {
        return Err(BadName::Invisible);
    }
    let normal: String = typed.nfkc().collect();
    let name = normal.split_whitespace().collect::<Vec<_>>().join(" ");
    if name.chars().any(is_forbidden) {
        return Err(BadName::Invisible);
    }
    if !name.chars().any(is_visible) {
        return Err(BadName::Empty);
    }
    if name.len() > NAME_BYTES_MAX || name.graphemes(true).count() > NAME_CHARS_MAX {
        return Err(BadName::TooLong);
    }
    if longest_run_of_marks(&name) > MARKS_MAX {
        return Err(BadName::Marks);
    }
    // The whole name, and its first and last word: "Narrator (AI)" and "The Moderator" pretend as well.
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let looked_at = [Some(name.as_str()), words.first().copied(), words.last().copied()];
    let reserved = |text: &str| ['i', 'l'].iter().any(|one| RESERVED.contains(&skeleton(text, *one).as_str()));
    if looked_at.into_iter().flatten().any(reserved) {
        return Err(BadName::Reserved);
    }
    Ok(name)
}

/// Control characters, text direction, line separators, fillers, tags, private use and non-characters. The two joiners
/// U+200C and U+200D are not among them: Persian and family emoji need them.
fn is_forbidden(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    let nobodys = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{f0000}'..)
        || u32::from(c) & 0xfffe == 0xfffe;
    c.is_control() || invisible || nobodys
}

fn is_visible(c: char) -> bool {
    let leaves_nothing = matches!(c, '\u{200c}' | '\u{200d}' | '\u{2800}' | '\u{fe00}'..='\u{fe0f}');
    !c.is_whitespace() && !leaves_nothing && !is_combining_mark(c)
}

/// Counted on the decomposed form, where a composed letter's accents are marks too.
fn longest_run_of_marks(name: &str) -> usize {
    let mut run = 0;
    let mut longest = 0;
    for c in name.nfd() {
        run = if is_combining_mark(c) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// What is left of a name for somebody who reads quickly: letters alone, without case, accents, and the Cyrillic,
/// Greek and digit look-alikes of Latin ones. The digit 1 stands for `one`: it looks like two letters.
fn skeleton(name: &str, one: char) -> String {
    // Capitals first: a Greek Nu looks like N, while its small letter looks like v.
    let capitals = name.nfkd().map(|c| match c {
        'Ν' => 'n',
        'Μ' => 'm',
        'Β' => 'b',
        'Υ' => 'y',
        'Η' => 'h',
        'Ρ' => 'p',
        'Χ' => 'x',
        'Ζ' => 'z',
        other => other,
    });
    let plain = capitals.flat_map(char::to_lowercase).map(|c| match c {
        'а' | 'α' | '4' => 'a',
        'е' | 'ε' | '3' => 'e',
        'і' | 'ι' | 'ı' => 'i',
        '1' => one,
        'о' | 'ο' | '0' => 'o',
        'ѕ' | '5' | '$' => 's',
        'р' | 'ρ' => 'p',
        'с' => 'c',
        'т' | 'τ' | '7' => 't',
        'у' => 'y',
        'м' => 'm',
        'в' | 'ь' => 'b',
        'н' => 'h',
        'к' | 'κ' => 'k',
        'ѵ' | 'ν' => 'v',
        'ԁ' => 'd',
        'ո' => 'n',
        other => other,
    });
    plain.filter(|c| c.is_alphanumeric() && !is_combining_mark(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, expected: Result<&str, BadName>) {
        assert_eq!(display_name(typed).as_deref().map_err(|e| *e), expected, "{typed:?}");
    }

    #[test]
    fn names_of_people_pass_in_one_form() {
        for name in ["Ana", "Ünal", "李小龍", "محمد", "नरेन्द्र", "O'Brien-Núñez", "👩‍👩‍👧", "می‌خواهم", "x", "Adminah", "Al"]
        {
            check(name, Ok(name));
        }
        check("  Ana   Maria ", Ok("Ana Maria"));
        check("\tAna\n", Ok("Ana"));
        check("U\u{308}nal", Ok("Ünal"));
        check("Ａｎａ", Ok("Ana"));
        check("Ngô Thế Việt", Ok("Ngô Thế Việt"));
    }

    #[test]
    fn length_is_counted_in_characters_and_bounded_in_bytes() {
        check(&"é".repeat(40), Ok(&"é".repeat(40)));
        check(&"é".repeat(41), Err(BadName::TooLong));
        check(&"👩‍👩‍👧".repeat(17), Ok(&"👩‍👩‍👧".repeat(17)));
        check(&"👩‍👩‍👧".repeat(18), Err(BadName::TooLong));
        check(&"x".repeat(1 << 20), Err(BadName::TooLong));
    }

    #[test]
    fn nothing_visible_is_no_name() {
        for empty in ["", "   ", "\u{200d}", "\u{200c}\u{200d}", "\u{2800}", "\u{301}", "\u{fe0f}", "\u{3000}"] {
            check(empty, Err(BadName::Empty));
        }
    }

    #[test]
    fn what_changes_a_line_unseen_is_refused() {
        for c in [
            '\0',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{202e}',
            '\u{2066}',
            '\u{200f}',
            '\u{2028}',
            '\u{200b}',
            '\u{feff}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{e0041}',
            '\u{e000}',
            '\u{ffff}',
            '\u{10ffff}',
        ] {
            check(&format!("A{c}na"), Err(BadName::Invisible));
        }
        check("A\r\nSet-Cookie: x", Err(BadName::Invisible));
    }

    #[test]
    fn accents_do_not_pile_up() {
        check(&format!("q{}", "\u{301}".repeat(4)), Ok(&format!("q{}", "\u{301}".repeat(4))));
        check(&format!("q{}", "\u{301}".repeat(5)), Err(BadName::Marks));
        check(&format!("\u{e9}{}", "\u{301}".repeat(4)), Err(BadName::Marks));
    }

    #[test]
    fn nobody_is_called_like_the_house() {
        for name in [
            "system",
            "SYSTEM",
            "Narrator",
            " ai ",
            "A.I.",
            "Mod",
            "ＡＤＭＩＮ",
            "a d m i n",
            "Аdmin",
            "Àdmin",
            "adm1n",
            "r00t",
            "Moderator!",
            "5ystem",
            "officia1",
            "Narrator (AI)",
            "The Narrator",
            "\u{39d}arrator",
            "\u{39c}OD",
            "\u{392}ot",
        ] {
            check(name, Err(BadName::Reserved));
        }
    }

    #[test]
    fn the_list_is_written_as_it_is_compared() {
        for name in RESERVED {
            check(name, Err(BadName::Reserved));
        }
    }
}
