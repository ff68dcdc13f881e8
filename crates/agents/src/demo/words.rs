//! What the demo storyteller remembers of a story: names, nouns and a phrase of the last turn, found by simple rules on
//! English text. In other languages it finds less and falls back on its own things.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::context::Tale;

/// The story's own words, ready to be put into sentences.
#[derive(Clone)]
pub(crate) struct Lexicon {
    /// Whom the passage is about.
    pub(crate) hero: String,
    /// Who else is there; may begin with "the".
    pub(crate) friend: String,
    /// Things, the most present first; at least four, none twice.
    pub(crate) nouns: Vec<String>,
    /// A phrase of the last turn, without quotes or a final stop; empty if there is none that reads well.
    pub(crate) echo: String,
}

const COMPANIONS: &[&str] = &[
    "the lamplighter",
    "the ferryman's daughter",
    "the old clockmaker",
    "the girl with the brass whistle",
    "the postman",
    "the tall stranger",
    "the boy who sold matches",
    "the night baker",
];

const THINGS: &str = "\
    lantern gate river bell map staircase orchard kettle mirror tower ladder piano";

const DETERMINERS: &str = "\
    the a an her his their my our your this that these those every each no another";

const ADJECTIVES: &str = "\
    old new young small little big great tall long short dark bright pale black white red blue green grey gray brown \
    golden silver gold wooden iron stone glass paper cold warm hot wet dry deep high low slow quick quiet loud soft \
    hard strange same other own very more most next last first second third final good bad best whole half huge tiny \
    empty full open wild wide narrow thin thick heavy light single only poor rich dead brave clever ancient secret \
    hidden broken two three four five six seven few many wrong right left hollow crooked round strong weak sharp \
    brass copper tin steel bronze silk velvet marble rusty dusty dirty sleepy lonely lost forgotten frozen burning \
    giant mysterious purple yellow orange pink violet crimson nice";

/// Words after a determiner that name nothing one could walk around.
const FAINT: &str = "\
    way thing things moment time times lot bit rest one ones end start day days kind sort idea reason fact case hour \
    minute second morning evening night while word words name side part place point top bottom middle back front \
    edge hand hands eye eyes head face voice heart mind arm arms foot feet breath mouth year years people man woman \
    men women someone anyone who which what was were is are had has and but not for from with into all such much too \
    than then there they story turn narrator choice sound smell sense feeling question answer problem truth";

/// Nouns that end like verbs.
const SOLID_ING: &str = "\
    ring king string spring wing painting building ceiling clearing landing sling pudding wedding";

/// Words that begin sentences and are no names.
const STARTERS: &str = "\
    the a an and but or so then when while where who what why how if in on at by of to for from with without under \
    over after before behind beside between he she it we they you i his her its our their my your this that these \
    those there here now once one two three no not nothing nobody someone something somebody everyone everything all \
    some every each as just only even still yet soon yes oh ah well maybe perhaps suddenly finally meanwhile later \
    today tomorrow yesterday outside inside above below down up far near let let's do don't did is was were are had \
    has have will would could should can may i'm i'll i've it's he's she's that's what's god monday tuesday \
    wednesday thursday friday saturday sunday january february march april june july august september october \
    november december english follow ask go open look wait run take make give tell say stop never always somewhere \
    everywhere nowhere because although though until since another other both last first next rain snow night \
    morning evening dawn silence chapter part hello hi";

