//! The answer's way: read it as it arrives, let out what may leave, record what left, close, release the end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Answer, Ending, Exchange, Mutation, Output, PIECE, Phase, Refusal, Step,
    filter::{Filter, Record, Released, Treatment},
    head::{Head, OUR_PREFIXES},
    headers::Headers,
    journal::RECORD_EACH,
    lending::Guard,
    request::Request,
    rules::{Connection, Secrets},
    upgrade,
};
use crate::{
    detect::{DetectorError, Entity},
    dialect::{self, Endpoint, ResponseBody, ResponseFacts, ShapeError, Spoken},
    mask::Operator,
    policy::Obligations,
};

/// What is read of an answer at once, in bytes: what leaves is recorded in steps no finer than what this turns into.
const SLICE: usize = RECORD_EACH / 4;

/// Where the answer stands.
pub(super) enum Response {
    /// Nothing was forwarded yet: an answer now is Envoy's own, because it gave up.
    AwaitingHeaders,
    /// Forwarded; the answer's head is awaited.
    Expected(Box<Expected>),
    /// The answer arrives.
    Flowing(Box<Flow>),
    /// Forwarded, to be switched to another protocol; the answer's head is awaited.
    Upgrading(Arc<Guard>),
    /// Switched: what follows passes as it is.
    Passed,
    /// The terminal event was released; the upstream has yet to end its body.
    Draining,
    Ended,
}

/// What to do with the answer once it comes.
pub(super) struct Expected {
    connection: Arc<Connection>,
    guard: Arc<Guard>,
    endpoint: Endpoint,
    filter: Filter,
}

/// An answer on its way through.
pub(super) struct Flow {
    dialect: Spoken,
    /// `None` for an answer without a body.
    reader: Option<Box<dyn ResponseBody>>,
    filter: Filter,
    /// The head, while it is withheld: an answer that is one document leaves only once it was seen whole.
    head: Option<Mutation>,
    /// May leave once what left before is recorded.
    withheld: VecDeque<Piece>,
    /// Leaves only once `closed` is durable.
    terminal: Piece,
    end: Option<End>,
}

/// Bytes that may leave, and the text in them.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    text: Released,
}

/// How the answer ended.
#[derive(Debug)]
enum End {
    /// With its head: there is no body.
    Head,
    /// With its body.
    Body,
    /// With trailers, which leave changed so.
    Trailers(Mutation),
}

impl Response {
    /// How the answer to a request with this head to `endpoint` will be treated.
    ///
    /// # Errors
    /// [`DetectorError`] where the detectors obliged to do not compile together.
    pub(super) fn expected(
        head: &Head,
        endpoint: Endpoint,
        obliged: &Obligations,
        secrets: &Secrets,
    ) -> Result<Self, DetectorError> {
        let (connection, guard) = (&head.connection, &head.lending.guard);
        let traffic = connection.response_plan(&obliged.mask_response, secrets, guard)?;
        // Where the traffic already hides all that records may not show, one pass does for both.
        let record = match connection.record_text {
            false => Record::Nothing,
            true if obliges_to_all(connection, &obliged.mask_response) => Record::AsItLeaves,
            true => Record::Masked(guard.record_plan().clone()),
        };
        let filter = Filter::new(Treatment {
            traffic,
            lent: guard.plan.clone(),
            operators: obliged.mask_response.clone(),
            vault: secrets.vault.clone(),
            record,
        });
        Ok(Self::Expected(Box::new(Expected {
            connection: connection.clone(),
            guard: guard.clone(),
            endpoint,
            filter,
        })))
    }

    /// Whether the answer's head was let out.
    pub(super) fn head_is_out(&self) -> bool {
        match self {
            Self::AwaitingHeaders | Self::Expected(_) | Self::Upgrading(_) => false,
            Self::Flowing(flow) => flow.head.is_none(),
            Self::Passed | Self::Draining | Self::Ended => true,
        }
    }

