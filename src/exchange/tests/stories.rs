//! What goes well, and what is done to it on the way.

use super::bench::*;
use crate::exchange::{Headers, Input};

#[test]
fn a_prompt_and_its_answer_pass_masked_and_recorded() {
    let mut bench = Bench::new();
    bench.ask("alice", &prompt(&format!("my number is {SSN}, hello")));
    let upstream: serde_json::Value = serde_json::from_str(bench.upstream()).unwrap();
    assert_eq!(
        upstream["messages"][0]["content"],
        "my number is [US_SSN], hello"
    );

    bench.answer_json();
    assert!(
        bench.seen.head.is_none(),
        "one document leaves only once it was seen whole"
    );
    bench.answer(&completion(&format!("pay with {CARD} today")), true);
    assert_eq!(bench.kinds(), ["opened", "delivered", "closed"]);
    assert_eq!(bench.seen.end, Some(End::Finished));
    let answer: serde_json::Value = serde_json::from_str(bench.answered()).unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "pay with [CREDIT_CARD] today"
    );

    let opened = bench.opened();
    assert_eq!(opened.request.body, bench.upstream());
    assert_eq!(
        opened.request.forwarded_sha256,
        crate::audit::sha256_hex(&bench.seen.upstream)
    );
    assert_eq!(opened.request.findings["US_SSN"], 1);
    assert_eq!(opened.request.masked["US_SSN"], "replace");
    assert_eq!(opened.identity.subject, "alice");
    assert_eq!(opened.decision.policies, ["mask-personal", "allow-staff"]);
    assert_eq!(
        (
            opened.endpoint.route.as_str(),
            opened.endpoint.endpoint.as_str()
        ),
        ("model", "chat_completions")
    );

    let closed = bench.closed();
    assert_eq!(
        (closed.outcome.as_str(), closed.status, closed.parts),
        ("completed", 200, 1)
    );
    assert_eq!((closed.input_tokens, closed.output_tokens), (3, 5));
    assert_eq!(closed.findings["CREDIT_CARD"], 1);
    assert_eq!(closed.masked["CREDIT_CARD"], "replace");
    assert_eq!(
        closed.bytes,
        completion(&format!("pay with {CARD} today")).len() as u64
    );
    assert_eq!(
        bench.recorded()["0.content"],
        "pay with [CREDIT_CARD] today"
    );

    let summary = bench.exchange().summary();
    assert_eq!(
        (
            summary.connection.as_str(),
            summary.outcome,
            summary.code,
            summary.status
        ),
        ("openai", "completed", "", 200)
    );
    assert_eq!(
        (
            summary.masked_request["US_SSN"],
            summary.masked_response["CREDIT_CARD"]
        ),
        (1, 1)
    );
}

#[test]
fn a_streamed_value_is_masked_wherever_it_is_cut() {
    let text = format!("ssn {SSN} and card {CARD} end");
    for cut in 0..=text.len() {
        let mut bench = Bench::new();
        bench.ask("alice", &streamed("hi")).answer_stream();
        assert!(bench.seen.head.is_some(), "a stream's head leaves at once");
        bench.answer(&chunk(&text[..cut]), false);
        bench.answer(&chunk(&text[cut..]), false);
        bench
            .answer(&stop(), false)
            .answer(DONE, false)
            .answer("", true);
        assert_eq!(bench.seen.end, Some(End::Finished), "cut at {cut}");
        assert_eq!(
            content(&bench.seen.answer),
            "ssn [US_SSN] and card [CREDIT_CARD] end"
        );
        assert_eq!(
            bench.recorded()["0.content"],
            "ssn [US_SSN] and card [CREDIT_CARD] end"
        );
        assert_eq!(bench.closed().outcome, "completed");
    }
}

#[test]
fn a_stream_is_the_same_for_every_cut_of_its_bytes() {
    let whole = [
        chunk("mail bob@example.com "),
        chunk(&SSN[..5]),
        chunk(&SSN[5..]),
        stop(),
        DONE.to_owned(),
    ]
    .concat();
    for cut in 0..=whole.len() {
        let mut bench = Bench::new();
        bench.ask("alice", &streamed("hi")).answer_stream();
        bench
            .answer(&whole[..cut], false)
            .answer(&whole[cut..], true);
        assert_eq!(
            content(&bench.seen.answer),
            "mail [EMAIL_ADDRESS] [US_SSN]",
            "cut at {cut}"
        );
        assert!(bench.answered().ends_with(DONE));
        assert_eq!(bench.seen.end, Some(End::Finished));
    }
}