impl Lexicon {
    /// Learns from a tale whose turns carry no directives any more.
    pub(crate) fn learn(tale: &Tale, wish: &str, rng: &mut Rng) -> Self {
        let last = tale.turns.iter().rev().find(|turn| !turn.by_agent);
        let last_text = last.map_or("", |turn| turn.text.as_str());

        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        let mut nouns: BTreeMap<String, u32> = BTreeMap::new();
        for (age, turn) in tale.turns.iter().rev().take(12).enumerate() {
            // What people wrote lately weighs most; the storyteller's own words hardly count, or it would feed on itself.
            let weight = if turn.by_agent { 1 } else { 12_u32.saturating_sub(age as u32).max(2) };
            if !turn.by_agent {
                count_names(&turn.text, &tale.cast, weight, &mut names);
            }
            count_nouns(&turn.text, weight, &mut nouns);
        }
        count_nouns(last_text, 20, &mut nouns);
        count_nouns(wish, 30, &mut nouns);

        let mut names = by_weight(names);
        if let Some(at) = names.iter().position(|name| last_text.contains(name.as_str())) {
            let name = names.remove(at);
            names.insert(0, name);
        }
        // In a story without characters those who write it become its characters.
        if names.is_empty() {
            let members = last.map(|turn| turn.author.clone()).into_iter().chain(tale.cast.iter().cloned());
            for member in members.filter(|name| is_character_like(name)) {
                if !names.contains(&member) {
                    names.push(member);
                }
            }
        }
        // The same companion through the whole story, whatever is rolled for the turn.
        let companion = COMPANIONS[tale.story.bytes().map(usize::from).sum::<usize>() % COMPANIONS.len()];
        let mut names = names.into_iter();
        let hero = names.next().unwrap_or_else(|| "the traveller".into());
        let friend = names.next().unwrap_or_else(|| companion.into());

        let mut nouns: Vec<String> = by_weight(nouns).into_iter().take(6).collect();
        let mut things: Vec<&str> = THINGS.split(' ').collect();
        rng.shuffle(&mut things);
        nouns.extend(
            things.into_iter().filter(|t| !nouns.iter().any(|n| n == t)).map(String::from).take(4).collect::<Vec<_>>(),
        );
        Self { hero, friend, nouns, echo: echo_of(last_text) }
    }
}

fn by_weight(counts: BTreeMap<String, u32>) -> Vec<String> {
    let mut counted: Vec<(String, u32)> = counts.into_iter().collect();
    counted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counted.into_iter().map(|(word, _)| word).collect()
}

/// Whether a member's name could be a character's: letters only, no `guest 17`.
fn is_character_like(name: &str) -> bool {
    let chars = name.chars().count();
    (2..=24).contains(&chars)
        && name.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '’'))
        && !name.to_lowercase().contains("guest")
}

/// A word without the punctuation around it, and whether it ended or began a sentence.
struct Word<'a> {
    text: &'a str,
    starts: bool,
    ends: bool,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut starts = true;
    let mut found = Vec::new();
    for raw in text.split_whitespace() {
        let quoted = raw.starts_with(['"', '“', '‘', '\'', '(', '—', '-']);
        let text = raw.trim_matches(|c: char| !c.is_alphanumeric());
        let text = text.strip_suffix("'s").or_else(|| text.strip_suffix("’s")).unwrap_or(text);
        let tail = raw.rfind(text).map_or("", |at| &raw[at + text.len()..]);
        let ends = tail.contains(['.', '!', '?', ':', '…', '"', '”']);
        if !text.is_empty() {
            found.push(Word { text, starts: starts || quoted, ends: ends || tail.contains([',', ';', '—', ')']) });
        }
        starts = ends;
    }
    found
}

fn is_capitalised(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(char::is_uppercase)
        && chars.clone().next().is_some()
        && chars.all(|c| c.is_lowercase() || matches!(c, '\'' | '’' | '-'))
}

fn count_names(text: &str, cast: &[String], weight: u32, names: &mut BTreeMap<String, u32>) {
    let words = words(text);
    for (at, word) in words.iter().enumerate() {
        if cast.iter().any(|name| name == word.text) {
            *names.entry(word.text.into()).or_default() += weight;
            continue;
        }
        let lower = word.text.to_lowercase();
        if !is_capitalised(word.text) || is_in(STARTERS, &lower) || word.text.len() > 20 {
            continue;
        }
        // "the Moon" and "my Lord" are things; at the start of a sentence, only a verb after it tells a name.
        let after_article = at > 0 && is_in(DETERMINERS, &words[at - 1].text.to_lowercase());
        let acts = words.get(at + 1).is_some_and(|next| {
            let next = next.text;
            next.ends_with("ed")
                || matches!(
                    next,
                    "said"
                        | "was"
                        | "had"
                        | "ran"
                        | "took"
                        | "went"
                        | "saw"
                        | "stood"
                        | "felt"
                        | "knew"
                        | "heard"
                        | "found"
                        | "held"
                        | "and"
                        | "came"
                        | "is"
                )
        });
        if after_article || (word.starts && !acts) || lower.ends_with("ly") || lower.ends_with("ing") {
            continue;
        }
        *names.entry(word.text.into()).or_default() += weight;
    }
}

