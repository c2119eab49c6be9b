//! What an exchange is told and what it asks for. Bodies and tokens never show in `Debug`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;

use super::{Headers, Laps, Rules, TraceParent};
use crate::{
    approval::{Approval, Asked, Claimed, Id, State, Use},
    audit::{Durability, record::Entry, seal::Frame},
    identity::{Certificate, Presented, Principal, TokenError},
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
    /// It was checked who is calling.
    Authenticated(Result<Arc<Principal>, TokenError>),
    /// The approval is in the control log: this one, or that of the same request asked for before.
    Asked(Result<Arc<Approval>, NotAsked>),
    /// The approval was decided, or the time to wait for it is over.
    Held(Held),
    /// This use of the caller's grant, by its number, is this exchange's; or it is not.
    Used(Result<u32, NotUsed>),
    /// The approval is this exchange's to use, once; or it is not.
    Claimed(Result<Arc<Approval>, NotClaimed>),
    /// The records of an [`Output::Record`] are durable, or could not be made so (with a stable code).
    Recorded(Result<(), &'static str>),
    /// [`RECORD_EVERY`](super::RECORD_EVERY) has passed.
    Tick,
    /// Envoy ended the stream: the caller or the upstream is gone, or all is done.
    Gone,
    /// The gateway's time to drain is over.
    Shutdown,
}

/// Why an approval could not be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// As many are pending as may be.
    TooMany,
    /// The control log takes none now; a stable code.
    Unavailable(&'static str),
}

/// What came of waiting for an approval.
pub enum Held {
    /// It was given. What was true when it was asked for may not be now: the rules in force and the caller's token, checked again.
    Approved {
        /// The approval.
        approval: Arc<Approval>,
        /// The rules in force now.
        rules: Arc<Rules>,
        /// The caller now.
        principal: Result<Arc<Principal>, TokenError>,
        /// Now, by the wall clock.
        now: Timestamp,
    },
    /// It never will be given, or is used.
    Over(Arc<Approval>, State),
    /// It is not decided yet.
    Pending(Arc<Approval>),
    /// The gateway is about to stop.
    Draining(Arc<Approval>),
    /// The control log cannot be followed now; a stable code.
    Unavailable(&'static str),
}

impl Held {
    /// What came of it: `approved`, the state of the approval, `pending`, `draining`, or a stable code.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approved { .. } => "approved",
            Self::Over(_, state) => state.name(),
            Self::Pending(_) => "pending",
            Self::Draining(_) => "draining",
            Self::Unavailable(code) => code,
        }
    }
}

/// Why a grant could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUsed {
    /// It was used as often as it may be, or its time is over.
    Over,
    /// It was revoked.
    Revoked,
    /// So many of the caller's grants are remembered that no further one is used for the first time.
    TooMany,
    /// The control log did not say.
    Unavailable,
}

/// Why an approval could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotClaimed {
    /// It is in this state.
    Over(State),
    /// The control log did not say; a stable code.
    Unavailable(&'static str),
}

/// What a caller whose request needs an approval is told of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket {
    /// The approval, once it is known.
    pub(super) id: Option<Id>,
    /// Whether they would rather have a 202 than an error.
    pub(super) respond_async: bool,
}

/// What should happen, in order.
#[derive(Debug)]
pub enum Output {
    /// Check who this shows to be calling and answer with [`Input::Authenticated`].
    Authenticate(Box<Presented>),
    /// Ask for this approval and answer with [`Input::Asked`].
    Ask(Box<Asked>),
    /// Wait for the approval, at most so long, and answer with [`Input::Held`]; where it is given, with the caller checked again.
    Hold(Id, Box<Presented>, Duration),
    /// Take this use of a grant and answer with [`Input::Used`].
    Use(Use),
    /// Claim the approval and answer with [`Input::Claimed`].
    Claim(Claimed),
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
    /// The answer's trailers, changed so.
    ResponseTrailers(Mutation),
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
    /// The body; of gRPC's answers the message.
    pub body: Bytes,
    /// The status code of gRPC's, to a caller who speaks that.
    pub grpc_status: Option<u8>,
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
    /// Where Envoy's own trace of the stream stands, as a W3C `traceparent`; empty where it makes none.
    pub traceparent: String,
    /// The certificate the caller's connection was authenticated by, of `connection.*`.
    pub certificate: Option<Certificate>,
}

/// What an exchange came to, for metrics, traces and the log. Holds names and numbers only; names that callers or upstreams chose are masked
/// as records have them.
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
    /// The caller's `iss` and `sub`, once they are known.
    pub caller: Option<(String, String)>,
    /// Values masked in the prompt, by entity.
    pub masked_request: BTreeMap<String, u64>,
    /// Values masked in the answer, by entity.
    pub masked_response: BTreeMap<String, u64>,
    /// Conditions that could not be evaluated, worded for the log.
    pub faults: Vec<String>,
    /// What policy said when it was asked first: `allow`, `deny` or `hold`; empty where it was not asked.
    pub verdict: &'static str,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// Where its spans belong.
    pub trace: Option<TraceParent>,
    /// What was called, once that is known.
    pub called: Option<Called>,
    /// What the answer said of itself.
    pub answered: Answered,
    /// Where its time went.
    pub laps: Laps,
}

/// What a request calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// The wire format.
    pub dialect: &'static str,
    /// The endpoint, as its dialect names it.
    pub endpoint: &'static str,
    /// The model, in the caller's words.
    pub model: String,
    /// Whether the answer is to be a stream.
    pub stream: bool,
}

/// What an answer said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The answer's id.
    pub id: String,
    /// The model that answered.
    pub model: String,
    /// Why each choice ended.
    pub finish_reasons: Vec<String>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
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
            Self::Asked(result) => f
                .debug_tuple("Asked")
                .field(&result.as_ref().map(|approval| &approval.asked.id))
                .finish(),
            Self::Held(held) => f.debug_tuple("Held").field(&held.name()).finish(),
            Self::Used(result) => f.debug_tuple("Used").field(result).finish(),
            Self::Claimed(result) => f
                .debug_tuple("Claimed")
                .field(&result.as_ref().map(|approval| &approval.asked.id))
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
            Self::ResponseTrailers(trailers) => {
                f.debug_tuple("ResponseTrailers").field(trailers).finish()
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
