//! Every way to be refused: status, code, and a record or a count.

use super::bench::*;
use crate::exchange::{Headers, Input};

/// What a stranger is refused for is told, counted by its code, and neither checked further nor recorded.
#[test]
fn strangers_are_refused_without_a_record() {
    let two = || {
        head_with("alice", &[])
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_vec()))
            .chain([(":path".to_owned(), b"/v1/other".to_vec())])
            .collect()
    };
    let cases: Vec<(Headers, u16, &str, &str)> = vec![
        (
            head_with("alice", &[(":path", "/v2/chat/completions")]),
            404,
            "unknown_connection",
            "",
        ),
        (
            head_with("alice", &[(":path", "/v1/chat/%63ompletions")]),
            400,
            "odd_path",
            "",
        ),
        (
            head_with("alice", &[(":path", "/v1/../v1/chat/completions")]),
            400,
            "odd_path",
            "",
        ),
        (
            head_with("alice", &[(":path", "/v1//chat/completions")]),
            400,
            "odd_path",
            "",
        ),
        (
            head_with("alice", &[(":path", "/v1/chat/completions?a=1;key=2")]),
            400,
            "odd_path",
            "",
        ),
        (
            head_with("alice", &[(":path", "/v1/chat/completions?a#b")]),
            400,
            "odd_path",
            "",
        ),
        (head_with("alice", &[(":path", "")]), 400, "odd_path", ""),
        (two(), 400, "ambiguous_header", ""),
        (
            head_with("alice", &[("upgrade", "websocket")]),
            403,
            "upgrade_refused",
            "openai",
        ),
        (
            head_with("alice", &[(":protocol", "websocket")]),
            403,
            "upgrade_refused",
            "openai",
        ),
        (
            head_with("alice", &[(":method", "CONNECT")]),
            403,
            "upgrade_refused",
            "openai",
        ),
        (
            head_with("alice", &[("authorization", "")]),
            401,
            "token_missing",
            "openai",
        ),
        (
            head_with("alice", &[("authorization", "Basic abc")]),
            400,
            "token_not_bearer",
            "openai",
        ),
        (head("mallory"), 401, "token_bad_signature", "openai"),
        (head("late"), 503, "issuer_unavailable", "openai"),
    ];
    for (headers, status, code, connection) in cases {
        let mut bench = Bench::new();
        bench.head(headers);
        let immediate = bench.refusal(status, code);
        assert_eq!(
            set(&immediate.headers, "countersign-session"),
            Some("session-1")
        );
        assert_eq!(
            set(&immediate.headers, "www-authenticate").is_some(),
            status == 401 || code == "token_not_bearer",
            "{code}"
        );
        assert_eq!(
            set(&immediate.headers, "retry-after").is_some(),
            status == 503,
            "{code}"
        );
        assert!(bench.seen.records.is_empty(), "{code}");
        let summary = bench.exchange().summary();
        assert_eq!(
            (
                summary.outcome,
                summary.authenticated,
                summary.connection.as_str()
            ),
            ("refused", false, connection),
            "{code}"
        );
    }
}

