//! `./dev bench identity`: what it costs to know who is calling, each beside the least that could do it, in the same run.
//!
//! A remembered token is compared with one SHA-256 over it, which is the least that finds it again; a token seen for the first time
//! with the crypto library's own ES256 verification of the same bytes by a key that is parsed already. Rows take turns in each
//! round and count by their fastest round, so that a busy machine disturbs none. Ratios hold on any machine.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and ends where something fails"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    identity::{self, Algorithm, IssuerRules, KeySet, Presented},
    keys::jwks::KeySource,
    runtime::authenticator::Authenticator,
};
use jiff::Timestamp;
use serde_json::{Value, json};

const ISSUER: &str = "https://login.example/realms/a";
const ROUNDS: usize = 60;
/// Checks of a row in a round.
const CHEAP: usize = 2_000;
const DEAR: usize = 100;

struct Issuer {
    key: EcdsaKeyPair,
    rules: IssuerRules,
    jwks: Vec<u8>,
}

impl Issuer {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "use": "sig", "x": x, "y": y});
        let rules = IssuerRules {
            issuer: ISSUER.to_owned(),
            audiences: vec!["urn:ai-gateway".to_owned()],
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256],
            groups_claim: Some("groups".to_owned()),
            claims: vec!["department".to_owned()],
            person_claim: None,
            owner_claim: None,
            clock_skew: Duration::from_secs(30),
            allow_id_tokens: false,
            require_bound_tokens: false,
            api_audience: None,
        };
        Self {
            key,
            rules,
            jwks: json!({"keys": [jwk]}).to_string().into_bytes(),
        }
    }

    /// A token as issuers make them, with so many groups.
    fn token(&self, groups: usize, id: usize) -> String {
        let now = Timestamp::now().as_second();
        let groups: Vec<String> = (0..groups)
            .map(|n| format!("group-of-some-name-{n}"))
            .collect();
        let claims = json!({
            "iss": ISSUER, "aud": ["urn:ai-gateway"], "sub": "f3b2a6d0-5a0e-4f9b-9d0a-7d4f3c9b1e2a", "exp": now + 3600,
            "nbf": now, "iat": now, "jti": format!("{id:032x}"), "client_id": "batch", "scope": "chat", "groups": groups,
            "department": "fin", "email": "alice@example.com",
        });
        let header = json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"});
        let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), input.as_bytes())
            .unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn authenticator(&self) -> Authenticator {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("identity-keys.json");
        std::fs::write(&file, &self.jwks).unwrap();
        let issuers = vec![(self.rules.clone(), KeySource::File(file))];
        let authenticator = Authenticator::new(issuers, [0; 32]).unwrap();
        authenticator.first_fetches().await;
        authenticator
    }
}

async fn check(authenticator: &Authenticator, presented: &Presented) {
    let now = Timestamp::now();
    black_box(
        authenticator
            .authenticate(black_box(presented), now)
            .await
            .unwrap(),
    );
}

fn each(times: usize, took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / times as f64
}

/// Nanoseconds of one call, of so many in a row.
fn timed(times: usize, mut call: impl FnMut(usize)) -> f64 {
    let begun = Instant::now();
    for n in 0..times {
        call(n);
    }
    each(times, begun.elapsed())
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let issuer = Issuer::new();
    println!("nanoseconds, fastest of {ROUNDS} rounds\n");
    println!(
        "token      SHA-256   remembered   of SHA-256   |   ES256 alone   verified   of ES256   whole, cold   of ES256"
    );
    for groups in [0, 20, 60] {
        runtime.block_on(row(&issuer, groups));
    }
}

async fn row(issuer: &Issuer, groups: usize) {
    let authenticator = issuer.authenticator().await;
    let keys = KeySet::parse(&issuer.jwks).unwrap();
    let token = issuer.token(groups, 0);
    let point = issuer.key.public_key().as_ref();
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).unwrap();
    let shown = Presented::bearer(token.as_str());
    let mut fastest = [f64::MAX; 5];
    for round in 0..ROUNDS {
        // Each of these is seen for the first time.
        let fresh: Vec<String> = (0..DEAR)
            .map(|n| issuer.token(groups, 1 + round * DEAR + n))
            .collect();
        let shown_first: Vec<_> = fresh
            .iter()
            .map(|token| Presented::bearer(token.as_str()))
            .collect();
        let hash = timed(CHEAP, |_| {
            black_box(identity::token_hash(black_box(&token)));
        });
        check(&authenticator, &shown).await;
        let begun = Instant::now();
        for _ in 0..CHEAP {
            check(&authenticator, &shown).await;
        }
        let remembered = each(CHEAP, begun.elapsed());
        // The same signatures: one over and over would teach the processor its branches.
        let parts: Vec<_> = fresh
            .iter()
            .map(|token| {
                let (input, signature) = token.rsplit_once('.').unwrap();
                (input, URL_SAFE_NO_PAD.decode(signature).unwrap())
            })
            .collect();
        let alone = timed(DEAR, |n| {
            let (input, signature) = black_box(&parts[n]);
            public.verify_sig(input.as_bytes(), signature).unwrap();
        });
        let now = Timestamp::now();
        let verified = timed(DEAR, |n| {
            black_box(identity::verify(black_box(&fresh[n]), &issuer.rules, &keys, now).unwrap());
        });
        let begun = Instant::now();
        for shown in &shown_first {
            check(&authenticator, shown).await;
        }
        let whole = each(DEAR, begun.elapsed());
        for (fastest, this) in fastest
            .iter_mut()
            .zip([hash, remembered, alone, verified, whole])
        {
            *fastest = fastest.min(this);
        }
    }
    let [hash, remembered, alone, verified, whole] = fastest;
    println!(
        "{:>5} B {hash:>10.0} {remembered:>12.0} {:>12.2}   | {alone:>13.0} {verified:>10.0} {:>10.2} {whole:>13.0} {:>10.2}",
        token.len(),
        remembered / hash,
        verified / alone,
        whole / alone
    );
}
