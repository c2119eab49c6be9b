//! OpenAI's chat completions, as OpenAI and everyone who speaks its protocol serves them.
//!
//! Promises: each string of a request or answer is scanned unless [`request`] or [`answer`] names it as the protocol's
//! own word or as something that cannot be scanned (images, audio, files: said so in `unscanned`); a stream's text
//! leaves event by event and is masked as if it had been seen whole; what is of no known shape is an error.
//!
//! Can miss: a value spread over several messages, over several strings of tool call arguments, or over several
//! fields; text inside data URIs, audio and signed or encrypted blocks, which pass as they are.

mod answer;
mod error;
mod request;
mod stream;

use bytes::Bytes;

use super::{Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError, media_type};

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
        let Some(content_type) = content_type else {
            return Err(ShapeError::new(
                "missing_content_type",
                "the request has no content type".to_owned(),
            ));
        };
        if !media_type::is(content_type, "application/json") {
            let reason = "the request's content type is not application/json in utf-8";
            return Err(ShapeError::new(
                "unsupported_content_type",
                reason.to_owned(),
            ));
        }
        Ok(Box::new(request::Request::read(body)?))
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        known(endpoint)?;
        let bodiless = matches!(status, 100..200 | 204 | 205 | 304) || endpoint.method == "HEAD";
        match content_type {
            // An answer that says nothing of its body may have none.
            None => Ok(Box::new(answer::Empty::default())),
            Some(_) if bodiless => Ok(Box::new(answer::Empty::default())),
            Some(kind) if media_type::is(kind, "application/json") => {
                Ok(Box::new(answer::Whole::new(status)))
            }
            Some(kind) if media_type::is(kind, "text/event-stream") && status < 400 => {
                Ok(Box::new(stream::Stream::default()))
            }
            Some(_) => {
                let reason = "the answer's content type is neither application/json nor text/event-stream in utf-8";
                Err(ShapeError::new(
                    "unsupported_content_type",
                    reason.to_owned(),
                ))
            }
        }
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

fn unknown_shape(reason: &str) -> ShapeError {
    ShapeError::new("unknown_shape", reason.to_owned())
}
