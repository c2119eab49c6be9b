//! Every text of a JSON document, and the document with masked texts put back.
//!
//! [`Fields`] is what a dialect says of its documents: which names an object has, and what a value at a path is. What
//! it says nothing special of is text: strings, and keys it does not know. So a field nobody thought of is scanned,
//! and a provider's new field cannot become a hole.
//!
//! Promises: bytes that hold no changed text are forwarded as received; a changed key never collides with another.

use std::borrow::Cow;

use super::{
    Channel, ShapeError, TextFilter,
    arguments::Arguments,
    json::{self, Document, Key, Kind, Member, Span, Value},
    whole,
};

/// What a dialect knows of a kind of document.
pub(super) trait Fields {
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
    fn channel(&self, _path: &Path<'_>) -> Channel {
        Channel::default()
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A string is a text of its own; arrays and objects are walked.
    Text,
    /// A string that is one piece of a text that goes on in other documents.
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
    /// As `Text`, but it stands for something that cannot be scanned, such as a link to an image.
    Partly(&'static str),
    /// Repeats text in another form: `null` when masking.
    Echo,
    /// Points into a text by offsets: emptied when that text changed.
    Annotations,
}

/// Where a value stands.
#[derive(Debug, Default)]
pub(super) struct Path<'a> {
    /// Keys from the root, `*` for a place in an array.
    pub(super) keys: Vec<&'a str>,
    /// The places in arrays, in order.
    pub(super) places: Vec<usize>,
}

impl Path<'_> {
    /// The path written out, such as `choices.0.message.name`.
    pub(super) fn dotted(&self) -> String {
        let mut places = self.places.iter();
        let mut out = String::new();
        for key in &self.keys {
            if !out.is_empty() {
                out.push('.');
            }
            match (*key, places.as_slice()) {
                ("*", [place, ..]) => {
                    out.push_str(&place.to_string());
                    places.next();
                }
                (key, _) => out.push_str(key),
            }
        }
        out
    }
}

/// One text, or what stands for it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) channel: Channel,
    pub(super) span: Span,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Text(Leaf),
    Piece(Leaf),
    ArgumentsPiece(Leaf),
    /// The protocol's own, or what cannot be scanned.
    Word(Leaf),
    /// JSON in a string, with the texts inside it.
    Arguments {
        leaf: Leaf,
        texts: Vec<String>,
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
    Echo,
    Annotations,
}

/// A string's decoded text, kept only where it differs from the document's.
#[derive(Debug)]
pub(super) struct Leaf(Option<Box<str>>);

impl Leaf {
    fn new(decoded: Cow<'_, str>) -> Self {
        match decoded {
            Cow::Borrowed(_) => Self(None),
            Cow::Owned(text) => Self(Some(text.into_boxed_str())),
        }
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
}

impl Texts {
    /// Finds every text of `document`.
    ///
    /// # Errors
    /// `case_variant_key`, `too_deep` in arguments, and what `fields` refuses.
    pub(super) fn find(document: &Document<'_>, fields: &dyn Fields) -> Result<Self, ShapeError> {
        let mut walk = Walk {
            document,
            fields,
            path: Path::default(),
            found: Self::default(),
        };
        walk.value(&document.root)?;
        Ok(walk.found)
    }

    /// Every text, decoded, in document order; a run of parts is each part and then the joined text.
    pub(super) fn all<'a>(&'a self, document: &'a str) -> Vec<&'a str> {
        let mut out = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            match &slot.what {
                What::Text(leaf)
                | What::Piece(leaf)
                | What::ArgumentsPiece(leaf)
                | What::Key {
                    leaf, word: false, ..
                } => {
                    out.push(leaf.text(document, slot.span));
                }
                What::Arguments { texts, .. } => out.extend(texts.iter().map(String::as_str)),
                What::Run { parts, joined } => {
                    out.extend(parts.iter().map(|(span, leaf)| leaf.text(document, *span)));
                    out.push(joined);
                }
                What::Word(_) | What::Key { .. } | What::Echo | What::Annotations => {}
            }
        }
        out
    }

