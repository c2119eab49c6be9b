//! Answers as a stream of chunks, each leaving when it comes, minus the end of its text that may yet be part of a
//! value.
//!
//! ```text
//! bytes -> blocks -> chunk -> pieces by channel -> filter -> the same chunk with the text that may leave
//!                     `finish_reason`, `[DONE]`, the end  -> one chunk more, before it, with the text that was held
//! ```
//!
//! Promises: per channel, the texts of the chunks that leave joined are the masked text of the chunks that came
//! joined. A chunk whose text did not change leaves with the bytes it came with. Nothing of a block that was cut off
//! or that cannot be read leaves.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    answer::{self, Answer},
    unknown_shape,
};
use crate::dialect::{
    Channel, Passed, ResponseBody, ResponseFacts, ShapeError, TextFilter,
    arguments::Arguments,
    json::{self, Document, Kind, Span, Value},
    sse::{Block, Framing},
    texts::{Slot, Texts, What, is_token},
    whole,
};

/// Texts of one answer that may be open at once, and the bound on a choice's index: more is `too_many_channels`.
const MAX_CHANNELS: usize = 1024;
/// Members of a chunk that a chunk of ours repeats.
const HEAD: [&str; 6] = [
    "id",
    "object",
    "created",
    "model",
    "system_fingerprint",
    "service_tier",
];

/// A stream being read.
#[derive(Default)]
pub(super) struct Stream {
    framing: Framing,
    open: BTreeMap<Channel, Open>,
    /// What a chunk begins with, from the last one that came: all but `choices` and the closing brace.
    head: String,
    reasons: BTreeMap<u32, String>,
    /// The terminal event came.
    done: bool,
    /// Why no more is read.
    fault: Option<ShapeError>,
    facts: ResponseFacts,
}

/// A text that has begun.
#[derive(Debug, Default)]
struct Open {
    arguments: Option<Arguments>,
    /// What was pushed and has not come back: the filter may still change it.
    pending: String,
    /// Something that came back was not what had been pushed.
    changed: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("open", &self.open.len())
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl ResponseBody for Stream {
    fn incremental(&self) -> bool {
        true
    }

    fn push(&mut self, bytes: &[u8], filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.refuse_after_fault()?;
        self.framing.push(bytes);
        let mut passed = Passed::default();
        loop {
            let step = match self.framing.next_block() {
                Ok(None) => return Ok(passed),
                Ok(Some(block)) => self.block(&block, filter, &mut passed),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = step {
                self.fault = Some(fault);
                // What passed before is as good as if it had come by itself.
                return if passed == Passed::default() {
                    self.refuse_after_fault().map(|()| passed)
                } else {
                    Ok(passed)
                };
            }
        }
    }

    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.refuse_after_fault()?;
        let mut passed = Passed::default();
        if let Some(rest) = self.framing.rest()? {
            // Some servers leave out the last blank line. The terminal event carries no text, so it may pass.
            let terminal =
                rest.data().is_some_and(|data| is_terminal(&data)) && rest.fields().count() == 1;
            let nothing = rest.fields().next().is_none();
            if !terminal && !nothing {
                return Err(ShapeError::new(
                    "cut_event",
                    "the stream ends inside an event".to_owned(),
                ));
            }
            self.block(&rest, filter, &mut passed)?;
        }
        if !self.done {
            self.flush_all(filter, &mut passed.now);
        }
        Ok(passed)
    }

    fn facts(&self) -> &ResponseFacts {
        &self.facts
    }

    fn held(&self) -> usize {
        let texts: usize = self
            .open
            .iter()
            .map(|(channel, open)| channel.field.len() + open.pending.len())
            .sum();
        self.framing.held() + self.head.len() + texts
    }
}

fn is_terminal(data: &str) -> bool {
    data.trim_matches([' ', '\t']) == "[DONE]"
}

impl Stream {
    fn refuse_after_fault(&self) -> Result<(), ShapeError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Reads one block and lets out what may leave of it.
    fn block(
        &mut self,
        block: &Block,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        let values = lines(block, filter);
        let Some(data) = block.data() else {
            let out = if self.done {
                &mut passed.terminal
            } else {
                &mut passed.now
            };
            out.extend_from_slice(block.encoded(None, &values).as_bytes());
            return Ok(());
        };
        if self.done {
            return Err(unknown_shape(
                "the stream goes on behind its terminal event",
            ));
        }
        if is_terminal(&data) {
            self.flush_all(filter, &mut passed.now);
            self.done = true;
            self.facts.complete = true;
            passed
                .terminal
                .extend_from_slice(block.encoded(None, &values).as_bytes());
            return Ok(());
        }
        let mut before = Vec::new();
        let data = self.chunk(&data, filter, &mut before)?;
        passed.now.append(&mut before);
        passed
            .now
            .extend_from_slice(block.encoded(data.as_deref(), &values).as_bytes());
        Ok(())
    }

