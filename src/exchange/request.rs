//! The request's way: find the connection, know the caller, read the whole body, decide, record, forward.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use secrecy::SecretString;

use super::{
    Answer, Attributes, Ending, Exchange, Mutation, Output, Refusal, Step,
    budget::{Full, Place},
    headers::Headers,
    response::Response,
    rules::{self, CREDENTIAL_HEADERS, CREDENTIAL_PARAMETERS, Connection},
};
use crate::{
    audit::record,
    detect::{DetectorError, Entity},
    dialect::{Endpoint, RequestBody, ShapeError},
    identity::{Principal, TokenError},
    mask::{self, Plan},
    policy::{self, Call, Outcome, Permit, Verdict},
};

/// The largest piece of a body sent to Envoy in one message, in bytes: well under gRPC's 4 MiB.
const PIECE: usize = 1 << 20;

/// Headers of the caller that never go upstream besides those that carry credentials. `accept-encoding` because an answer
/// must arrive as plain text to be read.
const DROPPED_HEADERS: [&str; 4] = ["accept-encoding", "cookie", "proxy-authorization", "prefer"];

/// Prefixes of headers that are ours alone.
const OUR_PREFIXES: [&str; 2] = ["countersign-", "x-countersign-"];

/// Where the request stands, named for what is awaited.
#[derive(Debug)]
pub(super) enum Request {
    AwaitingHeaders,
    AwaitingIdentity(Head, Body),
    AwaitingBody(Box<Caller>, Body),
    AwaitingOpened(Box<Forward>),
    /// Refused, told or about to be.
    Refused,
    Forwarded {
        /// Kept so that the caller's place is taken until the answer is over.
        _place: Place,
    },
}

/// What the head said.
#[derive(Debug)]
pub(super) struct Head {
    connection: Arc<Connection>,
    headers: Headers,
    attributes: Attributes,
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
}

/// The body so far.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: BytesMut,
    whole: bool,
}

/// A known caller and what they call.
#[derive(Debug)]
pub(super) struct Caller {
    head: Head,
    principal: Arc<Principal>,
    endpoint: Endpoint,
    place: Place,
}

/// A request ready to go. INVARIANT: made only together with the permit it holds.
#[derive(Debug)]
pub(super) struct Forward {
    permit: Permit,
    head: Mutation,
    body: Bytes,
    /// How the answer will be treated.
    response: Response,
    caller: Box<Caller>,
}

impl Exchange {
    pub(super) fn on_request_headers(
        &mut self,
        headers: &Headers,
        attributes: Attributes,
        end: bool,
        out: &mut Vec<Output>,
    ) {
        if !matches!(self.request, Request::AwaitingHeaders) {
            return self.abort("protocol_error", "unexpected_message", out);
        }
        let (head, token) = match self.read_head(headers, attributes) {
            Ok(read) => read,
            Err(refusal) => {
                self.request = Request::Refused;
                return self.tell(&refusal, out);
            }
        };
        self.summary.connection.clone_from(&head.connection.name);
        self.request = Request::AwaitingIdentity(
            head,
            Body {
                whole: end,
                ..Body::default()
            },
        );
        out.push(Output::Authenticate(token));
    }

