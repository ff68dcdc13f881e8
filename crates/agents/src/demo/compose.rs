//! Composes one passage: a tale and a source of chance go in, prose with two choices comes out. Pure and repeatable.

use fastrand::Rng;

use crate::context::{Tale, TaleTurn};
use crate::demo::moods::{
    AFTER_CHOICE, AFTER_QUESTION, AFTER_SPEECH, EMOJI, Event, MOODS, Mood, OPENINGS, PICKUPS, VOICES, WISHES,
};
use crate::demo::voice;
use crate::demo::words::Lexicon;

/// Words of a passage, unless a directive asks for more.
const WORDS_MIN: usize = 70;
const WORDS_MAX: usize = 138;
/// A wish that is longer is not quoted whole.
const WISH_CHARS_MAX: usize = 70;

/// What is asked for besides the tale.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// About how many words, if not the usual number.
    pub(crate) words: Option<usize>,
    /// Whether emoji belong in it.
    pub(crate) emoji: bool,
}

/// Composes the next passage of a tale whose texts hold no directives any more.
pub(crate) fn compose(tale: &Tale, asked: Asked, rng: &mut Rng) -> String {
    let wish = tale.instruction.as_deref().map(str::trim).filter(|wish| !wish.is_empty()).unwrap_or("");
    let mut teller = Teller::new(tale, wish, rng);
    let mood = teller.mood(wish);

    let own_deeds: Vec<&'static str> = mood.deeds.iter().copied().filter(|deed| deed.contains("{hero}")).collect();
    let first_half = vec![teller.pick_up(), teller.sentence(mood.scenes), teller.sentence(&own_deeds)];
    let mut second_half = Vec::new();
    if !wish.is_empty() {
        second_half.push(teller.wish(wish));
    }
    if asked.emoji {
        second_half.push(EMOJI.into());
    }
    if let Some(line) = teller.murmur() {
        second_half.push(line);
    }
    let event = teller.event(mood);
    second_half.push(teller.fill(event.text));
    second_half.push(teller.sentence(mood.hooks));

    let mut paragraphs = vec![first_half, second_half];
    match asked.words {
        Some(words) => teller.lengthen(&mut paragraphs, words),
        None => teller.fit(&mut paragraphs, mood),
    }
    let prose = paragraphs.iter().map(|p| p.join(" ")).collect::<Vec<_>>().join("\n\n");
    let choices = event.choices.map(|choice| teller.fill(choice));
    format!("{prose}\n\n>> {}\n>> {}\n", choices[0], choices[1])
}

struct Teller<'a> {
    tale: &'a Tale,
    rng: &'a mut Rng,
    lexicon: Lexicon,
    /// What was told lately, so that nothing is told twice.
    told: String,
    /// Nouns are taken in turn, so that one passage does not hang on a single one.
    noun: usize,
}

impl<'a> Teller<'a> {
    fn new(tale: &'a Tale, wish: &str, rng: &'a mut Rng) -> Self {
        let lexicon = Lexicon::learn(tale, wish, rng);
        let recent = tale.turns.iter().rev().filter(|turn| turn.by_agent).take(8);
        let told = recent.map(|turn| turn.text.as_str()).collect::<Vec<_>>().join("\n");
        Self { tale, rng, lexicon, told, noun: 0 }
    }

