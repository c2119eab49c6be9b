//! What is signed or encrypted in answers: it passes, is refused or goes whole, as the connection says.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{ResponseBody, Selection, ShapeError, SignedAnswers},
    Open, Runs, endpoint, read, text_of,
};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A reader for a connection that says so of what is signed.
fn reader((dialect, name, kind): Kind, signed_answers: SignedAnswers) -> Box<dyn ResponseBody> {
    let (dialect, endpoint) = endpoint(dialect, name);
    let mut reader = dialect.read_response(endpoint, 200, Some(kind)).unwrap();
    reader.select(&Arc::new(Selection {
        signed_answers,
        ..Selection::default()
    }));
    reader
}

/// Dialect, endpoint and content type.
type Kind = (&'static str, &'static str, &'static str);
const CLAUDE: Kind = ("anthropic", "messages", JSON);
const CLAUDE_EVENTS: Kind = ("anthropic", "messages", EVENTS);
const RESPONSES: Kind = ("openai", "responses", JSON);
const RESPONSES_EVENTS: Kind = ("openai", "responses", EVENTS);
const CHAT: Kind = ("openai", "chat_completions", JSON);
const CHAT_EVENTS: Kind = ("openai", "chat_completions", EVENTS);
const GEMINI: Kind = ("gemini", "generate_content", JSON);
const GEMINI_ARRAY: Kind = ("gemini", "stream_generate_content", JSON);

fn event(document: &Value) -> String {
    format!("data: {document}\n\n")
}

#[test]
fn an_answer_with_what_is_signed_is_refused_where_the_connection_says_so() {
    let thinking = json!({"type": "thinking", "thinking": "of nothing", "signature": "EqRk"});
    let redacted = json!({"type": "redacted_thinking", "data": "EmwK"});
    let message =
        |block: &Value| json!({"type": "message", "id": "m", "content": [block]}).to_string();
    let start = |block: &Value| {
        event(&json!({"type": "content_block_start", "index": 0, "content_block": block}))
    };
    let reasoning =
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"});
    let done = json!({"type": "response.output_item.done", "output_index": 0, "item": reasoning});
    let whole = json!({"id": "r", "object": "response", "model": "m", "output": [reasoning]});
    for (kind, answer) in [
        (CLAUDE, message(&thinking)),
        (CLAUDE, message(&redacted)),
        (CLAUDE_EVENTS, start(&redacted)),
        (RESPONSES_EVENTS, event(&done)),
        (RESPONSES, whole.to_string()),
    ] {
        let through = |signed: SignedAnswers| {
            let mut reader = reader(kind, signed);
            read(&mut *reader, [answer.as_bytes()], &mut Runs::default())
        };
        let passed = text_of(&through(SignedAnswers::Pass).unwrap());
        assert!(
            ["EqRk", "EmwK", "gAAA"]
                .iter()
                .any(|opaque| passed.contains(opaque)),
            "{passed}"
        );
        let refused = through(SignedAnswers::Refuse).unwrap_err();
        assert_eq!(refused.code, "signed_answer", "{answer}");
    }
}

/// An answer and what leaves of it where what is signed goes; what masking makes of the rest is in it.
fn whole_answers() -> Vec<(Kind, Value, Value)> {
    let message = |content: Value| json!({"type": "message", "id": "m", "content": content});
    let thinking = |text: &str| json!({"type": "thinking", "thinking": text, "signature": "EqRk"});
    let unsigned = json!({"type": "thinking", "thinking": "nobody signs this"});
    let redacted = json!({"type": "redacted_thinking", "data": "EmwK"});
    let text = json!({"type": "text", "text": "x"});
    let cited = |citations: Value| json!({"type": "text", "text": "x", "citations": citations});
    let citation =
        json!({"type": "web_search_result_location", "url": "u", "encrypted_index": "Eo8B"});
    let found = |content: Value| json!({"type": "web_search_tool_result", "tool_use_id": "t", "content": content});
    let result =
        json!({"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": "Eqgf"});
    let ran = json!({"type": "code_execution_tool_result", "tool_use_id": "t", "content": {"type": "encrypted_code_execution_result", "encrypted_stdout": "Eabc", "return_code": 0}});
    let response =
        |output: Value| json!({"id": "r", "object": "response", "model": "m", "output": output});
    let reasoning = |sealed: Value| json!({"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": sealed});
    let compaction = json!({"type": "compaction", "id": "c", "encrypted_content": "gBBB"});
    let said = |message: Value| json!({"object": "chat.completion", "id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    let call = |extra: Value| json!({"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"thought_signature": extra}}});
    let parts = |first: Value, second: Value| json!({"candidates": [{"content": {"parts": [{"text": "y", "thoughtSignature": first}, {"functionCall": {"name": "f", "args": {}}, "thought_signature": second}]}}]});
    let null = Value::Null;
    vec![
        (
            CLAUDE,
            message(json!([thinking("of nothing"), redacted, text, unsigned])),
            message(json!([text, unsigned])),
        ),
        (
            CLAUDE,
            message(json!([redacted, thinking("of 4111-1111")])),
            message(json!([])),
        ),
        (
            CLAUDE,
            message(json!([
                found(json!([result, result])),
                cited(json!([citation])),
                ran
            ])),
            message(json!([found(json!([])), cited(json!([]))])),
        ),
        (
            RESPONSES,
            response(json!([reasoning(json!("gAAA")), compaction])),
            response(json!([reasoning(null.clone())])),
        ),
        (
            CHAT,
            said(
                json!({"role": "assistant", "content": "z", "tool_calls": [call(json!("Ab56"))], "reasoning_details": [
                {"type": "reasoning.text", "text": "w", "signature": "Cd78"}, {"type": "reasoning.encrypted", "data": "Ef90"}]}),
            ),
            said(
                json!({"role": "assistant", "content": "z", "tool_calls": [call(null.clone())], "reasoning_details": [
                {"type": "reasoning.text", "text": "w", "signature": null}]}),
            ),
        ),
        (
            GEMINI,
            parts(json!("Ab56"), json!("Cd78")),
            parts(null.clone(), null),
        ),
    ]
}

