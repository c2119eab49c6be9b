//! Files, good and bad, and what is said of them.

mod approvals;
mod certificates;
mod credential;
mod saml;
mod schema;
mod sources;
mod telemetry;

use std::{fs, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::dialect::{Endpoint, ErrorShape, RequestBody, ResponseBody, ShapeError, SignedAnswers};
use crate::identity::Algorithm;

/// A dialect that is only named, never spoken.
#[derive(Debug)]
struct Named;

impl Dialect for Named {
    fn name(&self) -> &'static str {
        "openai"
    }
    fn endpoints(&self) -> &'static [Endpoint] {
        &[
            Endpoint {
                name: "chat_completions",
                method: "POST",
                path: "/chat/completions",
            },
            Endpoint {
                name: "models",
                method: "GET",
                path: "/models",
            },
        ]
    }
    fn read_request(
        &self,
        _: &Endpoint,
        _: &str,
        _: Option<&str>,
        _: bytes::Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        unreachable!()
    }
    fn read_response(
        &self,
        _: &Endpoint,
        _: u16,
        _: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        unreachable!()
    }
    fn error(&self, _: &ErrorShape<'_>) -> (&'static str, bytes::Bytes) {
        unreachable!()
    }
    fn error_event(&self, _: &ErrorShape<'_>) -> bytes::Bytes {
        unreachable!()
    }
}

fn parse(text: &str) -> Result<Config, Faults> {
    parse_as(text, "config.yaml")
}

fn parse_as(text: &str, file: &str) -> Result<Config, Faults> {
    let entities: Vec<Entity> = [
        "AWS_ACCESS_KEY",
        "CREDIT_CARD",
        "EMAIL_ADDRESS",
        "IBAN_CODE",
        "IP_ADDRESS",
        "PHONE_NUMBER",
        "US_SSN",
    ]
    .map(Entity::from)
    .to_vec();
    let detector = |custom: &CustomDetector| {
        regex_automata::meta::Regex::new(&custom.regex)
            .map(drop)
            .map_err(|_| "not a valid pattern".to_owned())
    };
    Config::parse(
        text,
        file,
        &Known {
            dialects: &[&Named, crate::dialect::by_name("grpc").unwrap()],
            entities: &entities,
            detector: &detector,
        },
    )
}

fn example(name: &str) -> String {
    let text =
        fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    match text.split_once("  saml:\n") {
        // What this build takes for a fault.
        Some((before, saml)) if cfg!(not(feature = "saml")) => {
            format!("{before}{}", &saml[saml.find("\nconnections:").unwrap()..])
        }
        _ => text,
    }
}

