//! One request and its answer: inputs in, outputs out, no IO and no clock.
//!
//! ```text
//!  request   AwaitingHeaders -> AwaitingIdentity -> AwaitingBody ---------------------> AwaitingOpened -> Forwarded
//!                    \_________________\_____________|   \_ AwaitingTicket             /
//!                                                    |      AwaitingDecision          /
//!                                                    |      AwaitingUse, of a grant  /
//!                                                    |      AwaitingClaim __________/
//!                                                    \__________\_ refused
//!  response  AwaitingHeaders -> Expected -> Flowing -> (Draining) -> Ended
//! ```
//!
//! Promises: nothing is forwarded without a [`Permit`](crate::policy::Permit) and a durable `opened` record; every
//! `opened` is followed by exactly one `closed`; the terminal event and the end of the answer leave only once `closed` is
//! durable; every byte of text that leaves went through the maskers its verdict obliges to; a shape, an encoding or an
//! order of messages it does not know is refused. It never asks for two records at once, so records keep their order.
//!
//! What it can miss: text inside content no detector can look into, where the connection lets that pass; the record says so.

mod approval;
mod budget;
mod filter;
mod grant;
mod head;
mod headers;
mod journal;
mod lending;
mod messages;
mod phases;
mod prefer;
mod refusal;
mod request;
mod response;
mod route;
mod rules;
mod sealing;
mod tail;
mod trace;
mod upgrade;
mod view;

#[cfg(any(test, fuzzing))]
pub(crate) mod tests;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::tests::script::play;
pub use self::{
    approval::of_record,
    budget::{Admission, Budget},
    headers::Headers,
    lending::{Choice, Guard, Hidden, Lender, Lending, Lent},
    messages::{
        Answer, Answered, Attributes, Called, Held, Immediate, Input, Mutation, NotAsked,
        NotClaimed, NotUsed, Output, Summary,
    },
    phases::{Lap, Laps, Phase, Stopwatch},
    refusal::Refusal,
    request::{COPIES, identity as identity_of_record},
    route::{HostPattern, Route, Territory},
    rules::{
        Approvals, CREDENTIAL_HEADERS, Connection, Limits, Masking, Plans, Rules, SESSION_HEADER,
        Unscanned,
    },
    trace::TraceParent,
};
use self::{journal::Journal, messages::Ticket, request::Request, response::Response};
use crate::{
    audit::{Durability, record::Entry, seal::Seed},
    dialect::{self, ErrorShape, ShapeError},
};

/// How long a caller may be silent who may be waiting for an answer that cannot come yet. People think for longer, but programs
/// that send without waiting seldom do.
const SILENCE: Duration = Duration::from_secs(10);

/// How often [`Input::Tick`] is due: the longest a delivered piece of an answer waits to be recorded.
pub const RECORD_EVERY: Duration = Duration::from_millis(250);

/// The largest piece of a body sent to Envoy in one message, in bytes. What waits for Envoy to read it is counted in such
/// pieces, so they are small.
const PIECE: usize = 64 << 10;

/// One request and its answer.
pub struct Exchange {
    rules: Arc<Rules>,
    request: Request,
    response: Response,
    journal: Journal,
    share: budget::Share,
    /// Its part of what strangers share, for as long as it is not known who calls.
    strange: budget::Share,
    /// Bytes of the records under way.
    recording: usize,
    summary: Summary,
    elapsed: Duration,
    /// Tells the time within an input; `None` lets it stand still there.
    stopwatch: Option<Stopwatch>,
    /// The status of the upstream's answer, 0 where none came.
    answered: u16,
    /// When the caller was first proved.
    identified: Duration,
    /// When the last piece of the request's body came.
    heard: Duration,
    /// Whether the caller speaks gRPC, by the content type.
    grpc: bool,
    /// What the record under way is for. INVARIANT: one at a time, so that the order asked for is the order written.
    step: Option<Step>,
    /// How the exchange ends, once that is known.
    ending: Option<Ending>,
    /// What the caller is told of the approval that is needed.
    ticket: Option<Ticket>,
    /// The instant by the wall clock when the exchange began, or when it was released.
    now: Timestamp,
    /// Nobody waits for the rest any more: Envoy is gone, or our time is over.
    last_call: bool,
    /// Why nobody waits for an approval any more.
    unwanted: Option<Refusal>,
    over: bool,
}

