//! The request's way: find the connection, know the caller, read the whole body, decide, record, forward.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    Answer, Attributes, Called, Exchange, Mutation, Output, PIECE, Phase, Refusal, Step,
    TraceParent,
    approval::{Claiming, Waiting},
    budget::Place,
    grant::{self, Then, Using},
    head::{Head, Target},
    headers::Headers,
    response::Response,
    rules::{Connection, Secrets, Unscanned},
    upgrade,
};
use crate::{
    audit::record,
    detect::{DetectorError, Entity},
    dialect::{Endpoint, NOT_SELECTED, RequestBody, SIGNED, ShapeError, Text},
    identity::{Principal, TokenError},
    mask::{self, Owed, Plan},
    policy::{self, Call, Obligations, Outcome, Permit},
};

/// How often a request's body is in memory while it is decided on: as received, as forwarded and as recorded. An answer
/// that is one document is there no more often.
pub const COPIES: usize = 3;

/// For how long a caller who was proved is taken for proved. Where the body takes longer to come, they are once more: the token may have
/// expired or been revoked meanwhile.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// Where the request stands, named for what is awaited.
pub(super) enum Request {
    AwaitingHeaders,
    AwaitingIdentity(Box<Head>, Body),
    AwaitingBody(Box<Caller>, Body),
    AwaitingTicket(Box<Waiting>),
    AwaitingDecision(Box<Waiting>),
    AwaitingUse(Box<Using>),
    AwaitingClaim(Box<Claiming>),
    AwaitingOpened(Box<Forward>),
    /// Refused, told or about to be.
    Refused,
    Forwarded {
        /// Kept so that the caller's place is taken until the answer is over.
        _place: Place,
    },
    /// Forwarded, to be switched to another protocol: what follows passes as it is.
    Passed {
        /// As above.
        _place: Place,
    },
}

/// The body so far.
#[derive(Default)]
pub(super) struct Body {
    bytes: BytesMut,
    whole: bool,
    /// What is wrong with it, told once it is known who sent it.
    fault: Option<Refusal>,
}

impl Body {
    /// Whether nothing of it has come, not even its end.
    pub(super) fn is_untouched(&self) -> bool {
        !self.whole && self.bytes.is_empty() && self.fault.is_none()
    }
}

/// A known caller and what they call.
pub(super) struct Caller {
    pub(super) head: Box<Head>,
    pub(super) principal: Arc<Principal>,
    pub(super) endpoint: Endpoint,
    pub(super) place: Place,
}

/// A request ready to go. INVARIANT: made only together with the permit it holds.
pub(super) struct Forward {
    permit: Permit,
    parts: Parts,
    place: Place,
}

/// What would go upstream.
pub(super) struct Parts {
    pub(super) head: Mutation,
    /// Where the credential that is lent comes from; empty where none is.
    pub(super) lent: String,
    pub(super) body: Masked,
    /// How the answer will be treated.
    pub(super) response: Response,
}

/// A request that policy has spoken on.
pub(super) struct Weighed {
    pub(super) leave: Leave,
    pub(super) parts: Parts,
    pub(super) read: Box<Read>,
    pub(super) call: Call,
    pub(super) findings: BTreeMap<Entity, u64>,
    pub(super) risk: i64,
    /// What it refers to outside its bytes, kind and name; looked for only where somebody must approve it.
    pub(super) references: Vec<(&'static str, String)>,
}

/// What policy says of a request that it does not deny.
pub(super) enum Leave {
    /// It may go.
    Permit(Permit),
    /// Once it is approved.
    Pending(policy::Pending),
}

/// What was read of a request, for its record.
#[derive(Default)]
pub(super) struct Read {
    pub(super) decision: record::Decision,
    pub(super) request: record::RequestRecord,
    /// The body as it was received, where it is to be sealed.
    pub(super) original: Option<Bytes>,
}

/// Why a request is refused, and what was read of it.
type Refused = (Refusal, Option<Box<Read>>);

impl Forward {
    pub(super) fn new(permit: Permit, parts: Parts, place: Place) -> Self {
        Self {
            permit,
            parts,
            place,
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.parts.memory()
    }
}

impl Parts {
    /// The body as it would be forwarded.
    pub(super) fn body(&self) -> &[u8] {
        &self.body.bytes
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.body.bytes.len() + self.response.memory()
    }
}

impl Read {
    /// The request as its record shows it; empty where it shows none.
    pub(super) fn text(&self) -> &str {
        &self.request.body
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.request.body.len()
    }

