//! Opaque tokens: their issuer is asked, seldom, and only its plain yes counts.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    keys::{
        introspect::{IntrospectionSource, MAX_IN_FLIGHT},
        secret::SecretSource,
    },
    runtime::authenticator::opaque::MAX_REFUSALS,
};

const TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

struct Desk {
    idp: Idp,
    authenticator: Authenticator,
    clock: Clock,
    hand: Hand,
    secret: tempfile::NamedTempFile,
}

fn said(idp: &Idp, changes: Value) -> Answer {
    let mut answer =
        testing::claims_with(json!({"iss": idp.issuer, "active": true, "client_id": "app"}));
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
    }
    Answer::Body(answer.to_string().into_bytes())
}

impl Desk {
    async fn new() -> Self {
        Self::with(timing(), |_| None).await
    }

    async fn with(timing: Timing, url: impl Fn(&Idp) -> Option<String>) -> Self {
        let idp = Idp::start(jwks(&[&P256])).await;
        idp.say(said(&idp, json!({})));
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cr+t %\n").unwrap();
        let (clock, hand) = Clock::manual(now());
        let issuers = vec![issuer(&idp)];
        let authenticator = Authenticator::with(issuers, [0; 32], clock.clone(), timing)
            .unwrap()
            .with_opaque_tokens(&idp.issuer, source(url(&idp), secret.path()))
            .unwrap();
        authenticator.first_fetches().await;
        Self {
            idp,
            authenticator,
            clock,
            hand,
            secret,
        }
    }

    async fn code(&self, token: &str) -> &'static str {
        let now = self.clock.now();
        let principal = self
            .authenticator
            .authenticate(&Presented::bearer(token), now)
            .await;
        principal.map_or_else(TokenError::code, |_| "ok")
    }

    fn issuer(&self) -> IssuerMetrics {
        self.authenticator.metrics().issuers[0].clone()
    }
}

fn source(url: Option<String>, secret: &std::path::Path) -> IntrospectionSource {
    IntrospectionSource {
        url,
        client_id: "gate way".to_owned(),
        client_secret: SecretSource::File(secret.to_owned()),
    }
}

#[tokio::test]
async fn the_issuer_is_asked_once_a_minute_as_rfc_7662_says() {
    let desk = Desk::new().await;
    assert_eq!(desk.code(TOKEN).await, "ok");
    // RFC 6749, 2.3.1: `gate way` and `s3cr+t %`, form-encoded, joined, in Base64.
    let basic = "Basic Z2F0ZSt3YXk6czNjciUyQnQrJTI1".to_owned();
    let form = format!("token={TOKEN}&token_type_hint=access_token");
    assert_eq!(desk.idp.question(), (basic, form));
    desk.hand.advance(60 * SECOND);
    assert_eq!(desk.code(TOKEN).await, "ok");
    assert_eq!(desk.idp.asked(), 1);
    desk.hand.advance(Duration::from_millis(1));
    assert_eq!(desk.code(TOKEN).await, "ok");
    assert_eq!(desk.idp.asked(), 2);
    let metrics = desk.issuer();
    assert_eq!((metrics.accepted, metrics.cache_hits), (3, 1));
    assert_eq!(metrics.introspections, Some((2, 0)));
}

