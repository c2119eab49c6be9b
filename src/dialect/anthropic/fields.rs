//! Where the texts of Anthropic's documents are: requests, messages, events and errors.

use super::{names::NAMES, unknown_shape};
use crate::dialect::{
    Channel, ShapeError,
    json::{Document, Kind, Value},
    request::{Asked, lists, model, stream},
    stream::{MAX_CHANNELS, too_many_channels},
    texts::{Class, Fields, Path, SCHEMA, is_schema_type},
};

/// What is asked for.
///
/// # Errors
/// `unknown_shape`, `invalid_model`, `invalid_stream`, `missing_model`.
pub(super) fn asked(document: &Document<'_>) -> Result<Asked, ShapeError> {
    if !matches!(document.root.kind, Kind::Object(_)) {
        return Err(unknown_shape("the request is not an object"));
    }
    let asked = Asked {
        model: model(document)?,
        stream: stream(document, false)?,
        tools: lists(document, "tools") || lists(document, "mcp_servers"),
    };
    if document.member(&document.root, "messages").is_none() {
        return Err(unknown_shape("the request has no `messages`"));
    }
    Ok(asked)
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Request,
    /// A message, or a count of tokens.
    Answer,
    Event,
    Error,
}

/// The string in `value`'s member `name`.
pub(super) fn string<'d>(
    document: &Document<'d>,
    value: &Value,
    name: &str,
) -> Option<std::borrow::Cow<'d, str>> {
    document.string(document.member(value, name)?)
}