    /// Notes which use of the caller's grant it takes.
    pub(super) fn used(&mut self, number: u32) {
        self.decision.grant_use = number;
    }

    /// With the approval that it goes by, or that it is refused for want of.
    pub(super) fn under(mut self: Box<Self>, approval: record::Approval) -> Box<Self> {
        self.decision.approval = Some(approval);
        self
    }
}

impl Request {
    /// Whether the control log is being asked, or a decision waited for.
    pub(super) fn awaits_control(&self) -> bool {
        matches!(
            self,
            Self::AwaitingTicket(_)
                | Self::AwaitingDecision(_)
                | Self::AwaitingUse(_)
                | Self::AwaitingClaim(_)
        )
    }

    /// Whether it was decided that it may be switched to another protocol.
    fn is_upgrade(&self) -> bool {
        match self {
            Self::AwaitingOpened(forward) => forward.parts.response.is_upgrade(),
            Self::Passed { .. } => true,
            _ => false,
        }
    }

    /// Whether more of the body is awaited of a caller who may be waiting for an answer to what they have sent.
    pub(super) fn may_wait(&self) -> bool {
        match self {
            Self::AwaitingBody(caller, body) if !body.whole => {
                let dialect = &caller.head.connection.dialect;
                dialect.may_wait(&caller.endpoint, &body.bytes)
            }
            _ => false,
        }
    }

    /// Whether it is not known yet who calls.
    pub(super) fn is_strange(&self) -> bool {
        matches!(self, Self::AwaitingIdentity(..))
    }

    /// Bytes of the body held.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::AwaitingIdentity(_, body) | Self::AwaitingBody(_, body) => body.bytes.len(),
            Self::AwaitingTicket(waiting) | Self::AwaitingDecision(waiting) => waiting.memory(),
            Self::AwaitingUse(using) => using.memory(),
            Self::AwaitingClaim(claiming) => claiming.memory(),
            Self::AwaitingOpened(forward) => forward.memory(),
            Self::AwaitingHeaders
            | Self::Refused
            | Self::Forwarded { .. }
            | Self::Passed { .. } => 0,
        }
    }
}

impl Exchange {
    pub(super) fn on_request_headers(
        &mut self,
        headers: Headers,
        attributes: Attributes,
        end: bool,
        out: &mut Vec<Output>,
    ) {
        if !matches!(self.request, Request::AwaitingHeaders) {
            return self.protocol_error(out);
        }
        self.summary.trace = TraceParent::of(&headers, &attributes);
        let read = self
            .find(&headers)
            .and_then(|(target, connection)| Head::of(target, connection, headers, attributes));
        match read {
            Ok((head, presented)) => {
                let body = Body {
                    whole: end,
                    ..Body::default()
                };
                self.request = Request::AwaitingIdentity(Box::new(head), body);
                self.enter(Phase::Identify);
                out.push(Output::Authenticate(Box::new(presented)));
            }
            Err(refusal) => self.refuse(refusal, None, out),
        }
    }

    fn find(&mut self, headers: &Headers) -> Result<(Target, Arc<Connection>), Refusal> {
        let target = Target::read(headers)?;
        let connection = target
            .connection(&self.rules)
            .ok_or(Refusal::UnknownConnection)?
            .clone();
        self.journal.found(connection.clone());
        self.summary.connection.clone_from(&connection.name);
        Ok((target, connection))
    }

