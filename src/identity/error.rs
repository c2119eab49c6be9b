//! Why a token was refused, in words for the caller and a code for machines.

use std::fmt::Write as _;

use super::Algorithm;

/// Why a token was refused. The words are for the caller and contain nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// No token came with the request.
    #[error("no token was sent")]
    Missing,
    /// More than one token came with the request; which of them counts would be a guess.
    #[error("more than one token was sent")]
    Repeated,
    /// The `Authorization` header is not `Bearer` or `DPoP` followed by one token.
    #[error("the authorization header is neither a bearer nor a DPoP token")]
    NotBearer,
    /// More than one DPoP proof came with the request (RFC 9449, 4.3, check 1), or one that is not readable text.
    #[error("more than one DPoP proof was sent, or one that is not readable")]
    ProofRepeated,
    /// Longer than [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("the token is larger than 16 KiB")]
    TooLarge,
    /// Not three segments joined by dots.
    #[error("the token is not a signed JWT of three segments")]
    NotJws,
    /// A segment is not unpadded base64url, or not in its one canonical form.
    #[error("a segment of the token is not base64url")]
    NotBase64Url,
    /// Header or claims are not a JSON object in UTF-8.
    #[error("header or claims of the token are not a JSON object")]
    NotJson,
    /// Header or claims nest too deep.
    #[error("header or claims of the token nest too deep")]
    TooDeep,
    /// Header or claims name a member twice.
    #[error("header or claims of the token name a member twice")]
    DuplicateMember,
    /// A header member this service reads has a value of the wrong type, or `alg` is missing.
    #[error("the header of the token is not valid")]
    InvalidHeader,
    /// The header has `crit`: it demands an extension, and none is implemented.
    #[error("the token demands a critical extension")]
    CriticalExtension,
    /// The header has `b64` (RFC 7797).
    #[error("the token uses an unencoded payload")]
    UnencodedPayload,
    /// The algorithm is not one the operator listed for the issuer.
    #[error("the algorithm of the token is not accepted for its issuer")]
    AlgorithmRefused,
    /// `iss` is missing or not a string.
    #[error("the token names no issuer")]
    IssuerMissing,
    /// The issuer is none of the configured ones.
    #[error("the issuer of the token is not accepted")]
    UnknownIssuer,
    /// The issuer's keys cannot be had at the moment, or it does not answer when asked about a token. Not the caller's fault, and
    /// worth a retry.
    #[error("the token's issuer is not available")]
    IssuerUnavailable,
    /// The issuer was asked about the token (RFC 7662) and says that it is not active: expired, revoked, or none of its own.
    #[error("the issuer of the token says that it is not active")]
    Inactive,
    /// No key of the issuer has the token's `kid`.
    #[error("no key of the issuer has the key id of the token")]
    UnknownKey,
    /// The key the token names is not for the token's algorithm.
    #[error("the key of the token does not fit its algorithm")]
    KeyMismatch,
    /// Several keys of the issuer would fit.
    #[error("more than one key of the issuer fits the token")]
    AmbiguousKey,
    /// The signature is not that of the issuer's key.
    #[error("the signature of the token is not valid")]
    BadSignature,
    /// `typ` is that of something other than an access token.
    #[error("the token is not an access token")]
    WrongType,
    /// An ID token, where the issuer's rules do not allow them.
    #[error("the token is an ID token; an access token is needed")]
    IdToken,
    /// `aud` is missing.
    #[error("the token names no audience")]
    AudienceMissing,
    /// `aud` is neither a string nor a list of strings.
    #[error("the audience of the token is not a string or a list of strings")]
    AudienceInvalid,
    /// `aud` contains none of the issuer's configured audiences.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// `exp` is missing.
    #[error("the token has no expiry")]
    ExpiryMissing,
    /// `exp` is not a number of seconds that names an instant.
    #[error("the expiry of the token is not valid")]
    ExpiryInvalid,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is not a number of seconds that names an instant.
    #[error("the not-before time of the token is not valid")]
    NotBeforeInvalid,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is not a number of seconds that names an instant.
    #[error("the issue time of the token is not valid")]
    IssuedAtInvalid,
    /// `iat` lies in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `auth_time` is not a number of seconds that names an instant.
    #[error("the authentication time of the token is not valid")]
    AuthTimeInvalid,
    /// `sub` is missing.
    #[error("the token names no subject")]
    SubjectMissing,
    /// `sub` is not a string of 1 to 255 bytes without control characters.
    #[error("the subject of the token is not valid")]
    SubjectInvalid,
    /// The groups claim is neither a string nor a list of strings, or over its bounds.
    #[error("the groups of the token are not valid")]
    GroupsInvalid,
    /// The groups were too many for the token, and the issuer keeps them elsewhere (`_claim_names`, OIDC Core 5.6.2).
    #[error("the groups of the token are not in the token")]
    GroupsElsewhere,
    /// `act` (RFC 8693, 4.1) is not a chain of at most 8 actors, each with a `sub` that is a good subject and at most an `iss`
    /// of 1 to 256 bytes without control characters.
    #[error("the actor of the token is not valid")]
    ActorInvalid,
    /// A grant of ours says what this program does not know: a newer replica made it.
    #[error("the grant cannot be read here: a newer replica made it")]
    GrantUnreadable,
    /// The grant was revoked (RFC 7009).
    #[error("the grant was revoked")]
    GrantRevoked,
    /// Whether the grant was revoked cannot be known: the control log cannot be reached.
    #[error("grants cannot be checked now; try again")]
    GrantsUnavailable,
    /// A claim that names a person holds neither a string of 1 to 256 bytes without control characters, nor a whole number,
    /// nor a list of at most 16 of these.
    #[error("the person that the token names is not valid")]
    PersonInvalid,
    /// `cnf` is not an object of `jkt`, `x5t#S256` or both, each a digest in base64url.
    #[error("the token is bound to something that is not known here")]
    BindingUnknown,
    /// The issuer's tokens must be bound to a key or a certificate, and this one is not.
    #[error("the token is not bound to a key or certificate, as those of its issuer must be")]
    NotBound,
    /// A token that is bound to a key came as a bearer token (RFC 9449, 7.2).
    #[error("the token is bound to a key; send it with the scheme DPoP and a proof")]
    BoundAsBearer,
    /// A token that is not bound to a key came with the scheme `DPoP` (RFC 9449, 7.1).
    #[error("the token is not bound to a key; send it with the scheme Bearer")]
    NotBoundToKey,
    /// A token that is bound to a key came without a proof.
    #[error("no DPoP proof was sent")]
    ProofMissing,
    /// The proof is no JWS in compact form of at most [`MAX_PROOF_BYTES`](super::MAX_PROOF_BYTES), of two JSON objects without duplicate members and deep nesting, or demands an extension.
    #[error("the DPoP proof is not a signed JWT")]
    ProofMalformed,
    /// `typ` of the proof is not `dpop+jwt`.
    #[error("the type of the DPoP proof is not dpop+jwt")]
    ProofWrongType,
    /// `alg` of the proof is `none`, symmetric or unknown.
    #[error("the algorithm of the DPoP proof is not accepted")]
    ProofAlgorithmRefused,
    /// `jwk` of the proof has a private or symmetric key: whoever sees the proof has it now.
    #[error("the DPoP proof gives away its private key")]
    ProofKeyPrivate,
    /// `jwk` of the proof is missing, malformed, weak, or not for its algorithm.
    #[error("the key of the DPoP proof is not valid")]
    ProofKeyInvalid,
    /// The proof is not signed with its key.
    #[error("the signature of the DPoP proof is not valid")]
    ProofBadSignature,
    /// `jti`, `htm`, `htu` or `iat` of the proof is missing or of the wrong kind.
    #[error("the DPoP proof lacks jti, htm, htu or iat, or one of them is not valid")]
    ProofClaimsInvalid,
    /// `htm` is not the request's method.
    #[error("the DPoP proof is for another method")]
    ProofWrongMethod,
    /// Under which host this service is to be called is not configured, so no proof can be held against it.
    #[error("no DPoP proof can be checked here, as the host to be called is not configured")]
    ProofHostUnknown,
    /// `htu` is not where the request went, or is not https.
    #[error("the DPoP proof is for another URL, or not for https")]
    ProofWrongUrl,
    /// The proof is older than [`PROOF_AGE`](super::PROOF_AGE).
    #[error("the DPoP proof is too old")]
    ProofStale,
    /// The proof's time is further ahead than [`PROOF_AHEAD`](super::PROOF_AHEAD).
    #[error("the DPoP proof was made in the future")]
    ProofInFuture,
    /// The proof does not say which token it is for (`ath`).
    #[error("the DPoP proof has no hash of the token")]
    ProofTokenMissing,
    /// The proof is for another token (`ath`).
    #[error("the DPoP proof is for another token")]
    ProofWrongToken,
    /// The proof's key is not the one that the token is bound to.
    #[error("the token is bound to another key than that of the DPoP proof")]
    ProofWrongKey,
    /// The proof was used before.
    #[error("the DPoP proof was used before")]
    ProofReplayed,
    /// As many proofs are remembered as can be; to use one that is not remembered would allow to use it twice. Worth a retry.
    #[error("more DPoP proofs were used of late than can be remembered")]
    ProofsFull,
    /// A token that is bound to a certificate came over a connection without one.
    #[error("the token is bound to a client certificate, and none was shown")]
    CertificateMissing,
    /// A token that is bound to a certificate came with another.
    #[error("the token is bound to another client certificate")]
    CertificateWrong,
    /// No token came, and the certificate is nobody's that may call without one.
    #[error("the client certificate is not one that may call without a token")]
    CertificateUnknown,
}

