//! How the API says no: one shape for all of it, `{"error": {"code", "message"}}`.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Unavailable,
    wire::{Failure, Fault},
};
use crate::{
    approval::{Cannot, Ignored},
    identity::TokenError,
};

/// A refusal. Its message holds nothing of what was sent.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
}

impl Refused {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            challenge: None,
        }
    }

    /// The stable code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// There is no such thing, or none that the caller may know of.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing here that you may see",
        )
    }

    /// None of the caller's groups has a role for it.
    pub(super) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "none of your groups has a role for this",
        )
    }

    /// Who decides must have signed in within `within` (RFC 9470, section 3).
    pub(super) fn sign_in_again(cannot: Cannot, within: Duration) -> Self {
        Self {
            challenge: Some(format!(
                "Bearer realm=\"countersign\", error=\"insufficient_user_authentication\", \
                 error_description=\"a more recent authentication is required\", max_age=\"{}\"",
                within.as_secs()
            )),
            ..Self::new(StatusCode::UNAUTHORIZED, cannot.code(), cannot.to_string())
        }
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        let status = error.challenge().status;
        Self {
            challenge: (status != 503).then(|| error.www_authenticate("countersign")),
            ..Self::new(
                StatusCode::from_u16(status).unwrap_or(StatusCode::UNAUTHORIZED),
                error.code(),
                error.to_string(),
            )
        }
    }
}

impl From<Cannot> for Refused {
    fn from(cannot: Cannot) -> Self {
        Self::new(StatusCode::FORBIDDEN, cannot.code(), cannot.to_string())
    }
}

impl From<Ignored> for Refused {
    fn from(ignored: Ignored) -> Self {
        let code = match ignored {
            Ignored::Unknown => return Self::not_found(),
            Ignored::Cannot(cannot) => return cannot.into(),
            Ignored::Over(_) => "approval_over",
            Ignored::Late => "approval_expired",
            Ignored::Untimely => "clock_is_wrong",
            Ignored::OtherBinding => "other_binding",
            Ignored::Repeated
            | Ignored::Early
            | Ignored::NotApproved
            | Ignored::TooManyPending
            | Ignored::TooManyGrants
            | Ignored::Full
            | Ignored::UsedUp
            | Ignored::Revoked
            | Ignored::Impossible => "conflict",
        };
        Self::new(StatusCode::CONFLICT, code, ignored.to_string())
    }
}

impl From<Unavailable> for Refused {
    fn from(Unavailable(code): Unavailable) -> Self {
        let message = "this cannot be done and recorded now: try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let failure = Failure {
            error: Fault {
                code: self.code.to_owned(),
                message: self.message.into_owned(),
            },
        };
        let mut answer = (self.status, Json(failure)).into_response();
        let challenge = self.challenge.map(HeaderValue::try_from);
        if let Some(Ok(challenge)) = challenge {
            let headers = answer.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}