    /// The edits that put each text, masked, in its place. Pieces are left out: they are their reader's.
    ///
    /// # Errors
    /// `too_deep` in arguments.
    pub(super) fn edits(
        &self,
        document: &str,
        filter: &mut dyn TextFilter,
    ) -> Result<Vec<(Span, String)>, ShapeError> {
        let mut edits = Vec::new();
        let mut changed = Vec::new();
        let mut keys = Vec::new();
        for slot in &self.slots {
            let before = edits.len();
            match &slot.what {
                What::Text(leaf) => {
                    let text = leaf.text(document, slot.span);
                    let masked = whole(filter, &slot.channel, text);
                    if masked != text {
                        edits.push((slot.span, json::quoted(&masked)));
                    }
                }
                What::Arguments { leaf, .. } => {
                    if let Some(masked) =
                        arguments(leaf.text(document, slot.span), &slot.channel, filter)?
                    {
                        edits.push((slot.span, json::quoted(&masked)));
                    }
                }
                What::Word(leaf) => {
                    if let Some(masked) = filter.word(leaf.text(document, slot.span)) {
                        edits.push((slot.span, json::quoted(&masked)));
                    }
                }
                What::Key { leaf, object, word } => {
                    let text = leaf.text(document, slot.span);
                    let masked = if *word {
                        filter.word(text).unwrap_or_else(|| text.to_owned())
                    } else {
                        whole(filter, &slot.channel, text)
                    };
                    keys.push((*object, slot.span, text, masked));
                }
                What::Run { parts, .. } => run(document, parts, &slot.channel, filter, &mut edits),
                What::Echo if filter.masks() => edits.push((slot.span, "null".to_owned())),
                What::Annotations | What::Echo | What::Piece(_) | What::ArgumentsPiece(_) => {}
            }
            if edits.len() > before && matches!(slot.what, What::Text(_) | What::Run { .. }) {
                changed.push(slot.channel.choice);
            }
        }
        rename(keys, &mut edits);
        self.drop_annotations(&changed, &mut edits);
        Ok(edits)
    }

    /// Empties the annotations of the choices whose text changed, with every edit inside them.
    pub(super) fn drop_annotations(&self, changed: &[u32], edits: &mut Vec<(Span, String)>) {
        for slot in self
            .slots
            .iter()
            .filter(|slot| matches!(slot.what, What::Annotations))
        {
            if changed.contains(&slot.channel.choice) {
                edits.retain(|(span, _)| span.start < slot.span.start || span.end > slot.span.end);
                edits.push((slot.span, "[]".to_owned()));
            }
        }
    }
}

/// Masks arguments known whole; `None` where nothing in them changed.
fn arguments(
    text: &str,
    channel: &Channel,
    filter: &mut dyn TextFilter,
) -> Result<Option<String>, ShapeError> {
    let mut watch = Watch {
        filter,
        pushed: String::new(),
        changed: false,
    };
    let mut codec = Arguments::default();
    let mut masked = codec.push(text, channel, &mut watch)?;
    masked.push_str(&codec.finish(channel, &mut watch));
    Ok(watch.changed.then_some(masked))
}

/// Lets texts go whole only, and notices whether one changed.
struct Watch<'f> {
    filter: &'f mut dyn TextFilter,
    pushed: String,
    changed: bool,
}

impl TextFilter for Watch<'_> {
    fn push(&mut self, _: &Channel, text: &str) -> String {
        self.pushed.push_str(text);
        String::new()
    }

    fn finish(&mut self, channel: &Channel) -> String {
        let text = std::mem::take(&mut self.pushed);
        let masked = whole(self.filter, channel, &text);
        self.changed |= masked != text;
        masked
    }

    fn part(&mut self, text: &str) -> String {
        self.filter.part(text)
    }

    fn masks(&self) -> bool {
        self.filter.masks()
    }
}