/// What an answer to the refused request says about how to authenticate (RFC 6750, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// HTTP status: 401, or 400 for a request that is wrong in itself, or 503 where it may be right later.
    pub status: u16,
    /// The error code of RFC 6750 or RFC 9449; none where no token was sent, or the fault is not the caller's.
    pub error: Option<&'static str>,
}

impl TokenError {
    /// Every variant, for tables and for documentation.
    pub const ALL: &[Self] = &[
        Self::Missing,
        Self::Repeated,
        Self::NotBearer,
        Self::ProofRepeated,
        Self::TooLarge,
        Self::NotJws,
        Self::NotBase64Url,
        Self::NotJson,
        Self::TooDeep,
        Self::DuplicateMember,
        Self::InvalidHeader,
        Self::CriticalExtension,
        Self::UnencodedPayload,
        Self::AlgorithmRefused,
        Self::IssuerMissing,
        Self::UnknownIssuer,
        Self::IssuerUnavailable,
        Self::Inactive,
        Self::UnknownKey,
        Self::KeyMismatch,
        Self::AmbiguousKey,
        Self::BadSignature,
        Self::WrongType,
        Self::IdToken,
        Self::AudienceMissing,
        Self::AudienceInvalid,
        Self::WrongAudience,
        Self::ExpiryMissing,
        Self::ExpiryInvalid,
        Self::Expired,
        Self::NotBeforeInvalid,
        Self::NotYetValid,
        Self::IssuedAtInvalid,
        Self::IssuedInFuture,
        Self::AuthTimeInvalid,
        Self::SubjectMissing,
        Self::SubjectInvalid,
        Self::GroupsInvalid,
        Self::GroupsElsewhere,
        Self::ActorInvalid,
        Self::PersonInvalid,
        Self::GrantUnreadable,
        Self::GrantRevoked,
        Self::GrantsUnavailable,
        Self::BindingUnknown,
        Self::NotBound,
        Self::BoundAsBearer,
        Self::NotBoundToKey,
        Self::ProofMissing,
        Self::ProofMalformed,
        Self::ProofWrongType,
        Self::ProofAlgorithmRefused,
        Self::ProofKeyPrivate,
        Self::ProofKeyInvalid,
        Self::ProofBadSignature,
        Self::ProofClaimsInvalid,
        Self::ProofWrongMethod,
        Self::ProofHostUnknown,
        Self::ProofWrongUrl,
        Self::ProofStale,
        Self::ProofInFuture,
        Self::ProofTokenMissing,
        Self::ProofWrongToken,
        Self::ProofWrongKey,
        Self::ProofReplayed,
        Self::ProofsFull,
        Self::CertificateMissing,
        Self::CertificateWrong,
        Self::CertificateUnknown,
    ];

