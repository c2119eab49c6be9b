//! Fields that the configuration names: by where they are, as values of an entity, or as all that is looked into; and parts
//! that are taken out because nothing can be looked for in them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{
        Channel, JsonPath, RequestBody, Selection, ShapeError, Text, TextFilter,
        json::{Document, MAX_DEPTH},
    },
    endpoint, masked, read, text_of,
};

const STORE: &str = r#"{"a":[0,1,2,3,4,5,6],"b":{"j":1,"k":2,"@":[{"k":3},{"k":null}]},"c d":"x","\u00e9":"y","b2":{"k":"z"}}"#;

#[test]
fn a_path_leads_where_the_rfc_says() {
    let table: &[(&str, &[&str])] = &[
        ("$.b.j", &["1"]),
        ("$['b']['j']", &["1"]),
        ("$[\"c d\"]", &["\"x\""]),
        ("$.é", &["\"y\""]),
        ("$['\\u00e9']", &["\"y\""]),
        ("$['c\\u0020d']", &["\"x\""]),
        ("$.missing", &[]),
        ("$.a.b", &[]),
        ("$.b[0]", &[]),
        ("$.a[0]", &["0"]),
        ("$.a[-1]", &["6"]),
        ("$.a[-8]", &[]),
        ("$.a[9]", &[]),
        ("$.a[1:3]", &["1", "2"]),
        ("$.a[5:]", &["5", "6"]),
        ("$.a[1:5:2]", &["1", "3"]),
        ("$.a[5:1:-2]", &["3", "5"]),
        ("$.a[::-3]", &["0", "3", "6"]),
        ("$.a[-2:]", &["5", "6"]),
        ("$.a[:-5]", &["0", "1"]),
        ("$.a[1:3:0]", &[]),
        ("$.a[5, 0 ,5]", &["0", "5"]),
        ("$.b['j','k']", &["1", "2"]),
        ("$.b['@'][*]", &["{\"k\":3}", "{\"k\":null}"]),
        ("$.b.*", &["1", "2", "[{\"k\":3},{\"k\":null}]"]),
        ("$..k", &["2", "3", "null", "\"z\""]),
        ("$..['j','k']", &["1", "2", "3", "null", "\"z\""]),
        ("$..[0]", &["0", "{\"k\":3}"]),
        ("$.b..[*].k", &["3", "null"]),
        ("$ .b [ 'j' ]", &["1"]),
        ("$..*..k", &["2", "3", "null", "\"z\""]),
    ];
    let document = Document::read(STORE).unwrap();
    for (path, expected) in table {
        let path = JsonPath::parse(path).unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let found = path.find(&document);
        let found: Vec<&str> = found.iter().map(|value| value.span.of(STORE)).collect();
        assert_eq!(&found, expected, "{path:?}");
    }
}

#[test]
fn a_path_that_cannot_be_used_is_told_by_what_is_wrong_with_it() {
    let long = format!("$.{}", "a".repeat(1024));
    let many = format!("${}", ".a".repeat(17));
    let table = [
        ("", "begins with `$`"),
        ("customer.id", "begins with `$`"),
        ("$", "the whole document"),
        ("$.", "a name was expected"),
        ("$.1", "a name was expected"),
        ("$.a b", "`.` or `[` was expected, at character 5"),
        ("$.a-b", "`.` or `[`"),
        ("$..", "a name was expected"),
        ("$[", "an index"),
        ("$[]", "an index"),
        ("$['a'", "`,` or `]`"),
        ("$['a", "closing quote is missing, at character 3"),
        ("$['\\x']", "JSON"),
        ("$[\"\\'\"]", "JSON"),
        ("$[01]", "an integer"),
        ("$[-0]", "an integer"),
        ("$[9007199254740992]", "an integer"),
        ("$[?@.a == 1]", "filters are not supported, at character 3"),
        ("$.a[?(@.b)]", "filters are not supported"),
        (&long, "at most 1024 bytes"),
        (&many, "at most 16 segments"),
    ];
    for (path, expected) in table {
        let fault = JsonPath::parse(path).unwrap_err();
        assert!(fault.contains(expected), "{path}: {fault}");
    }
}

