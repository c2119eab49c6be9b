//! What the dialects promise, held against stand-in filters that mask as simply as can be.

mod anthropic;
mod arguments;
mod costs;
mod edges;
mod fields;
mod json;
mod labels;
mod ordinary;
mod others;
mod request;
mod responses;
mod signed;
mod speech;
mod sse;
mod stream;
mod transcripts;
mod whole;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Channel, Dialect, Endpoint, ErrorShape, Passed, RequestBody, ResponseBody, ShapeError, Text,
    TextFilter,
};

/// Masks each longest run of four or more digits and hyphens, exactly: it holds back a run until it has ended.
#[derive(Debug, Default)]
pub(super) struct Runs {
    held: BTreeMap<Channel, String>,
    /// Every text that was finished, by channel.
    pub(super) texts: Vec<(Channel, String)>,
    open: BTreeMap<Channel, String>,
}

/// What [`Runs`] makes of a whole text.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() || c == '-' {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() >= 4 { "[\"N\"]" } else { &run });
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

impl TextFilter for Runs {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        self.open.entry(channel.clone()).or_default().push_str(text);
        let held = self.held.entry(channel.clone()).or_default();
        held.push_str(text);
        let keep = held
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')
            .len();
        let rest = held.split_off(keep);
        out.push_str(&masked(&std::mem::replace(held, rest)));
    }

    fn finish(&mut self, channel: &Channel, out: &mut String) {
        let text = self.open.remove(channel).unwrap_or_default();
        self.texts.push((channel.clone(), text));
        out.push_str(&masked(&self.held.remove(channel).unwrap_or_default()));
    }

    fn part(&mut self, text: &str) -> String {
        masked(text)
    }

    fn again(&mut self, _: &Channel, text: &str) -> String {
        masked(text)
    }

    fn word(&mut self, word: &str) -> Option<String> {
        word.contains(LENT).then(|| word.replace(LENT, GONE))
    }
}

/// Stands for the lent credential, which no answer may carry anywhere.
pub(super) const LENT: &str = "lent-secret";
/// What [`Runs`] puts in its place.
pub(super) const GONE: &str = "<gone>";

/// Lets everything through and says so.
#[derive(Debug, Default)]
pub(super) struct Open;

impl TextFilter for Open {
    fn push(&mut self, _: &Channel, text: &str, out: &mut String) {
        out.push_str(text);
    }
    fn finish(&mut self, _: &Channel, _: &mut String) {}
    fn part(&mut self, text: &str) -> String {
        text.to_owned()
    }
    fn again(&mut self, _: &Channel, text: &str) -> String {
        text.to_owned()
    }
    fn masks(&self) -> bool {
        false
    }
}

pub(super) fn openai() -> (&'static dyn Dialect, &'static Endpoint) {
    let dialect = super::by_name("openai").unwrap();
    (dialect, &dialect.endpoints()[0])
}

pub(super) fn event_stream() -> Box<dyn ResponseBody> {
    let (openai, endpoint) = openai();
    openai
        .read_response(endpoint, 200, Some("text/event-stream; charset=utf-8"))
        .unwrap()
}

/// Masks a text of a request.
pub(super) fn mask(text: Text<'_>) -> Option<String> {
    Some(masked(text.text)).filter(|new| new != text.text)
}

/// The texts of a request, without what they stand under.
pub(super) fn texts(body: &dyn RequestBody) -> Vec<&str> {
    body.texts().iter().map(|text| text.text).collect()
}

/// What comes and what leaves, of a transcript.
pub(super) fn sides(transcript: &'static str) -> (&'static str, &'static str) {
    let (_, both) = transcript.split_once("======== what comes\n").unwrap();
    both.split_once("======== what leaves\n").unwrap()
}

/// All that passed.
pub(super) fn text_of(passed: &Passed) -> String {
    String::from_utf8([&passed.now[..], &passed.terminal[..]].concat()).unwrap()
}

/// An endpoint of a dialect.
pub(super) fn endpoint(dialect: &str, name: &str) -> (&'static dyn Dialect, &'static Endpoint) {
    let dialect = super::by_name(dialect).unwrap();
    let mut endpoints = dialect.endpoints().iter();
    (
        dialect,
        endpoints.find(|endpoint| endpoint.name == name).unwrap(),
    )
}

