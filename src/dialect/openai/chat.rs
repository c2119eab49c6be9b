//! The answers of chat completions: whole, and as a stream of chunks.

use std::borrow::Cow;

use super::{
    answer::{self, Answer, ended, is_error, string},
    unknown_shape,
};
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    framing::Carrier,
    json::{self, Document, Kind},
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

/// Answers to chat completions.
#[derive(Debug, Default)]
pub(super) struct Chat {
    /// What a chunk begins with, from the last one that came: all but `choices` and the closing brace.
    head: String,
}

impl Answers for Chat {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        if !matches!(document.root.kind, Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if status >= 400 || is_error(document) {
            return Ok(&Answer::Error);
        }
        let named = string(document, "object").is_none_or(|object| object == "chat.completion");
        if named && document.member(&document.root, "choices").is_some() {
            return Ok(&Answer::Completion);
        }
        Err(unknown_shape(
            "the answer is no `chat.completion` with choices",
        ))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        answer::note(document, notes, filter);
    }
}

impl Protocol for Chat {
    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        if is_error(document) {
            return Ok(Event::of(&Answer::Error));
        }
        // Azure begins with its verdict on the prompt, which has an empty name; some servers give no name at all.
        let named = string(document, "object")
            .is_none_or(|object| matches!(&*object, "" | "chat.completion.chunk"));
        let listed = document
            .member(&document.root, "choices")
            .is_some_and(|choices| matches!(choices.kind, Kind::Array(_)));
        if !named || !listed {
            return Err(unknown_shape(
                "an event is no `chat.completion.chunk` with choices",
            ));
        }
        let mut event = Event::of(&Answer::Chunk);
        event.ends = ended(document)?;
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        answer::note(document, notes, filter);
        if !is_error(document) {
            self.head = head(document, filter);
        }
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let delta = delta(&channel.field, text);
        let choice = channel.choice;
        Carrier {
            event: None,
            data: format!(
                "{}\"choices\":[{{\"index\":{choice},\"delta\":{delta},\"finish_reason\":null}}]}}",
                self.head
            ),
        }
    }
}

/// The members a chunk of ours repeats, as they leave, from the opening brace on.
pub(super) fn head(document: &Document<'_>, filter: &mut dyn TextFilter) -> String {
    let mut out = String::from("{");
    for name in HEAD {
        let Some(value) = document.member(&document.root, name) else {
            continue;
        };
        let value = match value.kind {
            Kind::String { .. } => {
                word(document, Some(value), filter).map(|word| json::quoted(&word).into())
            }
            Kind::Number | Kind::Null => Some(Cow::Borrowed(value.span.of(document.text))),
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
        ["reasoning_details", index, name @ ("text" | "summary")] => {
            format!(
                "{{\"reasoning_details\":[{{\"type\":\"reasoning.{name}\",\"index\":{index},\"{name}\":{text}}}]}}"
            )
        }
        ["function_call", "arguments"] => format!("{{\"function_call\":{{\"arguments\":{text}}}}}"),
        ["audio", "transcript"] => format!("{{\"audio\":{{\"transcript\":{text}}}}}"),
        _ => format!("{{{}:{text}}}", json::quoted(field)),
    }
}
