//! Who is calling: the verified caller, and the rules by which a token becomes one.
//!
//! ```text
//! Authorization ──bearer──> token ──peek──> Unverified ──verify(rules, keys, now)──> Principal
//!                             │       │ issuer, kid: which rules, which keys              │
//!                             └─opaque: its issuer is asked─> Introspected ──verify───────┘
//! ```
//!
//! Promises: a [`Principal`] comes from a certificate that the operator names, from a token whose signature was made by a key of its issuer
//! with an algorithm the operator listed, or from one that its issuer says is active (RFC 7662); for one of the operator's audiences,
//! inside its time window (RFC 7515, 7519, 9068, with the advice of RFC 8725). Every refusal is a [`TokenError`] with a code of its own,
//! and none carries any of the token.
//!
//! Never: fetches anything (`jku`, `x5u` and `x5c` are not looked at, and `jwk` in proofs of possession only), reads a clock, accepts a symmetric
//! algorithm or `none` (no value of [`Algorithm`] means them).
//!
//! Can miss: an ID token that carries none of the marks listed at [`IssuerRules::allow_id_tokens`] is told from an access
//! token by its audience alone, so a client id must never be listed as an audience. A revoked token is good until it
//! expires. That two accounts are one human is known only where a claim that the operator chose, or `act`, says so.

mod bearer;
mod bound;
mod certificate;
mod claims;
mod dpop;
mod error;
mod grant;
mod introspected;
mod json;
mod jws;
mod keyset;
mod person;
mod presented;
mod replays;
mod rules;
#[cfg(feature = "saml")]
pub mod saml;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

pub use self::{
    bearer::from_authorization,
    bound::Bound,
    certificate::{CertificateName, CertificateNameError, CertificateRule, CertificateRules},
    dpop::{PROOF_AGE, PROOF_AHEAD, Proof, verify as verify_proof},
    error::{Challenge, TokenError},
    grant::{GRANT_TYP, Grant, GrantClaims, GrantRules, Holder, Kind, Scope},
    introspected::{Introspected, NotAnIntrospection},
    jws::MAX_TOKEN_BYTES,
    keyset::{KeySet, KeySetError, MAX_JWKS_BYTES, MAX_JWKS_KEYS, Skipped},
    person::{MAX_NAME_BYTES, MAX_NAMES, account},
    presented::{Certificate, MAX_PROOF_BYTES, Presented, Scheme, Token},
    replays::{MAX_PROOFS, MAX_PROOFS_EACH, Replays},
    rules::{Algorithm, IssuerRules, MAX_CLOCK_SKEW, Purpose, UnknownAlgorithm},
};

/// How the caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// An OIDC access token in JWT form (RFC 9068).
    OidcJwt,
    /// An opaque access token that its issuer was asked about (RFC 7662).
    OidcIntrospection,
    /// A grant of our own, which says how its holder authenticated when it was made.
    Grant,
    /// A SAML 2.0 assertion (RFC 7522).
    Saml,
    /// The certificate of their connection (mutual TLS), and no token.
    Mtls,
}

impl AuthMethod {
    /// The name in records: `oidc_jwt`, `oidc_introspection`, `grant`, `saml`, `mtls`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OidcJwt => "oidc_jwt",
            Self::Grant => "grant",
            Self::Saml => "saml",
            Self::Mtls => "mtls",
            Self::OidcIntrospection => "oidc_introspection",
        }
    }
}

/// A verified caller. Only the verification of a token, the answer of the issuer about one ([`Introspected`]), or a certificate that the
/// operator names, makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The issuer (`iss`) that vouches for the caller.
    pub issuer: String,
    /// The subject (`sub`), unique within the issuer.
    pub subject: String,
    /// Those of the operator's audiences that the token is for: see [`IssuerRules::admits`].
    pub audiences: Vec<String>,
    /// Values of the issuer's groups claim.
    pub groups: Vec<String>,
    /// Further claims, only those the configuration lists for the issuer.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// How the caller authenticated.
    pub auth_method: AuthMethod,
    /// SHA-256 of the token, or of the certificate where there is none: names it in records without revealing it.
    pub token_hash: [u8; 32],
    /// The instant (`exp`) after which the token counts for nothing.
    pub expires_at: Timestamp,
    /// When the caller last proved who they are (`auth_time`, OIDC Core 2), where the issuer says so.
    pub authenticated_at: Option<Timestamp>,
    /// When the token was issued (`iat`), where it says so.
    pub issued_at: Option<Timestamp>,
    /// Further names of the human who calls: `person:` and a value of the issuer's `person_claim` or `owner_claim`, and the
    /// [`account`] of each actor (`act`, RFC 8693). Two callers who share one are one human.
    pub also: BTreeSet<String>,
    /// Whether the issuer's tokens name the human (`person_claim`, `owner_claim`) and this one does not: whoever chooses what a token
    /// tells must not choose to be nobody, so such a caller neither decides nor asks for decisions.
    pub person_missing: bool,
    /// What a grant narrows the caller to, where they authenticated with one.
    pub grant: Option<Arc<Grant>>,
    /// What must be shown together with the token, at every request.
    pub bound: Bound,
}

