//! Who is calling: the verified caller, and the rules by which a token becomes one.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// How the caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// An OIDC access token in JWT form (RFC 9068).
    OidcJwt,
}

/// A verified caller. Only token verification makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The issuer (`iss`) that vouches for the caller.
    pub issuer: String,
    /// The subject (`sub`), unique within the issuer.
    pub subject: String,
    /// Values of the issuer's groups claim.
    pub groups: Vec<String>,
    /// Further claims, only those the configuration lists for the issuer.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// How the caller authenticated.
    pub auth_method: AuthMethod,
    /// SHA-256 of the token: names it in records without revealing it.
    pub token_hash: [u8; 32],
    /// The instant (`exp`) after which the token counts for nothing.
    pub expires_at: Timestamp,
}
