//! A walk through a document that notes every text in it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Class, Element, Fields, Leaf, Mask, Path, Removal, Slot, Texts, What};
use crate::dialect::{
    Channel, ShapeError, Text,
    arguments::Arguments,
    json::{self, Document, Key, Kind, Member, Span, Value},
};

impl Texts {
    /// Finds every text of `document`.
    ///
    /// # Errors
    /// `case_variant_key`, `too_deep` in arguments, and what `fields` refuses.
    pub(in crate::dialect) fn find(
        document: &Document<'_>,
        fields: &dyn Fields,
    ) -> Result<Self, ShapeError> {
        let mut walk = Walk {
            document,
            fields,
            path: Path::default(),
            element: None,
            around: Vec::new(),
            found: Self::default(),
        };
        walk.value(&document.root)?;
        Ok(walk.found)
    }
}

struct Walk<'d, 'f> {
    document: &'d Document<'d>,
    fields: &'f dyn Fields,
    path: Path<'d>,
    /// Where the value stands that is visited next, where that is in an array.
    element: Option<Element>,
    /// The elements of arrays around the value, the innermost last.
    around: Vec<(Element, Span)>,
    found: Texts,
}

impl<'d> Walk<'d, '_> {
    fn value(&mut self, value: &'d Value) -> Result<(), ShapeError> {
        let element = self.element.take();
        let class = self.fields.class(&self.path, value, self.document)?;
        if let Class::Opaque(kind) | Class::Detached(kind) | Class::Partly(kind) = class
            && !matches!(value.kind, Kind::Null)
        {
            if !self.found.unscanned.contains(&kind) {
                self.found.unscanned.push(kind);
            }
            let removal = self.removal(class, kind, value);
            self.found.removals.push((kind, removal));
        }
        match (class, &value.kind) {
            (Class::Opaque(_) | Class::Detached(_), _) => self.words(value),
            (Class::Echo, Kind::Null) => Ok(()),
            (Class::Echo, Kind::Array(values)) if values.is_empty() => Ok(()),
            (Class::Echo, Kind::Array(_)) => self.slot(value.span, What::Echo("[]")),
            (Class::Echo, _) => self.slot(value.span, What::Echo("null")),
            (Class::Values, Kind::Number) => {
                self.labelled(value.span, What::Number(self.decimal(value)))
            }
            (Class::Piece | Class::ArgumentsPiece, Kind::Number) => {
                self.slot(value.span, What::NumberPiece(self.decimal(value)))
            }
            (_, Kind::String { .. }) => self.string(class, value),
            (Class::Parts, Kind::Array(values)) => self.parts(value.span.start, values),
            (_, Kind::Array(values)) => {
                if class == Class::Annotations {
                    self.slot(value.span, What::Annotations)?;
                }
                self.each(value.span.start, values, Self::value)
            }
            (Class::Signed, Kind::Object(_)) => self.signed(value, element),
            (_, Kind::Object(_)) => self.object(value, None),
            _ => Ok(()),
        }
    }

    /// How to take out a value that cannot be scanned: with the part of a message that holds it, or, where it is a list
    /// of media beside a message's text, with all that are in it. A prompt of tokens is nothing without them.
    fn removal(&self, class: Class, kind: &str, value: &Value) -> Option<Removal> {
        if kind == "token_ids" {
            return None;
        }
        if matches!(class, Class::Detached(_)) {
            return Some(Removal::Value(value.span));
        }
        if matches!(value.kind, Kind::Array(_)) {
            return Some(Removal::All(value.span));
        }
        let (element, span) = self.around.last()?;
        Some(Removal::Element(*element, *span))
    }

    fn decimal(&self, number: &Value) -> Option<Box<str>> {
        json::decimal(number.span.of(self.document.text)).map(Into::into)
    }

    fn string(&mut self, class: Class, value: &'d Value) -> Result<(), ShapeError> {
        let decoded = self.document.string(value).unwrap_or_default();
        let texts = match class {
            Class::Arguments => texts_inside(&decoded)?,
            _ => Vec::new(),
        };
        let leaf = Leaf::new(decoded);
        let what = match class {
            Class::Arguments => What::Arguments { leaf, texts },
            Class::ArgumentsPiece => What::ArgumentsPiece(leaf),
            Class::Piece => What::Piece(leaf),
            Class::Protocol => What::Word(leaf),
            Class::Padding => What::Padding,
            Class::Values => return self.labelled(value.span, What::Text(leaf)),
            _ => What::Text(leaf),
        };
        self.slot(value.span, what)
    }

    /// What the keys around it say something of.
    fn labelled(&mut self, span: Span, what: What) -> Result<(), ShapeError> {
        self.slot(span, what)?;
        if let Some((slot, before)) = self.found.slots.split_last_mut() {
            slot.label = shared(self.path.label(), before.last().map(|before| &before.label));
        }
        Ok(())
    }

    /// The texts of what is signed, kept together. What stands in no array cannot go: it is text like any other.
    fn signed(&mut self, value: &'d Value, element: Option<Element>) -> Result<(), ShapeError> {
        let before = self.found.slots.len();
        self.object(value, None)?;
        let Some(element) = element else {
            return Ok(());
        };
        let inside = self.found.slots.split_off(before);
        self.slot(value.span, What::Signed { element, inside })
    }

    /// Every string in what cannot be scanned. The document's depth is bounded, and so is this.
    fn words(&mut self, value: &'d Value) -> Result<(), ShapeError> {
        match &value.kind {
            Kind::String { .. } => {
                let decoded = self.document.string(value).unwrap_or_default();
                self.slot(value.span, What::Word(Leaf::new(decoded)))
            }
            Kind::Array(values) => values.iter().try_for_each(|value| self.words(value)),
            Kind::Object(members) => {
                members
                    .iter()
                    .try_for_each(|Member { key, value: inside }| {
                        let what = What::Key {
                            leaf: Leaf(key.decoded().map(Into::into)),
                            object: value.span.start,
                            word: true,
                        };
                        self.slot(key.span, what)?;
                        self.words(inside)
                    })
            }
            Kind::Null | Kind::Bool(_) | Kind::Number => Ok(()),
        }
    }

    fn each(
        &mut self,
        array: u32,
        values: &'d [Value],
        mut visit: impl FnMut(&mut Self, &'d Value) -> Result<(), ShapeError>,
    ) -> Result<(), ShapeError> {
        let span = |place: Option<usize>| Some(values.get(place?)?.span);
        self.path.keys.push("*");
        for (place, value) in values.iter().enumerate() {
            self.path.places.push(place);
            let element = Element {
                array,
                place,
                previous: span(place.checked_sub(1)).map(|span| span.end),
                next: span(place.checked_add(1)).map(|span| span.start),
            };
            self.element = Some(element);
            self.around.push((element, value.span));
            visit(self, value)?;
            self.around.pop();
            self.path.places.pop();
        }
        self.path.keys.pop();
        Ok(())
    }

    /// `in_run`: the object is a text part, and what stands under this key belongs to a run.
    fn object(&mut self, object: &'d Value, in_run: Option<&str>) -> Result<(), ShapeError> {
        let Kind::Object(members) = &object.kind else {
            return Ok(());
        };
        let names = self.fields.names(&self.path);
        let around = self.path.object.replace(object);
        for member in members {
            let name = self.document.key(&member.key);
            if !names.contains(&name) {
                self.unknown_key(&member.key, name, names, object.span.start)?;
            }
            if in_run == Some(name) {
                continue;
            }
            self.path.keys.push(name);
            self.value(&member.value)?;
            self.path.keys.pop();
        }
        self.path.object = around;
        Ok(())
    }

    fn unknown_key(
        &mut self,
        key: &Key,
        name: &str,
        names: &[&str],
        object: u32,
    ) -> Result<(), ShapeError> {
        if names.iter().any(|known| json::same_folded(known, name)) {
            let reason = "an object has a known key in another case";
            return Err(ShapeError::at(
                "case_variant_key",
                reason,
                key.span.start as usize,
            ));
        }
        if self.fields.vocabulary(&self.path).contains(&name) {
            return Ok(());
        }
        let leaf = Leaf(key.decoded().map(Into::into));
        let what = What::Key {
            leaf,
            object,
            word: false,
        };
        self.slot(key.span, what)
    }

    /// Walks content parts; a run is noted where its first part stands.
    fn parts(&mut self, array: u32, values: &'d [Value]) -> Result<(), ShapeError> {
        let texts: Vec<Option<PartText<'d>>> =
            values.iter().map(|part| self.text_of_part(part)).collect();
        let mut between = self.between(array, values, &texts)?;
        let goes = |place: usize| between.get(&place).is_some_and(|(_, goes)| *goes);
        let runs = runs(&texts, &goes);
        let mut run_of = vec![None; if runs.is_empty() { 0 } else { values.len() }];
        for (run, places) in runs.iter().enumerate() {
            for place in places {
                if let Some(of) = run_of.get_mut(*place) {
                    *of = Some(run);
                }
            }
        }
        let mut place = 0;
        self.each(array, values, |walk, part| {
            let here = place;
            place += 1;
            let run = run_of
                .get(here)
                .copied()
                .flatten()
                .and_then(|run| runs.get(run));
            let walked = between.remove(&here).map(|(slots, _)| slots);
            let (Some(run), Some(Some(text))) = (run, texts.get(here)) else {
                return match walked {
                    Some(slots) => {
                        walk.found.slots.extend(slots);
                        Ok(())
                    }
                    None => walk.value(part),
                };
            };
            if run.first() == Some(&here) {
                let of_run = |place: &usize| texts.get(*place).copied().flatten();
                walk.run(run.iter().filter_map(of_run))?;
            }
            if let Some(slots) = walked {
                let others = slots.into_iter();
                let others = others.filter(|slot| slot.span != text.value.span);
                walk.found.slots.extend(others);
                return Ok(());
            }
            // INVARIANT: a part whose text is in a run is still an object the dialect must know.
            walk.fields.class(&walk.path, part, walk.document)?;
            walk.object(part, Some(text.key))
        })
    }

    /// What is in the parts that stand between texts of one kind, and whether the part may be taken out: the texts around
    /// it are then read together by whoever gets them.
    fn between(
        &mut self,
        array: u32,
        values: &'d [Value],
        texts: &[Option<PartText<'d>>],
    ) -> Result<BTreeMap<usize, (Vec<Slot>, bool)>, ShapeError> {
        let mut between = BTreeMap::new();
        let first = texts.iter().position(Option::is_some);
        let last = texts.iter().rposition(Option::is_some);
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(between);
        };
        let kind = |text: &Option<PartText<'d>>| text.map(|text| text.says);
        let inside = texts.get(first..=last).unwrap_or_default();
        if inside.windows(2).all(|two| kind(&two[0]) == kind(&two[1])) {
            return Ok(between);
        }
        let mut place = 0;
        self.each(array, values, |walk, part| {
            let here = place;
            place += 1;
            if here <= first || here >= last {
                walk.element = None;
                return Ok(());
            }
            let (slots, removals) = (walk.found.slots.len(), walk.found.removals.len());
            walk.value(part)?;
            let slots = walk.found.slots.split_off(slots);
            let is_part = |element: &Element| element.array == array && element.place == here;
            let removals = walk.found.removals.iter().skip(removals);
            let mut removals = removals.filter_map(|(_, removal)| removal.as_ref());
            let stripped =
                removals.any(|removal| matches!(removal, Removal::Element(of, _) if is_part(of)));
            let signed = slots
                .iter()
                .any(|slot| matches!(&slot.what, What::Signed { element, .. } if is_part(element)));
            between.insert(here, (slots, stripped || signed));
            Ok(())
        })?;
        Ok(between)
    }

    fn text_of_part(&self, part: &'d Value) -> Option<PartText<'d>> {
        let (says, key) = match self.document.member(part, "type") {
            Some(kind) => match &*self.document.string(kind)? {
                "text" | "input_text" | "output_text" => (Says::Text, "text"),
                "refusal" => (Says::Refusal, "refusal"),
                "summary_text" => (Says::Summary, "text"),
                "reasoning_text" => (Says::Reasoning, "text"),
                _ => return None,
            },
            // Where parts have no type, what is thought is not read together with what is said.
            None => match self.document.member(part, "thought").map(|is| &is.kind) {
                Some(Kind::Bool(true)) => (Says::Thought, "text"),
                _ => (Says::Text, "text"),
            },
        };
        let value = self.document.member(part, key)?;
        let is_string = matches!(value.kind, Kind::String { .. });
        is_string.then_some(PartText { says, key, value })
    }

    fn run(&mut self, texts: impl Iterator<Item = PartText<'d>>) -> Result<(), ShapeError> {
        let mut joined = String::new();
        let mut parts = Vec::new();
        for PartText { value, .. } in texts {
            let decoded = self.document.string(value).unwrap_or_default();
            joined.push_str(&decoded);
            parts.push((value.span, Leaf::new(decoded)));
        }
        match parts.first() {
            Some((span, _)) => self.slot(*span, What::Run { parts, joined }),
            None => Ok(()),
        }
    }

    fn slot(&mut self, span: Span, what: What) -> Result<(), ShapeError> {
        let channel = match &what {
            What::Word(_) | What::Padding | What::Signed { .. } => Channel::default(),
            _ => self.fields.channel(&self.path, self.document)?,
        };
        self.found.slots.push(Slot::of(channel, span, what));
        Ok(())
    }
}

/// The text of a content part.
#[derive(Clone, Copy)]
struct PartText<'d> {
    says: Says,
    /// The key it stands under.
    key: &'static str,
    value: &'d Value,
}

