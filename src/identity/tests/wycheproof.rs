//! Project Wycheproof (Apache-2.0, `tests/data/wycheproof/LICENSE`): JWS vectors, run on the signature step alone because
//! their payloads are no claims.

use std::collections::BTreeSet;

use super::*;

/// Published as valid and refused here, on purpose:
/// 346, 350: the key says it is for PS256 and the token is PS384 (RFC 7517, 4.4 lets an issuer say so, and we hold it
///   to that); 347, 351: ES512, which is not offered, by a key whose `alg` is the unregistered name `ES521`.
const DEVIATIONS: [u64; 4] = [346, 347, 350, 351];

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
fn every_asymmetric_signature_verdict_is_as_published_but_for_four() {
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
    assert_eq!(deviations, BTreeSet::from(DEVIATIONS));
    assert!(run > 350 && valid >= 30, "{run} {valid}");
}

#[test]
fn symmetric_groups_have_no_key_that_could_be_loaded() {
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
    assert!(run > 30, "{run}");
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
