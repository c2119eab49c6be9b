//! Words that stand before a value and tell what it is. Only backwards, so that nothing has to be awaited.

use std::borrow::Cow;

/// How many words before a value are read.
const WORDS: usize = 5;

/// Whether one of the phrases (lower case, words parted by one space) stands among the last five words of `before`.
pub(crate) fn precedes<S: AsRef<str>>(before: &str, phrases: &[S]) -> bool {
    let phrases = phrases.iter().map(AsRef::as_ref);
    let ends = phrases
        .clone()
        .fold(0, |ends, phrase| ends | 1 << end_of(phrase));
    Words::before(before).have(phrases, ends)
}

/// Phrases that are asked for often.
pub(crate) struct Phrases {
    phrases: &'static [&'static str],
    ends: u128,
}

impl Phrases {
    /// Lower case, words parted by one space.
    pub(crate) const fn new(phrases: &'static [&'static str]) -> Self {
        let (mut ends, mut i) = (0, 0);
        while i < phrases.len() {
            ends |= 1 << end_of(phrases[i]);
            i += 1;
        }
        Self { phrases, ends }
    }

    /// Whether a text is one of them.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.phrases
            .iter()
            .any(|phrase| phrase.eq_ignore_ascii_case(text))
    }
}

/// The last words of a text, the nearest first.
pub(crate) struct Words<'t> {
    words: [&'t str; WORDS],
    count: usize,
}

impl<'t> Words<'t> {
    pub(crate) fn before(text: &'t str) -> Self {
        let mut words = Self {
            words: [""; WORDS],
            count: 0,
        };
        let bytes = text.as_bytes();
        let mut at = bytes.len();
        while words.count < WORDS {
            let Some(end) = (0..at).rev().find(|&at| is_in_word(text, at)) else {
                break;
            };
            let mut start = end;
            while start > 0 && is_in_word(text, start - 1) && !is_cut(bytes, start) {
                start -= 1;
            }
            words.words[words.count] = &text[start..=end];
            words.count += 1;
            at = start;
        }
        words
    }

    /// Whether one of the phrases is among them.
    pub(crate) fn match_any(&self, phrases: &Phrases) -> bool {
        self.have(phrases.phrases.iter().copied(), phrases.ends)
    }

    fn have<'p>(&self, phrases: impl Iterator<Item = &'p str> + Clone, ends: u128) -> bool {
        let words = &self.words[..self.count];
        words.iter().enumerate().any(|(nearest, word)| {
            // Most words end like none of the phrases, and the others like one of them.
            let end = end_of(word);
            let mut alike = phrases.clone().filter(|phrase| end_of(phrase) == end);
            ends >> end & 1 == 1 && alike.any(|phrase| ends_with(phrase, &words[nearest..]))
        })
    }
}

/// Whether the phrase is the first of these words, or that and those before it, the nearest first.
fn ends_with(phrase: &str, words: &[&str]) -> bool {
    let mut rest = phrase;
    for word in words {
        let lowered: Cow<'_, str> = match word.is_ascii() {
            true => (*word).into(),
            false => word.to_lowercase().into(),
        };
        let Some((front, last)) = rest
            .len()
            .checked_sub(lowered.len())
            .and_then(|at| rest.split_at_checked(at))
        else {
            return false;
        };
        if !last.eq_ignore_ascii_case(&lowered) {
            return false;
        }
        match front.strip_suffix(' ') {
            Some(front) => rest = front,
            None => return front.is_empty(),
        }
    }
    false
}

/// Whether the byte belongs to a letter or digit.
fn is_in_word(text: &str, at: usize) -> bool {
    let byte = text.as_bytes()[at];
    if byte.is_ascii() {
        return byte.is_ascii_alphanumeric();
    }
    let start = (0..=at).rev().find(|&at| text.is_char_boundary(at));
    let character = start.and_then(|start| text[start..].chars().next());
    character.is_some_and(char::is_alphanumeric)
}

/// Whether a new word begins inside `dateOfBirth` or `USSocial`.
fn is_cut(bytes: &[u8], at: usize) -> bool {
    let lower = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_lowercase);
    bytes[at].is_ascii_uppercase()
        && (lower(at - 1) || (bytes[at - 1].is_ascii_uppercase() && lower(at + 1)))
}

/// A number below 128 for how a word or a phrase ends, whatever its case: the same where they end in the same word.
const fn end_of(text: &str) -> u8 {
    let (last, before) = match text.as_bytes() {
        [.., before, last] => (*last, *before),
        [last] => (*last, b' '),
        [] => return 0,
    };
    if last.is_ascii() && before.is_ascii() {
        ((last & 31) ^ (before & 31).wrapping_mul(5)) & 127
    } else {
        0
    }
}

/// The phrase in the form that [`precedes`] compares with, or nothing if it has no word or too many.
pub(crate) fn phrase(text: &str) -> Option<String> {
    let mut words: Vec<String> = words(text).map(str::to_lowercase).collect();
    words.retain(|word| !word.is_empty());
    (1..=WORDS).contains(&words.len()).then(|| words.join(" "))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_counts_only_whole_in_order_and_within_five_words() {
        for (before, expected) in [
            ("my SSN is ", true),
            ("Social-Security number: ", true),
            ("security social ", false),
            ("ssns ", false),
            ("ssn one two three four ", true),
            ("ssn one two three four five ", false),
            ("", false),
            ("{\"userSSN\": ", true),
            ("socialSecurityNumber=", true),
            ("USSocialSecurity ", true),
            ("asocial security ", false),
            ("mySSN ", true),
            ("Assn ", false),
            ("é SSN né", true),
            ("éssn ", false),
        ] {
            assert_eq!(
                precedes(before, &["ssn", "social security"]),
                expected,
                "{before:?}"
            );
        }
    }

    #[test]
    fn a_phrase_is_written_as_its_author_likes() {
        assert_eq!(phrase(" Badge  No. ").as_deref(), Some("badge no"));
        assert_eq!(phrase("--"), None);
        assert_eq!(phrase("one two three four five six"), None);
    }
}
