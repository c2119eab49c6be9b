//! Where the texts of the Responses API's documents are: requests, responses and events.

use super::{
    super::{answer::string, unknown_shape},
    names::NAMES,
    number,
    spoken::{begun, channel_of},
};
use crate::dialect::{
    Channel, ShapeError,
    json::{Document, Kind, Value},
    request::{Asked, lists, model, stream},
    texts::{Class, Fields, Path, SCHEMA, is_schema_type},
};

/// What is asked for.
///
/// # Errors
/// `unknown_shape`, `missing_model`, `invalid_model`, `invalid_stream`.
pub(in super::super) fn asked(document: &Document<'_>) -> Result<Asked, ShapeError> {
    if !matches!(document.root.kind, Kind::Object(_)) {
        return Err(unknown_shape("the request is not an object"));
    }
    Ok(Asked {
        model: model(document)?,
        stream: stream(document, false)?,
        tools: lists(document, "tools"),
    })
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Shape {
    Request,
    Answer,
    Event,
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        let schema = ["parameters", "input_schema", "output_schema", "schema"];
        if path.keys.iter().any(|key| schema.contains(key)) {
            SCHEMA
        } else {
            &[]
        }
    }

    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError> {
        expect(*self, path, value, document)?;
        let text = document.string(value);
        let answer = *self != Self::Request;
        let data_uri = text.as_deref().is_some_and(|text| {
            text.get(..5)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
        });
        Ok(match path.keys.as_slice() {
            // Checked by itself: the name must reach the upstream as policy saw it.
            ["model"] if !answer => Class::Protocol,
            _ if is_in_values(path) => Class::Values,
            [.., "type"] if text.as_deref().is_some_and(is_schema_type) => Class::Protocol,
            _ if NAMES.is_free(path) => Class::Text,
            ["obfuscation"] => Class::Padding,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            ["delta", ..] if *self == Self::Event => delta(document),
            // A text may begin before its first delta.
            _ if *self == Self::Event
                && text.as_deref().is_some_and(|text| !text.is_empty())
                && let Some(begun) = begun(path, document)? =>
            {
                if begun.field.ends_with("arguments") {
                    Class::ArgumentsPiece
                } else {
                    Class::Piece
                }
            }
            [.., "arguments"] if text.is_some() => Class::Arguments,
            [.., "arguments"] => Class::Values,
            // What servers say who were not asked for it.
            [.., "encrypted_content"] if answer && is_in(path, document, "reasoning") => {
                Class::Detached("encrypted")
            }
            [.., "encrypted_content" | "fingerprint"] => Class::Opaque("encrypted"),
            [.., "image_url"] if data_uri => Class::Opaque("image_url"),
            [.., "image_url"] => Class::Partly("image_url"),
            [.., "input_image" | "input_image_mask"] => Class::Partly("image_url"),
            [.., "file_data"] => Class::Opaque("file"),
            [.., "file_url"] => Class::Partly("file"),
            [.., "input_audio", "data"] => Class::Opaque("input_audio"),
            [.., "partial_image_b64"] => Class::Opaque("image"),
            [.., "result"] if is_in(path, document, "image_generation_call") => {
                Class::Opaque("image")
            }
            [.., "logprobs"] if answer => Class::Echo,
            [.., "annotations"] if answer => Class::Annotations,
            [.., "content" | "summary" | "output"] if is_item(path) => Class::Parts,
            [.., "*"] if is_medium(document, value) => Class::Partly("file"),
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        if *self == Self::Event
            && let Some(begun) = begun(path, document)?
        {
            return Ok(begun);
        }
        let (rest, places, choice) = match (*self, path.keys.as_slice(), path.places.as_slice()) {
            (Self::Request, ..) => return Ok(Channel::default()),
            (Self::Answer, ["output", "*", rest @ ..], [place, places @ ..])
            | (Self::Event, ["response", "output", "*", rest @ ..], [place, places @ ..]) => {
                (rest, places, u32::try_from(*place).unwrap_or(u32::MAX))
            }
            (Self::Event, ["item", rest @ ..], places) => {
                (rest, places, number(document, "output_index")?)
            }
            (
                Self::Event,
                [
                    "delta" | "text" | "refusal" | "arguments" | "input" | "code" | "part"
                    | "command" | "diff" | "output",
                    rest @ ..,
                ],
                _,
            ) => {
                if let Some(mut channel) = channel_of(document)? {
                    if let (["delta", ..], [name]) = (path.keys.as_slice(), rest) {
                        channel.field.push('.');
                        channel.field.push_str(name);
                    }
                    return Ok(channel);
                }
                (path.keys.as_slice(), path.places.as_slice(), 0)
            }
            (_, rest, places) => (rest, places, 0),
        };
        let rest = Path {
            keys: rest.to_vec(),
            places: places.to_vec(),
            object: None,
        };
        Ok(Channel {
            choice,
            field: rest.dotted(),
        })
    }
}

/// Names of what a user or a model fills: the keys in it say what stands under them.
const VALUES: [&str; 6] = [
    "arguments",
    "attributes",
    "env",
    "headers",
    "metadata",
    "variables",
];

/// Whether a value is inside of something of one of those names. A schema may have properties of such names.
fn is_in_values(path: &Path<'_>) -> bool {
    let mut around = path.keys.iter().rev().skip(1).rev();
    around
        .find(|key| VALUES.contains(*key) || NAMES.free.contains(*key))
        .is_some_and(|key| VALUES.contains(key))
}

/// What a delta is.
fn delta(document: &Document<'_>) -> Class {
    match string(document, "type").as_deref() {
        Some("response.audio.delta") => Class::Opaque("audio"),
        Some("response.function_call_arguments.delta" | "response.mcp_call_arguments.delta") => {
            Class::ArgumentsPiece
        }
        _ => Class::Piece,
    }
}

/// Whether the object around the value is of that type.
fn is_in(path: &Path<'_>, document: &Document<'_>, kind: &str) -> bool {
    let named = path
        .object
        .and_then(|object| document.member(object, "type"));
    let named = named.and_then(|named| document.string(named));
    named.is_some_and(|named| named == kind)
}

/// Whether an object names a file that stands elsewhere.
fn is_medium(document: &Document<'_>, value: &Value) -> bool {
    let kind = document
        .member(value, "type")
        .and_then(|kind| document.string(kind));
    let named = |name| {
        document
            .member(value, name)
            .is_some_and(|id| !matches!(id.kind, Kind::Null))
    };
    matches!(kind.as_deref(), Some("input_file" | "input_image")) && named("file_id")
}

/// Whether the member that `path` ends with is one of an item.
fn is_item(path: &Path<'_>) -> bool {
    matches!(
        path.keys.as_slice(),
        ["input" | "output", "*", _] | ["response", "output", "*", _] | ["item", _]
    )
}

/// The shapes without which we would not know where the text is.
fn expect(
    shape: Shape,
    path: &Path<'_>,
    value: &Value,
    document: &Document<'_>,
) -> Result<(), ShapeError> {
    let known_part = || {
        let kind = document.member(value, "type");
        let kind = kind.and_then(|kind| document.string(kind));
        kind.is_some_and(|kind| PARTS.contains(&&*kind))
    };
    let fault = match (shape, path.keys.as_slice(), &value.kind) {
        _ if is_in_values(path) => None,
        (Shape::Request, ["input"], Kind::String { .. } | Kind::Array(_) | Kind::Null)
        | (Shape::Request, ["input", "*"], Kind::Object(_)) => None,
        (Shape::Request, ["input"] | ["input", "*"], _) => {
            Some("`input` is neither text nor an array of items")
        }
        (Shape::Request, ["instructions"], Kind::String { .. } | Kind::Null) => None,
        (Shape::Request, ["instructions"], _) => Some("`instructions` is not a string"),
        (Shape::Request, ["input", "*", "content", "*"], Kind::Object(_)) if known_part() => None,
        (Shape::Request, ["input", "*", "content", "*"], _) => {
            Some("a content part is of no known type")
        }
        (Shape::Answer, ["output"], Kind::Array(_))
        | (Shape::Answer, ["output", "*"], Kind::Object(_))
        | (Shape::Event, ["response" | "item" | "part"], Kind::Object(_)) => None,
        (Shape::Answer, ["output"] | ["output", "*"], _) => {
            Some("the answer's output is not an array of items")
        }
        (Shape::Event, ["response" | "item" | "part"], _) => {
            Some("an event's response, item or part is not an object")
        }
        (_, [.., "text" | "refusal"], Kind::Number) => Some("a text is a number"),
        (Shape::Event, ["delta"], Kind::String { .. }) if !is_shell_output(document) => None,
        (Shape::Event, ["delta"], Kind::Object(_)) if is_shell_output(document) => None,
        (Shape::Event, ["delta", "stdout" | "stderr"], Kind::String { .. } | Kind::Null) => None,
        (Shape::Event, ["delta", ..], _) => Some("a piece of text is not a string"),
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// Whether an event goes on with what commands of a shell wrote, which has two texts.
fn is_shell_output(document: &Document<'_>) -> bool {
    let kind = string(document, "type");
    kind.as_deref() == Some("response.shell_call_output_content.delta")
}

/// The content parts a request may have.
const PARTS: [&str; 10] = [
    "computer_screenshot",
    "encrypted_content",
    "input_audio",
    "input_file",
    "input_image",
    "input_text",
    "output_text",
    "reasoning_text",
    "refusal",
    "summary_text",
];
