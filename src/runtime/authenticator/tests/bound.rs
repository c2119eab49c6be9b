//! Tokens that are bound: every request shows anew what they are bound to, and every proof counts once.

use secrecy::SecretString;

use super::*;
use crate::identity::{Certificate, CertificateName, CertificateRule, Scheme, Token};

struct Caller {
    bench: Bench,
    token: String,
}

impl Caller {
    /// Somebody with a token bound to [`ED`]'s key.
    async fn new() -> Self {
        let bench = Bench::new(&[&P256]).await;
        let cnf = json!({"cnf": {"jkt": testing::jkt(&ED)}});
        let token = bench.token(&P256, cnf);
        Self { bench, token }
    }

    fn shows(&self, jti: &str) -> Presented {
        let proof = testing::proof(&ED, &self.token, jti);
        testing::presented(Scheme::Dpop, &self.token, Some(&proof))
    }

    async fn code_of(&self, presented: &Presented) -> &'static str {
        let authenticator = &self.bench.authenticator;
        let now = self.bench.clock.now();
        let principal = authenticator.authenticate(presented, now).await;
        principal.map_or_else(TokenError::code, |_| "ok")
    }
}

#[tokio::test]
async fn a_remembered_token_does_not_spare_the_proof() {
    let caller = Caller::new().await;
    assert_eq!(caller.code_of(&caller.shows("1")).await, "ok");
    assert_eq!(caller.code_of(&caller.shows("2")).await, "ok");
    assert_eq!(
        caller.bench.counts(),
        (2, 1, 0),
        "the second was remembered"
    );
    // A thief has the token and what was sent with it.
    assert_eq!(caller.code_of(&caller.shows("1")).await, "proof_replayed");
    assert_eq!(caller.bench.code(&caller.token).await, "token_bound_to_key");
    let without = testing::presented(Scheme::Dpop, &caller.token, None);
    assert_eq!(caller.code_of(&without).await, "proof_missing");
    let own = testing::proof(&P256_SECOND, &caller.token, "3");
    let own = testing::presented(Scheme::Dpop, &caller.token, Some(&own));
    assert_eq!(caller.code_of(&own).await, "proof_wrong_key");
    let metrics = caller.bench.authenticator.metrics();
    assert_eq!(metrics.refused_unproved, 4);
}

#[tokio::test]
async fn who_was_accepted_is_looked_at_again_without_a_new_proof() {
    let caller = Caller::new().await;
    let shown = caller.shows("1");
    assert_eq!(caller.code_of(&shown).await, "ok");
    caller.bench.hand.advance(90 * SECOND);
    let again = Presented {
        again: true,
        ..shown.clone()
    };
    assert_eq!(caller.code_of(&again).await, "ok");
    assert_eq!(caller.code_of(&shown).await, "proof_stale");
}

#[tokio::test]
async fn a_proof_that_was_refused_for_its_token_is_not_used() {
    let caller = Caller::new().await;
    caller.bench.idp.publish(Answer::Status(500));
    let unknown = caller
        .bench
        .token(&P256_SECOND, json!({"cnf": {"jkt": testing::jkt(&ED)}}));
    let proof = testing::proof(&ED, &unknown, "1");
    let shown = testing::presented(Scheme::Dpop, &unknown, Some(&proof));
    assert_eq!(caller.code_of(&shown).await, "key_unknown");
    assert_eq!(
        caller.code_of(&shown).await,
        "key_unknown",
        "strangers fill no memory"
    );
    assert!(caller.bench.authenticator.replays().is_empty());
}

#[tokio::test]
async fn used_proofs_outlive_a_change_of_the_configuration() {
    let caller = Caller::new().await;
    let shown = caller.shows("1");
    assert_eq!(caller.code_of(&shown).await, "ok");
    let Bench {
        idp,
        clock,
        authenticator,
        ..
    } = &caller.bench;
    let next = Authenticator::with(vec![issuer(idp)], [8; 32], clock.clone(), timing());
    let next = next.unwrap().after(authenticator);
    let refused = next.authenticate(&shown, clock.now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::ProofReplayed);
    // And the other way round, for who still asks the old one.
    let second = caller.shows("2");
    assert!(next.authenticate(&second, clock.now()).await.is_ok());
    assert_eq!(caller.code_of(&second).await, "proof_replayed");
}

#[tokio::test]
async fn of_one_proof_shown_many_times_at_once_one_counts() {
    let caller = Caller::new().await;
    let shown = caller.shows("1");
    let all = (0..100).map(|_| caller.code_of(&shown));
    let codes = futures::future::join_all(all).await;
    assert_eq!(codes.iter().filter(|code| **code == "ok").count(), 1);
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == "proof_replayed")
            .count(),
        99
    );
}

