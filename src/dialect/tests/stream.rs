use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{Channel, Passed, ShapeError},
    GONE, LENT, Runs, cut, cut_text, event_stream, masked, masked_value, read, sides, text,
    text_of, value, written,
};

const CONTENT: &str = include_str!("../../../tests/transcripts/openai/content.txt");

fn through(stream: &str) -> Result<String, ShapeError> {
    read(
        &mut *event_stream(),
        [stream.as_bytes()],
        &mut Runs::default(),
    )
    .map(|passed| text_of(&passed))
}

fn event(choices: &Value) -> String {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices});
    format!("data: {chunk}\n\n")
}

fn delta(index: u32, delta: Value) -> String {
    event(&json!([{"index": index, "delta": delta, "finish_reason": null}]))
}

/// What a client puts together from a stream: each field's text, in the order of the choices.
fn put_together(stream: &str) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for block in stream
        .split("\n\n")
        .filter_map(|block| block.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(block).unwrap();
        assert_eq!(chunk["id"], "c", "a chunk of ours is one of the answer's");
        for choice in chunk["choices"].as_array().unwrap() {
            let n = &choice["index"];
            let mut add = |name: String, text: &Value| {
                out.entry(format!("{n}.{name}"))
                    .or_default()
                    .push_str(text.as_str().unwrap_or_default());
            };
            add("content".to_owned(), &choice["delta"]["content"]);
            for call in choice["delta"]["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
            {
                add(
                    format!("arguments.{}", call["index"]),
                    &call["function"]["arguments"],
                );
            }
        }
    }
    out.retain(|_, text| !text.is_empty());
    out
}

#[test]
fn an_event_leaves_when_it_is_whole_and_done_waits_apart() {
    let mut reader = event_stream();
    let mut filter = Runs::default();
    assert!(reader.incremental());
    let hello = delta(0, json!({"content": "hello"}));
    let (front, end) = hello.as_bytes().split_at(hello.len() - 1);
    assert_eq!(reader.push(front, &mut filter).unwrap(), Passed::default());
    assert_eq!(reader.push(end, &mut filter).unwrap().now, hello.as_bytes());
    reader
        .push(delta(0, json!({"content": "12"})).as_bytes(), &mut filter)
        .unwrap();
    assert!(!reader.facts().complete);
    let done = reader.push(b"data: [DONE]\n\n", &mut filter).unwrap();
    let held = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
        \"choices\":[{\"index\":0,\"delta\":{\"content\":\"12\"},\"finish_reason\":null}]}\n\n";
    assert_eq!(String::from_utf8(done.now).unwrap(), held);
    assert_eq!(done.terminal, b"data: [DONE]\n\n");
    assert_eq!(
        reader.push(b": bye\n\n", &mut filter).unwrap().terminal,
        b": bye\n\n"
    );
    assert_eq!(reader.finish(&mut filter).unwrap(), Passed::default());
    assert!(reader.facts().complete);
}

