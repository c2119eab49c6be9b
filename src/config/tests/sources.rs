//! Who says who calls: any one source will do, and without one the file is at fault.

use super::*;

const ISSUERS: &str = "  issuers:\n    - issuer: https://idp.example\n      audience: gateway\n      algorithms: [RS256]\n      claims: [department]\n";

/// The base file with this under `identity` instead of its issuer.
fn known_by(identity: &str, rest: &str) -> String {
    let text = with(ISSUERS, identity);
    format!("{text}{rest}")
}

fn warnings(config: &Config) -> Vec<String> {
    lines(&config.warnings)
}

#[test]
fn certificates_alone_will_do() {
    let text = known_by("  mtls: [{ dns: batch.example }]\n", "");
    let text = text.replacen(
        "dialect: openai\n",
        "dialect: openai\n    certificate_alone: true\n",
        1,
    );
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(config.issuers.is_empty() && config.certificates.known.len() == 1);
    assert_eq!(warnings(&config), Vec::<String>::new());
}

#[test]
fn an_issuer_that_is_asked_about_every_token_needs_neither_algorithms_nor_keys() {
    let asked = "      introspection: { client_id: gateway, client_secret: { env: SECRET } }\n";
    let text = with("      algorithms: [RS256]\n", asked);
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let issuer = &config.issuers[0];
    assert!(issuer.keys.is_none() && issuer.introspection.is_some());
    assert!(issuer.rules.algorithms.is_empty() && config.warnings.is_empty());
    assert_eq!(
        faults_of(&with("      algorithms: [RS256]\n", "")),
        [
            "7: identity.issuers[0].algorithms: say what its tokens may be signed with, or how it is asked about them (`introspection`)"
        ]
    );
    let idle = format!("{asked}      jwks: {{ file: keys.json }}\n");
    assert_eq!(
        faults_of(&with("      algorithms: [RS256]\n", &idle)),
        ["10: identity.issuers[0].jwks: keys verify nothing without `algorithms`"]
    );
}

#[test]
fn nobody_is_no_source() {
    for nobody in ["  issuers: []\n", "  mtls: []\n  saml: []\n"] {
        assert_eq!(
            faults_of(&known_by(nobody, "")),
            [
                "5: identity: nobody could call: name who says who calls, under `issuers`, `saml` (with `grants`) or `mtls`"
            ]
        );
    }
}

#[cfg(feature = "saml")]
mod assertions {
    use super::*;

    const SAML: &str = "  saml:\n    - entity_id: https://idp.example/saml\n      metadata: { file: idp.xml }\n      audience: gateway\n      recipient: https://gateway.example/oauth2/token\n";
    const GRANTS: &str = "approvals: {}\ngrants:\n  issuer: https://gateway.example\n  keys: [grants.pem]\n  rules:\n    - { name: all, when: 'true', connections: [openai] }\n";

    #[test]
    fn assertions_that_are_exchanged_for_grants_will_do() {
        let text = known_by(SAML, GRANTS);
        let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(config.issuers.is_empty() && config.saml.len() == 1);
        assert_eq!(warnings(&config), Vec::<String>::new());
    }

    #[test]
    fn assertions_that_nothing_takes_are_no_source() {
        let idle = "identity.saml: only the token endpoint takes assertions, and there is none without `grants`";
        assert_eq!(faults_of(&known_by(SAML, "")), [format!("6: {idle}")]);
        let beside = parse(&with(ISSUERS, &format!("{ISSUERS}{SAML}"))).unwrap();
        assert_eq!(warnings(&beside), [format!("11: {idle}")]);
    }

    #[test]
    fn approvals_that_nobody_could_decide_are_told_of() {
        let held = "    then: { require_approval: { approvers: [{ group: security }] } }\n";
        let text = known_by(SAML, GRANTS).replacen("    then: allow\n", held, 1);
        let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
        let told = warnings(&config);
        let nobody = "approvals: nobody could decide: approvers sign in at an issuer under `identity.issuers`";
        assert!(
            told.iter().any(|warning| warning.ends_with(nobody)),
            "{told:?}"
        );
    }
}
