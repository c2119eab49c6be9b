//! Words that stand before a value and tell what it is. Only backwards, so that nothing has to be awaited.

/// How many words before a value are read.
const WORDS: usize = 5;

/// Whether one of the phrases (lower case, words parted by one space) stands among the last five words of `before`.
pub(crate) fn precedes<S: AsRef<str>>(before: &str, phrases: &[S]) -> bool {
    let (words, count) = last_words(before);
    let words = &words[..count];
    let ends = words.iter().fold(0, |ends, word| ends | end_of(word));
    phrases.iter().map(AsRef::as_ref).any(|phrase| {
        // Most phrases end like none of the words.
        ends & end_of(phrase) != 0
            && (0..count).any(|nearest| {
                let mut behind = words[nearest..].iter();
                end_of(phrase) == end_of(words[nearest])
                    && phrase
                        .rsplit(' ')
                        .all(|wanted| behind.next().is_some_and(|word| is_lowered(word, wanted)))
            })
    })
}

/// The last words, the nearest first, and how many there are.
fn last_words(before: &str) -> ([&str; WORDS], usize) {
    let (mut words, mut count) = ([""; WORDS], 0);
    let mut end = None;
    for (at, c) in before.char_indices().rev() {
        let behind = at + c.len_utf8();
        if is_in_word(c) {
            end = end.or(Some(behind));
        } else if let Some(end) = end.take() {
            words[count] = &before[behind..end];
            count += 1;
            if count == WORDS {
                return (words, count);
            }
        }
    }
    if let Some(end) = end {
        words[count] = &before[..end];
        count += 1;
    }
    (words, count)
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && c.is_alphanumeric())
}

/// A bit for the last byte of a word, in lower case. Words that do not end in ASCII share one.
fn end_of(word: &str) -> u128 {
    match word.as_bytes().last() {
        Some(last) if last.is_ascii() => 1 << last.to_ascii_lowercase(),
        _ => 1,
    }
}

/// Whether `wanted` is `word` in lower case.
fn is_lowered(word: &str, wanted: &str) -> bool {
    if word.is_ascii() {
        return word.eq_ignore_ascii_case(wanted);
    }
    word.chars().flat_map(char::to_lowercase).eq(wanted.chars())
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
