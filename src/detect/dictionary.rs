//! Terms of a list, such as the names of projects or customers: up to [`MAX_TERMS`] of them.
//!
//! What counts as found: text is read left to right; at each start the longest term that stands there wins. Two
//! characters are the same if they are, if both are white space, or, where case is folded, by the simple case folding
//! of Unicode (CaseFolding.txt, status C and S): one character against one, so that offsets stay right. `ẞ` is `ß` but
//! not `ss`, `K` is the Kelvin sign, and the Turkish `İ` and `ı` are letters of their own. A whole word has no letter
//! or digit on either side, unless it begins or ends with none itself, or either is of a script that puts no space
//! between words.
//!
//! The terms are one sorted list. The terms that begin with a text are a stretch of it, which each further character
//! narrows: this is a walk down their prefix tree that needs no tree. So `text` is still undecided at a start if such
//! a walk has not ended at the end of the text.
//!
//! It costs at most the length of the text times that of the longest term; in prose, where a walk ends after a few
//! letters, a few comparisons a word.

use std::{collections::BTreeMap, ops::Range};

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::{DetectorError, MAX_REACH, email::is_unspaced};

/// The most terms of one dictionary.
pub(crate) const MAX_TERMS: usize = 1_000_000;
/// The most text of all terms together, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// Pairs of bytes.
const PAIRS: usize = 1 << 16;

/// How terms are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Likeness {
    /// Capital and small letters are the same.
    pub(crate) fold_case: bool,
    /// Only whole words.
    pub(crate) whole_word: bool,
}

/// Terms, ready to be looked for.
#[derive(Clone)]
pub(crate) struct Dictionary {
    /// All terms, sorted, each character as [`Dictionary::same`] writes it, one behind the other.
    terms: String,
    /// Where each of them ends.
    ends: Vec<u32>,
    /// How many terms are less than these two bytes, for each two and for the first that are none.
    index: Vec<u32>,
    /// What each ASCII character counts as.
    ascii: [u8; 128],
    /// What a character counts as, where it is not itself: only those that occur in a term.
    same: BTreeMap<char, char>,
    whole_word: bool,
    reach: usize,
}

/// A walk down from the empty prefix.
#[derive(Clone)]
struct Walk {
    /// The terms that begin with what was read.
    terms: Range<usize>,
    /// Bytes read, as they stand in the terms.
    depth: usize,
}

