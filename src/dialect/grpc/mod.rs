//! gRPC: messages behind a length each, then trailers that say how it went. One service is known, `kserve`; others are by a
//! schema of the user's own.
//!
//! ```text
//! request  -> frames -> messages by their descriptor -> texts masked, the rest as received
//! answer   -> frames -> the same, message by message
//! trailers -> how it went, as it came; what is said of it, masked
//! ```
//!
//! Promises: methods, fields, datatypes and encodings that are not known are refused. Policy decides on all messages of a
//! request, which all name one model. Each message of an answer is masked whole, whichever way the bytes were cut.
//!
//! Never decodes a compressed message; never lets the first message of a request go before the last has come, so a caller
//! who waits for an answer before saying more waits in vain.
//!
//! Can miss: a value spread over several elements of a tensor; text in a tensor of numbers (bytes as UINT8, ids of tokens).
//! Of a value spread over several messages of an answer all but the end leaves: the message with that does not.

mod answer;
mod kserve;
mod message;
mod request;
mod schema;
mod trailers;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

pub use self::schema::{
    Asked, Fault as SchemaFault, MAX_SCHEMA_BYTES, Part as SchemaPart, is_path, method,
};
pub(super) use self::trailers::{http_status, sentence, status};
use self::{
    answer::Answer,
    request::Request,
    schema::{Method, Schema},
};
use super::{
    Dialect, Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError, Spoken, TextFilter,
    Trailer,
    media_type::{is, unsupported},
    unknown_endpoint,
    whole::Empty,
};

/// A dialect that is gRPC.
#[derive(Clone, Debug)]
pub(super) enum Grpc {
    /// `kserve`: the Open Inference Protocol.
    Kserve,
    /// `grpc`: what a schema says. Without one there is no method.
    Own(Option<Schema>),
}

/// The dialect `grpc` by a descriptor set.
///
/// # Errors
/// Every fault of the set, and of what is asked of it.
pub fn by_schema(set: &[u8], asked: &Asked<'_>) -> Result<Spoken, Vec<SchemaFault>> {
    let schema = Schema::read(set, asked)?;
    Ok(Spoken::Own(Arc::new(Grpc::Own(Some(schema)))))
}

impl Grpc {
    fn method(&self, endpoint: &Endpoint) -> Result<Method, ShapeError> {
        let method = match self {
            Self::Kserve => kserve::method(endpoint),
            Self::Own(schema) => schema.as_ref().and_then(|schema| schema.method(endpoint)),
        };
        method.ok_or_else(unknown_endpoint)
    }
}

/// Whether that is a content type of gRPC's, of any codec.
pub(super) fn is_grpc(content_type: &str) -> bool {
    let essence = content_type.split([';', '+']).next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/grpc")
}

/// Whether messages are protobuf's.
fn is_protobuf(content_type: &str) -> bool {
    is(content_type, "application/grpc") || is(content_type, "application/grpc+proto")
}

impl Dialect for Grpc {
    fn name(&self) -> &'static str {
        match self {
            Self::Kserve => "kserve",
            Self::Own(_) => "grpc",
        }
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        match self {
            Self::Kserve => kserve::ENDPOINTS,
            // They are what the configuration names.
            Self::Own(_) => &[],
        }
    }

    fn read_request(
        &self,
        endpoint: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        let method = self.method(endpoint)?;
        match content_type {
            Some(kind) if is_protobuf(kind) => Ok(Box::new(Request::read(body, &method)?)),
            _ => Err(unsupported(
                "the request's content type is not application/grpc",
            )),
        }
    }

    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        let method = self.method(endpoint)?;
        match content_type {
            None => Ok(Box::new(Empty::default())),
            Some(kind) if status == 200 && is_protobuf(kind) => Ok(Box::new(Answer::new(method))),
            Some(_) => Err(unsupported(
                "the answer is not one of application/grpc with status 200",
            )),
        }
    }

    /// Of who does not speak gRPC: who does is told in trailers, by [`status`].
    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        ("text/plain; charset=utf-8", trailers::sentence(error))
    }

    /// Nothing: without its trailers an answer is an error to every client.
    fn error_event(&self, _: &ErrorShape<'_>) -> Bytes {
        Bytes::new()
    }

    /// Behind a whole message, of a method where both sides stream.
    fn may_wait(&self, endpoint: &Endpoint, begun: &[u8]) -> bool {
        let method = self.method(endpoint);
        method.is_ok_and(|method| method.asks_often && method.answers_often)
            && wire::is_between(begun)
    }

    fn trailer(&self, name: &str, value: &[u8], filter: &mut dyn TextFilter) -> Trailer {
        trailers::trailer(name, value, filter)
    }

    fn is_told_in_trailers(&self) -> bool {
        true
    }
}
