//! Documents that differ from the one before in one piece of text, and in what differs in every one: a number, a time,
//! padding. Most of a stream is one such after another, and is read without being taken apart.

use std::ops::Range;

use memchr::memchr2;

use crate::dialect::{
    Channel,
    json::{Document, Kind, Span},
    texts::{Texts, What, is_token},
};

/// Members of a document's root that differ from one document to the next and say nothing of its text.
const VARYING: [&str; 4] = ["created", "created_at", "obfuscation", "sequence_number"];
/// The most places in which documents may differ.
const MAX_HOLES: usize = 4;
/// The longest block that is compared before it is whole, in bytes.
const MAX_PARTIAL: usize = 64 << 10;
/// How much longer than the first such block others may be before room for them must be asked for, in bytes.
const SLACK: usize = 64;
/// Digits of the longest number that is compared.
const MAX_DIGITS: usize = 20;

/// What the next block may be like.
#[derive(Debug)]
pub(super) struct Like {
    /// What stands between the places in which blocks differ: one more than there are places.
    fixed: Vec<Box<[u8]>>,
    holes: Vec<Hole>,
    /// Bytes of the block before its document, and behind it.
    around: (usize, usize),
    pub(super) channel: Channel,
    /// The text is a piece of JSON.
    pub(super) json: bool,
    /// The last block of these, where it differs in more than its text and what it says was not taken over.
    last: Vec<u8>,
}

/// A place in which blocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hole {
    /// The text.
    Text,
    Number,
    /// A word of the protocol.
    Word,
    /// What pads the document.
    Padding,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Something else.
    Other,
    /// Perhaps a block like the one before: more bytes will tell.
    Partial,
    /// One like it.
    Alike(Found),
}

/// A block like the one before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) length: usize,
    /// By place, where in the block.
    holes: [Range<usize>; MAX_HOLES],
}

impl Like {
    /// What the next block may be like, where this one had one piece of text, and nothing else to look at that may
    /// differ: `raw` is the block, in which the document stands at `place`.
    pub(super) fn of(
        document: &Document<'_>,
        texts: &Texts,
        (raw, place): (&str, Range<usize>),
    ) -> Option<Self> {
        let still = |what: &What| matches!(what, What::Word(_) | What::Padding);
        let mut pieces = texts.slots.iter().filter(|slot| !still(&slot.what));
        let piece = pieces.next().filter(|_| pieces.next().is_none())?;
        let json = match piece.what {
            What::Piece(_) => false,
            What::ArgumentsPiece(_) => true,
            _ => return None,
        };
        let mut holes = varying(document, texts);
        holes.push((inside(piece.span), Hole::Text));
        holes.sort_by_key(|(range, _)| range.start);
        let paddings = texts.slots.iter();
        let paddings = paddings.filter(|slot| matches!(slot.what, What::Padding));
        let found = holes.iter().filter(|(_, hole)| *hole == Hole::Padding);
        if holes.len() > MAX_HOLES || found.count() != paddings.count() {
            return None;
        }
        let mut fixed = Vec::with_capacity(holes.len() + 1);
        let mut at = 0;
        for (range, _) in &holes {
            let start = place.start + range.start;
            fixed.push(raw.as_bytes().get(at..start)?.into());
            at = place.start + range.end;
        }
        fixed.push(raw.as_bytes().get(at..)?.into());
        Some(Self {
            fixed,
            holes: holes.into_iter().map(|(_, hole)| hole).collect(),
            around: (place.start, raw.len() - place.end),
            channel: piece.channel.clone(),
            json,
            last: Vec::with_capacity(raw.len() + SLACK),
        })
    }

    /// What `bytes` begin with.
    pub(super) fn read(&self, bytes: &[u8]) -> Seen {
        let mut found: [Range<usize>; MAX_HOLES] = Default::default();
        let partial = if bytes.len() < MAX_PARTIAL {
            Seen::Partial
        } else {
            Seen::Other
        };
        let mut at = 0;
        let mut holes = self.holes.iter().zip(&mut found);
        for fixed in &self.fixed {
            let rest = bytes.get(at..).unwrap_or_default();
            if !rest.starts_with(fixed) {
                return if fixed.starts_with(rest) {
                    partial
                } else {
                    Seen::Other
                };
            }
            at += fixed.len();
            let Some((hole, range)) = holes.next() else {
                break;
            };
            let rest = bytes.get(at..).unwrap_or_default();
            let length = match hole {
                Hole::Number => number(rest),
                Hole::Text | Hole::Word | Hole::Padding => string(rest),
            };
            match length {
                Ok(Some(length)) => *range = at..at + length,
                Ok(None) => return partial,
                Err(Unlike) => return Seen::Other,
            }
            at = range.end;
        }
        Seen::Alike(Found {
            length: at,
            holes: found,
        })
    }

