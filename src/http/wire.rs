//! What travels: the bodies of the API, as the service writes them and the command line reads them.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::approval::{Approval, Digest, Given, Id, Party, Requirement, State, View, Vote};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Account {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
}

impl From<&Party> for Account {
    fn from(party: &Party) -> Self {
        Self {
            issuer: party.issuer.clone(),
            subject: party.subject.clone(),
        }
    }
}

/// That a grant counts no more.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Revocation {
    /// The grant.
    pub id: String,
    /// Always true.
    pub revoked: bool,
}

/// One approval of a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listed {
    /// The approval.
    #[schemars(with = "String")]
    pub id: Id,
    /// Where it stands.
    pub state: State,
    /// When it was asked.
    #[schemars(extend("format" = "date-time"))]
    pub asked_at: String,
    /// Until when a decision counts, or, once it is approved, until when the request may come.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// Who asked.
    pub caller: Account,
    /// The connection.
    pub connection: String,
    /// The endpoint.
    pub endpoint: String,
    /// The model.
    pub model: String,
    /// The risk score.
    pub risk: i64,
    /// Why it needs an approval.
    pub reasons: Vec<String>,
    /// Groups that fill its seats, one for each seat.
    pub seats: Vec<String>,
    /// How many have decided.
    pub decided: usize,
}

impl Listed {
    /// `approval` as it is at `now`.
    #[must_use]
    pub fn of(approval: &Approval, now: Timestamp) -> Self {
        let asked = &approval.asked;
        Self {
            id: asked.id.clone(),
            state: approval.state_at(now),
            asked_at: approval.asked_at.to_string(),
            expires_at: approval.until.to_string(),
            caller: Account::from(&asked.caller),
            connection: asked.view.connection.clone(),
            endpoint: asked.view.endpoint.clone(),
            model: asked.view.model.clone(),
            risk: asked.view.risk,
            reasons: asked.requirement.reasons.clone(),
            seats: asked.requirement.seats().map(str::to_owned).collect(),
            decided: approval.votes.len(),
        }
    }
}

/// A page of approvals, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct List {
    /// The approvals.
    pub approvals: Vec<Listed>,
    /// The `cursor` of the next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Somebody's decision.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Decision {
    /// Whose.
    pub by: Account,
    /// Their groups, as far as the approval asks for them.
    pub groups: Vec<String>,
    /// Which.
    pub decision: Given,
    /// Why.
    pub reason: String,
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

impl From<&Vote> for Decision {
    fn from(vote: &Vote) -> Self {
        Self {
            by: Account::from(&vote.by.who),
            groups: vote.by.groups.iter().cloned().collect(),
            decision: vote.given,
            reason: vote.reason.clone(),
            at: vote.at.to_string(),
        }
    }
}

/// All of an approval, for who decides and who audits. Whoever has it can compute the binding again: nothing that the binding
/// covers is left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Full {
    /// The approval.
    #[schemars(with = "String")]
    pub id: Id,
    /// Where it stands.
    pub state: State,
    /// When it was asked.
    #[schemars(extend("format" = "date-time"))]
    pub asked_at: String,
    /// Until when a decision counts, or, once it is approved, until when the request may come.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// SHA-256 of what is decided on: a decision names it.
    #[schemars(with = "String")]
    pub binding: Digest,
    /// SHA-256 of the request.
    #[schemars(with = "String")]
    pub request: Digest,
    /// The session that asked.
    pub session: String,
    /// Who asked.
    pub caller: Account,
    /// What it takes.
    pub requirement: Requirement,
    /// The request, masked.
    pub view: View,
    /// Decisions so far.
    pub decisions: Vec<Decision>,
}

impl Full {
    /// `approval` as it is at `now`.
    #[must_use]
    pub fn of(approval: &Approval, now: Timestamp) -> Self {
        let asked = &approval.asked;
        Self {
            id: asked.id.clone(),
            state: approval.state_at(now),
            asked_at: approval.asked_at.to_string(),
            expires_at: approval.until.to_string(),
            binding: approval.binding,
            request: asked.request,
            session: asked.session.clone(),
            caller: Account::from(&asked.caller),
            requirement: asked.requirement.clone(),
            view: asked.view.clone(),
            decisions: approval.votes.iter().map(Decision::from).collect(),
        }
    }
}

/// Where an approval stands, and nothing else: what its caller is told, and what a decision or a cancellation led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Status {
    /// The approval.
    #[schemars(with = "String")]
    pub id: Id,
    /// Where it stands.
    pub state: State,
    /// Until when a decision counts, or, once it is approved, until when the request may come.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// What was decided, once it is.
    pub decision: Option<Given>,
}

impl Status {
    /// `approval` as it is at `now`.
    #[must_use]
    pub fn of(approval: &Approval, now: Timestamp) -> Self {
        let state = approval.state_at(now);
        let decision = match state {
            State::Approved | State::Consumed | State::Denied => {
                approval.votes.last().map(|vote| vote.given)
            }
            State::Pending | State::Expired | State::Cancelled => None,
        };
        Self {
            id: approval.asked.id.clone(),
            state,
            expires_at: approval.until.to_string(),
            decision,
        }
    }
}

/// One approval: all of it, or to its caller where it stands.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Shown {
    /// All of it.
    Full(Box<Full>),
    /// Where it stands.
    Status(Status),
}

/// Longest reason, in Unicode scalar values.
pub const MAX_REASON: usize = 1_000;

/// A decision as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// What is decided.
    pub decision: Given,
    /// What is decided on: `binding` of the approval as it was seen.
    #[schemars(
        with = "String",
        regex(pattern = "^[0-9a-fA-F]{64}$"),
        length(equal = 64)
    )]
    pub binding: Digest,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = MAX_REASON))]
    pub reason: String,
}

/// Why something was not done.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Failure {
    /// Why.
    pub error: Fault,
}

/// Why something was not done, for machines and for people.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Fault {
    /// Stays the same as long as what it means does.
    pub code: String,
    /// In words.
    pub message: String,
}

/// A page of `approvals` as it travels.
pub(super) fn listed(approvals: &[Arc<Approval>], next: Option<String>, now: Timestamp) -> List {
    let listed = |approval: &Arc<Approval>| Listed::of(approval, now);
    List {
        approvals: approvals.iter().map(listed).collect(),
        next,
    }
}