    fn read_head(
        &mut self,
        headers: &Headers,
        attributes: Attributes,
    ) -> Result<(Head, SecretString), Refusal> {
        let single = |name: &'static str| {
            headers
                .one(name)
                .map_err(|_| Refusal::AmbiguousHeader(name))
        };
        let method = single(":method")?.unwrap_or_default().to_owned();
        let authority = single(":authority")?.unwrap_or_default().to_owned();
        let target = single(":path")?.unwrap_or_default();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.to_owned(), None),
        };
        if !is_plain(&path) {
            return Err(Refusal::OddPath);
        }
        let connection = self
            .rules
            .connection(&authority, &path)
            .ok_or(Refusal::UnknownConnection)?
            .clone();
        self.journal.found(connection.clone());
        if method == "CONNECT" || headers.has("upgrade") || headers.has(":protocol") {
            return Err(Refusal::Upgrade);
        }
        let token = rules::token(headers, connection.token_header).map_err(Refusal::BadToken)?;
        let head = Head {
            connection,
            headers: headers.clone(),
            attributes,
            method,
            authority,
            path,
            query,
        };
        Ok((head, token))
    }

    pub(super) fn on_authenticated(
        &mut self,
        result: Result<Arc<Principal>, TokenError>,
        out: &mut Vec<Output>,
    ) {
        let Request::AwaitingIdentity(head, body) =
            std::mem::replace(&mut self.request, Request::Refused)
        else {
            return self.abort("protocol_error", "unexpected_message", out);
        };
        let principal = match result {
            Ok(principal) => principal,
            Err(error) => return self.tell(&Refusal::BadToken(error), out),
        };
        self.summary.authenticated = true;
        self.journal
            .known(identity(&principal), endpoint_record(&head));
        match self.admit(head, principal) {
            Ok(caller) => {
                self.request = Request::AwaitingBody(Box::new(caller), body);
                self.decide_when_whole(out);
            }
            Err(refusal) => self.refuse(refusal, None, out),
        }
    }

    fn admit(&self, head: Head, principal: Arc<Principal>) -> Result<Caller, Refusal> {
        let place = self
            .rules
            .admission
            .enter(&principal.issuer, &principal.subject)
            .map_err(|full| match full {
                Full::Principal => Refusal::TooManyStreams,
                Full::Gateway => Refusal::Overloaded,
            })?;
        let endpoint = head
            .connection
            .route
            .endpoint(&head.method, &head.path)
            .copied()
            .ok_or(Refusal::EndpointNotAllowed)?;
        if !matches!(
            head.headers.one("content-encoding"),
            Ok(None | Some("identity"))
        ) {
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
        let body = match &mut self.request {
            Request::AwaitingIdentity(_, body) | Request::AwaitingBody(_, body) if !body.whole => {
                body
            }
            // After a refusal Envoy may still have pieces on the way; after the end, an empty one (envoy.md).
            Request::Refused => return,
            _ if bytes.is_empty() => return,
            _ => return self.abort("protocol_error", "unexpected_message", out),
        };
        let length = body.bytes.len() + bytes.len();
        let fault = if length > limit {
            Some(Refusal::RequestTooLarge)
        } else if self.share.set(length).is_err() {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        if let Some(refusal) = fault {
            return self.refuse(refusal, None, out);
        }
        body.bytes.extend_from_slice(bytes);
        body.whole = end;
        self.decide_when_whole(out);
    }

    pub(super) fn on_request_trailers(&mut self, out: &mut Vec<Output>) {
        match self.request {
            Request::AwaitingIdentity(..) | Request::AwaitingBody(..) => {
                self.refuse(Refusal::RequestTrailers, None, out)
            }
            Request::Refused => {}
            _ => self.abort("protocol_error", "unexpected_message", out),
        }
    }

    /// Refuses before anything was forwarded. A known caller's refusal is recorded first; a stranger's is only counted.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        decided: Option<(&Verdict, record::RequestRecord)>,
        out: &mut Vec<Output>,
    ) {
        self.request = Request::Refused;
        let _ = self.share.set(0);
        if !self.summary.authenticated {
            return self.tell(&refusal, out);
        }
        let (policies, request) = match decided {
            Some((verdict, request)) => (verdict.decided_by.clone(), request),
            None => (
                Vec::new(),
                record::RequestRecord {
                    payload: "omit".into(),
                    ..Default::default()
                },
            ),
        };
        let decision = record::Decision {
            verdict: "deny".into(),
            policies,
            policy_digest: self.rules.digest.clone(),
            code: refusal.code().into(),
            reason: refusal.message(),
        };
        let entries = self
            .journal
            .refused(request, decision, refusal.status().into());
        self.record(Step::Refused(refusal), entries, out);
    }

    fn decide_when_whole(&mut self, out: &mut Vec<Output>) {
        match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingBody(caller, body) if body.whole => {
                self.decide(caller, body.bytes.freeze(), out)
            }
            unfinished => self.request = unfinished,
        }
    }

    /// The whole request is here: what does policy say?
    fn decide(&mut self, caller: Box<Caller>, received: Bytes, out: &mut Vec<Output>) {
        let length = received.len();
        let connection = caller.head.connection.clone();
        let read = match caller.read(received) {
            Ok(read) => read,
            Err(refusal) => return self.refuse(refusal, None, out),
        };
        let texts = read.texts();
        let findings = count(&connection, &texts);
        let mut recorded = record::RequestRecord {
            payload: "omit".into(),
            bytes: length as u64,
            findings: findings
                .iter()
                .map(|(entity, n)| (entity.to_string(), clamp(*n)))
                .collect(),
            model: read.model().to_owned(),
            stream: read.stream(),
            unscanned: read
                .unscanned()
                .iter()
                .map(|kind| (*kind).to_owned())
                .collect(),
            ..Default::default()
        };
        let call = caller.call(&*read, length);
        let verdict = connection.chain.evaluate(&policy::Request {
            principal: &caller.principal,
            call: &call,
            findings: &findings,
            connection: &connection.name,
            dialect: connection.dialect.name(),
        });
        let permit = match verdict.outcome {
            Outcome::Allow(permit) => permit,
            Outcome::Deny(ref denial) => {
                let refusal = Refusal::Denied(denial.clone());
                show(&connection, &*read, &mut recorded);
                return self.refuse(refusal, Some((&verdict, recorded)), out);
            }
        };
        if let Some(kind) = read
            .unscanned()
            .first()
            .filter(|_| !connection.allow_unscanned)
        {
            let denied = Verdict {
                outcome: Outcome::Allow(permit),
                ..verdict
            };
            return self.refuse(Refusal::Unscannable(kind), Some((&denied, recorded)), out);
        }
        let prepared = caller.head.mutation().and_then(|head| {
            let masked =
                Masked::of(&connection, &permit, &*read).map_err(|_| Refusal::Unmaskable)?;
            let response = Response::expected(&connection, caller.endpoint, permit.obligations());
            Ok((head, masked, response.map_err(|_| Refusal::Unmaskable)?))
        });
        let (head, masked, response) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return self.refuse(refusal, None, out),
        };

        let body = masked.body;
        show(&connection, &*read, &mut recorded);
        recorded.masked = masked.operators;
        if recorded.body.as_bytes() == body {
            recorded.forwarded_sha256 = crate::audit::sha256_hex(&body);
        }
        self.summary.masked_request = masked.counts;
        let decision = record::Decision {
            verdict: "allow".into(),
            policies: verdict.decided_by,
            policy_digest: self.rules.digest.clone(),
            ..Default::default()
        };
        let entries = self.journal.opened(recorded, decision);
        self.request = Request::AwaitingOpened(Box::new(Forward {
            permit,
            head,
            body,
            response,
            caller,
        }));
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
            return self.end(
                Ending::Cut {
                    outcome: "internal",
                    code: "nothing_to_forward",
                },
                out,
            );
        };
        let Forward {
            permit,
            head,
            body,
            response,
            caller,
        } = *forward;
        self.response = response;
        self.send_upstream(&permit, head, body, out);
        self.request = Request::Forwarded {
            _place: caller.place,
        };
        let _ = self.share.set(0);
    }

    /// Forwards. INVARIANT: asks for the permit, which only policy makes.
    fn send_upstream(
        &self,
        _permit: &Permit,
        head: Mutation,
        mut body: Bytes,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Answer(Answer::RequestHeaders(head)));
        while body.len() > PIECE {
            let piece = body.split_to(PIECE);
            out.push(Output::Answer(Answer::RequestBody(piece, false)));
        }
        out.push(Output::Answer(Answer::RequestBody(body, true)));
    }
}

