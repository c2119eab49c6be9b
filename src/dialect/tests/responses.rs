use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{RequestBody, ResponseFacts, ShapeError},
    GONE, LENT, Runs, endpoint, mask, sides, text_of,
};

fn request(name: &str, body: &Value) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (openai, endpoint) = endpoint("openai", name);
    let body = Bytes::from(body.to_string());
    openai.read_request(endpoint, "/v1/x", Some("application/json"), body)
}

fn rewritten(name: &str, body: &Value) -> Value {
    serde_json::from_slice(&request(name, body).unwrap().rewrite(&mut mask)).unwrap()
}

fn through(
    name: &str,
    content_type: &str,
    body: &str,
) -> Result<(String, ResponseFacts, Runs), ShapeError> {
    let (openai, endpoint) = endpoint("openai", name);
    let mut reader = openai.read_response(endpoint, 200, Some(content_type))?;
    let mut filter = Runs::default();
    let mut out = reader.push(body.as_bytes(), &mut filter)?;
    // An error behind events that passed is that of the next call.
    reader.push(b"", &mut filter)?;
    let rest = reader.finish(&mut filter)?;
    out.now.extend(rest.now);
    out.terminal.extend(rest.terminal);
    Ok((text_of(&out), reader.facts().clone(), filter))
}

fn events(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

#[test]
fn every_text_of_a_response_request_is_found_and_masked() {
    let body = json!({
        "model": "gpt-4111", "stream": true, "instructions": "i 4111-1111", "previous_response_id": "resp_4111",
        "metadata": {"k 4111-1111": "v 4111-1111"}, "prompt": {"id": "pmpt_4111", "variables": {"name": "4111-1111"}},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {"4111-1111": {"type": "string"}}}}},
        "tools": [{"type": "function", "name": "f", "description": "d 4111-1111", "parameters": {"type": "object", "properties": {"Type": {"type": "number"}}}},
            {"type": "mcp", "server_label": "s", "headers": {"Authorization": "4111-1111"}}],
        "input": [
            {"role": "user", "content": "plain 4111-1111"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "41"}, {"type": "input_text", "text": "11"}]},
            {"type": "message", "role": "assistant", "id": "msg_4111", "status": "completed", "content": [
                {"type": "output_text", "text": "o 4111-1111", "annotations": []}, {"type": "refusal", "refusal": "r 4111-1111"}]},
            {"type": "reasoning", "id": "rs_4111", "summary": [{"type": "summary_text", "text": "s 4111-1111"}], "encrypted_content": "4111-1111X"},
            {"type": "function_call", "call_id": "call_4111", "name": "f", "arguments": "{\"a\":\"4111-1111\"}"},
            {"type": "function_call_output", "call_id": "call_4111", "output": "out 4111-1111"},
            {"type": "local_shell_call", "call_id": "call_1", "action": {"type": "exec", "command": ["echo", "4111-1111"], "env": {"A": "4111-1111"}}},
            {"type": "custom_tool_call", "call_id": "call_1", "name": "f", "input": "in 4111-1111"},
            {"type": "mcp_call", "id": "m", "server_label": "s", "name": "f", "arguments": "{}", "output": "4111-1111", "error": null},
        ],
    });
    let escaped = body.to_string().replace("4111-1111X", "KEEP");
    let escaped = escaped.replace(r#"\"4111-1111\""#, r#"\"[\\\"N\\\"]\""#);
    let escaped = escaped.replace("4111-1111", "[\\\"N\\\"]");
    let mut expected: Value = serde_json::from_str(&escaped.replace("KEEP", "4111-1111X")).unwrap();
    expected["input"][1]["content"] =
        json!([{"type": "input_text", "text": "[\"N\"]"}, {"type": "input_text", "text": "-"}]);
    assert_eq!(rewritten("responses", &body), expected);
    let read = request("responses", &body).unwrap();
    assert_eq!(
        (read.model(), read.stream(), read.tools()),
        ("gpt-4111", true, true)
    );
    assert_eq!(read.unscanned(), ["encrypted"]);
}

