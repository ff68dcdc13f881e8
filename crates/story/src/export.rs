//! A story as Markdown: the title, its authors, the turns of one path with quiet attributions, the choices marked.
//!
//! Everything that people or agents wrote is escaped, so that a turn can forge no heading, quotation, attribution, link
//! or HTML: in CommonMark a backslash before any ASCII punctuation makes it plain text.

use std::fmt::Write as _;

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{BranchId, ErrorCode, StoryId};
use talewire_store::{AuthorKind, PageSize, Refusal, Turn, TurnKind};

use crate::refusal::{not_found, of_store};
use crate::{Caller, Stories};

/// A file to hand out.
#[derive(Clone, PartialEq, Eq)]
pub struct Export {
    /// A name of `a-z 0-9 -` that ends in `.md`.
    pub file_name: String,
    /// The Markdown.
    pub text: String,
}

/// Shows lengths, never the text.
impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Export({} bytes)", self.text.len())
    }
}

impl Stories {
    /// The path of a branch (the live one if none is named) as Markdown, for any member.
    ///
    /// # Errors
    /// Not found for strangers and for branches that are not there, 106 for a story beyond the limit.
    pub async fn export_markdown(
        &self,
        who: &Caller,
        story: &StoryId,
        branch: Option<BranchId>,
    ) -> Result<Export, Refusal> {
        self.member(who, story).await?;
        let size = PageSize { turns_max: self.limits.page_turns_max.max(1), bytes_max: self.limits.page_bytes_max };
        let view = self.store.story_view(story, branch.as_ref(), size).await.map_err(of_store)?;
        let view = view.ok_or_else(|| not_found("story or branch"))?;
        // A path only grows at its end: older pages, read later, still fit before the newest.
        let mut pages = vec![view.page.turns];
        let mut more = view.page.more;
        let mut bytes = text_bytes(&pages[0]);
        while more {
            let Some(first) = pages.last().and_then(|page| page.first()) else { break };
            let page = self.store.turns_before(story, &view.branch, &first.id, size).await.map_err(of_store)?;
            let page = page.ok_or_else(|| not_found("branch"))?;
            bytes += text_bytes(&page.turns);
            if bytes > self.limits.export_bytes_max {
                return Err(Refusal::new(ErrorCode::LimitExceeded, "the story is too long for one file"));
            }
            more = page.more;
            pages.push(page.turns);
        }
        let turns: Vec<Turn> = pages.into_iter().rev().flatten().collect();
        let title = view.story.title.as_str();
        Ok(Export { file_name: file_name(title), text: markdown(title, &turns) })
    }
}

fn text_bytes(turns: &[Turn]) -> usize {
    turns.iter().map(|turn| turn.text.as_str().len()).sum()
}

/// The whole file.
fn markdown(title: &str, turns: &[Turn]) -> String {
    let mut text = format!("# {}\n", line(title));
    let mut authors: Vec<String> = Vec::new();
    for turn in turns {
        let author = match turn.author.kind {
            AuthorKind::Person => line(&turn.author.name),
            AuthorKind::Agent => format!("{} (AI)", line(&turn.author.name)),
        };
        if !authors.contains(&author) {
            authors.push(author);
        }
    }
    if !authors.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\nBy {}\n", authors.join(", "));
    }
    for turn in turns {
        let name = line(&turn.author.name);
        let _ = match (turn.kind, &turn.generation) {
            (TurnKind::Choice, _) => write!(text, "\n> **Choice:** {} (picked by {name})\n", line(turn.text.as_str())),
            (TurnKind::Prose, None) => write!(text, "\n{}\n\n*— {name}*\n", passage(turn.text.as_str())),
            (TurnKind::Prose, Some(made)) => {
                let end = if made.status == GenerationStatus::Cancelled { " — stopped here" } else { "" };
                write!(text, "\n{}\n\n*— {name} ({}){end}*\n", passage(turn.text.as_str()), line(&made.label))
            }
        };
    }
    text
}

/// A text of several lines: a blank line stays the end of a paragraph, a single line feed stays a line's end.
fn passage(text: &str) -> String {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for raw in text.split('\n').chain([""]) {
        if !raw.trim().is_empty() {
            lines.push(line(raw));
        } else if !lines.is_empty() {
            paragraphs.push(lines.join("\\\n"));
            lines.clear();
        }
    }
    paragraphs.join("\n\n")
}

