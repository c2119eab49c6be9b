//! Where the texts of Gemini's documents are: requests, answers and errors.
//!
//! The wire format is protobuf's JSON mapping: each name may be written in lower camel case or as in the `.proto` file
//! (protobuf.dev, "ProtoJSON Format"). Both are known here; an object with one name in both is refused, since parsers
//! differ in which one holds.

use std::collections::HashSet;

use super::{names::NAMES, unknown_shape};
use crate::dialect::{
    Channel, ShapeError,
    json::{Document, Kind, Value},
    request::Asked,
    stream::{MAX_CHANNELS, too_many_channels},
    texts::{Class, Fields, Path, SCHEMA, is_schema_type},
};

/// What is asked for: the model stands in the path, and one in the body must be the same.
///
/// # Errors
/// `unknown_shape`, `conflicting_model`.
pub(super) fn asked(
    document: &Document<'_>,
    model: &str,
    stream: bool,
) -> Result<Asked, ShapeError> {
    let root = &document.root;
    if !matches!(root.kind, Kind::Object(_)) || document.member(root, "contents").is_none() {
        return Err(unknown_shape("the request is no object with `contents`"));
    }
    if let Some(named) = document.member(root, "model") {
        let named = document.string(named).unwrap_or_default();
        if named.strip_prefix("models/").unwrap_or(&named) != model {
            return Err(ShapeError::new(
                "conflicting_model",
                "`model` is not the model that the path names".to_owned(),
            ));
        }
    }
    let tools = document
        .member(root, "tools")
        .is_some_and(|tools| match &tools.kind {
            Kind::Array(tools) => !tools.is_empty(),
            kind => !matches!(kind, Kind::Null),
        });
    Ok(Asked {
        model: model.to_owned(),
        stream,
        tools,
    })
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Request,
    Answer,
    Event,
    Error,
}

/// A member by its name in either spelling.
pub(super) fn either<'v, 't: 'v>(
    document: &Document<'t>,
    value: &'v Value,
    camel: &str,
    snake: &str,
) -> Option<&'v Value> {
    document
        .member(value, camel)
        .or_else(|| document.member(value, snake))
}

/// The candidates of an answer.
pub(super) fn candidates<'d>(document: &'d Document<'_>) -> &'d [Value] {
    match document
        .member(&document.root, "candidates")
        .map(|candidates| &candidates.kind)
    {
        Some(Kind::Array(candidates)) => candidates,
        _ => &[],
    }
}