    /// Reads the data of an event: its new data where that changed, with chunks that must go before it in `before`.
    fn chunk(
        &mut self,
        data: &str,
        filter: &mut dyn TextFilter,
        before: &mut Vec<u8>,
    ) -> Result<Option<String>, ShapeError> {
        let document = Document::read(data)?;
        let kind = kind_of(&document)?;
        let mut texts = Texts::find(&document, &kind)?;
        let choices = choices(&document)?;
        self.name_channels(&mut texts, &document, &choices)?;
        let mut edits = texts.edits(data, filter)?;
        let mut pieces = BTreeMap::new();
        for slot in &texts.slots {
            if let Some(text) = self.piece(slot, data, filter)? {
                pieces
                    .entry(slot.channel.clone())
                    .or_insert_with(Vec::new)
                    .push((slot.span, text));
            }
        }
        let changed = self
            .open
            .iter()
            .filter(|(_, open)| open.changed || !open.pending.is_empty());
        let changed: Vec<u32> = changed.map(|(channel, _)| channel.choice).collect();
        texts.drop_annotations(&changed, &mut edits);
        if kind == Answer::Chunk {
            self.head = head(&document, filter);
        }
        for (choice, value) in &choices {
            if let Some(reason) = answer::finish_reason(&document, value, filter) {
                self.end_choice(*choice, filter, &mut pieces, before);
                self.reasons.insert(*choice, reason);
            }
        }
        self.note(&document, &texts, filter);
        edits.extend(changed_pieces(data, &texts, pieces));
        Ok((!edits.is_empty()).then(|| json::splice(data, edits)))
    }

    /// Puts the indexes that choices and tool calls say they have in the place of where they stand in this chunk.
    fn name_channels(
        &self,
        texts: &mut Texts,
        document: &Document<'_>,
        choices: &[(u32, &Value)],
    ) -> Result<(), ShapeError> {
        for slot in &mut texts.slots {
            let Some((index, choice)) = choices.get(slot.channel.choice as usize) else {
                continue;
            };
            slot.channel.choice = *index;
            if matches!(slot.what, What::Piece(_) | What::ArgumentsPiece(_)) {
                renumber(&mut slot.channel.field, document, choice)?;
            }
        }
        Ok(())
    }

    /// Hands a piece of a text to the filter: what may leave in its place.
    fn piece(
        &mut self,
        slot: &Slot,
        data: &str,
        filter: &mut dyn TextFilter,
    ) -> Result<Option<String>, ShapeError> {
        let (leaf, json) = match &slot.what {
            What::Piece(leaf) => (leaf, false),
            What::ArgumentsPiece(leaf) => (leaf, true),
            _ => return Ok(None),
        };
        if self.open.len() >= MAX_CHANNELS && !self.open.contains_key(&slot.channel) {
            return Err(ShapeError::new(
                "too_many_channels",
                "the stream has too many texts at once".to_owned(),
            ));
        }
        let text = leaf.text(data, slot.span);
        let open = self.open.entry(slot.channel.clone()).or_default();
        let out = if json {
            open.arguments
                .get_or_insert_default()
                .push(text, &slot.channel, filter)?
        } else {
            let out = filter.push(&slot.channel, text);
            open.compare(text, &out);
            out
        };
        Ok(Some(out))
    }

