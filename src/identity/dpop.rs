//! DPoP proofs (RFC 9449): that whoever sends a request has a private key, for this request and this token alone.
//!
//! Promises: a [`Proof`] comes only of a proof that passes every check of section 4.3, against the method and the address by which
//! the request came and the hash of the token that came with it. Never: takes the address from anything the caller chose freely.
//! Can miss: that a proof was used before, which [`Replays`](super::Replays) knows; that it was made long before the time it tells, by
//! somebody who had the key and the token for a while: there are no nonces of ours (sections 8 and 11.2), so only the token's expiry
//! ends that.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::{
    Algorithm, MAX_PROOF_BYTES, Presented, TokenError,
    claims::instant,
    json,
    jws::{Compact, Typ},
    keyset::{Carried, KeySet},
};

/// How old a proof may be, in seconds.
pub const PROOF_AGE: i64 = 60;
/// How far ahead a proof's time may lie, in seconds: the caller's clock may be off by so much (FAPI 2.0, 5.3.2.1).
pub const PROOF_AHEAD: i64 = 10;

/// A proof that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint (RFC 7638, SHA-256) of the key that made it.
    pub key: [u8; 32],
    /// Names it among all proofs of all keys: of the key's thumbprint and its `jti`.
    pub id: [u8; 32],
    /// When it was made (`iat`), in seconds since 1970.
    pub made: i64,
}

/// Verifies the proof that was presented at the instant `now`: for `token` where one came with it, as to a protected resource;
/// without one as to a token endpoint, where nothing says yet whose key it is.
///
/// # Errors
/// [`TokenError`], a variant per check.
pub fn verify(
    presented: &Presented,
    token: Option<&str>,
    now: Timestamp,
) -> Result<Proof, TokenError> {
    let proof = presented.proof.as_ref().ok_or(TokenError::ProofMissing)?;
    let proof = proof.expose_secret();
    if proof.len() > MAX_PROOF_BYTES {
        return Err(TokenError::ProofMalformed);
    }
    let malformed = |_| TokenError::ProofMalformed;
    let jws = Compact::parse(proof).map_err(malformed)?;
    if jws.typ() != Typ::Proof {
        return Err(TokenError::ProofWrongType);
    }
    let key = signed_by(&jws)?;
    let claims = json::object(jws.payload()).map_err(|_| TokenError::ProofMalformed)?;
    let text = |name| claims.get(name).and_then(Value::as_str);
    let invalid = TokenError::ProofClaimsInvalid;
    let id = text("jti").filter(|id| !id.is_empty()).ok_or(invalid)?;
    let method = text("htm").ok_or(invalid)?;
    let target = text("htu").ok_or(invalid)?;
    let made = claims.get("iat").and_then(|iat| instant(iat, f64::floor));
    let made = made.ok_or(invalid)?.as_second();
    if method != presented.method {
        return Err(TokenError::ProofWrongMethod);
    }
    let ours = presented.target.as_deref();
    if !is_same(target, ours.ok_or(TokenError::ProofHostUnknown)?) {
        return Err(TokenError::ProofWrongUrl);
    }
    if !presented.again {
        check_age(made, now)?;
    }
    if let Some(token) = token {
        check_token(&claims, token)?;
    }
    let id = Sha256::new().chain_update(key).chain_update(id);
    Ok(Proof {
        key,
        id: id.finalize().into(),
        made,
    })
}

/// The thumbprint of the key that the proof brings along and is signed by.
fn signed_by(jws: &Compact<'_>) -> Result<[u8; 32], TokenError> {
    let jwk = jws.jwk().ok_or(TokenError::ProofKeyInvalid)?;
    let (keys, thumbprint) = KeySet::carried(jwk).map_err(|why| match why {
        Carried::Private => TokenError::ProofKeyPrivate,
        Carried::Unfit => TokenError::ProofKeyInvalid,
    })?;
    jws.verify_by(&Algorithm::ALL, &keys, None)
        .map_err(|error| match error {
            TokenError::AlgorithmRefused => TokenError::ProofAlgorithmRefused,
            TokenError::BadSignature => TokenError::ProofBadSignature,
            _ => TokenError::ProofKeyInvalid,
        })?;
    Ok(thumbprint)
}

fn check_age(made: i64, now: Timestamp) -> Result<(), TokenError> {
    let age = now.as_second().saturating_sub(made);
    if age > PROOF_AGE {
        return Err(TokenError::ProofStale);
    }
    if age < -PROOF_AHEAD {
        return Err(TokenError::ProofInFuture);
    }
    Ok(())
}

/// `ath`: the hash of the token, so that a proof does for no other.
fn check_token(claims: &Map<String, Value>, token: &str) -> Result<(), TokenError> {
    let named = claims.get("ath").ok_or(TokenError::ProofTokenMissing)?;
    let hash = URL_SAFE_NO_PAD.encode(super::token_hash(token));
    match named.as_str() == Some(hash.as_str()) {
        true => Ok(()),
        false => Err(TokenError::ProofWrongToken),
    }
}

/// Whether `htu` is the address `ours`, which has no scheme: after the normalisation of RFC 3986, 6.2.2 and 6.2.3, query and
/// fragment aside.
///
/// The scheme must be https, or http where nothing leaves the machine: that a caller spoke https may be known only to a proxy in
/// front of Envoy, and headers that would tell are the caller's to write. So it is not compared but demanded.
fn is_same(htu: &str, ours: &str) -> bool {
    // The parser mends what it can; who sends what needs mending is refused.
    let plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
    let rest = htu.split_once("://").map(|(_, rest)| rest);
    if !htu.bytes().all(plain) || rest.is_none_or(|rest| rest.starts_with('/')) {
        return false;
    }
    let Ok(named) = Url::parse(htu) else {
        return false;
    };
    let loopback = match named.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    let scheme = named.scheme();
    if scheme != "https" && !(scheme == "http" && loopback) {
        return false;
    }
    if !named.username().is_empty() || named.password().is_some() {
        return false;
    }
    let Ok(ours) = Url::parse(&format!("{scheme}://{ours}")) else {
        return false;
    };
    named.host() == ours.host()
        && named.port_or_known_default() == ours.port_or_known_default()
        && normal(named.path()) == normal(ours.path())
}

/// A path with its percent escapes normalised: in upper case, and none where none is needed. Dot segments are gone already.
fn normal(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let byte = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match byte {
            Some(byte) => {
                let char = char::from(byte);
                match char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_' | '~') {
                    true => normal.push(char),
                    false => normal.push_str(&format!("%{byte:02X}")),
                }
                after.get(2..).unwrap_or_default()
            }
            None => {
                normal.push('%');
                after
            }
        };
    }
    normal.push_str(rest);
    normal
}
