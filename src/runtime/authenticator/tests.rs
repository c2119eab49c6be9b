use jiff::SignedDuration;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::{
    identity::Purpose,
    identity::testing::{self, ED, NOW, P256, P256_SECOND, Signer, base64url, jwks, now},
    keys::testing::{Answer, Idp},
    runtime::clock::Hand,
};

mod bad_input;
mod bound;
mod corpus;
mod opaque;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    idp: Idp,
    authenticator: Authenticator,
    clock: Clock,
    hand: Hand,
}

fn timing() -> Timing {
    Timing {
        timeout: Duration::from_secs(30),
        ..Timing::default()
    }
}

fn issuer(idp: &Idp) -> (IssuerRules, KeySource) {
    let rules = IssuerRules {
        issuer: idp.issuer.clone(),
        ..testing::rules()
    };
    (rules, KeySource::Discovery { insecure: false })
}

impl Bench {
    /// A provider with these keys, and an authenticator that has fetched them.
    async fn new(signers: &[&Signer]) -> Self {
        Self::timed(signers, timing()).await
    }

    async fn timed(signers: &[&Signer], timing: Timing) -> Self {
        let bench = Self::starting(signers, timing).await;
        bench.authenticator.first_fetches().await;
        bench
    }

    async fn starting(signers: &[&Signer], timing: Timing) -> Self {
        let idp = Idp::start(jwks(signers)).await;
        let (clock, hand) = Clock::manual(now());
        let issuers = vec![issuer(&idp)];
        let authenticator = Authenticator::with(issuers, [7; 32], clock.clone(), timing).unwrap();
        Self {
            idp,
            authenticator,
            clock,
            hand,
        }
    }

    fn token(&self, signer: &Signer, changes: serde_json::Value) -> String {
        let mut claims = testing::claims_with(changes);
        claims["iss"] = self.idp.issuer.clone().into();
        signer.token(&claims)
    }

    /// `ok`, or the code of the refusal.
    async fn code(&self, token: &str) -> &'static str {
        let principal = self
            .authenticator
            .authenticate(&Presented::bearer(token), self.clock.now())
            .await;
        principal.map_or_else(TokenError::code, |principal| {
            assert_eq!(
                (principal.subject.as_str(), principal.issuer.as_str()),
                ("alice", self.idp.issuer.as_str())
            );
            "ok"
        })
    }

    /// Accepted, from memory, refused.
    fn counts(&self) -> (u64, u64, u64) {
        let metrics = self.authenticator.metrics();
        let issuer = &metrics.issuers[0];
        (issuer.accepted, issuer.cache_hits, issuer.refused)
    }
}

#[tokio::test]
async fn a_token_is_proved_once_and_remembered_for_a_minute() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256, json!({}));
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(bench.counts(), (1, 0, 0));
    bench.hand.advance(60 * SECOND);
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(bench.counts(), (2, 1, 0));
    bench.hand.advance(Duration::from_millis(1));
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(
        bench.counts(),
        (3, 1, 0),
        "proved anew, not remembered longer"
    );
    assert_eq!(bench.idp.served(), 1);
}

#[tokio::test]
async fn memory_never_reaches_past_the_expiry() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256, json!({"exp": NOW + 5}));
    assert_eq!(bench.code(&token).await, "ok");
    bench.hand.advance(Duration::from_millis(4999));
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(bench.counts(), (2, 1, 0));
    // From here on the token lives by the granted skew alone, and each use is proved anew.
    bench.hand.advance(Duration::from_millis(1));
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(bench.counts(), (3, 1, 0));
    bench.hand.advance(30 * SECOND);
    assert_eq!(bench.code(&token).await, "token_expired");
}

#[tokio::test]
async fn refusals_are_not_remembered_and_memory_is_for_the_very_token() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256, json!({"nbf": NOW + 60}));
    assert_eq!(bench.code(&token).await, "token_not_yet_valid");
    bench.hand.advance(60 * SECOND);
    assert_eq!(bench.code(&token).await, "ok");
    let (unsigned, _) = token.rsplit_once('.').unwrap();
    assert_eq!(
        bench
            .code(&format!("{unsigned}.{}", base64url([0; 64])))
            .await,
        "token_bad_signature"
    );
}

