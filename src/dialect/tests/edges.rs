//! What nobody should send: for every dialect an error with a stable code, or text that was looked at; never a panic.

use bytes::Bytes;

use super::{
    super::{ResponseBody, ShapeError, sse::MAX_EVENT_BYTES},
    Runs, endpoint, mask, text_of,
};

/// A place in an answer of each dialect where a string may stand: `@`.
const ANSWERS: &[(&str, &str, &str, &str)] = &[
    (
        "openai",
        "chat_completions",
        "text/event-stream",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":@}}]}\n\n",
    ),
    (
        "openai",
        "chat_completions",
        "application/json",
        "{\"choices\":[{\"index\":0,\"message\":{\"content\":@}}]}",
    ),
    (
        "openai",
        "completions",
        "text/event-stream",
        "data: {\"choices\":[{\"index\":0,\"text\":@}]}\n\n",
    ),
    (
        "openai",
        "completions",
        "application/json",
        "{\"choices\":[{\"index\":0,\"text\":@}]}",
    ),
    (
        "openai",
        "responses",
        "text/event-stream",
        "data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":@}\n\n",
    ),
    (
        "openai",
        "responses",
        "application/json",
        "{\"object\":\"response\",\"output\":[{\"content\":[{\"type\":\"output_text\",\"text\":@}]}]}",
    ),
    (
        "anthropic",
        "messages",
        "text/event-stream",
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":@}}\n\n",
    ),
    (
        "anthropic",
        "messages",
        "application/json",
        "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":@}]}",
    ),
    (
        "gemini",
        "stream_generate_content",
        "text/event-stream",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":@}]}}]}\n\n",
    ),
    (
        "gemini",
        "stream_generate_content",
        "application/json",
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":@}]}}]}]",
    ),
    (
        "gemini",
        "generate_content",
        "application/json",
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":@}]}}]}",
    ),
    (
        "ollama",
        "chat",
        "application/x-ndjson",
        "{\"message\":{\"content\":@},\"done\":false}\n",
    ),
    (
        "ollama",
        "generate",
        "application/json",
        "{\"response\":@,\"done\":true}",
    ),
    ("json", "any", "application/json", "{\"x\":@}"),
    (
        "openai",
        "embeddings",
        "application/json",
        "{\"object\":\"list\",\"data\":[],\"x\":@}",
    ),
    (
        "anthropic",
        "count_tokens",
        "application/json",
        "{\"input_tokens\":1,\"x\":@}",
    ),
    (
        "ollama",
        "generate",
        "application/x-ndjson",
        "{\"response\":@,\"done\":false}\n",
    ),
    (
        "ollama",
        "chat",
        "application/json",
        "{\"message\":{\"content\":@},\"done\":true}",
    ),
    (
        "ollama",
        "embed",
        "application/json",
        "{\"embeddings\":[],\"x\":@}",
    ),
];

/// Whether it is an answer that leaves bit by bit.
fn streams(answer: &(&str, &str, &str, &str)) -> bool {
    answer.2 != "application/json" || answer.3.starts_with('[')
}

fn reader(dialect: &str, name: &str, content_type: &str) -> Box<dyn ResponseBody> {
    let (dialect, endpoint) = endpoint(dialect, name);
    dialect
        .read_response(endpoint, 200, Some(content_type))
        .unwrap()
}

fn through(answer: &(&str, &str, &str, &str), body: &[u8]) -> Result<Vec<u8>, ShapeError> {
    let mut reader = reader(answer.0, answer.1, answer.2);
    let mut filter = Runs::default();
    let mut out = Vec::new();
    for piece in body.chunks(1 << 16) {
        let passed = reader.push(piece, &mut filter)?;
        assert!(reader.held() < 48 << 20);
        out.extend([passed.now, passed.terminal].concat());
    }
    reader.push(b"", &mut filter)?;
    let passed = reader.finish(&mut filter)?;
    out.extend([passed.now, passed.terminal].concat());
    Ok(out)
}

#[test]
fn what_is_no_text_is_refused_in_every_answer() {
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let table: &[(&[u8], &str)] = &[
        (b"\"\\ud800\"", "lone_surrogate"),
        (b"\"\\udc00\\ud800\"", "lone_surrogate"),
        (b"\"\xed\xa0\x80\"", "invalid_utf8"),
        (b"\"\xc0\xb4111\"", "invalid_utf8"),
        (b"\"\xf4\x90\x80\x80\"", "invalid_utf8"),
        (b"\"\xff\"", "invalid_utf8"),
        (b"\"\0\"", "control_character"),
        (deep.as_bytes(), "too_deep"),
        (b"{\"a\":1,\"a\":2}", "duplicate_key"),
        (b"{\"a\":1,\"A\":2}", "case_variant_key"),
        (b"NaN", "invalid_number"),
        (b"\"x", "truncated_json"),
    ];
    for answer in ANSWERS {
        let (before, behind) = answer.3.split_once('@').unwrap();
        for (inside, code) in table {
            let body = [before.as_bytes(), inside, behind.as_bytes()].concat();
            let fault = through(answer, &body).unwrap_err();
            // An open string swallows what stands behind it, up to what ends the event.
            let codes = [
                code,
                "truncated_json",
                "control_character",
                "cut_event",
                "invalid_json",
            ];
            let codes = if *code == "truncated_json" {
                &codes[..]
            } else {
                &codes[..1]
            };
            assert!(codes.contains(&fault.code), "{answer:?} {code}: {fault:?}");
            assert!(!fault.to_string().contains("111"));
        }
    }
}

