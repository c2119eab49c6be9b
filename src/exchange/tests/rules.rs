//! The rules exchanges are tested under, and who calls.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

use crate::{
    audit::seal::AuditorSecret,
    config::{self, Config},
    exchange::{Admission, Approvals, Budget, Connection, Limits, Plans, Rules},
    identity::{Grant, Kind, Principal, Scope, TokenError, testing},
    runtime::{clock::Clock, lending::Sources, snapshot},
};

/// What the upstream's credential is; in no answer and no record, ever.
pub(crate) const LENT: &str = "sk-lent-0123456789abcdef0123";

const CONFIG: &str = r#"
listen: { ext_proc: "unix:/tmp/unused.sock", http: "127.0.0.1:0" }
identity:
  issuers: [{ issuer: "https://idp.example", audience: a, algorithms: [RS256], claims: [level] }]
connections:
  - name: plain
    match: { hosts: [plain.example], path_prefix: /v1/ }
    token: api-key
    dialect: openai
    endpoints: [chat_completions]
    policies: [allow-staff]
    payload: omit
    unscanned: refuse
  - name: vaulted
    match: { hosts: [vault.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    policies: [keep-personal, hash-mail, allow-staff]
  - name: anthropic
    match: { hosts: [claude.example], path_prefix: /v1/ }
    token: x-api-key
    dialect: anthropic
    endpoints: [messages]
    policies: [mask-personal, allow-staff]
    unscanned: strip
    signed: allow
  - name: gemini
    match: { hosts: [gemini.example], path_prefix: /v1beta/ }
    token: x-goog-api-key
    dialect: gemini
    endpoints: [generate_content, stream_generate_content]
    policies: [mask-personal, mask-tickets, allow-staff]
  - name: kserve
    match: { hosts: [kserve.example] }
    dialect: kserve
    endpoints: [model_infer, model_stream_infer]
    policies: [one-llama, mask-personal, allow-staff]
  - name: sealed
    match: { hosts: [sealed.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, format: "Bearer {}", file: "SECRET" }
    lend_to: { routes: [model], clusters: [canary] }
    policies: [block-interns, mask-personal, allow-staff]
    payload: sealed
  - name: both
    match: { hosts: [both.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, format: "Bearer {}", file: "SECRET" }
    lend_to: { routes: [model], clusters: [canary] }
    policies: [mask-personal, allow-staff]
    payload: masked+sealed
  - name: held
    match: { hosts: [held.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, format: "Bearer {}", file: "SECRET" }
    lend_to: { routes: [model], clusters: [canary] }
    policies: [ask-for-ssn, mask-personal, allow-staff]
  - name: deferred
    match: { hosts: [deferred.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, format: "Bearer {}", file: "SECRET" }
    lend_to: { routes: [model], clusters: [canary] }
    policies: [ask-always, allow-staff]
    unscanned: allow
  - name: sockets
    match: { hosts: [sockets.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    policies: [block-interns, sockets, allow-staff]
  - name: odd
    match: { hosts: [odd.example], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    policies: [cleared-only, allow-staff]
  - name: openai
    match: { hosts: ["*"], path_prefix: /v1/ }
    dialect: openai
    endpoints: [chat_completions]
    credential: { header: authorization, format: "Bearer {}", file: "SECRET" }
    lend_to: { routes: [model], clusters: [canary] }
    policies: [block-interns, mask-personal, allow-staff]
policies:
  - name: sockets
    when: 'request.endpoint == "websocket"'
    then: { allow_upgrade: websocket }
  - name: block-interns
    when: '"interns" in principal.groups'
    then: { deny: { reason: interns may not use this model } }
  - name: ask-for-ssn
    when: "'US_SSN' in findings"
    then: { require_approval: { approvers: [{ group: security }], expires: 10m, wait: hold, max_hold: 45s, reasons: [an SSN in the prompt], break_glass: [incident] } }
  - name: ask-always
    when: "true"
    then: { require_approval: { approvers: [{ group: security }, { group: legal }], expires: 5m, wait: caller, max_hold: 45s, reasons: [everything is looked at] } }
  - name: cleared-only
    when: principal.claims.level > 3
    then: { deny: { reason: too cleared } }
  - name: keep-personal
    when: "true"
    then: { mask: { request: { detectors: [US_SSN], operator: vault }, response: { detectors: [US_SSN, CREDIT_CARD] } } }
  - name: hash-mail
    when: "true"
    then: { mask: { request: { detectors: [EMAIL_ADDRESS], operator: hash } } }
  - name: mask-personal
    when: "true"
    then:
      mask:
        request: { detectors: [US_SSN, CREDIT_CARD, EMAIL_ADDRESS, IP_ADDRESS, PHONE_NUMBER, IBAN_CODE, AWS_ACCESS_KEY], operator: replace }
        response: { detectors: [US_SSN, CREDIT_CARD, EMAIL_ADDRESS, IP_ADDRESS, PHONE_NUMBER, IBAN_CODE, AWS_ACCESS_KEY], operator: replace }
        exempt_groups: [fraud]
  - name: one-llama
    when: request.model != "llama" || !request.endpoint.startsWith("model_")
    then: { deny: { reason: there is one llama } }
  - name: mask-tickets
    when: "true"
    then: { mask: { request: { detectors: [TICKET] } } }
  - name: allow-staff
    when: '"staff" in principal.groups'
    then: allow
detectors: [{ entity: TICKET, json_path: $.labels.ticket }, { entity: SEEN, json_path: $..modelVersion.seen }]
audit: { dir: /tmp/unused }
approvals: { dir: /tmp/unused-control, max_holds: 2, max_holds_per_principal: 1, max_pending_per_principal: 2, public_url: "https://gateway.example" }
masking: { file: "MASK" }
sealing: { auditors: ["AUDITOR"] }
"#;

/// Who can read what is sealed.
pub(crate) fn auditor() -> AuditorSecret {
    AuditorSecret::from_seed("auditor", [3; 32]).unwrap()
}

/// The connections, built once: detectors take their time to compile.
fn connections() -> &'static [Arc<Connection>] {
    static CONNECTIONS: OnceLock<Vec<Arc<Connection>>> = OnceLock::new();
    CONNECTIONS.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("countersign-rules-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let secret = dir.join("upstream.key");
        std::fs::write(&secret, LENT).unwrap();
        let key = dir.join("masking.key");
        std::fs::write(&key, "k".repeat(32)).unwrap();
        let auditor = dir.join("auditor.key.pub");
        std::fs::write(&auditor, self::auditor().public().to_string()).unwrap();
        let text = CONFIG
            .replace("AUDITOR", auditor.to_str().unwrap())
            .replace("SECRET", secret.to_str().unwrap())
            .replace("MASK", key.to_str().unwrap());
        let config = config::with_builtins(|known| Config::parse(&text, "test.yaml", known))
            .unwrap_or_else(|faults| panic!("{faults}"));
        // Files are looked at again by tasks; nothing ever runs them here.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let sources = Sources::new(Clock::system());
        let rules = snapshot::rules(&config, None, &sources).unwrap();
        drop(inside);
        // Whoever asks first may be a task itself, where no runtime may be waited for.
        runtime.shutdown_background();
        std::fs::remove_dir_all(&dir).unwrap();
        rules.connections
    })
}

/// Rules with these bounds, in bytes, and so many places, of which one caller has two at most.
pub(crate) fn rules(limits: Limits, memory: usize, places: usize) -> Arc<Rules> {
    Arc::new(Rules {
        connections: connections().to_vec(),
        digest: "d1".repeat(32),
        limits,
        budget: Budget::new(memory),
        strangers: Budget::new((memory / 8).max(limits.request_body)),
        admission: Admission::new(places, places.min(2)),
        risk: Arc::default(),
        time_zone: jiff::tz::TimeZone::UTC,
        approvals: Approvals {
            holds: Admission::new(2, 1),
            largest_held: 1 << 20,
            held_bytes: Budget::new(3 << 20),
            most_pending: 2,
            public_url: "https://gateway.example".into(),
        },
    })
}

/// `token-of-NAME`: staff, but for `ian` (an intern too), `fred` (fraud too), `nobody` and `greedy`.
pub(crate) fn principal(token: &str) -> Result<Arc<Principal>, TokenError> {
    let name = token.strip_prefix("token-of-").ok_or(TokenError::NotJws)?;
    let groups: &[&str] = match name {
        "mallory" => return Err(TokenError::BadSignature),
        "late" => return Err(TokenError::IssuerUnavailable),
        "nobody" => &[],
        "ian" => &["staff", "interns"],
        "fred" => &["staff", "fraud"],
        _ => &["staff"],
    };
    Ok(Arc::new(Principal {
        subject: if name.starts_with("shared-") {
            "shared".into()
        } else {
            name.into()
        },
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        token_hash: [7; 32],
        also: match name {
            "shared-bob" => BTreeSet::from(["person:bob".to_owned()]),
            "shared-eve" => BTreeSet::from(["person:eve".to_owned()]),
            _ => BTreeSet::new(),
        },
        person_missing: name == "unnamed",
        // Until a minute after every exchange of these tests began.
        expires_at: Timestamp::constant(1_772_366_460, 0),
        grant: grant(name),
        ..testing::principal()
    }))
}

/// `once-CONNECTION`: a grant for one call of any `gpt-*` at its chat; `free-CONNECTION`: for as many as one likes, of anything.
fn grant(name: &str) -> Option<Arc<Grant>> {
    let (kind, connection) = name.split_once('-')?;
    let (max_uses, listed): (_, &[&str]) = match kind {
        "once" => (Some(1), &["gpt-*", "chat_completions"]),
        "free" => (None, &[]),
        _ => return None,
    };
    let several = |at: usize| {
        listed
            .get(at)
            .map(|text| (*text).to_owned())
            .into_iter()
            .collect()
    };
    Some(Arc::new(Grant {
        id: format!("grant-{name}"),
        scope: Scope {
            kind: Kind::Inference,
            connection: connection.to_owned(),
            models: several(0),
            methods: several(1),
            max_uses,
        },
        approval: None,
        obtained_with: "oidc_jwt".to_owned(),
    }))
}

/// Another connection like this one.
pub(crate) fn copy(known: &Connection) -> Connection {
    Connection {
        name: known.name.clone(),
        route: known.route.clone(),
        token_header: known.token_header,
        certificate_alone: known.certificate_alone,
        dialect: known.dialect.clone(),
        lender: known.lender.clone(),
        chain: known.chain.clone(),
        record_text: known.record_text,
        auditors: known.auditors.clone(),
        durability: known.durability,
        unscanned: known.unscanned,
        signed: known.signed,
        fields: known.fields.clone(),
        catalog: known.catalog.clone(),
        everything: known.everything.clone(),
        masking: known.masking.clone(),
        plans: Plans::default(),
    }
}
