//! The masker of one stream of text.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::Plan;
use crate::detect::{Effort, Entity, Growth, LOOK_BEHIND, MAX_REACH};

/// Input is worked through in slices of at most this many bytes, and decided text is dropped when there is this much.
const SLICE: usize = 4096;

/// Masks one text that comes in pieces.
///
/// For every way of cutting a text between characters, the pieces' outputs in order are what [`super::mask`] makes of
/// the whole. After each [`push`](Self::push) only text is held that some continuation could make part of a value.
pub struct Masker {
    plan: Arc<Plan>,
    /// Text already written or masked that checks may look back at, then the held text.
    buffer: String,
    /// Where the held text begins.
    held: usize,
    /// A value that has been masked and still goes on.
    growing: Option<Growth>,
    counts: Vec<u64>,
    effort: Effort,
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
    /// The most bytes of text that a masker has in memory between two calls: what it holds, what checks may look
    /// back at (with a character that straddles its edge), and decided text that it has not dropped yet.
    pub const BUFFER_BYTES: usize = MAX_REACH + LOOK_BEHIND + 4 + SLICE;

    /// A masker at the start of a text.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            counts: vec![0; plan.scanner.len()],
            plan,
            buffer: String::new(),
            held: 0,
            growing: None,
            effort: Effort::default(),
        }
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
            self.grow(slice);
            let decided = self
                .plan
                .scanner
                .undecided(&self.buffer, self.held, &mut self.effort);
            self.settle(decided, false, out);
            self.drop_decided();
        }
    }

    /// Ends the text and appends the rest of it to `out`. The masker is then at the start of a new text; its counts go
    /// on.
    pub fn finish(&mut self, out: &mut String) {
        self.settle(self.buffer.len(), true, out);
        self.buffer.clear();
        self.held = 0;
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

    /// Bytes of text held back, at most [`Scanner::reach`](crate::detect::Scanner::reach).
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

    /// Appends a slice to the buffer; as much of it as belongs to a growing value is swallowed.
    fn grow(&mut self, slice: &str) {
        self.buffer.push_str(slice);
        if let Some(growing) = &mut self.growing {
            let taken = growing.take(slice);
            self.held += taken;
            if taken < slice.len() {
                self.growing = None;
            }
        }
    }

    /// Writes the text before `decided`, masked. Where a value ends behind `decided`, what follows it is looked at
    /// anew: starts inside the value no longer count.
    fn settle(&mut self, mut decided: usize, ended: bool, out: &mut String) {
        while self.held < decided {
            let Some(hit) =
                self.plan
                    .scanner
                    .next(&self.buffer, self.held, decided, &mut self.effort)
            else {
                out.push_str(&self.buffer[self.held..decided]);
                self.held = decided;
                return;
            };
            out.push_str(&self.buffer[self.held..hit.start]);
            self.plan.put(&hit, &self.buffer[hit.start..hit.end], out);
            self.counts[hit.pattern] += 1;
            self.held = hit.end;
            if hit.end == self.buffer.len() {
                self.growing = hit.growth;
            }
            if hit.end > decided && !ended {
                decided = self
                    .plan
                    .scanner
                    .undecided(&self.buffer, self.held, &mut self.effort);
            }
        }
    }

    /// Drops what nobody looks back at any more, once it is worth the move.
    fn drop_decided(&mut self) {
        if self.held <= LOOK_BEHIND + SLICE {
            return;
        }
        let mut cut = self.held - LOOK_BEHIND;
        while !self.buffer.is_char_boundary(cut) {
            cut -= 1;
        }
        self.buffer.drain(..cut);
        self.held -= cut;
    }
}
