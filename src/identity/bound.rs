//! What a token is bound to (`cnf`, RFC 7800), so that who steals it cannot use it.
//!
//! Promises: a token that says it is bound counts only together with what it is bound to; a binding that is not understood is
//! a refusal, never ignored. Can miss: nothing of a bound token; one that is not bound is good in any hands.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Certificate, Presented, Proof, Scheme, TokenError, dpop};

/// What must be shown together with a token. Where both are named, both must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Bound {
    /// The key that makes proofs: its thumbprint (`jkt`, RFC 9449, 6.1).
    pub key: Option<[u8; 32]>,
    /// The client's certificate: SHA-256 of its DER form (`x5t#S256`, RFC 8705, 3.1).
    pub certificate: Option<[u8; 32]>,
}

impl Bound {
    /// Reads the value of a `cnf` claim.
    ///
    /// # Errors
    /// [`TokenError::BindingUnknown`] for anything but an object of `jkt`, `x5t#S256` or both, each a digest of 32 bytes.
    pub fn read(cnf: &Value) -> Result<Self, TokenError> {
        let members = cnf.as_object().ok_or(TokenError::BindingUnknown)?;
        let mut bound = Self::default();
        for (name, value) in members {
            let place = match name.as_str() {
                "jkt" => &mut bound.key,
                "x5t#S256" => &mut bound.certificate,
                _ => return Err(TokenError::BindingUnknown),
            };
            *place = Some(digest(value).ok_or(TokenError::BindingUnknown)?);
        }
        match bound.is_bound() {
            true => Ok(bound),
            false => Err(TokenError::BindingUnknown),
        }
    }

    /// Whether there is anything that must be shown.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.key.is_some() || self.certificate.is_some()
    }

    /// Whether what was presented at `now` is what the token is bound to. A proof, where one is needed, is handed back: it may
    /// be used once, which only who remembers others can tell.
    ///
    /// # Errors
    /// [`TokenError`] for what is missing, wrong, or carried in a way that says it is not bound (RFC 9449, 7.1 and 7.2).
    pub fn check(
        &self,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<Option<Proof>, TokenError> {
        let token = presented.token.as_ref().ok_or(TokenError::Missing)?;
        let proof = match (self.key, token.scheme) {
            (Some(_), Scheme::Bearer) => return Err(TokenError::BoundAsBearer),
            (None, Scheme::Dpop) => return Err(TokenError::NotBoundToKey),
            (None, Scheme::Bearer | Scheme::Bare) => None,
            (Some(key), Scheme::Dpop | Scheme::Bare) => {
                let proof = dpop::verify(presented, Some(token.text.expose_secret()), now)?;
                if proof.key != key {
                    return Err(TokenError::ProofWrongKey);
                }
                Some(proof)
            }
        };
        self.check_certificate(presented).map(|()| proof)
    }

    /// As [`check`](Self::check), at a token endpoint: the token is what is exchanged there, not what the request is sent with, so a
    /// proof needs no `ath` (RFC 9449, 5). One that comes without need is verified all the same: what is issued will be bound to its key.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn check_exchanged(
        &self,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<Option<Proof>, TokenError> {
        let proof = match &presented.proof {
            None => None,
            Some(_) => Some(dpop::verify(presented, None, now)?),
        };
        match (self.key, &proof) {
            (Some(_), None) => return Err(TokenError::ProofMissing),
            (Some(key), Some(proof)) if proof.key != key => return Err(TokenError::ProofWrongKey),
            _ => {}
        }
        self.check_certificate(presented).map(|()| proof)
    }

    fn check_certificate(&self, presented: &Presented) -> Result<(), TokenError> {
        match (self.certificate, &presented.certificate) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(TokenError::CertificateMissing),
            (Some(bound), Some(Certificate { digest, .. })) if *digest == bound => Ok(()),
            (Some(_), Some(_)) => Err(TokenError::CertificateWrong),
        }
    }
}

impl TryFrom<Value> for Bound {
    type Error = TokenError;

    fn try_from(cnf: Value) -> Result<Self, TokenError> {
        Self::read(&cnf)
    }
}

/// As a `cnf` claim has it.
impl From<Bound> for Value {
    fn from(bound: Bound) -> Self {
        let named = [("jkt", bound.key), ("x5t#S256", bound.certificate)];
        let named = named.into_iter().filter_map(|(name, digest)| {
            let digest = URL_SAFE_NO_PAD.encode(digest?);
            Some((name.to_owned(), Self::String(digest)))
        });
        Self::Object(named.collect())
    }
}

/// 32 bytes in strict base64url.
fn digest(value: &Value) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD
        .decode(value.as_str()?)
        .ok()?
        .try_into()
        .ok()
}
