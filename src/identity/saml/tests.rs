use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{testing::*, *};
use crate::identity::testing::{ED, P256, P384, PSS, RSA, RSA_OTHER, keys, now};

fn check(document: &str) -> Result<Verified, SamlError> {
    verify(document.as_bytes(), &rules(), &keys(&[&RSA]), now())
}

fn code(document: &str) -> &'static str {
    check(document).map_or_else(SamlError::code, |_| "ok")
}

fn response(children: &str) -> String {
    format!(
        r#"<samlp:Response xmlns:samlp="{PROTOCOL}" ID="_r1" Version="2.0">{children}</samlp:Response>"#
    )
}

#[test]
fn a_good_assertion_becomes_the_caller_it_names() {
    let document = signed(&assertion(), &RSA);
    let verified = check(&document).unwrap();
    assert_eq!(
        verified,
        Verified {
            principal: Principal {
                issuer: ENTITY.to_owned(),
                subject: "alice".to_owned(),
                audiences: Vec::new(),
                groups: vec!["staff".to_owned(), "ml".to_owned()],
                claims: [("department".to_owned(), json!(["research"]))].into(),
                auth_method: AuthMethod::Saml,
                token_hash: Sha256::digest(&document).into(),
                expires_at: "2030-03-17T17:51:40Z".parse().unwrap(),
                authenticated_at: Some("2030-03-17T17:40:00Z".parse().unwrap()),
                issued_at: Some("2030-03-17T17:46:30Z".parse().unwrap()),
                also: BTreeSet::new(),
                person_missing: false,
                grant: None,
                bound: crate::identity::Bound::default(),
            },
            id: ID.to_owned(),
            claim_until: "2030-03-17T17:52:10Z".parse().unwrap(),
        }
    );
    assert_eq!(verified.principal.auth_method.name(), "saml");
    let around = response(&document);
    assert_eq!(check(&around).unwrap().principal.subject, "alice");
    let read = read(document.as_bytes()).unwrap();
    assert_eq!(read.issuer(), ENTITY);
    let shown = format!("{read:?}");
    assert!(
        !shown.contains("alice") && !shown.contains("staff"),
        "{shown}"
    );
}

#[test]
fn every_listed_method_is_verified_with_a_key_of_its_own_kind() {
    let more = "http://www.w3.org/2001/04/xmldsig-more#";
    let mgf1 = "http://www.w3.org/2007/05/xmldsig-more#sha512-rsa-MGF1";
    let (es256, es384) = (format!("{more}ecdsa-sha256"), format!("{more}ecdsa-sha384"));
    let all = keys(&[&ED, &RSA_OTHER, &P384, &P256, &RSA]);
    for (signer, method) in [
        (&RSA, RSA_SHA256),
        (&PSS, mgf1),
        (&P256, &es256),
        (&P384, &es384),
    ] {
        let document = signed_with(&assertion(), signer, method, |info| info);
        let verified = verify(document.as_bytes(), &rules(), &all, now());
        assert_eq!(verified.unwrap().id, ID, "{method}");
        let other = verify(
            document.as_bytes(),
            &rules(),
            &keys(&[&ED, &RSA_OTHER]),
            now(),
        );
        assert_eq!(other, Err(SamlError::BadSignature), "{method}");
    }
    // Named for one kind, made by another.
    let document = signed_with(&assertion(), &P256, RSA_SHA256, |info| info);
    let verified = verify(document.as_bytes(), &rules(), &all, now());
    assert_eq!(verified, Err(SamlError::BadSignature));
}

