//! OpenAI's chat completions, legacy completions, embeddings and responses, as OpenAI and everyone who speaks its
//! protocol serves them.
//!
//! Promises: each string of a request or answer is scanned unless the endpoint's module names it as the protocol's own
//! word or as something that cannot be scanned (images, audio, files, tokens: said so in `unscanned`); a stream's text
//! leaves event by event and is masked as if it had been seen whole; what is of no known shape is an error.
//!
//! Can miss: a value spread over several messages, over several strings of tool call arguments, or over several
//! fields; text inside data URIs, audio and signed or encrypted blocks, which pass as they are; what a request only
//! refers to (`previous_response_id`, a stored prompt).

mod answer;
mod chat;
mod completions;
mod error;
mod request;
mod responses;

use bytes::Bytes;

use super::{
    Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError,
    framing::Framing,
    media_type::{AnswerKind, EVENTS, answer_kind, json_request, reader},
    request::Request,
    stream::unknown_shape,
    unknown_endpoint,
    whole::{Empty, Whole},
};

const CHAT_COMPLETIONS: Endpoint = Endpoint {
    name: "chat_completions",
    method: "POST",
    path: "/chat/completions",
};

const COMPLETIONS: Endpoint = Endpoint {
    name: "completions",
    method: "POST",
    path: "/completions",
};
const EMBEDDINGS: Endpoint = Endpoint {
    name: "embeddings",
    method: "POST",
    path: "/embeddings",
};
const RESPONSES: Endpoint = Endpoint {
    name: "responses",
    method: "POST",
    path: "/responses",
};

/// The dialect `openai`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenAi;

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES]
    }

    fn read_request(
        &self,
        endpoint: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        json_request(content_type)?;
        match *endpoint {
            CHAT_COMPLETIONS => Request::read(body, &request::ChatRequest, request::asked),
            COMPLETIONS => Request::read(
                body,
                &completions::Shape::Request,
                completions::completion_asked,
            ),
            EMBEDDINGS => Request::read(
                body,
                &completions::Shape::Request,
                completions::embedding_asked,
            ),
            RESPONSES => Request::read(body, &responses::Shape::Request, responses::asked),
            _ => Err(unknown_endpoint()),
        }
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        let kind = answer_kind(
            status,
            content_type,
            (*endpoint != EMBEDDINGS).then_some(EVENTS),
        )?;
        let events = Framing::events();
        match *endpoint {
            CHAT_COMPLETIONS => Ok(reader(kind, status, chat::Chunks::of(&chat::CHAT), events)),
            COMPLETIONS => Ok(reader(
                kind,
                status,
                chat::Chunks::of(&completions::LEGACY),
                events,
            )),
            EMBEDDINGS if kind == AnswerKind::Json => {
                Ok(Box::new(Whole::new(completions::Embeddings, status)))
            }
            EMBEDDINGS => Ok(Box::new(Empty::default())),
            RESPONSES => Ok(reader(
                kind,
                status,
                responses::Responses::default(),
                events,
            )),
            _ => Err(unknown_endpoint()),
        }
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("application/json", Bytes::from(error::document(error)))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        Bytes::from(format!("data: {}\n\n", error::document(error)))
    }
}
