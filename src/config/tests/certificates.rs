//! Callers known by a certificate alone.

use super::*;
use crate::identity::{CertificateName, CertificateRule};

fn knowing(mtls: &str, alone: bool) -> String {
    let text = with(
        "claims: [department]\n",
        &format!("claims: [department]\n  mtls: [{mtls}]\n"),
    );
    let token = format!("dialect: openai\n    certificate_alone: {alone}\n");
    text.replacen("dialect: openai\n", &token, 1)
}

#[test]
fn certificates_are_named_one_way_each() {
    let config = parse(&knowing(
        "{ spiffe: spiffe://prod.example/*, groups: [workloads] }, { dns: Batch.example, owner: alice }, { subject: 'CN=a,O=b' }",
        true,
    ));
    let config = config.unwrap_or_else(|faults| panic!("{faults}"));
    assert!(config.connections[0].certificate_alone && config.warnings.is_empty());
    let rule = |name, groups: &[&str], owner: Option<&str>| CertificateRule {
        name,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        owner: owner.map(str::to_owned),
    };
    let below = CertificateName::SpiffeBelow("spiffe://prod.example/".into());
    let expected = [
        rule(below, &["workloads"], None),
        rule(
            CertificateName::Dns("batch.example".into()),
            &[],
            Some("alice"),
        ),
        rule(CertificateName::Subject("CN=a,O=b".into()), &[], None),
    ];
    assert_eq!(config.certificates.known, expected);
    assert!(!config.certificates.ask_for_owners);
    let usual = parse(BASE).unwrap();
    assert!(!usual.connections[0].certificate_alone && usual.certificates.known.is_empty());
}

#[test]
fn where_humans_are_told_apart_certificates_need_owners() {
    for claim in ["person_claim: employee", "owner_claim: owner"] {
        let text = knowing("{ dns: batch.example }", true);
        let text = text.replacen(
            "claims: [department]",
            &format!("claims: [department]\n      {claim}"),
            1,
        );
        let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(config.certificates.ask_for_owners, "{claim}");
    }
}

#[test]
fn what_cannot_be_is_a_fault() {
    let at = "11: identity.mtls[0]";
    for (mtls, fault) in [
        (
            "{ groups: [a] }",
            format!("{at}: say whose certificate: exactly one of `spiffe`, `dns` and `subject`"),
        ),
        (
            "{ dns: a.example, subject: CN=a }",
            format!("{at}: say whose certificate: exactly one of `spiffe`, `dns` and `subject`"),
        ),
        (
            "{ spiffe: spiffe://prod.example }",
            format!(
                "{at}.spiffe: not a SPIFFE ID with a path; write `spiffe://trust.domain/workload`, with `/*` at its end for all below"
            ),
        ),
        (
            "{ dns: '*.example' }",
            format!(
                "{at}.dns: not a DNS name; write it in full, as in `batch.example.com`, without `*`"
            ),
        ),
        (
            "{ subject: batch }",
            format!("{at}.subject: not a subject; write it as in `CN=batch,O=Example`"),
        ),
        (
            "{ dns: a.example, groups: [''] }",
            format!("{at}.groups: a group needs a name"),
        ),
        (
            "{ dns: a.example, owner: ' ' }",
            format!("{at}.owner: name somebody, in at most 256 bytes"),
        ),
    ] {
        assert_eq!(faults_of(&knowing(mtls, true)), [fault], "{mtls}");
    }
    let nobody = with(
        "dialect: openai\n",
        "dialect: openai\n    certificate_alone: true\n",
    );
    assert_eq!(
        faults_of(&nobody),
        [
            "15: connections[0].certificate_alone: no certificate is anybody's: say whose they are under `identity.mtls`"
        ]
    );
    let unused = parse(&knowing("{ dns: a.example }", false)).unwrap();
    assert_eq!(
        lines(&unused.warnings),
        ["11: identity.mtls: no connection takes a certificate alone (`certificate_alone`)"]
    );
}

#[test]
fn a_proof_is_for_a_host_that_is_named() {
    let named = |hosts: &str, authority: &str| {
        let config = parse(&with("hosts: [\"*\"]", &format!("hosts: [{hosts}]"))).unwrap();
        config.connections[0].route.names(authority)
    };
    for (hosts, authority) in [
        ("a.example", "a.example"),
        ("a.example", "A.example:8443"),
        ("\"a.example:8443\"", "a.example:8443"),
        ("\"*.example\"", "a.example"),
        ("\"*\", a.example", "a.example"),
        ("\"[::1]\"", "[::1]:8080"),
    ] {
        assert!(named(hosts, authority), "{hosts} {authority}");
    }
    for (hosts, authority) in [
        ("\"*\"", "a.example"),
        ("\"*\", a.example", "b.example"),
        ("\"a.example:8443\"", "a.example"),
        ("\"*.example\"", "evil.test/x.example"),
        ("\"*.example\"", "evil.test?x.example"),
        ("\"*.example\"", "user@x.example"),
        ("\"*.example\"", ""),
    ] {
        assert!(!named(hosts, authority), "{hosts} {authority}");
    }
}