#[test]
fn what_an_assertion_says_is_held_against_the_rules() {
    let data = r#"<saml:SubjectConfirmationData NotOnOrAfter="2030-03-17T17:51:40Z""#;
    let bearer = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
    let format = r#" Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent""#;
    let restriction = format!(
        "<saml:AudienceRestriction><saml:Audience>{AUDIENCE}</saml:Audience></saml:AudienceRestriction>"
    );
    let other = restriction.replace(AUDIENCE, "https://other.example");
    let long = "x".repeat(256);
    let name = |name: &str| format!(">{name}</saml:NameID>");
    let alice = name("alice");
    let value = |value: &str| format!("<saml:AttributeValue>{value}</saml:AttributeValue>");
    let ml = value("ml");
    let cases: Vec<(&str, String, &str)> = vec![
        // the frame
        (r#" Version="2.0""#, String::new(), "saml_invalid"),
        (
            r#" Version="2.0""#,
            r#" Version="1.1""#.to_owned(),
            "saml_invalid",
        ),
        (
            r#" IssueInstant="2030-03-17T17:46:30Z""#,
            String::new(),
            "saml_invalid",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-03-17T17:47:10Z""#.to_owned(),
            "ok",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-03-17T17:47:11Z""#.to_owned(),
            "saml_issued_in_future",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-03-17T19:46:30+02:00""#.to_owned(),
            "saml_time_invalid",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-02-30T17:46:30Z""#.to_owned(),
            "saml_time_invalid",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-03-17T17:46:30.123456789Z""#.to_owned(),
            "ok",
        ),
        (
            r#"IssueInstant="2030-03-17T17:46:30Z""#,
            r#"IssueInstant="2030-03-17T17:46:30.Z""#.to_owned(),
            "saml_time_invalid",
        ),
        (
            "<saml:Issuer>",
            r#"<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">"#.to_owned(),
            "ok",
        ),
        (
            "<saml:Issuer>",
            r#"<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">"#
                .to_owned(),
            "saml_invalid",
        ),
        (
            ENTITY,
            "https://other.example".to_owned(),
            "saml_issuer_unknown",
        ),
        (ENTITY, format!(" {ENTITY}"), "saml_issuer_unknown"),
        (
            "<saml:Subject>",
            "<saml:AuthzDecisionStatement/><saml:Subject>".to_owned(),
            "saml_not_understood",
        ),
        (
            "<saml:Subject>",
            "<x/><saml:Subject>".to_owned(),
            "saml_not_understood",
        ),
        (
            "<saml:Subject>",
            "<saml:Advice><x/></saml:Advice><saml:Subject>".to_owned(),
            "ok",
        ),
        // the subject
        (&alice, name(""), "saml_subject_invalid"),
        (&alice, name(" alice"), "saml_subject_invalid"),
        (&alice, name("alice\n"), "saml_subject_invalid"),
        (&alice, name("al&#x85;ice"), "saml_subject_invalid"),
        (&alice, name("<b>alice</b>"), "saml_subject_invalid"),
        (&alice, name("alice<b/>"), "saml_subject_invalid"),
        (&alice, name(&long), "saml_subject_invalid"),
        (&alice, name("al&amp;ice"), "ok"),
        (format, String::new(), "saml_name_format_refused"),
        (
            format,
            format.replace("persistent", "transient"),
            "saml_name_format_refused",
        ),
        (
            format,
            format!(r#"{format} NameQualifier="{ENTITY}" SPNameQualifier="{AUDIENCE}""#),
            "ok",
        ),
        (
            format,
            format!(r#"{format} NameQualifier="https://other.example""#),
            "saml_subject_invalid",
        ),
        (
            format,
            format!(r#"{format} SPNameQualifier="https://other.example""#),
            "saml_subject_invalid",
        ),
        (
            "<saml:NameID",
            "<saml:NameID/><saml:NameID".to_owned(),
            "saml_invalid",
        ),
        (
            "<saml:NameID",
            "<saml:EncryptedID/><saml:NameID".to_owned(),
            "saml_encrypted",
        ),
        (
            "<saml:Subject>",
            "<saml:Subject/><saml:Subject>".to_owned(),
            "saml_invalid",
        ),
        // the confirmation
        (
            bearer,
            bearer.replace("bearer", "holder-of-key"),
            "saml_not_bearer",
        ),
        (
            RECIPIENT,
            "https://gateway.example/oauth2/token/".to_owned(),
            "saml_recipient_wrong",
        ),
        (RECIPIENT, String::new(), "saml_recipient_wrong"),
        (
            data,
            format!(r#"{data} InResponseTo="_q""#),
            "saml_solicited",
        ),
        (
            data,
            "<saml:SubjectConfirmationData".to_owned(),
            "saml_expiry_missing",
        ),
        (data, data.replace("51:40", "46:11"), "ok"),
        (data, data.replace("51:40", "46:10"), "saml_expired"),
        (
            data,
            format!(r#"{data} NotBefore="2030-03-17T17:47:10Z""#),
            "ok",
        ),
        (
            data,
            format!(r#"{data} NotBefore="2030-03-17T17:47:11Z""#),
            "saml_not_yet_valid",
        ),
        (
            data,
            data.replace("2030-03-17T17:51:40Z", "soon"),
            "saml_time_invalid",
        ),
        // the conditions
        (&restriction, String::new(), "saml_audience_missing"),
        (
            &restriction,
            "<saml:AudienceRestriction/>".to_owned(),
            "saml_audience_wrong",
        ),
        (&restriction, other.clone(), "saml_audience_wrong"),
        (
            &restriction,
            format!("{restriction}{other}"),
            "saml_audience_wrong",
        ),
        (
            &restriction,
            format!("{restriction}<saml:OneTimeUse/>"),
            "ok",
        ),
        (
            &restriction,
            format!("{restriction}<saml:ProxyRestriction/>"),
            "saml_not_understood",
        ),
        (
            &restriction,
            format!("{restriction}<x/>"),
            "saml_not_understood",
        ),
        (
            r#"NotBefore="2030-03-17T17:46:30Z""#,
            r#"NotBefore="2030-03-17T17:47:11Z""#.to_owned(),
            "saml_not_yet_valid",
        ),
        (
            r#"NotOnOrAfter="2030-03-17T17:56:40Z""#,
            r#"NotOnOrAfter="2030-03-17T17:46:10Z""#.to_owned(),
            "saml_expired",
        ),
        (
            r#"NotOnOrAfter="2030-03-17T17:56:40Z""#,
            String::new(),
            "ok",
        ),
        // the sign-in
        (
            " AuthnInstant",
            r#" SessionNotOnOrAfter="2030-03-17T17:46:10Z" AuthnInstant"#.to_owned(),
            "saml_expired",
        ),
        (
            r#" AuthnInstant="2030-03-17T17:40:00Z""#,
            String::new(),
            "saml_authn_invalid",
        ),
        (
            "<saml:AuthnStatement",
            r#"<saml:AuthnStatement AuthnInstant="2030-03-17T17:40:00Z"/><saml:AuthnStatement"#
                .to_owned(),
            "saml_authn_invalid",
        ),
        // the attributes
        (&ml, value(""), "saml_groups_invalid"),
        (&ml, value("a&#10;b"), "saml_groups_invalid"),
        (&ml, value(&long), "ok"),
        (&ml, value(&format!("{long}x")), "saml_groups_invalid"),
        (&ml, value("x").repeat(511), "ok"),
        (&ml, value("x").repeat(512), "saml_groups_invalid"),
        (&ml, value("<b/>"), "saml_attributes_invalid"),
        (&ml, format!("{ml}<x/>"), "saml_attributes_invalid"),
        (
            r#"Name="department""#,
            r#"Name="groups""#.to_owned(),
            "saml_attributes_invalid",
        ),
        (r#" Name="mail""#, String::new(), "saml_attributes_invalid"),
        (
            r#"<saml:Attribute Name="mail""#,
            r#"<saml:Attribute Name="x"/>"#.repeat(254) + r#"<saml:Attribute Name="mail""#,
            "saml_attributes_invalid",
        ),
        (
            r#"<saml:Attribute Name="mail""#,
            r#"<saml:Attribute Name="x"/>"#.repeat(253) + r#"<saml:Attribute Name="mail""#,
            "ok",
        ),
        (
            r#"<saml:Attribute Name="mail""#,
            r#"<saml:EncryptedAttribute/><saml:Attribute Name="mail""#.to_owned(),
            "saml_encrypted",
        ),
    ];
    for (from, to, expected) in cases {
        let changed = assertion().replacen(from, &to, 1);
        assert_ne!(changed, assertion(), "`{from}` is not there");
        let document = signed(&changed, &RSA);
        assert_eq!(
            code(&document),
            expected,
            "{from} -> {}",
            &to[..to.len().min(200)]
        );
    }
}

#[test]
fn an_assertion_that_outlives_its_claim_is_refused() {
    let until = |instant: &str| {
        let text = assertion().replace("2030-03-17T17:51:40Z", instant);
        signed(
            &text.replace(r#" NotOnOrAfter="2030-03-17T17:56:40Z""#, ""),
            &RSA,
        )
    };
    let document = until("2030-03-17T21:47:10Z");
    assert_eq!(
        check(&document).unwrap().claim_until,
        "2030-03-17T21:47:40Z".parse().unwrap()
    );
    assert_eq!(code(&until("2030-03-17T21:47:11Z")), "saml_lives_too_long");
    assert_eq!(code(&until("2099-12-31T23:59:59Z")), "saml_lives_too_long");
}

#[test]
fn one_good_confirmation_among_others_suffices() {
    let good = r#"<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">"#;
    let bad = format!(
        r#"{good}<saml:SubjectConfirmationData Recipient="https://other.example"/></saml:SubjectConfirmation>"#
    );
    let document = assertion().replacen(good, &format!("{bad}{good}"), 1);
    assert_eq!(code(&signed(&document, &RSA)), "ok");
}

#[test]
fn the_person_behind_the_account_is_the_attribute_that_the_operator_chose() {
    let rules = |name: &str| Rules {
        person_attribute: Some(name.to_owned()),
        ..rules()
    };
    let check = |name: &str, text: &str| {
        let document = signed(text, &RSA);
        verify(document.as_bytes(), &rules(name), &keys(&[&RSA]), now())
            .map(|verified| (verified.principal.also, verified.principal.person_missing))
    };
    let mail: BTreeSet<_> = ["person:alice@example.com".to_owned()].into();
    assert_eq!(check("mail", &assertion()), Ok((mail, false)));
    assert_eq!(check("employee", &assertion()), Ok((BTreeSet::new(), true)));
    let blank = assertion().replace("Alice@Example.com", " ");
    assert_eq!(check("mail", &blank), Err(SamlError::PersonInvalid));
}

#[test]
fn a_signature_must_be_of_the_one_kind_that_is_accepted() {
    let cases: Vec<(String, String, &str)> = [
        // what is signed
        ("URI=\"#_a1\"", "URI=\"\"", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "URI=\"#_r1\"", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "URI=\"_a1\"", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "URI=\"#xpointer(id('_a1'))\"", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "URI=\"http://127.0.0.1:9/#_a1\"", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "", "saml_wrong_reference"),
        ("URI=\"#_a1\"", "URI=\"#_a1\" Type=\"http://www.w3.org/2000/09/xmldsig#Object\"", "saml_wrong_reference"),
        ("</ds:Reference>", "</ds:Reference><ds:Reference URI=\"#_a1\"></ds:Reference>", "saml_several_references"),
        // with which methods
        ("2001/04/xmldsig-more#rsa-sha256", "2000/09/xmldsig#rsa-sha1", "saml_algorithm_refused"),
        ("2001/04/xmldsig-more#rsa-sha256", "2001/04/xmldsig-more#rsa-md5", "saml_algorithm_refused"),
        ("2001/04/xmldsig-more#rsa-sha256", "2001/04/xmldsig-more#hmac-sha256", "saml_algorithm_refused"),
        ("2001/04/xmldsig-more#rsa-sha256", "2000/09/xmldsig#dsa-sha1", "saml_algorithm_refused"),
        ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "none", "saml_algorithm_refused"),
        ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "", "saml_algorithm_refused"),
        ("2001/04/xmldsig-more#rsa-sha256", "2001/04/xmldsig-more#RSA-SHA256", "saml_algorithm_refused"),
        ("</ds:SignatureMethod>", "<ds:HMACOutputLength>8</ds:HMACOutputLength></ds:SignatureMethod>", "saml_algorithm_refused"),
        ("2001/04/xmlenc#sha256", "2000/09/xmldsig#sha1", "saml_digest_refused"),
        ("2001/04/xmlenc#sha256", "2001/04/xmldsig-more#md5", "saml_digest_refused"),
        ("2001/04/xmlenc#sha256", "2001/04/xmldsig-more#sha224", "saml_digest_refused"),
        // over what form
        ("CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"", "CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#WithComments\"", "saml_canonicalization_refused"),
        ("CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"", "CanonicalizationMethod Algorithm=\"http://www.w3.org/TR/2001/REC-xml-c14n-20010315\"", "saml_canonicalization_refused"),
        ("Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"", "Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#WithComments\"", "saml_transform_refused"),
        ("Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"", "Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\"", "saml_transform_refused"),
        ("Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"", "Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"", "saml_transform_refused"),
        ("2000/09/xmldsig#enveloped-signature", "2000/09/xmldsig#base64", "saml_transform_refused"),
        ("</ds:Transforms>", "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#base64\"></ds:Transform></ds:Transforms>", "saml_transform_refused"),
        // of what shape
        ("</ds:SignedInfo>", "<x></x></ds:SignedInfo>", "saml_several_references"),
        ("ds:DigestValue>", "ds:Digest>", "saml_signature_malformed"),
        ("ds:SignatureMethod", "ds:Method", "saml_signature_malformed"),
    ]
    .map(|(from, to, expected)| (from.to_owned(), to.to_owned(), expected))
    .into();
    for (from, to, expected) in cases {
        let document = signed_with(&assertion(), &RSA, RSA_SHA256, |info| {
            assert!(info.contains(&from), "`{from}` is not there");
            info.replace(&from, &to)
        });
        assert_eq!(code(&document), expected, "{from} -> {to}");
    }
}

#[test]
fn a_signature_has_nothing_but_what_it_needs() {
    let document = signed(&assertion(), &RSA);
    assert_eq!(code(&document), "ok");
    let end = "</ds:Signature>";
    let key_info = format!("<ds:KeyInfo><ds:KeyName>mallory</ds:KeyName></ds:KeyInfo>{end}");
    let many = format!(
        "Method Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"><e:InclusiveNamespaces xmlns:e=\"http://www.w3.org/2001/10/xml-exc-c14n#\" PrefixList=\"{}\"/>",
        "a ".repeat(33)
    );
    let cases = [
        (end, key_info.as_str(), "ok"),
        (
            end,
            "<ds:Object></ds:Object></ds:Signature>",
            "saml_signature_malformed",
        ),
        (
            end,
            "<ds:KeyInfo/><ds:KeyInfo/></ds:Signature>",
            "saml_signature_malformed",
        ),
        (
            end,
            "<ds:KeyInfo/><ds:Object/></ds:Signature>",
            "saml_signature_malformed",
        ),
        (
            "<ds:SignedInfo",
            "<ds:Object/><ds:SignedInfo",
            "saml_signature_malformed",
        ),
        (
            "<ds:SignatureValue>",
            "<ds:SignatureValue>!",
            "saml_signature_malformed",
        ),
        ("<ds:SignatureValue>", "<ds:SignatureValue>\n ", "ok"),
        (
            end,
            "</ds:Signature><ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"/>",
            "saml_several_signatures",
        ),
        (
            "Method Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">",
            &many,
            "saml_canonicalization_refused",
        ),
        // A prefix list that was not there when it was signed.
        (
            "Method Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">",
            "Method Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"><e:InclusiveNamespaces xmlns:e=\"http://www.w3.org/2001/10/xml-exc-c14n#\" PrefixList=\"ds\"/>",
            "saml_bad_signature",
        ),
        (">alice<", ">mallory<", "saml_bad_digest"),
        (">staff<", ">admin<", "saml_bad_digest"),
        ("<saml:Subject>", "<saml:Subject >", "ok"),
        ("<saml:Subject>", "<saml:Subject> ", "saml_bad_digest"),
        (
            "<ds:DigestValue>",
            "<ds:DigestValue>AAAA",
            "saml_bad_signature",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(document.contains(from), "`{from}` is not there");
        assert_eq!(
            code(&document.replacen(from, to, 1)),
            expected,
            "{from} -> {to}"
        );
    }
    assert_eq!(code(&assertion()), "saml_unsigned");
    assert_eq!(
        code(&signed(&assertion(), &RSA_OTHER)),
        "saml_bad_signature"
    );
    let nobody = verify(document.as_bytes(), &rules(), &KeySet::default(), now());
    assert_eq!(nobody, Err(SamlError::BadSignature));
}

#[test]
fn the_assertion_is_where_it_must_be_and_alone() {
    let good = signed(&assertion(), &RSA);
    let encrypted =
        r#"<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/>"#;
    let cases = [
        (response(&good), "ok"),
        (
            response(&format!("<samlp:Extensions>{good}</samlp:Extensions>")),
            "saml_no_assertion",
        ),
        (
            response(&response(&good).replace("_r1", "_r2")),
            "saml_no_assertion",
        ),
        (format!("<x>{good}</x>"), "saml_no_assertion"),
        (response(""), "saml_no_assertion"),
        (response(encrypted), "saml_encrypted"),
        (encrypted.to_owned(), "saml_encrypted"),
        (
            response(&format!("{good}{}", good.replace("_a1", "_a2"))),
            "saml_several_assertions",
        ),
        (
            response(&format!("{good}<Assertion/>")),
            "saml_several_assertions",
        ),
        (response(&good.replace("_a1", "_r1")), "saml_duplicate_id"),
        (
            good.replace("SAML:2.0:assertion", "SAML:1.0:assertion"),
            "saml_no_assertion",
        ),
        (
            response(&good).replace("2.0:protocol", "1.0:protocol"),
            "saml_no_assertion",
        ),
    ];
    for (document, expected) in cases {
        assert_eq!(code(&document), expected, "{document}");
    }
}

#[test]
fn keys_count_until_their_metadata_says() {
    let document = signed(&assertion(), &RSA);
    let until = |instant: &str| {
        let set = keys(&[&RSA]).until(Some(instant.parse().unwrap()));
        verify(document.as_bytes(), &rules(), &set, now()).map(|verified| verified.id)
    };
    assert_eq!(until("2030-03-17T17:46:41Z"), Ok(ID.to_owned()));
    assert_eq!(
        until("2030-03-17T17:46:40Z"),
        Err(SamlError::MetadataExpired)
    );
}

#[test]
fn a_parameter_is_base64url_with_or_without_padding() {
    for (parameter, expected) in [
        ("PGEvPg", Ok(b"<a/>".to_vec())),
        ("PGEvPg==", Ok(b"<a/>".to_vec())),
        ("PGEvPh", Err(SamlError::NotBase64Url)),
        ("PGEv+g", Err(SamlError::NotBase64Url)),
        ("PGEv\nPg", Err(SamlError::NotBase64Url)),
        ("", Ok(vec![])),
    ] {
        assert_eq!(decode(parameter), expected, "{parameter}");
    }
    assert_eq!(decode(&"A".repeat(1 << 20)), Err(SamlError::TooLarge));
    assert_eq!(
        read(&vec![b'<'; MAX_ASSERTION_BYTES + 1]).err(),
        Some(SamlError::TooLarge)
    );
}

/// Elements with prefixes declared here, outside, again or not at all, with and without attributes and text.
fn element() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "p:a", "q:b", "r:c"]);
    let declared = || {
        prop::collection::btree_map(
            prop::sample::select(vec!["xmlns", "xmlns:p", "xmlns:q", "xmlns:r"]),
            prop::sample::select(vec!["u", "v", "w"]),
            0..3,
        )
    };
    let attribute = prop::sample::select(vec![
        "",
        " x='1'",
        " p:x='&lt;&#9;' x=\"'\"",
        " xml:lang='de'",
    ]);
    let text = prop::sample::select(vec!["", "t", "&amp;&gt;&#13;\r\n", " \"é𝛼' "]);
    let leaf = (name(), declared(), attribute.clone(), text.clone());
    let write = |(name, declared, attribute, text): (
        &str,
        std::collections::BTreeMap<&str, &str>,
        &str,
        &str,
    ),
                 inner: String| {
        let declared: String = declared
            .iter()
            .map(|(key, uri)| format!(" {key}='{uri}'"))
            .collect();
        format!("<{name}{declared}{attribute}>{text}{inner}{text}</{name}>")
    };
    leaf.prop_map(move |head| write(head, String::new()))
        .prop_recursive(4, 24, 4, move |inner| {
            let head = (name(), declared(), attribute.clone(), text.clone());
            (head, prop::collection::vec(inner, 0..4))
                .prop_map(move |(head, inner)| write(head, inner.concat()))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn for_every_document_the_canonical_form_is_its_own_and_stands_alone(inner in element()) {
        let text = format!("<root xmlns:p='u' xmlns:q='v' xmlns:r='u'>{inner}</root>");
        let document = xml::parse_text(&text).unwrap();
        let apex = document.root_element().first_element_child().unwrap();
        for prefixes in [&[][..], &["p", "#default"]] {
            let once = c14n::exclusive(apex, None, prefixes).unwrap();
            let again = xml::parse_text(&once).unwrap();
            prop_assert_eq!(c14n::exclusive(again.root_element(), None, prefixes).unwrap(), once.clone());
            // Nothing is another than it was.
            let names = |root: Node<'_, '_>| -> Vec<String> {
                root.descendants().map(|node| format!("{:?} {:?}", node.tag_name(), node.text())).collect()
            };
            prop_assert_eq!(names(again.root_element()), names(apex));
        }
    }

    #[test]
    fn for_every_text_reading_answers(text in "(<|>|/|!|-|\\[|\"|'|=|&|#|;|a|:|xmlns|ID| |\\?){0,60}") {
        let _ = read(text.as_bytes());
    }
}

#[test]
fn an_empty_rule_accepts_nothing() {
    let document = signed(&assertion(), &RSA);
    let check = |rules: Rules| verify(document.as_bytes(), &rules, &keys(&[&RSA]), now()).err();
    let none = |change: fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        check(rules)
    };
    assert_eq!(
        none(|rules| rules.audiences.clear()),
        Some(SamlError::WrongAudience)
    );
    assert_eq!(
        none(|rules| rules.recipients.clear()),
        Some(SamlError::WrongRecipient)
    );
    assert_eq!(
        none(|rules| rules.name_formats.clear()),
        Some(SamlError::NameFormatRefused)
    );
    assert_eq!(
        none(|rules| rules.entity_id.clear()),
        Some(SamlError::UnknownIssuer)
    );
}

/// A small document whose `SignedInfo` is long in canonical form: a namespace that is declared once is written at each element that uses it.
fn growing(children: usize) -> String {
    let uri = "u".repeat(16_200);
    let info = format!(
        r#"<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/><w xmlns:b="urn:{uri}">{}</w></ds:SignedInfo>"#,
        "<b:x/>".repeat(children)
    );
    let signature = format!(
        r#"<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{info}<ds:SignatureValue>AAAA</ds:SignatureValue></ds:Signature>"#
    );
    with_signature(&assertion(), &signature)
}

#[test]
fn what_grows_in_canonical_form_is_given_up() {
    assert_eq!(code(&growing(4)), "saml_signature_malformed");
    assert_eq!(code(&growing(4000)), "saml_too_complex");
    let document = growing(4000);
    let document = xml::parse_text(&document).unwrap();
    let info = document.descendants().find(|node| node.has_tag_name("w"));
    let refused = c14n::exclusive(info.unwrap(), None, &[]);
    assert_eq!(refused.err(), Some(SamlError::TooComplex));
}

#[test]
fn an_assertion_is_remembered_until_the_last_confirmation_that_could_bring_it_again() {
    let one = r#"<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="2030-03-17T17:51:40Z" Recipient="https://gateway.example/oauth2/token"/></saml:SubjectConfirmation>"#;
    let later = one.replace("17:51:40Z", "18:46:40Z");
    let until = |confirmations: &str| {
        let unsigned = assertion().replace(one, confirmations).replace(
            r#"NotOnOrAfter="2030-03-17T17:56:40Z""#,
            r#"NotOnOrAfter="2030-03-17T19:46:40Z""#,
        );
        let verified = check(&signed(&unsigned, &RSA));
        verified.map(|verified| verified.claim_until.to_string())
    };
    let last = || Ok("2030-03-17T18:47:10Z".to_owned());
    assert_eq!(until(&format!("{one}{later}")), last());
    assert_eq!(until(&format!("{later}{one}")), last());
    // One that has not begun, too, and for longer than any may last.
    let begins = later.replace(
        "Recipient=",
        r#"NotBefore="2030-03-17T18:30:00Z" Recipient="#,
    );
    assert_eq!(until(&format!("{one}{begins}")), last());
    assert_eq!(until(&begins), Err(SamlError::NotYetValid));
    let for_years = one.replace("2030-03-17T17:51:40Z", "2033-03-17T17:51:40Z");
    let (condition, wide) = ("2030-03-17T17:56:40Z", "2034-03-17T17:56:40Z");
    let unsigned = assertion()
        .replace(one, &format!("{one}{for_years}"))
        .replace(condition, wide);
    assert_eq!(
        check(&signed(&unsigned, &RSA)).err(),
        Some(SamlError::LivesTooLong)
    );
    // That of somebody else does not count.
    let elsewhere = later.replace("gateway.example", "elsewhere.example");
    assert_eq!(
        until(&format!("{one}{elsewhere}")),
        Ok("2030-03-17T17:52:10Z".to_owned())
    );
}

#[test]
fn groups_that_are_to_be_asked_for_elsewhere_are_not_none() {
    let from = assertion();
    let at = from.find(r#"<saml:Attribute Name="groups">"#).unwrap();
    let to = at + from[at..].find("</saml:Attribute>").unwrap();
    let unsigned = format!(
        r#"{}<saml:Attribute Name="http://schemas.microsoft.com/claims/groups.link"><saml:AttributeValue>https://graph.windows.net/t/users/u/getMemberObjects</saml:AttributeValue>{}"#,
        &from[..at],
        &from[to..]
    );
    assert_eq!(
        check(&signed(&unsigned, &RSA)).err(),
        Some(SamlError::GroupsInvalid)
    );
}
