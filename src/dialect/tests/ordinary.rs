//! Ordinary traffic that is easily taken for something else, and streams whose events differ in more than their text.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{ResponseFacts, ShapeError},
    Open, Runs, endpoint, masked, read, text_of,
};

fn through(
    dialect: &str,
    name: &str,
    content_type: &str,
    body: &str,
) -> Result<(String, ResponseFacts), ShapeError> {
    let (dialect, endpoint) = endpoint(dialect, name);
    let mut reader = dialect.read_response(endpoint, 200, Some(content_type))?;
    let pieces = body.as_bytes().chunks(11);
    let passed = read(&mut *reader, pieces, &mut Runs::default())?;
    Ok((text_of(&passed), reader.facts().clone()))
}

fn sse(events: &[Value]) -> String {
    let event = |event: &Value| format!("data: {event}\n\n");
    events.iter().map(event).collect()
}

fn documents(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn responses(events: &[Value]) -> Vec<Value> {
    let (out, _) = through("openai", "responses", "text/event-stream", &sse(events)).unwrap();
    documents(&out)
}

#[test]
fn every_text_a_response_says_bit_by_bit_is_masked_as_one() {
    // The event's subject, what it says of its place, and the member that repeats it.
    let spoken = [
        ("output_text", json!({"content_index": 0}), "text"),
        ("refusal", json!({"content_index": 0}), "refusal"),
        ("reasoning_text", json!({"content_index": 1}), "text"),
        ("reasoning", json!({"content_index": 1}), "text"),
        (
            "reasoning_summary_text",
            json!({"summary_index": 0}),
            "text",
        ),
        ("audio.transcript", json!({}), "transcript"),
        ("custom_tool_call_input", json!({}), "input"),
        ("code_interpreter_call_code", json!({}), "code"),
        ("apply_patch_call_operation_diff", json!({}), "diff"),
        ("shell_call_command", json!({"command_index": 2}), "command"),
    ];
    for (subject, place, member) in spoken {
        let event = |last: &str, name: &str, text: &str| {
            let mut event = json!({"type": format!("response.{subject}.{last}"), "output_index": 3, "sequence_number": 1});
            let members = event.as_object_mut().unwrap();
            members.extend(place.as_object().unwrap().clone());
            members.insert(name.to_owned(), text.into());
            event
        };
        let out = responses(&[
            event("delta", "delta", "card 4111"),
            event("delta", "delta", "-11"),
            event("done", member, "card 4111-11"),
        ]);
        let deltas: Vec<&Value> = out
            .iter()
            .filter(|event| event.get("delta").is_some())
            .collect();
        let said: String = deltas
            .iter()
            .filter_map(|event| event["delta"].as_str())
            .collect();
        assert_eq!(said, "card [\"N\"]", "{subject}");
        assert_eq!(out.last().unwrap()[member], "card [\"N\"]", "{subject}");
        for event in deltas {
            assert_eq!(event["type"], format!("response.{subject}.delta"));
            for (name, value) in place.as_object().unwrap() {
                assert_eq!(&event[name], value, "{subject}");
            }
        }
    }
}

#[test]
fn what_a_shell_wrote_is_two_texts() {
    let delta = |delta: Value| json!({"type": "response.shell_call_output_content.delta", "item_id": "sco", "output_index": 1, "command_index": 0, "delta": delta});
    let out = responses(&[
        delta(json!({"stdout": "a 41", "stderr": "b 11"})),
        delta(json!({"stdout": "11", "stderr": null})),
        delta(json!({"stderr": "22"})),
        json!({"type": "response.shell_call_output_content.done", "item_id": "sco", "output_index": 1, "command_index": 0,
            "output": [{"stdout": "a 4111", "stderr": "b 1122", "outcome": {"type": "exit", "exit_code": 4111}}]}),
    ]);
    let said = |name: &str| -> String {
        let deltas = out.iter().filter_map(|event| event["delta"].get(name));
        deltas.filter_map(Value::as_str).collect()
    };
    assert_eq!(
        (said("stdout"), said("stderr")),
        (masked("a 4111"), masked("b 1122"))
    );
    let done = &out.last().unwrap()["output"][0];
    assert_eq!(
        (&done["stdout"], &done["stderr"]),
        (&json!(masked("a 4111")), &json!(masked("b 1122")))
    );
    assert_eq!(done["outcome"]["exit_code"], 4111);
}

#[test]
fn what_a_response_tells_without_text_passes_as_it_came() {
    let events = [
        json!({"type": "keepalive", "sequence_number": 41111}),
        json!({"type": "response.compaction.compacting", "item_id": "cmp_4111", "output_index": 0}),
        json!({"type": "response.audio.done", "sequence_number": 4}),
        json!({"type": "response.apply_patch_call.in_progress", "item_id": "i_4111", "output_index": 0}),
        json!({"type": "response.shell_call.completed", "item_id": "i_4111", "output_index": 0}),
        json!({"type": "response.local_shell_call.in_progress", "item_id": "i_4111", "output_index": 0}),
        json!({"type": "response.reasoning_part.added", "item_id": "i", "output_index": 0, "content_index": 0, "part": {"type": "reasoning_text", "text": ""}}),
        json!({"type": "response.reasoning_part.done", "item_id": "i", "output_index": 0, "content_index": 0, "part": {"type": "reasoning_text", "text": "x"}}),
        json!({"type": "response.audio.delta", "delta": "41111111"}),
    ];
    let (out, facts) = through("openai", "responses", "text/event-stream", &sse(&events)).unwrap();
    assert_eq!(out, sse(&events));
    assert_eq!(facts.unscanned, ["audio"]);
}

#[test]
fn a_text_that_begins_with_its_item_is_one_with_its_deltas() {
    let delta = |subject: &str, more: Value| {
        let mut event = json!({"type": format!("response.{subject}.delta"), "output_index": 0, "delta": "-11 b"});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let item = |item: Value| json!({"type": "response.output_item.added", "output_index": 0, "item": item});
    let text = json!({"content_index": 0});
    let table = [
        (
            item(
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a 4111"}]}),
            ),
            delta("output_text", text.clone()),
            "/item/content/0/text",
        ),
        (
            item(
                json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a 4111"}]}),
            ),
            delta("reasoning_summary_text", json!({"summary_index": 0})),
            "/item/summary/0/text",
        ),
        (
            item(
                json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a 4111"}]}),
            ),
            delta("reasoning_text", text.clone()),
            "/item/content/0/text",
        ),
        (
            item(json!({"type": "custom_tool_call", "input": "a 4111"})),
            delta("custom_tool_call_input", json!({})),
            "/item/input",
        ),
        (
            item(json!({"type": "code_interpreter_call", "code": "a 4111"})),
            delta("code_interpreter_call_code", json!({})),
            "/item/code",
        ),
        (
            item(
                json!({"type": "apply_patch_call", "operation": {"type": "update_file", "path": "x", "diff": "a 4111"}}),
            ),
            delta("apply_patch_call_operation_diff", json!({})),
            "/item/operation/diff",
        ),
        (
            item(json!({"type": "shell_call", "action": {"commands": ["a 4111"]}})),
            delta("shell_call_command", json!({"command_index": 0})),
            "/item/action/commands/0",
        ),
        (
            json!({"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "a 4111"}}),
            delta("output_text", text.clone()),
            "/part/text",
        ),
        (
            json!({"type": "response.reasoning_part.added", "output_index": 0, "content_index": 0, "part": {"type": "reasoning_text", "text": "a 4111"}}),
            delta("reasoning_text", text),
            "/part/text",
        ),
        (
            json!({"type": "response.shell_call_command.added", "output_index": 0, "command_index": 1, "command": "a 4111"}),
            delta("shell_call_command", json!({"command_index": 1})),
            "/command",
        ),
    ];
    for (added, delta, place) in table {
        let out = responses(&[added.clone(), delta]);
        let begun = out[0].pointer(place).unwrap().as_str().unwrap();
        let said = format!("{begun}{}", out[1]["delta"].as_str().unwrap());
        assert_eq!(said, masked("a 4111-11 b"), "{added}");
    }
    let call = item(
        json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"n\":\"41"}),
    );
    let rest = json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "11\"}"});
    let out = responses(&[call, rest]);
    let said = format!(
        "{}{}",
        out[0]["item"]["arguments"].as_str().unwrap(),
        out[1]["delta"].as_str().unwrap()
    );
    assert_eq!(said, "{\"n\":\"[\\\"N\\\"]\"}");
}

