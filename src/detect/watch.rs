//! Goes over a text with a [`Sieve`]: each kind of sign has a watcher that looks ahead for the next place it knows of,
//! and the first of these places is the next one where a match may begin.

use regex_automata::Input;

use super::{
    at_least,
    block::BLOCK,
    sieve::{Groups, INNER, STEP, Sieve},
};

/// How far a watcher looks ahead in one go, so that all of them read a piece of text while it is close at hand.
const AHEAD: usize = 16 << 10;
/// A text this short is gone through byte by byte: setting out to look ahead would cost more.
const NEAR: usize = 64;

/// Names the places of one text where a match may begin, from left to right.
pub(crate) struct Watch<'s> {
    sieve: &'s Sieve,
    text: &'s str,
    /// Where the text is not near its end.
    watchers: Option<Watchers>,
    /// Where it is: the groups that can have a match in it.
    possible: Option<Groups>,
    /// Bytes that were read.
    pub(crate) read: u64,
}

impl<'s> Watch<'s> {
    pub(crate) fn new(sieve: &'s Sieve, text: &'s str) -> Self {
        Self {
            sieve,
            text,
            watchers: None,
            possible: None,
            read: 0,
        }
    }

    /// The first place from `at` on and before `limit`, and the groups that may have a match there. Never asked for a
    /// place before one it was asked for.
    pub(crate) fn place(&mut self, at: usize, limit: usize) -> Option<(usize, Groups)> {
        if self.watchers.is_none() && self.text.len() - at <= NEAR {
            return self.place_nearby(at, limit);
        }
        let watchers = self
            .watchers
            .get_or_insert_with(|| Watchers::new(self.sieve, at));
        let text = Text {
            sieve: self.sieve,
            text: self.text,
            bytes: self.text.as_bytes(),
            read: &mut self.read,
        };
        watchers.place(text, at, limit)
    }

    fn place_nearby(&mut self, at: usize, limit: usize) -> Option<(usize, Groups)> {
        let text = self.text.as_bytes();
        let possible = *self
            .possible
            .get_or_insert_with(|| self.sieve.possible(&text[at..]));
        self.read += (limit - at) as u64;
        self.sieve.table.place(text, at, limit, possible)
    }
}

/// What watchers look at.
struct Text<'s> {
    sieve: &'s Sieve,
    text: &'s str,
    bytes: &'s [u8],
    read: &'s mut u64,
}

impl Text<'_> {
    /// Those of the groups that may have a match at this place.
    fn groups(&self, at: usize, of: Groups) -> Groups {
        self.sieve.table.groups(self.bytes, at, of)
    }
}

struct Watchers {
    /// By far the busiest, so it is asked before the others are.
    rare: Watcher,
    /// The first of the others' places.
    others: usize,
    literals: Watcher,
    inner: [Watcher; INNER],
    general: Watcher,
}

impl Watchers {
    fn new(sieve: &Sieve, from: usize) -> Self {
        let watcher = |any: bool| Watcher {
            next: if any { from } else { usize::MAX },
            groups: 0,
            base: usize::MAX,
            bits: 0,
            zone: 0,
        };
        Self {
            literals: watcher(sieve.literals.is_some()),
            rare: watcher(sieve.rare_groups != 0),
            inner: std::array::from_fn(|i| watcher(i < sieve.inner.len())),
            general: watcher(sieve.general.is_some()),
            others: from,
        }
    }

    fn place(&mut self, mut text: Text<'_>, at: usize, limit: usize) -> Option<(usize, Groups)> {
        if self.rare.next < at {
            self.rare.settle(at, 0);
        }
        loop {
            if self.others < at {
                self.others = self.next_of_others(text.sieve, at);
            }
            let next = self.rare.next.min(self.others);
            if next >= limit {
                return None;
            }
            if self.rare.next == next && self.rare.groups == 0 {
                self.rare.look_for_rare(&mut text);
                continue;
            }
            if self.others == next {
                if self.others_look_ahead(&mut text, next) {
                    self.others = self.next_of_others(text.sieve, at);
                    continue;
                }
                return Some((next, self.groups(text.sieve, next)));
            }
            return Some((next, self.rare.groups));
        }
    }

    /// The first place from `at` on that one of the others knows of, or up to which it has not looked.
    fn next_of_others(&mut self, sieve: &Sieve, at: usize) -> usize {
        let inner = &mut self.inner[..sieve.inner.len()];
        let others = [&mut self.literals, &mut self.general];
        others
            .into_iter()
            .chain(inner)
            .fold(usize::MAX, |first, other| {
                if other.next < at {
                    other.settle(at, 0);
                }
                first.min(other.next)
            })
    }

    /// The groups that may have a match at this place, in the eyes of those who know of it.
    fn groups(&self, sieve: &Sieve, at: usize) -> Groups {
        let inner = &self.inner[..sieve.inner.len()];
        let all = [&self.rare, &self.literals, &self.general];
        all.into_iter()
            .chain(inner)
            .filter(|watcher| watcher.next == at)
            .fold(0, |groups, watcher| groups | watcher.groups)
    }