/// A known caller's refusal is recorded before it is told, with what was read and who decided.
#[test]
fn known_callers_are_refused_on_record() {
    let usual = prompt("hi");
    let image = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]}"#;
    let plain = [
        (":authority", "plain.example"),
        ("authorization", ""),
        ("api-key", "token-of-alice"),
    ];
    type Case<'a> = (Headers, &'a [u8], u16, &'a str, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        (
            head("ian"),
            usual.as_bytes(),
            403,
            "policy_denied",
            &["block-interns"],
        ),
        (
            head("nobody"),
            usual.as_bytes(),
            403,
            "no_policy_allows",
            &["mask-personal"],
        ),
        (
            head_with("alice", &[(":authority", "odd.example")]),
            usual.as_bytes(),
            403,
            "policy_error",
            &["cleared-only"],
        ),
        (
            head_with("alice", &plain),
            image.as_bytes(),
            400,
            "unscannable_content",
            &["allow-staff"],
        ),
        (head("alice"), b"{\"model\":", 400, "truncated_json", &[]),
        (head("alice"), b"{model}", 400, "invalid_json", &[]),
        (
            head("alice"),
            b"{\"model\":\"m\",\"messages\":[],\"Model\":\"n\"}",
            400,
            "",
            &[],
        ),
        (
            head("alice"),
            b"{\"model\":\"m\",\"model\":\"n\",\"messages\":[]}",
            400,
            "duplicate_key",
            &[],
        ),
        (head("alice"), b"\xff\xfe", 400, "invalid_utf8", &[]),
        (head("alice"), b"[]", 400, "unknown_shape", &[]),
        (
            head("alice"),
            b"{\"messages\":[]}",
            400,
            "missing_model",
            &[],
        ),
        (
            head_with("alice", &[("content-type", "text/plain")]),
            usual.as_bytes(),
            400,
            "unsupported_content_type",
            &[],
        ),
        (
            head_with("alice", &[("content-type", "")]),
            usual.as_bytes(),
            400,
            "missing_content_type",
            &[],
        ),
        (
            head_with("alice", &[("content-encoding", "gzip")]),
            b"",
            415,
            "encoded_request",
            &[],
        ),
        (
            head_with("alice", &[(":path", "/v1/models")]),
            b"",
            403,
            "endpoint_not_allowed",
            &[],
        ),
        (
            head_with("alice", &[(":method", "GET")]),
            b"",
            403,
            "endpoint_not_allowed",
            &[],
        ),
        (
            head_with("alice", &[(":path", "/v1/chat/completions?mo%64el=x")]),
            b"",
            400,
            "conflicting_model",
            &[],
        ),
        (head("alice"), &[b' '; 3000], 413, "request_too_large", &[]),
    ];
    for (headers, body, status, code, policies) in cases {
        let mut bench = Bench::with(2048, 1 << 20, 1 << 20, 10);
        bench.ledger = Ledger::Slow;
        bench.head(headers);
        if !bench.is_recording() {
            bench.body(body, true);
        }
        assert!(
            bench.seen.immediate.is_none(),
            "{code}: told before it was recorded"
        );
        bench.durable();
        let refused = bench.refused();
        let code = if code.is_empty() {
            refused.decision.code.as_str()
        } else {
            code
        };
        bench.refusal(status, code);
        assert_eq!(bench.kinds(), ["refused"]);
        assert_eq!(
            (
                refused.status,
                refused.decision.code.as_str(),
                refused.decision.verdict.as_str()
            ),
            (u32::from(status), code, "deny")
        );
        assert_eq!(refused.decision.policies, policies, "{code}");
        assert_eq!(refused.identity.auth_method, "oidc_jwt");
        let summary = bench.exchange().summary();
        assert_eq!((summary.outcome, summary.authenticated), ("refused", true));
        assert!(bench.exchange().summary().masked_request.is_empty());
        assert_eq!(summary.faults.is_empty(), code != "policy_error");
    }
}

#[test]
fn the_credential_is_not_lent_on_another_route() {
    let mut bench = Bench::new();
    bench
        .head_on(head("alice"), "elsewhere", false)
        .body(prompt(&format!("my {SSN}")).as_bytes(), true);
    bench.refusal(403, "route_not_allowed");
    assert_eq!(
        bench.refused().decision.policies,
        ["mask-personal", "allow-staff"]
    );
    assert_eq!(bench.refused().request.findings["US_SSN"], 1);
    assert_eq!(bench.refused().request.payload, "masked");
    assert!(bench.refused().request.body.contains("my [US_SSN]"));
}

#[test]
fn request_trailers_are_refused() {
    let mut bench = Bench::new();
    bench
        .head(head("alice"))
        .body(prompt("hi").as_bytes(), false)
        .handle(Input::RequestTrailers);
    bench.refusal(400, "request_trailers");
    assert_eq!(bench.kinds(), ["refused"]);
}

#[test]
fn a_policy_that_cannot_be_evaluated_is_named_on_record() {
    let mut bench = Bench::new();
    bench
        .head(head_with("alice", &[(":authority", "odd.example")]))
        .body(prompt("hi").as_bytes(), true);
    bench.refusal(403, "policy_error");
    let [fault] = &bench.refused().decision.faults[..] else {
        panic!("{:?}", bench.refused().decision)
    };
    assert!(fault.starts_with("policy `cleared-only`: "), "{fault}");
    assert_eq!(
        bench.exchange().summary().faults,
        std::slice::from_ref(fault)
    );
}