    fn last(&self) -> Option<&'a TaleTurn> {
        self.tale.turns.last()
    }

    /// The mood that the wish or the last turn calls for, else one that the last passage did not have.
    fn mood(&mut self, wish: &str) -> &'static Mood {
        let last = self.last().filter(|turn| !turn.by_agent).map_or("", |turn| turn.text.as_str()).to_lowercase();
        let wish = wish.to_lowercase();
        let is_form = |word: &str, call: &str| {
            word.strip_prefix(call)
                .is_some_and(|rest| matches!(rest, "" | "s" | "y" | "es" | "ed" | "ing" | "ly" | "ful"))
        };
        let calls = |text: &str, mood: &Mood| {
            let words = text.split(|c: char| !c.is_alphanumeric());
            words.filter(|word| mood.called_by.iter().any(|call| is_form(word, call))).count()
        };
        let mut order: Vec<&'static Mood> = MOODS.iter().collect();
        self.rng.shuffle(&mut order);
        let score = |mood: &Mood| {
            let told = mood
                .events
                .iter()
                .map(|e| e.text)
                .chain(mood.scenes.iter().copied())
                .filter(|t| self.told.contains(longest_literal(t)))
                .count();
            // A wish decides; a turn's words only weigh as much as not having had the mood lately.
            (calls(&wish, mood) * 100 + calls(&last, mood).min(2) * 2 + 20).saturating_sub(told)
        };
        // The first of the best in shuffled order.
        order.into_iter().rev().max_by_key(|mood| score(mood)).expect("there are moods")
    }

    /// The first sentence: it takes up what was last written.
    fn pick_up(&mut self) -> String {
        let Some(last) = self.last() else {
            let title = one_line(&self.tale.title);
            return self.sentence(OPENINGS).replace("{title}", &title);
        };
        if last.is_choice {
            let choice = one_line(&last.text);
            let choice = choice.trim_end_matches(['.', '!']);
            return capitalised(&self.sentence(AFTER_CHOICE).replace("{choice}", choice));
        }
        let text = last.text.trim_end();
        let told_by_person = !last.by_agent;
        if told_by_person && text.ends_with(['"', '”']) && self.rng.u8(..4) > 0 {
            return self.sentence(AFTER_SPEECH);
        }
        if told_by_person && text.ends_with('?') && self.rng.u8(..4) > 0 {
            return self.sentence(AFTER_QUESTION);
        }
        let echo = if told_by_person { std::mem::take(&mut self.lexicon.echo) } else { String::new() };
        let fitting: Vec<&'static str> =
            PICKUPS.iter().copied().filter(|p| !echo.is_empty() || !p.contains("{echo}")).collect();
        let sentence = self.sentence(&fitting);
        capitalised(&sentence.replace("{echo}", echo.trim_end_matches(['.', '?', '!'])))
    }

    fn wish(&mut self, wish: &str) -> String {
        let wish = one_line(wish);
        let mut quoted: String = wish.chars().take(WISH_CHARS_MAX).collect();
        if quoted.len() < wish.len() {
            quoted.truncate(quoted.rfind(' ').unwrap_or(quoted.len()));
            quoted.push('…');
        }
        let quoted = quoted.replace(['“', '”', '"'], "");
        capitalised(&self.sentence(WISHES).replace("{wish}", quoted.trim_end_matches('.')))
    }

    /// One line of the half-asleep voice, in about every second passage that has enough to go on.
    fn murmur(&mut self) -> Option<String> {
        if self.rng.bool() {
            return None;
        }
        let texts: Vec<&str> =
            self.tale.turns.iter().filter(|t| !t.by_agent && !t.is_choice).map(|t| t.text.as_str()).collect();
        let line = voice::murmur(&texts, self.rng)?;
        // The same dream twice is a bore.
        if self.told.to_lowercase().contains(&line.to_lowercase()) {
            return None;
        }
        let sentence = self.sentence(VOICES);
        Some(capitalised(&sentence.replace("{voice}", &line)))
    }

    fn event(&mut self, mood: &'static Mood) -> &'static Event {
        let mut order: Vec<&'static Event> = mood.events.iter().collect();
        self.rng.shuffle(&mut order);
        let fresh = order.iter().find(|event| !self.told.contains(longest_literal(event.text))).copied();
        fresh.unwrap_or(order[0])
    }

    /// A sentence of the table that was not told lately, with its slots filled.
    fn sentence(&mut self, table: &[&'static str]) -> String {
        let mut order: Vec<&'static str> = table.to_vec();
        self.rng.shuffle(&mut order);
        let fresh = order.iter().find(|sentence| !self.told.contains(longest_literal(sentence))).copied();
        let sentence = fresh.unwrap_or(order[0]);
        self.told.push_str(longest_literal(sentence));
        self.fill(sentence)
    }

    /// Fills the slots that every sentence may have.
    fn fill(&mut self, sentence: &str) -> String {
        let nouns = &self.lexicon.nouns;
        let noun = nouns[self.noun % nouns.len().min(4)].clone();
        let other = nouns[(self.noun + 1) % nouns.len().min(4)].clone();
        if sentence.contains("{noun") {
            self.noun += 1;
        }
        let (hero, friend) = (self.lexicon.hero.clone(), self.lexicon.friend.clone());
        let filled = sentence.replace("{noun2}", &other).replace("{noun}", &noun);
        capitalised(&filled.replace("{hero}", &hero).replace("{friend}", &friend))
    }

    /// Brings a passage between its bounds.
    fn fit(&mut self, paragraphs: &mut [Vec<String>], mood: &Mood) {
        for _ in 0..4 {
            if count(paragraphs) >= WORDS_MIN {
                break;
            }
            let table = if self.rng.bool() { mood.scenes } else { mood.deeds };
            let more = self.sentence(table);
            paragraphs[0].push(more);
        }
        // The last two sentences carry the choices, the first one the turn before: what lies between may go.
        while count(paragraphs) > WORDS_MAX && paragraphs[0].len() > 3 {
            paragraphs[0].pop();
        }
        while count(paragraphs) > WORDS_MAX && paragraphs[1].len() > 3 {
            let at = paragraphs[1].len() - 3;
            paragraphs[1].remove(at);
        }
    }

    /// Adds paragraphs before the last one until there are about as many words as asked for.
    fn lengthen(&mut self, paragraphs: &mut Vec<Vec<String>>, words: usize) {
        let mut at = self.rng.usize(..MOODS.len());
        while count(paragraphs) < words {
            let mood = &MOODS[at % MOODS.len()];
            at += 1;
            let event = self.event(mood);
            self.told.push_str(longest_literal(event.text));
            if at.is_multiple_of(3 * MOODS.len()) {
                // Everything has been told by now: begin again rather than never end.
                self.told.clear();
            }
            let paragraph = vec![self.sentence(mood.scenes), self.sentence(mood.deeds), self.fill(event.text)];
            let before_last = paragraphs.len() - 1;
            paragraphs.insert(before_last, paragraph);
        }
    }
}

fn count(paragraphs: &[Vec<String>]) -> usize {
    paragraphs.iter().flatten().map(|sentence| sentence.split_whitespace().count()).sum()
}

/// The part of a template that stands in every sentence made of it.
fn longest_literal(template: &str) -> &str {
    template.split(['{', '}']).max_by_key(|part| part.len()).unwrap_or("")
}

fn capitalised(text: &str) -> String {
    let at = text.find(|c: char| !matches!(c, '“' | '(')).unwrap_or(0);
    let mut chars = text[at..].chars();
    let Some(first) = chars.next() else { return text.into() };
    // A slot that is still to be filled keeps its name.
    if first == '{' {
        return text.into();
    }
    format!("{}{}{}", &text[..at], first.to_uppercase(), chars.as_str())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tale(turns: &[(&str, &str)], instruction: Option<&str>) -> Tale {
        let turns = turns.iter().enumerate().map(|(at, (author, text))| TaleTurn {
            number: at as u64 + 1,
            author: (*author).into(),
            by_agent: *author == "Narrator",
            is_choice: author.starts_with('>'),
            text: (*text).into(),
        });
        Tale {
            story: "s".into(),
            title: "The Lighthouse".into(),
            cast: vec!["Ana".into(), "Ben".into()],
            turns: turns.collect(),
            instruction: instruction.map(Into::into),
        }
    }

    fn prose(passage: &str) -> (String, Vec<String>) {
        let (choices, prose): (Vec<&str>, Vec<&str>) = passage.lines().partition(|line| line.starts_with(">> "));
        (prose.join("\n"), choices.into_iter().map(|c| c[3..].to_owned()).collect())
    }

    #[test]
    fn every_passage_has_its_length_and_two_choices() {
        let tales = [
            tale(&[], None),
            tale(&[("Ana", "The old lighthouse had been dark for years.")], None),
            tale(&[("Ana", "x"), (">Ben", "Go down the stair, toward the music")], Some("make it rain, please")),
            tale(&[("Ben", "“Who is there?”")], Some(&"long wish ".repeat(50))),
            tale(&[("Ana", "Ist da wer? 🦊")], None),
        ];
        for seed in 0..400 {
            for tale in &tales {
                let passage = compose(tale, Asked::default(), &mut Rng::with_seed(seed));
                let (text, choices) = prose(&passage);
                let words = text.split_whitespace().count();
                assert!((60..=140).contains(&words), "{words} words: {text}");
                assert!(choices.len() == 2 && choices[0] != choices[1], "{passage}");
                assert!(!passage.contains(['{', '}']), "a slot is left: {passage}");
                assert!(!text.contains("  ") && !text.contains(".”."), "{text}");
            }
        }
    }

    #[test]
    fn what_people_wrote_is_picked_up() {
        let tale = tale(&[("Ana", "Mira found the brass compass under the floor.")], None);
        for seed in 0..50 {
            let passage = compose(&tale, Asked::default(), &mut Rng::with_seed(seed));
            assert!(passage.contains("compass") && passage.contains("Mira"), "{passage}");
        }
    }

    #[test]
    fn a_choice_and_a_wish_are_taken_up() {
        let tale = tale(&[("Ana", "A door."), (">Ben", "Knock back, four times")], Some("more thunder"));
        let passage = compose(&tale, Asked::default(), &mut Rng::with_seed(3));
        assert!(
            passage.contains("“Knock back, four times") && passage.to_lowercase().contains("“more thunder”"),
            "{passage}"
        );
    }

    #[test]
    fn nothing_is_told_twice_in_a_story() {
        let mut turns: Vec<(String, String)> = vec![("Ana".into(), "The fox sat on the wall.".into())];
        for round in 0..6 {
            let borrowed: Vec<(&str, &str)> = turns.iter().map(|(a, t)| (a.as_str(), t.as_str())).collect();
            let (text, _) = prose(&compose(&tale(&borrowed, None), Asked::default(), &mut Rng::with_seed(round)));
            for mood in MOODS {
                for scene in mood.scenes.iter().chain(mood.hooks) {
                    let literal = longest_literal(scene);
                    let before = turns.iter().filter(|(_, told)| told.contains(literal)).count();
                    assert!(!text.contains(literal) || before == 0, "told twice: {scene}");
                }
            }
            turns.push(("Narrator".into(), text));
            turns.push(("Ben".into(), format!("The fox opened the box number {round}.")));
        }
    }

    #[test]
    fn long_passages_end() {
        let tale = tale(&[("Ana", "The fox sat on the wall.")], None);
        let asked = Asked { words: Some(1_500), emoji: true };
        let passage = compose(&tale, asked, &mut Rng::with_seed(3));
        let words = passage.split_whitespace().count();
        assert!((1_500..1_600).contains(&words) && passage.contains("👩‍🚀"), "{words}");
    }
}
