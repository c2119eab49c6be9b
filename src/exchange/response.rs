//! The answer's way: read it as it arrives, let out what may leave, record what left, close, release the end.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use secrecy::ExposeSecret;

use super::{
    Answer, Ending, Exchange, Mutation, Output, Refusal, Step,
    filter::{Filter, Record},
    headers::Headers,
    journal::RECORD_EACH,
    request::Request,
    rules::Connection,
};
use crate::{
    detect::{DetectorError, Entity},
    dialect::{Endpoint, Passed, ResponseBody, ResponseFacts, ShapeError},
    mask::Operator,
    policy::Obligations,
};

/// The largest piece of a body sent to Envoy in one message, in bytes: well under gRPC's 4 MiB.
const PIECE: usize = 1 << 20;

/// Where the answer stands.
#[derive(Debug)]
pub(super) enum Response {
    /// Nothing was forwarded yet: an answer now is Envoy's own, because it gave up.
    AwaitingHeaders,
    /// Forwarded; the answer's head is awaited.
    Expected(Box<Expected>),
    /// The answer arrives.
    Flowing(Box<Flow>),
    /// The terminal event was released; the upstream has yet to end its body.
    Draining,
    Ended,
}

/// What to do with the answer once it comes.
#[derive(Debug)]
pub(super) struct Expected {
    connection: Arc<Connection>,
    endpoint: Endpoint,
    filter: Filter,
}

/// An answer on its way through.
#[derive(Debug)]
pub(super) struct Flow {
    /// `None` for an answer without a body.
    reader: Option<Box<dyn ResponseBody>>,
    filter: Filter,
    /// The head, while it is withheld: an answer that is one document leaves only once it was seen whole.
    head: Option<Mutation>,
    /// May leave once what left before is recorded.
    withheld: Vec<u8>,
    /// Leaves only once `closed` is durable.
    terminal: Vec<u8>,
    end: Option<End>,
}

/// How the answer ended.
#[derive(Debug)]
enum End {
    /// With its head: there is no body.
    Head,
    /// With its body.
    Body,
    /// With trailers of these names.
    Trailers(Vec<String>),
}

impl Response {
    /// How the answer to a request to `endpoint` will be treated.
    ///
    /// # Errors
    /// [`DetectorError`] where the detectors obliged to do not compile together.
    pub(super) fn expected(
        connection: &Arc<Connection>,
        endpoint: Endpoint,
        obliged: &Obligations,
    ) -> Result<Self, DetectorError> {
        let traffic = connection.response_plan(&obliged.mask_response)?;
        // Where the traffic already hides all that records may not show, one pass does for both.
        let record = match connection.record_text {
            false => Record::Nothing,
            true if obliges_to_all(connection, &obliged.mask_response) => Record::AsItLeaves,
            true => Record::Masked(connection.record_plan.clone()),
        };
        let filter = Filter::new(traffic, record, obliged.mask_response.clone());
        Ok(Self::Expected(Box::new(Expected {
            connection: connection.clone(),
            endpoint,
            filter,
        })))
    }

    /// Whether the answer's head was let out.
    pub(super) fn head_is_out(&self) -> bool {
        match self {
            Self::AwaitingHeaders | Self::Expected(_) => false,
            Self::Flowing(flow) => flow.head.is_none(),
            Self::Draining | Self::Ended => true,
        }
    }

    /// What the closing record says of the answer.
    pub(super) fn account(&mut self) -> Option<(&mut Filter, ResponseFacts)> {
        match self {
            Self::Flowing(flow) => {
                let facts = flow
                    .reader
                    .as_ref()
                    .map(|reader| reader.facts().clone())
                    .unwrap_or_default();
                Some((&mut flow.filter, facts))
            }
            _ => None,
        }
    }
}

fn obliges_to_all(connection: &Connection, obliged: &BTreeMap<Entity, Operator>) -> bool {
    connection
        .catalog
        .entities()
        .iter()
        .all(|entity| obliged.get(entity) == Some(&Operator::Replace))
}

impl Exchange {
    pub(super) fn on_response_headers(
        &mut self,
        headers: &Headers,
        end: bool,
        out: &mut Vec<Output>,
    ) {
        let expected = match std::mem::replace(&mut self.response, Response::Ended) {
            Response::Expected(expected) => *expected,
            Response::AwaitingHeaders => {
                self.response = Response::AwaitingHeaders;
                return self.on_envoy_answered(headers, out);
            }
            _ => return self.abort("protocol_error", "unexpected_message", out),
        };
        let status = headers.text(":status").parse().unwrap_or(0);
        self.summary.status = status;
        match self.read_answer(expected, headers, status, end) {
            Ok(flow) => {
                self.response = Response::Flowing(Box::new(flow));
                self.begin_answer(end, out);
            }
            Err((expected, refusal)) => {
                self.response = Response::Expected(expected);
                self.end(Ending::Refuse(refusal), out);
            }
        }
    }