#[test]
fn a_path_of_descendants_costs_no_more_than_the_document_is_large() {
    let deep = format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let document = Document::read(&deep).unwrap();
    let path = JsonPath::parse(&format!("$..*{}", "..*".repeat(15))).unwrap();
    // Each segment goes one deeper at least: 64 values, of which the last 49 are 16 deep.
    assert_eq!(path.find(&document).len(), MAX_DEPTH - 15);
}

fn selection(named: &[(&str, &str)], only: &[&str]) -> Selection {
    let path = |path: &str| JsonPath::parse(path).unwrap();
    let named = named
        .iter()
        .map(|(entity, at)| ((*entity).into(), path(at)));
    Selection {
        named: named.collect(),
        only: only.iter().map(|at| path(at)).collect(),
        ..Selection::default()
    }
}

fn request(dialect: &str, name: &str, body: &Value) -> Result<Box<dyn RequestBody>, ShapeError> {
    let (dialect, endpoint) = endpoint(dialect, name);
    let path = "/models/m:generateContent";
    let body = Bytes::from(body.to_string());
    dialect.read_request(endpoint, path, Some("application/json"), body)
}

/// Masks values of `ID`, whatever they are, and what `masked` masks.
fn mask(text: Text<'_>) -> Option<String> {
    match text.entity {
        Some("ID") => Some(format!("[ID {}]", text.text.len())),
        Some(_) => None,
        None => super::mask(text),
    }
}

fn rewritten(body: &dyn RequestBody) -> Value {
    serde_json::from_slice(&body.rewrite(&mut mask)).unwrap()
}

#[test]
fn a_field_of_a_name_is_masked_whole_whatever_is_in_it() {
    let body = json!({"customer": {"id": "anything", "n": 7, "all": {"4111": [4111]}, "no": null, "yes": true}, "id": "4111", "free": "x"});
    let named = [("ID", "$.customer.*"), ("KEPT", "$.id")];
    let mut read = request("json", "any", &body).unwrap();
    read.select(&selection(&named, &[]));
    let expected = json!({"customer": {"id": "[ID 8]", "n": "[ID 1]", "all": "[ID 15]", "no": null, "yes": "[ID 4]"}, "id": masked("4111"), "free": "x"});
    assert_eq!(rewritten(&*read), expected);
    let found: Vec<(&str, &str)> = read
        .texts()
        .iter()
        .filter_map(|text| Some((text.entity?, text.text)))
        .collect();
    assert_eq!(
        found,
        [
            ("ID", "{\"4111\":[4111]}"),
            ("ID", "anything"),
            ("ID", "7"),
            ("ID", "true"),
            ("KEPT", "4111")
        ]
    );
    // What is in a field is a text all the same: it may be what another detector looks for.
    assert!(
        super::texts(&*read)
            .iter()
            .filter(|text| **text == "4111")
            .count()
            >= 3
    );
}

#[test]
fn a_field_may_be_in_any_dialects_documents_but_no_word_of_the_protocol() {
    let body = json!({"model": "gpt-4", "metadata": {"customer": "C-1"}, "messages": [{"role": "user", "name": "ada", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]}]});
    let mut read = request("openai", "chat_completions", &body).unwrap();
    let named = [
        ("ID", "$.metadata.customer"),
        ("ID", "$.model"),
        ("ID", "$.messages[*].role"),
        ("ID", "$.messages[*].name"),
        ("ID", "$..name"),
    ];
    read.select(&selection(&named, &[]));
    let mut expected = body;
    expected["metadata"]["customer"] = "[ID 3]".into();
    expected["messages"][0]["name"] = "[ID 3]".into();
    assert_eq!(rewritten(&*read), expected);
}

