use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{testing::*, *};

mod claims;
mod key_sets;
mod persons;
mod wycheproof;

fn check(token: &str) -> Result<Principal, TokenError> {
    let keys = keys(&[&RSA, &P256, &P384, &ED]);
    verify(token, &rules(), &keys, now())
}

/// The code a token is refused with; `ok` where it is accepted.
fn code(token: &str) -> &'static str {
    check(token).map_or_else(TokenError::code, |_| "ok")
}

/// The code for a rightly signed token with these header members set, or removed where null.
fn code_of_header(changes: Value) -> &'static str {
    let mut header = P256.header();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            header.as_object_mut().unwrap().remove(name);
        } else {
            header[name] = value.clone();
        }
    }
    code(&P256.sign_text(&header.to_string(), &claims().to_string()))
}

#[test]
fn a_good_token_of_every_kind_of_key_names_its_caller() {
    for signer in [&RSA, &PSS, &P256, &P384, &ED] {
        let token = signer.token(&claims());
        let principal = check(&token).unwrap();
        assert_eq!(
            principal,
            Principal {
                issuer: ISSUER.to_owned(),
                subject: "alice".to_owned(),
                audiences: vec![AUDIENCE.to_owned()],
                groups: vec!["staff".to_owned(), "ml".to_owned()],
                claims: BTreeMap::from([
                    ("email".to_owned(), json!("alice@example.com")),
                    ("tier".to_owned(), json!(3))
                ]),
                auth_method: AuthMethod::OidcJwt,
                token_hash: token_hash(&token),
                expires_at: Timestamp::from_second(NOW + 600).unwrap(),
                authenticated_at: None,
                issued_at: Some(Timestamp::from_second(NOW - 10).unwrap()),
                also: BTreeSet::new(),
                person_missing: false,
            },
            "{}",
            signer.algorithm
        );
    }
}

#[test]
fn peek_tells_whose_token_it_might_be_and_shows_none_of_it() {
    let token = P256.token(&claims());
    let peeked = peek(&token).unwrap();
    assert_eq!((peeked.issuer(), peeked.kid()), (ISSUER, Some("p256-1")));
    let shown = format!("{:?}", peek(&token).unwrap().jws) + &format!("{:?}", peeked.claims);
    assert!(
        !shown.contains("alice") && !shown.contains(&token[..20]),
        "{shown}"
    );
}

#[test]
fn alg_none_is_refused_in_every_spelling() {
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " none",
        "none ",
        "null",
        "n\u{0}one",
    ] {
        let header = json!({"alg": alg, "kid": "p256-1", "typ": "at+jwt"}).to_string();
        for signature in ["", "AA"] {
            let token = format!(
                "{}.{}.{signature}",
                base64url(&header),
                base64url(claims().to_string())
            );
            assert_eq!(code(&token), "token_algorithm_refused", "{alg:?}");
        }
    }
    for alg in [
        json!(null),
        json!(0),
        json!(["ES256"]),
        json!(true),
        json!({}),
    ] {
        let header = json!({"alg": alg, "kid": "p256-1"}).to_string();
        assert_eq!(
            code(&P256.sign_text(&header, &claims().to_string())),
            "token_invalid_header",
            "{alg}"
        );
    }
    assert_eq!(code_of_header(json!({"alg": null})), "token_invalid_header");
}

#[test]
fn a_public_key_is_never_an_hmac_secret() {
    for signer in [&RSA, &P256, &ED] {
        for (alg, hash) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
        ] {
            for secret in [
                signer.public_der(),
                signer.jwk().to_string().into_bytes(),
                jwks(&[signer]),
            ] {
                let header = json!({"alg": alg, "kid": signer.kid}).to_string();
                let input = format!("{}.{}", base64url(header), base64url(claims().to_string()));
                let tag = hmac::sign(&hmac::Key::new(hash, &secret), input.as_bytes());
                assert_eq!(
                    code(&format!("{input}.{}", base64url(tag))),
                    "token_algorithm_refused"
                );
            }
        }
    }
}

