//! Bodies made to be expensive: four times as many members, parts or lines cost about four times as much, not sixteen.

#![allow(
    clippy::disallowed_methods,
    reason = "how long it takes is what is tested"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Runs, endpoint, mask, read};

/// `n` members, named by their number.
fn members(n: usize, name: impl Fn(usize) -> String) -> Map<String, Value> {
    (0..n).map(|i| (name(i), json!(0))).collect()
}

/// `value` with many members in front of its own.
fn behind(mut many: Map<String, Value>, value: Value) -> String {
    many.extend(value.as_object().unwrap().clone());
    Value::Object(many).to_string()
}

fn odd(i: usize) -> String {
    format!("k{i:06}k")
}

/// What is sent to an endpoint, of about `n` pieces.
type Made = fn(usize) -> String;

const REQUESTS: &[(&str, &str, Made)] = &[
    ("anthropic", "messages", |n| {
        let rest = json!({"model": "m", "max_tokens": 1, "messages": []});
        behind(members(n, odd), rest)
    }),
    ("openai", "chat_completions", |n| {
        behind(members(n, odd), json!({"model": "m", "messages": []}))
    }),
    ("openai", "chat_completions", |n| {
        let names = members(n, |i| format!("{i:06}"));
        json!({"model": "m", "messages": [], "metadata": names}).to_string()
    }),
    ("openai", "chat_completions", |n| {
        let call = json!({"name": "f", "arguments": Value::from(members(n, |i| format!("{i:06}"))).to_string()});
        let calls = json!([{"id": "1", "type": "function", "function": call}]);
        json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}]}).to_string()
    }),
    ("openai", "chat_completions", |n| {
        let parts: Vec<Value> = (0..n)
            .map(|_| json!({"type": "text", "text": "12345"}))
            .collect();
        json!({"model": "m", "messages": [{"role": "user", "content": parts}]}).to_string()
    }),
    ("gemini", "generate_content", |n| {
        behind(members(n, odd), json!({"contents": []}))
    }),
    ("gemini", "generate_content", |n| {
        let names = members(n, |i| format!("k_{i:06}k"));
        behind(names, json!({"contents": []}))
    }),
];

const ANSWERS: &[(&str, &str, &str, Made)] = &[
    ("openai", "chat_completions", "application/json", |n| {
        let message = json!({"role": "assistant", "content": "12345", "annotations": [1]});
        let choices: Vec<Value> = (0..n)
            .map(|i| json!({"index": i % 1000, "message": message}))
            .collect();
        json!({"object": "chat.completion", "choices": choices}).to_string()
    }),
    ("openai", "chat_completions", "application/json", |n| {
        let choices: Vec<Value> = (0..n)
            .map(|i| json!({"index": i % 1000, "message": {"role": "assistant", "content": "x"}}))
            .collect();
        let rest = json!({"object": "chat.completion", "choices": choices});
        behind(members(n, odd), rest)
    }),
    ("openai", "responses", "application/json", |n| {
        let part = json!({"type": "output_text", "text": "12345", "annotations": [1]});
        let item = json!({"type": "message", "role": "assistant", "content": vec![part; n]});
        json!({"object": "response", "id": "r", "output": [item]}).to_string()
    }),
    ("openai", "chat_completions", "text/event-stream", |n| {
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n";
        format!("{event}{}\n", "x: 12345\n".repeat(n))
    }),
];

/// The time of one run, of which there are several until one shows that `n` pieces are read in linear time: other work of the machine can
/// only add to it.
fn linear(what: &str, run: impl Fn(&str), made: Made) {
    let (short, long) = (made(4_000), made(16_000));
    let time = |body: &str| {
        let begun = Instant::now();
        run(body);
        begun.elapsed()
    };
    let (mut least, mut most) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        least = least.min(time(&short));
        most = most.min(time(&long));
        if most < 8 * least {
            return;
        }
    }
    panic!("{what}: {least:?}, and {most:?} for four times as much");
}

#[test]
fn a_request_costs_its_length_not_its_square() {
    for (number, (dialect, name, made)) in REQUESTS.iter().enumerate() {
        let (dialect, endpoint) = endpoint(dialect, name);
        let path = endpoint.path.replace("{model}", "m");
        let run = |body: &str| {
            let body = Bytes::from(body.to_owned());
            let read = dialect.read_request(endpoint, &path, Some("application/json"), body);
            read.unwrap().rewrite(&mut mask);
        };
        linear(&format!("{name}, row {number}"), run, *made);
    }
}

#[test]
fn an_answer_costs_its_length_not_its_square() {
    for (number, (dialect, name, content_type, made)) in ANSWERS.iter().enumerate() {
        let (dialect, endpoint) = endpoint(dialect, name);
        let run = |body: &str| {
            let mut reader = dialect
                .read_response(endpoint, 200, Some(content_type))
                .unwrap();
            read(&mut *reader, [body.as_bytes()], &mut Runs::default()).unwrap();
        };
        linear(&format!("{name}, row {number}"), run, *made);
    }
}
