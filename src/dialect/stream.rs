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

mod channels;
mod like;
mod signed;
mod waiting;

use std::{mem, sync::Arc};

pub(super) use self::channels::Ends;
use self::{
    channels::Channels,
    like::{Found, Hole, Like, Seen},
    signed::Quarantine,
    waiting::{Pieces, Waiting, rewritten},
};
use super::{
    Channel, Passed, ResponseBody, ResponseFacts, Selection, ShapeError, TextFilter,
    framing::{Block, Carrier, Framing},
    json::{self, Document, Span},
    notes::Notes,
    sse::is_done,
    texts::{FILLER, Fields, Texts, What, is_token},
};

/// Texts of one answer that may be open at once, and the bound on an index: more is `too_many_channels`.
pub(super) const MAX_CHANNELS: usize = 1024;

/// What a dialect knows of its streams. One value per stream.
pub(super) trait Protocol: Send + std::fmt::Debug {
    /// Whether later events repeat whole what earlier ones said bit by bit.
    const REPEATS: bool = false;
    /// Whether more documents may follow the terminal one. Then it waits for the next one, and the last of all is the
    /// one that tells the client that the answer is whole.
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

    /// What is signed or encrypted will be taken out: events of blocks that may have such a thing are [`Signed`] too.
    fn strips(&mut self) {}

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
    /// The texts that end with it unless the next document goes on with them. It then waits for that one.
    pub(super) may_end: Vec<Ends>,
    /// It tells the client that the answer is whole.
    pub(super) terminal: bool,
    /// Whether it is part of something signed.
    pub(super) signed: Signed,
    /// Nothing rests on it: where it has something that must not leave, it need not leave.
    pub(super) optional: bool,
    /// What must change in it besides its texts.
    pub(super) edits: Vec<(Span, String)>,
}