#[test]
fn the_algorithm_is_the_operators_and_the_keys_choice_never_the_tokens() {
    // Not pinned, though the key would do.
    let mut only_rsa = rules();
    only_rsa.algorithms = vec![Algorithm::Rs256];
    let set = keys(&[&RSA, &P256, &P384, &ED]);
    let refused = verify(&P256.token(&claims()), &only_rsa, &set, now());
    assert_eq!(refused, Err(TokenError::AlgorithmRefused));
    assert!(verify(&RSA.token(&claims()), &only_rsa, &set, now()).is_ok());

    // Pinned, but the key it names is of another type, or declared for another algorithm.
    for (alg, kid) in [
        ("RS256", "p256-1"),
        ("ES256", "rsa-1"),
        ("ES256", "p384-1"),
        ("EdDSA", "p256-1"),
    ] {
        assert_eq!(
            code_of_header(json!({"alg": alg, "kid": kid})),
            "key_mismatch",
            "{alg} {kid}"
        );
    }
    let mut declared = RSA.jwk();
    declared["alg"] = "RS256".into();
    let set = KeySet::parse(json!({"keys": [declared]}).to_string().as_bytes()).unwrap();
    assert_eq!(
        verify(&PSS.token(&claims()), &rules(), &set, now()),
        Err(TokenError::KeyMismatch)
    );
    assert!(verify(&RSA.token(&claims()), &rules(), &set, now()).is_ok());

    // Case matters (RFC 7515, 4.1.1), and no algorithm is guessed from a near miss.
    for alg in [
        "es256", "Es256", "ES256K", "ES512", "RS1", "RSA1_5", "EdDSA ", "Ed448",
    ] {
        assert_eq!(
            code_of_header(json!({ "alg": alg })),
            "token_algorithm_refused",
            "{alg}"
        );
    }
}

#[test]
fn an_empty_rule_accepts_nothing() {
    let set = keys(&[&P256]);
    let token = P256.token(&claims());
    let no_algorithms = IssuerRules {
        algorithms: vec![],
        ..rules()
    };
    assert_eq!(
        verify(&token, &no_algorithms, &set, now()),
        Err(TokenError::AlgorithmRefused)
    );
    let no_audience = IssuerRules {
        audiences: vec![],
        ..rules()
    };
    assert_eq!(
        verify(&token, &no_audience, &set, now()),
        Err(TokenError::WrongAudience)
    );
    let empty = IssuerRules {
        audiences: vec![String::new()],
        ..rules()
    };
    assert_eq!(
        verify(&token, &empty, &set, now()),
        Err(TokenError::WrongAudience)
    );
    assert_eq!(
        verify(&token, &rules(), &KeySet::default(), now()),
        Err(TokenError::UnknownKey)
    );
}

#[test]
fn a_signature_must_be_the_named_keys_over_these_very_bytes() {
    let good = P256.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let other = P256.token(&claims_with(json!({"sub": "mallory"})));
    let other_payload = other.split('.').nth(1).unwrap();
    let forged = format!("{}.{other_payload}.{}", parts[0], parts[2]);
    let stranger = RSA_OTHER.token(&claims());
    let zeros = format!("{}.{}.{}", parts[0], parts[1], base64url([0; 64]));
    // ECDSA in DER, as X.509 writes it, is not JWS's form.
    let der = format!(
        "{}.{}.{}",
        parts[0],
        parts[1],
        base64url([0x30, 6, 2, 1, 1, 2, 1, 1])
    );
    let empty = format!("{}.{}.", parts[0], parts[1]);
    for (case, token) in [
        ("payload", forged),
        ("stranger", stranger),
        ("zeros", zeros),
        ("DER", der),
        ("none at all", empty),
    ] {
        assert_eq!(code(&token), "token_bad_signature", "{case}");
    }
}