#[tokio::test]
async fn a_token_that_is_revoked_is_refused_a_minute_later_at_the_latest() {
    let desk = Desk::new().await;
    assert_eq!(desk.code(TOKEN).await, "ok");
    desk.idp.say(Answer::Body(br#"{"active":false}"#.to_vec()));
    desk.hand.advance(61 * SECOND);
    assert_eq!(desk.code(TOKEN).await, "token_inactive");
}

#[tokio::test]
async fn memory_of_an_answer_never_reaches_past_the_expiry() {
    let desk = Desk::new().await;
    desk.idp.say(said(&desk.idp, json!({"exp": NOW + 5})));
    assert_eq!(desk.code(TOKEN).await, "ok");
    desk.hand.advance(5 * SECOND);
    assert_eq!(desk.code(TOKEN).await, "ok", "by the granted skew");
    assert_eq!(desk.idp.asked(), 2);
    desk.hand.advance(30 * SECOND);
    assert_eq!(desk.code(TOKEN).await, "token_expired");
}

#[tokio::test]
async fn whatever_is_no_answer_is_never_a_yes_and_passes_by_itself() {
    let desk = Desk::new().await;
    let elsewhere = Idp::start(vec![]).await;
    elsewhere.say(said(&desk.idp, json!({})));
    let mut huge = json!({"active": true, "pad": "x".repeat(64 * 1024)});
    huge["iss"] = desk.idp.issuer.clone().into();
    let failures = [
        Answer::Body(b"<html>please log in</html>".to_vec()),
        Answer::Body(b"{}".to_vec()),
        Answer::Body(b"".to_vec()),
        Answer::Body(br#"{"active":"true"}"#.to_vec()),
        Answer::Body(huge.to_string().into_bytes()),
        Answer::Endless,
        Answer::Status(500),
        Answer::Status(401),
        Answer::Status(203),
        Answer::Redirect("/moved".to_owned()),
        Answer::Redirect(elsewhere.url("/realm/introspect")),
    ];
    for (case, failure) in failures.into_iter().enumerate() {
        let token = format!("{TOKEN}-{case}");
        let served = desk.idp.served();
        desk.idp.say(failure);
        assert_eq!(desk.code(&token).await, "issuer_unavailable", "case {case}");
        assert_eq!(
            desk.idp.served(),
            served,
            "case {case}: a redirect was followed"
        );
        desk.idp.say(said(&desk.idp, json!({})));
        assert_eq!(desk.code(&token).await, "ok", "case {case}");
    }
    assert_eq!(
        elsewhere.requests(),
        0,
        "a token was shown to somebody else"
    );
    assert!(desk.idp.endless_bytes() < 64 * 1024 * 1024);
    assert_eq!(desk.issuer().introspections, Some((22, 11)));
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up_on_and_left_alone_for_a_second() {
    let impatient = Timing {
        timeout: Duration::from_millis(50),
        ..timing()
    };
    let desk = Desk::with(impatient, |idp| Some(idp.url("/realm/introspect"))).await;
    desk.idp.say(Answer::Silence);
    assert_eq!(desk.code(TOKEN).await, "issuer_unavailable");
    assert_eq!(desk.code(TOKEN).await, "issuer_unavailable");
    assert_eq!(desk.code("another").await, "issuer_unavailable");
    assert_eq!(desk.idp.asked(), 1);
    desk.hand.advance(SECOND);
    assert_eq!(desk.code(TOKEN).await, "issuer_unavailable");
    assert_eq!(desk.idp.asked(), 2);
}

#[tokio::test]
async fn where_to_ask_is_discovered_or_configured_and_never_in_plaintext() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (clock, _hand) = Clock::manual(now());
    let secret = tempfile::NamedTempFile::new().unwrap();
    let asking = |url: &str| {
        Authenticator::with(vec![issuer(&idp)], [0; 32], clock.clone(), timing())
            .unwrap()
            .with_opaque_tokens(&idp.issuer, source(Some(url.to_owned()), secret.path()))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(asking(&idp.url("/realm/introspect")), Ok(()));
    let plain = asking("http://192.0.2.1/introspect").unwrap_err();
    assert!(
        plain.ends_with("is not https, and not on loopback"),
        "{plain}"
    );

    let desk = Desk::new().await;
    let document = |endpoint: Value| {
        let document = json!({"issuer": desk.idp.issuer, "jwks_uri": desk.idp.url("/k"), "introspection_endpoint": endpoint});
        Answer::Body(document.to_string().into_bytes())
    };
    let good = json!(desk.idp.url("/realm/introspect"));
    let elsewhere = desk
        .idp
        .document("https://login.example", "https://login.example/k");
    for (case, discovered) in [
        document(Value::Null),
        document(json!("http://192.0.2.1/introspect")),
        document(json!("/realm/introspect")),
        document(json!(7)),
        Answer::Body(elsewhere),
        Answer::Body(b"<html>".to_vec()),
        Answer::Status(404),
    ]
    .into_iter()
    .enumerate()
    {
        desk.idp.discover(discovered);
        assert_eq!(desk.code(TOKEN).await, "issuer_unavailable", "case {case}");
        assert_eq!(desk.idp.asked(), 0, "case {case}");
    }
    desk.idp.discover(document(good));
    assert_eq!(desk.code(TOKEN).await, "ok");
}

#[tokio::test]
async fn a_secret_that_is_gone_is_the_issuers_absence_and_a_new_one_is_used_at_once() {
    let desk = Desk::new().await;
    std::fs::write(desk.secret.path(), "").unwrap();
    assert_eq!(desk.code(TOKEN).await, "issuer_unavailable");
    assert_eq!(desk.idp.asked(), 0);
    std::fs::write(desk.secret.path(), "new").unwrap();
    assert_eq!(desk.code(TOKEN).await, "ok");
    assert_eq!(desk.idp.question().0, "Basic Z2F0ZSt3YXk6bmV3");
}

#[tokio::test]
async fn a_refusal_is_remembered_for_ten_seconds_and_for_the_very_token() {
    let desk = Desk::new().await;
    desk.idp.say(Answer::Body(br#"{"active":false}"#.to_vec()));
    for _ in 0..20 {
        assert_eq!(desk.code(TOKEN).await, "token_inactive");
    }
    assert_eq!(desk.idp.asked(), 1);
    desk.idp
        .say(said(&desk.idp, json!({"aud": "other gateway"})));
    assert_eq!(desk.code("another").await, "audience_wrong");
    assert_eq!(desk.code("another").await, "audience_wrong");
    assert_eq!(desk.idp.asked(), 2);
    desk.idp.say(said(&desk.idp, json!({})));
    desk.hand.advance(10 * SECOND + Duration::from_millis(1));
    assert_eq!(desk.code(TOKEN).await, "ok");
    let metrics = desk.issuer();
    assert_eq!((metrics.accepted, metrics.refused), (1, 22));
}

#[tokio::test]
async fn made_up_tokens_fill_no_memory_and_no_more_than_a_few_questions_at_a_time() {
    let desk = Desk::new().await;
    desk.idp.say(Answer::Body(br#"{"active":false}"#.to_vec()));
    desk.idp.close();
    let tokens: Vec<_> = (0..4 * MAX_IN_FLIGHT)
        .map(|n| format!("made-up-{n}"))
        .collect();
    let mut calls = Box::pin(futures::future::join_all(
        tokens.iter().map(|token| desk.code(token)),
    ));
    let asked = async {
        while desk.idp.asked() < MAX_IN_FLIGHT {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut calls => panic!("answered by nobody"),
        () = asked => {}
    }
    // As many as may be are under way and the gate is shut: the others wait for their turn.
    assert!(futures::poll!(&mut calls).is_pending());
    assert_eq!(desk.idp.asked(), MAX_IN_FLIGHT);
    desk.idp.open();
    assert!(calls.await.into_iter().all(|code| code == "token_inactive"));
    assert_eq!(desk.idp.asked(), tokens.len());

    let opaque = desk.authenticator.opaque.as_ref().unwrap();
    for n in 0..3 * MAX_REFUSALS {
        let key = CacheKey {
            identity: [0; 32],
            token: identity::token_hash(&n.to_string()),
        };
        opaque.remember_refusal(key, TokenError::Inactive, Duration::ZERO);
    }
    opaque.refusals.run_pending_tasks();
    let remembered = opaque.refusals.entry_count();
    assert!(remembered <= MAX_REFUSALS, "{remembered}");
}

#[tokio::test]
async fn many_who_come_with_one_token_share_few_questions() {
    let desk = Desk::new().await;
    let calls = (0..500).map(|_| desk.code(TOKEN));
    let codes = futures::future::join_all(calls).await;
    assert!(codes.into_iter().all(|code| code == "ok"));
    assert!(desk.idp.asked() <= MAX_IN_FLIGHT, "{}", desk.idp.asked());
    assert_eq!(desk.issuer().accepted, 500);
}

#[tokio::test]
async fn only_what_says_nothing_is_shown_to_the_issuer() {
    let desk = Desk::new().await;
    let signed = P256.token(&testing::claims_with(json!({"iss": desk.idp.issuer})));
    assert_eq!(desk.code(&signed).await, "ok");
    let strangers = P256.token(&testing::claims());
    assert_eq!(desk.code(&strangers).await, "issuer_unknown");
    assert_eq!(desk.code("a.b.c").await, "token_not_base64url");
    assert_eq!(desk.code(&"a".repeat(1 << 20)).await, "token_too_large");
    assert_eq!(
        (
            desk.idp.asked(),
            desk.authenticator.metrics().refused_strangers
        ),
        (0, 3)
    );
    // Five segments are an encrypted token: its issuer can read it.
    assert_eq!(desk.code("a.b.c.d.e").await, "ok");
    assert_eq!(desk.idp.asked(), 1);
}

#[tokio::test]
async fn where_no_issuer_is_asked_an_opaque_token_is_no_token() {
    let bench = Bench::new(&[&P256]).await;
    assert_eq!(bench.code(TOKEN).await, "token_not_jws");
    assert_eq!(bench.idp.asked(), 0);
    assert_eq!(
        bench.authenticator.metrics().issuers[0].introspections,
        None
    );
}

#[tokio::test]
async fn keys_that_are_gone_do_not_touch_what_the_issuer_said_itself() {
    let desk = Desk::new().await;
    assert_eq!(desk.code(TOKEN).await, "ok");
    desk.idp.publish(Answer::Status(500));
    desk.hand.advance(59 * SECOND);
    desk.idp.publish(Answer::Body(jwks(&[])));
    let other = P256_SECOND.token(&testing::claims_with(json!({"iss": desk.idp.issuer})));
    assert_eq!(desk.code(&other).await, "key_unknown");
    assert_eq!((desk.code(TOKEN).await, desk.idp.asked()), ("ok", 1));
}

/// An issuer that is asked about every token: its discovery document names no keys.
async fn keyless() -> (Idp, Authenticator, tempfile::NamedTempFile) {
    let idp = Idp::start(vec![]).await;
    let document =
        json!({"issuer": idp.issuer, "introspection_endpoint": idp.url("/realm/introspect")});
    idp.discover(Answer::Body(document.to_string().into_bytes()));
    idp.say(said(&idp, json!({})));
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let (mut rules, _) = issuer(&idp);
    rules.algorithms.clear();
    let (clock, _hand) = Clock::manual(now());
    let issuers: Vec<(IssuerRules, Option<KeySource>)> = vec![(rules, None)];
    let authenticator = Authenticator::with(issuers, [0; 32], clock, timing())
        .unwrap()
        .with_opaque_tokens(&idp.issuer, source(None, secret.path()))
        .unwrap();
    authenticator.first_fetches().await;
    (idp, authenticator, secret)
}

async fn told(authenticator: &Authenticator, token: &str) -> &'static str {
    let presented = Presented::bearer(token);
    let principal = authenticator.authenticate(&presented, now()).await;
    principal.map_or_else(TokenError::code, |principal| principal.auth_method.name())
}

#[tokio::test]
async fn an_issuer_without_keys_is_asked_about_every_token_and_needs_no_jwks() {
    let (idp, authenticator, _secret) = keyless().await;
    for _ in 0..3 {
        assert_eq!(told(&authenticator, TOKEN).await, "oidc_introspection");
    }
    assert_eq!((idp.asked(), idp.served()), (1, 0));
    // Whatever its signature is worth: it is the issuer that says.
    let signed = P256.token(&testing::claims_with(json!({"iss": idp.issuer})));
    assert_eq!(told(&authenticator, &signed).await, "oidc_introspection");
    assert_eq!((idp.asked(), idp.served()), (2, 0));
    idp.say(Answer::Body(br#"{"active":false}"#.to_vec()));
    let forged = P256_SECOND.token(&testing::claims_with(json!({"iss": idp.issuer})));
    assert_eq!(told(&authenticator, &forged).await, "token_inactive");
    let metrics = authenticator.metrics().issuers.remove(0);
    assert!(metrics.available && metrics.keys_age.is_none());
    assert_eq!((metrics.keys, metrics.fetches), (0, 0));
    assert_eq!((metrics.accepted, metrics.refused), (4, 1));
    assert_eq!(metrics.introspections, Some((3, 0)));
}

#[tokio::test]
async fn what_an_issuer_without_keys_is_not_asked_about_does_not_count() {
    let (idp, authenticator, _secret) = keyless().await;
    let strangers = P256.token(&testing::claims());
    assert_eq!(told(&authenticator, &strangers).await, "issuer_unknown");
    // An answer would not say that it is about an ID token or a refresh token.
    let marked = |mark: Value| {
        let mut claims = testing::claims_with(mark);
        claims["iss"] = idp.issuer.clone().into();
        P256.token(&claims)
    };
    let id_token = marked(json!({"typ": "ID"}));
    assert_eq!(told(&authenticator, &id_token).await, "token_is_id_token");
    let refresh = marked(json!({"typ": "Refresh"}));
    assert_eq!(told(&authenticator, &refresh).await, "token_wrong_type");
    assert_eq!(idp.asked(), 0);
    idp.say(Answer::Status(500));
    assert_eq!(told(&authenticator, TOKEN).await, "issuer_unavailable");
    assert!(!authenticator.metrics().issuers[0].available);
    idp.say(said(&idp, json!({})));
    assert_eq!(told(&authenticator, "another").await, "oidc_introspection");
    // No token that it does not want to be asked about makes it look away.
    idp.say(Answer::Status(400));
    assert_eq!(told(&authenticator, TOKEN).await, "issuer_unavailable");
    assert!(authenticator.metrics().issuers[0].available);
    idp.say(said(&idp, json!({})));
    assert_eq!(told(&authenticator, TOKEN).await, "oidc_introspection");
    assert!(authenticator.metrics().issuers[0].available);
}

#[tokio::test]
async fn a_token_upon_which_the_issuer_hangs_up_keeps_no_other_from_being_asked_about() {
    let (idp, authenticator, _secret) = keyless().await;
    idp.say(Answer::Broken);
    assert_eq!(
        told(&authenticator, "a-strangers").await,
        "issuer_unavailable"
    );
    idp.say(said(&idp, json!({})));
    assert_eq!(told(&authenticator, TOKEN).await, "oidc_introspection");
    assert_eq!(idp.asked(), 2);
}

#[tokio::test]
async fn an_issuer_that_nobody_can_be_known_by_accepts_nothing() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let issuers: Vec<(IssuerRules, Option<KeySource>)> = vec![(issuer(&idp).0, None)];
    let (clock, _hand) = Clock::manual(now());
    let authenticator = Authenticator::with(issuers, [0; 32], clock, timing()).unwrap();
    let signed = P256.token(&testing::claims_with(json!({"iss": idp.issuer})));
    assert_eq!(
        told(&authenticator, &signed).await,
        "token_algorithm_refused"
    );
    assert!(!authenticator.metrics().issuers[0].available);
    assert_eq!(idp.requests(), 0);
}
