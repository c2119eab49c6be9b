//! Sample records with every field of every event filled, kept beside the schema for readers in other languages to test
//! against.

use std::collections::BTreeMap;

use super::{
    chain::{ChainId, Head, Position, Stamp, place},
    record::*,
};

/// Rewrites the file instead of comparing: `COUNTERSIGN_BLESS=1 cargo test samples`.
const BLESS: &str = "COUNTERSIGN_BLESS";

fn map<V>(key: &str, value: V) -> BTreeMap<String, V> {
    BTreeMap::from([(key.to_owned(), value)])
}

fn list(item: &str) -> Vec<String> {
    vec![item.to_owned()]
}

fn identity() -> Identity {
    let claims = serde_json::json!({
        "department": "claims", "level": 3.5, "contractor": false, "manager": null,
        "sites": ["berlin", 7], "cost": {"centre": "4711"},
    });
    Identity {
        issuer: "https://login.example".into(),
        subject: "alice".into(),
        groups: list("analysts"),
        claims: serde_json::from_value(claims).unwrap(),
        auth_method: "oidc_jwt".into(),
        token_hash: "ab".repeat(32),
        grant: Some(GrantHeld {
            id: "0197c2e4-1111-7000-8000-000000000001".into(),
            max_uses: 3,
            approval: "0197c2e4-1111-7000-8000-000000000002".into(),
            obtained_with: "oidc_jwt".into(),
        }),
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        connection: "openai".into(),
        authority: "api.example".into(),
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        endpoint: "chat_completions".into(),
        route: "openai".into(),
        cluster: "openai".into(),
        source_address: "10.0.0.7:51123".into(),
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
    }
}

fn request() -> RequestRecord {
    RequestRecord {
        payload: "masked".into(),
        body: "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"my card is [CREDIT_CARD] \u{1F4B3}\"}]}".into(),
        bytes: u64::MAX,
        forwarded_sha256: "cd".repeat(32),
        findings: map("CREDIT_CARD", 1),
        masked: map("CREDIT_CARD", "replace".into()),
        model: "m".into(),
        stream: true,
        unscanned: list("image_url"),
        sealed: Some(sealed(1)),
    }
}

fn sealed(first: u32) -> Sealed {
    Sealed {
        first,
        pieces: 2,
        bytes: u64::MAX,
        sha256: "9a".repeat(32),
        hmac: "bc".repeat(32),
        keys: list("0a1b2c3d"),
    }
}

fn decision() -> Decision {
    Decision {
        verdict: "deny".into(),
        policies: list("analysts-only"),
        policy_digest: "ef".repeat(32),
        code: "policy_denied".into(),
        reason: "not for \"you\"".into(),
        exempt_from: list("mask-cards"),
        faults: list("policy `night`: no such key"),
        approval: Some(approval()),
        grant_use: 2,
    }
}