/// What a token says of itself before anything is proved: enough to choose the rules and the keys, good for nothing else.
pub struct Unverified<'t> {
    token: &'t str,
    jws: jws::Compact<'t>,
    claims: claims::Claims,
    issuer: String,
}

impl std::fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unverified").finish_non_exhaustive()
    }
}

impl Unverified<'_> {
    /// The issuer the token claims.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The id of the key the token claims to be signed with.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.jws.kid()
    }

    /// Proves the token under the rules and the keys of its issuer at the instant `now`.
    ///
    /// The signature is checked before any claim, so what an error says of claims is only ever told to someone who holds
    /// a token of the issuer's making.
    ///
    /// # Errors
    /// Every [`TokenError`] but those of [`peek`]; [`TokenError::UnknownKey`] is worth a retry with newer keys.
    pub fn verify(
        self,
        rules: &IssuerRules,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        self.prove(rules, keys)?;
        let hash = token_hash(self.token);
        self.holder(hash, rules, now)
    }

    /// Whether it is of a kind that could count, by what it says of itself; for what is not proved here but asked about.
    pub(crate) fn check_kind(&self, rules: &IssuerRules) -> Result<(), TokenError> {
        self.claims.check_type(self.jws.typ(), rules)
    }

    /// The first half of [`verify`](Self::verify), which may be tried again with newer keys: that the issuer made it.
    pub(crate) fn prove(&self, rules: &IssuerRules, keys: &KeySet) -> Result<(), TokenError> {
        if self.issuer != rules.issuer {
            return Err(TokenError::UnknownIssuer);
        }
        self.jws.verify(&rules.algorithms, keys)
    }

    /// The second half: whose it is. INVARIANT: only for what [`prove`](Self::prove) found good under the same rules. `hash` is that
    /// of the token, which whoever looked for it in a memory has already.
    pub(crate) fn holder(
        self,
        hash: [u8; 32],
        rules: &IssuerRules,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let typ = self.jws.typ();
        let accepted = self.claims.accept(typ, rules, now)?;
        Ok(proved(accepted, rules, hash, AuthMethod::OidcJwt))
    }
}

/// The caller whom a token of this hash proves, by claims that passed.
fn proved(
    accepted: claims::Accepted,
    rules: &IssuerRules,
    token_hash: [u8; 32],
    auth_method: AuthMethod,
) -> Principal {
    Principal {
        issuer: rules.issuer.clone(),
        subject: accepted.subject,
        audiences: accepted.audiences,
        groups: accepted.groups,
        claims: accepted.claims,
        auth_method,
        token_hash,
        expires_at: accepted.expires_at,
        authenticated_at: accepted.authenticated_at,
        issued_at: accepted.issued_at,
        also: accepted.also,
        person_missing: accepted.person_missing,
        grant: None,
        bound: accepted.bound,
    }
}

/// Reads a token without proving anything: at most [`MAX_TOKEN_BYTES`], three segments of strict base64url, and two JSON
/// objects without duplicate members nested at most 16 deep.
///
/// # Errors
/// [`TokenError`] for a token that is not well formed, whose header demands what is never done (`crit`, `b64`), or that
/// names no issuer.
pub fn peek(token: &str) -> Result<Unverified<'_>, TokenError> {
    let jws = jws::Compact::parse(token)?;
    let claims = claims::Claims::parse(jws.payload())?;
    let issuer = claims.issuer()?.to_owned();
    Ok(Unverified {
        token,
        jws,
        claims,
        issuer,
    })
}

/// Reads and proves a token of one issuer at the instant `now`.
///
/// # Errors
/// [`TokenError`], one variant per cause.
pub fn verify(
    token: &str,
    rules: &IssuerRules,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Principal, TokenError> {
    peek(token)?.verify(rules, keys, now)
}

/// SHA-256 of a token: its name in records and caches.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "tests")]
#[cfg_attr(fuzzing, allow(dead_code, reason = "scripts need little of it"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
