//! The fold: what the control log comes to.
//!
//! Bounds: [`MAX_APPROVALS`] are remembered, and none longer than [`REMEMBERED`] after its time is over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Approver, Asked, Binding, Cannot, Claimed, Decided, Digest, Event, Given, Id, Party, Revoked,
    Stop, rules::judge, uses::Uses,
};

/// Most approvals that are remembered, pending or over. Beyond it new ones are not taken. One takes some 6 KiB, mostly its excerpt,
/// and 40 KiB at most, with as many long references and headers as are shown: 150 MiB in all, and never more than a gigabyte.
pub const MAX_APPROVALS: usize = 25_000;
/// How long an approval is remembered after its time is over, for whoever looks it up.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Of one caller, so many times what they may have pending are remembered: who asks and cancels again and again fills their own
/// share and not everybody's.
const REMEMBERED_EACH: u32 = 10;
/// Longest time a decision may take, whatever an event says: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Where an event stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its place; grows.
    pub offset: u64,
    /// When, by the log's clock.
    pub at: Timestamp,
}

/// An approval, from asking to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// What was asked.
    pub asked: Arc<Asked>,
    /// When, by the log's clock.
    pub asked_at: Timestamp,
    /// What is decided on.
    pub binding: Digest,
    /// Until when a decision counts, and once it is there, until when the request may come.
    pub until: Timestamp,
    /// Who said yes or no so far.
    pub votes: Vec<Vote>,
    /// Where it stands.
    pub state: State,
}

/// Somebody's decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Whose.
    pub by: Approver,
    /// Which.
    pub given: Given,
    /// Why.
    pub reason: String,
    /// When, by the log's clock.
    pub at: Timestamp,
}

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Seats are empty.
    Pending,
    /// The request may be forwarded, once.
    Approved,
    /// Somebody said no.
    Denied,
    /// Its time ran out.
    Expired,
    /// Its caller or an administrator stopped it.
    Cancelled,
    /// The request was forwarded.
    Consumed,
}

impl State {
    /// As records and the API name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Consumed => "consumed",
        }
    }
}

impl Approval {
    /// Where it stands at `now`: what was not decided or not used in time is expired, whether anybody has said so or not.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> State {
        match self.state {
            State::Pending | State::Approved if now > self.until => State::Expired,
            state => state,
        }
    }

    /// Whether an identical request is joined to it at `now` rather than asking anew.
    fn is_joined(&self, now: Timestamp) -> bool {
        match self.state_at(now) {
            State::Pending | State::Approved => true,
            // A no stands as long as the question would have.
            State::Denied => now <= self.until,
            State::Expired | State::Cancelled | State::Consumed => false,
        }
    }

    fn is_over(&self) -> bool {
        !matches!(self.state, State::Pending | State::Approved)
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It counts: the approval as it is with it.
    Counts(Arc<Approval>),
    /// The same was asked before: this is it.
    Joins(Arc<Approval>),
    /// It counts: it is this use of the grant, from 1.
    Used(u32),
    /// It counts: the grant counts no more.
    Revoked(Arc<Revoked>),
    /// It does not.
    Ignored(Ignored),
}

/// Why an event does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// No such approval.
    #[error("there is no such approval")]
    Unknown,
    /// An approval of that id was asked for before.
    #[error("an approval of this id is there already")]
    Repeated,
    /// It is not in a state for that.
    #[error("the approval is {} already", .0.name())]
    Over(State),
    /// It came into the log long after it was written, or before: written again by somebody, or by a replica whose clock is wrong.
    #[error("the event is not of its time: check the clock of this replica")]
    Untimely,
    /// It came too late by the log's clock.
    #[error("the approval has expired")]
    Late,
    /// Nothing has expired yet by the log's clock.
    #[error("the approval has not expired")]
    Early,
    /// It is about another request, or the request as it was not asked.
    #[error("the decision is about something else than what was asked")]
    OtherBinding,
    /// Nobody approved it.
    #[error("the approval is not approved")]
    NotApproved,
    /// Who decides may not.
    #[error(transparent)]
    Cannot(#[from] Cannot),
    /// The caller has as many pending as they may.
    #[error("too many approvals of this caller are pending")]
    TooManyPending,
    /// As many are remembered as can be.
    #[error("too many approvals are pending")]
    Full,
    /// The caller has as many grants remembered as are free for others.
    #[error("too many grants of this caller are remembered")]
    TooManyGrants,
    /// The grant was used as often as it could be.
    #[error("the grant is used up")]
    UsedUp,
    /// The grant was revoked.
    #[error("the grant was revoked")]
    Revoked,
    /// What is asked for cannot be had: no seat, or too many, or too long a time.
    #[error("what is asked for cannot be decided")]
    Impossible,
}

