//! Answers in one document: a completion, or an error. Nothing leaves before all of it was seen.

use super::unknown_shape;
use crate::dialect::{
    Channel, Passed, ResponseBody, ResponseFacts, ShapeError, TextFilter,
    json::{self, Document, Kind, Value},
    texts::{Class, Fields, Path, Texts, is_token},
};

/// The largest document in bytes; a larger one is `answer_too_large`.
const MAX_DOCUMENT_BYTES: usize = 32 << 20;

/// An answer that has no body.
#[derive(Debug, Default)]
pub(super) struct Empty {
    facts: ResponseFacts,
}

impl ResponseBody for Empty {
    fn incremental(&self) -> bool {
        false
    }

    fn push(&mut self, bytes: &[u8], _: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        if bytes.is_empty() {
            return Ok(Passed::default());
        }
        Err(ShapeError::new(
            "unexpected_body",
            "the answer has a body where it may have none".to_owned(),
        ))
    }

    fn finish(&mut self, _: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.facts.complete = true;
        Ok(Passed::default())
    }

    fn facts(&self) -> &ResponseFacts {
        &self.facts
    }

    fn held(&self) -> usize {
        0
    }
}

/// A JSON document.
pub(super) struct Whole {
    status: u16,
    body: Vec<u8>,
    facts: ResponseFacts,
}

impl Whole {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            body: Vec::new(),
            facts: ResponseFacts::default(),
        }
    }

    fn masked(&mut self, text: &str, filter: &mut dyn TextFilter) -> Result<String, ShapeError> {
        let document = Document::read(text)?;
        let texts = Texts::find(&document, &kind_of(&document, self.status)?)?;
        let edits = texts.edits(text, filter)?;
        note(&mut self.facts, &document, filter);
        self.facts.finish_reasons = finish_reasons(&document, filter);
        self.facts.unscanned = texts.unscanned;
        self.facts.complete = true;
        Ok(json::splice(text, edits))
    }
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whole")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl ResponseBody for Whole {
    fn incremental(&self) -> bool {
        false
    }

    fn push(&mut self, bytes: &[u8], _: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        if self.body.len() + bytes.len() > MAX_DOCUMENT_BYTES {
            let reason = format!("the answer is over {MAX_DOCUMENT_BYTES} bytes");
            return Err(ShapeError::new("answer_too_large", reason));
        }
        self.body.extend_from_slice(bytes);
        Ok(Passed::default())
    }

    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        let body = std::mem::take(&mut self.body);
        let masked = self.masked(json::utf8(&body)?, filter)?;
        // A document's last byte tells the client that it is whole, so all of it is held for the record.
        Ok(Passed {
            now: Vec::new(),
            terminal: masked.into_bytes(),
        })
    }

    fn facts(&self) -> &ResponseFacts {
        &self.facts
    }

    fn held(&self) -> usize {
        self.body.len()
    }
}

/// What a document of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Completion,
    Chunk,
    Error,
}

