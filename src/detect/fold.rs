//! A text as detectors see it: characters that only look different are made the plain ones that rules speak of, those
//! that are not seen at all are left out, and what is written as an escape is what it stands for. What was found is then
//! told in places of the text as it came.
//!
//! ```text
//!   as it came    １２３－ 4 5 <U+200B> - 6789 <U+FE0F> .     \n 4111 …     jo \u0040 x.co
//!   as it is seen 1 2 3 -  4 5          - 6789          .     \   4111 …     jo @      x.co
//!                 ^-------------- found ------^                  ^-          ^------------
//! ```
//!
//! A value reaches from its first seen character to its last: what is unseen between them belongs to it, what is unseen
//! around it does not, so nothing has to be awaited to tell where a value ends.
//!
//! # Escapes
//!
//! Those of a text inside the text: JSON that an agent repeats, the query of a link.
//!
//! - `b`, `f`, `n`, `r`, `t` behind a backslash (RFC 8259 section 7) are seen as [`ESCAPE`], which is a blank: a value
//!   right behind `\n` does not begin with a letter. The backslash is seen, and so is every other one.
//! - `\uXXXX` is the character of that number and `\/` is `/`, each a whole: no value begins or ends inside. Of a run of
//!   backslashes before them two belong to it, as in JSON inside JSON. Half a surrogate pair is a blank.
//! - `%40` is `@` and `%2B` is `+` (RFC 3986 section 2.1). No other one is decoded: `%20` or `%22` would end a password
//!   that has them in it.
//!
//! The end of a text that may be the front of such an escape is [`unfinished`]: it is awaited.
//!
//! # What it never does
//!
//! It never changes a text, only how it is looked at.
//!
//! # What it can miss
//!
//! Letters that look like others (Cyrillic `а`), and what hides behind more unseen bytes than [`Past`] has credit for: a
//! value and all that is unseen inside it have to be kept in memory until both are known. What is no escape but looks
//! like one: of `C:\rk_live_…` the `r` is not seen.

use std::sync::LazyLock;

use super::block::{BLOCK, ByteSet, Finder, block};
use regex_syntax::{
    Parser,
    hir::{Class, HirKind},
};

/// What a letter behind a backslash is seen as: white space that no text is likely to have, and that `.` passes.
pub(crate) const ESCAPE: char = '\u{B}';
/// Of how many backslashes before it an escape that is a whole may consist.
const RUN: usize = 2;

/// How a character is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    AsIs,
    /// As this ASCII character.
    Like(u8),
    /// Not at all, as far as the credit goes.
    Unseen,
}

/// A stretch of a text that is not seen as it is.
struct Unlike {
    start: usize,
    end: usize,
    /// How it is seen.
    c: char,
    /// It is not, as far as the credit goes.
    unseen: bool,
    /// What it earns.
    worth: usize,
}

/// What of a text bears on how the next characters are seen.
///
/// One thing is the credit: unseen bytes that a text may have before they count as characters like any other. Other text
/// earns it back, byte for byte, so that unseen characters may stand between all others but not outweigh them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    credit: u16,
    /// The last character was a backslash.
    backslash: bool,
}

impl Past {
    /// The most credit there is, in bytes, and what a text begins with.
    pub(crate) const CREDIT: usize = 256;

    /// At the start of a text.
    pub(crate) fn none() -> Self {
        Self {
            credit: Self::CREDIT as u16,
            backslash: false,
        }
    }

    /// Whether all of the text that comes next is seen as it is.
    pub(crate) fn is_plain(self, text: &str) -> bool {
        next_unlike(text, 0, self.backslash).is_none()
    }

    /// What is left behind a text that is seen as it is.
    pub(crate) fn pass_plain(&mut self, text: &str) {
        self.earn(text.len());
        self.end(text);
    }

    /// What is left behind this text.
    pub(crate) fn pass(&mut self, text: &str) {
        let mut at = 0;
        while let Some(unlike) = next_unlike(text, at, at == 0 && self.backslash) {
            self.earn(unlike.start - at);
            at = unlike.end;
            self.is_covered(&unlike);
        }
        self.earn(text.len() - at);
        self.end(text);
    }

