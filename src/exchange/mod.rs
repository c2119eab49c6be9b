//! One request and its answer: inputs in, outputs out, no IO and no clock.
//!
//! ```text
//!  request   AwaitingHeaders -> AwaitingIdentity -> AwaitingBody -> AwaitingOpened -> Forwarded
//!                    \_________________\_________________\___ AwaitingRefused -> refused
//!  response  AwaitingHeaders -> Expected -> Flowing -> (Draining) -> Ended
//! ```
//!
//! Promises: nothing is forwarded without a [`Permit`](crate::policy::Permit) and a durable `opened` record; every
//! `opened` is followed by exactly one `closed`; the terminal event and the end of the answer leave only once `closed` is
//! durable; every byte of text that leaves went through the maskers its verdict obliges to; a shape, an encoding or an
//! order of messages it does not know is refused. It never asks for two records at once, so records keep their order.
//!
//! What it can miss: text inside content no detector can look into, where the connection lets that pass; the record says so.

mod budget;
mod filter;
mod headers;
mod journal;
mod refusal;
mod request;
mod response;
mod route;
mod rules;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::SecretString;

pub use self::{
    budget::{Admission, Budget},
    headers::Headers,
    refusal::Refusal,
    route::{HostPattern, Route, Territory},
    rules::{CREDENTIAL_HEADERS, Connection, Credential, Limits, Rules, SESSION_HEADER},
};
use self::{journal::Journal, request::Request, response::Response};
use crate::{
    audit::{Durability, record::Entry},
    dialect::ErrorShape,
    identity::{Principal, TokenError},
};

/// How often [`Input::Tick`] is due while an answer streams: the longest a delivered piece waits to be recorded.
pub const RECORD_EVERY: Duration = Duration::from_millis(250);

/// What happened.
#[derive(Debug)]
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
    /// [`RECORD_EVERY`] has passed.
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
    /// Append these records and answer with [`Input::Recorded`] once all are durable. Never asked for twice at once.
    Record(Vec<Entry>, Durability),
    /// Tell Envoy.
    Answer(Answer),
    /// Both directions are over and Envoy has every answer: the gRPC stream may end well.
    Finished,
    /// The exchange cannot go on: the gRPC stream must end in an error, which cuts the client's stream.
    Abort(&'static str),
}

/// What Envoy is told.
#[derive(Debug)]
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
#[derive(Debug)]
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
    /// HTTP status the caller got, 0 where none.
    pub status: u16,
    /// Whether the caller was known when it was refused.
    pub authenticated: bool,
    /// Values masked in the prompt, by entity.
    pub masked_request: BTreeMap<String, u64>,
    /// Values masked in the answer, by entity.
    pub masked_response: BTreeMap<String, u64>,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    rules: Arc<Rules>,
    request: Request,
    response: Response,
    journal: Journal,
    share: budget::Share,
    summary: Summary,
    elapsed: Duration,
    /// What the record under way is for. INVARIANT: one at a time, so that the order asked for is the order written.
    step: Option<Step>,
    /// How the exchange ends, once that is known; the first to know wins.
    ending: Option<Ending>,
    over: bool,
}

/// What a record under way is for.
#[derive(Debug)]
enum Step {
    Opened,
    Refused(Refusal),
    Delivered,
    Closed,
}

/// How an opened exchange ends.
#[derive(Debug)]
enum Ending {
    /// The answer came whole.
    Complete,
    /// The answer is refused.
    Refuse(Refusal),
    /// The stream was cut: `closed` is written and nobody is told.
    Cut {
        outcome: &'static str,
        code: &'static str,
    },
}

