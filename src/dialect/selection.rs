//! What the configuration says of a document's fields: which are values of an entity, whatever they look like, and which
//! are looked into at all.
//!
//! Promises: a field that is a value of an entity is found whole, with all that is in it. Where the text of a stream
//! goes on from event to event, and where the protocol has its own words, there are no such fields.

use std::{cmp::Reverse, sync::Arc};

use super::{
    JsonPath, ShapeError,
    json::{Document, Kind, Span, Value},
    texts::{Leaf, Slot, Texts, What},
};

/// Which fields of documents are what. Empty, it says nothing.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Entities, and where their values are.
    pub named: Vec<(Arc<str>, JsonPath)>,
    /// What is looked into; everything where there are none.
    pub only: Vec<JsonPath>,
    /// What becomes of answers with parts that are signed or encrypted. Of prompts, [`RequestBody::unscanned`] tells.
    ///
    /// [`RequestBody::unscanned`]: super::RequestBody::unscanned
    pub signed_answers: SignedAnswers,
}

/// What becomes of an answer in which something is signed or encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignedAnswers {
    /// It passes as it is.
    #[default]
    Pass,
    /// It is refused.
    Refuse,
    /// It passes without what is signed or encrypted, and is refused where that cannot be taken out.
    Strip,
}

impl Selection {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.only.is_empty() && self.signed_answers == SignedAnswers::Pass
    }

    /// Lets an answer pass, without what is signed or encrypted in it where that is to be taken out.
    ///
    /// # Errors
    /// `signed_answer`.
    pub(super) fn admit(&self, document: &str, texts: &mut Texts) -> Result<(), ShapeError> {
        let is_signed = texts.unscanned.iter().any(|kind| SIGNED.contains(kind));
        let reason = match self.signed_answers {
            _ if !is_signed => return Ok(()),
            SignedAnswers::Pass => return Ok(()),
            SignedAnswers::Refuse => {
                "a part of the answer is signed or encrypted, and nothing can look into it"
            }
            SignedAnswers::Strip => match texts
                .strip_from_answer(document, &|kind| SIGNED.contains(&kind))
            {
                Ok(()) => return Ok(()),
                Err(_) => "a part of the answer is signed or encrypted, and cannot be taken out",
            },
        };
        Err(ShapeError::new("signed_answer", reason.to_owned()))
    }

    /// Whether what is signed or encrypted is taken out of answers.
    pub(super) fn strips(&self) -> bool {
        self.signed_answers == SignedAnswers::Strip
    }

    /// What is taken out of an answer in which `unscanned` could not be looked into.
    pub(super) fn stripped(&self, unscanned: &[&'static str]) -> Vec<&'static str> {
        let kinds = unscanned.iter().copied();
        kinds
            .filter(|kind| self.strips() && SIGNED.contains(kind))
            .collect()
    }

    /// Whether values of `entity` are named by where they are.
    #[must_use]
    pub fn names(&self, entity: &str) -> bool {
        self.named.iter().any(|(named, _)| **named == *entity)
    }
}

/// A field that is a value of an entity.
struct Field<'s> {
    entity: &'s Arc<str>,
    span: Span,
    value: &'s Value,
}

impl Texts {
    /// Notes in the texts of `document` which of its fields are what.
    pub(super) fn select(&mut self, document: &Document<'_>, selection: &Selection) {
        if !selection.only.is_empty() {
            self.only(document, &selection.only);
        }
        let mut fields = Vec::new();
        for (entity, path) in &selection.named {
            let found = path.find(document).into_iter();
            let found = found.filter(|value| !matches!(value.kind, Kind::Null));
            fields.extend(found.map(|value| Field {
                entity,
                span: value.span,
                value,
            }));
        }
        if fields.is_empty() {
            return;
        }
        // An outer field stands before those in it; of several at one place the one that was named first.
        fields.sort_by_key(|field| (field.span.start, Reverse(field.span.end)));
        let mut slots = self.apart(document.text, &fields);
        slots.sort_by_key(|slot| slot.span.start);
        self.slots = nested(slots, &fields, document);
    }

