//! One message, read by its descriptor: where its texts are, and the same message with others in their places.
//!
//! Promises: every string, and all bytes that are to be read as text, are a text, a word of the protocol, or named as what is
//! not read. All else leaves byte for byte as it came. A field that the descriptor does not have, or has once and the message
//! twice, is refused: what upstream makes of it is not known.

use std::ops::Range;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{
    super::{
        ShapeError, Text,
        json::quoted,
        texts::{MAX_LABEL_BYTES, back, is_token},
    },
    kserve,
    schema::{self, Meaning},
    wire::{self, Field, WireType, invalid},
};

/// Most fields that one request, or one message of an answer, is looked into for; more is `too_many_fields`. A packed list is one
/// field.
const MAX_PARTS: usize = 65_536;
/// How deep messages may stand in each other.
const MAX_DEPTH: usize = 16;

/// A field that was found, or an element of one.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    form: Form,
    prefix: Range<usize>,
    pub(super) body: Range<usize>,
    /// Where it stands: names of fields and places in lists.
    pub(super) path: String,
    /// What is known of its meaning: a tensor's name, a parameter's key.
    pub(super) label: String,
    pub(super) what: What,
}

/// How a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// There is none.
    None,
    Varint,
    /// Of an element of a BYTES tensor.
    LittleEndian,
}

/// What a field is.
#[derive(Debug)]
pub(super) enum What {
    /// A message, or the elements of a tensor.
    Inner(Vec<Part>),
    Text,
    /// A word of the protocol.
    Word,
    /// May hold text that cannot be read; why.
    Unscanned(&'static str),
    /// May hold text that the configuration does not choose.
    Unchosen,
    /// Holds no text: shown as this JSON.
    Value(String),
    /// Bytes that mean nothing before the message is known whole.
    Raw,
}

/// Reads the message at `range` of `bytes` by what its fields mean, and adds to `count` how many it has. `model` is the path of
/// the field that names the model, empty where none does.
///
/// # Errors
/// `invalid_protobuf`, `invalid_utf8`, `unknown_field`, `duplicate_field`, `too_many_fields`, and what
/// [`kserve::settle`] refuses.
pub(super) fn read(
    bytes: &[u8],
    range: Range<usize>,
    descriptor: &MessageDescriptor,
    (meaning, model): (&Meaning, &str),
    count: &mut usize,
) -> Result<Vec<Part>, ShapeError> {
    let mut reader = Reader {
        bytes,
        meaning,
        model,
        parts: *count,
    };
    let mut parts = reader.message(range, descriptor, "", 0)?;
    if let Meaning::Kserve = meaning {
        kserve::settle(&mut parts, descriptor.full_name(), &mut reader)?;
    }
    *count = reader.parts;
    Ok(parts)
}

/// What is read.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    meaning: &'b Meaning,
    model: &'b str,
    parts: usize,
}

