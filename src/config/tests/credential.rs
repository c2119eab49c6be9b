//! Upstream credentials: where they come from and where they may be sent.

use super::*;
use crate::keys::source::{ClientAuth, Endpoint, OAuth2, Vault, VaultLogin};

/// The base file with this in place of `header: authorization, file: upstream.key`.
fn lent(credential: &str) -> String {
    with("header: authorization, file: upstream.key", credential)
}

fn credential(text: &str) -> Credential {
    let config = parse_as(&lent(text), "/etc/cs/config.yaml");
    let config = config.unwrap_or_else(|faults| panic!("{faults}"));
    config.connections[0].credential.clone().unwrap()
}

const VAULT: &str = "header: x-api-key, vault: { address: \"https://vault.example/v\", path: llm/openai, field: key, token: { env: T } }";
const OAUTH2: &str = "header: authorization, oauth2: { token_url: \"https://login.example/token\", client_id: c, client_secret: { file: s } }";

#[test]
fn what_is_not_said_of_a_source_is_the_usual_thing() {
    let vault = Vault {
        server: Endpoint::new("https://vault.example/v", false, None).unwrap(),
        namespace: None,
        mount: "secret".to_owned(),
        path: "llm/openai".to_owned(),
        field: "key".to_owned(),
        login: VaultLogin::Token(SecretSource::Env("T".to_owned())),
        refresh: Duration::from_secs(60),
        stale: Duration::from_secs(3600),
    };
    let found = credential(VAULT);
    assert_eq!((&*found.prefix, &*found.suffix), ("", ""));
    assert_eq!(
        found.source,
        CredentialSource::Vault(Box::new(vault.clone()))
    );
    let login = VAULT.replace("token: { env: T }", "login: { role: r }");
    let login = credential(&login).source;
    let pod = VaultLogin::Jwt {
        mount: "kubernetes".to_owned(),
        role: "r".to_owned(),
        jwt: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
    };
    let vault = Vault {
        login: pod,
        ..vault
    };
    assert_eq!(login, CredentialSource::Vault(Box::new(vault)));
    let oauth2 = OAuth2 {
        token_url: Endpoint::new("https://login.example/token", false, None).unwrap(),
        client_id: "c".to_owned(),
        client_secret: SecretSource::File("/etc/cs/s".into()),
        auth: ClientAuth::Basic,
        scope: None,
        audience: None,
        resource: None,
    };
    let found = credential(OAUTH2);
    assert_eq!(found.source, CredentialSource::OAuth2(Box::new(oauth2)));
    assert_eq!(found.prefix, "Bearer ");
    assert_eq!(found.models, []);
}

#[test]
fn some_models_have_their_own_and_the_connections_comes_last() {
    let found = credential(
        "header: api-key, file: own, models: [{ models: [\"o3*\", gpt-5], file: a }, { models: [x], env: B }]",
    );
    let names: Vec<_> = found.sources().map(ToString::to_string).collect();
    assert_eq!(names, ["file:/etc/cs/a", "env:B", "file:/etc/cs/own"]);
    let matches = |model: &str| {
        let mut entries = found.models.iter();
        entries.position(|entry| entry.models.iter().any(|pattern| pattern.matches(model)))
    };
    assert_eq!(
        [
            matches("o3-pro"),
            matches("GPT-5"),
            matches("x"),
            matches("gpt-5-mini")
        ],
        [Some(0), Some(0), Some(1), None]
    );
}

