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
//!   None is one that a number in groups begins with, nor `%40` with six digits behind it: a number behind a percent sign.
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

mod escape;
mod looks;
mod percent;

use std::sync::LazyLock;

use self::{
    escape::{ESC, LONGEST, RUN, escaped, is_letter, sequence, written_sequence},
    looks::{Seen, seen_as},
    percent::percent,
};
pub(crate) use self::{
    escape::{ESCAPE, UNFINISHED, unfinished},
    looks::ranges,
};
use super::block::{BLOCK, ByteSet, Finder, block};

/// How many bytes of text room is kept for.
const KEPT: usize = 64 << 10;

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
        if let Some((introducer, len)) = written_sequence(&bytes[behind..]) {
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

/// Bytes that are not ASCII or may begin an escape.
static UNUSUAL: LazyLock<Finder> =
    LazyLock::new(|| Finder::new((0x80..=0xFE).chain([b'\\', b'%', ESC]).collect::<ByteSet>()));

#[cfg(test)]
mod tests;