    pub(super) fn on_authenticated(
        &mut self,
        result: Result<Arc<Principal>, TokenError>,
        out: &mut Vec<Output>,
    ) {
        let (head, body) = match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingIdentity(head, body) => (head, body),
            Request::AwaitingBody(caller, body) if body.whole => {
                return self.on_authenticated_again(*caller, body, result, out);
            }
            other => {
                self.request = other;
                return self.protocol_error(out);
            }
        };
        self.leave();
        self.identified = self.elapsed;
        let principal = match result {
            Ok(principal) => principal,
            Err(error) => return self.refuse(Refusal::BadToken(error), None, out),
        };
        self.summary.authenticated = true;
        self.summary.caller = Some((principal.issuer.clone(), principal.subject.clone()));
        self.journal.known(identity(&principal), head.record());
        if let Some(refusal) = body.fault {
            return self.refuse(refusal, None, out);
        }
        let admitted = self.admit(head, principal).and_then(|caller| {
            let theirs = caller.place.budget(self.rules.limits.memory_per_principal);
            self.share.belongs_to(theirs)?;
            Ok(caller)
        });
        match admitted {
            Ok(caller) if caller.head.upgrade => self.decide_upgrade(caller, body, out),
            Ok(caller) => {
                self.request = Request::AwaitingBody(Box::new(caller), body);
                self.decide_when_whole(out);
            }
            Err(refusal) => self.refuse(refusal, None, out),
        }
    }

    /// The body came slowly: whether the caller is still who they were.
    fn on_authenticated_again(
        &mut self,
        mut caller: Caller,
        body: Body,
        result: Result<Arc<Principal>, TokenError>,
        out: &mut Vec<Output>,
    ) {
        self.leave();
        let name = |principal: &Principal| (principal.issuer.clone(), principal.subject.clone());
        match result {
            Ok(principal) if name(&principal) == name(&caller.principal) => {
                self.journal
                    .known(identity(&principal), caller.head.record());
                caller.principal = principal;
                self.decide(caller, body.bytes.freeze(), out);
            }
            Ok(_) => self.cut("internal", "another_caller", out),
            Err(error) => self.refuse(Refusal::BadToken(error), None, out),
        }
    }

    fn admit(&self, head: Box<Head>, principal: Arc<Principal>) -> Result<Caller, Refusal> {
        let place = self
            .rules
            .admission
            .enter(&principal.issuer, &principal.subject)
            .map_err(Refusal::from)?;
        let endpoint = match head.upgrade {
            true => upgrade::ENDPOINT,
            false => head
                .connection
                .route
                .endpoint(&head.method, &head.path)
                .copied()
                .ok_or(Refusal::EndpointNotAllowed)?,
        };
        grant::covers_endpoint(&principal, &head, &endpoint)?;
        if head.query_names_model() && !head.upgrade {
            let reason = "the model belongs in the body, not in the query".to_owned();
            return Err(Refusal::Shape(ShapeError {
                code: "conflicting_model",
                reason,
            }));
        }
        if !head.is_unencoded() {
            return Err(Refusal::EncodedRequest);
        }
        Ok(Caller {
            head,
            principal,
            endpoint,
            place,
        })
    }

    pub(super) fn on_request_body(&mut self, bytes: &Bytes, end: bool, out: &mut Vec<Output>) {
        let limit = self.rules.limits.request_body;
        if self.request.is_upgrade() {
            return self.pass_request(bytes, end, out);
        }
        let stranger = self.request.is_strange();
        let body = match &mut self.request {
            Request::AwaitingIdentity(_, body) | Request::AwaitingBody(_, body) if !body.whole => {
                body
            }
            // After a refusal Envoy may still have pieces on the way; after the end, an empty one (envoy.md).
            Request::Refused => return,
            Request::AwaitingIdentity(_, body) if body.fault.is_some() => return,
            Request::AwaitingHeaders => return self.protocol_error(out),
            _ if bytes.is_empty() => return,
            _ => return self.protocol_error(out),
        };
        let length = body.bytes.len() + bytes.len();
        let mut room = || {
            if stranger {
                self.strange.set(length)?;
            }
            self.share.set(length)
        };
        let fault = match length > limit {
            true => Some(Refusal::RequestTooLarge),
            false => room().err().map(Refusal::from),
        };
        match fault {
            Some(refusal) => self.refuse_body(refusal, out),
            None => {
                body.bytes.extend_from_slice(bytes);
                body.whole = end;
                self.decide_when_whole(out);
            }
        }
    }

    pub(super) fn on_request_trailers(&mut self, out: &mut Vec<Output>) {
        match self.request {
            Request::AwaitingIdentity(..) | Request::AwaitingBody(..) => {
                self.refuse_body(Refusal::RequestTrailers, out);
            }
            Request::Refused => {}
            _ => self.protocol_error(out),
        }
    }

    /// Refuses for what is wrong with the body. Where it is not known yet who sent it, that is settled first: a known
    /// caller's refusal is on record, and who is not known is told no more than that.
    fn refuse_body(&mut self, refusal: Refusal, out: &mut Vec<Output>) {
        match &mut self.request {
            Request::AwaitingIdentity(_, body) if body.fault.is_some() => {}
            Request::AwaitingIdentity(_, body) => {
                *body = Body {
                    whole: true,
                    fault: Some(refusal),
                    ..Body::default()
                };
            }
            _ => self.refuse(refusal, None, out),
        }
    }

    /// Refuses before anything was forwarded. A known caller's refusal is recorded first; a stranger's is only counted.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        read: Option<Box<Read>>,
        out: &mut Vec<Output>,
    ) {
        self.request = Request::Refused;
        if !self.summary.authenticated {
            return self.tell(&refusal, out);
        }
        let Read {
            decision,
            mut request,
            original,
        } = *read.unwrap_or_default();
        if request.payload.is_empty() {
            request.payload = "omit".into();
        }
        let verdict = if matches!(refusal, Refusal::ApprovalRequired) {
            "hold"
        } else {
            "deny"
        };
        let decision = record::Decision {
            verdict: verdict.into(),
            policy_digest: self.rules.digest.clone(),
            code: refusal.code().into(),
            reason: refusal.message(),
            ..decision
        };
        let status = self.status_of(&refusal).into();
        let entries = self
            .journal
            .refused(request, original.as_deref(), decision, status);
        self.record(Step::Refused(refusal), entries, out);
    }

    fn decide_when_whole(&mut self, out: &mut Vec<Output>) {
        match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingBody(caller, body) if body.whole => {
                if self.elapsed.saturating_sub(self.identified) < KNOWN_FOR {
                    return self.decide(*caller, body.bytes.freeze(), out);
                }
                let Some(presented) = caller.head.presented_again() else {
                    return self.cut("internal", "nothing_presented", out);
                };
                self.request = Request::AwaitingBody(caller, body);
                self.enter(Phase::Identify);
                out.push(Output::Authenticate(Box::new(presented)));
            }
            unfinished => self.request = unfinished,
        }
    }

    /// The whole request is here: what does policy say?
    fn decide(&mut self, mut caller: Caller, mut received: Bytes, out: &mut Vec<Output>) {
        let weighed = match self.weigh(&mut caller, &mut received) {
            Ok(weighed) => weighed,
            Err((refusal, read)) => return self.refuse(refusal, read, out),
        };
        let now = self.now.saturating_add(self.elapsed).unwrap_or(self.now);
        if let Err(refusal) = grant::still_counts(&caller, now) {
            return self.refuse(refusal, Some(weighed.read), out);
        }
        match weighed.leave {
            Leave::Permit(permit) => {
                let forward = Forward::new(permit, weighed.parts, caller.place);
                self.take_use(
                    &caller.principal,
                    Then::Open(Box::new(forward)),
                    weighed.read,
                    out,
                );
            }
            Leave::Pending(_) => self.ask(caller, received, weighed, out),
        }
    }

    /// What policy says of the request, and what would go upstream. Where it may have to be approved, `received` stays.
    pub(super) fn weigh(
        &mut self,
        caller: &mut Caller,
        received: &mut Bytes,
    ) -> Result<Weighed, Refused> {
        let Caller {
            head,
            principal,
            endpoint,
            ..
        } = caller;
        self.enter(Phase::Decide);
        let endpoint = *endpoint;
        let connection = head.connection.clone();
        // What may be lent now, and not when the request's head came or when somebody was asked about it.
        let guard = head.lending.guard.clone();
        head.stand_under(connection.clone());
        if !Arc::ptr_eq(&guard, &head.lending.guard) {
            // Of what was kept for the record, too, nothing may show a value that is new.
            self.journal.known(identity(principal), head.record());
        }
        self.journal.guarded(head.lending.guard.clone());
        let length = received.len();
        let may_hold = connection.chain.most_owed().is_some();
        let copies = COPIES + usize::from(connection.seals()) + usize::from(may_hold);
        if let Err(full) = self.share.set(copies * length) {
            return Err((full.into(), None));
        }
        let original = connection.seals().then(|| received.clone());
        let secrets = connection.secrets(principal, received);
        let received = match may_hold {
            true => received.clone(),
            false => std::mem::take(received),
        };
        let mut body = read(head, endpoint, received).map_err(|refusal| (refusal, None))?;
        body.select(&connection.fields);
        // What a small body is taken apart into may be large; for as long as it is looked at.
        let apart = body.memory();
        if let Err(full) = self.share.set(copies * length + apart) {
            return Err((full.into(), None));
        }
        let unscannable = unscannable(&connection, &mut *body);
        let texts = body.texts();
        let apart = apart + Looked::room(&connection, texts.len());
        if let Err(full) = self.share.set(copies * length + apart) {
            return Err((full.into(), None));
        }
        let (findings, looked) = look(head, &texts);
        let apart = apart + looked.memory();
        if let Err(full) = self.share.set(copies * length + apart) {
            return Err((full.into(), None));
        }
        // Where none of all detectors finds anything, none of some does, and there is nothing to be masked.
        let labelled = texts.iter().any(|text| !text.label.is_empty());
        let clean = findings.is_empty() && (!labelled || connection.everything.reads_labels());
        let call = call(head, endpoint, &*body, length);
        let risk = self.rules.risk.score(&call, &findings);
        let verdict = connection.chain.evaluate(&policy::Request {
            principal,
            call: &call,
            findings: &findings,
            connection: &connection.name,
            dialect: connection.dialect.name(),
            risk,
            time: Some(self.rules.local_time(self.now)),
        });
        self.note_verdict(&verdict);
        self.enter(Phase::MaskRequest);
        let mut read = Box::new(Read {
            decision: record::Decision {
                policies: verdict.decided_by,
                exempt_from: verdict.exempt_from,
                faults: verdict.faults,
                ..Default::default()
            },
            request: shown(head, &*body, &findings, looked, length),
            original,
        });
        self.summary.called = Some(Called {
            dialect: connection.dialect.name(),
            endpoint: endpoint.name,
            model: read.request.model.clone(),
            stream: call.stream,
        });
        if !grant::covers_model(principal, &call.model) {
            return Err((Refusal::OutsideGrant("model"), Some(read)));
        }
        let (leave, mut references) = match verdict.outcome {
            Outcome::Deny(denial) => return Err((Refusal::Denied(denial), Some(read))),
            _ if unscannable.is_some() => {
                let why = Refusal::Unscannable(unscannable.unwrap_or_default());
                return Err((why, Some(read)));
            }
            Outcome::Allow(permit) => (Leave::Permit(permit), Vec::new()),
            Outcome::Hold(pending) => (Leave::Pending(pending), body.references()),
        };
        references.sort_unstable();
        references.dedup();
        let obligations = match &leave {
            Leave::Permit(permit) => permit.obligations(),
            Leave::Pending(pending) => pending.obligations(),
        };
        let parts = match prepare(head, endpoint, &*body, obligations, &secrets, clean) {
            Ok(parts) => parts,
            Err(refusal) => return Err((refusal, Some(read))),
        };
        // Stand-ins can be longer than what they stand for.
        let held = length + parts.memory() + read.memory();
        if let Err(full) = self.share.set(held.max(copies * length) + apart) {
            return Err((full.into(), Some(read)));
        }
        let request = &mut read.request;
        request.masked.clone_from(&parts.body.operators);
        if request.body.as_bytes() == parts.body.bytes {
            request.forwarded_sha256 = crate::audit::sha256_hex(&parts.body.bytes);
        }
        Ok(Weighed {
            leave,
            parts,
            read,
            call,
            findings,
            risk,
            references,
        })
    }

    pub(super) fn note_verdict(&mut self, verdict: &policy::Verdict) {
        let summary = &mut self.summary;
        summary.faults.clone_from(&verdict.faults);
        summary.policies.clone_from(&verdict.decided_by);
        if summary.verdict.is_empty() {
            summary.verdict = match verdict.outcome {
                Outcome::Allow(_) => "allow",
                Outcome::Deny(_) => "deny",
                Outcome::Hold(_) => "hold",
            };
        }
    }

    pub(super) fn open(&mut self, forward: Forward, read: Box<Read>, out: &mut Vec<Output>) {
        let decision = record::Decision {
            verdict: "allow".into(),
            policy_digest: self.rules.digest.clone(),
            ..read.decision
        };
        let original = read.original.as_deref();
        let lent = forward.parts.lent.clone();
        let entries = (self.journal).opened(read.request, original, decision, lent);
        self.request = Request::AwaitingOpened(Box::new(forward));
        // A crash after this line leaves an `opened` that recovery closes as unknown; nothing has gone upstream yet.
        self.record(Step::Opened, entries, out);
    }

    /// `opened` is durable: now, and only now, the request goes upstream.
    pub(super) fn on_opened(&mut self, out: &mut Vec<Output>) {
        self.journal.mark_open();
        if self.ending.is_some() {
            return self.close(out);
        }
        let Request::AwaitingOpened(forward) =
            std::mem::replace(&mut self.request, Request::Refused)
        else {
            return self.cut("internal", "nothing_to_forward", out);
        };
        let Forward {
            permit,
            parts,
            place,
        } = *forward;
        let Parts {
            head,
            body,
            response,
            lent: _,
        } = parts;
        self.response = response;
        if self.response.is_upgrade() {
            self.request = Request::Passed { _place: place };
            begin_upstream(&permit, head, out);
            return self.enter(Phase::Upstream);
        }
        self.request = Request::Forwarded { _place: place };
        self.summary.masked_request = body.counts;
        send_upstream(&permit, head, body.bytes, out);
        self.enter(Phase::Upstream);
    }
}

