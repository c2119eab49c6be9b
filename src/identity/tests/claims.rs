use super::*;

/// The code for a token of right header and signature with these claims changed.
fn code_of_claims(changes: Value) -> &'static str {
    code(&P256.token(&claims_with(changes)))
}

#[test]
fn only_access_tokens_pass() {
    for typ in [
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/AT+JWT",
        "JWT",
        "jwt",
        "application/jwt",
    ] {
        assert_eq!(code_of_header(json!({ "typ": typ })), "ok", "{typ}");
    }
    assert_eq!(code_of_header(json!({"typ": null})), "ok");
    for typ in [
        "",
        "JOSE",
        "logout+jwt",
        "dpop+jwt",
        "id+jwt",
        "secevent+jwt",
        "at+jwt ",
        "application/application/jwt",
    ] {
        assert_eq!(
            code_of_header(json!({ "typ": typ })),
            "token_wrong_type",
            "{typ:?}"
        );
    }
    assert_eq!(code_of_header(json!({"typ": 1})), "token_invalid_header");
    for kind in ["Refresh", "Offline", "Logout"] {
        assert_eq!(
            code_of_claims(json!({ "typ": kind })),
            "token_wrong_type",
            "{kind}"
        );
    }
    assert_eq!(code_of_claims(json!({"typ": "Bearer"})), "ok");
    assert_eq!(code_of_claims(json!({"events": {}})), "token_wrong_type");
}

#[test]
fn id_tokens_pass_only_where_the_rules_allow_them() {
    let set = keys(&[&P256]);
    let allowing = IssuerRules {
        allow_id_tokens: true,
        ..rules()
    };
    for (name, value) in [
        ("nonce", "n"),
        ("at_hash", "h"),
        ("c_hash", "h"),
        ("s_hash", "h"),
        ("typ", "ID"),
    ] {
        let claims = claims_with(json!({ name: value })).to_string();
        for typ in [Some("JWT"), None] {
            let mut header = P256.header();
            header["typ"] = json!(typ);
            if typ.is_none() {
                header.as_object_mut().unwrap().remove("typ");
            }
            let token = P256.sign_text(&header.to_string(), &claims);
            assert_eq!(code(&token), "token_is_id_token", "{name} {typ:?}");
            assert!(
                verify(&token, &allowing, &set, now()).is_ok(),
                "{name} {typ:?}"
            );
        }
    }
    // What says at+jwt is an access token, unless its issuer contradicts itself.
    assert_eq!(code_of_claims(json!({"nonce": "n"})), "ok");
    assert_eq!(code_of_claims(json!({"typ": "ID"})), "token_is_id_token");
}

#[test]
fn the_issuer_is_compared_byte_for_byte() {
    let set = keys(&[&P256]);
    for issuer in [
        "https://login.example/realms/a/",
        "https://login.example/realms/A",
        "https://login.example/realms/b",
        "http://login.example/realms/a",
        "https://login.example:443/realms/a",
        "https://login.example/realms/a#",
        "https://login.ex\u{430}mple/realms/a",
        "https://login.example/realms/\u{251}",
        "https://login\u{2024}example/realms/a",
        "https://login.example/realms/a\0",
        " https://login.example/realms/a",
        "",
    ] {
        let token = P256.token(&claims_with(json!({ "iss": issuer })));
        assert_eq!(
            verify(&token, &rules(), &set, now()),
            Err(TokenError::UnknownIssuer),
            "{issuer:?}"
        );
    }
    for issuer in [
        json!(null),
        json!(1),
        json!([ISSUER]),
        json!({}),
        json!(true),
    ] {
        assert_eq!(
            code_of_claims(json!({ "iss": issuer })),
            "issuer_missing",
            "{issuer}"
        );
    }
}

#[test]
fn the_audience_is_mandatory_and_one_of_ours() {
    for audience in [
        json!(AUDIENCE),
        json!([AUDIENCE]),
        json!(["x", AUDIENCE]),
        json!(["other"]),
    ] {
        assert_eq!(
            code_of_claims(json!({ "aud": audience })),
            "ok",
            "{audience}"
        );
    }
    assert_eq!(code_of_claims(json!({"aud": null})), "audience_missing");
    for audience in [
        json!(""),
        json!([]),
        json!("Countersign"),
        json!("countersign "),
        json!(["x", "countersignx"]),
    ] {
        assert_eq!(
            code_of_claims(json!({ "aud": audience })),
            "audience_wrong",
            "{audience}"
        );
    }
    for audience in [
        json!(1),
        json!({"countersign": true}),
        json!([[AUDIENCE]]),
        json!([AUDIENCE, 1]),
        json!(true),
    ] {
        assert_eq!(
            code_of_claims(json!({ "aud": audience })),
            "audience_invalid",
            "{audience}"
        );
    }
}