impl Caller {
    fn read(&self, received: Bytes) -> Result<Box<dyn RequestBody>, Refusal> {
        let head = &self.head;
        let content_type = head
            .headers
            .one("content-type")
            .map_err(|_| Refusal::AmbiguousHeader("content-type"))?;
        head.connection
            .dialect
            .read_request(&self.endpoint, content_type, received)
            .map_err(Refusal::Shape)
    }

    fn call(&self, read: &dyn RequestBody, length: usize) -> Call {
        Call {
            method: self.head.method.clone(),
            authority: self.head.authority.clone(),
            path: self.head.path.clone(),
            endpoint: self.endpoint.name.to_owned(),
            model: read.model().to_owned(),
            stream: read.stream(),
            tools: read.tools(),
            body_bytes: length as u64,
        }
    }
}

impl Head {
    /// The head as it goes upstream: no caller credential, nothing of ours, the lent credential where it may be lent.
    fn mutation(&self) -> Result<Mutation, Refusal> {
        let mut set = Vec::new();
        if let Some(credential) = &self.connection.credential {
            if !self
                .connection
                .route
                .may_lend(&self.attributes.route, &self.attributes.cluster)
            {
                return Err(Refusal::RouteNotAllowed);
            }
            set.push((credential.header.clone(), credential.value.clone()));
        }
        if let Some(target) = self.clean_target()? {
            set.push((":path".to_owned(), target.into()));
        }
        let kept = |name: &str| set.iter().any(|(set, _)| set == name);
        let mut remove: Vec<String> = CREDENTIAL_HEADERS
            .into_iter()
            .chain(DROPPED_HEADERS)
            .chain([self.connection.token_header])
            .chain(
                self.headers
                    .names()
                    .filter(|name| OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))),
            )
            .filter(|name| !kept(name))
            .map(str::to_owned)
            .collect();
        remove.sort_unstable();
        remove.dedup();
        Ok(Mutation { set, remove })
    }

    /// The path and query without credentials, where that differs from what came.
    fn clean_target(&self) -> Result<Option<String>, Refusal> {
        let Some(query) = &self.query else {
            return Ok(None);
        };
        let name_of = |pair: &str| decoded(pair.split('=').next().unwrap_or_default());
        if query
            .split('&')
            .any(|pair| name_of(pair).eq_ignore_ascii_case("model"))
        {
            let reason = "the model belongs in the body, not in the query".to_owned();
            return Err(Refusal::Shape(ShapeError {
                code: "conflicting_model",
                reason,
            }));
        }
        let kept: Vec<_> = query
            .split('&')
            .filter(|pair| {
                !CREDENTIAL_PARAMETERS
                    .iter()
                    .any(|name| name_of(pair).eq_ignore_ascii_case(name))
            })
            .collect();
        if kept.len() == query.split('&').count() {
            return Ok(None);
        }
        Ok(Some(if kept.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, kept.join("&"))
        }))
    }
}

