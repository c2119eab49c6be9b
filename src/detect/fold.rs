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
//! Those of a text inside the text: JSON that an agent repeats, the query of a link, the output of a terminal.
//!
//! - `b`, `f`, `n`, `r`, `t` behind a backslash (RFC 8259 section 7) are seen as [`ESCAPE`], which is a blank: a value
//!   right behind `\n` does not begin with a letter. The backslash is seen, and so is every other one.
//! - `\uXXXX` is the character of that number and `\/` is `/`, each a whole: no value begins or ends inside. Of a run of
//!   backslashes before them two belong to it, as in JSON inside JSON. Half a surrogate pair is a blank.
//! - `%XX` that stands for ASCII which is no letter, digit or control character but a tab and the ends of a line (RFC 3986
//!   section 2.1), `%25XX` too, is a whole: that
//!   character where it is `:` or may stand in a password without quotes, and else `%`, so that `%22` parts what is around it but
//!   ends no password and no link. `%20` between digits and parentheses is a blank, as groups of a number are parted.
//!   `%40` with [`NO_DOMAIN`] digits behind it is none: a number behind a percent sign.
//! - A colour sequence of a terminal (ECMA-48 sections 8.3.117 and 8.3.41: `ESC [ … m` and `ESC [ … K`), its `ESC` a byte or written
//!   `\u001b`, `\x1b`, `\033` or `\e`, is not seen at all, as far as the credit goes; then it is a blank, or its `ESC` is
//!   where it is long.
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
/// How many digits behind `%40` say that it is no `@`: no domain that people have begins with as many.
const NO_DOMAIN: usize = 6;
/// The longest escape in bytes that is seen as one character: `\\u00e9`.
const LONGEST: usize = RUN + 5;
/// The most bytes between `ESC [` and the end of a sequence.
const PARAMETERS: usize = 16;

/// How many bytes of text room is kept for.
const KEPT: usize = 64 << 10;

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
    /// Where what introduces it ends, if it is a sequence.
    front: usize,
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
    /// The last byte as it came; 0 at the start of a text.
    last: u8,
}

impl Past {
    /// The most credit there is, in bytes, and what a text begins with.
    pub(crate) const CREDIT: usize = 256;

    /// At the start of a text.
    pub(crate) fn none() -> Self {
        Self {
            credit: Self::CREDIT as u16,
            last: 0,
        }
    }

    /// Whether all of the text that comes next is seen as it is.
    pub(crate) fn is_plain(self, text: &str) -> bool {
        Walk::new(text, 0, self.last).next().is_none()
    }

    /// What is left behind a text that is seen as it is.
    pub(crate) fn pass_plain(&mut self, text: &str) {
        self.earn(text.len());
        self.end(text);
    }

    /// What is left behind the part of this text that ends at `end`, between two that are seen.
    pub(crate) fn pass(&mut self, text: &str, end: usize) {
        let mut at = 0;
        let mut walk = Walk::new(text, 0, self.last);
        while let Some(unlike) = walk.next().filter(|unlike| unlike.start < end) {
            self.earn(unlike.start - at);
            self.covers(&unlike, &mut walk);
            at = walk.at;
        }
        self.earn(end - at);
        self.end(&text[..end]);
    }

    fn earn(&mut self, bytes: usize) {
        self.credit = (usize::from(self.credit) + bytes).min(Self::CREDIT) as u16;
    }

    /// Whether this is not seen: what is takes from the credit or adds to it. Of a long sequence that the credit does not
    /// cover only the front is not seen as it is.
    fn covers(&mut self, unlike: &Unlike, walk: &mut Walk<'_>) -> bool {
        let len = unlike.end - unlike.start;
        let left = usize::from(self.credit).checked_sub(len);
        match left {
            Some(left) if unlike.unseen => {
                self.credit = left as u16;
                return true;
            }
            _ if len > LONGEST => walk.at = unlike.front,
            _ => {}
        }
        self.earn(unlike.worth);
        false
    }

