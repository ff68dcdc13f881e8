//! The half-asleep voice of the demo storyteller: an order-2 Markov chain over what people wrote. A turn quotes one line
//! of it at most, so that it charms and does not tire.

use std::collections::BTreeMap;

use fastrand::Rng;

const WORDS_MIN: usize = 5;
const WORDS_MAX: usize = 12;
/// Below this many words the chain could only repeat what it was fed.
const CORPUS_WORDS_MIN: usize = 30;
/// Words that are listened to; what was written before them has faded.
const CORPUS_WORDS_MAX: usize = 4_000;
const TRIES: usize = 24;

/// A new line in the manner of the texts, or nothing if none comes out that differs from all of them.
pub(crate) fn murmur(texts: &[&str], rng: &mut Rng) -> Option<String> {
    let words: Vec<&str> = texts.iter().rev().flat_map(|text| text.split_whitespace()).take(CORPUS_WORDS_MAX).collect();
    if words.len() < CORPUS_WORDS_MIN {
        return None;
    }
    let plain: Vec<String> = words.iter().map(|word| bare(word)).collect();
    let mut after: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for at in 2..words.len() {
        // Not across the end of a clause: the line is to be one thought, however odd.
        if ends(words[at - 1]) || ends(words[at - 2]) || plain[at].is_empty() {
            continue;
        }
        after.entry((&plain[at - 2], &plain[at - 1])).or_default().push(at);
    }
    let source = plain.join(" ");
    let starts: Vec<usize> = (1..words.len() - 1).filter(|at| ends(words[at - 1]) && !ends(words[*at])).collect();
    for _ in 0..TRIES {
        let from = if starts.is_empty() { rng.usize(..words.len() - 1) } else { starts[rng.usize(..starts.len())] };
        let mut line = vec![plain[from].as_str(), plain[from + 1].as_str()];
        let mut ended = false;
        while line.len() < WORDS_MAX && !ended {
            let Some(next) = after.get(&(line[line.len() - 2], line[line.len() - 1])) else { break };
            let at = next[rng.usize(..next.len())];
            line.push(&plain[at]);
            ended = ends(words[at]);
        }
        let text = line.join(" ");
        if ended && line.len() >= WORDS_MIN && !source.contains(&text) && text.chars().count() <= 100 {
            return Some(text);
        }
    }
    None
}

fn ends(word: &str) -> bool {
    word.ends_with(['.', '!', '?', '…', ':', ';', ',', '"', '”'])
}

fn bare(word: &str) -> String {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    // Capitals of sentence starts are kept for names alone; telling them apart is not worth it in a murmur.
    if word == "I" || word.chars().skip(1).any(char::is_uppercase) {
        return word.into();
    }
    match word {
        "The" | "A" | "An" | "And" | "But" | "Then" | "When" | "It" | "He" | "She" | "They" | "In" | "On" | "At"
        | "There" | "So" => word.to_lowercase(),
        _ => word.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_murmur_is_new_and_made_of_what_was_said() {
        let text = "The fox ran under the old bridge. The fox ran into the reeds and slept. The keeper ran under the stairs \
                    and hid. The old bridge sang under the moon. The keeper and the fox ran home.";
        let line = (0..40).find_map(|seed| murmur(&[text], &mut Rng::with_seed(seed))).expect("some seed finds a line");
        assert!(line.split(' ').all(|word| text.to_lowercase().contains(&word.to_lowercase())), "{line}");
        assert!((WORDS_MIN..=WORDS_MAX).contains(&line.split(' ').count()));
        assert_eq!(murmur(&["too short to say"], &mut Rng::with_seed(1)), None);
    }
}