/// Never a body, a path or a header.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("session", &self.session())
            .field("step", &self.step)
            .field("ending", &self.ending)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
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
    /// The answer is over.
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
    /// An exchange under `rules`, known by `session`, that begins at `now`. From `seed`, which must be random and this session's alone, comes what its
    /// payload is sealed with; without one, requests that would be sealed are refused.
    #[must_use]
    pub fn new(rules: Arc<Rules>, session: String, seed: Option<Seed>, now: Timestamp) -> Self {
        let (share, strange) = (rules.budget.share(), rules.strangers.share());
        Self {
            rules,
            request: Request::AwaitingHeaders,
            response: Response::AwaitingHeaders,
            journal: Journal::new(session, seed),
            share,
            strange,
            recording: 0,
            summary: Summary::default(),
            elapsed: Duration::ZERO,
            identified: Duration::ZERO,
            heard: Duration::ZERO,
            stopwatch: None,
            answered: 0,
            grpc: false,
            step: None,
            ending: None,
            ticket: None,
            now,
            last_call: false,
            unwanted: None,
            over: false,
        }
    }

    /// The same, with phases within one input told apart by `stopwatch`. It changes nothing of what happens.
    #[must_use]
    pub fn timed_by(mut self, stopwatch: Stopwatch) -> Self {
        self.stopwatch = Some(stopwatch);
        self
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

    /// Bytes of the answer that are held back.
    #[must_use]
    pub fn answer_held(&self) -> usize {
        self.response.held()
    }

    /// Whether more of Envoy's messages may be taken in. Not while what may leave waits for what left to be on record:
    /// then Envoy's flow control holds the upstream back, rather than our memory filling.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.step.is_none() || !self.response.waits_to_leave()
    }

    /// Whether [`Input::Tick`] is wanted.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        let flows = matches!(self.response, Response::Flowing(_))
            && self.response.head_is_out()
            && self.ending.is_none();
        let may_wait = self.grpc && self.is_asked();
        (flows || may_wait) && !self.over
    }

    /// Whether a known caller's request is still coming.
    fn is_asked(&self) -> bool {
        matches!(self.request, Request::AwaitingBody(..))
    }

    /// Who waits for an answer before saying all would wait in vain, since nothing goes upstream before: better told than
    /// left to wait. That they wait cannot be known, only that they said something whole, may wait and have long been silent.
    fn refuse_who_waits(&mut self, out: &mut Vec<Output>) {
        let silent = self.elapsed.saturating_sub(self.heard);
        if silent >= SILENCE && self.request.may_wait() {
            let reason = format!(
                "the sending side was not ended within {} seconds of the last message, and nothing is answered before",
                SILENCE.as_secs()
            );
            let code = "caller_waits";
            self.refuse(Refusal::Shape(ShapeError { code, reason }), None, out);
        }
    }

    /// What must still be recorded where the exchange is given up as it stands, as after a panic, while the ledger holds its `opened`
    /// and no `closed`: that it ended is all that is known.
    #[must_use]
    pub fn abandon(&self) -> (Vec<Entry>, Durability) {
        (vec![self.journal.unknown()], self.journal.durability())
    }

    /// Takes what happened, `elapsed` after the exchange began, and says what should happen. Once [`Output::Finished`] or
    /// [`Output::Abort`] was said, nothing more will be.
    pub fn handle(&mut self, elapsed: Duration, input: Input, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        self.elapsed = elapsed;
        self.last_call |= matches!(input, Input::Gone | Input::Shutdown);
        let before = out.len();
        self.act(input, out);
        self.count_memory(out.get(before..).unwrap_or_default());
    }

    fn act(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::RequestHeaders(headers, attributes, end) => {
                self.grpc = dialect::is_grpc(headers.text("content-type"));
                self.on_request_headers(headers, attributes, end, out)
            }
            Input::RequestBody(bytes, end) => {
                self.heard = self.elapsed;
                self.on_request_body(&bytes, end, out);
            }
            Input::RequestTrailers => self.on_request_trailers(out),
            Input::Authenticated(result) => self.on_authenticated(result, out),
            Input::ResponseHeaders(headers, end) => self.on_response_headers(&headers, end, out),
            Input::ResponseBody(bytes, end) => self.on_response_body(&bytes, end, out),
            Input::ResponseTrailers(trailers) => self.on_response_trailers(&trailers, out),
            Input::Asked(result) => self.on_asked(result, out),
            Input::Held(held) => self.on_held(held, out),
            Input::Used(result) => self.on_used(result, out),
            Input::Claimed(result) => self.on_claimed(result, out),
            Input::Recorded(result) => self.on_recorded(result, out),
            Input::Tick if self.is_asked() => self.refuse_who_waits(out),
            Input::Tick => self.record_delivered(out),
            Input::Gone => self.on_gone(out),
            Input::Shutdown => self.on_shutdown(out),
        }
    }

    /// Asks for `entries` to be made durable.
    fn record(&mut self, step: Step, entries: Vec<Entry>, out: &mut Vec<Output>) {
        debug_assert!(self.step.is_none(), "two records asked for at once");
        match step {
            Step::Opened | Step::Refused(_) => self.enter(Phase::RecordOpened),
            Step::Closed => self.enter(Phase::RecordClosed),
            // An answer goes on meanwhile.
            Step::Delivered => {}
        }
        self.step = Some(step);
        let Some(sealed) = self.journal.take_sealed() else {
            // What was to be sealed was not, so the record would say what is not so.
            return self.on_recorded(Err("audit_unavailable"), out);
        };
        let frames: usize = sealed.iter().map(|frame| frame.body.len()).sum();
        self.recording = entries.iter().map(Entry::text_bytes).sum::<usize>() + frames;
        out.push(Output::Record(entries, sealed, self.journal.durability()));
    }

    fn on_recorded(&mut self, result: Result<(), &'static str>, out: &mut Vec<Output>) {
        self.recording = 0;
        if !matches!(self.step, Some(Step::Delivered)) {
            self.leave();
        }
        match (self.step.take(), result) {
            (Some(Step::Opened), Ok(())) => self.on_opened(out),
            (Some(Step::Refused(refusal)), Ok(())) => self.tell(&refusal, out),
            (Some(Step::Delivered), Ok(())) => self.on_delivered(out),
            (Some(Step::Closed), Ok(())) => self.on_closed(out),
            // Should an `opened` turn up in the log after all, the ledger closes it.
            (Some(Step::Opened | Step::Refused(_)), Err(code)) => {
                self.tell(&Refusal::AuditUnavailable(code), out)
            }
            // Something left that is not on record. Whatever else there was to say, `closed` must say this.
            (Some(Step::Delivered), Err(code)) => {
                self.ending = Some(Ending::Refuse(Refusal::AuditUnavailable(code)));
                self.close(out);
            }
            // Recovery closes it.
            (Some(Step::Closed), Err(code)) => {
                self.tell_late(&Refusal::AuditUnavailable(code), out)
            }
            (None, _) => self.cut("internal", "record_not_asked_for", out),
        }
    }

    /// Envoy ended the stream. What a known caller asked for is on record even where they did not wait for the decision.
    fn on_gone(&mut self, out: &mut Vec<Output>) {
        match (&self.step, &self.request) {
            (None, Request::AwaitingBody(..)) => self.refuse(Refusal::CallerGone, None, out),
            (None, request) if request.awaits_control() => {
                self.give_up(Refusal::CallerGone, out);
            }
            _ => self.cut("cut_short", "stream_ended", out),
        }
    }

    /// The time to drain is over: who waits is told so as far as that is still possible.
    fn on_shutdown(&mut self, out: &mut Vec<Output>) {
        if self.step.is_some() || self.journal.is_open() {
            return self.end(Ending::Refuse(Refusal::ShuttingDown), out);
        }
        if self.request.awaits_control() {
            return self.give_up(Refusal::ShuttingDown, out);
        }
        match self.response {
            Response::AwaitingHeaders => self.refuse(Refusal::ShuttingDown, None, out),
            // INVARIANT: the upstream has not ended its body, so neither may our stream end well.
            _ => self.abort("shutdown", "shutting_down", out),
        }
    }

    /// The stream is cut.
    fn cut(&mut self, outcome: &'static str, code: &'static str, out: &mut Vec<Output>) {
        self.end(Ending::Cut { outcome, code }, out);
    }

    /// Envoy says what it cannot say at this point.
    fn protocol_error(&mut self, out: &mut Vec<Output>) {
        self.cut("protocol_error", "unexpected_message", out);
    }

    /// Sets how the exchange ends and goes about it, at once or when the record under way is durable. The first to know
    /// wins, except that what is cut before its end was put on record is not whole.
    fn end(&mut self, ending: Ending, out: &mut Vec<Output>) {
        let counts = match (&self.ending, &self.step) {
            (None, _) => true,
            (Some(Ending::Complete), Some(Step::Closed)) => false,
            (Some(Ending::Complete), _) => matches!(ending, Ending::Cut { .. }),
            _ => false,
        };
        if counts {
            self.ending = Some(ending);
        }
        if self.step.is_none() {
            self.close(out);
        }
    }

    /// Outcome and code as they are put on record.
    fn outcome(&self) -> (&'static str, &'static str) {
        match &self.ending {
            Some(Ending::Complete) | None if self.response.is_passed() => {
                ("completed", upgrade::UNSEEN)
            }
            Some(Ending::Complete) | None if self.answered >= 400 => ("upstream_error", ""),
            Some(Ending::Complete) | None if !self.response.is_whole() => {
                ("cut_short", "no_terminal_event")
            }
            Some(Ending::Complete) | None => ("completed", ""),
            Some(Ending::Refuse(refusal @ Refusal::ShuttingDown)) => ("shutdown", refusal.code()),
            Some(Ending::Refuse(refusal)) => ("refused_response", refusal.code()),
            Some(Ending::Cut { outcome, code }) => (*outcome, *code),
        }
    }

    /// Writes `closed` for what was opened; what never was ends here.
    fn close(&mut self, out: &mut Vec<Output>) {
        let (outcome, code) = self.outcome();
        if !self.journal.is_open() {
            return self.abort(outcome, code, out);
        }
        if matches!(self.ending, Some(Ending::Complete)) {
            self.count_last();
        }
        let elapsed = self.elapsed_ms();
        let end = journal::End {
            outcome,
            code,
            reason: match &self.ending {
                Some(Ending::Refuse(refusal)) => refusal.message(),
                _ => String::new(),
            },
            status: self.answered,
            duration_ms: elapsed,
        };
        let account = self.response.account();
        let last = self.journal.close(end, account);
        self.summary.answered = self.journal.answered().clone();
        self.summary.masked_response = self.journal.masked_response().clone();
        self.record(Step::Closed, last, out);
    }

    /// The `closed` record is durable: what it allows now happens.
    fn on_closed(&mut self, out: &mut Vec<Output>) {
        self.journal.mark_closed();
        let (outcome, code) = self.outcome();
        self.conclude(outcome, code);
        match self.ending.take() {
            Some(Ending::Complete) | None => self.release(out),
            Some(Ending::Refuse(refusal)) => self.tell_late(&refusal, out),
            Some(Ending::Cut { outcome, code }) => self.abort(outcome, code, out),
        }
    }

    /// Tells the caller of a refusal as well as the answer's state still allows: in the model's stead while its head is
    /// withheld, else as a last event, after which the stream is cut so that no client takes it for whole.
    fn tell_late(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        self.conclude("refused_response", refusal.code());
        if !self.response.head_is_out() {
            return self.tell(refusal, out);
        }
        // Behind an upgrade nobody reads our words for an event.
        let connection = self.journal.connection();
        if let Some(connection) = connection.filter(|_| !self.response.is_passed()) {
            let message = refusal.message();
            let shape = ErrorShape {
                status: refusal.status(),
                code: refusal.code(),
                message: &message,
            };
            let event = connection.dialect.error_event(&shape);
            if !event.is_empty() {
                out.push(Output::Answer(Answer::ResponseBody(event, false)));
            }
        }
        self.abort("refused_response", refusal.code(), out);
    }

    /// Answers the caller with `refusal` in the model's stead and ends well: Envoy acts on it and closes the stream.
    fn tell(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        let status = self.status_of(refusal);
        let message = refusal.message();
        let shape = ErrorShape {
            status,
            code: refusal.code(),
            message: &message,
        };
        let mut headers = self.marks();
        headers.extend(self.ticket_headers(refusal));
        // Envoy makes a gRPC answer of it, content type and all.
        let (grpc_status, body) = if self.grpc {
            let (status, body) = dialect::grpc_error(&shape);
            (Some(status), body)
        } else {
            let (content_type, body) = match self.journal.connection() {
                Some(connection) => connection.dialect.error(&shape),
                None => dialect::plain_error(&shape),
            };
            headers.push(("content-type".into(), content_type.to_owned().into()));
            (None, body)
        };
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
        self.summary.status = status;
        let immediate = Immediate {
            status,
            headers,
            body,
            grpc_status,
            code: refusal.code(),
        };
        out.push(Output::Answer(Answer::Immediate(immediate)));
        self.finish(out);
    }

    fn abort(&mut self, outcome: &'static str, code: &'static str, out: &mut Vec<Output>) {
        self.conclude(outcome, code);
        self.let_go();
        out.push(Output::Abort(code));
    }

    fn finish(&mut self, out: &mut Vec<Output>) {
        self.let_go();
        out.push(Output::Finished);
    }

    /// All is said: the caller's place and share are for others now.
    fn let_go(&mut self) {
        self.leave();
        self.over = true;
        self.request = Request::Refused;
        self.response = Response::Ended;
    }

    /// Brings the share to what is held now, with what was just said and whoever carries it out still has. What grows
    /// asks for its share before it does, where it can still be refused; an answer, after each slice that is read of it.
    fn count_memory(&mut self, said: &[Output]) {
        let leaving: usize = said.iter().map(Output::bytes).sum();
        let _ = self.share.set(self.held() + leaving);
        let strange = self.request.is_strange();
        let _ = self
            .strange
            .set(if strange { self.request.memory() } else { 0 });
    }

    /// Bytes held.
    fn held(&self) -> usize {
        self.request.memory() + self.response.memory() + self.journal.memory() + self.recording
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

    /// It is in `phase` from now on.
    fn enter(&mut self, phase: Phase) {
        let at = self.at();
        self.summary.laps.enter(phase, at);
    }

    /// It is in no phase from now on.
    fn leave(&mut self) {
        let at = self.at();
        self.summary.laps.leave(at);
    }

    /// Time since the exchange began.
    fn at(&self) -> Duration {
        match &self.stopwatch {
            Some(now) => now(),
            None => self.elapsed,
        }
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.elapsed.as_millis()).unwrap_or(u32::MAX)
    }
}
