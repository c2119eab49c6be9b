//! What differs from provider to provider: where the model and the token stand, what ends a stream, what may be dropped.

use serde_json::{Value, json};

use super::bench::*;

fn sse(events: &[Value]) -> String {
    let named = |event: &Value| {
        let name = event["type"].as_str();
        let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
        format!("{name}data: {event}\n\n")
    };
    events.iter().map(named).collect()
}

fn events(stream: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(stream).into_owned();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Makes durable what waits for it.
fn settle(bench: &mut Bench) {
    while bench.is_recording() {
        bench.durable();
    }
}

#[test]
fn claude_is_told_and_tells_nothing_and_its_stream_ends_on_record() {
    let mut bench = Bench::new();
    bench.ledger = Ledger::Slow;
    bench.head(head_with(
        "alice",
        &[
            (":authority", "claude.example"),
            (":path", "/v1/messages"),
            ("authorization", ""),
            ("x-api-key", "token-of-alice"),
        ],
    ));
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let text = json!({"type": "text", "text": format!("it is {SSN}")});
    let thought = json!([{"type": "thinking", "thinking": "x", "signature": "s"}, {"type": "text", "text": "y"}]);
    let body = json!({"model": "claude-opus-4-5", "max_tokens": 9, "stream": true, "messages": [
        {"role": "user", "content": [image, text]}, {"role": "assistant", "content": thought}]});
    bench.body(body.to_string().as_bytes(), true).durable();
    let upstream: Value = serde_json::from_str(bench.upstream()).unwrap();
    assert_eq!(
        upstream["messages"][0]["content"],
        json!([{"type": "text", "text": "it is [US_SSN]"}])
    );
    // What is signed passes here; the image was taken out.
    assert_eq!(upstream["messages"][1]["content"], thought);
    assert_eq!(bench.opened().request.unscanned, ["image", "signed"]);
    assert_eq!(bench.opened().request.model, "claude-opus-4-5");

    let block = |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
    let think = |text: &str| delta(0, json!({"type": "thinking_delta", "thinking": text}));
    let input = |piece: &str| {
        delta(
            1,
            json!({"type": "input_json_delta", "partial_json": piece}),
        )
    };
    bench.answer_stream().answer(
        &sse(&[
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-5", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            think("pay with 4111 1111 "),
            think("1111 1111"),
            stop(0),
            block(1, json!({"type": "tool_use", "id": "toolu_1", "name": "pay", "input": {}})),
            input("{\"card\": \"4111 11"),
            input("11 1111 1111\", \"n\": 1}"),
            stop(1),
        ]),
        false,
    );
    settle(&mut bench);
    let left = events(&bench.seen.answer);
    let said: String = left
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(said, "{\"card\": \"[CREDIT_CARD]\", \"n\": 1}");
    assert!(
        left.iter().all(|event| event["index"].as_u64() != Some(1)),
        "the block behind the one that was taken out has moved up"
    );

    bench.answer(
        &sse(&[
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ]),
        true,
    );
    let ended = |bench: &Bench| contains(&bench.seen.answer, "message_stop");
    assert!(!ended(&bench), "it is not on record yet that it is over");
    settle(&mut bench);
    assert!(ended(&bench));
    assert_eq!(bench.seen.end, Some(End::Finished));
    let closed = bench.closed();
    assert_eq!(
        (closed.outcome.as_str(), closed.output_tokens),
        ("completed", 9)
    );
    assert_eq!(closed.finish_reasons, ["tool_use"]);
    assert_eq!(closed.masked["CREDIT_CARD"], "replace");
}

#[test]
fn gemini_names_its_model_in_the_path_and_its_end_only_by_ending() {
    let mut bench = Bench::new();
    bench.ledger = Ledger::Slow;
    bench.head(head_with(
        "alice",
        &[
            (":authority", "gemini.example"),
            (
                ":path",
                "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
            ),
            ("authorization", ""),
            ("x-goog-api-key", "token-of-alice"),
        ],
    ));
    let body = json!({"contents": [{"role": "user", "parts": [{"text": format!("it is {SSN}")}]}], "labels": {"ticket": "whatever it is"}});
    bench.body(body.to_string().as_bytes(), true).durable();
    let upstream: Value = serde_json::from_str(bench.upstream()).unwrap();
    assert_eq!(
        upstream,
        json!({"contents": [{"role": "user", "parts": [{"text": "it is [US_SSN]"}]}], "labels": {"ticket": "[TICKET]"}})
    );
    let request = &bench.opened().request;
    assert_eq!(
        (request.model.as_str(), request.stream),
        ("gemini-2.5-pro", true)
    );
    assert_eq!(
        (request.findings["TICKET"], request.findings["US_SSN"]),
        (1, 1)
    );

    let event = |text: &str, finish: Option<&str>| {
        let mut candidate =
            json!({"content": {"role": "model", "parts": [{"text": text}]}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        json!({"candidates": [candidate], "modelVersion": "gemini-2.5-pro", "responseId": "r-1"})
    };
    bench
        .answer_stream()
        .answer(&sse(&[event("pay with 4111 1111", None)]), false);
    // It says that it stopped before it says the last of its text.
    bench.answer(
        &sse(&[
            event(" 1111", Some("STOP")),
            event(" 1111 today", Some("STOP")),
            json!({"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}}),
        ]),
        false,
    );
    assert_eq!(
        bench.seen.end, None,
        "more may come: only the end of the body tells"
    );
    bench.answer("", true);
    settle(&mut bench);
    assert_eq!(bench.seen.end, Some(End::Finished));
    let left = events(&bench.seen.answer);
    let said: String = left
        .iter()
        .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(
        (said.as_str(), left.len()),
        ("pay with [CREDIT_CARD] today", 4)
    );
    let closed = bench.closed();
    assert_eq!(closed.outcome, "completed");
    assert_eq!((closed.input_tokens, closed.output_tokens), (3, 5));
    assert_eq!(bench.recorded()["0.text"], "pay with [CREDIT_CARD] today");
}

#[test]
fn a_field_that_policy_lets_pass_is_on_record_by_its_name_only() {
    let mut bench = Bench::new();
    bench.head(head_with(
        "alice",
        &[
            (":authority", "gemini.example"),
            (":path", "/v1beta/models/m:generateContent"),
            ("authorization", ""),
            ("x-goog-api-key", "token-of-alice"),
        ],
    ));
    let body = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    bench.body(body.to_string().as_bytes(), true);
    let answer = json!({"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}], "modelVersion": {"seen": "in the field"}});
    bench.answer_json().answer(&answer.to_string(), true);
    assert_eq!(bench.answered(), answer.to_string());
    assert!(bench.recorded().values().any(|text| text == "[SEEN]"));
    assert!(!format!("{:?}", bench.recorded()).contains("in the field"));
    assert_eq!(bench.closed().findings["SEEN"], 1);
}

#[test]
fn a_document_inside_a_text_is_one_still_and_its_escapes_hide_nothing() {
    let inner = r#"{"note":"a\n536-22-8714","tag":"\u003c536-22-8714\u003e","mail":"x\nada@example.com","tab":"\t4111 1111 1111 1111"}"#;
    let mut bench = Bench::new();
    let tool = json!({"role": "tool", "tool_call_id": "c", "content": inner});
    bench.ask(
        "alice",
        &json!({"model": "gpt-4o", "messages": [tool]}).to_string(),
    );
    let upstream: Value = serde_json::from_str(bench.upstream()).unwrap();
    let content = upstream["messages"][0]["content"].as_str().unwrap();
    let inner: Value = serde_json::from_str(content).unwrap();
    assert_eq!(
        inner,
        json!({"note": "a\n[US_SSN]", "tag": "<[US_SSN]>", "mail": "x\n[EMAIL_ADDRESS]", "tab": "\t[CREDIT_CARD]"})
    );
}
