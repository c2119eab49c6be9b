//! `identity.saml`.

use super::*;

const PROVIDER: &str = "      claims: [department]\n  saml:\n    - entity_id: https://idp.example/saml\n      metadata: { file: idp.xml }\n      audience: gateway\n      recipient: https://gateway.example/oauth2/token\n";

fn base() -> String {
    with("      claims: [department]\n", PROVIDER)
}

#[cfg(not(feature = "saml"))]
#[test]
fn a_build_without_saml_says_so() {
    assert_eq!(
        faults_of(&base()),
        [
            "11: identity.saml: this build takes no SAML assertions: it was built without the feature `saml`"
        ]
    );
}

#[cfg(feature = "saml")]
mod with_the_feature {
    use super::*;
    use crate::{
        identity::saml::{NameFormat, Rules},
        keys::jwks::{KeySource, Place},
    };

    fn changed(from: &str, to: &str) -> String {
        let text = base();
        assert_eq!(text.matches(from).count(), 1, "`{from}` is not there once");
        text.replace(from, to)
    }

    #[test]
    fn a_provider_has_safe_defaults() {
        let config = parse_as(&base(), "/etc/c.yaml").unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(
            config.saml,
            [SamlProvider {
                rules: Rules {
                    entity_id: "https://idp.example/saml".to_owned(),
                    audiences: vec!["gateway".to_owned()],
                    recipients: vec!["https://gateway.example/oauth2/token".to_owned()],
                    name_formats: vec![NameFormat::Persistent, NameFormat::Email],
                    groups_attribute: Some("groups".to_owned()),
                    person_attribute: None,
                    claims: vec![],
                    clock_skew: Duration::from_secs(30),
                },
                keys: KeySource::Metadata {
                    at: Place::File("/etc/idp.xml".into()),
                    signed_by: None,
                },
            }]
        );
        // Files that are not there are told like all others.
        assert!(
            config
                .missing()
                .iter()
                .any(|fault| fault.to_string().contains("idp.xml"))
        );
    }

    #[test]
    fn everything_can_be_said() {
        let text = changed(
            "      metadata: { file: idp.xml }\n      audience: gateway\n",
            "      metadata: { url: \"https://mdq.example/entities/x?v=1\", signed_by: federation.pem }\n      audience: [a, b]\n      \
             name_id_formats: [unspecified]\n      groups_attribute: memberOf\n      person_attribute: mail\n      claims: [site]\n      clock_skew: 1m\n",
        );
        let text = text.replace(
            r#"'"finance" in principal.groups'"#,
            r#"'has(principal.claims.site)'"#,
        );
        let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
        let provider = &config.saml[0];
        assert_eq!(provider.rules.audiences, ["a", "b"]);
        assert_eq!(provider.rules.name_formats, [NameFormat::Unspecified]);
        assert_eq!(provider.rules.groups_attribute.as_deref(), Some("memberOf"));
        assert_eq!(provider.rules.person_attribute.as_deref(), Some("mail"));
        assert_eq!(provider.rules.clock_skew, Duration::from_secs(60));
        let KeySource::Metadata { at, signed_by } = &provider.keys else {
            panic!("{:?}", provider.keys)
        };
        assert_eq!(
            *at,
            Place::Url("https://mdq.example/entities/x?v=1".to_owned())
        );
        assert_eq!(
            signed_by.as_deref(),
            Some(std::path::Path::new("federation.pem"))
        );
    }

    #[test]
    fn what_would_weaken_a_provider_is_a_fault() {
        let again = PROVIDER.split_once("saml:\n").unwrap().1;
        for (from, to, expected) in [
            (
                "file: idp.xml",
                "file: idp.xml, url: \"https://idp.example/m\"",
                "exactly one of `file` and `url`",
            ),
            ("{ file: idp.xml }", "{}", "exactly one of `file` and `url`"),
            (
                "file: idp.xml",
                "url: \"http://idp.example/m\"",
                "must be an https URL",
            ),
            (
                "      recipient: https://gateway.example/oauth2/token\n",
                "",
                "say which recipient assertions are for",
            ),
            (
                "      recipient: https://gateway.example/oauth2/token\n",
                "      recipient: []\n",
                "assertions made for others must not count here",
            ),
            (
                "      audience: gateway\n      recipient",
                "      audience: \"\"\n      recipient",
                "assertions made for others must not count here",
            ),
            (
                "https://idp.example/saml\n",
                "https://idp.example\n",
                "whose subjects are whose could not be told",
            ),
            (
                "https://idp.example/saml\n",
                "\"\"\n",
                "an entity id has 1 to 1024 bytes",
            ),
            (
                "      recipient",
                "      name_id_formats: [transient]\n      recipient",
                "a transient name names a session and not a caller",
            ),
            (
                "      recipient",
                "      name_id_formats: [persistant]\n      recipient",
                "did you mean `persistent`?",
            ),
            (
                "      recipient",
                "      name_id_formats: []\n      recipient",
                "name_id_formats",
            ),
            (
                "      recipient",
                "      claims: [a, a]\n      recipient",
                "name each attribute, and each once",
            ),
            (
                "      recipient",
                "      clock_skew: 6m\n      recipient",
                "must be at most 5m",
            ),
            (
                "      recipient",
                "      person_attribute: \"\"\n      recipient",
                "name an attribute",
            ),
            (
                "connections:\n",
                &format!("{again}connections:\n"),
                "the provider is already defined as identity.saml[0]",
            ),
        ] {
            let faults = faults_of(&changed(from, to));
            assert!(
                faults.len() == 1 && faults[0].contains(expected),
                "{to}: {faults:?}"
            );
        }
    }
}
