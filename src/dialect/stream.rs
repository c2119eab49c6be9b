//! Answers as a stream of documents, whatever the dialect, each leaving when it comes, minus the end of its text that
//! may yet be part of a value.
//!
//! ```text
//! bytes -> blocks -> document -> pieces by channel -> filter -> the same document with the text that may leave
//!                     the end of a text      -> one document more, before it, with the text that was held
//!                     what someone has signed -> held as it is until its end, then let out whole or dropped whole
//! ```
//!
//! Promises: per channel, the texts of the documents that leave joined are the masked text of the documents that came
//! joined. A document whose text did not change leaves with the bytes it came with. Nothing of a block that was cut off
//! or that cannot be read leaves. A text that the protocol repeats whole is masked as it was before, and recorded once.
//!
//! Never holds more than one block, one signed text and what the filter holds.

mod like;
mod signed;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use self::{
    like::{Like, like},
    signed::Quarantine,
};
use super::{
    Channel, Passed, ResponseBody, ResponseFacts, ShapeError, TextFilter,
    arguments::Arguments,
    framing::{Block, Carrier, Framing},
    json::{self, Document, Span},
    notes::Notes,
    sse::is_done,
    texts::{Fields, Said, Slot, Texts, What, is_token},
    whole,
};

/// Texts of one answer that may be open at once, and the bound on an index: more is `too_many_channels`.
pub(super) const MAX_CHANNELS: usize = 1024;

/// What a dialect knows of its streams. One value per stream.
pub(super) trait Protocol: Send + std::fmt::Debug {
    /// Whether later events repeat whole what earlier ones said bit by bit.
    const REPEATS: bool = false;
    /// Whether more documents may follow the one that says that a text is whole. Then such a document waits for the
    /// next one, and the last of all is the one that tells the client that the answer is.
    const GOES_ON: bool = false;

    /// What an event's document is.
    ///
    /// # Errors
    /// `unknown_shape` and what else the dialect refuses.
    fn event(&mut self, document: &Document<'_>) -> Result<Event, ShapeError>;

    /// Takes over what the document says of itself.
    fn note(&mut self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter);

    /// A document with nothing in it but `text`, the next piece of `channel`.
    fn carrier(&self, channel: &Channel, text: &str) -> Carrier;

    /// What was signed, up to the event read last, has been dropped.
    fn dropped(&mut self) {}
}

/// What one document of a stream is.
#[derive(Debug)]
pub(super) struct Event {
    /// Where its texts are.
    pub(super) fields: &'static dyn Fields,
    /// The texts that end with it.
    pub(super) ends: Vec<Ends>,
    /// It tells the client that the answer is whole.
    pub(super) terminal: bool,
    /// Whether it is part of something signed.
    pub(super) signed: Signed,
    /// What must change in it besides its texts.
    pub(super) edits: Vec<(Span, String)>,
}

impl Event {
    /// An event with texts and nothing special.
    pub(super) fn of(fields: &'static dyn Fields) -> Self {
        Self {
            fields,
            ends: Vec::new(),
            terminal: false,
            signed: Signed::No,
            edits: Vec::new(),
        }
    }
}

/// Texts that are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// All of the answer's.
    All,
    /// Those of one choice.
    Choice(u32),
    /// Those of one choice at a field or in it.
    Field(u32, String),
}

impl Ends {
    fn channel(&self, channel: &Channel) -> bool {
        match self {
            Self::All => true,
            Self::Choice(choice) => channel.choice == *choice,
            Self::Field(choice, field) => {
                let inside = channel.field.strip_prefix(field.as_str());
                channel.choice == *choice
                    && inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        }
    }
}

/// Whether an event is part of something signed, which leaves whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    No,
    Part,
    /// Its end.
    Last,
}

/// A stream being read.
pub(super) struct Stream<P> {
    protocol: P,
    framing: Framing,
    open: BTreeMap<Channel, Open>,
    /// Texts that have ended: one that goes on would have been released too early.
    ended: BTreeSet<Channel>,
    /// Choices whose text changed.
    changed: BTreeSet<u32>,
    said: Said,
    signed: Quarantine,
    /// What became of the last block that was not blank: the LF of a cut CRLF goes where its CR went.
    fate: Fate,
    /// What may be the last of the stream: the last document since one said that a text is whole.
    tail: Vec<u8>,
    /// The document before, where the next one may differ from it in one piece of text only.
    like: Option<Like>,
    /// The terminal document came.
    done: bool,
    /// `[DONE]` came.
    sentinel: bool,
    /// Why no more is read.
    fault: Option<ShapeError>,
    notes: Notes,
}

/// A text that has begun.
#[derive(Debug, Default)]
struct Open {
    arguments: Option<Arguments>,
    /// What was pushed and has not come back: the filter may still change it.
    pending: String,
    /// Something that came back was not what had been pushed.
    changed: bool,
    /// What was pushed, where the protocol will repeat it.
    said: Option<Sha256>,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Left,
    Held,
    Dropped,
}