#[test]
fn keyed_operators_work_with_the_key_under_masking() {
    let text = example("full.yaml");
    let config = parse_as(&text, "full.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    let masking = config.masking.unwrap();
    assert!(masking.per_principal, "the safe scope is the default");
    assert!(config.connections.iter().any(|c| c.chain.needs_key()));

    let shared = text.replace(
        "masking: { file: masking.key }",
        "masking: { env: KEY, scope: deployment }",
    );
    assert_ne!(shared, text);
    let config = parse_as(&shared, "full.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    assert!(!config.masking.unwrap().per_principal);

    let answer = text.replace("operator: { keep_last: 4 } }", "operator: vault }");
    assert_ne!(answer, text);
    let faults = parse_as(&answer, "full.yaml").unwrap_err().to_string();
    assert!(
        faults.contains("response.operator: an answer has nothing to be put back from: use `vault` under `request`"),
        "{faults}"
    );

    let idle = text.replace(
        "operator: { vault: { tool_arguments: true, links: true } }",
        "operator: redact",
    );
    let config = parse_as(&idle, "full.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    let warned = config
        .warnings
        .iter()
        .any(|w| w.to_string().contains("no connection's policies use"));
    assert!(warned, "{:?}", config.warnings);
}

#[test]
fn the_examples_are_valid() {
    for name in ["countersign.yaml", "full.yaml"] {
        if let Err(faults) = parse_as(&example(name), name) {
            panic!("{faults}");
        }
    }
}

#[test]
fn the_published_schema_is_current() {
    let path = format!(
        "{}/docs/schema/config.schema.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let current = format!("{:#}\n", json_schema());
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == current,
        "docs/schema/config.schema.json is not current: write what `countersign schema` prints"
    );
}

/// A valid file, short enough to be wrong in one place at a time.
const BASE: &str = r#"listen:
  ext_proc: unix:/run/c.sock
  http: 127.0.0.1:8480
limits: { streams: 10 }
identity:
  issuers:
    - issuer: https://idp.example
      audience: gateway
      algorithms: [RS256]
      claims: [department]
connections:
  - name: openai
    match: { hosts: ["*"], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, file: upstream.key }
    lend_to: { routes: [model] }
    policies: [mask, allow]
policies:
  - name: mask
    when: "true"
    then: { mask: { request: { detectors: [ids, US_SSN] } } }
  - name: allow
    when: '"finance" in principal.groups'
    then: allow
detectors:
  - { entity: EMPLOYEE_ID, regex: 'EMP-\d{6}' }
detector_groups: { ids: [EMPLOYEE_ID] }
audit: { dir: ledger }
"#;

/// Replaces the one place where `from` stands in [`BASE`].
fn with(from: &str, to: &str) -> String {
    assert_eq!(
        BASE.matches(from).count(),
        1,
        "`{from}` is not in the base file once"
    );
    BASE.replace(from, to)
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn faults_of(text: &str) -> Vec<String> {
    parse(text)
        .err()
        .map(|faults| lines(&faults.faults))
        .unwrap_or_default()
}

#[test]
fn what_is_missing_or_of_the_wrong_kind_hides_no_fault_elsewhere() {
    let slips: [(&str, &str, &str); 15] = [
        (
            "  http: 127.0.0.1:8480\n",
            "  http: [8480]\n",
            "listen.http: expected",
        ),
        (
            "limits: { streams: 10 }",
            "limits: { streams: many }",
            "limits.streams: expected",
        ),
        ("limits: { streams: 10 }", "limits: 10", "limits: expected"),
        (
            "      audience: gateway\n",
            "",
            "identity.issuers[0]: `audience` is missing",
        ),
        (
            "      algorithms: [RS256]\n",
            "      algorithms: []\n",
            "identity.issuers[0].algorithms: the list is empty",
        ),
        (
            "      claims: [department]\n",
            "      claims: department\n",
            "identity.issuers[0].claims: expected a list",
        ),
        (
            "    match: { hosts: [\"*\"], path_prefix: /v1/ }\n",
            "",
            "connections[0]: `match` is missing",
        ),
        (
            "    dialect: openai\n",
            "    dialect: 5\n",
            "connections[0].dialect: expected text",
        ),
        (
            "    policies: [mask, allow]\n",
            "",
            "connections[0]: `policies` is missing",
        ),
        (
            "  - name: mask\n    when",
            "  - when",
            "policies[0]: `name` is missing",
        ),
        (
            "    when: \"true\"\n",
            "    when: true\n",
            "policies[0].when: expected text",
        ),
        (
            "    then: allow\n",
            "    then: maybe\n",
            "policies[1].then:",
        ),
        (
            "entity: EMPLOYEE_ID, ",
            "",
            "detectors[0]: `entity` is missing",
        ),
        (
            "detector_groups: { ids: [EMPLOYEE_ID] }",
            "detector_groups: 5",
            "detector_groups: expected",
        ),
        ("audit: { dir: ledger }\n", "", "`audit` is missing"),
    ];
    // Another connection, with a fault that only its meaning has.
    let other = "  - name: second\n    match: { path_prefix: no }\n    dialect: openai\n    endpoints: [models]\n    policies: [allow]\npolicies:\n";
    for (from, to, told) in slips {
        let faults =
            faults_of(&with(from, to).replacen("policies:\n  - ", &format!("{other}  - "), 1));
        let shown = faults.iter().any(|fault| {
            fault
                .split_once(' ')
                .is_some_and(|(_, fault)| fault.starts_with(told))
        });
        let other = faults
            .iter()
            .any(|fault| fault.contains("connections[1].match.path_prefix"));
        assert!(
            shown && other && faults.len() == 2,
            "{from:?} -> {to:?}: {faults:#?}"
        );
    }
}

#[test]
fn the_base_file_is_valid_and_means_what_it_says() {
    let config = parse_as(BASE, "/etc/countersign/config.yaml").unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.listen.ext_proc,
        ExtProc::Unix("/run/c.sock".into(), 0o600)
    );
    assert_eq!(
        config.limits,
        Limits {
            request_body: 10 << 20,
            response_body: 32 << 20,
            memory: 512 << 20,
            memory_per_principal: 256 << 20,
            streams: 10,
            streams_per_principal: 10,
        }
    );
    assert_eq!(
        config.issuers,
        [Issuer {
            rules: IssuerRules {
                issuer: "https://idp.example".to_owned(),
                audiences: vec!["gateway".to_owned()],
                api_audience: None,
                algorithms: vec![Algorithm::Rs256],
                groups_claim: Some("groups".to_owned()),
                claims: vec!["department".to_owned()],
                person_claim: None,
                owner_claim: None,
                clock_skew: Duration::from_secs(30),
                allow_id_tokens: false,
                require_bound_tokens: false,
            },
            keys: Some(KeySource::Discovery { insecure: false }),
            introspection: None,
        }]
    );
    let connection = &config.connections[0];
    assert_eq!(
        connection.credential,
        Some(Credential {
            header: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
            suffix: String::new(),
            source: SecretSource::File("/etc/countersign/upstream.key".into()).into(),
            models: Vec::new(),
        })
    );
    assert_eq!(
        (
            connection.payload,
            connection.durability,
            connection.unscanned
        ),
        (Payload::Masked, Durability::Disk, Unscanned::Refuse)
    );
    assert_eq!(connection.token, TokenHeader::Authorization);
    assert_eq!(config.audit.dir, PathBuf::from("/etc/countersign/ledger"));
    assert_eq!(
        (config.audit.segment, config.audit.spool_cap),
        (64 << 20, 10 << 30)
    );
    let masked: Vec<_> = match &connection.chain.policies()[0].then {
        crate::policy::Effect::Mask(masking) => {
            masking.request.keys().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(masked, ["EMPLOYEE_ID", "US_SSN"]);
}

#[test]
fn what_is_signed_in_answers_passes_unless_the_file_writes_otherwise() {
    for (written, prompts, answers) in [
        ("", Unscanned::Refuse, SignedAnswers::Pass),
        ("unscanned: strip, ", Unscanned::Strip, SignedAnswers::Pass),
        ("signed: allow, ", Unscanned::Allow, SignedAnswers::Pass),
        ("signed: strip, ", Unscanned::Strip, SignedAnswers::Strip),
        (
            "unscanned: allow, signed: refuse, ",
            Unscanned::Refuse,
            SignedAnswers::Refuse,
        ),
    ] {
        let config = parse(&with(
            "dialect: openai",
            &format!("{}dialect: openai", written.replace(", ", "\n    ")),
        ))
        .unwrap();
        let connection = &config.connections[0];
        let signed = connection.fields.signed_answers;
        assert_eq!((connection.signed, signed), (prompts, answers), "{written}");
    }
}

#[test]
fn the_digest_is_that_of_the_bytes_of_the_file() {
    // printf abc | sha256sum, behind a comment sign: what counts is the text, not what it means.
    let one = parse(BASE).unwrap().digest;
    let other = parse(&format!("{BASE}# a comment\n")).unwrap().digest;
    assert_ne!(one, other);
    use sha2::{Digest, Sha256};
    assert_eq!(one, <[u8; 32]>::from(Sha256::digest(BASE.as_bytes())));
}

#[test]
fn what_is_wrong_with_a_file() {
    let cases: &[(&str, &str, &[&str])] = &[
        // structure
        (
            "  http: 127",
            "  htp: 127",
            &["3: listen: unknown key `htp` (did you mean `http`?)"],
        ),
        ("audit: { dir: ledger }", "", &["1: `audit` is missing"]),
        (
            "audit: { dir: ledger }",
            "audit:",
            &["29: audit: expected a mapping, found nothing"],
        ),
        (
            "{ streams: 10 }",
            "{ streams: ten }",
            &["4: limits.streams: expected a whole number, found text"],
        ),
        (
            "{ streams: 10 }",
            "{ streams: 0 }",
            &["4: limits.streams: must be at least 1"],
        ),
        (
            "{ streams: 10 }",
            "{ streams: 10.5 }",
            &["4: limits.streams: expected a whole number, found a number"],
        ),
        (
            "{ streams: 10 }",
            "[]",
            &["4: limits: expected a mapping, found a list"],
        ),
        (
            "[RS256]",
            "[]",
            &["9: identity.issuers[0].algorithms: the list is empty; it needs at least one entry"],
        ),
        (
            "      audience: gateway\n",
            "",
            &["7: identity.issuers[0]: `audience` is missing"],
        ),
        (
            "dir: ledger",
            "dir: 7",
            &["29: audit.dir: expected text, found a number; put it in quotes"],
        ),
        (
            "    dialect: openai",
            "    payload: sealed\n    dialect: openai",
            &[
                "14: connections[0].payload: nobody could read what is sealed: name auditors' keys under `sealing`",
            ],
        ),
        (
            "    dialect: openai",
            "    payload: mask\n    dialect: openai",
            &[
                "14: connections[0].payload: must be `masked`, `masked+sealed`, `sealed`, `omit` (did you mean `masked`?)",
            ],
        ),
        (
            "    dialect: openai",
            "    durability: kafka\n    dialect: openai",
            &[
                "14: connections[0].durability: `kafka` needs brokers: say where they are under `audit.kafka`",
            ],
        ),
        (
            "    dialect: openai",
            "    token: x-api-ky\n    dialect: openai",
            &[
                "14: connections[0].token: must be `authorization`, `x-api-key`, `api-key`, `x-goog-api-key` (did you mean `x-api-key`?)",
            ],
        ),
        (
            "file: upstream.key",
            "query: key",
            &[
                "16: connections[0].credential: `query` is not a key here: a credential in the query ends up in access logs and histories; send it in a `header`",
                "16: connections[0].credential: say where the secret is: `file`, `env`, `vault` or `oauth2`",
            ],
        ),
        (
            "file: upstream.key",
            "value: sk-1",
            &[
                "16: connections[0].credential: `value` is not a key here: a secret does not belong in this file; name a `file` or an `env` variable that holds it",
                "16: connections[0].credential: say where the secret is: `file`, `env`, `vault` or `oauth2`",
            ],
        ),
        (
            "then: allow",
            "then: deny",
            &["25: policies[1].then: `deny` needs a reason: `then: { deny: { reason: … } }`"],
        ),
        (
            "then: allow",
            "then: { deny: {} }",
            &["25: policies[1].then.deny: `reason` is missing"],
        ),
        (
            "[ids, US_SSN] }",
            "[US_SSN], operator: rot13 }",
            &[
                "22: policies[0].then.mask.request.operator: must be `replace`, `redact`, `hash`, `tokenize`, `vault`",
            ],
        ),
        (
            "[ids, US_SSN] }",
            "[US_SSN], operator: hash }",
            &[
                "22: policies[0].then.mask.request.operator: `hash` needs a key: say where it is under `masking`",
            ],
        ),
        (
            "[ids, US_SSN] }",
            "[US_SSN], operator: { vault: { links: true } } }",
            &[
                "22: policies[0].then.mask.request.operator: `vault` needs a key: say where it is under `masking`",
            ],
        ),
        (
            "[ids, US_SSN] }",
            "[US_SSN], operator: { keep_last: 20 } }",
            &["22: policies[0].then.mask.request.operator.keep_last: must be at most 8"],
        ),
        // YAML
        (
            "  http: 127.0.0.1:8480",
            "  ext_proc: unix:/run/d.sock",
            &["3: listen.ext_proc: `ext_proc` is written twice, first on line 2"],
        ),
        (
            "{ dir: ledger }",
            "&a { dir: ledger }",
            &["29: audit: anchors (`&name`) are not supported"],
        ),
        (
            "{ dir: ledger }",
            "{ <<: {}, dir: ledger }",
            &["29: audit.<<: merge keys (`<<`) are not supported; write the keys out"],
        ),
        (
            "dir: ledger",
            "dir: !x ledger",
            &["29: audit.dir: tags (`!name`) are not supported"],
        ),
        (
            "audit: { dir: ledger }\n",
            "audit: { dir: ledger }\n---\na: 1\n",
            &["30: the file holds more than one document"],
        ),
        // listeners
        (
            "http: 127.0.0.1:8480",
            "http: 0.0.0.0:8480",
            &[
                "3: listen.http: listens beyond loopback without TLS; use 127.0.0.1, give it `tls: { cert, key }`, or say `insecure: true`",
            ],
        ),
        (
            "http: 127.0.0.1:8480",
            "http: localhost",
            &[
                "3: listen.http: not an address; write an IP and a port, as in `127.0.0.1:8480` or `[::1]:8480`",
            ],
        ),
        (
            "unix:/run/c.sock",
            "/run/c.sock",
            &[
                "2: listen.ext_proc: write `unix:/run/countersign/ext_proc.sock` or `tcp:127.0.0.1:9000`",
            ],
        ),
        (
            "unix:/run/c.sock",
            "tcp:127.0.0.1:9000",
            &[
                "2: listen.ext_proc: a `tcp:` address needs `tls: { cert, key, client_ca }`, or `insecure: true`",
            ],
        ),
        (
            "unix:/run/c.sock",
            "{ address: tcp:127.0.0.1:9000, tls: { cert: a, key: b } }",
            &[
                "2: listen.ext_proc.tls: `client_ca` is missing: whoever reaches this port with a valid token could read the lent credentials",
            ],
        ),
        (
            "unix:/run/c.sock",
            "{ address: tcp:127.0.0.1:9000, tls: { cert: a, key: b, client_ca: c, client_names: [] } }",
            &[
                "2: listen.ext_proc.tls.client_names: lists nobody; leave it out if any certificate that `client_ca` signed will do",
            ],
        ),
        (
            "http: 127.0.0.1:8480",
            "http: { address: 0.0.0.0:8480, tls: { cert: a, key: b, client_names: [\"*.example.org\"] } }",
            &[
                "3: listen.http.tls.client_names: without `client_ca` no client is asked for a certificate",
                "3: listen.http.tls.client_names[0]: write a DNS name or a URI in full, as in `envoy.example.org` or `spiffe://example.org/envoy`",
            ],
        ),
        (
            "unix:/run/c.sock",
            "{ address: tcp:127.0.0.1:8480, insecure: true }",
            &["3: listen.http: the address is already that of `ext_proc`"],
        ),
        // limits
        (
            "{ streams: 10 }",
            "{ request_body: 10MB }",
            &[
                "4: limits.request_body: not a size; write a whole number with B, KiB, MiB, GiB or TiB, as in `10MiB`",
            ],
        ),
        (
            "{ streams: 10 }",
            "{ request_body: 2GiB }",
            &["4: limits.request_body: must be between 1KiB and 1GiB"],
        ),
        (
            "{ streams: 10 }",
            "{ memory: 16MiB }",
            &[
                "4: limits.memory: must hold one body 3 times, as it is received, forwarded and recorded: 96MiB or more",
            ],
        ),
        (
            "{ streams: 10 }",
            "{ memory_per_principal: 1GiB }",
            &["4: limits.memory_per_principal: must be between 96MiB and 512MiB"],
        ),
        (
            "{ streams: 10 }",
            "{ streams: 10, streams_per_principal: 11 }",
            &["4: limits.streams_per_principal: must be at most `streams`, which is 10"],
        ),
        // identity
        (
            "https://idp.example",
            "http://idp.example",
            &[
                "7: identity.issuers[0].issuer: must be an https URL; http is accepted on loopback only",
            ],
        ),
        (
            "audience: gateway",
            "audience: []",
            &[
                "8: identity.issuers[0].audience: the audience is mandatory: tokens made for others must not count here",
            ],
        ),
        (
            "[RS256]",
            "[RS256, HS256]",
            &[
                "9: identity.issuers[0].algorithms[1]: `HS256` is not accepted: only asymmetric signatures prove who signed; use RS256, PS256, ES256 or EdDSA",
            ],
        ),
        (
            "[RS256]",
            "[nOnE]",
            &[
                "9: identity.issuers[0].algorithms[0]: `nOnE` is not accepted: only asymmetric signatures prove who signed; use RS256, PS256, ES256 or EdDSA",
            ],
        ),
        (
            "[RS256]",
            "[RS265]",
            &[
                "9: identity.issuers[0].algorithms[0]: unknown algorithm `RS265` (did you mean `RS256`?)",
            ],
        ),
        (
            "[department]",
            "[a]\n      clock_skew: 30",
            &[
                "11: identity.issuers[0].clock_skew: not a duration; write a whole number with ms, s, m, h or d, as in `30s`",
            ],
        ),
        (
            "[department]",
            "[a]\n      clock_skew: 10m",
            &["11: identity.issuers[0].clock_skew: must be at most 5m"],
        ),
        (
            "[department]",
            "[a]\n      jwks: {}",
            &[
                "11: identity.issuers[0].jwks: say where the keys are: exactly one of `file` and `url`",
            ],
        ),
        (
            "[department]",
            "[a]\n      introspection: { client_id: gateway, client_secret: {} }",
            &[
                "11: identity.issuers[0].introspection.client_secret: say where the secret is: `file` or `env`",
            ],
        ),
        (
            "[department]",
            "[a]\n      introspection: { client_id: '', url: 'http://idp.example/i', client_secret: { env: S } }",
            &[
                "11: identity.issuers[0].introspection.client_id: name the client that asks",
                "11: identity.issuers[0].introspection.url: must be an https URL; http is accepted on loopback only",
            ],
        ),
        (
            "[department]",
            "[a]\n      introspection: { client_id: gateway, client_secret: hunter2 }",
            &[
                "11: identity.issuers[0].introspection.client_secret: expected a mapping, found text",
            ],
        ),
        (
            "[department]\n",
            "[a]\n      introspection: { client_id: a, client_secret: { env: S } }\n    - { issuer: https://b.example, audience: x, algorithms: [ES256], introspection: { client_id: a, client_secret: { env: S } } }\n",
            &[
                "12: identity.issuers[1].introspection: an opaque token does not say whose it is, so one issuer can be asked about them: identity.issuers[0] is",
            ],
        ),
        (
            "connections:\n",
            "    - { issuer: https://idp.example, audience: x, algorithms: [ES256] }\nconnections:\n",
            &[
                "11: identity.issuers[1].issuer: the issuer is already defined as identity.issuers[0]",
            ],
        ),
        // connections
        (
            "dialect: openai",
            "dialect: opnai",
            &["14: connections[0].dialect: unknown dialect `opnai` (did you mean `openai`?)"],
        ),
        (
            "[chat_completions]",
            "[chat_completion]",
            &[
                "15: connections[0].endpoints[0]: dialect `openai` has no endpoint `chat_completion` (did you mean `chat_completions`?)",
            ],
        ),
        (
            "    lend_to: { routes: [model] }\n",
            "",
            &[
                "16: connections[0].credential: the credential is lent to no one: name Envoy's routes or clusters under `lend_to`",
            ],
        ),
        (
            "{ routes: [model] }",
            "{ routes: [] }",
            &[
                "17: connections[0].lend_to: the credential is lent to no one: name Envoy's routes or clusters under `lend_to`",
            ],
        ),
        (
            "file: upstream.key",
            "file: a, env: B",
            &["16: connections[0].credential: name one of `file`, `env`, `vault` and `oauth2`"],
        ),
        (
            "{ routes: [model] }",
            "{ routes: [model], clusters: [\"\"] }",
            &["17: connections[0].lend_to.clusters[0]: the name is empty"],
        ),
        (
            ", file: upstream.key",
            "",
            &[
                "16: connections[0].credential: say where the secret is: `file`, `env`, `vault` or `oauth2`",
            ],
        ),
        (
            "header: authorization,",
            "header: cookie,",
            &["16: connections[0].credential.header: `cookie` cannot carry a credential"],
        ),
        (
            "header: authorization,",
            "header: authorization, format: Bearer,",
            &[
                "16: connections[0].credential.format: the format is visible ASCII with `{}` in it once, where the secret goes: `Bearer {}`",
            ],
        ),
        (
            "[\"*\"]",
            "[\"https://a.example\"]",
            &[
                "13: connections[0].match.hosts[0]: not a host; write `api.example.com`, `*.example.com` or `*`, without scheme or path",
            ],
        ),
        (
            "/v1/",
            "/v1/../x",
            &[
                "13: connections[0].match.path_prefix: the path is not normal: Envoy removes `//`, `.` and `..` before it is matched",
            ],
        ),
        (
            "policies:\n  - name: mask",
            "  - { name: openai, match: { path_prefix: /v2 }, dialect: openai, endpoints: [models], policies: [allow] }\npolicies:\n  - name: mask",
            &["19: connections[1].name: `openai` is already the name of connections[0]"],
        ),
        (
            "policies:\n  - name: mask",
            "  - { name: b, match: { hosts: [a.example], path_prefix: /v1/x }, dialect: openai, endpoints: [models], policies: [allow] }\npolicies:\n  - name: mask",
            &[
                "19: connections[1].match: never reached: `openai` (connections[0]) takes all its requests first; put this one before",
            ],
        ),
        // chains
        (
            "[mask, allow]",
            "[msk, allow]",
            &["18: connections[0].policies[0]: unknown policy `msk` (did you mean `mask`?)"],
        ),
        (
            "[mask, allow]",
            "[mask, mask, allow]",
            &[
                "18: connections[0].policies[1]: policy `mask` is in this chain already, at position 0",
            ],
        ),
        (
            "'\"finance\" in principal.groups'\n    then: allow",
            "size(\"x\") == 1\n    then: allow\n  - { name: late, when: request.stream, then: allow }",
            &[],
        ),
        (
            "  - name: allow",
            "  - name: mask",
            &[
                "18: connections[0].policies[1]: unknown policy `allow`",
                "23: policies[1].name: `mask` is already the name of policies[0]",
            ],
        ),
        (
            "then: allow",
            "then: { allow: {}, deny: { reason: x } }",
            &[
                "25: policies[1].then: one policy has one effect: `allow`, `allow_upgrade`, `deny`, `mask` or `require_approval`; make it two policies",
            ],
        ),
        (
            "then: allow",
            "then: { deny: { reason: \"\" } }",
            &["25: policies[1].then.deny.reason: a reason is one line of 1 to 200 characters"],
        ),
        (
            "{ request: { detectors: [ids, US_SSN] } }",
            "{}",
            &["22: policies[0].then.mask: say where to mask: `request`, `response` or both"],
        ),
        // what stands beside a fault of shape is looked at too
        (
            "[ids, US_SSN] }",
            "[ids, EMAIL], operator: tokenise }",
            &[
                "22: policies[0].then.mask.request.detectors[1]: unknown detector `EMAIL`: neither an entity nor a group of `detector_groups` (did you mean `EMAIL_ADDRESS`?)",
                "22: policies[0].then.mask.request.operator: must be `replace`, `redact`, `hash`, `tokenize`, `vault` (did you mean `tokenize`?)",
            ],
        ),
        // conditions
        (
            "principal.groups",
            "principal.group",
            &["24:34: policies[1].when: `principal` has no field `group` (did you mean `groups`?)"],
        ),
        (
            "'\"finance\" in principal.groups'",
            "request.model &&",
            &["24:27: policies[1].when: not a valid CEL expression: unexpected the end"],
        ),
        (
            "'\"finance\" in principal.groups'",
            "request.size > 5",
            &[
                "24:18: policies[1].when: `request` has no field `size`; it has `method`, `authority`, `path`, `endpoint`, `model`, `stream`, `tools`, `body_bytes`",
            ],
        ),
        (
            "'\"finance\" in principal.groups'",
            "|\n      request.stream\n        && request.modle == \"a\"",
            &["26:19: policies[1].when: `request` has no field `modle` (did you mean `model`?)"],
        ),
        (
            "'\"finance\" in principal.groups'",
            ">\n      request.stream\n      && request.modle == \"a\"",
            &[
                "25: policies[1].when: `request` has no field `modle`, at line 1, column 26 of the text (did you mean `model`?)",
            ],
        ),
        (
            "'\"finance\" in principal.groups'",
            "findings.EMPLOYE_ID > 0 || principal.claims.departmnt == \"a\"",
            &[
                "24:19: policies[1].when: unknown entity `EMPLOYE_ID`: no detector finds it (did you mean `EMPLOYEE_ID`?)",
                "24:54: policies[1].when: claim `departmnt` is not listed under `claims` of any issuer (did you mean `department`?)",
            ],
        ),
        // detectors
        (
            "[ids, US_SSN]",
            "[idz, US_SSM]",
            &[
                "22: policies[0].then.mask.request.detectors[0]: unknown detector `idz`: neither an entity nor a group of `detector_groups` (did you mean `ids`?)",
                "22: policies[0].then.mask.request.detectors[1]: unknown detector `US_SSM`: neither an entity nor a group of `detector_groups` (did you mean `US_SSN`?)",
            ],
        ),
        (
            "{ ids: [EMPLOYEE_ID] }",
            "{ ids: [EMPLOYE_ID] }",
            &[
                "28: detector_groups.ids[0]: unknown entity `EMPLOYE_ID`: no detector finds it (did you mean `EMPLOYEE_ID`?)",
            ],
        ),
        (
            "{ ids: [EMPLOYEE_ID] }",
            "{ ids: [EMPLOYEE_ID], US_SSN: [US_SSN] }",
            &[
                "28: detector_groups.US_SSN: `US_SSN` is an entity; choose another name for the group",
            ],
        ),
        (
            "'EMP-\\d{6}'",
            "'EMP-('",
            &["27: detectors[0].regex: not a valid pattern"],
        ),
        (
            "  - { entity: EMPLOYEE_ID",
            "  - { entity: US_SSN, regex: x }\n  - { entity: EMPLOYEE_ID",
            &["27: detectors[0].entity: `US_SSN` is built in; choose another name"],
        ),
        (
            "regex: 'EMP-\\d{6}'",
            "json_path: '$.people[?@.id]'",
            &["27: detectors[0].json_path: filters are not supported, at character 10"],
        ),
        (
            "regex: 'EMP-\\d{6}'",
            "regex: 'EMP-\\d{6}', json_path: $.id",
            &["27: detectors[0]: name `regex` or `json_path`, not both"],
        ),
        (
            ", regex: 'EMP-\\d{6}'",
            "",
            &[
                "27: detectors[0]: say what its values look like, `regex`, or where they stand, `json_path`",
            ],
        ),
        (
            "regex: 'EMP-\\d{6}'",
            "json_path: $.id, context: [id]",
            &[
                "27: detectors[0].context: where a value stands tells what it is: `context` goes with `regex`",
            ],
        ),
        (
            "    dialect: openai\n",
            "    dialect: openai\n    fields: ['$.text', 'text']\n",
            &[
                "15: connections[0].fields: only the dialects `json` and `grpc` have fields to choose from: the others know where text is",
                "15: connections[0].fields[1]: a path begins with `$`, at character 1",
            ],
        ),
        // audit
        (
            "dir: ledger",
            "dir: ledger, segment: 6GiB",
            &["29: audit.segment: must be between 1MiB and 4GiB"],
        ),
        (
            "dir: ledger",
            "dir: ledger, spool_cap: 100MiB",
            &["29: audit.spool_cap: must hold at least two segments: 128MiB or more"],
        ),
        (
            "dir: ledger",
            "dir: ledger, kafka: { brokers: [b], options: { acks: 0, sasl.password: x } }",
            &[
                "29: audit.kafka.brokers[0]: not a broker; write `host:port`",
                "29: audit.kafka.options.acks: `acks` is set by the program, because delivery rests on it",
                "29: audit.kafka.options.sasl.password: `sasl.password` is a secret; put it under `secrets`, from a `file` or an `env` variable",
            ],
        ),
        (
            "dir: ledger",
            "dir: ledger, checkpoint_webhooks: [{ url: witness }, { url: 'https://a:b@w' }, { url: 'http://w', token: { env: T } }]",
            &[
                "29: audit.checkpoint_webhooks[0].url: not a URL; write `https://HOST/PATH`",
                "29: audit.checkpoint_webhooks[1].url: a URL shows in logs; put what is secret under `token`",
                "29: audit.checkpoint_webhooks[2].url: a token must not go over `http://`",
            ],
        ),
        (
            "dir: ledger",
            "dir: ledger, retention: { age: 1h, at_least: soon }",
            &[
                "29: audit.retention.at_least: not a duration; write a whole number with ms, s, m, h or d, as in `30s`",
            ],
        ),
        (
            "dir: ledger",
            "dir: ledger, retention: { age: 25h, size: 1B }",
            &["29: audit.retention.size: must be between 1MiB and 1024TiB"],
        ),
        (
            "dir: ledger",
            "dir: ledger, retention: { age: 1h }",
            &["29: audit.retention.age: must not be shorter than `at_least`"],
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(faults_of(&with(from, to)), *expected, "`{from}` -> `{to}`");
    }
}

#[test]
fn a_rule_behind_an_unconditional_verdict_is_a_fault() {
    let text = with("[mask, allow]", "[mask, always, allow]").replace(
        "detectors:\n  - {",
        "  - { name: always, when: '1 == 1 || request.stream', then: allow }\ndetectors:\n  - {",
    );
    assert_eq!(
        faults_of(&text),
        [
            "18: connections[0].policies[2]: policy `allow` is never reached: `always` always ends the chain",
        ]
    );
}

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    let text = BASE
        .replace("127.0.0.1:8480", "0.0.0.0:8480")
        .replace("[RS256]", "[HS256]")
        .replace("dialect: openai", "dialect: opnai")
        .replace("[mask, allow]", "[mask, alow]")
        .replace("principal.groups", "principal.group")
        .replace("[EMPLOYEE_ID] }", "[EMPLOYE_ID] }")
        .replace("dir: ledger", "dir: ledger, segment: 1TiB");
    let faults = parse(&text).unwrap_err();
    assert_eq!(
        faults
            .faults
            .iter()
            .map(|fault| fault.line)
            .collect::<Vec<_>>(),
        [3, 9, 14, 18, 24, 28, 29]
    );
    assert!(
        faults
            .to_string()
            .lines()
            .all(|line| line.starts_with("config.yaml:"))
    );
}

#[test]
fn a_yes_is_not_a_bool_and_the_fault_says_what_is() {
    assert_eq!(
        faults_of(&with("[department]", "[a]\n      allow_id_tokens: yes")),
        [
            "11: identity.issuers[0].allow_id_tokens: expected true or false, found text; write `true` or `false`",
        ]
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated_in_the_fault() {
    for (from, to) in [
        ("audience: gateway", "audience: { token: sk-secret }"),
        ("{ streams: 10 }", "{ streams: sk-secret }"),
        ("file: upstream.key", "value: sk-secret"),
        (
            "dir: ledger",
            "dir: ledger, kafka: { brokers: [a:1], options: { sasl.password: sk-secret } }",
        ),
        ("\"*\"", "\"sk-secret@a/b\""),
        ("https://idp.example", "https://user:sk-secret@idp.example"),
    ] {
        let faults = faults_of(&with(from, to));
        assert!(
            !faults.is_empty() && !faults.concat().contains("sk-secret"),
            "{faults:?}"
        );
    }
}

#[test]
fn what_is_allowed_but_probably_not_meant() {
    for (from, to, expected) in [
        (
            "[mask, allow]",
            "[allow]",
            "20: policies[0].name: policy `mask` is in no connection's chain",
        ),
        (
            "[mask, allow]",
            "[mask]",
            "18: connections[0].policies: no policy of this chain allows anything: every request is denied",
        ),
        (
            "    credential: { header: authorization, file: upstream.key }\n",
            "",
            "16: connections[0].lend_to: there is no `credential` to lend",
        ),
        (
            "'\"finance\" in principal.groups'",
            "1 > 2",
            "24: policies[1].when: the condition never holds",
        ),
        (
            "'\"finance\" in principal.groups'",
            "principal.claims.department == \"a\"",
            "24: policies[1].when: a caller without `principal.claims.department` is denied here; ask `has(principal.claims.department)` first",
        ),
        (
            "http: 127.0.0.1:8480",
            "http: { address: 0.0.0.0:8480, insecure: true }",
            "3: listen.http: insecure: the API, without TLS, is reachable from other machines",
        ),
        (
            "ext_proc: unix:/run/c.sock",
            "ext_proc: { address: tcp:127.0.0.1:9000, insecure: true }",
            "2: listen.ext_proc: insecure: whoever reaches this port with a valid token can read the lent credentials",
        ),
        (
            "[department]",
            "[department]\n      allow_id_tokens: true",
            "11: identity.issuers[0].allow_id_tokens: ID tokens prove a login to a client, not leave to call this gateway; prefer access tokens",
        ),
    ] {
        let warnings = parse(&with(from, to))
            .unwrap_or_else(|faults| panic!("{faults}"))
            .warnings;
        assert!(
            lines(&warnings).iter().any(|line| line == expected),
            "{:?}",
            lines(&warnings)
        );
    }
}

#[test]
fn the_first_connection_that_matches_is_taken() {
    let connection = |name: &str, hosts: &str, prefix: &str| {
        format!(
            "  - {{ name: {name}, match: {{ hosts: [{hosts}], path_prefix: {prefix} }}, dialect: openai, endpoints: [chat_completions], policies: [mask, allow] }}\n"
        )
    };
    let connections = [
        connection("port", "\"a.example:8443\"", "/"),
        connection("deep", "a.example", "/v1/deep"),
        connection("exact", "a.example", "/v1/"),
        connection("under", "\"*.example\"", "/v1"),
        connection("rest", "\"*\"", "/rest"),
    ];
    let start = BASE.find("connections:\n").unwrap() + "connections:\n".len();
    let end = BASE.find("policies:\n  - name: mask").unwrap();
    let config = parse(&format!(
        "{}{}{}",
        &BASE[..start],
        connections.concat(),
        &BASE[end..]
    ))
    .unwrap();
    for (authority, path, expected) in [
        ("a.example", "/v1/chat/completions", Some("exact")),
        ("A.Example.", "/v1/chat/completions", Some("exact")),
        ("a.example:443", "/v1/chat/completions", Some("exact")),
        ("a.example:8443", "/v1/chat/completions", Some("port")),
        ("a.example", "/v1/deep/x", Some("deep")),
        ("a.example", "/v1/deeper", Some("exact")),
        ("b.example", "/v1", Some("under")),
        ("b.example", "/v10", None),
        ("example", "/v1/x", None),
        ("other", "/rest/x", Some("rest")),
        ("[::1]:80", "/rest", Some("rest")),
        ("other", "/", None),
        ("other:port", "/rest", None),
    ] {
        let found = config
            .connections
            .iter()
            .find(|connection| connection.route.matches(authority, path))
            .map(|connection| connection.name.as_str());
        assert_eq!(found, expected, "{authority} {path}");
    }
}

#[test]
fn an_endpoint_is_a_method_and_a_whole_path() {
    let config = parse(BASE).unwrap();
    let connection = &config.connections[0];
    let endpoint = |method, path| {
        connection
            .route
            .endpoint(method, path)
            .map(|endpoint| endpoint.name)
    };
    assert_eq!(
        endpoint("POST", "/v1/chat/completions"),
        Some("chat_completions")
    );
    assert_eq!(endpoint("GET", "/v1/chat/completions"), None);
    assert_eq!(endpoint("POST", "/v1/chat/completions/"), None);
    assert_eq!(endpoint("POST", "/v1/chat/completions/x"), None);
    assert_eq!(endpoint("POST", "/chat/completions"), None);
    assert_eq!(
        endpoint("GET", "/v1/models"),
        None,
        "the dialect has it, the connection does not allow it"
    );
}

#[test]
fn a_credential_is_lent_to_named_routes_and_clusters_only() {
    let config = parse(&with(
        "{ routes: [model] }",
        "{ routes: [model], clusters: [canary] }",
    ))
    .unwrap();
    let lends = |route, cluster| config.connections[0].route.may_lend(route, cluster);
    assert!(lends("model", "") && lends("", "canary") && lends("model", "other"));
    assert!(!lends("", "") && !lends("canary", "model") && !lends("other", "other"));
}

#[test]
fn what_a_file_names_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml").display().to_string();
    let config = parse_as(BASE, &file).unwrap();
    let missing = lines(&config.missing());
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].starts_with("16: connections[0].credential.file: cannot open `"),
        "{missing:?}"
    );
    assert!(missing[0].contains("upstream.key"));
    fs::write(dir.path().join("upstream.key"), "sk-1\n").unwrap();
    assert_eq!(config.missing(), []);
    let text = with("file: upstream.key", "env: COUNTERSIGN_TEST_NEVER_SET");
    assert_eq!(
        lines(&parse_as(&text, &file).unwrap().missing()),
        [
            "16: connections[0].credential.env: the environment variable `COUNTERSIGN_TEST_NEVER_SET` is not set",
        ]
    );
}

#[test]
fn a_file_over_its_bounds_is_refused() {
    assert_eq!(
        faults_of(&format!("{BASE}#{}", "x".repeat(MAX_BYTES))),
        ["1: the file is larger than 1048576 bytes"]
    );
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(
        faults_of(&deep)[0].contains("nested more than 32 deep"),
        "{:?}",
        faults_of(&deep)
    );
    let deeper = format!("a: {}", "[".repeat(100_000));
    assert_eq!(faults_of(&deeper).len(), 1);
    let many = format!("a: [{}]", "1,".repeat(200_000));
    assert!(
        faults_of(&many)[0].contains("more than 100000 values"),
        "{:?}",
        faults_of(&many)
    );
}

/// Every key there is, by the schema.
fn every_key() -> std::collections::BTreeSet<String> {
    fn keys(schema: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        if let Some(properties) = schema
            .get("properties")
            .and_then(serde_json::Value::as_object)
        {
            for (key, property) in properties {
                let described = property.get("description").is_some();
                assert!(described, "`{key}` has no comment");
                found.insert(key.clone());
            }
        }
        match schema {
            serde_json::Value::Object(fields) => {
                fields.values().for_each(|field| keys(field, found))
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let mut found = std::collections::BTreeSet::new();
    keys(json_schema(), &mut found);
    found
}

#[test]
fn every_key_stands_in_the_example_that_says_so() {
    let full = example("full.yaml");
    // What stands beside a key that it excludes, and the long form of what is written short.
    let absent: Vec<_> = every_key()
        .into_iter()
        .filter(|key| !full.contains(&format!("{key}:")))
        .collect();
    assert_eq!(absent, Vec::<String>::new());
}

#[test]
fn every_key_is_described() {
    let found = every_key();
    let reference =
        fs::read_to_string(format!("{}/docs/config.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let absent: Vec<_> = found
        .iter()
        .filter(|key| !reference.contains(&format!("`{key}`")))
        .collect();
    assert!(
        found.len() > 60 && absent.is_empty(),
        "docs/config.md does not describe {absent:?}"
    );
}

/// Cuts, doubles and swaps pieces of a valid file.
fn mutated() -> impl Strategy<Value = String> {
    let sources = [BASE.to_owned(), example("full.yaml")];
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}:,&*!|>'\"#%@`\\-? \n\t]{1,4}",
        "(null|true|~|0x1|1e9|<<|\\*a|---|\\.\\.\\.|[|]2\n|: |\n  )",
        "\\PC{1,3}",
    ];
    (
        0..sources.len(),
        prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece), 1..6),
    )
        .prop_map(move |(source, edits)| {
            let mut text: Vec<char> = sources[source].chars().collect();
            for (at, length, piece) in edits {
                let start = at.index(text.len());
                let end = (start + length).min(text.len());
                text.splice(start..end, piece.chars());
                if text.is_empty() {
                    text.push('a');
                }
            }
            text.into_iter().collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, it ends in a configuration or in faults whose lines are lines of the file.
    #[test]
    fn any_file_is_understood_or_at_fault(text in mutated()) {
        if let Err(faults) = parse(&text) {
            prop_assert!(!faults.faults.is_empty());
            let last = text.split('\n').count() + 1;
            for fault in &faults.faults {
                prop_assert!((1..=last).contains(&fault.line), "{fault} in {last} lines");
                prop_assert_eq!(fault.to_string().lines().count(), 1);
            }
        }
    }
}