/// Masks adjacent text parts: each for itself, and then what they read joined, which is what leaves.
fn run(
    document: &str,
    parts: &[(Span, Leaf)],
    channel: &Channel,
    filter: &mut dyn TextFilter,
    edits: &mut Vec<(Span, String)>,
) {
    let masked: Vec<String> = parts
        .iter()
        .map(|(span, leaf)| filter.part(leaf.text(document, *span)))
        .collect();
    let together = masked.concat();
    let seamless = whole(filter, channel, &together);
    if seamless != together {
        let texts = std::iter::once(seamless.as_str()).chain(std::iter::repeat(""));
        edits.extend(
            parts
                .iter()
                .zip(texts)
                .map(|((span, _), text)| (*span, json::quoted(text))),
        );
    } else {
        let changed = parts
            .iter()
            .zip(masked)
            .filter(|((span, leaf), masked)| leaf.text(document, *span) != masked);
        edits.extend(changed.map(|((span, _), masked)| (*span, json::quoted(&masked))));
    }
}

/// Writes changed keys; one that would be another's twin gets a number.
fn rename(keys: Vec<(u32, Span, &str, String)>, edits: &mut Vec<(Span, String)>) {
    let mut taken: std::collections::HashSet<(u32, String)> = keys
        .iter()
        .map(|(object, _, text, _)| (*object, (*text).to_owned()))
        .collect();
    for (object, span, text, masked) in keys {
        if masked == text {
            continue;
        }
        let mut name = masked.clone();
        let mut number = 2;
        while !taken.insert((object, name.clone())) {
            name = format!("{masked}_{number}");
            number += 1;
        }
        edits.push((span, json::quoted(&name)));
    }
}

struct Walk<'d, 'f> {
    document: &'d Document<'d>,
    fields: &'f dyn Fields,
    path: Path<'d>,
    found: Texts,
}

