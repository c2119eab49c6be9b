//! Who else a caller is, and when they proved it.

use super::*;

fn naming() -> IssuerRules {
    IssuerRules {
        person_claim: Some("email".to_owned()),
        owner_claim: Some("/ext/owner".to_owned()),
        ..rules()
    }
}

/// The further names of the caller whose token has these claims beside the usual; or the code it is refused with.
fn also(changes: Value) -> Result<Vec<String>, &'static str> {
    let token = P256.token(&claims_with(changes));
    let principal = verify(&token, &naming(), &keys(&[&P256]), now()).map_err(TokenError::code)?;
    Ok(principal.also.into_iter().collect())
}

fn actor(depth: usize) -> Value {
    match depth {
        0 => json!({"sub": "last"}),
        _ => json!({"sub": format!("actor {depth}"), "act": actor(depth - 1)}),
    }
}

#[test]
fn a_person_is_named_by_the_claims_the_operator_chose_whatever_the_spelling() {
    for (email, owner, expected) in [
        (
            json!("alice@example.com"),
            json!(null),
            vec!["person:alice@example.com"],
        ),
        (
            json!(" Alice@EXAMPLE.com"),
            json!(null),
            vec!["person:alice@example.com"],
        ),
        (
            json!("Jose\u{301} M\u{fc}ller"),
            json!("jos\u{e9} \u{ff2d}u\u{308}\u{200b}LLER\u{a0}"),
            vec!["person:jos\u{e9} m\u{fc}ller"],
        ),
        (json!(4711), json!("\u{feff}4711"), vec!["person:4711"]),
        (
            json!(["a@x", "B@x"]),
            json!("c@x"),
            vec!["person:a@x", "person:b@x", "person:c@x"],
        ),
        (json!([]), json!(null), vec![]),
        (
            json!("x".repeat(256)),
            json!(null),
            vec![&*format!("person:{}", "x".repeat(256))],
        ),
    ] {
        let mut changes = json!({ "email": email });
        if !owner.is_null() {
            changes["ext"] = json!({ "owner": owner });
        }
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(also(changes), Ok(expected));
    }
    // Absent it names nobody, and a claim nobody chose names nobody either.
    assert_eq!(also(json!({"email": null})), Ok(vec![]));
    assert_eq!(check(&P256.token(&claims())).unwrap().also.len(), 0);
}

#[test]
fn whoever_acts_is_known_by_their_account() {
    let there = "https://other.example";
    let cases = [
        (json!({"sub": "robot"}), vec![account(ISSUER, "robot")]),
        (
            json!({"sub": "robot", "iss": there}),
            vec![account(there, "robot")],
        ),
        (
            json!({"sub": "robot", "client_id": "c", "act": {"sub": "bob", "iss": there}}),
            vec![account(ISSUER, "robot"), account(there, "bob")],
        ),
        // One that says its issuer does not say it for the next.
        (
            json!({"sub": "robot", "iss": there, "act": {"sub": "bob"}}),
            vec![account(ISSUER, "bob"), account(there, "robot")],
        ),
    ];
    for (act, expected) in cases {
        assert_eq!(
            also(json!({"email": null, "act": act})),
            Ok(expected),
            "{act}"
        );
    }
    let principal = check(&P256.token(&claims_with(json!({"act": actor(7)})))).unwrap();
    assert_eq!(principal.also.len(), 8);
    assert_eq!(principal.subject, "alice", "an actor is not the caller");
}

#[test]
fn when_the_caller_signed_in_is_told_as_the_issuer_tells_it() {
    let second = |second| Some(Timestamp::from_second(second).unwrap());
    for (auth_time, expected) in [
        (json!(NOW - 60), second(NOW - 60)),
        (json!(NOW as f64 - 0.5), second(NOW - 1)),
        (json!(0), second(0)),
        (json!(NOW + 9999), second(NOW + 9999)),
        (json!(null), None),
    ] {
        let token = P256.token(&claims_with(json!({ "auth_time": auth_time })));
        assert_eq!(
            check(&token).unwrap().authenticated_at,
            expected,
            "{auth_time}"
        );
    }
    let token = P256.token(&claims_with(json!({"iat": NOW - 5})));
    assert_eq!(check(&token).unwrap().issued_at, second(NOW - 5));
    let token = P256.token(&claims_with(json!({"iat": null})));
    assert_eq!(check(&token).unwrap().issued_at, None);
}

#[test]
fn a_token_that_names_nobody_where_its_issuer_names_people_says_so() {
    let missing = |changes: Value, rules: &IssuerRules| {
        let token = P256.token(&claims_with(changes));
        let principal = verify(&token, rules, &keys(&[&P256]), now()).unwrap();
        principal.person_missing
    };
    assert!(missing(json!({"email": null}), &naming()));
    // An actor is no name for who is behind the account.
    assert!(missing(
        json!({"email": null, "act": {"sub": "robot"}}),
        &naming()
    ));
    assert!(missing(json!({"email": []}), &naming()));
    assert!(!missing(json!({"email": "a@x"}), &naming()));
    assert!(!missing(
        json!({"email": null, "ext": {"owner": "a@x"}}),
        &naming()
    ));
    assert!(
        !missing(json!({"email": null}), &rules()),
        "nobody is asked for"
    );
}
