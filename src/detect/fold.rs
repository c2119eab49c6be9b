//! A text as detectors see it: characters that only look different are made the plain ones that rules speak of, and
//! those that are not seen at all are left out. What was found is then told in places of the text as it came.
//!
//! ```text
//!   as it came    １２３－ 4 5 <U+200B> - 6789 <U+FE0F> .
//!   as it is seen 1 2 3 -  4 5          - 6789          .
//!                 ^-------------- found ------^
//! ```
//!
//! A value reaches from its first seen character to its last: what is unseen between them belongs to it, what is unseen
//! around it does not, so nothing has to be awaited to tell where a value ends.
//!
//! # What it never does
//!
//! It never changes a text, only how it is looked at. ASCII is always seen as it is.
//!
//! # What it can miss
//!
//! Letters that look like others (Cyrillic `а`), and what hides behind more unseen bytes than [`Credit`] covers: a value
//! and all that is unseen inside it have to be kept in memory until both are known.

use std::sync::LazyLock;

use regex_syntax::{
    Parser,
    hir::{Class, HirKind},
};

/// How a character is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    AsIs,
    /// As this ASCII character.
    Like(u8),
    /// Not at all, as far as the credit goes.
    Unseen,
}

/// Unseen bytes that a text may have before they count as characters like any other. Other text earns it back, byte for
/// byte, so that unseen characters may stand between all others but not outweigh them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credit(u16);

impl Credit {
    /// The most credit there is, in bytes, and what a text begins with.
    pub(crate) const MOST: usize = 256;

    /// At the start of a text.
    pub(crate) fn full() -> Self {
        Self(Self::MOST as u16)
    }

    /// That for this many bytes of text that is seen.
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.0 = (usize::from(self.0) + bytes).min(Self::MOST) as u16;
    }

    /// Whether an unseen character of this length is still covered.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = usize::from(self.0).checked_sub(bytes);
        self.0 = left.map_or(self.0, |left| left as u16);
        left.is_some()
    }

    /// What is left behind this text.
    pub(crate) fn pass(&mut self, text: &str) {
        let mut at = 0;
        while let Some((next, c, seen)) = next_unlike(text, at) {
            self.earn(next - at);
            at = next + c.len_utf8();
            if seen != Seen::Unseen || !self.spend(c.len_utf8()) {
                self.earn(c.len_utf8());
            }
        }
        self.earn(text.len() - at);
    }
}

/// A place between two seen characters where the places in the two texts part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seam {
    /// In the text as it is seen.
    seen: usize,
    /// In the text as it came: where what is before ends, and where what is behind begins.
    end: usize,
    start: usize,
}

/// Room for a folded text, to be used again and again.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    text: String,
    seams: Vec<Seam>,
}

/// A text as it came and as it is seen.
#[derive(Clone, Copy)]
pub(crate) struct View<'t> {
    /// As it is seen. Places without further words are places in this.
    pub(crate) text: &'t str,
    raw: &'t str,
    seams: &'t [Seam],
}

/// Whether all of the text is seen as it is.
pub(crate) fn is_plain(text: &str) -> bool {
    text.is_ascii() || next_unlike(text, 0).is_none()
}

/// How a text that stands by itself is seen.
pub(crate) fn seen(text: &str) -> String {
    Folding::default()
        .fold(text, 0, &mut Credit::full())
        .text
        .to_owned()
}