#[test]
fn what_it_says_of_itself_is_noted() {
    let mut reader = event_stream();
    read(
        &mut *reader,
        [sides(CONTENT).0.as_bytes()],
        &mut Runs::default(),
    )
    .unwrap();
    let facts = reader.facts();
    assert_eq!(facts.id.as_deref(), Some("chatcmpl-1"));
    assert_eq!(facts.model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(facts.system_fingerprint.as_deref(), Some("fp_1"));
    assert_eq!(facts.finish_reasons, ["stop"]);
    assert_eq!(
        (facts.input_tokens, facts.output_tokens),
        (Some(9), Some(12))
    );
    assert!(facts.complete && facts.unscanned.is_empty());
    let mut reader = event_stream();
    let audio = delta(
        0,
        json!({"audio": {"id": "a", "data": "41111111", "transcript": "1234"}}),
    );
    let out = text_of(&read(&mut *reader, [audio.as_bytes()], &mut Runs::default()).unwrap());
    assert!(out.contains("41111111") && !out.contains("\"1234"), "{out}");
    assert_eq!(reader.facts().unscanned, ["audio"]);
    assert!(!reader.facts().complete, "no terminal event came");
}

#[test]
fn texts_reach_the_filter_by_channel() {
    let stream = [
        delta(1, json!({"content": "a"})),
        delta(
            0,
            json!({"content": "b", "tool_calls": [{"index": 3, "function": {"name": "f", "arguments": "{\"k\":\"v\"}"}}]}),
        ),
        delta(1, json!({"content": "c"})),
    ];
    let mut filter = Runs::default();
    read(
        &mut *event_stream(),
        [stream.concat().as_bytes()],
        &mut filter,
    )
    .unwrap();
    let found = |choice, field: &str| -> Vec<&str> {
        let channel = Channel {
            choice,
            field: field.to_owned(),
        };
        filter
            .texts
            .iter()
            .filter(|(at, text)| *at == channel && !text.is_empty())
            .map(|(_, text)| text.as_str())
            .collect()
    };
    assert_eq!(found(1, "content"), ["ac"]);
    assert_eq!(found(0, "content"), ["b"]);
    assert_eq!(found(0, "tool_calls.3.arguments"), ["k", "v"]);
    assert_eq!(found(0, "tool_calls.3.name"), ["f"]);
}

#[test]
fn a_stream_of_no_known_shape_is_refused() {
    let chunk = |more: &str| format!("data: {{\"object\":\"chat.completion.chunk\",{more}}}\n\n");
    let choice = |choice: &str| chunk(&format!("\"choices\":[{choice}]"));
    let indexes: Vec<Value> = (0..1024)
        .map(|n| json!({"index": n, "delta": {"content": "1", "refusal": "1"}}))
        .collect();
    let table = [
        (
            "data: {\"object\":\"text_completion\",\"choices\":[]}\n\n".to_owned(),
            "unknown_shape",
        ),
        ("data: []\n\n".to_owned(), "unknown_shape"),
        ("data:\n\n".to_owned(), "empty_body"),
        ("data: {}{}\n\n".to_owned(), "trailing_data"),
        ("data: {}\ndata: {}\n\n".to_owned(), "trailing_data"),
        ("data: [DONE] or not\n\n".to_owned(), "invalid_json"),
        (chunk("\"id\":\"x\""), "unknown_shape"),
        (chunk("\"choices\":null"), "unknown_shape"),
        (chunk("\"choices\":[],\"Choices\":[]"), "case_variant_key"),
        (choice("{\"delta\":{}},{\"delta\":{}}"), "unknown_shape"),
        (choice("{\"index\":\"0\",\"delta\":{}}"), "unknown_shape"),
        (choice("{\"index\":1024,\"delta\":{}}"), "too_many_channels"),
        (event(&indexes.into()), "too_many_channels"),
        (choice("{\"index\":0,\"delta\":\"x\"}"), "unknown_shape"),
        (
            choice("{\"index\":0,\"message\":{\"content\":\"x\"}}"),
            "unknown_shape",
        ),
        (
            choice("{\"index\":0,\"delta\":{\"content\":[\"x\"]}}"),
            "unknown_shape",
        ),
        (
            choice("{\"index\":0,\"delta\":{\"novel\":{\"content\":\"x\"}}}"),
            "unknown_shape",
        ),
        (
            choice("{\"index\":0,\"delta\":{\"Content\":\"x\"}}"),
            "case_variant_key",
        ),
        (
            choice(
                "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":{}}}]}}",
            ),
            "unknown_shape",
        ),
        ("data: [DONE]\n\ndata: {}\n\n".to_owned(), "unknown_shape"),
        (
            delta(0, json!({"content": "x"})).trim_end().to_owned(),
            "cut_event",
        ),
        ("event: x".to_owned(), "cut_event"),
        ("data: [DONE]\nevent: x".to_owned(), "cut_event"),
    ];
    for (stream, expected) in table {
        assert_eq!(through(&stream).unwrap_err().code, expected, "{stream}");
    }
}

#[test]
fn an_end_without_a_blank_line_passes_where_it_can_carry_no_text() {
    for end in ["data: [DONE]", "data: [DONE]\n", "", "\n"] {
        let stream = delta(0, json!({"content": "x"})) + end;
        assert_eq!(through(&stream).unwrap(), stream);
    }
}