    fn end(&mut self, text: &str) {
        self.last = text.as_bytes().last().copied().unwrap_or(self.last);
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
    let mut walk = Walk::new(text, 0, 0);
    let mut unlike = walk.next();
    std::iter::from_fn(move || {
        let from = at;
        if let Some(here) = unlike.take_if(|unlike| unlike.start == from) {
            at = here.end;
            unlike = walk.next();
            return text.get(from..at).map(|came| (came, here.c));
        }
        let c = text[from..].chars().next()?;
        at += c.len_utf8();
        text.get(from..at).map(|came| (came, c))
    })
}

/// How many bytes at the end of a text may be the front of an escape that is a whole: at most [`UNFINISHED`].
pub(crate) fn unfinished(text: &str) -> usize {
    let bytes = text.as_bytes();
    let may_be = |b: &u8| b.is_ascii_hexdigit() || b"%\\\x1B[;:ux-. ".contains(b);
    if !bytes.last().is_some_and(may_be) {
        return 0;
    }
    let tail = bytes.len().saturating_sub(UNFINISHED);
    let begins = |&b: &u8| matches!(b, b'%' | b'\\' | ESC);
    let Some(at) = bytes[tail..].iter().rposition(begins).map(|at| tail + at) else {
        return 0;
    };
    let behind = &bytes[at + 1..];
    let (unfinished, start) = match bytes[at] {
        b'%' => (is_percent_front(behind), at),
        ESC => (is_sequence_front(behind), at),
        _ => {
            let run = bytes[..=at].iter().rev().take_while(|&&b| b == b'\\');
            (is_escape_front(behind), at + 1 - run.take(RUN).count())
        }
    };
    if unfinished { bytes.len() - start } else { 0 }
}

/// `\\u001b[`, parameters, and their end missing.
pub(crate) const UNFINISHED: usize = RUN + 6 + PARAMETERS;

const ESC: u8 = 0x1B;

/// Whether this behind a `%`, at the end of a text, may be the front of an escape, or one that more text may yet change.
fn is_percent_front(behind: &[u8]) -> bool {
    let once = |behind: &[u8]| match behind {
        [] | [b'0'..=b'7'] | [b'2', b'0' | b'1' | b'3' | b'4' | b'6'] | [b'6', b'0'] => true,
        [b'4', b'0', rest @ ..] => {
            let (len, digits) = number(rest);
            // A blank, dot or dash at the very end may yet part digits.
            let parted = rest.len() == len + 1 && len > 0 && b"-. ".contains(&rest[len]);
            digits < NO_DOMAIN && (rest.len() == len || parted)
        }
        _ => false,
    };
    once(behind) || behind.strip_prefix(b"25").is_some_and(once)
}

/// The same behind a backslash.
fn is_escape_front(behind: &[u8]) -> bool {
    let number = |digits: &[u8]| digits.len() < 4 && digits.iter().all(u8::is_ascii_hexdigit);
    behind.is_empty()
        || behind.strip_prefix(b"u").is_some_and(number)
        || INTRODUCERS.iter().any(|introducer| {
            introducer.starts_with(behind)
                || behind
                    .strip_prefix(*introducer)
                    .is_some_and(is_sequence_front)
        })
}

/// The same behind an `ESC`.
fn is_sequence_front(behind: &[u8]) -> bool {
    match behind {
        [] => true,
        [b'[', parameters @ ..] => {
            parameters.len() <= PARAMETERS && parameters.iter().all(is_parameter)
        }
        _ => false,
    }
}

/// How an `ESC` is written behind a backslash.
const INTRODUCERS: [&[u8]; 6] = [b"u001b", b"u001B", b"x1b", b"x1B", b"033", b"e"];

fn is_parameter(byte: &u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b';' | b':')
}

