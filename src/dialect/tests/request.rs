use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{RequestBody, ShapeError, Text},
    mask, masked, openai, text, texts, value, written,
};

fn request(body: &str) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (openai, endpoint) = openai();
    openai.read_request(
        endpoint,
        "/v1/x",
        Some("application/json"),
        Bytes::from(body.to_owned()),
    )
}

fn rewritten(body: &str) -> serde_json::Value {
    let out = request(body).unwrap().rewrite(&mut mask);
    serde_json::from_slice(&out).unwrap()
}

/// A request whose members are `more` and the two that must be.
fn with(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[]{more}}}"#)
}

#[test]
fn what_policy_asks_about_is_what_the_upstream_will_read() {
    let body = request(
        r#"{"messages":[],"mod\u0065l":"gpt-\u0034o","stream":true,"tools":[{"type":"function"}]}"#,
    )
    .unwrap();
    assert_eq!(
        (body.model(), body.stream(), body.tools()),
        ("gpt-4o", true, true)
    );
    for (more, stream, tools) in [
        ("", false, false),
        (r#","stream":null,"tools":[]"#, false, false),
        (r#","stream":false,"functions":[{"name":"f"}]"#, false, true),
        (r#","web_search_options":{}"#, false, true),
    ] {
        let body = request(&with(more)).unwrap();
        assert_eq!((body.stream(), body.tools()), (stream, tools), "{more}");
    }
}

#[test]
fn a_bad_body_is_refused_by_a_stable_code() {
    let long = format!(r#"{{"model":"{}","messages":[]}}"#, "m".repeat(257));
    let deep = with(&format!(r#","x":{}{}"#, "[".repeat(64), "]".repeat(64)));
    let calls = |arguments: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"function":{{"arguments":{arguments}}}}}]}}]}}"#
        )
    };
    let deep_arguments = calls(&format!("\"{}\"", "[".repeat(65)));
    let message = |message: &str| format!(r#"{{"model":"m","messages":[{message}]}}"#);
    let table = [
        ("", "empty_body"),
        ("{", "truncated_json"),
        ("{\"model\":\"m\",\"messages\":[]} x", "trailing_data"),
        (&with(r#","model":"n""#), "duplicate_key"),
        (&with(r#","Model":"n""#), "case_variant_key"),
        (r#"{"Model":"m","messages":[]}"#, "case_variant_key"),
        (
            r#"{"model":"m","me\u017f\u017fages":[]}"#,
            "case_variant_key",
        ),
        (&with(r#","\u017ftream":true"#), "case_variant_key"),
        (
            &message(r#"{"role":"user","Content":"x"}"#),
            "case_variant_key",
        ),
        (
            &message(r#"{"role":"user","content":[{"type":"text","text":"x","Text":"y"}]}"#),
            "case_variant_key",
        ),
        (
            &message(r#"{"role":"user","content":[{"Type":"text","text":"x"}]}"#),
            "unknown_shape",
        ),
        (r#"{"messages":[]}"#, "missing_model"),
        (r#"{"model":null,"messages":[]}"#, "invalid_model"),
        (r#"{"model":"","messages":[]}"#, "invalid_model"),
        (r#"{"model":["m"],"messages":[]}"#, "invalid_model"),
        (r#"{"model":"m\u0000","messages":[]}"#, "invalid_model"),
        (&long, "invalid_model"),
        (&with(r#","stream":"true""#), "invalid_stream"),
        (&with(r#","stream":1"#), "invalid_stream"),
        (&deep, "too_deep"),
        (&deep_arguments, "too_deep"),
        ("[]", "unknown_shape"),
        ("\"text\"", "unknown_shape"),
        (r#"{"model":"m"}"#, "unknown_shape"),
        (r#"{"model":"m","messages":{}}"#, "unknown_shape"),
        (&message("\"hello\""), "unknown_shape"),
        (&message(r#"{"role":1,"content":"x"}"#), "unknown_shape"),
        (&message(r#"{"role":"user","content":7}"#), "unknown_shape"),
        (
            &message(r#"{"role":"user","content":{"text":"x"}}"#),
            "unknown_shape",
        ),
        (
            &message(r#"{"role":"user","content":["x"]}"#),
            "unknown_shape",
        ),
        (
            &message(r#"{"role":"user","content":[{"type":"hologram","text":"x"}]}"#),
            "unknown_shape",
        ),
        (
            &message(r#"{"role":"user","content":[{"type":"text","text":{}}]}"#),
            "unknown_shape",
        ),
        (&calls("{\"a\":1}"), "unknown_shape"),
    ];
    for (body, expected) in table {
        assert_eq!(
            request(body).map(|_| ()).unwrap_err().code,
            expected,
            "{body}"
        );
    }
    let (openai, endpoint) = openai();
    let typed = |content_type| {
        let body = Bytes::from(with(""));
        openai
            .read_request(endpoint, "/v1/x", content_type, body)
            .map(|_| ())
            .map_err(|fault| fault.code)
    };
    assert_eq!(typed(None), Err("missing_content_type"));
    assert_eq!(typed(Some("text/plain")), Err("unsupported_content_type"));
    assert_eq!(
        typed(Some("application/json; charset=utf-16")),
        Err("unsupported_content_type")
    );
    assert_eq!(typed(Some("application/json; charset=UTF-8")), Ok(()));
    let body = Bytes::from_static(
        b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
    );
    let fault = openai
        .read_request(endpoint, "/v1/x", Some("application/json"), body)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(fault.code, "invalid_utf8");
}

/// A request that uses about everything, with a value to be masked wherever a person could write one.
const EVERYTHING: &str = r##"{
  "model": "gpt-4o-2024-08-06",
  "user": "user 4111-1111", "metadata": {"ticket": "no. 4111-1111", "4222-2222": "x"}, "stop": ["4111-1111"],
  "safety_identifier": "4333-3333", "seed": 41111111, "reasoning_effort": "low", "unheard_of": {"deep": ["4111-1111"]},
  "messages": [
    {"role": "system", "content": "be 4111-1111", "name": "4111-1111"},
    {"role": "user", "content": [
      {"type": "image_url", "image_url": {"url": "data:image/png;base64,4111-1111", "detail": "low"}},
      {"type": "image_url", "image_url": {"url": "https://x/4111-1111.png"}},
      {"type": "input_audio", "input_audio": {"data": "41111111", "format": "wav"}},
      {"type": "file", "file": {"file_data": "data:text/plain;base64,4111", "filename": "4111-1111.pdf"}},
      {"type": "text", "text": "one \u0034111-1111"}
    ]},
    {"role": "assistant", "content": null, "refusal": "not 4111-1111", "tool_calls": [
      {"id": "call_4111111", "type": "function", "function": {"name": "f", "arguments": "{\"q\": \"4111\\u002d1111\", \"n\": 41111111, \"k\": \"\\u0061\"}"}},
      {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "not json 4111-1111"}},
      {"id": "call_3", "type": "function", "function": {"name": "f", "arguments": "{\"k\": \"\\u0061\"}"}}
    ]},
    {"role": "tool", "tool_call_id": "call_4111111", "content": "{\"ssn\": \"4111-1111\"}"},
    {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "[4111]"}}
  ],
  "prediction": {"type": "content", "content": "4111-1111"},
  "tools": [{"type": "function", "function": {"name": "f", "description": "4111-1111",
    "parameters": {"type": "object", "properties": {"Title": {"type": "string", "enum": ["4111-1111"]}, "title": {}}}}}],
  "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"description": "4111-1111"}}}
}"##;

#[test]
fn every_string_is_a_text_but_the_protocols_own_words() {
    // "Title" and "title" are two properties of a schema: a user's choice, but no parser's that we want to guess.
    assert_eq!(
        request(EVERYTHING).map(|_| ()).unwrap_err().code,
        "case_variant_key"
    );
    let everything = EVERYTHING.replace("\"title\": {}", "\"Type\": {}");
    let n = "[\"N\"]";
    let mut expected: serde_json::Value = serde_json::from_str(&everything).unwrap();
    for (pointer, text) in [
        ("/user", format!("user {n}")),
        ("/stop/0", n.to_owned()),
        ("/safety_identifier", n.to_owned()),
        ("/unheard_of/deep/0", n.to_owned()),
        ("/messages/0/content", format!("be {n}")),
        ("/messages/0/name", n.to_owned()),
        (
            "/messages/1/content/1/image_url/url",
            format!("https://x/{n}.png"),
        ),
        ("/messages/1/content/3/file/filename", format!("{n}.pdf")),
        ("/messages/1/content/4/text", format!("one {n}")),
        ("/messages/2/refusal", format!("not {n}")),
        (
            "/messages/2/tool_calls/0/function/arguments",
            r#"{"q": "[\"N\"]", "n": "[\"N\"]", "k": "a"}"#.to_owned(),
        ),
        (
            "/messages/2/tool_calls/1/function/arguments",
            format!("not json {n}"),
        ),
        ("/messages/3/content", format!("{{\"ssn\": \"{n}\"}}")),
        (
            "/messages/4/function_call/arguments",
            r#"["[\"N\"]"]"#.to_owned(),
        ),
        ("/prediction/content", n.to_owned()),
        ("/tools/0/function/description", n.to_owned()),
        (
            "/tools/0/function/parameters/properties/Title/enum/0",
            n.to_owned(),
        ),
        (
            "/response_format/json_schema/schema/description",
            n.to_owned(),
        ),
    ] {
        *expected.pointer_mut(pointer).expect(pointer) = text.into();
    }
    expected["metadata"] = json!({"ticket": format!("no. {n}"), n: "x"});
    assert_eq!(rewritten(&everything), expected);
    let body = request(&everything).unwrap();
    assert_eq!(body.unscanned(), ["image_url", "input_audio", "file"]);
    assert!(texts(&*body).contains(&"4111-1111") && !texts(&*body).contains(&"gpt-4o-2024-08-06"));
}

#[test]
fn only_the_bytes_of_a_changed_text_change() {
    let body = "{ \"model\":\"m\",\t\"messages\" : [ {\"role\":\"us\\u0065r\",\"content\":\"\\u0061 4111\"} , \
                {\"role\":\"user\",\"content\":\"\\u00e9\"} ],\"temperature\":1.50e0 }\n";
    let out = request(body)
        .unwrap()
        .rewrite(&mut |text| text.text.contains('4').then(|| "x\"".to_owned()));
    assert_eq!(out, body.replace("\"\\u0061 4111\"", "\"x\\\"\""));
}

#[test]
fn a_value_across_two_parts_is_seen_and_so_is_one_that_joining_would_hide() {
    let parts = |parts: &[&str]| {
        let parts: Vec<_> = parts
            .iter()
            .map(|text| json!({"type": "text", "text": text}))
            .collect();
        json!({"model": "m", "messages": [{"role": "user", "content": parts}]}).to_string()
    };
    let masked_texts = |body: &str| -> Vec<String> {
        rewritten(body)["messages"][0]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        texts(&*request(&parts(&["a 12", "34 b"])).unwrap()),
        ["a 12", "34 b", "a 1234 b"]
    );
    assert_eq!(
        masked_texts(&parts(&["a 12", "34 b"])),
        ["a [\"N\"] b", "-"]
    );
    assert_eq!(
        masked_texts(&parts(&["1", "2", "3", "4"])),
        ["[\"N\"]", "-", "-", "-"]
    );
    assert_eq!(masked_texts(&parts(&["a 1234", "b"])), ["a [\"N\"]", "b"]);
    assert_eq!(masked_texts(&parts(&["12", "b"])), ["12", "b"]);
    // A word boundary that only the part by itself has.
    let body = parts(&["is", "1234"]);
    let mut only_alone = |text: Text<'_>| (text.text == "1234").then(|| "N".to_owned());
    let out: serde_json::Value =
        serde_json::from_slice(&request(&body).unwrap().rewrite(&mut only_alone)).unwrap();
    assert_eq!(out["messages"][0]["content"][1]["text"], "N");
}

#[test]
fn parts_around_one_that_may_go_are_joined_and_those_around_another_are_not() {
    let body = |between: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"12"}},
            {between},{{"type":"text","text":"34"}}]}}]}}"#
        )
    };
    let image = body(r#"{"type":"image_url","image_url":{"url":"data:,"}}"#);
    let other = body(r#"{"type":"refusal","refusal":"no"}"#);
    assert_eq!(texts(&*request(&image).unwrap()), ["12", "34", "1234"]);
    assert_eq!(texts(&*request(&other).unwrap()), ["12", "no", "34"]);
    let content = &rewritten(&image)["messages"][0]["content"];
    assert_eq!(
        (&content[0]["text"], &content[2]["text"]),
        (&json!("[\"N\"]"), &json!("-"))
    );
}

#[test]
fn parts_of_one_kind_are_joined_whatever_their_kind() {
    use super::endpoint;
    let joins = |dialect: &str, name: &str, body: &serde_json::Value| {
        let (dialect, endpoint) = endpoint(dialect, name);
        let json = Some("application/json");
        let path = "/models/m:generateContent";
        let read = dialect.read_request(endpoint, path, json, body.to_string().into());
        texts(&*read.unwrap()).contains(&"1234")
    };
    for thought in [json!(true), json!(false), json!(null)] {
        let part = |text: &str| json!({"text": text, "thought": thought});
        let body = json!({"contents": [{"role": "user", "parts": [part("12"), part("34")]}]});
        assert!(joins("gemini", "generate_content", &body));
        let plain = json!({"contents": [{"parts": [part("12"), {"text": "34"}]}]});
        let joined = joins("gemini", "generate_content", &plain);
        assert_eq!(joined, thought != json!(true));
    }
    let refusal = |text: &str| json!({"type": "refusal", "refusal": text});
    let refused = json!({"model": "m", "messages": [{"role": "assistant", "content": [refusal("12"), refusal("34")]}]});
    assert!(joins("openai", "chat_completions", &refused));
    for (kind, list) in [("summary_text", "summary"), ("reasoning_text", "content")] {
        let part = |text: &str| json!({"type": kind, "text": text});
        let item = json!({"type": "reasoning", "id": "r", list: [part("12"), part("34")]});
        let body = json!({"model": "m", "input": [item]});
        assert!(joins("openai", "responses", &body));
    }
    // What is thought may go with its signature.
    let thinking = json!({"type": "thinking", "thinking": "t", "signature": "s"});
    let text = |text: &str| json!({"type": "text", "text": text});
    let body = json!({"model": "m", "max_tokens": 1, "messages": [
        {"role": "assistant", "content": [text("12"), thinking, text("34")]},
    ]});
    assert!(joins("anthropic", "messages", &body));
}

#[test]
fn masked_keys_stay_apart() {
    let out = rewritten(&with(
        r#","metadata":{"1111":"a","2222":"b","[\"N\"]":"c"}"#,
    ));
    assert_eq!(
        out["metadata"],
        json!({"[\"N\"]_2": "a", "[\"N\"]_3": "b", "[\"N\"]": "c"})
    );
}

#[test]
fn a_value_where_a_word_should_be_is_scanned() {
    let body = r#"{"model":"m","messages":[{"role":"my ssn is 1234","content":"","tool_call_id":"see 1234"}]}"#;
    assert_eq!(
        texts(&*request(body).unwrap()),
        ["my ssn is 1234", "", "see 1234"]
    );
}

#[test]
fn debug_shows_no_text() {
    let body =
        request(r#"{"model":"m","messages":[{"role":"user","content":"hunter2"}]}"#).unwrap();
    assert!(!format!("{body:?}").contains("hunter2"));
}

proptest! {
    /// For every request, masking nothing forwards the very bytes that came; masking masks every text in it.
    #[test]
    fn rewriting_is_exact(content in text(), extra in value(), whims in prop::collection::vec(any::<u8>(), 0..200)) {
        let value = json!({"model": "m", "messages": [{"role": "user", "content": content}], "extra": extra});
        let body = written(&value, &mut whims.into_iter());
        let request = request(&body).unwrap();
        prop_assert_eq!(request.rewrite(&mut |_| None), body.as_bytes());
        prop_assert_eq!(request.rewrite(&mut |text| Some(text.text.to_owned())), body.as_bytes());
        let left = serde_json::to_string(&rewritten(&body)["messages"]).unwrap();
        prop_assert!(!left.contains("----"));
        prop_assert_eq!(&rewritten(&body)["messages"][0]["content"], &masked(&content));
    }
}
