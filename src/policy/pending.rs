//! An approval that a policy asks for, and what stands in a permit's place until it is there.

use std::time::Duration;

use super::{Denial, Obligations, Permit};
use crate::approval::{Requirement, Wait};

/// What a policy asks for before a call may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// Whose approval, for what reasons, within what time.
    pub requirement: Requirement,
    /// How the caller waits for it.
    pub wait: Wait,
    /// How long a stream is held at most.
    pub max_hold: Duration,
    /// Whether a request may be asked for that refers to what others can change meanwhile: a stored prompt, a file, a remote
    /// image. An approver cannot see what it will be.
    pub mutable: bool,
}

impl ApprovalRule {
    /// Asks for what `other` asks for too, the stricter of both in everything: every seat, the shorter times, the less patient
    /// way to wait (a ticket before the caller's choice before a held stream), references only where both allow them.
    pub fn add(&mut self, other: &Self) {
        self.requirement.add(&other.requirement);
        self.wait = match (self.wait, other.wait) {
            (Wait::Defer, _) | (_, Wait::Defer) => Wait::Defer,
            (Wait::Caller, _) | (_, Wait::Caller) => Wait::Caller,
            (Wait::Hold, Wait::Hold) => Wait::Hold,
        };
        self.max_hold = self.max_hold.min(other.max_hold);
        self.mutable &= other.mutable;
    }
}

/// A call that a chain would allow once it is approved. Holds no permit: only [`released`](Self::released) makes one of it.
#[derive(Debug)]
pub struct Pending {
    obligations: Obligations,
    rule: ApprovalRule,
}

impl Pending {
    pub(super) fn new(obligations: Obligations, rule: ApprovalRule) -> Self {
        Self { obligations, rule }
    }

    /// What must be done to the traffic once it is approved.
    #[must_use]
    pub fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// What must be approved.
    #[must_use]
    pub fn requirement(&self) -> &Requirement {
        &self.rule.requirement
    }

    /// How the caller waits.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.rule.wait
    }

    /// How long a stream is held at most.
    #[must_use]
    pub fn max_hold(&self) -> Duration {
        self.rule.max_hold
    }

    /// Whether it may be asked for although the request refers to what others can change.
    #[must_use]
    pub fn allows_mutable(&self) -> bool {
        self.rule.mutable
    }

    /// The permit, under an approval that was asked for with `granted`. What the policies ask for *now* counts: where it is more
    /// than was asked for then, there is no permit.
    ///
    /// The exchange calls this at one place only, with the requirement of the approval whose claim for this very request it has
    /// just seen counted in the control log. Nothing here can tell whether that is so.
    ///
    /// # Errors
    /// [`Denial::NotApproved`].
    pub fn released(self, granted: &Requirement) -> Result<Permit, Denial> {
        if !self.rule.requirement.is_within(granted) {
            return Err(Denial::NotApproved);
        }
        Ok(Permit {
            obligations: self.obligations,
        })
    }
}
