#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    approval::{Requirement, Slot},
    identity::{
        AuthMethod, Bound, GrantClaims, GrantRules, Kind, Principal, Scope, TokenError, peek,
        testing,
    },
    policy::{Expression, LocalTime, ModelPattern, Vocabulary},
};

const NOW: i64 = 1_772_366_400;
const ISSUER: &str = "https://gateway.example";

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn ask(more: Value) -> Ask {
    let mut ask = json!({"type": "inference", "connection": "openai"});
    for (name, value) in more.as_object().unwrap() {
        ask[name] = value.clone();
    }
    serde_json::from_value(ask).unwrap()
}

fn rule(when: &str) -> Rule {
    let vocabulary = Vocabulary {
        entities: BTreeSet::new(),
        claims: BTreeSet::from(["level".to_owned()]),
    };
    Rule {
        name: "on-call".to_owned(),
        when: Expression::compile(when, &vocabulary).unwrap(),
        connections: vec!["openai".to_owned()],
        models: vec!["gpt-*".to_owned()],
        methods: vec!["chat_completions".to_owned()],
        lifetime: Duration::from_secs(3600),
        max_uses: Some(10),
        approval: None,
    }
}

fn rules(rules: Vec<Rule>) -> Rules {
    Rules {
        issuer: ISSUER.to_owned(),
        rules,
    }
}

fn decide(rules: &Rules, ask: &Ask) -> Result<Terms, NotGiven> {
    let caller = Principal {
        groups: vec!["on-call".to_owned()],
        ..testing::principal()
    };
    rules.decide(&caller, ask, None, now(), LocalTime::default())
}

#[test]
fn what_nobody_says_is_what_the_rule_gives_for_a_quarter_of_an_hour() {
    let terms = decide(&rules(vec![rule("true")]), &ask(json!({}))).unwrap();
    assert_eq!(terms.scope.models, ["gpt-*"]);
    assert_eq!(terms.scope.methods, ["chat_completions"]);
    assert_eq!(terms.scope.max_uses, Some(10));
    assert_eq!((terms.begins(now()), terms.ends(now())), (NOW, NOW + 900));
}

#[test]
fn nothing_is_given_beyond_a_rule() {
    let rules = rules(vec![rule("'on-call' in principal.groups")]);
    for more in [
        json!({"models": ["gpt-5"], "methods": ["chat_completions"], "max_uses": 1, "expires_in": 3600}),
        json!({"models": ["GPT-4*", "gpt-5-*"], "not_before": NOW + 3600}),
    ] {
        let asked = ask(more.clone());
        let terms = decide(&rules, &asked).unwrap_or_else(|not| panic!("{more}: {not:?}"));
        assert_eq!(terms.scope.models, asked.models);
    }
    for more in [
        json!({"connection": "anthropic"}),
        json!({"models": ["o3"]}),
        json!({"models": ["gpt-5", "o3"]}),
        json!({"models": ["*"]}),
        json!({"models": ["g*"]}),
        json!({"methods": ["embeddings"]}),
        json!({"max_uses": 11}),
        json!({"expires_in": 3601}),
    ] {
        assert_eq!(
            decide(&rules, &ask(more.clone())),
            Err(NotGiven::NoRule),
            "{more}"
        );
    }
}