#[test]
fn every_fault_of_a_credential_is_told_where_it_is() {
    let vault = |from: &str, to: &str| {
        assert_eq!(VAULT.matches(from).count(), 1, "{from}");
        VAULT.replace(from, to)
    };
    let oauth2 = |from: &str, to: &str| {
        assert_eq!(OAUTH2.matches(from).count(), 1, "{from}");
        OAUTH2.replace(from, to)
    };
    let one = "credential: name one of `file`, `env`, `vault` and `oauth2`";
    let own = |models: &str| format!("header: api-key, file: own, models: [{models}]");
    let cases: [(String, &[&str]); 33] = [
        (
            vault("header: x-api-key,", "header: x-api-key, env: A,"),
            &[one],
        ),
        (
            vault("https://vault.example/v", "http://vault.example"),
            &["credential.vault.address: the address is not https, and not on loopback"],
        ),
        (
            vault("https://vault.example/v", "https://a:b@vault.example"),
            &["credential.vault.address: the address holds credentials"],
        ),
        (
            vault("https://vault.example/v", "https://vault.example?a=b"),
            &["credential.vault.address: the address is not an http or https URL"],
        ),
        (
            vault("https://vault.example/v", "file:///etc"),
            &["credential.vault.address: the address is not an http or https URL"],
        ),
        (
            vault("llm/openai", "/llm"),
            &[
                "credential.vault.path: not a path: write it as in `team/openai`, without a slash at either end",
            ],
        ),
        (
            vault("llm/openai", "llm/../../sys/seal"),
            &[
                "credential.vault.path: not a path: write it as in `team/openai`, without a slash at either end",
            ],
        ),
        (
            vault("path:", "mount: \"\", path:"),
            &[
                "credential.vault.mount: not a path: write it as in `team/openai`, without a slash at either end",
            ],
        ),
        (
            vault("field: key", "field: \"\""),
            &["credential.vault.field: the field has no name"],
        ),
        (
            vault("field: key", "field: key, namespace: \"a b\""),
            &["credential.vault.namespace: not the name of a namespace"],
        ),
        (
            vault(", token: { env: T }", ""),
            &["credential.vault: say who asks: exactly one of `token` and `login`"],
        ),
        (
            vault("token:", "login: { role: r }, token:"),
            &["credential.vault: say who asks: exactly one of `token` and `login`"],
        ),
        (
            vault("token: { env: T }", "token: {}"),
            &["credential.vault.token: say where the secret is: `file` or `env`"],
        ),
        (
            vault("token: { env: T }", "login: { role: \"\", mount: a//b }"),
            &[
                "credential.vault.login.mount: not a path: write it as in `team/openai`, without a slash at either end",
                "credential.vault.login.role: the role has no name",
            ],
        ),
        (
            vault("field: key", "field: key, refresh: 0s"),
            &["credential.vault.refresh: must be between 1s and 24h"],
        ),
        (
            vault("field: key", "field: key, stale: 31d"),
            &["credential.vault.stale: must be between 0s and 720h"],
        ),
        (
            vault("field: key", "field: key, refresh: often"),
            &[
                "credential.vault.refresh: not a duration; write a whole number with ms, s, m, h or d, as in `30s`",
            ],
        ),
        (
            oauth2("https://login.example/token", "http://login.example/token"),
            &["credential.oauth2.token_url: the address is not https, and not on loopback"],
        ),
        (
            oauth2("client_id: c", "client_id: \"\""),
            &["credential.oauth2.client_id: the client has no name"],
        ),
        (
            oauth2("client_secret: { file: s }", "client_secret: {}"),
            &["credential.oauth2.client_secret: say where the secret is: `file` or `env`"],
        ),
        (
            oauth2("client_secret: { file: s }", "client_secret: s3cret"),
            &["credential.oauth2.client_secret: expected a mapping, found text"],
        ),
        (
            oauth2("client_id: c", "client_id: c, auth: jwt"),
            &["credential.oauth2.auth: must be `basic`, `post`"],
        ),
        (
            own("{ models: [\"*\"], env: A }"),
            &[
                "credential.models[0].models[0]: every model: name that credential as the connection's own",
            ],
        ),
        (
            own("{ models: [], env: A }"),
            &["credential.models[0].models: the list is empty; it needs at least one entry"],
        ),
        (
            own("{ models: [\"\"], env: A }"),
            &["credential.models[0].models[0]: a model's name has 1 to 200 characters on one line"],
        ),
        (
            own("{ models: [a, b*], env: A }, { models: [B*], env: C }"),
            &["credential.models[1].models[0]: `B*` has its credential already"],
        ),
        (
            own("{ models: [a] }"),
            &["credential.models[0]: say where the secret is: `file`, `env`, `vault` or `oauth2`"],
        ),
        (
            own("{ models: [a], header: b, env: A }"),
            &["credential.models[0]: unknown key `header`"],
        ),
        (
            "header: Content-Type, env: A".into(),
            &["credential.header: `content-type` cannot carry a credential"],
        ),
        (
            "header: proxy-authorization, env: A".into(),
            &["credential.header: `proxy-authorization` cannot carry a credential"],
        ),
        (
            "header: \":authority\", env: A".into(),
            &["credential.header: not the name of a header"],
        ),
        (
            "header: X-Forwarded-For, env: A".into(),
            &["credential.header: `x-forwarded-for` cannot carry a credential"],
        ),
        (
            "header: x-countersign-permit, env: A".into(),
            &["credential.header: `x-countersign-permit` cannot carry a credential"],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|fault| format!("16: connections[0].{fault}"))
            .collect();
        assert_eq!(faults_of(&lent(&text)), expected, "{text}");
    }
}

#[test]
fn plaintext_to_another_machine_takes_a_word_and_is_warned_of() {
    for text in [
        VAULT
            .replace("https://vault.example/v", "http://vault.example")
            .replace("field: key", "field: key, insecure: true"),
        OAUTH2
            .replace("https://login", "http://login")
            .replace("client_id: c", "client_id: c, insecure: true"),
    ] {
        let config = parse(&lent(&text)).unwrap_or_else(|faults| panic!("{faults}"));
        let warned = lines(&config.warnings);
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(
            warned[0].contains(".insecure: insecure: whoever is on the way"),
            "{warned:?}"
        );
    }
    let loopback = VAULT.replace("https://vault.example/v", "http://127.0.0.1:8200");
    assert_eq!(parse(&lent(&loopback)).unwrap().warnings, []);
}

#[test]
fn what_a_source_names_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml").display().to_string();
    let text = VAULT.replace(
        "token: { env: T }",
        "ca_file: ca.pem, login: { role: r, jwt_file: jwt }",
    );
    let missing = parse_as(&lent(&text), &file).unwrap().missing();
    let missing = lines(&missing).join("\n");
    assert!(
        missing.contains("vault.ca_file") && missing.contains("vault.login.jwt_file"),
        "{missing}"
    );
}

#[test]
fn the_documents_example_is_valid() {
    let text = fs::read_to_string(format!(
        "{}/docs/credentials.md",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let example = text
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let indented: String = example
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let text = with(
        "    credential: { header: authorization, file: upstream.key }\n",
        &indented,
    );
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(
        config.connections[0]
            .credential
            .as_ref()
            .unwrap()
            .sources()
            .count(),
        3
    );
}