impl<'b> Reader<'b> {
    fn message(
        &mut self,
        range: Range<usize>,
        descriptor: &MessageDescriptor,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Part>, ShapeError> {
        if depth > MAX_DEPTH {
            return Err(invalid(
                "messages stand too deep in each other",
                range.start,
            ));
        }
        let mut parts: Vec<Part> = Vec::new();
        let (mut once, mut places) = (Vec::new(), Vec::new());
        let mut at = range.start;
        while at < range.end {
            let field = wire::field(self.bytes, at, range.end)?;
            let known = descriptor.get_field(field.number).ok_or_else(|| {
                let reason = "a message has a field that the dialect does not know";
                ShapeError::at("unknown_field", reason, at)
            })?;
            if !known.is_list() && !known.is_map() {
                // Of one-of-several, the first stands for all of them.
                let same = known.containing_oneof();
                let same = same.and_then(|several| several.fields().next());
                let number = same.map_or(field.number, |first| first.number());
                if once.contains(&number) {
                    let reason = "a field stands twice that may stand once";
                    return Err(ShapeError::at("duplicate_field", reason, at));
                }
                once.push(number);
            }
            let path = place(path, &known, &mut places);
            self.count(field.body.start)?;
            at = field.body.end;
            let what = self.what(&field, &known, &path, depth)?;
            parts.push(Part {
                number: field.number,
                form: match field.wire {
                    WireType::Length => Form::Varint,
                    _ => Form::None,
                },
                prefix: field.prefix,
                body: field.body,
                path,
                label: self.meaning.label(&known).to_owned(),
                what,
            });
        }
        if descriptor.is_map_entry() {
            let key = self.string(&parts, 1);
            let value = parts.iter_mut().find(|part| part.number == 2);
            value.into_iter().for_each(|part| part.name(key));
        }
        Ok(parts)
    }

    fn count(&mut self, at: usize) -> Result<(), ShapeError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let reason = "a message has more fields than are followed";
            return Err(ShapeError::at("too_many_fields", reason, at));
        }
        Ok(())
    }

    fn what(
        &mut self,
        field: &Field,
        known: &FieldDescriptor,
        path: &str,
        depth: usize,
    ) -> Result<What, ShapeError> {
        let body = field.body.clone();
        let kind = known.kind();
        if let Some(wire) = scalar(&kind) {
            if field.wire == wire {
                return Ok(What::Value(self.shown(&kind, body)));
            }
            if known.is_list() && field.wire == WireType::Length {
                return self.packed(wire, body);
            }
        } else if field.wire == WireType::Length {
            return match kind {
                Kind::Message(inner) => {
                    let parts = self.message(body, &inner, path, depth + 1)?;
                    Ok(What::Inner(parts))
                }
                Kind::String => {
                    let text = text(self.bytes, &body).ok_or_else(|| {
                        let reason = "a string is not UTF-8";
                        ShapeError::at("invalid_utf8", reason, body.start)
                    })?;
                    Ok(self.string_is(known, path, text))
                }
                _ => Ok(self.bytes_are(known, path, &body)),
            };
        }
        Err(invalid(
            "a field is of another type than it must be",
            body.start,
        ))
    }

    fn string_is(&self, known: &FieldDescriptor, path: &str, text: &str) -> What {
        let word = match self.meaning {
            Meaning::Kserve => kserve::is_word(known.full_name()),
            Meaning::Own(_) if path == self.model => true,
            Meaning::Own(chosen) if !schema::is_chosen(chosen, path) => return What::Unchosen,
            Meaning::Own(_) => false,
        };
        match word && (text.is_empty() || is_token(text)) {
            true => What::Word,
            false => What::Text,
        }
    }

    fn bytes_are(&self, known: &FieldDescriptor, path: &str, body: &Range<usize>) -> What {
        let name = known.full_name();
        match self.meaning {
            Meaning::Kserve if kserve::is_element(name) => self.element(body),
            Meaning::Kserve if kserve::is_raw(name) => What::Raw,
            Meaning::Kserve => What::Unscanned(BYTES),
            Meaning::Own(chosen) if !schema::is_chosen(chosen, path) => What::Unchosen,
            // A message of its own, which masking would break where it happens to be UTF-8.
            Meaning::Own(_) if name == "google.protobuf.Any.value" => What::Unscanned(BYTES),
            Meaning::Own(_) => self.element(body),
        }
    }

    /// What bytes are that should be a text.
    fn element(&self, body: &Range<usize>) -> What {
        match text(self.bytes, body) {
            Some(_) => What::Text,
            None => What::Unscanned(BYTES),
        }
    }

    /// A list of numbers in one field.
    fn packed(&self, wire: WireType, body: Range<usize>) -> Result<What, ShapeError> {
        let length = body.len();
        let whole = match wire {
            WireType::Fixed32 => length.is_multiple_of(4),
            WireType::Fixed64 => length.is_multiple_of(8),
            _ => {
                let mut at = body.start;
                while at < body.end {
                    at = wire::varint(self.bytes, at, body.end, false)?.1;
                }
                true
            }
        };
        match whole {
            true => Ok(What::Value(numbers(length))),
            false => Err(invalid("a list of numbers is cut off", body.start)),
        }
    }

    /// A number as JSON.
    fn shown(&self, kind: &Kind, body: Range<usize>) -> String {
        let bytes = self.bytes.get(body.clone()).unwrap_or_default();
        let number = || wire::varint(bytes, 0, bytes.len(), false).map_or(0, |(value, _)| value);
        let json = match kind {
            Kind::Double => <[u8; 8]>::try_from(bytes)
                .map(f64::from_le_bytes)
                .map(|n| n.to_string()),
            Kind::Float => <[u8; 4]>::try_from(bytes)
                .map(f32::from_le_bytes)
                .map(|n| n.to_string()),
            Kind::Bool => Ok((number() != 0).to_string()),
            Kind::Int32 | Kind::Int64 => Ok((number().cast_signed()).to_string()),
            Kind::Uint32 | Kind::Uint64 => Ok(number().to_string()),
            _ => Ok(numbers(bytes.len())),
        };
        match json {
            // JSON has no infinity and no `NaN`.
            Ok(json) if !json.contains(['i', 'N']) => json,
            _ => numbers(bytes.len()),
        }
    }

    /// The elements of a BYTES tensor, each behind its length.
    ///
    /// # Errors
    /// `invalid_tensor`, `too_many_fields`.
    pub(super) fn elements(&mut self, tensor: &Part) -> Result<Vec<Part>, ShapeError> {
        let wrong = |at| ShapeError::at("invalid_tensor", "an element of a tensor is cut off", at);
        let mut elements = Vec::new();
        let mut at = tensor.body.start;
        while at < tensor.body.end {
            self.count(at)?;
            let start = at + 4;
            let length = self.bytes.get(at..start).ok_or_else(|| wrong(at))?;
            let length = length
                .iter()
                .rfold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let body = start..start.saturating_add(length);
            if body.end > tensor.body.end {
                return Err(wrong(at));
            }
            let what = self.element(&body);
            elements.push(Part {
                number: 0,
                form: Form::LittleEndian,
                prefix: at..start,
                body: body.clone(),
                path: format!("{}.{}", tensor.path, elements.len()),
                label: tensor.label.clone(),
                what,
            });
            at = body.end;
        }
        Ok(elements)
    }

    /// The string field of that number; empty where there is none.
    pub(super) fn string(&self, parts: &[Part], number: u32) -> &'b str {
        let part = parts.iter().find(|part| part.number == number);
        part.map(|part| own(self.bytes, part)).unwrap_or_default()
    }
}