#[test]
fn a_window_may_begin_within_a_day_and_have_begun_but_not_be_over() {
    let rules = rules(vec![rule("true")]);
    let window = |not_before: i64, expires_in: u32| {
        decide(
            &rules,
            &ask(json!({"not_before": not_before, "expires_in": expires_in})),
        )
    };
    assert_eq!(window(NOW - 60, 300).unwrap().ends(now()), NOW + 240);
    assert_eq!(window(NOW - 300, 300), Err(NotGiven::BadWindow));
    assert_eq!(window(NOW + 86_401, 300), Err(NotGiven::BadWindow));
    // What is over more than a day from now would have to be remembered for longer than anything is.
    assert_eq!(window(NOW + 86_400, 300), Err(NotGiven::NoRule));
    assert!(window(NOW + 86_100, 300).is_ok());
    for odd in [i64::MIN, i64::MIN + NOW, i64::MIN / 2, 0, i64::MAX] {
        assert_eq!(window(odd, 300), Err(NotGiven::BadWindow), "{odd}");
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_gives_nothing_and_hides_those_behind_it() {
    let rules = rules(vec![rule("principal.claims.level > 3"), rule("true")]);
    assert!(matches!(
        decide(&rules, &ask(json!({}))),
        Err(NotGiven::CannotEvaluate(why)) if why.contains("on-call")
    ));
}

#[test]
fn rules_are_tried_in_order_and_the_first_that_covers_all_counts() {
    let approval = Requirement {
        slots: vec![Slot {
            group: "security".to_owned(),
            distinct: 1,
        }],
        expires_ms: 60_000,
        ..Requirement::default()
    };
    let risky = Rule {
        name: "risky".to_owned(),
        models: vec!["o3".to_owned()],
        approval: Some(approval),
        ..rule("true")
    };
    let rules = rules(vec![
        rule("'nobody' in principal.groups"),
        rule("true"),
        risky,
    ]);
    assert_eq!(decide(&rules, &ask(json!({}))).unwrap().approval, None);
    let terms = decide(&rules, &ask(json!({"models": ["o3"]}))).unwrap();
    assert_eq!(terms.rule, "risky");
    assert!(terms.approval.is_some());
    // Of somebody who is nobody in particular nobody is asked.
    let nobody = Principal {
        person_missing: true,
        ..testing::principal()
    };
    let asked = ask(json!({"models": ["o3"]}));
    let decided = rules.decide(&nobody, &asked, None, now(), LocalTime::default());
    assert_eq!(decided, Err(NotGiven::PersonUnknown));
}

proptest! {
    /// Whatever a pattern that was asked for stands for, the rule's pattern stands for too.
    #[test]
    fn a_pattern_within_another_stands_for_nothing_else(
        given in "[ab*]{1,5}", asked in "[ab*]{1,5}", stands in proptest::collection::vec("[abc]{0,3}", 6)
    ) {
        let rule = Rule { models: vec![given.clone()], ..rule("true") };
        if decide(&rules(vec![rule]), &ask(json!({"models": [asked]}))).is_ok() {
            let mut stands = stands.iter();
            let model: String = asked
                .chars()
                .map(|c| match c {
                    '*' => stands.next().cloned().unwrap_or_default(),
                    other => other.to_string(),
                })
                .collect();
            prop_assert!(ModelPattern::new(&given).unwrap().matches(&model), "{given} {asked} {model}");
        }
    }
}

fn fields(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let usual = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", "a.b.c"),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        (
            "authorization_details",
            r#"[{"type":"inference","connection":"openai"}]"#,
        ),
    ];
    let replaced = |(name, _): &&(&str, &str)| !more.iter().any(|(other, _)| other == name);
    usual
        .iter()
        .filter(replaced)
        .chain(more.iter().filter(|(_, value)| *value != "-"))
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_token_request_is_read_as_the_rfcs_say() {
    let read = |more: &[(&str, &str)]| TokenRequest::read(&fields(more), ISSUER);
    assert!(matches!(read(&[]).unwrap().subject, Subject::Token(_)));
    assert!(
        read(&[
            ("audience", ISSUER),
            ("resource", ISSUER),
            ("nonsense", "ignored")
        ])
        .is_ok()
    );
    assert!(
        read(&[("scope", "")]).is_ok(),
        "an empty parameter counts as none"
    );
    let saml = "urn:ietf:params:oauth:token-type:saml2";
    assert!(matches!(
        read(&[("subject_token_type", saml)]).unwrap().subject,
        Subject::Assertion(_)
    ));
    let bearer = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:saml2-bearer",
        ),
        ("assertion", "PHg-"),
        ("subject_token", "-"),
        ("subject_token_type", "-"),
    ];
    assert!(matches!(
        read(&bearer).unwrap().subject,
        Subject::Assertion(_)
    ));
    let error = |more: &[(&str, &str)]| read(more).unwrap_err().error();
    for (more, expected) in [
        (&[("grant_type", "-")][..], "invalid_request"),
        (
            &[("grant_type", "client_credentials")],
            "unsupported_grant_type",
        ),
        (&[("subject_token", "-")], "invalid_request"),
        (&[("subject_token_type", "-")], "invalid_request"),
        (&[("subject_token_type", "urn:x")], "invalid_request"),
        (
            &[("subject_token", "a"), ("subject_token", "b")],
            "invalid_request",
        ),
        (&[("actor_token", "a.b.c")], "invalid_request"),
        (
            &[(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:refresh_token",
            )],
            "invalid_request",
        ),
        (&[("scope", "everything")], "invalid_scope"),
        (&[("audience", "https://other.example")], "invalid_target"),
        (
            &[("resource", ISSUER), ("resource", "https://other.example")],
            "invalid_target",
        ),
        (&[("authorization_details", "-")], "invalid_request"),
        (
            &[("authorization_details", "{}")],
            "invalid_authorization_details",
        ),
        (
            &[("authorization_details", "[]")],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"payment","connection":"c"}]"#,
            )],
            "invalid_authorization_details",
        ),
        (
            &[("authorization_details", r#"[{"type":"inference"}]"#)],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"inference","connection":"c","more":1}]"#,
            )],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"inference","connection":"c","max_uses":0}]"#,
            )],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"inference","connection":"c","reason":"a\nb"}]"#,
            )],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"inference","connection":""}]"#,
            )],
            "invalid_authorization_details",
        ),
        (
            &[(
                "authorization_details",
                r#"[{"type":"inference","connection":"c"},{"type":"inference","connection":"d"}]"#,
            )],
            "invalid_authorization_details",
        ),
    ] {
        assert_eq!(error(more), expected, "{more:?}");
    }
    assert!(
        !read(&[("subject_token", "canary-1"), ("scope", "x")])
            .unwrap_err()
            .description()
            .contains("canary")
    );
}