#[tokio::test]
async fn a_key_is_shown_to_a_token_endpoint_by_a_proof_without_a_token() {
    let caller = Caller::new().await;
    let claims = json!({"jti": "t", "htm": "POST", "htu": format!("https://{}", testing::TARGET), "iat": NOW});
    let proof = ED.sign_text(&testing::proof_header(&ED).to_string(), &claims.to_string());
    let shown = Presented {
        token: None,
        ..testing::presented(Scheme::Bearer, "", Some(&proof))
    };
    let authenticator = &caller.bench.authenticator;
    let key = authenticator
        .possessed_key(&testing::principal(), &shown, now())
        .unwrap();
    assert_eq!(base64url(key), testing::jkt(&ED));
    let again = authenticator.possessed_key(&testing::principal(), &shown, now());
    assert_eq!(again, Err(TokenError::ProofReplayed));
    // For a token endpoint, a proof is not for a request with a token.
    let with_token = Presented {
        token: Some(Token {
            scheme: Scheme::Dpop,
            text: SecretString::from(caller.token.clone()),
        }),
        ..shown
    };
    assert_eq!(caller.code_of(&with_token).await, "proof_token_missing");
    let nothing =
        authenticator.possessed_key(&testing::principal(), &Presented::bearer("x"), now());
    assert_eq!(nothing, Err(TokenError::ProofMissing));
}

#[tokio::test]
async fn a_token_is_exchanged_by_who_has_its_key_or_for_the_key_they_show() {
    let caller = Caller::new().await;
    let free = caller.bench.token(&P256, json!({}));
    let at_endpoint = |token: &str, signer: Option<(&Signer, &str)>| {
        let proof = signer.map(|(signer, jti)| {
            let htu = format!("https://{}", testing::TARGET);
            let claims = json!({"jti": jti, "htm": "POST", "htu": htu, "iat": NOW});
            signer.sign_text(
                &testing::proof_header(signer).to_string(),
                &claims.to_string(),
            )
        });
        testing::presented(Scheme::Bare, token, proof.as_deref())
    };
    let exchanged = async |shown: Presented| {
        let exchanged = caller.bench.authenticator.exchanged(&shown, now()).await;
        exchanged.map(|(caller, key)| (caller.subject.clone(), key.map(base64url)))
    };
    let (ed, p256) = (testing::jkt(&ED), testing::jkt(&P256_SECOND));
    let alice = |key: Option<&str>| Ok(("alice".to_owned(), key.map(str::to_owned)));
    let bound = caller.token.as_str();
    assert_eq!(exchanged(at_endpoint(&free, None)).await, alice(None));
    let with_key = at_endpoint(&free, Some((&P256_SECOND, "1")));
    assert_eq!(exchanged(with_key.clone()).await, alice(Some(&p256)));
    assert_eq!(exchanged(with_key).await, Err(TokenError::ProofReplayed));
    let own = at_endpoint(bound, Some((&ED, "2")));
    assert_eq!(exchanged(own).await, alice(Some(&ed)));
    // Who found the token gets nothing for it.
    let missing = exchanged(at_endpoint(bound, None)).await;
    assert_eq!(missing, Err(TokenError::ProofMissing));
    let thief = at_endpoint(bound, Some((&P256_SECOND, "3")));
    assert_eq!(exchanged(thief).await, Err(TokenError::ProofWrongKey));
    let stranger = at_endpoint("a.b.c", Some((&ED, "4")));
    assert!(exchanged(stranger).await.is_err());
    assert_eq!(
        caller.bench.authenticator.replays().len(),
        2,
        "strangers and thieves fill no memory"
    );
}

#[tokio::test]
async fn a_certificate_without_a_token_is_whom_the_configuration_says() {
    let Caller { bench, token } = Caller::new().await;
    let Bench { idp, clock, .. } = &bench;
    let rule = CertificateRule {
        name: CertificateName::spiffe("spiffe://prod.example/*").unwrap(),
        groups: vec!["workloads".into()],
        owner: None,
    };
    let authenticator = Authenticator::with(vec![issuer(idp)], [7; 32], clock.clone(), timing());
    let authenticator = authenticator.unwrap().knowing(CertificateRules {
        known: vec![rule],
        ask_for_owners: false,
    });
    let shown = |uri: &str| Presented {
        token: None,
        certificate: Some(Certificate {
            digest: [5; 32],
            uri: uri.into(),
            ..Certificate::default()
        }),
        ..Presented::bearer("")
    };
    let known = shown("spiffe://prod.example/a");
    let caller = authenticator.authenticate(&known, now()).await.unwrap();
    assert_eq!(
        (caller.issuer.as_str(), caller.auth_method.name()),
        ("spiffe://prod.example", "mtls")
    );
    let other = shown("spiffe://other.example/a");
    let refused = authenticator.authenticate(&other, now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::CertificateUnknown);
    assert_eq!(authenticator.metrics().refused_strangers, 1);
    let nothing = Presented {
        certificate: None,
        ..known.clone()
    };
    let refused = authenticator.authenticate(&nothing, now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::Missing);
    // A token beside it counts, and must.
    let beside = Presented {
        certificate: known.certificate.clone(),
        ..Presented::bearer(token)
    };
    let refused = authenticator.authenticate(&beside, now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::BoundAsBearer);
    // Nobody is known where nothing is said.
    let refused = bench.authenticator.authenticate(&known, now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::CertificateUnknown);
}