    /// Bytes of the answer held back.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Flowing(flow) => flow.held(),
            _ => 0,
        }
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Expected(expected) => expected.filter.memory(),
            Self::Flowing(flow) => flow.memory(),
            Self::AwaitingHeaders
            | Self::Upgrading(_)
            | Self::Passed
            | Self::Draining
            | Self::Ended => 0,
        }
    }

    /// Whether something may leave once what left before is on record.
    pub(super) fn waits_to_leave(&self) -> bool {
        match self {
            Self::Flowing(flow) => flow.head.is_none() && !flow.withheld.is_empty(),
            _ => false,
        }
    }

    /// Whether it would be, or was, switched to another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        matches!(self, Self::Upgrading(_) | Self::Passed)
    }

    /// Whether it was switched to another protocol.
    pub(super) fn is_passed(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// Whether an answer that is over said that it is whole.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Flowing(flow) => flow
                .reader
                .as_ref()
                .is_none_or(|reader| reader.facts().complete),
            _ => true,
        }
    }

    /// What the closing record says of the answer.
    pub(super) fn account(&mut self) -> Option<(&mut Filter, ResponseFacts)> {
        match self {
            Self::Flowing(flow) => {
                let reader = flow.reader.as_ref();
                let facts = reader.map(|reader| reader.facts().clone());
                Some((&mut flow.filter, facts.unwrap_or_default()))
            }
            _ => None,
        }
    }
}

