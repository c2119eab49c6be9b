//! What an exchange is told and what it asks for. Bodies and tokens never show in `Debug`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use secrecy::SecretString;

use super::Headers;
use crate::{
    audit::{Durability, record::Entry, seal::Frame},
    identity::{Principal, TokenError},
};

/// What happened.
pub enum Input {
    /// The request's head, with Envoy's attributes, and whether the request ends with it.
    RequestHeaders(Headers, Attributes, bool),
    /// A piece of the request's body, and whether the request ends with it.
    RequestBody(Bytes, bool),
    /// The request ended in trailers.
    RequestTrailers,
    /// The answer's head, and whether the answer ends with it.
    ResponseHeaders(Headers, bool),
    /// A piece of the answer's body, and whether the answer ends with it.
    ResponseBody(Bytes, bool),
    /// The answer ended in trailers.
    ResponseTrailers(Headers),
    /// The token was checked.
    Authenticated(Result<Arc<Principal>, TokenError>),
    /// The records of an [`Output::Record`] are durable, or could not be made so (with a stable code).
    Recorded(Result<(), &'static str>),
    /// [`RECORD_EVERY`](super::RECORD_EVERY) has passed.
    Tick,
    /// Envoy ended the stream: the caller or the upstream is gone, or all is done.
    Gone,
    /// The gateway's time to drain is over.
    Shutdown,
}

/// What should happen, in order.
#[derive(Debug)]
pub enum Output {
    /// Check this token and answer with [`Input::Authenticated`].
    Authenticate(SecretString),
    /// Keep these sealed frames beside the log, then append these records, and answer with [`Input::Recorded`] once all are durable.
    /// Never asked for twice at once.
    Record(Vec<Entry>, Vec<Frame>, Durability),
    /// Tell Envoy.
    Answer(Answer),
    /// Both directions are over and Envoy has every answer: the gRPC stream may end well.
    Finished,
    /// The exchange cannot go on: the gRPC stream must end in an error, which cuts the client's stream.
    Abort(&'static str),
}

impl Output {
    /// Bytes of a body that wait for Envoy to read them.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Answer(Answer::RequestBody(bytes, _) | Answer::ResponseBody(bytes, _)) => {
                bytes.len()
            }
            _ => 0,
        }
    }
}

/// What Envoy is told.
pub enum Answer {
    /// Forward the request's head, changed so; the body follows. Carries the permit that Envoy's request guard asks for.
    RequestHeaders(Mutation),
    /// The next piece of the request's body, and whether it is the last.
    RequestBody(Bytes, bool),
    /// Let the answer's head out, changed so. Carries the release that Envoy's response guard asks for.
    ResponseHeaders(Mutation),
    /// The next piece of the answer's body, and whether it is the last.
    ResponseBody(Bytes, bool),
    /// The answer's trailers, without those named.
    ResponseTrailers(Vec<String>),
    /// Answer the caller in the model's stead.
    Immediate(Immediate),
}

/// Changes to a message's head.
#[derive(Debug, Default)]
pub struct Mutation {
    /// Fields set, replacing what stood there.
    pub set: Vec<(String, SecretString)>,
    /// Fields removed.
    pub remove: Vec<String>,
}

/// An answer of our own.
pub struct Immediate {
    /// HTTP status.
    pub status: u16,
    /// Fields to set.
    pub headers: Vec<(String, SecretString)>,
    /// The body.
    pub body: Bytes,
    /// Stable code, for Envoy's access log.
    pub code: &'static str,
}

/// What Envoy knows of the request besides its head.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// `xds.route_name`.
    pub route: String,
    /// `xds.cluster_name`.
    pub cluster: String,
    /// `source.address`.
    pub source_address: String,
}

/// What an exchange came to, for metrics and the log. Holds names and numbers only.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The connection, empty where none was found.
    pub connection: String,
    /// `completed`, or as in the `closed` record, or `refused`.
    pub outcome: &'static str,
    /// Stable code of a refusal or failure, else empty.
    pub code: &'static str,
    /// HTTP status the caller was given, 0 where none.
    pub status: u16,
    /// Whether the caller was known when it was refused.
    pub authenticated: bool,
    /// Values masked in the prompt, by entity.
    pub masked_request: BTreeMap<String, u64>,
    /// Values masked in the answer, by entity.
    pub masked_response: BTreeMap<String, u64>,
    /// Conditions that could not be evaluated, worded for the log.
    pub faults: Vec<String>,
}

/// A body's length in place of the body.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = |f: &mut fmt::Formatter<'_>, name, bytes: &Bytes, end: bool| {
            f.debug_tuple(name)
                .field(&Length(bytes.len()))
                .field(&end)
                .finish()
        };
        match self {
            Self::RequestHeaders(headers, _, end) => f
                .debug_tuple("RequestHeaders")
                .field(headers)
                .field(end)
                .finish(),
            Self::RequestBody(bytes, end) => body(f, "RequestBody", bytes, *end),
            Self::RequestTrailers => f.write_str("RequestTrailers"),
            Self::ResponseHeaders(headers, end) => f
                .debug_tuple("ResponseHeaders")
                .field(headers)
                .field(end)
                .finish(),
            Self::ResponseBody(bytes, end) => body(f, "ResponseBody", bytes, *end),
            Self::ResponseTrailers(headers) => {
                f.debug_tuple("ResponseTrailers").field(headers).finish()
            }
            Self::Authenticated(result) => f
                .debug_tuple("Authenticated")
                .field(&result.as_ref().map(drop))
                .finish(),
            Self::Recorded(result) => f.debug_tuple("Recorded").field(result).finish(),
            Self::Tick => f.write_str("Tick"),
            Self::Gone => f.write_str("Gone"),
            Self::Shutdown => f.write_str("Shutdown"),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = |f: &mut fmt::Formatter<'_>, name, bytes: &Bytes, end: bool| {
            f.debug_tuple(name)
                .field(&Length(bytes.len()))
                .field(&end)
                .finish()
        };
        match self {
            Self::RequestHeaders(head) => f.debug_tuple("RequestHeaders").field(head).finish(),
            Self::RequestBody(bytes, end) => body(f, "RequestBody", bytes, *end),
            Self::ResponseHeaders(head) => f.debug_tuple("ResponseHeaders").field(head).finish(),
            Self::ResponseBody(bytes, end) => body(f, "ResponseBody", bytes, *end),
            Self::ResponseTrailers(names) => {
                f.debug_tuple("ResponseTrailers").field(names).finish()
            }
            Self::Immediate(immediate) => f.debug_tuple("Immediate").field(immediate).finish(),
        }
    }
}

impl fmt::Debug for Immediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Immediate")
            .field("status", &self.status)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}
