//! The end of what a channel of whole messages said before, to tell what a value makes of two messages.
//!
//! Promises: no more than [`Tail::BYTES`] is kept, however long the messages are.

use crate::{
    detect::{Effort, Growth, MAX_REACH, View, at_least},
    mask::Plan,
};

/// How far back a value may begin, in bytes.
pub(super) const TAIL: usize = MAX_REACH;

/// What the messages of one channel said last.
#[derive(Default)]
pub(super) struct Tail {
    /// As the masks left it.
    pub(super) masked: String,
    /// As detectors see it, before anything was masked.
    seen: String,
    /// A value too long for the tail that ended the last message, and may go on.
    growing: Option<Growth>,
}

impl Tail {
    /// The most bytes of text that are kept.
    pub(super) const BYTES: usize = 2 * TAIL;

    /// Whether a value that was masked in what was said goes on in `text`.
    pub(super) fn goes_on(&self, plan: &Plan, label: &str, text: &str) -> bool {
        let scanner = plan.scanner();
        if let Some(mut growing) = self.growing.clone()
            && growing.take(View::of(text, &mut scanner.room()).text) > 0
        {
            return true;
        }
        if self.seen == self.masked {
            return false;
        }
        let front = front(plan, label);
        let joint = front.len() + self.seen.len();
        let beginning = &text[..text.floor_char_boundary(4 * TAIL)];
        let joined = format!("{front}{}{beginning}", self.seen);
        let (mut effort, mut room) = (Effort::default(), scanner.room());
        let view = View::of(&joined, &mut room);
        let mut hits = scanner.hits(view.text, &mut effort);
        hits.any(|hit| view.start(hit.start) < joint && view.end(hit.end) > joint)
    }

    /// Notes that `text` was said, and what the masks left of it.
    pub(super) fn say(&mut self, plan: &Plan, label: &str, text: &str, masked: &str) {
        let scanner = plan.scanner();
        self.masked.push_str(masked);
        keep_end(&mut self.masked);
        let mut room = scanner.room();
        let said = View::of(text, &mut room).text;
        if said.is_empty() {
            return;
        }
        self.growing = None;
        if said.len() > TAIL && text != masked {
            let behind = [front(plan, label), self.seen.clone()].concat();
            let ends = |before: &str| growing(plan, &format!("{before}{said}"));
            self.growing = ends(&behind).or_else(|| ends(""));
        }
        self.seen
            .push_str(&said[at_least(said, said.len().saturating_sub(TAIL))..]);
        keep_end(&mut self.seen);
    }
}

/// The value that ends `text` and would go on.
fn growing(plan: &Plan, text: &str) -> Option<Growth> {
    let mut effort = Effort::default();
    let last = plan.scanner().hits(text, &mut effort).last()?;
    last.growth.filter(|_| last.end == text.len())
}

/// What stands before a text under `label`, as a masker reads it.
fn front(plan: &Plan, label: &str) -> String {
    if label.is_empty() || !plan.scanner().reads_labels() {
        return String::new();
    }
    format!("{label}:\n")
}

fn keep_end(text: &mut String) {
    let old = text.floor_char_boundary(text.len().saturating_sub(TAIL));
    text.drain(..old);
}
