//! Callers known by a certificate alone.

use super::*;

fn rule(name: CertificateName, groups: &[&str]) -> CertificateRule {
    CertificateRule {
        name,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        owner: None,
    }
}

fn spiffe(id: &str) -> CertificateName {
    CertificateName::spiffe(id).unwrap()
}

fn known() -> CertificateRules {
    CertificateRules {
        known: vec![
            rule(spiffe("spiffe://prod.example/*"), &["workloads"]),
            rule(
                spiffe("spiffe://prod.example/ns/agents/*"),
                &["agents", "workloads"],
            ),
            rule(spiffe("spiffe://dev.example/ci"), &["ci"]),
            rule(CertificateName::dns("Batch.example").unwrap(), &["batch"]),
            rule(
                CertificateName::subject("CN=batch,O=Example").unwrap(),
                &["old"],
            ),
        ],
        ask_for_owners: false,
    }
}

fn with(uri: &str, dns: &str, subject: &str) -> Certificate {
    Certificate {
        digest: [9; 32],
        uri: uri.into(),
        dns: dns.into(),
        subject: subject.into(),
    }
}

/// Issuer, subject and groups, or the code of the refusal.
fn called(certificate: &Certificate) -> (String, String, Vec<String>) {
    match known().caller(certificate, now()) {
        Ok(caller) => (caller.issuer, caller.subject, caller.groups),
        Err(error) => (error.code().to_owned(), String::new(), Vec::new()),
    }
}

#[test]
fn a_certificate_that_a_rule_names_is_a_caller_with_the_groups_of_all_that_do() {
    let cases: [(Certificate, &str, &str, &[&str]); 6] = [
        (
            with("spiffe://prod.example/ns/agents/sa/a", "", ""),
            "spiffe://prod.example",
            "spiffe://prod.example/ns/agents/sa/a",
            &["workloads", "agents"],
        ),
        (
            with(
                "spiffe://prod.example/x",
                "batch.example",
                "CN=batch,O=Example",
            ),
            "spiffe://prod.example",
            "spiffe://prod.example/x",
            &["workloads"],
        ),
        (
            with("spiffe://dev.example/ci", "", ""),
            "spiffe://dev.example",
            "spiffe://dev.example/ci",
            &["ci"],
        ),
        (
            with("", "batch.EXAMPLE", ""),
            "mtls:dns",
            "batch.example",
            &["batch"],
        ),
        (
            with("", "", "CN=batch,O=Example"),
            "mtls:subject",
            "CN=batch,O=Example",
            &["old"],
        ),
        (
            with("", "batch.example", "CN=batch,O=Example"),
            "mtls:dns",
            "batch.example",
            &["batch", "old"],
        ),
    ];
    for (certificate, issuer, subject, groups) in cases {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let expected = (issuer.to_owned(), subject.to_owned(), groups);
        assert_eq!(called(&certificate), expected, "{certificate:?}");
    }
    let caller = known()
        .caller(&with("spiffe://dev.example/ci", "", ""), now())
        .unwrap();
    assert_eq!(caller.auth_method.name(), "mtls");
    assert_eq!(caller.token_hash, [9; 32], "the certificate's digest");
    assert!(caller.authenticated_at.is_none() && caller.issued_at.is_none());
    let next_minute = now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(caller.expires_at, next_minute);
}

#[test]
fn no_other_certificate_is_anybody() {
    for uri in [
        "spiffe://other.example/ns/agents/sa/a",
        "spiffe://prod.example.evil.example/x",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://prod.example//x",
        "spiffe://prod.example/../x",
        "spiffe://prod.example/./x",
        "spiffe://prod.example/x/",
        "spiffe://prod.example/x%2fy",
        "spiffe://prod.example/x?y",
        "spiffe://prod.example/x#y",
        "spiffe://prod.example:443/x",
        "spiffe://user@prod.example/x",
        "spiffe://Prod.example/x",
        "SPIFFE://prod.example/x",
        "https://prod.example/x",
        "spiffe://dev.example/ci2",
        "spiffe://dev.example/ci/more",
        "spiffe://dev.example/CI",
        " spiffe://prod.example/x",
        &format!("spiffe://prod.example/{}", "x".repeat(2048)),
    ] {
        // Whoever may issue one kind of name gains no other by it.
        let certificate = with(uri, "batch.example", "CN=batch,O=Example");
        assert_eq!(called(&certificate).0, "certificate_unknown", "{uri}");
    }
    for (dns, subject) in [
        ("", ""),
        ("x.batch.example", ""),
        ("batch.example.", ""),
        ("*.example", ""),
        ("", "cn=batch,O=Example"),
        ("", "O=Example,CN=batch"),
        ("", "CN=batch,O=Example,C=DE"),
    ] {
        let code = called(&with("", dns, subject)).0;
        assert_eq!(code, "certificate_unknown", "{dns} {subject}");
    }
    let nobody = CertificateRules::default();
    let certificate = with("spiffe://prod.example/x", "", "");
    let refused = nobody.caller(&certificate, now());
    assert_eq!(refused, Err(TokenError::CertificateUnknown));
}

#[test]
fn names_that_no_certificate_can_have_are_faults() {
    for id in [
        "",
        "*",
        "spiffe://*",
        "spiffe:///*",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://prod.example*",
        "spiffe://prod.example/a*",
        "spiffe://prod.example/*/b",
        "spiffe://*.example/b",
        "spiffe://prod.example//*",
        "prod.example",
        "https://prod.example/x",
    ] {
        let refused = CertificateName::spiffe(id);
        assert_eq!(refused, Err(CertificateNameError::Spiffe), "{id}");
    }
    for name in ["", "*", "*.example", "a..b", ".a", "a.", "a b", "a/b"] {
        assert_eq!(
            CertificateName::dns(name),
            Err(CertificateNameError::Dns),
            "{name}"
        );
    }
    for name in ["", "batch", "CN=a\n"] {
        let refused = CertificateName::subject(name);
        assert_eq!(refused, Err(CertificateNameError::Subject), "{name}");
    }
}

#[test]
fn a_workload_is_its_owner_where_humans_are_told_apart() {
    let mut rules = known();
    rules.ask_for_owners = true;
    let certificate = with("spiffe://prod.example/ns/agents/a", "", "");
    let caller = rules.caller(&certificate, now()).unwrap();
    assert!(caller.person_missing, "nobody knows whose it is");
    rules.known[1].owner = Some(" Alice@Example.com".to_owned());
    let caller = rules.caller(&certificate, now()).unwrap();
    assert!(!caller.person_missing);
    let alice = BTreeSet::from(["person:alice@example.com".to_owned()]);
    assert_eq!(caller.also, alice);
}
