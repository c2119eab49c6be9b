use serde_json::json;

use super::{
    super::{Channel, ResponseBody, ShapeError},
    GONE, LENT, Open, Runs, openai, read,
};

fn answer(status: u16, content_type: Option<&str>) -> Result<Box<dyn ResponseBody>, ShapeError> {
    let (openai, endpoint) = openai();
    openai.read_response(endpoint, status, content_type)
}

fn through(status: u16, body: &str) -> Result<serde_json::Value, ShapeError> {
    let mut reader = answer(status, Some("application/json"))?;
    let passed = read(
        &mut *reader,
        body.as_bytes().chunks(7),
        &mut Runs::default(),
    )?;
    assert!(passed.now.is_empty(), "a document leaves only at its end");
    Ok(serde_json::from_slice(&passed.terminal).unwrap())
}

fn completion() -> serde_json::Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o", "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "finish_reason": "stop", "logprobs": {"content": [{"token": "4111", "bytes": [52]}]}, "message": {
                "role": "assistant", "content": "card 4111-1111", "refusal": null,
                "annotations": [{"type": "url_citation", "url_citation": {"start_index": 5, "end_index": 9, "url": "https://x", "title": "t"}}],
                "tool_calls": [{"id": "call_1111", "type": "function", "function": {"name": "f", "arguments": "{\"a\":\"4111-1111\",\"b\":12}"}}],
                "reasoning_content": "because 4111-1111", "audio": {"id": "audio_1", "data": "41111111", "transcript": "say 4111-1111"},
            }},
            {"index": 1, "finish_reason": "length", "logprobs": null, "message": {
                "role": "assistant", "content": "none",
                "annotations": [{"type": "url_citation", "url_citation": {"url": "https://x", "title": "t"}}],
            }},
        ],
        "usage": {"prompt_tokens": 12345, "completion_tokens": 6789, "total_tokens": 19134}, "unheard_of": ["4111-1111"],
    })
}

#[test]
fn a_completion_is_masked_wherever_it_has_text() {
    let mut expected = completion();
    for (pointer, text) in [
        ("/choices/0/message/content", "card [\"N\"]"),
        ("/choices/0/message/reasoning_content", "because [\"N\"]"),
        ("/choices/0/message/audio/transcript", "say [\"N\"]"),
        (
            "/choices/0/message/tool_calls/0/function/arguments",
            "{\"a\":\"[\\\"N\\\"]\",\"b\":12}",
        ),
        ("/unheard_of/0", "[\"N\"]"),
    ] {
        *expected.pointer_mut(pointer).unwrap() = text.into();
    }
    // They repeat the text, or point into the one it was.
    expected["choices"][0]["logprobs"] = json!(null);
    expected["choices"][0]["message"]["annotations"] = json!([]);
    assert_eq!(through(200, &completion().to_string()).unwrap(), expected);
}

#[test]
fn where_nothing_is_masked_the_bytes_are_those_that_came() {
    let body = serde_json::to_string_pretty(&completion()).unwrap();
    let mut reader = answer(200, Some("application/json")).unwrap();
    assert_eq!(
        read(&mut *reader, [body.as_bytes()], &mut Open)
            .unwrap()
            .terminal,
        body.as_bytes()
    );
}

#[test]
fn what_it_says_of_itself_is_noted() {
    let mut reader = answer(200, Some("application/json")).unwrap();
    let mut filter = Runs::default();
    assert!(!reader.incremental());
    reader
        .push(completion().to_string().as_bytes(), &mut filter)
        .unwrap();
    assert!(reader.held() > 0 && !reader.facts().complete);
    reader.finish(&mut filter).unwrap();
    let facts = reader.facts();
    assert_eq!(facts.id.as_deref(), Some("chatcmpl-1"));
    assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
    assert_eq!(facts.system_fingerprint.as_deref(), Some("fp_1"));
    assert_eq!(facts.finish_reasons, ["stop", "length"]);
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(12345), Some(6789))
    );
    assert_eq!(facts.unscanned, ["audio"]);
    assert!(facts.complete);
    let content = Channel {
        choice: 1,
        field: "content".to_owned(),
    };
    assert!(
        filter.texts.contains(&(content, "none".to_owned())),
        "{:?}",
        filter.texts
    );
}

