//! Google's Gemini: `generateContent`, and `streamGenerateContent` as events or as one array.
//!
//! Promises: each string of a request or answer is scanned unless [`fields`] names it as the protocol's own word or as
//! something that cannot be scanned; a stream's text leaves event by event and is masked as if it had been seen whole.
//! The model stands in the path; a body that names another one is refused.
//!
//! A stream has no terminal event: each event that says why a candidate ended waits for the next one, and the last of
//! all leaves only once the session is closed. An array ends with its bracket. Thought signatures pass as they are:
//! they are the model's own state and sign no text beside them.
//!
//! Can miss: a value spread over several contents or several arguments of a function call; text inside media; what is
//! in cached content.

mod fields;
mod names;

use bytes::Bytes;

use self::fields::{Shape, candidates, either, index};
use super::{
    Channel, Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError, TextFilter,
    framing::{Carrier, Framing},
    json::{Document, Kind, quoted},
    media_type::{AnswerKind, EVENTS, answer_kind, json_request, reader},
    notes::{self, Notes},
    request::Request,
    stream::{Ends, Event, Protocol, unknown_shape},
    texts::Fields,
    unknown_endpoint,
    whole::Answers,
};

const GENERATE: Endpoint = Endpoint {
    name: "generate_content",
    method: "POST",
    path: "/models/{model}:generateContent",
};
const STREAM: Endpoint = Endpoint {
    name: "stream_generate_content",
    method: "POST",
    path: "/models/{model}:streamGenerateContent",
};

/// The dialect `gemini`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gemini;

impl Dialect for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[GENERATE, STREAM]
    }

    fn read_request(
        &self,
        endpoint: &Endpoint,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        json_request(content_type)?;
        let model = endpoint.model(path).ok_or_else(unknown_endpoint)?;
        Request::read(body, &Shape::Request, |document| {
            fields::asked(document, model, *endpoint == STREAM)
        })
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        let streams = *endpoint == STREAM;
        let kind = answer_kind(status, content_type, streams.then_some(EVENTS))?;
        // A stream that was not asked for as events is one array.
        let in_array = streams && kind == AnswerKind::Json && status < 400;
        let contents = Contents {
            in_array,
            ..Contents::default()
        };
        Ok(match in_array {
            true => reader(AnswerKind::Stream, status, contents, Framing::elements()),
            false => reader(kind, status, contents, Framing::events()),
        })
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("application/json", Bytes::from(document(error)))
    }

    /// In an array this is no element: the array breaks off with it, and a client sees that it was not whole.
    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        Bytes::from(format!("data: {}\n\n", document(error)))
    }
}

/// The error document (google.rpc.Status as the SDKs read it), with our code as the reason.
fn document(error: &ErrorShape<'_>) -> String {
    let status = match error.status {
        400 | 413 | 415 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    };
    format!(
        r#"{{"error":{{"code":{},"message":{},"status":"{status}","details":[{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{}}}]}}}}"#,
        error.status,
        quoted(error.message),
        quoted(error.code),
    )
}

/// Answers to contents.
#[derive(Debug, Default)]
struct Contents {
    /// The stream is one array, whose bracket ends it.
    in_array: bool,
    /// What an answer of ours ends with, from the last one that came.
    foot: String,
}

fn is_error(document: &Document<'_>) -> bool {
    let error = document.member(&document.root, "error");
    error.is_some_and(|error| !matches!(error.kind, Kind::Null)) && candidates(document).is_empty()
}

/// Whether the document is an answer: one that was blocked, or that tells of its cost only, has no candidates.
fn is_answer(document: &Document<'_>) -> bool {
    let root = &document.root;
    document.member(root, "candidates").is_some()
        || either(document, root, "promptFeedback", "prompt_feedback").is_some()
        || either(document, root, "usageMetadata", "usage_metadata").is_some()
}

impl Answers for Contents {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        // An error of a stream is an array with the error in it.
        if status >= 400 {
            return Ok(&Shape::Error);
        }
        if !matches!(document.root.kind, Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if is_error(document) {
            return Ok(&Shape::Error);
        }
        if is_answer(document) {
            return Ok(&Shape::Answer);
        }
        Err(unknown_shape("the answer has no candidates"))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        let root = &document.root;
        let member = |camel, snake| either(document, root, camel, snake);
        let id = notes::word(document, member("responseId", "response_id"), filter);
        notes.id(id);
        let model = notes::word(document, member("modelVersion", "model_version"), filter);
        notes.model(model);
        if let Some(usage) = member("usageMetadata", "usage_metadata") {
            let tokens = |camel, snake| document.integer(either(document, usage, camel, snake)?);
            notes.input_tokens(tokens("promptTokenCount", "prompt_token_count"));
            notes.output_tokens(tokens("candidatesTokenCount", "candidates_token_count"));
        }
        for candidate in candidates(document) {
            let reason = either(document, candidate, "finishReason", "finish_reason");
            if let (Some(reason), Ok(index)) = (reason, index(document, candidate)) {
                notes.reason(index, notes::word(document, Some(reason), filter));
            }
        }
    }
}

impl Protocol for Contents {
    const GOES_ON: bool = true;

    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        if is_error(document) {
            return Ok(Event::of(&Shape::Error));
        }
        if !is_answer(document) {
            return Err(unknown_shape("an event has no candidates"));
        }
        let mut event = Event::of(&Shape::Event);
        for candidate in candidates(document) {
            let reason = either(document, candidate, "finishReason", "finish_reason");
            let reason = reason.and_then(|reason| document.string(reason));
            if reason.is_some_and(|said| !matches!(&*said, "" | "FINISH_REASON_UNSPECIFIED")) {
                // The last text may come behind the reason why it ended.
                event
                    .may_end
                    .push(Ends::Choice(index(document, candidate)?));
            }
        }
        let blocked = either(
            document,
            &document.root,
            "promptFeedback",
            "prompt_feedback",
        )
        .and_then(|feedback| either(document, feedback, "blockReason", "block_reason"));
        event.terminal = !self.in_array && (!event.may_end.is_empty() || blocked.is_some());
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        Answers::note(self, document, notes, filter);
        let root = &document.root;
        let member = |name: &'static str, value| {
            let word = notes::word(document, value, filter)?;
            Some(format!(",\"{name}\":{}", quoted(&word)))
        };
        let said = [
            (
                "modelVersion",
                either(document, root, "modelVersion", "model_version"),
            ),
            (
                "responseId",
                either(document, root, "responseId", "response_id"),
            ),
        ];
        let mut member = member;
        self.foot = said
            .into_iter()
            .filter_map(|(name, value)| member(name, value))
            .collect();
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let thought = if channel.field == "thought" {
            r#","thought":true"#
        } else {
            ""
        };
        Carrier {
            event: None,
            data: format!(
                r#"{{"candidates":[{{"content":{{"parts":[{{"text":{}{thought}}}],"role":"model"}},"index":{}}}]{}}}"#,
                quoted(text),
                channel.choice,
                self.foot
            ),
        }
    }
}