#[test]
fn a_known_caller_who_did_not_wait_is_on_record() {
    let mut bench = Bench::new();
    bench.head(head("alice")).body(b"{\"model\":", false);
    bench.handle(Input::Gone);
    assert_eq!(bench.kinds(), ["refused"]);
    assert_eq!(bench.refused().decision.code, "caller_gone");
    assert_eq!(bench.refused().identity.subject, "alice");
    assert!(bench.seen.upstream_head.is_none());

    let mut stranger = Bench::new();
    stranger.slow_authenticator = true;
    stranger.head(head("alice")).handle(Input::Gone);
    assert_eq!(
        stranger.kinds(),
        [""; 0],
        "who is not known is not on record"
    );
}

#[test]
fn nobody_takes_more_than_their_places_or_the_memory() {
    let mut first = Bench::with(1 << 20, 1 << 20, 100_000, 10);
    let rules = first.rules.clone();
    first.head(head("greedy"));
    let mut second = Bench::under(rules.clone());
    second.head(head("greedy")).body(&[b' '; 60_000], false);
    assert_eq!(rules.budget.used(), 60_000);

    let mut third = Bench::under(rules.clone());
    third.head(head("greedy"));
    third.refusal(429, "too_many_streams");
    let mut other = Bench::under(rules.clone());
    other.head(head("alice")).body(&[b' '; 60_000], false);
    other.refusal(503, "overloaded");

    drop((first, second));
    assert_eq!(rules.budget.used(), 0);
    assert_eq!(rules.admission.inside(), 0);
    let mut fourth = Bench::under(rules.clone());
    fourth
        .ask("greedy", &prompt("hi"))
        .answer_json()
        .answer(&completion("hi"), true);
    assert_eq!(fourth.seen.end, Some(End::Finished));
    assert_eq!(
        rules.admission.inside(),
        0,
        "a place is free as soon as the exchange is over"
    );
}

#[test]
fn strangers_leave_room_for_callers() {
    let mut first = Bench::with(50_000, 1 << 20, 400_000, 10);
    let rules = first.rules.clone();
    first.slow_authenticator = true;
    first.head(head("alice")).body(&[b' '; 30_000], false);
    let mut second = Bench::under(rules.clone());
    second.slow_authenticator = true;
    second.head(head("bob")).body(&[b' '; 30_000], true);
    assert_eq!(
        (rules.strangers.used(), rules.budget.used()),
        (30_000, 30_000)
    );

    let mut known = Bench::under(rules.clone());
    known.ask("greedy", &prompt("hi"));
    assert!(known.seen.upstream_ended, "callers have room");
    drop(known);
    second.authenticated();
    second.refusal(503, "overloaded");
    first.authenticated();
    assert_eq!(rules.strangers.used(), 0, "it is known who they are");
    first.body(b"", true);
    first.refusal(400, "empty_body");
    drop((first, second));
    assert_eq!(rules.budget.used(), 0);
}

#[test]
fn answers_that_cannot_be_checked_are_refused() {
    let json = ("content-type", "application/json");
    let stream = ("content-type", "text/event-stream");
    let large = completion(&"x".repeat(3000));
    type Case<'a> = (u16, Vec<(&'a str, &'a str)>, &'a str, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            200,
            vec![json, ("content-encoding", "gzip")],
            "",
            502,
            "encoded_response",
        ),
        (
            200,
            vec![
                json,
                ("content-encoding", "br"),
                ("content-encoding", "identity"),
            ],
            "",
            502,
            "encoded_response",
        ),
        (
            200,
            vec![("content-type", "text/html")],
            "",
            502,
            "unknown_response_shape",
        ),
        (200, vec![], "text", 502, "unknown_response_shape"),
        (200, vec![json, stream], "{}", 502, "unknown_response_shape"),
        (200, vec![json], "{\"a\":1}", 502, "unknown_response_shape"),
        (200, vec![json], "{\"a\":", 502, "unknown_response_shape"),
        (200, vec![json], &large, 502, "response_too_large"),
        (
            503,
            vec![("content-type", "text/plain")],
            "",
            503,
            "upstream_error",
        ),
    ];
    for (status, fields, body, told, code) in cases {
        let mut bench = Bench::with(1 << 20, 2048, 1 << 20, 10);
        bench
            .ask("alice", &prompt("hi"))
            .answer_head(status, &fields);
        if bench.seen.end.is_none() {
            bench.answer(body, true);
        }
        bench.refusal(told, code);
        let closed = bench.closed();
        assert_eq!(
            (closed.outcome.as_str(), closed.code.as_str(), closed.status),
            ("refused_response", code, u32::from(status))
        );
        assert!(bench.recorded().is_empty(), "{code}: nothing left");
        assert_eq!(bench.exchange().summary().outcome, "refused_response");
    }
}