fn claims() -> GrantClaims {
    let alice = Principal {
        groups: vec!["staff".to_owned()],
        also: BTreeSet::from(["person:alice".to_owned()]),
        authenticated_at: Some(now()),
        ..testing::principal()
    };
    GrantClaims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: alice.subject.clone(),
        jti: "g-1".to_owned(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 900,
        authorization_details: [Scope {
            kind: Kind::Inference,
            connection: "openai".to_owned(),
            models: vec!["gpt-*".to_owned()],
            methods: Vec::new(),
            max_uses: Some(1),
        }],
        cnf: None,
        holder: alice.holder(Some("a-1".to_owned())),
    }
}

fn verify(ring: &KeyRing, token: &str, at: i64) -> Result<Principal, TokenError> {
    let rules = GrantRules {
        issuer: ISSUER.to_owned(),
    };
    let at = Timestamp::from_second(at).unwrap();
    peek(token)?.verify_grant(&rules, ring.public(), at)
}

/// A P-256 key in PKCS#8, drawn for these tests.
fn p256() -> GrantKey {
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    GrantKey::from_pem(&pem).unwrap()
}

#[test]
fn a_grant_names_its_holder_as_their_own_token_did() {
    let (ed, pem) = GrantKey::generate().unwrap();
    assert_eq!(GrantKey::from_pem(&pem).unwrap().kid(), ed.kid());
    for key in [ed, p256()] {
        let ring = KeyRing::new(vec![key]).unwrap();
        let token = ring.sign(&claims()).unwrap();
        let holder = verify(&ring, &token, NOW).unwrap();
        assert_eq!(
            (holder.issuer.as_str(), holder.subject.as_str()),
            ("https://idp.example", "alice")
        );
        assert_eq!(holder.auth_method, AuthMethod::Grant);
        assert_eq!(holder.groups, ["staff"]);
        assert!(holder.also.contains("person:alice"));
        assert_eq!(holder.authenticated_at, Some(now()));
        let grant = holder.grant.unwrap();
        assert_eq!(
            (grant.id.as_str(), grant.obtained_with.as_str()),
            ("g-1", "oidc_jwt")
        );
        assert_eq!(grant.approval.as_deref(), Some("a-1"));
        assert_eq!(grant.scope, claims().authorization_details[0]);
        // To the second, whatever skew others are granted.
        assert!(verify(&ring, &token, NOW + 899).is_ok());
        assert_eq!(verify(&ring, &token, NOW + 900), Err(TokenError::Expired));
        assert!(verify(&ring, &token, NOW - 5).is_ok());
        assert_eq!(verify(&ring, &token, NOW - 6), Err(TokenError::NotYetValid));
    }
}

#[test]
fn a_grant_that_is_bound_makes_a_holder_who_is() {
    let (key, _) = GrantKey::generate().unwrap();
    let ring = KeyRing::new(vec![key]).unwrap();
    let bound = Bound {
        key: Some([7; 32]),
        certificate: None,
    };
    let claims = GrantClaims {
        cnf: Some(bound),
        ..claims()
    };
    let token = ring.sign(&claims).unwrap();
    assert_eq!(verify(&ring, &token, NOW).unwrap().bound, bound);
    let free = ring.sign(&self::claims()).unwrap();
    assert!(!verify(&ring, &free, NOW).unwrap().bound.is_bound());
}