#[test]
fn what_pads_an_event_is_filled_anew_so_that_it_tells_nothing() {
    let (chat, responses) = (
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}], "obfuscation": "4111 1111"}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "x", "obfuscation": "4111 1111"}),
    );
    for (name, event) in [("chat_completions", chat), ("responses", responses)] {
        // The second is read as one that is like the first.
        let stream = sse(&[event.clone(), event.clone()]);
        let (out, _) = through("openai", name, "text/event-stream", &stream).unwrap();
        let mut expected = event;
        expected["obfuscation"] = "xxxxxxxxx".into();
        assert_eq!(out, sse(&[expected.clone(), expected]), "{name}");
        let (openai, endpoint) = endpoint("openai", name);
        let mut reader = openai
            .read_response(endpoint, 200, Some("text/event-stream"))
            .unwrap();
        let passed = read(&mut *reader, [stream.as_bytes()], &mut Open).unwrap();
        assert_eq!(text_of(&passed), stream, "where nothing is masked it stays");
    }
}

fn chunk(delta: Value, finish: Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

fn chat(events: &[Value]) -> Vec<Value> {
    let stream = sse(events) + "data: [DONE]\n\n";
    let (out, _) = through("openai", "chat_completions", "text/event-stream", &stream).unwrap();
    documents(out.strip_suffix("data: [DONE]\n\n").unwrap())
}

#[test]
fn what_another_provider_says_of_a_delta_is_blanked() {
    let out = chat(&[
        chunk(
            json!({"content": "a", "provider_specific_fields": {"citation": "41"}, "thinking_blocks": [{"thinking": "41"}]}),
            Value::Null,
        ),
        chunk(
            json!({"content": "b", "provider_specific_fields": null, "reasoning_content": "41"}),
            Value::Null,
        ),
        chunk(
            json!({"reasoning_content": "11", "context": {"citations": [{"content": "4111"}]}}),
            "stop".into(),
        ),
    ]);
    let delta = |n: usize| &out[n]["choices"][0]["delta"];
    assert_eq!(
        delta(0),
        &json!({"content": "a", "provider_specific_fields": null, "thinking_blocks": []})
    );
    assert_eq!(delta(2)["reasoning_content"], masked("4111"));
    assert_eq!(
        delta(2)["context"]["citations"][0]["content"],
        masked("4111")
    );
}

#[test]
fn an_answer_without_a_name_is_one_all_the_same() {
    let body = json!({"id": "c", "object": "", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "4111"}, "finish_reason": "stop"}]});
    let (out, _) = through(
        "openai",
        "chat_completions",
        "application/json",
        &body.to_string(),
    )
    .unwrap();
    assert_eq!(out, body.to_string().replace("\"4111\"", "\"[\\\"N\\\"]\""));
}