/// Forwards a head. INVARIANT: asks for the permit, which only policy makes.
fn begin_upstream(_permit: &Permit, head: Mutation, out: &mut Vec<Output>) {
    out.push(Output::Answer(Answer::RequestHeaders(head)));
}

/// Forwards.
fn send_upstream(permit: &Permit, head: Mutation, mut body: Bytes, out: &mut Vec<Output>) {
    begin_upstream(permit, head, out);
    while body.len() > PIECE {
        let piece = body.split_to(PIECE);
        out.push(Output::Answer(Answer::RequestBody(piece, false)));
    }
    out.push(Output::Answer(Answer::RequestBody(body, true)));
}

fn read(head: &Head, endpoint: Endpoint, received: Bytes) -> Result<Box<dyn RequestBody>, Refusal> {
    head.connection
        .dialect
        .read_request(&endpoint, &head.path, head.content_type()?, received)
        .map_err(Refusal::Shape)
}

fn call(head: &Head, endpoint: Endpoint, body: &dyn RequestBody, length: usize) -> Call {
    Call {
        method: head.method.clone(),
        authority: head.authority.clone(),
        path: head.path.clone(),
        endpoint: endpoint.name.to_owned(),
        model: body.model().to_owned(),
        stream: body.stream(),
        tools: body.tools(),
        body_bytes: length as u64,
        upgrade: false,
    }
}

