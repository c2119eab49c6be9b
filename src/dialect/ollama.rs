//! Ollama's own API: chat, generate and embed, with answers as NDJSON.
//!
//! Promises: each string of a request or answer is scanned unless it is the protocol's own word or an image; a stream's
//! text leaves line by line and is masked as if it had been seen whole, what was held with the line that says `done`.
//! `context` is the conversation as tokens: blanked in an answer that is masked, `unscanned` in a request.
//!
//! Can miss: a value spread over several messages or several strings of a tool call's arguments; text in images.

use bytes::Bytes;

use super::{
    Channel, Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError, TextFilter,
    framing::{Carrier, Framing},
    json::{Document, Kind, Value, quoted},
    media_type::{LINES, answer_kind, json_request, reader},
    notes::{self, Notes},
    request::{Asked, Request, lists, model, stream},
    stream::{Ends, Event, Protocol, unknown_shape},
    texts::{Class, Fields, Names, Path, SCHEMA, is_schema_type},
    unknown_endpoint,
    whole::Answers,
};

const CHAT: Endpoint = Endpoint {
    name: "chat",
    method: "POST",
    path: "/api/chat",
};
const GENERATE: Endpoint = Endpoint {
    name: "generate",
    method: "POST",
    path: "/api/generate",
};
const EMBED: Endpoint = Endpoint {
    name: "embed",
    method: "POST",
    path: "/api/embed",
};

/// The dialect `ollama`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ollama;

impl Dialect for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[CHAT, GENERATE, EMBED]
    }

    fn read_request(
        &self,
        endpoint: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        json_request(content_type)?;
        let text = match *endpoint {
            CHAT => "messages",
            GENERATE => "prompt",
            EMBED => "input",
            _ => return Err(unknown_endpoint()),
        };
        Request::read(body, &Shape::Request, |document| {
            asked(document, text, *endpoint != EMBED)
        })
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        let stream = (*endpoint != EMBED).then_some(LINES);
        let kind = answer_kind(status, content_type, stream)?;
        let answers = Replies::default();
        Ok(reader(kind, status, answers, Framing::lines()))
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("application/json", Bytes::from(document(error)))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        Bytes::from(format!("{}\n", document(error)))
    }
}

fn document(error: &ErrorShape<'_>) -> String {
    format!(
        r#"{{"error":{},"code":{}}}"#,
        quoted(error.message),
        quoted(error.code)
    )
}

