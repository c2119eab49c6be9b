//! Drives an exchange by a script, plays Envoy, the authenticator and the ledger, and checks every promise after every
//! step.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

pub(super) use super::rules::LENT;
use super::{
    super::{journal::RECORD_EACH, *},
    rules::principal,
};
use crate::approval::{
    self, Approval, Approver, Asked, Claimed, Decided, Fate, Given, Id, Ignored, Party, Placed,
    Register, State, Use,
};
use crate::audit::{
    record::{Closed, Delivered, Event, Opened, Refused},
    seal::Frame,
};
use crate::identity::{Certificate, Presented};

pub(super) const SSN: &str = "536-22-8714";
pub(super) const CARD: &str = "4111 1111 1111 1111";
/// What may be let out beyond twice [`RECORD_EACH`] before it is on record: one event of these tests.
const EVENT: usize = 8 << 10;

/// What the ledger makes of what it is asked to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ledger {
    /// It is durable at once.
    Durable,
    /// It takes until [`Bench::durable`] or [`Bench::lost`].
    Slow,
    /// It fails with this code.
    Fails(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Aborted(&'static str),
}

/// What came out of the exchange so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) records: Vec<Event>,
    pub(super) sealed: Vec<Frame>,
    pub(super) upstream_head: Option<Mutation>,
    pub(super) upstream: Vec<u8>,
    pub(super) upstream_ended: bool,
    pub(super) head: Option<Mutation>,
    pub(super) answer: Vec<u8>,
    pub(super) answer_ended: bool,
    pub(super) trailers: Option<Mutation>,
    pub(super) immediate: Option<Immediate>,
    pub(super) end: Option<End>,
    pub(super) identified: bool,
}

/// What came of Envoy's so far: nothing may be answered before.
#[derive(Default)]
struct Came {
    request_head: bool,
    request_end: bool,
    request_trailers: bool,
    answer_head: bool,
    /// There is no body.
    answer_end_in_head: bool,
    answer_end: bool,
    answer_trailers: bool,
}

impl Came {
    fn note(&mut self, input: &Input) {
        match input {
            // A second head is none.
            Input::RequestHeaders(_, _, end) if !self.request_head => {
                self.request_head = true;
                self.request_end |= end;
            }
            Input::RequestBody(_, end) => self.request_end |= end,
            Input::RequestTrailers => self.request_trailers = true,
            Input::ResponseHeaders(_, end) if !self.answer_head => {
                self.answer_head = true;
                self.answer_end_in_head |= end;
                self.answer_end |= end;
            }
            Input::ResponseBody(_, end) => self.answer_end |= end,
            Input::ResponseTrailers(_) => {
                self.answer_trailers = true;
                self.answer_end = true;
            }
            _ => {}
        }
    }
}

pub(super) struct Bench {
    pub(super) rules: Arc<Rules>,
    exchange: Exchange,
    pub(super) ledger: Ledger,
    /// Whether tokens are checked at once, or by [`Bench::authenticated`].
    pub(super) slow_authenticator: bool,
    authenticating: Option<String>,
    /// The certificate of callers to come.
    pub(super) certificate: Option<Certificate>,
    /// What Envoy says of its trace.
    pub(super) traceparent: String,
    /// What was last shown of a caller.
    pub(super) presented: Option<Box<Presented>>,
    writing: Option<Vec<Entry>>,
    failed: bool,
    /// Whether nobody else uses its rules.
    alone: bool,
    session: String,
    /// The control log that its approvals are in.
    pub(super) office: Arc<Mutex<Office>>,
    asking: Option<Box<Asked>>,
    claiming: Option<Claimed>,
    using: Option<Use>,
    /// Whether the control log takes its time, until [`Bench::controlled`].
    pub(super) slow_control: bool,
    /// What it waits for, with which token, and how long.
    pub(super) holding: Option<(Id, String, Duration)>,
    asked: Vec<Event>,
    /// What came of Envoy's so far.
    came: Came,
    /// What all of its rules may hold, in bytes.
    memory: usize,
    /// Bytes of bodies in what was said last.
    said_bytes: usize,
    /// May not appear in an answer's body; never in a record.
    pub(super) hidden: Vec<&'static str>,
    pub(super) seen: Seen,
    now: Duration,
}

/// The instant every exchange begins at.
pub(super) const NOON: Timestamp = Timestamp::constant(1_772_366_400, 0);