/// What a part's text is: those of one kind are read together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Text,
    Thought,
    Refusal,
    Summary,
    Reasoning,
}

/// The places of texts that are read together, each in one run at most: no part stands between them but those that may
/// go.
fn runs(texts: &[Option<PartText<'_>>], goes: &dyn Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let (mut runs, mut open): (Vec<_>, Vec<(Says, Vec<usize>)>) = Default::default();
    for (place, text) in texts.iter().enumerate() {
        let says = text.map(|text| text.says);
        if !goes(place) {
            let over = open.extract_if(.., |(kind, _)| Some(*kind) != says);
            runs.extend(over.map(|(_, run)| run));
        }
        let Some(says) = says else { continue };
        match open.iter_mut().find(|(kind, _)| *kind == says) {
            Some((_, run)) => run.push(place),
            None => open.push((says, vec![place])),
        }
    }
    runs.extend(open.into_iter().map(|(_, run)| run));
    runs.retain(|run| run.len() > 1);
    runs
}

/// The texts inside arguments, in order, with the keys they stand under.
///
/// # Errors
/// `too_deep`, `too_many_values`.
fn texts_inside(arguments: &str) -> Result<Vec<(Arc<str>, String)>, ShapeError> {
    let mut texts: Vec<(Arc<str>, String)> = Vec::new();
    let mut count = 0;
    let mut collect = |text: Text<'_>| {
        count += 1;
        if !text.text.is_empty() && count <= json::MAX_VALUES {
            let before = texts.last().map(|(label, _)| label);
            texts.push((shared(text.label.to_owned(), before), text.text.to_owned()));
        }
        None
    };
    Arguments::whole(arguments, &Channel::default(), &mut Mask::new(&mut collect))?;
    if count > json::MAX_VALUES {
        return Err(ShapeError::new(
            "too_many_values",
            "tool call arguments have too many values".to_owned(),
        ));
    }
    Ok(texts)
}

/// A label, in the memory of the one before where that is the same: a million values may stand under one key.
fn shared(label: String, before: Option<&Arc<str>>) -> Arc<str> {
    match before {
        Some(before) if **before == *label => before.clone(),
        _ => label.into(),
    }
}
