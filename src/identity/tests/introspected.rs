//! What an issuer may say of an opaque token, and what follows from it.

use super::*;

const TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

/// An answer about a good token, with members set, or removed where the value is null.
fn answer(changes: Value) -> Vec<u8> {
    let mut answer = claims_with(json!({
        "active": true, "client_id": "app", "token_type": "Bearer", "scope": "chat",
    }));
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            answer.as_object_mut().unwrap().remove(name);
        } else {
            answer[name] = value.clone();
        }
    }
    answer.to_string().into_bytes()
}

fn holder(changes: Value) -> Result<Principal, &'static str> {
    let said = Introspected::parse(&answer(changes)).unwrap();
    said.verify(TOKEN, &rules(), now())
        .map_err(TokenError::code)
}

#[test]
fn an_active_token_names_its_holder_as_a_signed_one_would() {
    let asked = holder(json!({})).unwrap();
    let signed = check(&P256.token(&claims())).unwrap();
    assert_eq!(
        asked,
        Principal {
            auth_method: AuthMethod::OidcIntrospection,
            token_hash: token_hash(TOKEN),
            ..signed
        }
    );
    assert_eq!(asked.auth_method.name(), "oidc_introspection");
}

#[test]
fn what_is_said_of_the_token_is_held_to_the_same_rules() {
    for (changes, expected) in [
        (json!({"active": false}), "token_inactive"),
        (json!({"iss": null}), "ok"),
        (
            json!({"iss": "https://login.example/realms/b"}),
            "issuer_unknown",
        ),
        (json!({"iss": [ISSUER]}), "issuer_unknown"),
        (json!({"iss": 1}), "issuer_unknown"),
        (json!({"aud": null}), "audience_missing"),
        (json!({"aud": "app"}), "audience_wrong"),
        (json!({"aud": {}}), "audience_invalid"),
        (json!({"exp": null}), "exp_missing"),
        (json!({"exp": NOW - 31}), "token_expired"),
        (json!({"exp": (NOW + 600).to_string()}), "exp_invalid"),
        (json!({"nbf": NOW + 31}), "token_not_yet_valid"),
        (json!({"iat": NOW + 31}), "token_issued_in_future"),
        (json!({"iat": null, "nbf": null}), "ok"),
        (json!({"sub": ""}), "subject_invalid"),
        (json!({"sub": 7}), "subject_invalid"),
        (json!({"sub": null, "client_id": null}), "subject_missing"),
        (json!({"sub": null, "client_id": 7}), "subject_invalid"),
        (json!({"groups": {}}), "groups_invalid"),
        (json!({"token_type": null}), "ok"),
        (json!({"token_type": "bEARER"}), "ok"),
        (json!({"token_type": "DPoP"}), "token_wrong_type"),
        (json!({"token_type": "N_A"}), "token_wrong_type"),
        (json!({"token_type": 1}), "token_wrong_type"),
        (
            json!({"token_type": "DPoP", "cnf": {"x5t#S256": base64url([7; 32])}}),
            "token_wrong_type",
        ),
        (
            json!({"token_type": "DPoP", "cnf": {"jkt": base64url([7; 32])}}),
            "ok",
        ),
        (
            json!({"token_type": null, "cnf": {"jkt": base64url([7; 32])}}),
            "ok",
        ),
        (json!({"cnf": {"x5t#S256": base64url([7; 32])}}), "ok"),
        (json!({"cnf": {"jkt": "x"}}), "binding_unknown"),
        (json!({"cnf": {}}), "binding_unknown"),
        (json!({"token_use": "access_token"}), "ok"),
        (json!({"token_use": "refresh_token"}), "token_wrong_type"),
        (json!({"token_use": 1}), "token_wrong_type"),
        (json!({"typ": "Refresh"}), "token_wrong_type"),
        (json!({"events": {}}), "token_wrong_type"),
    ] {
        let told = changes.to_string();
        assert_eq!(
            holder(changes).map_or_else(|code| code, |_| "ok"),
            expected,
            "{told}"
        );
    }
    // `cnf: null` too: the helper takes null for "remove it".
    let text = String::from_utf8(answer(json!({}))).unwrap();
    let said = Introspected::parse(text.replacen('{', "{\"cnf\":null,", 1).as_bytes()).unwrap();
    assert_eq!(
        said.verify(TOKEN, &rules(), now()),
        Err(TokenError::BindingUnknown)
    );
}

#[test]
fn an_opaque_token_that_is_bound_makes_a_holder_who_is() {
    let digest = base64url([7; 32]);
    let key = json!({"token_type": "DPoP", "cnf": {"jkt": digest}});
    assert_eq!(holder(key).unwrap().bound.key, Some([7; 32]));
    let certificate = json!({"cnf": {"x5t#S256": digest}});
    let bound = holder(certificate).unwrap().bound;
    assert_eq!(bound.certificate, Some([7; 32]));
    assert!(!holder(json!({})).unwrap().bound.is_bound());
}

#[test]
fn a_client_that_calls_for_itself_is_its_own_subject() {
    assert_eq!(holder(json!({"sub": null})).unwrap().subject, "app");
    assert_eq!(holder(json!({})).unwrap().subject, "alice");
}

#[test]
fn nothing_follows_from_what_is_no_answer() {
    for text in [
        "",
        "<html><body>please log in</body></html>",
        "null",
        "true",
        "[]",
        "[{\"active\":true}]",
        "{}",
        "{\"active\":\"true\"}",
        "{\"active\":1}",
        "{\"active\":null}",
        "{\"Active\":true}",
        "{\"active\":true,\"active\":false}",
        "{\"active\":false,\"active\":true}",
        "{\"active\":true,\"sub\":\"a\",\"sub\":\"b\"}",
        "{\"active\":true}{\"active\":true}",
        "{\"active\":true",
        "\u{feff}{\"active\":true}",
        "active=true",
        "eyJhbGciOiJub25lIn0.eyJhY3RpdmUiOnRydWV9.",
        &format!(
            "{{\"active\":true,\"x\":{}{}}}",
            "[".repeat(16),
            "]".repeat(16)
        ),
    ] {
        assert_eq!(
            Introspected::parse(text.as_bytes()).unwrap_err(),
            NotAnIntrospection,
            "{text:.60}"
        );
    }
    assert!(Introspected::parse(b"{\"active\":\xff}").is_err());
    let shown = format!("{:?}", Introspected::parse(&answer(json!({}))).unwrap());
    assert!(!shown.contains("alice"), "{shown}");
}
