//! A document's texts, masked, put back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{Element, FILLER, Leaf, Removal, Slot, Texts, What};
use crate::dialect::{
    Channel, ShapeError, Text, TextFilter,
    arguments::Arguments,
    json::{self, Span},
};

/// What stands where masking left nothing of a text.
const EMPTIED: &str = "-";
/// Most texts that are remembered.
const MAX_SAID: usize = 4096;

/// The texts a stream has said whole, where its protocol repeats them.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Said(Option<HashSet<[u8; 32]>>);

impl Said {
    /// Remembers, where `repeats`: else every text is new.
    pub(in crate::dialect) fn new(repeats: bool) -> Self {
        Self(repeats.then(HashSet::new))
    }

    /// Whether anything is remembered at all.
    pub(in crate::dialect) fn remembers(&self) -> bool {
        self.0.is_some()
    }

    /// The text of that digest was said.
    pub(in crate::dialect) fn note(&mut self, text: Sha256) {
        if let Some(said) = self.0.as_mut().filter(|said| said.len() < MAX_SAID) {
            said.insert(text.finalize().into());
        }
    }

    /// Bytes in memory.
    pub(in crate::dialect) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |said| said.len() * 32)
    }

    /// Whether `text` was said before; from now on it was.
    fn before(&mut self, text: &str) -> bool {
        let Some(said) = &mut self.0 else {
            return false;
        };
        let digest: [u8; 32] = Sha256::digest(text).into();
        said.contains(&digest) || (said.len() < MAX_SAID && !said.insert(digest))
    }
}

impl Texts {
    /// The edits that put each text, masked, in its place. Pieces are left out: they are their reader's.
    ///
    /// # Errors
    /// `too_deep` in arguments.
    pub(in crate::dialect) fn edits(
        &self,
        document: &str,
        filter: &mut dyn TextFilter,
        said: &mut Said,
    ) -> Result<Vec<(Span, String)>, ShapeError> {
        let mut edit = Edit {
            document,
            filter,
            said,
            edits: Vec::new(),
            keys: Vec::new(),
            changed: Vec::new(),
            removed: BTreeMap::new(),
        };
        edit.slots(&self.slots)?;
        // What is taken out goes before what is changed at the same place.
        let mut edits = Vec::new();
        for removal in &self.removed {
            match removal {
                Removal::Element(element, span) => edit.remove(*element, *span),
                Removal::All(span) => edits.push((*span, "[]".to_owned())),
                Removal::Value(span) => edits.push((*span, "null".to_owned())),
            }
        }
        let Edit {
            edits: changes,
            keys,
            changed,
            removed,
            ..
        } = edit;
        take_out(&removed, &mut edits);
        edits.extend(changes);
        rename(keys, &mut edits);
        self.drop_annotations(&changed, &mut edits);
        let named = self
            .slots
            .iter()
            .any(|slot| matches!(slot.what, What::Named { .. }));
        if named || !removed.is_empty() || !self.removed.is_empty() {
            outermost(&mut edits);
        }
        Ok(edits)
    }

    /// Puts [`EMPTIED`] where masking left nothing of a text: servers refuse messages and parts without text. Values of
    /// JSON that a model or a tool wrote may well be empty.
    pub(in crate::dialect) fn mark_emptied(&self, edits: &mut [(Span, String)]) {
        let mut emptied = edits.iter_mut().filter(|(_, new)| is_blank(new)).peekable();
        if emptied.peek().is_none() {
            return;
        }
        let texts = self.slots.iter().flat_map(|slot| match &slot.what {
            What::Text(_) if slot.label.is_empty() => vec![slot.span],
            What::Run { parts, .. } => parts.iter().map(|(span, _)| *span).collect(),
            _ => Vec::new(),
        });
        let texts: HashSet<u32> = texts.map(|span| span.start).collect();
        for (span, new) in emptied {
            if texts.contains(&span.start) {
                *new = json::quoted(EMPTIED);
            }
        }
    }