#[tokio::test]
async fn a_rotation_goes_unnoticed_by_callers() {
    let bench = Bench::new(&[&P256]).await;
    let old = bench.token(&P256, json!({}));
    let new = bench.token(&P256_SECOND, json!({}));
    assert_eq!(bench.code(&old).await, "ok");
    bench
        .idp
        .publish(Answer::Body(jwks(&[&P256, &P256_SECOND])));
    let calls = (0..50).map(|i| bench.code(if i % 2 == 0 { &old } else { &new }));
    assert!(
        futures::future::join_all(calls)
            .await
            .into_iter()
            .all(|code| code == "ok")
    );
    assert_eq!(bench.idp.served(), 2);
}

#[tokio::test]
async fn a_key_that_is_gone_is_gone_from_memory_too() {
    let bench = Bench::new(&[&P256, &ED]).await;
    let (gone, stays) = (bench.token(&P256, json!({})), bench.token(&ED, json!({})));
    for token in [&gone, &stays] {
        assert_eq!(bench.code(token).await, "ok");
    }
    bench.idp.publish(Answer::Body(jwks(&[&ED, &P256_SECOND])));
    // A caller with the new key makes the change known, well inside the minute.
    assert_eq!(
        bench.code(&bench.token(&P256_SECOND, json!({}))).await,
        "ok"
    );
    assert_eq!(bench.code(&gone).await, "key_unknown");
    assert_eq!(bench.code(&stays).await, "ok");
    assert_eq!(
        bench.counts(),
        (4, 0, 1),
        "everything of the old epoch was proved anew"
    );
}

#[tokio::test]
async fn keys_past_their_grace_take_memory_with_them() {
    let bench = Bench::new(&[&P256]).await;
    bench.idp.publish(Answer::Status(500));
    bench.hand.advance(3900 * SECOND);
    let token = bench.token(&P256, json!({"exp": NOW + 9000}));
    assert_eq!(bench.code(&token).await, "ok");
    bench.hand.advance(SECOND);
    assert_eq!(bench.code(&token).await, "issuer_unavailable");
    assert!(!bench.authenticator.metrics().issuers[0].available);
}

#[tokio::test]
async fn a_storm_of_made_up_key_ids_is_one_fetch() {
    let bench = Bench::new(&[&P256]).await;
    let claims = testing::claims_with(json!({"iss": bench.idp.issuer})).to_string();
    let tokens: Vec<_> = (0..200)
        .map(|i| {
            P256.sign_text(
                &json!({"alg": "ES256", "kid": format!("made-up-{i}")}).to_string(),
                &claims,
            )
        })
        .collect();
    let codes = futures::future::join_all(tokens.iter().map(|token| bench.code(token))).await;
    assert!(codes.into_iter().all(|code| code == "key_unknown"));
    assert_eq!(bench.idp.served(), 2);
    assert_eq!(bench.code(&bench.token(&P256, json!({}))).await, "ok");
}

