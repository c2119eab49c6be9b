//! A request that must be approved: asked for, waited for or put off, weighed again, claimed, and only then opened.
//!
//! ```text
//!  AwaitingTicket -> AwaitingDecision -> AwaitingClaim -> AwaitingOpened
//!        \__________________\__________________\__ refused, with the ticket where there is one
//! ```
//!
//! Promises: what is released is what was approved: the digest is computed again, from the bytes about to be forwarded, under
//! the rules of that moment, and any difference is a refusal; a stricter policy wins; an approval is claimed in the control
//! log before anything is opened, so that it releases one request, once. Who hangs up leaves the approval pending: an SDK's own
//! retry joins it.
//! Can miss: what the request only refers to. Such requests are refused where a policy does not allow them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::SecretString;

use super::{
    Exchange, Held, NotAsked, NotClaimed, Output, Phase, Refusal, Rules,
    budget::{Place, Share},
    grant::Then,
    messages::Ticket,
    prefer::Prefer,
    request::{Caller, Forward, Leave, Parts, Read, Request, Weighed, identity},
    view,
};
use crate::{
    approval::{
        Approval, Asked, Binding, Claimed, Digest, Id, Mutable, Party, RequestDigest, State, View,
        Wait,
    },
    audit::{record, sha256},
    dialect::MOST_REFERENCES,
    mask,
    policy::Call,
};

/// A request that waits for its approval. Its body is in memory as received and as recorded.
pub(super) struct Waiting {
    caller: Caller,
    received: Bytes,
    read: Box<Read>,
    pub(super) approval: Option<Arc<Approval>>,
    /// How long it may be held.
    patience: Duration,
    /// Taken while it is held.
    _held: Option<(Place, Share)>,
}

/// A request that was approved and weighed again, while its approval is claimed.
pub(super) struct Claiming {
    leave: Leave,
    parts: Parts,
    place: Place,
    approval: Arc<Approval>,
    /// What is about to be claimed.
    claimed: Claimed,
    read: Box<Read>,
}

impl Waiting {
    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.received.len() + self.read.memory()
    }
}

impl Claiming {
    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.parts.memory() + self.read.memory()
    }
}

impl Exchange {
    /// The verdict is that somebody must say yes first.
    pub(super) fn ask(
        &mut self,
        caller: Caller,
        received: Bytes,
        weighed: Weighed,
        out: &mut Vec<Output>,
    ) {
        let Weighed {
            leave,
            parts,
            read,
            call,
            findings,
            risk,
            references,
        } = weighed;
        let Leave::Pending(pending) = leave else {
            return self.cut("internal", "nothing_to_ask", out);
        };
        // As many as are looked for: there may be more, which nobody would see.
        let many = references.len() >= MOST_REFERENCES;
        let refusal = if !references.is_empty() && (many || !pending.allows_mutable()) {
            Some(Refusal::MutableContent(kinds(&references)))
        } else if caller.principal.person_missing {
            Some(Refusal::PersonUnknown)
        } else if caller.head.asks_for_retries() {
            Some(Refusal::RetriesAsked)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.refuse(refusal, Some(read), out);
        }
        let head = &caller.head;
        let prefer = Prefer::read(head.headers());
        let most = match pending.wait() {
            Wait::Hold => prefer.wait.unwrap_or(pending.max_hold()),
            Wait::Caller => prefer.wait.unwrap_or_default(),
            Wait::Defer => Duration::ZERO,
        };
        // RFC 7240, 4.1: without a time to wait, who asks for a late answer does not wait.
        let most = if prefer.respond_async && prefer.wait.is_none() {
            Duration::ZERO
        } else {
            most
        };
        let mut patience = most.min(pending.max_hold());
        let mut held = None;
        let memory = received.len() + read.memory();
        if received.len() > self.rules.approvals.largest_held {
            // What one caller can have held is bounded by number; so is each, or one could hold all memory there is.
            patience = Duration::ZERO;
        }
        if !patience.is_zero() {
            let who = &caller.principal;
            let mut share = self.rules.approvals.held_bytes.share();
            let place = self.rules.approvals.holds.enter(&who.issuer, &who.subject);
            match (place, share.set(memory)) {
                (Ok(place), Ok(())) => held = Some((place, share)),
                // As many are held as can be, or as much: put off instead.
                _ => patience = Duration::ZERO,
            }
        }
        let request = request_digest(&caller, &received, &call, &parts);
        let Some(id) = Id::new(self.session()) else {
            return self.cut("internal", "no_ticket", out);
        };
        let plan = head.lending.guard.record_plan();
        let masked = |text: &str| mask::mask(plan, text).0;
        let findings = findings
            .into_iter()
            .map(|(entity, n)| (entity.to_string(), n))
            .collect();
        let (excerpt, not_shown) = view::excerpt(read.text(), &findings);
        let asked = Asked {
            // One session asks once at most, and its id is as good as any.
            id,
            request,
            session: self.session().to_owned(),
            caller: Party::from(&*caller.principal),
            requirement: pending.requirement().clone(),
            most_pending: self.rules.approvals.most_pending,
            view: View {
                connection: head.connection.name.clone(),
                endpoint: caller.endpoint.name.to_owned(),
                target: view::short(&format!(
                    "{} {}{}",
                    head.method,
                    head.authority,
                    masked(&head.target())
                )),
                headers: view::headers(&head.meaningful(), masked),
                model: masked(&call.model),
                bytes: received.len() as u64,
                risk,
                tools: call.tools,
                findings,
                excerpt,
                not_shown,
                mutable: references
                    .into_iter()
                    .map(|(kind, name)| Mutable {
                        kind: kind.to_owned(),
                        name: view::short(&masked(&name)),
                    })
                    .collect(),
            },
        };
        self.ticket = Some(Ticket {
            id: None,
            respond_async: prefer.respond_async,
        });
        let waiting = Waiting {
            caller,
            received,
            read,
            approval: None,
            patience,
            _held: held,
        };
        self.request = Request::AwaitingTicket(Box::new(waiting));
        self.enter(Phase::Hold);
        out.push(Output::Ask(Box::new(asked)));
    }

