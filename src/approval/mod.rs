//! A human countersigns a request: what is asked, who may answer, and what an answer is worth.
//!
//! ```text
//!             +-> denied                       +-> expired (never used in time)
//!  pending ---+-> expired     +-> approved ----+-> cancelled
//!             +-> cancelled   |                +-> consumed
//!             +--- votes -----+
//! ```
//!
//! Everything shared is a fold of one log ([`Register`]): the first transition in the log's order wins on every replica, and
//! deadlines are compared with the log's own time. What the fold needs to judge an event stands in the events themselves,
//! so replicas with different configurations never disagree.
//!
//! Promises: an approval is good for the bytes it was asked for, once; nobody approves for themselves, under whatever
//! account; no person fills two seats; what is not decided in time is a no. Never: reads a clock, does IO.
//! Can miss: that two accounts are one human where neither names the person (`person_claim`, `owner_claim`).

mod digest;
mod envelope;
mod event;
mod register;
mod rules;
pub mod signed;
#[cfg(test)]
mod tests;
mod uses;

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::identity::{self, Principal};

pub use self::{
    digest::{Binding, Digest, RequestDigest, digest_of},
    envelope::{Envelope, Unreadable, is_timely},
    event::{Asked, Claimed, Decided, Event, Given, Id, Mutable, Stop, View},
    register::{Approval, Fate, Ignored, MAX_APPROVALS, Placed, Register, State, Vote},
    rules::{Approver, Cannot, Freshness, judge},
    uses::{LONGEST_GRANT, MAX_GRANTS, Revoked, Use, share},
};

/// What a request must have before it is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Seats that must all be filled, each by another person.
    pub slots: Vec<Slot>,
    /// Why, as the policies say; for the approver.
    pub reasons: Vec<String>,
    /// Members of these groups may decide alone, loudly.
    pub break_glass: BTreeSet<String>,
    /// How long a decision may take, and afterwards the approved request may take to come, in milliseconds.
    pub expires_ms: u64,
}

/// So many different persons of one group.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The group.
    pub group: String,
    /// How many of its members.
    pub distinct: u8,
}

/// Most seats of one requirement, whatever policies add up to.
pub const MAX_SEATS: usize = 16;

impl Requirement {
    /// The group of every seat.
    pub fn seats(&self) -> impl Iterator<Item = &str> {
        let seats = |slot: &'_ Slot| usize::from(slot.distinct);
        self.slots
            .iter()
            .flat_map(move |slot| std::iter::repeat_n(slot.group.as_str(), seats(slot)))
    }

    /// Asks for what `other` asks for too: all reasons, of each group the more seats, the shorter time. Alone decides only who
    /// may for both.
    pub fn add(&mut self, other: &Self) {
        for slot in &other.slots {
            match self
                .slots
                .iter_mut()
                .find(|known| known.group == slot.group)
            {
                Some(known) => known.distinct = known.distinct.max(slot.distinct),
                None => self.slots.push(slot.clone()),
            }
        }
        for reason in &other.reasons {
            if !self.reasons.contains(reason) {
                self.reasons.push(reason.clone());
            }
        }
        self.break_glass
            .retain(|group| other.break_glass.contains(group));
        self.expires_ms = self.expires_ms.min(other.expires_ms);
    }

    /// Whether what this asks for was asked for with `other` already: each seat, and no more time.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let covered = |slot: &Slot| {
            other
                .slots
                .iter()
                .any(|known| known.group == slot.group && known.distinct >= slot.distinct)
        };
        self.slots.iter().all(covered)
            && self.break_glass.is_superset(&other.break_glass)
            && self.expires_ms >= other.expires_ms
    }

    /// How long a decision may take.
    #[must_use]
    pub fn expires(&self) -> Duration {
        Duration::from_millis(self.expires_ms)
    }
}

/// How a caller waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// The stream is held until the decision, as long as it may be.
    #[default]
    Hold,
    /// The caller gets a ticket at once.
    Defer,
    /// As the caller prefers (RFC 7240): held where they say how long, else a ticket.
    Caller,
}

/// Someone, by every name they are known under.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// The human behind the account, as `person_claim` or `owner_claim` names them, and whoever acts for it (RFC 8693 `act`).
    pub also: BTreeSet<String>,
}

impl Party {
    /// The account as one of its names.
    #[must_use]
    pub fn account(issuer: &str, subject: &str) -> String {
        identity::account(issuer, subject)
    }

    /// Whether both are one human, as far as anybody says.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let (mine, theirs) = (
            Self::account(&self.issuer, &self.subject),
            Self::account(&other.issuer, &other.subject),
        );
        mine == theirs
            || self.also.contains(&theirs)
            || other.also.contains(&mine)
            || !self.also.is_disjoint(&other.also)
    }
}

impl From<&Principal> for Party {
    fn from(principal: &Principal) -> Self {
        Self {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            also: principal.also.clone(),
        }
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.subject, self.issuer)
    }
}