#[test]
fn key_ids_are_only_compared() {
    let injections = [
        "../../../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "p256-1\0",
        "P256-1",
        "p256-1 ",
        "",
        "http://127.0.0.1/key",
        "p256\u{2010}1",
        "*",
    ];
    for kid in injections {
        assert_eq!(
            code_of_header(json!({ "kid": kid })),
            "key_unknown",
            "{kid:?}"
        );
    }
    for kid in [json!(1), json!(["p256-1"]), json!({}), json!(true)] {
        assert_eq!(
            code_of_header(json!({ "kid": kid })),
            "token_invalid_header",
            "{kid}"
        );
    }
}

#[test]
fn without_a_key_id_exactly_one_key_may_fit() {
    let mut header = P256.header();
    header.as_object_mut().unwrap().remove("kid");
    let token = P256.sign_text(&header.to_string(), &claims().to_string());
    let with = |signers: &[&Signer]| verify(&token, &rules(), &keys(signers), now()).map(|_| ());
    assert_eq!(with(&[&P256]), Ok(()));
    assert_eq!(with(&[&RSA, &P384, &P256]), Ok(()));
    assert_eq!(with(&[&P256, &P256_SECOND]), Err(TokenError::AmbiguousKey));
    assert_eq!(with(&[&RSA]), Err(TokenError::UnknownKey));
}

#[test]
fn two_keys_under_one_id_are_not_tried_in_turn() {
    let mut twin = P256_SECOND.jwk();
    twin["kid"] = "p256-1".into();
    let set = KeySet::parse(json!({"keys": [P256.jwk(), twin]}).to_string().as_bytes()).unwrap();
    assert_eq!(
        verify(&P256.token(&claims()), &rules(), &set, now()),
        Err(TokenError::AmbiguousKey)
    );
}

#[test]
fn keys_that_the_token_brings_along_are_not_looked_at() {
    let bait = P256_SECOND.jwk();
    for name in ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"] {
        let value = if name == "jwk" {
            bait.clone()
        } else {
            json!("https://attacker.example/jwks.json")
        };
        // Harmless on a token that the issuer signed ...
        assert_eq!(code_of_header(json!({ name: value })), "ok", "{name}");
        // ... and no help to one that it did not.
        let header = json!({"alg": "ES256", "kid": "p256-1", name: value}).to_string();
        let forged = P256_SECOND.sign_text(&header, &claims().to_string());
        assert_eq!(code(&forged), "token_bad_signature", "{name}");
        let header = json!({"alg": "ES256", "kid": "p256-2", name: value}).to_string();
        let forged = P256_SECOND.sign_text(&header, &claims().to_string());
        assert_eq!(code(&forged), "key_unknown", "{name}");
    }
}

#[test]
fn extensions_are_refused_known_or_not() {
    for crit in [
        json!(["b64"]),
        json!(["exp"]),
        json!([]),
        json!("exp"),
        json!({}),
    ] {
        assert_eq!(
            code_of_header(json!({ "crit": crit })),
            "token_critical_extension",
            "{crit}"
        );
    }
    for b64 in [json!(false), json!(true), json!("false")] {
        assert_eq!(
            code_of_header(json!({ "b64": b64 })),
            "token_unencoded_payload",
            "{b64}"
        );
    }
    assert_eq!(
        code_of_header(json!({"b64": false, "crit": ["b64"]})),
        "token_critical_extension"
    );
}