impl Exchange {
    /// An exchange under `rules`, known by `session`.
    #[must_use]
    pub fn new(rules: Arc<Rules>, session: String) -> Self {
        let share = rules.budget.share();
        Self {
            rules,
            request: Request::AwaitingHeaders,
            response: Response::AwaitingHeaders,
            journal: Journal::new(session),
            share,
            summary: Summary::default(),
            elapsed: Duration::ZERO,
            step: None,
            ending: None,
            over: false,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> &str {
        self.journal.session()
    }

    /// What it came to so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Whether [`Input::Tick`] is wanted.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        matches!(self.response, Response::Flowing(_)) && self.ending.is_none() && !self.over
    }

    /// Takes what happened, `elapsed` after the exchange began, and says what should happen. Once [`Output::Finished`] or
    /// [`Output::Abort`] was said, nothing more will be.
    pub fn handle(&mut self, elapsed: Duration, input: Input, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        self.elapsed = elapsed;
        match input {
            Input::RequestHeaders(headers, attributes, end) => {
                self.on_request_headers(&headers, attributes, end, out)
            }
            Input::RequestBody(bytes, end) => self.on_request_body(&bytes, end, out),
            Input::RequestTrailers => self.on_request_trailers(out),
            Input::Authenticated(result) => self.on_authenticated(result, out),
            Input::ResponseHeaders(headers, end) => self.on_response_headers(&headers, end, out),
            Input::ResponseBody(bytes, end) => self.on_response_body(&bytes, end, out),
            Input::ResponseTrailers(trailers) => self.on_response_trailers(&trailers, out),
            Input::Recorded(result) => self.on_recorded(result, out),
            Input::Tick => self.record_delivered(out),
            Input::Gone => self.end(
                Ending::Cut {
                    outcome: "cut_short",
                    code: "stream_ended",
                },
                out,
            ),
            Input::Shutdown => self.on_shutdown(out),
        }
    }

    /// Asks for `entries` to be made durable.
    fn record(&mut self, step: Step, entries: Vec<Entry>, out: &mut Vec<Output>) {
        debug_assert!(self.step.is_none(), "two records asked for at once");
        self.step = Some(step);
        out.push(Output::Record(entries, self.journal.durability()));
    }

    fn on_recorded(&mut self, result: Result<(), &'static str>, out: &mut Vec<Output>) {
        match (self.step.take(), result) {
            (Some(Step::Opened), Ok(())) => self.on_opened(out),
            (Some(Step::Refused(refusal)), Ok(())) => self.tell(&refusal, out),
            (Some(Step::Delivered), Ok(())) => self.on_delivered(out),
            (Some(Step::Closed), Ok(())) => self.on_closed(out),
            // A crash after this line leaves an `opened` or `refused` that may or may not be on disk: recovery closes it.
            (Some(Step::Opened | Step::Refused(_)), Err(code)) => {
                self.tell(&Refusal::AuditUnavailable(code), out)
            }
            (Some(Step::Delivered | Step::Closed), Err(code)) => {
                self.tell_late(&Refusal::AuditUnavailable(code), out)
            }
            (None, _) => self.abort("internal", "record_not_asked_for", out),
        }
    }

    /// The time to drain is over: what was not forwarded yet is told so, what was is cut.
    fn on_shutdown(&mut self, out: &mut Vec<Output>) {
        if self.step.is_none() && !self.journal.is_open() {
            return self.tell(&Refusal::ShuttingDown, out);
        }
        self.end(
            Ending::Cut {
                outcome: "shutdown",
                code: "shutting_down",
            },
            out,
        );
    }

    /// Sets how the exchange ends and goes about it, at once or when the record under way is durable.
    fn end(&mut self, ending: Ending, out: &mut Vec<Output>) {
        if self.ending.is_none() {
            self.ending = Some(ending);
        }
        if self.step.is_none() {
            self.close(out);
        }
    }

    /// Writes `closed` for what was opened; what never was ends here.
    fn close(&mut self, out: &mut Vec<Output>) {
        let (outcome, code) = match &self.ending {
            Some(Ending::Complete) if self.summary.status >= 400 => ("upstream_error", ""),
            Some(Ending::Complete) | None => ("completed", ""),
            Some(Ending::Refuse(refusal)) => ("refused_response", refusal.code()),
            Some(Ending::Cut { outcome, code }) => (*outcome, *code),
        };
        if !self.journal.is_open() {
            return self.abort(outcome, code, out);
        }
        self.conclude(outcome, code);
        self.count_last();
        let elapsed = self.elapsed_ms();
        let last = self.journal.close(
            outcome,
            code,
            self.summary.status,
            elapsed,
            &mut self.response,
        );
        self.record(Step::Closed, last, out);
    }

    /// The `closed` record is durable: what it allows now happens.
    fn on_closed(&mut self, out: &mut Vec<Output>) {
        self.journal.mark_closed();
        self.summary.masked_response = self.journal.masked_response();
        match self.ending.take() {
            Some(Ending::Complete) | None => self.release(out),
            Some(Ending::Refuse(refusal)) => self.tell_late(&refusal, out),
            Some(Ending::Cut { outcome, code }) => self.abort(outcome, code, out),
        }
    }

    /// Tells the caller of a refusal as well as the answer's state still allows: in the model's stead while its head is
    /// withheld, else as a last event, after which the stream is cut so that no client takes it for whole.
    fn tell_late(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        if !self.response.head_is_out() {
            return self.tell(refusal, out);
        }
        if let Some(connection) = self.journal.connection() {
            let message = refusal.message();
            let shape = ErrorShape {
                status: refusal.status(),
                code: refusal.code(),
                message: &message,
            };
            out.push(Output::Answer(Answer::ResponseBody(
                connection.dialect.error_event(&shape),
                false,
            )));
        }
        self.abort("refused_response", refusal.code(), out);
    }

    /// Answers the caller with `refusal` in the model's stead and ends well: Envoy acts on it and closes the stream.
    fn tell(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        let message = refusal.message();
        let shape = ErrorShape {
            status: refusal.status(),
            code: refusal.code(),
            message: &message,
        };
        let (content_type, body) = match self.journal.connection() {
            Some(connection) => connection.dialect.error(&shape),
            None => crate::dialect::plain_error(&shape),
        };
        let mut headers = self.marks();
        headers.push(("content-type".into(), content_type.to_owned().into()));
        headers.extend(
            refusal
                .challenge()
                .map(|challenge| ("www-authenticate".into(), challenge.into())),
        );
        headers.extend(
            refusal
                .retry_after()
                .map(|seconds| ("retry-after".into(), seconds.to_string().into())),
        );
        self.conclude("refused", refusal.code());
        self.summary.status = refusal.status();
        let immediate = Immediate {
            status: refusal.status(),
            headers,
            body,
            code: refusal.code(),
        };
        out.push(Output::Answer(Answer::Immediate(immediate)));
        self.finish(out);
    }

    fn abort(&mut self, outcome: &'static str, code: &'static str, out: &mut Vec<Output>) {
        self.conclude(outcome, code);
        self.over = true;
        out.push(Output::Abort(code));
    }

    fn finish(&mut self, out: &mut Vec<Output>) {
        self.over = true;
        out.push(Output::Finished);
    }

    fn conclude(&mut self, outcome: &'static str, code: &'static str) {
        if self.summary.outcome.is_empty() {
            self.summary.outcome = outcome;
            self.summary.code = code;
        }
    }

    /// Fields every answer of ours carries.
    fn marks(&self) -> Vec<(String, SecretString)> {
        vec![(SESSION_HEADER.to_owned(), self.session().to_owned().into())]
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.elapsed.as_millis()).unwrap_or(u32::MAX)
    }
}