impl Folding {
    /// How `raw` is seen, the part before `from` being as it is seen already. The credit is the one at `from`, and then
    /// that at the end.
    pub(crate) fn fold<'t>(
        &'t mut self,
        raw: &'t str,
        from: usize,
        credit: &mut Credit,
    ) -> View<'t> {
        self.text.clear();
        self.seams.clear();
        let (mut at, mut copied) = (from, 0);
        while let Some((next, c, seen)) = next_unlike(raw, at) {
            credit.earn(next - at);
            at = next + c.len_utf8();
            let covered = seen == Seen::Unseen && credit.spend(c.len_utf8());
            if !covered {
                credit.earn(c.len_utf8());
            }
            match seen {
                Seen::Like(byte) => {
                    self.text.push_str(&raw[copied..next]);
                    self.text.push(char::from(byte));
                    self.seam(at, at);
                    copied = at;
                }
                _ if covered => {
                    self.text.push_str(&raw[copied..next]);
                    self.seam(next, at);
                    copied = at;
                }
                _ => {}
            }
        }
        credit.earn(raw.len() - at);
        self.text.push_str(&raw[copied..]);
        View {
            text: &self.text,
            raw,
            seams: &self.seams,
        }
    }

    /// The text that was folded last, as it is seen.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn seam(&mut self, end: usize, start: usize) {
        let seen = self.text.len();
        match self.seams.last_mut() {
            Some(last) if last.seen == seen => last.start = start,
            _ => self.seams.push(Seam { seen, end, start }),
        }
    }
}

impl<'t> View<'t> {
    /// Of a text that is plain.
    pub(crate) fn plain(text: &'t str) -> Self {
        Self {
            text,
            raw: text,
            seams: &[],
        }
    }

    /// Of a text that may not be; `room` is used then.
    pub(crate) fn of(raw: &'t str, room: &'t mut Folding) -> Self {
        if is_plain(raw) {
            Self::plain(raw)
        } else {
            room.fold(raw, 0, &mut Credit::full())
        }
    }

    /// The text as it came.
    pub(crate) fn raw(&self) -> &'t str {
        self.raw
    }

    /// Where the character at this place begins in the text as it came; its end for the end.
    pub(crate) fn start(&self, at: usize) -> usize {
        match self.seams.partition_point(|seam| seam.seen <= at) {
            0 => at,
            behind => self.seams[behind - 1].start + at - self.seams[behind - 1].seen,
        }
    }

    /// Where the character before this place ends in the text as it came.
    pub(crate) fn end(&self, at: usize) -> usize {
        match self.seams.partition_point(|seam| seam.seen < at) {
            behind if self.seams.get(behind).is_some_and(|seam| seam.seen == at) => {
                self.seams[behind].end
            }
            0 => at,
            behind => self.seams[behind - 1].start + at - self.seams[behind - 1].seen,
        }
    }
}

/// The first character from `at` on that is not seen as it is.
fn next_unlike(text: &str, mut at: usize) -> Option<(usize, char, Seen)> {
    let bytes = text.as_bytes();
    loop {
        at += ascii_len(&bytes[at..]);
        let c = text[at..].chars().next()?;
        match seen_as(c) {
            Seen::AsIs => at += c.len_utf8(),
            seen => return Some((at, c, seen)),
        }
    }
}

/// How many bytes from the first on are ASCII.
fn ascii_len(bytes: &[u8]) -> usize {
    const STEP: usize = 64;
    let whole = bytes
        .chunks(STEP)
        .take_while(|chunk| chunk.is_ascii())
        .count();
    let at = bytes.len().min(whole * STEP);
    let rest = bytes[at..].iter().take_while(|byte| byte.is_ascii());
    at + rest.count()
}