#[test]
fn fields_may_lie_in_one_another_and_where_others_are_read_together() {
    let body = json!({"a": {"b": {"c": "x"}, "d": "4111"}, "e": "y"});
    let through = |named: &[(&str, &str)]| {
        let mut read = request("json", "any", &body).unwrap();
        read.select(&selection(named, &[]));
        rewritten(&*read)
    };
    // The outer one where it is masked, else the inner one.
    let all = [("ID", "$.a"), ("ID", "$.a.b"), ("ID", "$..c")];
    assert_eq!(through(&all), json!({"a": "[ID 26]", "e": "y"}));
    let inner = [("KEPT", "$.a"), ("ID", "$.a.b"), ("KEPT", "$..c")];
    assert_eq!(
        through(&inner),
        json!({"a": {"b": "[ID 9]", "d": masked("4111")}, "e": "y"})
    );
    let twice = [("KEPT", "$.e"), ("ID", "$['e']")];
    assert_eq!(through(&twice)["e"], "[ID 1]");
    // Two parts of a text that are read as one, and one of them is a field.
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "41"}, {"type": "text", "text": "11"}]}]});
    let mut read = request("openai", "chat_completions", &chat).unwrap();
    read.select(&selection(&[("ID", "$..content[1].text")], &[]));
    let content = &rewritten(&*read)["messages"][0]["content"];
    assert_eq!(
        (&content[0]["text"], &content[1]["text"]),
        (&json!("41"), &json!("[ID 2]"))
    );
    // What is signed is no field.
    let thought = json!({"type": "thinking", "thinking": "t", "signature": "s"});
    let chat = json!({"model": "m", "messages": [{"role": "assistant", "content": [thought, {"type": "text", "text": "u"}]}]});
    let mut read = request("anthropic", "messages", &chat).unwrap();
    read.select(&selection(&[("ID", "$..thinking"), ("ID", "$..text")], &[]));
    let content = &rewritten(&*read)["messages"][0]["content"];
    assert_eq!(
        content,
        &json!([thought, {"type": "text", "text": "[ID 1]"}])
    );
}

#[test]
fn a_field_around_some_of_the_parts_that_are_read_together_hides_none_of_the_others() {
    let part = |text: &str| json!({"type": "text", "text": text});
    let parts = [part("first"), part("41"), part("53"), part("62")];
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": parts}]});
    let through = |path: &str| {
        let mut read = request("openai", "chat_completions", &chat).unwrap();
        read.select(&selection(&[("ID", path)], &[]));
        rewritten(&*read)["messages"][0]["content"].clone()
    };
    for path in ["$..content[0]", "$..content[0:1]", "$..content[0].text"] {
        let content = through(path);
        assert!(content[0].to_string().contains("[ID "), "{content}");
        assert_eq!(content[1]["text"], masked("415362"), "{content}");
        assert_eq!(content[3]["text"], "-", "{content}");
    }
    for path in ["$..content[1]", "$..content[0:2]"] {
        let content = through(path);
        assert!(content[1].to_string().contains("[ID "), "{content}");
        assert_eq!(content[2]["text"], masked("5362"), "{content}");
        assert_eq!(content[3]["text"], "-", "{content}");
    }
    assert_eq!(through("$.messages[0].content")[1], json!(null));
}

#[test]
fn many_fields_cost_no_more_than_the_document_is_large() {
    let rows: Vec<Value> = (0..20_000)
        .map(|n| json!({"id": n, "text": "4111"}))
        .collect();
    let mut read = request("json", "any", &Value::from(rows)).unwrap();
    let begun = read.texts().len();
    read.select(&selection(&[("ID", "$[*].id")], &["$[*].id", "$..text"]));
    let named = read
        .texts()
        .iter()
        .filter(|text| text.entity.is_some())
        .count();
    assert_eq!((begun, named), (80_000, 20_000));
    let out = rewritten(&*read);
    assert_eq!(out[19_999], json!({"id": "[ID 5]", "text": masked("4111")}));
}

#[test]
fn fields_in_one_another_are_not_each_kept_with_all_that_is_in_them() {
    let mut body = json!("4111 ".repeat(20_000));
    for _ in 0..60 {
        body = json!({ "id": body });
    }
    let mut read = request("json", "any", &body).unwrap();
    read.select(&selection(&[("ID", "$..id")], &[]));
    let texts = read.texts();
    let named = texts.iter().filter(|text| text.entity.is_some());
    assert_eq!(named.count(), 60);
    assert!(read.memory() < 100_000, "{}", read.memory());
    let out = rewritten(&*read);
    assert_eq!(
        out,
        json!({"id": format!("[ID {}]", body["id"].to_string().len())})
    );
}