/// What goes upstream under `obligations`, and how its answer will be treated.
fn prepare(
    head: &Head,
    endpoint: Endpoint,
    body: &dyn RequestBody,
    obligations: &Obligations,
    secrets: &Secrets,
    clean: bool,
) -> Result<Parts, Refusal> {
    let connection = &head.connection;
    let mutation = head.mutation(body.model())?;
    let masked = Masked::of(connection, &obligations.mask_request, body, secrets, clean);
    let masked = masked.map_err(|_| Refusal::Unmaskable)?;
    let response = Response::expected(head, endpoint, obligations, secrets)
        .map_err(|_| Refusal::Unmaskable)?;
    Ok(Parts {
        lent: head.lent_from(body.model()),
        head: mutation,
        body: masked,
        response,
    })
}

/// Why the request may not pass: something no detector can look into is in it. Where such parts are to be taken out,
/// they are.
fn unscannable(connection: &Connection, body: &mut dyn RequestBody) -> Option<&'static str> {
    let becomes = |kind: &str| match kind {
        NOT_SELECTED => Unscanned::Allow,
        kind if SIGNED.contains(&kind) => connection.signed,
        _ => connection.unscanned,
    };
    let mut kinds = body.unscanned().iter();
    let refused = kinds.find(|kind| becomes(kind) == Unscanned::Refuse);
    refused
        .copied()
        .or_else(|| body.strip(&|kind| becomes(kind) == Unscanned::Strip).err())
}

