//! Anthropic's answers: a message, whole or as a stream of events.
//!
//! ```text
//! message_start  (content_block_start  content_block_delta*  content_block_stop)*  message_delta  message_stop
//! ```

use super::{
    fields::{Shape, index, string},
    unknown_shape,
};
use crate::dialect::{
    Channel, ShapeError, TextFilter,
    framing::Carrier,
    json::{Document, Kind, Span, Value, quoted},
    notes::{self, Notes},
    stream::{Ends, Event, Protocol, Signed},
    texts::Fields,
    whole::Answers,
};

/// Answers to messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The block of thinking that is open.
    thinking: Option<u32>,
    /// The block that is open and leaves whole or not at all.
    sealed: Option<u32>,
    /// What is signed or encrypted is taken out.
    strips: bool,
    /// The last block that a summary of the conversation came in.
    summary: Option<u32>,
    /// How many blocks were dropped: those behind them move up.
    dropped: u32,
}

fn is_error(document: &Document<'_>) -> bool {
    string(document, &document.root, "type").as_deref() == Some("error")
}

impl Answers for Messages {
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError> {
        let root = &document.root;
        if !matches!(root.kind, Kind::Object(_)) {
            return Err(unknown_shape("the answer is not an object"));
        }
        if status >= 400 || is_error(document) {
            return Ok(&Shape::Error);
        }
        let message = string(document, root, "type").as_deref() == Some("message")
            && document.member(root, "content").is_some();
        let count = document
            .member(root, "input_tokens")
            .is_some_and(|count| matches!(count.kind, Kind::Number));
        if message || count {
            return Ok(&Shape::Answer);
        }
        Err(unknown_shape("the answer is no `message` with content"))
    }

    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        note_message(document, &document.root, notes, filter);
        note_usage(document, Some(&document.root), notes);
        note_reason(document, &document.root, notes, filter);
    }
}

/// Whether a block of that kind may be encrypted where only the whole of it can be taken out.
fn may_seal(kind: &str) -> bool {
    matches!(
        kind,
        "advisor_tool_result" | "code_execution_tool_result" | "compaction" | "redacted_thinking"
    )
}

fn note_message(
    document: &Document<'_>,
    message: &Value,
    notes: &mut Notes,
    filter: &mut dyn TextFilter,
) {
    notes.id(notes::word(
        document,
        document.member(message, "id"),
        filter,
    ));
    notes.model(notes::word(
        document,
        document.member(message, "model"),
        filter,
    ));
    note_usage(document, document.member(message, "usage"), notes);
}

fn note_usage(document: &Document<'_>, usage: Option<&Value>, notes: &mut Notes) {
    let tokens = |name| document.integer(document.member(usage?, name)?);
    notes.input_tokens(tokens("input_tokens"));
    notes.output_tokens(tokens("output_tokens"));
}

fn note_reason(
    document: &Document<'_>,
    value: &Value,
    notes: &mut Notes,
    filter: &mut dyn TextFilter,
) {
    if let Some(reason) = document.member(value, "stop_reason")
        && matches!(reason.kind, Kind::String { .. })
    {
        notes.reason(0, notes::word(document, Some(reason), filter));
    }
}

impl Messages {
    /// What becomes of the index of a block behind dropped ones.
    fn renumbered(&self, document: &Document<'_>, block: u32) -> Vec<(Span, String)> {
        let index = document.member(&document.root, "index");
        index
            .filter(|_| self.dropped > 0)
            .map(|index| (index.span, block.saturating_sub(self.dropped).to_string()))
            .into_iter()
            .collect()
    }

    /// An event of a block.
    fn block(&mut self, document: &Document<'_>, kind: &str) -> Result<Event, ShapeError> {
        let Some(block) = index(document)? else {
            return Err(unknown_shape("an event of a block has no index"));
        };
        let mut event = Event::of(&Shape::Event);
        event.edits = self.renumbered(document, block);
        match kind {
            "content_block_start" => {
                self.no_thinking()?;
                let content = document.member(&document.root, "content_block");
                let content =
                    content.ok_or_else(|| unknown_shape("a block begins without content"))?;
                let kind = string(document, content, "type");
                let kind = kind.as_deref();
                self.thinking = (kind == Some("thinking")).then_some(block);
                let sealed = self.thinking.is_some() || (self.strips && kind.is_some_and(may_seal));
                self.sealed = sealed.then_some(block);
            }
            "content_block_delta" => {
                let delta = document.member(&document.root, "delta");
                let kind = delta.and_then(|delta| string(document, delta, "type"));
                let known = matches!(
                    kind.as_deref(),
                    Some(
                        "text_delta"
                            | "input_json_delta"
                            | "citations_delta"
                            | "thinking_delta"
                            | "signature_delta"
                            | "compaction_delta"
                    )
                );
                if kind.as_deref() == Some("compaction_delta")
                    && delta.is_some_and(|delta| string(document, delta, "content").is_some())
                    && self.summary.replace(block) == Some(block)
                {
                    // Clients take each for the whole summary, so that none can be read together with another.
                    return Err(unknown_shape("a summary comes in pieces"));
                }
                // A citation is one of a list, and points to what is encrypted.
                event.optional = kind.as_deref() == Some("citations_delta");
                let thinks = matches!(kind.as_deref(), Some("thinking_delta" | "signature_delta"));
                if !known || thinks != (self.thinking == Some(block)) {
                    return Err(unknown_shape(
                        "a delta is of no known type, or out of place",
                    ));
                }
            }
            _ => event.ends.push(Ends::Choice(block)),
        }
        if self.sealed == Some(block) {
            event.signed = Signed::Part;
            if kind == "content_block_stop" {
                event.signed = Signed::Last;
                (self.thinking, self.sealed) = (None, None);
            }
        }
        Ok(event)
    }

    fn no_thinking(&self) -> Result<(), ShapeError> {
        match self.sealed {
            None => Ok(()),
            Some(_) => Err(unknown_shape("a block of thinking does not end")),
        }
    }
}

impl Protocol for Messages {
    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError> {
        let kind = string(document, &document.root, "type").unwrap_or_default();
        let mut event = Event::of(&Shape::Event);
        match &*kind {
            "content_block_start" | "content_block_delta" | "content_block_stop" => {
                return self.block(document, &kind);
            }
            "message_start" => self.no_thinking()?,
            "message_delta" | "message_stop" => {
                self.no_thinking()?;
                event.ends.push(Ends::All);
                event.terminal = kind == "message_stop";
            }
            "ping" => {}
            "error" => event.fields = &Shape::Error,
            _ => return Err(unknown_shape("an event is of no known type")),
        }
        Ok(event)
    }

    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter) {
        let root = &document.root;
        if let Some(message) = document.member(root, "message") {
            note_message(document, message, notes, filter);
        }
        note_usage(document, document.member(root, "usage"), notes);
        if let Some(delta) = document.member(root, "delta") {
            note_reason(document, delta, notes, filter);
        }
    }

    fn carrier(&self, channel: &Channel, text: &str) -> Carrier {
        let index = channel.choice.saturating_sub(self.dropped);
        let (kind, name) = match channel.field.as_str() {
            "input" => ("input_json_delta", "partial_json"),
            "thinking" => ("thinking_delta", "thinking"),
            _ => ("text_delta", "text"),
        };
        Carrier {
            event: Some("content_block_delta"),
            data: format!(
                r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{name}":{}}}}}"#,
                quoted(text)
            ),
        }
    }

    fn strips(&mut self) {
        self.strips = true;
    }

    fn dropped(&mut self) {
        self.dropped += 1;
    }
}