/// A control log in memory.
pub(super) struct Office {
    pub(super) register: Register,
    pub(super) now: Timestamp,
    pub(super) reachable: bool,
    offset: u64,
}

impl Default for Office {
    fn default() -> Self {
        Self {
            register: Register::default(),
            now: NOON,
            reachable: true,
            offset: 0,
        }
    }
}

impl Office {
    pub(super) fn append(&mut self, event: &approval::Event) -> Fate {
        self.offset += 1;
        let placed = Placed {
            offset: self.offset,
            at: self.now,
        };
        self.register.apply(placed, event)
    }

    fn ask(&mut self, asked: Box<Asked>) -> Result<Arc<Approval>, NotAsked> {
        if !self.reachable {
            return Err(NotAsked::Unavailable("approvals_unavailable"));
        }
        match self.append(&approval::Event::Asked(asked)) {
            Fate::Counts(approval) | Fate::Joins(approval) => Ok(approval),
            Fate::Ignored(Ignored::TooManyPending) => Err(NotAsked::TooMany),
            Fate::Ignored(_) => Err(NotAsked::Unavailable("approvals_unavailable")),
            other => panic!("{other:?}"),
        }
    }

    fn take_use(&mut self, wanted: Use) -> Result<u32, NotUsed> {
        if !self.reachable {
            return Err(NotUsed::Unavailable);
        }
        match self.append(&approval::Event::Used(wanted)) {
            Fate::Used(number) => Ok(number),
            Fate::Ignored(Ignored::Revoked) => Err(NotUsed::Revoked),
            Fate::Ignored(Ignored::UsedUp | Ignored::Late) => Err(NotUsed::Over),
            Fate::Ignored(Ignored::TooManyGrants) => Err(NotUsed::TooMany),
            Fate::Ignored(_) => Err(NotUsed::Unavailable),
            other => panic!("{other:?}"),
        }
    }

    fn claim(&mut self, claimed: Claimed) -> Result<Arc<Approval>, NotClaimed> {
        if !self.reachable {
            return Err(NotClaimed::Unavailable("approvals_unavailable"));
        }
        match self.append(&approval::Event::Claimed(claimed)) {
            Fate::Counts(approval) => Ok(approval),
            Fate::Ignored(Ignored::Over(state)) => Err(NotClaimed::Over(state)),
            Fate::Ignored(_) => Err(NotClaimed::Unavailable("approvals_unavailable")),
            other => panic!("{other:?}"),
        }
    }

    /// The only approval there is, decided by `who` of `group`.
    pub(super) fn decide(&mut self, who: &str, group: &str, given: Given) -> Fate {
        let who = Party {
            issuer: "https://idp.example".into(),
            subject: who.into(),
            also: std::collections::BTreeSet::new(),
        };
        self.decide_as(who, group, given)
    }

    pub(super) fn decide_as(&mut self, who: Party, group: &str, given: Given) -> Fate {
        let approval = self.only();
        self.append(&approval::Event::Decided(Box::new(Decided {
            id: approval.asked.id.clone(),
            binding: approval.binding,
            given,
            by: Approver {
                who,
                groups: std::collections::BTreeSet::from([group.to_owned()]),
            },
            reason: "looked at it".into(),
        })))
    }

    pub(super) fn only(&self) -> Arc<Approval> {
        assert_eq!(self.register.iter().count(), 1);
        self.register.iter().next().unwrap().clone()
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(1 << 20, 1 << 20, 64 << 20, 100)
    }

    pub(super) fn with(
        request_body: usize,
        response_body: usize,
        memory: usize,
        places: usize,
    ) -> Self {
        let limits = Limits {
            request_body,
            response_body,
            memory_per_principal: usize::MAX,
        };
        Self {
            alone: true,
            memory,
            ..Self::under(super::rules::rules(limits, memory, places))
        }
    }

    /// One exchange without anything to seal with.
    pub(super) fn without_a_seed() -> Self {
        let mut bench = Self::new();
        bench.exchange = Exchange::new(bench.rules.clone(), "session-1".into(), None, NOON);
        bench
    }