#[test]
fn a_tools_name_is_one_however_it_is_split_and_comes_where_it_came() {
    let call = |function: Value| {
        chunk(
            json!({"tool_calls": [{"index": 0, "function": function}]}),
            Value::Null,
        )
    };
    let name =
        |event: &Value| event["choices"][0]["delta"]["tool_calls"][0]["function"]["name"].clone();
    // Whole: what is held of it goes back to where it came from, though the next event had to tell.
    let out = chat(&[
        call(json!({"name": "ask_4", "arguments": ""})),
        call(json!({"arguments": "{}"})),
        chunk(json!({}), "tool_calls".into()),
    ]);
    assert_eq!((out.len(), name(&out[0])), (3, json!("ask_4")));
    // Split.
    let out = chat(&[
        call(json!({"name": "ask_41"})),
        call(json!({"name": "11_x"})),
        call(json!({"arguments": "{}"})),
        chunk(json!({}), "tool_calls".into()),
    ]);
    let said: String = out
        .iter()
        .filter_map(|event| name(event).as_str().map(str::to_owned))
        .collect();
    assert_eq!((out.len(), said), (4, masked("ask_4111_x")));
    // Cut off: what is held of it is the last thing that leaves.
    let (out, _) = through(
        "openai",
        "chat_completions",
        "text/event-stream",
        &sse(&[call(json!({"name": "ask_4"}))]),
    )
    .unwrap();
    assert_eq!(name(&documents(&out)[0]), json!("ask_4"));
    let legacy = |text: &str| chunk(json!({"function_call": {"name": text}}), Value::Null);
    let out = chat(&[
        legacy("ask_41"),
        legacy("11"),
        chunk(json!({}), "function_call".into()),
    ]);
    let said: String = out
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["function_call"]["name"].as_str())
        .collect();
    assert_eq!(said, masked("ask_4111"));
}