#[test]
fn what_is_signed_or_encrypted_is_taken_out_of_answers_where_the_connection_says_so() {
    for (kind, comes, leaves) in whole_answers() {
        // Also where nothing is masked.
        for masks in [true, false] {
            let mut reader = reader(kind, SignedAnswers::Strip);
            let comes = comes.to_string();
            let passed = match masks {
                true => read(&mut *reader, [comes.as_bytes()], &mut Runs::default()),
                false => read(&mut *reader, [comes.as_bytes()], &mut Open),
            };
            let passed: Value = serde_json::from_str(&text_of(&passed.unwrap())).unwrap();
            assert_eq!(passed, leaves, "{kind:?} {comes}");
            let facts = reader.facts();
            assert!(facts.complete && !facts.stripped.is_empty(), "{comes}");
            assert_eq!(facts.stripped, facts.unscanned, "{comes}");
        }
    }
}

#[test]
fn what_is_taken_out_is_no_text_of_the_answer() {
    let mut filter = Runs::default();
    let answer = json!({"type": "message", "id": "m", "content": [
        {"type": "thinking", "thinking": "of 4111-1111", "signature": "EqRk"}, {"type": "text", "text": "x"}]});
    let mut reader = reader(CLAUDE, SignedAnswers::Strip);
    read(&mut *reader, [answer.to_string().as_bytes()], &mut filter).unwrap();
    let texts: Vec<&str> = filter.texts.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["x"]);
}

#[test]
fn an_answer_from_which_what_is_encrypted_cannot_be_taken_is_refused() {
    let through = |kind: Kind, answer: &str| -> Result<String, ShapeError> {
        let mut reader = reader(kind, SignedAnswers::Strip);
        let passed = read(&mut *reader, [answer.as_bytes()], &mut Runs::default());
        passed.map(|passed| text_of(&passed))
    };
    let compaction = json!({"type": "compaction", "id": "c", "encrypted_content": "gBBB"});
    // The items behind it would need other numbers, in each of their events.
    let added =
        json!({"type": "response.output_item.added", "output_index": 0, "item": compaction});
    let part = json!({"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": {"type": "encrypted_content", "encrypted_content": "gCCC"}});
    // Outside of any block.
    let started = json!({"type": "message_start", "message": {"id": "m", "type": "message", "content": [], "encrypted_content": "gDDD"}});
    for (kind, document) in [
        (RESPONSES_EVENTS, &added),
        (RESPONSES_EVENTS, &part),
        (CLAUDE_EVENTS, &started),
        (
            CLAUDE,
            &json!({"type": "message", "id": "m", "content": [], "encrypted_content": "gDDD"}),
        ),
    ] {
        let answer = match kind.2 {
            EVENTS => event(document),
            _ => document.to_string(),
        };
        let refused = through(kind, &answer).unwrap_err();
        assert_eq!(refused.code, "signed_answer", "{answer}");
    }
}

#[test]
fn a_stream_that_ends_inside_a_signed_block_has_let_nothing_of_it_out() {
    let start = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}});
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "thought "}});
    let long = event(&start) + &event(&delta).repeat(1 << 12);
    // What is to go is not held either.
    for masks in [true, false] {
        let mut reader = reader(CLAUDE_EVENTS, SignedAnswers::Strip);
        for piece in long.as_bytes().chunks(1000) {
            let passed = match masks {
                true => reader.push(piece, &mut Runs::default()),
                false => reader.push(piece, &mut Open),
            };
            assert_eq!(text_of(&passed.unwrap()), "");
        }
        assert!(reader.held() < 4096, "{}", reader.held());
        assert_eq!(reader.facts().stripped, ["signed"]);
        assert_eq!(text_of(&reader.finish(&mut Open).unwrap()), "");
    }
}

#[test]
fn what_is_signed_goes_from_streams_where_nothing_is_masked_too() {
    let candidate = |signature: Value| json!({"candidates": [{"content": {"parts": [{"text": "4111-1111", "thoughtSignature": signature}]}}]});
    let chunk = |signature: Value| json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "4111-1111", "extra_content": {"google": {"thought_signature": signature}}}}]});
    let table = [
        (
            GEMINI_ARRAY,
            format!("[{}]", candidate(json!("Ab56"))),
            format!("[{}]", candidate(Value::Null)),
        ),
        (
            CHAT_EVENTS,
            event(&chunk(json!("Ab56"))),
            event(&chunk(Value::Null)),
        ),
    ];
    for (kind, comes, leaves) in table {
        let mut reader = reader(kind, SignedAnswers::Strip);
        let passed = read(&mut *reader, [comes.as_bytes()], &mut Open).unwrap();
        assert_eq!(text_of(&passed), leaves);
    }
}
