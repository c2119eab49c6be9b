//! What the keys around a value say of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::{
    super::{Channel, RequestBody, TextFilter, arguments::Arguments},
    cut_text, endpoint, read,
};

/// Lets everything through and remembers what each text stands under.
#[derive(Default)]
struct Labels {
    label: String,
    open: BTreeMap<Channel, (String, String)>,
    seen: Vec<(String, String)>,
}

impl TextFilter for Labels {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        let label = std::mem::take(&mut self.label);
        let (_, said) = self
            .open
            .entry(channel.clone())
            .or_insert((label, String::new()));
        said.push_str(text);
        out.push_str(text);
    }
    fn finish(&mut self, channel: &Channel, _: &mut String) {
        self.seen.extend(self.open.remove(channel));
    }
    fn label(&mut self, _: &Channel, label: &str) {
        label.clone_into(&mut self.label);
    }
    fn part(&mut self, text: &str) -> String {
        text.to_owned()
    }
    fn again(&mut self, _: &Channel, text: &str) -> String {
        let label = std::mem::take(&mut self.label);
        self.seen.push((label, text.to_owned()));
        text.to_owned()
    }
}

const ARGUMENTS: &str =
    r#"{"ssn":"536228145","who":{"name":"Ada","ids":[1,"2"]},"\u0061":{},"n":7,"":"x"}"#;
const SEEN: [(&str, &str); 13] = [
    ("", "ssn"),
    ("ssn", "536228145"),
    ("", "who"),
    ("", "name"),
    ("who name", "Ada"),
    ("", "ids"),
    ("who ids", "1"),
    ("who ids", "2"),
    ("", "a"),
    ("", "n"),
    ("n", "7"),
    ("", ""),
    ("", "x"),
];

fn owned(seen: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(label, text): &(&str, &str)| ((*label).to_owned(), (*text).to_owned());
    seen.iter()
        .map(owned)
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

#[test]
fn arguments_say_what_each_of_their_texts_stands_under_however_they_are_cut() {
    for at in 0..ARGUMENTS.len() {
        let mut labels = Labels::default();
        let (mut arguments, mut out) = (Arguments::default(), String::new());
        for piece in cut_text(ARGUMENTS, &[at, at + 1]) {
            let channel = Channel::default();
            arguments
                .push(piece, &channel, &mut labels, &mut out)
                .unwrap();
        }
        arguments.finish(&Channel::default(), &mut labels, &mut out);
        assert_eq!(labels.seen, owned(&SEEN), "cut at {at}");
    }
}

#[test]
fn a_tools_input_says_what_each_of_its_texts_stands_under_in_every_dialect() {
    let of = |dialect: &str, name: &str, body: serde_json::Value| {
        let (dialect, endpoint) = endpoint(dialect, name);
        let body = Bytes::from(body.to_string());
        let path = "/models/m:generateContent";
        let kind = Some("application/json");
        let read = dialect.read_request(endpoint, path, kind, body).unwrap();
        let texts = read.texts();
        let text = texts.iter().find(|text| text.text == "536228145").unwrap();
        assert!(text.label.ends_with("ssn"), "{}", text.label);
        let mut asked = Vec::new();
        read.rewrite(&mut |text| {
            asked.extend((text.text == "536228145").then(|| text.label.to_owned()));
            None
        });
        assert_eq!(asked, [text.label]);
    };
    let input = json!({"ssn": "536228145"});
    of("json", "any", json!({"customer": [{"ssn": 536228145}]}));
    of("json", "any", input.clone());
    of(
        "openai",
        "chat_completions",
        json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": input.to_string()}}]}]}),
    );
    of(
        "anthropic",
        "messages",
        json!({"model": "m", "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": input}]}]}),
    );
    of(
        "gemini",
        "generate_content",
        json!({"contents": [{"parts": [{"functionCall": {"name": "f", "args": input}}]}]}),
    );
    let number = json!({"ssn": 536228145});
    for part in [
        json!({"toolCall": {"toolType": "T", "args": number}}),
        json!({"tool_call": {"args": number}}),
        json!({"toolResponse": {"response": number}}),
        json!({"tool_response": {"response": number}}),
    ] {
        of(
            "gemini",
            "generate_content",
            json!({"contents": [{"parts": [part]}]}),
        );
    }
    for (noted, around) in [
        (json!({"contents": [], "labels": input}), "gemini"),
        (
            json!({"contents": [{"parts": [{"text": "x", "partMetadata": {"who": [input]}}]}]}),
            "gemini",
        ),
        (
            json!({"model": "m", "messages": [], "metadata": input}),
            "openai",
        ),
        (
            json!({"model": "m", "input": "x", "metadata": input}),
            "openai",
        ),
        (
            json!({"model": "m", "input": "x", "tools": [{"type": "mcp", "server_label": "s", "headers": input}]}),
            "openai",
        ),
    ] {
        let name = match (around, noted.get("messages")) {
            ("gemini", _) => "generate_content",
            (_, Some(_)) => "chat_completions",
            (_, None) => "responses",
        };
        of(around, name, noted);
    }
    let called = json!({"type": "tool_search_call", "arguments": {"text": 1, "who": [number]}});
    of(
        "openai",
        "responses",
        json!({"model": "m", "input": [called]}),
    );
    let variables = json!({"id": "p", "variables": input});
    of(
        "openai",
        "responses",
        json!({"model": "m", "prompt": variables}),
    );
    let action = json!({"type": "exec", "command": ["env"], "env": input});
    let shell = json!({"type": "local_shell_call", "call_id": "c", "action": action});
    of(
        "openai",
        "responses",
        json!({"model": "m", "input": [shell]}),
    );
    of(
        "ollama",
        "chat",
        json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": input}}]}]}),
    );
}