/// Every approval there is, in the order of one log.
#[derive(Debug, Default)]
pub struct Register {
    approvals: HashMap<Id, Arc<Approval>>,
    by_request: HashMap<Digest, Id>,
    /// When each is forgotten.
    forgotten: BTreeSet<(Timestamp, Id)>,
    /// Pending ones by caller.
    pending: BTreeMap<String, u32>,
    /// All that are remembered by caller.
    remembered: BTreeMap<String, u32>,
    /// Grants that were used or revoked.
    uses: Uses,
    /// The latest time the log has told.
    now: Timestamp,
}

impl Register {
    /// The approval `id`.
    #[must_use]
    pub fn approval(&self, id: &Id) -> Option<&Arc<Approval>> {
        self.approvals.get(id)
    }

    /// What an identical request would join at `now`.
    #[must_use]
    pub fn for_request(&self, request: &Digest, now: Timestamp) -> Option<&Arc<Approval>> {
        let approval = self.approvals.get(self.by_request.get(request)?)?;
        approval.is_joined(now).then_some(approval)
    }

    /// All that are remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Approval>> {
        self.approvals.values()
    }

    /// Whether the grant of this id was revoked.
    #[must_use]
    pub fn is_revoked(&self, grant: &str) -> bool {
        self.uses.is_revoked(grant)
    }

    /// How often the grant of this id was used.
    #[must_use]
    pub fn used(&self, grant: &str) -> u32 {
        self.uses.used(grant)
    }

    /// How many grants are remembered.
    #[must_use]
    pub fn grants(&self) -> usize {
        self.uses.len()
    }

    /// How many are pending.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.values().sum()
    }

    /// Takes in the next event of the log.
    pub fn apply(&mut self, placed: Placed, event: &Event) -> Fate {
        // A broker's clock may step back a little; time as the fold knows it does not.
        self.now = self.now.max(placed.at);
        self.forget();
        let done = match event {
            Event::Asked(asked) => self.ask(asked),
            Event::Decided(decided) => self.decide(decided),
            Event::Cancelled(stop) => self.cancel(stop),
            Event::Expired(stop) => self.expire(&stop.id),
            Event::Claimed(claimed) => self.claim(claimed),
            Event::Used(wanted) => self.uses.take(wanted, self.now).map(Fate::Used),
            Event::Revoked(revoked) => self.revoke(revoked),
        };
        done.unwrap_or_else(Fate::Ignored)
    }

    fn ask(&mut self, asked: &Asked) -> Result<Fate, Ignored> {
        if self.approvals.contains_key(&asked.id) {
            return Err(Ignored::Repeated);
        }
        if let Some(same) = self.for_request(&asked.request, self.now) {
            return Ok(Fate::Joins(same.clone()));
        }
        let requirement = &asked.requirement;
        let seats = requirement.seats().count();
        let expires = requirement.expires();
        if !(1..=super::MAX_SEATS).contains(&seats) || expires.is_zero() || expires > LONGEST {
            return Err(Ignored::Impossible);
        }
        let caller = Party::account(&asked.caller.issuer, &asked.caller.subject);
        if self.pending.get(&caller).copied().unwrap_or(0) >= asked.most_pending {
            return Err(Ignored::TooManyPending);
        }
        let remembered = self.remembered.get(&caller).copied().unwrap_or(0);
        if remembered >= asked.most_pending.saturating_mul(REMEMBERED_EACH) {
            return Err(Ignored::TooManyPending);
        }
        if self.approvals.len() >= MAX_APPROVALS {
            return Err(Ignored::Full);
        }
        let approval = Arc::new(Approval {
            asked: Arc::new(asked.clone()),
            asked_at: self.now,
            binding: Binding(asked).digest(),
            until: after(self.now, expires),
            votes: Vec::new(),
            state: State::Pending,
        });
        *self.remembered.entry(caller.clone()).or_default() += 1;
        *self.pending.entry(caller).or_default() += 1;
        self.by_request.insert(asked.request, asked.id.clone());
        self.forgotten
            .insert((after(approval.until, REMEMBERED), asked.id.clone()));
        self.approvals.insert(asked.id.clone(), approval.clone());
        Ok(Fate::Counts(approval))
    }

    fn decide(&mut self, decided: &Decided) -> Result<Fate, Ignored> {
        let approval = self.live(&decided.id, State::Pending)?;
        if decided.binding != approval.binding {
            return Err(Ignored::OtherBinding);
        }
        let asked = &approval.asked;
        let (by, given, reason) = (&decided.by, decided.given, &decided.reason);
        let is_decided = judge(
            &asked.requirement,
            &asked.caller,
            &approval.votes,
            by,
            given,
            reason,
        )?;
        let mut next = Approval::clone(approval);
        next.votes.push(Vote {
            by: by.clone(),
            given,
            reason: reason.clone(),
            at: self.now,
        });
        match (given, is_decided) {
            (Given::Deny, _) => next.state = State::Denied,
            (_, true) => {
                next.state = State::Approved;
                next.until = after(self.now, asked.requirement.expires());
            }
            (_, false) => {}
        }
        Ok(self.put(next))
    }

    fn cancel(&mut self, stop: &Stop) -> Result<Fate, Ignored> {
        let approval = self.known(&stop.id)?;
        if approval.is_over() {
            return Err(Ignored::Over(approval.state));
        }
        if approval.state_at(self.now) == State::Expired {
            return Err(Ignored::Late);
        }
        let mut next = Approval::clone(approval);
        next.state = State::Cancelled;
        Ok(self.put(next))
    }

    fn expire(&mut self, id: &Id) -> Result<Fate, Ignored> {
        let approval = self.known(id)?;
        if approval.is_over() {
            return Err(Ignored::Over(approval.state));
        }
        if approval.state_at(self.now) != State::Expired {
            return Err(Ignored::Early);
        }
        let mut next = Approval::clone(approval);
        next.state = State::Expired;
        Ok(self.put(next))
    }

    fn claim(&mut self, claimed: &Claimed) -> Result<Fate, Ignored> {
        let approval = self.live(&claimed.id, State::Approved)?;
        if claimed.binding != approval.binding {
            return Err(Ignored::OtherBinding);
        }
        let mut next = Approval::clone(approval);
        next.state = State::Consumed;
        Ok(self.put(next))
    }

    fn revoke(&mut self, revoked: &Revoked) -> Result<Fate, Ignored> {
        self.uses.revoke(revoked, self.now)?;
        Ok(Fate::Revoked(Arc::new(revoked.clone())))
    }

    /// The approval `id`, which must be in `state` and in time.
    fn live(&self, id: &Id, state: State) -> Result<&Approval, Ignored> {
        let approval = self.known(id)?;
        if approval.is_over() {
            return Err(Ignored::Over(approval.state));
        }
        if self.now > approval.until {
            return Err(Ignored::Late);
        }
        match (approval.state, state) {
            (is, wanted) if is == wanted => Ok(approval),
            (State::Pending, _) => Err(Ignored::NotApproved),
            (is, _) => Err(Ignored::Over(is)),
        }
    }

    fn known(&self, id: &Id) -> Result<&Approval, Ignored> {
        self.approvals
            .get(id)
            .map(|approval| &**approval)
            .ok_or(Ignored::Unknown)
    }

    fn put(&mut self, next: Approval) -> Fate {
        let next = Arc::new(next);
        let id = next.asked.id.clone();
        if let Some(before) = self.approvals.insert(id.clone(), next.clone()) {
            if before.state == State::Pending && next.state != State::Pending {
                self.no_longer_pending(&before);
            }
            self.forgotten
                .remove(&(after(before.until, REMEMBERED), id.clone()));
        }
        self.forgotten.insert((after(next.until, REMEMBERED), id));
        Fate::Counts(next)
    }

    fn no_longer_pending(&mut self, approval: &Approval) {
        one_less(&mut self.pending, approval);
    }

    /// Drops what is long over: by the log's time, so alike on every replica.
    fn forget(&mut self) {
        self.uses.forget(self.now);
        while let Some((at, _)) = self.forgotten.first()
            && *at < self.now
            && let Some((_, id)) = self.forgotten.pop_first()
            && let Some(gone) = self.approvals.remove(&id)
        {
            one_less(&mut self.remembered, &gone);
            if gone.state == State::Pending {
                self.no_longer_pending(&gone);
            }
            if self.by_request.get(&gone.asked.request) == Some(&id) {
                self.by_request.remove(&gone.asked.request);
            }
        }
    }
}

fn one_less(counts: &mut BTreeMap<String, u32>, approval: &Approval) {
    let caller = &approval.asked.caller;
    let caller = Party::account(&caller.issuer, &caller.subject);
    if let Some(count) = counts.get_mut(&caller) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&caller);
        }
    }
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}