#[test]
fn a_member_named_twice_is_refused_wherever_it_is() {
    let header = P256.header().to_string();
    let claims = claims().to_string();
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let cases = [
        (twice(&header, r#""alg":"none""#), claims.clone()),
        (twice(&header, r#""kid":"p256-1""#), claims.clone()),
        (twice(&header, r#""\u006bid":"p256-1""#), claims.clone()),
        (header.clone(), twice(&claims, r#""sub":"mallory""#)),
        (header.clone(), twice(&claims, r#""exp":99999999999"#)),
        (header.clone(), twice(&claims, r#""x":{"a":1,"a":2}"#)),
        (
            header.clone(),
            twice(&claims, r#""iss":"https://other.example""#),
        ),
    ];
    for (header, claims) in cases {
        assert_eq!(
            code(&P256.sign_text(&header, &claims)),
            "token_duplicate_member",
            "{header} {claims}"
        );
    }
}

#[test]
fn malformed_tokens_are_told_apart_before_any_cryptography() {
    let good = P256.token(&claims());
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    let with_header = |text: &[u8]| format!("{}.{payload}.{signature}", base64url(text));
    let with_payload = |text: &[u8]| format!("{header}.{}.{signature}", base64url(text));
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "token_not_jws"),
        ("eyJhbGciOiJFUzI1NiJ9".to_owned(), "token_not_jws"),
        (format!("{header}.{payload}"), "token_not_jws"),
        (format!("{good}."), "token_not_jws"),
        (format!(".{good}"), "token_not_jws"),
        (format!("{good}.AA.AA"), "token_not_jws"),
        ("..".to_owned(), "token_not_json"),
        (format!(".{payload}.{signature}"), "token_not_json"),
        (format!("{header}..{signature}"), "token_not_json"),
        (format!(" {good}"), "token_not_base64url"),
        (format!("{good} "), "token_not_base64url"),
        (format!("{good}\n"), "token_not_base64url"),
        (
            format!("{header}. {payload}.{signature}"),
            "token_not_base64url",
        ),
        (
            format!("{header}.{payload}.{signature}=="),
            "token_not_base64url",
        ),
        (
            format!("{header}.{payload}=.{signature}"),
            "token_not_base64url",
        ),
        (
            format!("{header}.{payload}.+/{signature}"),
            "token_not_base64url",
        ),
        (
            format!("{header}.{payload}.é{signature}"),
            "token_not_base64url",
        ),
        // The same bytes with bits left over in the last character: two spellings of one token.
        (format!("{header}.{payload}.AB"), "token_not_base64url"),
        (format!("{header}.{payload}.A"), "token_not_base64url"),
        (with_header(b"{\"alg\":\"ES256\xff\"}"), "token_not_json"),
        (with_payload(b"{\"iss\":\"\xc3\x28\"}"), "token_not_json"),
        (
            with_header(b"\xef\xbb\xbf{\"alg\":\"ES256\"}"),
            "token_not_json",
        ),
        (with_header(b"null"), "token_not_json"),
        (with_header(b"[{\"alg\":\"ES256\"}]"), "token_not_json"),
        (with_payload(b"\"text\""), "token_not_json"),
        (with_payload(b"{} {}"), "token_not_json"),
        (
            with_payload(format!("{{\"a\":{}1{}}}", "[".repeat(16), "]".repeat(16)).as_bytes()),
            "token_too_deep",
        ),
        (
            with_payload("{\"a\":".repeat(2000).as_bytes()),
            "token_too_deep",
        ),
        (with_header("[".repeat(9000).as_bytes()), "token_too_deep"),
        ("a".repeat(MAX_TOKEN_BYTES + 1), "token_too_large"),
        ("a.".repeat(512 * 1024), "token_too_large"),
        (
            format!("{good}{}", "A".repeat(1024 * 1024)),
            "token_too_large",
        ),
        (
            format!(
                r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#
            ),
            "token_not_jws",
        ),
    ];
    for (token, expected) in cases {
        let peeked = peek(&token).map(|_| ());
        assert_eq!(
            peeked.map_err(TokenError::code),
            Err(expected),
            "{}",
            &token[..token.len().min(80)]
        );
    }
}

#[test]
fn a_token_of_the_largest_size_passes() {
    let fixed = P256.token(&claims_with(json!({"pad": ""}))).len();
    let token = P256.token(&claims_with(
        json!({"pad": "x".repeat((MAX_TOKEN_BYTES - fixed) / 4 * 3)}),
    ));
    assert!(
        token.len() > MAX_TOKEN_BYTES - 8 && token.len() <= MAX_TOKEN_BYTES,
        "{}",
        token.len()
    );
    assert_eq!(code(&token), "ok");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn for_every_changed_byte_a_token_is_refused(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9._-]") {
        let token = ED.token(&claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(check(&changed).is_err(), "{at}");
    }

    #[test]
    fn for_every_text_peek_answers(text in "\\PC{0,200}") {
        let _ = peek(&text);
    }
}