fn events() -> Vec<Event> {
    vec![
        Event::Genesis(Genesis {
            deployment: "demo".into(),
            replica: "a".into(),
            previous_chain: "01".repeat(16),
            previous_size: 9_007_199_254_740_993,
            previous_head: "02".repeat(32),
            previous_root: "03".repeat(32),
            previous_checkpoint: "countersign/demo/01\n1\nAAAA\n\n\u{2014} k AAAA\n".into(),
            previous_clean: true,
            previous_torn_bytes: 17,
            build: "0.1.0".into(),
        }),
        Event::Opened(Box::new(Opened {
            identity: identity(),
            endpoint: endpoint(),
            request: request(),
            decision: decision(),
            lent: "vault:https://vault.example:8200/v1/secret/data/openai#key".into(),
        })),
        Event::Delivered(Delivered {
            part: 1,
            of_request: true,
            text: map("0.content", "Hello".into()),
            timing: vec![Timing {
                at_ms: 120,
                bytes: 5,
                text: 5,
            }],
            sealed: Some(sealed(2)),
        }),
        Event::Closed(Box::new(Closed {
            outcome: "completed".into(),
            status: 200,
            bytes: 2,
            parts: 1,
            findings: map("US_SSN", 2),
            masked: map("US_SSN", "redact".into()),
            model: "m-2026".into(),
            system_fingerprint: "fp_1".into(),
            response_id: "chatcmpl-1".into(),
            finish_reasons: list("stop"),
            input_tokens: 11,
            output_tokens: 13,
            unscanned: list("audio"),
            stripped: list("signed"),
            duration_ms: 250,
            code: "none".into(),
            transaction_sha256: "34".repeat(32),
            reason: "the stream ends inside an event".into(),
            sealed: Some(sealed(4)),
        })),
        Event::Refused(Box::new(Refused {
            identity: identity(),
            endpoint: endpoint(),
            request: request(),
            decision: decision(),
            status: 403,
        })),
        Event::Unauthenticated(Unauthenticated {
            by_code: map("token_expired", 12),
            window_ms: 1_000,
        }),
        Event::Config(ConfigLoaded {
            digest: "56".repeat(32),
            accepted: true,
            faults: 1,
            in_force: "78".repeat(32),
        }),
        Event::Shutdown(Shutdown { cut_sessions: 2 }),
        Event::Pruned(Pruned {
            chain: "01".repeat(16),
            first: 1,
            records: 9_007_199_254_740_993,
            root: "9a".repeat(32),
            stump_sha256: "bc".repeat(32),
            rule: "age 90d".into(),
        }),
        Event::Rotated(Rotated {
            key: "countersign/demo/a+00000000+AAAA".into(),
            introductions: list("countersign/key/v1\nk+00000000+AAAA\n\n\u{2014} j AAAA\n"),
        }),
        Event::Erased(Erased {
            reason: "a request under Art. 17 GDPR".into(),
            asked_by: "uid 1000".into(),
        }),
        Event::Discarded(Discarded {
            first: 1,
            last: 9_007_199_254_740_993,
            bytes: u64::MAX,
            until: "2026-08-24T05:27:41.123456789Z".into(),
            rule: "age 90d".into(),
        }),
        Event::Approval(Box::new(ApprovalEvent {
            action: "asked".into(),
            approval: approval(),
            issuer: "https://idp.example".into(),
            subject: "bob".into(),
            code: "not_asked".into(),
            caller_issuer: "https://idp.example".into(),
            caller_subject: "alice".into(),
            seats: BTreeMap::from([("security".to_owned(), 1)]),
            until: "2026-11-22T05:37:41Z".into(),
            control_offset: 9_007_199_254_740_993,
            control_nonce: "n-1".into(),
        })),
        Event::Grant(Box::new(GrantEvent {
            action: "issued".into(),
            id: "0197c2e4-1111-7000-8000-000000000001".into(),
            identity: Some(identity()),
            connection: "openai".into(),
            models: list("gpt-*"),
            methods: list("chat_completions"),
            max_uses: 3,
            not_before: "2026-11-22T05:37:41Z".into(),
            until: "2026-11-22T06:37:41Z".into(),
            rule: "on-call".into(),
            reason: "incident 4711".into(),
            bound_to: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into(),
            approval: Some(approval()),
            by_issuer: "https://login.example".into(),
            by_subject: "root".into(),
            code: "grant_not_allowed".into(),
            control_offset: 9_007_199_254_740_993,
            control_nonce: "n-2".into(),
        })),
    ]
}

fn approval() -> Approval {
    Approval {
        id: "0194-a".into(),
        state: "approved".into(),
        request_sha256: "de".repeat(32),
        binding_sha256: "ad".repeat(32),
        asked_by_session: "session-0".into(),
        reasons: list("an SSN in the prompt"),
        votes: vec![ApprovalVote {
            issuer: "https://idp.example".into(),
            subject: "bob".into(),
            groups: list("security"),
            given: "approve".into(),
            reason: "seen".into(),
            time: "2026-11-22T05:28:41Z".into(),
        }],
    }
}

fn samples() -> String {
    let mut head = Head::empty(ChainId([0xc5; 16]));
    let mut lines = String::new();
    for (n, event) in events().into_iter().enumerate() {
        let entry = Entry {
            session: format!("session-{n}"),
            event,
        };
        let time = "2026-11-22T05:27:41.123456789Z".parse().unwrap();
        let stamp = Stamp {
            time,
            monotonic_ns: u64::MAX,
            replica: "a",
        };
        let bytes = place(&head, &stamp, &serde_json::to_vec(&entry).unwrap());
        head = head.after(head.hash_next(&bytes));
        lines.push_str(std::str::from_utf8(&bytes).unwrap());
        lines.push('\n');
    }
    lines
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test's own")]
fn the_samples_beside_the_schema_are_what_is_written() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/proto/countersign/audit/v1/samples.jsonl"
    );
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(path, samples()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        samples(),
        "see {BLESS}"
    );
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    for (line, event) in samples().lines().zip(events()) {
        assert!(Position::read(line.as_bytes()).is_some());
        let entry: Entry = serde_json::from_str(line).unwrap();
        assert_eq!(entry.event, event);
    }
}
