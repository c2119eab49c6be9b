//! Masking: exact for every way of cutting the input, holding back the shortest suffix an exact algorithm may keep.
//!
//! [`mask`] is the definition: it masks a whole text. A [`Masker`] is given the same text in pieces and writes the same
//! bytes, each as soon as no continuation of the text could change it.
//!
//! # What it never does
//!
//! It never writes a part of a value that the whole text would have masked, whatever the pieces are, and never splits
//! a character. It does no IO and knows no clock.
//!
//! # What it holds
//!
//! At most [`Scanner::reach`](crate::detect::Scanner::reach) bytes of text as it is seen, which can be
//! [`Masker::HELD_BYTES`] as it came, and 4 KiB besides: what it may look back at, counts, a growing value's state. A
//! value that outgrows the reach is masked on the spot and its rest swallowed, never released.
//!
//! # What it can miss
//!
//! What [`crate::detect`] can miss. "Shortest" is with respect to the shapes of the detectors, not to their checks.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::detect::{Effort, Entity, Scanner, View};

mod keys;
mod masker;
mod operator;
#[cfg(test)]
mod tests;
mod unmask;
mod vault;

pub use keys::{Keys, MIN_KEY_BYTES, MaskingKey, Scope, ShortKey};
pub use masker::Masker;
pub use operator::{Operator, Restore};
pub use unmask::unmask;
pub use vault::{Restorer, Vault};

/// What is to be masked, and how. Shared, as most requests owe the same.
pub type Owed = Arc<BTreeMap<Entity, Operator>>;

/// What to look for and what to put in its place. Shared by all streams it is used for.
#[derive(Clone)]
pub struct Plan {
    scanner: Arc<Scanner>,
    /// By detector, as the scanner numbers them.
    operators: Box<[Operator]>,
    /// Those of entities that no detector finds: their values are told by the field they stand in.
    named: BTreeMap<Entity, Operator>,
    keys: Option<Arc<Keys>>,
    vault: Option<Arc<Vault>>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("scanner", &self.scanner)
            .field("operators", &self.operators)
            .finish()
    }
}

impl Plan {
    /// An entity that the scanner finds and `operators` does not name is replaced. One that `operators` names and the
    /// scanner does not find is that of a [named](Self::named) value.
    #[must_use]
    pub fn new(scanner: Arc<Scanner>, operators: &BTreeMap<Entity, Operator>) -> Self {
        let operator = |pattern| {
            operators
                .get(scanner.entity(pattern))
                .copied()
                .unwrap_or_default()
        };
        let found = scanner.entities();
        let named = operators.iter().filter(|(e, _)| !found.contains(*e));
        Self {
            named: named.map(|(e, operator)| (e.clone(), *operator)).collect(),
            operators: (0..scanner.len()).map(operator).collect(),
            scanner,
            keys: None,
            vault: None,
        }
    }

    /// The same with keys for the operators that need them.
    #[must_use]
    pub fn with_keys(self, keys: Arc<Keys>) -> Self {
        Self {
            keys: Some(keys),
            ..self
        }
    }

    /// The same with a vault for [`Operator::Vault`].
    #[must_use]
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        Self {
            vault: Some(vault),
            ..self
        }
    }

    /// What takes the place of `value`, which is one of `entity` because of where it stands; `None` where that entity is
    /// not to be masked.
    #[must_use]
    pub fn named(&self, entity: &str, value: &str) -> Option<(Entity, String)> {
        let (entity, operator) = self.named.get_key_value(entity)?;
        let mut out = String::new();
        self.stand_in(*operator, entity, value, &mut out);
        Some((entity.clone(), out))
    }

    /// What it looks with.
    #[must_use]
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }
}

/// Masks a whole text that stands under `label`, such as the key of a value, and counts what was masked.
#[must_use]
pub fn mask_under(plan: &Arc<Plan>, label: &str, text: &str) -> (String, BTreeMap<Entity, u64>) {
    let (masked, counts) = find_under(plan, label, text);
    (masked.unwrap_or_else(|| text.to_owned()), counts)
}

/// The same, without a copy of a text in which nothing is found.
#[must_use]
pub fn find_under(
    plan: &Arc<Plan>,
    label: &str,
    text: &str,
) -> (Option<String>, BTreeMap<Entity, u64>) {
    if label.is_empty() || !plan.scanner.reads_labels() {
        return find(plan, text);
    }
    let mut out = String::with_capacity(text.len());
    let mut masker = Masker::under(plan.clone(), label);
    masker.push(text, &mut out);
    masker.finish(&mut out);
    let counts = masker.counts();
    ((!counts.is_empty()).then_some(out), counts)
}

/// Masks a whole text, and counts what was masked.
#[must_use]
pub fn mask(plan: &Plan, text: &str) -> (String, BTreeMap<Entity, u64>) {
    let (masked, counts) = find(plan, text);
    (masked.unwrap_or_else(|| text.to_owned()), counts)
}

/// [`mask`], without a copy of a text in which nothing is found.
#[must_use]
pub fn find(plan: &Plan, text: &str) -> (Option<String>, BTreeMap<Entity, u64>) {
    let (mut out, mut counts) = (String::new(), BTreeMap::new());
    let (mut effort, mut room) = (Effort::default(), plan.scanner.room());
    let view = View::of(text, &mut room);
    let mut at = 0;
    for hit in plan.scanner.hits(view.text, &mut effort) {
        let (start, end) = (view.start(hit.start), view.end(hit.end));
        if counts.is_empty() {
            out.reserve(text.len());
        }
        out.push_str(&text[at..start]);
        plan.put(&hit, &text[start..end], &mut out);
        *counts
            .entry(plan.scanner.entity(hit.pattern).clone())
            .or_default() += 1;
        at = end;
    }
    room.give_back();
    if counts.is_empty() {
        return (None, counts);
    }
    out.push_str(&text[at..]);
    (Some(out), counts)
}