/// What is asked for. A generation without a prompt only loads the model.
fn asked(document: &Document<'_>, text: &str, streams: bool) -> Result<Asked, ShapeError> {
    if !matches!(document.root.kind, Kind::Object(_)) {
        return Err(unknown_shape("the request is not an object"));
    }
    let asked = Asked {
        model: model(document)?,
        stream: stream(document, streams)?,
        tools: lists(document, "tools"),
    };
    if text != "prompt" && document.member(&document.root, text).is_none() {
        return Err(unknown_shape("the request has no text"));
    }
    Ok(asked)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Request,
    Answer,
    Event,
    Error,
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        if path.keys.contains(&"parameters") || path.keys.contains(&"format") {
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
        expect(*self, path, value)?;
        let text = document.string(value);
        let request = *self == Self::Request;
        Ok(match path.keys.as_slice() {
            ["model"] if request => Class::Protocol,
            _ if path.keys.contains(&"arguments") => Class::Values,
            [.., "type"] if text.as_deref().is_some_and(is_schema_type) => Class::Protocol,
            _ if NAMES.is_free(path) => Class::Text,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            [.., "images"] => Class::Opaque("image"),
            ["context"] if request => Class::Opaque("token_ids"),
            ["context"] => Class::Echo,
            ["logprobs"] if !request => Class::Echo,
            ["response" | "thinking"] | ["message", "content" | "thinking"]
                if *self == Self::Event =>
            {
                Class::Piece
            }
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, _: &Document<'_>) -> Result<Channel, ShapeError> {
        let field = path.dotted();
        Ok(Channel {
            choice: 0,
            field: field
                .strip_prefix("message.")
                .map_or_else(|| field.clone(), str::to_owned),
        })
    }
}

/// The shapes without which we would not know where the text is.
fn expect(shape: Shape, path: &Path<'_>, value: &Value) -> Result<(), ShapeError> {
    let fault = match (shape, path.keys.as_slice(), &value.kind) {
        (Shape::Request, ["messages"], Kind::Array(_))
        | (Shape::Request, ["messages", "*"], Kind::Object(_)) => None,
        (Shape::Request, ["messages"] | ["messages", "*"], _) => {
            Some("`messages` is not an array of messages")
        }
        (
            Shape::Request,
            ["messages", "*", "content"] | ["prompt" | "system" | "template" | "suffix"],
            Kind::String { .. } | Kind::Null,
        ) => None,
        (
            Shape::Request,
            ["messages", "*", "content"] | ["prompt" | "system" | "template" | "suffix"],
            _,
        ) => Some("a text of the request is not a string"),
        (Shape::Answer | Shape::Event, ["message"], Kind::Object(_)) => None,
        (Shape::Answer | Shape::Event, ["message"], _) => Some("the answer's message is no object"),
        (
            Shape::Answer | Shape::Event,
            ["response" | "thinking"] | ["message", "content" | "thinking"],
            Kind::String { .. } | Kind::Null,
        ) => None,
        (
            Shape::Answer | Shape::Event,
            ["response" | "thinking"] | ["message", "content" | "thinking"],
            _,
        ) => Some("a piece of text is not a string"),
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// Answers to all endpoints: their shapes do not overlap.
#[derive(Debug, Default)]
struct Replies {
    /// What a line of ours begins with, from the last one that came.
    head: String,
    /// Whether the answer is to a generation and not to a chat.
    generation: bool,
}

fn has(document: &Document<'_>, name: &str) -> bool {
    let member = document.member(&document.root, name);
    member.is_some_and(|member| !matches!(member.kind, Kind::Null))
}

impl Answers for Replies {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        if !matches!(document.root.kind, Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if status >= 400 || has(document, "error") {
            return Ok(&Shape::Error);
        }
        if ["message", "response", "embeddings"]
            .iter()
            .any(|name| has(document, name))
        {
            return Ok(&Shape::Answer);
        }
        Err(unknown_shape(
            "the answer has neither a message nor a response",
        ))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        let root = &document.root;
        let mut word = |name| notes::word(document, document.member(root, name), filter);
        notes.model(word("model"));
        if has(document, "done_reason") {
            notes.reason(0, word("done_reason"));
        }
        let tokens = |name| document.integer(document.member(root, name)?);
        notes.input_tokens(tokens("prompt_eval_count"));
        notes.output_tokens(tokens("eval_count"));
    }
}

impl Protocol for Replies {
    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        if has(document, "error") {
            return Ok(Event::of(&Shape::Error));
        }
        if !has(document, "message") && !has(document, "response") {
            return Err(unknown_shape("a line has neither a message nor a response"));
        }
        let mut event = Event::of(&Shape::Event);
        let done = document.member(&document.root, "done");
        if done.is_some_and(|done| matches!(done.kind, Kind::Bool(true))) {
            event.ends.push(Ends::All);
            event.terminal = true;
        }
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        Answers::note(self, document, notes, filter);
        if has(document, "error") {
            return;
        }
        self.generation = has(document, "response");
        self.head = ["model", "created_at"]
            .iter()
            .filter_map(|name| {
                let value = document.member(&document.root, name);
                let word = notes::word(document, value, filter)?;
                Some(format!("\"{name}\":{},", quoted(&word)))
            })
            .collect();
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let text = quoted(text);
        let thinking = channel.field == "thinking";
        let said = match (self.generation, thinking) {
            (true, true) => format!(r#""response":"","thinking":{text}"#),
            (true, false) => format!(r#""response":{text}"#),
            (false, true) => {
                format!(r#""message":{{"role":"assistant","content":"","thinking":{text}}}"#)
            }
            (false, false) => format!(r#""message":{{"role":"assistant","content":{text}}}"#),
        };
        Carrier {
            event: None,
            data: format!("{{{}{said},\"done\":false}}", self.head),
        }
    }
}

const NAMES: Names = Names {
    free: &["arguments", "format", "options", "parameters"],
    words: &[
        "created_at",
        "done_reason",
        "id",
        "model",
        "remote_model",
        "role",
        "think",
        "tool_call_id",
        "type",
    ],
    known: &[
        "_debug_info",
        "_debug_render_only",
        "arguments",
        "bytes",
        "content",
        "context",
        "created_at",
        "description",
        "dimensions",
        "done",
        "done_reason",
        "embeddings",
        "error",
        "eval_count",
        "eval_duration",
        "format",
        "function",
        "id",
        "images",
        "index",
        "input",
        "items",
        "keep_alive",
        "load_duration",
        "logprob",
        "logprobs",
        "message",
        "messages",
        "model",
        "name",
        "options",
        "parameters",
        "prompt",
        "prompt_eval_count",
        "prompt_eval_duration",
        "raw",
        "remote_host",
        "remote_model",
        "response",
        "role",
        "shift",
        "stream",
        "suffix",
        "system",
        "template",
        "think",
        "thinking",
        "token",
        "tool_call_id",
        "tool_calls",
        "tool_name",
        "tools",
        "top_logprobs",
        "total_duration",
        "truncate",
        "type",
    ],
};

#[cfg(test)]
mod tests {
    #[test]
    fn names_stand_in_the_order_in_which_they_are_looked_for() {
        assert!(super::NAMES.known.is_sorted());
    }
}
