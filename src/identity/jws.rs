//! The compact form of a signed token (RFC 7515, section 7.1) and its signature.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Algorithm, KeySet, TokenError, json};

/// The largest token that is looked at: 16 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What the header's `typ` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typ {
    /// `at+jwt`: an access token (RFC 9068, section 2.1).
    AccessToken,
    /// `JWT`, or nothing.
    Jwt,
    /// A grant of our own.
    Grant,
    /// `dpop+jwt`: a proof of possession (RFC 9449, 4.2).
    Proof,
    /// Anything else.
    Other,
}

/// A token taken apart, with nothing proved.
pub(super) struct Compact<'t> {
    signing_input: &'t str,
    algorithm: Option<Algorithm>,
    kid: Option<String>,
    /// A key that it brings along: proves nothing but that whoever signed has it.
    jwk: Option<Value>,
    typ: Typ,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

// Written by hand: the payload and the signature are the caller's secrets.
impl std::fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compact")
            .field("algorithm", &self.algorithm)
            .field("typ", &self.typ)
            .finish_non_exhaustive()
    }
}

impl<'t> Compact<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(TokenError::NotJws)?;
        let (header, payload) = signing_input.split_once('.').ok_or(TokenError::NotJws)?;
        if payload.contains('.') {
            return Err(TokenError::NotJws);
        }
        let mut members = json::object(&decode(header)?)?;
        let payload = decode(payload)?;
        let signature = decode(signature)?;
        // RFC 7515, 4.1.11 lets a token demand extensions; refusing the member refuses them all, known names included.
        if members.contains_key("crit") {
            return Err(TokenError::CriticalExtension);
        }
        if members.contains_key("b64") {
            return Err(TokenError::UnencodedPayload);
        }
        let algorithm = string(&members, "alg")?
            .ok_or(TokenError::InvalidHeader)?
            .parse()
            .ok();
        let kid = string(&members, "kid")?.map(str::to_owned);
        let typ = string(&members, "typ")?.map_or(Typ::Jwt, media_type);
        Ok(Self {
            signing_input,
            algorithm,
            kid,
            jwk: members.remove("jwk"),
            typ,
            payload,
            signature,
        })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn jwk(&self) -> Option<&Map<String, Value>> {
        self.jwk.as_ref()?.as_object()
    }

    pub(super) fn typ(&self) -> Typ {
        self.typ
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Proves that the key of `keys` that is named in the header signed this with one of `algorithms`.
    pub(super) fn verify(&self, algorithms: &[Algorithm], keys: &KeySet) -> Result<(), TokenError> {
        self.verify_by(algorithms, keys, self.kid())
    }

    /// As [`verify`](Self::verify), by the key of this id; without one, by the only key.
    pub(super) fn verify_by(
        &self,
        algorithms: &[Algorithm],
        keys: &KeySet,
        kid: Option<&str>,
    ) -> Result<(), TokenError> {
        let algorithm = self
            .algorithm
            .filter(|algorithm| algorithms.contains(algorithm))
            .ok_or(TokenError::AlgorithmRefused)?;
        keys.select(kid, algorithm)?
            .verify_sig(self.signing_input.as_bytes(), &self.signature)
            .map_err(|_| TokenError::BadSignature)
    }
}

/// Strict base64url: no padding, no whitespace, no bits left over in the last character.
pub(super) fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| TokenError::NotBase64Url)
}

fn string<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, TokenError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::InvalidHeader),
    }
}

/// Media types are compared without case, and `application/` may be left out (RFC 7515, 4.1.9).
fn media_type(typ: &str) -> Typ {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" => Typ::AccessToken,
        "jwt" => Typ::Jwt,
        super::GRANT_TYP => Typ::Grant,
        "dpop+jwt" => Typ::Proof,
        _ => Typ::Other,
    }
}

impl From<json::Fault> for TokenError {
    fn from(fault: json::Fault) -> Self {
        match fault {
            json::Fault::Syntax => Self::NotJson,
            json::Fault::TooDeep => Self::TooDeep,
            json::Fault::Duplicate => Self::DuplicateMember,
        }
    }
}