    /// Lets those of the others who have not looked further than this look further. Whether there were any.
    fn others_look_ahead(&mut self, text: &mut Text<'_>, at: usize) -> bool {
        let unread = |watcher: &Watcher| watcher.next == at && watcher.groups == 0;
        let mut any = false;
        if unread(&self.literals) {
            any = true;
            self.literals.look_for_literals(text);
        }
        if unread(&self.general) {
            any = true;
            self.general.look_for_general(text);
        }
        for (which, inner) in self.inner[..text.sieve.inner.len()].iter_mut().enumerate() {
            if unread(inner) {
                any = true;
                inner.look_for_inner(text, which);
            }
        }
        any
    }
}

/// One of those who name places.
#[derive(Clone, Copy)]
struct Watcher {
    /// A place and the groups that may have a match there; or, as long as there are none, how far it has looked and
    /// found nothing.
    next: usize,
    groups: Groups,
    /// What it has seen of the block that begins at `base`, if that is a place in the text.
    base: usize,
    bits: u64,
    /// All places before this one may be.
    zone: usize,
}

impl Watcher {
    fn settle(&mut self, next: usize, groups: Groups) {
        (self.next, self.groups) = (next, groups);
    }

    /// Whether the place is one of the block that was read last.
    fn has_read(&self, at: usize) -> bool {
        self.base <= at && at < self.base + STEP
    }

    /// The next of the places that were seen, from `at` on.
    fn pop(&mut self, at: usize) -> Option<usize> {
        while self.bits != 0 {
            let place = self.base + self.bits.trailing_zeros() as usize;
            self.bits &= self.bits - 1;
            if place >= at {
                return Some(place);
            }
        }
        None
    }

    fn look_for_literals(&mut self, text: &mut Text<'_>) {
        let Some(literals) = &text.sieve.literals else {
            return;
        };
        let end = text.bytes.len().min(self.next + AHEAD);
        let mut from = self.next;
        while let Some(found) = literals.find(text.bytes, from, end) {
            *text.read += (found + 1 - from) as u64;
            let groups = text.groups(found, literals.groups);
            if groups != 0 {
                self.settle(found, groups);
                return;
            }
            from = found + 1;
        }
        *text.read += (end - from) as u64;
        // A literal that begins closer to the end is not whole before it.
        let whole = if end == text.bytes.len() {
            end
        } else {
            end + 1 - literals.longest
        };
        self.settle(whole.max(from), 0);
    }

    fn look_for_rare(&mut self, text: &mut Text<'_>) {
        let sieve = text.sieve;
        let end = text.bytes.len().min(self.next + AHEAD);
        if !self.has_read(self.next) {
            self.base = self.next;
            self.bits = sieve.rare_starts(text.bytes, self.base);
            *text.read += BLOCK as u64;
        }
        loop {
            while let Some(at) = self.pop(self.next) {
                let groups = text.groups(at, sieve.rare_groups);
                if groups != 0 {
                    self.settle(at, groups);
                    return;
                }
            }
            self.base += STEP;
            self.bits = sieve.rare_starts(text.bytes, self.base);
            *text.read += BLOCK as u64;
            if self.base >= end {
                self.settle(self.base.min(text.bytes.len()), 0);
                return;
            }
        }
    }

    fn look_for_inner(&mut self, text: &mut Text<'_>, which: usize) {
        let inner = &text.sieve.inner[which];
        let mut from = self.next;
        let end = text.bytes.len().min(from + AHEAD);
        loop {
            let in_zone =
                text.sieve
                    .table
                    .place(text.bytes, from.min(self.zone), self.zone, inner.groups);
            if let Some((at, groups)) = in_zone {
                self.settle(at, groups);
                return;
            }
            from = from.max(self.zone);
            let Some(place) = inner.find(text.bytes, from, end) else {
                *text.read += (end.max(from) - from) as u64;
                // Whatever begins before this has the byte, if it has it at all, in what was read.
                let clear = if end == text.bytes.len() {
                    end
                } else {
                    end - inner.reach
                };
                self.settle(clear.max(from), 0);
                return;
            };
            *text.read += (place - from) as u64;
            let least = from.max((place + 1).saturating_sub(inner.reach));
            from = (least..place)
                .rev()
                .take_while(|&at| inner.needed.before.contains(text.bytes[at]))
                .last()
                .unwrap_or(place);
            *text.read += (place - from) as u64;
            self.zone = place + 1;
        }
    }

    fn look_for_general(&mut self, text: &mut Text<'_>) {
        let Some(general) = &text.sieve.general else {
            return;
        };
        // Behind a place that came to nothing there may be many more: it then looks no further ahead than it has to.
        let near = self.bits == 1;
        let ahead = if near { 2 * general.reach } else { AHEAD };
        let end = text.bytes.len().min(self.next + ahead);
        // Places before this see all the text that their match may need.
        let sure = if end == text.bytes.len() {
            end
        } else {
            end - general.reach
        };
        *text.read += (end - self.next) as u64;
        let mut from = self.next;
        let (found, groups) = loop {
            let input = Input::new(text.text).span(from..end);
            let found = general.regex.search(&input).map(|found| found.start());
            let Some(start) = found.filter(|&start| start < sure) else {
                break (sure, 0);
            };
            let groups = text.groups(start, general.groups);
            if groups != 0 {
                break (start, groups);
            }
            from = at_least(text.text, start + 1);
        };
        self.bits = (groups != 0).into();
        self.settle(found, groups);
    }
}