#[test]
fn events_before_a_bad_one_leave_and_nothing_after_it_does() {
    let good = delta(0, json!({"content": "good"}));
    let stream = format!("{good}data: bad\n\n{good}");
    let mut reader = event_stream();
    let mut filter = Runs::default();
    assert_eq!(
        reader.push(stream.as_bytes(), &mut filter).unwrap().now,
        good.as_bytes()
    );
    assert_eq!(
        reader.push(good.as_bytes(), &mut filter).unwrap_err().code,
        "invalid_json"
    );
    assert_eq!(reader.finish(&mut filter).unwrap_err().code, "invalid_json");
    let mut reader = event_stream();
    assert_eq!(
        reader.push(b"data: bad\n\n", &mut filter).unwrap_err().code,
        "invalid_json"
    );
}

#[test]
fn annotations_go_where_their_text_has_changed_and_stay_where_not() {
    let cited = |index| {
        delta(
            index,
            json!({"annotations": [{"url_citation": {"start_index": 1, "url": "https://x"}}]}),
        )
    };
    let stream = [
        delta(0, json!({"content": "a 1234 b"})),
        delta(1, json!({"content": "a 12 b"})),
        delta(2, json!({"content": "may be 12"})),
        cited(0),
        cited(1),
        cited(2),
    ];
    let out = through(&stream.concat()).unwrap();
    let kept: Vec<bool> = [cited(0), cited(1), cited(2)]
        .iter()
        .map(|event| out.contains(event))
        .collect();
    assert_eq!(kept, [false, true, false], "{out}");
    assert_eq!(out.matches("\"annotations\":[]").count(), 2);
}

#[test]
fn what_is_left_out_and_can_mean_one_thing_only_is_not_missed() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"is 12\"}}]}\n\n\
        data: {\"object\":null,\"choices\":[{\"delta\":{\"content\":\"34\",\"tool_calls\":[\
        {\"function\":{\"arguments\":\"{\\\"a\\\":\\\"4111\\\"}\"}},{\"function\":{\"arguments\":\"{}\"}}]},\"finish_reason\":\"stop\"}]}\n\n\
        data: [DONE]\n\n";
    let leaves = stream
        .replace("is 12", "is ")
        .replace("34", "[\\\"N\\\"]")
        .replace("4111", "[\\\\\\\"N\\\\\\\"]");
    assert_eq!(through(stream).unwrap(), leaves);
}

#[test]
fn the_prelude_of_azure_passes() {
    let stream = "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n";
    assert_eq!(through(stream).unwrap(), stream);
}

proptest! {
    /// For every text, every way a model deals it out over events, and every way of cutting the bytes: what a client
    /// puts together is the text masked as if it had been seen whole.
    #[test]
    fn what_leaves_joined_is_what_came_joined_and_masked(
        one in text(), two in text(), arguments in value(),
        whims in prop::collection::vec(any::<u8>(), 0..100),
        deltas in prop::collection::vec(any::<usize>(), 0..10),
        order in prop::collection::vec(0usize..3, 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        finish: bool,
    ) {
        let arguments = written(&arguments, &mut whims.into_iter());
        let mut queues = [
            cut_text(&one, &deltas).into_iter().map(|text| delta(0, json!({"content": text}))).collect::<Vec<_>>(),
            cut_text(&two, &deltas).into_iter().map(|text| delta(1, json!({"content": text}))).collect(),
            cut_text(&arguments, &deltas).into_iter()
                .map(|text| delta(0, json!({"tool_calls": [{"index": 2, "function": {"arguments": text}}]}))).collect(),
        ];
        queues.iter_mut().for_each(|queue| queue.reverse());
        let mut stream: String = order.iter().filter_map(|queue| queues[*queue].pop()).collect();
        queues.iter_mut().for_each(|queue| while let Some(event) = queue.pop() { stream.push_str(&event) });
        if finish {
            stream.push_str(&event(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])));
        }
        stream.push_str("data: [DONE]\n\n");
        let whole = through(&stream).unwrap();
        let passed = read(&mut *event_stream(), cut(stream.as_bytes(), &cuts), &mut Runs::default()).unwrap();
        prop_assert_eq!(text_of(&passed), &whole[..]);
        if finish {
            let finish_at = whole.find("\"stop\"").unwrap();
            let finish_at = finish_at + whole[finish_at..].find("\n\n").unwrap();
            prop_assert!(!whole[finish_at..].contains("\"index\":0"), "text of a choice behind its finish");
        }
        let mut found = put_together(&whole);
        let masked_arguments = found.remove("0.arguments.2").unwrap_or_default();
        prop_assert_eq!(
            serde_json::from_str::<Value>(&masked_arguments).unwrap(),
            masked_value(&serde_json::from_str(&arguments).unwrap())
        );
        let mut expected = BTreeMap::from([("0.content".to_owned(), masked(&one)), ("1.content".to_owned(), masked(&two))]);
        expected.retain(|_, text| !text.is_empty());
        prop_assert_eq!(found, expected);
    }

    /// For every garbage, an error or what is safe to pass; never a panic.
    #[test]
    fn garbage_does_no_harm(
        pieces in prop::collection::vec(prop::sample::select(
            &["data:", " ", "\n", "\r", "[DONE]", "{", "}", "\"choices\":[", "]", "\"object\":\"chat.completion.chunk\",", "{\"index\":0,\"delta\":{\"content\":\"1\"}}", ":", "é", "1234"][..]
        ), 0..40),
    ) {
        let stream = pieces.concat();
        if let Ok(out) = through(&stream) {
            prop_assert!(!out.contains("1234"), "{out}");
        }
    }
}