/// A request's body as it goes upstream, and what was masked in it.
#[derive(Default)]
pub(super) struct Masked {
    bytes: Bytes,
    operators: BTreeMap<String, String>,
    counts: BTreeMap<String, u64>,
}

impl Masked {
    fn of(
        connection: &Connection,
        obligations: &Owed,
        body: &dyn RequestBody,
        secrets: &Secrets,
        clean: bool,
    ) -> Result<Self, DetectorError> {
        let mut plan = None;
        if !clean {
            plan = connection.request_plan(obligations, secrets)?;
        }
        let mut counts = BTreeMap::new();
        let bytes = body.rewrite(&mut |text| masked_text(plan.as_ref()?, text, &mut counts));
        let operators = obligations
            .iter()
            .filter(|(entity, _)| counts.contains_key(&***entity))
            .map(|(entity, operator)| (entity.to_string(), operator.to_string()))
            .collect();
        Ok(Self {
            bytes,
            operators,
            counts,
        })
    }
}

/// `text` under `plan`, adding to `counts`: `None` where nothing changed.
fn masked_text(
    plan: &Arc<Plan>,
    text: Text<'_>,
    counts: &mut BTreeMap<String, u64>,
) -> Option<String> {
    if let Some(entity) = text.entity {
        let (entity, masked) = plan.named(entity, text.text)?;
        *counts.entry(entity.to_string()).or_default() += 1;
        return Some(masked);
    }
    let (masked, found) = mask::find_under(plan, text.label, text.text);
    for (entity, n) in found {
        *counts.entry(entity.to_string()).or_default() += n;
    }
    masked.filter(|masked| masked != text.text)
}

