use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{RequestBody, ResponseFacts, ShapeError},
    GONE, LENT, Runs, endpoint, mask, read, text_of,
};

fn request(body: &Value) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (anthropic, messages) = endpoint("anthropic", "messages");
    let body = Bytes::from(body.to_string());
    anthropic.read_request(messages, "/v1/x", Some("application/json"), body)
}

fn rewritten(body: &Value) -> Value {
    serde_json::from_slice(&request(body).unwrap().rewrite(&mut mask)).unwrap()
}

fn with(message: Value) -> Value {
    json!({"model": "claude", "max_tokens": 9, "messages": [message]})
}

fn through(status: u16, body: &str) -> Result<(Value, ResponseFacts), ShapeError> {
    let (anthropic, messages) = endpoint("anthropic", "messages");
    let mut reader = anthropic.read_response(messages, status, Some("application/json"))?;
    let passed = read(
        &mut *reader,
        body.as_bytes().chunks(7),
        &mut Runs::default(),
    )?;
    let value = serde_json::from_slice(&passed.terminal).unwrap();
    Ok((value, reader.facts().clone()))
}

fn stream(events: &[Value]) -> Result<(String, ResponseFacts), ShapeError> {
    let (anthropic, messages) = endpoint("anthropic", "messages");
    let mut reader = anthropic.read_response(messages, 200, Some("text/event-stream"))?;
    let events: String = events
        .iter()
        .map(|event| {
            let name = event["type"].as_str().unwrap_or("none");
            format!("event: {name}\ndata: {event}\n\n")
        })
        .collect();
    let mut filter = Runs::default();
    let mut out = reader.push(events.as_bytes(), &mut filter)?;
    // An error behind events that passed is that of the next call.
    out.now.extend(reader.push(b"", &mut filter)?.now);
    out.now.extend(reader.finish(&mut filter)?.now);
    Ok((text_of(&out), reader.facts().clone()))
}