#[test]
fn what_may_stand_nowhere_stands_in_no_word_of_a_stream() {
    let secret = |name: &str| format!("{name}-{LENT}");
    let chunk = |choice: Value| {
        let chunk = json!({"id": secret("id"), "object": "chat.completion.chunk", "model": secret("m"),
            "system_fingerprint": secret("fp"), "service_tier": secret("tier"), "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let words = json!({"role": secret("assistant"), "content": "held 12", "audio": {"id": secret("a"), "data": secret("d")},
        "tool_calls": [{"index": 0, "id": secret("call"), "type": secret("function"), "function": {"arguments": "7"}}]});
    let stream = [
        format!(
            "event: {}\nid: {}\nretry: {}\n",
            secret("e"),
            secret("i"),
            secret("r")
        ),
        chunk(json!({"index": 0, "delta": words})),
        chunk(json!({"index": 0, "delta": {}, "finish_reason": secret("stop")})),
        format!(
            "data: {}\n\n",
            json!({"error": {"message": "", "type": secret("t"), "code": secret("c")}})
        ),
        format!("event: {}\ndata: [DONE]\n\n", secret("done")),
        format!("id: {}\n\n", secret("behind")),
    ]
    .concat();
    let mut reader = event_stream();
    let out = read(&mut *reader, [stream.as_bytes()], &mut Runs::default()).unwrap();
    let out = text_of(&out);
    assert!(!out.contains(LENT), "{out}");
    // Each time it came, and in the words that the two chunks of ours repeat.
    assert_eq!(
        out.matches(GONE).count(),
        stream.matches(LENT).count() + 2 * 4,
        "{out}"
    );
    let facts = reader.facts();
    for said in [&facts.id, &facts.model, &facts.system_fingerprint] {
        assert!(said.as_deref().unwrap().ends_with(GONE), "{said:?}");
    }
    assert_eq!(facts.finish_reasons, [format!("stop-{GONE}")]);
}

#[test]
fn an_event_that_only_begins_and_ends_as_the_last_one_did_is_read_anew() {
    let event = |inside: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{inside}\"}}}}]}}\n\n"
        )
    };
    let one = event("a ");
    for (inside, leaves) in [
        ("b", "b"),
        ("b\\\"c", "b\\\"c"),
        ("\\u0031\\u0032\\u0033\\u0034 ", "[\\\"N\\\"] "),
        // A text cannot hold a quote: this is one more member.
        ("b\",\"shiny\":\"1234 ", "b\",\"shiny\":\"[\\\"N\\\"] "),
        ("b\",\"refusal\":\"1234 ", "b\",\"refusal\":\"[\\\"N\\\"] "),
        ("", ""),
    ] {
        let out = through(&[&one[..], &event(inside), &one].concat()).unwrap();
        assert_eq!(out, [&one[..], &event(leaves), &one].concat());
    }
    for (inside, code) in [
        ("b\",\"content\":\"c", "duplicate_key"),
        ("b\",\"Content\":\"c", "case_variant_key"),
        ("b\u{1}", "control_character"),
        ("b\\", "truncated_json"),
        ("\\ud800", "lone_surrogate"),
    ] {
        let mut reader = event_stream();
        let mut filter = Runs::default();
        reader.push(one.as_bytes(), &mut filter).unwrap();
        let fault = reader.push(event(inside).as_bytes(), &mut filter);
        let code = [code, "invalid_json"];
        assert!(code.contains(&fault.unwrap_err().code), "{inside}");
    }
}