#[test]
fn escapes_of_nothing_and_numbers_without_end_do_no_harm() {
    let long = format!("\"{}\"", "4111-".repeat(2000));
    for answer in ANSWERS {
        let through = |inside: &str| through(answer, answer.3.replace('@', inside).as_bytes());
        for inside in ["\"4111\\u0000\"", "\"\\u0034111\\u2028\"", &long] {
            let out = String::from_utf8(through(inside).unwrap()).unwrap();
            assert!(!out.contains("4111"), "{answer:?} {out}");
        }
        // Where text must be, a number is refused; where anything may be, it is looked at. In a field that a provider's dialect
        // does not know it is none.
        if answer.0 != "json" && answer.3.contains("\"x\":@") {
            continue;
        }
        let digits = "4".repeat(10_000);
        match through(&digits) {
            Ok(out) => assert!(
                !String::from_utf8(out).unwrap().contains("4444"),
                "{answer:?}"
            ),
            Err(fault) => assert_eq!(fault.code, "unknown_shape", "{answer:?}"),
        }
    }
}

#[test]
fn an_event_without_end_is_refused_and_not_gathered() {
    for answer in ANSWERS.iter().filter(|answer| streams(answer)) {
        let (before, behind) = answer.3.split_once('@').unwrap();
        let inside = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        let fits = [before, &inside(MAX_EVENT_BYTES / 2), behind].concat();
        assert!(through(answer, fits.as_bytes()).is_ok(), "{answer:?}");
        let large = [before, &inside(10_000_000), behind].concat();
        let fault = through(answer, large.as_bytes()).unwrap_err();
        assert_eq!(fault.code, "event_too_large", "{answer:?}");
        let mut endless = reader(answer.0, answer.1, answer.2);
        let mut filter = Runs::default();
        endless.push(before.as_bytes(), &mut filter).unwrap();
        let blocks = std::iter::repeat_n(vec![b' '; 1 << 20], 12);
        let fault = blocks
            .map(|block| endless.push(&block, &mut filter).map(|_| endless.held()))
            .find_map(Result::err);
        assert_eq!(fault.unwrap().code, "event_too_large", "{answer:?}");
        assert!(endless.held() <= MAX_EVENT_BYTES + (1 << 20));
    }
}