fn obliges_to_all(connection: &Connection, obliged: &BTreeMap<Entity, Operator>) -> bool {
    let named = connection.fields.named.iter().map(|(entity, _)| entity);
    let known = connection.everything.entities().iter();
    known
        .chain(named)
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
            Response::Expected(expected) if self.ending.is_none() => *expected,
            Response::Upgrading(guard) if self.ending.is_none() => {
                return self.on_switched(guard, headers, end, out);
            }
            other => {
                self.response = other;
                return match self.response {
                    Response::AwaitingHeaders => self.on_envoy_answered(headers, out),
                    // Settled already: what was decided is on its way.
                    _ if self.ending.is_some() => {}
                    _ => self.protocol_error(out),
                };
            }
        };
        self.leave();
        self.answered = headers.text(":status").parse().unwrap_or(0);
        let in_trailers = expected.connection.dialect.is_told_in_trailers();
        if in_trailers && self.answered == 200 && (end || headers.has("grpc-status")) {
            self.note_grpc_status(headers);
        }
        match self.read_answer(expected, headers, end) {
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
                let status = headers.text(":status").parse().unwrap_or(0);
                let status = if (400..600).contains(&status) {
                    status
                } else {
                    502
                };
                self.refuse(Refusal::ByEnvoy(status), None, out);
            }
            (Some(Step::Opened), _) => self.end(Ending::Refuse(Refusal::TimedOut), out),
            (None, Request::AwaitingIdentity(..) | Request::AwaitingBody(..)) => {
                self.refuse(Refusal::TimedOut, None, out);
            }
            (None, request) if request.awaits_control() => self.give_up(Refusal::TimedOut, out),
            // A refusal is being recorded: it is told when that is done.
            (Some(_), _) => {}
            (None, _) => self.protocol_error(out),
        }
    }

    fn read_answer(
        &self,
        mut expected: Expected,
        headers: &Headers,
        end: bool,
    ) -> Result<Flow, (Box<Expected>, Refusal)> {
        if self.answered < 200 {
            // Envoy passes a 101 that nobody asked for, and what follows it.
            return Err((Box::new(expected), upgrade::not_made(self.answered)));
        }
        match expected.reader(headers, self.answered, end) {
            Ok(reader) => Ok(Flow {
                dialect: expected.connection.dialect.clone(),
                reader,
                head: Some(self.answer_head(&mut expected, headers)),
                filter: expected.filter,
                withheld: VecDeque::new(),
                terminal: Piece::default(),
                end: None,
            }),
            Err(refusal) => Err((Box::new(expected), refusal)),
        }
    }

    /// The answer's head as it leaves: marked as seen by us, without what is ours alone to say, and without any field
    /// that repeats a credential of the connection.
    fn answer_head(&self, expected: &mut Expected, headers: &Headers) -> Mutation {
        let (guard, dialect) = (&expected.guard, &expected.connection.dialect);
        let mut set = self.marks();
        let ours = |name: &str| {
            OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && !set.iter().any(|(set, _)| set == name)
        };
        let mut remove: Vec<String> = headers
            .iter()
            .filter(|(name, value)| guard.finds(value) || ours(name))
            .map(|(name, _)| name.to_owned())
            .collect();
        // What would stand in trailers stands here where an answer has nothing else.
        if dialect.is_told_in_trailers() {
            let told = |name: &str| name.starts_with("grpc-") || name.ends_with("-bin");
            let told = headers.iter().filter(|(name, _)| told(name));
            let trailers = expected.filter.trailers(&**dialect, told);
            set.extend(trailers.set);
            remove.extend(trailers.remove);
        }
        Mutation { set, remove }
    }

    fn begin_answer(&mut self, end: bool, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        if end {
            flow.end = Some(End::Head);
            // What is said in the head of an answer that has nothing else.
            flow.terminal.text = flow.filter.take_released();
            return self.end(Ending::Complete, out);
        }
        let reader = flow.reader.as_ref();
        if reader.is_some_and(|reader| reader.incremental()) {
            let head = flow.head.take();
            self.give_head(head, out);
        }
    }

    pub(super) fn give_head(&mut self, head: Option<Mutation>, out: &mut Vec<Output>) {
        if let Some(head) = head {
            self.summary.status = self.answered;
            out.push(Output::Answer(Answer::ResponseHeaders(head)));
        }
    }

    pub(super) fn on_response_body(&mut self, bytes: &Bytes, end: bool, out: &mut Vec<Output>) {
        let settled = self.ending.is_some();
        if let Response::Flowing(flow) = &self.response
            && end
            && flow.dialect.is_told_in_trailers()
            && self.answered == 200
        {
            // Without its trailers an answer is an error to every client.
            self.note_grpc_status(&Headers::default());
        }
        match &mut self.response {
            // Nothing more of it counts, but its end must still be answered.
            Response::Flowing(flow) if settled => flow.note_end(end.then_some(End::Body)),
            Response::Flowing(_) => self.read_body(bytes.clone(), end.then_some(End::Body), out),
            Response::Passed if settled => {}
            Response::Passed => self.pass_answer(bytes, end, out),
            Response::Draining if end => {
                out.push(Output::Answer(Answer::ResponseBody(Bytes::new(), true)));
                self.finish(out);
            }
            Response::Draining | Response::Ended => {}
            // Envoy's own answer while a refusal is on its way.
            _ if self.step.is_some() => {}
            _ => self.protocol_error(out),
        }
    }

    pub(super) fn on_response_trailers(&mut self, trailers: &Headers, out: &mut Vec<Output>) {
        let none = || Mutation {
            remove: trailers.names().map(str::to_owned).collect(),
            ..Mutation::default()
        };
        let settled = self.ending.is_some();
        match &mut self.response {
            Response::Flowing(flow) if settled => flow.note_end(Some(End::Trailers(none()))),
            Response::Flowing(flow) => {
                let passing = flow.filter.trailers(&*flow.dialect, trailers.iter());
                if flow.dialect.is_told_in_trailers() {
                    self.note_grpc_status(trailers);
                }
                self.read_body(Bytes::new(), Some(End::Trailers(passing)), out);
            }
            Response::Draining => {
                out.push(Output::Answer(Answer::ResponseTrailers(none())));
                self.finish(out);
            }
            Response::Ended => {}
            _ if self.step.is_some() => {}
            _ => self.protocol_error(out),
        }
    }

    /// An answer that went wrong says so in its trailers only.
    fn note_grpc_status(&mut self, fields: &Headers) {
        if let Some(status) = dialect::http_status(fields.text("grpc-status")) {
            self.answered = status;
        }
    }

    /// Reads `bytes` in pieces small enough to be recorded one by one, until the answer is settled.
    fn read_body(&mut self, mut bytes: Bytes, mut end: Option<End>, out: &mut Vec<Output>) {
        self.journal.received(&bytes);
        self.enter(Phase::MaskAnswer);
        loop {
            let Response::Flowing(flow) = &mut self.response else {
                return;
            };
            let bytes_now = bytes.split_to(bytes.len().min(SLICE));
            let last = bytes.is_empty();
            match flow.read(&bytes_now, last && end.is_some()) {
                Ok(terminal) => {
                    if last {
                        flow.note_end(end.take());
                    }
                    self.pass(terminal, out);
                }
                Err(error) => self.end(Ending::Refuse(Refusal::ResponseShape(error)), out),
            }
            if self.ending.is_some() || last {
                break;
            }
        }
        if let Response::Flowing(flow) = &mut self.response {
            flow.note_end(end);
        }
        // Else it is over and being recorded.
        if self.summary.laps.now() == Some(Phase::MaskAnswer) {
            self.leave();
        }
    }

    /// Something passed the reader: lets out what may leave, and closes where the answer is over, as it is with its
    /// terminal event.
    fn pass(&mut self, terminal: bool, out: &mut Vec<Output>) {
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        let over = terminal || flow.end.is_some();
        if flow.filter.overflowed() {
            let reason = "the answer has more parts than are followed".to_owned();
            let error = ShapeError {
                code: "too_many_channels",
                reason,
            };
            return self.end(Ending::Refuse(Refusal::ResponseShape(error)), out);
        }
        if flow.held() > self.rules.limits.response_body {
            return self.end(Ending::Refuse(Refusal::ResponseTooLarge), out);
        }
        let held = flow.memory() + self.journal.memory() + self.recording;
        if let Err(full) = self.share.set(held) {
            return self.end(Ending::Refuse(full.into()), out);
        }
        self.let_out(out);
        if over {
            self.end(Ending::Complete, out);
        }
    }

    /// Lets out what may leave: nothing while the head is withheld, nothing while too much of what left is not on record.
    fn let_out(&mut self, out: &mut Vec<Output>) {
        let mut leaving = Vec::new();
        while let Response::Flowing(flow) = &mut self.response {
            let next = flow.withheld.front().filter(|_| flow.head.is_none());
            let Some(next) = next.map(|piece| piece.bytes.len()) else {
                break;
            };
            let unrecorded = self.journal.unrecorded();
            if unrecorded > 0 && unrecorded + next > RECORD_EACH {
                if self.step.is_some() {
                    break;
                }
                send_some(&mut leaving, out);
                self.record_delivered(out);
            }
            self.let_one_out(&mut leaving);
        }
        send_some(&mut leaving, out);
        if self.journal.unrecorded() >= RECORD_EACH {
            self.record_delivered(out);
        }
    }

    fn let_one_out(&mut self, leaving: &mut Vec<u8>) {
        let at = self.elapsed_ms();
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        if let Some(piece) = flow.withheld.pop_front() {
            let text = flow.filter.left(piece.text);
            self.journal.let_out(at, piece.bytes.len(), text);
            join(leaving, piece.bytes);
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
        self.let_out(out);
    }

    /// What leaves with the end is part of what the closing record tells of.
    pub(super) fn count_last(&mut self) {
        let at = self.elapsed_ms();
        let Response::Flowing(flow) = &mut self.response else {
            return;
        };
        let (mut bytes, mut text) = (0, 0);
        for piece in flow.withheld.iter_mut().chain([&mut flow.terminal]) {
            bytes += piece.bytes.len();
            text += flow.filter.left(std::mem::take(&mut piece.text));
        }
        if bytes > 0 {
            self.journal.let_out(at, bytes, text);
        }
    }

    /// `closed` is durable: the terminal event and the end of the answer may leave.
    pub(super) fn release(&mut self, out: &mut Vec<Output>) {
        if self.response.is_passed() {
            send(Vec::new(), true, out);
            return self.finish(out);
        }
        let Response::Flowing(flow) = std::mem::replace(&mut self.response, Response::Ended) else {
            return self.abort("internal", "nothing_to_release", out);
        };
        let Flow {
            head,
            withheld,
            terminal,
            end,
            ..
        } = *flow;
        self.give_head(head, out);
        let mut last = Vec::new();
        for piece in withheld.into_iter().chain([terminal]) {
            join(&mut last, piece.bytes);
        }
        match end {
            Some(End::Head) => self.finish(out),
            Some(End::Body) => {
                send(last, true, out);
                self.finish(out);
            }
            Some(End::Trailers(trailers)) => {
                if !last.is_empty() {
                    send(last, false, out);
                }
                out.push(Output::Answer(Answer::ResponseTrailers(trailers)));
                self.finish(out);
            }
            None => {
                send(last, false, out);
                self.response = Response::Draining;
                if self.last_call {
                    self.abort("cut_short", "stream_ended", out);
                }
            }
        }
    }
}