    /// The stable machine-readable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Repeated => "token_repeated",
            Self::NotBearer => "token_not_bearer",
            Self::ProofRepeated => "proof_repeated",
            Self::TooLarge => "token_too_large",
            Self::NotJws => "token_not_jws",
            Self::NotBase64Url => "token_not_base64url",
            Self::NotJson => "token_not_json",
            Self::TooDeep => "token_too_deep",
            Self::DuplicateMember => "token_duplicate_member",
            Self::InvalidHeader => "token_invalid_header",
            Self::CriticalExtension => "token_critical_extension",
            Self::UnencodedPayload => "token_unencoded_payload",
            Self::AlgorithmRefused => "token_algorithm_refused",
            Self::IssuerMissing => "issuer_missing",
            Self::UnknownIssuer => "issuer_unknown",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::Inactive => "token_inactive",
            Self::UnknownKey => "key_unknown",
            Self::KeyMismatch => "key_mismatch",
            Self::AmbiguousKey => "key_ambiguous",
            Self::BadSignature => "token_bad_signature",
            Self::WrongType => "token_wrong_type",
            Self::IdToken => "token_is_id_token",
            Self::AudienceMissing => "audience_missing",
            Self::AudienceInvalid => "audience_invalid",
            Self::WrongAudience => "audience_wrong",
            Self::ExpiryMissing => "exp_missing",
            Self::ExpiryInvalid => "exp_invalid",
            Self::Expired => "token_expired",
            Self::NotBeforeInvalid => "nbf_invalid",
            Self::NotYetValid => "token_not_yet_valid",
            Self::IssuedAtInvalid => "iat_invalid",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::AuthTimeInvalid => "auth_time_invalid",
            Self::SubjectMissing => "subject_missing",
            Self::SubjectInvalid => "subject_invalid",
            Self::GroupsInvalid => "groups_invalid",
            Self::GroupsElsewhere => "groups_elsewhere",
            Self::ActorInvalid => "actor_invalid",
            Self::PersonInvalid => "person_invalid",
            Self::GrantUnreadable => "grant_unreadable",
            Self::GrantRevoked => "grant_revoked",
            Self::GrantsUnavailable => "grants_unavailable",
            Self::BindingUnknown => "binding_unknown",
            Self::NotBound => "token_not_bound",
            Self::BoundAsBearer => "token_bound_to_key",
            Self::NotBoundToKey => "token_not_bound_to_key",
            Self::ProofMissing => "proof_missing",
            Self::ProofMalformed => "proof_malformed",
            Self::ProofWrongType => "proof_wrong_type",
            Self::ProofAlgorithmRefused => "proof_algorithm_refused",
            Self::ProofKeyPrivate => "proof_key_private",
            Self::ProofKeyInvalid => "proof_key_invalid",
            Self::ProofBadSignature => "proof_bad_signature",
            Self::ProofClaimsInvalid => "proof_claims_invalid",
            Self::ProofWrongMethod => "proof_wrong_method",
            Self::ProofHostUnknown => "proof_host_unknown",
            Self::ProofWrongUrl => "proof_wrong_url",
            Self::ProofStale => "proof_stale",
            Self::ProofInFuture => "proof_in_future",
            Self::ProofTokenMissing => "proof_token_missing",
            Self::ProofWrongToken => "proof_wrong_token",
            Self::ProofWrongKey => "proof_wrong_key",
            Self::ProofReplayed => "proof_replayed",
            Self::ProofsFull => "proofs_full",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateWrong => "certificate_wrong",
            Self::CertificateUnknown => "certificate_unknown",
        }
    }

    /// Status and error code of the answer. A malformed token is `invalid_token` like a forged one (RFC 6750, 3.1);
    /// `invalid_request` is for a request that breaks the rules of carrying a token.
    #[must_use]
    pub fn challenge(self) -> Challenge {
        match self {
            Self::Missing => Challenge {
                status: 401,
                error: None,
            },
            Self::Repeated | Self::NotBearer | Self::ProofRepeated => Challenge {
                status: 400,
                error: Some("invalid_request"),
            },
            Self::IssuerUnavailable | Self::GrantsUnavailable | Self::ProofsFull => Challenge {
                status: 503,
                error: None,
            },
            Self::ProofMissing
            | Self::ProofMalformed
            | Self::ProofWrongType
            | Self::ProofAlgorithmRefused
            | Self::ProofKeyPrivate
            | Self::ProofKeyInvalid
            | Self::ProofBadSignature
            | Self::ProofClaimsInvalid
            | Self::ProofWrongMethod
            | Self::ProofHostUnknown
            | Self::ProofWrongUrl
            | Self::ProofStale
            | Self::ProofInFuture
            | Self::ProofTokenMissing
            | Self::ProofWrongToken
            | Self::ProofReplayed => Challenge {
                status: 401,
                error: Some("invalid_dpop_proof"),
            },
            _ => Challenge {
                status: 401,
                error: Some("invalid_token"),
            },
        }
    }

    /// Whether the caller is to use the scheme `DPoP`.
    fn is_about_dpop(self) -> bool {
        matches!(self, Self::BoundAsBearer | Self::ProofWrongKey)
            || self.challenge().error == Some("invalid_dpop_proof")
    }

    /// The value of `WWW-Authenticate`. `realm` is written in quotes; characters it cannot hold are dropped.
    ///
    /// Who sent nothing is told both schemes (RFC 9449, 7.2).
    #[must_use]
    pub fn www_authenticate(self, realm: &str) -> String {
        let realm: String = realm
            .chars()
            .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
            .collect();
        let algorithms = Algorithm::ALL.map(Algorithm::name).join(" ");
        let scheme = if self.is_about_dpop() {
            "DPoP"
        } else {
            "Bearer"
        };
        let mut value = format!("{scheme} realm=\"{realm}\"");
        // Writing to a String cannot fail.
        if let Some(error) = self.challenge().error {
            let _ = write!(value, ", error=\"{error}\", error_description=\"{self}\"");
        }
        if self.is_about_dpop() {
            let _ = write!(value, ", algs=\"{algorithms}\"");
        }
        if self == Self::Missing {
            let _ = write!(value, ", DPoP realm=\"{realm}\", algs=\"{algorithms}\"");
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_words_fit_for_a_header() {
        let codes: BTreeSet<_> = TokenError::ALL.iter().map(|error| error.code()).collect();
        assert_eq!(codes.len(), TokenError::ALL.len());
        for error in TokenError::ALL {
            let words = error.to_string();
            // RFC 6750, section 3: %x20-21 / %x23-5B / %x5D-7E
            assert!(
                words
                    .bytes()
                    .all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)),
                "{words}"
            );
            assert!(!words.ends_with('.'), "{words}");
            assert!(
                error
                    .code()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b"0123456789_".contains(&b)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn challenges_are_those_of_rfc_6750_and_rfc_9449() {
        assert_eq!(
            TokenError::Missing.www_authenticate("countersign"),
            "Bearer realm=\"countersign\", DPoP realm=\"countersign\", \
             algs=\"RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA\""
        );
        assert_eq!(
            TokenError::ProofStale.www_authenticate("c"),
            "DPoP realm=\"c\", error=\"invalid_dpop_proof\", error_description=\"the DPoP proof is too old\", \
             algs=\"RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA\""
        );
        assert!(
            TokenError::BoundAsBearer
                .www_authenticate("c")
                .starts_with("DPoP realm=\"c\", error=\"invalid_token\", ")
        );
        assert_eq!(
            TokenError::Expired.www_authenticate("co\"unter\\sign\r\nx: y"),
            "Bearer realm=\"countersignx: y\", error=\"invalid_token\", error_description=\"the token has expired\"",
        );
        assert_eq!(
            TokenError::Repeated.www_authenticate("c"),
            "Bearer realm=\"c\", error=\"invalid_request\", error_description=\"more than one token was sent\"",
        );
        assert_eq!(TokenError::IssuerUnavailable.challenge().status, 503);
    }
}
