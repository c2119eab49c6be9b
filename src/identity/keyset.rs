//! The public keys of an issuer (RFC 7517).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Algorithm, TokenError, json};

/// The largest JWKS document that is looked at: 256 KiB.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
/// Most keys in a JWKS document, usable or not.
pub const MAX_JWKS_KEYS: usize = 128;

/// Sizes of RSA moduli that are accepted, in bits: below is weak, above costs the verifier too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// How an RSA key verifies, by algorithm.
static RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

/// An issuer's usable keys.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<Skipped>,
    valid_until: Option<Timestamp>,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    family: Family,
    /// What it may verify, and by what, taken apart once: of its family, or the one algorithm that the issuer says it is for.
    verifying: Vec<(Algorithm, ParsedPublicKey)>,
    fingerprint: [u8; 32],
    /// RFC 7638, SHA-256.
    thumbprint: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A key of a JWKS that is not used, and why. Not a fault: an issuer may publish keys for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Position in the document, from 0.
    pub index: usize,
    /// Why, in words for the log.
    pub reason: &'static str,
}

/// Why a key that a proof brings along is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// It is private or symmetric.
    Private,
    /// It cannot be used: malformed, weak, unknown, not for signatures.
    Unfit,
}

/// Why a JWKS document is refused whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Longer than [`MAX_JWKS_BYTES`].
    #[error("the key set is larger than 256 KiB")]
    TooLarge,
    /// Not a JSON object with a list `keys` of objects; duplicate members and deep nesting count as this.
    #[error("the key set is not a JSON object with a list of keys")]
    NotJwks,
    /// More than [`MAX_JWKS_KEYS`].
    #[error("the key set has more than 128 keys")]
    TooManyKeys,
    /// A private or symmetric key is in it: whoever can read the document can sign tokens, so none of it is believed.
    #[error("the key set publishes a private or symmetric key")]
    PrivateKey,
}

