//! Words that stand before a value and tell what it is. Only backwards, so that nothing has to be awaited.
//!
//! The parts of a name of a program are words too, whichever way it is written: `date_of_birth`, `date-of-birth`,
//! `dateOfBirth`, `patientMRN`. What is written with capitals inside is also one word, as `WhatsApp` is.

use std::borrow::Cow;

/// How many words before a value are read.
const WORDS: usize = 5;
/// How many parts of them.
const PARTS: usize = 16;

/// Whether one of the phrases (lower case, words parted by one space) stands among the last five words of `before`.
pub(crate) fn precedes<S: AsRef<str>>(before: &str, phrases: &[S]) -> bool {
    let phrases = phrases.iter().map(AsRef::as_ref);
    let phrases = phrases.map(|phrase| (end_of(phrase), phrase));
    let ends = phrases.clone().fold(0, |ends, (end, _)| ends | 1 << end);
    Words::before(before).have(phrases, ends)
}

/// Phrases that are asked for often.
pub(crate) struct Phrases {
    phrases: &'static [&'static str],
    /// How each of them ends.
    each: [u8; PHRASES],
    /// How any does.
    ends: u128,
}

/// The most of them.
const PHRASES: usize = 24;

impl Phrases {
    /// Lower case, words parted by one space.
    pub(crate) const fn new(phrases: &'static [&'static str]) -> Self {
        let (mut each, mut ends, mut i) = ([0; PHRASES], 0, 0);
        while i < phrases.len() {
            each[i] = end_of(phrases[i]);
            ends |= 1 << each[i];
            i += 1;
        }
        Self {
            phrases,
            each,
            ends,
        }
    }

    /// Whether a text is one of them.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.phrases
            .iter()
            .any(|phrase| phrase.eq_ignore_ascii_case(text))
    }
}

/// The last words of a text.
pub(crate) struct Words<'t> {
    whole: Last<'t, WORDS>,
    /// Those written with capitals inside in their parts.
    parts: Last<'t, PARTS>,
}

/// Words, the nearest first.
struct Last<'t, const N: usize> {
    words: [&'t str; N],
    count: usize,
}

impl<'t> Words<'t> {
    pub(crate) fn before(text: &'t str) -> Self {
        let (mut whole, mut parts) = (Last::none(), Last::none());
        let bytes = text.as_bytes();
        let mut at = bytes.len();
        while whole.count < WORDS {
            let Some(end) = (0..at).rev().find(|&at| is_in_word(text, at)) else {
                break;
            };
            let (mut start, mut part) = (end, end + 1);
            while start > 0 && is_in_word(text, start - 1) {
                if is_cut(text, start, end) {
                    parts.push(&text[start..part]);
                    part = start;
                }
                start -= 1;
            }
            parts.push(&text[start..part]);
            whole.push(&text[start..=end]);
            at = start;
        }
        Self { whole, parts }
    }

    /// Whether one of the phrases is among them.
    pub(crate) fn match_any(&self, phrases: &Phrases) -> bool {
        let each = phrases.each.iter().copied();
        self.have(each.zip(phrases.phrases.iter().copied()), phrases.ends)
    }

    /// Phrases with how they end.
    fn have<'p>(&self, phrases: impl Iterator<Item = (u8, &'p str)> + Clone, ends: u128) -> bool {
        self.whole.have(phrases.clone(), ends)
            || (self.parts.count > self.whole.count && self.parts.have(phrases, ends))
    }
}

impl<'t, const N: usize> Last<'t, N> {
    fn none() -> Self {
        Self {
            words: [""; N],
            count: 0,
        }
    }

    /// Adds a word before the others, if there is room.
    fn push(&mut self, word: &'t str) {
        if let Some(place) = self.words.get_mut(self.count) {
            *place = word;
            self.count += 1;
        }
    }

    fn have<'p>(&self, phrases: impl Iterator<Item = (u8, &'p str)> + Clone, ends: u128) -> bool {
        let words = &self.words[..self.count];
        words.iter().enumerate().any(|(nearest, word)| {
            // Most words end like none of the phrases, and the others like one of them.
            let end = end_of(word);
            let mut alike = phrases.clone().filter(|(other, _)| *other == end);
            ends >> end & 1 == 1 && alike.any(|(_, phrase)| ends_with(phrase, &words[nearest..]))
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

/// Whether a new part begins here in a word that ends at `end`: at a capital behind a small letter, or at the last one of
/// several (`SSNNumber`); but not behind the first letter alone (`iPhone`), nor before the last (`SSNs`).
fn is_cut(text: &str, at: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let (upper, lower) = (u8::is_ascii_uppercase, u8::is_ascii_lowercase);
    if !upper(&bytes[at]) {
        return false;
    }
    let last_capital = at + 1 < end && lower(&bytes[at + 1]);
    match &bytes[at - 1] {
        before if upper(before) => last_capital,
        before => lower(before) && at > 1 && is_in_word(text, at - 2),
    }
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
            // names of programs
            ("social_security=", true),
            ("socialSecurity: ", true),
            ("{\"userSSN\": ", true),
            ("ssnNumber = ", true),
            ("SSNNumber = ", true),
            ("theSocialSecurityNumber:", true),
            ("USSocialSecurity ", true),
            ("Social ISecurity ", false),
            ("aSSN ", false),
            ("Assn ", false),
            ("classNumber ", false),
            ("theSSN one two three four ", true),
            ("theSSN one two three four five ", false),
            ("asocial security ", false),
            ("SSN myPhone yourPhone ourPhone theirPhone ", true),
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
    fn a_name_is_one_word_too() {
        let phrases = &["whatsapp", "acmecorp id", "ssns", "phone"];
        for (before, expected) in [
            ("WhatsApp ", true),
            ("AcmeCorp ID ", true),
            ("SSNs ", true),
            ("workPhone: ", true),
            ("iPhone ", false),
            ("whats app ", false),
        ] {
            assert_eq!(precedes(before, phrases), expected, "{before:?}");
        }
    }

    #[test]
    fn a_phrase_is_written_as_its_author_likes() {
        assert_eq!(phrase(" Badge  No. ").as_deref(), Some("badge no"));
        assert_eq!(phrase("--"), None);
        assert_eq!(phrase("one two three four five six"), None);
    }
}