    /// One more exchange under the same rules.
    pub(super) fn under(rules: Arc<Rules>) -> Self {
        Self {
            exchange: Exchange::new(rules.clone(), "session-1".into(), Some(Seed([7; 32])), NOON),
            rules,
            ledger: Ledger::Durable,
            slow_authenticator: false,
            authenticating: None,
            certificate: None,
            traceparent: String::new(),
            presented: None,
            writing: None,
            failed: false,
            alone: false,
            session: "session-1".into(),
            office: Arc::default(),
            asking: None,
            claiming: None,
            using: None,
            slow_control: false,
            holding: None,
            asked: Vec::new(),
            came: Came::default(),
            memory: usize::MAX,
            said_bytes: 0,
            hidden: vec![SSN, CARD],
            seen: Seen::default(),
            now: Duration::ZERO,
        }
    }

    /// One more exchange after this one: the same rules, the same control log.
    pub(super) fn next(&mut self) -> Self {
        self.alone = false;
        let mut next = Self::under(self.rules.clone());
        let number = self.session.trim_start_matches("session-").parse::<u32>();
        next.session = format!("session-{}", number.unwrap() + 1);
        let (rules, session) = (self.rules.clone(), next.session.clone());
        next.exchange = Exchange::new(rules, session, Some(Seed([7; 32])), NOON);
        next.office = self.office.clone();
        next
    }

    /// Looks again at the approval that is waited for, as if it had changed or the time to wait were over.
    pub(super) fn look(&mut self) -> &mut Self {
        let rules = self.rules.clone();
        self.look_under(rules)
    }

    /// As [`look`](Self::look), and other rules are in force now.
    pub(super) fn look_under(&mut self, rules: Arc<Rules>) -> &mut Self {
        let (id, token, _) = self.holding.take().expect("nothing is waited for");
        let held = {
            let office = self.office.lock().unwrap();
            match office.register.approval(&id).cloned() {
                Some(approval) if office.reachable => match approval.state_at(office.now) {
                    State::Pending => Held::Pending(approval),
                    State::Approved => Held::Approved {
                        approval,
                        rules,
                        principal: principal(&token),
                        now: office.now,
                    },
                    state => Held::Over(approval, state),
                },
                // What is long over is forgotten.
                _ => Held::Unavailable("approvals_unavailable"),
            }
        };
        self.handle(Input::Held(held))
    }

    /// The caller asks for a chat completion with this body.
    pub(super) fn ask(&mut self, caller: &str, body: &str) -> &mut Self {
        self.head(head(caller));
        self.body(body.as_bytes(), true)
    }

    pub(super) fn head(&mut self, headers: Headers) -> &mut Self {
        self.head_on(headers, "model", false)
    }

    pub(super) fn head_on(&mut self, headers: Headers, route: &str, end: bool) -> &mut Self {
        let attributes = Attributes {
            route: route.into(),
            cluster: "upstream".into(),
            source_address: "203.0.113.9:5000".into(),
            traceparent: self.traceparent.clone(),
            certificate: self.certificate.clone(),
        };
        self.handle(Input::RequestHeaders(headers, attributes, end))
    }

    pub(super) fn body(&mut self, bytes: &[u8], end: bool) -> &mut Self {
        self.handle(Input::RequestBody(bytes.to_vec().into(), end))
    }

    pub(super) fn answer_head(&mut self, status: u16, fields: &[(&str, &str)]) -> &mut Self {
        self.handle(Input::ResponseHeaders(answer_head(status, fields), false))
    }

    pub(super) fn answer_stream(&mut self) -> &mut Self {
        self.answer_head(200, &[("content-type", "text/event-stream")])
    }

    pub(super) fn answer_json(&mut self) -> &mut Self {
        self.answer_head(200, &[("content-type", "application/json")])
    }

    pub(super) fn answer(&mut self, text: &str, end: bool) -> &mut Self {
        self.handle(Input::ResponseBody(text.as_bytes().to_vec().into(), end))
    }

    /// So much time passes.
    pub(super) fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    pub(super) fn authenticated(&mut self) -> &mut Self {
        let token = self
            .authenticating
            .take()
            .expect("no token is being checked");
        self.handle(Input::Authenticated(principal(&token)))
    }

    /// The record being written is durable.
    pub(super) fn durable(&mut self) -> &mut Self {
        let entries = self.writing.take().expect("nothing is being recorded");
        self.written(entries);
        self.handle(Input::Recorded(Ok(())))
    }

    /// The record being written is lost.
    pub(super) fn lost(&mut self, code: &'static str) -> &mut Self {
        self.writing.take().expect("nothing is being recorded");
        self.failed = true;
        self.handle(Input::Recorded(Err(code)))
    }

    pub(super) fn is_recording(&self) -> bool {
        self.writing.is_some()
    }

