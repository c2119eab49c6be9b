use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{testing::*, *};

mod bound;
mod certificates;
mod claims;
mod corpus;
mod introspected;
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
                grant: None,
                bound: Bound::default(),
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