#[test]
fn a_stream_that_turns_odd_ends_in_an_error_event_and_an_error() {
    let mut bench = Bench::new();
    bench
        .ask("alice", &streamed("hi"))
        .answer_stream()
        .answer(&chunk("fine, 536-22-"), false);
    bench.answer("data: {\"odd\":1}\n\n", false);
    assert_eq!(bench.seen.end, Some(End::Aborted("unknown_response_shape")));
    assert!(bench.answered().ends_with("\n\n"));
    let last = bench.answered().trim_end().lines().last().unwrap();
    assert!(
        last.contains("\"code\":\"unknown_response_shape\""),
        "{last}"
    );
    assert!(!bench.seen.answer_ended);
    assert_eq!(bench.closed().outcome, "refused_response");
    assert_eq!(
        bench.recorded()["0.content"],
        content(&bench.seen.answer),
        "what was held back never left"
    );
}

#[test]
fn whatever_a_stream_turns_into_the_record_tells_what_has_left() {
    let content = |inside: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{inside}}}}}]}}\n\n")
    };
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    for (case, odd, end) in [
        (
            "half a surrogate pair",
            content("\"536-22-8145 \\ud800\""),
            false,
        ),
        ("a NUL byte", content("\"536-22-8145 \0\""), false),
        (
            "an event of 10 MB",
            content(&format!("\"{}\"", "536-22-8145 ".repeat(900_000))),
            false,
        ),
        ("a thousand deep", content(&deep), false),
        (
            "a key twice",
            content("\"x\",\"content\":\"536-22-8145\""),
            false,
        ),
        ("10,000 digits", content(&"4".repeat(10_000)), false),
        (
            "cut in an event",
            content("\"536-22-8145\"").trim_end().to_owned(),
            true,
        ),
    ] {
        let mut bench = Bench::new();
        bench
            .ask("alice", &streamed("hi"))
            .answer_stream()
            .answer(&chunk("fine, 536-22-"), false);
        bench.answer(&odd, end);
        let code = match case {
            "an event of 10 MB" => "response_too_large",
            _ => "unknown_response_shape",
        };
        assert_eq!(bench.seen.end, Some(End::Aborted(code)), "{case}");
        assert!(!bench.answered().contains("8145"), "{case}");
        let closed = bench.closed();
        assert_eq!(
            (closed.outcome.as_str(), closed.code.as_str()),
            ("refused_response", code),
            "{case}"
        );
        assert!(!closed.reason.is_empty() && !closed.reason.contains("536"));
        let told = bench.recorded()["0.content"].clone();
        assert_eq!(told, "fine, ", "{case}");
    }
}

#[test]
fn what_comes_behind_the_end_of_a_stream_goes_nowhere() {
    let behind = chunk("536-22-8145, 536-22-8146 ");
    for at_once in [true, false] {
        let mut bench = Bench::new();
        bench
            .ask("alice", &streamed("hi"))
            .answer_stream()
            .answer(&chunk("fine, 12"), false);
        match at_once {
            true => bench.answer(&format!("data: [DONE]\n\n{behind}"), false),
            false => bench
                .answer("data: [DONE]\n\n", false)
                .answer(&behind, false),
        };
        bench.answer(&behind, true);
        assert_eq!(bench.seen.end, Some(End::Finished));
        assert_eq!(content(&bench.seen.answer), "fine, 12");
        assert!(bench.answered().ends_with("data: [DONE]\n\n"));
        assert_eq!(bench.closed().outcome, "completed");
        assert!(
            bench.closed().findings.is_empty(),
            "what left was whole without it"
        );
        assert_eq!(bench.recorded()["0.content"], "fine, 12");
    }
}

#[test]
fn envoys_own_answer_before_the_request_is_told_on() {
    let mut bench = Bench::new();
    bench.handle(Input::ResponseHeaders(answer_head(431, &[]), false));
    bench.refusal(431, "request_rejected");
    let mut bench = Bench::new();
    bench.handle(Input::ResponseHeaders(answer_head(200, &[]), false));
    bench.refusal(502, "request_rejected");
}