/// The length of what makes a sequence of colours of the `ESC` before it.
fn sequence(behind: &[u8]) -> Option<usize> {
    let parameters = behind.strip_prefix(b"[")?;
    let len = parameters.iter().take_while(|b| is_parameter(b)).count();
    let ends = matches!(parameters.get(len), Some(b'm' | b'K'));
    (len <= PARAMETERS && ends).then_some(len + 2)
}

impl Folding {
    /// How `raw` is seen, the part before `from` being as it is seen already, and `past` what was before `from`; it is
    /// then what is behind the end.
    pub(crate) fn fold<'t>(&'t mut self, raw: &'t str, from: usize, past: &mut Past) -> View<'t> {
        let mut walk = Walk::new(raw, from, past.last);
        let first = walk.next();
        self.rest(raw, from, first, walk, past)
    }

    /// The same, where the first stretch that is not seen as it is was found already.
    fn rest<'t>(
        &'t mut self,
        raw: &'t str,
        from: usize,
        first: Option<Unlike>,
        mut walk: Walk<'_>,
        past: &mut Past,
    ) -> View<'t> {
        self.text.clear();
        self.seams.clear();
        self.text.reserve(raw.len());
        let (mut at, mut copied, mut next) = (from, 0, first);
        while let Some(unlike) = next {
            past.earn(unlike.start - at);
            self.text.push_str(&raw[copied..unlike.start]);
            let covered = past.covers(&unlike, &mut walk);
            at = walk.at;
            copied = at;
            if covered {
                self.seam(unlike.start, at);
            } else {
                self.text.push(unlike.c);
                // Where one byte is seen as another, the places stay as they are.
                if at - unlike.start > 1 {
                    self.seam(at, at);
                }
            }
            next = walk.next();
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

    /// Gives back what a long text made it grow to.
    pub(crate) fn give_back(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.seams.clear();
        self.seams.shrink_to(KEPT / 16);
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
        let mut walk = Walk::new(raw, 0, 0);
        match walk.next() {
            None => Self::plain(raw),
            first => room.rest(raw, 0, first, walk, &mut Past::none()),
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

/// Names the stretches of a text that are not seen as they are, from left to right.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    /// Where it began, and the byte before.
    start: usize,
    before: u8,
    unusual: &'static Finder,
    /// Which bytes of the block that ends here are unusual; none was read where that is not behind `at`.
    end: usize,
    bits: u64,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str, at: usize, before: u8) -> Self {
        Self {
            text,
            at,
            start: at,
            before,
            unusual: &UNUSUAL,
            end: at,
            bits: 0,
        }
    }

    /// The byte before this place, as it came.
    fn before(&self, at: usize) -> u8 {
        if at == self.start {
            return self.before;
        }
        self.text.as_bytes()[at - 1]
    }

    /// What a backslash here begins, with those behind it: an escape, or where it is over.
    fn escape(&self, at: usize) -> Result<Unlike, usize> {
        let bytes = self.text.as_bytes();
        let run = bytes[at..].iter().take_while(|&&b| b == b'\\').count();
        let behind = at + run;
        if is_letter(bytes.get(behind)) {
            return Ok(Unlike::escape(behind, behind + 1, ESCAPE));
        }
        let start = behind - run.min(RUN);
        let mut introducers = INTRODUCERS.iter();
        let colours = introducers.find_map(|introducer| {
            let rest = bytes[behind..].strip_prefix(*introducer)?;
            Some((introducer.len(), sequence(rest)?))
        });
        if let Some((introducer, len)) = colours {
            let front = behind + introducer;
            return Ok(Unlike::sequence(start, front, front + len));
        }
        match escaped(&bytes[behind..]) {
            Some((len, c)) => Ok(Unlike::escape(start, behind + len, c)),
            None => Err(behind),
        }
    }

    /// The first byte from `at` on that is not ASCII or may begin an escape.
    #[inline]
    fn unusual(&mut self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        if self.end <= self.at && bytes.len() - self.at < BLOCK / 4 {
            let unusual = |&b: &u8| b >= 0x80 || matches!(b, b'\\' | b'%' | ESC);
            return bytes[self.at..]
                .iter()
                .position(unusual)
                .map(|i| self.at + i);
        }
        let mut at = self.at;
        loop {
            if at < self.end {
                let left = self.bits >> (at + BLOCK - self.end);
                if left != 0 {
                    return Some(at + left.trailing_zeros() as usize);
                }
                at = self.end;
            }
            if at >= bytes.len() {
                return None;
            }
            let mut room = [0; BLOCK];
            self.bits = self.unusual.find(block(bytes, at, &mut room));
            self.end = at + BLOCK;
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Unlike;

    #[inline]
    fn next(&mut self) -> Option<Unlike> {
        let bytes = self.text.as_bytes();
        let found =
            if self.at == self.start && self.before == b'\\' && is_letter(bytes.get(self.at)) {
                Unlike::escape(self.at, self.at + 1, ESCAPE)
            } else {
                loop {
                    let at = self.unusual()?;
                    self.at = match bytes[at] {
                        b'\\' if is_letter(bytes.get(at + 1)) => {
                            break Unlike::escape(at + 1, at + 2, ESCAPE);
                        }
                        b'\\' => match self.escape(at) {
                            Ok(escape) => break escape,
                            Err(behind) => behind,
                        },
                        b'%' => match percent(self.before(at), &bytes[at..]) {
                            Some((len, c)) => break Unlike::escape(at, at + len, c),
                            None => at + 1,
                        },
                        ESC => match sequence(&bytes[at + 1..]) {
                            Some(len) => break Unlike::sequence(at, at + 1, at + 1 + len),
                            None => at + 1,
                        },
                        _ => {
                            let c = self.text[at..].chars().next()?;
                            match seen_as(c) {
                                Seen::AsIs => at + c.len_utf8(),
                                seen => break Unlike::character(at, c, seen),
                            }
                        }
                    };
                }
            };
        self.at = found.end;
        Some(found)
    }
}

impl Unlike {
    fn character(start: usize, c: char, seen: Seen) -> Self {
        let end = start + c.len_utf8();
        Self {
            start,
            end,
            front: end,
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
            front: end,
            worth: 1,
            ..Self::character(start, c, seen)
        }
    }

    /// A sequence of colours, introduced by what ends at `front`.
    fn sequence(start: usize, front: usize, end: usize) -> Self {
        Self {
            front,
            unseen: true,
            ..Self::escape(start, end, ESCAPE)
        }
    }
}

/// Whether the byte behind a backslash makes an escape of one letter of it.
fn is_letter(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'b' | b'f' | b'n' | b'r' | b't'))
}

/// How what `%` and two digits stand for is seen, and the length of the whole, if `bytes` begin with that.
/// How many bytes of a number this begins with, and how many digits are in it: single blanks, dots and dashes may part them.
fn number(bytes: &[u8]) -> (usize, usize) {
    let (mut len, mut digits) = (0, 0);
    for (i, b) in bytes.iter().enumerate() {
        let parts = b"-. ".contains(b) && len == i && digits > 0;
        if b.is_ascii_digit() {
            (len, digits) = (i + 1, digits + 1);
        } else if !parts {
            break;
        }
        if digits == NO_DOMAIN {
            break;
        }
    }
    (len, digits)
}

fn percent(before: u8, bytes: &[u8]) -> Option<(usize, char)> {
    let twice = bytes.strip_prefix(b"%25").map(|digits| (5, digits));
    let once = bytes.strip_prefix(b"%").map(|digits| (3, digits));
    twice.into_iter().chain(once).find_map(|(len, rest)| {
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let digit = |i: usize| char::from(digits[i]).to_digit(16);
        let c = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        let seen = match c {
            0x7F.. => return None,
            // No link has them: what is behind a percent sign is a number.
            c if c < b' ' && !b"\t\n\r".contains(&c) => return None,
            c if c.is_ascii_alphanumeric() => return None,
            b'@' if number(behind).1 >= NO_DOMAIN => return None,
            // Behind none of these a link has a number; behind a percent sign `LIKE '%212-555-0100%'` has one.
            c if b"!#$&`".contains(&c) && behind.first().is_some_and(u8::is_ascii_digit) => {
                return None;
            }
            b' ' => {
                let grouped = before.is_ascii_digit() || before == b')';
                let goes_on = matches!(behind, [b'0'..=b'9' | b'(', ..]);
                if grouped && goes_on { ' ' } else { '%' }
            }
            c if b":!#$&()*+./=?@^_~-".contains(&c) => char::from(c),
            _ => '%',
        };
        Some((len, seen))
    })
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

/// Bytes that are not ASCII or may begin an escape.
static UNUSUAL: LazyLock<Finder> =
    LazyLock::new(|| Finder::new((0x80..=0xFE).chain([b'\\', b'%', ESC]).collect::<ByteSet>()));

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
            ("a%40b %2b49 %2B1 %4 50%", "a@b +49 +1 %4 50%"),
            (
                "k%3D1%26d%3A03%2F12%20%22x%22%0A%25 %41%C3%A9%zz",
                "k=1&d:03/12%%x%%% %41%C3%A9%zz",
            ),
            ("a%2540b %253D1 %2541 %25zz", "a@b =1 %41 %zz"),
            ("1%20(2)%203%20x%20 4%2520 5%252067", "1 (2) 3%x% 4% 5 67"),
            // a number behind a percent sign
            ("5%4012888x5%40128888", "5@12888x5%40128888"),
            // colours
            (
                "\u{1B}[31m1\u{1B}[0;1m2\u{1B}[m\u{1B}[K \u{1B}[31 \u{1B}x",
                "12 \u{1B}[31 \u{1B}x",
            ),
            (
                r"\u001b[31m1\\x1B[38;5;196m2\033[0m3\e[m \u001b \e \x1b[2J",
                "123 \u{B} \\e \\x1b[2J",
            ),
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
            (r"\u001b", 6),
            ("bu00", 0),
            ("u", 0),
            ("abc", 0),
            ("50%", 1),
            ("a%4", 2),
            ("a%2", 2),
            ("a%3", 2),
            ("a%3D", 0),
            ("a%8", 0),
            ("a%40", 3),
            ("a%4012345", 8),
            ("a%40123456", 0),
            ("a%40b", 0),
            ("a%20", 3),
            ("a%25", 3),
            ("a%254", 4),
            ("a%254012345", 10),
            ("a%25z", 0),
            ("a\u{1B}", 1),
            ("a\u{1B}[0;31", 6),
            ("a\u{1B}[0;31m", 0),
            ("a\u{1B}[00000000000000000", 0),
            (r"\\\u001b[38;5;196", 16),
            (r"\x1", 3),
            (r"\033[1", 6),
            (r"\e", 2),
            (r"\ex", 0),
        ] {
            assert_eq!(unfinished(text), bytes, "{text:?}");
            assert!(bytes <= UNFINISHED);
        }
    }

    #[test]
    fn a_text_folded_in_pieces_is_folded_as_a_whole() {
        let raw = format!(
            r"a１{}–b{}c\n\\n\u0041\\\u00e9\/x\é\\\\\\t%40%2B%4\u12\u20%253D1%202%25\u001b[1m\\x1b[38;5;1mx%4012345",
            "\u{200B}".repeat(80),
            "\u{AD}é".repeat(90)
        );
        let mut room = Folding::default();
        for (at, _) in raw.char_indices() {
            // What is unfinished is awaited.
            let at = at - unfinished(&raw[..at]);
            let mut past = Past::none();
            past.pass(&raw, at);
            let mut behind = Past::none();
            let head = room.fold(&raw[..at], 0, &mut behind).text.to_owned();
            assert_eq!(past, behind);
            let tail = room.fold(&raw[at..], 0, &mut past).text;
            assert_eq!(head + tail, seen(&raw), "at {at}");
        }
    }
}