#[test]
fn gemini_may_say_why_it_stopped_before_it_says_the_last_text() {
    let event = |text: &str, finish: Option<&str>| {
        let mut candidate =
            json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        json!({"candidates": [candidate], "modelVersion": "m"})
    };
    let usage = json!({"usageMetadata": {"promptTokenCount": 4111}});
    let stop = Some("STOP");
    let streams = [
        vec![event("a 4111", stop), event("-11 b", None)],
        vec![event("a 4111", stop), event("-11", stop), event(" b", stop)],
        vec![event("a 4111-1", None), event("1 b", stop), usage.clone()],
        vec![event("a 4111-11 ", stop), event("b", None), usage.clone()],
        vec![
            event("a ", stop),
            event("41", None),
            event("11", None),
            event("-11", None),
            event(" b", None),
        ],
    ];
    for events in streams {
        let (out, facts) = through(
            "gemini",
            "stream_generate_content",
            "text/event-stream",
            &sse(&events),
        )
        .unwrap();
        let out = documents(&out);
        let said: String = out
            .iter()
            .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
            .collect();
        assert_eq!((said, out.len()), (masked("a 4111-11 b"), events.len()));
        assert!(facts.complete && facts.finish_reasons == ["STOP"]);
        let array = Value::from(events).to_string();
        let (out, _) = through(
            "gemini",
            "stream_generate_content",
            "application/json",
            &array,
        )
        .unwrap();
        let out: Vec<Value> = serde_json::from_str(&out).unwrap();
        let said: String = out
            .iter()
            .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
            .collect();
        assert_eq!(said, masked("a 4111-11 b"));
    }
    // What ended long ago has left whole: it cannot go on.
    let late = sse(&[event("a 41", stop), usage, event("11", None)]);
    let fault = through(
        "gemini",
        "stream_generate_content",
        "text/event-stream",
        &late,
    )
    .unwrap_err();
    assert_eq!(fault.code, "unknown_shape");
}

#[test]
fn a_line_that_was_cut_off_is_a_line_of_its_own() {
    let line = json!({"model": "m", "created_at": "t", "message": {"role": "assistant", "content": "a 41"}, "done": false}).to_string();
    let (out, facts) = through("ollama", "chat", "application/x-ndjson", &line).unwrap();
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: String = lines
        .iter()
        .filter_map(|line| line["message"]["content"].as_str())
        .collect();
    assert_eq!((lines.len(), said.as_str()), (2, "a 41"));
    assert!(!facts.complete);
}