impl KeySet {
    /// Reads a JWKS document. An empty list is a set of no keys: the issuer says that nothing is valid.
    ///
    /// # Errors
    /// [`KeySetError`] where the document is refused whole. A single key that cannot be used (unknown type or curve,
    /// weak, malformed, not for signatures) is [skipped](Self::skipped).
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let document = json::object(document).map_err(|_| KeySetError::NotJwks)?;
        let Some(Value::Array(list)) = document.get("keys") else {
            return Err(KeySetError::NotJwks);
        };
        if list.len() > MAX_JWKS_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut set = Self::default();
        for (index, value) in list.iter().enumerate() {
            let Value::Object(jwk) = value else {
                return Err(KeySetError::NotJwks);
            };
            if is_secret(jwk) {
                return Err(KeySetError::PrivateKey);
            }
            match Key::parse(jwk) {
                Ok(key)
                    if set
                        .keys
                        .iter()
                        .any(|known| known.fingerprint == key.fingerprint) =>
                {
                    set.skipped.push(Skipped {
                        index,
                        reason: "is in the set already",
                    });
                }
                Ok(key) => set.keys.push(key),
                Err(reason) => set.skipped.push(Skipped { index, reason }),
            }
        }
        Ok(set)
    }

    /// The key that a proof of possession brings along, alone in a set and without a name, and its thumbprint (RFC 7638, SHA-256).
    pub(super) fn carried(jwk: &Map<String, Value>) -> Result<(Self, [u8; 32]), Carried> {
        if is_secret(jwk) {
            return Err(Carried::Private);
        }
        let mut key = Key::parse(jwk).map_err(|_| Carried::Unfit)?;
        key.kid = None;
        let thumbprint = key.thumbprint;
        let set = Self {
            keys: vec![key],
            skipped: Vec::new(),
            valid_until: None,
        };
        Ok((set, thumbprint))
    }

    /// Number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The instant from which the set counts for nothing, where its source names one: SAML metadata does, a JWKS never.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }

    /// The keys that are not used.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether every key of this set is in `newer`, under the same id and for the same use. Where it is not, whatever was
    /// proved with this set has to be proved again.
    #[must_use]
    pub fn is_kept_by(&self, newer: &Self) -> bool {
        self.keys.iter().all(|old| {
            newer
                .keys
                .iter()
                .any(|new| new.fingerprint == old.fingerprint)
        })
    }

    /// This set, good until that instant.
    #[cfg(feature = "saml")]
    pub(super) fn until(self, valid_until: Option<Timestamp>) -> Self {
        Self {
            valid_until,
            ..self
        }
    }

    /// Whether one of the keys that fit `algorithm` made `signature` over `message`. For what names no key: a `KeyInfo` is
    /// not believed, and metadata gives its keys no names.
    #[cfg(feature = "saml")]
    pub(super) fn any_verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        self.keys
            .iter()
            .filter_map(|key| key.of(algorithm))
            .any(|key| key.verify_sig(message, signature).is_ok())
    }

    /// The key a token with this `kid` and algorithm must be signed with.
    pub(super) fn select(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&ParsedPublicKey, TokenError> {
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        if !self.keys.iter().any(|key| named(&key)) {
            return Err(TokenError::UnknownKey);
        }
        let mut fitting = self
            .keys
            .iter()
            .filter(named)
            .filter_map(|key| key.of(algorithm));
        let Some(key) = fitting.next() else {
            // Without a kid the set may simply be older than the key; with one, the named key is there and is not this kind.
            return Err(if kid.is_none() {
                TokenError::UnknownKey
            } else {
                TokenError::KeyMismatch
            });
        };
        // Trying several would let an attacker choose by trial; it would also hide a rotation gone wrong.
        if fitting.next().is_some() {
            return Err(TokenError::AmbiguousKey);
        }
        Ok(key)
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(
                self.keys
                    .iter()
                    .map(|key| (key.kid.as_deref().unwrap_or("-"), key.family)),
            )
            .finish()
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        check_use(jwk)?;
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(Value::String(name)) => Some(
                name.parse::<Algorithm>()
                    .map_err(|_| "is for an algorithm that is not accepted")?,
            ),
            Some(_) => return Err("has an `alg` that is not a string"),
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err("has a `kid` that is not a string"),
        };
        let (family, mut verifying, material, canonical) =
            match jwk.get("kty").and_then(Value::as_str) {
                Some("RSA") => rsa(jwk)?,
                Some("EC") => elliptic(jwk)?,
                Some("OKP") => edwards(jwk)?,
                _ => return Err("is of a type that is not supported"),
            };
        let fingerprint = fingerprint(kid.as_deref(), algorithm, family, &material);
        if let Some(only) = algorithm {
            verifying.retain(|(algorithm, _)| *algorithm == only);
        }
        if verifying.is_empty() {
            return Err("is of a type or curve that does not fit its `alg`");
        }
        Ok(Self {
            kid,
            family,
            verifying,
            fingerprint,
            thumbprint: Sha256::digest(canonical).into(),
        })
    }

    /// What verifies signatures of this algorithm, if it may.
    fn of(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        let fits = |(of, key)| (of == &algorithm).then_some(key);
        self.verifying
            .iter()
            .map(|(of, key)| (of, key))
            .find_map(fits)
    }
}

/// RFC 7518, 6.2.2, 6.3.2 and 6.4: what makes a key private or symmetric, by its members and by its type.
fn is_secret(jwk: &Map<String, Value>) -> bool {
    ["d", "p", "q", "dp", "dq", "qi", "oth", "k"]
        .iter()
        .any(|name| jwk.contains_key(*name))
        || jwk.get("kty").and_then(Value::as_str) == Some("oct")
}

/// RFC 7517, 4.2 and 4.3: where the issuer says what a key is for, it must be for verifying signatures.
fn check_use(jwk: &Map<String, Value>) -> Result<(), &'static str> {
    if jwk.get("use").is_some_and(|value| value != "sig") {
        return Err("is not for signatures (`use`)");
    }
    let for_verifying = |operations: &Value| {
        operations
            .as_array()
            .is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    };
    if jwk
        .get("key_ops")
        .is_some_and(|operations| !for_verifying(operations))
    {
        return Err("is not for verifying (`key_ops`)");
    }
    Ok(())
}

/// The kind of key, what verifies with it, its bytes, and the text of which RFC 7638, 3.2 has the thumbprint taken.
type Material = (Family, Vec<(Algorithm, ParsedPublicKey)>, Vec<u8>, String);

