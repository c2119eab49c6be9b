//! The keys that grants are signed with: Ed25519 (RFC 8037) or P-256 (RFC 7518, 3.4), in PKCS#8.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::identity::{GRANT_TYP, GrantClaims, KeySet, KeySetError};

/// Why something is not a key for grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// No `BEGIN PRIVATE KEY`, or not base64.
    #[error("not a PKCS#8 private key in PEM form")]
    Form,
    /// Another algorithm, or a curve that is not P-256.
    #[error("neither an Ed25519 nor a P-256 key")]
    Kind,
    /// There is no randomness to be had, or signing failed.
    #[error("the key cannot be used to sign")]
    Signing,
}

/// A key that signs grants.
pub struct GrantKey {
    pair: Pair,
    kid: String,
    jwk: Value,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl GrantKey {
    /// Reads a key in PEM form (RFC 7468, 10).
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        let inside = pem
            .trim()
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
            .ok_or(NotAKey::Form)?;
        let base64: String = inside.split_ascii_whitespace().collect();
        let der = STANDARD.decode(base64).map_err(|_| NotAKey::Form)?;
        let der = secrecy::zeroize::Zeroizing::new(der);
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(&der) {
            return Self::new(Pair::Ed25519(pair));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| NotAKey::Kind)?;
        Self::new(Pair::P256(pair))
    }

    /// Draws a new Ed25519 key, and its PEM form.
    ///
    /// # Errors
    /// [`NotAKey::Signing`] without randomness.
    pub fn generate() -> Result<(Self, String), NotAKey> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NotAKey::Signing)?;
        let der = pair.to_pkcs8v1().map_err(|_| NotAKey::Signing)?;
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        Ok((Self::new(Pair::Ed25519(pair))?, pem))
    }

    fn new(pair: Pair) -> Result<Self, NotAKey> {
        // RFC 7638, 3.2: the members that make the key, in this order, without spaces.
        let (mut jwk, thumbprint) = match &pair {
            Pair::Ed25519(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                let hashed = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (
                    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA"}),
                    hashed,
                )
            }
            Pair::P256(pair) => {
                // An uncompressed point (SEC 1, 2.3.3).
                let point = pair.public_key().as_ref();
                let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
                    return Err(NotAKey::Kind);
                };
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                let hashed = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                (
                    json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256"}),
                    hashed,
                )
            }
        };
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint));
        jwk["kid"] = kid.as_str().into();
        jwk["use"] = "sig".into();
        Ok(Self { pair, kid, jwk })
    }

    /// Its id: its thumbprint (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(_) => "ES256",
        }
    }

    /// A token of `claims`.
    ///
    /// # Errors
    /// [`NotAKey::Signing`].
    pub fn sign(&self, claims: &GrantClaims) -> Result<String, NotAKey> {
        let header = json!({"typ": GRANT_TYP, "alg": self.algorithm(), "kid": self.kid});
        let payload = serde_json::to_vec(claims).map_err(|_| NotAKey::Signing)?;
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), signed.as_bytes())
                .map_err(|_| NotAKey::Signing)?
                .as_ref()
                .to_vec(),
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Our own keys: the first signs, all of them are believed and published. So a key is introduced at the end of the list on every
/// replica before it moves to the front, and leaves it once the last grant that it signed has expired.
#[derive(Debug)]
pub struct KeyRing {
    keys: Vec<GrantKey>,
    public: KeySet,
    jwks: Value,
}

impl KeyRing {
    /// The ring of these keys; `None` where there is no key, or one of them twice, or more than a key set may have.
    #[must_use]
    pub fn new(keys: Vec<GrantKey>) -> Option<Self> {
        let jwks = json!({"keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>()});
        let public: Result<KeySet, KeySetError> = KeySet::parse(jwks.to_string().as_bytes());
        let public = public
            .ok()
            .filter(|set| set.len() == keys.len() && !set.is_empty())?;
        Some(Self { keys, public, jwks })
    }

    /// The public halves, to verify with.
    #[must_use]
    pub fn public(&self) -> &KeySet {
        &self.public
    }

    /// The public halves as a JWK Set (RFC 7517, 5).
    #[must_use]
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// A token of `claims`, signed by the first key.
    ///
    /// # Errors
    /// [`NotAKey::Signing`].
    pub fn sign(&self, claims: &GrantClaims) -> Result<String, NotAKey> {
        self.keys.first().ok_or(NotAKey::Signing)?.sign(claims)
    }
}