    /// Takes out what cannot be scanned and is of one of `these` kinds.
    ///
    /// # Errors
    /// Why a part cannot be scanned that cannot be taken out: the document is nothing without it, or it is all there is
    /// in its array, as the only image of a message. Servers refuse a message without content.
    pub(in crate::dialect) fn strip(
        &mut self,
        document: &str,
        these: &dyn Fn(&str) -> bool,
    ) -> Result<(), &'static str> {
        // By array: its elements that go, and whether the last one is among them.
        let mut emptied: BTreeMap<u32, (BTreeSet<usize>, bool)> = BTreeMap::new();
        for (kind, removal) in self.removals.iter().filter(|(kind, _)| these(kind)) {
            if let Some(Removal::Element(element, _)) = removal {
                let (places, last) = emptied.entry(element.array).or_default();
                places.insert(element.place);
                *last |= element.next.is_none();
                if *last && places.last().is_some_and(|place| places.len() == place + 1) {
                    return Err(kind);
                }
            }
        }
        self.remove(document, these).map(drop)
    }

    /// The same of an answer, of which nothing may be left: a client can read one without content. What was in the parts that go is no text
    /// of the answer.
    ///
    /// # Errors
    /// Why a part cannot be scanned that stands where nothing can be taken out.
    pub(in crate::dialect) fn strip_from_answer(
        &mut self,
        document: &str,
        these: &dyn Fn(&str) -> bool,
    ) -> Result<(), &'static str> {
        let gone = self.remove(document, these)?;
        // A run is more than the part that it stands at.
        self.slots
            .retain(|slot| matches!(slot.what, What::Run { .. }) || !gone.holds(slot.span));
        Ok(())
    }

    /// What goes. The texts that are left around it are read together without it.
    fn remove(
        &mut self,
        document: &str,
        these: &dyn Fn(&str) -> bool,
    ) -> Result<Gone, &'static str> {
        let mut removed = Vec::new();
        for (kind, removal) in self.removals.iter().filter(|(kind, _)| these(kind)) {
            let removal = removal.ok_or(*kind)?;
            if removed.last() != Some(&removal) {
                removed.push(removal);
            }
        }
        let gone = Gone::of(removed.iter().map(Removal::span).collect());
        self.removed = removed;
        if !gone.0.is_empty() {
            gone.leave_runs(document, &mut self.slots);
        }
        Ok(gone)
    }

    /// Empties the annotations of the choices whose text changed, with every edit inside them.
    pub(in crate::dialect) fn drop_annotations(
        &self,
        changed: &[u32],
        edits: &mut Vec<(Span, String)>,
    ) {
        let changed: HashSet<u32> = changed.iter().copied().collect();
        let emptied: Vec<Span> = self
            .slots
            .iter()
            .filter(|slot| {
                matches!(slot.what, What::Annotations) && changed.contains(&slot.channel.choice)
            })
            .map(|slot| slot.span)
            .collect();
        let emptied = Gone::of(emptied);
        edits.retain(|(span, _)| !emptied.holds(*span));
        edits.extend(emptied.0.into_iter().map(|span| (span, "[]".to_owned())));
    }
}

impl Removal {
    fn span(&self) -> Span {
        match self {
            Self::Element(_, span) | Self::All(span) | Self::Value(span) => *span,
        }
    }
}

/// What is taken out, in order, the outermost only.
struct Gone(Vec<Span>);

impl Gone {
    fn of(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
        spans.dedup_by(|inner, outer| inner.end <= outer.end);
        Self(spans)
    }

    /// Takes parts that go out of the runs they are in.
    fn leave_runs(&self, document: &str, slots: &mut Vec<Slot>) {
        slots.retain_mut(|slot| match &mut slot.what {
            What::Run { parts, joined } => {
                parts.retain(|(span, _)| !self.holds(*span));
                joined.clear();
                for (span, leaf) in &*parts {
                    joined.push_str(leaf.text(document, *span));
                }
                !parts.is_empty()
            }
            What::Named { inside, .. } | What::Signed { inside, .. } => {
                self.leave_runs(document, inside);
                true
            }
            _ => true,
        });
    }

