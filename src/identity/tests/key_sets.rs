use super::*;

fn parse(keys: Value) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn with(signer: &Signer, changes: Value) -> Value {
    let mut jwk = signer.jwk();
    for (name, value) in changes.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

#[test]
fn a_document_that_shows_a_secret_is_refused_whole() {
    for (name, value) in [("d", "AA"), ("p", "AA"), ("k", "AA"), ("oth", "AA")] {
        let refused = parse(json!([P256.jwk(), with(&RSA, json!({ name: value }))]));
        assert_eq!(refused.unwrap_err(), KeySetError::PrivateKey, "{name}");
    }
    assert_eq!(
        parse(json!([P256.jwk(), {"kty": "oct"}])).unwrap_err(),
        KeySetError::PrivateKey
    );
}

#[test]
fn size_and_number_are_bounded() {
    let many = |count: usize| parse(json!(vec![ED.jwk(); count]));
    assert_eq!(many(MAX_JWKS_KEYS).unwrap().len(), 1, "one key, many times");
    assert_eq!(
        many(MAX_JWKS_KEYS + 1).unwrap_err(),
        KeySetError::TooManyKeys
    );
    assert_eq!(many(10_000).unwrap_err(), KeySetError::TooLarge);
    let tiny = parse(json!(vec![json!({}); 10_000]));
    assert_eq!(tiny.unwrap_err(), KeySetError::TooManyKeys);
    assert_eq!(
        KeySet::parse(&vec![b' '; MAX_JWKS_BYTES + 1]).unwrap_err(),
        KeySetError::TooLarge
    );
}

#[test]
fn what_is_no_key_set_is_refused() {
    let cases = [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ];
    for text in cases {
        assert_eq!(
            KeySet::parse(text.as_bytes()).unwrap_err(),
            KeySetError::NotJwks,
            "{text}"
        );
    }
    assert!(
        parse(json!([])).unwrap().is_empty(),
        "an issuer may say that no key is valid"
    );
}

#[test]
fn a_key_that_cannot_be_used_is_skipped_and_the_rest_stays() {
    let short = base64url([0xff; 128]);
    let off_curve = base64url([1; 32]);
    let cases = [
        with(&P256, json!({"kty": "XYZ"})),
        with(&P256, json!({"kty": 1})),
        with(&P256, json!({"crv": "secp256k1"})),
        with(&P256, json!({"crv": "P-384"})),
        with(&P256, json!({"x": off_curve})),
        with(&P256, json!({"x": "AA"})),
        with(&P256, json!({"x": "not base64!"})),
        with(&P256, json!({"use": "enc"})),
        with(&P256, json!({"use": 1})),
        with(&P256, json!({"key_ops": ["sign"]})),
        with(&P256, json!({"key_ops": []})),
        with(&P256, json!({"key_ops": "verify"})),
        with(&P256, json!({"use": "sig", "key_ops": ["encrypt"]})),
        with(&P256, json!({"alg": "ES384"})),
        with(&P256, json!({"alg": "HS256"})),
        with(&P256, json!({"alg": "none"})),
        with(&P256, json!({"alg": 1})),
        with(&P256, json!({"kid": 1})),
        with(&P256, json!({"kty": "RSA"})),
        with(&RSA, json!({"n": short})),
        with(&RSA, json!({"n": base64url([0xff; 1025])})),
        with(&RSA, json!({"n": base64url([0xfe; 256])})),
        with(&RSA, json!({"n": ""})),
        with(&RSA, json!({"e": "AQ"})),
        with(&RSA, json!({"e": "Aw"})),
        with(&RSA, json!({"e": "AQAA"})),
        with(&RSA, json!({"e": "AQAAAAE"})),
        with(&RSA, json!({"e": ""})),
        with(&ED, json!({"crv": "Ed448"})),
        with(&ED, json!({"crv": "X25519"})),
        with(&ED, json!({"x": base64url([1; 31])})),
    ];
    for jwk in cases {
        let set = parse(json!([jwk, ED.jwk()])).unwrap();
        assert_eq!((set.len(), set.skipped().len()), (1, 1), "{jwk}");
    }
    let fine = [
        with(
            &P256,
            json!({"use": "sig", "key_ops": ["verify"], "alg": "ES256"}),
        ),
        with(&P256, json!({"key_ops": ["sign", "verify"]})),
        with(
            &RSA,
            json!({"alg": "PS512", "x5c": ["MII..."], "x5t": "abc", "anything": {"else": 1}}),
        ),
    ];
    for jwk in fine {
        assert_eq!(parse(json!([jwk])).unwrap().len(), 1, "{jwk}");
    }
}

#[test]
fn a_set_keeps_another_when_no_key_of_it_is_gone_or_changed() {
    let both = keys(&[&P256, &ED]);
    assert!(keys(&[&P256]).is_kept_by(&both));
    assert!(!both.is_kept_by(&keys(&[&P256])));
    assert!(keys(&[&ED, &P256]).is_kept_by(&both));
    let renamed = parse(json!([with(&P256, json!({"kid": "new"})), ED.jwk()])).unwrap();
    assert!(!both.is_kept_by(&renamed));
    let narrowed = parse(json!([with(&P256, json!({"alg": "ES256"})), ED.jwk()])).unwrap();
    assert!(!both.is_kept_by(&narrowed));
}
