//! Numbers that people write in groups of digits.

use super::{checksum, context};

/// Digits, a space or a dash between any two of them. The check counts them.
pub(crate) const SHAPE: &str = concat!(r"\b\d(?:[ -]?\d)*", edge!());
/// 19 digits in fours: whoever looks for twelve of them sees that it is the front of a card number.
pub(crate) const REACH: usize = 19 + 4;

/// A number of a known count of digits with a rule of its own.
pub(crate) struct Number {
    pub(crate) digits: usize,
    /// Whether it is one that may have been issued.
    pub(crate) issued: fn(&[u32]) -> bool,
    /// Words before it that tell what it is.
    pub(crate) words: &'static [&'static str],
    /// Notations, as lengths of groups parted by this character, which tell without such words.
    pub(crate) notations: &'static [(char, &'static [usize])],
}

impl Number {
    /// Keeps the front of a match of [`SHAPE`] that is this number. Without a word before it, nothing may follow it.
    pub(crate) fn keep(&self, before: &str, found: &str) -> Option<usize> {
        let front = front(found, self.digits)?;
        let follows = before
            .trim_end_matches(' ')
            .ends_with(|c: char| c.is_ascii_digit());
        let alone = || front.len() == found.len() && !follows && !is_piece(before);
        let told = || self.is_told(front) && alone();
        ((self.issued)(&checksum::digits(front))
            && (told() || context::precedes(before, self.words)))
        .then_some(front.len())
    }

    fn is_told(&self, front: &str) -> bool {
        self.notations.iter().any(|(separator, groups)| {
            front
                .split(*separator)
                .map(str::len)
                .eq(groups.iter().copied())
        })
    }
}

/// The front of `found` with so many digits, if a group of digits ends there.
pub(crate) fn front(found: &str, digits: usize) -> Option<&str> {
    let mut places = found
        .bytes()
        .enumerate()
        .filter(|(_, b)| b.is_ascii_digit());
    let (last, _) = places.nth(digits.checked_sub(1)?)?;
    let front = found.get(..=last)?;
    let ends = !found[front.len()..].starts_with(|c: char| c.is_ascii_digit());
    ends.then_some(front)
}

/// Whether what follows `before` goes on a number: `1-`, `0.`, `1+`.
pub(crate) fn is_piece(before: &str) -> bool {
    before
        .strip_suffix(['-', '.', '/', '+'])
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_digit()))
}