    /// Envoy answers by itself: it refused the request before we saw it, or gave up on it while it was being decided.
    fn on_envoy_answered(&mut self, headers: &Headers, out: &mut Vec<Output>) {
        match (&self.step, &self.request) {
            (None, Request::AwaitingHeaders) => {
                self.request = Request::Refused;
                let status = headers.text(":status").parse().unwrap_or(0);
                let status = if (400..600).contains(&status) {
                    status
                } else {
                    502
                };
                self.tell(&Refusal::ByEnvoy(status), out);
            }
            (Some(Step::Opened), _) => self.end(Ending::Refuse(Refusal::TimedOut), out),
            (None, Request::AwaitingIdentity(..) | Request::AwaitingBody(..)) => {
                self.refuse(Refusal::TimedOut, None, out);
            }
            // A refusal is being recorded: it is told when that is done.
            (Some(_), _) => {}
            (None, _) => self.abort("protocol_error", "unexpected_message", out),
        }
    }

    fn read_answer(
        &self,
        expected: Expected,
        headers: &Headers,
        status: u16,
        end: bool,
    ) -> Result<Flow, (Box<Expected>, Refusal)> {
        let refuse = |expected, refusal| Err((Box::new(expected), refusal));
        if !matches!(headers.one("content-encoding"), Ok(None | Some("identity"))) {
            return refuse(expected, Refusal::EncodedResponse);
        }
        let reader = if end {
            None
        } else {
            let content_type = headers.one("content-type").ok().flatten();
            match expected.connection.dialect.read_response(
                &expected.endpoint,
                status,
                content_type,
            ) {
                Ok(reader) => Some(reader),
                Err(_) if status >= 400 => return refuse(expected, Refusal::Upstream(status)),
                Err(error) => return refuse(expected, Refusal::ResponseShape(error)),
            }
        };
        let head = self.answer_head(&expected.connection, headers);
        Ok(Flow {
            reader,
            filter: expected.filter,
            head: Some(head),
            withheld: Vec::new(),
            terminal: Vec::new(),
            end: None,
        })
    }

    /// The answer's head as it leaves: marked as seen by us, and without any field that repeats the lent secret.
    fn answer_head(&self, connection: &Connection, headers: &Headers) -> Mutation {
        let secret = connection
            .credential
            .as_ref()
            .map(|credential| credential.secret.expose_secret().as_bytes());
        let tells = |value: &[u8]| {
            secret.is_some_and(|secret| value.windows(secret.len()).any(|window| window == secret))
        };
        let remove = headers
            .iter()
            .filter(|(_, value)| tells(value))
            .map(|(name, _)| name.to_owned())
            .collect();
        Mutation {
            set: self.marks(),
            remove,
        }
    }

    fn begin_answer(&mut self, end: bool, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        if end {
            flow.end = Some(End::Head);
            return self.end(Ending::Complete, out);
        }
        if flow
            .reader
            .as_ref()
            .is_some_and(|reader| reader.incremental())
        {
            out.extend(
                flow.head
                    .take()
                    .map(|head| Output::Answer(Answer::ResponseHeaders(head))),
            );
        }
    }

    pub(super) fn on_response_body(&mut self, bytes: &Bytes, end: bool, out: &mut Vec<Output>) {
        let closing = self.ending.is_some();
        match &mut self.response {
            // Once the answer is settled nothing more of it counts, but its end must still be answered.
            Response::Flowing(flow) if closing => {
                if end && flow.end.is_none() {
                    flow.end = Some(End::Body);
                }
            }
            Response::Flowing(flow) if flow.end.is_none() => {
                self.journal.received(bytes.len());
                match flow.read(bytes, end) {
                    Ok(passed) => self.pass(passed, end.then_some(End::Body), out),
                    Err(error) => self.end(Ending::Refuse(Refusal::ResponseShape(error)), out),
                }
            }
            Response::Draining if end => {
                out.push(Output::Answer(Answer::ResponseBody(Bytes::new(), true)));
                self.finish(out);
            }
            // Envoy's own answer while a refusal is on its way, or what follows the end (envoy.md).
            Response::Draining
            | Response::AwaitingHeaders
            | Response::Expected(_)
            | Response::Ended => {}
            Response::Flowing(_) if bytes.is_empty() => {}
            Response::Flowing(_) => self.abort("protocol_error", "unexpected_message", out),
        }
    }

    pub(super) fn on_response_trailers(&mut self, trailers: &Headers, out: &mut Vec<Output>) {
        // Nothing in a dialect's answer is told in trailers, so nothing in them is worth the risk of passing it unread.
        let names: Vec<_> = trailers.names().map(str::to_owned).collect();
        let closing = self.ending.is_some();
        match &mut self.response {
            Response::Flowing(flow) if closing => {
                if flow.end.is_none() {
                    flow.end = Some(End::Trailers(names));
                }
            }
            Response::Flowing(flow) if flow.end.is_none() => match flow.read(&Bytes::new(), true) {
                Ok(passed) => self.pass(passed, Some(End::Trailers(names)), out),
                Err(error) => self.end(Ending::Refuse(Refusal::ResponseShape(error)), out),
            },
            Response::Draining => {
                out.push(Output::Answer(Answer::ResponseTrailers(names)));
                self.finish(out);
            }
            Response::AwaitingHeaders | Response::Expected(_) | Response::Ended => {}
            Response::Flowing(_) => self.abort("protocol_error", "unexpected_message", out),
        }
    }