/// A request's body as it goes upstream, and what was masked in it.
struct Masked {
    body: Bytes,
    operators: BTreeMap<String, String>,
    counts: BTreeMap<String, u64>,
}

impl Masked {
    fn of(
        connection: &Connection,
        permit: &Permit,
        read: &dyn RequestBody,
    ) -> Result<Self, DetectorError> {
        let obligations = &permit.obligations().mask_request;
        let plan = connection.request_plan(obligations)?;
        let mut counts = BTreeMap::new();
        let body = read.rewrite(&mut |text| masked_text(plan.as_ref()?, text, &mut counts));
        let operators = obligations
            .iter()
            .filter(|(entity, _)| counts.contains_key(&***entity))
            .map(|(entity, operator)| (entity.to_string(), operator.to_string()))
            .collect();
        Ok(Self {
            body,
            operators,
            counts,
        })
    }
}

/// `text` under `plan`, adding to `counts`: `None` where nothing changed.
fn masked_text(plan: &Plan, text: &str, counts: &mut BTreeMap<String, u64>) -> Option<String> {
    let (masked, found) = mask::mask(plan, text);
    for (entity, n) in found {
        *counts.entry(entity.to_string()).or_default() += n;
    }
    (masked != text).then_some(masked)
}

/// Adds to `recorded` what the record may show of the prompt.
fn show(connection: &Connection, read: &dyn RequestBody, recorded: &mut record::RequestRecord) {
    if !connection.record_text {
        return;
    }
    let plan = &connection.record_plan;
    let shown = read.rewrite(&mut |text| masked_text(plan, text, &mut BTreeMap::new()));
    recorded.payload = "masked".into();
    recorded.body = String::from_utf8_lossy(&shown).into_owned();
}

fn count(connection: &Connection, texts: &[&str]) -> BTreeMap<Entity, u64> {
    let mut counts = BTreeMap::new();
    for finding in texts
        .iter()
        .flat_map(|text| connection.everything.find(text))
    {
        *counts.entry(finding.entity).or_default() += 1;
    }
    counts
}

/// Whether every reader takes `path` the same way: no escapes, no empty or dot segments, visible ASCII only.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'\\' | b';' | b'#');
    let dots = |segment| matches!(segment, "." | "..");
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.split('/').any(dots)
}

/// A query name with its percent escapes resolved, as an upstream would read it (RFC 3986 section 2.1).
fn decoded(name: &str) -> String {
    url::form_urlencoded::parse(name.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

fn identity(principal: &Principal) -> record::Identity {
    record::Identity {
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        groups: principal.groups.clone(),
        claims: principal.claims.clone(),
        auth_method: principal.auth_method.name().to_owned(),
        token_hash: hex::encode(principal.token_hash),
    }
}

fn endpoint_record(head: &Head) -> record::Endpoint {
    let endpoint = head.connection.route.endpoint(&head.method, &head.path);
    record::Endpoint {
        connection: head.connection.name.clone(),
        authority: head.authority.clone(),
        method: head.method.clone(),
        path: head.recorded_target(),
        endpoint: endpoint
            .map(|endpoint| endpoint.name.to_owned())
            .unwrap_or_default(),
        route: head.attributes.route.clone(),
        cluster: head.attributes.cluster.clone(),
        source_address: head.attributes.source_address.clone(),
        trace_id: trace_id(&head.headers),
    }
}

impl Head {
    /// Path and query as the record may show them: credentials gone, everything else a detector knows masked.
    fn recorded_target(&self) -> String {
        let target = match self.clean_target() {
            Ok(Some(clean)) => clean,
            Ok(None) => match &self.query {
                Some(query) => format!("{}?{query}", self.path),
                None => self.path.clone(),
            },
            Err(_) => self.path.clone(),
        };
        mask::mask(&self.connection.record_plan, &target).0
    }
}

/// The trace id of a W3C `traceparent`, empty where there is none of the right form.
fn trace_id(headers: &Headers) -> String {
    let id = headers
        .text("traceparent")
        .split('-')
        .nth(1)
        .unwrap_or_default();
    let right = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if right { id.to_owned() } else { String::new() }
}

fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