#[test]
fn a_summary_of_a_conversation_is_a_text() {
    let start =
        |block: Value| json!({"type": "content_block_start", "index": 0, "content_block": block});
    let delta = |text: Value| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": text}});
    let stop = json!({"type": "content_block_stop", "index": 0});
    let events = [
        start(json!({"type": "compaction", "content": null})),
        delta("a 4111".into()),
        delta(Value::Null),
        stop,
    ];
    let (out, _) = through("anthropic", "messages", "text/event-stream", &sse(&events)).unwrap();
    let said: String = documents(&out)
        .iter()
        .filter_map(|event| event["delta"]["content"].as_str())
        .collect();
    assert_eq!(said, masked("a 4111"));
    let twice = [delta("41".into()), delta("11".into())];
    let fault = through("anthropic", "messages", "text/event-stream", &sse(&twice)).unwrap_err();
    assert_eq!(fault.code, "unknown_shape");
    // Signed, it goes where it holds what must be masked.
    let whole = |text: &str| {
        json!({"type": "message", "content": [{"type": "compaction", "content": text, "signature": "s"}]}).to_string()
    };
    for (text, left) in [("clean", 1), ("4111", 0)] {
        let (out, _) = through("anthropic", "messages", "application/json", &whole(text)).unwrap();
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["content"].as_array().unwrap().len(), left, "{text}");
    }
}

/// A stream of chat completions, of responses or of Ollama whose events differ in a time, a number or padding too.
fn varying(
    which: usize,
    texts: &[String],
    numbers: &[u16],
) -> (&'static str, &'static str, Vec<String>) {
    let events = texts.iter().zip(numbers).enumerate().map(|(place, (text, number))| {
        let padding = "p".repeat(usize::from(number % 7));
        match which {
            0 => {
                let mut event = chunk(json!({"content": text}), Value::Null);
                event["created"] = (*number).into();
                event["obfuscation"] = padding.into();
                format!("data: {event}\n\n")
            }
            1 => {
                let event = json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": text, "logprobs": [], "sequence_number": place, "obfuscation": padding});
                format!("event: response.output_text.delta\ndata: {event}\n\n")
            }
            _ => {
                let event = json!({"model": "m", "created_at": format!("2026-{number}Z"), "message": {"role": "assistant", "content": text}, "done": false});
                format!("{event}\n")
            }
        }
    });
    let (dialect, name) = [
        ("openai", "chat_completions"),
        ("openai", "responses"),
        ("ollama", "chat"),
    ][which];
    (dialect, name, events.collect())
}

proptest! {
    /// For every stream and every way of cutting it, what is read as like the event before it leaves as it would by
    /// itself: between comments, nothing is like anything.
    #[test]
    fn an_event_like_the_one_before_leaves_as_any_other(
        which in 0..3usize,
        texts in prop::collection::vec(super::text(), 1..12),
        numbers in prop::collection::vec(any::<u16>(), 12),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let (dialect, name, events) = varying(which, &texts, &numbers);
        let (dialect, endpoint) = endpoint(dialect, name);
        let kind = if which == 2 { "application/x-ndjson" } else { "text/event-stream" };
        let through = |stream: &str, cuts: &[usize]| {
            let mut reader = dialect.read_response(endpoint, 200, Some(kind)).unwrap();
            let mut filter = Runs::default();
            let passed = read(&mut *reader, super::cut(stream.as_bytes(), cuts), &mut filter).unwrap();
            (text_of(&passed), reader.facts().clone(), filter.texts)
        };
        let apart = if which == 2 { "\n" } else { ": x\n" };
        let alike = through(&events.concat(), &cuts);
        let mut each = through(&events.join(apart), &[]);
        // What an event stream says in comments is a text too.
        each.2.retain(|(channel, _)| channel.field != "event_stream");
        let carrier = |text: &str| text.lines().filter(|line| *line != ": x" && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(carrier(&alike.0), carrier(&each.0));
        prop_assert_eq!((alike.1, alike.2), (each.1, each.2));
    }
}