#[test]
fn of_some_fields_only_those_are_looked_into_and_it_says_so() {
    let body = json!({"text": "4111", "deep": [{"text": "4111", "id": 4111}], "id": "4111"});
    let mut read = request("json", "any", &body).unwrap();
    read.select(&selection(
        &[("ID", "$.deep[0].id")],
        &["$..text", "$.deep[*].id"],
    ));
    let expected = json!({"text": masked("4111"), "deep": [{"text": masked("4111"), "id": "[ID 4]"}], "id": "4111"});
    assert_eq!(rewritten(&*read), expected);
    assert_eq!(read.unscanned(), ["not_selected"]);
    let mut all = request("json", "any", &json!({"text": "x"})).unwrap();
    all.select(&selection(&[], &["$.*"]));
    // A key is no field.
    assert_eq!(all.unscanned(), ["not_selected"]);
}

/// Masks `ID`, and remembers what became of the rest.
#[derive(Default)]
struct Named {
    texts: BTreeMap<Channel, String>,
    over: usize,
}

impl TextFilter for Named {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        self.texts
            .entry(channel.clone())
            .or_default()
            .push_str(text);
        out.push_str(text);
    }
    fn finish(&mut self, _: &Channel, _: &mut String) {}
    fn named(&mut self, entity: &str, _: &Channel, _: &str) -> Option<String> {
        (entity == "ID").then(|| "[ID]".to_owned())
    }
    fn named_over(&mut self) {
        self.over += 1;
    }
    fn part(&mut self, text: &str) -> String {
        text.to_owned()
    }
    fn again(&mut self, _: &Channel, text: &str) -> String {
        text.to_owned()
    }
}

#[test]
fn answers_have_such_fields_too_whole_and_as_streams() {
    let named = Arc::new(selection(
        &[
            ("ID", "$..name"),
            ("KEPT", "$.choices[*].message.content"),
            ("ID", "$..delta.content"),
        ],
        &[],
    ));
    let through = |kind: &str, body: &str| {
        let (openai, endpoint) = endpoint("openai", "chat_completions");
        let mut reader = openai.read_response(endpoint, 200, Some(kind)).unwrap();
        reader.select(&named);
        let mut filter = Named::default();
        let passed = read(&mut *reader, [body.as_bytes()], &mut filter).unwrap();
        (text_of(&passed), filter)
    };
    let call =
        json!({"id": "c", "type": "function", "function": {"name": "pay", "arguments": "{}"}});
    let body = json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "text", "tool_calls": [call]}}]});
    let (out, filter) = through("application/json", &body.to_string());
    assert_eq!(out, body.to_string().replace("\"pay\"", "\"[ID]\""));
    assert_eq!(filter.over, 1);
    assert!(filter.texts.values().any(|text| text == "text"));
    // A text that goes on from event to event is no field.
    let event = |delta: Value, novel: &str| {
        let event = json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}], "novel": {"name": novel}});
        format!("data: {event}\n\n")
    };
    let (said, other) = (json!({"content": "a"}), json!({"content": "b"}));
    let stream = event(said, "x") + &event(other, "y");
    let (out, _) = through("text/event-stream", &stream);
    assert_eq!(
        out,
        stream
            .replace("\"x\"", "\"[ID]\"")
            .replace("\"y\"", "\"[ID]\"")
    );
}