impl Event {
    /// An event with texts and nothing special.
    pub(super) fn of(fields: &'static dyn Fields) -> Self {
        Self {
            fields,
            ends: Vec::new(),
            may_end: Vec::new(),
            terminal: false,
            signed: Signed::No,
            optional: false,
            edits: Vec::new(),
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
    channels: Channels,
    signed: Quarantine,
    /// What became of the last block that was not blank: the LF of a cut CRLF goes where its CR went.
    fate: Fate,
    /// The last document, where the next one tells what becomes of it.
    waiting: Option<Waiting>,
    /// A terminal document came, behind which there may be others.
    late: bool,
    /// What the next document may be like.
    like: Option<Like>,
    selection: Arc<Selection>,
    /// Room for a text, for what leaves in its place, and for a block.
    room: (String, String, Vec<u8>),
    /// The terminal document came.
    done: bool,
    /// `[DONE]` came.
    sentinel: bool,
    /// Why no more is read.
    fault: Option<ShapeError>,
    notes: Notes,
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
            .field("open", &self.channels.open())
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> ResponseBody for Stream<P> {
    fn incremental(&self) -> bool {
        true
    }

    fn select(&mut self, selection: &Arc<Selection>) {
        self.selection = selection.clone();
        if selection.strips() {
            self.protocol.strips();
        }
    }

    fn read(
        &mut self,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        self.refuse_after_fault()?;
        let before = passed.now.len() + passed.terminal.len();
        // Blocks are read where they stand in the framing.
        let mut framing = mem::take(&mut self.framing);
        framing.push(bytes);
        let read = self.blocks(&mut framing, filter, passed);
        self.framing = framing;
        let Err(fault) = read else {
            return Ok(());
        };
        self.fault = Some(fault);
        // What passed before is as good as if it had come by itself.
        if before == passed.now.len() + passed.terminal.len() {
            return self.refuse_after_fault();
        }
        Ok(())
    }

    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.refuse_after_fault()?;
        self.catch_up(filter)?;
        let mut passed = Passed::default();
        let mut framing = mem::take(&mut self.framing);
        if framing.rest()? {
            self.block(framing.block()?, filter, &mut passed)?;
        }
        if !self.done {
            let mut last = self.waiting.take();
            let mut none = Pieces::new();
            let pieces = last.as_mut().map_or(&mut none, |last| &mut last.pieces);
            let carriers = self.end(&[Ends::All], &|_| false, filter, pieces);
            let mut block = Vec::new();
            match last {
                Some(mut last) => {
                    last.carriers.extend(carriers);
                    last.write(&mut passed.now, &mut block);
                }
                None => block.extend_from_slice(framing.loose(&carriers).as_bytes()),
            }
            if self.late {
                self.complete();
                passed.terminal = block;
            } else {
                passed.now.extend(block);
            }
        }
        self.framing = framing;
        Ok(passed)
    }

    fn facts(&self) -> &ResponseFacts {
        self.notes.facts()
    }

    fn held(&self) -> usize {
        let signed = self.signed.events.len() + self.signed.text.len();
        let like = self.like.as_ref().map_or(0, Like::held);
        let waiting = self.waiting.as_ref().map_or(0, Waiting::held);
        self.framing.held() + self.channels.held() + signed + waiting + like
    }
}

impl<P: Protocol> Stream<P> {
    pub(super) fn new(protocol: P, framing: Framing) -> Self {
        Self {
            protocol,
            framing,
            channels: Channels::new(P::REPEATS),
            signed: Quarantine::default(),
            fate: Fate::Left,
            waiting: None,
            late: false,
            like: None,
            selection: Arc::default(),
            room: Default::default(),
            done: false,
            sentinel: false,
            fault: None,
            notes: Notes::default(),
        }
    }

    fn refuse_after_fault(&self) -> Result<(), ShapeError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Reads all blocks that have come.
    fn blocks(
        &mut self,
        framing: &mut Framing,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        loop {
            match (self.like.take(), framing.unread()) {
                (None, _) => {}
                (like, None) => {
                    self.like = like;
                    self.catch_up(filter)?;
                }
                (Some(like), Some(bytes)) => match self.alike(like, bytes, filter, passed)? {
                    None => {}
                    Some(0) => return Ok(()),
                    Some(length) => {
                        framing.skip(length);
                        continue;
                    }
                },
            }
            if !framing.advance()? {
                return Ok(());
            }
            self.block(framing.block()?, filter, passed)?;
        }
    }

    /// Reads a block that is like the one before it, and returns how long it is: 0 where more bytes must tell, `None`
    /// where it is not.
    fn alike(
        &mut self,
        mut like: Like,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<Option<usize>, ShapeError> {
        let found = match like.read(bytes) {
            Seen::Partial => {
                self.like = Some(like);
                return Ok(Some(0));
            }
            Seen::Alike(found) if self.is_readable(&like, &found, bytes, filter) => found,
            Seen::Alike(_) | Seen::Other => {
                self.like = Some(like);
                self.catch_up(filter)?;
                return Ok(None);
            }
        };
        let (mut text, mut out, room) = mem::take(&mut self.room);
        out.clear();
        let channels = &mut self.channels;
        channels.say(&like.channel, &text, like.json, filter, &mut out)?;
        let (changed, masks) = (out != text, filter.masks());
        if changed {
            text.clear();
            json::escape_into(&mut text, &out);
        }
        let block = bytes.get(..found.length).unwrap_or_default();
        like.write(
            &found,
            block,
            &mut passed.now,
            |hole, inside, to| match hole {
                Hole::Text if changed => to.extend_from_slice(text.as_bytes()),
                Hole::Padding if masks => to.extend(inside.iter().map(|_| FILLER)),
                _ => to.extend_from_slice(inside),
            },
        );
        like.keep(block);
        self.fate = Fate::Left;
        self.like = Some(like);
        self.room = (text, out, room);
        Ok(Some(found.length))
    }

    /// Reads the text of a block that was found, decoded, into the room for it. `false` where the block must be read
    /// the long way, which also says what is wrong with it.
    fn is_readable(
        &mut self,
        like: &Like,
        found: &Found,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
    ) -> bool {
        let text = &mut self.room.0;
        like.holes(found, bytes).all(|(hole, inside)| match hole {
            Hole::Number => true,
            Hole::Word => like::word(inside).is_some_and(|word| filter.word(word).is_none()),
            Hole::Padding => !inside.contains(&b'\\') && std::str::from_utf8(inside).is_ok(),
            Hole::Text => {
                text.clear();
                let inside = std::str::from_utf8(inside).ok();
                inside.is_some_and(|inside| json::unescape_into(text, inside).is_some())
            }
        })
    }

    /// Takes over what the last document that was like the one before it says of itself.
    fn catch_up(&mut self, filter: &mut dyn TextFilter) -> Result<(), ShapeError> {
        if let Some(like) = self.like.take()
            && let Some(last) = like.told()
        {
            let document = Document::read(last)?;
            self.protocol.note(&document, &mut self.notes, filter);
        }
        Ok(())
    }

    /// Reads one block and lets out what may leave of it.
    fn block(
        &mut self,
        block: Block<'_>,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        let lines = lines(&block, filter);
        match block.data() {
            Some(data) if is_done(&data) && !self.sentinel => self.sentinel = true,
            Some(_) => return self.document(block, lines, filter, passed),
            None if block.is_end() => {}
            None => {
                if block.fields().next().is_some() {
                    self.fate = Fate::Left;
                }
                let mut bytes = Vec::new();
                block.encode(None, &lines, &[], &mut Vec::new(), &mut bytes);
                match (&mut self.waiting, self.fate) {
                    (Some(waiting), _) => waiting.behind.extend(bytes),
                    (None, Fate::Left) => self.out(passed).extend(bytes),
                    (None, Fate::Held) => self.signed.hold(&bytes),
                    (None, Fate::Dropped) => {}
                }
                return Ok(());
            }
        }
        self.fate = Fate::Left;
        self.settle(&|_| false, filter, passed);
        let carriers = self.end_all(filter);
        self.complete();
        let Passed { now, terminal } = passed;
        block.encode(None, &lines, &carriers, now, terminal);
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

    /// Lets out the document that waits, now that it is known which texts go on.
    fn settle(
        &mut self,
        goes_on: &dyn Fn(&Channel) -> bool,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) {
        let Some(mut waiting) = self.waiting.take() else {
            return;
        };
        let carriers = self.end(&waiting.ends, goes_on, filter, &mut waiting.pieces);
        waiting.carriers.extend(carriers);
        let mut block = Vec::new();
        waiting.write(&mut passed.now, &mut block);
        passed.now.extend(block);
    }

    /// Reads the document of a block, and lets out the block with what may leave of its text.
    fn document(
        &mut self,
        block: Block<'_>,
        lines: Vec<(usize, String)>,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        let data = block.data().unwrap_or_default();
        let document = Document::read(&data)?;
        if self.sentinel || self.done {
            return Err(unknown_shape(
                "the stream goes on behind its terminal event",
            ));
        }
        let event = self.protocol.event(&document)?;
        let mut texts = Texts::find(&document, event.fields)?;
        // A block that is signed goes whole; elsewhere it must be possible to take out what is.
        let strips = self.selection.strips();
        if let Err(fault) = self.selection.admit(&data, &mut texts) {
            match (event.signed, event.optional) {
                _ if !strips => return Err(fault),
                (Signed::No, false) => return Err(fault),
                (Signed::No, true) => {
                    self.note_unscanned(&texts);
                    self.fate = Fate::Dropped;
                    return Ok(());
                }
                _ => self.signed.doom(),
            }
        }
        texts.select(&document, &self.selection);
        self.settle(&|channel| texts.goes_on(&data, channel), filter, passed);
        // What was said bit by bit is over before an event repeats it whole.
        let mut carriers = if P::REPEATS {
            self.end(&event.ends, &|_| false, filter, &mut Pieces::new())
        } else {
            Vec::new()
        };
        let mut edits = texts.edits(&data, filter, &mut self.channels.said)?;
        self.protocol.note(&document, &mut self.notes, filter);
        self.note_unscanned(&texts);
        let held = event.signed != Signed::No && (filter.masks() || strips);
        let mut pieces = self.pieces(&texts, &data, held, filter)?;
        self.late |= event.terminal && P::GOES_ON;
        let ends = event.terminal || !event.ends.is_empty() || !event.may_end.is_empty();
        let still = event.edits.is_empty() && lines.is_empty() && texts.only_pads(&edits);
        // What waits must not be overtaken.
        if still && !held && !ends && !self.late {
            let place = block.place();
            self.like = place.and_then(|place| Like::of(&document, &texts, place));
        }
        edits.extend(event.edits);
        texts.drop_annotations(&self.channels.doubtful(), &mut edits);
        carriers.extend(self.end(&event.ends, &|_| false, filter, &mut pieces));
        if self.late || self.channels.waits_for(&event.may_end) {
            let data = data.into_owned();
            self.waiting = Some(Waiting {
                block: block.into_owned(),
                data,
                lines,
                edits,
                pieces,
                carriers,
                ends: event.may_end,
                behind: Vec::new(),
            });
            return Ok(());
        }
        let new = rewritten(&data, edits, pieces);
        let mut bytes = mem::take(&mut self.room.2);
        bytes.clear();
        block.encode(
            new.as_deref(),
            &lines,
            &carriers,
            self.out(passed),
            &mut bytes,
        );
        if event.terminal {
            self.complete();
        }
        self.fate = if held {
            self.signed.hold(&bytes);
            match event.signed {
                Signed::Last => self.decide(filter, passed),
                _ => Fate::Held,
            }
        } else {
            self.out(passed).extend_from_slice(&bytes);
            Fate::Left
        };
        self.room.2 = bytes;
        Ok(())
    }

    fn note_unscanned(&mut self, texts: &Texts) {
        self.notes.unscanned(&texts.unscanned);
        let stripped = self.selection.stripped(&texts.unscanned);
        self.notes.stripped(&stripped);
    }

    /// Lets out what is signed where nothing in it must be masked, and drops it where something must.
    fn decide(&mut self, filter: &mut dyn TextFilter, passed: &mut Passed) -> Fate {
        let Quarantine {
            channel,
            text,
            events,
            doomed,
        } = mem::take(&mut self.signed);
        if doomed || filter.part(&text) != text {
            self.protocol.dropped();
            return Fate::Dropped;
        }
        if !text.is_empty() {
            filter.whole(&channel, &text);
        }
        self.out(passed).extend_from_slice(&events);
        Fate::Left
    }

    /// Hands the pieces of texts to the filter: what may leave in their places. What is held is kept for later instead.
    fn pieces(
        &mut self,
        texts: &Texts,
        data: &str,
        held: bool,
        filter: &mut dyn TextFilter,
    ) -> Result<Pieces, ShapeError> {
        let mut pieces = Pieces::new();
        for slot in &texts.slots {
            let (leaf, json) = match &slot.what {
                What::Piece(leaf) => (leaf, false),
                What::ArgumentsPiece(leaf) => (leaf, true),
                What::NumberPiece(_) => {
                    self.channels.number(&slot.channel)?;
                    continue;
                }
                _ => continue,
            };
            if held {
                self.signed.take(slot, data);
                continue;
            }
            let mut out = String::new();
            let text = leaf.text(data, slot.span);
            let channels = &mut self.channels;
            channels.say(&slot.channel, text, json, filter, &mut out)?;
            let channel = pieces.entry(slot.channel.clone()).or_default();
            channel.push((slot.span, out));
        }
        Ok(pieces)
    }

    /// Ends texts: documents of ours for what was held of them and has no place in a document that came.
    fn end(
        &mut self,
        ends: &[Ends],
        goes_on: &dyn Fn(&Channel) -> bool,
        filter: &mut dyn TextFilter,
        pieces: &mut Pieces,
    ) -> Vec<Carrier> {
        let left = self.channels.end(ends, goes_on, filter, pieces);
        let carrier = |(channel, rest): &(Channel, String)| self.protocol.carrier(channel, rest);
        left.iter().map(carrier).collect()
    }

    fn end_all(&mut self, filter: &mut dyn TextFilter) -> Vec<Carrier> {
        self.end(&[Ends::All], &|_| false, filter, &mut Pieces::new())
    }
}

/// New text for the lines of a block that are not data: comments, ids and what a client ignores carry text too.
fn lines(block: &Block<'_>, filter: &mut dyn TextFilter) -> Vec<(usize, String)> {
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
        let masked = filter.whole(&channel, text);
        if masked != text {
            // A line that no client reads becomes a comment: without what was masked it might become one that is read.
            let name = if named { field.name } else { "" };
            out.push((number, format!("{name}: {masked}")));
        }
    }
    out
}

pub(super) fn unknown_shape(reason: &str) -> ShapeError {
    ShapeError::new("unknown_shape", reason.to_owned())
}

pub(super) fn too_many_channels(reason: &str) -> ShapeError {
    ShapeError::new("too_many_channels", reason.to_owned())
}