#[test]
fn keys_are_introduced_behind_the_one_that_signs_and_leave_when_they_are_done() {
    let (old, old_pem) = GrantKey::generate().unwrap();
    let (new, new_pem) = GrantKey::generate().unwrap();
    let key = |pem: &str| GrantKey::from_pem(pem).unwrap();
    let before = KeyRing::new(vec![old]).unwrap();
    let both = KeyRing::new(vec![key(&new_pem), key(&old_pem)]).unwrap();
    let after = KeyRing::new(vec![new]).unwrap();
    let by_old = before.sign(&claims()).unwrap();
    assert!(verify(&both, &by_old, NOW).is_ok());
    assert_eq!(verify(&after, &by_old, NOW), Err(TokenError::UnknownKey));
    let by_new = both.sign(&claims()).unwrap();
    assert!(verify(&after, &by_new, NOW).is_ok());
    assert_eq!(both.jwks()["keys"].as_array().unwrap().len(), 2);
    assert!(KeyRing::new(vec![key(&old_pem), key(&old_pem)]).is_none());
    assert!(KeyRing::new(Vec::new()).is_none());
}

#[test]
fn what_is_no_grant_of_ours_is_none() {
    let (key, _) = GrantKey::generate().unwrap();
    let (stranger, _) = GrantKey::generate().unwrap();
    let ring = KeyRing::new(vec![key]).unwrap();
    let others = KeyRing::new(vec![stranger]).unwrap();
    assert_eq!(
        verify(&ring, &others.sign(&claims()).unwrap(), NOW),
        Err(TokenError::UnknownKey)
    );
    let elsewhere = GrantClaims {
        aud: "https://elsewhere.example".to_owned(),
        ..claims()
    };
    assert_eq!(
        verify(&ring, &ring.sign(&elsewhere).unwrap(), NOW),
        Err(TokenError::WrongAudience)
    );
    let other = GrantClaims {
        iss: "https://elsewhere.example".to_owned(),
        ..claims()
    };
    assert_eq!(
        verify(&ring, &ring.sign(&other).unwrap(), NOW),
        Err(TokenError::UnknownIssuer)
    );
    // A claim changed by hand.
    let token = ring.sign(&claims()).unwrap();
    let mut parts = token.split('.');
    let (header, payload, signature) = (
        parts.next().unwrap(),
        parts.next().unwrap(),
        parts.next().unwrap(),
    );
    let mut said: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    said["authorization_details"][0]["max_uses"] = 1000.into();
    let forged = format!(
        "{header}.{}.{signature}",
        URL_SAFE_NO_PAD.encode(said.to_string())
    );
    assert_eq!(verify(&ring, &forged, NOW), Err(TokenError::BadSignature));
}

#[test]
fn a_key_that_is_none_is_told() {
    for (pem, why) in [
        ("", NotAKey::Form),
        (
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
            NotAKey::Form,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            NotAKey::Kind,
        ),
        (
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----",
            NotAKey::Form,
        ),
    ] {
        assert_eq!(GrantKey::from_pem(pem).map(drop), Err(why), "{pem}");
    }
    let (key, pem) = GrantKey::generate().unwrap();
    let secret: String = pem
        .lines()
        .nth(1)
        .unwrap()
        .chars()
        .skip(30)
        .take(20)
        .collect();
    assert!(!format!("{key:?}").contains(&secret));
}

#[test]
fn what_is_asked_for_again_is_known_again_and_what_differs_is_not() {
    let rules = rules(vec![rule("true")]);
    let alice = crate::approval::Party::from(&testing::principal());
    let digest = |more: Value| {
        let terms = decide(&rules, &ask(more)).unwrap();
        let text = terms.lines().join("\n");
        terms.digest(&alice, ISSUER, &text)
    };
    let usual = digest(json!({}));
    assert_eq!(usual, digest(json!({})));
    for more in [
        json!({"models": ["gpt-5"]}),
        json!({"max_uses": 1}),
        json!({"expires_in": 60}),
        json!({"not_before": NOW + 1}),
    ] {
        assert_ne!(usual, digest(more.clone()), "{more}");
    }
}