    /// Ends the texts of a choice. What was held goes to the end of its text in this chunk, or into a chunk before it.
    fn end_choice(
        &mut self,
        choice: u32,
        filter: &mut dyn TextFilter,
        pieces: &mut BTreeMap<Channel, Vec<(Span, String)>>,
        before: &mut Vec<u8>,
    ) {
        let ended: Vec<Channel> = self
            .open
            .keys()
            .filter(|channel| channel.choice == choice)
            .cloned()
            .collect();
        for channel in ended {
            let rest = self.end(&channel, filter);
            match pieces
                .get_mut(&channel)
                .and_then(|pieces| pieces.last_mut())
            {
                Some((_, text)) => text.push_str(&rest),
                None => self.emit(&channel, &rest, before),
            }
        }
    }

    fn flush_all(&mut self, filter: &mut dyn TextFilter, out: &mut Vec<u8>) {
        let open: Vec<Channel> = self.open.keys().cloned().collect();
        for channel in open {
            let rest = self.end(&channel, filter);
            self.emit(&channel, &rest, out);
        }
    }

    fn end(&mut self, channel: &Channel, filter: &mut dyn TextFilter) -> String {
        match self.open.remove(channel).and_then(|open| open.arguments) {
            Some(mut arguments) => arguments.finish(channel, filter),
            None => filter.finish(channel),
        }
    }

    /// A chunk of our own with nothing but `text`.
    fn emit(&self, channel: &Channel, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let delta = delta(&channel.field, text);
        let choice = channel.choice;
        let chunk = format!(
            "data: {}\"choices\":[{{\"index\":{choice},\"delta\":{delta},\"finish_reason\":null}}]}}\n\n",
            self.head
        );
        out.extend_from_slice(chunk.as_bytes());
    }

    fn note(&mut self, document: &Document<'_>, texts: &Texts, filter: &mut dyn TextFilter) {
        answer::note(&mut self.facts, document, filter);
        self.facts.finish_reasons = self.reasons.values().cloned().collect();
        for kind in &texts.unscanned {
            if !self.facts.unscanned.contains(kind) {
                self.facts.unscanned.push(kind);
            }
        }
    }
}

impl Open {
    /// Notes what came back for what went in. Bounded by what the filter holds: the two run apart only where it does.
    fn compare(&mut self, pushed: &str, released: &str) {
        if self.changed {
            return;
        }
        self.pending.push_str(pushed);
        if self.pending.starts_with(released) {
            self.pending.drain(..released.len());
        } else {
            self.changed = true;
            self.pending = String::new();
        }
    }
}

/// New text for the lines of a block that are not data: comments, ids and what a client ignores carry text too.
fn lines(block: &Block, filter: &mut dyn TextFilter) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (number, field) in block.fields() {
        let named = matches!(field.name, "event" | "id" | "retry");
        if field.name == "data" || (named && field.value.is_empty()) {
            continue;
        }
        if named && is_token(field.value) {
            out.extend(
                filter
                    .word(field.value)
                    .map(|masked| (number, format!("{}: {masked}", field.name))),
            );
            continue;
        }
        let text = if named || field.name.is_empty() {
            field.value
        } else {
            field.line
        };
        let channel = Channel {
            choice: 0,
            field: "event_stream".to_owned(),
        };
        let masked = whole(filter, &channel, text);
        if masked != text {
            // A line that no client reads becomes a comment: without what was masked it might become one that is read.
            let name = if named { field.name } else { "" };
            out.push((number, format!("{name}: {masked}")));
        }
    }
    out
}

