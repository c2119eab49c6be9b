//! What is asked of the API, and what it answers: each handler is one sentence of docs/approvals-api.md.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::to_bytes,
    extract::{
        FromRequestParts, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    Backing,
    access::{Access, Roles},
    list::{self, Filter},
    refused::Refused,
    wire::{Decide, Full, List, MAX_REASON, Shown, Status, listed},
};
use crate::{
    approval::{
        Approval, Approver, Cannot, Decided, Fate, Id, Ignored, Party, State as Stands, Stop, judge,
    },
    identity::{self, Presented, Purpose, TokenError},
};

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

pub(super) type Shared = Arc<dyn Backing>;

/// Whoever asks, proved.
#[derive(Debug)]
pub(super) struct Caller {
    party: Party,
    groups: Vec<String>,
    authenticated_at: Option<Timestamp>,
    issued_at: Option<Timestamp>,
    roles: Roles,
    person_missing: bool,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, backing: &Shared) -> Result<Self, Refused> {
        let access = backing.access();
        let presented = presented(parts, &access)?;
        let principal = backing.authenticate(presented).await?;
        // Groups of an issuer that is not heard here are none.
        let groups = match access.hears(&principal.issuer) {
            true => principal.groups.clone(),
            false => Vec::new(),
        };
        Ok(Self {
            party: Party::from(&*principal),
            person_missing: principal.person_missing,
            authenticated_at: principal.authenticated_at,
            issued_at: principal.issued_at,
            roles: access.roles(&groups),
            groups,
        })
    }
}

/// What a request shows of whoever sends it. Certificates do not count here: nothing but headers would tell of them.
fn presented(parts: &Parts, access: &Access) -> Result<Presented, TokenError> {
    let tokens = parts.headers.get_all(header::AUTHORIZATION).iter();
    let token = identity::from_authorization(tokens.map(HeaderValue::as_bytes))?;
    let mut proofs = parts.headers.get_all("dpop").iter();
    let proof = proofs.next().map(HeaderValue::to_str).transpose();
    let proof = proof.map_err(|_| TokenError::ProofRepeated)?;
    if proofs.next().is_some() {
        return Err(TokenError::ProofRepeated);
    }
    let address = access.address.as_ref();
    Ok(Presented {
        token: Some(token),
        proof: proof.map(SecretString::from),
        purpose: Purpose::Api,
        method: parts.method.to_string(),
        target: address.map(|address| format!("{address}{}", parts.uri.path())),
        certificate: None,
        again: false,
    })
}

impl Caller {
    /// Whether they may see every approval.
    pub(super) fn reads(&self) -> bool {
        self.roles.read()
    }

    /// Whether they may cancel and revoke.
    pub(super) fn is_admin(&self) -> bool {
        self.roles.admin
    }

    /// The account.
    pub(super) fn into_party(self) -> Party {
        self.party
    }

    /// Whether it is this very account that asked. Stricter than [`Party::is_same_as`], which keeps people *from* something: what
    /// another issuer says of who is behind an account must not open anything.
    fn asked_for(&self, approval: &Approval) -> bool {
        let caller = &approval.asked.caller;
        (&caller.issuer, &caller.subject) == (&self.party.issuer, &self.party.subject)
    }

    /// As who decides on `approval`: with the groups of this token that it asks for.
    fn approver(&self, approval: &Approval) -> Approver {
        let requirement = &approval.asked.requirement;
        let asked_for = |group: &&String| {
            requirement.seats().any(|seat| seat == *group)
                || requirement.break_glass.contains(*group)
        };
        Approver {
            who: self.party.clone(),
            groups: self.groups.iter().filter(asked_for).cloned().collect(),
        }
    }
}

type Answer<T> = Result<Json<T>, Refused>;
pub(super) type AskedId = Result<Path<String>, PathRejection>;

pub(super) async fn approvals(
    State(backing): State<Shared>,
    caller: Caller,
    query: Result<Query<list::Query>, QueryRejection>,
) -> Answer<List> {
    if !caller.reads() {
        return Err(Refused::forbidden());
    }
    let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "bad_query", message);
    let unknown = "the query is `state`, `connection`, `caller`, `limit` and `cursor`, each once at most and of its kind";
    let Query(query) = query.map_err(|_| bad(unknown.to_owned()))?;
    let filter = Filter::try_from(query).map_err(|error| bad(error.to_string()))?;
    let page = backing.list(filter).await?;
    let next = page.next.map(|next| next.to_string());
    Ok(Json(listed(&page.approvals, next, backing.now())))
}

pub(super) async fn approval(
    State(backing): State<Shared>,
    caller: Caller,
    id: AskedId,
) -> Answer<Shown> {
    let approval = known(&backing, id).await?;
    if caller.reads() {
        // On record before it leaves: who saw it is part of the story. A crash here leaves a record of what nobody saw.
        backing.seen(approval.clone(), caller.party).await?;
        let full = Full::of(&approval, backing.now());
        return Ok(Json(Shown::Full(Box::new(full))));
    }
    if caller.asked_for(&approval) {
        return Ok(Json(Shown::Status(Status::of(&approval, backing.now()))));
    }
    Err(Refused::not_found())
}