impl<P> std::fmt::Debug for Stream<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("open", &self.open.len())
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> ResponseBody for Stream<P> {
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
            self.block(&rest, filter, &mut passed)?;
        }
        if !self.done {
            let whole = !self.tail.is_empty();
            let carriers = self.end_all(filter);
            passed
                .now
                .extend_from_slice(self.framing.loose(&carriers).as_bytes());
            passed.terminal.append(&mut self.tail);
            if whole {
                self.complete();
            }
        }
        Ok(passed)
    }

    fn facts(&self) -> &ResponseFacts {
        self.notes.facts()
    }

    fn held(&self) -> usize {
        let texts: usize = self
            .open
            .iter()
            .map(|(channel, open)| channel.field.len() + open.pending.len())
            .sum();
        let ended: usize = self
            .ended
            .iter()
            .map(|channel| channel.field.len() + 64)
            .sum();
        let texts = texts + ended;
        let signed = self.signed.events.len() + self.signed.text.len();
        let like = self.like.as_ref();
        let like = like.map_or(0, |like| like.before.len() + like.behind.len());
        self.framing.held() + texts + signed + self.said.held() + self.tail.len() + like
    }
}

impl<P: Protocol> Stream<P> {
    pub(super) fn new(protocol: P, framing: Framing) -> Self {
        Self {
            protocol,
            framing,
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            changed: BTreeSet::new(),
            said: Said::new(P::REPEATS),
            signed: Quarantine::default(),
            fate: Fate::Left,
            tail: Vec::new(),
            like: None,
            done: false,
            sentinel: false,
            fault: None,
            notes: Notes::default(),
        }
    }

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
        match block.data() {
            Some(data) if is_done(&data) && !self.sentinel => self.sentinel = true,
            Some(data) => return self.document(block, &data, &values, filter, passed),
            None if self.framing.is_whole() => {}
            None => {
                if block.fields().next().is_some() {
                    self.fate = Fate::Left;
                }
                let (_, block) = block.encoded(None, &values, &[]);
                match self.fate {
                    _ if !self.tail.is_empty() => self.tail.extend_from_slice(block.as_bytes()),
                    Fate::Left => self.out(passed).extend_from_slice(block.as_bytes()),
                    Fate::Held => self.signed.hold(block.as_bytes()),
                    Fate::Dropped => {}
                }
                return Ok(());
            }
        }
        self.fate = Fate::Left;
        passed.now.append(&mut self.tail);
        let carriers = self.end_all(filter);
        self.complete();
        let (before, block) = block.encoded(None, &values, &carriers);
        passed.now.extend_from_slice(before.as_bytes());
        passed.terminal.extend_from_slice(block.as_bytes());
        Ok(())
    }

    fn out<'p>(&self, passed: &'p mut Passed) -> &'p mut Vec<u8> {
        if self.done {
            &mut passed.terminal
        } else {
            &mut passed.now
        }
    }

    fn complete(&mut self) {
        self.done = true;
        self.notes.complete();
    }

    /// Reads the document of a block, and lets out the block with what may leave of its text.
    fn document(
        &mut self,
        block: &Block,
        data: &str,
        values: &[(usize, String)],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        if self.tail.is_empty()
            && !self.done
            && let Some(like) = self.like.take()
            && let Some(text) = like.text(data)
        {
            let out = self.say(&like.channel, text, like.json, filter)?;
            let new = (out != text).then(|| {
                let mut new = String::with_capacity(data.len() + out.len());
                new.push_str(&like.before);
                json::escape_into(&mut new, &out);
                new.push_str(&like.behind);
                new
            });
            let (_, block) = block.encoded(new.as_deref(), values, &[]);
            passed.now.extend_from_slice(block.as_bytes());
            self.fate = Fate::Left;
            self.like = Some(like);
            return Ok(());
        }
        let document = Document::read(data)?;
        if self.sentinel || self.done {
            return Err(unknown_shape(
                "the stream goes on behind its terminal event",
            ));
        }
        let event = self.protocol.event(&document)?;
        let ended = event.terminal || !self.tail.is_empty();
        passed.now.append(&mut self.tail);
        let texts = Texts::find(&document, event.fields)?;
        // What was said bit by bit is over before an event repeats it whole.
        let mut carriers = if P::REPEATS {
            self.end(&event.ends, filter, &mut BTreeMap::new())
        } else {
            Vec::new()
        };
        let mut edits = texts.edits(data, filter, &mut self.said)?;
        edits.extend(event.edits);
        self.protocol.note(&document, &mut self.notes, filter);
        self.notes.unscanned(&texts.unscanned);
        let held = event.signed != Signed::No && filter.masks();
        let mut pieces = BTreeMap::new();
        for slot in &texts.slots {
            if held {
                self.signed.take(slot, data);
            } else if let Some(text) = self.piece(slot, data, filter)? {
                pieces
                    .entry(slot.channel.clone())
                    .or_insert_with(Vec::new)
                    .push((slot.span, text));
            }
        }
        if !held && edits.is_empty() && event.ends.is_empty() && !event.terminal {
            self.like = like(data, &texts);
        }
        texts.drop_annotations(&self.doubtful(), &mut edits);
        carriers.extend(self.end(&event.ends, filter, &mut pieces));
        edits.extend(changed_pieces(data, &texts, pieces));
        let new = (!edits.is_empty()).then(|| json::splice(data, edits));
        let (before, block) = block.encoded(new.as_deref(), values, &carriers);
        self.out(passed).extend_from_slice(before.as_bytes());
        if ended && P::GOES_ON {
            self.tail.extend_from_slice(block.as_bytes());
            return Ok(());
        }
        if event.terminal {
            self.complete();
        }
        self.fate = if held {
            self.signed.hold(block.as_bytes());
            match event.signed {
                Signed::Last => self.decide(filter, passed),
                _ => Fate::Held,
            }
        } else {
            self.out(passed).extend_from_slice(block.as_bytes());
            Fate::Left
        };
        Ok(())
    }

    /// Lets out what is signed where nothing in it must be masked, and drops it where something must.
    fn decide(&mut self, filter: &mut dyn TextFilter, passed: &mut Passed) -> Fate {
        let Quarantine {
            channel,
            text,
            events,
            overflowed,
        } = std::mem::take(&mut self.signed);
        if overflowed || filter.part(&text) != text {
            self.protocol.dropped();
            return Fate::Dropped;
        }
        whole(filter, &channel, &text);
        self.out(passed).extend_from_slice(&events);
        Fate::Left
    }

    /// The choices whose text is not what it was, or may yet not be.
    fn doubtful(&mut self) -> Vec<u32> {
        let changed = self.open.iter().filter(|(_, open)| open.changed);
        self.changed
            .extend(changed.map(|(channel, _)| channel.choice));
        let pending = self
            .open
            .iter()
            .filter(|(_, open)| !open.pending.is_empty());
        let pending = pending.map(|(channel, _)| channel.choice);
        self.changed.iter().copied().chain(pending).collect()
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
        let text = leaf.text(data, slot.span);
        self.say(&slot.channel, text, json, filter).map(Some)
    }

    /// The next piece of a text: what may leave in its place.
    fn say(
        &mut self,
        channel: &Channel,
        text: &str,
        json: bool,
        filter: &mut dyn TextFilter,
    ) -> Result<String, ShapeError> {
        if !self.open.contains_key(channel) {
            if self.ended.contains(channel) {
                return match text {
                    "" => Ok(String::new()),
                    _ => Err(unknown_shape("a text goes on behind its end")),
                };
            }
            if self.open.len() >= MAX_CHANNELS {
                return Err(too_many_channels("the stream has too many texts at once"));
            }
            self.open.insert(channel.clone(), Open::default());
        }
        let Some(open) = self.open.get_mut(channel) else {
            return Ok(String::new());
        };
        if self.said.remembers() {
            open.said.get_or_insert_default().update(text);
        }
        let out = if json {
            open.arguments
                .get_or_insert_default()
                .push(text, channel, filter)?
        } else {
            let out = filter.push(channel, text);
            open.compare(text, &out);
            out
        };
        Ok(out)
    }

    /// Ends texts. What was held goes to the end of its text in this document, or into documents before it.
    fn end(
        &mut self,
        ends: &[Ends],
        filter: &mut dyn TextFilter,
        pieces: &mut BTreeMap<Channel, Vec<(Span, String)>>,
    ) -> Vec<Carrier> {
        let ended = |channel: &&Channel| ends.iter().any(|ends| ends.channel(channel));
        let ended: Vec<Channel> = self.open.keys().filter(ended).cloned().collect();
        let mut carriers = Vec::new();
        for channel in ended {
            let rest = self.end_one(&channel, filter);
            let here = pieces
                .get_mut(&channel)
                .and_then(|pieces| pieces.last_mut());
            match here {
                Some((_, text)) => text.push_str(&rest),
                None if rest.is_empty() => {}
                None => carriers.push(self.protocol.carrier(&channel, &rest)),
            }
        }
        carriers
    }

    fn end_all(&mut self, filter: &mut dyn TextFilter) -> Vec<Carrier> {
        self.end(&[Ends::All], filter, &mut BTreeMap::new())
    }

    fn end_one(&mut self, channel: &Channel, filter: &mut dyn TextFilter) -> String {
        let Some(open) = self.open.remove(channel) else {
            return String::new();
        };
        self.ended.insert(channel.clone());
        if let Some(said) = open.said {
            self.said.note(said);
        }
        let (changed, rest) = match open.arguments {
            Some(mut arguments) => (false, arguments.finish(channel, filter)),
            None => {
                let rest = filter.finish(channel);
                (open.changed || rest != open.pending, rest)
            }
        };
        if changed {
            self.changed.insert(channel.choice);
        }
        rest
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
            let masked = filter.word(field.value);
            out.extend(masked.map(|masked| (number, format!("{}: {masked}", field.name))));
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

pub(super) fn unknown_shape(reason: &str) -> ShapeError {
    ShapeError::new("unknown_shape", reason.to_owned())
}

pub(super) fn too_many_channels(reason: &str) -> ShapeError {
    ShapeError::new("too_many_channels", reason.to_owned())
}
