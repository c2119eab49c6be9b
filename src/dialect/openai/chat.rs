//! Answers that have choices, whole and as a stream of chunks: chat completions, and what legacy ones share with them.

use std::borrow::Cow;

use super::{
    answer::{self, Answer, ended, is_error, names, string},
    unknown_shape,
};
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    framing::Carrier,
    json::{self, Document},
    notes::{Notes, word},
    stream::{Event, Protocol},
    texts::Fields,
    whole::Answers,
};

/// Members of a chunk that a chunk of ours repeats.
const HEAD: [&str; 6] = [
    "id",
    "object",
    "created",
    "model",
    "system_fingerprint",
    "service_tier",
];

/// What differs between the answers of endpoints that have choices.
#[derive(Debug)]
pub(super) struct Kind {
    /// What an answer that is one document calls itself. Some servers leave the name out, or empty.
    pub(super) whole: &'static [&'static str],
    /// What a chunk of a stream calls itself.
    pub(super) chunk: &'static [&'static str],
    pub(super) answer: &'static dyn Fields,
    pub(super) event: &'static dyn Fields,
    /// Whether chunks name tools.
    pub(super) tools: bool,
    /// A choice but for its braces and index that has nothing in it but the text of a channel.
    pub(super) choice: fn(&Channel, &str) -> String,
}

/// Chat completions.
pub(super) const CHAT: Kind = Kind {
    whole: &["chat.completion"],
    chunk: &["chat.completion.chunk"],
    answer: &Answer::Completion,
    event: &Answer::Chunk,
    tools: true,
    choice: |channel, text| format!("\"delta\":{}", delta(&channel.field, text)),
};

/// Answers that have choices: whole, and as a stream of chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    kind: &'static Kind,
    /// What a chunk begins with, from the last one that came: all but `choices` and the closing brace.
    head: String,
}

impl Chunks {
    pub(super) fn of(kind: &'static Kind) -> Self {
        let head = String::new();
        Self { kind, head }
    }
}

/// Whether the document calls itself by one of `names`, if by any.
fn is_named(document: &Document<'_>, names: &[&str]) -> bool {
    string(document, "object").is_none_or(|name| name.is_empty() || names.contains(&&*name))
}

impl Answers for Chunks {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        if !matches!(document.root.kind, json::Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if status >= 400 || is_error(document) {
            return Ok(&Answer::Error);
        }
        let listed = document.member(&document.root, "choices").is_some();
        if is_named(document, self.kind.whole) && listed {
            return Ok(self.kind.answer);
        }
        Err(unknown_shape("the answer is no completion with choices"))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        answer::note(document, notes, filter);
    }
}

impl Protocol for Chunks {
    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        if is_error(document) {
            return Ok(Event::of(&Answer::Error));
        }
        let choices = document.member(&document.root, "choices");
        let listed = choices.is_some_and(|choices| matches!(choices.kind, json::Kind::Array(_)));
        // Azure begins with its verdict on the prompt, which has an empty name.
        if !is_named(document, self.kind.chunk) || !listed {
            return Err(unknown_shape("an event is no chunk with choices"));
        }
        let mut event = Event::of(self.kind.event);
        event.ends = ended(document)?;
        if self.kind.tools {
            event.may_end = names(document)?;
        }
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        answer::note(document, notes, filter);
        if !is_error(document) {
            self.head = head(document, filter);
        }
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let choice = (self.kind.choice)(channel, text);
        Carrier {
            event: None,
            data: format!(
                "{}\"choices\":[{{\"index\":{},{choice},\"finish_reason\":null}}]}}",
                self.head, channel.choice
            ),
        }
    }
}

/// The members a chunk of ours repeats, as they leave, from the opening brace on.
fn head(document: &Document<'_>, filter: &mut dyn TextFilter) -> String {
    let mut out = String::from("{");
    for name in HEAD {
        let Some(value) = document.member(&document.root, name) else {
            continue;
        };
        let value = match value.kind {
            json::Kind::String { .. } => {
                word(document, Some(value), filter).map(|word| json::quoted(&word).into())
            }
            json::Kind::Number | json::Kind::Null => {
                Some(Cow::Borrowed(value.span.of(document.text)))
            }
            _ => None,
        };
        if let Some(value) = value {
            out.push_str(&format!("\"{name}\":{value},"));
        }
    }
    out
}

/// A delta that has `text` at `field`.
fn delta(field: &str, text: &str) -> String {
    let text = json::quoted(text);
    match field.split('.').collect::<Vec<_>>()[..] {
        ["tool_calls", index, "arguments"] => {
            format!(
                "{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":{text}}}}}]}}"
            )
        }
        ["tool_calls", index, "input"] => {
            format!("{{\"tool_calls\":[{{\"index\":{index},\"custom\":{{\"input\":{text}}}}}]}}")
        }
        ["tool_calls", index, "name"] => {
            format!("{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"name\":{text}}}}}]}}")
        }
        ["reasoning_details", index, name @ ("text" | "summary")] => {
            format!(
                "{{\"reasoning_details\":[{{\"type\":\"reasoning.{name}\",\"index\":{index},\"{name}\":{text}}}]}}"
            )
        }
        ["function_call", name @ ("arguments" | "name")] => {
            format!("{{\"function_call\":{{\"{name}\":{text}}}}}")
        }
        ["audio", "transcript"] => format!("{{\"audio\":{{\"transcript\":{text}}}}}"),
        _ => format!("{{{}:{text}}}", json::quoted(field)),
    }
}