#[test]
fn what_pads_an_event_is_no_text() {
    let chunk = json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "hi"}}], "obfuscation": "aB4111x"});
    let stream = format!("data: {chunk}\n\n");
    let mut filter = Runs::default();
    let out = read(&mut *event_stream(), [stream.as_bytes()], &mut filter).unwrap();
    assert_eq!(text_of(&out), stream.replace("aB4111x", "xxxxxxx"));
    let texts: Vec<&str> = filter.texts.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["hi"]);
}

#[test]
fn content_in_parts_is_one_text_with_content_that_is_a_string() {
    let part = |text: &str| json!({"type": "text", "text": text});
    let stream = [
        delta(
            0,
            json!({"role": "assistant", "content": [part("is 4"), part("1")]}),
        ),
        delta(0, json!({"content": "1"})),
        delta(0, json!({"content": []})),
        delta(0, json!({"content": [part("1 ok 22"), part("22")]})),
    ]
    .concat();
    let out = through(&stream).unwrap();
    let mut texts = String::new();
    for chunk in out.split("\n\n").filter_map(|b| b.strip_prefix("data: ")) {
        let chunk: Value = serde_json::from_str(chunk).unwrap();
        let content = &chunk["choices"][0]["delta"]["content"];
        texts.push_str(content.as_str().unwrap_or_default());
        let parts = content.as_array().into_iter().flatten();
        parts.for_each(|part| texts.push_str(part["text"].as_str().unwrap()));
    }
    assert_eq!(texts, masked("is 4111 ok 2222"));
    for odd in [
        json!([{"type": "thinking", "thinking": []}]),
        json!([{"type": "text", "text": 1}]),
        json!([{"type": "text", "text": "x", "more": "4111"}]),
        json!([{"text": "x"}]),
        json!(["x"]),
        json!({"text": "x"}),
    ] {
        let refused = through(&delta(0, json!({"content": odd})));
        assert_eq!(refused.unwrap_err().code, "unknown_shape", "{odd}");
    }
}

#[test]
fn a_number_is_no_piece_of_a_text_that_strings_are_pieces_of() {
    let say = |content: Value| delta(0, json!({ "content": content }));
    for pieces in [
        vec![json!("4111 1111 "), json!(1111), json!(" 1111")],
        vec![json!("4111 1111 "), json!("1111 "), json!(1111)],
        vec![json!(4111), json!(" 1111 1111 1111")],
        vec![json!(""), json!(4111), json!(" 1111 1111 1111")],
    ] {
        let stream: String = pieces.into_iter().map(say).collect();
        let fault = through(&stream).unwrap_err();
        assert_eq!(fault.code, "unknown_shape", "{stream}");
    }
    // Nor of one that only numbers are pieces of.
    let call = |member: Value| json!({"tool_calls": [{"index": 0, "function": member}]});
    let detail = |member: Value| json!({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": member}]});
    for piece in [
        json!({"content": 41}),
        json!({"reasoning": 41}),
        json!({"reasoning_content": 41}),
        json!({"refusal": 41}),
        json!({"audio": {"transcript": 41}}),
        json!({"function_call": {"arguments": 41}}),
        call(json!({"arguments": 41})),
        call(json!({"name": 41})),
        json!({"tool_calls": [{"index": 0, "custom": {"input": 41}}]}),
        detail(json!(41)),
    ] {
        let fault = through(&delta(0, piece.clone())).unwrap_err();
        assert_eq!(fault.code, "unknown_shape", "{piece}");
    }
    // What a server adds to each delta of its own, and no text, passes.
    let count = |n: u32| delta(0, json!({"content": "a ", "tokens": n}));
    let stream = [1, 2, 12].map(count).concat() + "data: [DONE]\n\n";
    assert_eq!(through(&stream).unwrap(), stream);
}