/// The index of a candidate: the mapping leaves out what is zero.
///
/// # Errors
/// `unknown_shape`, `too_many_channels`.
pub(super) fn index(document: &Document<'_>, candidate: &Value) -> Result<u32, ShapeError> {
    let Some(value) = document.member(candidate, "index") else {
        return Ok(0);
    };
    let index = document
        .integer(value)
        .ok_or_else(|| unknown_shape("an index in the stream is no number"))?;
    let small = u32::try_from(index)
        .ok()
        .filter(|index| (*index as usize) < MAX_CHANNELS);
    small.ok_or_else(|| too_many_channels("an index in the stream is too large"))
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        let schema = |key: &&str| {
            matches!(
                *key,
                "parameters"
                    | "response"
                    | "responseSchema"
                    | "response_schema"
                    | "parametersJsonSchema"
                    | "parameters_json_schema"
                    | "responseJsonSchema"
                    | "response_json_schema"
            )
        };
        if path.keys.iter().any(schema) {
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
        let answer = matches!(self, Self::Answer | Self::Event);
        Ok(match path.keys.as_slice() {
            _ if is_values(path) => Class::Values,
            [.., "type"] if text.as_deref().is_some_and(is_type) => Class::Protocol,
            _ if NAMES.is_free(path) => Class::Text,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            // It signs no text beside it.
            [.., "thoughtSignature" | "thought_signature"] if answer => Class::Detached("signed"),
            [.., "thoughtSignature" | "thought_signature"] => Class::Opaque("signed"),
            [
                ..,
                "inlineData" | "inline_data" | "fileData" | "file_data",
                "data",
            ] => Class::Opaque("media"),
            [.., "fileData" | "file_data"] => Class::Partly("media"),
            ["cachedContent" | "cached_content"] => Class::Partly("cached_content"),
            ["candidates", "*", "logprobsResult" | "logprobs_result"] if answer => Class::Echo,
            [
                "candidates",
                "*",
                "citationMetadata" | "citation_metadata",
                "citations" | "citationSources" | "citation_sources",
            ]
            | [
                "candidates",
                "*",
                "groundingMetadata" | "grounding_metadata",
                "groundingSupports" | "grounding_supports",
            ] if answer => Class::Annotations,
            ["candidates", "*", "content", "parts", "*", "text"] if *self == Self::Event => {
                Class::Piece
            }
            // The parts of a stream are pieces of one text already.
            ["candidates", "*", "content", "parts"] if *self == Self::Event => Class::Text,
            [.., "parts"] => Class::Parts,
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        let (["candidates", "*", rest @ ..], [place, places @ ..]) =
            (path.keys.as_slice(), path.places.as_slice())
        else {
            return Ok(Channel {
                choice: 0,
                field: path.dotted(),
            });
        };
        let candidate = candidates(document).get(*place);
        let choice = candidate.map_or(Ok(0), |candidate| index(document, candidate))?;
        if let ["content", "parts", "*", "text"] = rest {
            let thought = path
                .object
                .and_then(|part| document.member(part, "thought"))
                .is_some_and(|thought| matches!(thought.kind, Kind::Bool(true)));
            return Ok(Channel {
                choice,
                field: if thought { "thought" } else { "text" }.to_owned(),
            });
        }
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

/// Whether a value is what a function or a tool is called with, or what it gave back, or what a user notes down.
fn is_values(path: &Path<'_>) -> bool {
    let mut around = path.keys.iter().rev().skip(1).rev();
    if let Some(free) = around.find(|key| NAMES.free.contains(*key))
        && matches!(*free, "labels" | "partMetadata" | "part_metadata")
    {
        return true;
    }
    path.keys.windows(2).any(|two| {
        matches!(
            two,
            [
                "functionCall" | "function_call" | "toolCall" | "tool_call",
                "args"
            ] | [
                "functionResponse" | "function_response" | "toolResponse" | "tool_response",
                "response"
            ]
        )
    })
}

/// The types of a schema, which Gemini writes in upper case too.
fn is_type(text: &str) -> bool {
    is_schema_type(text) || is_schema_type(&text.to_ascii_lowercase())
}

/// The shapes without which we would not know where the text is.
fn expect(
    shape: Shape,
    path: &Path<'_>,
    value: &Value,
    document: &Document<'_>,
) -> Result<(), ShapeError> {
    if let Kind::Object(members) = &value.kind
        && !NAMES.is_free(path)
    {
        let names = || members.iter().map(|member| document.key(&member.key));
        let (snake, other): (Vec<&str>, Vec<&str>) = names().partition(|name| name.contains('_'));
        let other: HashSet<String> = match snake.is_empty() {
            true => HashSet::new(),
            false => other.iter().map(|name| name.to_ascii_lowercase()).collect(),
        };
        if snake.iter().any(|name| other.contains(&bare(name))) {
            return Err(ShapeError::at(
                "duplicate_key",
                "an object has one name in two spellings",
                value.span.start as usize,
            ));
        }
    }
    let answer = matches!(shape, Shape::Answer | Shape::Event);
    let fault = match (path.keys.as_slice(), &value.kind) {
        (["contents"], Kind::Array(_)) if shape == Shape::Request => None,
        (["contents"], _) if shape == Shape::Request => Some("`contents` is not an array"),
        (["candidates"], Kind::Array(_)) | (["candidates", "*"], Kind::Object(_)) if answer => None,
        (["candidates"] | ["candidates", "*"], _) if answer => {
            Some("the answer's candidates are not an array of objects")
        }
        (
            ["contents", "*"]
            | ["systemInstruction" | "system_instruction"]
            | ["candidates", "*", "content"],
            Kind::Object(_),
        )
        | (["contents", "*", "parts"] | ["candidates", "*", "content", "parts"], Kind::Array(_))
        | (
            ["contents", "*", "parts", "*"] | ["candidates", "*", "content", "parts", "*"],
            Kind::Object(_),
        )
        | (
            ["contents", "*", "parts", "*", "text"]
            | ["candidates", "*", "content", "parts", "*", "text"],
            Kind::String { .. },
        ) => None,
        (
            ["contents", "*"]
            | ["systemInstruction" | "system_instruction"]
            | ["candidates", "*", "content"]
            | ["contents", "*", "parts"]
            | ["candidates", "*", "content", "parts"]
            | ["contents", "*", "parts", "*"]
            | ["candidates", "*", "content", "parts", "*"]
            | ["contents", "*", "parts", "*", "text"]
            | ["candidates", "*", "content", "parts", "*", "text"],
            _,
        ) => Some("a content, part or text is not what it must be"),
        // Arguments dealt out over events: what they make together could not be masked.
        ([.., "partialArgs" | "partial_args"], Kind::Array(_)) if answer => {
            Some("a function call comes in parts")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// A name as it is compared with one in lower camel case.
fn bare(snake: &str) -> String {
    snake.replace('_', "").to_ascii_lowercase()
}
