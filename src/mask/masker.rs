//! The masker of one stream of text.

use std::{collections::BTreeMap, fmt, mem, sync::Arc};

use super::Plan;
use crate::detect::{
    BEHIND_LABEL, Effort, Entity, Growth, LOOK_BEHIND, MAX_REACH, Past, UNFINISHED, View, at_least,
    unfinished,
};

/// Input is worked through in slices of at most this many bytes.
const SLICE: usize = 2048;
/// The buffer grows by at least this many bytes, so that small pieces seldom make it.
const GRAIN: usize = 256;
/// The most bytes of the buffer that hold no held text.
const SPARE: usize = LOOK_BEHIND + SLICE + 512;

/// Masks one text that comes in pieces.
///
/// For every way of cutting a text between characters, the pieces' outputs in order are what [`super::mask`] makes of
/// the whole. After each [`push`](Self::push) only text is held that some continuation could make part of a value.
pub struct Masker {
    plan: Arc<Plan>,
    /// The end of the text already written or masked, as it is seen, for checks to look back at; then the held text as
    /// it came.
    buffer: String,
    /// Where the held text begins.
    held: usize,
    /// What the text before it makes of how the held text is seen.
    past: Past,
    /// A value that has been masked and still goes on.
    growing: Option<Growth>,
    counts: Box<[u64]>,
    effort: Effort,
}

/// How far a text is settled.
struct Settled {
    /// In the text as it is seen: what is before is written or masked.
    seen: usize,
    /// The same in the text as it came.
    raw: usize,
}