impl Dictionary {
    /// Builds the list. The order of the terms and repeated ones make no difference; white space around a term is not
    /// a part of it.
    ///
    /// # Errors [`DetectorError::MatchesNothing`] without terms, [`DetectorError::Term`] for one that is empty or
    /// longer than [`MAX_REACH`] bytes, [`DetectorError::Terms`] over [`MAX_TERMS`] or [`MAX_BYTES`].
    pub(crate) fn new<'t>(
        terms: impl IntoIterator<Item = &'t str>,
        likeness: Likeness,
    ) -> Result<Self, DetectorError> {
        let terms: Vec<&str> = terms.into_iter().map(str::trim).collect();
        let bytes: usize = terms.iter().map(|term| term.len()).sum();
        if terms.len() > MAX_TERMS || bytes > MAX_BYTES {
            return Err(DetectorError::Terms);
        }
        let (same, widest) = alphabet(&terms, likeness.fold_case);
        let mut dictionary = Self {
            terms: String::new(),
            ends: Vec::new(),
            index: vec![0; PAIRS + 1],
            ascii: std::array::from_fn(|byte| byte as u8),
            same,
            whole_word: likeness.whole_word,
            reach: 0,
        };
        // Of the characters that are the same as an ASCII one the first is ASCII too.
        for (byte, same) in (0u8..128).zip(&mut dictionary.ascii) {
            let c = char::from(byte);
            *same = match dictionary.same.get(&c) {
                _ if c.is_whitespace() => b' ',
                Some(&first) => first as u8,
                None => byte,
            };
        }
        let mut written = Vec::with_capacity(terms.len());
        for (i, term) in terms.iter().enumerate() {
            let len: usize = term.chars().map(|c| width(&widest, c)).sum();
            if len == 0 || len > MAX_REACH {
                return Err(DetectorError::Term(i));
            }
            dictionary.reach = dictionary.reach.max(len);
            written.push(term.chars().map(|c| dictionary.same(c)).collect::<String>());
        }
        if written.is_empty() {
            return Err(DetectorError::MatchesNothing);
        }
        written.sort_unstable();
        written.dedup();
        for term in &written {
            dictionary.terms.push_str(term);
            dictionary.ends.push(dictionary.terms.len() as u32);
        }
        dictionary.terms.shrink_to_fit();
        dictionary.ends.shrink_to_fit();
        for term in &written {
            let pair = usize::from(term.as_bytes()[0]) << 8
                | usize::from(term.as_bytes().get(1).copied().unwrap_or(0));
            dictionary.index[pair + 1] += 1;
        }
        let mut below = 0;
        for count in &mut dictionary.index {
            below += *count;
            *count = below;
        }
        Ok(dictionary)
    }

    /// The longest text of a term in bytes, in whatever case it is written. At most [`MAX_REACH`].
    pub(crate) fn reach(&self) -> usize {
        self.reach
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let entry = 2 * size_of::<(char, char)>();
        let numbers = self.ends.capacity() + self.index.capacity();
        self.terms.capacity() + numbers * size_of::<u32>() + self.same.len() * entry
    }

    /// The first term that starts in `text[from..limit]`, and where it stands. Looks at [`Dictionary::reach`] bytes
    /// and one character behind `limit`, and at one character before `from`.
    pub(crate) fn next(&self, text: &str, from: usize, limit: usize) -> Option<Range<usize>> {
        let mut before = text[..from].chars().next_back();
        for (at, c) in text.get(from..limit)?.char_indices() {
            let begins = !self.whole_word || !is_joint(before, Some(c));
            before = Some(c);
            let start = from + at;
            if begins && let Some(end) = self.longest_at(text, start) {
                return Some(start..end);
            }
        }
        None
    }

    /// The earliest start in `text[from..]` at which a term may stand that the end of `text` cuts, if there is one.
    pub(crate) fn live(&self, text: &str, from: usize) -> Option<usize> {
        let mut from = from.max(text.len().saturating_sub(self.reach));
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let starts = text.get(from..)?.char_indices();
        starts
            .map(|(at, _)| from + at)
            .find(|&start| self.is_live(text, start))
    }

    fn longest_at(&self, text: &str, start: usize) -> Option<usize> {
        let mut walk = self.walk();
        let mut best = None;
        for (at, c) in text[start..].char_indices() {
            if !self.step(&mut walk, c) {
                break;
            }
            let end = start + at + c.len_utf8();
            if self.is_term(&walk) && self.ends(text, end) {
                best = Some(end);
            }
        }
        best
    }

    fn is_live(&self, text: &str, start: usize) -> bool {
        let mut walk = self.walk();
        (!self.whole_word || is_boundary(text, start))
            && text[start..].chars().all(|c| self.step(&mut walk, c))
            && (self.goes_on(&walk) || self.awaits(text))
    }

    fn walk(&self) -> Walk {
        Walk {
            terms: 0..self.ends.len(),
            depth: 0,
        }
    }

    /// Reads a character. Whether any term begins so.
    fn step(&self, walk: &mut Walk, c: char) -> bool {
        let mut bytes = [0; 4];
        for &byte in self.same(c).encode_utf8(&mut bytes).as_bytes() {
            walk.terms = self.narrowed(walk, byte);
            walk.depth += 1;
        }
        !walk.terms.is_empty()
    }

    /// Those of the terms that go on with this byte.
    fn narrowed(&self, walk: &Walk, byte: u8) -> Range<usize> {
        let below = |pair: usize| self.index[pair] as usize;
        let Range { start, end } = walk.terms;
        match walk.depth {
            0 => below(usize::from(byte) << 8)..below((usize::from(byte) + 1) << 8),
            // A zero byte is also what the index has for the end of a term.
            1 if byte > 0 && start < end => {
                let pair = usize::from(self.terms.as_bytes()[self.begin(start)]) << 8;
                below(pair | usize::from(byte))..below((pair | usize::from(byte)) + 1)
            }
            depth => {
                let first = partition(start..end, |i| self.byte(i, depth) < Some(byte));
                first..partition(first..end, |i| self.byte(i, depth) == Some(byte))
            }
        }
    }

    fn begin(&self, i: usize) -> usize {
        i.checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize)
    }

    fn term(&self, i: usize) -> &[u8] {
        &self.terms.as_bytes()[self.begin(i)..self.ends[i] as usize]
    }

    /// `None`, the term's end, comes before every byte.
    fn byte(&self, i: usize, at: usize) -> Option<u8> {
        self.term(i).get(at).copied()
    }

    /// What was read is a term: the shortest of those that begin with it, so the first.
    fn is_term(&self, walk: &Walk) -> bool {
        self.term(walk.terms.start).len() == walk.depth
    }

    /// What was read can become a longer term.
    fn goes_on(&self, walk: &Walk) -> bool {
        walk.terms.len() > usize::from(self.is_term(walk))
    }

    /// What a character counts as.
    fn same(&self, c: char) -> char {
        if let Some(&same) = self.ascii.get(c as usize) {
            char::from(same)
        } else if c.is_whitespace() {
            ' '
        } else {
            self.same.get(&c).copied().unwrap_or(c)
        }
    }

    /// A word that begins somewhere may end at `end`.
    fn ends(&self, text: &str, end: usize) -> bool {
        !self.whole_word || is_boundary(text, end)
    }

    /// The character that follows `text` decides whether a word ends there.
    fn awaits(&self, text: &str) -> bool {
        self.whole_word && text.chars().next_back().is_some_and(is_joined)
    }
}