#[test]
fn what_cannot_be_looked_into_is_taken_out_with_the_part_that_holds_it() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let text = |text: &str| json!({"type": "text", "text": text});
    let chat =
        |content: Value| json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    let table = [
        (
            "openai",
            "chat_completions",
            chat(json!([image, text("4111"), image, image, text("x")])),
            chat(json!([text(&masked("4111")), text("x")])),
        ),
        (
            "openai",
            "responses",
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "4111"}, {"type": "input_image", "image_url": "https://x/4111"}]}, {"type": "reasoning", "summary": [], "encrypted_content": "e"}]}),
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": masked("4111")}]}]}),
        ),
        (
            "anthropic",
            "messages",
            json!({"model": "m", "messages": [
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}, {"type": "text", "text": "y"}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "4111"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]}]}),
            json!({"model": "m", "messages": [
                {"role": "assistant", "content": [{"type": "text", "text": "y"}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": masked("4111")}]}]}]}),
        ),
        (
            "gemini",
            "generate_content",
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, {"text": "4111"}]}]}),
            json!({"contents": [{"parts": [{"text": masked("4111")}]}]}),
        ),
        (
            "ollama",
            "chat",
            json!({"model": "m", "messages": [{"role": "user", "content": "4111", "images": ["AAAA"]}]}),
            json!({"model": "m", "messages": [{"role": "user", "content": masked("4111"), "images": []}]}),
        ),
    ];
    for (dialect, name, body, expected) in table {
        let mut read = request(dialect, name, &body).unwrap();
        assert!(!read.unscanned().is_empty());
        assert_eq!(read.strip(&|_| true), Ok(()));
        assert_eq!(rewritten(&*read), expected, "{dialect} {name}");
    }
    let stays = [
        (
            "openai",
            "embeddings",
            json!({"model": "m", "input": [4111, 1111]}),
            "token_ids",
        ),
        (
            "openai",
            "chat_completions",
            json!({"model": "m", "messages": [], "audio_url": 1}),
            "",
        ),
        (
            "gemini",
            "generate_content",
            json!({"contents": [], "cachedContent": "c/1"}),
            "cached_content",
        ),
        // all there is of a message: servers refuse one without content
        (
            "openai",
            "chat_completions",
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}, {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}]}]}),
            "input_audio",
        ),
        (
            "anthropic",
            "messages",
            json!({"model": "m", "messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "d"}]}]}),
            "encrypted",
        ),
    ];
    for (dialect, name, body, kind) in stays {
        let mut read = request(dialect, name, &body).unwrap();
        assert_eq!(
            read.strip(&|_| true).err().unwrap_or_default(),
            kind,
            "{dialect} {name}"
        );
    }
}

#[test]
fn texts_around_what_is_taken_out_are_read_together() {
    let texts_of = |dialect: &str, name: &str, body: &Value, strips: bool| {
        let mut read = request(dialect, name, body).unwrap();
        assert_eq!(read.strip(&|_| strips), Ok(()));
        let texts = read.texts().into_iter();
        let texts: Vec<String> = texts.map(|text| text.text.to_owned()).collect();
        (texts, rewritten(&*read))
    };
    let gemini = |parts: Value| json!({"contents": [{"parts": parts}]});
    let signed = json!({"text": "x", "thoughtSignature": "s"});
    let body = gemini(json!([{"text": "41"}, signed, {"text": "11"}]));
    let (texts, leaves) = texts_of("gemini", "generate_content", &body, true);
    assert_eq!(texts, ["41", "11", "4111"]);
    assert_eq!(
        leaves,
        gemini(json!([{"text": masked("4111")}, {"text": "-"}]))
    );
    let (texts, leaves) = texts_of("gemini", "generate_content", &body, false);
    assert_eq!(texts, ["41", "x", "11", "41x11"]);
    assert_eq!(leaves, body);
    let all = gemini(json!([signed, signed, {"text": "4111"}]));
    let (texts, leaves) = texts_of("gemini", "generate_content", &all, true);
    assert_eq!(texts, ["4111", "4111"]);
    assert_eq!(leaves, gemini(json!([{"text": masked("4111")}])));
}

