//! The attack corpus of `tests/data/saml`: a real IdP's responses, and what attackers make of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;

use super::{testing::*, *};

#[derive(Deserialize)]
struct Corpus {
    now: i64,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    code: String,
    now: Option<i64>,
    subject: Option<String>,
    groups: Option<Vec<String>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saml")
}

fn corpus() -> Corpus {
    serde_json::from_slice(&std::fs::read(folder().join("cases.json")).unwrap()).unwrap()
}

fn document(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("cases/{name}.xml"))).unwrap()
}

fn provider() -> KeySet {
    let text = std::fs::read(folder().join("metadata.xml")).unwrap();
    metadata(&text, ENTITY, None).unwrap()
}

/// Runs the cases whose names `choose` wants, and says how many there were.
fn run(choose: impl Fn(&str) -> bool) -> usize {
    let (corpus, keys) = (corpus(), provider());
    let mut wrong = Vec::new();
    let chosen = corpus.cases.iter().filter(|(name, _)| choose(name));
    let count = chosen
        .map(|(name, case)| {
            let now = Timestamp::from_second(case.now.unwrap_or(corpus.now)).unwrap();
            let verified = verify(&document(name), &rules(), &keys, now);
            let code = verified
                .as_ref()
                .map_or_else(|error| error.code(), |_| "ok");
            if code != case.code {
                wrong.push(format!("{name}: {code}, not {}", case.code));
            }
            if let Ok(Verified { principal, .. }) = verified {
                assert_eq!(Some(&principal.subject), case.subject.as_ref(), "{name}");
                assert_eq!(Some(&principal.groups), case.groups.as_ref(), "{name}");
            }
        })
        .count();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    count
}