    /// Bytes passed the reader: lets out what may leave, and closes where the answer is over.
    fn pass(&mut self, passed: Passed, end: Option<End>, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        flow.terminal.extend_from_slice(&passed.terminal);
        let over = end.is_some() || !flow.terminal.is_empty();
        flow.end = end;
        if flow.filter.overflowed() {
            let reason = "the answer has more parts than are followed".to_owned();
            let error = ShapeError {
                code: "too_many_channels",
                reason,
            };
            return self.end(Ending::Refuse(Refusal::ResponseShape(error)), out);
        }
        let held = flow.held() + passed.now.len();
        if held > self.rules.limits.response_body {
            return self.end(Ending::Refuse(Refusal::ResponseTooLarge), out);
        }
        if self.share.set(held).is_err() {
            return self.end(Ending::Refuse(Refusal::Overloaded), out);
        }
        self.let_out(passed.now, out);
        if over {
            self.end(Ending::Complete, out);
        }
    }

    /// Lets `bytes` out, or withholds them: with a withheld head, or until what left before is recorded.
    fn let_out(&mut self, bytes: Vec<u8>, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        let behind = self.step.is_some() && self.journal.unrecorded() >= RECORD_EACH;
        if flow.head.is_some() || behind || !flow.withheld.is_empty() {
            return flow.withheld.extend_from_slice(&bytes);
        }
        if !bytes.is_empty() {
            let at = self.elapsed_ms();
            self.journal.let_out(at, bytes.len());
            send(bytes, false, out);
        }
        if self.journal.unrecorded() >= RECORD_EACH {
            self.record_delivered(out);
        }
    }

    /// Records what was let out since the last record.
    pub(super) fn record_delivered(&mut self, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        if self.step.is_some() || self.ending.is_some() || flow.head.is_some() {
            return;
        }
        let entries = self.journal.delivered(&mut flow.filter);
        if !entries.is_empty() {
            self.record(Step::Delivered, entries, out);
        }
    }

    pub(super) fn on_delivered(&mut self, out: &mut Vec<Output>) {
        if self.ending.is_some() {
            return self.close(out);
        }
        if let Response::Flowing(flow) = &mut self.response {
            let withheld = std::mem::take(&mut flow.withheld);
            self.let_out(withheld, out);
        }
    }

    /// What leaves with the end is part of what the closing record tells of.
    pub(super) fn count_last(&mut self) {
        let at = self.elapsed_ms();
        if let (Response::Flowing(flow), Some(Ending::Complete)) = (&self.response, &self.ending) {
            let bytes = flow.withheld.len() + flow.terminal.len();
            if bytes > 0 {
                self.journal.let_out(at, bytes);
            }
        }
    }

    /// `closed` is durable: the terminal event and the end of the answer may leave.
    pub(super) fn release(&mut self, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = std::mem::replace(&mut self.response, Response::Ended) else {
            return self.abort("internal", "nothing_to_release", out);
        };
        let Flow {
            head,
            mut withheld,
            terminal,
            end,
            ..
        } = *flow;
        withheld.extend_from_slice(&terminal);
        out.extend(head.map(|head| Output::Answer(Answer::ResponseHeaders(head))));
        match end {
            Some(End::Head) => self.finish(out),
            Some(End::Body) => {
                send(withheld, true, out);
                self.finish(out);
            }
            Some(End::Trailers(names)) => {
                if !withheld.is_empty() {
                    send(withheld, false, out);
                }
                out.push(Output::Answer(Answer::ResponseTrailers(names)));
                self.finish(out);
            }
            None => {
                send(withheld, false, out);
                self.response = Response::Draining;
            }
        }
        let _ = self.share.set(0);
    }
}

impl Flow {
    fn read(&mut self, bytes: &Bytes, end: bool) -> Result<Passed, ShapeError> {
        let Some(reader) = &mut self.reader else {
            return Ok(Passed::default());
        };
        let mut passed = reader.push(bytes, &mut self.filter)?;
        if end {
            let rest = reader.finish(&mut self.filter)?;
            if passed.terminal.is_empty() {
                passed.now.extend_from_slice(&rest.now);
            } else {
                passed.terminal.extend_from_slice(&rest.now);
            }
            passed.terminal.extend_from_slice(&rest.terminal);
        }
        Ok(passed)
    }

    fn held(&self) -> usize {
        let reader = self.reader.as_ref().map_or(0, |reader| reader.held());
        reader + self.filter.held() + self.withheld.len() + self.terminal.len()
    }
}

/// Sends `bytes` in pieces Envoy takes.
fn send(bytes: Vec<u8>, end: bool, out: &mut Vec<Output>) {
    let mut rest = Bytes::from(bytes);
    while rest.len() > PIECE {
        let piece = rest.split_to(PIECE);
        out.push(Output::Answer(Answer::ResponseBody(piece, false)));
    }
    out.push(Output::Answer(Answer::ResponseBody(rest, end)));
}