pub(super) async fn decide(
    State(backing): State<Shared>,
    caller: Caller,
    id: AskedId,
    request: Request,
) -> Answer<Status> {
    let body: Decide = body(request).await?;
    if body.reason.chars().count() > MAX_REASON {
        let message = format!("`reason` is longer than {MAX_REASON} characters");
        return Err(Refused::new(StatusCode::BAD_REQUEST, "bad_body", message));
    }
    let approval = known(&backing, id).await?;
    let by = caller.approver(&approval);
    if let Err(refused) = may_decide(&approval, &caller, &by, &body, &backing) {
        // Who tries what they may not is part of the story too.
        let code = refused.code();
        backing.rejected(approval, caller.party, code).await?;
        return Err(refused);
    }
    let decided = Decided {
        id: approval.asked.id.clone(),
        binding: body.binding,
        given: body.decision,
        by,
        reason: body.reason,
    };
    // The log has the last word: what it makes of the decision is what is answered.
    let fate = backing.decide(decided).await?;
    if let Fate::Ignored(ignored) = &fate {
        let refused = Refused::from(*ignored);
        backing
            .rejected(approval, caller.party, refused.code())
            .await?;
        return Err(refused);
    }
    status(fate, backing.now())
}

/// What can be said before the log is asked, the cause that the decider can do least about first.
fn may_decide(
    approval: &Approval,
    caller: &Caller,
    by: &Approver,
    body: &Decide,
    backing: &Shared,
) -> Result<(), Refused> {
    let asked = &approval.asked;
    if caller.person_missing {
        return Err(Cannot::NoPerson.into());
    }
    let judged = judge(
        &asked.requirement,
        &asked.caller,
        &approval.votes,
        by,
        body.decision,
        &body.reason,
    );
    let never = [Cannot::OwnRequest, Cannot::NotAsked, Cannot::NoBreakGlass];
    if let Err(cannot) = judged
        && never.contains(&cannot)
    {
        return Err(cannot.into());
    }
    let now = backing.now();
    match approval.state_at(now) {
        Stands::Pending => {}
        Stands::Expired => return Err(Ignored::Late.into()),
        state => return Err(Ignored::Over(state).into()),
    }
    judged?;
    if body.binding != approval.binding {
        return Err(Ignored::OtherBinding.into());
    }
    let freshness = backing.freshness();
    freshness
        .check(caller.authenticated_at, caller.issued_at, now)
        .map_err(|cannot| Refused::sign_in_again(cannot, freshness.within))
}

pub(super) async fn cancel(
    State(backing): State<Shared>,
    caller: Caller,
    id: AskedId,
) -> Answer<Status> {
    let approval = known(&backing, id).await?;
    if !caller.roles.admin && !caller.asked_for(&approval) {
        // Who may see it is told why; to others it does not exist.
        return Err(match caller.reads() {
            true => Refused::forbidden(),
            false => Refused::not_found(),
        });
    }
    let stop = Stop {
        id: approval.asked.id.clone(),
        by: Some(caller.party),
    };
    status(backing.cancel(stop).await?, backing.now())
}

async fn known(backing: &Shared, id: AskedId) -> Result<Arc<Approval>, Refused> {
    let id = id.ok().and_then(|Path(id)| Id::new(&id));
    let approval = match id {
        Some(id) => backing.approval(id).await?,
        None => None,
    };
    approval.ok_or_else(Refused::not_found)
}

fn status(fate: Fate, now: Timestamp) -> Answer<Status> {
    match fate {
        Fate::Counts(approval) | Fate::Joins(approval) => Ok(Json(Status::of(&approval, now))),
        // Nobody asks for these here.
        Fate::Used(_) | Fate::Revoked(_) => Err(Refused::not_found()),
        Fate::Ignored(ignored) => Err(ignored.into()),
    }
}

/// The body, of which nothing may be unknown.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    if !is_json(request.headers()) {
        let message = "the body must be application/json, not encoded";
        return Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            message,
        ));
    }
    let read = timeout(BODY_TIME, to_bytes(request.into_body(), MAX_BODY)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        // Too long, or gone in the middle, when nobody reads the answer.
        Ok(Err(_)) => {
            let message = format!("the body is larger than {MAX_BODY} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Refused::new(status, "too_large", message));
        }
        Err(_) => {
            let message = "the body did not come in time";
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(Refused::new(status, "too_slow", message));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        // serde's own words quote what was sent.
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "the body is not what is wanted here: a member that is unknown, missing, repeated or of the wrong kind, or no JSON \
             at all, before line {line}, column {column}"
        );
        Refused::new(StatusCode::BAD_REQUEST, "bad_body", message)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(first), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = first.to_str().unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        && !headers.contains_key(header::CONTENT_ENCODING)
}