    pub(super) fn is_authenticating(&self) -> bool {
        self.authenticating.is_some()
    }

    pub(super) fn wants_tick(&self) -> bool {
        self.exchange.wants_tick()
    }

    pub(super) fn timed_by(&mut self, stopwatch: Stopwatch) {
        let exchange = Exchange::new(self.rules.clone(), "session-1".into(), None, NOON);
        self.exchange = exchange.timed_by(stopwatch);
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Time goes by.
    pub(super) fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }

    pub(super) fn handle(&mut self, input: Input) -> &mut Self {
        self.now += Duration::from_millis(1);
        let said = format!("{input:?}");
        self.came.note(&input);
        let mut out = Vec::new();
        self.exchange.handle(self.now, input, &mut out);
        if self.seen.end.is_none() {
            self.said_bytes = out.iter().map(Output::bytes).sum();
        }
        for output in out {
            self.take(output, &said);
        }
        self.check(&said);
        if !self.slow_authenticator && self.is_authenticating() && self.seen.end.is_none() {
            self.authenticated();
        }
        if !self.slow_control {
            self.controlled();
        }
        if self.is_recording() {
            match self.ledger {
                Ledger::Durable => _ = self.durable(),
                Ledger::Fails(code) => _ = self.lost(code),
                Ledger::Slow => {}
            }
        }
        self
    }

    /// The control log says what came of what it was asked.
    pub(super) fn controlled(&mut self) -> &mut Self {
        let office = self.office.clone();
        if let Some(asked) = self.asking.take() {
            let asked = office.lock().unwrap().ask(asked);
            self.handle(Input::Asked(asked));
        }
        if let Some(wanted) = self.using.take() {
            let used = office.lock().unwrap().take_use(wanted);
            self.handle(Input::Used(used));
        }
        if let Some(claimed) = self.claiming.take() {
            let claimed = office.lock().unwrap().claim(claimed);
            self.handle(Input::Claimed(claimed));
        }
        self
    }

    /// What `input` answers was asked of somebody who will not answer again.
    pub(super) fn forget_asked(&mut self, input: &Input) {
        match input {
            Input::Authenticated(_) => self.authenticating = None,
            Input::Asked(_) => self.asking = None,
            Input::Used(_) => self.using = None,
            Input::Claimed(_) => self.claiming = None,
            Input::Held(_) => self.holding = None,
            _ => {}
        }
    }

    /// Whether a request's head came.
    pub(super) fn has_begun(&self) -> bool {
        self.came.request_head
    }

    fn take(&mut self, output: Output, after: &str) {
        assert!(
            self.seen.end.is_none(),
            "{output:?} after the end, upon {after}"
        );
        assert!(!format!("{output:?}").contains(LENT), "a secret in Debug");
        let seen = &mut self.seen;
        match output {
            Output::Authenticate(presented) => {
                assert!(self.authenticating.is_none(), "two tokens at once");
                assert_eq!(presented.again, self.seen.identified);
                self.seen.identified = true;
                self.authenticating = Some(shown(&presented));
                self.presented = Some(presented);
            }
            Output::Record(entries, sealed, _) => {
                seen.sealed.extend(sealed);
                assert!(self.writing.is_none(), "two records at once, upon {after}");
                assert!(!entries.is_empty(), "an empty record");
                for entry in &entries {
                    assert_eq!(entry.session, self.session);
                    let json = serde_json::to_string(entry).unwrap();
                    assert!(json.len() < 256 << 10, "a record of {} bytes", json.len());
                    for hidden in [SSN, CARD, LENT, "token-of-", "proof-of-"] {
                        assert!(!json.contains(hidden), "{hidden} is on record: {json}");
                    }
                    self.asked.push(entry.event.clone());
                }
                self.writing = Some(entries);
            }
            Output::Ask(asked) => {
                let told = serde_json::to_string(&asked).unwrap();
                for hidden in [SSN, CARD, LENT, "token-of-", "proof-of-"] {
                    assert!(
                        !told.contains(hidden),
                        "{hidden} is shown to approvers: {told}"
                    );
                }
                assert!(self.asking.replace(asked).is_none(), "asked twice at once");
            }
            Output::Hold(id, presented, patience) => {
                assert!(self.holding.is_none(), "waits twice at once");
                assert!(presented.again, "a proof counts once");
                self.holding = Some((id, shown(&presented), patience));
                self.presented = Some(presented);
            }
            Output::Use(wanted) => {
                assert!(self.using.replace(wanted).is_none(), "used twice at once");
            }
            Output::Claim(claimed) => {
                assert!(
                    self.claiming.replace(claimed).is_none(),
                    "claimed twice at once"
                );
            }
            Output::Answer(answer) => self.tell(answer, after),
            Output::Finished => seen.end = Some(End::Finished),
            Output::Abort(code) => seen.end = Some(End::Aborted(code)),
        }
    }