fn count_nouns(text: &str, weight: u32, nouns: &mut BTreeMap<String, u32>) {
    let words = words(text);
    for (at, word) in words.iter().enumerate() {
        if !is_in(DETERMINERS, &word.text.to_lowercase()) || word.ends {
            continue;
        }
        let mut here = at + 1;
        while let (Some(word), Some(next)) = (words.get(here), words.get(here + 1)) {
            let adjective = is_in(ADJECTIVES, word.text)
                || ["ous", "ful", "less", "ish", "ly", "ing"]
                    .iter()
                    .any(|end| word.text.ends_with(end) && word.text.len() > 5);
            if !adjective || word.ends || here > at + 3 || is_verb_like(next.text) {
                break;
            }
            here += 1;
        }
        let Some(noun) = words.get(here).map(|word| word.text) else { continue };
        let fits = (3..=14).contains(&noun.len())
            && noun.bytes().all(|b| b.is_ascii_lowercase())
            && !is_in(FAINT, noun)
            && !is_in(ADJECTIVES, noun)
            && !is_in(STARTERS, noun)
            && !is_in(DETERMINERS, noun)
            && !noun.ends_with("ly")
            && (!noun.ends_with("ing") || is_in(SOLID_ING, noun));
        if fits {
            *nouns.entry(noun.into()).or_default() += weight;
        }
    }
}

fn is_in(list: &str, word: &str) -> bool {
    list.split(' ').any(|entry| entry == word)
}

fn is_verb_like(word: &str) -> bool {
    word.ends_with("ed")
        || matches!(
            word,
            "was"
                | "were"
                | "is"
                | "are"
                | "had"
                | "has"
                | "of"
                | "and"
                | "in"
                | "on"
                | "at"
                | "that"
                | "went"
                | "came"
        )
}

/// The last clause of a text, if it has a length that can be quoted whole: 3 to 12 words.
fn echo_of(text: &str) -> String {
    let clauses = text.split(['.', '!', '?', ';', ':', '\n', '—', '"', '“', '”', '…', '(', ')']);
    let usable = |clause: &&str| (3..=12).contains(&clause.split_whitespace().count()) && clause.chars().count() <= 90;
    let clause = clauses.map(str::trim).rfind(usable).unwrap_or("");
    clause.trim_matches(|c: char| !c.is_alphanumeric()).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::TaleTurn;

    fn learn(text: &str) -> Lexicon {
        let turn = TaleTurn { number: 1, author: "Ana".into(), by_agent: false, is_choice: false, text: text.into() };
        let tale = Tale { cast: vec!["Ana".into(), "Guest 7".into()], turns: vec![turn], ..Tale::default() };
        Lexicon::learn(&tale, "", &mut Rng::with_seed(1))
    }

    #[test]
    fn names_and_nouns_of_the_last_turn_are_found() {
        let lexicon =
            learn("The old lighthouse had been dark for years. Then Mira found the brass key, and the fog moved.");
        assert_eq!(lexicon.hero, "Mira");
        assert_ne!(lexicon.friend, "Ana", "an author, not a character");
        assert!(
            lexicon.nouns.contains(&"lighthouse".to_owned()) && lexicon.nouns.contains(&"fog".to_owned()),
            "{:?}",
            lexicon.nouns
        );
        assert!(!lexicon.nouns.contains(&"years".to_owned()));
        assert_eq!(lexicon.echo, "Then Mira found the brass key, and the fog moved");
    }

    #[test]
    fn without_names_the_author_is_the_hero() {
        let lexicon = learn("Suddenly I fell down the stairs.");
        assert_eq!(lexicon.hero, "Ana");
        assert!(lexicon.friend.contains(' '), "{}", lexicon.friend);
        assert_eq!(lexicon.nouns[0], "stairs");
    }

    #[test]
    fn any_text_is_survived() {
        for text in ["", "🦊🦊", "The", "the the the", "ÉTÉ «où» l'été", "\u{202e}x the", "'s 's"] {
            let lexicon = learn(text);
            assert!(lexicon.nouns.len() >= 4, "{text}");
        }
    }
}