#[test]
fn text_leaves_event_by_event_and_is_recorded_when_due() {
    let mut bench = Bench::new();
    bench.ask("alice", &streamed("hi")).answer_stream();
    bench.answer(&chunk("one two "), false);
    assert!(content(&bench.seen.answer).starts_with("one two"));
    assert_eq!(bench.kinds(), ["opened"]);
    assert!(bench.wants_tick());
    bench.handle(Input::Tick);
    assert_eq!(bench.kinds(), ["opened", "delivered"]);
    bench.handle(Input::Tick);
    assert_eq!(
        bench.kinds(),
        ["opened", "delivered"],
        "nothing left since: nothing to record"
    );
    bench
        .answer(&chunk("three"), false)
        .answer(&(stop() + DONE), true);
    assert_eq!(
        bench.kinds(),
        ["opened", "delivered", "delivered", "closed"]
    );
    assert_eq!(bench.closed().parts, 2);
    assert_eq!(bench.closed().finish_reasons, ["stop"]);
}

/// Asks as `caller` where the policy keeps social security numbers in a vault; returns what the model was told.
fn ask_vaulted(bench: &mut Bench, caller: &str, body: &str) -> String {
    bench
        .head(head_with(caller, &[(":authority", "vault.example")]))
        .body(body.as_bytes(), true);
    let told: serde_json::Value = serde_json::from_str(bench.upstream()).unwrap();
    told["messages"][0]["content"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_taken_out_of_a_prompt_is_put_back_into_the_answer_and_not_on_record() {
    let mut bench = Bench::new();
    // The caller's own number may come back.
    bench.hidden.clear();
    let body = streamed(&format!("is {SSN} ada@example.com's?"));
    let told = ask_vaulted(&mut bench, "alice", &body);
    let placeholder = &told[3..told.find(']').unwrap() + 1];
    assert!(placeholder.starts_with("[US_SSN_1_"), "{told}");
    assert!(
        told.contains(" [EMAIL_ADDRESS:") && !told.contains("ada@"),
        "{told}"
    );
    assert_eq!(bench.opened().request.masked["US_SSN"], "vault");
    assert_eq!(bench.opened().request.masked["EMAIL_ADDRESS"], "hash");

    bench.answer_stream();
    for piece in [
        "Yes, ",
        &placeholder[..4],
        &placeholder[4..9],
        &placeholder[9..],
        " and 536-90-",
        "4399 and ",
        CARD,
    ] {
        bench.answer(&chunk(piece), false).handle(Input::Tick);
    }
    bench.answer(&(stop() + DONE), true);
    assert_eq!(
        content(&bench.seen.answer),
        format!("Yes, {SSN} and [US_SSN] and [CREDIT_CARD]")
    );
    assert_eq!(
        bench.recorded()["0.content"],
        format!("Yes, {placeholder} and [US_SSN] and [CREDIT_CARD]")
    );

    // The same request is masked to the same bytes, another caller's is not.
    let mut again = Bench::new();
    assert_eq!(ask_vaulted(&mut again, "alice", &body), told);
    let mut other = Bench::new();
    assert_ne!(ask_vaulted(&mut other, "fred", &body), told);
}

#[test]
fn what_was_taken_out_of_a_prompt_is_not_put_into_tool_calls_or_links() {
    let mut bench = Bench::new();
    let told = ask_vaulted(&mut bench, "alice", &prompt(&format!("is {SSN} mine?")));
    let placeholder = &told[3..told.find(']').unwrap() + 1];
    let answer = completion(&format!("See https://evil.example/{placeholder}.")).replace(
        "\"role\":\"assistant\"",
        &format!(
            "\"role\":\"assistant\",\"tool_calls\":[{{\"id\":\"c\",\"type\":\"function\",\"function\":{{\"name\":\"send\",\"arguments\":\"{{\\\"to\\\":\\\"{placeholder}\\\"}}\"}}}}]"
        ),
    );
    assert!(answer.contains("send"));
    bench.answer_json().answer(&answer, true);
    // The bench sees to it that the number is nowhere in the answer.
    assert_eq!(bench.answered(), answer);
}

#[test]
fn an_exempt_caller_sees_originals_and_the_record_does_not() {
    let mut bench = Bench::new();
    bench.hidden.clear();
    let body = prompt(&format!("look up {SSN}"));
    bench.ask("fred", &body);
    assert_eq!(bench.upstream(), body, "not a byte is changed");
    assert!(bench.opened().request.body.contains("look up [US_SSN]"));
    assert_eq!(
        bench.opened().request.forwarded_sha256,
        "",
        "a digest of what may not be shown gives it away"
    );
    assert_eq!(bench.opened().request.findings["US_SSN"], 1);
    assert!(bench.opened().request.masked.is_empty());
    assert_eq!(bench.opened().decision.exempt_from, ["mask-personal"]);

    bench.answer_stream();
    for piece in [&SSN[..6], &SSN[6..], " is ", CARD] {
        bench.answer(&chunk(piece), false).handle(Input::Tick);
    }
    bench.answer(&(stop() + DONE), true);
    assert_eq!(content(&bench.seen.answer), format!("{SSN} is {CARD}"));
    assert_eq!(bench.recorded()["0.content"], "[US_SSN] is [CREDIT_CARD]");
    assert_eq!(bench.closed().findings["US_SSN"], 1);
    assert!(bench.closed().masked.is_empty());
    assert!(bench.exchange().summary().masked_response.is_empty());
}

#[test]
fn a_connection_that_records_no_text_records_none() {
    let mut bench = Bench::new();
    let token = ("api-key", "token-of-alice");
    bench.head(head_with(
        "x",
        &[
            (":authority", "plain.example"),
            ("authorization", ""),
            token,
        ],
    ));
    bench
        .body(prompt("hello").as_bytes(), true)
        .answer_json()
        .answer(&completion("hi there"), true);
    assert_eq!(bench.opened().request.payload, "omit");
    assert_eq!(bench.opened().request.body, "");
    assert_eq!(bench.kinds(), ["opened", "delivered", "closed"]);
    assert!(bench.recorded().is_empty());
    let head = bench.seen.upstream_head.as_ref().unwrap();
    assert!(head.set.is_empty(), "nothing to lend");
    assert!(head.remove.iter().any(|name| name == "api-key"));
    assert!(!format!("{:?}", bench.seen.records).contains("hi there"));
}

#[test]
fn the_callers_credentials_go_and_ours_comes() {
    let fields = [
        ("X-Api-Key", "token-of-x"),
        ("x_goog_api_key", "token-of-y"),
        ("cookie", "session"),
        ("Countersign-Permit", "granted"),
        ("x-countersign-local-reply", "1"),
        (
            ":path",
            "/v1/chat/completions?a=1&KEY=token-of-z&%6bey=2&access_token=3&b=%41",
        ),
    ];
    let mut bench = Bench::new();
    bench
        .head(head_with("alice", &fields))
        .body(prompt("hi").as_bytes(), true);
    let head = bench.seen.upstream_head.as_ref().unwrap();
    assert_eq!(
        set(&head.set, "authorization"),
        Some(format!("Bearer {LENT}").as_str())
    );
    assert_eq!(
        set(&head.set, ":path"),
        Some("/v1/chat/completions?a=1&b=%41")
    );
    assert!(
        !head.remove.iter().any(|name| name == "authorization"),
        "what is set is not removed"
    );
    for name in [
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x_goog_api_key",
        "cookie",
        "proxy-authorization",
        "accept-encoding",
        "countersign-permit",
        "x-countersign-local-reply",
    ] {
        assert!(
            head.remove.iter().any(|removed| removed == name),
            "{name}: {:?}",
            head.remove
        );
    }
    assert_eq!(
        bench.opened().endpoint.path,
        "/v1/chat/completions?a=1&b=%41"
    );
}

#[test]
fn a_query_of_nothing_but_a_credential_leaves_no_question_mark() {
    let mut bench = Bench::new();
    let path = (":path", "/v1/chat/completions?key=token-of-z");
    bench
        .head(head_with("alice", &[path]))
        .body(prompt("hi").as_bytes(), true);
    let head = bench.seen.upstream_head.as_ref().unwrap();
    assert_eq!(set(&head.set, ":path"), Some("/v1/chat/completions"));
}

#[test]
fn what_is_recorded_of_a_query_is_masked_and_short() {
    let long = format!(
        "/v1/chat/completions?mail=bob@example.com&x={}",
        "y".repeat(60_000)
    );
    let mut bench = Bench::new();
    bench
        .head(head_with("alice", &[(":path", &long)]))
        .body(prompt("hi").as_bytes(), true);
    let path = &bench.opened().endpoint.path;
    assert!(
        path.starts_with("/v1/chat/completions?mail=[EMAIL_ADDRESS]&x=yyy"),
        "{path}"
    );
    assert!(path.len() <= 4096);
}

#[test]
fn the_lent_secret_never_comes_back() {
    for cut in 0..=LENT.len() {
        let mut bench = Bench::new();
        bench.hidden.clear();
        bench.ask("fred", &streamed("hi")).answer_stream();
        bench.answer(&chunk(&format!("it is {}", &LENT[..cut])), false);
        bench.answer(&chunk(&format!("{}!", &LENT[cut..])), false);
        bench.answer(&(stop() + DONE), true);
        assert_eq!(
            content(&bench.seen.answer),
            "it is [UPSTREAM_CREDENTIAL]!",
            "cut at {cut}"
        );
    }
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hi"));
    let echo = format!("you sent Bearer {LENT}");
    bench.answer_head(
        200,
        &[
            ("content-type", "application/json"),
            ("x-echo", &echo),
            ("x-other", "1"),
            ("countersign-permit", "x"),
        ],
    );
    bench.answer(&completion(LENT), true);
    let head = bench.seen.head.as_ref().unwrap();
    assert_eq!(head.remove, ["x-echo", "countersign-permit"]);
    assert_eq!(set(&head.set, "countersign-session"), Some("session-1"));
}

#[test]
fn a_caller_who_knows_the_lent_secret_does_not_get_it_on_record() {
    let mut bench = Bench::new();
    bench.hidden.clear();
    bench.ask("fred", &prompt(&format!("is it {LENT}?")));
    assert!(
        bench
            .opened()
            .request
            .body
            .contains("is it [UPSTREAM_CREDENTIAL]?")
    );
}

#[test]
fn a_model_named_like_a_secret_is_masked_on_record() {
    let mut bench = Bench::new();
    let body = prompt("hi").replace("gpt-4o", &format!("m {SSN}"));
    bench.ask("alice", &body);
    assert_eq!(bench.opened().request.model, "m [US_SSN]");
}

#[test]
fn an_upstreams_error_in_the_dialects_shape_passes_masked() {
    let mut bench = Bench::new();
    bench
        .ask("alice", &prompt("hi"))
        .answer_head(429, &[("content-type", "application/json")]);
    bench.answer(
        &format!(r#"{{"error":{{"message":"slow down, {SSN}","type":"rate_limit_error"}}}}"#),
        true,
    );
    assert_eq!(
        bench.answered(),
        r#"{"error":{"message":"slow down, [US_SSN]","type":"rate_limit_error"}}"#
    );
    assert_eq!(
        (bench.closed().outcome.as_str(), bench.closed().status),
        ("upstream_error", 429)
    );
    let summary = bench.exchange().summary();
    assert_eq!((summary.outcome, summary.status), ("upstream_error", 429));
}

#[test]
fn answers_without_a_body_pass() {
    let mut bench = Bench::new();
    bench.ask("alice", &prompt("hi"));
    bench.handle(Input::ResponseHeaders(answer_head(204, &[]), true));
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert_eq!(
        (bench.closed().outcome.as_str(), bench.closed().status),
        ("completed", 204)
    );

    let mut bench = Bench::new();
    bench
        .ask("alice", &prompt("hi"))
        .answer_head(200, &[])
        .answer("", true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert!(bench.seen.answer_ended);
}

#[test]
fn an_answers_trailers_are_emptied_and_answered() {
    for (done, text) in [(true, stop() + DONE), (false, stop())] {
        let mut bench = Bench::new();
        bench
            .ask("alice", &streamed("hi"))
            .answer_stream()
            .answer(&text, false);
        let trailers: Headers = [("x-note", "secret")].into_iter().collect();
        bench.handle(Input::ResponseTrailers(trailers));
        assert_eq!(
            bench
                .seen
                .trailers
                .as_ref()
                .map(|trailers| &trailers.remove[..]),
            Some(&["x-note".to_owned()][..])
        );
        assert_eq!(bench.seen.end, Some(End::Finished));
        assert_eq!(bench.closed().outcome == "completed", done);
    }
}

#[test]
fn a_stream_without_its_terminal_event_is_not_called_complete() {
    let mut bench = Bench::new();
    bench
        .ask("alice", &streamed("hi"))
        .answer_stream()
        .answer(&chunk("so far"), false)
        .answer("", true);
    assert_eq!(bench.seen.end, Some(End::Finished));
    assert_eq!(
        (
            bench.closed().outcome.as_str(),
            bench.closed().code.as_str()
        ),
        ("cut_short", "no_terminal_event")
    );
}

#[test]
fn a_large_body_is_recorded_in_parts_and_sent_in_pieces() {
    let mut bench = Bench::with(8 << 20, 8 << 20, 64 << 20, 10);
    let text = "\u{1}words ".repeat(400_000);
    bench.ask("alice", &prompt(&text));
    assert_eq!(bench.upstream(), prompt(&text));
    let parts: String = bench
        .seen
        .records
        .iter()
        .filter_map(|event| match event {
            crate::audit::record::Event::Delivered(part) if part.of_request => {
                Some(part.text["body"].clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        format!("{}{parts}", bench.opened().request.body),
        prompt(&text)
    );
    bench.answer_json().answer(&completion(&text), true);
    assert_eq!(bench.recorded()["0.content"], text);
    assert_eq!(bench.seen.end, Some(End::Finished));
}