    fn tell(&mut self, answer: Answer, after: &str) {
        let opened = count(&self.seen.records, |event| {
            matches!(event, Event::Opened(_))
        });
        let closed = count(&self.seen.records, |event| {
            matches!(event, Event::Closed(_))
        });
        let asked_to_close = count(&self.asked, |event| matches!(event, Event::Closed(_)));
        let (seen, came) = (&mut self.seen, &self.came);
        assert!(
            seen.immediate.is_none(),
            "{answer:?} after an answer of our own"
        );
        for (name, value) in fields(&answer) {
            let value = value.expose_secret();
            let lent = matches!(answer, Answer::RequestHeaders(_)) && value.contains(LENT);
            let told = [SSN, CARD, LENT, "token-of-"]
                .iter()
                .any(|hidden| value.contains(hidden));
            assert!(lent || !told, "{name} tells a secret");
        }
        match answer {
            Answer::RequestHeaders(head) => {
                assert!(came.request_head, "an answer to what did not come");
                assert!(!came.request_trailers, "trailers that nobody read");
                assert_eq!(
                    (opened, closed),
                    (1, 0),
                    "forwarded without a durable record"
                );
                assert!(seen.upstream_head.replace(head).is_none(), "two heads");
            }
            Answer::RequestBody(bytes, end) => {
                assert!(seen.upstream_head.is_some(), "a body without a head");
                assert!(!end || came.request_end, "an end that did not come");
                assert!(
                    !std::mem::replace(&mut seen.upstream_ended, end),
                    "more after the end"
                );
                assert!(bytes.len() <= PIECE);
                seen.upstream.extend_from_slice(&bytes);
            }
            Answer::ResponseHeaders(head) => {
                let passed = seen.records.iter().any(
                    |event| matches!(event, Event::Opened(opened) if opened.request.unscanned == ["websocket"]),
                );
                assert!(
                    seen.upstream_ended || passed,
                    "an answer to what was not forwarded"
                );
                assert!(came.answer_head, "an answer to what did not come");
                assert!(seen.head.replace(head).is_none(), "two heads of an answer");
            }
            Answer::ResponseBody(bytes, end) => {
                assert!(seen.head.is_some(), "an answer's body without its head");
                assert!(!came.answer_end_in_head, "a body to what has none");
                assert!(!end || came.answer_end, "an end that did not come");
                assert!(!seen.answer_ended && seen.trailers.is_none());
                assert!(bytes.len() <= PIECE);
                seen.answer.extend_from_slice(&bytes);
                seen.answer_ended = end;
                let lines = String::from_utf8_lossy(&seen.answer);
                if end || lines.lines().any(|line| line == "data: [DONE]") {
                    assert_eq!(
                        closed, 1,
                        "the end left before `closed` was durable, upon {after}"
                    );
                }
            }
            Answer::ResponseTrailers(trailers) => {
                assert_eq!(closed, 1, "the end left before `closed` was durable");
                assert!(came.answer_trailers, "an answer to what did not come");
                assert!(seen.head.is_some() && !seen.answer_ended);
                seen.trailers = Some(trailers);
            }
            Answer::Immediate(immediate) => {
                assert!(
                    seen.head.is_none(),
                    "an answer of our own after the model's began"
                );
                assert_eq!(
                    opened, asked_to_close,
                    "refused what was opened without closing it"
                );
                assert!((400..600).contains(&immediate.status) || immediate.status == 202);
                assert!(!immediate.code.is_empty());
                for hidden in [SSN, CARD, LENT, "token-of-"] {
                    assert!(!contains(&immediate.body, hidden), "{hidden} is told");
                }
                if immediate.grpc_status.is_none() {
                    let error: serde_json::Value = serde_json::from_slice(&immediate.body).unwrap();
                    assert_eq!(error["error"]["code"], immediate.code);
                }
                seen.immediate = Some(immediate);
            }
        }
    }