fn kind_of(document: &Document<'_>) -> Result<Answer, ShapeError> {
    let root = &document.root;
    if answer::is_error(document) {
        return Ok(Answer::Error);
    }
    let object = document
        .member(root, "object")
        .and_then(|object| document.string(object));
    match (
        object.as_deref(),
        document
            .member(root, "choices")
            .map(|choices| &choices.kind),
    ) {
        (Some("chat.completion.chunk"), Some(Kind::Array(_))) => Ok(Answer::Chunk),
        // Azure begins with its verdict on the prompt, which has no name and no choices.
        (Some(""), Some(Kind::Array(choices))) if choices.is_empty() => Ok(Answer::Chunk),
        _ => Err(unknown_shape(
            "an event is no `chat.completion.chunk` with choices",
        )),
    }
}

/// The choices of a chunk by the index they say they have.
fn choices<'d>(document: &'d Document<'_>) -> Result<Vec<(u32, &'d Value)>, ShapeError> {
    let Some(Value {
        kind: Kind::Array(choices),
        ..
    }) = document.member(&document.root, "choices")
    else {
        return Ok(Vec::new());
    };
    choices
        .iter()
        .map(|choice| Ok((index(document, choice)?, choice)))
        .collect()
}

fn index(document: &Document<'_>, value: &Value) -> Result<u32, ShapeError> {
    let index = document
        .member(value, "index")
        .and_then(|index| document.integer(index));
    let index =
        index.ok_or_else(|| unknown_shape("a choice or tool call of a stream has no index"))?;
    let small = u32::try_from(index)
        .ok()
        .filter(|index| (*index as usize) < MAX_CHANNELS);
    small.ok_or_else(|| {
        ShapeError::new(
            "too_many_channels",
            "an index in the stream is too large".to_owned(),
        )
    })
}

/// In `tool_calls.0.arguments`, 0 is where the call stands in this chunk: writes the index it says it has.
fn renumber(field: &mut String, document: &Document<'_>, choice: &Value) -> Result<(), ShapeError> {
    let mut steps = field.splitn(3, '.');
    let (Some(list), Some(place), Some(rest)) = (steps.next(), steps.next(), steps.next()) else {
        return Ok(());
    };
    if !matches!(list, "tool_calls" | "reasoning_details") {
        return Ok(());
    }
    let items = document
        .member(choice, "delta")
        .and_then(|delta| document.member(delta, list));
    let Some(Value {
        kind: Kind::Array(items),
        ..
    }) = items
    else {
        return Ok(());
    };
    let Some(item) = place
        .parse::<usize>()
        .ok()
        .and_then(|place| items.get(place))
    else {
        return Ok(());
    };
    *field = format!("{list}.{}.{rest}", index(document, item)?);
    Ok(())
}

/// The members a chunk of ours repeats, as they leave, from the opening brace on.
fn head(document: &Document<'_>, filter: &mut dyn TextFilter) -> String {
    let mut out = String::from("{");
    for name in HEAD {
        let Some(value) = document.member(&document.root, name) else {
            continue;
        };
        let value = match value.kind {
            Kind::String { .. } => {
                answer::word(document, value, filter).map(|word| json::quoted(&word).into())
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

/// The edits for the pieces whose text is not the one that came.
fn changed_pieces(
    data: &str,
    texts: &Texts,
    pieces: BTreeMap<Channel, Vec<(Span, String)>>,
) -> Vec<(Span, String)> {
    let mut new: BTreeMap<Span, String> = pieces.into_values().flatten().collect();
    for slot in &texts.slots {
        if let What::Piece(leaf) | What::ArgumentsPiece(leaf) = &slot.what
            && new
                .get(&slot.span)
                .is_some_and(|text| text == leaf.text(data, slot.span))
        {
            new.remove(&slot.span);
        }
    }
    new.into_iter()
        .map(|(span, text)| (span, json::quoted(&text)))
        .collect()
}
