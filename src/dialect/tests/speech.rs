//! For every dialect: whatever a model says, however it is dealt out over events and bytes, what a client puts together
//! is what was said, masked as if it had been seen whole.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Runs, cut, cut_text, endpoint, masked, masked_value, read, text, text_of, value, written,
};

/// How a server of some dialect says things.
struct Speech {
    dialect: &'static str,
    endpoint: &'static str,
    content_type: &'static str,
    /// What comes before all texts.
    opening: &'static [&'static str],
    /// The next piece of the text of that number.
    piece: fn(usize, &str) -> Value,
    /// What comes behind all texts.
    closing: &'static [&'static str],
    /// The pieces of texts in an event, with their numbers.
    heard: fn(&Value) -> Vec<(usize, String)>,
    /// How many texts of plain words it can say at once, and whether one of JSON besides, whose number is the next.
    texts: usize,
    json: bool,
}

const SPEECHES: &[Speech] = &[
    Speech {
        dialect: "openai",
        endpoint: "chat_completions",
        content_type: "text/event-stream",
        opening: &[],
        piece: |n, text| {
            let delta = match n {
                2 => json!({"tool_calls": [{"index": 4, "function": {"arguments": text}}]}),
                _ => json!({"content": text}),
            };
            json!({"object": "chat.completion.chunk", "choices": [{"index": n, "delta": delta}]})
        },
        closing: &["[DONE]"],
        heard: |event| {
            let heard = |choice: &Value| {
                let delta = &choice["delta"];
                let text = delta["content"]
                    .as_str()
                    .or(delta["tool_calls"][0]["function"]["arguments"].as_str());
                Some((choice["index"].as_u64()? as usize, text?.to_owned()))
            };
            let choices = event["choices"].as_array().into_iter().flatten();
            choices.filter_map(heard).collect()
        },
        texts: 2,
        json: true,
    },
    Speech {
        dialect: "openai",
        endpoint: "completions",
        content_type: "text/event-stream",
        opening: &[],
        piece: |n, text| json!({"object": "text_completion", "choices": [{"index": n, "text": text}]}),
        closing: &["[DONE]"],
        heard: |event| {
            let heard = |choice: &Value| {
                Some((
                    choice["index"].as_u64()? as usize,
                    choice["text"].as_str()?.to_owned(),
                ))
            };
            let choices = event["choices"].as_array().into_iter().flatten();
            choices.filter_map(heard).collect()
        },
        texts: 2,
        json: false,
    },
    Speech {
        dialect: "openai",
        endpoint: "responses",
        content_type: "text/event-stream",
        opening: &[],
        piece: |n, text| {
            let kind = match n {
                0 => "response.output_text.delta",
                1 => "response.reasoning_summary_text.delta",
                _ => "response.function_call_arguments.delta",
            };
            json!({"type": kind, "output_index": n, "item_id": "i", "delta": text})
        },
        closing: &[r#"{"type":"response.completed","response":{}}"#],
        heard: |event| {
            let heard = || {
                Some((
                    event["output_index"].as_u64()? as usize,
                    event["delta"].as_str()?.to_owned(),
                ))
            };
            heard().into_iter().collect()
        },
        texts: 2,
        json: true,
    },
    Speech {
        dialect: "anthropic",
        endpoint: "messages",
        content_type: "text/event-stream",
        opening: &[
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        ],
        piece: |n, text| {
            let delta = match n {
                2 => json!({"type": "input_json_delta", "partial_json": text}),
                _ => json!({"type": "text_delta", "text": text}),
            };
            json!({"type": "content_block_delta", "index": n, "delta": delta})
        },
        closing: &[
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"message_stop"}"#,
        ],
        heard: |event| {
            let delta = &event["delta"];
            let text = delta["text"].as_str().or(delta["partial_json"].as_str());
            let heard = || Some((event["index"].as_u64()? as usize, text?.to_owned()));
            heard().into_iter().collect()
        },
        texts: 2,
        json: true,
    },
    Speech {
        dialect: "gemini",
        endpoint: "stream_generate_content",
        content_type: "text/event-stream",
        opening: &[],
        piece: gemini_piece,
        closing: &[r#"{"candidates":[{"finishReason":"STOP"}]}"#],
        heard: gemini,
        texts: 2,
        json: false,
    },
    Speech {
        dialect: "gemini",
        endpoint: "stream_generate_content",
        content_type: "application/json",
        opening: &[],
        piece: gemini_piece,
        closing: &[r#"{"candidates":[{"finishReason":"STOP"}]}"#],
        heard: gemini,
        texts: 2,
        json: false,
    },
    Speech {
        dialect: "ollama",
        endpoint: "chat",
        content_type: "application/x-ndjson",
        opening: &[],
        piece: |n, text| match n {
            0 => json!({"message": {"role": "assistant", "content": text}, "done": false}),
            _ => json!({"message": {"role": "assistant", "thinking": text}, "done": false}),
        },
        closing: &[r#"{"message":{"content":""},"done":true}"#],
        heard: |event| {
            let message = &event["message"];
            let heard = [&message["content"], &message["thinking"]]
                .map(|text| text.as_str().map(str::to_owned));
            heard
                .into_iter()
                .enumerate()
                .filter_map(|(n, text)| Some((n, text?)))
                .collect()
        },
        texts: 2,
        json: false,
    },
    Speech {
        dialect: "ollama",
        endpoint: "generate",
        content_type: "application/x-ndjson",
        opening: &[],
        piece: |n, text| match n {
            0 => json!({"response": text, "done": false}),
            _ => json!({"response": "", "thinking": text, "done": false}),
        },
        closing: &[r#"{"response":"","done":true}"#],
        heard: |event| {
            let heard = [&event["response"], &event["thinking"]]
                .map(|text| text.as_str().map(str::to_owned));
            heard
                .into_iter()
                .enumerate()
                .filter_map(|(n, text)| Some((n, text?)))
                .collect()
        },
        texts: 2,
        json: false,
    },
];

/// The parts of Gemini's events: thoughts are the first text.
fn gemini_piece(n: usize, text: &str) -> Value {
    let part = if n == 0 {
        json!({"text": text, "thought": true})
    } else {
        json!({"text": text})
    };
    json!({"candidates": [{"content": {"parts": [part], "role": "model"}}]})
}

fn gemini(event: &Value) -> Vec<(usize, String)> {
    let parts = event["candidates"][0]["content"]["parts"]
        .as_array()
        .into_iter()
        .flatten();
    let heard = |part: &Value| {
        Some((
            usize::from(part["thought"] != true),
            part["text"].as_str()?.to_owned(),
        ))
    };
    parts.filter_map(heard).collect()
}

impl Speech {
    fn framed(&self, events: &[String]) -> String {
        match self.content_type {
            "text/event-stream" => events
                .iter()
                .map(|event| format!("data: {event}\n\n"))
                .collect(),
            "application/x-ndjson" => events.iter().map(|event| format!("{event}\n")).collect(),
            _ => format!("[{}]", events.join("\n,\r\n")),
        }
    }

    fn documents(&self, stream: &str) -> Vec<Value> {
        let documents: Vec<&str> = match self.content_type {
            "text/event-stream" => stream
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .collect(),
            "application/x-ndjson" => stream.lines().collect(),
            _ => return serde_json::from_str(stream).unwrap(),
        };
        let documents = documents.into_iter().filter(|data| *data != "[DONE]");
        documents
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    fn through(&self, stream: &str, cuts: &[usize]) -> String {
        let (dialect, endpoint) = endpoint(self.dialect, self.endpoint);
        let mut reader = dialect
            .read_response(endpoint, 200, Some(self.content_type))
            .unwrap();
        let passed = read(
            &mut *reader,
            cut(stream.as_bytes(), cuts),
            &mut Runs::default(),
        )
        .unwrap();
        assert!(reader.facts().complete, "{stream}");
        text_of(&passed)
    }
}

proptest! {
    #[test]
    fn what_is_heard_is_what_was_said_and_masked(
        which in 0..SPEECHES.len(),
        texts in prop::collection::vec(text(), 2),
        arguments in value(),
        whims in prop::collection::vec(any::<u8>(), 0..100),
        deltas in prop::collection::vec(any::<usize>(), 0..10),
        order in prop::collection::vec(0usize..3, 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let speech = &SPEECHES[which];
        let arguments = written(&arguments, &mut whims.into_iter());
        let mut said: Vec<&str> = texts.iter().take(speech.texts).map(String::as_str).collect();
        if speech.json { said.push(&arguments); }
        let piece = |n: usize| move |text: &&str| (speech.piece)(n, text).to_string();
        let mut queues: Vec<Vec<String>> = said.iter().enumerate()
            .map(|(n, text)| cut_text(text, &deltas).iter().rev().map(piece(n)).collect())
            .collect();
        let mut events: Vec<String> = speech.opening.iter().map(|event| (*event).to_owned()).collect();
        events.extend(order.iter().filter_map(|queue| queues.get_mut(*queue)?.pop()));
        queues.iter_mut().for_each(|queue| events.extend(queue.drain(..).rev()));
        events.extend(speech.closing.iter().map(|event| (*event).to_owned()));
        let stream = speech.framed(&events);
        let whole = speech.through(&stream, &[]);
        prop_assert_eq!(&speech.through(&stream, &cuts), &whole);
        let mut heard: BTreeMap<usize, String> = BTreeMap::new();
        for event in speech.documents(&whole) {
            for (n, text) in (speech.heard)(&event) {
                heard.entry(n).or_default().push_str(&text);
            }
        }
        for (n, said) in said.iter().enumerate() {
            let heard = heard.remove(&n).unwrap_or_default();
            if n < speech.texts {
                prop_assert_eq!(heard, masked(said));
            } else {
                let said = serde_json::from_str(said).unwrap();
                prop_assert_eq!(serde_json::from_str::<Value>(&heard).unwrap(), masked_value(&said));
            }
        }
    }
}
