//! OpenAI's chat completions, as OpenAI and everyone who speaks its protocol serves them.
//!
//! Promises: each string of a request or answer is scanned unless [`request`] or [`answer`] names it as the protocol's
//! own word or as something that cannot be scanned (images, audio, files: said so in `unscanned`); a stream's text
//! leaves event by event and is masked as if it had been seen whole; what is of no known shape is an error.
//!
//! Can miss: a value spread over several messages, over several strings of tool call arguments, or over several
//! fields; text inside data URIs, audio and signed or encrypted blocks, which pass as they are.

mod answer;
mod chat;
mod error;
mod request;

use bytes::Bytes;

use super::{
    Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError,
    framing::Framing,
    media_type::{AnswerKind, answer_kind, json_request},
    request::Request,
    stream::{Stream, unknown_shape},
    whole::{Empty, Whole},
};

const CHAT_COMPLETIONS: Endpoint = Endpoint {
    name: "chat_completions",
    method: "POST",
    path: "/chat/completions",
};

/// The dialect `openai`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenAi;

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[CHAT_COMPLETIONS]
    }

    fn read_request(
        &self,
        endpoint: &Endpoint,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        known(endpoint)?;
        json_request(content_type)?;
        Request::read(body, &request::ChatRequest, request::asked)
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        known(endpoint)?;
        Ok(match answer_kind(status, content_type, true)? {
            AnswerKind::Empty => Box::new(Empty::default()),
            AnswerKind::Json => Box::new(Whole::new(chat::Chat::default(), status)),
            AnswerKind::EventStream => {
                Box::new(Stream::new(chat::Chat::default(), Framing::events()))
            }
        })
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("application/json", Bytes::from(error::document(error)))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        Bytes::from(format!("data: {}\n\n", error::document(error)))
    }
}

fn known(endpoint: &Endpoint) -> Result<(), ShapeError> {
    if endpoint.name == CHAT_COMPLETIONS.name {
        return Ok(());
    }
    Err(ShapeError::new(
        "unknown_endpoint",
        "the dialect does not know the endpoint".to_owned(),
    ))
}
