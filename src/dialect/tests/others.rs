//! Gemini, Ollama, and bodies of no provider: requests and whole answers.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{RequestBody, ResponseFacts, ShapeError},
    GONE, LENT, Open, Runs, endpoint, mask, masked, read, text_of,
};

const GEMINI_PATH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

fn request(dialect: &str, name: &str, body: &Value) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (dialect, endpoint) = endpoint(dialect, name);
    let body = Bytes::from(body.to_string());
    dialect.read_request(endpoint, GEMINI_PATH, Some("application/json"), body)
}

fn rewritten(dialect: &str, name: &str, body: &Value) -> Value {
    serde_json::from_slice(&request(dialect, name, body).unwrap().rewrite(&mut mask)).unwrap()
}

fn through(
    dialect: &str,
    name: &str,
    status: u16,
    content_type: &str,
    body: &str,
) -> Result<(String, ResponseFacts), ShapeError> {
    let (dialect, endpoint) = endpoint(dialect, name);
    let mut reader = dialect.read_response(endpoint, status, Some(content_type))?;
    let mut filter = Runs::default();
    let mut out = reader.push(body.as_bytes(), &mut filter)?;
    // An error behind events that passed is that of the next call.
    out.now.extend(reader.push(b"", &mut filter)?.now);
    let rest = reader.finish(&mut filter)?;
    out.now.extend(rest.now);
    out.terminal.extend(rest.terminal);
    Ok((text_of(&out), reader.facts().clone()))
}

/// Every `4111-1111` in `body`, masked.
fn all_masked(body: &Value) -> Value {
    serde_json::from_str(&body.to_string().replace("4111-1111", "[\\\"N\\\"]")).unwrap()
}