#[test]
fn every_text_of_a_request_is_found_and_masked() {
    let body = json!({
        "model": "claude-4111", "max_tokens": 4111, "stream": true,
        "system": [{"type": "text", "text": "you are 4111-1111", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        "metadata": {"user_id": "4111-1111"}, "stop_sequences": ["4111-1111"],
        "tools": [{"name": "pay", "description": "pays 4111-1111", "input_schema": {"type": "object", "properties": {"4111-1111": {"type": "string", "Name": "4111-1111"}}}}],
        "messages": [
            {"role": "user", "content": "plain 4111-1111"},
            {"role": "user", "content": [
                {"type": "text", "text": "41"}, {"type": "text", "text": "11"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc 4111-1111"}, "title": "t 4111-1111"},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "in 4111-1111"}]}},
                {"type": "search_result", "source": "https://x/4111-1111", "title": "x", "content": [{"type": "text", "text": "r 4111-1111"}]},
                {"type": "tool_result", "tool_use_id": "toolu_4111", "content": [{"type": "text", "text": "result 4111-1111"}]},
                {"type": "tool_result", "tool_use_id": "toolu_4111", "content": "result 4111-1111", "is_error": false},
            ]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_4111", "name": "pay", "input": {"to": "4111-1111", "n": 41111111, "4111-1111": [true], "Type": 1}}]},
        ],
    });
    let n = "[\"N\"]";
    let mut expected: Value =
        serde_json::from_str(&body.to_string().replace("4111-1111", "[\\\"N\\\"]")).unwrap();
    expected["messages"][1]["content"][0]["text"] = n.into();
    expected["messages"][1]["content"][1]["text"] = "-".into();
    expected["messages"][2]["content"][0]["input"]["n"] = n.into();
    assert_eq!(rewritten(&body), expected);
    let read = request(&body).unwrap();
    assert_eq!(
        (read.model(), read.stream(), read.tools()),
        ("claude-4111", true, true)
    );
    assert!(read.unscanned().is_empty(), "{:?}", read.unscanned());
    assert!(
        super::texts(&*read).contains(&"41111111"),
        "a number is a text"
    );
}

#[test]
fn thinking_passes_as_it_is_or_goes_whole() {
    let thinks =
        |text: &str| json!({"type": "thinking", "thinking": text, "signature": "Eq4111-1111"});
    let text = json!({"type": "text", "text": "x"});
    let sealed = json!({"type": "redacted_thinking", "data": "4111-1111"});
    let (clean, dirty) = (thinks("of nothing"), thinks("of 4111-1111"));
    let table = [
        (vec![&clean, &text], vec![&clean, &text]),
        (vec![&dirty, &text], vec![&text]),
        (vec![&text, &dirty], vec![&text]),
        (
            vec![&dirty, &clean, &dirty, &dirty, &text, &dirty],
            vec![&clean, &text],
        ),
        (vec![&dirty, &dirty, &sealed], vec![&sealed]),
        (vec![&dirty], vec![]),
        (vec![&dirty, &dirty], vec![]),
    ];
    for (comes, leaves) in table {
        let body = with(json!({"role": "assistant", "content": comes}));
        let out = rewritten(&body);
        assert_eq!(out["messages"][0]["content"], json!(leaves), "{body}");
        let body = json!({"type": "message", "id": "msg", "content": comes});
        let (out, _) = through(200, &body.to_string()).unwrap();
        assert_eq!(out["content"], json!(leaves), "{body}");
    }
    let body = with(json!({"role": "assistant", "content": [dirty, sealed]}));
    let body = request(&body).unwrap();
    assert!(
        super::texts(&*body).contains(&"of 4111-1111"),
        "policy sees it"
    );
    assert_eq!(body.unscanned(), ["signed", "encrypted"]);
}

#[test]
fn what_cannot_be_read_is_said_and_left_as_it_is() {
    let base64 = |kind: &str| json!({"type": "base64", "media_type": kind, "data": "4111-1111"});
    let table = [
        (
            json!({"type": "image", "source": base64("image/png")}),
            "image",
        ),
        (
            json!({"type": "document", "source": base64("application/pdf")}),
            "document",
        ),
        (
            json!({"type": "image", "source": {"type": "url", "url": "https://x/y"}}),
            "image",
        ),
        (
            json!({"type": "document", "source": {"type": "file", "file_id": "file_4111"}}),
            "document",
        ),
        (
            json!({"type": "container_upload", "file_id": "file_4111"}),
            "file",
        ),
        (
            json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": base64("image/png")}]}),
            "image",
        ),
    ];
    for (block, kind) in table {
        let body = with(json!({"role": "user", "content": [block]}));
        assert!(
            request(&body).unwrap().unscanned().contains(&kind),
            "{kind}"
        );
        assert_eq!(rewritten(&body), body);
    }
    // A link is text all the same.
    let link = |url: &str| {
        with(
            json!({"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}),
        )
    };
    assert_eq!(
        rewritten(&link("https://x/4111")),
        link("https://x/[\"N\"]")
    );
}

#[test]
fn a_bad_request_is_refused_by_a_stable_code() {
    let user = |content: Value| with(json!({"role": "user", "content": content}));
    let table = [
        (json!({"messages": []}), "missing_model"),
        (json!({"model": 1, "messages": []}), "invalid_model"),
        (json!({"model": "m"}), "unknown_shape"),
        (json!({"model": "m", "messages": {}}), "unknown_shape"),
        (
            json!({"model": "m", "messages": [], "stream": "yes"}),
            "invalid_stream",
        ),
        (
            json!({"model": "m", "messages": [], "Stream": true}),
            "case_variant_key",
        ),
        (
            json!({"model": "m", "messages": [], "system": {"type": "text"}}),
            "unknown_shape",
        ),
        (user(json!(1)), "unknown_shape"),
        (
            user(json!([{"type": "hologram", "data": "x"}])),
            "unknown_shape",
        ),
        (user(json!([{"text": "x"}])), "unknown_shape"),
        (user(json!(["x"])), "unknown_shape"),
        (
            user(json!([{"type": "text", "Text": "x"}])),
            "case_variant_key",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(request(&body).unwrap_err().code, expected, "{body}");
    }
}

#[test]
fn a_message_is_masked_and_noted() {
    let body = json!({
        "id": "msg_4111", "type": "message", "role": "assistant", "model": "claude-4111", "stop_reason": "end_turn", "stop_sequence": null,
        "content": [
            {"type": "text", "text": "41", "citations": [{"type": "char_location", "cited_text": "4111-1111", "document_index": 0, "start_char_index": 4111, "end_char_index": 4120}]},
            {"type": "text", "text": "11"},
            {"type": "tool_use", "id": "toolu_4111", "name": "f", "input": {"a": "4111-1111", "n": 41111111}},
        ],
        "usage": {"input_tokens": 41111, "output_tokens": 41112, "service_tier": "standard"},
    });
    let (out, facts) = through(200, &body.to_string()).unwrap();
    let mut expected = body.clone();
    expected["content"][0]["text"] = "[\"N\"]".into();
    expected["content"][0]["citations"][0]["cited_text"] = "[\"N\"]".into();
    expected["content"][1]["text"] = "".into();
    expected["content"][2]["input"] = json!({"a": "[\"N\"]", "n": "[\"N\"]"});
    assert_eq!(out, expected);
    assert_eq!(facts.id.as_deref(), Some("msg_4111"));
    assert_eq!(facts.model.as_deref(), Some("claude-4111"));
    assert_eq!(facts.finish_reasons, ["end_turn"]);
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(41111), Some(41112))
    );
    assert!(facts.complete);
}

#[test]
fn counts_and_errors_pass_masked() {
    let (out, _) = through(200, r#"{"input_tokens":41111}"#).unwrap();
    assert_eq!(out, json!({"input_tokens": 41111}));
    let error = |message: &str| json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_4111"});
    let (out, _) = through(400, &error("no 4111-1111").to_string()).unwrap();
    assert_eq!(out, error("no [\"N\"]"));
    for body in [
        "{}",
        "[]",
        r#"{"type":"message"}"#,
        r#"{"type":"message","content":"x"}"#,
        r#"{"type":"message","content":[{"type":"novel"}]}"#,
    ] {
        assert_eq!(
            through(200, body).unwrap_err().code,
            "unknown_shape",
            "{body}"
        );
    }
}

#[test]
fn a_stream_of_no_known_shape_is_refused() {
    let start =
        |block: Value| json!({"type": "content_block_start", "index": 0, "content_block": block});
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    let text = start(json!({"type": "text", "text": ""}));
    let thinking = start(json!({"type": "thinking", "thinking": "", "signature": ""}));
    let table = [
        (vec![json!({"type": "novel"})], "unknown_shape"),
        (vec![json!([])], "unknown_shape"),
        (vec![json!({"type": "content_block_stop"})], "unknown_shape"),
        (
            vec![json!({"type": "content_block_stop", "index": "0"})],
            "unknown_shape",
        ),
        (
            vec![json!({"type": "content_block_stop", "index": 1024})],
            "too_many_channels",
        ),
        (
            vec![json!({"type": "content_block_start", "index": 0})],
            "unknown_shape",
        ),
        (vec![start(json!({"type": "novel"}))], "unknown_shape"),
        (
            vec![
                text.clone(),
                delta(json!({"type": "novel_delta", "text": "x"})),
            ],
            "unknown_shape",
        ),
        (
            vec![
                text.clone(),
                delta(json!({"type": "text_delta", "text": ["x"]})),
            ],
            "unknown_shape",
        ),
        // Thinking that no block holds, or whose block does not end, could not be taken out again.
        (
            vec![
                text,
                delta(json!({"type": "thinking_delta", "thinking": "x"})),
            ],
            "unknown_shape",
        ),
        (
            vec![
                thinking.clone(),
                delta(json!({"type": "text_delta", "text": "x"})),
            ],
            "unknown_shape",
        ),
        (
            vec![thinking.clone(), json!({"type": "message_stop"})],
            "unknown_shape",
        ),
        (vec![thinking.clone(), thinking], "unknown_shape"),
        (
            vec![json!({"type": "message_stop"}), json!({"type": "ping"})],
            "unknown_shape",
        ),
    ];
    for (events, expected) in table {
        assert_eq!(stream(&events).unwrap_err().code, expected, "{events:?}");
    }
}

#[test]
fn thinking_beyond_what_can_be_held_is_dropped() {
    let mut events = vec![
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
    ];
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "x".repeat(900_000)}});
    events.extend(std::iter::repeat_n(delta, 10));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    let stop = json!({"type": "message_stop"});
    let (out, _) = stream(&[&events[..], std::slice::from_ref(&stop)].concat()).unwrap();
    assert_eq!(out, format!("event: message_stop\ndata: {stop}\n\n"));
    // Cut off, it does not leave either.
    let (out, facts) = stream(&events[..2]).unwrap();
    assert_eq!(out, "");
    assert!(!facts.complete);
}

#[test]
fn what_may_stand_nowhere_stands_in_no_word() {
    let secret = |name: &str| format!("{name}-{LENT}");
    let events = [
        json!({"type": "message_start", "message": {"id": secret("id"), "type": "message", "role": secret("r"), "model": secret("m"), "content": [], "usage": {"service_tier": secret("t")}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": secret("d")}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": secret("id"), "name": "f", "input": {}}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "thinking", "thinking": "", "signature": secret("s")}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "signature_delta", "signature": secret("s")}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": secret("stop")}}),
        json!({"type": "error", "error": {"type": secret("e"), "message": ""}, "request_id": secret("q")}),
    ];
    let (out, facts) = stream(&events).unwrap();
    assert!(!out.contains(LENT), "{out}");
    assert_eq!(out.matches(GONE).count(), 11, "{out}");
    assert_eq!(facts.id, Some(format!("id-{GONE}")));
    assert_eq!(facts.model, Some(format!("m-{GONE}")));
    assert_eq!(facts.finish_reasons, [format!("stop-{GONE}")]);
}