/// The first of a stretch of which the test fails, given that it holds up to there.
fn partition(stretch: Range<usize>, test: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (stretch.start, stretch.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if test(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Here a word may begin or end.
fn is_boundary(text: &str, at: usize) -> bool {
    let (before, behind) = text.split_at(at);
    !is_joint(before.chars().next_back(), behind.chars().next())
}

/// Both are of one word.
fn is_joint(before: Option<char>, behind: Option<char>) -> bool {
    before.is_some_and(is_joined) && behind.is_some_and(is_joined)
}

/// A character of a word of several.
fn is_joined(c: char) -> bool {
    c.is_ascii_alphanumeric() || (c.is_alphanumeric() && !is_unspaced(c)) || c == '_'
}

/// What each character of the terms, and each that is the same by case, counts as; and how many bytes the widest of
/// those has.
fn alphabet(terms: &[&str], fold_case: bool) -> (BTreeMap<char, char>, BTreeMap<char, usize>) {
    let (mut same, mut widest) = (BTreeMap::new(), BTreeMap::new());
    for c in terms.iter().flat_map(|term| term.chars()) {
        if widest.contains_key(&c) {
            continue;
        }
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        // It fails only in a build of the parser without Unicode's tables; each character is then itself.
        if fold_case && class.try_case_fold_simple().is_err() {
            class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        }
        let members: Vec<char> = class
            .iter()
            .flat_map(|range| range.start()..=range.end())
            .collect();
        let first = members.first().copied().unwrap_or(c);
        let most = members.iter().map(|c| c.len_utf8()).max().unwrap_or(0);
        widest.insert(c, most);
        same.extend(
            members
                .into_iter()
                .filter(|&c| c != first)
                .map(|c| (c, first)),
        );
    }
    (same, widest)
}

/// The most bytes that what counts as `c` can have. White space has up to three.
fn width(widest: &BTreeMap<char, usize>, c: char) -> usize {
    if c.is_whitespace() {
        3
    } else {
        widest.get(&c).copied().unwrap_or(4)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use regex_automata::{Anchored, Input, meta};

    use super::*;

    const FOLDED: Likeness = Likeness {
        fold_case: true,
        whole_word: true,
    };

    fn dictionary(terms: &[&str], likeness: Likeness) -> Dictionary {
        Dictionary::new(terms.iter().copied(), likeness).unwrap()
    }

    fn all<'t>(dictionary: &Dictionary, text: &'t str) -> Vec<&'t str> {
        let mut at = 0;
        std::iter::from_fn(|| {
            let found = dictionary.next(text, at, text.len())?;
            at = found.end;
            Some(&text[found])
        })
        .collect()
    }

    #[test]
    fn the_longest_term_wins_as_a_whole_word_in_any_case() {
        let names = dictionary(&["Blue Moon", "blue", "moon rise", "C++", "naïve"], FOLDED);
        for (text, expected) in [
            ("a BLUE moon rises", &["BLUE moon"][..]),
            ("Blue\nMoonrise", &["Blue"]),
            ("blues, bluemoon, _blue", &[]),
            ("in c++11 and C++.", &["c++", "C++"]),
            ("NAÏVE", &["NAÏVE"]),
            ("blue blue moon rise", &["blue", "blue moon"]),
        ] {
            assert_eq!(all(&names, text), expected, "{text}");
        }
    }

    #[test]
    fn case_is_folded_one_character_for_one() {
        let names = dictionary(
            &["straße", "kilo", "istanbul", "İzmir", "ısparta", "σοφός"],
            FOLDED,
        );
        for (text, expected) in [
            ("STRAẞE and Straße", &["STRAẞE", "Straße"][..]),
            ("STRASSE", &[]),
            ("\u{212A}ILO", &["\u{212A}ILO"]),
            ("ISTANBUL but İSTANBUL", &["ISTANBUL"]),
            ("İZMİR, İzmir, izmir", &["İzmir"]),
            ("ısparta, ISPARTA", &["ısparta"]),
            ("ΣΟΦΌΣ σοφόσ", &["ΣΟΦΌΣ", "σοφόσ"]),
        ] {
            assert_eq!(all(&names, text), expected, "{text}");
        }
    }

    #[test]
    fn the_reach_is_that_of_the_widest_way_to_write_a_term() {
        // the Kelvin sign has three bytes, and so have some spaces
        assert_eq!(dictionary(&["ab", "kilo x"], FOLDED).reach(), 3 + 3 + 3 + 1);
    }

    #[test]
    fn scripts_without_spaces_have_words_everywhere() {
        let names = dictionary(&["东京", "カタナ"], FOLDED);
        assert_eq!(all(&names, "我在东京工作 カタナ計画"), ["东京", "カタナ"]);
    }

    #[test]
    fn what_cannot_be_a_term_is_refused() {
        let build = |terms: &[&str]| Dictionary::new(terms.iter().copied(), FOLDED).map(drop);
        assert_eq!(build(&[]), Err(DetectorError::MatchesNothing));
        assert_eq!(build(&["a", " "]), Err(DetectorError::Term(1)));
        assert_eq!(build(&[&"x".repeat(1025)]), Err(DetectorError::Term(0)));
        assert_eq!(build(&[&"x".repeat(1024)]), Ok(()));
        // `k` may be written as a sign of three bytes
        assert_eq!(build(&[&"k".repeat(342)]), Err(DetectorError::Term(0)));
        let many = vec!["x"; MAX_TERMS + 1];
        assert_eq!(build(&many), Err(DetectorError::Terms));
    }

    /// The definition, term by term. Case is the business of another crate's expressions.
    struct Oracle {
        terms: Vec<String>,
        likeness: Likeness,
    }

    impl Oracle {
        fn fits(&self, term: &str, text: &str) -> Option<usize> {
            let literal: String = term
                .chars()
                .map(|c| {
                    if c == ' ' {
                        r"\s".to_owned()
                    } else {
                        format!(r"\u{{{:x}}}", c as u32)
                    }
                })
                .collect();
            let flags = if self.likeness.fold_case { "(?i)" } else { "" };
            let regex = meta::Regex::new(&format!("{flags}{literal}")).unwrap();
            let found = regex.search(&Input::new(text).anchored(Anchored::Yes))?;
            Some(found.end())
        }

        fn joined(c: Option<char>) -> bool {
            c.is_some_and(|c| c == '_' || (c.is_alphanumeric() && c != '日'))
        }

        fn cut(&self, text: &str, at: usize) -> bool {
            let joins = || {
                Self::joined(text[..at].chars().last()) && Self::joined(text[at..].chars().next())
            };
            !(self.likeness.whole_word && joins())
        }

        fn at(&self, text: &str, start: usize) -> Option<usize> {
            let ends = self
                .terms
                .iter()
                .filter_map(|term| Some(start + self.fits(term, &text[start..])?));
            ends.filter(|&end| self.cut(text, start) && self.cut(text, end))
                .max()
        }

        fn next(&self, text: &str, from: usize, limit: usize) -> Option<Range<usize>> {
            (from..limit)
                .filter(|&start| text.is_char_boundary(start))
                .find_map(|start| Some(start..self.at(text, start)?))
        }

        /// The whole rest of the text is a front of a term: a proper one, or what comes next tells where the word
        /// ends.
        fn live(&self, text: &str, from: usize) -> Option<usize> {
            let waits = |start: usize, term: &str| {
                let fronts = term.char_indices().map(|(i, c)| &term[..i + c.len_utf8()]);
                fronts.into_iter().any(|front| {
                    self.fits(front, &text[start..]) == Some(text.len() - start)
                        && (front.len() < term.len()
                            || (self.likeness.whole_word && Self::joined(text.chars().last())))
                })
            };
            (from..text.len())
                .filter(|&start| text.is_char_boundary(start) && self.cut(text, start))
                .find(|&start| self.terms.iter().any(|term| waits(start, term)))
        }
    }

    fn characters(most: usize) -> impl Strategy<Value = String> {
        let alphabet = &[
            'a', 'A', 'b', 'k', '\u{212A}', 'ß', 'ẞ', 'ı', 'İ', 'σ', 'ς', ' ', '\n', '-', '_',
            '日', '1',
        ];
        prop::collection::vec(prop::sample::select(&alphabet[..]), 1..most)
            .prop_map(|characters| characters.into_iter().collect())
    }

    fn term() -> impl Strategy<Value = String> {
        characters(5).prop_filter_map("not blank", |term| {
            let term = term.trim().replace('\n', " ");
            (!term.is_empty()).then_some(term)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn it_finds_and_awaits_what_the_definition_says(
            terms in prop::collection::vec(term(), 1..8),
            text in characters(14),
            fold_case: bool,
            whole_word: bool,
        ) {
            let likeness = Likeness { fold_case, whole_word };
            let names: Vec<&str> = terms.iter().map(String::as_str).collect();
            let dictionary = dictionary(&names, likeness);
            let oracle = Oracle { terms, likeness };
            for from in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
                let limit = text.len();
                prop_assert_eq!(dictionary.next(&text, from, limit), oracle.next(&text, from, limit));
                prop_assert_eq!(dictionary.live(&text, from), oracle.live(&text, from));
            }
        }
    }

    #[test]
    fn a_hundred_thousand_terms_take_little_and_are_all_found() {
        let terms: Vec<String> = (0u64..100_000)
            .map(|i| {
                let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let letter = |n: u64| char::from(b'a' + (mixed >> (5 * n) & 31).min(25) as u8);
                format!(
                    "{}{} {i}",
                    letter(9),
                    (0..8).map(letter).collect::<String>()
                )
            })
            .collect();
        let dictionary = Dictionary::new(terms.iter().map(String::as_str), FOLDED).unwrap();
        let text: usize = terms.iter().map(String::len).sum();
        assert!(
            dictionary.size() < text + 4 * terms.len() + 300_000,
            "{} for {text}",
            dictionary.size()
        );
        for term in terms.iter().step_by(7) {
            let text = format!("the {} there", term.to_uppercase());
            assert_eq!(
                dictionary.next(&text, 0, text.len()),
                Some(4..4 + term.len()),
                "{term}"
            );
        }
    }
}