impl fmt::Debug for Masker {
    /// Never the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker")
            .field("plan", &self.plan)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Masker {
    /// The most text in bytes that a masker holds back: as much as a value may be long, each character of it four
    /// bytes for one that is seen and as many unseen in between, or an escape of seven and one, and the front of
    /// another.
    pub const HELD_BYTES: usize = 8 * MAX_REACH + Past::CREDIT + UNFINISHED;

    /// The most bytes of text that a masker has in memory between two calls: what it holds, what checks may look
    /// back at, and decided text that it has not dropped yet.
    pub const BUFFER_BYTES: usize = Self::HELD_BYTES + SPARE;

    /// A masker at the start of a text.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            counts: vec![0; plan.scanner.len()].into(),
            plan,
            buffer: String::new(),
            held: 0,
            past: Past::none(),
            growing: None,
            effort: Effort::default(),
        }
    }

    /// A masker at the start of a text that stands under `label`, such as the key of a value: what words before a value
    /// tell of it, the label tells too. It is not written.
    #[must_use]
    pub fn under(plan: Arc<Plan>, label: &str) -> Self {
        let mut masker = Self::new(plan);
        if !label.is_empty() && masker.plan.scanner.reads_labels() {
            let from = label.len().saturating_sub(LOOK_BEHIND - BEHIND_LABEL.len());
            masker.buffer.push_str(&label[at_least(label, from)..]);
            masker.buffer.push_str(BEHIND_LABEL);
            masker.held = masker.buffer.len();
        }
        masker
    }

    /// Takes the next piece and appends to `out` all that no continuation can change.
    pub fn push(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        while !rest.is_empty() {
            let mut cut = rest.len().min(SLICE);
            while !rest.is_char_boundary(cut) {
                cut -= 1;
            }
            let (slice, behind) = rest.split_at(cut);
            rest = behind;
            self.make_room(slice.len());
            self.buffer.push_str(slice);
            self.work(false, out);
        }
        self.give_back();
    }

    /// Ends the text and appends the rest of it to `out`. The masker is then at the start of a new text; its counts go
    /// on.
    pub fn finish(&mut self, out: &mut String) {
        self.work(true, out);
        self.buffer.clear();
        self.held = 0;
        self.past = Past::none();
        self.growing = None;
    }

    /// What was masked so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Entity, u64> {
        let mut counts = BTreeMap::new();
        for (pattern, &count) in self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            *counts
                .entry(self.plan.scanner.entity(pattern).clone())
                .or_default() += count;
        }
        counts
    }

    /// Bytes of text held back, at most [`Scanner::reach`](crate::detect::Scanner::reach) where they are seen as they
    /// are, and at most [`HELD_BYTES`](Self::HELD_BYTES).
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.len() - self.held
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    #[cfg(test)]
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// Writes what is decided of the held text, masked.
    fn work(&mut self, ended: bool, out: &mut String) {
        let mut buffer = mem::take(&mut self.buffer);
        let mut end = buffer.len();
        if !ended {
            end -= unfinished(&buffer[self.held..]);
        }
        let text = &buffer[..end];
        if self.past.is_plain(&text[self.held..]) {
            let settled = self.settle(View::plain(text), ended, out);
            self.past.pass_plain(&text[self.held..settled.raw]);
            self.held = settled.raw;
        } else {
            let plan = self.plan.clone();
            let mut room = plan.scanner.room();
            let view = room.fold(text, self.held, &mut { self.past });
            let settled = self.settle(view, ended, out);
            self.past.pass(&text[self.held..], settled.raw - self.held);
            let context = at_least(room.text(), settled.seen.saturating_sub(LOOK_BEHIND));
            buffer.replace_range(..settled.raw, &room.text()[context..settled.seen]);
            self.held = settled.seen - context;
        }
        self.buffer = buffer;
    }

    /// Writes the decided part of a text, masked. Where a value ends behind it, what follows the value is looked at
    /// anew: starts inside the value no longer count.
    fn settle(&mut self, view: View<'_>, ended: bool, out: &mut String) -> Settled {
        let (text, raw) = (view.text, view.raw());
        let scanner = &self.plan.scanner;
        let (mut seen, mut written) = (self.held, self.held);
        if let Some(growing) = &mut self.growing {
            let taken = growing.take(&text[seen..]);
            if taken > 0 {
                seen += taken;
                written = view.end(seen);
            }
            if seen == text.len() && !ended {
                // What is unseen behind the value belongs to it if it goes on.
                return Settled { seen, raw: written };
            }
            self.growing = None;
        }
        let mut decided = text.len();
        if !ended {
            decided = scanner.undecided(text, seen, &mut self.effort);
        }
        let mut search = scanner.search(text, seen);
        while seen < decided {
            let Some(hit) = search.next(decided, &mut self.effort) else {
                seen = decided;
                break;
            };
            let (start, end) = (view.start(hit.start), view.end(hit.end));
            out.push_str(&raw[written..start]);
            self.plan.put(&hit, &raw[start..end], out);
            self.counts[hit.pattern] += 1;
            (seen, written) = (hit.end, end);
            if ended {
                continue;
            }
            if seen == text.len() && hit.growth.is_some() {
                self.growing = hit.growth;
                return Settled { seen, raw: written };
            }
            if seen > decided {
                decided = scanner.undecided(text, seen, &mut self.effort);
            }
        }
        let held = view.start(seen);
        out.push_str(&raw[written..held]);
        Settled { seen, raw: held }
    }

    /// Makes room for as many bytes: drops what nobody looks back at any more, and grows if that is not enough.
    fn make_room(&mut self, bytes: usize) {
        if self.room() < bytes {
            self.drop_decided();
        }
        if self.room() < bytes {
            self.buffer.reserve_exact(bytes.max(GRAIN));
        }
    }

    fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    fn drop_decided(&mut self) {
        let cut = at_least(&self.buffer, self.held.saturating_sub(LOOK_BEHIND));
        self.buffer.drain(..cut);
        self.held -= cut;
    }

    /// Gives back what unusual text made the buffer grow to.
    fn give_back(&mut self) {
        if self.buffer.capacity() > self.held() + SPARE {
            self.drop_decided();
            self.buffer.shrink_to(self.buffer.len() + SLICE);
        }
    }
}