impl<'d> Walk<'d, '_> {
    fn value(&mut self, value: &'d Value) -> Result<(), ShapeError> {
        let class = self.fields.class(&self.path, value, self.document)?;
        if let Class::Opaque(kind) | Class::Partly(kind) = class
            && !matches!(value.kind, Kind::Null)
            && !self.found.unscanned.contains(&kind)
        {
            self.found.unscanned.push(kind);
        }
        match (class, &value.kind) {
            (Class::Opaque(_), _) => {
                self.words(value);
                Ok(())
            }
            (Class::Echo, Kind::Null) => Ok(()),
            (Class::Echo, _) => {
                self.slot(value.span, What::Echo);
                Ok(())
            }
            (_, Kind::String { .. }) => self.string(class, value),
            (Class::Parts, Kind::Array(values)) => self.parts(values),
            (_, Kind::Array(values)) => {
                if class == Class::Annotations {
                    self.slot(value.span, What::Annotations);
                }
                self.each(values, Self::value)
            }
            (_, Kind::Object(_)) => self.object(value, false),
            _ => Ok(()),
        }
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
            _ => What::Text(leaf),
        };
        self.slot(value.span, what);
        Ok(())
    }

    /// Every string in what cannot be scanned. The document's depth is bounded, and so is this.
    fn words(&mut self, value: &'d Value) {
        match &value.kind {
            Kind::String { .. } => {
                let decoded = self.document.string(value).unwrap_or_default();
                self.slot(value.span, What::Word(Leaf::new(decoded)));
            }
            Kind::Array(values) => values.iter().for_each(|value| self.words(value)),
            Kind::Object(members) => {
                for Member { key, value: inside } in members {
                    let what = What::Key {
                        leaf: Leaf(key.decoded().map(Into::into)),
                        object: value.span.start,
                        word: true,
                    };
                    self.slot(key.span, what);
                    self.words(inside);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Number => {}
        }
    }

    fn each(
        &mut self,
        values: &'d [Value],
        mut visit: impl FnMut(&mut Self, &'d Value) -> Result<(), ShapeError>,
    ) -> Result<(), ShapeError> {
        self.path.keys.push("*");
        for (place, value) in values.iter().enumerate() {
            self.path.places.push(place);
            visit(self, value)?;
            self.path.places.pop();
        }
        self.path.keys.pop();
        Ok(())
    }

    /// `in_run`: the object is a text part whose text belongs to a run.
    fn object(&mut self, object: &'d Value, in_run: bool) -> Result<(), ShapeError> {
        let Kind::Object(members) = &object.kind else {
            return Ok(());
        };
        let names = self.fields.names(&self.path);
        for member in members {
            let name = self.document.key(&member.key);
            if !names.contains(&name) {
                self.unknown_key(&member.key, name, names, object.span.start)?;
            }
            if in_run && name == "text" {
                continue;
            }
            self.path.keys.push(name);
            self.value(&member.value)?;
            self.path.keys.pop();
        }
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
        self.slot(key.span, what);
        Ok(())
    }

    /// Walks content parts; a run is noted where its first part stands.
    fn parts(&mut self, values: &'d [Value]) -> Result<(), ShapeError> {
        let texts: Vec<Option<&'d Value>> =
            values.iter().map(|part| self.text_of_part(part)).collect();
        let is_text = |place: usize| matches!(texts.get(place), Some(Some(_)));
        let mut place = 0;
        self.each(values, |walk, part| {
            let here = place;
            place += 1;
            let after_text = here > 0 && is_text(here - 1);
            if !is_text(here) || !(after_text || is_text(here + 1)) {
                return walk.value(part);
            }
            if !after_text {
                let run = texts.iter().skip(here).map_while(|text| *text);
                walk.run(run);
            }
            // INVARIANT: a part whose text is in a run is still an object the dialect must know.
            walk.fields.class(&walk.path, part, walk.document)?;
            walk.object(part, true)
        })
    }

    fn text_of_part(&self, part: &'d Value) -> Option<&'d Value> {
        let kind = self.document.string(self.document.member(part, "type")?)?;
        let text = self.document.member(part, "text")?;
        (kind == "text" && matches!(text.kind, Kind::String { .. })).then_some(text)
    }

    fn run(&mut self, texts: impl Iterator<Item = &'d Value>) {
        let mut joined = String::new();
        let mut parts = Vec::new();
        for text in texts {
            let decoded = self.document.string(text).unwrap_or_default();
            joined.push_str(&decoded);
            parts.push((text.span, Leaf::new(decoded)));
        }
        if let Some((span, _)) = parts.first() {
            self.slot(*span, What::Run { parts, joined });
        }
    }

    fn slot(&mut self, span: Span, what: What) {
        let channel = match &what {
            What::Word(_) => Channel::default(),
            _ => self.fields.channel(&self.path),
        };
        self.found.slots.push(Slot {
            channel,
            span,
            what,
        });
    }
}

/// The texts inside arguments, in order.
fn texts_inside(arguments: &str) -> Result<Vec<String>, ShapeError> {
    struct Collect(String, Vec<String>);
    impl TextFilter for Collect {
        fn push(&mut self, _: &Channel, text: &str) -> String {
            self.0.push_str(text);
            String::new()
        }
        fn finish(&mut self, _: &Channel) -> String {
            self.1.push(std::mem::take(&mut self.0));
            String::new()
        }
        fn part(&mut self, _: &str) -> String {
            String::new()
        }
    }
    let mut collect = Collect(String::new(), Vec::new());
    let mut codec = Arguments::default();
    let channel = Channel::default();
    codec.push(arguments, &channel, &mut collect)?;
    codec.finish(&channel, &mut collect);
    collect.1.retain(|text| !text.is_empty());
    Ok(collect.1)
}

/// Whether `text` looks like a protocol's own word (an id, a role, an enum's value) and not like something a person
/// wrote. What does not is scanned, wherever it stands.
pub(super) fn is_token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/+".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(known)
}

/// A filter over a closure that masks whole texts.
pub(super) struct Mask<'m> {
    pub(super) mask: &'m mut dyn FnMut(&str) -> Option<String>,
    pub(super) pushed: String,
}

impl TextFilter for Mask<'_> {
    fn push(&mut self, _: &Channel, text: &str) -> String {
        self.pushed.push_str(text);
        String::new()
    }

    fn finish(&mut self, _: &Channel) -> String {
        let text = std::mem::take(&mut self.pushed);
        (self.mask)(&text).unwrap_or(text)
    }

    fn part(&mut self, text: &str) -> String {
        (self.mask)(text).unwrap_or_else(|| text.to_owned())
    }
}
