//! Grants: short tokens of our own making that narrow a caller to what they asked for, for how long and how often.
//!
//! A grant is a signed token (RFC 7519) whose `authorization_details` (RFC 9396) say what it is good for and whose other claims
//! carry over who its holder is, as another token proved when it was made. It gives nothing that its holder did not have:
//! policy looks at the same caller, and at the grant besides.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Algorithm, AuthMethod, Bound, KeySet, Principal, TokenError, Unverified, jws::Typ};

/// The `typ` of a grant's header (RFC 8725, 3.11): no other token of anybody's has it.
pub const GRANT_TYP: &str = "countersign-grant+jwt";
/// How far the clock of the replica that made a grant may be ahead of the one that reads it, in seconds.
const CLOCKS_APART: i64 = 5;

/// What a grant is good for, as `authorization_details` write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The one kind there is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The connection.
    pub connection: String,
    /// Models, `*` standing for any text; any where none is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Endpoints by their names in the dialect; any of the connection's where none is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// How often it can be used; as often as one likes where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
}

/// The `type` of [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Calls of models.
    #[serde(rename = "inference")]
    Inference,
}

/// What a caller who holds a grant is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id (`jti`).
    pub id: String,
    /// What it is good for.
    pub scope: Scope,
    /// The approval it was made under.
    pub approval: Option<String>,
    /// How its holder authenticated when it was made, as records name it.
    pub obtained_with: String,
}

/// The claims of a grant, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantClaims {
    /// Who made it: this gateway.
    pub iss: String,
    /// Whom it is for: this gateway too.
    pub aud: String,
    /// The holder's subject at the issuer that vouches for them.
    pub sub: String,
    /// Its id.
    pub jti: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// From when it counts.
    pub nbf: i64,
    /// Until when, this second not included.
    pub exp: i64,
    /// What it is good for.
    pub authorization_details: [Scope; 1],
    /// What its holder must show with it (RFC 7800, 3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Bound>,
    /// The holder.
    pub holder: Holder,
}

/// The caller that a grant was made for, as their own token told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// `iss` of that token.
    pub iss: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its further claims, as far as they are listed.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// The human behind it.
    pub also: BTreeSet<String>,
    /// See [`Principal::person_missing`].
    pub person_missing: bool,
    /// How they authenticated.
    pub method: String,
    /// When, in seconds since 1970.
    pub auth_time: Option<i64>,
    /// The approval it was made under.
    pub approval: Option<String>,
}

/// What a grant of ours must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRules {
    /// `iss` and `aud`.
    pub issuer: String,
}

impl GrantRules {
    /// The algorithms our keys can be of.
    pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::EdDsa, Algorithm::Es256];
}

impl Principal {
    /// As a grant carries them over.
    #[must_use]
    pub fn holder(&self, approval: Option<String>) -> Holder {
        Holder {
            iss: self.issuer.clone(),
            groups: self.groups.clone(),
            claims: self.claims.clone(),
            also: self.also.clone(),
            person_missing: self.person_missing,
            method: self.auth_method.name().to_owned(),
            auth_time: self.authenticated_at.map(Timestamp::as_second),
            approval,
        }
    }
}

impl Unverified<'_> {
    /// Proves a grant under our own keys at the instant `now`. Whether it was revoked or is used up only the control log knows.
    ///
    /// # Errors
    /// [`TokenError`], as for other tokens.
    pub fn verify_grant(
        &self,
        rules: &GrantRules,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let claims = self.read_grant(rules, keys)?;
        let seconds = now.as_second();
        if seconds >= claims.exp {
            return Err(TokenError::Expired);
        }
        if claims.nbf > seconds.saturating_add(CLOCKS_APART) {
            return Err(TokenError::NotYetValid);
        }
        claims
            .principal(self.token)
            .ok_or(TokenError::GrantUnreadable)
    }

    /// What a grant says that one of our own keys signed, whether it counts now or not.
    ///
    /// # Errors
    /// [`TokenError`], but for what time has to do with.
    pub fn read_grant(&self, rules: &GrantRules, keys: &KeySet) -> Result<GrantClaims, TokenError> {
        if self.issuer != rules.issuer {
            return Err(TokenError::UnknownIssuer);
        }
        self.jws.verify(&GrantRules::ALGORITHMS, keys)?;
        if self.jws.typ() != Typ::Grant {
            return Err(TokenError::WrongType);
        }
        // A newer replica may write what this one does not know: then it is not known what it is good for.
        let claims: GrantClaims =
            serde_json::from_slice(self.jws.payload()).map_err(|_| TokenError::GrantUnreadable)?;
        if claims.aud != rules.issuer {
            return Err(TokenError::WrongAudience);
        }
        Ok(claims)
    }
}

impl GrantClaims {
    fn principal(self, token: &str) -> Option<Principal> {
        let [scope] = self.authorization_details;
        let holder = self.holder;
        Some(Principal {
            issuer: holder.iss,
            subject: self.sub,
            audiences: Vec::new(),
            groups: holder.groups,
            claims: holder.claims,
            auth_method: AuthMethod::Grant,
            token_hash: Sha256::digest(token.as_bytes()).into(),
            expires_at: Timestamp::from_second(self.exp).ok()?,
            authenticated_at: match holder.auth_time {
                Some(time) => Some(Timestamp::from_second(time).ok()?),
                None => None,
            },
            issued_at: Some(Timestamp::from_second(self.iat).ok()?),
            also: holder.also,
            person_missing: holder.person_missing,
            bound: self.cnf.unwrap_or_default(),
            grant: Some(std::sync::Arc::new(Grant {
                id: self.jti,
                scope,
                approval: holder.approval,
                obtained_with: holder.method,
            })),
        })
    }
}