#[tokio::test]
async fn one_stale_client_does_not_cause_a_fetch_every_interval() {
    let bench = Bench::new(&[&P256]).await;
    let stale = bench.token(&P256_SECOND, json!({}));
    assert_eq!(bench.code(&stale).await, "key_unknown");
    assert_eq!(bench.idp.served(), 2);
    bench.hand.advance(11 * SECOND);
    assert_eq!(bench.code(&stale).await, "key_unknown");
    assert_eq!(bench.idp.served(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_refuses_only_its_own_until_it_is_up() {
    let (up, down) = (Idp::start(jwks(&[&P256])).await, Idp::start(vec![]).await);
    down.publish(Answer::Status(502));
    let (clock, hand) = Clock::manual(now());
    let issuers = vec![issuer(&up), issuer(&down)];
    let authenticator = Authenticator::with(issuers, [0; 32], clock.clone(), timing()).unwrap();
    authenticator.first_fetches().await;
    let token = |idp: &Idp| {
        Presented::bearer(P256.token(&testing::claims_with(json!({"iss": idp.issuer}))))
    };
    assert!(authenticator.authenticate(&token(&up), now()).await.is_ok());
    let refused = authenticator.authenticate(&token(&down), now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::IssuerUnavailable);
    // Asking did one fetch; asking again does none.
    assert_eq!(down.served(), 2);
    assert!(
        authenticator
            .authenticate(&token(&down), now())
            .await
            .is_err()
    );
    assert_eq!(down.served(), 2);

    down.publish(Answer::Body(jwks(&[&P256])));
    hand.advance(10 * SECOND);
    assert!(
        authenticator
            .authenticate(&token(&down), clock.now())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_caller_who_is_there_before_the_first_keys_waits_for_them() {
    let idp = Idp::start(jwks(&[&P256])).await;
    idp.close();
    let (clock, _hand) = Clock::manual(now());
    let authenticator = Authenticator::with(vec![issuer(&idp)], [0; 32], clock, timing()).unwrap();
    let token = Presented::bearer(P256.token(&testing::claims_with(json!({"iss": idp.issuer}))));
    let mut early = Box::pin(authenticator.authenticate(&token, now()));
    assert!(futures::poll!(&mut early).is_pending());
    idp.open();
    assert!(early.await.is_ok());
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_the_fetch_to_the_others() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256_SECOND, json!({}));
    bench.idp.close();
    bench.idp.publish(Answer::Body(jwks(&[&P256_SECOND])));
    let mut first = Box::pin(bench.code(&token));
    assert!(futures::poll!(&mut first).is_pending());
    drop(first);
    let mut second = Box::pin(bench.code(&token));
    assert!(futures::poll!(&mut second).is_pending());
    bench.idp.open();
    assert_eq!(second.await, "ok");
    assert_eq!(bench.idp.served(), 2);
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_refuses_or_accepts_by_the_time_it_shows() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256, json!({}));
    assert_eq!(bench.code(&token).await, "ok");
    bench.hand.jump(SignedDuration::from_hours(1));
    assert_eq!(
        bench.code(&token).await,
        "token_expired",
        "also out of memory"
    );
    bench.hand.jump(SignedDuration::from_hours(-2));
    let cold = bench.token(&P256, json!({"jti": "cold"}));
    assert_eq!(bench.code(&cold).await, "token_not_yet_valid");
    bench.hand.jump(SignedDuration::from_hours(1));
    assert_eq!(bench.code(&token).await, "ok");
    assert_eq!(bench.code(&cold).await, "ok");
    assert_eq!(bench.idp.served(), 1, "keys do not age by the wall clock");
}

#[tokio::test]
async fn strangers_are_counted_and_cost_little() {
    let bench = Bench::new(&[&P256]).await;
    assert_eq!(
        bench.code(&"a".repeat(1024 * 1024)).await,
        "token_too_large"
    );
    assert_eq!(bench.code("x").await, "token_not_jws");
    let elsewhere = P256.token(&testing::claims());
    assert_eq!(bench.code(&elsewhere).await, "issuer_unknown");
    let metrics = bench.authenticator.metrics();
    assert_eq!((metrics.refused_strangers, bench.counts()), (3, (0, 0, 0)));
    assert_eq!(bench.idp.served(), 1);
}

#[tokio::test]
async fn faults_of_the_configuration_are_found_at_once() {
    let idp = Idp::start(vec![]).await;
    let twice = Authenticator::new(vec![issuer(&idp), issuer(&idp)], [0; 32]);
    assert_eq!(
        twice.unwrap_err(),
        AuthenticatorError::Twice(idp.issuer.clone())
    );
    let plain = IssuerRules {
        issuer: "http://login.example".to_owned(),
        ..testing::rules()
    };
    let plain = Authenticator::new(
        vec![(plain, KeySource::Discovery { insecure: false })],
        [0; 32],
    );
    assert_eq!(
        plain.unwrap_err().to_string(),
        "the key source of issuer `http://login.example` is not https, and not on loopback"
    );
}

#[test]
fn what_memory_holds_is_weighed() {
    let small = testing_principal(vec![]);
    assert_eq!(weigh(&small), LEAST_ENTRY_BYTES);
    let large = testing_principal(vec!["g".repeat(250); 60]);
    assert!(weigh(&large) > 60 * 250);
    let named = Principal {
        also: (0..40).map(|n| format!("{n}{}", "p".repeat(250))).collect(),
        ..small
    };
    assert!(weigh(&named) > 40 * 250);
}

fn testing_principal(groups: Vec<String>) -> Principal {
    let token = P256.token(&testing::claims());
    let keys = testing::keys(&[&P256]);
    Principal {
        groups,
        ..identity::verify(&token, &testing::rules(), &keys, now()).unwrap()
    }
}

#[tokio::test]
async fn a_token_counts_for_what_its_audience_says_and_from_memory_too() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (mut rules, source) = issuer(&idp);
    rules.api_audience = Some("api".to_owned());
    let (clock, _hand) = Clock::manual(now());
    let authenticator =
        Authenticator::with(vec![(rules, source)], [7; 32], clock, timing()).unwrap();
    for (audience, inference, api) in [
        (json!(testing::AUDIENCE), true, false),
        (json!("api"), false, true),
        (json!(["api", "other"]), true, true),
        (json!("nobody"), false, false),
    ] {
        let mut claims = testing::claims_with(json!({ "aud": audience }));
        claims["iss"] = idp.issuer.clone().into();
        let token = P256.token(&claims);
        for _ in 0..2 {
            for (purpose, expected) in [(Purpose::Inference, inference), (Purpose::Api, api)] {
                let shown = Presented {
                    purpose,
                    ..Presented::bearer(token.clone())
                };
                let said = authenticator.authenticate(&shown, now()).await;
                assert_eq!(said.is_ok(), expected, "{audience} for {purpose:?}");
                assert!(matches!(said, Ok(_) | Err(TokenError::WrongAudience)));
            }
        }
    }
}

#[tokio::test]
async fn servers_that_disagree_on_the_keys_are_asked_no_more_often_for_it() {
    let bench = Bench::new(&[&P256]).await;
    let served = bench.idp.served();
    for n in 0..50 {
        let keys = match n % 2 {
            0 => jwks(&[&P256, &P256_SECOND]),
            _ => jwks(&[&P256]),
        };
        bench.idp.publish(Answer::Body(keys));
        let token = bench.token(&ED, json!({}));
        let (_, rest) = token.split_once('.').unwrap();
        let head = json!({"alg": "ES256", "kid": format!("nobodys-{n}")}).to_string();
        let made_up = format!("{}.{rest}", base64url(head.as_bytes()));
        assert_eq!(bench.code(&made_up).await, "key_unknown");
    }
    let fetches = bench.idp.served() - served;
    assert!(
        (1..=4).contains(&fetches),
        "{fetches}: once, and three times early"
    );
}

#[tokio::test]
async fn keys_outlive_a_change_of_the_configuration_but_not_one_of_where_they_are() {
    let bench = Bench::new(&[&P256]).await;
    let token = bench.token(&P256, json!({}));
    assert_eq!(bench.code(&token).await, "ok");
    bench.idp.publish(Answer::Status(500));
    let under = |source: KeySource| {
        let (rules, _) = issuer(&bench.idp);
        let next = Authenticator::with(
            vec![(rules, source)],
            [8; 32],
            bench.clock.clone(),
            timing(),
        );
        next.unwrap().after(&bench.authenticator)
    };
    let shown = Presented::bearer(token.as_str());
    let same = under(KeySource::Discovery { insecure: false });
    assert!(same.authenticate(&shown, bench.clock.now()).await.is_ok());
    let elsewhere = under(KeySource::Url {
        url: bench.idp.url("/other/keys"),
        insecure: false,
    });
    let refused = elsewhere.authenticate(&shown, bench.clock.now()).await;
    assert_eq!(refused.unwrap_err(), TokenError::IssuerUnavailable);
}