/// Reads `pieces` to the end.
pub(super) fn read<'p>(
    body: &mut dyn ResponseBody,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    filter: &mut dyn TextFilter,
) -> Result<Passed, ShapeError> {
    let mut all = Passed::default();
    let mut take = |passed: Passed| {
        assert!(
            all.terminal.is_empty() || passed.now.is_empty(),
            "something left at once behind the terminal event"
        );
        all.now.extend(passed.now);
        all.terminal.extend(passed.terminal);
    };
    for piece in pieces {
        take(body.push(piece, filter)?);
    }
    take(body.finish(filter)?);
    Ok(all)
}

/// `text` cut at `cuts`, taken modulo its length.
pub(super) fn cut<'t>(bytes: &'t [u8], cuts: &[usize]) -> Vec<&'t [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|two| &bytes[two[0]..two[1]])
        .collect()
}

/// As [`cut`], between characters.
pub(super) fn cut_text<'t>(text: &'t str, cuts: &[usize]) -> Vec<&'t str> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| text.floor_char_boundary(cut % (text.len() + 1)))
        .collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|two| &text[two[0]..two[1]]).collect()
}

/// Text in which runs, escapes and characters of every length are frequent.
pub(super) fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[0-9-]{1,6}".boxed(),
        2 => "[a-z ]{0,4}".boxed(),
        1 => Just("\"".to_owned()).boxed(),
        1 => Just("\\".to_owned()).boxed(),
        1 => Just("\n\u{1}\r\t".to_owned()).boxed(),
        1 => Just("é€😀\u{2028}\u{7f}".to_owned()).boxed(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A JSON value whose keys differ in more than case.
pub(super) fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9f64).prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes `value` in one of its many ways: with space, and with escapes where none are needed.
pub(super) fn written(value: &serde_json::Value, whim: &mut impl Iterator<Item = u8>) -> String {
    let mut space = || ["", "", " ", "\n\t"][usize::from(whim.next().unwrap_or(0) % 4)];
    let (before, after) = (space(), space());
    let inside = match value {
        serde_json::Value::String(text) => written_string(text, whim),
        serde_json::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| written(value, whim)).collect();
            format!("[{}]", values.join(","))
        }
        serde_json::Value::Object(members) => {
            let member = |(key, value): (&String, &serde_json::Value)| {
                format!("{}:{}", written_string(key, whim), written(value, whim))
            };
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    };
    format!("{before}{inside}{after}")
}

fn written_string(text: &str, whim: &mut impl Iterator<Item = u8>) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if whim.next().unwrap_or(0).is_multiple_of(4) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            super::json::escape_into(&mut out, &c.to_string());
        }
    }
    out.push('"');
    out
}

/// `value` with every text in it masked: strings, keys, and numbers.
pub(super) fn masked_value(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => masked(text).into(),
        serde_json::Value::Number(number) if masked(&number.to_string()) != number.to_string() => {
            masked(&number.to_string()).into()
        }
        serde_json::Value::Array(values) => values.iter().map(masked_value).collect(),
        serde_json::Value::Object(members) => members
            .iter()
            .map(|(key, value)| (masked(key), masked_value(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn every_dialect_is_found_by_its_name() {
    for dialect in super::all() {
        assert_eq!(
            super::by_name(dialect.name()).map(|found| found.name()),
            Some(dialect.name())
        );
    }
    assert!(super::by_name("OpenAI").is_none());
}

#[test]
fn an_error_is_one_the_sdk_can_read_whatever_its_message() {
    let (openai, _) = openai();
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ] {
        let shape = ErrorShape {
            status,
            code: "model_denied",
            message: "not for `a\"b`\nat all",
        };
        let (content_type, body) = openai.error(&shape);
        assert_eq!(content_type, "application/json");
        let expected = serde_json::json!({"error": {
            "message": "not for `a\"b`\nat all", "type": kind, "param": null, "code": "model_denied",
        }});
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            expected
        );
        let event = openai.error_event(&shape);
        let data = std::str::from_utf8(&event)
            .unwrap()
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(data).unwrap(),
            expected
        );
    }
}

#[test]
fn a_field_is_prose_only_where_it_is_known_to_be() {
    let prose = |field: &str| {
        let field = field.to_owned();
        Channel { choice: 0, field }.is_prose()
    };
    for field in [
        "content",
        "text",
        "content.0.text",
        "reasoning_content",
        "summary.1.text",
        "thought",
        "response",
    ] {
        assert!(prose(field), "{field}");
    }
    for field in [
        "",
        "tool_calls.0.arguments",
        "input",
        "input.to",
        "arguments",
        "action.text",
        "actions.0.text",
        "code",
        "command.0",
        "tool_call.parameters.message",
        "functionCall.args.text",
        "metadata.text",
        "name",
        "event_stream",
    ] {
        assert!(!prose(field), "{field}");
    }
}
