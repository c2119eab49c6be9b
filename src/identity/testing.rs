//! An issuer for tests: keys, a JWKS, and tokens right or wrong in any way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Algorithm, AuthMethod, Bound, IssuerRules, KeySet, Presented, Principal, Purpose, Scheme, Token,
};

pub(crate) mod corpus;

pub(crate) const ISSUER: &str = "https://login.example/realms/a";
pub(crate) const AUDIENCE: &str = "countersign";
/// The instant of most tests, in seconds since 1970.
pub(crate) const NOW: i64 = 1_900_000_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs tokens.
pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    pub(crate) algorithm: Algorithm,
    key: Private,
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

pub(crate) static RSA: LazyLock<Signer> = LazyLock::new(|| {
    rsa(
        "rsa-1",
        Algorithm::Rs256,
        include_bytes!("../../tests/data/jwt/rsa.pk8"),
    )
});
#[cfg(feature = "saml")]
pub(crate) static RSA_OTHER: LazyLock<Signer> = LazyLock::new(|| {
    rsa(
        "rsa-1",
        Algorithm::Rs256,
        include_bytes!("../../tests/data/jwt/rsa-other.pk8"),
    )
});
pub(crate) static PSS: LazyLock<Signer> = LazyLock::new(|| {
    rsa(
        "rsa-1",
        Algorithm::Ps512,
        include_bytes!("../../tests/data/jwt/rsa.pk8"),
    )
});
pub(crate) static P256: LazyLock<Signer> = LazyLock::new(|| ec("p256-1", Algorithm::Es256));
pub(crate) static P256_SECOND: LazyLock<Signer> = LazyLock::new(|| ec("p256-2", Algorithm::Es256));
pub(crate) static P384: LazyLock<Signer> = LazyLock::new(|| ec("p384-1", Algorithm::Es384));
pub(crate) static ED: LazyLock<Signer> = LazyLock::new(|| Signer {
    kid: "ed-1",
    algorithm: Algorithm::EdDsa,
    key: Private::Ed(Ed25519KeyPair::generate().unwrap()),
});

fn rsa(kid: &'static str, algorithm: Algorithm, pkcs8: &[u8]) -> Signer {
    Signer {
        kid,
        algorithm,
        key: Private::Rsa(RsaKeyPair::from_pkcs8(pkcs8).unwrap()),
    }
}

fn ec(kid: &'static str, algorithm: Algorithm) -> Signer {
    let curve = match algorithm {
        Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
    };
    Signer {
        kid,
        algorithm,
        key: Private::Ec(EcdsaKeyPair::generate(curve).unwrap()),
    }
}

impl Signer {
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Private::Rsa(key) => {
                let public = key.public_key();
                let n = base64url(public.modulus().big_endian_without_leading_zero());
                let e = base64url(public.exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": n, "e": e})
            }
            Private::Ec(key) => {
                let (x, y) =
                    key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y)})
            }
            Private::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key())})
            }
        };
        jwk["kid"] = self.kid.into();
        jwk
    }

    /// The public key in the form that its kind has outside of JOSE.
    #[cfg(feature = "saml")]
    pub(crate) fn public_der(&self) -> Vec<u8> {
        match &self.key {
            Private::Rsa(key) => key.public_key().as_ref().to_vec(),
            Private::Ec(key) => key.public_key().as_ref().to_vec(),
            Private::Ed(key) => key.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Private::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// Signs header and claims exactly as written.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", base64url(header), base64url(claims));
        format!("{input}.{}", base64url(self.sign(input.as_bytes())))
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.algorithm.name(), "kid": self.kid, "typ": "at+jwt"})
    }

    /// A token with these claims under this signer's own header.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }
}

/// The header of a proof that this key makes.
pub(crate) fn proof_header(signer: &Signer) -> Value {
    let mut jwk = signer.jwk();
    jwk.as_object_mut().unwrap().remove("kid");
    json!({"typ": "dpop+jwt", "alg": signer.algorithm.name(), "jwk": jwk})
}

/// A proof by this key for `POST` of `https://{TARGET}` with this token, with its own `jti`.
pub(crate) fn proof(signer: &Signer, token: &str, jti: &str) -> String {
    signer.sign_text(
        &proof_header(signer).to_string(),
        &proof_claims(token, jti).to_string(),
    )
}

/// Where [`proof`] is for.
pub(crate) const TARGET: &str = "gateway.example/v1/chat/completions";

pub(crate) fn proof_claims(token: &str, jti: &str) -> Value {
    let ath = base64url(super::token_hash(token));
    json!({"jti": jti, "htm": "POST", "htu": format!("https://{TARGET}"), "iat": NOW, "ath": ath})
}

/// The thumbprint of a key as `cnf.jkt` has it.
pub(crate) fn jkt(signer: &Signer) -> String {
    let jwk = signer.jwk();
    let (_, thumbprint) = KeySet::carried(jwk.as_object().unwrap()).unwrap();
    base64url(thumbprint)
}

/// A request to [`TARGET`] with this token, carried so, and this proof.
pub(crate) fn presented(scheme: Scheme, token: &str, proof: Option<&str>) -> Presented {
    Presented {
        token: Some(Token {
            scheme,
            text: token.into(),
        }),
        proof: proof.map(Into::into),
        purpose: Purpose::Inference,
        method: "POST".into(),
        target: Some(TARGET.into()),
        certificate: None,
        again: false,
    }
}

/// Claims that pass, each call with its own `jti`.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 600, "nbf": NOW - 10, "iat": NOW - 10,
        "groups": ["staff", "ml"], "email": "alice@example.com", "tier": 3,
    })
}

/// [`claims`] with members set, or removed where the value is null.
pub(crate) fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

pub(crate) fn jwks(signers: &[&Signer]) -> Vec<u8> {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(crate) fn keys(signers: &[&Signer]) -> KeySet {
    KeySet::parse(&jwks(signers)).unwrap()
}

pub(crate) fn rules() -> IssuerRules {
    IssuerRules {
        issuer: ISSUER.to_owned(),
        audiences: vec!["other".to_owned(), AUDIENCE.to_owned()],
        api_audience: None,
        algorithms: vec![
            Algorithm::Rs256,
            Algorithm::Ps512,
            Algorithm::Es256,
            Algorithm::Es384,
            Algorithm::EdDsa,
        ],
        groups_claim: Some("groups".to_owned()),
        claims: vec!["email".to_owned(), "tier".to_owned(), "absent".to_owned()],
        person_claim: None,
        owner_claim: None,
        clock_skew: Duration::from_secs(30),
        allow_id_tokens: false,
        require_bound_tokens: false,
    }
}

/// A caller of whom nothing is known but a name: tests say what differs and take the rest with `..principal()`.
pub(crate) fn principal() -> Principal {
    Principal {
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
        audiences: Vec::new(),
        groups: Vec::new(),
        claims: BTreeMap::new(),
        auth_method: AuthMethod::OidcJwt,
        token_hash: [0; 32],
        expires_at: Timestamp::UNIX_EPOCH,
        authenticated_at: None,
        issued_at: None,
        also: BTreeSet::new(),
        person_missing: false,
        grant: None,
        bound: Bound::default(),
    }
}
