//! What is in the documents of chat completions: whole answers, chunks of a stream, and errors.

use super::unknown_shape;
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    json::{Document, Kind, Value},
    notes::{self, Notes},
    stream::{Ends, MAX_CHANNELS, too_many_channels},
    texts::{Class, Fields, Path, is_token},
};

/// What a document of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Completion,
    Chunk,
    Error,
}

/// An error document, also inside a stream: it has an `error` and no choices.
pub(super) fn is_error(document: &Document<'_>) -> bool {
    let member = |name| {
        document
            .member(&document.root, name)
            .filter(|value| !matches!(value.kind, Kind::Null))
    };
    member("error").is_some() && member("choices").is_none()
}

/// The document's member of that name where it is a string.
pub(super) fn string<'d>(document: &Document<'d>, name: &str) -> Option<std::borrow::Cow<'d, str>> {
    document.string(document.member(&document.root, name)?)
}

/// The choices of a document.
pub(super) fn choices<'d>(document: &'d Document<'_>) -> &'d [Value] {
    match document
        .member(&document.root, "choices")
        .map(|choices| &choices.kind)
    {
        Some(Kind::Array(choices)) => choices,
        _ => &[],
    }
}

/// Takes over what the document says of itself.
pub(super) fn note(document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
    let root = &document.root;
    let mut word = |name| notes::word(document, document.member(root, name), filter);
    notes.id(word("id"));
    notes.model(word("model"));
    notes.fingerprint(word("system_fingerprint"));
    if let Some(usage) = document.member(root, "usage") {
        let tokens = |name| document.integer(document.member(usage, name)?);
        notes.input_tokens(tokens("prompt_tokens"));
        notes.output_tokens(tokens("completion_tokens"));
    }
    for (place, choice) in choices(document).iter().enumerate() {
        let index = index(document, choice).unwrap_or(place);
        let reason = document.member(choice, "finish_reason");
        if let (Ok(index), Some(reason)) = (u32::try_from(index), reason)
            && matches!(reason.kind, Kind::String { .. })
        {
            notes.reason(index, notes::word(document, Some(reason), filter));
        }
    }
}

/// The choices of a chunk that end with it.
///
/// # Errors
/// `unknown_shape` where it does not say which choice it goes on with, `too_many_channels`.
pub(super) fn ended(document: &Document<'_>) -> Result<Vec<Ends>, ShapeError> {
    let choices = choices(document);
    let mut ends = Vec::new();
    for (place, choice) in choices.iter().enumerate() {
        if document.member(choice, "index").is_none() && choices.len() > 1 {
            return Err(unknown_shape("a choice of several has no index"));
        }
        let index = numbered(document, choices, place)?;
        let reason = document.member(choice, "finish_reason");
        // Some servers say an empty one until there is one.
        let reason = reason.and_then(|reason| document.string(reason));
        if reason.is_some_and(|reason| !reason.is_empty()) {
            ends.push(Ends::Choice(index));
        }
    }
    Ok(ends)
}

/// The names of tools in a chunk. A server may split them, so whether one is whole the next chunk tells.
///
/// # Errors
/// As for [`ended`].
pub(super) fn names(document: &Document<'_>) -> Result<Vec<Ends>, ShapeError> {
    let choices = choices(document);
    let mut names = Vec::new();
    for (place, choice) in choices.iter().enumerate() {
        let Some(delta) = document.member(choice, "delta") else {
            continue;
        };
        let choice = numbered(document, choices, place)?;
        if document.member(delta, "function_call").is_some() {
            names.push(Ends::Field(choice, "function_call.name".to_owned()));
        }
        let Some(Kind::Array(calls)) = document
            .member(delta, "tool_calls")
            .map(|calls| &calls.kind)
        else {
            continue;
        };
        for place in 0..calls.len() {
            let call = numbered(document, calls, place)?;
            names.push(Ends::Field(choice, format!("tool_calls.{call}.name")));
        }
    }
    Ok(names)
}

/// The index that a choice or a tool call says it has.
pub(super) fn index(document: &Document<'_>, value: &Value) -> Option<usize> {
    let index = document.integer(document.member(value, "index")?)?;
    usize::try_from(index).ok()
}

