//! Legacy completions and embeddings: plain prompts, and answers of one text a choice or of numbers only.

use super::{
    answer::{self, Answer, choices, is_error, numbered},
    chat, unknown_shape,
};
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    json::{Document, Kind, Value, quoted},
    notes::Notes,
    request::{Asked, model, stream},
    texts::{Class, Fields, Names, Path},
    whole::Answers,
};

/// What is asked of completions.
///
/// # Errors
/// `unknown_shape`, `missing_model`, `invalid_model`, `invalid_stream`.
pub(super) fn completion_asked(document: &Document<'_>) -> Result<Asked, ShapeError> {
    asked(document, "prompt")
}

/// What is asked of embeddings.
///
/// # Errors
/// As for [`completion_asked`].
pub(super) fn embedding_asked(document: &Document<'_>) -> Result<Asked, ShapeError> {
    asked(document, "input")
}

fn asked(document: &Document<'_>, text: &str) -> Result<Asked, ShapeError> {
    if document.member(&document.root, text).is_none() {
        return Err(unknown_shape(
            "the request has no text, or is not an object",
        ));
    }
    Ok(Asked {
        model: model(document)?,
        stream: stream(document, false)?,
        tools: false,
    })
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Request,
    Completion,
    Chunk,
    Embeddings,
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError> {
        let text = document.string(value);
        Ok(match (*self, path.keys.as_slice(), &value.kind) {
            (Self::Request, ["model"], _) => Class::Protocol,
            (
                Self::Request,
                ["prompt" | "input"],
                Kind::String { .. } | Kind::Array(_) | Kind::Null,
            ) => Class::Text,
            // Texts that were turned into tokens elsewhere.
            (Self::Request, ["prompt" | "input", "*"], Kind::Number | Kind::Array(_)) => {
                Class::Opaque("token_ids")
            }
            (Self::Request, ["prompt" | "input", "*"], Kind::String { .. }) => Class::Text,
            (Self::Request, ["prompt" | "input", ..], _) => {
                return Err(unknown_shape(
                    "`prompt` or `input` is neither text nor tokens",
                ));
            }
            (Self::Completion | Self::Chunk, ["choices"], Kind::Array(_))
            | (Self::Completion | Self::Chunk, ["choices", "*"], Kind::Object(_)) => Class::Text,
            (Self::Completion | Self::Chunk, ["choices"] | ["choices", "*"], _) => {
                return Err(unknown_shape(
                    "the answer's choices are not an array of objects",
                ));
            }
            (Self::Completion | Self::Chunk, ["choices", "*", "text"], kind) => {
                match (self, kind) {
                    (_, Kind::Null) => Class::Text,
                    (Self::Chunk, Kind::String { .. }) => Class::Piece,
                    (_, Kind::String { .. }) => Class::Text,
                    _ => return Err(unknown_shape("a choice's text is not a string")),
                }
            }
            (
                _,
                [
                    "choices",
                    "*",
                    "logprobs" | "prompt_logprobs" | "token_ids" | "prompt_token_ids",
                ],
                _,
            ) => Class::Echo,
            // A vector, in base64 where that was asked for: no text, whatever it looks like.
            (Self::Embeddings, ["data", "*", "embedding"], _) => Class::Protocol,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        let (["choices", "*", rest @ ..], [place, ..]) =
            (path.keys.as_slice(), path.places.as_slice())
        else {
            return Ok(Channel {
                choice: 0,
                field: path.dotted(),
            });
        };
        Ok(Channel {
            choice: numbered(document, choices(document), *place)?,
            field: rest.join("."),
        })
    }
}

/// What differs between legacy completions and those of chats.
pub(super) const LEGACY: chat::Kind = chat::Kind {
    whole: &["text_completion"],
    chunk: &["text_completion", "text_completion.chunk"],
    answer: &Shape::Completion,
    event: &Shape::Chunk,
    tools: false,
    choice: |_, text| format!("\"text\":{},\"logprobs\":null", quoted(text)),
};

/// Answers to embeddings.
#[derive(Debug, Default)]
pub(super) struct Embeddings;

impl Answers for Embeddings {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        if !matches!(document.root.kind, Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if status >= 400 || is_error(document) {
            return Ok(&Answer::Error);
        }
        let data = document.member(&document.root, "data");
        if data.is_some_and(|data| matches!(data.kind, Kind::Array(_))) {
            return Ok(&Shape::Embeddings);
        }
        Err(unknown_shape("the answer is no list of embeddings"))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        answer::note(document, notes, filter);
    }
}

const NAMES: Names = Names {
    free: &["logit_bias", "top_logprobs"],
    words: &[
        "encoding_format",
        "finish_reason",
        "id",
        "model",
        "object",
        "service_tier",
        "system_fingerprint",
    ],
    known: &[
        "accepted_prediction_tokens",
        "audio_tokens",
        "best_of",
        "cached_tokens",
        "choices",
        "completion_tokens",
        "completion_tokens_details",
        "content_filter_results",
        "created",
        "data",
        "dimensions",
        "echo",
        "embedding",
        "encoding_format",
        "error",
        "finish_reason",
        "frequency_penalty",
        "id",
        "index",
        "input",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "object",
        "presence_penalty",
        "prompt",
        "prompt_filter_results",
        "prompt_logprobs",
        "prompt_token_ids",
        "prompt_tokens",
        "prompt_tokens_details",
        "reasoning_tokens",
        "rejected_prediction_tokens",
        "seed",
        "service_tier",
        "stop",
        "stop_reason",
        "stream",
        "stream_options",
        "suffix",
        "system_fingerprint",
        "temperature",
        "text",
        "text_offset",
        "token_ids",
        "token_logprobs",
        "tokens",
        "top_k",
        "top_logprobs",
        "top_p",
        "total_tokens",
        "usage",
        "user",
    ],
};

#[cfg(test)]
mod tests {
    #[test]
    fn names_stand_in_the_order_in_which_they_are_looked_for() {
        assert!(super::NAMES.known.is_sorted());
    }
}