    /// Leaves out what is not in any of the fields.
    fn only(&mut self, document: &Document<'_>, paths: &[JsonPath]) {
        let found = paths.iter().flat_map(|path| path.find(document));
        let mut fields: Vec<Span> = found.map(|value| value.span).collect();
        fields.sort_by_key(|span| (span.start, Reverse(span.end)));
        let mut end = 0;
        fields.retain(|span| {
            let outermost = span.end > end;
            end = end.max(span.end);
            outermost
        });
        let chosen = |span: Span| {
            let behind = fields.partition_point(|field| field.start <= span.start);
            let field = behind.checked_sub(1).and_then(|at| fields.get(at));
            field.is_some_and(|field| span.end <= field.end)
        };
        let before = self.slots.len();
        self.slots.retain(|slot| match &slot.what {
            What::Word(_) => true,
            // Parts that are read together are looked into where one of them is.
            What::Run { parts, .. } => parts.iter().any(|(span, _)| chosen(*span)),
            _ => chosen(slot.span),
        });
        if self.slots.len() < before && !self.unscanned.contains(&NOT_SELECTED) {
            self.unscanned.push(NOT_SELECTED);
        }
    }

    /// The slots, with text parts read together only where they are in the same fields.
    fn apart(&mut self, document: &str, fields: &[Field<'_>]) -> Vec<Slot> {
        let around = around(fields);
        let innermost = |span: Span| {
            let behind = fields.partition_point(|field| field.span.start <= span.start);
            let mut at = behind.checked_sub(1);
            while let Some(place) = at
                && fields.get(place).is_some_and(|f| f.span.end < span.end)
            {
                at = around.get(place).copied().flatten();
            }
            at
        };
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in std::mem::take(&mut self.slots) {
            let What::Run { parts, .. } = &slot.what else {
                slots.push(slot);
                continue;
            };
            let mut fields = parts.iter().map(|(span, _)| innermost(*span));
            let first = fields.next();
            if fields.all(|field| Some(field) == first) {
                slots.push(slot);
                continue;
            }
            let Slot { channel, what, .. } = slot;
            let What::Run { parts, .. } = what else {
                continue;
            };
            let mut parts = parts.into_iter().peekable();
            while let Some(part) = parts.next() {
                let field = innermost(part.0);
                let mut run = vec![part];
                while let Some(part) = parts.next_if(|(span, _)| innermost(*span) == field) {
                    run.push(part);
                }
                slots.push(Slot::of_parts(channel.clone(), run, document));
            }
        }
        slots
    }
}

/// For each field the one around it. They come in the document's order, an outer one before those in it.
fn around(fields: &[Field<'_>]) -> Vec<Option<usize>> {
    let mut open: Vec<usize> = Vec::new();
    let mut around = Vec::with_capacity(fields.len());
    for (place, field) in fields.iter().enumerate() {
        let over = |at: &usize| {
            fields
                .get(*at)
                .is_none_or(|f| f.span.end <= field.span.start)
        };
        while open.last().is_some_and(over) {
            open.pop();
        }
        around.push(open.last().copied());
        open.push(place);
    }
    around
}

/// Puts one slot for each field in the place of all that are in it. Both come in the document's order.
fn nested(slots: Vec<Slot>, fields: &[Field<'_>], document: &Document<'_>) -> Vec<Slot> {
    let mut slots = slots.into_iter().peekable();
    let (mut out, mut rest) = (Vec::new(), fields);
    while let Some((field, behind)) = rest.split_first() {
        let Span { start, end } = field.span;
        let (inner, next) = behind.split_at(behind.partition_point(|other| other.span.start < end));
        rest = next;
        while let Some(slot) = slots.next_if(|slot| slot.span.start < start) {
            out.push(slot);
        }
        // What someone has signed stays as it is or goes whole.
        let signed =
            |slot: &Slot| slot.span.end > start && matches!(slot.what, What::Signed { .. });
        if out.last().is_some_and(signed) {
            continue;
        }
        let mut inside = Vec::new();
        while let Some(slot) = slots.next_if(|slot| slot.span.start < end) {
            inside.push(slot);
        }
        let bare = |slot: &Slot| match slot.what {
            What::Piece(_) | What::ArgumentsPiece(_) | What::Padding => true,
            What::Word(_) => slot.span == field.span,
            _ => false,
        };
        let stays = inside.iter().any(bare);
        let inside = nested(inside, inner, document);
        if stays {
            out.extend(inside);
            continue;
        }
        let channel = inside.first().map(|slot| slot.channel.clone());
        let what = What::Named {
            entity: field.entity.clone(),
            leaf: document.string(field.value).map(Leaf::new),
            inside,
        };
        out.push(Slot::of(channel.unwrap_or_default(), field.span, what));
    }
    out.extend(slots);
    out
}

/// What someone has signed, and what only they can read.
pub const SIGNED: [&str; 2] = ["signed", "encrypted"];

/// What was not looked into because the configuration does not say so.
pub const NOT_SELECTED: &str = "not_selected";