/// What the record may show of each text, where that is not the text itself: kept from when it was counted what is in them.
/// Nothing where the record shows no text.
struct Looked<'t>(Vec<(Text<'t>, Option<String>)>);

impl Looked<'_> {
    /// How far apart the order in which texts are listed and that in which they are put back may be.
    const NEAR: usize = 4;

    /// Bytes in memory that so many texts take, whatever is in them.
    fn room(connection: &Connection, texts: usize) -> usize {
        if connection.record_text {
            texts * size_of::<(Text<'_>, Option<String>)>()
        } else {
            0
        }
    }

    /// Bytes in memory besides that.
    fn memory(&self) -> usize {
        let shown = self.0.iter().filter_map(|(_, shown)| shown.as_ref());
        shown.map(String::capacity).sum()
    }

    /// What is shown of `text`, which is asked for once and nearly in order; `None` where it is not known.
    fn take(&mut self, at: &mut usize, text: Text<'_>) -> Option<Option<String>> {
        let mut near = self.0.iter_mut().enumerate().skip(*at).take(Self::NEAR);
        let (found, shown) =
            near.find_map(|(n, (known, shown))| (*known == text).then_some((n, shown)))?;
        *at = found + 1;
        Some(shown.take())
    }
}

/// The request as the record may show it: whatever is done to the traffic, everything a detector knows is masked here.
fn shown(
    head: &Head,
    body: &dyn RequestBody,
    findings: &BTreeMap<Entity, u64>,
    mut looked: Looked<'_>,
    length: usize,
) -> record::RequestRecord {
    let (connection, guard) = (&head.connection, &head.lending.guard);
    let plan = guard.record_plan();
    let text = if connection.record_text {
        let mut at = 0;
        let shown = body.shown(&mut |text| match looked.take(&mut at, text) {
            Some(shown) => shown,
            None => masked_text(plan, text, &mut BTreeMap::new()),
        });
        // Once more as a whole: what stands where the protocol has words of its own (a model's name, an id) was chosen by
        // the caller too.
        mask::find(plan, &shown).0.unwrap_or(shown)
    } else {
        String::new()
    };
    record::RequestRecord {
        payload: connection.payload().into(),
        body: text,
        bytes: length as u64,
        findings: findings
            .iter()
            .map(|(entity, n)| (entity.to_string(), clamp(*n)))
            .collect(),
        model: mask::mask(plan, body.model()).0,
        stream: body.stream(),
        unscanned: body
            .unscanned()
            .iter()
            .map(|kind| (*kind).to_owned())
            .collect(),
        ..Default::default()
    }
}

