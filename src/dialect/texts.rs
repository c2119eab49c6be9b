//! Every text of a JSON document, and the document with masked texts put back.
//!
//! [`Fields`] is what a dialect says of its documents: which names an object has, and what a value at a path is. What
//! it says nothing special of is text: strings, and keys it does not know. So a field nobody thought of is scanned,
//! and a provider's new field cannot become a hole.
//!
//! Promises: bytes that hold no changed text are forwarded as received; a changed key never collides with another.

use std::{borrow::Cow, sync::Arc};

use super::{
    Channel, ShapeError, Text,
    json::{Document, Span, Value},
};

mod edit;
mod find;

pub(super) use edit::{Mask, Said};

/// What a dialect knows of a kind of document.
pub(super) trait Fields: std::fmt::Debug + Sync {
    /// The names the object at `path` may have; those are never text, and in another case they are refused.
    fn names(&self, path: &Path<'_>) -> &'static [&'static str];
    /// Names that are not text either but that a user may define in another case, such as JSON Schema's keywords.
    fn vocabulary(&self, _path: &Path<'_>) -> &'static [&'static str] {
        &[]
    }
    /// What the value at `path` is.
    ///
    /// # Errors
    /// `unknown_shape` where it is not what the dialect says it must be.
    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError>;
    /// The channel of the text at `path`. Requests need none.
    ///
    /// # Errors
    /// `unknown_shape` and `too_many_channels` where a stream does not say which of its texts it goes on with.
    fn channel(&self, _path: &Path<'_>, _document: &Document<'_>) -> Result<Channel, ShapeError> {
        Ok(Channel::default())
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A string is a text of its own; arrays and objects are walked.
    Text,
    /// As `Text`, and so is a number: JSON that a model or a tool wrote.
    Values,
    /// A string that is one piece of a text that goes on in other documents. A number there is a text of its own, and no string may
    /// stand there then.
    Piece,
    /// A string that is JSON.
    Arguments,
    /// A string that is one piece of JSON.
    ArgumentsPiece,
    /// Content parts, whose adjacent text parts may be read as one.
    Parts,
    /// A string that is the protocol's own word; anything else is walked as `Text` is.
    Protocol,
    /// Cannot be scanned, and why: every string in it is taken for a word.
    Opaque(&'static str),
    /// As `Opaque`, and nothing in an answer rests on it: where it is taken out, `null` stands in its place alone.
    Detached(&'static str),
    /// As `Text`, but it stands for something that cannot be scanned, such as a link to an image.
    Partly(&'static str),
    /// An object in an array that someone has signed: it stays as it is, or goes where it holds what must be masked.
    Signed,
    /// Repeats text in another form: `null` when masking, or an empty array where it is one.
    Echo,
    /// Points into a text by offsets: emptied when that text changed.
    Annotations,
    /// A string that hides how long the document is: filled anew when masking, so that nothing can be told in it.
    Padding,
}

/// What padding is filled with.
pub(super) const FILLER: u8 = b'x';

/// Where a value stands.
#[derive(Debug, Default)]
pub(super) struct Path<'a> {
    /// Keys from the root, `*` for a place in an array.
    pub(super) keys: Vec<&'a str>,
    /// The places in arrays, in order.
    pub(super) places: Vec<usize>,
    /// The nearest object around the value.
    pub(super) object: Option<&'a Value>,
}

impl Path<'_> {
    /// The path written out, such as `choices.0.message.name`, as far as [`MAX_FIELD_BYTES`]: each of a million texts may
    /// have one, and its keys may be as long as the document.
    pub(super) fn dotted(&self) -> String {
        let mut places = self.places.iter();
        let mut out = String::new();
        for key in &self.keys {
            if out.len() > MAX_FIELD_BYTES {
                break;
            }
            if !out.is_empty() {
                out.push('.');
            }
            match (*key, places.as_slice()) {
                ("*", [place, ..]) => {
                    out.push_str(&place.to_string());
                    places.next();
                }
                (key, _) => out.push_str(front(key, MAX_FIELD_BYTES)),
            }
        }
        out
    }

    /// The nearest keys, which say what stands under them, the last [`MAX_LABEL_BYTES`] of each.
    fn label(&self) -> String {
        let keys = self.keys.iter().filter(|key| **key != "*");
        let keys = keys.rev().take(LABEL_KEYS);
        let mut keys: Vec<&str> = keys.map(|key| back(key, MAX_LABEL_BYTES)).collect();
        keys.reverse();
        keys.join(" ")
    }
}

/// The first bytes of a text, in whole characters.
fn front(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The last bytes of a text, in whole characters: of a key's words the last says the most.
pub(super) fn back(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The most bytes of a field's name, or twice that where the last key is long.
const MAX_FIELD_BYTES: usize = 256;
/// The most bytes of a key that are told of as the label of what stands under it.
pub(super) const MAX_LABEL_BYTES: usize = 64;

/// How many keys say what stands under them.
const LABEL_KEYS: usize = 3;

/// One text, or what stands for it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) channel: Channel,
    pub(super) span: Span,
    /// The keys it stands under, where a user or a model chose them.
    label: Arc<str>,
    pub(super) what: What,
}

impl Slot {
    /// A text that stands under no keys.
    pub(super) fn of(channel: Channel, span: Span, what: What) -> Self {
        Self {
            channel,
            span,
            label: Arc::default(),
            what,
        }
    }

    /// Text parts of `document` that are read together, if there is more than one.
    pub(super) fn of_parts(channel: Channel, mut parts: Vec<(Span, Leaf)>, document: &str) -> Self {
        let span = parts
            .first()
            .map_or(Span { start: 0, end: 0 }, |part| part.0);
        if parts.len() == 1
            && let Some((span, leaf)) = parts.pop()
        {
            return Self::of(channel, span, What::Text(leaf));
        }
        let joined = parts
            .iter()
            .map(|(span, leaf)| leaf.text(document, *span))
            .collect();
        Self::of(channel, span, What::Run { parts, joined })
    }
}

#[derive(Debug)]
pub(super) enum What {
    Text(Leaf),
    /// A number, and what it is without its exponent where it has one.
    Number(Option<Box<str>>),
    /// The same where a piece of a text may be.
    NumberPiece(Option<Box<str>>),
    Piece(Leaf),
    ArgumentsPiece(Leaf),
    /// The protocol's own, or what cannot be scanned.
    Word(Leaf),
    /// JSON in a string, with the texts inside it and the keys they stand under.
    Arguments {
        leaf: Leaf,
        texts: Vec<(Arc<str>, String)>,
    },
    /// A key of the object that begins at this byte.
    Key {
        leaf: Leaf,
        object: u32,
        /// It stands in what cannot be scanned.
        word: bool,
    },
    /// Adjacent text parts and their texts joined.
    Run {
        parts: Vec<(Span, Leaf)>,
        joined: String,
    },
    /// A field that is a value of an entity: its text, or no leaf where it is no string and its JSON counts, and what is in it.
    Named {
        entity: Arc<str>,
        leaf: Option<Leaf>,
        inside: Vec<Slot>,
    },
    /// An element of an array that stays as it is or goes, and the texts in it.
    Signed {
        element: Element,
        inside: Vec<Slot>,
    },
    /// What it becomes.
    Echo(&'static str),
    Annotations,
    Padding,
}

/// Where an element of an array stands, to take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// Where the array begins.
    array: u32,
    place: usize,
    /// Where the element before it ends.
    previous: Option<u32>,
    /// Where the element behind it begins.
    next: Option<u32>,
}

/// A string's decoded text, kept only where it differs from the document's.
#[derive(Debug)]
pub(super) struct Leaf(Option<Box<str>>);

impl Leaf {
    pub(super) fn new(decoded: Cow<'_, str>) -> Self {
        match decoded {
            Cow::Borrowed(_) => Self(None),
            Cow::Owned(text) => Self(Some(text.into_boxed_str())),
        }
    }

    fn memory(&self) -> usize {
        self.0.as_deref().map_or(0, str::len)
    }

    /// The text, given the document and the string's span in it.
    pub(super) fn text<'a>(&'a self, document: &'a str, span: Span) -> &'a str {
        self.0.as_deref().unwrap_or_else(|| {
            Span {
                start: span.start + 1,
                end: span.end - 1,
            }
            .of(document)
        })
    }
}

/// What was found in a document.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) slots: Vec<Slot>,
    /// Why parts could not be scanned, each once.
    pub(super) unscanned: Vec<&'static str>,
    /// What each of them is, and how to take it out: `None` where it cannot be without breaking the document.
    removals: Vec<(&'static str, Option<Removal>)>,
    /// What was taken out.
    removed: Vec<Removal>,
}

/// How to take out what cannot be scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// The element of an array in which it stands.
    Element(Element, Span),
    /// What is in this array.
    All(Span),
    /// This value alone.
    Value(Span),
}

impl Texts {
    /// Every text, decoded, in document order; a run of parts is each part and then the joined text.
    pub(super) fn all<'a>(&'a self, document: &'a str) -> Vec<Text<'a>> {
        let mut out = Vec::with_capacity(self.slots.len());
        all(&self.slots, document, &mut out);
        out
    }
}

impl Texts {
    /// Bytes in memory besides the document's.
    pub(super) fn memory(&self) -> usize {
        let removal = size_of::<(&str, Option<Removal>)>();
        memory(&self.slots) + self.removals.capacity() * removal
    }

    /// Whether the text of `channel` goes on in the document.
    pub(super) fn goes_on(&self, document: &str, channel: &Channel) -> bool {
        self.slots.iter().any(|slot| match &slot.what {
            What::Piece(leaf) | What::ArgumentsPiece(leaf) => {
                slot.channel == *channel && !leaf.text(document, slot.span).is_empty()
            }
            _ => false,
        })
    }

    /// Whether nothing is edited but what pads the document.
    pub(super) fn only_pads(&self, edits: &[(Span, String)]) -> bool {
        let pads =
            |slot: &Slot, span: Span| slot.span == span && matches!(slot.what, What::Padding);
        edits
            .iter()
            .all(|(span, _)| self.slots.iter().any(|slot| pads(slot, *span)))
    }
}

/// Bytes in memory of `slots`, each with what is handed out for it.
fn memory(slots: &Vec<Slot>) -> usize {
    let each = |slot: &Slot| {
        let inner = match &slot.what {
            What::Text(leaf)
            | What::Piece(leaf)
            | What::ArgumentsPiece(leaf)
            | What::Word(leaf) => leaf.memory(),
            What::Key { leaf, .. } => leaf.memory(),
            What::Arguments { leaf, texts } => {
                let each = texts.iter().map(|(_, text)| text.capacity());
                let labels = labels(texts.iter().map(|(label, _)| label));
                let handed = size_of::<(Arc<str>, String)>() + size_of::<Text<'_>>();
                leaf.memory() + texts.capacity() * handed + each.sum::<usize>() + labels
            }
            What::Run { parts, joined } => {
                let each = parts.iter().map(|(_, leaf)| leaf.memory());
                let handed = size_of::<(Span, Leaf)>() + size_of::<Text<'_>>();
                parts.capacity() * handed + each.sum::<usize>() + joined.capacity()
            }
            What::Named { leaf, inside, .. } => {
                leaf.as_ref().map_or(0, Leaf::memory) + memory(inside)
            }
            What::Signed { inside, .. } => memory(inside),
            What::Number(decimal) | What::NumberPiece(decimal) => {
                decimal.as_deref().map_or(0, str::len)
            }
            What::Echo(_) | What::Annotations | What::Padding => 0,
        };
        slot.channel.field.capacity() + inner
    };
    let labels = labels(slots.iter().map(|slot| &slot.label));
    let handed = size_of::<Slot>() + size_of::<Text<'_>>();
    slots.capacity() * handed + slots.iter().map(each).sum::<usize>() + labels
}

/// Bytes of labels, of which neighbours share one.
fn labels<'a>(labels: impl Iterator<Item = &'a Arc<str>>) -> usize {
    let mut last: Option<&Arc<str>> = None;
    let mut bytes = 0;
    for label in labels {
        if !last.is_some_and(|last| Arc::ptr_eq(last, label)) {
            bytes += label.len();
        }
        last = Some(label);
    }
    bytes
}

fn all<'a>(slots: &'a [Slot], document: &'a str, out: &mut Vec<Text<'a>>) {
    for slot in slots {
        let label = &*slot.label;
        let labelled = |text| Text::under(label, text);
        match &slot.what {
            What::Text(leaf)
            | What::Piece(leaf)
            | What::ArgumentsPiece(leaf)
            | What::Key {
                leaf, word: false, ..
            } => out.push(labelled(leaf.text(document, slot.span))),
            What::Number(decimal) | What::NumberPiece(decimal) => {
                let readings = decimal.as_deref().into_iter();
                out.extend(readings.chain([slot.span.of(document)]).map(labelled));
            }
            What::Arguments { texts, .. } => {
                out.extend(texts.iter().map(|(label, text)| Text::under(label, text)));
            }
            What::Run { parts, joined } => {
                let parts = parts.iter().map(|(span, leaf)| leaf.text(document, *span));
                out.extend(parts.chain([joined.as_str()]).map(Text::bare));
            }
            What::Named {
                entity,
                leaf,
                inside,
            } => {
                out.push(Text {
                    entity: Some(entity),
                    ..Text::bare(named(leaf.as_ref(), document, slot.span))
                });
                all(inside, document, out);
            }
            What::Signed { inside, .. } => all(inside, document, out),
            What::Word(_)
            | What::Key { .. }
            | What::Echo(_)
            | What::Annotations
            | What::Padding => {}
        }
    }
}

/// The text of a named field, or its JSON where it is no string.
fn named<'a>(leaf: Option<&'a Leaf>, document: &'a str, span: Span) -> &'a str {
    leaf.map_or_else(|| span.of(document), |leaf| leaf.text(document, span))
}

/// Whether `text` looks like a protocol's own word (an id, a role, an enum's value) and not like something a person
/// wrote. What does not is scanned, wherever it stands.
pub(super) fn is_token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/+".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(known)
}

/// The names of a dialect whose objects need not be told apart: one list for all of them. In objects that a user or a
/// model makes up, and in those under a name that is not listed, every key is text.
#[derive(Debug)]
pub(super) struct Names {
    /// Every name, in the order of their bytes.
    pub(super) known: &'static [&'static str],
    /// Names under which a user or a model makes up the keys.
    pub(super) free: &'static [&'static str],
    /// Names of the protocol's own words. One that does not look like a word is text all the same.
    pub(super) words: &'static [&'static str],
}

impl Names {
    /// Whether the keys at `path` are not the protocol's.
    pub(super) fn is_free(&self, path: &Path<'_>) -> bool {
        path.keys.iter().any(|key| {
            *key != "*" && (self.free.contains(key) || self.known.binary_search(key).is_err())
        })
    }

    /// The names the object at `path` may have.
    pub(super) fn of(&self, path: &Path<'_>) -> &'static [&'static str] {
        if self.is_free(path) { &[] } else { self.known }
    }

    /// Whether the string `text` at `path` is a word of the protocol.
    pub(super) fn is_word(&self, path: &Path<'_>, text: Option<&str>) -> bool {
        path.keys.last().is_some_and(|key| self.words.contains(key))
            && text.is_some_and(is_token)
            && !self.is_free(path)
    }
}

/// The keywords of JSON Schema, as far as tools use them. A property of such a name is not text either.
pub(super) const SCHEMA: &[&str] = &[
    "$defs",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "default",
    "definitions",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "title",
    "type",
    "uniqueItems",
];

/// The seven types of JSON Schema: exact words, which carry nothing.
pub(super) fn is_schema_type(text: &str) -> bool {
    matches!(
        text,
        "object" | "array" | "string" | "number" | "integer" | "boolean" | "null"
    )
}