#[test]
fn what_a_model_calls_a_tool_with_is_read_as_values_in_answers_too() {
    let seen = |dialect: &str, name: &str, kind: &str, body: String| {
        let (dialect, endpoint) = endpoint(dialect, name);
        let mut reader = dialect.read_response(endpoint, 200, Some(kind)).unwrap();
        let mut labels = Labels::default();
        read(&mut *reader, [body.as_bytes()], &mut labels).unwrap();
        let ssn = |(label, text): &(String, String)| label.ends_with("ssn") && text == "536228145";
        assert!(labels.seen.iter().any(ssn), "{name}: {:?}", labels.seen);
    };
    let input = json!({"ssn": 536228145});
    let (whole, stream) = ("application/json", "text/event-stream");
    let item = json!({"type": "tool_search_call", "id": "t", "arguments": input});
    let answer = json!({"object": "response", "id": "r", "model": "m", "output": [item]});
    seen("openai", "responses", whole, answer.to_string());
    let done = json!({"type": "response.output_item.done", "output_index": 0, "item": item});
    seen("openai", "responses", stream, format!("data: {done}\n\n"));
    for part in [
        json!({"toolCall": {"args": input}}),
        json!({"toolResponse": {"response": input}}),
    ] {
        let content = json!({"role": "model", "parts": [part]});
        let answer = json!({"candidates": [{"content": content}]});
        seen("gemini", "generate_content", whole, answer.to_string());
    }
}

#[test]
fn what_is_no_json_stands_under_its_keys_all_the_same_however_it_is_cut() {
    for (arguments, text) in [
        (r#"{"ssn": 078051120}"#, "078051120}"),
        (r#"{"ssn": '536228145'}"#, "'536228145'}"),
        (r#"{"ssn": +536228145}"#, "+536228145}"),
        (r#"{"ssn":[NaN,536228145]}"#, "NaN,536228145]}"),
        (r#"{"ssn" 536228145}"#, "536228145}"),
        ("{\"ssn\":\"\n536228145\"}", "\n536228145\"}"),
        (r#"{"ssn":"\q536228145"}"#, r#"\q536228145"}"#),
    ] {
        for at in 0..arguments.len() {
            let mut labels = Labels::default();
            let (mut reader, mut out) = (Arguments::default(), String::new());
            let channel = Channel::default();
            for piece in cut_text(arguments, &[at, at + 1]) {
                reader.push(piece, &channel, &mut labels, &mut out).unwrap();
            }
            reader.finish(&channel, &mut labels, &mut out);
            let seen = [("", "ssn"), ("ssn", text)];
            assert_eq!(labels.seen, owned(&seen), "{arguments} cut at {at}");
            assert_eq!(out, arguments);
        }
    }
}

#[test]
fn what_is_said_again_stands_under_the_same_keys() {
    let (openai, endpoint) = endpoint("openai", "responses");
    let arguments = json!({"ssn": "536228145"}).to_string();
    let stream: String = [
        json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": arguments}),
        json!({"type": "response.function_call_arguments.done", "output_index": 0, "arguments": arguments}),
    ]
    .map(|event| format!("data: {event}\n\n"))
    .concat();
    let mut reader = openai
        .read_response(endpoint, 200, Some("text/event-stream"))
        .unwrap();
    let mut labels = Labels::default();
    read(&mut *reader, [stream.as_bytes()], &mut labels).unwrap();
    let value = ("ssn".to_owned(), "536228145".to_owned());
    assert_eq!(labels.seen.iter().filter(|seen| **seen == value).count(), 2);
}

#[test]
fn a_label_is_no_longer_than_what_it_is_good_for() {
    let long = "k".repeat(100_000);
    let deep = (0..40).fold(json!([1, 2]), |inside, _| json!({ long.as_str(): inside }));
    let (openai, chat) = endpoint("openai", "chat_completions");
    let call = |arguments: String| {
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let body = json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]});
        let body = Bytes::from(body.to_string());
        openai.read_request(chat, "/v1/x", Some("application/json"), body)
    };
    let read = call(deep.to_string()).unwrap();
    let longest = |read: &dyn RequestBody| read.texts().iter().map(|text| text.label.len()).max();
    assert!(longest(&*read).is_some_and(|longest| longest <= 3 * 64));
    let (json, any) = endpoint("json", "any");
    let body = Bytes::from(deep.to_string());
    let read = json
        .read_request(any, "/x", Some("application/json"), body)
        .unwrap();
    assert!(longest(&*read).is_some_and(|longest| longest <= 3 * 64 + 2));
    // Values in arguments count as those of a document do.
    let many = format!("[{}1]", "1,".repeat(1 << 20));
    assert_eq!(call(many).unwrap_err().code, "too_many_values");
}

#[test]
fn a_long_key_says_what_its_end_says() {
    let key = "contact.address.billing.previous.customer.identification.number.ssn";
    assert!(key.len() > 64);
    let value = json!({ key: "536228145" });
    let (json, any) = endpoint("json", "any");
    let body = Bytes::from(value.to_string());
    let read = json
        .read_request(any, "/x", Some("application/json"), body)
        .unwrap();
    let texts = read.texts();
    let label = texts
        .iter()
        .find(|text| text.text == "536228145")
        .unwrap()
        .label;
    assert_eq!(label, &key[key.len() - 64..]);

    let mut labels = Labels::default();
    let (mut arguments, channel) = (Arguments::default(), Channel::default());
    arguments
        .push(
            &value.to_string(),
            &channel,
            &mut labels,
            &mut String::new(),
        )
        .unwrap();
    assert!(
        labels
            .seen
            .contains(&(label.to_owned(), "536228145".to_owned()))
    );
}