    /// Every promise that can be checked from outside.
    fn check(&self, after: &str) {
        let seen = &self.seen;
        let asked = |of: fn(&Event) -> bool| count(&self.asked, of);
        let opened = count(&seen.records, |event| matches!(event, Event::Opened(_)));
        let closed = asked(|event| matches!(event, Event::Closed(_)));
        assert!(asked(|event| matches!(event, Event::Opened(_))) <= 1);
        assert!(asked(|event| matches!(event, Event::Refused(_))) <= 1);
        assert!(
            closed <= opened,
            "`closed` without a durable `opened`, upon {after}"
        );
        for hidden in self.hidden.iter().chain(&[LENT]) {
            assert!(
                !contains(&seen.answer, hidden),
                "{hidden} was let out, upon {after}"
            );
        }
        assert!(!contains(&seen.upstream, "token-of-"));
        let held = self.exchange.held();
        // An answer is read by a slice before its share is asked for.
        let bound = self.memory.saturating_add(RECORD_EACH);
        assert!(held <= bound, "{held} bytes held, upon {after}");
        let debug = format!("{:?}", self.exchange);
        for secret in [LENT, "token-of-", SSN, CARD] {
            assert!(!debug.contains(secret), "a secret in Debug");
        }
        if let Some(end) = seen.end {
            assert!(!self.is_recording(), "ended while a record is under way");
            assert_eq!(opened, closed, "{end:?} without `closed`, upon {after}");
            let used = self.rules.budget.used();
            assert!(
                used == self.said_bytes || !self.alone,
                "{used} bytes are not given back"
            );
            assert!(!self.exchange.wants_tick());
            assert!(!self.exchange.summary().outcome.is_empty());
            if end == End::Finished {
                let over = seen.answer_ended || seen.trailers.is_some() || self.bodiless();
                assert!(
                    over || seen.immediate.is_some(),
                    "an early good end, upon {after}"
                );
                assert!(
                    self.came.answer_end || seen.immediate.is_some(),
                    "a good end that did not come, upon {after}"
                );
            }
        } else {
            let recorded: usize = delivered(&seen.records)
                .flat_map(|part| &part.timing)
                .map(|timing| timing.bytes as usize)
                .sum();
            if closed == 0 {
                let bound = 2 * RECORD_EACH + EVENT;
                assert!(
                    seen.answer.len() <= recorded + bound,
                    "too much left unrecorded"
                );
            }
        }
        // What was said to have left has left: at once, but for what leaves with the end.
        let lost_part = self.asked.iter().any(
            |event| matches!(event, Event::Closed(closed) if closed.code.starts_with("audit_")),
        );
        let events = match (seen.end, closed) {
            // Of what was lost there is a gap in the records, but what was asked to be recorded did leave.
            (Some(_), _) if lost_part => &self.asked,
            (Some(_), _) if self.failed => return,
            (Some(_), _) => &seen.records,
            (None, 0) => &self.asked,
            (None, _) => return,
        };
        let stream = contains(&seen.answer, "data: ");
        if stream && !self.hidden.is_empty() {
            let said: String = delivered(events)
                .filter_map(|part| part.text.get("0.content"))
                .cloned()
                .collect();
            let left = content(&seen.answer);
            assert!(
                left.starts_with(&said),
                "on record and not let out: {said:?} of {left:?}"
            );
        }
    }

    fn bodiless(&self) -> bool {
        self.seen.answer.is_empty() && self.seen.head.is_some()
    }

    fn written(&mut self, entries: Vec<Entry>) {
        self.seen
            .records
            .extend(entries.into_iter().map(|entry| entry.event));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    // What the tests look at.

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        self.seen
            .records
            .iter()
            .map(|event| match event {
                Event::Opened(_) => "opened",
                Event::Delivered(_) => "delivered",
                Event::Closed(_) => "closed",
                Event::Refused(_) => "refused",
                _ => "other",
            })
            .collect()
    }

    pub(super) fn opened(&self) -> &Opened {
        let found = self.seen.records.iter().find_map(|event| match event {
            Event::Opened(opened) => Some(&**opened),
            _ => None,
        });
        found.expect("no `opened`")
    }

    pub(super) fn closed(&self) -> &Closed {
        let found = self.seen.records.iter().find_map(|event| match event {
            Event::Closed(closed) => Some(&**closed),
            _ => None,
        });
        found.expect("no `closed`")
    }