fn text<'b>(bytes: &'b [u8], body: &Range<usize>) -> Option<&'b str> {
    std::str::from_utf8(bytes.get(body.clone())?).ok()
}

/// The text of `part`; empty where it is none.
pub(super) fn own<'b>(bytes: &'b [u8], part: &Part) -> &'b str {
    text(bytes, &part.body).unwrap_or_default()
}

/// The text of the field at `path`, none of whose steps there may be several of; empty where there is none.
pub(super) fn at<'b>(bytes: &'b [u8], parts: &[Part], path: &str) -> &'b str {
    for part in parts {
        match path.strip_prefix(&*part.path) {
            Some("") => return own(bytes, part),
            Some(rest) if rest.starts_with('.') => return at(bytes, part.inner(), path),
            _ => {}
        }
    }
    ""
}

/// Of bytes that are no text.
const BYTES: &str = "bytes";

/// What is shown of numbers.
pub(super) fn numbers(length: usize) -> String {
    quoted(&format!("({length} bytes)"))
}

fn scalar(kind: &Kind) -> Option<WireType> {
    match kind {
        Kind::Message(_) | Kind::String | Kind::Bytes => None,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Some(WireType::Fixed64),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Some(WireType::Fixed32),
        _ => Some(WireType::Varint),
    }
}

/// The path of a field in the message at `path`, with its place where there may be several.
fn place(path: &str, known: &FieldDescriptor, places: &mut Vec<(u32, usize)>) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let mut own = format!("{path}{dot}{}", known.name());
    if known.is_list() || known.is_map() {
        let before = places
            .iter_mut()
            .find(|(number, _)| *number == known.number());
        let place = match before {
            Some((_, place)) => {
                *place += 1;
                *place
            }
            None => {
                places.push((known.number(), 0));
                0
            }
        };
        own.push_str(&format!(".{place}"));
    }
    own
}

/// Bytes in memory of `parts`, each with what is handed out for it.
pub(super) fn memory(parts: &Vec<Part>) -> usize {
    let each = |part: &Part| {
        let inner = match &part.what {
            What::Inner(parts) => memory(parts),
            What::Value(json) => json.capacity(),
            _ => size_of::<Text<'_>>(),
        };
        part.path.capacity() + part.label.capacity() + inner
    };
    parts.capacity() * size_of::<Part>() + parts.iter().map(each).sum::<usize>()
}

impl Part {
    /// The fields in it.
    pub(super) fn inner(&self) -> &[Part] {
        match &self.what {
            What::Inner(parts) => parts,
            _ => &[],
        }
    }

    /// Notes what it and all in it that has no name yet is called.
    pub(super) fn name(&mut self, label: &str) {
        // Each of its elements has it: a long one would take its length for every one of them.
        let label = back(label, MAX_LABEL_BYTES);
        if self.label.is_empty() {
            label.clone_into(&mut self.label);
        }
        if let What::Inner(parts) = &mut self.what {
            parts.iter_mut().for_each(|part| part.name(label));
        }
    }

    /// Hands every field in it that holds no others to `see`.
    pub(super) fn each<'p>(&'p self, see: &mut dyn FnMut(&'p Part)) {
        match &self.what {
            What::Inner(parts) => parts.iter().for_each(|part| part.each(see)),
            _ => see(self),
        }
    }
}

/// Appends to `out` the message at `range` with each text and word replaced by what `edit` returns for it, where that is
/// `Some`.
pub(super) fn write(
    bytes: &[u8],
    range: Range<usize>,
    parts: &[Part],
    edit: &mut dyn FnMut(&Part, &str) -> Option<String>,
    out: &mut Vec<u8>,
) {
    let slice = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let mut at = range.start;
    for part in parts {
        let body = match &part.what {
            What::Inner(parts) => {
                let mut inner = Vec::with_capacity(part.body.len());
                write(bytes, part.body.clone(), parts, edit, &mut inner);
                inner
            }
            What::Text | What::Word | What::Unchosen => {
                let text = std::str::from_utf8(slice(part.body.clone())).unwrap_or_default();
                match edit(part, text) {
                    Some(text) => text.into_bytes(),
                    None => continue,
                }
            }
            What::Unscanned(_) | What::Value(_) | What::Raw => continue,
        };
        out.extend_from_slice(slice(at..part.prefix.start));
        match part.form {
            Form::LittleEndian => {
                let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
            }
            // INVARIANT: texts and messages have a length.
            Form::Varint | Form::None => wire::put_varint(body.len() as u64, out),
        }
        out.extend_from_slice(&body);
        at = part.body.end;
    }
    out.extend_from_slice(slice(at..range.end));
}