/// Whether the document is a completion or an error.
fn kind_of(document: &Document<'_>, status: u16) -> Result<Answer, ShapeError> {
    let root = &document.root;
    if !matches!(root.kind, Kind::Object(_)) {
        return Err(unknown_shape("the answer is not an object"));
    }
    if status >= 400 || is_error(document) {
        return Ok(Answer::Error);
    }
    match document
        .member(root, "object")
        .and_then(|object| document.string(object))
        .as_deref()
    {
        Some("chat.completion") if document.member(root, "choices").is_some() => {
            Ok(Answer::Completion)
        }
        _ => Err(unknown_shape(
            "the answer is no `chat.completion` with choices",
        )),
    }
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

/// Takes over what the document says of itself. What does not look like a word of the protocol is left out: facts go
/// into the record unmasked.
pub(super) fn note(
    facts: &mut ResponseFacts,
    document: &Document<'_>,
    filter: &mut dyn TextFilter,
) {
    let word = |name| word(document, document.member(&document.root, name)?, filter);
    let Some(usage) = document.member(&document.root, "usage") else {
        return note_words(facts, word);
    };
    let tokens = |name| {
        document
            .member(usage, name)
            .and_then(|value| document.integer(value))
    };
    facts.input_tokens = tokens("prompt_tokens").or(facts.input_tokens);
    facts.output_tokens = tokens("completion_tokens").or(facts.output_tokens);
    note_words(facts, word);
}

fn note_words(facts: &mut ResponseFacts, mut word: impl FnMut(&'static str) -> Option<String>) {
    facts.id = facts.id.take().or_else(|| word("id"));
    facts.model = facts.model.take().or_else(|| word("model"));
    facts.system_fingerprint = facts
        .system_fingerprint
        .take()
        .or_else(|| word("system_fingerprint"));
}

/// A string that looks like a word of the protocol, as it leaves.
pub(super) fn word(
    document: &Document<'_>,
    value: &Value,
    filter: &mut dyn TextFilter,
) -> Option<String> {
    let word = document.string(value).filter(|word| is_token(word))?;
    Some(filter.word(&word).unwrap_or_else(|| word.into_owned()))
}

fn finish_reasons(document: &Document<'_>, filter: &mut dyn TextFilter) -> Vec<String> {
    let Some(Value {
        kind: Kind::Array(choices),
        ..
    }) = document.member(&document.root, "choices")
    else {
        return Vec::new();
    };
    choices
        .iter()
        .filter_map(|choice| finish_reason(document, choice, filter))
        .collect()
}

/// Why the choice ended, where it did.
pub(super) fn finish_reason(
    document: &Document<'_>,
    choice: &Value,
    filter: &mut dyn TextFilter,
) -> Option<String> {
    let reason = document.member(choice, "finish_reason")?;
    document.string(reason)?;
    Some(word(document, reason, filter).unwrap_or_else(|| "other".to_owned()))
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
            ["choices", "*", "message", "content", "*"] => &["type", "text"],
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
        let chunk = *self == Self::Chunk;
        Ok(match *path.keys.as_slice() {
            ["prompt_logprobs" | "prompt_token_ids"]
            | ["choices", "*", "logprobs" | "prompt_logprobs" | "token_ids"] => Class::Echo,
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
                "signature" | "data",
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
                "reasoning_details",
                "*",
                "text" | "summary",
            ]
            | ["choices", "*", "delta", _]
                if chunk =>
            {
                Class::Piece
            }
            _ => Class::Text,
        })
    }

    /// The place of a choice stands in for its index: the reader of a stream puts the index in.
    fn channel(&self, path: &Path<'_>) -> Channel {
        match (path.keys.as_slice(), path.places.as_slice()) {
            (["choices", "*", "message" | "delta", rest @ ..], [place, places @ ..]) => {
                let rest = Path {
                    keys: rest.to_vec(),
                    places: places.to_vec(),
                };
                Channel {
                    choice: u32::try_from(*place).unwrap_or(u32::MAX),
                    field: field(&rest),
                }
            }
            (["choices", "*", ..], [place, ..]) => Channel {
                choice: u32::try_from(*place).unwrap_or(u32::MAX),
                field: path.dotted(),
            },
            _ => Channel {
                choice: 0,
                field: path.dotted(),
            },
        }
    }
}

/// `tool_calls.0.arguments` says it as well as `tool_calls.0.function.arguments`.
fn field(path: &Path<'_>) -> String {
    path.dotted()
        .replacen(".function.arguments", ".arguments", 1)
        .replacen(".custom.input", ".input", 1)
}

fn is_word(path: &[&str]) -> bool {
    matches!(
        *path,
        ["id" | "object" | "model" | "system_fingerprint" | "service_tier"]
            | ["error", "type" | "code"]
            | ["choices", "*", "finish_reason"]
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
                "tool_calls" | "annotations" | "images" | "reasoning_details",
            ],
            Kind::Array(_),
        ) => None,
        (
            [
                "choices",
                "*",
                "delta",
                "function_call" | "audio" | "extra_content",
            ],
            Kind::Object(_),
        ) => None,
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

const ROOT: &[&str] = &[
    "choices",
    "created",
    "error",
    "id",
    "model",
    "moderation",
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
    "extra_content",
    "function_call",
    "images",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "role",
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