#[test]
fn errors_of_the_upstream_are_scanned() {
    let error = |message: &str| json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": "bad"}});
    for status in [200, 400, 500] {
        assert_eq!(
            through(status, &error("no 4111-1111").to_string()).unwrap(),
            error("no [\"N\"]"),
            "{status}"
        );
    }
    assert_eq!(
        through(400, r#"{"detail":[{"msg":"4111-1111"}]}"#).unwrap(),
        json!({"detail": [{"msg": "[\"N\"]"}]})
    );
}

#[test]
fn what_is_no_completion_is_refused() {
    let table = [
        (200, "", "empty_body"),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[",
            "truncated_json",
        ),
        (200, "{}", "unknown_shape"),
        (200, "[]", "unknown_shape"),
        (500, "\"gateway\"", "unknown_shape"),
        (
            200,
            "{\"object\":\"text_completion\",\"choices\":[]}",
            "unknown_shape",
        ),
        (200, "{\"object\":\"chat.completion\"}", "unknown_shape"),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":{}}",
            "unknown_shape",
        ),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[{\"message\":\"x\"}]}",
            "unknown_shape",
        ),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[{\"delta\":{}}]}",
            "unknown_shape",
        ),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[{\"message\":{\"content\":1}}]}",
            "unknown_shape",
        ),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[{\"message\":{\"Content\":\"x\"}}]}",
            "case_variant_key",
        ),
        (
            200,
            "{\"object\":\"chat.completion\",\"choices\":[],\"choices\":[]}",
            "duplicate_key",
        ),
    ];
    for (status, body, expected) in table {
        assert_eq!(through(status, body).unwrap_err().code, expected, "{body}");
    }
    for (status, content_type) in [
        (200, "text/html"),
        (502, "text/html"),
        (400, "text/event-stream"),
        (200, "text/event-stream; charset=latin1"),
    ] {
        assert_eq!(
            answer(status, Some(content_type))
                .map(|_| ())
                .unwrap_err()
                .code,
            "unsupported_content_type"
        );
    }
}

#[test]
fn an_answer_without_a_body_has_none() {
    for (status, content_type) in [
        (204, None),
        (304, Some("application/json")),
        (204, Some("text/html")),
        (500, None),
    ] {
        let mut reader = answer(status, content_type).unwrap();
        assert_eq!(
            reader.push(b"", &mut Open).unwrap(),
            super::Passed::default()
        );
        assert_eq!(
            reader.push(b"x", &mut Open).unwrap_err().code,
            "unexpected_body"
        );
        assert!(reader.finish(&mut Open).is_ok());
    }
}

#[test]
fn a_document_over_the_cap_is_refused() {
    let mut reader = answer(200, Some("application/json")).unwrap();
    let block = vec![b' '; 8 << 20];
    let faults: Vec<_> = (0..5)
        .filter_map(|_| reader.push(&block, &mut Open).err())
        .collect();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code, "answer_too_large");
    assert!(reader.held() <= 32 << 20);
}

#[test]
fn what_may_stand_nowhere_stands_in_no_word_of_an_answer() {
    let secret = |name: &str| format!("{name}-{LENT}");
    let body = json!({
        "id": secret("id"), "object": "chat.completion", "model": secret("m"), "system_fingerprint": secret("fp"),
        "service_tier": secret("tier"),
        "choices": [{"index": 0, "finish_reason": secret("stop"), "message": {
            "role": secret("assistant"), "content": [{"type": "text", "text": "x"}],
            "annotations": [{"type": secret("url_citation")}],
            "tool_calls": [{"id": secret("call"), "type": secret("function"), "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": secret("sig")}}}],
            "audio": {"id": secret("audio"), "data": secret("AAAA")},
            "images": [{"type": "image_url", secret("key"): secret("data:"), "n": [secret("deep")]}, {secret("a"): 1, GONE: 2}],
            "reasoning_details": [{"type": secret("reasoning.text"), "format": secret("f"), "id": secret("i"), "signature": secret("s"), "data": secret("d")}],
        }}],
        "novel": {secret("-"): 1},
    });
    let mut reader = answer(200, Some("application/json")).unwrap();
    let mut filter = Runs::default();
    let out = read(&mut *reader, [body.to_string().as_bytes()], &mut filter).unwrap();
    let out = String::from_utf8(out.terminal).unwrap();
    // The key that the dialect does not know is text, and this filter masks no such text.
    let expected = body
        .to_string()
        .replace(LENT, GONE)
        .replace(&format!("--{GONE}"), &secret("-"));
    assert_eq!(out, expected);
    let facts = reader.facts();
    for said in [&facts.id, &facts.model, &facts.system_fingerprint] {
        assert!(said.as_deref().unwrap().ends_with(GONE), "{said:?}");
    }
    assert_eq!(facts.finish_reasons, [format!("stop-{GONE}")]);
    for (_, text) in &filter.texts {
        assert!(!text.starts_with("id-"), "a word was taken for text");
    }

    for status in [200, 500] {
        let error = json!({"error": {"message": "m", "type": secret("t"), "code": secret("c")}});
        let out = through(status, &error.to_string()).unwrap();
        assert_eq!(out.to_string(), error.to_string().replace(LENT, GONE));
    }
}

#[test]
fn adjacent_parts_are_read_both_ways_and_recorded_once() {
    let content = |first: &str, second: &str| {
        json!({"object": "chat.completion", "choices": [{"message": {"content": [
            {"type": "text", "text": first}, {"type": "text", "text": second}, {"type": "other", "text": "end"},
        ]}}]})
    };
    for (first, second, masked, recorded) in [
        ("plain", " text", ["plain", " text"], "plain text"),
        // Found joined, found alone though joined it would be another value's part, and found in both readings.
        ("12", "34", ["[\"N\"]", ""], "1234"),
        (
            "x 1234",
            " 5678",
            ["x [\"N\"]", " [\"N\"]"],
            "x [\"N\"] [\"N\"]",
        ),
    ] {
        let mut filter = Runs::default();
        let mut reader = answer(200, Some("application/json")).unwrap();
        let body = content(first, second).to_string();
        let out = read(&mut *reader, [body.as_bytes()], &mut filter).unwrap();
        assert_eq!(
            String::from_utf8(out.terminal).unwrap(),
            content(masked[0], masked[1]).to_string()
        );
        let texts: Vec<&str> = filter.texts.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, [recorded, "end"]);
    }
}