/// What is in `texts`, and how the record shows them.
fn look<'t>(head: &Head, texts: &[Text<'t>]) -> (BTreeMap<Entity, u64>, Looked<'t>) {
    let (everything, guard) = (&head.connection.everything, &head.lending.guard);
    let (known, plan) = (everything.entities(), guard.record_plan());
    let mut counts = BTreeMap::new();
    let mut found = |entity: Entity, n| *counts.entry(entity).or_default() += n;
    let keep = head.connection.record_text;
    let mut looked = Vec::with_capacity(if keep { texts.len() } else { 0 });
    for text in texts {
        if let Some(entity) = text.entity {
            found(entity.into(), 1);
            continue;
        }
        let (shown, counts) = mask::find_under(plan, text.label, text.text);
        let lent = counts.keys().any(|entity| !known.contains(entity));
        if lent && text.label.is_empty() {
            // A credential may have hidden what policy counts.
            let findings = everything.find(text.text);
            findings.into_iter().for_each(|one| found(one.entity, 1));
        } else {
            let counts = counts.into_iter();
            counts
                .filter(|(entity, _)| known.contains(entity))
                .for_each(|(entity, n)| found(entity, n));
        }
        if keep {
            looked.push((*text, shown.filter(|shown| shown != text.text)));
        }
    }
    (counts, Looked(looked))
}

/// A caller, as records have them.
#[must_use]
pub fn identity(principal: &Principal) -> record::Identity {
    record::Identity {
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        groups: principal.groups.clone(),
        claims: principal.claims.clone(),
        auth_method: principal.auth_method.name().to_owned(),
        token_hash: hex::encode(principal.token_hash),
        grant: principal.grant.as_deref().map(|grant| record::GrantHeld {
            id: grant.id.clone(),
            max_uses: grant.scope.max_uses.unwrap_or(0),
            approval: grant.approval.clone().unwrap_or_default(),
            obtained_with: grant.obtained_with.clone(),
        }),
    }
}

fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