    /// The approval is in the control log, this one's or that of the same request asked for before.
    pub(super) fn on_asked(
        &mut self,
        result: Result<Arc<Approval>, NotAsked>,
        out: &mut Vec<Output>,
    ) {
        let mut waiting = match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingTicket(waiting) => waiting,
            other => {
                self.request = other;
                return self.protocol_error(out);
            }
        };
        let approval = match result {
            Ok(approval) => approval,
            Err(not) => {
                let refusal = match not {
                    NotAsked::TooMany => Refusal::TooManyApprovals,
                    NotAsked::Unavailable(code) => Refusal::ApprovalsUnavailable(code),
                };
                return self.refuse(refusal, Some(waiting.read), out);
            }
        };
        if let Some(ticket) = &mut self.ticket {
            ticket.id = Some(approval.asked.id.clone());
        }
        let id = approval.asked.id.clone();
        waiting.approval = Some(approval);
        let patience = waiting.patience;
        let Some(presented) = waiting.caller.head.presented_again() else {
            return self.cut("internal", "nothing_presented", out);
        };
        self.request = Request::AwaitingDecision(waiting);
        if let Some(refusal) = self.unwanted.take() {
            return self.give_up(refusal, out);
        }
        out.push(Output::Hold(id, Box::new(presented), patience));
    }

    /// Somebody decided, or time is over.
    pub(super) fn on_held(&mut self, held: Held, out: &mut Vec<Output>) {
        let waiting = match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingDecision(waiting) => waiting,
            other => {
                self.request = other;
                return self.protocol_error(out);
            }
        };
        let (refusal, approval) = match held {
            Held::Approved {
                approval,
                rules,
                principal,
                now,
            } => {
                self.now = now;
                return self.weigh_again(*waiting, approval, rules, principal, out);
            }
            Held::Pending(approval) => (Refusal::ApprovalRequired, approval),
            Held::Draining(approval) => (Refusal::ShuttingDown, approval),
            Held::Over(approval, State::Denied) => (Refusal::ApprovalDenied, approval),
            Held::Over(approval, State::Cancelled) => (Refusal::ApprovalCancelled, approval),
            Held::Over(approval, State::Consumed) => (Refusal::ApprovalUsed, approval),
            Held::Over(approval, _) => (Refusal::ApprovalExpired, approval),
            Held::Unavailable(code) => {
                return self.refuse(Refusal::ApprovalsUnavailable(code), Some(waiting.read), out);
            }
        };
        let state = match refusal {
            Refusal::ApprovalExpired => State::Expired,
            _ => approval.state,
        };
        let read = waiting.read.under(of_record(&approval, state));
        self.refuse(refusal, Some(read), out);
    }

    /// It is approved: everything is looked at again, under the rules of now.
    fn weigh_again(
        &mut self,
        waiting: Waiting,
        approval: Arc<Approval>,
        rules: Arc<Rules>,
        principal: Result<Arc<crate::identity::Principal>, crate::identity::TokenError>,
        out: &mut Vec<Output>,
    ) {
        let Waiting {
            mut caller,
            mut received,
            read,
            ..
        } = waiting;
        let before = read.under(of_record(&approval, State::Approved));
        let principal = match principal {
            Ok(principal) => principal,
            Err(error) => return self.refuse(Refusal::BadToken(error), Some(before), out),
        };
        let connection = caller.head.connection_under(&rules);
        let Some(connection) = connection.filter(|now| now.name == caller.head.connection.name)
        else {
            return self.refuse(Refusal::UnknownConnection, Some(before), out);
        };
        let endpoint = connection
            .route
            .endpoint(&caller.head.method, &caller.head.path)
            .copied();
        let Some(endpoint) = endpoint else {
            return self.refuse(Refusal::EndpointNotAllowed, Some(before), out);
        };
        let same = (&principal.issuer, &principal.subject)
            == (&caller.principal.issuer, &caller.principal.subject);
        if !same {
            return self.refuse(Refusal::ApprovalMismatch, Some(before), out);
        }
        // Whoever said yes meanwhile must not be who sends it, by what the token says now.
        let now_is = Party::from(&*principal);
        let own = approval
            .votes
            .iter()
            .any(|vote| vote.by.who.is_same_as(&now_is));
        if own || principal.person_missing {
            return self.refuse(Refusal::ApprovalMismatch, Some(before), out);
        }
        self.rules = rules;
        caller.head.stand_under(connection.clone());
        caller.endpoint = endpoint;
        // What was shown when it was asked for must do under the connection as it is now: it may want a token by now, or elsewhere.
        if let Err(error) = caller.head.still_shows(&principal) {
            return self.refuse(Refusal::BadToken(error), Some(before), out);
        }
        caller.principal = principal;
        self.journal.found(connection);
        self.journal
            .known(identity(&caller.principal), caller.head.record());
        drop(before);
        let weighed = match self.weigh(&mut caller, &mut received) {
            Ok(weighed) => weighed,
            Err((refusal, read)) => {
                let read = read.map(|read| read.under(of_record(&approval, State::Approved)));
                return self.refuse(refusal, read, out);
            }
        };
        let Weighed {
            leave,
            parts,
            read,
            call,
            references,
            ..
        } = weighed;
        let read = read.under(of_record(&approval, State::Approved));
        let request = request_digest(&caller, &received, &call, &parts);
        let (leave, is_enough) = match leave {
            // The policies of now ask for none: then it goes by this one all the same, once.
            Leave::Permit(permit) => (Leave::Permit(permit), true),
            Leave::Pending(pending) => {
                let within = pending.requirement().is_within(&approval.asked.requirement);
                let fixed = pending.allows_mutable() || references.is_empty();
                (Leave::Pending(pending), within && fixed)
            }
        };
        if request != approval.asked.request || !is_enough {
            return self.refuse(Refusal::ApprovalMismatch, Some(read), out);
        }
        // As computed from what is about to be forwarded.
        let recomputed = Asked {
            request,
            ..Asked::clone(&approval.asked)
        };
        let claimed = Claimed {
            id: approval.asked.id.clone(),
            binding: Binding(&recomputed).digest(),
            session: self.session().to_owned(),
        };
        let Caller {
            place, principal, ..
        } = caller;
        let claiming = Claiming {
            leave,
            parts,
            place,
            approval,
            claimed,
            read: Box::default(),
        };
        // The use first: an approval is spent by what can go, and by nothing else.
        self.take_use(&principal, Then::Claim(Box::new(claiming)), read, out);
    }

    /// Claims the approval.
    pub(super) fn claim(
        &mut self,
        mut claiming: Box<Claiming>,
        read: Box<Read>,
        out: &mut Vec<Output>,
    ) {
        claiming.read = read;
        let claimed = claiming.claimed.clone();
        self.request = Request::AwaitingClaim(claiming);
        self.enter(Phase::Claim);
        out.push(Output::Claim(claimed));
    }

    /// The claim is in the control log, or it is not known whether.
    pub(super) fn on_claimed(
        &mut self,
        result: Result<Arc<Approval>, NotClaimed>,
        out: &mut Vec<Output>,
    ) {
        let claiming = match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingClaim(claiming) => *claiming,
            other => {
                self.request = other;
                return self.protocol_error(out);
            }
        };
        let Claiming {
            leave,
            parts,
            place,
            read,
            approval,
            ..
        } = claiming;
        let approval = match result {
            Ok(approval) => approval,
            Err(not) => {
                let (refusal, state) = match not {
                    NotClaimed::Over(State::Consumed) => (Refusal::ApprovalUsed, State::Consumed),
                    NotClaimed::Over(state) => (Refusal::ApprovalExpired, state),
                    NotClaimed::Unavailable(code) => {
                        (Refusal::ApprovalsUnavailable(code), State::Approved)
                    }
                };
                return self.refuse(refusal, Some(read.under(of_record(&approval, state))), out);
            }
        };
        let read = read.under(of_record(&approval, State::Consumed));
        if let Some(refusal) = self.unwanted.take() {
            // The approval is spent all the same: whether it was forwarded must not be a matter of doubt.
            return self.refuse(refusal, Some(read), out);
        }
        let permit = match leave {
            Leave::Permit(permit) => permit,
            Leave::Pending(pending) => match pending.released(&approval.asked.requirement) {
                Ok(permit) => permit,
                Err(denial) => return self.refuse(Refusal::Denied(denial), Some(read), out),
            },
        };
        self.open(Forward::new(permit, parts, place), read, out);
    }

    /// The status the caller gets: where they would rather have one, 202 for what is only put off.
    pub(super) fn status_of(&self, refusal: &Refusal) -> u16 {
        match (&self.ticket, refusal) {
            (Some(ticket), Refusal::ApprovalRequired) if ticket.respond_async => 202,
            _ => refusal.status(),
        }
    }

    /// Where the caller finds the approval again.
    pub(super) fn ticket_headers(&self, refusal: &Refusal) -> Vec<(String, SecretString)> {
        let Some(id) = self.ticket.as_ref().and_then(|ticket| ticket.id.as_ref()) else {
            return Vec::new();
        };
        let base = &self.rules.approvals.public_url;
        let mut headers = vec![
            ("countersign-approval".to_owned(), id.to_string()),
            (
                "location".to_owned(),
                format!("{base}/api/v1/approvals/{id}"),
            ),
        ];
        // SDKs try again by themselves what may pass the next moment; this takes a person.
        if refusal.status() == 403 {
            headers.push(("x-should-retry".to_owned(), "false".to_owned()));
        }
        headers
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect()
    }

    /// Nobody waits any more for what is being decided, because of `refusal`.
    pub(super) fn give_up(&mut self, refusal: Refusal, out: &mut Vec<Output>) {
        match std::mem::replace(&mut self.request, Request::Refused) {
            Request::AwaitingDecision(waiting) => {
                let Waiting { read, approval, .. } = *waiting;
                let read = match approval {
                    Some(approval) => read.under(of_record(&approval, approval.state)),
                    None => read,
                };
                self.refuse(refusal, Some(read), out);
            }
            // What becomes of it is told in a moment; whatever it is, nothing is forwarded.
            other => {
                self.request = other;
                self.unwanted.get_or_insert(refusal);
            }
        }
    }
}