/// One line, without any meaning in Markdown or HTML. White space at its start, which would make it code, is kept as
/// spaces that do not break.
fn line(text: &str) -> String {
    let text = text.trim_end();
    let body = text.trim_start();
    let mut out = String::with_capacity(text.len() + 8);
    for c in text[..text.len() - body.len()].chars() {
        out.push_str(if c == '\t' { "\u{a0}\u{a0}\u{a0}\u{a0}" } else { "\u{a0}" });
    }
    let digits = body.bytes().take_while(u8::is_ascii_digit).count();
    for (at, c) in body.char_indices() {
        let everywhere = matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '#' | '|' | '~' | '$');
        let at_start = at == 0 && matches!(c, '-' | '+' | '=' | ':');
        let after_number = at == digits && digits > 0 && matches!(c, '.' | ')');
        if everywhere || at_start || after_number {
            out.push('\\');
        }
        out.push(if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c });
    }
    out
}

/// A file name of the title's ASCII letters and digits.
fn file_name(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars() {
        if name.len() >= 60 {
            break;
        }
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "story.md".to_owned() } else { format!("{name}.md") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use talewire_store::{Author, TurnGeneration};

    fn turn(kind: TurnKind, name: &str, text: &str) -> Turn {
        Turn {
            id: "t1".parse().unwrap(),
            branch: "b1".parse().unwrap(),
            number: 1,
            author: Author { kind: AuthorKind::Person, id: "u".into(), name: name.into() },
            kind,
            text: text.into(),
            created_at: 0,
            generation: None,
        }
    }

    #[test]
    fn a_story_reads_as_a_story() {
        let turns =
            [turn(TurnKind::Prose, "Ana", "One.\nTwo.\n\nThree."), turn(TurnKind::Choice, "Ben", "Open the door")];
        assert_eq!(
            markdown("The Fox", &turns),
            "# The Fox\n\nBy Ana, Ben\n\nOne.\\\nTwo.\n\nThree.\n\n*— Ana*\n\n> **Choice:** Open the door (picked by Ben)\n"
        );
    }

    #[test]
    fn a_turn_that_was_stopped_says_so() {
        let made = |status| {
            let generation = TurnGeneration { id: "g1".parse().unwrap(), attempt: 1, status, label: "demo".into() };
            markdown("x", &[Turn { generation: Some(generation), ..turn(TurnKind::Prose, "Narrator", "It sno") }])
        };
        assert!(made(GenerationStatus::Cancelled).ends_with("\nIt sno\n\n*— Narrator (demo) — stopped here*\n"));
        assert!(made(GenerationStatus::Done).ends_with("\nIt sno\n\n*— Narrator (demo)*\n"));
    }

    #[test]
    fn nothing_that_was_written_has_a_meaning_in_markdown() {
        for (written, escaped) in [
            ("# Heading", "\\# Heading"),
            ("Title\n===", "Title\\\n\\==="),
            ("Title\n---", "Title\\\n\\---"),
            ("- item", "\\- item"),
            ("12. item", "12\\. item"),
            ("1) item", "1\\) item"),
            ("> quote", "\\> quote"),
            ("    code", "\u{a0}\u{a0}\u{a0}\u{a0}code"),
            ("\tcode", "\u{a0}\u{a0}\u{a0}\u{a0}code"),
            ("```", "\\`\\`\\`"),
            ("~~~", "\\~\\~\\~"),
            ("<script>x</script>", "\\<script\\>x\\</script\\>"),
            ("&lt;b>", "\\&lt;b\\>"),
            ("*— Ben*", "\\*— Ben\\*"),
            ("[x](javascript:1)", "\\[x\\](javascript:1)"),
            ("a\\", "a\\\\"),
            ("3.5 miles", "3\\.5 miles"),
            ("x\n\n\n\ny", "x\n\ny"),
        ] {
            assert_eq!(passage(written), escaped);
        }
    }

    #[test]
    fn file_names_are_safe() {
        for (title, name) in [
            ("The Fox & I", "the-fox-i.md"),
            ("../../etc/passwd", "etc-passwd.md"),
            ("狐", "story.md"),
            ("a\"b;c", "a-b-c.md"),
        ] {
            assert_eq!(file_name(title), name);
        }
        assert!(file_name(&"x".repeat(120)).len() <= 63);
    }
}