#[test]
fn every_text_of_a_gemini_request_is_found_and_masked() {
    let body = json!({
        "systemInstruction": {"parts": [{"text": "i 4111-1111"}]}, "labels": {"4111-1111": "4111-1111"},
        "generationConfig": {"stopSequences": ["4111-1111"], "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"4111-1111": {"type": "STRING", "description": "4111-1111"}}}},
        "tools": [{"functionDeclarations": [{"name": "f", "description": "d 4111-1111", "parameters": {"type": "OBJECT", "properties": {"Text": {"type": "STRING"}}}}]}],
        "contents": [
            {"role": "user", "parts": [{"text": "x 4111-1111"}, {"inlineData": {"mimeType": "image/png", "data": "41111111"}}]},
            {"role": "user", "parts": [{"text": "41"}, {"text": "11"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": "4111-1111", "Text": 1}}, "thoughtSignature": "41111111"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"out": ["4111-1111"]}}}]},
        ],
    });
    let mut expected = all_masked(&body);
    expected["contents"][1]["parts"] = json!([{"text": "[\"N\"]"}, {"text": "-"}]);
    assert_eq!(rewritten("gemini", "generate_content", &body), expected);
    let read = request("gemini", "generate_content", &body).unwrap();
    assert_eq!(
        (read.model(), read.stream(), read.tools()),
        ("gemini-2.5-flash", false, true)
    );
    assert_eq!(read.unscanned(), ["media", "signed"]);
    // The other spelling means the same.
    let snake = json!({"system_instruction": {"parts": [{"text": "i 4111-1111"}]}, "contents": [
        {"parts": [{"function_call": {"name": "f", "args": {"n": 41111111}}, "thought_signature": "41111111"}, {"inline_data": {"data": "41111111"}}]}]});
    let mut expected = all_masked(&snake);
    expected["contents"][0]["parts"][0]["function_call"]["args"]["n"] = "[\"N\"]".into();
    assert_eq!(rewritten("gemini", "generate_content", &snake), expected);
}

#[test]
fn the_model_is_the_one_in_the_path_and_no_other() {
    let (gemini, generate) = endpoint("gemini", "generate_content");
    let (_, stream) = endpoint("gemini", "stream_generate_content");
    for (path, at) in [
        ("/models/gemini-2.5-flash:generateContent", true),
        ("/models/m_1.5:generateContent", true),
        ("/models/:generateContent", false),
        ("/models/a/b:generateContent", false),
        ("/models/a:b:generateContent", false),
        ("/models/models/a:generateContent", false),
        ("/x/models/a:generateContent", false),
        ("/models/a:generateContent/", false),
        ("/models/a:streamGenerateContent", false),
    ] {
        assert_eq!(generate.is_at(path), at, "{path}");
    }
    assert!(stream.is_at("/models/a:streamGenerateContent"));
    assert!(endpoint("openai", "responses").1.is_at("/responses"));
    assert!(!endpoint("openai", "responses").1.is_at("/responses/x"));
    let read = |path: &str, body: Value| {
        let body = Bytes::from(body.to_string());
        let request = gemini.read_request(generate, path, Some("application/json"), body);
        request
            .map(|request| request.model().to_owned())
            .map_err(|fault| fault.code)
    };
    let body = |model: Value| json!({"contents": [], "model": model});
    assert_eq!(
        read(GEMINI_PATH, json!({"contents": []})),
        Ok("gemini-2.5-flash".to_owned())
    );
    assert_eq!(
        read(GEMINI_PATH, body("models/gemini-2.5-flash".into())),
        Ok("gemini-2.5-flash".to_owned())
    );
    assert_eq!(
        read(GEMINI_PATH, body("models/gemini-2.5-pro".into())),
        Err("conflicting_model")
    );
    assert_eq!(read(GEMINI_PATH, body(1.into())), Err("conflicting_model"));
    assert_eq!(
        read("/v1beta/elsewhere", json!({"contents": []})),
        Err("unknown_endpoint")
    );
}

#[test]
fn a_bad_gemini_request_is_refused_by_a_stable_code() {
    for (body, code) in [
        (json!([]), "unknown_shape"),
        (json!({}), "unknown_shape"),
        (json!({"contents": "x"}), "unknown_shape"),
        (json!({"contents": ["x"]}), "unknown_shape"),
        (json!({"contents": [{"parts": "x"}]}), "unknown_shape"),
        (
            json!({"contents": [{"parts": [{"text": 1}]}]}),
            "unknown_shape",
        ),
        (json!({"contents": [], "Contents": []}), "case_variant_key"),
        (
            json!({"contents": [], "generationConfig": {}, "generation_config": {}}),
            "duplicate_key",
        ),
        (
            json!({"contents": [{"parts": [{"inlineData": {}, "inline_data": {}}]}]}),
            "duplicate_key",
        ),
    ] {
        let fault = request("gemini", "generate_content", &body).unwrap_err();
        assert_eq!(fault.code, code, "{body}");
    }
}

#[test]
fn geminis_answers_and_errors_are_masked_and_noted() {
    let body = json!({"candidates": [{"content": {"role": "model", "parts": [
            {"text": "why 4111-1111", "thought": true}, {"text": "41"}, {"text": "11"},
            {"functionCall": {"name": "f", "args": {"n": 41111111}}}]}, "finishReason": "STOP", "avgLogprobs": -0.41111, "logprobsResult": {"chosenCandidates": [{"token": "41"}]}}],
        "usageMetadata": {"promptTokenCount": 41111, "candidatesTokenCount": 7}, "modelVersion": "gemini-4111", "responseId": "r4111"});
    let json = "application/json; charset=UTF-8";
    let (out, facts) = through("gemini", "generate_content", 200, json, &body.to_string()).unwrap();
    let mut expected = all_masked(&body);
    let parts = &mut expected["candidates"][0]["content"]["parts"];
    parts[1]["text"] = "[\"N\"]".into();
    parts[2]["text"] = "".into();
    parts[3]["functionCall"]["args"]["n"] = "[\"N\"]".into();
    expected["candidates"][0]["logprobsResult"] = Value::Null;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    assert_eq!(facts.model.as_deref(), Some("gemini-4111"));
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(41111), Some(7))
    );
    assert_eq!(facts.finish_reasons, ["STOP"]);
    let error = json!({"error": {"code": 400, "message": "no 4111-1111", "status": "INVALID_ARGUMENT", "details": [{"@type": "x", "reason": "4111-1111"}]}});
    for body in [error.clone(), json!([error])] {
        for name in ["generate_content", "stream_generate_content"] {
            let (out, _) = through("gemini", name, 400, json, &body.to_string()).unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(&out).unwrap(),
                all_masked(&body)
            );
        }
    }
    for (name, kind, body) in [
        ("generate_content", json, "{}"),
        ("generate_content", json, "[]"),
        ("generate_content", json, r#"{"candidates":{}}"#),
        (
            "stream_generate_content",
            "text/event-stream",
            "data: {}\n\n",
        ),
        (
            "stream_generate_content",
            "text/event-stream",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"partialArgs\":[{\"stringValue\":\"x\"}]}}]}}]}\n\n",
        ),
        (
            "stream_generate_content",
            "text/event-stream",
            "data: {\"candidates\":[{\"index\":\"1\",\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\n\n",
        ),
    ] {
        assert_eq!(
            through("gemini", name, 200, kind, body).unwrap_err().code,
            "unknown_shape",
            "{body}"
        );
    }
}

#[test]
fn an_array_that_is_none_is_refused() {
    let one = r#"{"candidates":[]}"#;
    for (body, code) in [
        ("{}".to_owned(), "invalid_json"),
        ("[1]".to_owned(), "invalid_json"),
        (format!("[{one}{one}]"), "invalid_json"),
        (format!("[{one},]"), "invalid_json"),
        (format!("[,{one}]"), "invalid_json"),
        (format!("[{one}]x"), "invalid_json"),
        (format!("[{one}],"), "invalid_json"),
        ("[{\"candidates\":[}]".to_owned(), "cut_event"),
        (format!("[{one},{{"), "cut_event"),
        ("[{\"candidates\":[]]".to_owned(), "cut_event"),
        ("[{]}]".to_owned(), "cut_event"),
    ] {
        let fault = through(
            "gemini",
            "stream_generate_content",
            200,
            "application/json",
            &body,
        );
        let fault = fault.map(|_| ()).unwrap_err();
        assert!(
            [code, "invalid_json", "truncated_json"].contains(&fault.code),
            "{body}: {fault:?}"
        );
    }
    let cut = through(
        "gemini",
        "stream_generate_content",
        200,
        "application/json",
        &format!("[{one}"),
    );
    assert!(!cut.unwrap().1.complete);
    for body in [
        "[]",
        " [ ] \n",
        "[{\"candidates\":[]} , {\"candidates\":[]}]\r\n",
    ] {
        let (out, facts) = through(
            "gemini",
            "stream_generate_content",
            200,
            "application/json",
            body,
        )
        .unwrap();
        assert_eq!(out, body);
        assert!(facts.complete);
    }
}

#[test]
fn ollamas_requests_are_masked() {
    let chat = json!({"model": "m", "messages": [
        {"role": "system", "content": "s 4111-1111"},
        {"role": "user", "content": "u 4111-1111", "images": ["41111111"]},
        {"role": "assistant", "content": "", "thinking": "t 4111-1111", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "4111-1111", "Role": "x"}}}]},
        {"role": "tool", "tool_name": "f", "content": "r 4111-1111"}],
        "options": {"stop": ["4111-1111"], "num_ctx": 41111}, "format": {"type": "object", "properties": {"4111-1111": {"type": "string"}}}});
    assert_eq!(rewritten("ollama", "chat", &chat), all_masked(&chat));
    let read = request("ollama", "chat", &chat).unwrap();
    // Without a word on it, Ollama streams.
    assert_eq!(
        (read.model(), read.stream(), read.tools()),
        ("m", true, false)
    );
    assert_eq!(read.unscanned(), ["image"]);
    let generate = json!({"model": "m", "prompt": "p 4111-1111", "system": "s 4111-1111", "suffix": "4111-1111", "template": "4111-1111", "stream": false, "context": [41111, 41112]});
    assert_eq!(
        rewritten("ollama", "generate", &generate),
        all_masked(&generate)
    );
    let read = request("ollama", "generate", &generate).unwrap();
    assert_eq!(
        (read.stream(), read.unscanned()),
        (false, &["token_ids"][..])
    );
    let embed = json!({"model": "m", "input": ["41", "4111-1111"]});
    assert_eq!(rewritten("ollama", "embed", &embed), all_masked(&embed));
    for (name, body, code) in [
        ("chat", json!({"model": "m"}), "unknown_shape"),
        ("chat", json!({"messages": []}), "missing_model"),
        (
            "chat",
            json!({"model": "m", "messages": [{"content": ["x"]}]}),
            "unknown_shape",
        ),
        (
            "chat",
            json!({"model": "m", "messages": [], "Model": "n"}),
            "case_variant_key",
        ),
        (
            "generate",
            json!({"model": "m", "prompt": ["x"]}),
            "unknown_shape",
        ),
        ("embed", json!({"model": "m"}), "unknown_shape"),
    ] {
        assert_eq!(
            request("ollama", name, &body).unwrap_err().code,
            code,
            "{body}"
        );
    }
}