    /// Whether what stands there goes.
    fn holds(&self, span: Span) -> bool {
        let before = self.0.partition_point(|gone| gone.start <= span.start);
        let last = before.checked_sub(1).and_then(|last| self.0.get(last));
        last.is_some_and(|gone| span.end <= gone.end)
    }
}

/// A document being masked.
struct Edit<'e> {
    document: &'e str,
    filter: &'e mut dyn TextFilter,
    said: &'e mut Said,
    edits: Vec<(Span, String)>,
    /// The object a key is of, the key's span, the key, and what becomes of it.
    keys: Vec<(u32, Span, &'e str, String)>,
    /// The choices whose text changed.
    changed: Vec<u32>,
    /// The elements that go, by array and place.
    removed: BTreeMap<(u32, usize), (Element, Span)>,
}

impl<'e> Edit<'e> {
    fn slots(&mut self, slots: &'e [Slot]) -> Result<(), ShapeError> {
        for slot in slots {
            let before = self.edits.len();
            self.slot(slot)?;
            if self.edits.len() > before && matches!(slot.what, What::Text(_) | What::Run { .. }) {
                self.changed.push(slot.channel.choice);
            }
        }
        Ok(())
    }

    fn slot(&mut self, slot: &'e Slot) -> Result<(), ShapeError> {
        let Slot { channel, span, .. } = slot;
        let text = |leaf: &'e Leaf| leaf.text(self.document, *span);
        match &slot.what {
            What::Text(leaf) => {
                let text = text(leaf);
                self.label(slot);
                let masked = if self.said.before(text) {
                    self.filter.again(channel, text)
                } else {
                    self.filter.whole(channel, text)
                };
                self.put(*span, text, masked);
            }
            What::Number(decimal) | What::NumberPiece(decimal) => {
                for reading in decimal
                    .as_deref()
                    .into_iter()
                    .chain([span.of(self.document)])
                {
                    self.label(slot);
                    let masked = self.filter.whole(channel, reading);
                    if masked != reading {
                        self.edits.push((*span, json::quote(masked)));
                        break;
                    }
                }
            }
            What::Arguments { leaf, .. } => {
                let text = text(leaf);
                let masked = if self.said.before(text) {
                    arguments_again(text, channel, self.filter)?
                } else {
                    arguments(text, channel, self.filter)?
                };
                if let Some(masked) = masked {
                    self.put(*span, text, masked);
                }
            }
            What::Word(leaf) => {
                if let Some(masked) = self.filter.word(text(leaf)) {
                    self.edits.push((*span, json::quote(masked)));
                }
            }
            What::Key { leaf, object, word } => {
                let text = text(leaf);
                let masked = if *word {
                    self.filter.word(text).unwrap_or_else(|| text.to_owned())
                } else if self.said.before(text) {
                    self.filter.again(channel, text)
                } else {
                    self.filter.whole(channel, text)
                };
                self.keys.push((*object, *span, text, masked));
            }
            What::Run { parts, .. } => self.run(parts, channel),
            What::Named {
                entity,
                leaf,
                inside,
            } => match self.filter.named(
                entity,
                channel,
                super::named(leaf.as_ref(), self.document, *span),
            ) {
                Some(masked) => self.edits.push((*span, json::quote(masked))),
                None => {
                    self.slots(inside)?;
                    self.filter.named_over();
                }
            },
            What::Signed { element, inside } => self.signed(*span, *element, inside)?,
            What::Echo(nothing) if self.filter.masks() => {
                self.edits.push((*span, (*nothing).to_owned()));
            }
            What::Padding if self.filter.masks() => {
                let length = (span.end - span.start).saturating_sub(2);
                let filler = vec![FILLER; length as usize];
                let filler = String::from_utf8(filler).unwrap_or_default();
                self.edits.push((*span, json::quoted(&filler)));
            }
            What::Annotations
            | What::Echo(_)
            | What::Padding
            | What::Piece(_)
            | What::ArgumentsPiece(_) => {}
        }
        Ok(())
    }

