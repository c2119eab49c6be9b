use super::*;

#[test]
fn groups_are_the_names_in_the_claim() {
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
    let absent = P256.token(&claims_with(json!({"groups": null})));
    assert_eq!(check(&absent).unwrap().groups, Vec::<String>::new());
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
    let elsewhere = P256.token(&claims_with(json!({
        "groups": null,
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.example/x"}},
    })));
    for name in ["groups", "/groups", "/groups/all"] {
        let rules = IssuerRules {
            groups_claim: Some(name.to_owned()),
            ..rules()
        };
        let refused = verify(&elsewhere, &rules, &keys(&[&P256]), now());
        assert_eq!(refused.err(), Some(TokenError::GroupsElsewhere), "{name}");
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

#[test]
fn a_token_that_was_not_proved_is_not_shown() {
    let token = P256.token(&claims_with(json!({})));
    let shown = format!("{:?}", super::super::peek(&token).unwrap());
    assert!(
        token.split('.').all(|part| !shown.contains(part)),
        "{shown}"
    );
}
