//! Anthropic's Messages.
//!
//! Promises: each string of a request or answer is scanned unless [`fields`] names it as the protocol's own word or as
//! something that cannot be scanned; a stream's text leaves event by event and is masked as if it had been seen whole.
//!
//! What is signed is never altered, because Anthropic refuses an altered block when it comes back. A `thinking` block
//! whose text holds nothing to mask passes as it is, with its signature; one that does is dropped whole, from a request
//! and from an answer. To know which, a stream's thinking is held until its block ends (8 MiB of it; a longer one is
//! dropped), and the blocks behind a dropped one move up by one. Where nothing is masked, thinking leaves as it comes.
//! `redacted_thinking` and other encrypted blocks pass as they are, and `unscanned` says so.
//!
//! Can miss: a value spread over several messages, several blocks of a stream, or several strings of a tool's input;
//! text inside images, documents in base64, and what is encrypted.

mod answer;
mod fields;
mod names;

use bytes::Bytes;

use super::{
    Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError,
    framing::Framing,
    json::quoted,
    media_type::{EVENTS, answer_kind, json_request, reader},
    request::Request,
    stream::unknown_shape,
};

const MESSAGES: Endpoint = Endpoint {
    name: "messages",
    method: "POST",
    path: "/messages",
};
const COUNT_TOKENS: Endpoint = Endpoint {
    name: "count_tokens",
    method: "POST",
    path: "/messages/count_tokens",
};

/// The dialect `anthropic`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anthropic;

impl Dialect for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[MESSAGES, COUNT_TOKENS]
    }

    fn read_request(
        &self,
        _: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        json_request(content_type)?;
        Request::read(body, &fields::Shape::Request, fields::asked)
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        let stream = (*endpoint == MESSAGES).then_some(EVENTS);
        let kind = answer_kind(status, content_type, stream)?;
        let answers = answer::Messages::default();
        Ok(reader(kind, status, answers, Framing::events()))
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("application/json", Bytes::from(document(error)))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        Bytes::from(format!("event: error\ndata: {}\n\n", document(error)))
    }
}

/// The error document. Its `type` is what the SDKs show beside the message; ours carries the stable code as well.
fn document(error: &ErrorShape<'_>) -> String {
    let kind = match error.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 | 503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    format!(
        r#"{{"type":"error","error":{{"type":"{kind}","message":{},"code":{}}}}}"#,
        quoted(error.message),
        quoted(error.code),
    )
}
