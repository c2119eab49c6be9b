//! The Responses API: typed items, and a stream whose later events repeat whole what earlier ones said bit by bit.
//!
//! ```text
//! response.created
//!   response.output_item.added
//!     response.content_part.added  response.output_text.delta*  response.output_text.done  response.content_part.done
//!   response.output_item.done
//! response.completed
//! ```
//!
//! What was held of a text leaves in one delta more before the event that ends it; that delta has the number of the
//! last event before it, since each later one has its number already.

mod fields;
mod names;
mod spoken;

use std::collections::BTreeMap;

use super::{
    answer::{Answer, string},
    unknown_shape,
};
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    framing::Carrier,
    json::{Document, Kind, Value, quoted},
    notes::{self, Notes},
    stream::{Ends, Event, MAX_CHANNELS, Protocol, too_many_channels},
    texts::Fields,
    whole::Answers,
};
pub(super) use fields::{Shape, asked};
use spoken::{channel_of, is_subject};

/// Answers to responses.
#[derive(Debug, Default)]
pub(super) struct Responses {
    /// The id of each output item, as it leaves.
    items: BTreeMap<u32, String>,
    /// The number of the last event.
    sequence: u64,
}

fn is_error(document: &Document<'_>) -> bool {
    let error = document.member(&document.root, "error");
    error.is_some_and(|error| !matches!(error.kind, Kind::Null))
        && document.member(&document.root, "output").is_none()
}

impl Answers for Responses {
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
        if string(document, "object").is_none_or(|object| object == "response")
            && document.member(&document.root, "output").is_some()
        {
            return Ok(&Shape::Answer);
        }
        Err(unknown_shape("the answer is no `response` with output"))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        note(document, &document.root, notes, filter);
    }
}

fn note(document: &Document<'_>, response: &Value, notes: &mut Notes, filter: &mut dyn TextFilter) {
    let mut word = |name| notes::word(document, document.member(response, name), filter);
    notes.id(word("id"));
    notes.model(word("model"));
    if let Some(status) = word("status").filter(|status| status != "in_progress") {
        notes.reason(0, Some(status));
    }
    if let Some(usage) = document.member(response, "usage") {
        let tokens = |name| document.integer(document.member(usage, name)?);
        notes.input_tokens(tokens("input_tokens"));
        notes.output_tokens(tokens("output_tokens"));
    }
}

/// The number in the document's member `name`; 0 where there is none.
///
/// # Errors
/// `unknown_shape`, `too_many_channels`.
fn number(document: &Document<'_>, name: &str) -> Result<u32, ShapeError> {
    let Some(value) = document.member(&document.root, name) else {
        return Ok(0);
    };
    let number = document
        .integer(value)
        .ok_or_else(|| unknown_shape("an index in the stream is no number"))?;
    let small = u32::try_from(number)
        .ok()
        .filter(|number| (*number as usize) < MAX_CHANNELS);
    small.ok_or_else(|| too_many_channels("an index in the stream is too large"))
}

impl Protocol for Responses {
    const REPEATS: bool = true;

    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        let kind = string(document, "type").unwrap_or_default();
        let mut event = Event::of(&Shape::Event);
        // Servers say the former while there is nothing to say.
        if matches!(&*kind, "keepalive" | "error") {
            return Ok(event);
        }
        let Some(name) = kind.strip_prefix("response.") else {
            return Err(unknown_shape("an event is of no known type"));
        };
        match name {
            "created" | "queued" | "in_progress" | "audio.delta" | "audio.done" => {}
            "completed" | "failed" | "incomplete" | "cancelled" => {
                event.ends.push(Ends::All);
                event.terminal = true;
            }
            "output_item.added"
            | "output_text.annotation.added"
            | "output_text_annotation.added" => {}
            "output_item.done" => {
                event
                    .ends
                    .push(Ends::Choice(number(document, "output_index")?));
            }
            _ => match name.rsplit_once('.') {
                Some((subject, "delta" | "added")) if is_subject(subject) => {}
                Some((subject, "done")) if is_subject(subject) => {
                    if let Some(channel) = channel_of(document)? {
                        event.ends.push(Ends::Field(channel.choice, channel.field));
                    }
                }
                Some((call, _)) if CALLS.contains(&call) => {}
                _ => return Err(unknown_shape("an event is of no known type")),
            },
        }
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        let root = &document.root;
        if let Some(response) = document.member(root, "response") {
            note(document, response, notes, filter);
        }
        let sequence = document
            .member(root, "sequence_number")
            .and_then(|number| document.integer(number));
        self.sequence = sequence.unwrap_or(self.sequence);
        if let Some(id) = notes::word(document, document.member(root, "item_id"), filter)
            && let Ok(output) = number(document, "output_index")
        {
            self.items.insert(output, id);
        }
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let (event, index) = spoken::delta(channel);
        let index = index.map_or_else(String::new, |(name, index)| format!(r#""{name}":{index},"#));
        let item = self
            .items
            .get(&channel.choice)
            .map_or_else(String::new, |id| format!(r#""item_id":{},"#, quoted(id)));
        let logprobs = if event == "response.output_text.delta" {
            r#","logprobs":[]"#
        } else {
            ""
        };
        let mut delta = quoted(text);
        if let Some(name) = spoken::inside_delta(channel) {
            delta = format!(r#"{{"{name}":{delta}}}"#);
        }
        Carrier {
            event: Some(event),
            data: format!(
                r#"{{"type":"{event}","sequence_number":{},{item}"output_index":{},{index}"delta":{delta}{logprobs}}}"#,
                self.sequence, channel.choice,
            ),
        }
    }
}

/// Calls whose progress is told without text.
const CALLS: [&str; 14] = [
    "apply_patch_call",
    "code_interpreter_call",
    "compaction",
    "computer_call",
    "custom_tool_call",
    "file_search_call",
    "function_call",
    "image_generation_call",
    "local_shell_call",
    "mcp_call",
    "mcp_list_tools",
    "shell_call",
    "tool_search_call",
    "web_search_call",
];
