//! Who may do what: an ordered chain of policies per connection, evaluated to a verdict.
//!
//! Promises: default deny, so a chain that reaches its end has denied; a condition that cannot be evaluated denies; a
//! verdict names every policy that had a part in it; where a policy asks for an approval there is no permit before
//! [`Pending::released`] sees one that was asked for at least as much; what a condition costs is bounded when it is loaded.
//! Never: looks at a clock, keeps state between requests, lets a caller's value into a fault's text.
//! Can miss: it decides on what the dialect read and the detectors found; what they cannot see, no condition can ask for.

mod ast;
mod chain;
mod digest;
mod expression;
mod nearest;
mod pattern;
mod pending;
mod risk;
mod types;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use chain::{Chain, Effect, Masking, Policy};
pub use expression::{Expression, ExpressionFault, MAX_CHARS, MAX_DEPTH, MAX_NESTING, MAX_NODES};
pub(crate) use nearest::nearest;
pub use pending::{ApprovalRule, Pending};
pub use risk::{MAX_COUNTED, ModelPattern, Risk};
pub use vocabulary::Vocabulary;

use crate::{detect::Entity, identity::Principal, mask::Owed};

/// What policy is asked: principal, action, resource and context in one value.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The verified caller.
    pub principal: &'a Principal,
    /// The call as the upstream will read it.
    pub call: &'a Call,
    /// How often each entity was found in the prompt.
    pub findings: &'a BTreeMap<Entity, u64>,
    /// Name of the connection the call came in on.
    pub connection: &'a str,
    /// Name of that connection's dialect, such as `openai`.
    pub dialect: &'a str,
    /// The request's score, as [`Risk::score`] gives it.
    pub risk: i64,
    /// The time of day where the policies' author lives. Where it is not known, a condition that asks for it denies.
    pub time: Option<LocalTime>,
}

/// A time of day and of the week, without a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
    /// 1 to 7, from Monday (ISO 8601).
    pub weekday: i8,
}

impl Default for LocalTime {
    fn default() -> Self {
        Self {
            hour: 0,
            minute: 0,
            weekday: 1,
        }
    }
}

impl From<jiff::civil::DateTime> for LocalTime {
    fn from(at: jiff::civil::DateTime) -> Self {
        Self {
            hour: at.hour(),
            minute: at.minute(),
            weekday: at.weekday().to_monday_one_offset(),
        }
    }
}

/// The call itself: endpoint, model and size, read from what will be forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// HTTP method, upper case.
    pub method: String,
    /// `:authority` as received.
    pub authority: String,
    /// Path without query.
    pub path: String,
    /// The dialect's name of the endpoint, such as `chat_completions`.
    pub endpoint: String,
    /// The model asked for.
    pub model: String,
    /// Whether a streamed answer is asked for.
    pub stream: bool,
    /// Whether the request offers tools to the model.
    pub tools: bool,
    /// Length of the request body in bytes.
    pub body_bytes: u64,
    /// Whether the connection would be switched to another protocol, behind which nothing is seen.
    pub upgrade: bool,
}

/// What a chain decided, and why.
#[derive(Debug)]
pub struct Verdict {
    /// Allow with obligations, hold, or deny.
    pub outcome: Outcome,
    /// Names of the policies that decided or added an obligation, in chain order.
    pub decided_by: Vec<String>,
    /// Names of the masking policies whose condition held but from which the caller's groups exempt.
    pub exempt_from: Vec<String>,
    /// Faults met while evaluating, each worded for the log; a fault always denies.
    pub faults: Vec<String>,
}

/// The ends of a chain.
#[derive(Debug)]
pub enum Outcome {
    /// The call may go on under the permit's obligations.
    Allow(Permit),
    /// The call may go on under obligations once it is approved.
    Hold(Pending),
    /// The call is refused.
    Deny(Denial),
}

/// Leave to forward a request. Only this module makes one, and forwarding asks for it.
#[derive(Debug)]
pub struct Permit {
    obligations: Obligations,
}

impl Permit {
    /// What must be done to the traffic.
    #[must_use]
    pub fn obligations(&self) -> &Obligations {
        &self.obligations
    }
}

/// What must be done to the traffic of a permitted call. Empty maps oblige to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obligations {
    /// Entities masked in the prompt, each with its operator.
    pub mask_request: Owed,
    /// Entities masked in the answer, each with its operator.
    pub mask_response: Owed,
}

/// Why a call was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A policy said so, with its reason for the caller.
    ByPolicy(String),
    /// No policy allowed it.
    ByDefault,
    /// An expression could not be evaluated.
    CannotEvaluate,
    /// The policies ask for more than what the request was approved under.
    NotApproved,
    /// The policies ask for masking or an approval of what nobody sees: what is said behind an upgrade.
    Unseen,
}