    fn label(&mut self, slot: &Slot) {
        if !slot.label.is_empty() {
            self.filter.label(&slot.channel, &slot.label);
        }
    }

    fn put(&mut self, span: Span, text: &str, masked: String) {
        if masked != text {
            self.edits.push((span, json::quote(masked)));
        }
    }

    /// Masks adjacent text parts: each for itself, and then what they read joined, which is what leaves.
    fn run(&mut self, parts: &[(Span, Leaf)], channel: &Channel) {
        let mut texts = parts
            .iter()
            .map(|(span, leaf)| leaf.text(self.document, *span));
        // What was said part by part is repeated part by part.
        if self.said.remembers() && texts.clone().all(|text| self.said.before(text)) {
            for (span, leaf) in parts {
                let text = leaf.text(self.document, *span);
                let masked = self.filter.again(channel, text);
                self.put(*span, text, masked);
            }
            return;
        }
        let mut masked: Vec<String> = texts.by_ref().map(|text| self.filter.part(text)).collect();
        let together = masked.concat();
        let seamless = self.filter.whole(channel, &together);
        if seamless != together {
            masked.iter_mut().for_each(String::clear);
            if let Some(first) = masked.first_mut() {
                *first = seamless;
            }
        }
        for ((span, leaf), masked) in parts.iter().zip(masked) {
            self.put(*span, leaf.text(self.document, *span), masked);
        }
    }

    /// Lets what is signed stay where nothing in it must be masked, and takes it out of its array where something must.
    fn signed(
        &mut self,
        span: Span,
        element: Element,
        inside: &'e [Slot],
    ) -> Result<(), ShapeError> {
        let texts = inside.iter().filter_map(|slot| match &slot.what {
            What::Text(leaf) | What::Key { leaf, .. } => Some(leaf.text(self.document, slot.span)),
            _ => None,
        });
        let mut clean = true;
        for text in texts {
            clean &= self.filter.part(text) == text;
        }
        if clean {
            return self.slots(inside);
        }
        self.remove(element, span);
        Ok(())
    }

    /// Takes an element out of its array, once.
    fn remove(&mut self, element: Element, span: Span) {
        let place = (element.array, element.place);
        self.removed.insert(place, (element, span));
    }
}

/// Takes elements out of their arrays, each with the comma that parts it from another.
fn take_out(removed: &BTreeMap<(u32, usize), (Element, Span)>, edits: &mut Vec<(Span, String)>) {
    // The array, and how many of its first elements went.
    let mut front = None;
    for (&(array, place), &(element, span)) in removed {
        let gone = front.map_or(0, |(of, gone)| if of == array { gone } else { 0 });
        let all_before = gone == place;
        front = Some((array, if all_before { gone + 1 } else { gone }));
        let (start, end) = match (element.previous, element.next) {
            (Some(previous), _) if !all_before => (previous, span.end),
            (_, Some(next)) => (span.start, next),
            _ => (span.start, span.end),
        };
        edits.push((Span { start, end }, String::new()));
    }
}

/// Whether a string of JSON holds nothing but blanks.
fn is_blank(string: &str) -> bool {
    let inside = string.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
    inside.is_some_and(|mut rest| {
        loop {
            rest = rest.trim_start();
            let mut blanks = ["\\n", "\\r", "\\t"].iter();
            match blanks.find_map(|escape| rest.strip_prefix(escape)) {
                Some(behind) => rest = behind,
                None => break rest.is_empty(),
            }
        }
    })
}

/// Drops edits inside others: what is taken out needs none.
fn outermost(edits: &mut Vec<(Span, String)>) {
    edits.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
    let mut end = 0;
    edits.retain(|(span, _)| {
        let outside = span.end > end;
        end = end.max(span.end);
        outside
    });
}

/// Masks arguments known whole; `None` where nothing in them changed.
fn arguments(
    text: &str,
    channel: &Channel,
    filter: &mut dyn TextFilter,
) -> Result<Option<String>, ShapeError> {
    let mut watch = Watch {
        filter,
        again: false,
        pushed: String::new(),
        changed: false,
    };
    let masked = Arguments::whole(text, channel, &mut watch)?;
    Ok(watch.changed.then_some(masked))
}