#[test]
fn ollamas_answers_are_masked_and_noted() {
    let chat = json!({"model": "m4111", "created_at": "2025-06-01T12:00:00Z", "message": {"role": "assistant", "content": "c 4111-1111", "thinking": "t 4111-1111",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": "4111-1111"}}}]}, "done": true, "done_reason": "stop", "prompt_eval_count": 41111, "eval_count": 7});
    let (out, facts) = through(
        "ollama",
        "chat",
        200,
        "application/json; charset=utf-8",
        &chat.to_string(),
    )
    .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        all_masked(&chat)
    );
    assert_eq!(facts.model.as_deref(), Some("m4111"));
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(41111), Some(7))
    );
    assert_eq!(facts.finish_reasons, ["stop"]);
    let generate =
        json!({"model": "m", "response": "r 4111-1111", "done": true, "context": [41111]});
    let mut expected = all_masked(&generate);
    expected["context"] = json!([]);
    let (out, _) = through(
        "ollama",
        "generate",
        200,
        "application/json",
        &generate.to_string(),
    )
    .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    let embed = json!({"model": "m", "embeddings": [[0.41111]]}).to_string();
    assert_eq!(
        through("ollama", "embed", 200, "application/json", &embed)
            .unwrap()
            .0,
        embed
    );
    let error = r#"{"error":"no 4111-1111"}"#;
    for (status, kind, line) in [
        (404, "application/json", error.to_owned()),
        (200, "application/x-ndjson", format!("{error}\n")),
    ] {
        let (out, facts) = through("ollama", "chat", status, kind, &line).unwrap();
        assert_eq!(out, line.replace("4111-1111", "[\\\"N\\\"]"));
        assert_eq!(facts.complete, status == 404);
    }
    for line in [
        "{}",
        "[]",
        r#"{"message":"x"}"#,
        r#"{"message":{"content":["x"]}}"#,
        r#"{"response":{}}"#,
    ] {
        let line = format!("{line}\n");
        assert_eq!(
            through("ollama", "chat", 200, "application/x-ndjson", &line)
                .unwrap_err()
                .code,
            "unknown_shape",
            "{line}"
        );
    }
    let done = "{\"message\":{\"content\":\"\"},\"done\":true}\n";
    assert_eq!(
        through(
            "ollama",
            "chat",
            200,
            "application/x-ndjson",
            &[done, done].concat()
        )
        .unwrap_err()
        .code,
        "unknown_shape"
    );
}