    pub(super) fn refused(&self) -> &Refused {
        let found = self.seen.records.iter().find_map(|event| match event {
            Event::Refused(refused) => Some(&**refused),
            _ => None,
        });
        found.expect("no `refused`")
    }

    /// The answer's text by channel, as it is on record.
    pub(super) fn recorded(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for part in delivered(&self.seen.records) {
            for (channel, text) in &part.text {
                all.entry(channel.clone()).or_default().push_str(text);
            }
        }
        all
    }

    pub(super) fn upstream(&self) -> &str {
        std::str::from_utf8(&self.seen.upstream).unwrap()
    }

    pub(super) fn answered(&self) -> &str {
        std::str::from_utf8(&self.seen.answer).unwrap()
    }

    /// Asserts that the answer of our own has this status and code, and returns it.
    pub(super) fn refusal(&self, status: u16, code: &str) -> &Immediate {
        let immediate = self.seen.immediate.as_ref().expect("nothing was refused");
        assert_eq!((immediate.status, immediate.code), (status, code));
        assert_eq!(self.seen.end, Some(End::Finished));
        assert_eq!(self.exchange.summary().status, status);
        assert_eq!(self.exchange.summary().code, code);
        immediate
    }
}

/// The fields that an answer sets.
fn fields(answer: &Answer) -> &[(String, SecretString)] {
    match answer {
        Answer::RequestHeaders(head) | Answer::ResponseHeaders(head) => &head.set,
        Answer::Immediate(immediate) => &immediate.headers,
        _ => &[],
    }
}

fn count(events: &[Event], of: fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| of(event)).count()
}

fn delivered(events: &[Event]) -> impl Iterator<Item = &Delivered> {
    events.iter().filter_map(|event| match event {
        Event::Delivered(part) if !part.of_request => Some(part),
        _ => None,
    })
}

pub(super) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// The text of a stream's first choice, as a client would put it together.
pub(super) fn content(stream: &[u8]) -> String {
    let text = String::from_utf8_lossy(stream);
    let chunks = text.lines().filter_map(|line| line.strip_prefix("data: "));
    chunks
        .filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect()
}

/// The head of a chat completion; what `more` names replaces what stands there.
pub(super) fn head_with(caller: &str, more: &[(&str, &str)]) -> Headers {
    let token = format!("Bearer token-of-{caller}");
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "api.example"),
        (":path", "/v1/chat/completions"),
        ("content-type", "application/json"),
        ("authorization", &token),
        ("accept-encoding", "gzip"),
    ];
    usual
        .into_iter()
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name))
        .chain(more.iter().copied().filter(|(_, value)| !value.is_empty()))
        .collect()
}

pub(super) fn head(caller: &str) -> Headers {
    head_with(caller, &[])
}

pub(super) fn answer_head(status: u16, fields: &[(&str, &str)]) -> Headers {
    let status = status.to_string();
    [(":status", status.as_str())]
        .into_iter()
        .chain(fields.iter().copied())
        .collect()
}

pub(super) fn prompt(text: &str) -> String {
    let messages = serde_json::json!([{"role": "user", "content": text}]);
    serde_json::json!({"model": "gpt-4o", "messages": messages}).to_string()
}

pub(super) fn streamed(text: &str) -> String {
    let messages = serde_json::json!([{"role": "user", "content": text}]);
    serde_json::json!({"model": "gpt-4o", "stream": true, "messages": messages}).to_string()
}

pub(super) fn completion(text: &str) -> String {
    serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    })
    .to_string()
}

pub(super) fn chunk(text: &str) -> String {
    event(&serde_json::json!({"content": text}), None)
}

pub(super) fn stop() -> String {
    event(&serde_json::json!({}), Some("stop"))
}

pub(super) const DONE: &str = "data: [DONE]\n\n";

fn event(delta: &serde_json::Value, finish: Option<&str>) -> String {
    let chunk = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    });
    format!("data: {chunk}\n\n")
}

/// The value of a field that is set.
pub(super) fn set<'m>(fields: &'m [(String, SecretString)], name: &str) -> Option<&'m str> {
    fields
        .iter()
        .find(|(set, _)| set == name)
        .map(|(_, value)| value.expose_secret())
}

/// The token that is shown, empty where there is none.
fn shown(presented: &Presented) -> String {
    presented
        .token
        .as_ref()
        .map_or_else(String::new, |token| token.text.expose_secret().to_owned())
}