/// The index of the choice, tool call or detail at `place` of `items`. One that says none is the one that stands there:
/// Gemini's server, for one, never numbers its calls and never splits them.
///
/// # Errors
/// `unknown_shape` where an index is no number, `too_many_channels`.
pub(super) fn numbered(
    document: &Document<'_>,
    items: &[Value],
    place: usize,
) -> Result<u32, ShapeError> {
    let item = items.get(place);
    let said = item.and_then(|item| document.member(item, "index"));
    let index = match (said, item) {
        (Some(said), Some(item)) if !matches!(said.kind, Kind::Null) => {
            let index = index(document, item);
            index.ok_or_else(|| unknown_shape("an index in the stream is no number"))?
        }
        _ => place,
    };
    let small = u32::try_from(index).ok().filter(|_| index < MAX_CHANNELS);
    small.ok_or_else(|| too_many_channels("an index in the stream is too large"))
}

impl Fields for Answer {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        match *path.keys.as_slice() {
            [] => ROOT,
            ["error"] => &["message", "type", "param", "code"],
            ["choices", "*"] => CHOICE,
            ["choices", "*", "delta" | "message"] => MESSAGE,
            ["choices", "*", "delta" | "message", "tool_calls", "*"] => {
                &["index", "id", "type", "function", "custom", "extra_content"]
            }
            [
                "choices",
                "*",
                "delta" | "message",
                "tool_calls",
                "*",
                "function",
            ]
            | ["choices", "*", "delta" | "message", "function_call"] => &["name", "arguments"],
            [
                "choices",
                "*",
                "delta" | "message",
                "tool_calls",
                "*",
                "custom",
            ] => &["name", "input"],
            ["choices", "*", "delta" | "message", "audio"] => {
                &["id", "data", "transcript", "expires_at"]
            }
            ["choices", "*", "delta" | "message", "content", "*"] => &["type", "text"],
            ["choices", "*", "delta" | "message", "annotations", "*"] => &["type", "url_citation"],
            [
                "choices",
                "*",
                "delta" | "message",
                "annotations",
                "*",
                "url_citation",
            ] => &["end_index", "start_index", "title", "url"],
            ["usage"] => USAGE,
            [
                "usage",
                "prompt_tokens_details" | "completion_tokens_details",
            ] => USAGE_DETAILS,
            _ => &[],
        }
    }

    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError> {
        expect(*self, path, value)?;
        expect_part(path, value, document)?;
        let chunk = *self == Self::Chunk;
        Ok(match *path.keys.as_slice() {
            ["obfuscation"] if document.string(value).is_some() => Class::Padding,
            ["prompt_logprobs" | "prompt_token_ids"]
            | ["choices", "*", "logprobs" | "prompt_logprobs" | "token_ids"] => Class::Echo,
            // What LiteLLM knows of another provider's delta besides, its text and the signature of it too.
            [
                "choices",
                "*",
                "delta",
                "provider_specific_fields" | "thinking_blocks",
            ] if chunk => Class::Echo,
            ["choices", "*", "message" | "delta", "annotations"] => Class::Annotations,
            ["choices", "*", "message" | "delta", "audio", "data"] => Class::Opaque("audio"),
            ["choices", "*", "message" | "delta", "images"] => Class::Opaque("image_url"),
            [
                "choices",
                "*",
                "message" | "delta",
                "tool_calls",
                "*",
                "extra_content",
                ..,
                "thought_signature",
            ]
            | [
                "choices",
                "*",
                "message" | "delta",
                "extra_content",
                ..,
                "thought_signature",
            ]
            | [
                "choices",
                "*",
                "message" | "delta",
                "reasoning_details",
                "*",
                "signature",
            ] => Class::Detached("signed"),
            [
                "choices",
                "*",
                "message" | "delta",
                "reasoning_details",
                "*",
                "data",
            ] => Class::Opaque("signed"),
            _ if is_word(&path.keys)
                && document.string(value).is_some_and(|text| is_token(&text)) =>
            {
                Class::Protocol
            }
            ["choices", "*", "message", "content"] => Class::Parts,
            [
                "choices",
                "*",
                "message" | "delta",
                "tool_calls",
                "*",
                "function",
                "arguments",
            ]
            | [
                "choices",
                "*",
                "message" | "delta",
                "function_call",
                "arguments",
            ] => {
                if chunk {
                    Class::ArgumentsPiece
                } else {
                    Class::Arguments
                }
            }
            [
                "choices",
                "*",
                "delta",
                "tool_calls",
                "*",
                "custom",
                "input",
            ]
            | ["choices", "*", "delta", "audio", "transcript"]
            | [
                "choices",
                "*",
                "delta",
                "tool_calls",
                "*",
                "function" | "custom",
                "name",
            ]
            | ["choices", "*", "delta", "function_call", "name"]
            | [
                "choices",
                "*",
                "delta",
                "reasoning_details",
                "*",
                "text" | "summary",
            ]
            | ["choices", "*", "delta", _]
            | ["choices", "*", "delta", "content", "*", "text"]
                if chunk =>
            {
                Class::Piece
            }
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        let (["choices", "*", rest @ ..], [place, places @ ..]) =
            (path.keys.as_slice(), path.places.as_slice())
        else {
            return Ok(Channel {
                choice: 0,
                field: path.dotted(),
            });
        };
        let choices = choices(document);
        let choice = numbered(document, choices, *place)?;
        let [message @ ("message" | "delta"), rest @ ..] = rest else {
            return Ok(Channel {
                choice,
                field: path.dotted(),
            });
        };
        // Parts of a delta go on with one text, as a delta that is one does.
        if let (["content", "*", "text"], "delta") = (rest, *message) {
            return Ok(Channel {
                choice,
                field: "content".to_owned(),
            });
        }
        let mut places = places.to_vec();
        if let (["tool_calls" | "reasoning_details", "*", ..], Some(place)) =
            (rest, places.first_mut())
        {
            let list = rest.first().copied().unwrap_or_default();
            let items = choices
                .get(path.places.first().copied().unwrap_or_default())
                .and_then(|choice| document.member(choice, message))
                .and_then(|message| document.member(message, list));
            if let Some(Kind::Array(items)) = items.map(|items| &items.kind) {
                *place = numbered(document, items, *place)? as usize;
            }
        }
        let rest = Path {
            keys: rest.to_vec(),
            places,
            object: None,
        };
        Ok(Channel {
            choice,
            field: field(&rest),
        })
    }
}

/// `tool_calls.0.arguments` says it as well as `tool_calls.0.function.arguments`.
fn field(path: &Path<'_>) -> String {
    path.dotted()
        .replacen(".function.arguments", ".arguments", 1)
        .replacen(".custom.input", ".input", 1)
        .replacen(".function.name", ".name", 1)
        .replacen(".custom.name", ".name", 1)
}

fn is_word(path: &[&str]) -> bool {
    matches!(
        *path,
        ["id" | "object" | "model" | "system_fingerprint" | "service_tier" | "provider"]
            | ["error", "type" | "code"]
            | ["choices", "*", "finish_reason" | "native_finish_reason"]
            | ["choices", "*", "message" | "delta", "role"]
            | [
                "choices",
                "*",
                "message" | "delta",
                "tool_calls",
                "*",
                "id" | "type"
            ]
            | ["choices", "*", "message" | "delta", "audio", "id"]
            | [
                "choices",
                "*",
                "message" | "delta",
                "annotations",
                "*",
                "type"
            ]
            | ["choices", "*", "message" | "delta", "content", "*", "type"]
            | [
                "choices",
                "*",
                "message" | "delta",
                "reasoning_details",
                "*",
                "type" | "format" | "id"
            ]
    )
}

/// The shapes without which we would not know where the text is.
fn expect(answer: Answer, path: &Path<'_>, value: &Value) -> Result<(), ShapeError> {
    if answer == Answer::Error {
        return Ok(());
    }
    let chunk = answer == Answer::Chunk;
    let fault = match (path.keys.as_slice(), &value.kind) {
        ([], Kind::Object(_))
        | (["choices"], Kind::Array(_))
        | (["choices", "*"], Kind::Object(_)) => None,
        ([] | ["choices"] | ["choices", "*"], _) => {
            Some("the answer's choices are not an array of objects")
        }
        (["choices", "*", "message"], Kind::Object(_)) if !chunk => None,
        (["choices", "*", "delta"], Kind::Object(_) | Kind::Null) if chunk => None,
        (["choices", "*", "message" | "delta"], _) => {
            Some("a choice's text is not where this answer has it")
        }
        (["choices", "*", "finish_reason"], Kind::String { .. } | Kind::Null) => None,
        (["choices", "*", "finish_reason"], _) => {
            Some("a choice's `finish_reason` is not a string")
        }
        (
            ["choices", "*", "message", "content"],
            Kind::String { .. } | Kind::Null | Kind::Array(_),
        ) => None,
        (["choices", "*", "message", "content"], _) => {
            Some("a message's `content` is neither text nor parts")
        }
        (
            [
                "choices",
                "*",
                "delta",
                "content" | "tool_calls" | "annotations" | "images" | "reasoning_details",
            ],
            Kind::Array(_),
        ) => None,
        (
            [
                "choices",
                "*",
                "delta",
                "function_call" | "audio" | "extra_content" | "context",
            ],
            Kind::Object(_),
        )
        | (
            [
                "choices",
                "*",
                "delta",
                "provider_specific_fields" | "thinking_blocks",
            ],
            _,
        ) => None,
        // Clients that string pieces together would make one text of several.
        (
            [
                "choices",
                "*",
                "delta",
                "content" | "reasoning" | "reasoning_content" | "refusal",
            ]
            | ["choices", "*", "delta", "function_call", _]
            | ["choices", "*", "delta", "audio", "transcript"]
            | [
                "choices",
                "*",
                "delta",
                "tool_calls",
                "*",
                "function" | "custom",
                _,
            ]
            | [
                "choices",
                "*",
                "delta",
                "reasoning_details",
                "*",
                "text" | "summary",
            ],
            Kind::Number,
        ) if chunk => Some("a piece of text is a number"),
        // Text nested where we do not know it could be split over events and would be scanned in pieces.
        (["choices", "*", "delta", _], Kind::Array(_) | Kind::Object(_)) => {
            Some("a delta has an unknown array or object")
        }
        (["choices", "*", "message" | "delta", "tool_calls", "*"], Kind::Object(_)) => None,
        (["choices", "*", "message" | "delta", "tool_calls", "*"], _) => {
            Some("a tool call is not an object")
        }
        (
            [
                "choices",
                "*",
                "message" | "delta",
                "tool_calls",
                "*",
                "function",
                "arguments",
            ]
            | [
                "choices",
                "*",
                "message" | "delta",
                "function_call",
                "arguments",
            ],
            Kind::Array(_) | Kind::Object(_) | Kind::Number | Kind::Bool(_),
        ) => Some("arguments are not a string"),
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// A part of a delta's content is text and nothing else.
fn expect_part(path: &Path<'_>, value: &Value, document: &Document<'_>) -> Result<(), ShapeError> {
    let known = match path.keys.as_slice() {
        ["choices", "*", "delta", "content", "*"] => {
            let kind = document.member(value, "type");
            kind.and_then(|kind| document.string(kind)).as_deref() == Some("text")
        }
        ["choices", "*", "delta", "content", "*", "type" | "text"] => {
            matches!(value.kind, Kind::String { .. })
        }
        ["choices", "*", "delta", "content", "*", _] => !matches!(
            value.kind,
            Kind::String { .. } | Kind::Array(_) | Kind::Object(_)
        ),
        _ => true,
    };
    if known {
        return Ok(());
    }
    Err(unknown_shape("a part of a delta's content is no text"))
}

const ROOT: &[&str] = &[
    "choices",
    "created",
    "error",
    "id",
    "model",
    "moderation",
    "obfuscation",
    "object",
    "prompt_filter_results",
    "prompt_logprobs",
    "prompt_token_ids",
    "provider",
    "service_tier",
    "system_fingerprint",
    "timings",
    "usage",
];
const CHOICE: &[&str] = &[
    "content_filter_offsets",
    "content_filter_results",
    "delta",
    "finish_reason",
    "index",
    "logprobs",
    "message",
    "native_finish_reason",
    "prompt_logprobs",
    "stop_reason",
    "token_ids",
];
const MESSAGE: &[&str] = &[
    "annotations",
    "audio",
    "content",
    "context",
    "extra_content",
    "function_call",
    "images",
    "provider_specific_fields",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "role",
    "thinking_blocks",
    "tool_calls",
];
const USAGE: &[&str] = &[
    "completion_tokens",
    "completion_tokens_details",
    "prompt_tokens",
    "prompt_tokens_details",
    "total_tokens",
];
const USAGE_DETAILS: &[&str] = &[
    "accepted_prediction_tokens",
    "audio_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "rejected_prediction_tokens",
];
