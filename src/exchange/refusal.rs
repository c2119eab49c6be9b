//! Every way a request or an answer is refused: the one table of status, stable code and sentence.
//!
//! Codes are part of the contract: scripts and alerts match on them. Sentences are for the caller and carry nothing of
//! the request but names from the configuration and reasons written by whoever wrote the policy.

use super::budget::Full;
use crate::{dialect::ShapeError, identity::TokenError, policy::Denial};

/// Why a request or an answer was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No connection matches host and path.
    UnknownConnection,
    /// A path whose reading could differ between us and the upstream.
    OddPath,
    /// A header that may stand once stands twice, or is unreadable.
    AmbiguousHeader(&'static str),
    /// No token came, or one that does not prove who is calling.
    BadToken(TokenError),
    /// The connection or method would be switched to another protocol.
    Upgrade,
    /// Method and path are no endpoint this connection allows.
    EndpointNotAllowed,
    /// The request body is compressed.
    EncodedRequest,
    /// The request body is longer than the configured bound.
    RequestTooLarge,
    /// The request ends in trailers.
    RequestTrailers,
    /// The caller has too many requests in flight, or too much in them.
    TooManyStreams,
    /// The gateway has too many requests in flight, or its byte budget is spent.
    Overloaded,
    /// The body is not what the dialect says it should be.
    Shape(ShapeError),
    /// The prompt has parts that no detector can look into.
    Unscannable(&'static str),
    /// Policy says no.
    Denied(Denial),
    /// Somebody must approve the request, and has not yet.
    ApprovalRequired,
    /// Somebody said no.
    ApprovalDenied,
    /// Nobody said yes in time, or the request did not come in time afterwards.
    ApprovalExpired,
    /// The approval was stopped by its caller or an administrator.
    ApprovalCancelled,
    /// The approval was used by another request.
    ApprovalUsed,
    /// What would be forwarded is not what was approved.
    ApprovalMismatch,
    /// The caller has as many approvals pending as they may.
    TooManyApprovals,
    /// The request refers to what could change after it was approved: which kinds.
    MutableContent(String),
    /// The caller's token does not say which person they are, so nobody could be kept from deciding for themselves.
    PersonUnknown,
    /// The caller asks Envoy to send the request more than once.
    RetriesAsked,
    /// The grant is for another connection, method or model: which of them.
    OutsideGrant(&'static str),
    /// The grant was used as often as it may be.
    GrantUsedUp,
    /// So many of the caller's grants are remembered that no further one is used for the first time.
    TooManyGrants,
    /// Whether the grant may be used cannot be known: the control log cannot be reached.
    GrantsUnavailable,
    /// The control log cannot be reached.
    ApprovalsUnavailable(&'static str),
    /// Envoy chose a route or cluster that the connection's credential is not for.
    RouteNotAllowed,
    /// The credential that the upstream needs cannot be had now.
    CredentialUnavailable,
    /// The detectors a policy obliges to could not be put to work.
    Unmaskable,
    /// The record could not be made durable.
    AuditUnavailable(&'static str),
    /// The gateway is shutting down.
    ShuttingDown,
    /// Envoy refused the request itself before showing it to us, with this status.
    ByEnvoy(u16),
    /// Envoy gave up on the request while it was being decided.
    TimedOut,
    /// The caller, known, did not wait for the decision.
    CallerGone,
    /// The answer is still compressed although no encoding was asked for.
    EncodedResponse,
    /// The answer is longer than the configured bound.
    ResponseTooLarge,
    /// The answer is not what the dialect says it should be.
    ResponseShape(ShapeError),
    /// The upstream answered with an error that is not in the dialect's shape.
    Upstream(u16),
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Principal => Self::TooManyStreams,
            Full::Gateway => Self::Overloaded,
        }
    }
}

impl Refusal {
    /// The HTTP status the caller gets.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownConnection => 404,
            Self::OddPath
            | Self::AmbiguousHeader(_)
            | Self::RequestTrailers
            | Self::RetriesAsked
            | Self::Shape(_)
            | Self::Unscannable(_) => 400,
            Self::BadToken(error) => error.challenge().status,
            Self::Upgrade
            | Self::EndpointNotAllowed
            | Self::Denied(_)
            | Self::RouteNotAllowed
            | Self::ApprovalRequired
            | Self::ApprovalDenied
            | Self::ApprovalExpired
            | Self::ApprovalCancelled
            | Self::ApprovalUsed
            | Self::ApprovalMismatch
            | Self::PersonUnknown
            | Self::OutsideGrant(_)
            | Self::GrantUsedUp
            | Self::MutableContent(_) => 403,
            Self::EncodedRequest => 415,
            Self::RequestTooLarge => 413,
            Self::TooManyStreams | Self::TooManyApprovals | Self::TooManyGrants => 429,
            Self::Overloaded
            | Self::AuditUnavailable(_)
            | Self::ApprovalsUnavailable(_)
            | Self::GrantsUnavailable
            | Self::CredentialUnavailable
            | Self::ShuttingDown => 503,
            Self::Unmaskable => 500,
            Self::TimedOut => 504,
            // nginx's for the same; nobody is there to see it.
            Self::CallerGone => 499,
            Self::EncodedResponse | Self::ResponseTooLarge | Self::ResponseShape(_) => 502,
            Self::Upstream(status) | Self::ByEnvoy(status) => *status,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownConnection => "unknown_connection",
            Self::OddPath => "odd_path",
            Self::AmbiguousHeader(_) => "ambiguous_header",
            Self::BadToken(error) => error.code(),
            Self::Upgrade => "upgrade_refused",
            Self::EndpointNotAllowed => "endpoint_not_allowed",
            Self::EncodedRequest => "encoded_request",
            Self::RequestTooLarge => "request_too_large",
            Self::RequestTrailers => "request_trailers",
            Self::TooManyStreams => "too_many_streams",
            Self::Overloaded => "overloaded",
            Self::Shape(error) => error.code,
            Self::Unscannable(_) => "unscannable_content",
            Self::Denied(Denial::ByPolicy(_)) => "policy_denied",
            Self::Denied(Denial::ByDefault) => "no_policy_allows",
            Self::Denied(Denial::CannotEvaluate) => "policy_error",
            Self::Denied(Denial::NotApproved) => "approval_insufficient",
            Self::Denied(Denial::Unseen) => "upgrade_unseen",
            Self::ApprovalRequired => "approval_required",
            Self::ApprovalDenied => "approval_denied",
            Self::ApprovalExpired => "approval_expired",
            Self::ApprovalCancelled => "approval_cancelled",
            Self::ApprovalUsed => "approval_used",
            Self::ApprovalMismatch => "approval_mismatch",
            Self::TooManyApprovals => "too_many_approvals",
            Self::MutableContent(_) => "mutable_content",
            Self::PersonUnknown => "person_unknown",
            Self::RetriesAsked => "retries_asked",
            Self::OutsideGrant(_) => "grant_out_of_scope",
            Self::GrantUsedUp => "grant_used_up",
            Self::TooManyGrants => "too_many_grants",
            Self::GrantsUnavailable => "grants_unavailable",
            Self::ApprovalsUnavailable(code) => code,
            Self::RouteNotAllowed => "route_not_allowed",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Unmaskable => "masking_unavailable",
            Self::AuditUnavailable(code) => code,
            Self::ShuttingDown => "shutting_down",
            Self::ByEnvoy(_) => "request_rejected",
            Self::TimedOut => "request_timeout",
            Self::CallerGone => "caller_gone",
            Self::EncodedResponse => "encoded_response",
            Self::ResponseTooLarge => "response_too_large",
            Self::ResponseShape(_) => "unknown_response_shape",
            Self::Upstream(_) => "upstream_error",
        }
    }

    /// One sentence for the caller.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::UnknownConnection => "No model is served at this host and path.".into(),
            Self::OddPath => {
                "The path or query is not in its plain form: no escapes, empty or dot segments are accepted in the path, no `;` or `#` in the query."
                    .into()
            }
            Self::AmbiguousHeader(name) => {
                format!("The header `{name}` is repeated or unreadable.")
            }
            Self::BadToken(error) => format!("The access token was not accepted: {error}."),
            Self::Upgrade => "Protocol upgrades are not accepted here.".into(),
            Self::EndpointNotAllowed => {
                "This method and path are not open on this connection.".into()
            }
            Self::EncodedRequest => {
                "Compressed request bodies are not accepted; send the body as it is.".into()
            }
            Self::RequestTooLarge => "The request body is larger than this gateway accepts.".into(),
            Self::RequestTrailers => "Request trailers are not accepted.".into(),
            Self::TooManyStreams => {
                "You have too many requests in flight, or too large ones; wait for one to end.".into()
            }
            Self::Overloaded => "The gateway is at its limit; try again shortly.".into(),
            Self::Shape(error) => format!("The request body was not accepted: {error}."),
            Self::Unscannable(kind) => {
                format!("The request carries content that cannot be checked here: {kind}.")
            }
            Self::Denied(Denial::ByPolicy(reason)) => reason.clone(),
            Self::Denied(Denial::ByDefault) => "No policy allows this request.".into(),
            Self::Denied(Denial::CannotEvaluate) => {
                "A policy could not be evaluated, so the request is denied.".into()
            }
            Self::Denied(Denial::Unseen) => {
                "Policies ask for masking or an approval here, and nothing behind a protocol upgrade could be seen.".into()
            }
            Self::Denied(Denial::NotApproved) => {
                "The policies ask for more approval than this request has.".into()
            }
            Self::ApprovalRequired => {
                "A person must approve this request. Repeat the same request once it is approved; the header countersign-approval names it.".into()
            }
            Self::ApprovalDenied => "This request was not approved.".into(),
            Self::ApprovalExpired => "Nobody approved this request in time; repeat it to ask anew.".into(),
            Self::ApprovalCancelled => "The approval of this request was cancelled.".into(),
            Self::ApprovalUsed => {
                "The approval was used by the same request already; repeat it to ask anew.".into()
            }
            Self::ApprovalMismatch => {
                "What would be forwarded now is not what was approved; repeat the request to ask anew.".into()
            }
            Self::TooManyApprovals => "Too many of your requests wait for an approval.".into(),
            Self::MutableContent(kinds) => {
                format!("A request that needs an approval must not refer to what could change afterwards: {kinds}.")
            }
            Self::PersonUnknown => {
                "A person must approve this request, and the token does not say which person sends it; ask for the scope that has it do so.".into()
            }
            Self::RetriesAsked => {
                "A request that needs an approval, or a grant whose uses are counted, is sent once: remove the x-envoy headers that ask for retries.".into()
            }
            Self::OutsideGrant(what) => {
                format!("The grant is for another {what}; ask for one that covers this.")
            }
            Self::GrantUsedUp => "The grant is used up; ask for another.".into(),
            Self::TooManyGrants => {
                "Too many of your grants were used and have not expired yet; use those you have, or wait until some expire.".into()
            }
            Self::GrantsUnavailable => {
                "Whether the grant may be used cannot be checked now, so the request does not go on; try again shortly.".into()
            }
            Self::ApprovalsUnavailable(_) => {
                "Approvals cannot be asked for or checked now, so the request does not go on; try again shortly.".into()
            }
            Self::RouteNotAllowed => {
                "The route taken is not one this connection may lend its credential to.".into()
            }
            Self::CredentialUnavailable => {
                "The gateway has no credential for this model now, so the request does not go on; try again shortly.".into()
            }
            Self::Unmaskable => {
                "The masking this request needs cannot be done, so it is not forwarded.".into()
            }
            Self::AuditUnavailable(_) => {
                "This exchange cannot be put on record, so it does not go on; try again shortly.".into()
            }
            Self::ShuttingDown => "The gateway is shutting down; try again.".into(),
            Self::ByEnvoy(_) => "The request is not one this gateway takes in.".into(),
            Self::TimedOut => "The request took too long to be decided.".into(),
            Self::CallerGone => "The caller hung up before the request was decided.".into(),
            Self::EncodedResponse => {
                "The model's answer was compressed and could not be checked.".into()
            }
            Self::ResponseTooLarge => {
                "The model's answer is larger than this gateway accepts.".into()
            }
            Self::ResponseShape(error) => {
                format!("The model's answer was of a shape that cannot be checked: {error}.")
            }
            Self::Upstream(_) => "The model server answered with an error.".into(),
        }
    }

    /// The `WWW-Authenticate` challenge (RFC 6750 section 3), where the refusal is about who is calling.
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        match self {
            Self::BadToken(error) if self.status() != 503 => {
                Some(error.www_authenticate("countersign"))
            }
            _ => None,
        }
    }

    /// Seconds after which it makes sense to try again, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooManyStreams
            | Self::Overloaded
            | Self::AuditUnavailable(_)
            | Self::ApprovalsUnavailable(_)
            | Self::GrantsUnavailable
            | Self::CredentialUnavailable
            | Self::ShuttingDown => Some(1),
            Self::ApprovalRequired => Some(10),
            Self::TooManyApprovals | Self::TooManyGrants => Some(60),
            Self::BadToken(
                TokenError::IssuerUnavailable
                | TokenError::GrantsUnavailable
                | TokenError::ProofsFull,
            ) => Some(5),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    /// The codes that a `fn code` in this file tells.
    fn codes(source: &'static str) -> Vec<&'static str> {
        let (_, body) = source.split_once("fn code(").unwrap();
        let body = body.split("\n    }\n").next().unwrap();
        let quoted = body.split("=> \"").skip(1);
        quoted.filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_code_that_a_caller_can_get_is_in_the_documentation() {
        let told = include_str!("../../docs/operations.md");
        let (_, told) = told.split_once("## Codes a caller can get").unwrap();
        for (source, least) in [
            (include_str!("refusal.rs"), 35),
            (include_str!("../identity/error.rs"), 35),
            (include_str!("../runtime/control.rs"), 4),
            (include_str!("../runtime/ledger.rs"), 3),
        ] {
            let codes = codes(source);
            assert!(codes.len() >= least, "{codes:?}");
            let missing = codes
                .iter()
                .filter(|code| !told.contains(&format!("`{code}`")));
            let missing: Vec<_> = missing.collect();
            assert!(missing.is_empty(), "docs/operations.md lacks {missing:?}");
        }
    }
}