fn starts(prefixes: &[&str]) -> impl Fn(&str) -> bool {
    move |name| prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[test]
fn what_a_real_provider_signs_is_accepted_however_it_is_spelled() {
    assert!(run(starts(&["good-", "by-hand", "within-"])) >= 20);
}

#[test]
fn wrapped_signatures_xsw1_to_xsw8_are_refused() {
    for n in 1..=8 {
        assert_eq!(run(|name| name == format!("xsw{n}")), 1, "XSW{n}");
    }
    assert!(run(starts(&["xsw-", "two-good-", "signature-"])) >= 9);
}

#[test]
fn a_comment_in_the_name_does_not_shorten_it() {
    assert_eq!(run(|name| name == "comment-in-name-id"), 1);
    assert!(run(starts(&["comment-", "processing-", "cdata-", "element-"])) >= 8);
}

#[test]
fn an_unsigned_assertion_in_a_signed_response_is_refused() {
    assert_eq!(run(starts(&["unsigned"])), 2);
}

#[test]
fn weaker_algorithms_are_refused() {
    assert_eq!(run(starts(&["downgrade-"])), 6);
}

#[test]
fn entities_and_document_types_are_refused() {
    assert!(run(starts(&["entity-", "doctype"])) >= 9);
}

#[test]
fn keys_that_the_assertion_brings_along_are_not_looked_at() {
    assert_eq!(run(starts(&["other-key"])), 5);
}

#[test]
fn transforms_canonicalizations_and_references_of_other_kinds_are_refused() {
    assert!(run(starts(&["transforms-", "canonicalization-", "reference-"])) >= 17);
}

#[test]
fn every_case_of_the_corpus_leads_to_what_it_says() {
    assert_eq!(run(|_| true), corpus().cases.len());
    assert!(corpus().cases.len() >= 120);
    let files: BTreeSet<String> = std::fs::read_dir(folder().join("cases"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let named: BTreeSet<String> = corpus()
        .cases
        .keys()
        .map(|name| format!("{name}.xml"))
        .collect();
    assert_eq!(files, named);
}

/// Whatever a single changed byte does, it gives nobody another name: what still passes is what was signed.
#[test]
fn no_changed_byte_changes_the_caller() {
    let (keys, good) = (provider(), document("good-assertion-alone"));
    let now = Timestamp::from_second(corpus().now).unwrap();
    let before = verify(&good, &rules(), &keys, now).unwrap();
    let mut passed = 0;
    for at in 0..good.len() {
        for to in [b'x', b'<', b' ', b'"'] {
            let mut changed = good.clone();
            changed[at] = to;
            if let Ok(mut after) = verify(&changed, &rules(), &keys, now) {
                after.principal.token_hash = before.principal.token_hash;
                assert_eq!(after, before, "byte {at}");
                passed += 1;
            }
        }
    }
    // Bytes of the `KeyInfo`, spaces between attributes.
    assert!(passed > 0);
}

#[test]
fn hostile_documents_of_the_largest_size_are_refused_at_once() {
    let fill = |piece: &str| piece.repeat(MAX_ASSERTION_BYTES / piece.len());
    let cases = [
        (fill("<a>"), SamlError::TooDeep),
        (fill("<a xmlns='x'>"), SamlError::TooDeep),
        (format!("<a>{}", fill("<b/>")), SamlError::TooLarge),
        (
            format!("<a>{}", fill("<b/>").split_off(64)),
            SamlError::TooComplex,
        ),
        (fill("<a ").split_off(0), SamlError::NotXml),
        (
            format!("<a {}", fill("b='' ").split_off(64)),
            SamlError::TooComplex,
        ),
        (fill("&#0;"), SamlError::NotXml),
        (fill("<!--"), SamlError::Comment),
        (fill("'"), SamlError::NotXml),
    ];
    for (document, expected) in cases {
        let start = &document[..20];
        assert_eq!(read(document.as_bytes()).err(), Some(expected), "{start}");
    }
}

/// An operator who pins a certificate reads nothing that its key has not signed.
#[test]
fn metadata_is_that_of_the_entity_and_signed_by_the_pinned_key() {
    let text = std::fs::read_to_string(folder().join("metadata.xml")).unwrap();
    let read = |text: &str| metadata(text.as_bytes(), ENTITY, None).map(|keys| keys.len());
    assert_eq!(read(&text), Ok(1));
    assert_eq!(
        read(&text.replace(
            "<ns0:IDPSSODescriptor",
            "<!-- ours --><ns0:IDPSSODescriptor"
        )),
        Ok(1)
    );
    let until = text.replacen(
        " entityID=",
        " validUntil=\"2030-03-17T17:46:40Z\" entityID=",
        1,
    );
    let keys = metadata(until.as_bytes(), ENTITY, None).unwrap();
    let now = Timestamp::from_second(corpus().now).unwrap();
    assert_eq!(keys.valid_until(), Some(now));
    let good = document("good-response");
    assert_eq!(
        verify(&good, &rules(), &keys, now),
        Err(SamlError::MetadataExpired)
    );

    let other = metadata(text.as_bytes(), "https://idp.example/other", None);
    assert_eq!(other.err(), Some(MetadataError::WrongEntity));
    let certificate = text
        .split_once("Certificate>")
        .unwrap()
        .1
        .split_once('<')
        .unwrap()
        .0;
    for (changed, expected) in [
        (
            text.replace("IDPSSODescriptor", "SPSSODescriptor"),
            MetadataError::NotProvider,
        ),
        (
            text.replace("SAML:2.0:protocol", "SAML:1.1:protocol"),
            MetadataError::NotProvider,
        ),
        (
            text.replace("EntityDescriptor", "EntitiesDescriptor"),
            MetadataError::NotProvider,
        ),
        (
            text.replace("use=\"signing\"", "use=\"encryption\""),
            MetadataError::Certificates,
        ),
        (
            text.replace(certificate, &certificate[40..]),
            MetadataError::Certificates,
        ),
        (
            text.replace(certificate, "MAA="),
            MetadataError::Certificates,
        ),
        (text.replace(certificate, ""), MetadataError::Certificates),
        (
            until.replace("17:46:40Z", "noon"),
            MetadataError::ValidUntil,
        ),
        (
            format!("<!DOCTYPE x>{text}"),
            MetadataError::Xml(SamlError::Doctype),
        ),
    ] {
        assert_ne!(changed, text);
        assert_eq!(read(&changed), Err(expected));
    }
}

#[test]
fn certificates_in_pem_give_their_keys() {
    let text = std::fs::read_to_string(folder().join("metadata.xml")).unwrap();
    let certificate = text
        .split_once("Certificate>")
        .unwrap()
        .1
        .split_once('<')
        .unwrap()
        .0;
    let pem = format!(
        "a remark\n-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n"
    );
    let keys = certificates(&pem).unwrap();
    let now = Timestamp::from_second(corpus().now).unwrap();
    assert!(verify(&document("good-response"), &rules(), &keys, now).is_ok());
    assert_eq!(certificates(&pem.repeat(8)).unwrap().len(), 1);
    for bad in [
        "",
        "-----BEGIN CERTIFICATE-----",
        &pem.repeat(9),
        &pem.replace("MI", "M!"),
    ] {
        assert_eq!(
            certificates(bad).err(),
            Some(MetadataError::Certificates),
            "{bad}"
        );
    }
}