/// The block that an event says it is of, if it does.
///
/// # Errors
/// `unknown_shape`, `too_many_channels`.
pub(super) fn index(document: &Document<'_>) -> Result<Option<u32>, ShapeError> {
    let Some(value) = document.member(&document.root, "index") else {
        return Ok(None);
    };
    let index = document
        .integer(value)
        .ok_or_else(|| unknown_shape("an index in the stream is no number"))?;
    let small = u32::try_from(index)
        .ok()
        .filter(|index| (*index as usize) < MAX_CHANNELS);
    small
        .map(Some)
        .ok_or_else(|| too_many_channels("an index in the stream is too large"))
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        if path.keys.contains(&"input_schema") || path.keys.contains(&"schema") {
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
        if path.keys.contains(&"input") {
            return Ok(Class::Values);
        }
        let text = document.string(value);
        let event = *self == Self::Event;
        Ok(match path.keys.as_slice() {
            // Checked by itself: the name must reach the upstream as policy saw it.
            ["model"] if *self == Self::Request => Class::Protocol,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            [.., "type"] if text.as_deref().is_some_and(is_schema_type) => Class::Protocol,
            _ if NAMES.is_free(path) => Class::Text,
            ["delta", "text" | "thinking"] | ["content_block", "text" | "thinking"]
                if event && text.is_some() =>
            {
                Class::Piece
            }
            ["delta", "partial_json"] if event => Class::ArgumentsPiece,
            [.., "signature"] => Class::Opaque("signed"),
            [
                ..,
                "encrypted_content" | "encrypted_index" | "encrypted_stdout",
            ] => Class::Opaque("encrypted"),
            [.., "source"] => source(document, value),
            ["content_block"] | [.., "content", "*"] => block(document, value),
            ["system"] | [.., "content"] => Class::Parts,
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        let choice = index(document)?;
        Ok(
            match (*self, path.keys.as_slice(), path.places.as_slice()) {
                (Self::Request, ..) => Channel::default(),
                (Self::Event, ["content_block" | "delta", rest @ ..], _) if choice.is_some() => {
                    let field = match rest {
                        ["partial_json"] => "input".to_owned(),
                        rest => dotted(rest, &path.places),
                    };
                    Channel {
                        choice: choice.unwrap_or_default(),
                        field,
                    }
                }
                (Self::Answer, ["content", "*", rest @ ..], [place, places @ ..]) => Channel {
                    choice: u32::try_from(*place).unwrap_or(u32::MAX),
                    field: dotted(rest, places),
                },
                _ => Channel {
                    choice: 0,
                    field: path.dotted(),
                },
            },
        )
    }
}

fn dotted(keys: &[&str], places: &[usize]) -> String {
    Path {
        keys: keys.to_vec(),
        places: places.to_vec(),
        object: None,
    }
    .dotted()
}

/// What a content block is, or another object in a `content`.
fn block(document: &Document<'_>, block: &Value) -> Class {
    let kind = string(document, block, "type");
    match kind.as_deref() {
        Some("thinking") => Class::Signed,
        // A summary of the conversation may be signed as well.
        Some("compaction") if string(document, block, "signature").is_some() => Class::Signed,
        Some("redacted_thinking") => Class::Opaque("encrypted"),
        Some("image") => Class::Partly("image"),
        Some("container_upload") => Class::Partly("file"),
        Some("document") if !is_readable(document, block) => Class::Partly("document"),
        _ => Class::Text,
    }
}

/// Whether a document's text stands in the request itself.
fn is_readable(document: &Document<'_>, block: &Value) -> bool {
    let kind = document
        .member(block, "source")
        .and_then(|source| string(document, source, "type"));
    matches!(kind.as_deref(), Some("text" | "content"))
}

/// What a medium is given by: its bytes are not looked into, a text or a link is.
fn source(document: &Document<'_>, source: &Value) -> Class {
    if string(document, source, "type").as_deref() != Some("base64") {
        return Class::Text;
    }
    let image =
        string(document, source, "media_type").is_some_and(|kind| kind.starts_with("image/"));
    Class::Opaque(if image { "image" } else { "document" })
}

/// The shapes without which we would not know where the text is.
fn expect(
    shape: Shape,
    path: &Path<'_>,
    value: &Value,
    document: &Document<'_>,
) -> Result<(), ShapeError> {
    let known = |block| {
        let kind = string(document, block, "type");
        kind.is_some_and(|kind| BLOCKS.contains(&&*kind))
    };
    let fault = match (shape, path.keys.as_slice(), &value.kind) {
        (Shape::Error, ..) => None,
        (_, [.., "text" | "thinking"], Kind::Number) => Some("a text is a number"),
        (Shape::Request, ["messages"], Kind::Array(_))
        | (Shape::Request, ["messages", "*"], Kind::Object(_))
        | (Shape::Request, ["messages", "*", "role"], Kind::String { .. }) => None,
        (Shape::Request, ["messages"], _) => Some("`messages` is not an array"),
        (Shape::Request, ["messages", "*"], _) => Some("a message is not an object"),
        (Shape::Request, ["messages", "*", "role"], _) => {
            Some("a message's `role` is not a string")
        }
        (
            Shape::Request,
            ["system"] | ["messages", "*", "content"],
            Kind::String { .. } | Kind::Array(_),
        ) => None,
        (Shape::Request, ["system"] | ["messages", "*", "content"], _) => {
            Some("`system` or a message's `content` is neither text nor blocks")
        }
        (Shape::Answer, ["content"], Kind::Array(_)) => None,
        (Shape::Answer, ["content"], _) => Some("a message's `content` is not an array"),
        (
            _,
            ["messages" | "message", "*", "content", "*"] | ["content", "*"] | ["content_block"],
            Kind::Object(_),
        ) if known(value) => None,
        (_, ["messages", "*", "content", "*"] | ["content", "*"] | ["content_block"], _) => {
            Some("a content block is of no known type")
        }
        (Shape::Event, ["delta", "text" | "thinking" | "partial_json"], Kind::String { .. }) => {
            None
        }
        (Shape::Event, ["delta", "content"], Kind::String { .. } | Kind::Null) => None,
        (Shape::Event, ["delta", "text" | "thinking" | "partial_json" | "content"], _) => {
            Some("a piece of text is not a string")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// The content blocks there are, in requests and answers.
const BLOCKS: [&str; 27] = [
    "advisor_tool_result",
    "bash_code_execution_tool_result",
    "browser_state",
    "code_execution_tool_result",
    "compaction",
    "container_upload",
    "document",
    "fallback",
    "image",
    "mcp_tool_listing",
    "mcp_tool_result",
    "mcp_tool_use",
    "mid_conv_system",
    "redacted_thinking",
    "search_result",
    "server_tool_use",
    "text",
    "text_editor_code_execution_tool_result",
    "thinking",
    "tool_addition",
    "tool_reference",
    "tool_removal",
    "tool_result",
    "tool_search_tool_result",
    "tool_use",
    "web_fetch_tool_result",
    "web_search_tool_result",
];