    /// What stands at each place of a block that was found.
    pub(super) fn holes<'b>(
        &'b self,
        found: &'b Found,
        block: &'b [u8],
    ) -> impl Iterator<Item = (Hole, &'b [u8])> {
        let holes = self.holes.iter().zip(&found.holes);
        holes.map(|(hole, range)| (*hole, block.get(range.clone()).unwrap_or_default()))
    }

    /// Appends a block that was found, each place filled by `fill`, which appends what takes the place of what stands there.
    pub(super) fn write(
        &self,
        found: &Found,
        block: &[u8],
        out: &mut Vec<u8>,
        mut fill: impl FnMut(Hole, &[u8], &mut Vec<u8>),
    ) {
        let mut holes = self.holes(found, block);
        for fixed in &self.fixed {
            out.extend_from_slice(fixed);
            if let Some((hole, inside)) = holes.next() {
                fill(hole, inside, out);
            }
        }
    }

    /// Keeps a block whose document says something new of itself, until it is [`told`](Self::told).
    pub(super) fn keep(&mut self, block: &[u8]) {
        if self.holes.len() > 1 {
            self.last.clear();
            self.last.extend_from_slice(block);
        }
    }

    /// The document kept last.
    pub(super) fn told(&self) -> Option<&str> {
        let (before, behind) = self.around;
        let end = self.last.len().checked_sub(behind)?;
        std::str::from_utf8(self.last.get(before..end)?).ok()
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        let fixed: usize = self.fixed.iter().map(|fixed| fixed.len()).sum();
        fixed + self.last.len()
    }
}

/// The inside of a string's span.
fn inside(span: Span) -> Range<usize> {
    span.start as usize + 1..(span.end as usize).saturating_sub(1)
}

/// Where the document differs from the next besides its text.
fn varying(document: &Document<'_>, texts: &Texts) -> Vec<(Range<usize>, Hole)> {
    let Kind::Object(members) = &document.root.kind else {
        return Vec::new();
    };
    let varying = members
        .iter()
        .filter(|member| VARYING.contains(&document.key(&member.key)));
    varying
        .filter_map(|member| {
            let span = member.value.span;
            if matches!(member.value.kind, Kind::Number) {
                return Some((span.start as usize..span.end as usize, Hole::Number));
            }
            let slot = texts.slots.iter().find(|slot| slot.span == span)?;
            match slot.what {
                What::Word(_) => Some((inside(span), Hole::Word)),
                What::Padding => Some((inside(span), Hole::Padding)),
                _ => None,
            }
        })
        .collect()
}

/// The bytes are not what stood there before.
struct Unlike;

/// The length of the inside of a string; `None` where its end has not come.
fn string(bytes: &[u8]) -> Result<Option<usize>, Unlike> {
    let mut at = 0;
    let end = loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(place) = memchr2(b'"', b'\\', rest) else {
            break None;
        };
        at += place;
        if bytes.get(at) == Some(&b'"') {
            break Some(at);
        }
        at += 2;
    };
    let inside = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if inside.iter().any(|byte| *byte < b' ') {
        return Err(Unlike);
    }
    Ok(end)
}

/// The length of a whole number without sign; `None` where its end has not come.
fn number(bytes: &[u8]) -> Result<Option<usize>, Unlike> {
    let digits = bytes.iter().position(|byte| !byte.is_ascii_digit());
    match (digits, bytes.first()) {
        (Some(0), _) => Err(Unlike),
        (Some(2..), Some(b'0')) => Err(Unlike),
        (Some(1..=MAX_DIGITS), _) => Ok(digits),
        (None, _) if bytes.len() <= MAX_DIGITS => Ok(None),
        _ => Err(Unlike),
    }
}

/// Whether what stands where the protocol has a word looks like one.
pub(super) fn word(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|word| is_token(word))
}