#[test]
fn times_are_numbers_inside_the_calendar() {
    // Written as text: these are not all numbers that serde_json would write.
    let cases = [
        ("exp", "1900000600", "ok"),
        ("exp", "1900000600.5", "ok"),
        ("exp", "1.9000006e9", "ok"),
        ("exp", "1899999971", "ok"),
        ("exp", "1899999970", "token_expired"),
        ("exp", "1899999970.9", "token_expired"),
        ("exp", "0", "token_expired"),
        ("exp", "0.5", "token_expired"),
        ("exp", "-0.0", "token_expired"),
        ("exp", "-1", "exp_invalid"),
        ("exp", "-0.5", "exp_invalid"),
        ("exp", "1e300", "exp_invalid"),
        ("exp", "9223372036854775807", "exp_invalid"),
        ("exp", "18446744073709551615", "exp_invalid"),
        ("exp", "99999999999999999999999", "exp_invalid"),
        ("exp", "1900000600000", "exp_invalid"),
        ("exp", "\"1900000600\"", "exp_invalid"),
        ("exp", "[1900000600]", "exp_invalid"),
        ("exp", "null", "exp_invalid"),
        ("exp", "true", "exp_invalid"),
        ("exp", "{}", "exp_invalid"),
        ("exp", "1e400", "token_not_json"),
        ("exp", "NaN", "token_not_json"),
        ("exp", "Infinity", "token_not_json"),
        ("exp", "0x7fffffff", "token_not_json"),
        ("exp", "01900000600", "token_not_json"),
        ("nbf", "1900000030", "ok"),
        ("nbf", "1900000029.5", "ok"),
        ("nbf", "1900000030.5", "token_not_yet_valid"),
        ("nbf", "1900000031", "token_not_yet_valid"),
        ("nbf", "-5", "nbf_invalid"),
        ("nbf", "\"0\"", "nbf_invalid"),
        ("nbf", "1e18", "nbf_invalid"),
        ("iat", "1900000030", "ok"),
        ("iat", "1900000031", "token_issued_in_future"),
        ("iat", "-5", "iat_invalid"),
        ("iat", "\"0\"", "iat_invalid"),
        ("iat", "null", "iat_invalid"),
    ];
    for (name, written, expected) in cases {
        let mut rest = claims();
        rest.as_object_mut().unwrap().remove(name);
        let text = rest
            .to_string()
            .replacen('{', &format!("{{\"{name}\":{written},"), 1);
        let token = P256.sign_text(&P256.header().to_string(), &text);
        assert_eq!(code(&token), expected, "{name}: {written}");
    }
    assert_eq!(code_of_claims(json!({"exp": null})), "exp_missing");
    assert_eq!(code_of_claims(json!({"nbf": null, "iat": null})), "ok");
}

#[test]
fn no_rule_grants_more_than_five_minutes_of_skew() {
    let careless = IssuerRules {
        clock_skew: Duration::MAX,
        ..rules()
    };
    let set = keys(&[&P256]);
    let expired = |ago: i64| P256.token(&claims_with(json!({"exp": NOW - ago})));
    assert!(verify(&expired(299), &careless, &set, now()).is_ok());
    assert_eq!(
        verify(&expired(300), &careless, &set, now()),
        Err(TokenError::Expired)
    );
}

#[test]
fn the_subject_is_mandatory_and_short() {
    assert_eq!(code_of_claims(json!({"sub": null})), "subject_missing");
    for subject in [
        json!("a"),
        json!("a".repeat(255)),
        json!("é|client credentials@x"),
    ] {
        assert_eq!(code_of_claims(json!({ "sub": subject })), "ok", "{subject}");
    }
    let bad = [
        json!(""),
        json!("a".repeat(256)),
        json!("é".repeat(128)),
        json!("a\nb"),
        json!("a\u{0}"),
        json!(1),
        json!([]),
    ];
    for subject in bad {
        assert_eq!(
            code_of_claims(json!({ "sub": subject })),
            "subject_invalid",
            "{subject}"
        );
    }
}

#[test]
fn groups_are_names_within_bounds_or_the_token_is_refused() {
    let many = |count: usize| (0..count).map(|i| format!("g{i}")).collect::<Vec<_>>();
    let good = [
        (json!("one"), vec!["one".to_owned()]),
        (json!(""), vec![]),
        (json!([]), vec![]),
        (
            json!(["a b", "c,d"]),
            vec!["a b".to_owned(), "c,d".to_owned()],
        ),
        (json!(many(512)), many(512)),
        (json!(["g".repeat(256)]), vec!["g".repeat(256)]),
    ];
    for (groups, expected) in good {
        let token = P256.token(&claims_with(json!({ "groups": groups })));
        assert_eq!(check(&token).unwrap().groups, expected);
    }
    let bad = [
        json!(1),
        json!({"a": true}),
        json!([1]),
        json!(["a", null]),
        json!([["a"]]),
        json!([""]),
        json!(many(513)),
        json!(["g".repeat(257)]),
    ];
    for groups in bad {
        assert_eq!(
            code_of_claims(json!({ "groups": groups })),
            "groups_invalid",
            "{groups}"
        );
    }
    let absent = P256.token(&claims_with(json!({"groups": null})));
    assert_eq!(check(&absent).unwrap().groups, Vec::<String>::new());
    let overage = json!({"groups": null, "_claim_names": {"groups": "src1"}});
    assert_eq!(code_of_claims(overage), "groups_elsewhere");
    assert_eq!(
        code_of_claims(json!({"groups": null, "_claim_names": {"other": "src1"}})),
        "ok"
    );
}

#[test]
fn claims_are_found_by_name_first_and_by_pointer_when_written_so() {
    let nested = claims_with(json!({
        "realm_access": {"roles": ["admin"]},
        "https://x.example/roles": ["url"],
        "a/b~c": ["odd"],
    }));
    let token = P256.token(&nested);
    for (name, expected) in [
        ("/realm_access/roles", vec!["admin"]),
        ("https://x.example/roles", vec!["url"]),
        ("/a~1b~0c", vec!["odd"]),
        ("/realm_access/none", vec![]),
        ("realm_access.roles", vec![]),
        ("/", vec![]),
    ] {
        let rules = IssuerRules {
            groups_claim: Some(name.to_owned()),
            ..rules()
        };
        assert_eq!(
            verify(&token, &rules, &keys(&[&P256]), now())
                .unwrap()
                .groups,
            expected,
            "{name}"
        );
    }
    let none = IssuerRules {
        groups_claim: None,
        ..rules()
    };
    assert_eq!(
        verify(&token, &none, &keys(&[&P256]), now())
            .unwrap()
            .groups,
        Vec::<String>::new()
    );
}
