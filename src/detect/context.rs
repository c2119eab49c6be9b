//! Words that stand before a value and tell what it is. Only backwards, so that nothing has to be awaited.

/// How many words before a value are read.
const WORDS: usize = 5;

/// Whether one of the phrases (lower case, words parted by one space) stands among the last five words of `before`.
pub(crate) fn precedes<S: AsRef<str>>(before: &str, phrases: &[S]) -> bool {
    let words = last_words(before);
    phrases.iter().any(|phrase| {
        let phrase: Vec<&str> = phrase.as_ref().split(' ').collect();
        words.windows(phrase.len()).any(|window| {
            window
                .iter()
                .rev()
                .zip(&phrase)
                .all(|(word, wanted)| word == wanted)
        })
    })
}

/// The phrase in the form that [`precedes`] compares with, or nothing if it has no word or too many.
pub(crate) fn phrase(text: &str) -> Option<String> {
    let mut words: Vec<String> = words(text).map(str::to_lowercase).collect();
    words.retain(|word| !word.is_empty());
    (1..=WORDS).contains(&words.len()).then(|| words.join(" "))
}

/// The last words, the nearest first, in lower case.
fn last_words(before: &str) -> Vec<String> {
    before
        .rsplit(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(WORDS)
        .map(str::to_lowercase)
        .collect()
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
