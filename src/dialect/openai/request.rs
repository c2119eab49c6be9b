//! The request of chat completions: the shape it must have, and where its texts are.

use super::unknown_shape;
use crate::dialect::{
    ShapeError,
    json::{Document, Kind, Value},
    request::{Asked, lists, model, stream},
    texts::{Class, Fields, Path, SCHEMA, is_schema_type, is_token},
};

/// What is asked for.
///
/// # Errors
/// `unknown_shape`, `invalid_model`, `invalid_stream`, `missing_model`.
pub(super) fn asked(document: &Document<'_>) -> Result<Asked, ShapeError> {
    let root = &document.root;
    if !matches!(root.kind, Kind::Object(_)) {
        return Err(unknown_shape("the request is not an object"));
    }
    let model = model(document)?;
    let stream = stream(document, false)?;
    if document.member(root, "messages").is_none() {
        return Err(unknown_shape("the request has no `messages`"));
    }
    // Tools of the caller, and those the provider runs itself.
    let search = document
        .member(root, "web_search_options")
        .is_some_and(|options| matches!(options.kind, Kind::Object(_)));
    let tools = lists(document, "tools") || lists(document, "functions") || search;
    Ok(Asked {
        model,
        stream,
        tools,
    })
}

/// Where the texts of a request are.
#[derive(Debug)]
pub(super) struct ChatRequest;

impl Fields for ChatRequest {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        match *path.keys.as_slice() {
            [] => ROOT,
            ["messages", "*"] => MESSAGE,
            ["messages", "*", "content", "*"] | ["prediction", "content", "*"] => PART,
            [
                "messages",
                "*",
                "content",
                "*",
                "image_url" | "video_url" | "audio_url",
            ] => &["url", "detail"],
            ["messages", "*", "content", "*", "input_audio"] => &["data", "format"],
            ["messages", "*", "content", "*", "file"] => &["file_data", "file_id", "filename"],
            ["messages", "*", "content", "*", "cache_control"] => &["type", "ttl"],
            ["messages", "*", "tool_calls", "*"] => {
                &["id", "type", "index", "function", "custom", "extra_content"]
            }
            ["messages", "*", "tool_calls", "*", "function"]
            | ["messages", "*", "function_call"] => &["name", "arguments"],
            ["messages", "*", "tool_calls", "*", "custom"] => &["name", "input"],
            ["tools", "*"] => &["type", "function", "custom"],
            ["tools", "*", "function" | "custom"]
            | ["functions", "*"]
            | ["response_format", "json_schema"] => FUNCTION,
            ["tool_choice"] => &["type", "function", "custom", "allowed_tools"],
            ["tool_choice", "function" | "custom"] | ["function_call"] => &["name"],
            ["response_format"] => &["type", "json_schema"],
            ["prediction"] => &["type", "content"],
            ["stream_options"] => &[
                "include_usage",
                "include_obfuscation",
                "continuous_usage_stats",
            ],
            ["audio"] => &["voice", "format"],
            _ => &[],
        }
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        match *path.keys.as_slice() {
            ["tools", "*", "function", "parameters", ..]
            | ["functions", "*", "parameters", ..]
            | ["response_format", "json_schema", "schema", ..] => SCHEMA,
            _ => &[],
        }
    }

    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError> {
        expect(path, value, document)?;
        let string = document.string(value);
        let data_uri = string.as_deref().is_some_and(|text| {
            text.get(..5)
                .is_some_and(|s| s.eq_ignore_ascii_case("data:"))
        });
        Ok(match *path.keys.as_slice() {
            // Checked by itself: the name must reach the upstream as policy saw it.
            ["model"] => Class::Protocol,
            ["metadata", ..] => Class::Values,
            ["messages", "*", "content"] | ["prediction", "content"] => Class::Parts,
            ["messages", "*", "content", "*", "image_url"]
            | ["messages", "*", "content", "*", "image_url", "url"] => media("image_url", data_uri),
            ["messages", "*", "content", "*", "video_url"]
            | ["messages", "*", "content", "*", "video_url", "url"] => media("video_url", data_uri),
            ["messages", "*", "content", "*", "audio_url"]
            | ["messages", "*", "content", "*", "audio_url", "url"] => media("audio_url", data_uri),
            ["messages", "*", "content", "*", "input_audio", "data"] => {
                Class::Opaque("input_audio")
            }
            ["messages", "*", "content", "*", "file", "file_data"] => Class::Opaque("file"),
            ["messages", "*", "content", "*", "input_audio"] => Class::Partly("input_audio"),
            ["messages", "*", "content", "*", "file"] => Class::Partly("file"),
            ["messages", "*", "audio"] => Class::Partly("audio"),
            [
                "messages",
                "*",
                "tool_calls",
                "*",
                "extra_content",
                ..,
                "thought_signature",
            ]
            | [
                "messages",
                "*",
                "reasoning_details",
                "*",
                "signature" | "data",
            ] => Class::Opaque("signed"),
            ["messages", "*", "tool_calls", "*", "function", "arguments"]
            | ["messages", "*", "function_call", "arguments"] => Class::Arguments,
            [.., "type"] if string.as_deref().is_some_and(is_schema_type) => Class::Protocol,
            _ if is_word(&path.keys) && string.as_deref().is_some_and(is_token) => Class::Protocol,
            _ => Class::Text,
        })
    }
}