#[test]
fn a_request_that_nobody_should_send_is_refused_by_every_dialect() {
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let requests = [
        (
            "openai",
            "chat_completions",
            r#"{"model":"m","messages":[],"x":@}"#,
        ),
        (
            "openai",
            "completions",
            r#"{"model":"m","prompt":"","x":@}"#,
        ),
        ("openai", "embeddings", r#"{"model":"m","input":"","x":@}"#),
        ("openai", "responses", r#"{"model":"m","input":"","x":@}"#),
        (
            "anthropic",
            "messages",
            r#"{"model":"m","messages":[],"x":@}"#,
        ),
        (
            "anthropic",
            "count_tokens",
            r#"{"model":"m","messages":[],"x":@}"#,
        ),
        ("gemini", "generate_content", r#"{"contents":[],"x":@}"#),
        ("ollama", "chat", r#"{"model":"m","messages":[],"x":@}"#),
        ("json", "any", r#"{"x":@}"#),
    ];
    for (name, which, body) in requests {
        let (dialect, at) = endpoint(name, which);
        let path = "/v1/models/m:generateContent";
        let read = |kind: Option<&str>, inside: &str| {
            let body = Bytes::from(body.replace('@', inside));
            dialect.read_request(at, path, kind, body)
        };
        let json = Some("application/json");
        for (inside, code) in [
            ("\"\\ud800\"", "lone_surrogate"),
            ("\"\0\"", "control_character"),
            (&deep[..], "too_deep"),
            ("{\"a\":1,\"a\":2}", "duplicate_key"),
            ("1}{", "trailing_data"),
        ] {
            let fault = read(json, inside).unwrap_err();
            assert_eq!(fault.code, code, "{name} {which}");
        }
        assert_eq!(read(None, "1").unwrap_err().code, "missing_content_type");
        let fault = read(Some("application/xml"), "1").unwrap_err();
        assert_eq!(fault.code, "unsupported_content_type");
        // What nobody has told us of is text, its name too.
        let out = read(json, r#"{"4111":["4111"]}"#)
            .unwrap()
            .rewrite(&mut mask);
        assert!(
            !String::from_utf8(out.to_vec()).unwrap().contains("4111"),
            "{name} {which}"
        );
        assert!(read(json, &"4".repeat(10_000)).is_ok());
    }
}

#[test]
fn the_end_of_a_stream_may_come_at_any_time() {
    for answer in ANSWERS.iter().filter(|answer| streams(answer)) {
        let whole = answer.3.replace('@', "\"is 4111\"");
        for at in 0..=whole.len() {
            let mut reader = reader(answer.0, answer.1, answer.2);
            let mut filter = Runs::default();
            let mut out = reader.push(&whole.as_bytes()[..at], &mut filter).unwrap();
            if let Ok(rest) = reader.finish(&mut filter) {
                out.now.extend(rest.now);
            }
            assert!(!text_of(&out).contains("4111"), "{answer:?} at {at}");
            let told = at == whole.len() && whole.ends_with(']');
            assert_eq!(reader.facts().complete, told, "{answer:?} at {at}");
        }
    }
}

#[test]
fn a_document_that_is_cut_anywhere_is_refused_and_leaves_nothing() {
    for answer in ANSWERS.iter().filter(|answer| !streams(answer)) {
        let whole = answer.3.replace('@', "\"is 4111\"");
        for at in 0..whole.len() {
            let mut reader = reader(answer.0, answer.1, answer.2);
            let mut filter = Runs::default();
            let passed = reader.push(&whole.as_bytes()[..at], &mut filter).unwrap();
            assert_eq!(text_of(&passed), "", "{answer:?} at {at}");
            let fault = reader.finish(&mut filter).unwrap_err();
            let codes = ["truncated_json", "empty_body"];
            assert!(codes.contains(&fault.code), "{answer:?} at {at}: {fault:?}");
            assert!(!reader.facts().complete);
        }
    }
}

/// A stream of each dialect that says that it is whole, and one event more.
const ENDS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "openai",
        "chat_completions",
        "text/event-stream",
        "data: {\"choices\":[]}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"or 4111\"}}]}\n\n",
    ),
    (
        "openai",
        "completions",
        "text/event-stream",
        "data: {\"choices\":[]}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"index\":0,\"text\":\"or 4111\"}]}\n\n",
    ),
    (
        "openai",
        "responses",
        "text/event-stream",
        "data: {\"type\":\"response.completed\",\"response\":{\"object\":\"response\",\"output\":[]}}\n\n",
        "data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"or 4111\"}\n\n",
    ),
    (
        "anthropic",
        "messages",
        "text/event-stream",
        "data: {\"type\":\"message_stop\"}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"or 4111\"}}\n\n",
    ),
    (
        "gemini",
        "stream_generate_content",
        "application/json",
        "[{\"candidates\":[]}]",
        ",{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"or 4111\"}]}}]}]",
    ),
    (
        "ollama",
        "chat",
        "application/x-ndjson",
        "{\"message\":{\"content\":\"\"},\"done\":true}\n",
        "{\"message\":{\"content\":\"or 4111\"},\"done\":false}\n",
    ),
    (
        "ollama",
        "generate",
        "application/x-ndjson",
        "{\"response\":\"\",\"done\":true}\n",
        "{\"response\":\"or 4111\",\"done\":false}\n",
    ),
];

#[test]
fn an_event_behind_the_end_is_refused_and_does_not_leave() {
    for (dialect, name, kind, stream, behind) in ENDS {
        // By itself, and in one piece with the end.
        for at in [stream.len(), 0] {
            let both = [*stream, *behind].concat();
            let mut reader = reader(dialect, name, kind);
            let mut filter = Runs::default();
            let mut left = String::new();
            let mut faults = Vec::new();
            for piece in [&both[..at], &both[at..], ""] {
                match reader.push(piece.as_bytes(), &mut filter) {
                    Ok(passed) => left.push_str(&text_of(&passed)),
                    Err(fault) => faults.push(fault.code),
                }
            }
            assert!(!left.contains("or"), "{dialect} {name}: {left}");
            let codes = ["unknown_shape", "invalid_json"];
            assert!(
                faults.first().is_some_and(|code| codes.contains(code)),
                "{dialect} {name}: {faults:?}"
            );
        }
    }
}

#[test]
fn text_that_nobody_should_send_is_refused_or_looked_at() {
    let through = |body: &[u8]| {
        let mut reader = reader("text", "any", "text/plain");
        let mut filter = Runs::default();
        let mut out = Vec::new();
        for piece in body.chunks(1 << 16) {
            out.extend(reader.push(piece, &mut filter)?.now);
            assert!(reader.held() < 4);
        }
        out.extend(reader.finish(&mut filter)?.terminal);
        Ok::<_, ShapeError>(String::from_utf8(out).unwrap())
    };
    for bad in [
        &b"4111 \xed\xa0\x80"[..],
        b"4111 \xc0\xb4111",
        b"4111 \xe0\x80\xb1",
        b"4111 \xf4\x90\x80\x80",
        b"4111 \xff",
        b"4111 \xe2\x82",
    ] {
        assert_eq!(through(bad).unwrap_err().code, "invalid_utf8", "{bad:?}");
    }
    assert_eq!(through(b"\0 4111\0").unwrap(), "\0 [\"N\"]\0");
    for long in [
        "4".repeat(10_000),
        "4111-".repeat(2_000_000),
        "{\"4111\":".repeat(1000),
    ] {
        assert!(!through(long.as_bytes()).unwrap().contains("4111"));
    }
}
