//! What the operator says of an issuer: whom its tokens must be for, how they must be signed, what is read from them.

use std::{fmt, str::FromStr, time::Duration};

/// The most clock skew that is granted, whatever the rules say: 5 minutes.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A signature algorithm of RFC 7518 or RFC 8037 whose verifying key is public. Symmetric ones and `none` have no value
/// here, so that no configuration and no token can name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// EdDSA on Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The registered name, such as `RS256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no asymmetric signature algorithm. Names are case-sensitive (RFC 7515, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an accepted algorithm: use one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(UnknownAlgorithm)
    }
}

/// What a token is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To call a model.
    Inference,
    /// To read or decide over our API.
    Api,
}

/// What is demanded of an issuer's tokens. An empty list accepts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRules {
    /// `iss`, compared byte for byte.
    pub issuer: String,
    /// A token that calls models must be for at least one of these.
    pub audiences: Vec<String>,
    /// What a token must be for that is shown to our API; where there is none, one of `audiences`.
    pub api_audience: Option<String>,
    /// The algorithms a token may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// The claim that holds the caller's groups: a member's name, or a JSON pointer (RFC 6901) where it starts with `/`,
    /// as in `/realm_access/roles`. A token without it has no groups.
    pub groups_claim: Option<String>,
    /// Further claims to keep, named like `groups_claim`.
    pub claims: Vec<String>,
    /// The claim that names the human behind the account (an email, an employee number), named like `groups_claim`. One value
    /// at two issuers is one human, so it must be one that its holder cannot choose.
    pub person_claim: Option<String>,
    /// The claim of a service account that names the human who owns it, named like `groups_claim`, with values like those of
    /// `person_claim`.
    pub owner_claim: Option<String>,
    /// How far the issuer's clock may be off, at most [`MAX_CLOCK_SKEW`].
    pub clock_skew: Duration,
    /// Whether ID tokens are accepted.
    ///
    /// A token whose header says `at+jwt` (RFC 9068) is an access token. One that says `JWT`, or nothing, counts as an ID
    /// token when it has a claim that only ID tokens are given: `nonce`, `at_hash`, `c_hash`, `s_hash` (OIDC Core 2 and
    /// 3.3.2.11, FAPI 1), or Keycloak's claim `typ` with the value `ID`.
    pub allow_id_tokens: bool,
    /// Whether every token must be bound to a key or a certificate of its holder's ([`Bound`](super::Bound)). One that is bound
    /// counts together with that only, whatever this says.
    pub require_bound_tokens: bool,
}

impl IssuerRules {
    /// Whether a token for these audiences is one for this purpose.
    #[must_use]
    pub fn admits(&self, audiences: &[String], purpose: Purpose) -> bool {
        match (purpose, &self.api_audience) {
            (Purpose::Api, Some(api)) => audiences.contains(api),
            _ => audiences.iter().any(|name| self.audiences.contains(name)),
        }
    }

    /// Whether an audience is one of ours.
    pub(super) fn knows(&self, audience: &str) -> bool {
        let mut known = self.audiences.iter().chain(&self.api_audience);
        known.any(|known| known == audience)
    }

    /// The skew that is granted.
    pub(super) fn skew(&self) -> Duration {
        self.clock_skew.min(MAX_CLOCK_SKEW)
    }
}