/// A medium given by a data URI is not looked into; a link to one is text, and what it leads to is not seen.
fn media(kind: &'static str, data_uri: bool) -> Class {
    if data_uri {
        Class::Opaque(kind)
    } else {
        Class::Partly(kind)
    }
}

/// The protocol's own words. One that does not look like a word is text all the same.
fn is_word(path: &[&str]) -> bool {
    matches!(
        *path,
        ["reasoning_effort"
            | "verbosity"
            | "service_tier"
            | "tool_choice"
            | "function_call"
            | "prompt_cache_retention"]
            | ["modalities", "*"]
            | ["audio", "voice" | "format"]
            | ["messages", "*", "role" | "tool_call_id"]
            | ["messages", "*", "audio", "id"]
            | ["messages", "*", "content", "*", "type"]
            | [
                "messages",
                "*",
                "content",
                "*",
                "image_url" | "video_url",
                "detail"
            ]
            | ["messages", "*", "content", "*", "input_audio", "format"]
            | ["messages", "*", "content", "*", "file", "file_id"]
            | [
                "messages",
                "*",
                "content",
                "*",
                "cache_control",
                "type" | "ttl"
            ]
            | ["messages", "*", "tool_calls", "*", "id" | "type"]
            | ["tools", "*", "type"]
            | ["tool_choice" | "response_format" | "prediction", "type"]
            | ["prediction", "content", "*", "type"]
    )
}

/// The shapes without which we would not know where the text is.
fn expect(path: &Path<'_>, value: &Value, document: &Document<'_>) -> Result<(), ShapeError> {
    let fault = match (path.keys.as_slice(), &value.kind) {
        (["messages"], Kind::Array(_)) | (["messages", "*"], Kind::Object(_)) => None,
        (["messages"], _) => Some("`messages` is not an array"),
        (["messages", "*"], _) => Some("a message is not an object"),
        (["messages", "*", "role"], Kind::String { .. }) => None,
        (["messages", "*", "role"], _) => Some("a message's `role` is not a string"),
        (
            ["messages", "*", "content"] | ["prediction", "content"],
            Kind::String { .. } | Kind::Array(_) | Kind::Null,
        ) => None,
        (["messages", "*", "content"] | ["prediction", "content"], _) => {
            Some("a message's `content` is neither text nor parts")
        }
        (["messages", "*", "content", "*"] | ["prediction", "content", "*"], _) => {
            part(value, document)
        }
        (["messages", "*", "tool_calls"], Kind::Array(_) | Kind::Null) => None,
        (["messages", "*", "tool_calls"], _) => Some("a message's `tool_calls` is not an array"),
        (["messages", "*", "tool_calls", "*", "function", "arguments"], Kind::String { .. }) => {
            None
        }
        (["messages", "*", "tool_calls", "*", "function", "arguments"], _) => {
            Some("arguments are not a string")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

fn part(value: &Value, document: &Document<'_>) -> Option<&'static str> {
    let kind = document
        .member(value, "type")
        .and_then(|kind| document.string(kind));
    let text = |name| {
        document
            .member(value, name)
            .is_some_and(|text| matches!(text.kind, Kind::String { .. }))
    };
    match kind.as_deref() {
        Some("text") if text("text") => None,
        Some("refusal") if text("refusal") => None,
        Some("text" | "refusal") => Some("a text part has no text"),
        Some("image_url" | "input_audio" | "file" | "video_url" | "audio_url") => None,
        _ => Some("a content part is of no known type"),
    }
}

const ROOT: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];
const MESSAGE: &[&str] = &[
    "audio",
    "content",
    "function_call",
    "name",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "role",
    "tool_call_id",
    "tool_calls",
];
const PART: &[&str] = &[
    "audio_url",
    "cache_control",
    "file",
    "image_url",
    "input_audio",
    "refusal",
    "text",
    "type",
    "video_url",
];
const FUNCTION: &[&str] = &[
    "description",
    "format",
    "name",
    "parameters",
    "schema",
    "strict",
];