    fn earn(&mut self, bytes: usize) {
        self.credit = (usize::from(self.credit) + bytes).min(Self::CREDIT) as u16;
    }

    /// Whether this is not seen: what is takes from the credit or adds to it.
    fn is_covered(&mut self, unlike: &Unlike) -> bool {
        let left = usize::from(self.credit).checked_sub(unlike.end - unlike.start);
        match left {
            Some(left) if unlike.unseen => self.credit = left as u16,
            _ => self.earn(unlike.worth),
        }
        unlike.unseen && left.is_some()
    }

    fn end(&mut self, text: &str) {
        self.backslash = text.ends_with('\\') || (text.is_empty() && self.backslash);
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

/// How a text that stands by itself is seen.
pub(crate) fn seen(text: &str) -> String {
    Folding::default()
        .fold(text, 0, &mut Past::none())
        .text
        .to_owned()
}

/// The characters of a text, each as it came and as it is seen; one that is not seen is told as it is.
pub(crate) fn characters(text: &str) -> impl Iterator<Item = (&str, char)> {
    let mut at = 0;
    let mut unlike = next_unlike(text, 0, false);
    std::iter::from_fn(move || {
        let from = at;
        if let Some(here) = unlike.take_if(|unlike| unlike.start == from) {
            at = here.end;
            unlike = next_unlike(text, at, false);
            return text.get(from..at).map(|came| (came, here.c));
        }
        let c = text[from..].chars().next()?;
        at += c.len_utf8();
        text.get(from..at).map(|came| (came, c))
    })
}

/// How many bytes at the end of a text may be the front of an escape that is a whole: at most [`UNFINISHED`].
pub(crate) fn unfinished(text: &str) -> usize {
    let front = match text.as_bytes() {
        [.., b'%'] => return 1,
        [.., b'%', b'2' | b'4'] => return 2,
        bytes => {
            let digits = bytes.iter().rev().take_while(|b| b.is_ascii_hexdigit());
            let (front, digits) = bytes.split_at(bytes.len() - digits.take(3).count());
            match front.strip_suffix(b"u") {
                Some(front) => front,
                None if digits.is_empty() => front,
                None => return 0,
            }
        }
    };
    let run = front.iter().rev().take_while(|&&b| b == b'\\');
    match run.take(RUN).count() {
        0 => 0,
        run => text.len() - front.len() + run,
    }
}

/// `\\u12f`, of which the last digit is missing.
pub(crate) const UNFINISHED: usize = RUN + 4;

impl Folding {
    /// How `raw` is seen, the part before `from` being as it is seen already, and `past` what was before `from`; it is
    /// then what is behind the end.
    pub(crate) fn fold<'t>(&'t mut self, raw: &'t str, from: usize, past: &mut Past) -> View<'t> {
        self.text.clear();
        self.seams.clear();
        let (mut at, mut copied) = (from, 0);
        while let Some(unlike) = next_unlike(raw, at, at == from && past.backslash) {
            past.earn(unlike.start - at);
            at = unlike.end;
            self.text.push_str(&raw[copied..unlike.start]);
            copied = at;
            if past.is_covered(&unlike) {
                self.seam(unlike.start, at);
            } else {
                self.text.push(unlike.c);
                self.seam(at, at);
            }
        }
        past.earn(raw.len() - at);
        past.end(&raw[from..]);
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
        let mut past = Past::none();
        if past.is_plain(raw) {
            Self::plain(raw)
        } else {
            room.fold(raw, 0, &mut past)
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

/// The first stretch from `at` on that is not seen as it is; whether a backslash is before `at`.
fn next_unlike(text: &str, mut at: usize, mut backslash: bool) -> Option<Unlike> {
    let bytes = text.as_bytes();
    loop {
        if backslash && matches!(bytes.get(at), Some(b'b' | b'f' | b'n' | b'r' | b't')) {
            return Some(Unlike::escape(at, at + 1, ESCAPE));
        }
        backslash = false;
        at += usual_len(&bytes[at..]);
        let c = text[at..].chars().next()?;
        match c {
            '\\' => {
                let run = bytes[at..].iter().take_while(|&&b| b == b'\\').count();
                let behind = at + run;
                if let Some((len, c)) = escaped(&bytes[behind..]) {
                    let start = behind - run.min(RUN);
                    return Some(Unlike::escape(start, behind + len, c));
                }
                (at, backslash) = (behind, true);
            }
            '%' => match &bytes[at + 1..] {
                [b'4', b'0', ..] => return Some(Unlike::escape(at, at + 3, '@')),
                [b'2', b'B' | b'b', ..] => return Some(Unlike::escape(at, at + 3, '+')),
                _ => at += 1,
            },
            c => match seen_as(c) {
                Seen::AsIs => at += c.len_utf8(),
                seen => return Some(Unlike::character(at, c, seen)),
            },
        }
    }
}

impl Unlike {
    fn character(start: usize, c: char, seen: Seen) -> Self {
        Self {
            start,
            end: start + c.len_utf8(),
            c: match seen {
                Seen::Like(byte) => char::from(byte),
                _ => c,
            },
            unseen: seen == Seen::Unseen,
            worth: c.len_utf8(),
        }
    }

    /// An escape for `c`. It earns little, however long it is: see
    /// [`Masker::HELD_BYTES`](crate::mask::Masker::HELD_BYTES).
    fn escape(start: usize, end: usize, c: char) -> Self {
        let seen = if c.is_ascii() { Seen::AsIs } else { seen_as(c) };
        Self {
            end,
            worth: 1,
            ..Self::character(start, c, seen)
        }
    }
}

/// What an escape that is a whole stands for, and its length without backslashes, if `bytes` begin with one behind them.
fn escaped(bytes: &[u8]) -> Option<(usize, char)> {
    match bytes {
        [b'/', ..] => Some((1, '/')),
        [b'u', digits @ ..] => {
            let code = digits.first_chunk::<4>()?.iter().try_fold(0, |code, &b| {
                char::from(b).to_digit(16).map(|digit| code * 16 + digit)
            })?;
            let c = char::from_u32(code).filter(|c| *c >= ' ');
            Some((5, c.unwrap_or(ESCAPE)))
        }
        _ => None,
    }
}

/// How many bytes from the first on are ASCII and begin no escape.
fn usual_len(bytes: &[u8]) -> usize {
    static UNUSUAL: LazyLock<Finder> =
        LazyLock::new(|| Finder::new((0x80..=0xFE).chain(*b"\\%").collect::<ByteSet>()));
    if bytes.len() < BLOCK / 4 {
        let unusual = |&&b: &&u8| b >= 0x80 || b == b'\\' || b == b'%';
        return bytes.iter().take_while(|b| !unusual(b)).count();
    }
    let mut room = [0; BLOCK];
    for at in (0..bytes.len()).step_by(BLOCK) {
        let found = UNUSUAL.find(block(bytes, at, &mut room));
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
    }
    bytes.len()
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
    static TENS: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| ranges(r"\p{Nd}"));
    let c = u32::from(c);
    let behind = TENS.partition_point(|&(start, _)| start <= c);
    let (start, end) = *TENS.get(behind.checked_sub(1)?)?;
    (c <= end).then(|| b'0' + ((c - start) % 10) as u8)
}

/// The code points of a class, first and last of each range, in order. None, where it is no class.
pub(crate) fn ranges(class: &str) -> Vec<(u32, u32)> {
    match Parser::new().parse(class).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class
            .iter()
            .map(|range| (u32::from(range.start()), u32::from(range.end())))
            .collect(),
        _ => Vec::new(),
    }
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
            assert_eq!(Past::none().is_plain(raw), raw == expected, "{raw:?}");
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
        let unseen = "\u{200B}".repeat(Past::CREDIT / 3);
        assert_eq!(seen(&format!("1{unseen}2")), "12");
        assert_eq!(seen(&format!("1{unseen}\u{200B}2")), "1\u{200B}2");
        let between: String = (0..1000).map(|_| "abc\u{200B}").collect();
        assert_eq!(seen(&between).len(), 3000);
    }

    #[test]
    fn an_escape_is_seen_as_what_it_stands_for() {
        for (raw, expected) in [
            (
                r"\n4111 \tx \\r\\n",
                "\\\u{B}4111 \\\u{B}x \\\\\u{B}\\\\\u{B}",
            ),
            (r"\u003ca\u0040b\u003e \u00e9 \\u00E9", "<a@b> é é"),
            (r"03\/12\\/1985 https:\/\/", "03/12/1985 https://"),
            // escapes of what only looks different, and of what is not seen
            (r"\uff11\u00a02\u200b3", "1 23"),
            // ends of lines, half of a pair
            (r"a\u000ab \ud83d\ude00.", "a\u{B}b \u{B}\u{B}."),
            // the backslashes before it are two at most
            (r"\\\\u0040 \\\/", r"\\@ \/"),
            ("a%40b %2b49 %2B1 %20 %4 50%", "a@b +49 +1 %20 %4 50%"),
            // no escapes
            (
                r"\x41 \d \ \\ \u12 \uzzzz \U0041 C:\Docs \é",
                r"\x41 \d \ \\ \u12 \uzzzz \U0041 C:\Docs \é",
            ),
            (r"u0041 n /", "u0041 n /"),
        ] {
            assert_eq!(seen(raw), expected, "{raw:?}");
            assert_eq!(Past::none().is_plain(raw), raw == expected, "{raw:?}");
        }
        let (text, places) = folded(r"\na\u0040b");
        assert_eq!(text, "\\\u{B}a@b");
        assert_eq!(places, [(0, 0), (1, 1), (2, 2), (3, 3), (9, 9), (10, 10)]);
    }

    #[test]
    fn characters_are_told_one_by_one() {
        let told: Vec<_> = characters("a\\n１\\\\u00e9\u{AD}é%40").collect();
        let expected = [
            ("a", 'a'),
            ("\\", '\\'),
            ("n", ESCAPE),
            ("１", '1'),
            (r"\\u00e9", 'é'),
            ("\u{AD}", '\u{AD}'),
            ("é", 'é'),
            ("%40", '@'),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_may_become_an_escape_is_unfinished() {
        for (text, bytes) in [
            ("", 0),
            (r"a\", 1),
            (r"a\\", 2),
            (r"a\\\\", 2),
            (r"\u", 2),
            (r"\\u0", 4),
            (r"\\\u00e", 6),
            (r"\u00e9", 0),
            (r"\\n", 0),
            (r"\x4", 0),
            ("bu00", 0),
            ("u", 0),
            ("abc", 0),
            ("50%", 1),
            ("a%4", 2),
            ("a%2", 2),
            ("a%3", 0),
            ("a%40", 0),
        ] {
            assert_eq!(unfinished(text), bytes, "{text:?}");
            assert!(bytes <= UNFINISHED);
        }
    }

    #[test]
    fn a_text_folded_in_pieces_is_folded_as_a_whole() {
        let raw = format!(
            r"a１{}–b{}c\n\\n\u0041\\\u00e9\/x\é\\\\\\t%40%2B%4\u12\u20",
            "\u{200B}".repeat(80),
            "\u{AD}é".repeat(90)
        );
        let mut room = Folding::default();
        for (at, _) in raw.char_indices() {
            // What is unfinished is awaited.
            let at = at - unfinished(&raw[..at]);
            let mut past = Past::none();
            past.pass(&raw[..at]);
            let mut behind = Past::none();
            let head = room.fold(&raw[..at], 0, &mut behind).text.to_owned();
            assert_eq!(past, behind);
            let tail = room.fold(&raw[at..], 0, &mut past).text;
            assert_eq!(head + tail, seen(&raw), "at {at}");
        }
    }
}
