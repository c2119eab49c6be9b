//! What the configuration says of a document's fields: which are values of an entity, whatever they look like, and which
//! are looked into at all.
//!
//! Promises: a field that is a value of an entity is found whole, with all that is in it. Where the text of a stream
//! goes on from event to event, and where the protocol has its own words, there are no such fields.

use std::sync::Arc;

use super::{
    JsonPath,
    json::{Document, Kind, Span, Value},
    texts::{Slot, Texts, What},
};

/// Which fields of documents are what. Empty, it says nothing.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Entities, and where their values are.
    pub named: Vec<(Arc<str>, JsonPath)>,
    /// What is looked into; everything where there are none.
    pub only: Vec<JsonPath>,
}

impl Selection {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.only.is_empty()
    }

    /// Whether values of `entity` are named by where they are.
    #[must_use]
    pub fn names(&self, entity: &str) -> bool {
        self.named.iter().any(|(named, _)| **named == *entity)
    }
}

impl Texts {
    /// Notes in the texts of `document` which of its fields are what.
    pub(super) fn select(&mut self, document: &Document<'_>, selection: &Selection) {
        if !selection.only.is_empty() {
            self.only(document, &selection.only);
        }
        for (entity, path) in &selection.named {
            for value in path.find(document) {
                self.name(document, value, entity);
            }
        }
    }

    /// Leaves out what is not in any of the fields.
    fn only(&mut self, document: &Document<'_>, fields: &[JsonPath]) {
        let found = fields.iter().flat_map(|path| path.find(document));
        let found: Vec<Span> = found.map(|value| value.span).collect();
        let before = self.slots.len();
        self.slots.retain(|slot| {
            let word = matches!(slot.what, What::Word(_));
            word || found.iter().any(|field| within(slot.span, *field))
        });
        if self.slots.len() < before && !self.unscanned.contains(&NOT_SELECTED) {
            self.unscanned.push(NOT_SELECTED);
        }
    }

    /// Puts one slot for the field in the place of all that are in it.
    fn name(&mut self, document: &Document<'_>, value: &Value, entity: &Arc<str>) {
        let inside = |slot: &Slot| within(slot.span, value.span);
        let pieces = |slot: &Slot| matches!(slot.what, What::Piece(_) | What::ArgumentsPiece(_));
        let word = |slot: &Slot| slot.span == value.span && matches!(slot.what, What::Word(_));
        let named =
            |slot: &Slot| slot.span == value.span && matches!(slot.what, What::Named { .. });
        let mut here = self.slots.iter().filter(|slot| inside(slot));
        let nothing = matches!(value.kind, Kind::Null);
        if nothing || here.any(|slot| pieces(slot) || word(slot) || named(slot)) {
            return;
        }
        let behind = |slot: &Slot| slot.span.start >= value.span.start;
        let place = self.slots.iter().position(behind);
        let place = place.unwrap_or(self.slots.len());
        let (inside, outside): (Vec<Slot>, Vec<Slot>) = std::mem::take(&mut self.slots)
            .into_iter()
            .partition(inside);
        let channel = inside.first().map(|slot| slot.channel.clone());
        let text = document.string(value).map_or_else(
            || value.span.of(document.text).to_owned(),
            std::borrow::Cow::into_owned,
        );
        self.slots = outside;
        self.slots.insert(
            place,
            Slot::of(
                channel.unwrap_or_default(),
                value.span,
                What::Named {
                    entity: entity.clone(),
                    text,
                    inside,
                },
            ),
        );
    }
}

/// What was not looked into because the configuration does not say so.
pub const NOT_SELECTED: &str = "not_selected";

fn within(inner: Span, outer: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
