//! What an issuer says of a token that says nothing itself (RFC 7662).

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AuthMethod, IssuerRules, Principal, TokenError, claims::Claims, json, jws::Typ, proved,
    token_hash,
};

/// What was answered is no introspection response: not a JSON object of distinct members at most 16 deep, or without a boolean
/// `active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a JSON object with `active`")]
pub struct NotAnIntrospection;

/// An introspection response as it was written. It says who the token's holder is only because its issuer was asked over a
/// connection that proves the issuer.
#[derive(Debug)]
pub struct Introspected {
    active: bool,
    claims: Claims,
}

impl Introspected {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`NotAnIntrospection`]; nothing follows from such an answer, neither that the token is good nor that it is not.
    pub fn parse(answer: &[u8]) -> Result<Self, NotAnIntrospection> {
        let members = json::object(answer).map_err(|_| NotAnIntrospection)?;
        let Some(Value::Bool(active)) = members.get("active") else {
            return Err(NotAnIntrospection);
        };
        Ok(Self {
            active: *active,
            claims: Claims::answered(members),
        })
    }

    /// The holder of `token` under the rules of the issuer that was asked, at the instant `now`.
    ///
    /// Audience and expiry are demanded as they are of a token that says them itself, although RFC 7662 leaves both out. `iss` and
    /// `token_type` count where they are there, and what it is bound to (`cnf`) must be shown with it. Where there is no `sub`, the client is who calls (`client_id`; RFC 9068, 2.2).
    ///
    /// # Errors
    /// [`TokenError::Inactive`]; [`TokenError::UnknownIssuer`] and [`TokenError::WrongType`] for an answer about something else;
    /// and those of the claims.
    pub fn verify(
        self,
        token: &str,
        rules: &IssuerRules,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        if !self.active {
            return Err(TokenError::Inactive);
        }
        match self.claims.issuer() {
            Err(_) if !self.claims.has("iss") => {}
            Ok(issuer) if issuer == rules.issuer => {}
            _ => return Err(TokenError::UnknownIssuer),
        }
        self.claims.check_token_type()?;
        let accepted = self.claims.accept(Typ::AccessToken, rules, now)?;
        Ok(proved(
            accepted,
            rules,
            token_hash(token),
            AuthMethod::OidcIntrospection,
        ))
    }
}