#[test]
fn what_cannot_be_read_is_said_and_left_as_it_is() {
    let parts = [
        (
            json!({"type": "input_image", "image_url": "data:image/png;base64,41111111", "detail": "auto"}),
            "image_url",
        ),
        (
            json!({"type": "input_image", "image_url": "https://x/y"}),
            "image_url",
        ),
        (
            json!({"type": "input_image", "file_id": "file-4111"}),
            "file",
        ),
        (
            json!({"type": "input_file", "file_data": "data:application/pdf;base64,41111111", "filename": "x.pdf"}),
            "file",
        ),
        (
            json!({"type": "input_file", "file_id": "file-4111"}),
            "file",
        ),
        (
            json!({"type": "input_file", "file_url": "https://x/y"}),
            "file",
        ),
        (
            json!({"type": "input_audio", "input_audio": {"data": "41111111", "format": "mp3"}}),
            "input_audio",
        ),
    ];
    for (part, kind) in parts {
        let body = json!({"model": "m", "input": [{"role": "user", "content": [part]}]});
        assert_eq!(
            request("responses", &body).unwrap().unscanned(),
            [kind],
            "{body}"
        );
        assert_eq!(rewritten("responses", &body), body);
    }
    let image = json!({"model": "m", "input": [{"type": "image_generation_call", "id": "i", "status": "completed", "result": "41111111"}]});
    assert_eq!(request("responses", &image).unwrap().unscanned(), ["image"]);
    assert_eq!(rewritten("responses", &image), image);
    let tokens = [json!([4111, 1111]), json!([[4111, 1111], [4111]])];
    for tokens in tokens {
        for (name, field) in [("completions", "prompt"), ("embeddings", "input")] {
            let body = json!({"model": "m", field: tokens});
            assert_eq!(request(name, &body).unwrap().unscanned(), ["token_ids"]);
            assert_eq!(rewritten(name, &body), body);
        }
    }
}

#[test]
fn prompts_and_inputs_are_masked_each_for_itself() {
    for (name, field) in [("completions", "prompt"), ("embeddings", "input")] {
        for (text, expected) in [
            (json!("x 4111"), json!("x [\"N\"]")),
            (json!(["41", "11", "4111"]), json!(["41", "11", "[\"N\"]"])),
        ] {
            let body = |text: &Value| json!({"model": "m", field: text, "user": "4111", "dimensions": 4111});
            let mut expected = body(&expected);
            expected["user"] = "[\"N\"]".into();
            assert_eq!(rewritten(name, &body(&text)), expected);
        }
        for (body, code) in [
            (json!({field: "x"}), "missing_model"),
            (json!({"model": "m"}), "unknown_shape"),
            (json!({"model": "m", field: {"text": "x"}}), "unknown_shape"),
            (
                json!({"model": "m", field: [{"text": "x"}]}),
                "unknown_shape",
            ),
            (
                json!({"model": "m", field: "x", "Model": "n"}),
                "case_variant_key",
            ),
        ] {
            assert_eq!(request(name, &body).unwrap_err().code, code, "{body}");
        }
    }
}

#[test]
fn a_bad_response_request_is_refused_by_a_stable_code() {
    for (body, code) in [
        (json!([]), "unknown_shape"),
        (json!({"input": "x"}), "missing_model"),
        (json!({"model": "m", "input": {}}), "unknown_shape"),
        (json!({"model": "m", "input": ["x"]}), "unknown_shape"),
        (
            json!({"model": "m", "input": "x", "instructions": []}),
            "unknown_shape",
        ),
        (
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "hologram"}]}]}),
            "unknown_shape",
        ),
        (
            json!({"model": "m", "input": "x", "Input": "y"}),
            "case_variant_key",
        ),
        (
            json!({"model": "m", "input": "x", "stream": 1}),
            "invalid_stream",
        ),
    ] {
        assert_eq!(
            request("responses", &body).unwrap_err().code,
            code,
            "{body}"
        );
    }
}