fn rsa(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    // Old encoders write a leading zero byte, which RFC 7518, 6.3.1.1 forbids; dropping it changes nothing.
    let strip = |bytes: Vec<u8>| {
        bytes
            .iter()
            .position(|b| *b != 0)
            .map_or(Vec::new(), |start| bytes[start..].to_vec())
    };
    let modulus = strip(member(jwk, "n")?);
    let exponent = strip(member(jwk, "e")?);
    let bits = modulus.len() * 8
        - modulus
            .first()
            .map_or(0, |first| first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err("has a modulus of less than 2048 or more than 8192 bits");
    }
    if modulus.last().is_none_or(|last| last % 2 == 0) {
        return Err("has an even modulus");
    }
    // SP 800-89 wants more than 2^16; 3 and 17 are refused with it. Above 32 bits verification gets dear.
    let public = exponent.iter().try_fold(0u32, |sum, byte| {
        sum.checked_mul(256)?.checked_add(u32::from(*byte))
    });
    if public.is_none_or(|public| public < 65537 || public % 2 == 0) {
        return Err("has a public exponent below 65537, even, or of more than 32 bits");
    }
    if has_roca_fingerprint(&modulus) {
        return Err("has a modulus of the kind that can be factored (ROCA, CVE-2017-15361)");
    }
    let material = [modulus.as_slice(), &[0], &exponent].concat();
    let [n, e] = [&modulus, &exponent].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let public = RsaPublicKeyComponents {
        n: &modulus,
        e: &exponent,
    };
    let parse = |(algorithm, parameters): &(Algorithm, &'static RsaParameters)| {
        let key = public.to_parsed_public_key(parameters).ok()?;
        Some((*algorithm, key))
    };
    let verifying = RSA.iter().map(parse).collect::<Option<_>>();
    Ok((
        Family::Rsa,
        verifying.ok_or("is no RSA key")?,
        material,
        format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
    ))
}

/// Moduli made by a faulty smartcard library are powers of 65537 modulo every small prime; any other modulus is so modulo
/// these 17 with a chance of about 2^-28 (Nemec et al., "The Return of Coppersmith's Attack", 2017).
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.into_iter().all(|prime| {
        let residue = modulus
            .iter()
            .fold(0, |sum, byte| (sum * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * 65537 % prime;
            power == residue
        })
    })
}

fn elliptic(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    let (family, size, algorithm, parameters) = match jwk.get("crv").and_then(Value::as_str) {
        Some("P-256") => (Family::P256, 32, Algorithm::Es256, &ECDSA_P256_SHA256_FIXED),
        Some("P-384") => (Family::P384, 48, Algorithm::Es384, &ECDSA_P384_SHA384_FIXED),
        _ => return Err("is on a curve that is not supported"),
    };
    let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return Err("has coordinates that are not the length of its curve's field");
    }
    let point = [&[4], x.as_slice(), &y].concat();
    let parsed = ParsedPublicKey::new(parameters, &point);
    let verifying = vec![(
        algorithm,
        parsed.map_err(|_| "is not a point on its curve")?,
    )];
    let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let crv = match family {
        Family::P256 => "P-256",
        _ => "P-384",
    };
    let canonical = format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Ok((family, verifying, point, canonical))
}

fn edwards(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    if jwk.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err("is on a curve that is not supported");
    }
    let point = member(jwk, "x")?;
    let parsed = Some(&point).filter(|point| point.len() == 32);
    let parsed = parsed.and_then(|point| ParsedPublicKey::new(&ED25519, point).ok());
    let parsed = parsed.ok_or("is not a point on its curve")?;
    let verifying = vec![(Algorithm::EdDsa, parsed)];
    let x = URL_SAFE_NO_PAD.encode(&point);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    Ok((Family::Ed25519, verifying, point, canonical))
}

fn member(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = jwk
        .get(name)
        .and_then(Value::as_str)
        .ok_or("lacks a member of its type")?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "has a member that is not base64url")
}

/// Same fingerprint, same key: id, declared algorithm, type and material.
fn fingerprint(
    kid: Option<&str>,
    algorithm: Option<Algorithm>,
    family: Family,
    material: &[u8],
) -> [u8; 32] {
    let kid = kid.map_or(String::new(), |kid| format!("{}:{kid}", kid.len()));
    let head = format!(
        "{kid};{};{family:?};",
        algorithm.map_or("", Algorithm::name)
    );
    Sha256::new()
        .chain_update(head)
        .chain_update(material)
        .finalize()
        .into()
}