#[test]
fn a_document_of_no_provider_is_masked_all_over() {
    let body = json!({"model": "4111-1111", "4111-1111": ["4111-1111", null, true, 12], "deep": {"id": "x4111-1111"}, "n": 41111111});
    let mut expected = all_masked(&body);
    expected["n"] = "[\"N\"]".into();
    assert_eq!(rewritten("json", "any", &body), expected);
    let read = request("json", "any", &body).unwrap();
    assert_eq!(
        (read.model(), read.stream(), read.tools()),
        ("", false, false)
    );
    let (out, facts) = through("json", "any", 200, "application/json", &body.to_string()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    assert!(facts.complete);
    assert_eq!(
        through("json", "any", 200, "application/json", "\"4111\"")
            .unwrap()
            .0,
        r#""[\"N\"]""#
    );
    assert_eq!(
        through("json", "any", 200, "text/html", "x")
            .unwrap_err()
            .code,
        "unsupported_content_type"
    );
    assert_eq!(
        request("json", "any", &json!({"a": 1, "A": 2}))
            .unwrap_err()
            .code,
        "case_variant_key"
    );
}

#[test]
fn plain_text_leaves_as_it_comes_and_masked() {
    let (text, any) = endpoint("text", "any");
    let body = Bytes::from("é 4111-1111, 12");
    let read_request = |kind, body| text.read_request(any, "/", kind, body);
    let request = read_request(Some("text/plain; charset=utf-8"), body.clone()).unwrap();
    assert_eq!(super::texts(&*request), ["é 4111-1111, 12"]);
    assert_eq!(
        request.rewrite(&mut |text| Some(masked(text.text))),
        "é [\"N\"], 12"
    );
    assert_eq!(request.rewrite(&mut |_| None), body);
    for (kind, body, code) in [
        (None, &b"x"[..], "missing_content_type"),
        (Some("application/json"), b"x", "unsupported_content_type"),
        (
            Some("text/plain; charset=latin1"),
            b"x",
            "unsupported_content_type",
        ),
        (Some("text/plain"), b"\xff", "invalid_utf8"),
        (Some("text/plain"), b"\xc0\x80", "invalid_utf8"),
    ] {
        let fault = read_request(kind, Bytes::from_static(body)).unwrap_err();
        assert_eq!(fault.code, code);
    }
    let answer = || text.read_response(any, 200, Some("text/plain")).unwrap();
    let comes = "é€😀 4111-1111 ok 4111".as_bytes();
    for size in 1..comes.len() {
        let mut filter = Runs::default();
        let out = read(&mut *answer(), comes.chunks(size), &mut filter).unwrap();
        assert_eq!(text_of(&out), "é€😀 [\"N\"] ok [\"N\"]", "{size}");
        assert_eq!(filter.texts.len(), 1);
        let out = read(&mut *answer(), comes.chunks(size), &mut Open).unwrap();
        assert_eq!(text_of(&out).as_bytes(), comes);
    }
    for bad in [
        &b"ok \xff"[..],
        b"ok \xed\xa0\x80",
        b"ok \xe2\x82",
        b"\xef\xbb\xbfok",
    ] {
        let fault = read(&mut *answer(), bad.chunks(2), &mut Runs::default()).unwrap_err();
        assert!(
            ["invalid_utf8", "byte_order_mark"].contains(&fault.code),
            "{bad:?}"
        );
    }
}

#[test]
fn every_dialect_tells_errors_as_json_or_text_with_the_code() {
    for dialect in super::super::all() {
        for status in [400, 401, 403, 404, 413, 429, 500, 503, 529] {
            let shape = super::super::ErrorShape {
                status,
                code: "model_denied",
                message: "not for `a\"b`\nat all",
            };
            let (kind, body) = dialect.error(&shape);
            let event = String::from_utf8(dialect.error_event(&shape).to_vec()).unwrap();
            // What is told in trailers is told nowhere else.
            let told = !dialect.is_told_in_trailers();
            assert_eq!(event.contains("model_denied"), told, "{dialect:?}");
            if kind == "application/json" {
                let value: Value = serde_json::from_slice(&body).unwrap();
                assert!(
                    value["error"].is_object() || value["error"].is_string(),
                    "{dialect:?}"
                );
                assert!(value.to_string().contains("model_denied"));
            }
        }
    }
    let shape = super::super::ErrorShape {
        status: 403,
        code: "c",
        message: "m",
    };
    let (anthropic, _) = endpoint("anthropic", "messages");
    let expected =
        r#"{"type":"error","error":{"type":"permission_error","message":"m","code":"c"}}"#;
    assert_eq!(anthropic.error(&shape).1, expected);
    assert_eq!(
        anthropic.error_event(&shape),
        format!("event: error\ndata: {expected}\n\n")
    );
}

#[test]
fn what_may_stand_nowhere_stands_in_no_word() {
    let secret = |name: &str| format!("{name}-{LENT}");
    let lines = [
        json!({"model": secret("m"), "created_at": secret("t"), "message": {"role": secret("r"), "content": "held 12", "images": [secret("i")]}, "done": false}),
        json!({"model": secret("m"), "message": {}, "done_reason": secret("d"), "done": true}),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (out, facts) = through("ollama", "chat", 200, "application/x-ndjson", &lines).unwrap();
    assert!(!out.contains(LENT), "{out}");
    assert_eq!(
        out.matches(GONE).count(),
        lines.matches(LENT).count() + 1,
        "{out}"
    );
    assert_eq!(facts.model, Some(format!("m-{GONE}")));
    let event = json!({"candidates": [{"content": {"role": secret("r"), "parts": [
            {"text": "held 12", "thoughtSignature": secret("s")}, {"inlineData": {"mimeType": secret("t"), "data": secret("d")}}]}}],
        "modelVersion": secret("v"), "responseId": secret("i")});
    for (kind, stream) in [
        ("text/event-stream", format!("data: {event}\n\n")),
        ("application/json", format!("[{event}]")),
    ] {
        let (out, facts) =
            through("gemini", "stream_generate_content", 200, kind, &stream).unwrap();
        assert!(!out.contains(LENT), "{out}");
        assert_eq!(
            out.matches(GONE).count(),
            stream.matches(LENT).count() + 2,
            "{out}"
        );
        assert_eq!(facts.model, Some(format!("v-{GONE}")));
    }
}