#[test]
fn completions_and_embeddings_answer_masked() {
    let completion = |text: &str, logprobs: Value| json!({"id": "cmpl-4111", "object": "text_completion", "model": "m-4111", "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4111, "completion_tokens": 1}});
    let body = completion("x 4111", json!({"tokens": ["4111"]})).to_string();
    let (out, facts, _) = through("completions", "application/json", &body).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        completion("x [\"N\"]", Value::Null)
    );
    assert_eq!(
        (facts.id.as_deref(), facts.input_tokens),
        (Some("cmpl-4111"), Some(4111))
    );
    assert_eq!(facts.finish_reasons, ["stop"]);
    let embeddings = json!({"object": "list", "model": "m-4111", "data": [
        {"object": "embedding", "index": 0, "embedding": [0.4111, -4111]}, {"object": "embedding", "index": 1, "embedding": "4111AAAA"}], "usage": {"prompt_tokens": 7}}).to_string();
    let (out, facts, _) = through("embeddings", "application/json", &embeddings).unwrap();
    assert_eq!(out, embeddings);
    assert_eq!(facts.input_tokens, Some(7));
    for (name, body) in [
        ("completions", "{}"),
        (
            "completions",
            r#"{"object":"chat.completion","choices":[]}"#,
        ),
        ("embeddings", "{}"),
        ("responses", "{}"),
        ("responses", r#"{"object":"response"}"#),
        ("responses", r#"{"output":{}}"#),
    ] {
        assert_eq!(
            through(name, "application/json", body).unwrap_err().code,
            "unknown_shape",
            "{name} {body}"
        );
    }
    assert_eq!(
        through("embeddings", "text/event-stream", "")
            .unwrap_err()
            .code,
        "unsupported_content_type"
    );
}

#[test]
fn a_response_is_masked_and_noted() {
    let body = json!({"id": "resp_4111", "object": "response", "status": "completed", "model": "gpt-4111", "output": [
        {"type": "message", "id": "msg_4111", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "41", "annotations": [{"type": "url_citation", "start_index": 0}], "logprobs": [{"token": "41"}]},
            {"type": "output_text", "text": "11", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "call_id": "call_4111", "arguments": "{\"n\":4111}", "name": "f"},
    ], "usage": {"input_tokens": 4111, "output_tokens": 4112}});
    let (out, facts, filter) = through("responses", "application/json", &body.to_string()).unwrap();
    let mut expected = body.clone();
    expected["output"][0]["content"][0] =
        json!({"type": "output_text", "text": "[\"N\"]", "annotations": [], "logprobs": []});
    expected["output"][0]["content"][1]["text"] = "".into();
    expected["output"][1]["arguments"] = "{\"n\":\"[\\\"N\\\"]\"}".into();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    assert_eq!(facts.finish_reasons, ["completed"]);
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(4111), Some(4112))
    );
    let texts: Vec<&str> = filter.texts.iter().map(|(_, text)| text.as_str()).collect();
    assert!(
        texts.contains(&"4111") && !texts.contains(&"41"),
        "{texts:?}"
    );
}

#[test]
fn what_is_repeated_is_recorded_once_and_what_is_new_is_not_missed() {
    let transcript = include_str!("../../../tests/transcripts/openai/responses.txt");
    let (_, facts, filter) =
        through("responses", "text/event-stream", sides(transcript).0).unwrap();
    for said in [
        "Card 4111-1111, and 12 or 3456",
        "4111-1111",
        "Never say 4111-1111.",
    ] {
        let times = filter.texts.iter().filter(|(_, text)| text == said).count();
        assert_eq!(times, 1, "{said}");
    }
    assert_eq!(facts.finish_reasons, ["completed"]);
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(36), Some(87))
    );
    // A server that says something else in the end than it did before has said both.
    let stream = events(&[
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "one 4111"}),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "two 4111"}),
        json!({"type": "response.completed", "response": {}}),
    ]);
    let (out, _, filter) = through("responses", "text/event-stream", &stream).unwrap();
    assert!(out.contains("two [") && !out.contains("4111"), "{out}");
    for said in ["one 4111", "two 4111"] {
        assert!(filter.texts.iter().any(|(_, text)| text == said), "{said}");
    }
}

#[test]
fn a_stream_of_no_known_shape_is_refused() {
    let delta = |more: Value| {
        let mut event = json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "x"});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let done = json!({"type": "response.completed", "response": {}});
    for (stream, code) in [
        (
            vec![json!({"type": "response.novel.delta", "delta": "x"})],
            "unknown_shape",
        ),
        (vec![json!({"type": "novel"})], "unknown_shape"),
        (vec![json!({})], "unknown_shape"),
        (
            vec![delta(json!({"delta": {"text": "x"}}))],
            "unknown_shape",
        ),
        (vec![delta(json!({"output_index": "0"}))], "unknown_shape"),
        (
            vec![delta(json!({"output_index": 1024}))],
            "too_many_channels",
        ),
        (vec![delta(json!({"Delta": "x"}))], "case_variant_key"),
        (
            vec![json!({"type": "response.completed", "response": "x"})],
            "unknown_shape",
        ),
        (vec![done.clone(), done.clone()], "unknown_shape"),
    ] {
        let stream = events(&stream);
        let fault = through("responses", "text/event-stream", &stream)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(fault.code, code, "{stream}");
    }
    // Some servers end as chat completions do.
    let stream = events(&[done]) + "data: [DONE]\n\n";
    assert_eq!(
        through("responses", "text/event-stream", &stream)
            .unwrap()
            .0,
        stream
    );
}

#[test]
fn what_may_stand_nowhere_stands_in_no_word() {
    let secret = |name: &str| format!("{name}-{LENT}");
    let stream = events(&[
        json!({"type": "response.created", "response": {"id": secret("id"), "model": secret("m"), "status": secret("s"), "output": []}}),
        json!({"type": "response.output_text.delta", "item_id": secret("i"), "output_index": 0, "content_index": 0, "delta": "held 12", "obfuscation": "o"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "id": secret("r"), "encrypted_content": secret("e"), "summary": []}}),
        json!({"type": "response.image_generation_call.partial_image", "output_index": 1, "partial_image_b64": secret("b")}),
        json!({"type": "response.completed", "response": {"output": [{"type": "image_generation_call", "result": secret("b")}]}}),
    ]);
    let (out, facts, _) = through("responses", "text/event-stream", &stream).unwrap();
    assert!(!out.contains(LENT), "{out}");
    // The delta of ours repeats the item's id.
    assert_eq!(
        out.matches(GONE).count(),
        stream.matches(LENT).count() + 1,
        "{out}"
    );
    assert_eq!(facts.id, Some(format!("id-{GONE}")));
}