#[test]
fn only_parts_of_the_kinds_asked_for_are_taken_out() {
    let body = json!({"model": "m", "messages": [{"role": "assistant", "content": [
        {"type": "thinking", "thinking": "x", "signature": "s"},
        {"type": "text", "text": "y"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]});
    let left = |these: &[&str]| {
        let mut read = request("anthropic", "messages", &body).unwrap();
        read.strip(&|kind| these.contains(&kind)).unwrap();
        let left = rewritten(&*read)["messages"][0]["content"].clone();
        let left = left.as_array().unwrap().iter();
        left.map(|part| part["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(left(&["signed"]), ["text", "image"]);
    assert_eq!(left(&["image"]), ["thinking", "text"]);
    assert_eq!(left(&[]), ["thinking", "text", "image"]);
}

#[test]
fn parts_go_once_in_any_order() {
    let kinds = [
        json!({"type": "text", "text": "y"}),
        json!({"type": "thinking", "thinking": "4111", "signature": "s"}),
        json!({"type": "redacted_thinking", "data": "d"}),
    ];
    for stripped in [&["encrypted"][..], &["signed", "encrypted"]] {
        for (len, number) in (1..=4).flat_map(|len| (0..3_usize.pow(len)).map(move |n| (len, n))) {
            let parts = (0..len).map(|at| &kinds[number / 3_usize.pow(at) % 3]);
            let parts: Vec<&Value> = parts.collect();
            let body =
                json!({"model": "m", "messages": [{"role": "assistant", "content": &parts}]});
            let mut read = request("anthropic", "messages", &body).unwrap();
            if read.strip(&|kind| stripped.contains(&kind)).is_err() {
                continue;
            }
            let mut mask = |text: Text<'_>| (text.text == "4111").then(|| "x".to_owned());
            let out = read.rewrite(&mut mask);
            let out: Value = serde_json::from_slice(&out)
                .unwrap_or_else(|fault| panic!("{parts:?}: {fault}: {out:?}"));
            let left: Vec<&Value> = parts.into_iter().filter(|p| p["type"] == "text").collect();
            assert_eq!(out["messages"][0]["content"], json!(left), "{body}");
        }
    }
}

#[test]
fn a_text_of_which_nothing_is_left_is_not_empty() {
    let redacted = |dialect, name, body: &Value| {
        let read = request(dialect, name, body).unwrap();
        let mut redact = |text: Text<'_>| {
            let left = text.text.replace("4111", "");
            (left != text.text).then_some(left)
        };
        serde_json::from_slice::<Value>(&read.rewrite(&mut redact)).unwrap()
    };
    let message =
        |content: Value| json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    for (content, expected) in [
        (json!("4111"), json!("-")),
        (json!(" 4111\n"), json!("-")),
        (json!(""), json!("")),
        (
            json!([{"type": "text", "text": "4111"}]),
            json!([{"type": "text", "text": "-"}]),
        ),
        // adjacent parts, a value in two of them
        (
            json!([{"type": "text", "text": "a 41"}, {"type": "text", "text": "11"}]),
            json!([{"type": "text", "text": "a "}, {"type": "text", "text": "-"}]),
        ),
    ] {
        for (dialect, name) in [("openai", "chat_completions"), ("anthropic", "messages")] {
            let out = redacted(dialect, name, &message(content.clone()));
            assert_eq!(out["messages"][0]["content"], expected, "{dialect}");
        }
    }
    // What a tool is given may be empty.
    let call = json!([{"type": "tool_use", "id": "t", "name": "n", "input": {"card": "4111"}}]);
    let out = redacted("anthropic", "messages", &message(call));
    assert_eq!(out["messages"][0]["content"][0]["input"]["card"], "");
    assert_eq!(redacted("json", "any", &json!(["4111"])), json!([""]));
}

#[test]
fn a_number_in_an_object_is_read_without_its_exponent_too() {
    for (dialect, name, body) in [
        ("json", "any", r#"{"to":[@]}"#),
        (
            "anthropic",
            "messages",
            r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"to":@}}]}]}"#,
        ),
        (
            "gemini",
            "generate_content",
            r#"{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"to":@}}}]}]}"#,
        ),
        (
            "openai",
            "responses",
            r#"{"model":"m","input":[{"type":"tool_search_call","arguments":{"to":@}}]}"#,
        ),
        (
            "ollama",
            "chat",
            r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"to":@}}}]}]}"#,
        ),
    ] {
        let (dialect, endpoint) = endpoint(dialect, name);
        for (number, seen, leaves) in [
            ("4.111e3", &["4111", "4.111e3"][..], "\"[\\\"N\\\"]\""),
            ("4.1e1", &["41", "4.1e1"], "4.1e1"),
            ("4.1e400", &["4.1e400"], "4.1e400"),
            ("4111", &["4111"], "\"[\\\"N\\\"]\""),
        ] {
            let (sent, leaves) = (body.replace('@', number), body.replace('@', leaves));
            let kind = Some("application/json");
            let path = "/models/m:generateContent";
            let read = dialect
                .read_request(endpoint, path, kind, Bytes::from(sent))
                .unwrap();
            let texts = super::texts(&*read);
            assert!(
                texts.windows(seen.len()).any(|some| some == seen),
                "{texts:?}"
            );
            assert_eq!(read.rewrite(&mut super::mask), leaves.as_bytes());
        }
    }
}
