//! Project Wycheproof (Apache-2.0, `tests/data/wycheproof/LICENSE`): JWS vectors, run on the signature step alone because
//! their payloads are no claims.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;

use super::*;

/// Published as valid and refused here, whatever the key: a question mark stands inside a segment of base64url. RFC 7515 has no
/// such letter, and a reader that drops it gives one token many spellings, so that a list of revoked ones has holes.
const STRAY_LETTERS: [u64; 2] = [372, 373];

/// Published as valid and refused here because the key says otherwise. No verifier can have all of the published verdicts:
///
/// - 346, 350: the key says `PS256` and the token PS384. The same file publishes 338 and 340 as invalid because the key says
///   `PS512` and the token PS256 and PS384 ([`OTHER_ALGORITHM`]). RFC 7517, 4.4 lets an issuer say what a key is for, and it is
///   held to that in all of them.
/// - 347, 351: the key says `ES521`, which no registry has (the token says ES512, which is not offered). A name that is not known
///   is not guessed at: an issuer's key for something else would count.
const KEY_SAYS_OTHERWISE: [u64; 4] = [346, 347, 350, 351];

/// Published as invalid for the padding in them, which the file has lost: what is left is, byte for byte, 357, published as valid.
const PADDING_LOST: [u64; 2] = [367, 370];

/// What of [`KEY_SAYS_OTHERWISE`] stands against: an RSA key that names one algorithm, a token that names another.
const OTHER_ALGORITHM: [u64; 5] = [332, 334, 336, 338, 340];

fn accepts(jws: &str, keys: &KeySet) -> bool {
    jws::Compact::parse(jws).is_ok_and(|compact| compact.verify(&Algorithm::ALL, keys).is_ok())
}

fn groups(file: &str) -> Vec<Value> {
    let path = format!(
        "{}/tests/data/wycheproof/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["testGroups"]
        .as_array_mut()
        .unwrap()
        .drain(..)
        .collect()
}

#[test]
fn every_asymmetric_signature_verdict_is_as_published_but_where_the_key_says_otherwise() {
    let (mut valid, mut run, mut deviations) = (0, 0, BTreeSet::new());
    for group in groups("json_web_signature_test.json") {
        let Some(key) = group.get("public") else {
            continue;
        };
        let keys = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            let published = test["result"] == "valid";
            let accepted = accepts(test["jws"].as_str().unwrap(), &keys);
            run += 1;
            valid += u32::from(accepted);
            if accepted != published {
                assert!(!accepted, "case {id} is invalid and was accepted");
                deviations.insert(id);
            }
        }
    }
    assert_eq!(deviations, BTreeSet::from(KEY_SAYS_OTHERWISE));
    assert_eq!((run, valid), (361, 32));
}

#[test]
fn a_rule_that_took_346_and_350_would_take_what_is_published_as_invalid() {
    let mut seen = BTreeSet::new();
    for group in groups("json_web_signature_test.json") {
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            let (published, token) = (&test["result"], test["jws"].as_str().unwrap());
            let mut refused = |expected: TokenError| {
                let set = json!({"keys": [group["public"]]}).to_string();
                let keys = KeySet::parse(set.as_bytes()).unwrap();
                let compact = jws::Compact::parse(token).unwrap();
                assert_eq!(
                    compact.verify(&Algorithm::ALL, &keys),
                    Err(expected),
                    "case {id}"
                );
                seen.insert(id);
            };
            match id {
                346 | 350 => {
                    assert_eq!(published, "valid");
                    refused(TokenError::KeyMismatch);
                }
                347 | 351 => {
                    assert_eq!(
                        (published, &group["public"]["alg"]),
                        (&json!("valid"), &json!("ES521"))
                    );
                    refused(TokenError::AlgorithmRefused);
                }
                id if OTHER_ALGORITHM.contains(&id) => {
                    assert_eq!(
                        (published, &group["public"]["alg"]),
                        (&json!("invalid"), &json!("PS512"))
                    );
                    refused(TokenError::KeyMismatch);
                }
                _ => {}
            }
        }
    }
    assert_eq!(seen.len(), KEY_SAYS_OTHERWISE.len() + OTHER_ALGORITHM.len());
}

#[test]
fn a_symmetric_key_is_refused_with_its_set_and_its_tokens_whatever_the_key() {
    let mut run = 0;
    for group in groups("json_web_signature_test.json") {
        if group.get("public").is_some() {
            continue;
        }
        let set = KeySet::parse(json!({"keys": [group["private"]]}).to_string().as_bytes());
        assert_eq!(set.unwrap_err(), KeySetError::PrivateKey);
        for test in group["tests"].as_array().unwrap() {
            assert!(!accepts(test["jws"].as_str().unwrap(), &KeySet::default()));
            run += 1;
        }
    }
    assert_eq!(run, 40);
}

/// No symmetric algorithm is ours, but what takes a token apart is: with an HMAC of the test's own in the place of the keys.
#[test]
fn every_symmetric_verdict_of_the_form_is_as_published_but_for_stray_letters() {
    let (mut valid, mut deviations, mut twin) = (0, BTreeSet::new(), String::new());
    for group in groups("json_web_signature_test.json") {
        if group.get("public").is_some() {
            continue;
        }
        let secret = jws::decode(group["private"]["k"].as_str().unwrap()).unwrap();
        let declared = group["private"]["alg"].as_str();
        for test in group["tests"].as_array().unwrap() {
            let (id, token) = (
                test["tcId"].as_u64().unwrap(),
                test["jws"].as_str().unwrap(),
            );
            let accepted = jws::Compact::parse(token).is_ok() && keyed(token, declared, &secret);
            valid += u32::from(accepted);
            if id == 357 {
                token.clone_into(&mut twin);
            }
            if accepted != (test["result"] == "valid") {
                let lost = PADDING_LOST.contains(&id) && token == twin;
                assert!(!accepted || lost, "case {id} is invalid and was accepted");
                deviations.insert(id);
            }
        }
    }
    let expected = STRAY_LETTERS.into_iter().chain(PADDING_LOST);
    assert_eq!(deviations, expected.collect());
    assert_eq!(valid, 10);
}

/// Whether the token's tag is that of `secret` under the algorithm that its header and the key agree on.
fn keyed(token: &str, declared: Option<&str>, secret: &[u8]) -> bool {
    let (input, tag) = token.rsplit_once('.').unwrap();
    let head = json::object(&jws::decode(input.split('.').next().unwrap()).unwrap()).unwrap();
    let named = head["alg"].as_str().unwrap();
    let algorithm = match named {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return false,
    };
    let key = hmac::Key::new(algorithm, secret);
    declared.is_none_or(|declared| declared == named)
        && hmac::verify(&key, input.as_bytes(), &jws::decode(tag).unwrap()).is_ok()
}

#[test]
fn every_asymmetric_key_verdict_is_as_published() {
    let mut run = 0;
    for group in groups("json_web_key_test.json") {
        let Some(document) = group.get("public") else {
            continue;
        };
        let keys = KeySet::parse(document.to_string().as_bytes()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let accepted = accepts(test["jws"].as_str().unwrap(), &keys);
            assert_eq!(accepted, test["result"] == "valid", "case {}", test["tcId"]);
            run += 1;
        }
    }
    assert!(run > 8, "{run}");
}