/// Masks arguments that were said before, as they were written then.
fn arguments_again(
    text: &str,
    channel: &Channel,
    filter: &mut dyn TextFilter,
) -> Result<Option<String>, ShapeError> {
    let mut watch = Watch {
        filter,
        again: true,
        pushed: String::new(),
        changed: false,
    };
    Arguments::whole(text, channel, &mut watch).map(Some)
}

/// Lets texts go whole only, and notices whether one changed.
struct Watch<'f> {
    filter: &'f mut dyn TextFilter,
    /// The texts were said before.
    again: bool,
    pushed: String,
    changed: bool,
}

impl TextFilter for Watch<'_> {
    fn push(&mut self, _: &Channel, text: &str, _: &mut String) {
        self.pushed.push_str(text);
    }

    fn finish(&mut self, channel: &Channel, out: &mut String) {
        let text = std::mem::take(&mut self.pushed);
        let masked = if self.again {
            self.filter.again(channel, &text)
        } else {
            self.filter.whole(channel, &text)
        };
        self.changed |= masked != text;
        out.push_str(&masked);
    }

    fn label(&mut self, channel: &Channel, label: &str) {
        self.filter.label(channel, label);
    }

    fn part(&mut self, text: &str) -> String {
        self.filter.part(text)
    }

    fn again(&mut self, channel: &Channel, text: &str) -> String {
        self.filter.again(channel, text)
    }

    fn masks(&self) -> bool {
        self.filter.masks()
    }
}

/// Writes changed keys; one that would be another's twin gets a number.
fn rename(keys: Vec<(u32, Span, &str, String)>, edits: &mut Vec<(Span, String)>) {
    let mut taken: HashSet<(u32, String)> = keys
        .iter()
        .map(|(object, _, text, _)| (*object, (*text).to_owned()))
        .collect();
    // The number that is tried next, by object and name: what was taken once stays taken.
    let mut next: HashMap<(u32, String), usize> = HashMap::new();
    for (object, span, text, masked) in keys {
        if masked == text {
            continue;
        }
        let mut name = masked.clone();
        let number = next.entry((object, masked.clone())).or_insert(2);
        while !taken.insert((object, name.clone())) {
            name = format!("{masked}_{number}");
            *number += 1;
        }
        edits.push((span, json::quoted(&name)));
    }
}

/// A filter over a closure that masks whole texts.
pub(in crate::dialect) struct Mask<'m> {
    mask: &'m mut dyn FnMut(Text<'_>) -> Option<String>,
    label: String,
    pushed: String,
}

impl<'m> Mask<'m> {
    pub(in crate::dialect) fn new(mask: &'m mut dyn FnMut(Text<'_>) -> Option<String>) -> Self {
        let (label, pushed) = Default::default();
        Self {
            mask,
            label,
            pushed,
        }
    }
}

impl TextFilter for Mask<'_> {
    fn push(&mut self, _: &Channel, text: &str, _: &mut String) {
        self.pushed.push_str(text);
    }

    fn finish(&mut self, _: &Channel, out: &mut String) {
        let text = std::mem::take(&mut self.pushed);
        out.push_str(&self.part(&text));
    }

    fn label(&mut self, _: &Channel, label: &str) {
        label.clone_into(&mut self.label);
    }

    fn named(&mut self, entity: &str, _: &Channel, text: &str) -> Option<String> {
        (self.mask)(Text {
            entity: Some(entity),
            ..Text::bare(text)
        })
    }

    fn whole(&mut self, _: &Channel, text: &str) -> String {
        self.part(text)
    }

    fn part(&mut self, text: &str) -> String {
        let label = std::mem::take(&mut self.label);
        let masked = (self.mask)(Text::under(&label, text));
        masked.unwrap_or_else(|| text.to_owned())
    }

    fn again(&mut self, _: &Channel, text: &str) -> String {
        self.part(text)
    }
}