fn kinds(references: &[(&'static str, String)]) -> String {
    let mut kinds: Vec<&str> = references.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.join(", ")
}

/// What the request is known again by.
fn request_digest(caller: &Caller, received: &Bytes, call: &Call, parts: &Parts) -> Digest {
    let head = &caller.head;
    let connection = &head.connection;
    let target = head.target();
    let who = Party::from(&*caller.principal);
    RequestDigest {
        caller: &who,
        connection: &connection.name,
        method: &head.method,
        authority: &head.authority,
        target: &target,
        headers: &head.meaningful(),
        model: &call.model,
        received: Digest(sha256(received)),
        forwarded: Digest(sha256(parts.body())),
        credential: head
            .lending
            .choice(&call.model)
            .map_or(("", ""), |choice| (&choice.name, &head.lending.header)),
        cluster: head.cluster(),
        chain: Digest(connection.chain.digest()),
    }
    .digest()
}

/// An approval as records have it.
#[must_use]
pub fn of_record(approval: &Approval, state: State) -> record::Approval {
    let Approval {
        asked,
        binding,
        votes,
        ..
    } = approval;
    let votes = votes.iter().map(|vote| record::ApprovalVote {
        issuer: vote.by.who.issuer.clone(),
        subject: vote.by.who.subject.clone(),
        groups: vote.by.groups.iter().cloned().collect(),
        given: vote.given.name().to_owned(),
        reason: vote.reason.clone(),
        time: vote.at.to_string(),
    });
    record::Approval {
        id: asked.id.to_string(),
        state: state.name().to_owned(),
        request_sha256: asked.request.to_string(),
        binding_sha256: binding.to_string(),
        asked_by_session: asked.session.clone(),
        reasons: asked.requirement.reasons.clone(),
        votes: votes.collect(),
    }
}