impl Expected {
    /// The reader for an answer with this head, `None` where it has no body.
    fn reader(
        &self,
        headers: &Headers,
        status: u16,
        end: bool,
    ) -> Result<Option<Box<dyn ResponseBody>>, Refusal> {
        if !headers.is_unencoded() {
            return Err(Refusal::EncodedResponse);
        }
        if end {
            return Ok(None);
        }
        let content_type = headers.one("content-type").ok().flatten();
        let dialect = &self.connection.dialect;
        match dialect.read_response(&self.endpoint, status, content_type) {
            Ok(mut reader) => {
                reader.select(&self.connection.fields);
                Ok(Some(reader))
            }
            Err(_) if status >= 400 => Err(Refusal::Upstream(status)),
            Err(error) => Err(Refusal::ResponseShape(error)),
        }
    }
}

impl Flow {
    /// Reads what arrived; whether that was the answer's terminal part.
    fn read(&mut self, bytes: &Bytes, end: bool) -> Result<bool, ShapeError> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        let mut passed = reader.push(bytes, &mut self.filter)?;
        if end {
            let rest = reader.finish(&mut self.filter)?;
            let behind = match passed.terminal.is_empty() {
                true => &mut passed.now,
                false => &mut passed.terminal,
            };
            join(behind, rest.now);
            join(&mut passed.terminal, rest.terminal);
        }
        let terminal = !passed.terminal.is_empty();
        if passed.now.is_empty() && !terminal && !end {
            // Its text waits for the bytes that it leaves with.
            return Ok(false);
        }
        let mut text = self.filter.take_released();
        join(&mut self.terminal.bytes, passed.terminal);
        // What trailers say leaves with the end too.
        let last = terminal || (end && self.terminal.text.len() == 0);
        if passed.now.is_empty() && last {
            self.terminal.text = std::mem::take(&mut text);
        }
        if !passed.now.is_empty() {
            let bytes = passed.now;
            self.withheld.push_back(Piece { bytes, text });
        }
        Ok(terminal)
    }

    /// The first end counts; what follows it is noise (envoy.md).
    fn note_end(&mut self, end: Option<End>) {
        if self.end.is_none() {
            self.end = end;
        }
    }

    /// Bytes of the answer held back.
    fn held(&self) -> usize {
        let reader = self.reader.as_ref().map_or(0, |reader| reader.held());
        let withheld = self.withheld.iter().map(|piece| piece.bytes.len());
        reader + withheld.sum::<usize>() + self.terminal.bytes.len()
    }

    /// Bytes in memory, with the copies that wait to be recorded.
    fn memory(&self) -> usize {
        let texts = self.withheld.iter().chain([&self.terminal]);
        self.held() + texts.map(|piece| piece.text.len()).sum::<usize>() + self.filter.memory()
    }
}

/// Puts `more` behind `bytes`, without a copy where it is all there is.
fn join(bytes: &mut Vec<u8>, more: Vec<u8>) {
    if bytes.is_empty() {
        *bytes = more;
    } else {
        bytes.extend_from_slice(&more);
    }
}

fn send_some(bytes: &mut Vec<u8>, out: &mut Vec<Output>) {
    if !bytes.is_empty() {
        send(std::mem::take(bytes), false, out);
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
