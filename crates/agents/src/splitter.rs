//! Parts a reply into prose and choices while it streams: raw text goes in, visible text comes out, and every line that
//! begins with `>>` is kept aside as a choice. Used by a generation for every provider.

/// What readers see of a reply, and the choices that it offers.
///
/// Visible text never begins or ends with white space (it is held back until something follows), so that what was
/// streamed is exactly what the turn says.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    /// White space since the last visible character.
    held: String,
    /// Whether anything visible has come.
    begun: bool,
    label: String,
    choices: Vec<String>,
    choices_max: usize,
    chars_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space on this line so far.
    LineStart,
    /// One `>` at the start of the line.
    OneMark,
    /// In prose.
    Prose,
    /// After `>>`, until the line ends.
    Choice,
}

/// White space that is held back at most; more between two words is dropped.
const HELD_CHARS_MAX: usize = 64;

impl Splitter {
    pub(crate) fn new(choices_max: usize, chars_max: usize) -> Self {
        Self {
            state: State::LineStart,
            held: String::new(),
            begun: false,
            label: String::new(),
            choices: Vec::new(),
            choices_max,
            chars_max,
        }
    }

    /// Takes the next piece, however the reply was cut, and adds what can be shown to `visible`.
    pub(crate) fn push(&mut self, piece: &str, visible: &mut String) {
        for c in piece.chars() {
            self.take(c, visible);
        }
    }

    fn take(&mut self, c: char, visible: &mut String) {
        // Control characters have no place in a story, and a terminal or an editor may act on them.
        if c.is_control() && !matches!(c, '\n' | '\t') {
            return;
        }
        match self.state {
            State::Choice if c == '\n' => self.end_choice(),
            State::Choice => {
                if self.label.len() < self.chars_max * 8 {
                    self.label.push(c);
                }
            }
            State::LineStart if c == '>' => self.state = State::OneMark,
            State::OneMark if c == '>' => {
                self.state = State::Choice;
                self.label.clear();
            }
            State::OneMark => {
                self.show('>', visible);
                self.state = State::Prose;
                self.take(c, visible);
            }
            State::LineStart | State::Prose if c.is_whitespace() => {
                if self.begun && self.held.chars().count() < HELD_CHARS_MAX {
                    self.held.push(c);
                }
                if c == '\n' {
                    self.state = State::LineStart;
                }
            }
            State::LineStart | State::Prose => {
                self.show(c, visible);
                self.state = State::Prose;
            }
        }
    }

    fn show(&mut self, c: char, visible: &mut String) {
        visible.push_str(&self.held);
        self.held.clear();
        visible.push(c);
        self.begun = true;
    }

    fn end_choice(&mut self) {
        self.state = State::LineStart;
        let label = clean_label(&self.label, self.chars_max);
        self.label.clear();
        if !label.is_empty() && self.choices.len() < self.choices_max && !self.choices.contains(&label) {
            self.choices.push(label);
        }
    }

    /// The reply has ended: gives out what was held back and still belongs to the prose, and the choices.
    pub(crate) fn finish(mut self, visible: &mut String) -> Vec<String> {
        match self.state {
            State::Choice => self.end_choice(),
            State::OneMark => self.show('>', visible),
            State::LineStart | State::Prose => {}
        }
        self.choices
    }
}

/// A choice's label without the ornaments that models put around it, cut at a word if it is too long.
fn clean_label(raw: &str, chars_max: usize) -> String {
    let mut words = String::new();
    for word in raw.trim_start_matches('>').split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    let label = words.trim_matches(|c| matches!(c, '*' | '_' | '"' | '“' | '”' | '`' | ' '));
    if label.chars().count() <= chars_max {
        return label.to_owned();
    }
    let cut: String = label.chars().take(chars_max - 1).collect();
    let at_word = cut.rfind(' ').filter(|at| *at > cut.len() / 2).unwrap_or(cut.len());
    format!("{}…", cut[..at_word].trim_end_matches([',', ';', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str]) -> (String, Vec<String>) {
        let mut splitter = Splitter::new(4, 40);
        let mut visible = String::new();
        for piece in pieces {
            splitter.push(piece, &mut visible);
        }
        let choices = splitter.finish(&mut visible);
        (visible, choices)
    }

    fn check(raw: &str, visible: &str, choices: &[&str]) {
        let expected = (visible.to_owned(), choices.iter().map(|c| (*c).to_owned()).collect());
        assert_eq!(split(&[raw]), expected, "whole");
        let chars: Vec<String> = raw.chars().map(String::from).collect();
        assert_eq!(split(&chars.iter().map(String::as_str).collect::<Vec<_>>()), expected, "one by one");
    }

    #[test]
    fn choices_are_kept_out_of_the_prose() {
        check("\n The fox ran. \n\n>> Follow it\n>> Go home\n", "The fox ran.", &["Follow it", "Go home"]);
        check("Prose.\n>> \"**Open the door**\"\r\n  >>> Wait", "Prose.", &["Open the door", "Wait"]);
        check("Prose.\n>>\n>> a\n>> a\n>> b\n>> c\n>> d\n>> e", "Prose.", &["a", "b", "c", "d"]);
    }

    #[test]
    fn marks_inside_prose_stay() {
        check("3 >> 2\n> quoted\n>", "3 >> 2\n> quoted\n>", &[]);
        check("A\n>> x\nand on", "A\nand on", &["x"]);
    }

    #[test]
    fn text_without_choices_is_left_as_it_is() {
        check("Été 🦊\n\n\tend", "Été 🦊\n\n\tend", &[]);
        check("", "", &[]);
        check("a\u{0}b\u{1b}[31mc\r\n", "ab[31mc", &[]);
    }

    #[test]
    fn long_labels_are_cut_at_a_word() {
        let label = "go down the very long and winding staircase into the dark";
        check(&format!("x\n>> {label}"), "x", &["go down the very long and winding…"]);
        let endless = ">>".to_owned() + &"x".repeat(100_000);
        assert_eq!(split(&[&endless]).1[0].chars().count(), 40);
    }
}