fn seen_as(c: char) -> Seen {
    match c {
        ..='\u{9F}' => Seen::AsIs,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => {
            Seen::Like(b' ')
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' => Seen::Like(b'-'),
        // Half-width and full-width forms: the same order as ASCII.
        '\u{FF01}'..='\u{FF5E}' => Seen::Like((c as u32 - 0xFF01) as u8 + b'!'),
        // Soft hyphen, joiners, marks of direction, variation selectors, tags: those of Unicode's
        // Default_Ignorable_Code_Point that are not letters.
        '\u{AD}'
        | '\u{34F}'
        | '\u{61C}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}' => Seen::Unseen,
        // Where most text outside ASCII is, and no digit.
        '\u{A1}'..='\u{65F}' | '\u{1E00}'..='\u{A61F}' | '\u{AC00}'..='\u{D7FF}' => Seen::AsIs,
        _ => digit(c).map_or(Seen::AsIs, Seen::Like),
    }
}

/// A decimal digit of any script, as the ASCII one. Their code points are in order from 0 to 9 and stand in tens
/// (Unicode Standard, section 4.6).
fn digit(c: char) -> Option<u8> {
    static TENS: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| {
        let class = Parser::new().parse(r"\p{Nd}").map(|hir| hir.into_kind());
        match class {
            Ok(HirKind::Class(Class::Unicode(class))) => class
                .iter()
                .map(|range| (u32::from(range.start()), u32::from(range.end())))
                .collect(),
            _ => Vec::new(),
        }
    });
    let c = u32::from(c);
    let behind = TENS.partition_point(|&(start, _)| start <= c);
    let (start, end) = *TENS.get(behind.checked_sub(1)?)?;
    (c <= end).then(|| b'0' + ((c - start) % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(raw: &str) -> (String, Vec<(usize, usize)>) {
        let mut room = Folding::default();
        let view = View::of(raw, &mut room);
        let places = (0..=view.text.len()).map(|at| (view.end(at), view.start(at)));
        (view.text.to_owned(), places.collect())
    }

    #[test]
    fn what_only_looks_different_is_seen_as_plain() {
        for (raw, expected) in [
            ("plain", "plain"),
            ("１２３－４５", "123-45"),
            ("ａ＠ｂ．ｃｏ", "a@b.co"),
            ("1\u{A0}2\u{202F}3\u{3000}4", "1 2 3 4"),
            ("1‐2‑3‒4–5—6―7−8", "1-2-3-4-5-6-7-8"),
            ("٤۴߄४᠔𝟒𝟜🯴", "44444444"),
            (
                "1\u{AD}2\u{200B}3\u{2060}4\u{FE0F}5\u{34F}6\u{E0101}",
                "123456",
            ),
            ("\u{FEFF}é日Ω²①½", "é日Ω²①½"),
        ] {
            assert_eq!(seen(raw), expected, "{raw:?}");
            assert_eq!(is_plain(raw), raw == expected, "{raw:?}");
        }
    }

    #[test]
    fn every_decimal_digit_of_unicode_is_seen_as_one() {
        let nd = regex_automata::meta::Regex::new(r"^\p{Nd}$").unwrap();
        for c in '\u{80}'..=char::MAX {
            let like = matches!(seen_as(c), Seen::Like(b'0'..=b'9'));
            assert_eq!(like, nd.is_match(c.to_string().as_str()), "{c:?}");
        }
        assert_eq!(seen("０９٠٩𝟎𝟗𝟘𝟿"), "09090909");
    }

    #[test]
    fn places_are_told_in_the_text_as_it_came() {
        let (text, places) = folded("a\u{AD}１\u{200B}\u{200B}b");
        assert_eq!(text, "a1b");
        assert_eq!(places, [(0, 0), (1, 3), (6, 12), (13, 13)]);
        let (text, places) = folded("\u{200B}é–\u{FE0F}");
        assert_eq!(text, "é-");
        assert_eq!(places, [(0, 3), (4, 4), (5, 5), (8, 11)]);
    }

    #[test]
    fn more_unseen_than_seen_is_seen() {
        let unseen = "\u{200B}".repeat(Credit::MOST / 3);
        assert_eq!(seen(&format!("1{unseen}2")), "12");
        assert_eq!(seen(&format!("1{unseen}\u{200B}2")), "1\u{200B}2");
        let between: String = (0..1000).map(|_| "abc\u{200B}").collect();
        assert_eq!(seen(&between).len(), 3000);
    }

    #[test]
    fn a_text_folded_in_pieces_is_folded_as_a_whole() {
        let raw = format!("a１{}–b{}c", "\u{200B}".repeat(80), "\u{AD}é".repeat(90));
        for (at, _) in raw.char_indices() {
            let mut credit = Credit::full();
            credit.pass(&raw[..at]);
            let mut room = Folding::default();
            let mut first = Folding::default();
            let mut behind = Credit::full();
            let head = first.fold(&raw[..at], 0, &mut behind).text.to_owned();
            assert_eq!(credit, behind);
            assert_eq!(
                head + room.fold(&raw[at..], 0, &mut credit).text,
                seen(&raw)
            );
        }
    }
}
